"""Log formats that ingest reads: one file a format, each a function from lines to canonical columns."""
