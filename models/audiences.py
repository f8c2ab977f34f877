"""What audiences request: decayed popularity by the device that asks and by how a session came to where it is.

    P(i | a) = C(i, a) / C(a),    a = (device, arrival of the session's request before; "first" where there was none)

Device and arrival are categories of the log (`RequestLog.features`), such as the operating system and the referrer; a
log without them still tells first requests from later ones. Counts are inflated (see `models.counters`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from models.events import HOUR_US, Float64, Ids, Int32, Int64, RequestLog
from models.keys import PAIR_MASK, KeyIndex, KeyTable, add_key, find_key, grown, pair_keys
from models.leaders import Leaders, LeaderTable, raise_leader
from models.vocabulary import Vocabulary

DEVICE, ARRIVAL = "device", "arrival"
"""Features of a request log that describe who asks, and how the request came about."""
FIRST = 0
"""Arrival of a session before its first request; code c of an arrival counts as c + 2, an unknown one as 1."""


class AudienceTable(NamedTuple):
    """Everything that a request changes. Counts are (rows, 1)."""

    per_hour: float
    timeout_us: int
    sessions: KeyTable
    arrival: Int32  # how the last request of each session came about
    last_us: Int64
    audiences: KeyTable  # key (device + 1, arrival + 2 or FIRST)
    total: Float64
    cells: KeyTable  # key (content, audience row)
    cell: Float64
    leaders: LeaderTable


@njit(cache=True)
def audience_key(device: int, arrival: int) -> np.int64:
    """Key of an audience; `arrival` as counted in `FIRST`."""
    return (np.int64(device + 1) << 32) | np.int64(arrival)


@njit(cache=True)
def _count(first: int, log: tuple[Int64, Int32, Int32, Int32, Int32], table: AudienceTable, base_us: int) -> int:
    """Counts rows of (ts_us, session, content, device, arrival) from `first` on; stops where an index is full."""
    ts_us, session, content, device, arrival = log
    for i in range(first, len(ts_us)):
        full = table.cells.size[0] >= len(table.cell) or table.sessions.size[0] >= len(table.last_us)
        if full or table.audiences.size[0] >= len(table.total):
            return i
        came = FIRST
        if session[i] >= 0:
            known = table.sessions.size[0]
            row = add_key(table.sessions, np.int64(session[i]))
            if row < known and ts_us[i] - table.last_us[row] <= table.timeout_us:
                came = table.arrival[row] + 2
            table.arrival[row], table.last_us[row] = arrival[i], ts_us[i]
        audience = add_key(table.audiences, audience_key(device[i], came))
        cell = add_key(table.cells, (np.int64(content[i]) << 32) | audience)
        weight = 2.0 ** ((ts_us[i] - base_us) / HOUR_US * table.per_hour)
        table.total[audience, 0] += weight
        table.cell[cell, 0] += weight
        raise_leader(table.leaders, int(audience), cell, 0, table.cell)
    return len(ts_us)


@njit(cache=True)
def find_audiences(table: KeyTable, device: Int32, arrival: Int32, first: npt.NDArray[np.bool_]) -> Int64:
    """Row of each session's audience, -1 where it never asked for anything. (n,)"""
    rows = np.empty(len(device), dtype=np.int64)
    for i in range(len(device)):
        rows[i] = find_key(table, audience_key(device[i], FIRST if first[i] else arrival[i] + 2))
    return rows


