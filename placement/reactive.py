"""Predict and react: a plan's copies, and beside them, in the storage that the plan leaves, what passes through.

A request is tried at the plan's copies and at those that passed through, by one rule of routing. One that tier 1 has to
serve may fill a device of its location, paid by tier 1, once that has happened to the segment there often enough lately:

    misses(t) = misses(t') · 2^(−(t − t') / half-life) + 1    at each request that tier 1 serves,    filled from a number on

so that what nobody foresaw, or too few devices hold, is kept as soon as that shows, and what is asked for once is not. A
fill sets the count back to nothing: each is paid for by as many misses, so that what is pushed is a small part of them.
The device is the first from the segment's place on the ring of storage (`placement/homes.py`) that is up and whose
uplink is idle: one that is busy could not serve it. Devices throw out what was used longest ago. A plan has the first
right to storage: what passed through goes when a plan needs its room, and what the plan wants and passed through already
is not pushed again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp2
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from placement.copybook import push_times
from placement.errors import ReplayError
from placement.homes import Homes, can_take, first_home, holds, homes_of
from placement.mesh import Mesh, Records, ReplaySettings, Request, Sums, fresh_candidates, fresh_copies, kernel
from placement.problem import Float64, Int8, Int32, Int64
from placement.replay import Columns, Replay, Served, cause_of_unseen, columns_of
from placement.routing import RoutingSettings
from placement.shelf import Shelf, drop, drop_oldest, fresh_shelf, gather, grown_shelf, put, touch
from placement.tally import HOUR_US, PUSHED_BYTES, WASTED_BYTES, Cause, ReplayTally
from placement.trace import Holdings, ReplayWorld, SegmentRequests
from placement.transfers import UNSEEN, book, try_mesh, unserved
from placement.uptime import ALWAYS_US

Float32 = npt.NDArray[np.float32]
IN_TRANSIT = int(Cause.IN_TRANSIT)
MOST_RESERVED = 0.5


@dataclass(frozen=True)
class ReactiveSettings:
    """What devices keep of what passes through, beside the plan."""

    storage_share: float | None = 0.0
    """Share of each device's storage that plans leave free for it, in [0, 1); null sizes it by the model: the share of
    its location's requests that is expected for contents the forecast does not name, a half at most. What plans do not
    fill is used in any case."""
    admit_requests: float = 12.0
    """Recent requests from one location that tier 1 served, decayed, from which a segment is kept there."""
    half_life_hours: float = 1.0
    """Half-life of that count, in hours."""

    def __post_init__(self) -> None:
        problems = []
        if self.storage_share is not None and not 0 <= self.storage_share < 1:
            problems.append(f"Expected storage_share in [0, 1) or null, got {self.storage_share!r}.")
        if not 1 <= self.admit_requests < float("inf"):
            problems.append(f"Expected admit_requests >= 1, got {self.admit_requests!r}.")
        if not 0 < self.half_life_hours < float("inf"):
            problems.append(f"Expected half_life_hours > 0, got {self.half_life_hours!r}.")
        if problems:
            raise ReplayError("The reactive settings cannot be used:", problems)

    def reserved(self, unforeseen: Float64 | None, n_locations: int) -> Float64:
        """Share of storage that plans leave free at each location. (locations,)"""
        if self.storage_share is not None:
            return np.full(n_locations, self.storage_share)
        return np.zeros(n_locations) if unforeseen is None else np.minimum(unforeseen, MOST_RESERVED)


class Passing(NamedTuple):
    """Requests that tier 1 served lately, by location and segment; both are (locations * segments,)."""

    misses: Float32
    last_us: Int64


class ReactiveReplay(Replay):
    """A replay of plans whose devices also keep what passes through.

    Args:
        reactive: when it is kept.
        others: as those of `Replay`.
    """

    def __init__(
        self,
        world: ReplayWorld,
        reactive: ReactiveSettings,
        *,
        settings: ReplaySettings | None = None,
        routing: RoutingSettings | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(world, settings=settings, routing=routing, seed=seed)
        self._reactive, self._homes = reactive, homes_of(world)
        keys = world.n_locations * world.n_segments
        self._shelf = fresh_shelf(keys)
        self._passing = Passing(np.zeros(keys, np.float32), np.full(keys, ALWAYS_US, np.int64))
        self._grow()
        self._make_room(ALWAYS_US)

    def serve(self, requests: SegmentRequests) -> Served:
        """As `Replay.serve`; devices keep what passes through as they go.

        Raises:
            ReplayError: as there.
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
                (self._book.offsets, self._forecast, self._slots),
                (self._shelf, self._homes, self._passing),
                (columns_of(requests), done),
                (start_hour_us, self._ledger.requests_seen),
                (self._reactive.admit_requests, self._reactive.half_life_hours * HOUR_US),
                self._ledger.sums,
                (served.source, served.cause, served.latency_ms),
            )
            if done < len(requests):
                self._grow()
        self._ledger.requests_seen += len(requests)
        return served

    def finish(self, end_us: int | None = None) -> ReplayTally:
        """As `Replay.finish`; what was kept, is still there and never served counts as wasted."""
        super().finish(end_us)
        now_us = self._ledger.now_us
        if now_us is not None:
            pool = self._pool
            idle = pool[(pool["source"] >= 0) & (pool["served_bytes"] == 0)]
            location = self._mesh.sources["location"][idle["source"]]
            sizes = self._mesh.segment_bytes[idle["segment"]]
            self._ledger.add(WASTED_BYTES, np.full(len(idle), now_us, np.int64), location, sizes)
        return self._ledger.tally(self._mesh.sources["sent_bytes"])

    def passed_through(self) -> tuple[Int32, Int32]:
        """Segments and sources of what devices keep beside the plan, and have whole by now."""
        pool = self._pool[(self._pool["source"] >= 0) & (self._pool["ready_us"] <= (self._ledger.now_us or 0))]
        return pool["segment"].copy(), pool["source"].copy()

    def held_bytes(self) -> Int64:
        """Bytes that each source holds or waits for. (sources,)"""
        return np.asarray(super().held_bytes() + self._mesh.sources["held_bytes"])

    @property
    def _slots(self) -> int:
        """Slots of what passes through; the plan's copies come after them."""
        return len(self._shelf.newer)

    @property
    def _pool(self) -> Records:
        return self._mesh.copies[: self._slots]

    def _carry_out(self, plan: Holdings) -> None:
        """What the plan wants and passed through stays; the rest of that makes room."""
        pool = self._hand_over(plan)
        super()._carry_out(plan)
        self._rejoin(pool)
        self._make_room(plan.start_us)

    def _hand_over(self, plan: Holdings) -> Records:
        """Gives the plan those of its copies that passed through; the slots that are left."""
        n_sources = self.world.n_sources
        pool = self._pool
        kept = np.flatnonzero(pool["source"] >= 0)
        keys = pool["segment"][kept].astype(np.int64) * n_sources + pool["source"][kept]
        slots = kept[np.isin(keys, plan.segment.astype(np.int64) * n_sources + plan.source)]
        self._book.receive(pool[slots])
        _drop_all(self._mesh, self._shelf, slots)
        return self._pool.copy()

    def _rejoin(self, pool: Records) -> None:
        """Puts the plan's copies behind those that passed through, in one array that both share."""
        copies = np.concatenate([pool, self._book.copies])
        self._book.copies = copies[len(pool) :]
        most = self._book.most_holders + int(np.diff(self._homes.offsets).max(initial=0))
        self._mesh = self._mesh._replace(copies=copies, candidates=fresh_candidates(most))

    def _make_room(self, now_us: int) -> None:
        """Leaves to what passes through the storage that the plan does not fill, and throws out what is over."""
        room = np.maximum(self.world.storage_bytes - self._book.held_bytes(), 0)
        self._mesh.sources["storage_bytes"] = np.where(self.world.tier == 1, 0, room)
        wasted = np.zeros(self.world.n_locations, np.int64)
        _shrink(self._mesh, self._shelf, wasted)
        at = np.flatnonzero(wasted)
        if len(at):
            self._ledger.add(WASTED_BYTES, np.full(len(at), now_us, np.int64), at, wasted[at])

    def _grow(self) -> None:
        """Doubles the slots of what passes through; what they can come to is bounded by the devices' storage."""
        before = self._slots
        fresh = fresh_copies(max(before, 1024))
        fresh["source"] = -1
        pool = np.concatenate([self._pool, fresh])
        self._shelf = grown_shelf(self._shelf, len(fresh))
        self._rejoin(pool)


