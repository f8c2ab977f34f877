"""The command line and its steps: files, schedules and MLflow runs around the two leaf packages."""
