"""The HTTP service: forecasts, routes and plans from the registry's champions and the current plan."""
