"""How honest P(gone by the edge) is for one group of nodes, edge by edge, and how sure that is.

Error and slope are those of the comparison (`models.churn.scores`), so that a figure shown twice agrees. The interval of
a slope allows for rows of one node resembling each other:

    V = H⁻¹ (Σ_nodes g gᵀ) H⁻¹        g the sum of the score over the rows of a node, H the curvature

(Liang and Zeger 1986, "Longitudinal data analysis using generalized linear models"). With few rows even an honest
forecast has an error, because the frequency of a bin strays from its chance; that much is told beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from models.calibration import PROBABILITY_FLOOR, reliability_table
from models.churn.outcomes import Outcomes
from models.churn.scores import edge_name, survival_scores
from models.events import Float64, Int64

_NEWTON_STEPS = 100


@dataclass(frozen=True)
class ClassCalibration:
    """How honest P(gone by the edge) is for one group; the figures of the comparison are `mean_error` and `slope`.

    Attributes:
        error: expected calibration error at each edge; NaN where nothing is known. (B,)
        chance: what an honest forecast would have, from chance alone and with independent rows. (B,)
        slopes, slopes_low, slopes_high: calibration slope at each edge with its 95 % interval over nodes. (B,)
        mean_error: mean of `error` over the edges that are known.
        slope, intercept: pooled over edges.
    """

    error: Float64
    chance: Float64
    slopes: Float64
    slopes_low: Float64
    slopes_high: Float64
    mean_error: float
    slope: float
    intercept: float


def calibrations(outcomes: Outcomes, survival: Float64) -> ClassCalibration:
    """Figures of the comparison for P(gone by the edge), with the interval of each slope and the pooled intercept."""
    scores = survival_scores(survival, outcomes)
    names = [edge_name(hours) for hours in outcomes.edges_hours]
    gone, known, probability = 1.0 - outcomes.alive(), outcomes.known(), 1.0 - survival
    slopes = np.array([scores[f"calibration_slope_{name}"] for name in names])
    errors = np.array([
        _slope_error(probability[known[:, b], b], gone[known[:, b], b], outcomes.node[known[:, b]], slope)
        for b, slope in enumerate(slopes)
    ])  # fmt: skip
    return ClassCalibration(
        np.array([scores[f"ece_{name}"] for name in names]),
        np.array([_chance_error(probability[k, b], gone[k, b]) for b, k in enumerate(known.T)]),
        slopes,
        slopes - 1.96 * errors,
        slopes + 1.96 * errors,
        scores["ece"],
        scores["calibration_slope"],
        _intercept(probability[known], gone[known], scores["calibration_slope"]),
    )


def _chance_error(probability: Float64, outcome: Float64) -> float:
    """Σ_bins (n_bin / n) √(2 p (1 − p) / (π n_bin)): the mean gap of a bin whose forecasts are honest."""
    if not len(probability):
        return float("nan")
    table = reliability_table(probability, outcome)
    spread = np.sqrt(2.0 * table.predicted * (1.0 - table.predicted) / (np.pi * table.weight))
    return float(np.average(spread, weights=table.weight))


def _slope_error(probability: Float64, outcome: Float64, node: Int64, slope: float) -> float:
    """Standard error of a calibration slope, √V of the slope."""
    if not np.isfinite(slope):
        return float("nan")
    at = _logit(probability)
    fitted = expit(_intercept(probability, outcome, slope) + slope * at)
    design = np.column_stack([np.ones(len(at)), at])
    _, code = np.unique(node, return_inverse=True)
    scores = np.column_stack([np.bincount(code, weights=(outcome - fitted) * column) for column in design.T])
    inverse = np.linalg.inv((design.T * (fitted * (1.0 - fitted))) @ design + 1e-9 * np.eye(2))
    return float(np.sqrt(max((inverse @ (scores.T @ scores) @ inverse)[1, 1], 0.0)))


def _intercept(probability: Float64, outcome: Float64, slope: float) -> float:
    """Solves Σ (y − expit(a + slope · logit p)) = 0 for a by Newton's method; nan where there is no slope."""
    if not np.isfinite(slope):
        return float("nan")
    offset, intercept = slope * _logit(probability), 0.0
    for _ in range(_NEWTON_STEPS):
        fitted = expit(intercept + offset)
        step = float((outcome - fitted).sum() / max(float((fitted * (1.0 - fitted)).sum()), 1e-12))
        intercept += float(np.clip(step, -1.0, 1.0))
        if abs(step) < 1e-9:
            break
    return intercept


def _logit(probability: Float64) -> Float64:
    return np.asarray(logit(np.clip(probability, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)), dtype=np.float64)