@kernel
def _serve_all(
    mesh: Mesh,
    plan: tuple[Int64, Int64, int],
    kept: tuple[Shelf, Homes, Passing],
    work: tuple[Columns, int],
    origin: tuple[int, int],
    admission: tuple[float, float],
    sums: Sums,
    served: tuple[Int32, Int8, Float64],
) -> int:
    """Serves from request work[1] on; gives how many are done, fewer than all when the slots are used up."""
    (offsets, forecast, slots), (shelf, _, passing), (columns, begin) = plan, kept, work
    for i in range(begin, len(columns[0])):
        if shelf.free[0] < 0:
            return i
        ts_us, segment, location = int(columns[0][i]), int(columns[1][i]), int(columns[2][i])
        hour = (ts_us - origin[0]) // HOUR_US
        request = Request(ts_us, segment, location, int(columns[3][i]), origin[1] + i, hour)
        planned = _planned(mesh, offsets, slots, segment)
        key = location * len(mesh.segment_bytes) + segment
        done = try_mesh(mesh, gather(mesh.candidates, shelf, key, planned), request)
        if done.cause == UNSEEN:
            done = unserved(cause_of_unseen(forecast, segment * len(mesh.pop) + location))
        source, latency_us = book(mesh, done, request, sums)
        served[0][i], served[1][i], served[2][i] = source, done.cause, latency_us / 1000.0
        if 0 <= done.slot < slots:
            touch(mesh, shelf, done.slot)
        elif done.slot < 0 and _count(passing, key, ts_us, admission[1]) >= admission[0] and done.cause != IN_TRANSIT:
            _keep(mesh, kept, request, (planned, sums.cells[hour, location]))
    return len(columns[0])


