"""Tables that are canonical already, as Parquet or CSV, up to the names of their columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from models.tables import INSTANT, schema_of
from pipelines.errors import InputError
from pipelines.formats.instants import NO_INSTANT, NO_ZONE, numbers_to_instants, parse_instants
from pipelines.formats.lines import open_bytes
from pipelines.formats.places import read_places
from pipelines.formats.reading import Bool, Broken, Int64, Reading, to_bool
from pipelines.formats.settings import InputSettings
from pipelines.store import read_parquet

_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


@dataclass(frozen=True)
class Rows:
    """Rows of a CSV file, all columns as text, with their numbers (the head is row 1)."""

    table: pa.Table
    line: Int64
    broken: Broken


def read_parquet_requests(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one Parquet file.

    Raises:
        TableError: the file is damaged.
    """
    yield parquet_reading(path, "requests", settings)


def read_csv_requests(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one CSV file.

    Raises:
        InputError: the file cannot be read.
    """
    yield csv_reading(path, "requests", settings)


def parquet_reading(path: Path, name: str, settings: InputSettings) -> Reading:
    """One Parquet file of any canonical table."""
    table = _renamed(read_parquet(path, name), settings)
    for column, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_timestamp(kind) and kind.tz is None and settings.timezone:
            zoned = pc.assume_timezone(table[column], settings.timezone, ambiguous="earliest", nonexistent="earliest")
            table = _put(table, column, zoned.cast(INSTANT))
        elif column == "ts" and settings.ts_unit and not pa.types.is_timestamp(kind):
            table = _put(table, column, numbers_to_instants(table[column], settings.ts_unit))
    table = _with_places(table, name, settings)
    return Reading(table, np.arange(1, len(table) + 1, dtype=np.int64))


def csv_reading(path: Path, name: str, settings: InputSettings) -> Reading:
    """One CSV file of any canonical table: text becomes what the table's schema says."""
    rows = csv_rows(path)
    raw = _renamed(rows.table, settings)
    table, keep = raw, np.ones(len(raw), dtype=np.bool_)
    for column in schema_of(name).columns:
        if column.name not in raw.column_names:
            continue
        values, faults = _typed(column.name, raw[column.name], column.type, settings)
        table = _put(table, column.name, values)
        for reason, fault in faults.items():
            bad = fault & keep
            rows.broken.add(rows.line[bad], _as_lines(raw, bad), reason)
            keep &= ~bad
    table = _with_places(table, name, settings)
    return Reading(table if keep.all() else table.filter(pa.array(keep)), rows.line[keep], rows.broken)


def csv_rows(path: Path) -> Rows:
    """All rows of a CSV file as text; rows with another number of fields than the head are broken.

    Raises:
        InputError: the file is empty, has no head, or cannot be read.
    """
    try:
        with open_bytes(path) as file:
            data = file.read()
        names = next(csv.reader(io.StringIO(data[: 1 << 20].decode("utf-8-sig", "replace"))), [])
        if not names:
            raise InputError(f"{str(path)!r} is empty. Give at least a head and one row, or leave it out.")
        return _parsed(data, names)
    except (pa.ArrowInvalid, OSError, EOFError, csv.Error) as error:
        raise InputError(f"{str(path)!r} cannot be read as CSV ({error}). Write or copy it again.") from None


def _parsed(data: bytes, names: list[str]) -> Rows:
    broken = Broken()

    def set_aside(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"the row has {row.actual_columns} fields, the head has {row.expected_columns}"
        broken.add(np.array([row.number]), [row.text], reason)
        return "skip"

    table = pyarrow.csv.read_csv(
        io.BytesIO(data),
        # Row numbers are known only when one thread reads.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=set_aside),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    numbers = np.arange(2, 2 + len(table) + len(broken), dtype=np.int64)
    return Rows(table, np.setdiff1d(numbers, np.array(broken.line, dtype=np.int64)), broken)


def _typed(
    name: str, values: pa.ChunkedArray, target: pa.DataType, settings: InputSettings
) -> tuple[pa.Array | pa.ChunkedArray, dict[str, Bool]]:
    present = to_bool(pc.is_valid(values))
    if pa.types.is_timestamp(target):
        instants, naive = parse_instants(values, settings)
        bad = present & to_bool(pc.is_null(instants))
        return instants, {
            NO_ZONE.replace("ts", name, 1): bad & naive,
            NO_INSTANT.replace("ts", name, 1): bad & ~naive,
        }
    if pa.types.is_string(target):
        return values, {}
    typed = _number_or_truth(values, target)
    return typed, {f"{name} cannot be read as {target}": present & to_bool(pc.is_null(typed))}


def _number_or_truth(values: pa.ChunkedArray, target: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_boolean(target):
        lowered = pc.utf8_lower(values)
        known = pc.index_in(lowered, value_set=pa.array(list(_TRUTH)))
        return pa.chunked_array([pa.array(list(_TRUTH.values()))]).take(known)
    pattern = r"^[+-]?\d{1,18}$" if pa.types.is_integer(target) else r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
    number = pc.match_substring_regex(values, pattern)
    kept = pc.if_else(number, values, pa.scalar(None, pa.string()))
    return kept.cast(pa.int64() if pa.types.is_integer(target) else target)


def _renamed(table: pa.Table, settings: InputSettings) -> pa.Table:
    missing = sorted({name for name in settings.columns.values() if name not in table.column_names})
    if missing:
        there = ", ".join(table.column_names)
        raise InputError(
            f"{settings.path!r} lacks the columns {', '.join(missing)} that `columns` names; it has {there}."
        )
    new_names = {old: new for new, old in settings.columns.items()}
    return table.rename_columns([new_names.get(name, name) for name in table.column_names])


def _with_places(table: pa.Table, name: str, settings: InputSettings) -> pa.Table:
    if name != "requests" or not (settings.location or settings.location_map or settings.location_prefix_length):
        return table
    field = table["location"] if "location" in table.column_names else None
    return _put(table, "location", read_places(field, len(table), settings))


def _put(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)


def _as_lines(table: pa.Table, rows: Bool) -> list[str]:
    return [",".join("" if v is None else v for v in row.values()) for row in table.filter(pa.array(rows)).to_pylist()]
