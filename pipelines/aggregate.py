"""Counts over the requests, by buckets of sessions that go across all days.

A bucket holds whole sessions, because sessions cross midnight and a split by day would lose the step over it. Each bucket
gives integers, the merge adds them and sorts, and so the result has the same bytes in whatever order and in however many
buckets or processes it was made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.events import HOUR_US
from models.rules import codes_of, encode
from models.tables import INSTANT
from pipelines.runner import Runner

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bucket:
    """One unit of work: the requests of some sessions, in time order.

    Attributes:
        session: number of the session; -1 where there is none.
        content, location: numbers in the order of the ids.
        hour: hours since 1970 UTC.
        bytes: sent.
    """

    session: Int64
    content: Int64
    location: Int64
    hour: Int64
    bytes: Int64


@dataclass(frozen=True)
class Counts:
    """Sums by key, sorted by key; keys and sums are parallel arrays."""

    keys: tuple[Int64, ...]
    sums: tuple[Int64, ...]


def hourly_counts(
    requests: pa.Table, contents: pa.Table | None, runner: Runner, *, buckets: int = 1
) -> pa.Table:
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
    counts = _merge(runner.map(count_hours, units, label="count hours"))
    hour, content, location = counts.keys
    columns = {
        "hour": pa.array(hour * HOUR_US).cast(INSTANT),
        "content": _named(content, requests["content"]),
        "location": _named(location, requests["location"]),
    }
    return pa.table(columns | {"requests": counts.sums[0], "bytes": counts.sums[1]})


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
    counts = _merge(runner.map(count_steps, units, label="count steps"))
    previous, content, location = counts.keys
    columns = {
        "previous": _named(previous, requests["content"]),
        "content": _named(content, requests["content"]),
        "location": _named(location, requests["location"]),
    }
    return pa.table(columns | {"count": counts.sums[0]})


def count_hours(unit: Bucket) -> Counts:
    """One bucket of `hourly_counts`."""
    ones = np.ones(len(unit.hour), dtype=np.int64)
    return _summed(Counts((unit.hour, unit.content, unit.location), (ones, unit.bytes)))


def count_steps(unit: Bucket) -> Counts:
    """One bucket of `transitions`."""
    # Sorting by session and row as one number is several times faster than a stable sort by session.
    rows = len(unit.session)
    order = np.sort(unit.session * rows + np.arange(rows)) % max(rows, 1)
    session, content = unit.session[order], unit.content[order]
    step = (session[1:] == session[:-1]) & (session[1:] >= 0) & (content[1:] != content[:-1])
    keys = (content[:-1][step], content[1:][step], unit.location[order[1:][step]])
    return _summed(Counts(keys, (np.ones(len(keys[0]), dtype=np.int64),)))


def _units(requests: pa.Table, sent: Int64, buckets: int) -> list[Bucket]:
    if buckets < 1:
        raise ValueError(f"Expected buckets >= 1, got {buckets}.")
    rows = len(requests)
    session = codes_of(requests["session"]) if "session" in requests.column_names else np.full(rows, -1)
    hour = requests["ts"].cast(pa.int64()).to_numpy() // HOUR_US
    columns = (session, _ranks(requests["content"]), _ranks(requests["location"]), hour, sent)
    if buckets == 1:
        return [Bucket(*columns)]
    return [Bucket(*(c[session % buckets == number] for c in columns)) for number in range(buckets)]


def _merge(states: list[Counts]) -> Counts:
    """Adds the states; integer sums are associative, and sorting by the keys forgets the order they came in."""
    if len(states) == 1:
        return states[0]
    keys = tuple(np.concatenate(parts) for parts in zip(*(s.keys for s in states), strict=True))
    sums = tuple(np.concatenate(parts) for parts in zip(*(s.sums for s in states), strict=True))
    return _summed(Counts(keys, sums))


def _summed(counts: Counts) -> Counts:
    """Equal keys become one."""
    if len(counts.keys[0]) == 0:
        return counts
    order = _order(counts.keys)
    keys = [key[order] for key in counts.keys]
    new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.flatnonzero(np.concatenate([[True], new]))
    sums = tuple(np.add.reduceat(values[order], starts) for values in counts.sums)
    return Counts(tuple(key[starts] for key in keys), sums)


def _order(keys: tuple[Int64, ...]) -> Int64:
    """Rows by key; as one number where the keys together fit into one, which is ten times faster."""
    lows = [int(key.min()) for key in keys]
    sizes = [int(key.max()) - low + 1 for key, low in zip(keys, lows, strict=True)]
    if math.prod(sizes) >= 1 << 63:
        return np.lexsort(keys[::-1])
    packed = np.zeros(len(keys[0]), dtype=np.int64)
    for key, low, size in zip(keys, lows, sizes, strict=True):
        packed = packed * size + (key - low)
    return np.argsort(packed)


def _named(ranks: Int64, values: pa.ChunkedArray) -> pa.DictionaryArray:
    """Ids again, dictionary-encoded, so that no id is written or hashed more than once."""
    ids = encode(values).dictionary
    return pa.DictionaryArray.from_arrays(pa.array(ranks, pa.int32()), ids.take(pc.sort_indices(ids)))


def _ranks(values: pa.ChunkedArray) -> Int64:
    """Each row's place of its id among the sorted ids."""
    encoded = encode(values)
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    return rank[encoded.indices.to_numpy()]


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
    return np.where(said, pc.fill_null(given, 0).to_numpy(zero_copy_only=False), asked)
