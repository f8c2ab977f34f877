"""Cox regression and a random survival forest of scikit-survival, on the inputs that our model has.

    Cox (ridge)                S(t | x) = S₀(t)^exp(β x), S₀ by Breslow, penalty ½ α n |β|²
    random survival forest     mean of the cumulative hazards of trees grown on log-rank splits

Rows are nodes that looked up at origins of the training window: hours until they left, at the middle of the interval in
which they did, or until they were last known up. Inputs are those of the network, standardised and clipped at four
standard deviations as it clips them. Both get the calibration that every method gets on the validation window.
Needs `pip install -c constraints.txt -e '.[bench]'`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.churn.baselines import Logits, PeerForecaster, bin_logits, calibration_on
from models.churn.features import node_features
from models.churn.history import SessionHistory
from models.churn.markov import PopulationRates, fit_population
from models.churn.network import InputScale
from models.churn.origins import OriginOutcomes, origin_outcomes
from models.churn.settings import ChurnSettings
from models.events import HOUR_US, Bool, Float64, Int64

NAMES = ("cox", "random_survival_forest")
_ORIGINS = 48
_COX_ROWS, _FOREST_ROWS = 40_000, 6_000
_RIDGE = 1e-3
_LEAST_HOURS = 1.0 / 3600.0
_LEAST_SURVIVAL = 1e-9


@dataclass(frozen=True)
class SurvivalRows:
    """Inputs, and hours until each node left or was last known up.

    Attributes:
        inputs: standardised. (n, features)
        hours: beyond the last edge they are cut to it. (n,)
        left: whether it was seen to leave by then. (n,)
    """

    inputs: Float64
    hours: Float64
    left: Bool


def fit_survival_peers(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings,
    seed: int = 0,
    names: tuple[str, ...] = NAMES,
) -> list[PeerForecaster]:
    """The chosen methods.

    Raises:
        ImportError: scikit-survival is not installed.
    """
    population = fit_population(
        history, start_us=train[0], end_us=train[1], pseudo_departures=settings.pseudo_departures
    )
    rows = _origins(history, train, settings)
    inputs = rows.collect(_inputs(population, settings))
    scale = InputScale.fit(inputs, rows.device_class)
    fitted = SurvivalRows(
        scale.apply(inputs, rows.device_class).astype(np.float64), *_times(rows, settings.edges_hours[-1])
    )
    chosen_on = _origins(history, validation, settings)
    fit: dict[str, Callable[[SurvivalRows, int], Any]] = {"cox": _fit_cox, "random_survival_forest": _fit_forest}
    found = []
    for name in names:
        logits = _logits(fit[name](fitted, seed), scale, population, settings)
        calibration = calibration_on(chosen_on, logits, strength=settings.calibration_strength)
        found.append(PeerForecaster(name, settings, population, logits, calibration))
    return found


def _origins(history: SessionHistory, window: tuple[int, int], settings: ChurnSettings) -> OriginOutcomes:
    return origin_outcomes(
        history, window, edges_hours=settings.edges_hours, every_hours=settings.origin_every_hours, most=_ORIGINS
    )


def _inputs(population: PopulationRates, settings: ChurnSettings) -> Logits:
    def inputs(history: SessionHistory, at_us: int) -> Float64:
        found = node_features(history, at_us=at_us, population=population, settings=settings)
        return np.asarray(found.inputs, dtype=np.float64)

    return inputs


def _times(rows: OriginOutcomes, last_edge_hours: float) -> tuple[Float64, Bool]:
    parts = [
        _times_at(rows.known, at_us, part.node, last_edge_hours)
        for at_us, part in zip(rows.origins, rows.parts, strict=True)
    ]
    return np.concatenate([hours for hours, _ in parts]), np.concatenate([left for _, left in parts])


def _times_at(known: SessionHistory, at_us: int, node: Int64, last_edge_hours: float) -> tuple[Float64, Bool]:
    """Hours from the origin to the middle of the interval of the departure, or to the last sighting."""
    session = known.last_session(at_us - 1)[node]
    middle = known.end_us[session] + (known.end_upper_us[session] - known.end_us[session]) // 2
    hours = (middle - at_us) / HOUR_US
    left = ~known.censored[session] & (hours <= last_edge_hours)
    return np.clip(hours, _LEAST_HOURS, last_edge_hours), left


def _fit_cox(rows: SurvivalRows, seed: int) -> Any:
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    kept = _thinned(len(rows.hours), _COX_ROWS, seed)
    model = CoxPHSurvivalAnalysis(alpha=_RIDGE * len(kept), ties="efron")
    return model.fit(rows.inputs[kept], _target(rows, kept))


def _fit_forest(rows: SurvivalRows, seed: int) -> Any:
    from sksurv.ensemble import RandomSurvivalForest

    kept = _thinned(len(rows.hours), _FOREST_ROWS, seed)
    model = RandomSurvivalForest(
        n_estimators=100, min_samples_leaf=15, max_features="sqrt", n_jobs=1, random_state=seed
    )
    return model.fit(rows.inputs[kept], _target(rows, kept))


def _target(rows: SurvivalRows, kept: Int64) -> Any:
    """Hours are rounded up to two digits, so that a forest does not keep a curve of thousands of steps in each leaf."""
    digit = 10.0 ** (np.floor(np.log10(rows.hours[kept])) - 1.0)
    hours = np.ceil(rows.hours[kept] / digit - 1e-9) * digit
    return np.array(list(zip(rows.left[kept], hours, strict=True)), dtype=[("left", "?"), ("hours", "f8")])


def _thinned(rows: int, most: int, seed: int) -> Int64:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def _logits(model: Any, scale: InputScale, population: PopulationRates, settings: ChurnSettings) -> Logits:
    edges = np.asarray(settings.edges_hours, dtype=np.float64)

    def logits(history: SessionHistory, at_us: int) -> Float64:
        features = node_features(history, at_us=at_us, population=population, settings=settings)
        up = features.up
        cumulative = np.zeros((len(up), len(edges)))
        if up.any():
            rows = scale.apply(features.inputs[up], history.device_class[up]).astype(np.float64)
            cumulative[up] = -np.log(np.maximum(_survival(model, rows, edges), _LEAST_SURVIVAL))
        return bin_logits(cumulative)

    return logits


def _survival(model: Any, rows: Float64, edges: Float64) -> Float64:
    """The steps of the model's curves at the edges; beyond the last time that was met they stay level. (n, B)"""
    times = np.asarray(model.unique_times_, dtype=np.float64)
    curves = model.predict_survival_function(rows, return_array=True)
    at = np.searchsorted(times, edges, side="right") - 1
    return np.asarray(np.where(at >= 0, curves[:, np.maximum(at, 0)], 1.0), dtype=np.float64)
