"""What a planner expects at an instant: from the models, from a simple rule, or from the truth.

Each outlook answers the same question, so that a replay can compare them with everything else equal: which segments will
be asked for where over the horizon, and which sources will be up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from models.events import HOUR_US, Float64, Int64, RequestLog
from models.forecast import ChurnForecast, DemandForecast
from pipelines.planning import NodeOutlook, PlanningSettings, SegmentDemand, outlook_from, segment_demand
from pipelines.requests import WatchThrough
from pipelines.scene import Scene
from pipelines.stretch import Trace, reader_of
from placement.trace import SegmentRequests
from placement.uplinks import UplinkSchedule
from placement.uptime import Uptime

MOST_REMEMBERED_BYTES = 512 << 20
"""What the answers of one outlook may take in memory before later ones are made anew for each row."""


@dataclass(frozen=True)
class Expectation:
    """Demand and nodes as expected over the next horizon.

    Attributes:
        horizon_hours: how far ahead both look; None for as far as the planning settings say.
        by_prior: whether the demand model's prior answered, because the model had lost to it lately.
        unforeseen: share of each location's requests expected for contents that `demand` does not name; None for none. (L,)
    """

    demand: SegmentDemand
    nodes: NodeOutlook
    horizon_hours: float | None = None
    by_prior: bool = False
    unforeseen: Float64 | None = None

    @property
    def n_bytes(self) -> int:
        """Memory that its arrays take."""
        arrays = [*vars(self.demand).values(), *vars(self.nodes).values()]
        return sum(array.nbytes for array in arrays if array is not None)


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
        return replace(self.expectation(demand, churn, at_us), by_prior=self.by_prior_us[-1:] == [at_us])

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
            unforeseen=unforeseen_share(demand, self._scene),
        )


def unforeseen_share(forecast: DemandForecast, scene: Scene) -> Float64:
    """Other mean / mean of all, by location; 0 where nothing is expected. (L,)"""
    share = np.zeros(len(scene.locations))
    code, total = scene.location_codes(forecast.locations), forecast.total_by_location()
    known = (code >= 0) & (total > 0)
    share[code[known]] = forecast.other_mean[known] / total[known]
    return share


class ClairvoyantOutlook:
    """True requests, departures and uplinks over the next `horizon_hours`: what no planner can know.

    The truth ends with what is replayed: what would be asked for afterwards counts for no row, so that knowing it could
    only mislead. Near the end both look no further than `end_us`. It reads ahead in the trace, and holds no more of it
    than the horizon.

    Args:
        requests: all that are played.
        uptime: when every source is truly up.
        end_us: where the replay ends; None for no end.
        uplinks: what the sources' uplinks truly are; None for what their owners allow.
    """

    def __init__(
        self,
        scene: Scene,
        requests: Trace,
        uptime: Uptime,
        *,
        horizon_hours: float,
        end_us: int | None = None,
        uplinks: UplinkSchedule | None = None,
    ) -> None:
        self._scene, self._requests, self._uptime, self._uplinks = scene, reader_of(requests), uptime, uplinks
        self._horizon_us, self._end_us = round(horizon_hours * HOUR_US), end_us

    def at(self, at_us: int) -> Expectation:
        return self.over(at_us, self.until(at_us + self._horizon_us))

    def over(self, start_us: int, end_us: int) -> Expectation:
        """What is asked for in [start, end), and who is up then."""
        pair, counts = np.unique(self.pairs(self.coming(start_us, end_us)), return_counts=True)
        return Expectation(
            self.demand(pair, counts.astype(np.float64)),
            self.nodes(start_us, end_us),
            horizon_hours=(end_us - start_us) / HOUR_US,
        )

    def nodes(self, start_us: int, end_us: int) -> NodeOutlook:
        """Who truly stays, for what share of [start, end) each is up, and who is up at its start."""
        is_pop, length_us = self._scene.is_pop, end_us - start_us
        up_us = self._uptime.up_us(start_us, end_us)
        up_now = self._uptime.up_us(start_us, start_us + 1) > 0
        stays = (up_us >= length_us).astype(np.float64)
        share = None if self._uplinks is None else self._uplinks.mean_share(start_us, end_us)
        up_share = np.where(is_pop, 1.0, up_us / length_us)
        return NodeOutlook(np.where(is_pop, 1.0, stays), up_share, up_now | is_pop, uplink_share=share)

    def until(self, at_us: int) -> int:
        """The instant, or the end of what is replayed if that comes first."""
        return at_us if self._end_us is None else min(at_us, self._end_us)

    def coming(self, start_us: int, end_us: int) -> SegmentRequests:
        """Requests of [start, end); no later call may start earlier."""
        return self._requests.between(start_us, end_us)

    def pairs(self, requests: SegmentRequests) -> Int64:
        """One number for the segment and the location of each request. (requests,)"""
        return requests.segment.astype(np.int64) * len(self._scene.locations) + requests.location

    def demand(self, pair: Int64, requests: Float64) -> SegmentDemand:
        """Of such numbers, each once, and how often each is asked for."""
        n_locations = len(self._scene.locations)
        return SegmentDemand(pair // n_locations, pair % n_locations, requests)


class RememberedOutlook:
    """An outlook that is asked once for each instant, whoever plans.

    Answers are kept until they take `most_bytes`. Of the others, later ones are made as they are asked for; for an earlier
    one a fresh outlook is made, because outlooks only go forward in time.

    Args:
        make: makes the outlook, at the start of time.
        most_bytes: memory that the kept answers may take.
    """

    def __init__(self, make: Callable[[], Outlook], *, most_bytes: int = MOST_REMEMBERED_BYTES) -> None:
        self._make, self._free_bytes = make, most_bytes
        self._outlook: Outlook | None = None
        self._asked_us = 0
        self._seen: dict[int, Expectation] = {}

    def at(self, at_us: int) -> Expectation:
        if at_us in self._seen:
            return self._seen[at_us]
        if self._outlook is None or at_us < self._asked_us:
            self._outlook = self._make()
        self._asked_us = at_us
        found = self._outlook.at(at_us)
        if found.n_bytes <= self._free_bytes:
            self._free_bytes -= found.n_bytes
            self._seen[at_us] = found
        return found
