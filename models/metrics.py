"""Scores of forecasts: pure functions on arrays, each with the direction in which it improves.

A score over nothing, or relative to a demand of zero, is NaN: undefined, not perfect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.special import betainc, gammaincc, gammaln, xlogy

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


def negative_binomial_cumulative(counts: Array, mean: Array, dispersion: Array) -> Float64:
    """P(y <= count) of each row, shape (n,); the regularised incomplete beta function I_p(1 / alpha, count + 1)."""
    k, mu = counts.astype(np.float64), np.maximum(mean, 1e-12)
    poisson = dispersion < POISSON_DISPERSION
    shape = 1.0 / np.where(poisson, 1.0, dispersion)
    reached = np.where(poisson, gammaincc(k + 1.0, mu), betainc(shape, k + 1.0, shape / (shape + mu)))
    return np.asarray(reached, dtype=np.float64)


def pit_masses(below: Float64, upto: Float64, edges: Float64) -> Float64:
    """Expected share of each outcome's randomised probability integral transform between edges, (n_edges - 1, n).

    A count y with F(y - 1) = a and F(y) = b stands for a uniform draw from [a, b]; its expectation is taken, not drawn.
    Under the true law every bin of [0, 1] holds as much as it is wide. Czado, Gneiting and Held, "Predictive model
    assessment for count data" (2009).

    Args:
        below: F(y - 1), 0 for y = 0. (n,)
        upto: F(y). (n,)
        edges: increasing, in [0, 1].
    """
    masses = np.zeros((len(edges) - 1, len(below)))
    _spread_over_bins(below, upto, edges, masses)
    return masses


@njit(cache=True)
def _spread_over_bins(below: Float64, upto: Float64, edges: Float64, masses: Float64) -> None:
    for row in range(len(below)):
        low, high = below[row], upto[row]
        for k in range(len(edges) - 1):
            if high - low > 1e-14:
                masses[k, row] = max(min(high, edges[k + 1]) - max(low, edges[k]), 0.0) / (high - low)
            elif edges[k] <= low and (low < edges[k + 1] or edges[k + 1] == 1.0):
                masses[k, row] = 1.0  # an outcome that the law all but excludes is a point


def randomised_coverage(below: Float64, upto: Float64, *, low: float = 0.1, high: float = 0.9) -> float:
    """Share of outcomes whose randomised transform falls in [low, high]: high - low under the true law.

    Closed intervals of counts cover more than they claim, because P(0) alone may be more than they claim.
    """
    return _mean(pit_masses(below, upto, np.array([low, high])))


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

    Equal predictions share the places they compete for: the expectation over random orders, so that neither the order
    of the codes nor luck helps a forecast that cannot tell rows apart.
    """
    best = top_n_sum(actual, actual, group, n=n)
    return _ratio(top_n_sum(actual, predicted, group, n=n), best)


def top_n_sum(actual: Array, score: Array, group: Array, *, n: int = 20) -> float:
    """Demand of the n rows with the highest score in each group, summed over groups; ties share their places."""
    return float(top_n_sums(actual, score, group, members=np.ones((1, len(actual)), dtype=bool), lengths=(n,))[0, 0])


def top_n_sums(actual: Array, score: Array, group: Array, *, members: Bool, lengths: Sequence[int]) -> Float64:
    """`top_n_sum` within each of several sets of rows and for several n, shape (n_sets, n_lengths).

    Args:
        actual: demand. (n,)
        score: what rows are ranked by, highest first. (n,)
        group: codes; each has lists of its own. (n,)
        members: rows of each set. (n_sets, n)
        lengths: lengths of the lists.
    """
    order = np.argsort(-score.astype(np.float64))
    codes = group[order]
    # Numbers of 16 bits are sorted by their digits, which is several times faster.
    order = order[np.argsort(codes.astype(np.int16) if codes.max(initial=0) < 2**15 else codes, kind="stable")]
    sums = np.zeros((len(members), len(lengths)))
    _sum_heads(
        actual[order].astype(np.float64),
        score[order].astype(np.float64),
        group[order].astype(np.int64),
        np.ascontiguousarray(members[:, order]),
        np.asarray(lengths, dtype=np.int64),
        sums,
    )
    return sums


@njit(cache=True)
def _sum_heads(actual: Float64, score: Float64, group: Array, members: Bool, lengths: Array, sums: Float64) -> None:
    """Rows come by group, then from the highest score; runs of equal scores are taken together."""
    for chosen in range(len(members)):
        row, before, last_group = 0, 0, -1
        while row < len(actual):
            if group[row] != last_group:
                before, last_group = 0, group[row]
            run_group, run_score, tied, demand = group[row], score[row], 0, 0.0
            while row < len(actual) and group[row] == run_group and score[row] == run_score:
                if members[chosen, row]:
                    tied += 1
                    demand += actual[row]
                row += 1
            for column in range(len(lengths)):
                places = min(max(lengths[column] - before, 0), tied)
                if places:
                    sums[chosen, column] += demand * places / tied
            before += tied


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
        Metric("interval_80_pit", randomised_coverage, higher_is_better=True, target=0.8),
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
