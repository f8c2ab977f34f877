"""A forecast that exists is a valid one: these tests try to build the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.events import HOUR_US
from models.forecast import POISSON_DISPERSION, ChurnForecast, DemandForecast, negative_binomial_quantiles


def demand_forecast(**changes: Any) -> DemandForecast:
    """Three cells of two contents at two locations; content "b" is unknown at "paris"."""
    fields: dict[str, Any] = {
        "origin_us": 10 * HOUR_US,
        "horizon_hours": 6.0,
        "content": np.array([0, 0, 1], dtype=np.int32),
        "location": np.array([0, 1, 1], dtype=np.int32),
        "mean": np.array([4.0, 1.0, 0.0]),
        "dispersion": np.array([0.5, 0.0, 0.5]),
        "other_mean": np.array([0.25, 0.5]),
        "contents": np.array(["a", "b"], dtype=object),
        "locations": np.array(["paris", "rome"], dtype=object),
    }
    return DemandForecast(**(fields | changes))


def churn_forecast(**changes: Any) -> ChurnForecast:
    """Node "p" is up and halves every hour; node "q" is down."""
    fields: dict[str, Any] = {
        "origin_us": 0,
        "edges_hours": np.array([1.0, 2.0]),
        "nodes": np.array(["p", "q"], dtype=object),
        "up": np.array([True, False]),
        "survival": np.array([[0.5, 0.25], [0.0, 0.0]]),
        "availability": np.array([[0.6, 0.5], [0.1, 0.2]]),
        "returned": np.array([[1.0, 1.0], [0.1, 0.3]]),
    }
    return ChurnForecast(**(fields | changes))


def test_totals__add_up() -> None:
    """Placement reads cells, capacity planning reads totals: both must be the same demand."""
    forecast = demand_forecast()
    # paris: 4 + 0.25; rome: 1 + 0 + 0.5.
    assert forecast.total_by_location().tolist() == [4.25, 1.5]
    assert forecast.total_by_content().tolist() == [5.0, 0.0]
    assert forecast.total_by_location().sum() == forecast.mean.sum() + forecast.other_mean.sum()


def test_quantiles__known_laws() -> None:
    """Mean 1, alpha 1 is geometric with P(0) = 1/2, P(<=1) = 3/4, P(<=2) = 7/8, P(<=3) = 15/16."""
    one = np.array([1.0, 1.0, 0.0])
    dispersion = np.array([1.0, 0.0, 1.0])
    # Poisson(1): P(<=1) = 0.736, P(<=2) = 0.920. A mean of 0 is certain to be 0.
    counts = negative_binomial_quantiles([0.9, 0.5, 0.75], one, dispersion)
    assert counts.tolist() == [[3.0, 2.0, 0.0], [0.0, 1.0, 0.0], [1.0, 2.0, 0.0]]


@given(
    mean=st.floats(1e-3, 500.0),
    dispersion=st.floats(1e-3, 20.0) | st.just(0.0),
    probability=st.floats(0.01, 0.98),
)
def test_quantiles__agree_with_scipy(mean: float, dispersion: float, probability: float) -> None:
    """The quick sum must be the textbook inverse; only where P(<= k) equals p to rounding may they differ by one."""
    count, high = negative_binomial_quantiles([probability, 0.99], np.array([mean]), np.array([dispersion]))[:, 0]
    shape = 1 / dispersion if dispersion else 0.0
    law = stats.nbinom(shape, shape / (shape + mean)) if dispersion else stats.poisson(mean)
    assert 0.0 <= count <= high < np.inf
    assert law.cdf(count) >= probability - 1e-9
    assert count == 0 or law.cdf(count - 1) <= probability + 1e-9


@pytest.mark.parametrize(("least", "most"), [(1e-5, 1.0), (1.0, 600.0), (400.0, 1e5), (1e5, 1e6)])
def test_quantiles__are_scipys(least: float, most: float) -> None:
    """Skipped, summed and walked rows must all be the textbook's inverse, count for count, for any dispersion."""
    rng = np.random.default_rng(0)
    mean = np.exp(rng.uniform(np.log(least), np.log(most), 300))
    dispersion = np.exp(rng.uniform(np.log(1e-6), np.log(50.0), 300)) * (rng.random(300) < 0.8)
    probabilities = (0.975, 0.001, 0.5, 0.1, 0.9)  # in no order
    counts = negative_binomial_quantiles(probabilities, mean, dispersion)
    poisson = dispersion < POISSON_DISPERSION
    shape = 1 / np.where(poisson, 1.0, dispersion)
    for row, probability in zip(counts, probabilities, strict=True):
        broad = stats.nbinom.ppf(probability, shape, shape / (shape + mean))
        assert np.array_equal(row, np.where(poisson, stats.poisson.ppf(probability, mean), broad))


def test_quantiles__of_nothing() -> None:
    """No cell, or no probability, is no error."""
    assert negative_binomial_quantiles([0.5, 0.1], np.zeros(0), np.zeros(0)).shape == (2, 0)
    assert negative_binomial_quantiles([], np.ones(3), np.ones(3)).shape == (0, 3)


def test_quantile__refuses_percent() -> None:
    """Ninety is not a probability; saying so beats returning NaN."""
    with pytest.raises(ValueError, match=r"quantile in \(0, 1\), got 90"):
        demand_forecast().quantile(90)


