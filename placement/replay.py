"""The judge: plays a request trace against plans on the world as it truly was, and accounts for every byte.

    CDN alone        Replay(world).play(requests)
    a rolling plan   Replay(world).play(requests, plans)

or, planning from what has happened so far, by hand: `adopt` a plan, `serve` the requests until the next one, ...,
`finish`. However the requests are split, the tally is the same, and memory does not grow with the trace. What a
request goes through is written at the head of `placement/transfers.py`, what a plan does in `placement/copybook.py`,
the sums in `placement/tally.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from placement.copybook import CopyBook
from placement.ledger import Ledger
from placement.mesh import Mesh, ReplaySettings, Request, Sums, fresh_candidates, fresh_mesh, kernel
from placement.problem import Float64, Int8, Int32, Int64
from placement.routing import RoutingSettings
from placement.tally import HOUR_US, Cause, ReplayTally
from placement.trace import Holdings, ReplayWorld, SegmentRequests
from placement.transfers import UNSEEN, book, try_mesh, unserved

__all__ = ["Holdings", "Replay", "ReplaySettings", "ReplayWorld", "SegmentRequests", "Served"]

NOT_FORECAST = int(Cause.NOT_FORECAST)
NOT_PLACED = int(Cause.NOT_PLACED)


@dataclass(frozen=True)
class Served:
    """What became of each request of one call.

    Attributes:
        source: who sent the first byte; -1 if nobody could. (requests,)
        cause: `Cause` of the bytes that tier 1 sent; -1 where it sent none. (requests,)
        latency_ms: time to the first byte. (requests,)
    """

    source: Int32
    cause: Int8
    latency_ms: Float64

    @classmethod
    def empty(cls, n: int) -> Served:
        return cls(np.zeros(n, np.int32), np.zeros(n, np.int8), np.zeros(n))


class Replay:
    """One row of the comparison: a world, one rule of routing, and the plans that it is given.

    Args:
        world: what truly happened.
        settings: behaviour of the mesh.
        routing: score of a source and choice among near-ties.
        seed: of the router's random choices; request number n draws the same however the trace is split.
    """

    def __init__(
        self,
        world: ReplayWorld,
        *,
        settings: ReplaySettings | None = None,
        routing: RoutingSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.world = world
        self._mesh = fresh_mesh(world, settings or ReplaySettings(), routing or RoutingSettings(), seed)
        self._ledger = Ledger(world)
        self._book = CopyBook(self._mesh, self._ledger)
        self._forecast = np.zeros(0, np.int64)

    def adopt(self, plan: Holdings) -> None:
        """Removes and pushes copies so that the devices come to hold what the plan says.

        Raises:
            ReplayError: the plan lies before what was played, or does not fit the world; a plan over a node's
                storage is refused with the node and the amount.
        """
        plan.check(self.world)
        self._ledger.open_until(plan.start_us, plan.start_us)
        self._carry_out(plan)

    def _carry_out(self, plan: Holdings) -> None:
        self._book.adopt(plan)
        candidates = fresh_candidates(self._book.most_holders)
        self._mesh = self._mesh._replace(copies=self._book.copies, candidates=candidates)
        self._mesh.sources["eligible"] = True if plan.eligible is None else plan.eligible
        self._forecast = self._forecast_keys(plan)

    def serve(self, requests: SegmentRequests) -> Served:
        """Plays the next requests against what is held.

        Raises:
            ReplayError: a request lies before what was played, or does not fit the world.
        """
        served = Served.empty(len(requests))
        if len(requests) == 0:
            return served
        requests.check(self.world)
        start_hour_us = self._ledger.open_for(requests)
        _serve_all(
            self._mesh,
            (self._book.offsets, self._forecast),
            columns_of(requests),
            (start_hour_us, self._ledger.requests_seen),
            self._ledger.sums,
            (served.source, served.cause, served.latency_ms),
        )
        self._ledger.requests_seen += len(requests)
        return served

    def play(self, requests: Iterable[SegmentRequests], plans: Iterable[Holdings] = ()) -> ReplayTally:
        """Plays all requests, each against the latest plan that has started; then finishes.

        Requests before the first plan are served by tier 1. Both are read one by one, as time goes on.
        """
        waiting = iter(plans)
        plan = next(waiting, None)
        for part in requests:
            done = 0
            while plan is not None and len(part) and plan.start_us <= part.ts_us[-1]:
                until = int(np.searchsorted(part.ts_us, plan.start_us, side="left"))
                self.serve(part.rows(done, until))
                self.adopt(plan)
                done, plan = until, next(waiting, None)
            self.serve(part.rows(done, len(part)))
        return self.finish()

    def tally(self) -> ReplayTally:
        """What has been counted so far; pushes are counted when the next plan or the end settles them."""
        return self._ledger.tally(self._mesh.sources["sent_bytes"])

    def tally_at(self, now_us: int) -> ReplayTally:
        """As `tally` at `now_us`, not before what was played; the pushes that have begun until then are counted."""
        self._ledger.open_until(now_us, now_us)
        self._book.settle(now_us)
        return self.tally()

    def finish(self, end_us: int | None = None) -> ReplayTally:
        """Ends at `end_us` (default: the latest instant played): pushes not begun are dropped, waste is counted."""
        now_us = self._ledger.now_us
        if end_us is None and now_us is None:
            return self._ledger.tally(self._mesh.sources["sent_bytes"])
        end_us = now_us if end_us is None else end_us
        assert end_us is not None
        self._ledger.open_until(end_us, end_us)
        self._book.finish(end_us)
        return self._ledger.tally(self._mesh.sources["sent_bytes"])

    def held_bytes(self) -> Int64:
        """Bytes that each source holds or waits for. (sources,)"""
        return self._book.held_bytes()

    def _forecast_keys(self, plan: Holdings) -> Int64:
        if plan.forecast_segment is None or plan.forecast_location is None:
            return np.zeros(0, np.int64)
        keys = plan.forecast_segment.astype(np.int64) * self.world.n_locations + plan.forecast_location
        return np.unique(keys)


Columns = tuple[Int64, Int64, Int64, Int64]


def columns_of(requests: SegmentRequests) -> Columns:
    """The requests in the layout and types that the compiled code expects."""
    return (
        np.require(requests.ts_us, np.int64, ["C", "W"]),
        np.require(requests.segment, np.int64, ["C", "W"]),
        np.require(requests.location, np.int64, ["C", "W"]),
        np.require(requests.bytes, np.int64, ["C", "W"]),
    )


@kernel
def _serve_all(
    mesh: Mesh,
    plan: tuple[Int64, Int64],
    columns: Columns,
    origin: tuple[int, int],
    sums: Sums,
    served: tuple[Int32, Int8, Float64],
) -> None:
    offsets, forecast = plan
    n_locations = len(mesh.pop)
    for i in range(len(columns[0])):
        ts_us, segment, location = int(columns[0][i]), int(columns[1][i]), int(columns[2][i])
        hour = (ts_us - origin[0]) // HOUR_US
        request = Request(ts_us, segment, location, int(columns[3][i]), origin[1] + i, hour)
        first = offsets[segment]
        n = offsets[segment + 1] - first
        for j in range(n):
            mesh.candidates[j].slot = first + j
        done = try_mesh(mesh, n, request)
        if done.cause == UNSEEN:
            done = unserved(cause_of_unseen(forecast, segment * n_locations + location))
        source, latency_us = book(mesh, done, request, sums)
        served[0][i], served[1][i], served[2][i] = source, done.cause, latency_us / 1000.0


@kernel
def cause_of_unseen(forecast: Int64, key: int) -> int:
    """Why no copy lies within reach, from the pairs with forecast demand (sorted keys segment * locations + location)."""
    return NOT_PLACED if _contains(forecast, key) else NOT_FORECAST


@kernel
def _contains(keys: Int64, key: int) -> bool:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return bool(low < len(keys) and keys[low] == key)
