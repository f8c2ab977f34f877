"""Counts over the requests, in DuckDB, by buckets of sessions that go across all days.

A bucket holds whole sessions, because sessions cross midnight and a split by day would lose the step over it. Each bucket
gives integers, the merge adds them and sorts, and so the result has the same bytes in whatever order and in however many
buckets or processes it was made. Ids are counted as numbers and named again at the end.
"""

from __future__ import annotations

import os

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.events import HOUR_US
from models.rules import codes_of, encode
from models.tables import INSTANT
from pipelines.runner import Runner

Int64 = npt.NDArray[np.int64]

_HOURS = """
    SELECT hour, content, location, count(*) AS requests, sum(bytes)::BIGINT AS bytes
    FROM bucket GROUP BY ALL
"""
_STEPS = """
    SELECT previous, content, location, count(*) AS count
    FROM (
        SELECT content, location, lag(content) OVER (PARTITION BY session ORDER BY row) AS previous
        FROM bucket WHERE session >= 0
    )
    WHERE previous <> content
    GROUP BY ALL
"""


def hourly_counts(requests: pa.Table, contents: pa.Table | None, runner: Runner, *, buckets: int = 1) -> pa.Table:
    """Requests and bytes by hour, content and location.

    Args:
        requests: in time order.
        contents: says the bytes of requests that do not.
        runner: does the counting.
        buckets: into how many units of work the sessions are split.

    Returns:
        `hour` (start, UTC), `content`, `location`, `requests` int64, `bytes` int64, sorted by the first three.
    """
    units = _units(requests, _sent(requests, contents), buckets)
    states = runner.map(count_hours, units, label="count hours")
    counts = _merge(states, keys=("hour", "content", "location"), sums=("requests", "bytes"))
    columns = {
        "hour": pa.array(counts["hour"].to_numpy() * HOUR_US).cast(INSTANT),
        "content": _named(counts["content"], requests["content"]),
        "location": _named(counts["location"], requests["location"]),
    }
    return pa.table(columns | {name: counts[name] for name in ("requests", "bytes")})


def transitions(requests: pa.Table, runner: Runner, *, buckets: int = 1) -> pa.Table:
    """How often one content followed another within a session; repeats of the same content are no step.

    Args:
        requests: in time order.
        runner: does the counting.
        buckets: into how many units of work the sessions are split.

    Returns:
        `previous`, `content`, `location` (of the later request), `count` int64, sorted by the first three.
    """
    units = _units(requests, np.zeros(len(requests), dtype=np.int64), buckets)
    states = runner.map(count_steps, units, label="count steps")
    counts = _merge(states, keys=("previous", "content", "location"), sums=("count",))
    columns = {
        "previous": _named(counts["previous"], requests["content"]),
        "content": _named(counts["content"], requests["content"]),
        "location": _named(counts["location"], requests["location"]),
    }
    return pa.table(columns | {"count": counts["count"]})


def count_hours(bucket: pa.Table) -> pa.Table:
    """One bucket of `hourly_counts`."""
    return _query(_HOURS, bucket)


def count_steps(bucket: pa.Table) -> pa.Table:
    """One bucket of `transitions`."""
    return _query(_STEPS, bucket)


def _query(query: str, bucket: pa.Table) -> pa.Table:
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {os.cpu_count() or 1}")
        connection.register("bucket", bucket)
        return connection.sql(query).to_arrow_table()


def _units(requests: pa.Table, sent: Int64, buckets: int) -> list[pa.Table]:
    if buckets < 1:
        raise ValueError(f"Expected buckets >= 1, got {buckets}.")
    rows = len(requests)
    session = codes_of(requests["session"]) if "session" in requests.column_names else np.full(rows, -1)
    hour = requests["ts"].cast(pa.int64()).to_numpy() // HOUR_US
    columns = {
        "session": session,
        "content": _ranks(requests["content"]),
        "location": _ranks(requests["location"]),
        "hour": hour,
        "bytes": sent,
        "row": np.arange(rows),
    }
    whole = pa.table(columns)
    return [whole if buckets == 1 else whole.filter(session % buckets == number) for number in range(buckets)]


def _merge(states: list[pa.Table], *, keys: tuple[str, ...], sums: tuple[str, ...]) -> pa.Table:
    """Adds the states; integer sums are associative, and sorting by the keys forgets the order they came in."""
    added = [f"sum({name})::BIGINT AS {name}" for name in sums]
    by_key = ", ".join(keys)
    query = f"SELECT {', '.join([*keys, *added])} FROM bucket GROUP BY {by_key} ORDER BY {by_key}"  # noqa: S608
    return _query(query, pa.concat_tables(states)).combine_chunks().replace_schema_metadata(None)


def _named(ranks: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.DictionaryArray:
    """Ids again, dictionary-encoded, so that no id is written or hashed more than once."""
    ids = encode(values).dictionary
    return pa.DictionaryArray.from_arrays(ranks.combine_chunks().cast(pa.int32()), ids.take(pc.sort_indices(ids)))


def _ranks(values: pa.ChunkedArray) -> Int64:
    """Each row's place of its id among the sorted ids."""
    encoded = encode(values)
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    return np.asarray(rank[encoded.indices.to_numpy()])


def _sent(requests: pa.Table, contents: pa.Table | None) -> Int64:
    """Bytes of each request; one that says none asked for the segment, or else for the whole content."""
    rows = len(requests)
    given = requests["bytes"] if "bytes" in requests.column_names else pa.nulls(rows, pa.int64())
    if given.null_count == 0 or contents is None:
        return np.asarray(pc.fill_null(given, 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    encoded = encode(requests["content"])
    row = pc.index_in(encoded.dictionary, value_set=contents["content"].combine_chunks())
    whole, part = (
        pc.fill_null(contents[name].take(row), 0).to_numpy()[encoded.indices.to_numpy()]
        for name in ("bytes", "segment_bytes")
    )
    cut = requests["segment"] if "segment" in requests.column_names else pa.nulls(rows, pa.int32())
    segment = pc.fill_null(cut.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    asked = np.where(segment < 0, whole, np.clip(whole - segment * part, 0, part))
    said = pc.is_valid(given).to_numpy(zero_copy_only=False)
    return np.asarray(np.where(said, pc.fill_null(given, 0).to_numpy(zero_copy_only=False), asked), dtype=np.int64)
