"""What a planner expects at an instant: from the models, from a simple rule, or from the truth.

Each outlook answers the same question, so that a replay can compare them with everything else equal: which segments will
be asked for where over the horizon, and which sources will be up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.events import HOUR_US, RequestLog
from models.forecast import ChurnForecast, DemandForecast
from pipelines.planning import NodeOutlook, PlanningSettings, SegmentDemand, outlook_from, segment_demand
from pipelines.requests import WatchThrough
from pipelines.scene import Scene
from placement.trace import SegmentRequests
from placement.uptime import Uptime


@dataclass(frozen=True)
class Expectation:
    """Demand and nodes as expected over the next horizon."""

    demand: SegmentDemand
    nodes: NodeOutlook


class Outlook(Protocol):
    """Asked at non-decreasing instants."""

    def at(self, at_us: int) -> Expectation: ...


class ModelOutlook:
    """The models' forecasts, from what was known at each instant; the counters advance with the questions.

    Args:
        log: all requests; each question sees only those before its instant.
        history: all sessions; the churn model cuts them at the instant.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        log: RequestLog,
        history: SessionHistory,
        watch: WatchThrough,
        demand: DemandForecaster,
        churn: ChurnForecaster,
        settings: PlanningSettings,
    ) -> None:
        self._scene, self._log, self._history, self._watch = scene, log, history, watch
        self._demand, self._churn, self._settings = demand, churn, settings
        self.store = CounterStore()
        self._fed_until_us = int(log.ts_us[0]) if len(log) else 0

    def forecasts(self, at_us: int) -> tuple[DemandForecast, ChurnForecast]:
        self.store.update(self._log.between(self._fed_until_us, at_us))
        self._fed_until_us = max(self._fed_until_us, at_us)
        horizon = round(self._settings.horizon_hours)
        demand = self._demand.forecast(self.store, at_us=at_us, horizon_hours=horizon)
        return demand, self._churn.forecast(self._history, at_us=at_us)

    def at(self, at_us: int) -> Expectation:
        demand, churn = self.forecasts(at_us)
        return self.expectation(demand, churn, at_us)

    def expectation(self, demand: DemandForecast, churn: ChurnForecast, at_us: int) -> Expectation:
        """The forecasts in the scene's codes."""
        settings = self._settings
        return Expectation(
            segment_demand(
                demand,
                self._scene,
                continuation=self._watch.at(at_us),
                minimum_requests=settings.minimum_requests,
            ),
            outlook_from(churn, self._scene, horizon_hours=settings.horizon_hours),
        )


class ClairvoyantOutlook:
    """True requests and true departures over the next `horizon_hours`: what no planner can know."""

    def __init__(self, scene: Scene, requests: SegmentRequests, uptime: Uptime, *, horizon_hours: float) -> None:
        self._scene, self._requests, self._uptime = scene, requests, uptime
        self._horizon_us = round(horizon_hours * HOUR_US)

    def at(self, at_us: int) -> Expectation:
        end_us = at_us + self._horizon_us
        first, last = np.searchsorted(self._requests.ts_us, [at_us, end_us], side="left")
        n_locations = len(self._scene.locations)
        keys = self._requests.segment[first:last].astype(np.int64) * n_locations + self._requests.location[first:last]
        pairs, counts = np.unique(keys, return_counts=True)
        up_us = self._uptime.up_us(at_us, end_us)
        up_now = self._uptime.up_us(at_us, at_us + 1) > 0
        stays = (up_us >= self._horizon_us).astype(np.float64)
        share = np.where(self._scene.is_pop, 1.0, up_us / self._horizon_us)
        return Expectation(
            SegmentDemand(pairs // n_locations, pairs % n_locations, counts.astype(np.float64)),
            NodeOutlook(np.where(self._scene.is_pop, 1.0, stays), share, up_now | self._scene.is_pop),
        )
