"""Trailing comparison of a model with its own prior, on the hours just past.

At each whole hour both forecast the same cells over the shortest horizon. When that horizon has passed, each is charged

    L = - sum over cells of log P(requests that came)    [nats]

The prior answers from the hour on at which the model's mean loss over the last `hours` hours exceeds the prior's (by more
than `tolerance`, which is 0 unless set). The
model answers again only once it was better over as many hours that all came *after* it had been set aside, so that the
answer does not change hands every hour.

The verdict at an instant follows from the requests before it and from the model alone: it is the same however often,
and from which earlier instant on, it was asked for. Hours that touch a gap in the observation are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.counters import CounterStore
from models.demand.cells import CellState, demand_cells, observe
from models.demand.forecaster import DemandForecaster
from models.demand.operation import TrailingSettings
from models.demand.samples import advance, count_outcome
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Float64, Int32, RequestLog
from models.metrics import negative_binomial_losses
from models.observation import is_observed

MOST_CELLS = 200_000
"""Of more cells, this many drawn ones are scored: a mean over them is known to a thousandth of a nat."""

Cells = tuple[Int32, Int32]
Law = tuple[Float64, Float64]


@dataclass(frozen=True)
class HourLoss:
    """What both lost on the forecast made at one whole hour, in nats over all its cells; no cells: not counted."""

    at_us: int
    end_us: int
    cells: int
    model: float
    prior: float


@dataclass(frozen=True)
class Trailing:
    """Outcome of the comparison.

    Attributes:
        hours: hours counted in the trailing window.
        model_loss, prior_loss: mean loss over them, in nats a cell; None where no hour counts.
        verdict: which of the two answers.
        since_us: from when on the prior answers; None while the model does.
        sentence: the same for people.
    """

    hours: int
    model_loss: float | None
    prior_loss: float | None
    verdict: Literal["model", "prior"]
    since_us: int | None
    sentence: str

    @property
    def fallback(self) -> bool:
        return self.verdict == "prior"


@dataclass(frozen=True)
class _Pending:
    """Two forecasts of the same cells, waiting for what comes."""

    cells: Cells
    model: Law
    prior: Law


@dataclass
class TrailingComparison:
    """Scores a model and its prior hour by hour, and says which of them answers.

    Attributes:
        model: the model whose corrections are judged.
        settings: length of the window.
        scored: losses by hour; those of an earlier run of the same model on the same requests may be given.
    """

    model: DemandForecaster
    settings: TrailingSettings = field(default_factory=TrailingSettings)
    scored: dict[int, HourLoss] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prior = self.model.prior_only()
        self.horizon_hours = self.model.settings.horizons_hours[0]
        self._pending: dict[int, _Pending] = {}
        self._gaps: tuple[tuple[int, int], ...] = ()

    @property
    def horizon_us(self) -> int:
        return self.horizon_hours * HOUR_US

    def origins(self, at_us: int) -> list[int]:
        """Whole hours whose forecasts the verdict at an instant rests on."""
        first = -(-(at_us - self.settings.memory_us) // HOUR_US) * HOUR_US
        return list(range(max(first, 0), at_us - self.horizon_us + 1, HOUR_US))

    def missing(self, at_us: int) -> list[int]:
        """Those of them that were not forecast yet."""
        return [origin for origin in self.origins(at_us) if origin not in self.scored and origin not in self._pending]

    def advance(self, store: CounterStore, log: RequestLog, *, at_us: int) -> None:
        """Feeds the counters every request before an instant, and scores the hours on the way.

        Hours that the counters have passed already cannot be forecast any more and stay missing.
        """
        stops = [origin for origin in self.missing(at_us) if origin > store.time_us]
        for stop in advance(store, log, [*stops, at_us]):
            if store.time_us < 0:
                self.scored[stop] = HourLoss(stop, stop + self.horizon_us, 0, 0.0, 0.0)
            elif stop < at_us:
                self.remember(observe_some(store, self.model.settings, at_us=stop, most=MOST_CELLS))
        self.mature(log, store, at_us=at_us)

    def remember(self, state: CellState) -> None:
        """Lets both forecast from cells observed at a whole hour; other instants are left out."""
        if state.at_us % HOUR_US or state.at_us in self.scored:
            return
        laws = [method.law(state, self.horizon_hours) for method in (self.model, self.prior)]
        self._pending[state.at_us] = _Pending((state.content, state.location), *laws)

    def mature(self, log: RequestLog, store: CounterStore, *, at_us: int) -> None:
        """Scores what was forecast for windows that ended by an instant; nothing later is read."""
        for origin in sorted(self._pending):
            end_us = origin + self.horizon_us
            if end_us > at_us:
                continue
            pending = self._pending.pop(origin)
            counts = count_outcome(log, store, pending.cells, (origin, end_us)).counts
            seen = np.isfinite(counts)
            model, prior = (
                float(negative_binomial_losses(counts[seen], law[0][seen], law[1][seen]).sum())
                for law in (pending.model, pending.prior)
            )
            self.scored[origin] = HourLoss(origin, end_us, int(seen.sum()), model, prior)
        self._gaps = log.before(at_us).gaps  # a gap may be noticed long after the hour that it touches was scored

    def judge(self, at_us: int) -> Trailing:
        """Which of the two answers at an instant; call `advance` or `mature` for the same instant before."""
        hours = [self.scored[origin] for origin in self.origins(at_us) if origin in self.scored]
        whole = [hour for hour in hours if is_observed(self._gaps, hour.at_us, hour.end_us)]
        return judge(whole, self.settings)


def judge(hours: Iterable[HourLoss], settings: TrailingSettings) -> Trailing:
    """Follows the rule through losses in order of time."""
    counted = [hour for hour in hours if hour.cells]
    fell: int | None = None
    # Whole windows decide, and shorter ones only while there is no whole one.
    for seen in range(max(min(settings.hours, len(counted)), 1), len(counted) + 1):
        if fell is None:
            window = counted[max(seen - settings.hours, 0) : seen]
            limit = (1.0 + settings.tolerance) * _mean(window, "prior")
            if seen >= settings.minimum_hours and _mean(window, "model") > limit:
                fell = seen
        elif seen - fell >= settings.hours:
            window = counted[seen - settings.hours : seen]
            if _mean(window, "model") < _mean(window, "prior"):
                fell = None
    trailing = counted[-settings.hours :]
    since_us = None if fell is None else counted[fell - 1].end_us
    return _told(trailing, since_us, settings)


def _told(window: Sequence[HourLoss], since_us: int | None, settings: TrailingSettings) -> Trailing:
    if not window:
        return Trailing(0, None, None, "model", None, "no hour could be compared with the prior yet")
    model, prior = _mean(window, "model"), _mean(window, "prior")
    losses = f"over the last {len(window)} hours: {model:.3f} against {prior:.3f} nats a cell"
    if since_us is None:
        did = (
            "did not lose to its own prior" if model <= prior else "lost to its own prior by too little to be set aside"
        )
        return Trailing(len(window), model, prior, "model", None, f"the network {did} {losses}")
    lost = "lost to" if model > prior else "has not been better for long enough than"
    sentence = f"the network {lost} its own prior {losses}; the prior answers until it is better again"
    return Trailing(len(window), model, prior, "prior", since_us, sentence)


def _mean(hours: Sequence[HourLoss], which: Literal["model", "prior"]) -> float:
    """Mean loss in nats a cell over all cells of the hours."""
    return float(sum(getattr(hour, which) for hour in hours) / sum(hour.cells for hour in hours))


def observe_some(store: CounterStore, settings: DemandSettings, *, at_us: int, most: int) -> CellState:
    """Observes the cells of an instant or, of more than `most`, that many drawn ones: the same at every run."""
    content, location = demand_cells(store, at_us=at_us, settings=settings)
    if len(content) > most:
        drawn = np.sort(np.random.default_rng(at_us).choice(len(content), most, replace=False))
        content, location = content[drawn], location[drawn]
    return observe(store, at_us=at_us, settings=settings, cells=(content, location))
