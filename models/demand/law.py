"""From a mean to a law of counts: one bias factor and a fitted dispersion, the same for every method.

    y ~ NegativeBinomial(b mu, alpha),   log alpha = log alpha_1 + s log(b mu)

Small cells are more dispersed than busy ones, hence the slope s. The bias factor is the ratio of demand to forecast
on validation, drawn towards 1 when few days were seen: one holiday must not tilt every forecast that follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from models.demand.prior import MEAN_FLOOR
from models.events import Float64
from models.metrics import negative_binomial_losses

DISPERSION_RANGE = (1e-4, 50.0)
PRIOR_DAYS = 1.0
"""Days of validation that count as much as the belief that nothing needs correcting."""
_ROWS_TO_FIT = 20_000


@dataclass(frozen=True)
class CountLaw:
    """Bias factor and dispersion of one method at one horizon."""

    bias: float = 1.0
    log_dispersion: float = 0.0
    slope: float = 0.0

    def mean(self, raw_mean: Float64) -> Float64:
        return np.maximum(self.bias * raw_mean, MEAN_FLOOR)

    def dispersion(self, mean: Float64) -> Float64:
        """Alpha of cells with this (corrected) mean, shape (n,)."""
        power = self.log_dispersion + self.slope * np.log(np.maximum(mean, MEAN_FLOOR))
        return np.exp(np.clip(power, *np.log(DISPERSION_RANGE)))

    def to_state(self) -> list[float]:
        return [self.bias, self.log_dispersion, self.slope]

    @classmethod
    def from_state(cls, state: Mapping[str, Any] | list[float]) -> CountLaw:
        return cls(*(float(value) for value in state))


def fit_bias(counts: Float64, raw_mean: Float64, weights: Float64, *, days: float) -> float:
    """Ratio of demand to forecast, shrunk in logarithms to 1 by as much as one day of evidence."""
    demand, forecast = float(weights @ counts), float(weights @ raw_mean)
    if demand <= 0.0 or forecast <= 0.0:
        return 1.0
    return float(np.exp(np.log(demand / forecast) * days / (days + PRIOR_DAYS)))


def fit_law(counts: Float64, raw_mean: Float64, weights: Float64, *, days: float, seed: int = 0) -> CountLaw:
    """Bias first, then the dispersion that minimises the negative log-likelihood; rows are drawn when there are many.

    Args:
        counts: requests that came. (n,)
        raw_mean: forecast before correction. (n,)
        weights: importance of the rows. (n,)
        days: length of the validation window.
        seed: of the draw.
    """
    if not len(counts):
        return CountLaw()
    law = CountLaw(bias=fit_bias(counts, raw_mean, weights, days=days))
    rows = np.random.default_rng(seed).permutation(len(counts))[:_ROWS_TO_FIT]
    y, mean, weight = counts[rows], law.mean(raw_mean[rows]), weights[rows] / weights[rows].sum()

    def loss(parameters: Float64) -> float:
        candidate = CountLaw(law.bias, float(parameters[0]), float(parameters[1]))
        losses = negative_binomial_losses(y, mean, candidate.dispersion(mean))
        return float(weight @ losses) + 1e-4 * float(parameters @ parameters)

    start = np.array([[0.0, -0.3], [1.0, -0.3], [0.0, 0.3]])
    found = minimize(
        loss,
        start[0],
        method="Nelder-Mead",
        options={"maxfev": 150, "xatol": 0.01, "fatol": 1e-6, "initial_simplex": start},
    )
    return CountLaw(law.bias, float(found.x[0]), float(found.x[1]))
