"""Scores of forecasts: pure functions on arrays, each with the direction in which it improves.

A score over nothing, or relative to a demand of zero, is NaN: undefined, not perfect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

from models.events import Bool, Float64
from models.forecast import POISSON_DISPERSION

Array = npt.NDArray[Any]


def wape(actual: Array, predicted: Array) -> float:
    """Weighted absolute percentage error: sum |y - p| / sum y."""
    return _ratio(np.abs(actual - predicted).sum(), actual.sum())


def rmse(actual: Array, predicted: Array) -> float:
    """Square root of the mean squared error."""
    return float(np.sqrt(_mean((actual - predicted) ** 2)))


def poisson_deviance(actual: Array, predicted: Array) -> float:
    """Mean of 2 [y log(y / p) - (y - p)], in nats; a request where p = 0 costs infinity."""
    y, p = actual.astype(np.float64), predicted.astype(np.float64)
    if bool(((p <= 0.0) & (y > 0.0)).any()):
        return float("inf")
    return _mean(2.0 * (xlogy(y, np.where(y > 0.0, y, 1.0)) - xlogy(y, np.where(y > 0.0, p, 1.0)) - (y - p)))


def negative_binomial_losses(actual: Array, mean: Array, dispersion: Array) -> Float64:
    """-log P(y) of each row under the law with variance mu + alpha mu^2, in nats, shape (n,)."""
    y = actual.astype(np.float64)
    mu = np.maximum(mean, 1e-12)
    poisson = dispersion < POISSON_DISPERSION
    shape = 1.0 / np.where(poisson, 1.0, dispersion)
    broad = (
        gammaln(shape)
        + gammaln(y + 1.0)
        - gammaln(y + shape)
        + shape * np.log1p(mu / shape)
        - xlogy(y, mu / (shape + mu))
    )
    return np.asarray(np.where(poisson, mu - xlogy(y, mu) + gammaln(y + 1.0), broad), dtype=np.float64)


def negative_binomial_nll(actual: Array, mean: Array, dispersion: Array) -> float:
    """Mean negative log-likelihood of counts, in nats a cell."""
    return _mean(negative_binomial_losses(actual, mean, dispersion))


def scaled_pinball(actual: Array, probabilities: Sequence[float], quantiles: Array) -> float:
    """2 x mean pinball loss over the quantiles / mean demand. `quantiles` is (n_probabilities, n)."""
    if quantiles.shape != (len(probabilities), len(actual)):
        raise ValueError(f"Expected quantiles {(len(probabilities), len(actual))}, got {quantiles.shape}.")
    p = np.asarray(probabilities, dtype=np.float64)[:, None]
    over = actual[None, :] - quantiles
    return _ratio(2.0 * _mean(np.maximum(p * over, (p - 1.0) * over)), _mean(actual))


def interval_coverage(actual: Array, low: Array, high: Array) -> float:
    """Share of outcomes inside [low, high], ends included."""
    return _mean((actual >= low) & (actual <= high))


def top_n_captured_share(actual: Array, predicted: Array, group: Array, *, n: int = 20) -> float:
    """Demand of each group's n best-predicted rows / demand of its n truly best rows, summed over groups.

    Equal predictions keep their input order, so a forecast that cannot tell rows apart gains nothing by luck.
    """
    best = top_n_sum(actual, actual, group, n=n)
    return _ratio(top_n_sum(actual, predicted, group, n=n), best)


def mrr(rank: Array, *, k: int = 20) -> float:
    """Mean reciprocal rank of the true item; rank 1 is first, 0 means not listed, ranks past k count 0."""
    listed = (rank >= 1) & (rank <= k)
    return _mean(np.where(listed, 1.0 / np.maximum(rank, 1), 0.0))


def recall_at_k(rank: Array, *, k: int = 20) -> float:
    """Share of true items ranked 1..k; rank 0 means not listed."""
    return _mean((rank >= 1) & (rank <= k))


def brier(probability: Array, outcome: Array) -> float:
    """Mean squared error of a probability against what happened (0 or 1)."""
    return _mean((probability - outcome) ** 2)


def integrated_brier(survival: Array, alive: Array, edges_hours: Array, *, known: Bool | None = None) -> float:
    """Brier score of survival averaged over the horizon, each edge weighted by the width of its bin.

    Args:
        survival: P(up until the edge). (n, n_edges)
        alive: whether the node was still up at the edge, 0 or 1. (n, n_edges)
        edges_hours: increasing edges; the first bin starts at 0. (n_edges,)
        known: False where a censored session hides the outcome; such entries are left out. (n, n_edges)
    """
    seen = np.ones(survival.shape, dtype=bool) if known is None else known
    widths = np.diff(edges_hours, prepend=0.0)
    scores = [brier(survival[seen[:, b], b], alive[seen[:, b], b]) for b in range(len(widths))]
    usable = np.isfinite(scores)
    return _ratio(float(np.dot(widths[usable], np.asarray(scores)[usable])), float(widths[usable].sum()))


@dataclass(frozen=True)
class Metric:
    """A score with its direction; `target` is set where neither more nor less is better, but nearness is."""

    name: str
    function: Callable[..., float]
    higher_is_better: bool
    target: float | None = None

    def is_better(self, candidate: float, reference: float) -> bool:
        """Whether the candidate's score is strictly better; an undefined score is never better."""
        return self.gain(candidate, reference) > 0.0

    def gain(self, candidate: float, reference: float) -> float:
        """How much better the candidate is, in the metric's own unit; positive is better."""
        if self.target is not None:
            return abs(reference - self.target) - abs(candidate - self.target)
        return candidate - reference if self.higher_is_better else reference - candidate


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("wape", wape, higher_is_better=False),
        Metric("rmse", rmse, higher_is_better=False),
        Metric("poisson_deviance", poisson_deviance, higher_is_better=False),
        Metric("nll", negative_binomial_nll, higher_is_better=False),
        Metric("scaled_pinball", scaled_pinball, higher_is_better=False),
        Metric("coverage_80", interval_coverage, higher_is_better=True, target=0.8),
        Metric("top20_captured", top_n_captured_share, higher_is_better=True),
        Metric("mrr", mrr, higher_is_better=True),
        Metric("recall", recall_at_k, higher_is_better=True),
        Metric("brier", brier, higher_is_better=False),
        Metric("integrated_brier", integrated_brier, higher_is_better=False),
    )
}
"""Every score a row of an evaluation may carry, by the name of its column."""


def _mean(values: Array) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator) / float(denominator) if denominator > 0.0 else float("nan")


def top_n_sum(actual: Array, score: Array, group: Array, *, n: int = 20) -> float:
    """Demand of the n rows with the highest score in each group, summed over groups."""
    order = np.lexsort((np.arange(len(score)), -score.astype(np.float64), group))
    ordered = group[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else np.zeros(0)
    position = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))).astype(np.int64))
    return float(actual[order][position < n].sum())
