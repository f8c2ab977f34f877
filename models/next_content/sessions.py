"""Sessions at the instant of a question: what they looked at so far, and from where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from models.audiences import ARRIVAL, DEVICE
from models.events import DAY_US, Int32, Int64, RequestLog


@dataclass(frozen=True)
class SessionBatch:
    """Sessions that ask what comes next.

    Attributes:
        items: content codes, most recent last, padded with -1 on the left; no content twice in a row. (n, history)
        location: location codes, -1 where unknown. (n,)
        ts_us: instants of the questions. (n,)
        earlier: what the same visitor requested in sessions before, likewise padded; None where nobody knows.
            (n, earlier)
        device: code of the device that asks, -1 where unknown. (n,)
        arrival: code of how the session came to its last request, -1 before its first. (n,)
    """

    items: Int32
    location: Int32
    ts_us: Int64
    earlier: Int32 | None = None
    device: Int32 | None = None
    arrival: Int32 | None = None

    def __post_init__(self) -> None:
        n = len(self.location)
        if self.items.ndim != 2 or self.items.shape[1] < 1 or len(self.items) != n or len(self.ts_us) != n:
            raise ValueError(
                f"Expected items (n, history >= 1), location (n,) and ts_us (n,), got shapes "
                f"{self.items.shape!r}, {self.location.shape!r} and {self.ts_us.shape!r}."
            )
        for name in ("earlier", "device", "arrival"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"Expected {name} for all {n} sessions, got {len(column)}.")

    def __len__(self) -> int:
        return len(self.location)

    def rows(self, first: int, last: int) -> SessionBatch:
        part = slice(first, last)
        optional = (None if column is None else column[part] for column in (self.earlier, self.device, self.arrival))
        return SessionBatch(self.items[part], self.location[part], self.ts_us[part], *optional)

    @classmethod
    def joined(cls, parts: Sequence[SessionBatch]) -> SessionBatch:
        """Batches of equal widths, one after the other."""

        def column(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else np.concatenate(columns)

        return cls(*(column(name) for name in ("items", "location", "ts_us", "earlier", "device", "arrival")))

    @property
    def codes(self) -> Int32:
        """Location, device and arrival of each session, -1 where unknown. (n, 3)"""
        unknown = np.full(len(self), -1, dtype=np.int32)
        columns = (unknown if column is None else column for column in (self.device, self.arrival))
        return np.stack([self.location, *columns], axis=1).astype(np.int32)

    @property
    def before_this(self) -> Int32:
        """`earlier`, of no width where nobody knows. (n, earlier)"""
        return np.full((len(self), 0), -1, dtype=np.int32) if self.earlier is None else self.earlier

    @property
    def last(self) -> Int32:
        """Current content of each session, -1 before its first. (n,)"""
        return np.ascontiguousarray(self.items[:, -1])


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


def sessions_at(
    log: RequestLog, rows: Int64, previous: Int64, *, history: int = 10, earlier: int = 10, earlier_us: int = DAY_US
) -> SessionBatch:
    """Each row's session as it stood just before that row.

    Args:
        log: the requests, from far enough before the rows.
        rows: rows that are asked about. (n,)
        previous: see `previous_rows`. (len(log),)
        history: most contents of the session.
        earlier: most contents of the visitor's sessions before.
        earlier_us: these are not longer ago.
    """
    items = _histories(log.content, previous, rows, history)
    device, arrival = log.features.get(DEVICE), log.features.get(ARRIVAL)
    came = previous[rows]
    return SessionBatch(
        items,
        log.location[rows],
        log.ts_us[rows],
        _earlier(log, previous, rows, (earlier, earlier_us)),
        None if device is None else device[rows],
        None if arrival is None else np.where(came >= 0, arrival[came], -1).astype(np.int32),
    )


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


def _earlier(log: RequestLog, previous: Int64, rows: Int64, reach: tuple[int, int]) -> Int32 | None:
    """Contents of the visitor before the session began, most recent last. (rows, earlier)"""
    if log.visitor is None:
        return None
    return np.asarray(_walk_back(log.ts_us, log.content, log.visitor, previous, rows, reach))


@njit(cache=True)
def _walk_back(
    ts_us: Int64, content: Int32, visitor: Int32, previous: Int64, rows: Int64, reach: tuple[int, int]
) -> Int32:
    """Contents of the visitor before the session began, most recent last. (rows, earlier)"""
    most, oldest_us = reach
    first, before = _session_starts(previous), _previous_by(visitor)
    items = np.full((len(rows), most), -1, dtype=np.int32)
    for i in range(len(rows)):
        row, place = before[first[rows[i]]], most - 1
        while row >= 0 and place >= 0 and ts_us[rows[i]] - ts_us[row] <= oldest_us:
            if place == most - 1 or items[i, place + 1] != content[row]:
                items[i, place] = content[row]
                place -= 1
            row = before[row]
    return items


@njit(cache=True)
def _session_starts(previous: Int64) -> Int64:
    """Row of the first request of each row's session."""
    first = np.arange(len(previous))
    for row in range(len(previous)):
        if previous[row] >= 0:
            first[row] = first[previous[row]]
    return first


@njit(cache=True)
def _previous_by(visitor: Int32) -> Int64:
    """Row of the request before by the same visitor, -1 where there is none or the visitor is unknown."""
    newest = np.full(visitor.max() + 1 if len(visitor) else 1, -1, dtype=np.int64)
    previous = np.full(len(visitor), -1, dtype=np.int64)
    for row in range(len(visitor)):
        if visitor[row] >= 0:
            previous[row] = newest[visitor[row]]
            newest[visitor[row]] = row
    return previous
