"""Reactive caches on the same devices, on storage, uplinks and churn of the same world.

A request that finds no live copy in its location is served by tier 1 and may fill one device of the location. Which
one is decided by a hash of the segment, in proportion to storage (the first device from there that is on, has room
for the segment at all and does not hold it): every device sees its own part of the contents, so that together they
work as one cache. Each device throws out by its policy: `lru` what was used longest ago, `s3-fifo` by the queues of
`placement/s3_fifo.py`. A device that is off keeps what it holds; its contents are filled elsewhere meanwhile and both
copies serve when it returns. Overload of all holders counts as a miss and fills one more device, one at a time.

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
from placement.homes import Homes, device_for, homes_of
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
from placement.problem import Float64, Int8, Int32, Int64
from placement.replay import Columns, Served, columns_of
from placement.routing import RoutingSettings
from placement.s3_fifo import (
    Fifos,
    count_request,
    fresh_fifos,
    grown_fifos,
    put_first,
    recall,
    throw_out,
)
from placement.shelf import Shelf, drop_oldest, fresh_shelf, gather, grown_shelf, put, touch
from placement.tally import HOUR_US, PUSHED_BYTES, WASTED_BYTES, Cause, ReplayTally
from placement.trace import ReplayWorld, SegmentRequests
from placement.transfers import UNSEEN, book, try_mesh, unserved
from placement.uptime import ALWAYS_US

FillRule = Literal["every_miss", "second_request", "free"]
CachePolicy = Literal["lru", "s3-fifo"]
NOT_FORECAST = int(Cause.NOT_FORECAST)
IN_TRANSIT = int(Cause.IN_TRANSIT)


@dataclass(frozen=True)
class CacheSettings:
    """When a miss fills a device, and what it then throws out."""

    fill: FillRule = "every_miss"
    """Rule of filling: every_miss and second_request are paid by tier 1, free is not."""
    admission_window_hours: float = 24.0
    """With second_request: how long ago the earlier request may lie, in hours."""
    policy: CachePolicy = "lru"
    """What a device throws out: lru what was used longest ago, s3-fifo what was hardly asked for while it was new."""

    def __post_init__(self) -> None:
        problems = []
        if self.fill not in ("every_miss", "second_request", "free"):
            problems.append(f"Expected fill 'every_miss', 'second_request' or 'free', got {self.fill!r}.")
        if not 0 < self.admission_window_hours < float("inf"):
            problems.append(f"Expected admission_window_hours > 0, got {self.admission_window_hours!r}.")
        if self.policy not in ("lru", "s3-fifo"):
            problems.append(f"Expected policy 'lru' or 's3-fifo', got {self.policy!r}.")
        if problems:
            raise ReplayError("The cache settings cannot be used:", problems)


class Rule(NamedTuple):
    """Settings as numbers."""

    window_us: int
    paid: bool
    fifo: bool


class Stock(NamedTuple):
    """What the devices hold, by which lists, and what was asked for when."""

    shelf: Shelf
    fifos: Fifos  # without slots where least recently used goes first
    homes: Homes
    last_asked_us: Int64  # (locations * segments,) with second_request, else empty


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
        self._stock = _fresh_stock(world, self._caches)
        most = int(np.diff(self._stock.homes.offsets).max(initial=1))
        self._mesh = mesh._replace(candidates=fresh_candidates(most))
        self._ledger = Ledger(world)
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
        done = 0
        while done < len(requests):
            done = _serve_all(
                self._mesh,
                self._stock,
                (columns_of(requests), done),
                (start_hour_us, self._ledger.requests_seen),
                self._rule(),
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

    def _rule(self) -> Rule:
        caches = self._caches
        window_us = round(caches.admission_window_hours * HOUR_US)
        return Rule(window_us, caches.fill != "free", caches.policy == "s3-fifo")

    def _grow(self) -> None:
        """Doubles the pool of slots; what it can come to is bounded by the devices' storage."""
        before = len(self._mesh.copies)
        fresh = fresh_copies(max(before, 1024))
        fresh["source"] = -1
        self._mesh = self._mesh._replace(copies=np.concatenate([self._mesh.copies, fresh]))
        self._stock = self._stock._replace(
            shelf=grown_shelf(self._stock.shelf, len(fresh)), fifos=grown_fifos(self._stock.fifos, len(fresh))
        )


