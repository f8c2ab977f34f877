"""A churn model that is put right every day on what has happened since.

At each refit instant t, on a grid of `refit_every_hours`, the calibration of `recalibration.py` is fitted to origins of
the days before t. Their logits are computed from what was known at the origin; their outcomes are those known at t,
censored there, so an origin of this morning tells about its first bins already. An origin of age a weighs

    w(a) = 2^(−a / h) · every / horizon         a departure is seen from horizon / every origins, and counts once

The half-life h is chosen at each refit by the likelihood of the days just past under the calibrations of those days'
starts, and so is whether to recalibrate at all: the statistics that the model reads follow the fleet by themselves, and
a calibration of bad days can be worse than none (Dawid 1984, Statistical theory: the prequential approach).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_expit

from models.churn.forecaster import ChurnForecaster
from models.churn.history import Objects, SessionHistory
from models.churn.matured import MaturedOrigins, MaturedRows, OutageMask, settled
from models.churn.monitor import DepartureRatio, departures_against
from models.churn.operation import RecalibrationSettings
from models.churn.outcomes import log_likelihood
from models.churn.recalibration import FLEET, HazardCalibration, calibrated_logits, fit_hazard_calibrations
from models.events import DAY_US, HOUR_US, Float64
from models.forecast import ChurnForecast

Calibrations = Mapping[str, HazardCalibration]
NONE = 0.0
"""Half-life that stands for no recalibration."""


@dataclass(frozen=True)
class Recalibration:
    """What was fitted at one instant.

    Attributes:
        at_us: instant of the refit; nothing later entered.
        calibration: on top of the base model's own, by device class; "" for the rest.
        half_life_days: the half-life that was chosen; 0 where no calibration was better.
        origins: origins that were read.
        rows: nodes at these origins.
        departures: departures among their outcomes, about once each however many origins saw them.
        drift: departures of the last hours against those that the base model expected.
    """

    at_us: int
    calibration: Calibrations
    half_life_days: float
    origins: int
    rows: int
    departures: float
    drift: DepartureRatio

    def to_json(self) -> dict[str, Any]:
        return {
            "at_us": self.at_us,
            "half_life_days": self.half_life_days,
            "origins": self.origins,
            "rows": self.rows,
            "departures": round(self.departures, 1),
            "calibration": {name: c.to_json() for name, c in sorted(self.calibration.items())},
            "drift": self.drift.to_json(),
        }


@dataclass
class RecalibratedForecaster:
    """The base model with a calibration that follows the fleet; forecasts like the base model.

    Logits of past origins and past calibrations are kept for the history that was asked last, so that a rolling
    evaluation costs a day's origins and a few fits a day. They are what would be computed anew: each is a function of
    what was known at its own instant.

    Attributes:
        base: the trained model.
        settings: how it is put right.
        outages: which departures are an outage's and say nothing of the fleet's habits;
            those that the history marks where absent.
        name: name in a comparison.
        origins: past logits, if they are shared with another forecaster of the same base and spacing.
    """

    base: ChurnForecaster
    settings: RecalibrationSettings = field(default_factory=RecalibrationSettings)
    outages: OutageMask | None = None
    name: str = "recalibrated"
    origins: MaturedOrigins | None = None

    def __post_init__(self) -> None:
        self._begin(None)

    @property
    def edges_hours(self) -> Float64:
        return self.base.edges_hours

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        """As the base model's, calibrated by what was known at the last refit instant not after `at_us`."""
        return self.model_at(history, at_us).forecast(history, at_us=at_us, nodes=nodes)

    def model_at(self, history: SessionHistory, at_us: int) -> ChurnForecaster:
        """The base model with the calibration in force at the instant."""
        mine = self.recalibration(history, at_us).calibration
        return self.base.calibrated(composed(mine, self.base.calibration))

    def recalibration(self, history: SessionHistory, at_us: int) -> Recalibration:
        """What the last refit not after `at_us` found."""
        return self.refitted(history, at_us // self._refit_us * self._refit_us)

    def refitted(self, history: SessionHistory, at_us: int) -> Recalibration:
        """What a refit at this very instant finds."""
        if history is not self._history:
            self._begin(history)
        if at_us not in self._answers:
            self._answers[at_us] = self._refit(history, at_us)
        return self._answers[at_us]

    def _begin(self, history: SessionHistory | None) -> None:
        s = self.settings
        self._history = history
        self._refit_us = round(s.refit_every_hours * HOUR_US)
        self._origins = self.origins or MaturedOrigins(self.base, s.origin_every_hours, s.nodes_each, self.outages)
        self._fitted: dict[tuple[int, float], Calibrations] = {}
        self._answers: dict[int, Recalibration] = {}

    def _refit(self, history: SessionHistory, t: int) -> Recalibration:
        rows = self._rows(history, t)
        chosen = self._half_life(history, t, rows)
        calibration = self._fit(history, t, chosen)
        departures = 0.0
        if rows is not None:
            departures = float(np.sum((rows.stands_for * self._once)[rows.outcomes.high > 0]))
        return Recalibration(
            t,
            calibration,
            chosen,
            0 if rows is None else len(np.unique(rows.outcomes.at_us)),
            0 if rows is None else len(rows),
            departures,
            self._drift(history, t),
        )

    @property
    def _once(self) -> float:
        """One over the number of origins that see a departure."""
        return min(1.0, self.settings.origin_every_hours / float(self.base.edges_hours[-1]))

    def _rows(self, history: SessionHistory, t: int) -> MaturedRows | None:
        since_us = t - round(self.settings.days * DAY_US)
        self._origins.forget(since_us - round((self.settings.judged_days + self.settings.days) * DAY_US))
        return self._origins.rows(history, since_us=since_us, at_us=t)

    def _fit(self, history: SessionHistory, t: int, half_life_days: float) -> Calibrations:
        if half_life_days == NONE:
            return {}
        if (t, half_life_days) not in self._fitted:
            rows = self._rows(history, t)
            for h in self.settings.half_lives_days:
                self._fitted[t, h] = {} if rows is None else self._calibrations(rows, t, h)
        return self._fitted[t, half_life_days]

    def _calibrations(self, rows: MaturedRows, t: int, half_life_days: float) -> Calibrations:
        age_days = (t - rows.outcomes.at_us) / DAY_US
        weight = rows.stands_for * self._once * 2.0 ** (-age_days / half_life_days)
        s = self.settings
        return fit_hazard_calibrations(
            rows.logits, rows.outcomes, rows.device_class, weight=weight, strength=s.strength, slope=s.slope
        )

    def _half_life(self, history: SessionHistory, t: int, rows: MaturedRows | None) -> float:
        """The best over the last days, each day under the calibration fitted at its start; 0 where none helped."""
        if rows is None:
            return NONE
        candidates = (NONE, *self.settings.half_lives_days)
        gained = np.zeros(len(candidates))
        for u in range(t - round(self.settings.judged_days * DAY_US), t, self._refit_us):
            day = rows.between(u, u + self._refit_us)
            gained += [_log_likelihood(day, self._fit(history, u, h)) for h in candidates]
        return candidates[int(np.argmax(gained))]

    def _drift(self, history: SessionHistory, t: int) -> DepartureRatio:
        known, until_us = settled(history.before(t), t, self.outages)
        since_us = until_us - round(self.settings.drift_hours * HOUR_US)
        every_us = round(self.settings.origin_every_hours * HOUR_US)
        edges = self.base.edges_hours
        observed = expected = 0.0
        for origin in self._origins.origins(history, since_us=since_us, until_us=until_us):
            cumulative = -np.cumsum(log_expit(-origin.logits), axis=1)
            end = min(origin.at_us + min(every_us, round(float(edges[-1]) * HOUR_US)), until_us)
            gone, due = departures_against(
                known, origin.node, cumulative, at_us=origin.at_us, until_us=end, edges_hours=edges
            )
            observed, expected = observed + gone, expected + due
        return DepartureRatio(since_us, until_us, observed, expected)


def composed(then: Calibrations, first: Calibrations) -> dict[str, HazardCalibration]:
    """For each class that either knows, the calibration that does `first` and then `then`."""
    if not then:
        return dict(first)
    identity = HazardCalibration.identity(len(then[FLEET].shift))
    before = {FLEET: first.get(FLEET, identity), **first}
    names = sorted(set(before) | set(then))
    return {n: then.get(n, then[FLEET]).after(before.get(n, before[FLEET])) for n in names}


def _log_likelihood(rows: MaturedRows, calibration: Calibrations) -> float:
    if not len(rows):
        return 0.0
    logits = calibrated_logits(rows.logits, rows.device_class, calibration)
    survival = np.exp(np.cumsum(log_expit(-logits), axis=1))
    each = log_likelihood(survival, rows.outcomes.low, rows.outcomes.high)
    return float(np.sum(rows.stands_for * each))
