"""Requests batch by batch in time order, so that memory grows with a batch and never with the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.errors import TableError
from pipelines.coding import in_utc, instants
from pipelines.jobs import iso
from pipelines.store import known_requests, parquet_batches, request_columns, request_files

BATCH_ROWS = 128 * 1024


def request_batches(
    folder: Path,
    columns: list[str],
    *,
    start_us: int | None = None,
    before_us: int | None = None,
    rows: int = BATCH_ROWS,
) -> Iterator[pa.Table]:
    """What `read_requests` reads, in batches of at most so many rows.

    Args:
        folder: the tables.
        columns: which columns.
        start_us: leave out requests before this instant.
        before_us: leave out requests at or after this instant, and earlier ones that became known only later.
        rows: most rows of a batch.

    Raises:
        TableError: no requests, a damaged file, a column that is not there, or requests that are not in time order:
            what has been handed on cannot be sorted any more.
    """
    previous_us = None
    for path in request_files(folder, start_us=start_us, before_us=before_us):
        row = 0
        for batch in parquet_batches(path, "requests", columns=request_columns(path, columns), rows=rows):
            table = _in_utc(pa.Table.from_batches([batch]))
            ts_us = instants(table["ts"])
            _refuse_disorder(path, ts_us, row, previous_us)
            row += len(table)
            previous_us = int(ts_us[-1]) if len(ts_us) else previous_us
            keep = known_requests(table, start_us, before_us)
            if keep is not None and not keep.all():
                table = table.filter(pa.array(keep))
            if len(table):
                yield table.select(columns)


def _in_utc(table: pa.Table) -> pa.Table:
    for column in (c for c in ("ts", "available_at") if c in table.column_names):
        place = table.column_names.index(column)
        table = table.set_column(place, column, in_utc(table[column], "requests", column))
    return table


def _refuse_disorder(
    path: Path, ts_us: np.ndarray[tuple[int], np.dtype[np.int64]], row: int, last_us: int | None
) -> None:
    """Names the first row of a batch, which begins at row `row` of the file, that lies before the one ahead of it."""
    before = np.concatenate((ts_us[:1] if last_us is None else [last_us], ts_us[:-1]))
    late = np.flatnonzero(ts_us < before)
    if len(late):
        at = int(late[0])
        raise TableError(
            "requests",
            [
                f"{str(path)!r} is not in time order: row {row + at} is of {iso(int(ts_us[at]))}, after "
                f"{iso(int(before[at]))}. Run `premirror ingest` again, which sorts requests, or sort the file by `ts`."
            ],
        )