def _fresh_stock(world: ReplayWorld, caches: CacheSettings) -> Stock:
    keys = world.n_locations * world.n_segments
    fifo = caches.policy == "s3-fifo"
    fifos = fresh_fifos(world.storage_bytes if fifo else world.storage_bytes[:0], keys if fifo else 0)
    asked = keys if caches.fill == "second_request" else 0
    return Stock(fresh_shelf(keys), fifos, homes_of(world), np.full(asked, ALWAYS_US, np.int64))


@kernel
def _serve_all(
    mesh: Mesh,
    stock: Stock,
    work: tuple[Columns, int],
    origin: tuple[int, int],
    rule: Rule,
    sums: Sums,
    served: tuple[Int32, Int8, Float64],
) -> int:
    """Serves from request work[1] on; gives how many are done, fewer than all when the pool of slots is used up."""
    columns, begin = work
    for i in range(begin, len(columns[0])):
        if stock.shelf.free[0] < 0:
            return i
        ts_us, segment, location = int(columns[0][i]), int(columns[1][i]), int(columns[2][i])
        hour = (ts_us - origin[0]) // HOUR_US
        request = Request(ts_us, segment, location, int(columns[3][i]), origin[1] + i, hour)
        key = location * len(mesh.segment_bytes) + segment
        n = gather(mesh.candidates, stock.shelf, key, 0)
        done = try_mesh(mesh, n, request)
        if done.cause == UNSEEN:
            done = unserved(NOT_FORECAST)
        source, latency_us = book(mesh, done, request, sums)
        served[0][i], served[1][i], served[2][i] = source, done.cause, latency_us / 1000.0
        if done.slot >= 0:
            _use(mesh, stock, rule, done.slot)
        elif done.cause != IN_TRANSIT and _admits(stock.last_asked_us, key, ts_us, rule.window_us):
            _fill(mesh, stock, rule, request, sums.cells[hour, location])
    return len(columns[0])


@kernel
def _use(mesh: Mesh, stock: Stock, rule: Rule, slot: int) -> None:
    if rule.fifo:
        count_request(stock.fifos, slot)
    else:
        touch(mesh, stock.shelf, slot)


@kernel
def _admits(last_asked_us: Int64, key: int, ts_us: int, window_us: int) -> bool:
    """Whether the segment was asked for within the window; always, where that is not kept."""
    if len(last_asked_us) == 0:
        return True
    recent = ts_us - last_asked_us[key] <= window_us
    last_asked_us[key] = ts_us
    return bool(recent)


@kernel
def _fill(mesh: Mesh, stock: Stock, rule: Rule, request: Request, cell: Int64) -> None:
    """Sends the segment to one device of the location, if there is one for it."""
    source = device_for(mesh, stock.shelf, stock.homes, request)
    if source < 0:
        return
    size = mesh.segment_bytes[request.segment]
    key = request.location * len(mesh.segment_bytes) + request.segment
    known = rule.fifo and recall(mesh, stock.shelf, stock.fifos, (key, source))
    unused = _make_room(mesh, stock, rule, source, size)
    from_us = max(request.ts_us, mesh.sources[source].downlink_us)
    _, ready_us = push_times(mesh, source, request.segment, from_us)
    mesh.sources[source].downlink_us = ready_us
    if rule.paid:
        cell[PUSHED_BYTES] += size
        cell[WASTED_BYTES] += unused
    copy = (request.segment, source, ready_us)
    if rule.fifo:
        put_first(mesh, stock.shelf, stock.fifos, request.location, copy, known)
    else:
        put(mesh, stock.shelf, request.location, copy)


@kernel
def _make_room(mesh: Mesh, stock: Stock, rule: Rule, source: int, size: int) -> int:
    """Throws out until the device has room for so many bytes; gives the bytes thrown out that never served."""
    unused = 0
    while mesh.sources[source].held_bytes + size > mesh.sources[source].storage_bytes:
        if rule.fifo:
            unused += throw_out(mesh, stock.shelf, stock.fifos, source)
        else:
            unused += drop_oldest(mesh, stock.shelf, source)
    return unused
