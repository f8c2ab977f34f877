"""A guard on the time of a job: what it stops is still valid, but depends on the machine."""

from __future__ import annotations

import time

LEAST_SECONDS = 0.1
"""What a solver that wants a limit gets when the time is up."""


class Guard:
    """Passes `seconds` after it was made. Limits that must repeat are counted in work; this one is only for safety."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())


UNGUARDED = Guard(float("inf"))
