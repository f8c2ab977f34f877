"""Churn models on synthetic sessions whose hazards are known, and the contract of every forecaster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.churn.boosting import base_hazards, person_bins
from models.churn.features import feature_names, node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.lifetable import Durations, fit_life_table
from models.churn.markov import chain_availability, fit_population
from models.churn.outcomes import Outcomes
from models.churn.settings import ChurnSettings
from models.churn.training import fit_churn, fit_tables
from models.errors import ArtefactError
from models.events import DAY_US, HOUR_US, Float64

INSTANT = pa.timestamp("us", tz="UTC")
SMALL = ChurnSettings(
    edges_hours=(0.5, 1.0, 2.0, 4.0),
    networks=1,
    epochs=2,
    hidden_size=8,
    boosting_iterations=5,
    origin_every_hours=7.0,
)
DAYS = 12
TRAIN = (2 * DAY_US, 7 * DAY_US)
VALIDATION = (7 * DAY_US, 9 * DAY_US)


def renewal_history(nodes: int, *, shape: float, mean_up: Float64, mean_down: float, seed: int) -> SessionHistory:
    """Alternating Weibull times up (mean `mean_up[i]` hours) and exponential times down, cut after `DAYS` days."""
    from scipy.special import gamma

    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {"node": [], "start": [], "end": [], "censored": []}
    end_of_log = DAYS * 24.0
    for i in range(nodes):
        clock = rng.exponential(mean_down)
        while clock < end_of_log:
            until = clock + mean_up[i] / gamma(1 + 1 / shape) * rng.weibull(shape)
            rows["node"].append(f"n{i}")
            rows["start"].append(round(clock * HOUR_US))
            rows["end"].append(round(min(until, end_of_log) * HOUR_US))
            rows["censored"].append(until >= end_of_log)
            clock = until + rng.exponential(mean_down)
    table = pa.table({k: pa.array(v, INSTANT) if k in ("start", "end") else v for k, v in rows.items()})
    listed = pa.table(
        {
            "source": [f"n{i}" for i in range(nodes)],
            "device_class": ["phone" if i % 2 else "home" for i in range(nodes)],
            "network": [f"as{i % 7}" for i in range(nodes)],
            "available_at": pa.array([0] * nodes, INSTANT),
        }
    )
    return SessionHistory.from_arrow(table, listed)


@pytest.fixture(scope="module")
def history() -> SessionHistory:
    """Sixty nodes, half leaving after 2 h on average and half after 8 h, back after 3 h."""
    return renewal_history(60, shape=1.0, mean_up=np.where(np.arange(60) % 2, 2.0, 8.0), mean_down=3.0, seed=0)


@pytest.fixture(scope="module")
def fitted(history: SessionHistory) -> ChurnForecaster:
    model, _ = fit_churn(history, train=TRAIN, validation=VALIDATION, settings=SMALL, seed=1)
    return model


def durations(low: list[float], high: list[float], ended: list[bool], entry: list[float] | None = None) -> Durations:
    n = len(low)
    return Durations(
        np.array(entry or [0.0] * n),
        np.array(low),
        np.array(high),
        np.array(ended),
        np.ones(n),
        np.array(["home"] * n, dtype=object),
    )


def test_life_table__hazard_is_events_over_hours_at_risk() -> None:
    """Ages 0-1 and 1+: 4 nodes, one leaves at 0.5 h, one is lost at 0.5 h, two stay to 3 h, of which one leaves."""
    table = fit_life_table(
        durations([0.5, 0.5, 3.0, 3.0], [0.5, 0.5, 3.0, 3.0], [True, False, True, False]),
        prior_rate=0.1,
        settings=ChurnSettings(age_edges_hours=(1.0,), rate_buckets=1, pseudo_departures=1e-9),
    )
    # At risk below 1 h: 0.5 + 0.5 + 1 + 1 = 3 h, one departure; above: 2 + 2 = 4 h, one departure.
    np.testing.assert_allclose(table.hazard[0, 0], [1 / 3, 1 / 4], rtol=1e-5)
    # From age 0.5 over 1 h: 0.5 h at 1/3 and 0.5 h at 1/4.
    ahead = table.cumulative_hazard(
        age_hours=np.array([0.5]),
        rate=np.ones(1),
        device_class=np.array(["other"], dtype=object),
        edges_hours=np.ones(1),
    )
    np.testing.assert_allclose(ahead, [[0.5 / 3 + 0.5 / 4]], rtol=1e-5)


def test_life_table__delayed_entry_counts_no_time_before_it() -> None:
    """A session already 2 h old when the window begins was not at risk before, or every old node would look safe."""
    table = fit_life_table(
        durations([4.0, 4.0], [4.0, 4.0], [True, False], entry=[2.0, 2.0]),
        prior_rate=0.25,
        settings=ChurnSettings(age_edges_hours=(100.0,), rate_buckets=1, pseudo_departures=1e-9),
    )
    assert table.hazard[0, 0, 0] == pytest.approx(1 / 4, rel=1e-5)  # one departure in 2 + 2 hours


def test_life_table__interval_ends_recover_the_exponential_rate() -> None:
    """Departures known only to the nearest two hours must give the rate of exact ones: 0.2 per hour."""
    times = np.random.default_rng(0).exponential(5.0, 20_000)
    low = np.floor(times / 2.0) * 2.0
    table = fit_life_table(
        durations(low.tolist(), (low + 2.0).tolist(), [True] * len(low)),
        prior_rate=0.5,
        settings=ChurnSettings(age_edges_hours=(1.0, 3.0, 6.0), rate_buckets=1, pseudo_departures=1e-9),
    )
    np.testing.assert_allclose(table.hazard[0, 0], 0.2, rtol=0.06)


def test_life_table__weibull_hazard_falls_as_it_should() -> None:
    """Shape ½, scale 1: Λ(t) = √t, so S(3 h | age 1 h) = exp(−(2 − 1)) = 0.368."""
    times = np.random.default_rng(1).weibull(0.5, 40_000)
    table = fit_life_table(
        durations(times.tolist(), times.tolist(), [True] * len(times)),
        prior_rate=0.5,
        settings=replace(ChurnSettings(), rate_buckets=1),
    )
    ahead = table.cumulative_hazard(
        age_hours=np.ones(1),
        rate=np.ones(1),
        device_class=np.array(["home"], dtype=object),
        edges_hours=np.array([3.0]),
    )
    assert np.exp(-ahead[0, 0]) == pytest.approx(np.exp(-1.0), abs=0.02)


def test_population__rates_by_hand(history: SessionHistory) -> None:
    """Homes leave every 8 h, phones every 2 h, both return after 3 h."""
    rates = fit_population(history, start_us=0, end_us=DAYS * DAY_US)
    assert rates.by_class["home"][0] == pytest.approx(1 / 8, rel=0.12)
    assert rates.by_class["phone"][0] == pytest.approx(1 / 2, rel=0.12)
    assert rates.returns_per_hour == pytest.approx(1 / 3, rel=0.12)


def test_chain__availability_by_hand() -> None:
    """Rates 1 and 3 per hour: π = 3/4, and after one hour e^{−4} of the start is left."""
    up = np.array([True, False])
    found = chain_availability(up, np.full((2, 1), 1.0), np.full((2, 1), 3.0), np.array([1.0]))
    np.testing.assert_allclose(found[:, 0], [0.75 + 0.25 * np.exp(-4), 0.75 * (1 - np.exp(-4))])


def test_person_bins__spread_departures_keep_their_mass() -> None:
    """One departure between edges 0 and 2 at hazard ½ a bin: ⅔ in the first (½ of ¾), ⅓ in the second."""
    outcomes = Outcomes(
        np.zeros(1, int), np.zeros(1, int), np.array([0]), np.array([2]), np.ones(1), np.array([1.0, 2.0])
    )
    rows = person_bins(outcomes, np.array([0.5, 0.5]))
    gone = np.bincount(rows.bin, weights=rows.gone * rows.weight)
    np.testing.assert_allclose(gone, [2 / 3, 1 / 3])
    np.testing.assert_allclose(np.bincount(rows.bin, weights=rows.weight), [1.0, 1 / 3])
    assert (base_hazards(outcomes) > 0).all()


def test_features__a_planted_future_changes_nothing(history: SessionHistory) -> None:
    """Statistics at an instant must not move when everything after it is removed."""
    at_us = 6 * DAY_US + 12_345
    population = fit_population(history, start_us=0, end_us=at_us)
    with_future = node_features(history, at_us=at_us, population=population, settings=SMALL)
    without = node_features(history.before(at_us), at_us=at_us, population=population, settings=SMALL)
    np.testing.assert_array_equal(with_future.inputs, without.inputs)
    assert with_future.inputs.shape == (60, len(feature_names(SMALL)))
    assert np.isfinite(with_future.inputs).all()


def test_forecast__only_the_past_enters(fitted: ChurnForecaster, history: SessionHistory) -> None:
    """The forecast from the whole log equals the one from the log cut at the origin, byte for byte."""
    at_us = 9 * DAY_US + HOUR_US
    whole = fitted.forecast(history, at_us=at_us)
    cut = fitted.forecast(history.before(at_us), at_us=at_us)
    np.testing.assert_array_equal(whole.survival, cut.survival)
    np.testing.assert_array_equal(whole.availability, cut.availability)
    assert 0 < whole.up.sum() < 60


def test_forecast__a_subset_is_the_same_rows(fitted: ChurnForecaster, history: SessionHistory) -> None:
    """Asking for two nodes must not change what is said about them."""
    at_us = 9 * DAY_US
    whole = fitted.forecast(history, at_us=at_us)
    part = fitted.forecast(history, at_us=at_us, nodes=["n7", "n2"])
    np.testing.assert_allclose(part.survival, whole.survival[[7, 2]], atol=1e-6)


def test_life_table_forecast__recovers_two_exponential_classes(history: SessionHistory) -> None:
    """Homes leave at 1/8 and phones at 1/2 per hour: S(2 h) is e^{−1/4} = 0.78 and e^{−1} = 0.37."""
    table = fit_tables(history, train=(0, 9 * DAY_US), settings=SMALL)
    forecast = table.forecast(history, at_us=9 * DAY_US)
    home = history.device_class == "home"
    assert forecast.survival[forecast.up & home, 2].mean() == pytest.approx(np.exp(-0.25), abs=0.05)
    assert forecast.survival[forecast.up & ~home, 2].mean() == pytest.approx(np.exp(-1.0), abs=0.07)


def test_training__same_seed_same_forecast(fitted: ChurnForecaster, history: SessionHistory) -> None:
    """A run must be reproducible to the last bit, or no comparison means anything."""
    again, log = fit_churn(history, train=TRAIN, validation=VALIDATION, settings=SMALL, seed=1)
    at_us = 9 * DAY_US
    np.testing.assert_array_equal(
        again.forecast(history, at_us=at_us).survival, fitted.forecast(history, at_us=at_us).survival
    )
    assert {"network", "epoch", "train_loss", "validation_loss"} == set(log[0])


def test_training__sees_nothing_after_validation(fitted: ChurnForecaster, history: SessionHistory) -> None:
    """Training on the log cut at the end of validation gives the same model."""
    again, _ = fit_churn(history.before(VALIDATION[1]), train=TRAIN, validation=VALIDATION, settings=SMALL, seed=1)
    at_us = 9 * DAY_US
    np.testing.assert_array_equal(
        again.forecast(history, at_us=at_us).survival, fitted.forecast(history, at_us=at_us).survival
    )


def test_training__too_little_to_learn_from_is_the_life_table(history: SessionHistory) -> None:
    """A fleet of two nodes gets the closed form, not a network fitted to noise."""
    model, log = fit_churn(history.select(["n0", "n2"]), train=TRAIN, validation=VALIDATION, settings=SMALL, seed=0)
    assert model.learned is None
    assert log == []


def test_training__bad_windows_are_all_told(history: SessionHistory) -> None:
    """An empty window and an overlap are two mistakes."""
    with pytest.raises(ValueError, match=r"training window.*Expected validation to start"):
        fit_churn(history, train=(5, 5), validation=(1, 9), settings=SMALL)


def test_save_and_load__same_answers(fitted: ChurnForecaster, history: SessionHistory, tmp_path: Path) -> None:
    """What is promoted must be what was evaluated."""
    fitted.save(tmp_path / "model")
    loaded = ChurnForecaster.load(tmp_path / "model")
    at_us = 9 * DAY_US
    np.testing.assert_array_equal(
        loaded.forecast(history, at_us=at_us).availability, fitted.forecast(history, at_us=at_us).availability
    )
    with pytest.raises(ArtefactError):
        ChurnForecaster.load(tmp_path / "nothing")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.4, 2.0), st.floats(0.2, 40.0))
def test_forecast__is_a_probability_that_falls(seed: int, shape: float, mean_up: float) -> None:
    """Whatever the sessions, survival starts at most at 1 and never rises, and availability is at least survival."""
    history = renewal_history(6, shape=shape, mean_up=np.full(6, mean_up), mean_down=2.0, seed=seed)
    table = fit_tables(history, train=(0, 8 * DAY_US), settings=SMALL)
    found = table.forecast(history, at_us=8 * DAY_US + seed * HOUR_US // 500)
    assert ((found.survival >= 0) & (found.survival <= 1)).all()
    assert (np.diff(found.survival, axis=1) <= 0).all()
    assert (found.availability >= found.survival).all()


def test_settings__every_mistake_is_told() -> None:
    """Bounds are checked where the settings are made, all at once."""
    with pytest.raises(
        ValueError, match=r"(?s)edges_hours positive and increasing, got \(2.0, 1.0\).*dropout in \[0, 1\)"
    ):
        ChurnSettings(edges_hours=(2.0, 1.0), dropout=1.0)
