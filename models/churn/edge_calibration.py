"""How honest P(gone by the edge) is for one group of nodes, edge by edge, and how sure that is.

Error and slope are those of the comparison (`models.churn.scores`), so that a figure shown twice agrees. The interval of
a slope allows for rows of one node resembling each other:

    V = H⁻¹ (Σ_nodes g gᵀ) H⁻¹        g the sum of the score over the rows of a node, H the curvature

(Liang and Zeger 1986, "Longitudinal data analysis using generalized linear models"). Nodes that leave together resemble
each other as well: with blocks of time as long as the horizon in place of nodes, V is another, and √V the larger of the
two. With few rows even an honest
forecast has an error, because the frequency of a bin strays from its chance. With r = outcome − forecast and r̄ its mean
in bin k of n_k rows, chance alone makes

    Σ_k (n_k / n) √(2 v_k / π),    v_k = Σ_nodes (Σ_rows of the node in k (r − r̄))² / n_k²

of it, v_k being no less than that of independent rows; that much is told beside the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from models.calibration import PROBABILITY_FLOOR, quantile_bins
from models.churn.outcomes import Outcomes
from models.churn.scores import edge_name, survival_scores
from models.events import HOUR_US, Bool, Float64, Int64

_NEWTON_STEPS = 100


@dataclass(frozen=True)
class ClassCalibration:
    """How honest P(gone by the edge) is for one group; the figures of the comparison are `mean_error` and `slope`.

    Attributes:
        error: expected calibration error at each edge; NaN where nothing is known. (B,)
        chance: what an honest forecast would have, from chance alone. (B,)
        slopes, slopes_low, slopes_high: calibration slope at each edge with its 95 % interval over nodes. (B,)
        mean_error, mean_chance: means of `error` and `chance` over the edges that are known.
        slope, slope_low, slope_high, intercept: pooled over edges.
    """

    error: Float64
    chance: Float64
    slopes: Float64
    slopes_low: Float64
    slopes_high: Float64
    mean_error: float
    mean_chance: float
    slope: float
    slope_low: float
    slope_high: float
    intercept: float


def calibrations(outcomes: Outcomes, survival: Float64) -> ClassCalibration:
    """Figures of the comparison for P(gone by the edge), with the interval of each slope and the pooled intercept."""
    scores = survival_scores(survival, outcomes)
    sure = uncertainty(outcomes, survival, scores["calibration_slope"])
    names = [edge_name(hours) for hours in outcomes.edges_hours]
    gone, known, probability = 1.0 - outcomes.alive(), outcomes.known(), 1.0 - survival
    slopes = np.array([scores[f"calibration_slope_{name}"] for name in names])
    errors = np.array(
        [
            _slope_error(outcomes, survival, known & (np.arange(len(slopes)) == b), slope)
            for b, slope in enumerate(slopes)
        ]
    )
    return ClassCalibration(
        np.array([scores[f"ece_{name}"] for name in names]),
        _chance_errors(outcomes, survival),
        slopes,
        slopes - 1.96 * errors,
        slopes + 1.96 * errors,
        scores["ece"],
        sure["ece_chance"],
        scores["calibration_slope"],
        sure["calibration_slope_low"],
        sure["calibration_slope_high"],
        _intercept(probability[known], gone[known], scores["calibration_slope"]),
    )


def uncertainty(outcomes: Outcomes, survival: Float64, slope: float) -> dict[str, float]:
    """How far chance reaches: `ece_chance`, and `calibration_slope_low` and `_high` about the pooled slope."""
    error = _slope_error(outcomes, survival, outcomes.known(), slope)
    chance = _chance_errors(outcomes, survival)
    return {
        "ece_chance": float(np.nanmean(chance)) if np.isfinite(chance).any() else float("nan"),
        "calibration_slope_low": slope - 1.96 * error,
        "calibration_slope_high": slope + 1.96 * error,
    }


def _chance_errors(outcomes: Outcomes, survival: Float64) -> Float64:
    gone, probability = 1.0 - outcomes.alive(), 1.0 - survival
    each = [_chance_error(probability[k, b], gone[k, b], outcomes.node[k]) for b, k in enumerate(outcomes.known().T)]
    return np.array(each)


def _chance_error(probability: Float64, outcome: Float64, node: Int64) -> float:
    """Mean gap of the bins of an honest forecast, Σ_k (n_k / n) √(2 v_k / π)."""
    if not len(probability):
        return float("nan")
    bin_of = quantile_bins(probability)
    rows = np.maximum(np.bincount(bin_of), 1)
    predicted, observed = (np.bincount(bin_of, weights=v) / rows for v in (probability, outcome))
    strayed = outcome - probability - (observed - predicted)[bin_of]
    _, cell, where = np.unique(node * len(rows) + bin_of, return_index=True, return_inverse=True)
    squares = np.bincount(bin_of[cell], weights=np.bincount(where, weights=strayed) ** 2, minlength=len(rows))
    variance = np.maximum(squares / rows, predicted * (1.0 - predicted)) / rows
    return float(np.bincount(bin_of) @ np.sqrt(2.0 * variance / np.pi) / len(probability))


def _slope_error(outcomes: Outcomes, survival: Float64, cells: Bool, slope: float) -> float:
    """Standard error of the slope over these cells of rows and edges, √V of the slope."""
    if not np.isfinite(slope):
        return float("nan")
    probability, outcome, row = 1.0 - survival[cells], 1.0 - outcomes.alive()[cells], np.nonzero(cells)[0]
    at = _logit(probability)
    fitted = expit(_intercept(probability, outcome, slope) + slope * at)
    design = np.column_stack([np.ones(len(at)), at])
    scores = (outcome - fitted)[:, None] * design
    inverse = np.linalg.inv((design.T * (fitted * (1.0 - fitted))) @ design + 1e-9 * np.eye(2))
    block = outcomes.at_us // round(float(outcomes.edges_hours[-1]) * HOUR_US)
    variances = [(inverse @ _summed_squares(scores, of[row]) @ inverse)[1, 1] for of in (outcomes.node, block)]
    return float(np.sqrt(max(*variances, 0.0)))


def _summed_squares(scores: Float64, group: Int64) -> Float64:
    """Σ_groups g gᵀ with g the sum of the scores of a group. (2, 2)"""
    _, code = np.unique(group, return_inverse=True)
    sums = np.column_stack([np.bincount(code, weights=column) for column in scores.T])
    return np.asarray(sums.T @ sums, dtype=np.float64)


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
