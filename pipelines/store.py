"""Reads and writes the canonical tables of one folder.

`<folder>/requests/day=YYYY-MM-DD/part-0.parquet` in time order, every other table as `<folder>/<table>.parquet`, and
`<folder>/world.json` where the tables come from a world. A folder is written beside its place and moved there in one
step, so that a kill at any instant leaves the old tables or the new ones. The same tables give the same bytes.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.errors import TableError
from models.events import DAY_US, NEVER_US, Catalogue, RequestLog
from models.observation import with_gaps_found
from models.tables import INSTANT
from pipelines.coding import catalogue as catalogue_of
from pipelines.coding import in_utc, instants, request_log
from pipelines.staging import staged_folder

_ROW_GROUP_ROWS = 512 * 1024


def write_tables(folder: Path, tables: Mapping[str, pa.Table], *, world: dict[str, Any] | None = None) -> None:
    """Replaces the folder by these tables, all at once or not at all.

    Args:
        folder: where the tables live; whatever it held is replaced.
        tables: by name; requests are sorted by `ts` (equal instants keep their order) and split by UTC day.
        world: what `world.json` says, where the tables come from a world.

    Raises:
        OutputError: the place cannot be written.
    """
    with staged_folder(folder) as staging:
        for name, table in tables.items():
            write_into(staging, name, table)
        if world is not None:
            write_world(staging, world)


def write_into(folder: Path, name: str, table: pa.Table) -> None:
    """Writes one table into a folder that nobody reads yet."""
    if name != "requests":
        write_parquet(folder / f"{name}.parquet", table)
        return
    table = in_time_order(table)
    days = instants(table["ts"]) // DAY_US
    bounds = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    parts = {
        dt.date(1970, 1, 1) + dt.timedelta(days=int(days[start])): table.slice(int(start), int(end - start))
        for start, end in zip(bounds, np.append(bounds[1:], len(days)), strict=True)
    }
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(lambda day: _write_day(folder, day, parts[day]), parts))


def _write_day(folder: Path, day: dt.date, requests: pa.Table) -> None:
    part = folder / "requests" / f"day={day.isoformat()}"
    part.mkdir(parents=True, exist_ok=True)
    write_parquet(part / "part-0.parquet", _plain(requests.combine_chunks()))


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary-encoded text as text: a day's file needs few of the ids that the whole log's dictionary holds."""
    for position, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(position, column.name, table[column.name].cast(column.type.value_type))
    return table


def write_parquet(path: Path, table: pa.Table) -> None:
    """One Parquet file whose bytes depend on nothing but the table; dictionary-encoded text is read back as text."""
    # Pseudonyms and instants hardly repeat within a page: a dictionary for them costs time and saves nothing.
    wide = [f.name for f in table.schema if pa.types.is_timestamp(f.type)]
    repeating = [name for name in table.column_names if name not in ("user", "session", *wide)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=1,
        row_group_size=_ROW_GROUP_ROWS,
        use_dictionary=repeating,
        column_encoding=dict.fromkeys(wide, "DELTA_BINARY_PACKED"),
        write_statistics=[f.name for f in table.schema if not _is_text(f.type)],  # least and greatest id help nobody
        store_schema=False,
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))


def write_world(folder: Path, world: Mapping[str, Any]) -> None:
    """Writes `world.json` into a folder that nobody reads yet."""
    text = json.dumps(world, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / "world.json").write_text(text + "\n", encoding="utf-8")


def in_time_order(requests: pa.Table) -> pa.Table:
    """Sorted by `ts`; equal instants keep their order."""
    ts_us = instants(requests["ts"])
    if bool(np.all(ts_us[1:] >= ts_us[:-1])):
        return requests
    return requests.take(pa.array(np.argsort(ts_us, kind="stable")))


def table_path(folder: Path, name: str) -> Path:
    """Where a table other than requests lives."""
    return folder / f"{name}.parquet"


def has_table(folder: Path, name: str) -> bool:
    """True when the folder holds this table."""
    return (folder / "requests").is_dir() if name == "requests" else table_path(folder, name).is_file()


def read_table(folder: Path, name: str) -> pa.Table:
    """One whole table.

    Raises:
        TableError: it is not there, or its file is damaged.
    """
    if name == "requests":
        return read_requests(folder)
    return read_parquet(table_path(folder, name), name)


