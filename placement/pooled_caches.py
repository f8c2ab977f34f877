"""Reactive caches of libcachesim, one a location: what its devices could do at best if they were a single store.

A location's pool holds as much as all its nodes together. It is never away, sends as fast as tier 1, takes a fill in no
time and has no ends of storage in which nothing fits. So a pooled row is an optimistic bound of its policy on these
devices, not a forecast of it; `placement/caches.py` plays the same with churn, links and one store a device.

    hit        tier 2, at the mean round trip of the location's own nodes
    miss       tier 1, at the round trip of its POP; fills the pool if the rule of filling admits it
    no nodes   tier 1

Policies are libcachesim's with its own parameters, with three exceptions that its limits ask for. W-TinyLFU counts
storage in parts of a pool's 2^20th, because its sketch has a counter for every unit; its window is 1 % of the pool, or
as large as the largest segment, since it never holds a segment beyond that. And a segment that a policy refuses is
looked up and not offered: S3-FIFO would make room for one as large as its small queue, and then not keep it.

Belady is told when each segment is asked for next and throws out what is asked for last. All bytes are worth the same
here, so that size does not enter. Like the others it must take what the rule admits; on equal sizes nothing that must
do so has more hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from placement.errors import ReplayError
from placement.ledger import Ledger
from placement.mesh import ReplaySettings, kernel
from placement.problem import Bool, Float64, Int64
from placement.tally import (
    CAUSE_BYTES,
    FAILED,
    FAILED_BYTES,
    HOUR_US,
    LATENCY_US,
    PUSHED_BYTES,
    REQUESTS,
    TIER_BYTES,
    TRANSFER_US,
    WASTED_BYTES,
    Cause,
    ReplayTally,
    bin_of,
)
from placement.trace import ReplayWorld, SegmentRequests

PooledPolicy = Literal["lru", "s3-fifo", "w-tinylfu", "3l-cache", "belady"]
POOLED_POLICIES: tuple[PooledPolicy, ...] = ("lru", "s3-fifo", "w-tinylfu", "3l-cache", "belady")
Admission = Literal["every_miss", "second_request"]

SMALLEST_POOL_BYTES = 1000  # libcachesim ends the process where a queue comes to nothing
SKETCH_UNITS = 2**20
S3_SMALL_SHARE, TINY_WINDOW_SHARE = 0.1, 0.01
NEVER_ASKED = np.iinfo(np.int64).max


@dataclass(frozen=True)
class PooledSettings:
    """What a pool throws out, and which misses fill it."""

    policy: PooledPolicy = "lru"
    """The policy of libcachesim."""
    admission: Admission = "every_miss"
    """Which misses fill the pool: all, or those asked for in the location within the admission window."""
    admission_window_hours: float = 24.0
    """With second_request: how long ago the earlier request may lie, in hours."""

    def __post_init__(self) -> None:
        problems = []
        if self.policy not in POOLED_POLICIES:
            problems.append(f"Expected a policy of {', '.join(POOLED_POLICIES)}, got {self.policy!r}.")
        if self.admission not in ("every_miss", "second_request"):
            problems.append(f"Expected admission 'every_miss' or 'second_request', got {self.admission!r}.")
        if not 0 < self.admission_window_hours < float("inf"):
            problems.append(f"Expected admission_window_hours > 0, got {self.admission_window_hours!r}.")
        if problems:
            raise ReplayError("The settings of the pooled caches cannot be used:", problems)


def play_pooled(
    world: ReplayWorld,
    requests: Iterable[SegmentRequests],
    caches: PooledSettings | None = None,
    *,
    settings: ReplaySettings | None = None,
) -> ReplayTally:
    """Plays all requests, fills paid by tier 1; `fills_free` of the tally counts them as nothing.

    The whole trace is held in memory, 20 bytes a request and some: Belady must know what comes.

    Raises:
        ReplayError: the requests are not in time order, or do not fit the world.
    """
    rules, ledger = caches or PooledSettings(), Ledger(world)
    trace = _joined(list(requests))
    if len(trace) == 0:
        return ledger.tally(np.zeros(world.n_sources, np.int64))
    trace.check(world)
    ledger.open_for(trace)
    previous, following = _neighbours(trace, world.n_segments)
    admitted = np.ones(len(trace), np.bool_)
    if rules.admission == "second_request":
        window_us = round(rules.admission_window_hours * HOUR_US)
        admitted = (previous >= 0) & (trace.ts_us - trace.ts_us[previous] <= window_us)
    hits, filled = _play(world, trace, rules.policy, admitted, following)
    _book_requests(ledger, trace, hits, (settings or ReplaySettings()).tier1_bps)
    _book_fills(ledger, trace, hits, filled, following)
    return ledger.tally(_sent_bytes(world, trace, hits))


def fills_free(paid: ReplayTally) -> ReplayTally:
    """The same hits where the viewer's own device is the mirror: nothing is sent twice, nothing wasted."""
    nothing = np.zeros_like(paid.pushed_bytes)
    return replace(paid, pushed_bytes=nothing, wasted_bytes=nothing.copy())