def test_to_arrow__one_row_a_cell_with_its_window() -> None:
    """The table is what leaves the process, so it names ids, not codes, and the window it covers."""
    table = demand_forecast().to_arrow()
    assert table.column_names == ["content", "location", "start", "end", "mean", "p10", "p50", "p90", "dispersion"]
    assert table["content"].to_pylist() == ["a", "a", "b"]
    assert table["location"].to_pylist() == ["paris", "rome", "rome"]
    assert {str(t) for t in table["start"].to_pylist()} == {"1970-01-01 10:00:00+00:00"}
    assert {str(t) for t in table["end"].to_pylist()} == {"1970-01-01 16:00:00+00:00"}


def test_to_arrow__rest_of_each_location_has_no_content() -> None:
    """With the remainder included, the table's sum is the whole demand."""
    table = demand_forecast().to_arrow(with_other=True)
    assert table["content"].to_pylist()[3:] == [None, None]
    assert table["mean"].to_numpy().sum() == pytest.approx(5.75)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.array([1.0, np.nan, 1.0])}, "mean holds .*nan"),
        ({"mean": np.array([1.0, -0.1, 1.0])}, "mean holds .*-0.1"),
        ({"dispersion": np.array([1.0, np.inf, 1.0])}, "dispersion holds .*inf"),
        ({"mean": np.array([1.0])}, r"mean has shape \(1,\), expected \(3,\)"),
        ({"other_mean": np.zeros(3)}, r"other_mean has shape \(3,\), expected \(2,\)"),
        ({"content": np.array([0, 1, 0], dtype=np.int32)}, "sorted"),
        ({"location": np.array([0, 0, 1], dtype=np.int32)}, "each occur once"),
        ({"content": np.array([0, 0, 2], dtype=np.int32)}, r"outside \[0, 2\)"),
        ({"horizon_hours": 0.0}, "horizon_hours > 0, got 0.0"),
    ],
)
def test_demand_forecast__cannot_be_half_right(changes: dict[str, Any], message: str) -> None:
    """Each field is checked where the forecast is made, not where it is used."""
    with pytest.raises(ValueError, match=message):
        demand_forecast(**changes)


def test_demand_forecast__names_every_mistake_at_once() -> None:
    """Two wrong fields should cost one attempt, not two."""
    with pytest.raises(ValueError, match=r"mean holds .* dispersion holds"):
        demand_forecast(mean=np.array([1.0, -1.0, 1.0]), dispersion=np.array([-1.0, 0.0, 0.0]))


def test_demand_forecast__may_be_empty() -> None:
    """Before the first request there is nothing to forecast, which is not an error."""
    nothing = np.zeros(0, dtype=np.int32)
    forecast = demand_forecast(content=nothing, location=nothing, mean=np.zeros(0), dispersion=np.zeros(0))
    assert len(forecast) == 0
    assert forecast.total_by_location().tolist() == [0.25, 0.5]
    assert forecast.to_arrow().num_rows == 0


def test_survival_at__between_edges() -> None:
    """With a constant hazard, a node that halves every hour keeps sqrt(1/2) after 30 minutes."""
    forecast = churn_forecast()
    assert forecast.survival_at(0.0).tolist() == [1.0, 0.0]
    assert forecast.survival_at(0.5) == pytest.approx([0.5**0.5, 0.0])
    assert forecast.survival_at(1.5) == pytest.approx([0.5**1.5, 0.0])
    assert forecast.survival_at(2.0) == pytest.approx([0.25, 0.0])
    with pytest.raises(ValueError, match=r"hours in \[0, 2.0\], got 3.0"):
        forecast.survival_at(3.0)


def test_churn_to_arrow__one_row_a_node_and_edge() -> None:
    """Plans join this table by node and lead time."""
    table = churn_forecast().to_arrow()
    assert table["node"].to_pylist() == ["p", "p", "q", "q"]
    assert table["horizon_hours"].to_pylist() == [1.0, 2.0, 1.0, 2.0]
    assert table["survival"].to_pylist() == [0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"survival": np.array([[0.5, 0.6], [0.0, 0.0]])}, "must not rise"),
        ({"survival": np.array([[0.5, 0.25], [0.1, 0.0]])}, "down must be 0"),
        ({"survival": np.array([[1.5, 0.25], [0.0, 0.0]])}, r"survival must lie in \[0, 1\]"),
        ({"survival": np.array([[np.nan, 0.25], [0.0, 0.0]])}, r"survival must lie in \[0, 1\]"),
        ({"availability": np.zeros((2, 2))}, "not be below survival"),
        ({"edges_hours": np.array([2.0, 1.0])}, "increasing edges_hours"),
        ({"nodes": np.array(["p", "p"], dtype=object)}, "occur once"),
        ({"up": np.array([True])}, "up has shape"),
    ],
)
def test_churn_forecast__cannot_be_half_right(changes: dict[str, Any], message: str) -> None:
    """Survival curves that rise or leave [0, 1] would make replicas look safer than they are."""
    with pytest.raises(ValueError, match=message):
        churn_forecast(**changes)


def test_quantiles__of_a_mean_beyond_all_counts() -> None:
    """A model that diverged must cost its score and not the evaluation: a finite answer without a warning."""
    found = negative_binomial_quantiles((0.1, 0.9), np.array([1e18]), np.array([0.5]))
    assert np.isfinite(found).all()
    assert 1e16 < found[0, 0] < 1e18 < found[1, 0] < 1e19
