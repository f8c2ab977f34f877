"""How long the nodes that are up will stay, when the others will be back, and which will be there at each edge.

    η = w η_network + (1 − w) η_boosting          log-odds of leaving in each bin, given still up
    η ← s_c η + t_cb                              calibrated per device class c on outcomes after training
    S(e_b) = Π_{k ≤ b} (1 − σ(η_k))

Without a learned part, η is the life table's: the fallback for a fleet too young to learn from, and the floor that the
learned part must beat. A second head of the same form says when a node that is down comes back. P(up at an edge) joins
both: a node that is up may leave and return, one that is down may return and leave again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_expit

from models.artefact import load_artefact, save_artefact
from models.blocks import for_each_block
from models.churn.features import NodeFeatures, NodeStates, node_features, node_states
from models.churn.history import Objects, SessionHistory
from models.churn.joint import JointSurvival
from models.churn.learned import LearnedHazard
from models.churn.lifetable import LifeTable
from models.churn.markov import PopulationRates, availability_after_return, chain_availability
from models.churn.recalibration import HazardCalibration, calibrated_logits
from models.churn.settings import ChurnSettings
from models.events import Float64, Int64
from models.forecast import ChurnForecast

KIND = "churn"
FORMAT = 2
_LEAST_HAZARD = 1e-12

Calibrations = Mapping[str, HazardCalibration]


@dataclass(frozen=True)
class ChurnForecaster:
    """Forecasts churn from a session history; without learned parts it is the life tables alone.

    Attributes:
        settings: how statistics are measured, and the edges.
        population: rates of the fleet and of each class, which shrink those of young nodes.
        sessions: life table of time up.
        gaps: life table of time down.
        learned: hazards of leaving of nodes that are up.
        returns: hazards of coming back of nodes that are down.
        calibration: of the hazards of leaving, by device class; "" for the rest.
        return_calibration: likewise, of the hazards of coming back.
        dependence: how departures go together; independence where it was not fitted.
    """

    settings: ChurnSettings
    population: PopulationRates
    sessions: LifeTable
    gaps: LifeTable
    learned: LearnedHazard | None = None
    name: str = "churn"
    returns: LearnedHazard | None = None
    calibration: Calibrations = field(default_factory=dict)
    return_calibration: Calibrations = field(default_factory=dict)
    dependence: JointSurvival | None = None

    @property
    def joint(self) -> JointSurvival:
        """How departures of nodes go together."""
        return self.dependence or JointSurvival.independent(self.settings.edges_hours)

    @property
    def edges_hours(self) -> Float64:
        return np.asarray(self.settings.edges_hours, dtype=np.float64)

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None, threads: int = 1
    ) -> ChurnForecast:
        """Survival and availability of `nodes` (all of the history when absent) at each edge after `at_us`.

        Only what was known before `at_us` enters. All nodes are read even where few are asked for, because a node's
        network and fleet are among its inputs. The answer does not depend on the number of threads.

        Raises:
            KeyError: `nodes` names an id that the history does not hold.
        """
        learned = self.learned is not None or self.returns is not None
        features = (node_features if learned else node_states)(
            history, at_us=at_us, population=self.population, settings=self.settings, threads=threads
        )
        chosen = np.arange(len(history)) if nodes is None else history.index_of(nodes)
        return self.forecast_from(features, history, chosen, at_us=at_us, threads=threads)

    def forecast_from(
        self, features: NodeStates, history: SessionHistory, chosen: Int64, *, at_us: int, threads: int = 1
    ) -> ChurnForecast:
        """The forecast of the `chosen` nodes from statistics of all nodes that are already computed."""
        up, shape = features.up[chosen], (len(chosen), len(self.settings.edges_hours))
        survival, returned, available = np.zeros(shape), np.ones(shape), np.zeros(shape)

        def forecast_block(block: slice) -> None:
            there, away = (block.start + np.flatnonzero(state) for state in (up[block], ~up[block]))
            for rows, head, first in ((there, self._stay, survival), (away, self._return, returned)):
                of = chosen[rows]
                if len(of):
                    first[rows], available[rows] = head(features.take(of), history.device_class[of])

        for_each_block(forecast_block, len(chosen), threads=threads)
        available = np.clip(available, 0.0, 1.0)
        return ChurnForecast(at_us, self.edges_hours, history.nodes[chosen], up, survival, available, returned)

    def raw_logits(self, features: NodeStates, device_class: Objects) -> Float64:
        """Logits of the hazard of leaving in each bin before calibration, for nodes that are up. (n, B)."""
        if self.learned is not None:
            assert isinstance(features, NodeFeatures)
            return self.learned.logits(features.inputs, device_class)
        return _logits(self._table_hazard(features, device_class, features.age_hours))

    def logits(self, features: NodeStates, device_class: Objects) -> Float64:
        """Calibrated logits of the hazard of leaving, for nodes that are up. (n, B)."""
        return calibrated_logits(self.raw_logits(features, device_class), device_class, self.calibration)

    def raw_return_logits(self, features: NodeStates, device_class: Objects) -> Float64:
        """Logits of the hazard of coming back in each bin before calibration, for nodes that are down. (n, B)."""
        if self.returns is not None:
            assert isinstance(features, NodeFeatures)
            return self.returns.logits(features.inputs, device_class)
        return _logits(self._gap_hazard(features, device_class, features.age_hours))

    def calibrated(self, calibration: Calibrations) -> ChurnForecaster:
        """The same forecaster with another calibration of the hazards of leaving."""
        return replace(self, calibration=dict(calibration))

    def fallback(self) -> ChurnForecaster:
        """The same forecaster without its learned parts, and without the calibrations that were fitted to them."""
        return ChurnForecaster(self.settings, self.population, self.sessions, self.gaps, name="life_table")

    def _stay(self, features: NodeStates, device_class: Objects) -> tuple[Float64, Float64]:
        """Survival and availability of nodes that are up. (n, B) each."""
        leaving = -np.cumsum(log_expit(-self.logits(features, device_class)), axis=1)
        returning = self._gap_hazard(features, device_class, np.zeros(len(leaving)))
        survival = np.exp(-leaving)
        up = np.ones(len(leaving), dtype=np.bool_)
        return survival, np.maximum(chain_availability(up, leaving, returning, self.edges_hours), survival)

    def _return(self, features: NodeStates, device_class: Objects) -> tuple[Float64, Float64]:
        """P(back by the edge) and availability of nodes that are down. (n, B) each."""
        raw = self.raw_return_logits(features, device_class)
        logits = calibrated_logits(raw, device_class, self.return_calibration)
        returned = -np.expm1(np.cumsum(log_expit(-logits), axis=1))
        fresh = np.zeros(len(raw))
        leaving = self._table_hazard(features, device_class, fresh)
        returning = self._gap_hazard(features, device_class, fresh)
        up = np.ones(len(raw), dtype=np.bool_)
        once_back = chain_availability(up, leaving, returning, self.edges_hours)
        return returned, availability_after_return(returned, once_back, self.edges_hours)

    def _table_hazard(self, features: NodeStates, device_class: Objects, age_hours: Float64) -> Float64:
        return self.sessions.cumulative_hazard(
            age_hours=age_hours,
            rate=features.departure_rate,
            device_class=device_class,
            edges_hours=self.edges_hours,
        )

    def _gap_hazard(self, features: NodeStates, device_class: Objects, age_hours: Float64) -> Float64:
        return self.gaps.cumulative_hazard(
            age_hours=age_hours, rate=features.return_rate, device_class=device_class, edges_hours=self.edges_hours
        )

    def save(self, folder: Path) -> None:
        heads = {"leaving": self.learned, "returning": self.returns}
        state: dict[str, Any] = {
            "name": self.name,
            "population": _population_json(self.population),
            "sessions": _table_json(self.sessions),
            "gaps": _table_json(self.gaps),
            "heads": {head: None if part is None else part.to_json() for head, part in heads.items()},
            "calibration": _calibrations_json(self.calibration),
            "return_calibration": _calibrations_json(self.return_calibration),
            "dependence": None if self.dependence is None else self.dependence.to_json(),
        }
        save_artefact(
            folder,
            kind=KIND,
            format=FORMAT,
            hyperparameters=self.settings.to_json(),
            state=state,
            tensors={k: t for head, part in heads.items() if part is not None for k, t in part.tensors(head).items()},
            tables={},
        )

    @classmethod
    def load(cls, folder: Path) -> ChurnForecaster:
        """Reads what `save` wrote; ArtefactError when it is damaged or of another kind or format."""
        artefact = load_artefact(folder, kind=KIND, format=FORMAT)
        state = artefact.state
        heads = {
            head: None if part is None else LearnedHazard.from_json(part, artefact.tensors, head)
            for head, part in state["heads"].items()
        }
        return cls(
            ChurnSettings.from_json(dict(artefact.hyperparameters)),
            _population(state["population"]),
            _table(state["sessions"]),
            _table(state["gaps"]),
            heads["leaving"],
            state["name"],
            heads["returning"],
            _calibrations(state["calibration"]),
            _calibrations(state["return_calibration"]),
            None if state["dependence"] is None else JointSurvival.from_json(state["dependence"]),
        )


def _logits(cumulative: Float64) -> Float64:
    """log-odds of the event in each bin from a cumulative hazard Λ: h = 1 − e^−ΔΛ, so h / (1 − h) = e^ΔΛ − 1."""
    steps = np.diff(cumulative, axis=1, prepend=0.0)
    return np.asarray(np.log(np.expm1(np.maximum(steps, _LEAST_HAZARD))), dtype=np.float64)


def _calibrations_json(calibrations: Calibrations) -> dict[str, Any]:
    return {name: calibration.to_json() for name, calibration in sorted(calibrations.items())}


def _calibrations(state: Mapping[str, Any]) -> dict[str, HazardCalibration]:
    return {name: HazardCalibration.from_json(values) for name, values in state.items()}


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
