"""Peers of the churn model: their parameters on data of known laws, and the contract that all of them keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.churn.availability_predictors import saturating_count, twiddled_history
from models.churn.baselines import MARKOV_PEERS, ForecastsChurn, bin_logits, fit_baselines, semi_markov_hour_of_week
from models.churn.history import SessionHistory
from models.churn.lifetable import Durations
from models.churn.outcomes import Outcomes
from models.churn.settings import ChurnSettings
from models.churn.training import fit_tables
from models.churn.week_hazards import PRIOR_ROWS, WeekHazards, fit_week_hazards, hour_of_week
from models.churn.weibull import WeibullHazard, fit_weibull
from models.events import DAY_US, HOUR_US, Float64
from tests.models.churn_fleet import fleet

SMALL = ChurnSettings(
    edges_hours=(0.5, 1.0, 2.0, 4.0), networks=1, epochs=2, hidden_size=8, boosting_iterations=5, origin_every_hours=7.0
)
TRAIN, VALIDATION = (2 * DAY_US, 7 * DAY_US), (7 * DAY_US, 9 * DAY_US)


def durations(entry: Float64, low: Float64, high: Float64, device_class: str = "home") -> Durations:
    """Ended sessions of one class."""
    n = len(low)
    return Durations(entry, low, high, np.ones(n, dtype=bool), np.ones(n), np.array([device_class] * n, dtype=object))


def exponential_fleet(nodes: int, *, seed: int) -> SessionHistory:
    """Homes stay for 8 h on average and phones for 2 h, all come back after 3 h, over 12 days."""
    rng = np.random.default_rng(seed)
    sessions, device_class = {}, {}
    for i in range(nodes):
        name, clock, spans = f"n{i}", float(rng.exponential(3.0)), []
        device_class[name] = "phone" if i % 2 else "home"
        while clock < 288.0:
            until = clock + float(rng.exponential(2.0 if i % 2 else 8.0))
            spans.append((clock, min(until, 288.0)))
            clock = until + float(rng.exponential(3.0))
        sessions[name] = spans
    return fleet(sessions, until=288.0, device_class=device_class)


@pytest.fixture(scope="module")
def history() -> SessionHistory:
    return exponential_fleet(60, seed=0)


@pytest.fixture(scope="module")
def methods(history: SessionHistory) -> list[ForecastsChurn]:
    return fit_baselines(history, train=TRAIN, validation=VALIDATION, settings=SMALL)


def test_weibull__exponential_times_have_shape_one() -> None:
    """Without memory the shape is 1 and the scale the mean, 5 h, whether ends are exact or known to two hours."""
    times = np.random.default_rng(0).exponential(5.0, 20_000)
    low = np.floor(times / 2.0) * 2.0
    for found in (durations(times * 0, times, times), durations(times * 0, low, low + 2.0)):
        shape, scale = fit_weibull(found).fleet
        assert shape == pytest.approx(1.0, abs=0.03)
        assert scale == pytest.approx(5.0, rel=0.03)


def test_weibull__delayed_entry_and_censoring_leave_the_law_as_it_is() -> None:
    """Shape ½, scale 1: sessions first watched at age 1 h and lost at age 9 h still tell both parameters."""
    times = np.random.default_rng(1).weibull(0.5, 60_000)
    times = times[times > 1.0]
    censored = times > 9.0
    seen = replace(durations(np.ones(len(times)), np.minimum(times, 9.0), np.minimum(times, 9.0)), ended=~censored)
    shape, scale = fit_weibull(seen).fleet
    assert shape == pytest.approx(0.5, abs=0.04)
    assert scale == pytest.approx(1.0, abs=0.2)


def test_weibull__survival_from_the_present_age() -> None:
    """Shape ½, scale 1: the hazard is √t, so from age 1 h the next 3 h add √4 − √1 = 1; an unknown class is the fleet."""
    law = WeibullHazard((0.5, 1.0), {"phone": (1.0, 2.0)})
    found = law.cumulative_hazard(
        age_hours=np.array([1.0, 1.0]),
        device_class=np.array(["other", "phone"], dtype=object),
        edges_hours=np.array([3.0]),
    )
    np.testing.assert_allclose(found, [[1.0], [1.5]])


def test_weibull__a_class_with_few_departures_has_the_fleets_law() -> None:
    """Twenty-nine departures are too few for two parameters of their own; thirty are enough."""
    rng = np.random.default_rng(2)
    parts = [durations(np.zeros(n), t, t, name) for n, name in ((29, "few"), (30, "enough"), (500, "many"))
             for t in [rng.exponential(3.0, n)]]  # fmt: skip
    joined = Durations(*(np.concatenate([getattr(p, f) for p in parts]) for f in Durations.__dataclass_fields__))
    assert set(fit_weibull(joined).by_class) == {"enough", "many"}


def test_weibull__nobody_left_is_a_finite_law() -> None:
    """Without any departure one is assumed over all the time watched: 10 sessions of 4 h, a mean of 40 h."""
    none = replace(durations(np.zeros(10), np.full(10, 4.0), np.full(10, 4.0)), ended=np.zeros(10, dtype=bool))
    assert fit_weibull(none).fleet == (1.0, 40.0)


def test_sat_count__rises_while_up_and_falls_while_down() -> None:
    """Limit 2 h. Up 5 h: at 2. Down 1 h: at 1, then up 0.5 h: 1.5. Scaled: 0.01 + 0.98 (1.5 / 2 + 1) / 2 = 0.8675."""
    history = fleet({"a": [(0.0, 5.0), (6.0, 10.0)], "b": [(9.0, 10.0)]}, until=10.0)
    score = saturating_count(2.0, bins=2)(history, round(6.5 * HOUR_US))
    np.testing.assert_allclose(score[0], [0.8675, 0.8675])
    # Never up in 6.5 h: at the lower limit, −2.
    np.testing.assert_allclose(score[1], [0.01, 0.01])


def test_twiddled_history__counts_what_followed_similar_moments() -> None:
    """Up from 0 to 12 o'clock each day, asked at 10 on the eleventh day with eight hourly states, one may differ.

    Similar moments are 6 to 12 o'clock (at 6 and at 12 one of the eight states is "down"): from 7 on the first day, 6 of
    them, seven on each of nine days, and 6, 7 and 8 o'clock today, whose next hour has passed: 6 + 63 + 3 = 72. An hour
    later the node was up after 6, …, 10 o'clock: 4 + 45 + 3 = 52. With one match worth ½ in advance: 52.5 / 73.
    """
    history = fleet({"a": [(24.0 * d, 24.0 * d + 12.0) for d in range(12)]}, until=1000.0)
    score = twiddled_history((1.0, 4.0), 0.5)(history, (10 * 24 + 10) * HOUR_US)
    assert score[0, 0] == pytest.approx(52.5 / 73.0)
    # Four hours later: up after 6 and 7 o'clock; of today nothing has passed (6 + 4 is now, and not before now).
    assert score[0, 1] == pytest.approx((1 + 9 * 2 + 0.5) / (6 + 63 + 1))


def test_week_hazards__recover_a_planted_hour() -> None:
    """At hours 0 to 5 every day half leave in the first bin, later one in ten: two hazards, each found."""
    rng = np.random.default_rng(3)
    weeks = [rows_of_hours(rng, rows=20_000) for _ in range(2)]
    week = fit_week_hazards(*weeks)
    early = np.arange(168) % 24 < 6
    assert expit(week.logits[early, 0]).mean() == pytest.approx(0.5, abs=0.02)
    assert expit(week.logits[~early, 0]).mean() == pytest.approx(0.1, abs=0.01)


def test_week_hazards__noise_gets_no_rhythm() -> None:
    """Where the hour says nothing the strongest prior wins, and every hour is as the whole week."""
    rng = np.random.default_rng(4)
    week = fit_week_hazards(*(rows_of_hours(rng, rows=2_000, early=0.1) for _ in range(2)))
    assert PRIOR_ROWS[-1] == 1e6
    assert np.ptp(week.logits[:, 0]) < 0.1


def test_hour_of_week__begins_on_monday() -> None:
    """1 January 1970 was a Thursday: 72 hours after Monday 00:00; the fifth is a Monday."""
    assert hour_of_week(np.array([0, 4 * DAY_US, 11 * DAY_US - 1])).tolist() == [72, 0, 167]


def rows_of_hours(rng: np.random.Generator, *, rows: int, early: float = 0.5) -> Outcomes:
    """One bin; in the first six hours of a day a share of `early` leaves, later 0.1."""
    hour = rng.integers(0, 168, rows)
    gone = rng.random(rows) < np.where(hour % 24 < 6, early, 0.1)
    at_us = 4 * DAY_US + hour * HOUR_US
    low, high = np.where(gone, 0, 1), np.where(gone, 1, 0)
    return Outcomes(at_us, np.arange(rows), low, high, np.full(rows, 9.0), np.array([1.0]))


def test_semi_markov__adds_log_odds(history: SessionHistory) -> None:
    """Where the hour doubles the odds of leaving in every bin, so does the sum; a flat week leaves the table alone."""
    table = fit_tables(history, train=TRAIN, settings=SMALL)
    base = np.array([-2.0, -1.5, -1.0, -0.5])
    at_us = 9 * DAY_US
    flat, doubled = (
        semi_markov_hour_of_week(table, WeekHazards(np.tile(base + more, (168, 1)), base))(history, at_us)
        for more in (0.0, np.log(2.0))
    )
    np.testing.assert_allclose(doubled - flat, np.log(2.0))
    up = history.up_at(at_us)
    forecast = table.forecast(history, at_us=at_us).survival[up]
    np.testing.assert_allclose(np.cumprod(expit(-flat[up]), axis=1), forecast, rtol=1e-6)


def test_bin_logits__by_hand() -> None:
    """A cumulative hazard of log 2 and then log 2 more: half leave in each bin, a logit of 0."""
    np.testing.assert_allclose(bin_logits(np.array([[np.log(2.0), np.log(4.0)]])), [[0.0, 0.0]], atol=1e-12)


@given(st.lists(st.floats(0.0, 400.0), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_bin_logits__are_finite_and_turn_back(steps: list[float]) -> None:
    """No hazard, however small or large, makes a logit that is not a number, and the survival is that of the hazard."""
    cumulative = np.cumsum([steps], axis=1)
    found = bin_logits(cumulative)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.cumprod(expit(-found), axis=1), np.exp(-cumulative), rtol=1e-6, atol=1e-9)


def test_peers__names_are_those_of_the_methods(methods: list[ForecastsChurn]) -> None:
    """The best Markov peer is looked up by name, so a renamed method would silently be left out."""
    names = [method.name for method in methods]
    assert set(MARKOV_PEERS) <= set(names)
    assert set(names) - set(MARKOV_PEERS) == {"sat_count", "twiddled_history", "boosting"}


def test_peers__only_the_past_enters(methods: list[ForecastsChurn], history: SessionHistory) -> None:
    """Every method says the same when what follows the origin is cut away, and the same of a part of the nodes."""
    at_us = 9 * DAY_US + 17 * HOUR_US // 10
    cut, some = history.before(at_us), history.nodes[[7, 2]]
    for method in methods:
        whole = method.forecast(history, at_us=at_us)
        np.testing.assert_array_equal(whole.survival, method.forecast(cut, at_us=at_us).survival, err_msg=method.name)
        part = method.forecast(history, at_us=at_us, nodes=some)
        np.testing.assert_allclose(part.survival, whole.survival[[7, 2]], atol=1e-6, err_msg=method.name)
        np.testing.assert_allclose(part.availability, whole.availability[[7, 2]], atol=1e-6, err_msg=method.name)


def test_peers__know_the_two_classes(methods: list[ForecastsChurn], history: SessionHistory) -> None:
    """S(2 h) is e^(−1/4) = 0.78 at home and e^(−1) = 0.37 for phones: whoever reads the class or the past tells."""
    at_us = 9 * DAY_US
    home = history.device_class == "home"
    for method in methods:
        if method.name in ("on_off_chain", "life_table", "semi_markov_hour_of_week", "weibull"):
            forecast = method.forecast(history, at_us=at_us)
            assert forecast.survival[forecast.up & home, 2].mean() == pytest.approx(np.exp(-0.25), abs=0.1)
            assert forecast.survival[forecast.up & ~home, 2].mean() == pytest.approx(np.exp(-1.0), abs=0.12)


def test_peers__calibration_moves_the_constant_hazard_to_the_classes(
    methods: list[ForecastsChurn], history: SessionHistory
) -> None:
    """A single rate for all is set right class by class on validation, as our own model is."""
    constant = next(method for method in methods if method.name == "constant_hazard")
    forecast = constant.forecast(history, at_us=9 * DAY_US)
    home = history.device_class == "home"
    at_home, phone = (forecast.survival[forecast.up & rows, 2].mean() for rows in (home, ~home))
    assert logit(at_home) - logit(phone) > 0.5
