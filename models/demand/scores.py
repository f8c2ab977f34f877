"""Scores as sums: what each cell loses, summed over strata and origins, from which every metric follows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from models.events import Bool, Float64
from models.forecast import negative_binomial_quantiles
from models.metrics import negative_binomial_losses, poisson_deviance, top_n_sum

QUANTILES = tuple(round(0.05 + 0.1 * k, 2) for k in range(10))
"""Probabilities of the scaled pinball loss."""
INTERVAL = (0.1, 0.9)
"""Ends of the interval whose coverage is reported."""
_CELL_SCORES = ("absolute_error_median", "deviance", "nll", "pinball", "covered", "captured", "best")


@dataclass(frozen=True)
class ScoreSums:
    """Sums over cells from which every metric follows; sums of different origins add up."""

    n: float = 0.0
    demand: float = 0.0
    forecast: float = 0.0
    absolute_error: float = 0.0
    absolute_error_median: float = 0.0
    squared_error: float = 0.0
    deviance: float = 0.0
    nll: float = 0.0
    pinball: float = 0.0
    covered: float = 0.0
    captured: float = 0.0
    best: float = 0.0

    def __add__(self, other: ScoreSums) -> ScoreSums:
        return ScoreSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def metrics(self) -> dict[str, float]:
        """Metrics by their names in `models.metrics.METRICS`, and the mean demand and forecast."""
        n, demand = self.n or float("nan"), self.demand or float("nan")
        return {
            "demand": self.demand,
            "forecast": self.forecast,
            "wape": self.absolute_error / demand,
            "wape_median": self.absolute_error_median / demand,
            "rmse": float(np.sqrt(self.squared_error / n)),
            "poisson_deviance": self.deviance / n,
            "nll": self.nll / n,
            "scaled_pinball": 2.0 * self.pinball / demand,
            "coverage_80": self.covered / n,
            "top20_captured": self.captured / (self.best or float("nan")),
        }


def ratio_parts(sums: ScoreSums, metric: str) -> tuple[float, float]:
    """Numerator and denominator of a metric that is a ratio of sums."""
    return {
        "nll": (sums.nll, sums.n),
        "poisson_deviance": (sums.deviance, sums.n),
        "wape": (sums.absolute_error, sums.demand),
        "scaled_pinball": (2.0 * sums.pinball, sums.demand),
        "top20_captured": (sums.captured, sums.best),
    }[metric]


def location_sums(actual: Float64, mean: Float64) -> ScoreSums:
    """Point scores of totals by location; scores of a law or of a ranking are not defined there."""
    return ScoreSums(
        n=float(len(actual)),
        demand=float(actual.sum()),
        forecast=float(mean.sum()),
        absolute_error=float(np.abs(actual - mean).sum()),
        squared_error=float(((actual - mean) ** 2).sum()),
        **dict.fromkeys(_CELL_SCORES, float("nan")),
    )


@dataclass(frozen=True)
class CellLosses:
    """Losses of one forecast by cell, so that each stratum is a sum over some of them; all (n,)."""

    actual: Float64
    mean: Float64
    median: Float64
    nll: Float64
    pinball: Float64
    covered: Bool

    @classmethod
    def of(cls, actual: Float64, mean: Float64, dispersion: Float64) -> CellLosses:
        """Scores a negative binomial forecast of each cell against what came."""
        quantiles = negative_binomial_quantiles((*QUANTILES, 0.5, *INTERVAL), mean, dispersion)
        levels = np.array(QUANTILES)[:, None]
        over = actual[None, :] - quantiles[: len(QUANTILES)]
        median, low, high = quantiles[len(QUANTILES) :]
        return cls(
            actual=actual,
            mean=mean,
            median=median,
            nll=negative_binomial_losses(actual, mean, dispersion),
            pinball=np.maximum(levels * over, (levels - 1.0) * over).mean(axis=0),
            covered=(actual >= low) & (actual <= high),
        )

    def sums(self, rows: Bool, group: Any) -> ScoreSums:
        actual, mean = self.actual[rows], self.mean[rows]
        return ScoreSums(
            n=float(rows.sum()),
            demand=float(actual.sum()),
            forecast=float(mean.sum()),
            absolute_error=float(np.abs(actual - mean).sum()),
            absolute_error_median=float(np.abs(actual - self.median[rows]).sum()),
            squared_error=float(((actual - mean) ** 2).sum()),
            deviance=poisson_deviance(actual, mean) * len(actual) if len(actual) else 0.0,
            nll=float(self.nll[rows].sum()),
            pinball=float(self.pinball[rows].sum()),
            covered=float(self.covered[rows].sum()),
            captured=top_n_sum(actual, mean, group[rows]),
            best=top_n_sum(actual, actual, group[rows]),
        )
