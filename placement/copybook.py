"""Who holds what: carries a sequence of plans out on the devices.

At a plan's instant, what the plan does not name is removed, then what is missing is pushed from tier 1, one copy after
another on each node's downlink, in the plan's order. A node that is off receives its pushes when it is next on; a push
that has not begun when the next plan comes is dropped unless that plan wants it too. A push is counted, whole, when it
begins; a copy that goes without having served a byte is counted as wasted. Nothing is pushed to a node without uplink.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from placement.ledger import Ledger
from placement.mesh import Mesh, Records, fresh_copies, kernel
from placement.problem import Bool, Int64
from placement.tally import PUSHED_BYTES, REPAIRED_BYTES, WASTED_BYTES
from placement.trace import Holdings
from placement.uplink_queue import duration_us
from placement.uptime import NEVER_US


class CopyBook:
    """The copies of the running epoch, sorted by (segment, source), with what became of each.

    Attributes:
        copies: source, instant of readiness, survival and served bytes by slot.
        offsets: where each segment's slots begin. (segments + 1,)
    """

    def __init__(self, mesh: Mesh, ledger: Ledger) -> None:
        self._mesh, self._ledger = mesh, ledger
        self.copies: Records = fresh_copies(0)
        self.offsets: Int64 = np.zeros(len(mesh.segment_bytes) + 1, np.int64)
        self._begin_us: Int64 = np.zeros(0, np.int64)
        self._begun: Bool = np.zeros(0, np.bool_)
        self._repair: Bool = np.zeros(0, np.bool_)

    @property
    def most_holders(self) -> int:
        return int(np.diff(self.offsets).max(initial=0))

    def held_bytes(self) -> Int64:
        """Bytes that each source holds or will receive. (sources,)"""
        held = np.zeros(len(self._mesh.sources), np.int64)
        np.add.at(held, self.copies["source"], self._bytes_of(self.copies))
        return held

    def adopt(self, plan: Holdings) -> None:
        """Carries out a checked plan at its instant."""
        self.settle(plan.start_us)
        serves = (self._mesh.sources["tier"] != 1) & (self._ledger.world.uplink_bps > 0)  # tier 1 holds everything
        rows = np.flatnonzero(serves[plan.source])
        rows = rows[np.lexsort((plan.source[rows], plan.segment[rows]))]  # slot -> row of the plan
        old = self._old_slots(plan, rows)
        carried = old >= 0
        lost = self._lost(plan.start_us)
        carried[carried] = self._begun[old[carried]] & ~lost[old[carried]]
        self._retire(old[carried], plan.start_us)
        self._take_over(plan, rows, np.where(carried, old, -1))
        order = np.argsort(rows, kind="stable")
        _schedule_pushes(self._mesh, self.copies, self._begin_us, (self._begun, order), plan.start_us)
        self.offsets = np.searchsorted(self.copies["segment"], np.arange(len(self.offsets))).astype(np.int64)

    def receive(self, copies: Records) -> None:
        """Takes over copies that devices hold already, from elsewhere; the next plan keeps or drops them."""
        if len(copies) == 0:
            return
        both = np.concatenate([self.copies, copies])
        order = np.lexsort((both["source"], both["segment"]))
        n = len(copies)
        self.copies = both[order]
        self._begin_us = np.concatenate([self._begin_us, copies["ready_us"]])[order]
        self._begun = np.concatenate([self._begun, np.ones(n, np.bool_)])[order]
        self._repair = np.concatenate([self._repair, np.zeros(n, np.bool_)])[order]

    def settle(self, now_us: int) -> None:
        """Counts the pushes that have begun before `now_us`."""
        begun = ~self._begun & (self._begin_us < now_us)
        self._begun |= begun
        for flag, column in ((False, PUSHED_BYTES), (True, REPAIRED_BYTES)):
            rows = np.flatnonzero(begun & (self._repair == flag))
            self._count(column, self._begin_us[rows], rows)

    def finish(self, now_us: int) -> None:
        """Ends the replay: counts what has begun, and as wasted what never served; nothing is held afterwards."""
        self.settle(now_us)
        self._retire(np.zeros(0, np.int64), now_us)
        self.__init__(self._mesh, self._ledger)  # type: ignore[misc]  # as new

    def _bytes_of(self, copies: Records) -> Int64:
        sizes: Int64 = self._mesh.segment_bytes[copies["segment"]]
        return sizes

    def _old_slots(self, plan: Holdings, rows: Int64) -> Int64:
        """The slot that holds each wanted copy now, -1 where none does."""
        if len(self.copies) == 0:
            return np.full(len(rows), -1, np.int64)
        n_sources = len(self._mesh.sources)
        held = self.copies["segment"].astype(np.int64) * n_sources + self.copies["source"]
        wanted = plan.segment[rows].astype(np.int64) * n_sources + plan.source[rows]
        place = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
        return np.where(held[place] == wanted, place, -1)

    def _lost(self, now_us: int) -> Bool:
        """Copies that went with an absence of their device, where devices do not keep them."""
        lost = np.zeros(len(self.copies), np.bool_)
        if not self._mesh.rules.keeps_copies:
            _mark_lost(self._mesh, self.copies, now_us, lost)
        return lost

    def _retire(self, kept: Int64, now_us: int) -> None:
        """Counts as wasted what was pushed, is not kept and never served."""
        leaves = self._begun & (self.copies["served_bytes"] == 0)
        leaves[kept] = False
        rows = np.flatnonzero(leaves)
        self._count(WASTED_BYTES, np.full(len(rows), now_us, np.int64), rows)

    def _count(self, column: int, at_us: Int64, rows: Int64) -> None:
        copies = self.copies[rows]
        self._ledger.add(column, at_us, self._mesh.sources["location"][copies["source"]], self._bytes_of(copies))

    def _take_over(self, plan: Holdings, rows: Int64, old: Int64) -> None:
        carried = old >= 0
        before, begin_us = self.copies, self._begin_us
        self.copies = fresh_copies(len(rows))
        self.copies["segment"], self.copies["source"] = plan.segment[rows], plan.source[rows]
        for name in ("ready_us", "served_bytes"):
            self.copies[name][carried] = before[name][old[carried]]
        if plan.survival is not None:
            self.copies["survival"] = plan.survival[rows]
        self._begun = carried
        self._begin_us = np.full(len(rows), NEVER_US, np.int64)
        self._begin_us[carried] = begin_us[old[carried]]
        self._repair = np.zeros(len(rows), np.bool_) if plan.repair is None else plan.repair[rows].astype(np.bool_)


@kernel
def interval_after(intervals: Records, first: int, last: int, at_us: int) -> int:
    """The first of rows `[first, last)` that ends after `at_us`; `last` if none does."""
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if intervals[middle].end_us <= at_us:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def push_times(mesh: Mesh, source: int, segment: int, from_us: int) -> tuple[int, int]:
    """When a push to the source begins and when the copy is there, pausing while the source is off.

    Both are `NEVER_US` where no up-time is left to begin in, the second where it runs out half-way.
    """
    intervals, last = mesh.intervals, mesh.sources[source].last_row
    if from_us >= NEVER_US or mesh.sources[source].downlink_bps <= 0.0:
        return NEVER_US, NEVER_US
    left_us = duration_us(mesh.segment_bytes[segment], mesh.sources[source].downlink_bps)
    row = interval_after(intervals, mesh.sources[source].first_row, last, from_us)
    begin_us = NEVER_US if row >= last else max(from_us, intervals[row].start_us)
    while row < last:
        resumed_us = max(from_us, intervals[row].start_us)
        if intervals[row].end_us - resumed_us >= left_us:
            return begin_us, resumed_us + left_us
        left_us -= intervals[row].end_us - resumed_us
        row += 1
    return begin_us, NEVER_US


@njit(cache=True)
def _schedule_pushes(
    mesh: Mesh, copies: Records, begin_us: Int64, begun_and_order: tuple[Bool, Int64], now_us: int
) -> None:
    begun, order = begun_and_order
    free_us = np.full(len(mesh.sources), now_us, np.int64)
    for slot in range(len(begin_us)):
        if begun[slot]:
            free_us[copies[slot].source] = max(free_us[copies[slot].source], copies[slot].ready_us)
    for slot in order:
        if not begun[slot]:
            source = copies[slot].source
            begin_us[slot], ready_us = push_times(mesh, source, copies[slot].segment, free_us[source])
            copies[slot].ready_us = free_us[source] = ready_us


@kernel
def _mark_lost(mesh: Mesh, copies: Records, now_us: int, lost: Bool) -> None:
    for slot in range(len(copies)):
        source = copies[slot].source
        first, last = mesh.sources[source].first_row, mesh.sources[source].last_row
        row = interval_after(mesh.intervals, first, last, now_us)
        if row < last and mesh.intervals[row].start_us <= now_us:
            lost[slot] = copies[slot].ready_us < mesh.intervals[row].start_us
        elif row > first:
            lost[slot] = copies[slot].ready_us <= mesh.intervals[row - 1].end_us