def pool_bytes(world: ReplayWorld) -> Int64:
    """Storage of all nodes of each location. (locations,)"""
    pool = np.zeros(world.n_locations, np.int64)
    nodes = world.tier != 1
    np.add.at(pool, world.location[nodes], world.storage_bytes[nodes])
    return pool


def pool_hits(
    policy: PooledPolicy,
    capacity_bytes: int,
    segment: Int64,
    segment_bytes: Int64,
    *,
    admitted: Bool | None = None,
    following: Int64 | None = None,
) -> tuple[Bool, Bool]:
    """Hits of one cache of libcachesim, and which misses filled it.

    Args:
        policy: what it throws out.
        capacity_bytes: its size.
        segment: segment code of each request. (requests,)
        segment_bytes: size of each segment. (segments,)
        admitted: whether the request may fill the cache if it misses; None means always. (requests,)
        following: for Belady: a number that rises with the instant at which the segment is asked for next, negative
            where it never is; None counts requests. (requests,)
    """
    codes, asked = np.unique(segment, return_inverse=True)
    sizes = np.asarray(segment_bytes, np.int64)[codes]
    may = np.ones(len(segment), np.bool_) if admitted is None else admitted
    if capacity_bytes < SMALLEST_POOL_BYTES or len(codes) == 0:
        return np.zeros(len(segment), np.bool_), np.zeros(len(segment), np.bool_)
    following = _following(asked.astype(np.int64)) if following is None else following
    unit = -(-capacity_bytes // SKETCH_UNITS) if policy == "w-tinylfu" else 1
    cache = _cache(policy, capacity_bytes // unit, largest=-(-int(sizes.max()) // unit), distinct=len(codes))
    objects = _objects(codes, -(-sizes // unit))
    fits = np.array([cache.can_insert(each) for each in objects])
    if policy == "s3-fifo":
        fits &= sizes < int(capacity_bytes * S3_SMALL_SHARE)
    may = may & fits[asked]
    hits = _ask(cache, objects, asked.tolist(), may.tolist(), np.where(following < 0, NEVER_ASKED, following).tolist())
    return hits, may & ~hits


def _cache(policy: PooledPolicy, capacity: int, *, largest: int, distinct: int) -> Any:
    """An empty cache; capacity and largest segment in units of the policy."""
    import libcachesim as library

    shared = {"cache_size": capacity, "hashpower": min(max(distinct.bit_length(), 10), 20)}
    if policy == "w-tinylfu":
        window = min(max(TINY_WINDOW_SHARE, (largest + 1) / capacity), 0.5)
        return library.WTinyLFU(window_size=window, **shared)
    makers = {"lru": "LRU", "s3-fifo": "S3FIFO", "3l-cache": "ThreeLCache", "belady": "Belady"}
    return getattr(library, makers[policy])(**shared)


def _objects(codes: Int64, sizes: Int64) -> list[Any]:
    """One request object for each segment, to be used again: making one costs more than asking the cache."""
    import libcachesim as library

    return [
        library.Request(obj_id=code, obj_size=size) for code, size in zip(codes.tolist(), sizes.tolist(), strict=True)
    ]


def _ask(cache: Any, objects: list[Any], asked: Sequence[int], may: Sequence[bool], following: Sequence[int]) -> Bool:
    """Looks up one request after the other; what may fill the cache does so if it misses."""
    hits = np.zeros(len(asked), np.bool_)
    get, find = cache.get, cache.find
    for i, (number, fills, later) in enumerate(zip(asked, may, following, strict=True)):
        wanted = objects[number]
        wanted.next_access_vtime = later
        hits[i] = get(wanted) if fills else find(wanted) is not None
    return hits


def _joined(parts: list[SegmentRequests]) -> SegmentRequests:
    if len(parts) == 1:
        return parts[0]
    none = np.zeros(0, np.int64)
    columns = [
        np.concatenate([getattr(part, name) for part in parts] or [none])
        for name in ("ts_us", "segment", "location", "bytes")
    ]
    return SegmentRequests(*columns)


def _neighbours(trace: SegmentRequests, n_segments: int) -> tuple[Int64, Int64]:
    """Row of the request for the same segment in the same location before each request, and after it; -1: none."""
    key = trace.location.astype(np.int64) * n_segments + trace.segment
    following = _following(key)
    previous = np.full(len(key), -1, np.int64)
    have = np.flatnonzero(following >= 0)
    previous[following[have]] = have
    return previous, following


def _following(key: Int64) -> Int64:
    """Row at which each row's key comes next; -1 where it does not."""
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    following = np.full(len(key), -1, np.int64)
    following[order[:-1][same]] = order[1:][same]
    return following


def _play(
    world: ReplayWorld, trace: SegmentRequests, policy: PooledPolicy, admitted: Bool, following: Int64
) -> tuple[Bool, Bool]:
    hits, filled = np.zeros(len(trace), np.bool_), np.zeros(len(trace), np.bool_)
    by_location = np.argsort(trace.location, kind="stable")
    bounds = np.searchsorted(trace.location[by_location], np.arange(world.n_locations + 1))
    for location, capacity in enumerate(pool_bytes(world).tolist()):
        rows = by_location[bounds[location] : bounds[location + 1]]
        hits[rows], filled[rows] = pool_hits(
            policy,
            capacity,
            trace.segment[rows].astype(np.int64),
            world.segment_bytes,
            admitted=admitted[rows],
            following=following[rows],
        )
    return hits, filled


def _book_requests(ledger: Ledger, trace: SegmentRequests, hits: Bool, tier1_bps: float) -> None:
    world, at_us, location = ledger.world, trace.ts_us, trace.location.astype(np.int64)
    latency_us = np.where(hits, _node_rtt_us(world)[location], _pop_rtt_us(world)[location])
    transfer_us = latency_us + np.ceil(trace.bytes * 8e6 / tier1_bps).astype(np.int64)
    missed, failed = np.where(hits, 0, trace.bytes), ~hits & (world.pop[location] < 0)
    for column, amount in (
        (REQUESTS, np.ones(len(trace), np.int64)),
        (TIER_BYTES, np.where(failed, 0, missed)),
        (TIER_BYTES + 1, np.where(hits, trace.bytes, 0)),
        (CAUSE_BYTES + Cause.NOT_FORECAST, missed),
        (FAILED, failed.astype(np.int64)),
        (FAILED_BYTES, np.where(failed, missed, 0)),
        (LATENCY_US, latency_us),
        (TRANSFER_US, transfer_us),
    ):
        ledger.add(column, at_us, location, amount)
    for bins, duration_us in zip(ledger.sums.bins, (latency_us, transfer_us), strict=True):
        _count_bins(bins, location, duration_us / 1000.0)


@kernel
def _count_bins(bins: Int64, location: Int64, ms: Float64) -> None:
    for i in range(len(ms)):
        bins[location[i], bin_of(ms[i])] += 1


def _book_fills(ledger: Ledger, trace: SegmentRequests, hits: Bool, filled: Bool, following: Int64) -> None:
    """A fill is wasted when the segment's next request misses again, or never comes: booked then, or at the end."""
    sizes, location = ledger.world.segment_bytes[trace.segment], trace.location.astype(np.int64)
    ledger.add(PUSHED_BYTES, trace.ts_us[filled], location[filled], sizes[filled])
    wasted = filled & ((following < 0) | ~hits[following])
    later = following[wasted]
    at_us = np.where(later < 0, trace.ts_us[-1], trace.ts_us[later])
    ledger.add(WASTED_BYTES, at_us, location[wasted], sizes[wasted])


def _pop_rtt_us(world: ReplayWorld) -> Int64:
    rtt_ms = world.rtt_ms[np.arange(world.n_locations), world.pop]
    return np.where(world.pop >= 0, np.round(rtt_ms * 1000.0), 0).astype(np.int64)


def _node_rtt_us(world: ReplayWorld) -> Int64:
    """Mean round trip from each location to its own nodes; 0 without any. (locations,)"""
    nodes = np.flatnonzero(world.tier != 1)
    location = world.location[nodes]
    total_ms = np.bincount(location, weights=world.rtt_ms[location, nodes], minlength=world.n_locations)
    count = np.bincount(location, minlength=world.n_locations)
    return np.round(total_ms * 1000.0 / np.maximum(count, 1)).astype(np.int64)


def _sent_bytes(world: ReplayWorld, trace: SegmentRequests, hits: Bool) -> Int64:
    """Bytes that each source sent; a pool's are its nodes' in proportion to their storage. (sources,)"""
    sent = np.zeros(world.n_sources, np.int64)
    pop = world.pop[trace.location]
    missed = ~hits & (pop >= 0)
    np.add.at(sent, pop[missed], trace.bytes[missed])
    by_pool = np.zeros(world.n_locations, np.int64)
    np.add.at(by_pool, trace.location[hits], trace.bytes[hits])
    for location in np.flatnonzero(by_pool):
        nodes = np.flatnonzero((world.location == location) & (world.tier != 1))
        share = np.cumsum(world.storage_bytes[nodes]) / world.storage_bytes[nodes].sum()
        sent[nodes] = np.diff(np.floor(by_pool[location] * share).astype(np.int64), prepend=0)
    return sent