def read_parquet(path: Path, name: str, **options: Any) -> pa.Table:
    """One Parquet file, with what can go wrong said in the words of the table.

    Raises:
        TableError: the file is not there, is cut short or is no Parquet file.
    """
    with _in_words(path, name):
        return pq.read_table(path, partitioning=None, **options)


def parquet_batches(path: Path, name: str, *, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of one Parquet file in batches of at most so many; raises as `read_parquet`."""
    with _in_words(path, name), pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=rows, columns=columns)


def _columns(path: Path, name: str) -> list[str]:
    with _in_words(path, name):
        return list(pq.read_schema(path).names)


@contextmanager
def _in_words(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise TableError(name, [f"There is no file {str(path)!r}. Run `ingest` first, or check the path."]) from None
    except (pa.ArrowInvalid, OSError) as error:
        problem = f"{str(path)!r} is cut short or is no Parquet file ({error}). Write or copy it again."
        raise TableError(name, [problem]) from None


def request_files(folder: Path, *, start_us: int | None = None, before_us: int | None = None) -> list[Path]:
    """The request files of the days that meet [start, before), oldest first.

    Raises:
        TableError: the folder holds no requests.
    """
    days = sorted((folder / "requests").glob("day=*/*.parquet"))
    if not days:
        raise TableError("requests", [f"{str(folder / 'requests')!r} holds no days. Run `ingest` first."])
    return [path for path in days if _day_meets(path, start_us, before_us)]


def read_requests(
    folder: Path,
    *,
    start_us: int | None = None,
    before_us: int | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    """Requests in time order, as they were known at `before_us`.

    Args:
        folder: the tables.
        start_us: leave out requests before this instant.
        before_us: leave out requests at or after this instant, and earlier ones that became known only later.
        columns: which columns; all by default.

    Raises:
        TableError: no requests, a damaged file, or a column that is not there.
    """
    files = request_files(folder, start_us=start_us, before_us=before_us) or request_files(folder)[:1]
    return _read_files(files, start_us, before_us, columns, dictionaries=[])


def read_request_log(
    path: Path, *, before_us: int | None = None, features: Sequence[str] = (), catalogue: bool = False
) -> RequestLog:
    """Requests as the arrays that models read, as they were known at `before_us`.

    Silences that their traffic cannot explain are gaps of the log: missing is not zero.

    Args:
        path: the tables, or one Parquet file of requests.
        before_us: leave out what was not known before this instant.
        features: further columns to read, as categories.
        catalogue: whether contents are also known from the table `contents`, where there is one: with their kinds, and
            from their publication on.

    Raises:
        TableError: no requests, a damaged file, or a column that is not there.
    """
    files = [path] if path.is_file() else request_files(path, before_us=before_us) or request_files(path)[:1]
    users = ["user"] if all("user" in _columns(file, "requests") for file in files) else []
    # Pseudonyms hardly repeat within a day: one dictionary of all is cheaper than one for each file.
    repeating = ["content", "location", *features]
    wanted = list(dict.fromkeys(["ts", "session", *users, *repeating]))
    read = request_log(_read_files(files, None, before_us, wanted, dictionaries=repeating), features)
    log = with_gaps_found(read, until_us=None if before_us == NEVER_US else before_us)
    if not (catalogue and has_table(path, "contents")):
        return log
    log = log.with_catalogue(_read_catalogue(table_path(path, "contents")))
    return log if before_us is None else log.before(before_us)


def _read_catalogue(path: Path) -> Catalogue:
    there = _columns(path, "contents")
    wanted = [*_chosen(["content"], there, "contents"), *(c for c in ("published_at", "kind") if c in there)]
    return catalogue_of(read_parquet(path, "contents", columns=wanted))


def read_availability(folder: Path, *, before_us: int | None = None) -> pa.Table:
    """On-sessions as they were known at `before_us`.

    A session that started earlier but whose end was not yet known is still up at the cut: `end` is the cut,
    `end_upper` null and `censored` true.
    """
    table = read_table(folder, "availability")
    if before_us is None:
        return table
    cut = pa.scalar(before_us, pa.int64()).cast(INSTANT)
    table = table.filter(pc.less(table["start"], cut))
    # The end is known from the first instant at which the node was seen off.
    known_from = pc.coalesce(table["end_upper"], table["end"])
    up = pc.or_(table["censored"], pc.greater_equal(known_from, cut))
    # The record itself may have stopped before the cut with the node still up; it says nothing about later.
    stopped = pc.and_(table["censored"], pc.less(table["end"], cut))
    end = pc.if_else(pc.and_(up, pc.invert(stopped)), cut, table["end"])
    replaced = {
        "end": end,
        "end_upper": pc.if_else(up, pa.scalar(None, INSTANT), table["end_upper"]),
        "censored": up,
    }
    for name, values in replaced.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def read_nodes(folder: Path, *, before_us: int | None = None) -> pa.Table:
    """Nodes that were known at `before_us`; a node without `available_at` was always known."""
    table = read_table(folder, "nodes")
    if before_us is None or "available_at" not in table.column_names:
        return table
    cut = pa.scalar(before_us, pa.int64()).cast(INSTANT)
    return table.filter(pc.fill_null(pc.less(table["available_at"], cut), True))


def read_telemetry(folder: Path, *, before_us: int = NEVER_US) -> pa.Table:
    """Heartbeats with a `ts` before an instant."""
    cut = pa.scalar(before_us, INSTANT)
    return read_parquet(table_path(folder, "telemetry"), "telemetry", filters=pc.field("ts") < cut)


def read_world(folder: Path) -> dict[str, Any] | None:
    """What `world.json` says, or None where the tables come from no world.

    Raises:
        TableError: the file is damaged.
    """
    path = folder / "world.json"
    if not path.is_file():
        return None
    try:
        world = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TableError("world.json", [f"{str(path)!r} is no JSON ({error}). Build the world again."]) from None
    if not isinstance(world, dict):
        raise TableError("world.json", [f"{str(path)!r} holds no JSON object. Build the world again."])
    return world


def _read_files(
    files: list[Path],
    start_us: int | None,
    before_us: int | None,
    columns: list[str] | None,
    *,
    dictionaries: list[str],
) -> pa.Table:
    parts = [_read_file(path, start_us, before_us, columns, dictionaries) for path in files]
    table = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    return table if columns is None else table.select(columns)


def _read_file(
    path: Path, start_us: int | None, before_us: int | None, columns: list[str] | None, dictionaries: list[str]
) -> pa.Table:
    wanted = None if columns is None else request_columns(path, columns)
    table = read_parquet(path, "requests", columns=wanted, read_dictionary=dictionaries)
    for column in (c for c in ("ts", "available_at") if c in table.column_names):
        place = table.column_names.index(column)
        table = table.set_column(place, column, in_utc(table[column], "requests", column))
    table = in_time_order(table)
    keep = known_requests(table, start_us, before_us)
    return table if keep is None or bool(keep.all()) else table.filter(pa.array(keep))


def request_columns(path: Path, columns: list[str]) -> list[str]:
    """The columns to read of a file of requests for these: the instant at which each became known is read along.

    Raises:
        TableError: a column is not there, or the file is damaged.
    """
    there = _columns(path, "requests")
    known_at = [c for c in ("ts", "available_at") if c in there]
    return list(dict.fromkeys([*_chosen(columns, there, "requests"), *known_at]))


def _chosen(columns: list[str], there: list[str], name: str) -> list[str]:
    missing = [c for c in columns if c not in there]
    if missing:
        raise TableError(name, [f"Missing columns: {', '.join(missing)}. Available columns: {', '.join(there)}."])
    return columns


def known_requests(table: pa.Table, start_us: int | None, before_us: int | None) -> npt.NDArray[np.bool_] | None:
    """Which requests lie in [start, before) and were known at its end; None where nothing is asked."""
    if start_us is None and before_us is None:
        return None
    ts_us = instants(table["ts"])
    keep = np.ones(len(table), dtype=np.bool_)
    if start_us is not None:
        keep &= ts_us >= start_us
    if before_us is not None:
        keep &= ts_us < before_us
        if "available_at" in table.column_names and table["available_at"].null_count < len(table):
            keep &= instants(pc.coalesce(table["available_at"], table["ts"])) < before_us
    return keep


def _day_meets(path: Path, start_us: int | None, before_us: int | None) -> bool:
    day = dt.date.fromisoformat(path.parent.name.removeprefix("day="))
    start = (day - dt.date(1970, 1, 1)).days * DAY_US
    return (before_us is None or start < before_us) and (start_us is None or start_us < start + DAY_US)
