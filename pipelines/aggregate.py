"""Counts over the requests table, in DuckDB, by session-hash buckets that go across all days.

A bucket holds whole sessions, because sessions cross midnight and a split by day would lose the step over it. Each bucket
gives integers, the merge adds them and sorts, and so the result has the same bytes in whatever order and in however many
buckets or processes it was made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.runner import Runner
from pipelines.store import has_table, request_files, table_path


@dataclass(frozen=True)
class Bucket:
    """One unit of work: the sessions whose hash falls into this bucket, on all days."""

    files: tuple[str, ...]
    contents: str
    """The contents table's file; empty where there is none."""
    absent: tuple[str, ...]
    """Optional columns that the requests do not have."""
    number: int
    buckets: int


_HOURLY = """
    SELECT time_bucket(INTERVAL 1 HOUR, ts) AS hour, content, location,
           count(*) AS requests, sum(sent)::BIGINT AS bytes
    FROM (SELECT ts, content, location, coalesce(r.bytes, {known_size}, 0) AS sent FROM requests r {sizes})
    GROUP BY ALL
"""
_SIZES = (
    "LEFT JOIN (SELECT content, bytes AS whole, segment_bytes AS part FROM read_parquet($contents)) USING (content)"
)
# A request that says no bytes asked for the segment, or else for the whole content.
_KNOWN_SIZE = "CASE WHEN r.segment IS NULL THEN whole ELSE greatest(least(part, whole - r.segment * part), 0) END"

_TRANSITIONS = """
    SELECT previous, content, location, count(*) AS count
    FROM (
        SELECT content, location,
               lag(content) OVER (PARTITION BY session ORDER BY ts, file_row_number) AS previous
        FROM requests WHERE session IS NOT NULL
    )
    WHERE previous IS NOT NULL AND previous <> content
    GROUP BY ALL
"""

_OPTIONAL = {"session": "VARCHAR", "segment": "INTEGER", "bytes": "BIGINT"}
_REQUESTS = """
    CREATE TEMP VIEW requests AS
    SELECT ts, content, location, {optional}, file_row_number
    FROM read_parquet({files}, file_row_number = true, hive_partitioning = false)
    WHERE {hashed} % {buckets} = {number}
"""


def hourly_counts(folder: Path, runner: Runner, *, buckets: int = 8) -> pa.Table:
    """Requests and bytes by hour, content and location.

    Returns:
        `hour` (start, UTC), `content`, `location`, `requests` int64, `bytes` int64, sorted by the first three. Bytes that
        a request does not say are taken from the contents table.
    """
    states = runner.map(count_hours, _units(folder, buckets), label="count hours")
    return _merge(states, keys=("hour", "content", "location"), sums=("requests", "bytes"))


def transitions(folder: Path, runner: Runner, *, buckets: int = 8) -> pa.Table:
    """How often one content followed another within a session; repeats of the same content are no step.

    Returns:
        `previous`, `content`, `location` (of the later request), `count` int64, sorted by the first three.
    """
    states = runner.map(count_steps, _units(folder, buckets), label="count steps")
    return _merge(states, keys=("previous", "content", "location"), sums=("count",))


def count_hours(unit: Bucket) -> pa.Table:
    """One bucket of `hourly_counts`."""
    if not unit.contents:
        return _run(unit, _HOURLY.format(sizes="", known_size="NULL"), {})
    return _run(unit, _HOURLY.format(sizes=_SIZES, known_size=_KNOWN_SIZE), {"contents": unit.contents})


def count_steps(unit: Bucket) -> pa.Table:
    """One bucket of `transitions`."""
    return _run(unit, _TRANSITIONS, {})


def _units(folder: Path, buckets: int) -> list[Bucket]:
    if buckets < 1:
        raise ValueError(f"Expected buckets >= 1, got {buckets}.")
    files = tuple(str(path) for path in request_files(folder))
    contents = str(table_path(folder, "contents")) if has_table(folder, "contents") else ""
    there = set(pq.read_schema(files[0]).names)
    absent = tuple(name for name in _OPTIONAL if name not in there)
    return [Bucket(files, contents, absent, number, buckets) for number in range(buckets)]


def _run(unit: Bucket, query: str, parameters: dict[str, str]) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET threads = {os.cpu_count() or 1}")
        files = "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in unit.files) + "]"
        optional = [f"NULL::{kind} AS {name}" if name in unit.absent else name for name, kind in _OPTIONAL.items()]
        # Requests without a session take no step, so any bucket will do for them: the content spreads them.
        hashed = "hash(content)" if "session" in unit.absent else "hash(coalesce(session, content))"
        view = {"optional": ", ".join(optional), "hashed": hashed, "buckets": unit.buckets, "number": unit.number}
        connection.execute(_REQUESTS.format(files=files, **view))
        return connection.sql(query, params=parameters or None).to_arrow_table()


def _merge(states: list[pa.Table], *, keys: tuple[str, ...], sums: tuple[str, ...]) -> pa.Table:
    """Adds the states; integer sums are associative, and sorting by the keys forgets the order they came in."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("states", pa.concat_tables(states))
        states_seen = connection.table("states")
        added = [f"sum({name})::BIGINT AS {name}" for name in sums]
        merged = states_seen.aggregate(", ".join([*keys, *added])).order(", ".join(keys)).to_arrow_table()
    return merged.combine_chunks().replace_schema_metadata(None)
