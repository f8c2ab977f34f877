"""Calibration: reliability, error, slope, and the block bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.calibration import (
    LogitCalibration,
    block_bootstrap_interval,
    calibration_slope,
    expected_calibration_error,
    fit_logit_calibration,
    reliability_table,
)


def test_reliability__two_bins_by_hand() -> None:
    """The table is the one thing every reliability plot shows, so it must be arithmetic that anyone can redo."""
    probability = np.array([0.1, 0.1, 0.3, 0.3, 0.8, 0.8, 0.9, 0.9])
    outcome = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    table = reliability_table(probability, outcome, bins=2)
    # median 0.55 cuts between 0.3 and 0.8: means (0.1+0.1+0.3+0.3)/4 = 0.2 and 0.85; frequencies 1/4 and 3/4
    np.testing.assert_allclose(table.predicted, [0.2, 0.85])
    np.testing.assert_allclose(table.observed, [0.25, 0.75])
    # |0.2-0.25| and |0.85-0.75|, four each: (0.05 + 0.10) / 2
    assert expected_calibration_error(probability, outcome, bins=2) == pytest.approx(0.075)


def test_reliability__equal_forecasts_share_a_bin() -> None:
    """A constant forecast is one bin; splitting ties would invent an error that is only noise."""
    table = reliability_table(np.full(10, 0.3), np.array([1.0] * 3 + [0.0] * 7))
    assert len(table.predicted) == 1
    assert table.expected_calibration_error == pytest.approx(0.0)


def test_slope__over_confidence_is_recovered() -> None:
    """Doubling every logit of a calibrated forecast must read as a slope of one half."""
    rng = np.random.default_rng(0)
    truth = expit(rng.normal(size=40_000))
    outcome = (rng.random(40_000) < truth).astype(float)
    slope, intercept = calibration_slope(expit(2.0 * logit(truth)), outcome)
    assert slope == pytest.approx(0.5, abs=0.02)
    assert intercept == pytest.approx(0.0, abs=0.04)


def test_slope__undefined_without_two_kinds_of_outcome() -> None:
    """A stratum in which nothing left has no slope; a made-up number would pass a gate."""
    assert np.isnan(calibration_slope(np.array([0.1, 0.2]), np.array([0.0, 0.0]))[0])


def test_logit_calibration__corrects_and_shrinks() -> None:
    """With many rows the fit undoes a known distortion; with a strong prior it stays put."""
    rng = np.random.default_rng(1)
    truth = expit(rng.normal(size=40_000) - 1.0)
    outcome = (rng.random(40_000) < truth).astype(float)
    distorted = expit(0.7 * logit(truth) + 0.5)
    fitted = fit_logit_calibration(distorted, outcome)
    # logit truth = (logit distorted − 0.5) / 0.7, so the slope is 1/0.7 and the intercept −0.5/0.7
    assert fitted.slope == pytest.approx(1 / 0.7, abs=0.06)
    assert fitted.intercept == pytest.approx(-0.5 / 0.7, abs=0.06)
    assert expected_calibration_error(fitted.apply(distorted), outcome) < 0.01
    held = fit_logit_calibration(distorted, outcome, prior_strength=1e9)
    assert held.slope == pytest.approx(1.0, abs=1e-3)


def test_logit_calibration__separated_outcomes_stay_finite() -> None:
    """Perfectly separated outcomes have an infinite maximum-likelihood slope; the prior keeps it usable."""
    fitted = fit_logit_calibration(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isfinite(fitted.slope)
    assert LogitCalibration().apply(np.array([0.25]))[0] == pytest.approx(0.25)


def test_bootstrap__interval_covers_the_mean_and_narrows() -> None:
    """The half-width of a 95 % interval of a mean of n independent values is about 1.96 sd / √n."""
    values = np.random.default_rng(2).normal(size=4000)
    low, high = block_bootstrap_interval(values, np.arange(4000), seed=3)
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 / np.sqrt(4000), rel=0.12)


def test_bootstrap__copies_inside_a_block_add_nothing() -> None:
    """Repeating every row inside its block is not evidence, so the interval must not move."""
    values = np.random.default_rng(4).normal(size=50)
    once = block_bootstrap_interval(values, np.arange(50), seed=5)
    many = block_bootstrap_interval(np.repeat(values, 20), np.repeat(np.arange(50), 20), seed=5)
    np.testing.assert_allclose(once, many)


def test_bootstrap__bad_input_names_every_mistake() -> None:
    """All mistakes are told at once, with the values."""
    with pytest.raises(ValueError, match=r"(?s)replicates >= 1, got 0.*level in \(0, 1\), got 2\.0"):
        block_bootstrap_interval(np.ones(3), np.arange(3), replicates=0, level=2.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_calibration_error__is_a_weighted_distance(rows: list[tuple[float, int]], bins: int) -> None:
    """An error of probabilities lies in [0, 1], and no weight is lost in the binning."""
    probability, outcome = np.array(rows, dtype=float).T
    table = reliability_table(probability, outcome, bins=bins)
    assert table.weight.sum() == pytest.approx(len(rows))
    assert 0.0 <= table.expected_calibration_error <= 1.0
