"""Reactive caches on the same devices: least recently used first out, on storage, uplinks and churn of the same world.

A request that finds no live copy in its location is served by tier 1 and may fill one device of the location. Which
one is decided by a hash of the segment, in proportion to storage (the first device from there that is on, has room
for the segment at all and does not hold it): every device sees its own part of the contents, so that together they
work as one cache. Each device throws out what was used longest ago. A device that is off keeps what it holds; its
contents are filled elsewhere meanwhile and both copies serve when it returns. Overload of all holders counts as a
miss and fills one more device, one at a time.

Three rules of filling, after which everything else is the same:

    every miss        paid: tier 1 sends the segment once more, to the device
    second request    the same, only if the segment was asked for in the location within the admission window
    free              as every miss, but the viewer's own device is the mirror, so that nothing is sent twice
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from placement.copybook import push_times
from placement.errors import ReplayError
from placement.ledger import Ledger
from placement.mesh import (
    Mesh,
    ReplaySettings,
    Request,
    Sums,
    fresh_candidates,
    fresh_copies,
    fresh_mesh,
    kernel,
)
from placement.problem import Bool, Float64, Int8, Int32, Int64
from placement.replay import Columns, Served, columns_of
from placement.routing import RoutingSettings
from placement.shelf import Shelf, drop, fresh_shelf, gather, grown_shelf, put, touch
from placement.tally import HOUR_US, PUSHED_BYTES, WASTED_BYTES, Cause, ReplayTally
from placement.trace import ReplayWorld, SegmentRequests
from placement.transfers import UNSEEN, book, try_mesh, uniform, unserved
from placement.uplink_queue import up_row
from placement.uptime import ALWAYS_US, Uptime

FillRule = Literal["every_miss", "second_request", "free"]
NOT_FORECAST = int(Cause.NOT_FORECAST)
IN_TRANSIT = int(Cause.IN_TRANSIT)


@dataclass(frozen=True)
class CacheSettings:
    """When a miss fills a device."""

    fill: FillRule = "every_miss"
    """Rule of filling: every_miss and second_request are paid by tier 1, free is not."""
    admission_window_hours: float = 24.0
    """With second_request: how long ago the earlier request may lie, in hours."""

    def __post_init__(self) -> None:
        problems = []
        if self.fill not in ("every_miss", "second_request", "free"):
            problems.append(f"Expected fill 'every_miss', 'second_request' or 'free', got {self.fill!r}.")
        if not 0 < self.admission_window_hours < float("inf"):
            problems.append(f"Expected admission_window_hours > 0, got {self.admission_window_hours!r}.")
        if problems:
            raise ReplayError("The cache settings cannot be used:", problems)


class Homes(NamedTuple):
    """The devices of each location, and the storage before each."""

    offsets: Int64  # (locations + 1,)
    device: Int64  # (devices,)
    storage_before: Float64  # (devices,) within the location


class CacheReplay:
    """One reactive row of the comparison; same calls as `Replay`, without plans."""

    def __init__(
        self,
        world: ReplayWorld,
        caches: CacheSettings | None = None,
        *,
        settings: ReplaySettings | None = None,
        routing: RoutingSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.world = world
        self._caches = caches or CacheSettings()
        mesh = fresh_mesh(world, settings or ReplaySettings(), routing or RoutingSettings(), seed)
        self._homes = _homes(world)
        most = int(np.diff(self._homes.offsets).max(initial=1))
        self._mesh = mesh._replace(candidates=fresh_candidates(most))
        self._ledger = Ledger(world)
        keys = world.n_locations * world.n_segments
        asked = keys if self._caches.fill == "second_request" else 0
        self._shelf = fresh_shelf(keys)
        self._last_asked_us = np.full(asked, ALWAYS_US, np.int64)
        self._grow()

    def serve(self, requests: SegmentRequests) -> Served:
        """Plays the next requests; devices fill as they go.

        Raises:
            ReplayError: a request lies before what was played, or does not fit the world.
        """
        served = Served.empty(len(requests))
        if len(requests) == 0:
            return served
        requests.check(self.world)
        start_hour_us = self._ledger.open_for(requests)
        window_us = round(self._caches.admission_window_hours * HOUR_US)
        done = 0
        while done < len(requests):
            done = _serve_all(
                self._mesh,
                (self._shelf, self._homes, self._last_asked_us),
                (columns_of(requests), done),
                (start_hour_us, self._ledger.requests_seen, window_us, self._caches.fill != "free"),
                self._ledger.sums,
                (served.source, served.cause, served.latency_ms),
            )
            if done < len(requests):
                self._grow()
        self._ledger.requests_seen += len(requests)
        return served

    def play(self, requests: Iterable[SegmentRequests]) -> ReplayTally:
        for part in requests:
            self.serve(part)
        return self.finish()

    def finish(self) -> ReplayTally:
        """Counts as wasted what was filled at a price, is still held and never served."""
        now_us = self._ledger.now_us
        if now_us is not None and self._caches.fill != "free":
            held = np.flatnonzero((self._mesh.copies["source"] >= 0) & (self._mesh.copies["served_bytes"] == 0))
            copies = self._mesh.copies[held]
            locations = self._mesh.sources["location"][copies["source"]]
            sizes = self._mesh.segment_bytes[copies["segment"]]
            self._ledger.add(WASTED_BYTES, np.full(len(held), now_us, np.int64), locations, sizes)
        return self._ledger.tally(self._mesh.sources["sent_bytes"])

    def held_bytes(self) -> Int64:
        """Bytes that each source holds or is being sent. (sources,)"""
        return np.ascontiguousarray(self._mesh.sources["held_bytes"])

    def _grow(self) -> None:
        """Doubles the pool of slots; what it can come to is bounded by the devices' storage."""
        before = len(self._mesh.copies)
        fresh = fresh_copies(max(before, 1024))
        fresh["source"] = -1
        self._mesh = self._mesh._replace(copies=np.concatenate([self._mesh.copies, fresh]))
        self._shelf = grown_shelf(self._shelf, len(fresh))