@kernel
def _planned(mesh: Mesh, offsets: Int64, slots: int, segment: int) -> int:
    """Puts the plan's copies of the segment first among the candidates; how many there are."""
    first = offsets[segment]
    n = offsets[segment + 1] - first
    for j in range(n):
        mesh.candidates[j].slot = slots + first + j
    return int(n)


@kernel
def _count(passing: Passing, key: int, ts_us: int, half_life_us: float) -> float:
    """Recent requests that tier 1 served, with this one."""
    count = 1.0
    if passing.last_us[key] > ALWAYS_US:
        count += passing.misses[key] * exp2(-(ts_us - passing.last_us[key]) / half_life_us)
    passing.misses[key], passing.last_us[key] = count, ts_us
    return count


@kernel
def _keep(mesh: Mesh, kept: tuple[Shelf, Homes, Passing], request: Request, rest: tuple[int, Int64]) -> None:
    """Sends the segment to one device of the location, if there is one for it, at tier 1's expense."""
    (shelf, homes, passing), (planned, cell) = kept, rest
    size = mesh.segment_bytes[request.segment]
    source = _taker(mesh, shelf, homes, request, planned)
    if source < 0:
        return
    while mesh.sources[source].held_bytes + size > mesh.sources[source].storage_bytes:
        cell[WASTED_BYTES] += drop_oldest(mesh, shelf, source)
    from_us = max(request.ts_us, mesh.sources[source].downlink_us)
    _, ready_us = push_times(mesh, source, request.segment, from_us)
    mesh.sources[source].downlink_us = ready_us
    cell[PUSHED_BYTES] += size
    put(mesh, shelf, request.location, (request.segment, source, ready_us))
    passing.misses[request.location * len(mesh.segment_bytes) + request.segment] = 0.0


@kernel
def _taker(mesh: Mesh, shelf: Shelf, homes: Homes, request: Request, planned: int) -> int:
    """The first device from the segment's place on the ring that can take and serve it and has it not; -1 if none."""
    first, last = homes.offsets[request.location], homes.offsets[request.location + 1]
    at = first_home(homes, request.location, request.segment)
    for _ in range(last - first):
        source = homes.device[at]
        at = at + 1 if at + 1 < last else first
        if not can_take(mesh, source, request) or not _can_serve(mesh, source, request):
            continue
        if not _is_planned(mesh, source, planned) and not holds(mesh, shelf, source, request):
            return int(source)
    return -1


@kernel
def _can_serve(mesh: Mesh, source: int, request: Request) -> bool:
    """Whether a copy there would be of use now: the device may serve, and its uplink is idle."""
    node = mesh.sources[source]
    return bool(node.eligible and node.uplink_bps > 0.0 and node.busy_us <= request.ts_us)


@kernel
def _is_planned(mesh: Mesh, source: int, planned: int) -> bool:
    found = False
    for j in range(planned):
        found |= mesh.copies[mesh.candidates[j].slot].source == source
    return found


@kernel
def _drop_all(mesh: Mesh, shelf: Shelf, slots: Int64) -> None:
    for slot in slots:
        drop(mesh, shelf, slot)


@kernel
def _shrink(mesh: Mesh, shelf: Shelf, wasted: Int64) -> None:
    """Throws out what is over each device's room; adds to the bytes wasted at its location. (locations,)"""
    for source in range(len(mesh.sources)):
        while mesh.sources[source].held_bytes > mesh.sources[source].storage_bytes:
            wasted[mesh.sources[source].location] += drop_oldest(mesh, shelf, source)
