"""Scores worked out by hand, so that a claim made with them can be trusted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models import metrics

ACTUAL = np.array([3.0, 0.0, 1.0])
PREDICTED = np.array([2.0, 1.0, 1.0])


def test_wape__by_hand() -> None:
    """|3-2| + |0-1| + |1-1| = 2 over a demand of 4."""
    assert metrics.wape(ACTUAL, PREDICTED) == 0.5
    assert math.isnan(metrics.wape(np.zeros(2), np.ones(2)))


def test_rmse__by_hand() -> None:
    """Squared errors 1, 1, 0."""
    assert metrics.rmse(ACTUAL, PREDICTED) == pytest.approx(math.sqrt(2 / 3))


def test_poisson_deviance__by_hand() -> None:
    """Rows: 2(3 ln 1.5 - 1), 2(0 + 1), 0."""
    expected = (2 * (3 * math.log(1.5) - 1) + 2) / 3
    assert metrics.poisson_deviance(ACTUAL, PREDICTED) == pytest.approx(expected)
    assert metrics.poisson_deviance(np.array([1.0]), np.array([0.0])) == math.inf
    assert metrics.poisson_deviance(np.array([0.0]), np.array([0.0])) == 0.0


def test_negative_binomial_nll__geometric_law() -> None:
    """Mean 1, alpha 1 is geometric: P(y) = 2^-(y+1), so the loss is (y+1) ln 2."""
    losses = metrics.negative_binomial_losses(np.array([0, 1, 4]), np.ones(3), np.ones(3))
    assert losses == pytest.approx([math.log(2), 2 * math.log(2), 5 * math.log(2)])


@given(
    y=st.integers(0, 300),
    mean=st.floats(1e-3, 300.0),
    dispersion=st.floats(1e-4, 30.0),
)
def test_negative_binomial_nll__agrees_with_scipy(y: int, mean: float, dispersion: float) -> None:
    """The fast form must be the textbook law wherever the network may go."""
    loss = metrics.negative_binomial_losses(np.array([y]), np.array([mean]), np.array([dispersion]))[0]
    shape = 1 / dispersion
    assert loss == pytest.approx(-stats.nbinom.logpmf(y, shape, shape / (shape + mean)), rel=1e-6, abs=1e-6)


def test_negative_binomial_nll__no_dispersion_is_poisson() -> None:
    """The limit alpha -> 0 must not divide by zero."""
    loss = metrics.negative_binomial_losses(np.array([2]), np.array([3.0]), np.array([0.0]))[0]
    assert loss == pytest.approx(-stats.poisson.logpmf(2, 3.0))


def test_scaled_pinball__by_hand() -> None:
    """Median forecast 2 for y = 3 and 0: losses 0.5 and 1.0, mean 0.75; x2 / mean demand 1.5 = 1."""
    assert metrics.scaled_pinball(np.array([3.0, 0.0]), [0.5], np.array([[2.0, 2.0]])) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="Expected quantiles"):
        metrics.scaled_pinball(ACTUAL, [0.5, 0.9], np.zeros((1, 3)))


def test_scaled_pinball__punishes_the_right_side() -> None:
    """At p = 0.9 being 1 too low costs 0.9 and being 1 too high costs 0.1: a ninefold difference."""
    low = metrics.scaled_pinball(np.array([2.0]), [0.9], np.array([[1.0]]))
    high = metrics.scaled_pinball(np.array([2.0]), [0.9], np.array([[3.0]]))
    assert low / high == pytest.approx(9.0)


def test_interval_coverage__counts_the_ends() -> None:
    """Counts are integers, so an outcome on the bound is inside."""
    assert metrics.interval_coverage(np.array([1, 2, 5]), np.array([1, 1, 1]), np.array([2, 2, 4])) == pytest.approx(
        2 / 3
    )


def test_top_n_captured_share__by_hand() -> None:
    """Group 0 keeps its best (5 of 5); group 1 picks 2 where 4 was there: (5 + 2) / (5 + 4)."""
    actual = np.array([5.0, 1.0, 4.0, 2.0])
    predicted = np.array([9.0, 1.0, 1.0, 3.0])
    group = np.array([0, 0, 1, 1])
    assert metrics.top_n_captured_share(actual, predicted, group, n=1) == pytest.approx(7 / 9)
    assert metrics.top_n_captured_share(actual, actual, group, n=1) == 1.0
    assert math.isnan(metrics.top_n_captured_share(np.zeros(0), np.zeros(0), np.zeros(0)))


def test_ranking_scores__by_hand() -> None:
    """Ranks 1, 4, absent, 30: reciprocal 1 + 1/4 over four; two of four within 20."""
    rank = np.array([1, 4, 0, 30])
    assert metrics.mrr(rank, k=20) == pytest.approx(1.25 / 4)
    assert metrics.recall_at_k(rank, k=20) == 0.5
    assert metrics.recall_at_k(rank, k=1) == 0.25


def test_integrated_brier__weights_bins_by_width() -> None:
    """Scores 0.25 for one hour and 0.04 for three: (0.25 + 3 x 0.04) / 4."""
    survival = np.array([[0.5, 0.2]])
    alive = np.array([[1.0, 0.0]])
    edges = np.array([1.0, 4.0])
    assert metrics.integrated_brier(survival, alive, edges) == pytest.approx((0.25 + 0.12) / 4)


def test_integrated_brier__leaves_out_what_censoring_hides() -> None:
    """A session still up at the cut says nothing about later edges."""
    survival = np.array([[0.5, 0.2], [0.9, 0.9]])
    alive = np.array([[1.0, 0.0], [1.0, 1.0]])
    known = np.array([[True, False], [True, False]])
    # Only the first edge is known: ((0.5 - 1)^2 + (0.9 - 1)^2) / 2.
    assert metrics.integrated_brier(survival, alive, np.array([1.0, 4.0]), known=known) == pytest.approx(0.13)


def test_metric__knows_its_direction() -> None:
    """The promotion gate asks the metric, so the metric must not be asked twice."""
    assert metrics.METRICS["wape"].is_better(0.4, 0.5)
    assert metrics.METRICS["mrr"].is_better(0.5, 0.4)
    # 0.82 is nearer to the nominal 0.80 than 0.90 is, although it is lower.
    assert metrics.METRICS["coverage_80"].is_better(0.82, 0.90)
    assert not metrics.METRICS["wape"].is_better(float("nan"), 0.5)