def single_lru(segment: Int32, segment_bytes: Int64, capacity_bytes: int) -> Bool:
    """Hits of one cache that fills on every miss, is always on and sends in no time: the textbook's LRU.

    Args:
        segment: segment code of each request. (requests,)
        segment_bytes: size of each segment. (segments,)
        capacity_bytes: size of the cache; larger segments are never held.
    """
    world = ReplayWorld(
        segment_bytes=np.asarray(segment_bytes, np.int64),
        location=np.zeros(2, np.int32),
        tier=np.array([1, 2], np.int8),
        uplink_bps=np.full(2, np.inf),
        downlink_bps=np.full(2, np.inf),
        storage_bytes=np.array([0, capacity_bytes], np.int64),
        rtt_ms=np.ones((1, 2), np.float32),
        distance_km=np.ones((1, 2), np.float32),
        reach=np.ones((1, 2), np.bool_),
        uptime=Uptime.always(2),
        egress_cost_per_gb=np.zeros(2),
    )
    codes = np.asarray(segment, np.int32)
    zeros = np.zeros(len(codes), np.int64)
    requests = SegmentRequests(zeros, codes, zeros.astype(np.int32), world.segment_bytes[codes])
    hits: Bool = CacheReplay(world).serve(requests).source == 1
    return hits


def _homes(world: ReplayWorld) -> Homes:
    nodes = np.flatnonzero(world.tier != 1)
    nodes = nodes[np.argsort(world.location[nodes], kind="stable")]
    offsets = np.searchsorted(world.location[nodes], np.arange(world.n_locations + 1)).astype(np.int64)
    storage = world.storage_bytes[nodes].astype(np.float64)
    before = np.concatenate([[0.0], np.cumsum(storage)])
    starts = np.repeat(before[offsets[:-1]], np.diff(offsets))
    return Homes(offsets, nodes.astype(np.int64), before[:-1] - starts)


