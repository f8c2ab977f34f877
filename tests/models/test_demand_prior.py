"""The prior recovers known rates, its law known dispersions, the remainder known shares."""

from __future__ import annotations

import numpy as np
import pytest

from models.counters import CounterStore
from models.demand.cells import observe
from models.demand.law import CountLaw, fit_bias, fit_law
from models.demand.prior import ALL_PARTS, OWN, DemandPrior, fit_nonnegative, prior_column_names, prior_columns
from models.demand.remainder import Remainder
from models.demand.training import collect_windows, fit_prior
from tests.models.demand_world import RATES_PER_HOUR, SMALL, constant_log, hours

HALF_LIVES = (0.5, 1.5, 6.0, 24.0)


def test_fit_nonnegative__recovers_the_mixture() -> None:
    """Counts drawn from 0.7 x the first term and none of the second give those coefficients back."""
    rng = np.random.default_rng(0)
    columns = rng.gamma(1.0, 3.0, size=(20_000, 2))
    counts = rng.poisson(0.7 * columns[:, 0]).astype(np.float64)
    # Standard error: sqrt(1 / sum(x^2 / mu)) = sqrt(0.7 / (20,000 x 3)) = 0.0034.
    coefficients = fit_nonnegative(columns, counts, np.ones(20_000))
    assert coefficients[0] == pytest.approx(0.7, abs=0.015)
    assert coefficients[1] == pytest.approx(0.0, abs=0.01)


def test_fit_nonnegative__survives_copies_and_zeros() -> None:
    """Two equal terms and one that is never on must not break the solve: only their sum is determined."""
    x = np.linspace(1.0, 5.0, 200)
    columns = np.column_stack([x, x, np.zeros(200)])
    coefficients = fit_nonnegative(columns, 2.0 * x, np.ones(200))
    assert coefficients[:2].sum() == pytest.approx(2.0, rel=1e-6)
    assert (coefficients >= 0.0).all()


def test_prior__recovers_known_poisson_rates() -> None:
    """With constant demand, four days of counting must tell each cell's rate to about its counting error."""
    log = constant_log(n_hours=96, seed=3)
    fitted, _ = collect_windows(
        log, train=(hours(0), hours(72)), validation=(hours(72), hours(96)), settings=SMALL, seed=0
    )
    prior, _ = fit_prior(fitted, SMALL)
    store = CounterStore()
    store.update(log)
    state = observe(store, at_us=hours(96), settings=SMALL)
    names = [int(str(name)[1:]) for name in store.contents[state.content]]
    spots = [int(str(name)[1:]) for name in store.locations[state.location]]
    truth = RATES_PER_HOUR[names, spots]
    for horizon in SMALL.horizons_hours:
        mean = prior.mean(state, horizon)
        # 36 cells, 43 requests an hour in all. A half-life of 24 h averages 35 h, in which a rate of 1.2 an hour has
        # a relative error of 15 %; the total, with 1,500 requests, of 3 %.
        assert mean.sum() == pytest.approx(horizon * truth.sum(), rel=0.15)
        assert np.abs(mean - horizon * truth).sum() < 0.25 * horizon * truth.sum()


def test_prior__parts_switch_terms_off() -> None:
    """The linear Hawkes baseline is the prior with only the cell's own rates."""
    rng = np.random.default_rng(1)
    names = prior_column_names(HALF_LIVES)
    columns = rng.gamma(1.0, 1.0, size=(1, 500, len(names)))
    prior = DemandPrior.fit(
        columns,
        rng.poisson(columns.sum(axis=2)).astype(np.float64),
        np.ones(500),
        horizons_hours=(1,),
        half_lives_hours=HALF_LIVES,
        parts=(OWN,),
    )
    assert (prior.coefficients[0, 4:] == 0.0).all()
    assert prior.coefficients[0, :4].sum() > 0.0
    with pytest.raises(ValueError, match="Expected some of"):
        DemandPrior.fit(
            columns, columns[..., 0], np.ones(500), horizons_hours=(1,), half_lives_hours=HALF_LIVES, parts=("x",)
        )


