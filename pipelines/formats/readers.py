"""Which reader reads which format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.formats.access_log import read_combined
from pipelines.formats.canonical import read_csv_requests, read_parquet_requests
from pipelines.formats.cloudfront import read_cloudfront
from pipelines.formats.json_lines import read_json_lines
from pipelines.formats.libcachesim import read_libcachesim_csv, read_oracle_general
from pipelines.formats.reading import Reading
from pipelines.formats.settings import Format, InputSettings
from pipelines.formats.w3c import read_w3c

READERS: dict[Format, Callable[[Path, InputSettings], Iterator[Reading]]] = {
    "parquet": read_parquet_requests,
    "csv": read_csv_requests,
    "cloudfront": read_cloudfront,
    "combined": read_combined,
    "json_lines": read_json_lines,
    "w3c": read_w3c,
    "libcachesim_csv": read_libcachesim_csv,
    "oracle_general": read_oracle_general,
}
