"""What a churn model has to beat, behind the same `forecast`.

constant hazard             every node leaves at the fleet's rate
on/off chain                every node leaves at its own decayed, gamma-shrunk rate
hour of week                hazards by the hour of the week of the origin and the bin
life table                  age × own rate × class (`ChurnForecaster` without a learned part)
semi-Markov × hour of week  log-odds of the life table's hazard in each bin, shifted by those of the hour of the week
Weibull                     age alone, per class, in closed form
SatCount, TwiddledHistory   Mickens and Noble's availability predictors
boosting                    gradient-boosted hazards on the inputs of the network (`ChurnForecaster` without networks)

All get what our model gets: a slope and shifts of their hazard logits, per class, fitted on the validation window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from scipy.special import log_expit

from models.churn.availability_predictors import (
    COUNTER_LIMITS_HOURS,
    Score,
    fit_scores,
    saturating_count,
    twiddled_history,
)
from models.churn.features import node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import Objects, SessionHistory
from models.churn.lifetable import session_durations
from models.churn.markov import PopulationRates, chain_availability
from models.churn.origins import OriginOutcomes, origin_outcomes
from models.churn.recalibration import HazardCalibration, calibrated_logits, fit_hazard_calibrations
from models.churn.settings import ChurnSettings
from models.churn.week_hazards import WeekHazards, fit_week_hazards
from models.churn.weibull import WeibullHazard, fit_weibull
from models.events import HOUR_US, Float64
from models.forecast import ChurnForecast

MARKOV_PEERS = (
    "constant_hazard",
    "on_off_chain",
    "hour_of_week",
    "life_table",
    "semi_markov_hour_of_week",
    "weibull",
)
"""Methods that know a node by its state, age and rate, and the clock: the best of them is the reference of skill."""

_LEAST_HAZARD, _MOST_HAZARD = 1e-12, 500.0


class ForecastsChurn(Protocol):
    """What the evaluation and placement need of a churn model."""

    @property
    def name(self) -> str: ...

    @property
    def edges_hours(self) -> Float64: ...

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast: ...


Logits = Callable[[SessionHistory, int], Float64]
"""(history, instant) → logit of the hazard of leaving in each bin; rows of nodes that are down are not read. (n, B)"""
_WEEK_ORIGINS = 240
_FITTING_ORIGINS = 24


@dataclass(frozen=True)
class PeerForecaster:
    """Hazards of leaving of nodes that are up; nodes that are down come and go at their class's constant rates.

    Attributes:
        name: name in the comparison.
        settings: edges and half-lives.
        population: rates of the classes.
        logits: what the method says of leaving.
        calibration: of the logits, by device class.
    """

    name: str
    settings: ChurnSettings
    population: PopulationRates
    logits: Logits
    calibration: Mapping[str, HazardCalibration] = field(default_factory=dict)

    @property
    def edges_hours(self) -> Float64:
        return np.asarray(self.settings.edges_hours, dtype=np.float64)

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        chosen = slice(None) if nodes is None else history.index_of(nodes)
        up, device_class = history.before(at_us).up_at(at_us)[chosen], history.device_class[chosen]
        logits = calibrated_logits(self.logits(history, at_us)[chosen], device_class, self.calibration)
        off, on = (rate[:, None] * self.edges_hours for rate in self.population.of(device_class))
        leaving = np.where(up[:, None], -np.cumsum(log_expit(-logits), axis=1), off)
        survival = np.where(up[:, None], np.exp(-leaving), 0.0)
        available = np.maximum(chain_availability(up, leaving, on, self.edges_hours), survival)
        returned = np.where(up[:, None], 1.0, -np.expm1(-on))
        return ChurnForecast(
            at_us, self.edges_hours, history.nodes[chosen], up, survival, np.clip(available, 0.0, 1.0), returned
        )


def constant_hazard(population: PopulationRates, edges_hours: Float64) -> Logits:
    logits = bin_logits(population.departures_per_hour * edges_hours[None])
    return lambda history, at_us: np.tile(logits, (len(history), 1))


def on_off_chain(population: PopulationRates, settings: ChurnSettings) -> Logits:
    edges = np.asarray(settings.edges_hours)

    def logits(history: SessionHistory, at_us: int) -> Float64:
        features = node_features(history, at_us=at_us, population=population, settings=settings)
        return bin_logits(features.chain_departure_rate[:, None] * edges)

    return logits


def hour_of_week(week: WeekHazards) -> Logits:
    return lambda history, at_us: np.tile(week.at(at_us), (len(history), 1))


def life_table(table: ChurnForecaster) -> Logits:
    def logits(history: SessionHistory, at_us: int) -> Float64:
        features = node_features(history, at_us=at_us, population=table.population, settings=table.settings)
        return table.raw_logits(features, history.device_class)

    return logits


def semi_markov_hour_of_week(table: ChurnForecaster, week: WeekHazards) -> Logits:
    """Sum of log-odds: logit h_b = logit h_b(age, rate, class) + logit h_b(hour of the week) − logit h_b."""
    by_age = life_table(table)
    return lambda history, at_us: by_age(history, at_us) + week.at(at_us) - week.base


def weibull(law: WeibullHazard, edges_hours: Float64) -> Logits:
    def logits(history: SessionHistory, at_us: int) -> Float64:
        age_hours = _age_hours(history, at_us)
        return bin_logits(
            law.cumulative_hazard(age_hours=age_hours, device_class=history.device_class, edges_hours=edges_hours)
        )

    return logits


def fit_baselines(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings | None = None,
    seed: int = 0,
) -> list[ForecastsChurn]:
    """Every baseline on the same windows as `fit_churn`, boosting included."""
    from models.churn.training import fit_churn

    settings = settings or ChurnSettings()
    found = fit_peers(history, train=train, validation=validation, settings=settings)
    if settings.boosting_iterations:
        alone = replace(settings, networks=0)
        boosted, _ = fit_churn(history, train=train, validation=validation, settings=alone, seed=seed)
        found.append(replace(boosted, name="boosting"))
    return found


def fit_peers(
    history: SessionHistory, *, train: tuple[int, int], validation: tuple[int, int], settings: ChurnSettings
) -> list[ForecastsChurn]:
    """The Markov peers, SatCount and TwiddledHistory, calibrated; nothing here depends on a seed."""
    from models.churn.training import fit_tables

    start_us, end_us = train
    edges = np.asarray(settings.edges_hours, dtype=np.float64)
    table = fit_tables(history, train=train, settings=settings)
    population = table.population
    up, _ = session_durations(history, start_us=start_us, end_us=end_us, population=population, settings=settings)
    chosen_on = _rows(history, validation, settings, most=_FITTING_ORIGINS)
    week = fit_week_hazards(_rows(history, train, settings, most=_WEEK_ORIGINS).outcomes, chosen_on.outcomes)
    methods = {
        "constant_hazard": constant_hazard(population, edges),
        "on_off_chain": on_off_chain(population, settings),
        "hour_of_week": hour_of_week(week),
        "life_table": life_table(table),
        "semi_markov_hour_of_week": semi_markov_hour_of_week(table, week),
        "weibull": weibull(fit_weibull(up), edges),
        **_availability_predictors(_rows(history, train, settings, most=_FITTING_ORIGINS), population, settings),
    }
    calibrations = {
        name: calibration_on(chosen_on, logits, strength=settings.calibration_strength)
        for name, logits in methods.items()
    }
    return [
        table.calibrated(calibrations[name])
        if name == table.name
        else PeerForecaster(name, settings, population, logits, calibrations[name])
        for name, logits in methods.items()
    ]


def calibration_on(rows: OriginOutcomes, logits: Logits, *, strength: float) -> dict[str, HazardCalibration]:
    """Slope and shifts of these logits, for the fleet and each class."""
    return fit_hazard_calibrations(rows.collect(logits), rows.outcomes, rows.device_class, strength=strength)


def bin_logits(cumulative: Float64) -> Float64:
    """Log-odds of leaving in each bin from the cumulative hazard at its edges. (n, B)"""
    step = np.maximum(np.diff(cumulative, axis=1, prepend=0.0), _LEAST_HAZARD)
    return np.asarray(np.log(np.expm1(np.minimum(step, _MOST_HAZARD))), dtype=np.float64)


def _availability_predictors(
    rows: OriginOutcomes, population: PopulationRates, settings: ChurnSettings
) -> dict[str, Logits]:
    rates = (population.departures_per_hour, population.returns_per_hour)
    candidates: dict[str, list[Score]] = {
        "sat_count": [saturating_count(limit, len(settings.edges_hours)) for limit in COUNTER_LIMITS_HOURS],
        "twiddled_history": [twiddled_history(settings.edges_hours, rates[1] / sum(rates))],
    }

    return {name: fit_scores(scores, rows).logits for name, scores in candidates.items()}


def _rows(history: SessionHistory, window: tuple[int, int], settings: ChurnSettings, *, most: int) -> OriginOutcomes:
    return origin_outcomes(
        history, window, edges_hours=settings.edges_hours, every_hours=settings.origin_every_hours, most=most
    )


def _age_hours(history: SessionHistory, at_us: int) -> Float64:
    """Hours since the session under way began; of a node that has none, 0. (n,)"""
    if not len(history.start_us):
        return np.zeros(len(history))
    row = history.last_session(at_us - 1)
    return np.where(row >= 0, (at_us - history.start_us[np.maximum(row, 0)]) / HOUR_US, 0.0)