class Audiences:
    """Audiences in order of first request, with what each one requested lately.

    Attributes:
        device_ids: devices by code.
        arrival_ids: arrivals by code.
    """

    def __init__(self, *, half_life_hours: float, timeout_us: int, places: int) -> None:
        self.per_hour = 1 / half_life_hours
        self.timeout_us = timeout_us
        self.device_ids, self.arrival_ids = Vocabulary(), Vocabulary()
        self.index, self.cells, self.sessions = KeyIndex(capacity=64), KeyIndex(), KeyIndex()
        self.total, self.cell = np.zeros((64, 1)), np.zeros((self.cells.capacity, 1))
        self.arrival = np.full(self.sessions.capacity, -1, dtype=np.int32)
        self.last_us = np.zeros(self.sessions.capacity, dtype=np.int64)
        self.leaders = Leaders(groups=64, rows=self.cells.capacity, n_half_lives=1, places=places)

    @property
    def table(self) -> AudienceTable:
        return AudienceTable(
            self.per_hour,
            self.timeout_us,
            self.sessions.table,
            self.arrival,
            self.last_us,
            self.index.table,
            self.total,
            self.cells.table,
            self.cell,
            self.leaders.table,
        )

    def codes(self, log: RequestLog) -> tuple[Int32, Int32]:
        """Device and arrival of each request in the codes kept here, -1 where unknown; new ones become known."""
        return tuple(
            _recoded(ids, log.features.get(name), log.feature_values.get(name), len(log))
            for ids, name in ((self.device_ids, DEVICE), (self.arrival_ids, ARRIVAL))
        )  # type: ignore[return-value]

    def feed(self, log: tuple[Int64, Int32, Int32, Int32, Int32], *, base_us: int) -> None:
        """Counts rows of (ts_us, session, content, device, arrival)."""
        done = 0
        while True:
            done = _count(done, log, self.table, base_us)
            if done == len(log[0]):
                return
            self._reserve(int(log[0][done]))

    def rows(self, device: Int32, arrival: Int32, first: npt.NDArray[np.bool_]) -> Int64:
        """Row of each session's audience, -1 where it never asked for anything. (n,)"""
        rows: Int64 = find_audiences(self.index.table, device, arrival, first)
        return rows

    def scale(self, hours: float) -> None:
        """Moves the base instant `hours` on."""
        factor = 2.0 ** (-hours * self.per_hour)
        self.total *= factor
        self.cell *= factor

    def forget(self, minimum: float, *, before_us: int) -> None:
        """Drops cells counted less than `minimum` and sessions that ended; counts must be in units of now.

        What is dropped leaves the total of its audience too: an audience of which nothing is left says nothing.
        """
        n = len(self.cells)
        rows = np.flatnonzero(self.cell[:n, 0] >= minimum)
        if len(rows) < n:
            self._set_cells(self.cells.keys[rows], self.cell[rows])
            kept = self.cell[: len(rows), 0]
            self.total[:, 0] = np.bincount(self.cells.keys & PAIR_MASK, weights=kept, minlength=len(self.total))
        self._keep_sessions(before_us)

    def end_sessions(self) -> None:
        """Forgets which sessions are under way."""
        self._keep_sessions(int(np.iinfo(np.int64).max))

    def merge(self, other: Audiences, *, content_of: Int64, hours: float) -> None:
        """Adds the counts of another, whose base instant lies `hours` before this one's."""
        factor = 2.0 ** (-hours * self.per_hour)
        keys = other.index.keys
        device = _adopted(self.device_ids, other.device_ids)[(keys >> 32) - 1]
        arrival = (keys & PAIR_MASK) - 2
        known = _adopted(self.arrival_ids, other.arrival_ids)[np.maximum(arrival, -1)]
        mine = pair_keys(device + 1, np.where(arrival >= 0, known + 2, arrival + 2))
        self._reserve_audiences(len(mine))
        rows = self.index.add(mine)
        self.total[rows] += other.total[: len(rows)] * factor
        theirs = other.cells.keys
        wanted = pair_keys(content_of[theirs >> 32], rows[theirs & PAIR_MASK])
        cells = KeyIndex(self.cells.keys, capacity=len(self.cells) + len(wanted))
        counts = grown(self.cell[: len(self.cells)], cells.capacity)
        np.add.at(counts, cells.add(wanted), other.cell[: len(wanted)] * factor)
        self._set_cells(cells.keys, counts[: len(cells)])
        self._add_sessions(other)

    def state(self, *, before_us: int) -> dict[str, dict[str, Any]]:
        """Columns of the tables that a saved store keeps; sessions that ended before an instant are left out."""
        n, m, s = len(self.index), len(self.cells), len(self.sessions)
        open_ = np.flatnonzero(self.last_us[:s] >= before_us)
        open_ = open_[np.argsort(self.sessions.keys[open_])]
        return {
            "audience_devices": {"device": pa.array(self.device_ids.ids, type=pa.string())},
            "audience_arrivals": {"arrival": pa.array(self.arrival_ids.ids, type=pa.string())},
            "audiences": {"audience": self.index.keys, "count": self.total[:n, 0]},
            "audience_cells": {"cell": self.cells.keys, "count": self.cell[:m, 0]},
            "audience_sessions": {
                "session": self.sessions.keys[open_],
                "arrival": self.arrival[open_],
                "last_us": self.last_us[open_],
            },
        }

    def fill(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes over what `state` gave."""
        self.device_ids = Vocabulary(np.asarray(state["audience_devices"]["device"], dtype=object))
        self.arrival_ids = Vocabulary(np.asarray(state["audience_arrivals"]["arrival"], dtype=object))
        keys = np.asarray(state["audiences"]["audience"], dtype=np.int64)
        self._reserve_audiences(len(keys))
        rows = self.index.add(keys)
        self.total[rows, 0] = state["audiences"]["count"]
        cells = state["audience_cells"]
        self._set_cells(np.asarray(cells["cell"], dtype=np.int64), np.asarray(cells["count"], dtype=float)[:, None])
        sessions = state["audience_sessions"]
        self._set_sessions(*(np.asarray(sessions[name]) for name in ("session", "arrival", "last_us")))

    def _reserve(self, now_us: int) -> None:
        if len(self.sessions) == self.sessions.capacity:
            self._keep_sessions(now_us - self.timeout_us)
        if len(self.index) == len(self.total):
            self._reserve_audiences(1)
        if len(self.cells) == len(self.cell):
            self.cells.reserve(1)
            self.cell = grown(self.cell, self.cells.capacity)
            self.leaders.reserve(groups=len(self.total), rows=len(self.cell))

    def _reserve_audiences(self, extra: int) -> None:
        self.index.reserve(extra)
        self.total = grown(self.total, self.index.capacity)
        self.leaders.reserve(groups=len(self.total), rows=len(self.cell))

    def _set_cells(self, keys: Int64, counts: Float64) -> None:
        self.cells = KeyIndex(keys, capacity=len(keys) + 512)
        self.cell = grown(np.ascontiguousarray(counts), self.cells.capacity)
        places = self.leaders.table.item.shape[2]
        self.leaders = Leaders(groups=len(self.total), rows=len(self.cell), n_half_lives=1, places=places)
        self.leaders.rebuild(np.arange(len(keys)), keys & PAIR_MASK, self.cell)

    def _keep_sessions(self, oldest_us: int) -> None:
        rows = np.flatnonzero(self.last_us[: len(self.sessions)] >= oldest_us)
        self._set_sessions(self.sessions.keys[rows], self.arrival[rows], self.last_us[rows])

    def _add_sessions(self, other: Audiences) -> None:
        n, m = len(self.sessions), len(other.sessions)
        arrival = _adopted(self.arrival_ids, other.arrival_ids).astype(np.int32)[other.arrival[:m]]
        self._set_sessions(
            np.concatenate([self.sessions.keys, other.sessions.keys]),
            np.concatenate([self.arrival[:n], arrival]),
            np.concatenate([self.last_us[:n], other.last_us[:m]]),
        )

    def _set_sessions(self, session: Int64, arrival: Int32, last_us: Int64) -> None:
        self.sessions = KeyIndex(capacity=2 * len(session) + 512)
        self.arrival = np.full(self.sessions.capacity, -1, dtype=np.int32)
        self.last_us = np.zeros(self.sessions.capacity, dtype=np.int64)
        rows = self.sessions.add(session.astype(np.int64))
        self.arrival[rows], self.last_us[rows] = arrival, last_us


def _recoded(ids: Vocabulary, codes: Int32 | None, values: Ids | None, n: int) -> Int32:
    if codes is None or values is None:
        return np.full(n, -1, dtype=np.int32)
    known = codes >= 0
    recoded = np.full(n, -1, dtype=np.int32)
    if known.any():
        recoded[known] = ids.recode(codes[known], values)
    return recoded


def _adopted(mine: Vocabulary, theirs: Vocabulary) -> Int64:
    """Codes here for all codes there, and -1 for -1."""
    codes = mine.recode(np.arange(len(theirs), dtype=np.int32), theirs.ids) if len(theirs) else np.zeros(0, np.int32)
    return np.append(codes.astype(np.int64), -1)
