"""The book of a running replay: sums that grow with the hours, and the clock that refuses to go back."""

from __future__ import annotations

import numpy as np

from placement.errors import ReplayError
from placement.mesh import Sums
from placement.problem import Int64
from placement.tally import BINS, COLUMNS, HOUR_US, ReplayTally
from placement.trace import ReplayWorld, SegmentRequests


class Ledger:
    """Mutable twin of `ReplayTally`; its memory grows by one row an hour, never with the requests."""

    def __init__(self, world: ReplayWorld) -> None:
        self.world = world
        self.start_hour_us: int | None = None
        self.now_us: int | None = None
        self.requests_seen = 0
        locations = world.n_locations
        self.sums = Sums(np.zeros((0, locations, COLUMNS), np.int64), np.zeros((2, locations, BINS), np.int64))

    def open_until(self, start_us: int, end_us: int) -> int:
        """Makes room for every hour of `[start_us, end_us]`; gives the first instant of the first hour.

        Raises:
            ReplayError: `start_us` lies before what was played already.
        """
        if self.now_us is not None and start_us < self.now_us:
            raise ReplayError(
                f"Time went back: {start_us} us comes after {self.now_us} us was played. "
                "Give requests and plans in time order."
            )
        if self.start_hour_us is None:
            self.start_hour_us = start_us // HOUR_US * HOUR_US
        hours = (end_us - self.start_hour_us) // HOUR_US + 1
        self._grow(int(hours))
        self.now_us = end_us
        return self.start_hour_us

    def add(self, column: int, at_us: Int64, location: Int64, amount: Int64) -> None:
        """Adds amounts to a column of the cells at these instants and locations."""
        np.add.at(self.sums.cells[:, :, column], (self._hours_of(at_us), location), amount)

    def tally(self, sent_bytes: Int64) -> ReplayTally:
        """A copy of what has been counted so far, with the bytes that each source sent."""
        return ReplayTally.of_cells(
            self.sums.cells,
            self.sums.bins,
            start_hour_us=self.start_hour_us or 0,
            source_bytes=sent_bytes.copy(),
            egress_cost_per_gb=self.world.tier1_cost_per_gb,
            reward_per_gb=self.world.reward_per_gb,
        )

    def open_for(self, requests: SegmentRequests) -> int:
        """As `open_until`, for the instants of the requests, which must not be empty."""
        return self.open_until(int(requests.ts_us[0]), int(requests.ts_us[-1]))

    def _hours_of(self, at_us: Int64) -> Int64:
        return (at_us - (self.start_hour_us or 0)) // HOUR_US

    def _grow(self, hours: int) -> None:
        missing = hours - len(self.sums.cells)
        if missing > 0:
            more = np.zeros((missing, self.world.n_locations, COLUMNS), np.int64)
            self.sums = Sums(np.concatenate([self.sums.cells, more]), self.sums.bins)