@kernel
def _serve_all(
    mesh: Mesh,
    state: tuple[Shelf, Homes, Int64],
    work: tuple[Columns, int],
    origin: tuple[int, int, int, bool],
    sums: Sums,
    served: tuple[Int32, Int8, Float64],
) -> int:
    """Serves from request work[1] on; gives how many are done, fewer than all when the pool of slots is used up."""
    shelf, homes, last_asked_us = state
    columns, begin = work
    for i in range(begin, len(columns[0])):
        if shelf.free[0] < 0:
            return i
        ts_us, segment, location = int(columns[0][i]), int(columns[1][i]), int(columns[2][i])
        hour = (ts_us - origin[0]) // HOUR_US
        request = Request(ts_us, segment, location, int(columns[3][i]), origin[1] + i, hour)
        key = location * len(mesh.segment_bytes) + segment
        n = gather(mesh.candidates, shelf, key)
        done = try_mesh(mesh, n, request)
        if done.cause == UNSEEN:
            done = unserved(NOT_FORECAST)
        source, latency_us = book(mesh, done, request, sums)
        served[0][i], served[1][i], served[2][i] = source, done.cause, latency_us / 1000.0
        if done.slot >= 0:
            touch(mesh, shelf, done.slot)
        elif done.cause != IN_TRANSIT and _admits(last_asked_us, key, ts_us, origin[2]):
            _fill(mesh, shelf, homes, request, (sums.cells[hour, location], origin[3]))
    return len(columns[0])


@kernel
def _admits(last_asked_us: Int64, key: int, ts_us: int, window_us: int) -> bool:
    """Whether the segment was asked for within the window; always, where that is not kept."""
    if len(last_asked_us) == 0:
        return True
    recent = ts_us - last_asked_us[key] <= window_us
    last_asked_us[key] = ts_us
    return bool(recent)


@kernel
def _fill(mesh: Mesh, shelf: Shelf, homes: Homes, request: Request, booking: tuple[Int64, bool]) -> None:
    """Sends the segment to one device of the location, if there is one for it."""
    cell, paid = booking
    size = mesh.segment_bytes[request.segment]
    source = _device_for(mesh, shelf, homes, request)
    if source < 0:
        return
    while mesh.sources[source].held_bytes + size > mesh.sources[source].storage_bytes:
        oldest = mesh.sources[source].tail
        if paid and mesh.copies[oldest].served_bytes == 0:
            cell[WASTED_BYTES] += mesh.segment_bytes[mesh.copies[oldest].segment]
        drop(mesh, shelf, oldest)
    from_us = max(request.ts_us, mesh.sources[source].downlink_us)
    _, ready_us = push_times(mesh, source, request.segment, from_us)
    mesh.sources[source].downlink_us = ready_us
    if paid:
        cell[PUSHED_BYTES] += size
    put(mesh, shelf, request.location, (request.segment, source, ready_us))


@kernel
def _device_for(mesh: Mesh, shelf: Shelf, homes: Homes, request: Request) -> int:
    """The first device from the segment's place on the location's ring of storage that can take it; -1 if none."""
    first, last = homes.offsets[request.location], homes.offsets[request.location + 1]
    if first == last:
        return -1
    end = homes.device[last - 1]
    total = homes.storage_before[last - 1] + mesh.sources[end].storage_bytes
    place = uniform(np.uint64(0), request.segment, 0) * total
    low, high = first, last - 1
    while low < high:
        middle = (low + high + 1) // 2
        if homes.storage_before[middle] <= place:
            low = middle
        else:
            high = middle - 1
    for step in range(last - first):
        source = homes.device[first + (low - first + step) % (last - first)]
        if _can_take(mesh, shelf, source, request):
            return int(source)
    return -1


@kernel
def _can_take(mesh: Mesh, shelf: Shelf, source: int, request: Request) -> bool:
    if mesh.segment_bytes[request.segment] > mesh.sources[source].storage_bytes:
        return False
    if mesh.sources[source].downlink_bps <= 0.0:
        return False
    if up_row(mesh.sources, mesh.intervals, source, request.ts_us) < 0:
        return False
    slot = shelf.first_copy[request.location * len(mesh.segment_bytes) + request.segment]
    while slot >= 0:
        if mesh.copies[slot].source == source:
            return False
        slot = shelf.sibling[slot]
    return True
