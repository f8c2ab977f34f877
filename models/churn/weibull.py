"""Weibull times up per device class: S(t) = exp(−(t / σ)^k), so a node of age u stays h longer with S(u + h) / S(u).

Shape k and scale σ (hours) maximise Σ log [S(low) − S(high)] − log S(entry) over ended sessions, whose end lies between
`low` and `high`, and Σ log S(low) − log S(entry) over censored ones; `entry` is the age at which a session under way
was first watched. k < 1 is a hazard that falls with age, as that of most volunteers' machines does. A class with few
departures has the fleet's. Nurmi, Brevik and Wolski, "Modeling machine availability in enterprise and wide-area
distributed computing environments" (2005).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from models.churn.history import Objects
from models.churn.lifetable import Durations
from models.events import Bool, Float64

_LEAST_DEPARTURES = 30
_EXACT_HOURS = 2.0 / 3600.0
"""An end known this well is a point with a density; a difference of survivals would be lost in rounding."""
_SHORTEST_HOURS = 1.0 / 3600.0
_LOG_BOUNDS = ((-3.0, 2.0), (-10.0, 15.0))


@dataclass(frozen=True)
class WeibullHazard:
    """(shape, scale in hours) of the fleet and of each class that has enough departures."""

    fleet: tuple[float, float]
    by_class: Mapping[str, tuple[float, float]]

    def cumulative_hazard(self, *, age_hours: Float64, device_class: Objects, edges_hours: Float64) -> Float64:
        """((u + h) / σ)^k − (u / σ)^k. (n, B)"""
        chosen = np.array([self.by_class.get(str(name), self.fleet) for name in device_class]).reshape(-1, 2)
        shape, scale = chosen[:, :1], chosen[:, 1:]
        age = age_hours[:, None]
        return np.asarray(((age + edges_hours) / scale) ** shape - (age / scale) ** shape, dtype=np.float64)


def fit_weibull(durations: Durations) -> WeibullHazard:
    """Maximum likelihood of the fleet and of each class with 30 departures; the exponential law where nobody left."""
    watched = np.where(durations.ended, durations.high, durations.low) > durations.entry
    fleet = _fit(durations, watched)
    by_class = {}
    for name in sorted({str(c) for c in durations.device_class}):
        mine = watched & (durations.device_class == name)
        if int(np.sum(durations.ended & mine)) >= _LEAST_DEPARTURES:
            by_class[name] = _fit(durations, mine)
    return WeibullHazard(fleet, by_class)


def _fit(durations: Durations, rows: Bool) -> tuple[float, float]:
    entry, low, high = (np.maximum(v[rows], 0.0) for v in (durations.entry, durations.low, durations.high))
    ended = durations.ended[rows]
    low = np.maximum(np.maximum(low, entry), _SHORTEST_HOURS)
    hours = float(np.sum(low - entry))
    mean = max(hours, 1.0) / max(int(ended.sum()), 1)
    if not ended.any():
        return 1.0, mean
    exact = ended & (high - low <= _EXACT_HOURS)
    between = ended & ~exact

    def loss(theta: Float64) -> float:
        shape, log_scale = float(np.exp(theta[0])), float(theta[1])
        at_low = _hazard(low, shape, log_scale)
        likelihood = np.sum(_hazard(entry, shape, log_scale)) - np.sum(at_low)
        likelihood += np.sum(np.log(shape) - log_scale + (shape - 1.0) * (np.log(low[exact]) - log_scale))
        step = _hazard(high[between], shape, log_scale) - at_low[between]
        likelihood += np.sum(np.log(-np.expm1(-np.maximum(step, 1e-12))))
        return -float(likelihood) / len(low)

    found = minimize(loss, np.array([0.0, np.log(mean)]), method="L-BFGS-B", bounds=_LOG_BOUNDS)
    return float(np.exp(found.x[0])), float(np.exp(found.x[1]))


def _hazard(hours: Float64, shape: float, log_scale: float) -> Float64:
    """Cumulative hazard (t / σ)^k, 0 at 0, bounded where a trial step of the search would overflow."""
    exponent = shape * (np.log(np.maximum(hours, 1e-300)) - log_scale)
    return np.where(hours > 0.0, np.exp(np.minimum(exponent, 500.0)), 0.0)
