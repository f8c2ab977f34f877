"""How long the nodes that are up will stay, and which will be there at each edge of the horizon.

    η = w η_network + (1 − w) η_boosting          log-odds of leaving in each bin, given still up
    η ← a_c + b_c η                               calibrated per device class on outcomes after training
    S(e_b) = Π_{k ≤ b} (1 − σ(η_k))

Without a learned part, S is the life table's: the fallback for a fleet too young to learn from, and the floor that the
learned part must beat. P(up at an edge) adds returns: a two-state chain with the same hazards of leaving and the life
table of gaps for coming back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_expit

from models.artefact import load_artefact, save_artefact
from models.calibration import LogitCalibration
from models.churn.boosting import BoostedHazard
from models.churn.features import NodeFeatures, node_features
from models.churn.history import Objects, SessionHistory
from models.churn.lifetable import LifeTable
from models.churn.markov import PopulationRates, chain_availability
from models.churn.network import HazardEnsemble, InputScale
from models.churn.settings import ChurnSettings
from models.events import Float64
from models.forecast import ChurnForecast

KIND = "churn"
FORMAT = 1
FLEET = ""
"""Key of the calibration of a device class that training did not meet."""


@dataclass(frozen=True)
class LearnedHazard:
    """The learned part: networks and boosting on the same inputs, blended in log-odds, then calibrated.

    Attributes:
        scale: standardisation that both parts were trained with.
        ensemble: networks; absent where the blend gives them no weight.
        boosting: trees; absent where the blend gives them no weight.
        network_weight: w of the blend, in [0, 1].
        calibration: by device class; "" for the rest.
    """

    scale: InputScale
    ensemble: HazardEnsemble | None
    boosting: BoostedHazard | None
    network_weight: float = 1.0
    calibration: Mapping[str, LogitCalibration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ensemble is None and self.boosting is None:
            raise ValueError("A learned hazard needs networks, boosting or both.")

    def raw_logits(self, inputs: Float64, device_class: Objects) -> Float64:
        """Blended hazard logits before calibration, shape (n, bins)."""
        rows = self.scale.apply(inputs, device_class)
        if self.ensemble is None:
            assert self.boosting is not None
            return self.boosting.logits(rows)
        if self.boosting is None:
            return self.ensemble.logits(rows)
        w = self.network_weight
        return w * self.ensemble.logits(rows) + (1.0 - w) * self.boosting.logits(rows)

    def logits(self, inputs: Float64, device_class: Objects) -> Float64:
        """Calibrated hazard logits, shape (n, bins)."""
        rest = self.calibration.get(FLEET, LogitCalibration())
        chosen = [self.calibration.get(str(name), rest) for name in device_class]
        intercept = np.array([c.intercept for c in chosen])[:, None]
        slope = np.array([c.slope for c in chosen])[:, None]
        return intercept + slope * self.raw_logits(inputs, device_class)


@dataclass(frozen=True)
class ChurnForecaster:
    """Forecasts churn from a session history; `learned=None` is the life table alone."""

    settings: ChurnSettings
    population: PopulationRates
    sessions: LifeTable
    gaps: LifeTable
    learned: LearnedHazard | None = None
    name: str = "churn"

    @property
    def edges_hours(self) -> Float64:
        return np.asarray(self.settings.edges_hours, dtype=np.float64)

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        """Survival and availability of `nodes` (all of the history when absent) at each edge after `at_us`.

        Only what was known before `at_us` enters. All nodes are read even where few are asked for, because a node's
        network and fleet are among its inputs.

        Raises:
            KeyError: `nodes` names an id that the history does not hold.
        """
        chosen = slice(None) if nodes is None else history.index_of(nodes)
        features = _taken(
            node_features(history, at_us=at_us, population=self.population, settings=self.settings), chosen
        )
        return self.forecast_from(features, history.device_class[chosen], nodes=history.nodes[chosen], at_us=at_us)

    def forecast_from(
        self, features: NodeFeatures, device_class: Objects, *, nodes: Objects, at_us: int
    ) -> ChurnForecast:
        """The forecast for statistics that are already computed."""
        edges = self.edges_hours
        leaving = self.departure_hazard(features, device_class)
        fresh = np.zeros(len(nodes))
        returning = self.gaps.cumulative_hazard(
            age_hours=np.where(features.up, fresh, features.age_hours),
            rate=features.return_rate,
            device_class=device_class,
            edges_hours=edges,
        )
        survival = np.where(features.up[:, None], np.exp(-leaving), 0.0)
        available = np.maximum(chain_availability(features.up, leaving, returning, edges), survival)
        return ChurnForecast(at_us, edges, nodes, features.up, survival, np.clip(available, 0.0, 1.0))

    def departure_hazard(self, features: NodeFeatures, device_class: Objects) -> Float64:
        """Cumulative hazard of leaving until each edge; for a node that is down, from the moment it returns. (n, B)."""
        hazard = self.sessions.cumulative_hazard(
            age_hours=np.where(features.up, features.age_hours, 0.0),
            rate=features.departure_rate,
            device_class=device_class,
            edges_hours=self.edges_hours,
        )
        if self.learned is not None and features.up.any():
            up = features.up
            logits = self.learned.logits(features.inputs[up], device_class[up])
            hazard[up] = -np.cumsum(log_expit(-logits), axis=1)
        return hazard

    def fallback(self) -> ChurnForecaster:
        """The same forecaster without its learned part."""
        return replace(self, learned=None, name="life_table")

    def save(self, folder: Path) -> None:
        state: dict[str, Any] = {
            "name": self.name,
            "population": _population_json(self.population),
            "sessions": _table_json(self.sessions),
            "gaps": _table_json(self.gaps),
            "learned": None,
        }
        tensors = {}
        if self.learned is not None:
            state["learned"] = _learned_json(self.learned)
            parts = (self.learned.ensemble, self.learned.boosting)
            tensors = {k: t for part in parts if part is not None for k, t in part.tensors().items()}
        save_artefact(
            folder,
            kind=KIND,
            format=FORMAT,
            hyperparameters=self.settings.to_json(),
            state=state,
            tensors=tensors,
            tables={},
        )

    @classmethod
    def load(cls, folder: Path) -> ChurnForecaster:
        """Reads what `save` wrote; ArtefactError when it is damaged or of another kind or format."""
        artefact = load_artefact(folder, kind=KIND, format=FORMAT)
        state = artefact.state
        return cls(
            ChurnSettings.from_json(dict(artefact.hyperparameters)),
            _population(state["population"]),
            _table(state["sessions"]),
            _table(state["gaps"]),
            None if state["learned"] is None else _learned(state["learned"], artefact.tensors),
            state["name"],
        )


def _taken(features: NodeFeatures, chosen: Any) -> NodeFeatures:
    return NodeFeatures(*(getattr(features, name)[chosen] for name in features.__dataclass_fields__))


def _population_json(population: PopulationRates) -> dict[str, Any]:
    return {
        "departures_per_hour": population.departures_per_hour,
        "returns_per_hour": population.returns_per_hour,
        "by_class": {name: list(rates) for name, rates in sorted(population.by_class.items())},
    }


def _population(state: Mapping[str, Any]) -> PopulationRates:
    by_class = {name: (off, on) for name, (off, on) in state["by_class"].items()}
    return PopulationRates(state["departures_per_hour"], state["returns_per_hour"], by_class)


def _table_json(table: LifeTable) -> dict[str, Any]:
    return {
        "age_edges_hours": table.age_edges_hours.tolist(),
        "rate_edges": table.rate_edges.tolist(),
        "classes": list(table.classes),
        "hazard": table.hazard.tolist(),
    }


def _table(state: Mapping[str, Any]) -> LifeTable:
    return LifeTable(
        np.asarray(state["age_edges_hours"], dtype=np.float64),
        np.asarray(state["rate_edges"], dtype=np.float64),
        tuple(state["classes"]),
        np.asarray(state["hazard"], dtype=np.float64),
    )


def _learned_json(learned: LearnedHazard) -> dict[str, Any]:
    return {
        "mean": learned.scale.mean.tolist(),
        "spread": learned.scale.spread.tolist(),
        "classes": list(learned.scale.classes),
        "networks": 0 if learned.ensemble is None else len(learned.ensemble.networks),
        "boosting": None
        if learned.boosting is None
        else {"base": learned.boosting.trees.base, "bins": learned.boosting.bins},
        "network_weight": learned.network_weight,
        "calibration": {k: [c.intercept, c.slope] for k, c in sorted(learned.calibration.items())},
    }


def _learned(state: Mapping[str, Any], tensors: Mapping[str, Any]) -> LearnedHazard:
    mean, spread = (np.asarray(state[k], dtype=np.float64) for k in ("mean", "spread"))
    return LearnedHazard(
        InputScale(mean, spread, tuple(state["classes"])),
        HazardEnsemble.from_tensors(tensors, networks=state["networks"]) if state["networks"] else None,
        BoostedHazard.from_tensors(tensors, **state["boosting"]) if state["boosting"] else None,
        state["network_weight"],
        {k: LogitCalibration(a, b) for k, (a, b) in state["calibration"].items()},
    )
