"""Sums of scores, strata and comparisons, worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models import metrics
from models.counters import CounterStore
from models.demand.comparison import difference_rows
from models.demand.evaluation import OriginScore, metric_rows, pooled, quantile_reliability
from models.demand.scores import PIT_EDGES, TERMS, Scored, ScoreSums
from models.demand.strata import cell_strata, hours_stratum
from models.events import RequestLog
from models.forecast import negative_binomial_quantiles
from tests.models.demand_world import hours


def test_cumulative__geometric_law() -> None:
    """Mean 1 and alpha 1 is geometric: F(k) = 1 - 2^-(k+1); without dispersion it is Poisson."""
    reached = metrics.negative_binomial_cumulative(np.array([0.0, 1.0, 4.0]), np.ones(3), np.ones(3))
    assert reached == pytest.approx([0.5, 0.75, 1 - 2**-5])
    poisson = metrics.negative_binomial_cumulative(np.array([2.0]), np.array([3.0]), np.array([0.0]))
    assert poisson == pytest.approx(stats.poisson.cdf(2, 3.0))


def test_randomised_coverage__by_hand() -> None:
    """Under that law 0 stands for [0, 1/2], 1 for [1/2, 3/4] and 3 for [7/8, 15/16]."""

    def coverage(y: int) -> float:
        below, upto = (np.array([1 - 2.0 ** -(y + shift)]) for shift in (0, 1))
        return metrics.randomised_coverage(below, upto)

    assert coverage(0) == pytest.approx(0.4 / 0.5)
    assert coverage(1) == 1.0
    assert coverage(3) == pytest.approx((0.9 - 0.875) / 0.0625)
    # An outcome that the law excludes is a point beyond the interval.
    assert metrics.randomised_coverage(np.ones(1), np.ones(1)) == 0.0


@given(mean=st.floats(0.01, 20.0), dispersion=st.floats(0.01, 5.0))
def test_pit_masses__flat_under_the_true_law(mean: float, dispersion: float) -> None:
    """Sum over y of P(y) times the mass of a bin is the width of the bin: what makes the coverage of counts fair."""
    shape = 1.0 / dispersion
    law = stats.nbinom(shape, shape / (shape + mean))
    y = np.arange(int(law.ppf(1.0 - 1e-9)) + 2)
    masses = metrics.pit_masses(law.cdf(y - 1), law.cdf(y), PIT_EDGES)
    assert masses @ law.pmf(y) == pytest.approx(np.diff(PIT_EDGES), abs=1e-6)


def test_top_n_sum__ties_share_their_places() -> None:
    """Three equal scores compete for one place: a third of 6 + 3 + 0; with two places, two thirds."""
    actual, score, group = np.array([6.0, 3.0, 0.0]), np.zeros(3), np.zeros(3, dtype=np.int64)
    assert metrics.top_n_sum(actual, score, group, n=1) == pytest.approx(3.0)
    assert metrics.top_n_sum(actual, score, group, n=2) == pytest.approx(6.0)
    assert metrics.top_n_sum(actual, score, group, n=9) == pytest.approx(9.0)
    # One row stands above: it has its place, the two below share what is left.
    assert metrics.top_n_sum(actual, np.array([0.0, 0.0, 1.0]), group, n=2) == pytest.approx(0.0 + 4.5)


@given(seed=st.integers(0, 1000))
def test_top_n_sum__does_not_depend_on_the_order(seed: int) -> None:
    """A list is what the scores say, not how the rows happen to be coded."""
    rng = np.random.default_rng(seed)
    actual, score, group = rng.poisson(2.0, 40).astype(float), rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    order = rng.permutation(40)
    there = metrics.top_n_sum(actual, score.astype(float), group, n=5)
    assert metrics.top_n_sum(actual[order], score[order].astype(float), group[order], n=5) == pytest.approx(there)


def test_top_n_sums__within_sets() -> None:
    """A set has lists of its own: without the best row the second takes its place."""
    actual, score = np.array([5.0, 4.0, 1.0]), np.array([3.0, 2.0, 1.0])
    members = np.array([[True, True, True], [False, True, True]])
    found = metrics.top_n_sums(actual, score, np.zeros(3, dtype=np.int64), members=members, lengths=(1, 2))
    assert found.tolist() == [[5.0, 9.0], [4.0, 5.0]]


def test_sums__of_cells_that_hardly_ever_happen() -> None:
    """Where no request is likelier than every quantile, the shortcut must say what the quantiles would have said."""
    mean, dispersion = np.array([0.001, 0.02, 0.04]), np.array([1.0, 0.1, 3.0])
    actual = np.array([0.0, 2.0, 0.0])
    assert not negative_binomial_quantiles((0.95,), mean, dispersion).any()
    sums = Scored.of(actual, np.zeros(3, dtype=np.int32), {"all": np.ones(3, dtype=bool)}).sums(mean, dispersion)["all"]
    # Quantiles of 0: the loss at p is 2 p for the middle cell, on average 1, doubled; the median misses by 2.
    assert sums["pinball"] == pytest.approx(2.0)
    assert sums["absolute_error_median"] == 2.0
    assert sums["covered"] == 2.0
    assert sums["nll"] == pytest.approx(metrics.negative_binomial_losses(actual, mean, dispersion).sum())
    assert sums.pit.sum() == pytest.approx(3.0)


def test_sums__largest_over_prior() -> None:
    """The ratio of a mean to its prior, 3 / 0.5, is the largest of all origins; it is not a sum."""
    scored = Scored.of(np.zeros(2), np.zeros(2, dtype=np.int32), {"all": np.ones(2, dtype=bool)})
    first = scored.sums(np.array([1.0, 3.0]), np.ones(2), prior=np.array([1.0, 0.5]))["all"]
    second = scored.sums(np.array([1.0, 3.0]), np.ones(2), prior=np.array([0.5, 3.0]))["all"]
    assert (first + second).metrics()["largest_over_prior"] == 6.0
    without = scored.sums(np.ones(2), np.ones(2))["all"]
    assert math.isnan(without.metrics()["largest_over_prior"])
    assert (without + second).metrics()["largest_over_prior"] == 2.0


def test_strata__by_hand() -> None:
    """What is busy, young or new follows from the counters at the origin."""
    log = RequestLog.from_columns(
        np.array([hours(h) for h in (0, *[47.5] * 12, 48.5, 49.0)], dtype=np.int64),
        [f"s{k}" for k in range(15)],
        ["old", *["young"] * 12, "new", "new"],
        ["p", *["p"] * 12, "p", "p"],
    )
    store = CounterStore()
    store.update(log)
    cells = (np.array([0, 1, 2], dtype=np.int32), np.zeros(3, dtype=np.int32))
    strata = cell_strata(store, cells, at_us=hours(51), horizon_hours=1, by_location=True)
    assert strata["new content"].tolist() == [False, False, True]
    assert strata["young content"].tolist() == [False, True, False]
    assert strata["old content"].tolist() == [True, False, False]
    # 12 requests 3.5 h ago are a rate of 12 2^(-3.5/6) ln 2 / 6 = 0.93 per hour: busy over six hours, not over one.
    assert strata["busy"].tolist() == [False, False, False]
    assert cell_strata(store, cells, at_us=hours(51), horizon_hours=6)["busy"].tolist() == [False, True, True]
    assert strata["at p"].all()
    assert not strata["new cell"].any()
    assert hours_stratum(hours(51)) == "origin 00-06 h"


def scores_of(model: str, errors: list[float], *, every_hours: int = 1, horizon_hours: int = 1) -> list[OriginScore]:
    """One cell with a demand of 2 at each origin, and these absolute errors."""
    found = []
    for step, error in enumerate(errors):
        values = np.zeros(len(TERMS))
        for name, value in {"n": 1.0, "demand": 2.0, "absolute_error": error, "squared_error": error**2}.items():
            values[TERMS.index(name)] = value
        found.append(OriginScore(hours(step * every_hours), horizon_hours, model, "all", ScoreSums(values)))
    return found


def test_difference_rows__gain_and_ratio_by_hand() -> None:
    """Errors 1 and 2 against 2 and 4 on a demand of 4: 0.75 against 1.5; roots of 2.5 against 10."""
    scores = [*scores_of("a", [1.0, 2.0]), *scores_of("b", [2.0, 4.0])]
    rows = {row["metric"]: row for row in difference_rows(scores, reference="b", metrics=("wape", "rmse"))}
    assert rows["wape"]["gain"] == pytest.approx(0.75)
    assert rows["rmse"]["gain"] == pytest.approx(math.sqrt(10.0) - math.sqrt(2.5))
    for row in rows.values():
        # Every error is half the other's, whatever origins are drawn.
        assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx((0.5, 0.5, 0.5))
    # Both origins drawn twice the first, or twice the second: the gain is between 2/2 - 1/2 and 4/2 - 2/2.
    assert (rows["wape"]["low"], rows["wape"]["high"]) == pytest.approx((0.5, 1.0))


def test_difference_rows__blocks_are_as_long_as_the_horizon() -> None:
    """Twelve hourly origins of a 6 h window overlap: they are two surprises, not twelve."""
    errors = [1.0] * 6 + [3.0] * 6
    scores = [*scores_of("a", errors, horizon_hours=6), *scores_of("b", [2.0] * 12, horizon_hours=6)]
    (row,) = difference_rows(scores, reference="b", metrics=("wape",))
    assert (row["origins"], row["blocks"]) == (12, 2)
    # Either block may be drawn twice: the interval reaches from one to the other.
    assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == pytest.approx((0.5, 1.0, 1.5))


def test_difference_rows__undefined_metrics_have_no_row() -> None:
    """Lists were not scored here, so no row may pretend that they were equal."""
    scores = [*scores_of("a", [1.0, 2.0]), *scores_of("b", [2.0, 4.0])]
    assert difference_rows(scores, reference="b", metrics=("top20_captured",)) == []


def test_metric_rows__the_whole_window_first_then_its_parts() -> None:
    """Reviews take the first row's window for the whole."""
    scores = scores_of("a", [1.0] * 24 + [2.0] * 24)
    rows = metric_rows(scores, start_us=hours(0), end_us=hours(48), part_hours=24.0)
    assert [(row["n"], row["wape"]) for row in rows] == [(48, 0.75), (24, 0.5), (24, 1.0)]
    assert rows[0]["window"] == "2024-10-04T00:00Z/2024-10-06T00:00Z"
    assert rows[2]["window"] == "2024-10-05T00:00Z/2024-10-06T00:00Z"
    assert len(metric_rows(scores, start_us=hours(0), end_us=hours(48))) == 1


def test_quantile_reliability__the_cumulative_transform() -> None:
    """A geometric 0 stands for a uniform draw from [0, 1/2]: all of it lies below 1/2, half of it below 1/4."""
    scored = Scored.of(np.zeros(1), np.zeros(1, dtype=np.int32), {"all": np.ones(1, dtype=bool)})
    score = OriginScore(hours(0), 1, "a", "all", scored.sums(np.ones(1), np.ones(1))["all"])
    level, share = quantile_reliability([score], model="a", horizon_hours=1)
    assert dict(zip(level.round(2), share, strict=True))[0.25] == pytest.approx(0.5)
    assert dict(zip(level.round(2), share, strict=True))[0.5] == pytest.approx(1.0)
    assert all(before <= after for before, after in pairwise(share))


def test_pooled__adds_origins_up() -> None:
    """Two origins of one method are one row; its lists add up like its errors."""
    values = np.arange(len(TERMS), dtype=np.float64)
    score = OriginScore(hours(0), 1, "a", "all", ScoreSums(values))
    both = pooled([score, OriginScore(hours(1), 1, "a", "all", ScoreSums(values))])[1, "a", "all"]
    assert both["captured_20"] == 2 * values[TERMS.index("captured_20")]
