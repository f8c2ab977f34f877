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
from models.churn.operation import RecalibrationSettings
from models.churn.recalibrated import RecalibratedForecaster
from models.counters import CounterStore
from models.demand.cells import observe
from models.demand.forecaster import DemandForecaster
from models.demand.operation import TrailingSettings
from models.demand.samples import advance
from models.demand.trailing import TrailingComparison
from models.events import HOUR_US, RequestLog
from models.forecast import ChurnForecast, DemandForecast
from pipelines.planning import NodeOutlook, PlanningSettings, SegmentDemand, outlook_from, segment_demand
from pipelines.requests import WatchThrough
from pipelines.scene import Scene
from pipelines.stretch import Trace, reader_of
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

    As in operation, the demand model's own prior answers where the model lost to it over the trailing hours, and the
    churn model is recalibrated every day.

    Args:
        log: all requests; each question sees only those before its instant.
        history: all sessions; the churn model cuts them at the instant.
        trailing: how the demand model is compared with its prior.
        recalibration: how the churn model is put right on what has happened.

    Attributes:
        store: the counters.
        by_prior_us: instants at which the prior answered.
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
        trailing: TrailingSettings | None = None,
        recalibration: RecalibrationSettings | None = None,
    ) -> None:
        self._scene, self._log, self._history, self._watch = scene, log, history, watch
        self._demand, self._settings = demand, settings
        self._churn = RecalibratedForecaster(churn, recalibration or RecalibrationSettings())
        self.store = CounterStore()
        compared = TrailingComparison(demand, trailing or TrailingSettings()) if demand.learned is not None else None
        self._comparison = compared
        self.by_prior_us: list[int] = []

    def forecasts(self, at_us: int) -> tuple[DemandForecast, ChurnForecast]:
        answering = self._answering(at_us)
        state = observe(self.store, at_us=at_us, settings=answering.settings)
        if self._comparison is not None:
            self._comparison.remember(state)  # what was observed for a plan need not be observed again to be judged
        horizon = round(self._settings.horizon_hours)
        demand = answering.forecast_state(state, self.store, horizon_hours=horizon)
        return demand, self._churn.forecast(self._history, at_us=at_us)

    def _answering(self, at_us: int) -> DemandForecaster:
        """The model, or its prior; the counters are fed until the instant on the way."""
        if self._comparison is None:
            for _ in advance(self.store, self._log, [at_us]):
                pass
            return self._demand
        self._comparison.advance(self.store, self._log, at_us=at_us)
        if not self._comparison.judge(at_us).fallback:
            return self._demand
        self.by_prior_us.append(at_us)
        return self._comparison.prior

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
    """True requests and true departures over the next `horizon_hours`: what no planner can know.

    Reads ahead in the trace, and holds no more of it than the horizon.
    """

    def __init__(self, scene: Scene, requests: Trace, uptime: Uptime, *, horizon_hours: float) -> None:
        self._scene, self._requests, self._uptime = scene, reader_of(requests), uptime
        self._horizon_us = round(horizon_hours * HOUR_US)

    def at(self, at_us: int) -> Expectation:
        end_us = at_us + self._horizon_us
        coming = self._requests.between(at_us, end_us)
        n_locations = len(self._scene.locations)
        keys = coming.segment.astype(np.int64) * n_locations + coming.location
        pairs, counts = np.unique(keys, return_counts=True)
        up_us = self._uptime.up_us(at_us, end_us)
        up_now = self._uptime.up_us(at_us, at_us + 1) > 0
        stays = (up_us >= self._horizon_us).astype(np.float64)
        share = np.where(self._scene.is_pop, 1.0, up_us / self._horizon_us)
        return Expectation(
            SegmentDemand(pairs // n_locations, pairs % n_locations, counts.astype(np.float64)),
            NodeOutlook(np.where(self._scene.is_pop, 1.0, stays), share, up_now | self._scene.is_pop),
        )
