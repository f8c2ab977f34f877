"""Training rows: statistics of nodes at many origins of a window, and what became of them until the window's end.

Outcomes are known as at the end of the window; those still open there are censored. Each origin gives its share of the
rows, drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.churn.features import node_features
from models.churn.history import Objects, SessionHistory
from models.churn.markov import PopulationRates
from models.churn.outcomes import Outcomes, concatenate, outcomes_at, returns_at
from models.churn.settings import ChurnSettings
from models.events import HOUR_US, Float64, Int64


@dataclass(frozen=True)
class TrainingRows:
    """Inputs and outcomes of many origins.

    Attributes:
        inputs: see `features.feature_names`. (rows, features)
        device_class: (rows,)
        outcomes: (rows)
    """

    inputs: Float64
    device_class: Objects
    outcomes: Outcomes

    @property
    def events(self) -> int:
        return int(np.sum(self.outcomes.high > 0))


@dataclass(frozen=True)
class WindowRows:
    """Rows of one window: of nodes that were up, and of nodes that were down; none where there was no such node."""

    leaving: TrainingRows | None
    returning: TrainingRows | None


def training_rows(
    history: SessionHistory,
    window: tuple[int, int],
    *,
    population: PopulationRates,
    settings: ChurnSettings,
    seed: int,
) -> WindowRows:
    """Rows of evenly spaced origins in the window, each origin thinned so that all have their share of `maximum_rows`.

    Outcomes are known as at the end of the window: later ones are censored there.
    """
    start_us, end_us = window
    known = history.before(end_us)
    origins = list(range(start_us, end_us, round(settings.origin_every_hours * HOUR_US)))
    if len(origins) > settings.maximum_origins:
        chosen = np.linspace(0, len(origins) - 1, settings.maximum_origins).round().astype(int)
        origins = [origins[i] for i in chosen]
    rng = np.random.default_rng(seed)
    parts: dict[str, list[TrainingRows]] = {"leaving": [], "returning": []}
    for at_us in origins:
        found = {
            "leaving": outcomes_at(known, at_us=at_us, edges_hours=settings.edges_hours, until_us=end_us),
            "returning": returns_at(known, at_us=at_us, edges_hours=settings.edges_hours, until_us=end_us),
        }
        features = node_features(known, at_us=at_us, population=population, settings=settings)
        for name, outcomes in found.items():
            some = outcomes.take(_thinned(outcomes, settings.maximum_rows // len(origins) + 1, rng))
            if len(some):
                parts[name].append(
                    TrainingRows(features.inputs[some.node].astype(np.float32), history.device_class[some.node], some)
                )
    return WindowRows(*(_joined(part) for part in parts.values()))


def _thinned(outcomes: Outcomes, maximum: int, rng: np.random.Generator) -> Int64:
    informative = np.flatnonzero((outcomes.low > 0) | (outcomes.high > 0))
    if len(informative) <= maximum:
        return informative
    return np.sort(rng.choice(informative, maximum, replace=False))


def _joined(parts: Sequence[TrainingRows]) -> TrainingRows | None:
    if not parts:
        return None
    return TrainingRows(
        np.concatenate([p.inputs for p in parts]).astype(np.float64),
        np.concatenate([p.device_class for p in parts]),
        concatenate([p.outcomes for p in parts]),
    )
