"""Distances and the line that turns them into round-trip times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.geography import EARTH_RADIUS_KM, DistanceModel, great_circle_km

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)


def test_great_circle__known_answers() -> None:
    """A quarter and a half of the equator, pole to pole, and a published city pair are right."""
    quarter = np.pi / 2 * EARTH_RADIUS_KM
    km = great_circle_km([0, 0, 90, 7], [0, 0, 0, 8], [0, 0, -90, 7], [90, 180, 0, 8])
    np.testing.assert_allclose(km, [quarter, 2 * quarter, 2 * quarter, 0], atol=1e-6)
    # Paris to New York is 5,837 km along the great circle.
    assert float(great_circle_km(48.8566, 2.3522, 40.7128, -74.0060)) == pytest.approx(5837, abs=2)


@given(latitudes, longitudes, latitudes, longitudes)
def test_great_circle__is_symmetric_and_bounded(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    """Distance has no direction and never exceeds half the circumference, also at rounding's edge."""
    there = float(great_circle_km(lat1, lon1, lat2, lon2))
    assert there == pytest.approx(float(great_circle_km(lat2, lon2, lat1, lon1)), abs=1e-6)
    assert 0 <= there <= np.pi * EARTH_RADIUS_KM + 1e-6


def test_distance_model__recovers_an_exact_line() -> None:
    """Points on a line give that line back."""
    model = DistanceModel.fit([0, 1000, 2000], [5, 25, 45])  # 5 ms + 0.02 ms/km
    assert (model.intercept_ms, model.ms_per_km) == pytest.approx((5, 0.02))
    np.testing.assert_allclose(model.rtt_ms([500, 10_000]), [15, 205])


def test_distance_model__ignores_a_few_detours() -> None:
    """One route in ten that goes around the world does not lift the line; least squares would by 40 ms."""
    km = np.linspace(0, 9000, 100)
    rtt = 8 + 0.015 * km
    detour = np.arange(100) % 10 == 0
    model = DistanceModel.fit(km, rtt + np.where(detour, 400.0, 0.0))
    # Huber's score of the detours, 10 ms each, is balanced by the others: (10 / 90) * 10 ms = 1.1 ms.
    np.testing.assert_allclose(model.rtt_ms(km), rtt, atol=2.0)


def test_distance_model__never_negative() -> None:
    """A line through falling points is flat, and one that would start below zero starts at zero."""
    assert DistanceModel.fit([0, 100], [20, 10]).ms_per_km == 0
    steep = DistanceModel.fit([100, 200], [1, 11])  # free line: -9 + 0.1 km; least squares through 0: 2300 / 50000
    assert steep.intercept_ms == 0
    assert steep.ms_per_km == pytest.approx(0.046)


@pytest.mark.parametrize(
    ("km", "rtt", "words"),
    [
        ([1, 2], [1], "as many distances"),
        ([5, 5], [1, 2], "two different distances"),
        ([1, np.nan], [1, 2], "finite"),
    ],
)
def test_distance_model__says_what_is_wrong(km: list[float], rtt: list[float], words: str) -> None:
    """A fit that cannot be made is a sentence and not a NaN."""
    with pytest.raises(ValueError, match=words):
        DistanceModel.fit(km, rtt)


def test_distance_model__refuses_negative_parameters() -> None:
    """A model that could give negative times cannot be built."""
    with pytest.raises(ValueError, match="intercept_ms >= 0"):
        DistanceModel(-1.0, 0.1)
