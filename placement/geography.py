"""Distances on the earth, and how a round-trip time grows with them.

    a       = sin²(Δlat/2) + cos(lat1)·cos(lat2)·sin²(Δlon/2)
    km      = 2·R·asin(√a)                    R = 6371.0088 km, the mean radius
    rtt_ms  = intercept_ms + ms_per_km·km     fitted with Huber's loss

A few routes go around half the world. Least squares would let them lift the whole line, so errors beyond
`huber_ms` count linearly and not squared (Huber, 1964; solved by iterated reweighting).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

EARTH_RADIUS_KM = 6371.0088


def great_circle_km(lat1: npt.ArrayLike, lon1: npt.ArrayLike, lat2: npt.ArrayLike, lon2: npt.ArrayLike) -> Float64:
    """Kilometres between points given in degrees; the arguments broadcast against each other."""
    phi1, lambda1, phi2, lambda2 = (np.radians(np.asarray(x, dtype=float)) for x in (lat1, lon1, lat2, lon2))
    half_chord = np.sin((phi2 - phi1) / 2) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin((lambda2 - lambda1) / 2) ** 2
    # Rounding can push opposite points just above 1, where asin has no value.
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half_chord, 0.0, 1.0))))


@dataclass(frozen=True)
class DistanceModel:
    """`rtt_ms = intercept_ms + ms_per_km·km`, for pairs of places that nobody measured."""

    intercept_ms: float
    ms_per_km: float

    def __post_init__(self) -> None:
        for name in ("intercept_ms", "ms_per_km"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"Expected a finite {name} >= 0, got {value!r}.")

    @classmethod
    def fit(cls, km: npt.ArrayLike, rtt_ms: npt.ArrayLike, *, huber_ms: float = 10.0) -> DistanceModel:
        """The line with the least Huber loss over measured pairs; neither parameter falls below zero.

        Args:
            km: distances. (n,)
            rtt_ms: measured round trips. (n,)
            huber_ms: errors larger than this count linearly.

        Raises:
            ValueError: fewer than two different distances, lengths that disagree, or values that are not finite.
        """
        distance, measured = _pairs(km, rtt_ms)
        if huber_ms <= 0:
            raise ValueError(f"Expected huber_ms > 0, got {huber_ms!r}.")
        weight = np.ones_like(distance)
        intercept, slope = _weighted_line(distance, measured, weight)
        for _ in range(200):
            error = np.abs(measured - intercept - slope * distance)
            weight = huber_ms / np.maximum(error, huber_ms)
            previous = (intercept, slope)
            intercept, slope = _weighted_line(distance, measured, weight)
            if np.allclose(previous, (intercept, slope), rtol=1e-10, atol=1e-12):
                break
        return cls(intercept, slope)

    def rtt_ms(self, km: npt.ArrayLike) -> Float64:
        return np.asarray(self.intercept_ms + self.ms_per_km * np.asarray(km, dtype=float))


def _pairs(km: npt.ArrayLike, rtt_ms: npt.ArrayLike) -> tuple[Float64, Float64]:
    distance, measured = np.asarray(km, dtype=float), np.asarray(rtt_ms, dtype=float)
    if distance.ndim != 1 or distance.shape != measured.shape:
        raise ValueError(
            f"Expected as many distances as round trips, got shapes {distance.shape} and {measured.shape}."
        )
    if not (np.isfinite(distance).all() and np.isfinite(measured).all()):
        raise ValueError("Expected finite distances and round trips; drop the pairs that were not measured.")
    if len(np.unique(distance)) < 2:
        raise ValueError(
            f"Expected at least two different distances, got {np.unique(distance).tolist()!r}; a line needs two."
        )
    return distance, measured


def _weighted_line(x: Float64, y: Float64, weight: Float64) -> tuple[float, float]:
    """Weighted least squares under intercept >= 0 and slope >= 0: drop to the boundary where one is negative."""
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
    slope = float((weight * (x - mean_x) * (y - mean_y)).sum() / (weight * (x - mean_x) ** 2).sum())
    intercept = float(mean_y - slope * mean_x)
    if slope < 0:
        return max(float(mean_y), 0.0), 0.0
    if intercept < 0:
        return 0.0, max(float((weight * x * y).sum() / (weight * x * x).sum()), 0.0)
    return intercept, slope
