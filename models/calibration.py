"""Do the probabilities mean what they say, and how sure are we of an average.

A forecast p of an event y ∈ {0, 1} is calibrated when E[y | p] = p. Three views of that:

    reliability      mean p against mean y, in bins of p
    ECE              Σ_bins (n_bin / n) |mean p − mean y|
    slope, intercept logit E[y | p] = intercept + slope · logit p; perfect is (1, 0), slope < 1 is over-confident

`LogitCalibration` is the last one turned into a correction. `block_bootstrap_interval` gives the uncertainty of a
mean whose values are dependent inside blocks (hours of demand, sessions of one node): whole blocks are resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from models.events import Float64, Int64

PROBABILITY_FLOOR = 1e-7
_DRAWS_AT_ONCE = 4_000_000
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class ReliabilityTable:
    """Mean forecast against observed frequency in bins of equally many forecasts.

    Attributes:
        predicted: mean forecast of the bin. (bins,)
        observed: weighted frequency of the event in the bin. (bins,)
        weight: weight of the bin (the number of forecasts where all weights are one). (bins,)
    """

    predicted: Float64
    observed: Float64
    weight: Float64

    @property
    def expected_calibration_error(self) -> float:
        gap = np.abs(self.predicted - self.observed)
        return float(np.sum(self.weight * gap) / np.sum(self.weight))


@dataclass(frozen=True)
class LogitCalibration:
    """p → expit(intercept + slope · logit p); the identity is (0, 1)."""

    intercept: float = 0.0
    slope: float = 1.0

    def apply(self, probability: Float64) -> Float64:
        scaled: Float64 = expit(self.intercept + self.slope * _logit(probability))
        return scaled


def block_bootstrap_interval(
    values: Float64,
    blocks: Int64,
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` when whole blocks are resampled with replacement.

    Args:
        values: what is averaged, for example paired differences of a loss. (n,)
        blocks: block of each value (hour, node, day); any integers. (n,)
        replicates: resampled means.
        seed: seed of the resampling.
        level: coverage of the interval, in (0, 1).

    Returns:
        Lower and upper end. With a single block both are the mean: one block says nothing about spread.
    """
    values, blocks = np.asarray(values, dtype=np.float64), np.asarray(blocks)
    problems = _bootstrap_problems(values, blocks, replicates, level)
    if problems:
        raise ValueError(" ".join(problems))
    _, code = np.unique(blocks, return_inverse=True)
    total = np.bincount(code, weights=values).astype(np.float64)
    count = np.bincount(code).astype(np.float64)
    means = _resampled_means(total, count, replicates, np.random.default_rng(seed))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def reliability_table(
    probability: Float64, outcome: Float64, *, weight: Float64 | None = None, bins: int = 10
) -> ReliabilityTable:
    """Bins the forecasts at their quantiles; equal forecasts always share a bin, so there may be fewer than `bins`."""
    probability, outcome, weight = _checked(probability, outcome, weight)
    bin_of = quantile_bins(probability, bins)
    mass = np.bincount(bin_of, weights=weight).astype(np.float64)
    filled = mass > 0
    mass_filled = mass[filled]
    predicted = np.bincount(bin_of, weights=weight * probability, minlength=len(mass))[filled] / mass_filled
    observed = np.bincount(bin_of, weights=weight * outcome, minlength=len(mass))[filled] / mass_filled
    return ReliabilityTable(predicted, observed, mass_filled)


