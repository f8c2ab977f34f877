"""Traces of the caching field: libCacheSim's CSV and its oracleGeneral binary, 24 bytes a request.

    time uint32 | object id uint64 | size uint32 | next access int64         little-endian

Time is seconds; traces often start at zero, which then stands for 1970. Traces name no user and no place, so `location`
must be stated, and every object is a content.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.tables import INSTANT
from pipelines.errors import InputError
from pipelines.formats.canonical import csv_rows
from pipelines.formats.instants import numbers_to_instants
from pipelines.formats.lines import open_bytes
from pipelines.formats.reading import Reading
from pipelines.formats.records import read_records
from pipelines.formats.settings import InputSettings

RECORD = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
_BLOCK_RECORDS = 1 << 20
_MEANING = {"ts": "time", "content": "id", "bytes": "size"}


def read_oracle_general(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one oracleGeneral file.

    Raises:
        InputError: no location is stated, or the file does not hold whole records.
    """
    _need_location(path, settings)
    first = 1
    try:
        with open_bytes(path) as file:
            while block := file.read(_BLOCK_RECORDS * RECORD.itemsize):
                if len(block) % RECORD.itemsize:
                    raise InputError(
                        f"{str(path)!r} ends within a record of {RECORD.itemsize} bytes: it is cut short or of another "
                        "format. Copy it again, or check `format`."
                    )
                records = np.frombuffer(block, RECORD)
                yield _reading(records, first, settings)
                first += len(records)
    except (OSError, EOFError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). Copy it again, or leave it out.") from None


def read_libcachesim_csv(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one libCacheSim CSV file with the columns time, id, size (`columns` says where they differ).

    Raises:
        InputError: no location is stated, a column is missing, or the file cannot be read.
    """
    _need_location(path, settings)
    rows = csv_rows(path)
    meaning = _MEANING | settings.columns
    missing = [name for name in meaning.values() if name not in rows.table.column_names]
    if missing:
        there = ", ".join(rows.table.column_names)
        raise InputError(f"{str(path)!r} lacks the columns {', '.join(missing)}; it has {there}.")
    fields = {role: rows.table[name].combine_chunks() for role, name in meaning.items()}
    fields["ts"] = numbers_to_instants(fields["ts"], settings.ts_unit or "s")
    text = rows.table[meaning["ts"]].combine_chunks()
    yield read_records(fields, rows.line, text, rows.broken, settings)


def _reading(records: np.ndarray[tuple[int], np.dtype[np.void]], first: int, settings: InputSettings) -> Reading:
    instants = pa.array(records["time"].astype(np.int64) * 1_000_000).cast(INSTANT)
    table = pa.table(
        {
            "ts": instants,
            "content": pa.array(records["id"]).cast(pa.string()),
            "location": pa.repeat(settings.location, len(records)),
            "bytes": pa.array(records["size"].astype(np.int64)),
        }
    )
    return Reading(table, np.arange(first, first + len(records), dtype=np.int64))


def _need_location(path: Path, settings: InputSettings) -> None:
    if not settings.location:
        raise InputError(f"{str(path)!r} is a trace without places. State `location` for this input.")
