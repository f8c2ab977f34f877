"""What a churn model has to beat, behind the same `forecast`.

constant hazard   every node leaves at the fleet's rate
on/off chain      every node leaves at its own decayed, gamma-shrunk rate
hour of week      the class's rate times the multiplier of the hour
life table        age × own rate × class (`ChurnForecaster` without a learned part)
boosting          gradient-boosted hazards on the same inputs as the network (`ChurnForecaster` without networks)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from models.churn.features import NodeFeatures, node_features
from models.churn.history import Objects, SessionHistory
from models.churn.markov import HourOfWeek, PopulationRates, chain_availability, fit_hour_of_week
from models.churn.settings import ChurnSettings
from models.events import Float64
from models.forecast import ChurnForecast


class ForecastsChurn(Protocol):
    """What the evaluation and placement need of a churn model."""

    @property
    def name(self) -> str: ...

    @property
    def edges_hours(self) -> Float64: ...

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast: ...


Hazard = Callable[[NodeFeatures, Objects, int], Float64]


@dataclass(frozen=True)
class RateForecaster:
    """Memoryless baselines: a cumulative hazard of leaving per node and edge, returns at the class's rate.

    Attributes:
        name: name in the comparison.
        hazard: (statistics, device classes, instant) → cumulative hazard. (n, B)
    """

    name: str
    settings: ChurnSettings
    population: PopulationRates
    hazard: Hazard

    @property
    def edges_hours(self) -> Float64:
        return np.asarray(self.settings.edges_hours, dtype=np.float64)

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        chosen = slice(None) if nodes is None else history.index_of(nodes)
        features = node_features(history, at_us=at_us, population=self.population, settings=self.settings)
        leaving = self.hazard(features, history.device_class, at_us)[chosen]
        up, device_class = features.up[chosen], history.device_class[chosen]
        returning = self.population.of(device_class)[1][:, None] * self.edges_hours
        survival = np.where(up[:, None], np.exp(-leaving), 0.0)
        available = np.maximum(chain_availability(up, leaving, returning, self.edges_hours), survival)
        return ChurnForecast(at_us, self.edges_hours, history.nodes[chosen], up, survival, np.clip(available, 0.0, 1.0))


def constant_hazard(population: PopulationRates, settings: ChurnSettings) -> RateForecaster:
    edges = np.asarray(settings.edges_hours)

    def hazard(features: NodeFeatures, device_class: Objects, at_us: int) -> Float64:
        return np.tile(population.departures_per_hour * edges, (len(features.up), 1))

    return RateForecaster("constant_hazard", settings, population, hazard)


def on_off_chain(population: PopulationRates, settings: ChurnSettings) -> RateForecaster:
    edges = np.asarray(settings.edges_hours)

    def hazard(features: NodeFeatures, device_class: Objects, at_us: int) -> Float64:
        return np.asarray(features.chain_departure_rate[:, None] * edges, dtype=np.float64)

    return RateForecaster("on_off_chain", settings, population, hazard)


def hour_of_week(population: PopulationRates, clock: HourOfWeek, settings: ChurnSettings) -> RateForecaster:
    edges = np.asarray(settings.edges_hours)

    def hazard(features: NodeFeatures, device_class: Objects, at_us: int) -> Float64:
        return population.of(device_class)[0][:, None] * clock.hazard(at_us, edges)

    return RateForecaster("hour_of_week", settings, population, hazard)


def fit_baselines(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings | None = None,
    seed: int = 0,
) -> list[ForecastsChurn]:
    """Every baseline on the same windows as `fit_churn`, the life table and boosting included."""
    from models.churn.training import fit_churn, fit_tables

    settings = settings or ChurnSettings()
    table = fit_tables(history, train=train, settings=settings)
    clock = fit_hour_of_week(history, start_us=train[0], end_us=train[1], pseudo_departures=settings.pseudo_departures)
    found: list[ForecastsChurn] = [
        constant_hazard(table.population, settings),
        on_off_chain(table.population, settings),
        hour_of_week(table.population, clock, settings),
        table,
    ]
    if settings.boosting_iterations:
        alone = replace(settings, networks=0)
        boosted, _ = fit_churn(history, train=train, validation=validation, settings=alone, seed=seed)
        found.append(replace(boosted, name="boosting"))
    return found