def quantile_bins(probability: Float64, bins: int = 10) -> Int64:
    """Number of the bin of each forecast: bins end at the quantiles of the forecasts, the upper end included. (n,)"""
    cuts = np.unique(np.quantile(probability, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    return np.searchsorted(cuts, probability, side="left")


def expected_calibration_error(
    probability: Float64, outcome: Float64, *, weight: Float64 | None = None, bins: int = 10
) -> float:
    """Weighted mean of |mean forecast − frequency| over the bins of `reliability_table`."""
    return reliability_table(probability, outcome, weight=weight, bins=bins).expected_calibration_error


def calibration_slope(probability: Float64, outcome: Float64, *, weight: Float64 | None = None) -> tuple[float, float]:
    """(slope, intercept) of the logistic regression of the outcome on logit p; nan where it is not defined.

    It is not defined when every outcome is equal or every forecast is equal.
    """
    probability, outcome, weight = _checked(probability, outcome, weight)
    seen = outcome[weight > 0]
    if np.ptp(seen) == 0 or np.ptp(probability[weight > 0]) < PROBABILITY_FLOOR:
        return float("nan"), float("nan")
    fitted = fit_logit_calibration(probability, outcome, weight=weight, prior_strength=1e-6)
    return fitted.slope, fitted.intercept


def fit_logit_calibration(
    probability: Float64,
    outcome: Float64,
    *,
    weight: Float64 | None = None,
    prior: LogitCalibration | None = None,
    prior_strength: float = 10.0,
) -> LogitCalibration:
    """Logistic regression of the outcome on logit p, shrunk towards `prior`.

    Maximises Σ w [y log q + (1 − y) log(1 − q)] − strength / 2 · ((intercept − a₀)² + (slope − b₀)²) by Newton's
    method. The objective is concave, and a halved step that no longer gains ends the search.

    Args:
        probability: forecasts. (n,)
        outcome: 0 or 1. (n,)
        weight: non-negative weight of each row; ones when absent. (n,)
        prior: centre of the shrinkage; the identity when absent.
        prior_strength: precision of both parameters about the prior; larger keeps closer to it.
    """
    probability, outcome, weight = _checked(probability, outcome, weight)
    centre = np.array([0.0, 1.0]) if prior is None else np.array([prior.intercept, prior.slope])
    design = np.column_stack([np.ones(len(probability)), _logit(probability)])
    theta = centre.copy()
    value = _penalised(theta, design, outcome, weight, centre, prior_strength)
    for _ in range(_NEWTON_STEPS):
        fitted = expit(design @ theta)
        gradient = design.T @ (weight * (outcome - fitted)) - prior_strength * (theta - centre)
        curvature = (design.T * (weight * fitted * (1.0 - fitted))) @ design + prior_strength * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while float(np.max(np.abs(step))) > 1e-10:
            candidate = _penalised(theta + step, design, outcome, weight, centre, prior_strength)
            if candidate > value:
                break
            step = step / 2.0
        else:
            break
        theta, value = theta + step, candidate
    return LogitCalibration(float(theta[0]), float(theta[1]))


def _penalised(
    theta: Float64,
    design: Float64,
    outcome: Float64,
    weight: Float64,
    centre: Float64,
    strength: float,
) -> float:
    score = design @ theta
    likelihood = float(np.sum(weight * (outcome * score - np.logaddexp(0.0, score))))
    return likelihood - strength / 2.0 * float(np.sum((theta - centre) ** 2))


def _resampled_means(total: Float64, count: Float64, replicates: int, rng: np.random.Generator) -> Float64:
    blocks = len(total)
    means = np.empty(replicates)
    at_once = max(1, _DRAWS_AT_ONCE // blocks)
    for first in range(0, replicates, at_once):
        size = min(at_once, replicates - first)
        drawn = rng.integers(0, blocks, size=(size, blocks))
        means[first : first + size] = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    return means


def _bootstrap_problems(values: Float64, blocks: Int64, replicates: int, level: float) -> list[str]:
    problems = []
    if values.ndim != 1 or values.shape != blocks.shape or not len(values):
        problems.append(f"Expected as many values as blocks and at least one, got {values.shape} and {blocks.shape}.")
    elif not bool(np.all(np.isfinite(values))):
        problems.append(f"Expected finite values, got {int(np.sum(~np.isfinite(values)))} that are not.")
    if replicates < 1:
        problems.append(f"Expected replicates >= 1, got {replicates!r}.")
    if not 0.0 < level < 1.0:
        problems.append(f"Expected level in (0, 1), got {level!r}.")
    return problems


def _checked(probability: Float64, outcome: Float64, weight: Float64 | None) -> tuple[Float64, Float64, Float64]:
    probability = np.asarray(probability, dtype=np.float64)
    outcome = np.asarray(outcome, dtype=np.float64)
    weight = np.ones(len(probability)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(probability) == len(outcome) == len(weight) or not len(probability):
        raise ValueError(
            f"Expected equally many forecasts, outcomes and weights and at least one, got {len(probability)}, "
            f"{len(outcome)} and {len(weight)}."
        )
    if bool(np.any((probability < 0) | (probability > 1))) or not bool(np.all(np.isfinite(probability))):
        raise ValueError("Expected probabilities in [0, 1].")
    if float(np.sum(weight)) <= 0 or bool(np.any(weight < 0)):
        raise ValueError("Expected weights >= 0 with a positive sum.")
    return probability, outcome, weight


def _logit(probability: Float64) -> Float64:
    clipped: Float64 = logit(np.clip(probability, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR))
    return clipped
