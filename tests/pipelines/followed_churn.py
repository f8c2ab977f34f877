"""A churn model as if it had been followed over three days, with figures that are easy to find again in sentences."""

from __future__ import annotations

import numpy as np

from models.churn.edge_calibration import ClassCalibration
from models.churn.track import ChurnTrack, GroupTrack, JointTrack
from models.compared import Compared
from models.events import DAY_US, Float64

HOSTILE = '<script>alert("x")</script>'
EDGES = np.array([0.25, 4.0, 24.0])
START_US = 20_000 * DAY_US
NAN = float("nan")


def points(forecast: list[float], observed: list[float], width: float = 0.03) -> Compared:
    """Intervals of this half-width about what was observed."""
    seen: Float64 = np.array(observed)
    low, high = np.clip(seen - width, 0, 1), np.clip(seen + width, 0, 1)
    return Compared(np.array(forecast), seen, low, high, np.full(len(seen), 40.0))


def unknown(count: int) -> Compared:
    return points([0.5] * count, [NAN] * count)


def calibration(error: list[float], slopes: list[float]) -> ClassCalibration:
    slope: Float64 = np.array(slopes)
    mean = float(np.mean(slopes))
    chance = np.full(3, 0.01)
    return ClassCalibration(
        np.array(error), chance, slope, slope - 0.2, slope + 0.2, 0.021, 0.01, mean, mean - 0.1, mean + 0.1, -0.1
    )


def group(name: str, stay: Compared | None = None) -> GroupTrack:
    """Stays 90, 60 and 20 %: forecast right at all edges but the last."""
    return GroupTrack(
        name,
        40,
        1200,
        500,
        stay or points([0.9, 0.62, 0.3], [0.9, 0.6, 0.2]),
        calibration([0.01, 0.015, 0.04], [1.0, 0.95, 0.6]),
        points([0.1, 0.3, 0.5], [0.1, 0.28, 0.4]),
        points([0.1, 0.4, 0.8], [0.1, 0.42, 0.8]),
    )


JOINT = (
    JointTrack("all", points([0.2, 0.8], [0.22, 0.79]), points([0.3, 0.9], [0.2, 0.8])),
    JointTrack("within", points([0.2, 0.8], [0.22, 0.7]), points([0.3, 0.9], [0.2, 0.7])),
)
TRACK = ChurnTrack(
    START_US,
    START_US + 3 * DAY_US,
    12,
    EDGES,
    (group(""), group("phone"), group(HOSTILE)),
    tuple(points([0.9 * s, 0.6 * s, 0.3 * s], [0.9 * s, 0.6 * s, 0.2 * s]) for s in (0.3, 0.6, 0.9, 1.0)),
    (
        points([0.05, 0.1], [0.06, 0.1]),
        points([0.2, 0.5, 0.9], [0.22, 0.5, 0.8]),
        points([0.7, 0.9], [0.8, 0.9]),
    ),
    START_US + DAY_US * np.arange(3),
    points([0.4, 0.4, 0.4], [0.41, 0.5, 0.38]),
    JOINT,
)
