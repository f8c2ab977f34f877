"""Sessions of each group in time order, for scans that go through the departures of networks or of the fleet.

Sorting is by counting digits: stable, and several times faster than comparisons on millions of instants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from models.churn.history import SessionHistory
from models.events import Bool, Int64

_DIGIT_BITS = 11


@dataclass(frozen=True)
class Departures:
    """Departures by group, in compressed rows: within each in order of when they were known.

    Attributes:
        sessions: their rows in the history. (d,)
        low_us: the node was last seen up. (d,)
        known_us: the node was first known gone. (d,)
        offsets: first departure of each group. (groups + 1,)
    """

    sessions: Int64
    low_us: Int64
    known_us: Int64
    offsets: Int64

    @classmethod
    def of(cls, history: SessionHistory, group: Int64) -> Departures:
        """Departures by the code of each session's group; sessions with a negative one are left out."""
        left = np.flatnonzero((group >= 0) & ~history.censored)
        left = left[order_by(history.end_us[left], history.end_upper_us[left], group[left])]
        groups = int(group.max(initial=-1)) + 1
        return cls(left, history.end_us[left], history.end_upper_us[left], _offsets(group[left], groups))


@dataclass(frozen=True)
class SessionGroups:
    """Starts and ends of the sessions of each group, each in time order, and their departures.

    Attributes:
        start_us: (m,)
        end_us: last seen up. (m,)
        offsets: first session of each group. (groups + 1,)
        departures: those of the same groups.
        open: departures that belong to no outage yet. (d,)
    """

    start_us: Int64
    end_us: Int64
    offsets: Int64
    departures: Departures
    open: Bool

    @classmethod
    def of(cls, history: SessionHistory, group: Int64) -> SessionGroups:
        """Groups by the code of each session; sessions with a negative one are left out."""
        kept = np.flatnonzero(group >= 0)
        start, end, code = history.start_us[kept], history.end_us[kept], group[kept]
        departures = Departures.of(history, group)
        return cls(
            start[order_by(start, code)],
            end[order_by(end, code)],
            _offsets(code, int(group.max(initial=-1)) + 1),
            departures,
            np.ones(len(departures.sessions), dtype=np.bool_),
        )

    def without(self, taken: Bool) -> SessionGroups:
        """The same groups where these sessions of the history belong to an outage already."""
        return replace(self, open=~taken[self.departures.sessions])


def order_by(*keys: Int64) -> Int64:
    """Rows in order of the last key, ties by the one before it; the first row first where all are equal."""
    order = np.arange(len(keys[0]))
    for key in keys:
        order = _stably_ordered(key[order], order)
    return order


def _offsets(group: Int64, groups: int) -> Int64:
    return np.concatenate([[0], np.cumsum(np.bincount(group, minlength=groups))]).astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _stably_ordered(keys, rows):  # type: ignore[no-untyped-def]
    """`rows` in order of their keys: one pass a digit, the lowest first, each keeping the order of the pass before."""
    n = len(keys)
    if n == 0:
        return rows
    least, digits = keys.min(), 1 << _DIGIT_BITS
    span = keys.max() - least
    keys = keys - least
    next_keys, next_rows = np.empty_like(keys), np.empty_like(rows)
    shift = 0
    while span >> shift:
        place = np.zeros(digits + 1, dtype=np.int64)
        for i in range(n):
            place[((keys[i] >> shift) & (digits - 1)) + 1] += 1
        for d in range(digits):
            place[d + 1] += place[d]
        for i in range(n):
            digit = (keys[i] >> shift) & (digits - 1)
            next_keys[place[digit]] = keys[i]
            next_rows[place[digit]] = rows[i]
            place[digit] += 1
        keys, next_keys = next_keys, keys
        rows, next_rows = next_rows, rows
        shift += _DIGIT_BITS
    return rows
