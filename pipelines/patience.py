"""The truth in the form in which the next plan can use it best: what is needed now, and what is worth keeping.

A plan that weighs all requests of the next 24 hours alike fills storage now with what is asked for tomorrow. Whoever knows
the future needs a copy when it is asked for, and holds on to it only to save a push. So a (segment, location) pair counts

    (requests until the next plan) + 2^-(gap / half-life)        if more follow within the horizon, else without this term

with the gap from the next plan to the first of those that follow. One push is all that holding on can save, however much is
asked for later, and the longer it takes the more use others have of the room. On equal sizes without departures, plans for
this demand come within 1 % of the exact optimum (`placement/offline_optimum.py`), plans for all of 24 hours alike within
26 %.
"""

from __future__ import annotations

import numpy as np

from models.events import HOUR_US, Float64, Int64
from pipelines.outlook import ClairvoyantOutlook, Expectation
from pipelines.scene import Scene
from pipelines.stretch import Trace
from placement.trace import SegmentRequests
from placement.uplinks import UplinkSchedule
from placement.uptime import Uptime

HALF_LIFE_HOURS = 3.0
"""Gap at which a copy that is asked for again is worth half a push."""


class PatientOutlook(ClairvoyantOutlook):
    """True demand of the time until the next plan, and beside it what is worth keeping for later.

    Args:
        every_hours: distance of the plans; departures are told this far ahead.
        horizon_hours: how far ahead requests are known.
    """

    def __init__(
        self,
        scene: Scene,
        requests: Trace,
        uptime: Uptime,
        *,
        every_hours: float,
        horizon_hours: float,
        end_us: int | None = None,
        uplinks: UplinkSchedule | None = None,
    ) -> None:
        super().__init__(scene, requests, uptime, horizon_hours=horizon_hours, end_us=end_us, uplinks=uplinks)
        self._every_us = round(every_hours * HOUR_US)

    def at(self, at_us: int) -> Expectation:
        next_us = self.until(at_us + self._every_us)
        coming = self.coming(at_us, max(next_us, self.until(at_us + self._horizon_us)))
        n_now = int(np.searchsorted(coming.ts_us, next_us, side="left"))
        now = self.pairs(coming.rows(0, n_now))
        later, worth = self._worth_keeping(coming.rows(n_now, len(coming)), next_us)
        pair, row = np.unique(np.concatenate((now, later)), return_inverse=True)
        counts = np.concatenate((np.ones(len(now)), worth))
        requests = np.asarray(np.bincount(row, counts, minlength=len(pair)), dtype=np.float64)
        hours = (next_us - at_us) / HOUR_US
        return Expectation(self.demand(pair, requests), self.nodes(at_us, next_us), horizon_hours=hours)

    def _worth_keeping(self, coming: SegmentRequests, next_us: int) -> tuple[Int64, Float64]:
        """Pairs that are asked for after the next plan, and what holding them until then is worth, in requests below 1."""
        pair, first = np.unique(self.pairs(coming), return_index=True)
        gap_hours = (coming.ts_us[first] - next_us) / HOUR_US
        return pair, np.exp2(-gap_hours / HALF_LIFE_HOURS)
