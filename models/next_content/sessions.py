"""Sessions at the instant of a question: what they looked at so far, and from where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from models.events import Int32, Int64, RequestLog


@dataclass(frozen=True)
class SessionBatch:
    """Sessions that ask what comes next.

    Attributes:
        items: content codes, most recent last, padded with -1 on the left; no content twice in a row. (n, history)
        location: location codes, -1 where unknown. (n,)
        ts_us: instants of the questions. (n,)
    """

    items: Int32
    location: Int32
    ts_us: Int64

    def __post_init__(self) -> None:
        n = len(self.location)
        if self.items.ndim != 2 or self.items.shape[1] < 1 or len(self.items) != n or len(self.ts_us) != n:
            raise ValueError(
                f"Expected items (n, history >= 1), location (n,) and ts_us (n,), got shapes "
                f"{self.items.shape!r}, {self.location.shape!r} and {self.ts_us.shape!r}."
            )

    def __len__(self) -> int:
        return len(self.location)

    def rows(self, first: int, last: int) -> SessionBatch:
        return SessionBatch(self.items[first:last], self.location[first:last], self.ts_us[first:last])

    @property
    def last(self) -> Int32:
        """Current content of each session, -1 before its first. (n,)"""
        return np.ascontiguousarray(self.items[:, -1])

    @property
    def before(self) -> Int32:
        """Content before the current one, -1 where there is none. (n,)"""
        if self.items.shape[1] == 1:
            return np.full(len(self), -1, dtype=np.int32)
        return np.ascontiguousarray(self.items[:, -2])


def previous_rows(log: RequestLog, *, timeout_us: int) -> Int64:
    """Row of the request before, in the same session and not longer ago than the timeout; -1 where there is none."""
    order = np.argsort(log.session, kind="stable")
    session, ts_us = log.session[order], log.ts_us[order]
    follows = (session[1:] == session[:-1]) & (session[1:] >= 0) & (np.diff(ts_us) <= timeout_us)
    previous = np.full(len(log), -1, dtype=np.int64)
    previous[order[1:][follows]] = order[:-1][follows]
    return previous


def moves(log: RequestLog, previous: Int64) -> Int64:
    """Rows at which a session begins or goes to another content: repeats are no news."""
    return np.flatnonzero((previous < 0) | (log.content != log.content[previous]))


def sessions_at(log: RequestLog, rows: Int64, previous: Int64, *, history: int = 8) -> SessionBatch:
    """Each row's session as it stood just before that row."""
    items = _histories(log.content, previous, rows, history)
    return SessionBatch(items, log.location[rows], log.ts_us[rows])


@njit(cache=True)
def _histories(content: Int32, previous: Int64, rows: Int64, history: int) -> Int32:
    items = np.full((len(rows), history), -1, dtype=np.int32)
    for i in range(len(rows)):
        row, place = previous[rows[i]], history - 1
        while row >= 0 and place >= 0:
            if place == history - 1 or items[i, place + 1] != content[row]:
                items[i, place] = content[row]
                place -= 1
            row = previous[row]
    return items
