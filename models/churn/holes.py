"""Holes in the observation of a fleet: hours in which nothing was seen of anybody, although the fleet never rests.

Sessions start and end somewhere in the fleet all the time. Given that the last n = 50 instants at which one did took a
time T, a silence of length L has

    P(silence | n in T) = (T / (T + L))^(n + 1)        Poisson, its rate gamma distributed given n in T

and given the m instants of the same hours of the days before, (1/2)^(m + 1). A silence of at least an hour is a hole where
both are at most 1e-9. Instants are counted by the minute, because a watcher who takes snapshots sees hundreds of sessions
start at once. Nothing after the silence is read, and P falls with L, so each hole has an instant from which it is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.events import DAY_US, HOUR_US, NEVER_US, Int64, Window
from models.observation import Gap, united

LARGEST_PROBABILITY = 1e-9
LEAST_HOURS = 1.0
_COUNTED = 50
_DAYS_BACK = 7
_MINUTE_US = 60_000_000


def find_holes(instants_us: Int64) -> tuple[Gap, ...]:
    """Holes in time order, each from one instant at which something was seen to the next.

    Args:
        instants_us: when sessions of the fleet started or ended, and the end of the record; in any order. (k,)
    """
    first, seen = _by_the_minute(instants_us)
    holes: list[Gap] = []
    for row in np.flatnonzero(first[1:] - seen[:-1] >= LEAST_HOURS * HOUR_US).tolist():
        end_us = int(first[row + 1])
        known_us = max(_unlike_before(seen, row, holes), _unlike_yesterday(seen, row, end_us, holes))
        if known_us <= end_us:
            holes.append(Gap(int(seen[row]), end_us, known_us))
    return tuple(holes)


def given_holes(windows: Sequence[Window]) -> tuple[Gap, ...]:
    """Holes that somebody lists; known from their start on.

    Raises:
        ValueError: a window ends before it starts.
    """
    backwards = [window for window in windows if window[1] <= window[0]]
    if backwards:
        raise ValueError(f"Expected holes that end after they start, got {backwards!r}.")
    return tuple(Gap(start, end, start) for start, end in united(windows))


def holes_before(holes: Sequence[Gap], cutoff_us: int) -> tuple[Gap, ...]:
    """The holes that were known at the cut-off; one that is still open there reaches just past it."""
    return tuple(
        Gap(hole.start_us, cutoff_us + 1 if cutoff_us <= hole.end_us else hole.end_us, hole.known_us)
        for hole in holes
        if hole.known_us <= cutoff_us and hole.start_us < cutoff_us
    )


def hole_at(holes: Sequence[Gap], at_us: int) -> Gap | None:
    """The hole that the instant lies in; at its ends the fleet is seen."""
    return next((hole for hole in holes if hole.start_us < at_us < hole.end_us), None)


def _by_the_minute(instants_us: Int64) -> tuple[Int64, Int64]:
    """The first and the last instant of each minute that has any."""
    ordered = np.unique(instants_us)
    turns = np.diff(ordered // _MINUTE_US) > 0
    return ordered[np.append(True, turns)[: len(ordered)]], ordered[np.append(turns, True)[: len(ordered)]]


def _unlike_before(seen: Int64, row: int, holes: Sequence[Gap]) -> int:
    """Instant from which the last instants do not explain the silence, if enough are known."""
    if row < _COUNTED:
        return NEVER_US
    first_us, last_us = int(seen[row - _COUNTED]), int(seen[row])
    unseen_us = sum(max(hole.end_us - max(hole.start_us, first_us), 0) for hole in holes)
    silence_us = (last_us - first_us - unseen_us) * float(np.expm1(-np.log(LARGEST_PROBABILITY) / (_COUNTED + 1)))
    return last_us + max(round(LEAST_HOURS * HOUR_US), round(silence_us))


def _unlike_yesterday(seen: Int64, row: int, end_us: int, holes: Sequence[Gap]) -> int:
    """Instant from which the same hours of earlier days do not explain the silence, if any.

    The first k days of a silence are held against the k days before it, k = 1, 2, ... Where no day ago is known nothing
    can be told: the fleet may be on its way into its first night.
    """
    needed = int(np.ceil(-np.log2(LARGEST_PROBABILITY))) - 1
    start_us = int(seen[row])
    for ago_us in range(DAY_US, (_DAYS_BACK + 1) * DAY_US, DAY_US):
        from_us, until_us = start_us - ago_us, min(end_us - ago_us, start_us)
        if from_us < seen[0]:
            break
        if any(hole.start_us < until_us and from_us < hole.end_us for hole in holes):
            continue
        first, last = np.searchsorted(seen, [from_us, until_us], side="right")
        if last - first >= needed:
            return int(seen[first + needed - 1]) + ago_us
        if end_us - ago_us <= start_us:
            break
    return NEVER_US