def test_prior__refuses_counters_of_other_half_lives() -> None:
    """Rates at other half-lives would silently take the wrong coefficients."""
    store = CounterStore()
    store.update(constant_log(n_hours=2, seed=0))
    state = observe(store, at_us=hours(2), settings=SMALL)
    prior = DemandPrior((1, 6), (1.0, 2.0), np.zeros((2, len(prior_column_names((1.0, 2.0))))))
    with pytest.raises(ValueError, match="build the counters with the model's half-lives"):
        prior.mean(state, 1)


def test_prior_columns__one_for_each_name() -> None:
    """Coefficients are stored by position, so positions and names must agree."""
    store = CounterStore()
    store.update(constant_log(n_hours=26, seed=0))
    state = observe(store, at_us=hours(26), settings=SMALL)
    columns = prior_columns(state, 6)
    assert columns.shape == (len(state), len(prior_column_names(HALF_LIVES)))
    assert (columns >= 0.0).all()
    assert {name.split(":")[0] for name in prior_column_names(HALF_LIVES)} == set(ALL_PARTS)


@pytest.mark.parametrize("coefficients", [np.full((1, 11), -1.0), np.full((1, 11), np.nan), np.zeros((2, 11))])
def test_prior__coefficients_are_valid_or_refused(coefficients: np.ndarray) -> None:
    """A damaged file must not become a forecast."""
    with pytest.raises(ValueError, match="coefficients"):
        DemandPrior((1,), HALF_LIVES, coefficients)


def test_fit_bias__is_shrunk_by_one_day() -> None:
    """Demand twice the forecast: after one day the factor is sqrt 2, after many days 2."""
    counts, mean, weights = np.array([2.0, 2.0]), np.array([1.0, 1.0]), np.ones(2)
    assert fit_bias(counts, mean, weights, days=1.0) == pytest.approx(2**0.5)
    assert fit_bias(counts, mean, weights, days=1e6) == pytest.approx(2.0, rel=1e-4)
    assert fit_bias(np.zeros(2), mean, weights, days=1.0) == 1.0


def test_fit_law__recovers_the_dispersion() -> None:
    """Counts with alpha = 0.5 at every mean: exp(log alpha + slope log mu) must be near 0.5 where the data are."""
    rng = np.random.default_rng(2)
    mean = rng.uniform(1.0, 10.0, 20_000)
    counts = rng.negative_binomial(2.0, 2.0 / (2.0 + mean)).astype(np.float64)
    law = fit_law(counts, mean, np.ones(20_000), days=1e6)
    assert law.bias == pytest.approx(1.0, abs=0.02)
    assert law.dispersion(np.array([2.0, 5.0])) == pytest.approx([0.5, 0.5], rel=0.1)


def test_law__round_trip_and_floor() -> None:
    """A zero forecast keeps a small mean, so that one request does not cost an infinite loss."""
    law = CountLaw(1.5, -0.5, -0.3)
    assert CountLaw.from_state(law.to_state()) == law
    assert law.mean(np.array([0.0, 2.0])).tolist() == [1e-3, 3.0]
    assert fit_law(np.zeros(0), np.zeros(0), np.zeros(0), days=1.0) == CountLaw()


def test_remainder__shrinks_to_the_whole() -> None:
    """1,000 of 10,000 requests outside at one place, none of 0 at the other: the latter takes the overall tenth."""
    remainder = Remainder.fit(
        np.array([[1000.0, 0.0]]),
        np.array([[10_000.0, 0.0]]),
        horizons_hours=(1,),
        locations=np.array(["a", "b"], dtype=object),
    )
    assert remainder.share["a"][0] == pytest.approx(0.1)
    assert remainder.share["b"][0] == pytest.approx(0.1)
    assert Remainder.from_state(remainder.to_state()) == remainder
