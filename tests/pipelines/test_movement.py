"""Bytes moved by day, and what of it had been dropped shortly before: known answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from models.events import DAY_US, HOUR_US
from pipelines.movement import Flapping, Movement
from pipelines.planning import Copies

START_US = 20_000 * DAY_US
"""2024-10-04T00:00Z."""
SIZES = np.array([10, 20], dtype=np.int64)
FIRST, SECOND = (0, 1), (1, 1)
"""Segment 0 of 10 bytes and segment 1 of 20 bytes, both at source 1."""


@dataclass(frozen=True)
class Note:
    """A plan as far as its movement goes."""

    at_us: int
    bytes_moved: int
    flapping_bytes: int


def copies(*pairs: tuple[int, int]) -> Copies:
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Copies(both[:, 0], both[:, 1])


def back(*plans: tuple[float, Copies]) -> list[int]:
    """Flapping bytes of each plan of (hours after the start, what it wants)."""
    watch, held, found = Flapping(SIZES, 2), Copies.none(), []
    for hours, wanted in plans:
        found.append(watch.bytes_back(START_US + round(hours * HOUR_US), held, wanted))
        held = wanted
    return found


def test_flapping__dropped_and_pushed_again() -> None:
    """The first push is news, the return of segment 0 is not, and segment 1 is new when it comes."""
    plans = [(0, copies(FIRST)), (1, copies()), (2, copies(FIRST, SECOND)), (3, copies(FIRST, SECOND))]
    assert back(*plans) == [0, 0, 10, 0]


@pytest.mark.parametrize(("hours", "expected"), [(23.0, 10), (24.0, 10), (24.001, 0)])
def test_flapping__within_24_hours_of_the_drop(hours: float, expected: int) -> None:
    """The day counts from the drop and includes its end."""
    assert back((0, copies(FIRST)), (1, copies()), (1 + hours, copies(FIRST))) == [0, 0, expected]


def test_flapping__every_return_counts() -> None:
    """A copy that comes and goes every hour flaps each time it comes back; another source's copy does not."""
    elsewhere = copies((0, 0))
    plans = [copies(FIRST), copies(), copies(FIRST), elsewhere, copies(FIRST)]
    assert back(*enumerate(plans)) == [0, 0, 10, 0, 10]


def test_movement__days_mean_and_share() -> None:
    """36 hours from midnight: 30 bytes on the first day and 15 on the second are 30 in 24 hours; 9 of 45 flap."""
    notes = [Note(START_US, 20, 0), Note(START_US + 23 * HOUR_US, 10, 4), Note(START_US + 24 * HOUR_US, 15, 5)]
    movement = Movement.of_plans(notes, start_us=START_US, end_us=START_US + 36 * HOUR_US)
    assert movement.bytes_by_day == (("2024-10-04", 30), ("2024-10-05", 15))
    assert movement.bytes_per_day == pytest.approx(30)
    assert movement.flapping_share == pytest.approx(0.2)


def test_movement__a_day_without_moves_is_a_day() -> None:
    """Nothing moved is zero and not missing, and no share of it flaps."""
    movement = Movement.of_plans([], start_us=START_US + 12 * HOUR_US, end_us=START_US + 2 * DAY_US)
    assert movement.bytes_by_day == (("2024-10-04", 0), ("2024-10-05", 0))
    assert (movement.bytes_per_day, movement.flapping_share) == (0.0, 0.0)
