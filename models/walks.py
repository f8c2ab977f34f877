"""Sessions as walks over contents: what follows what, and where sessions stand now.

Rules. A session goes on while its requests are at most `timeout_us` apart; later requests of the same session begin a
new walk. A request for the content that the session is already at is a **repeat**: it keeps the session alive and moves
nothing, so the segments of one content are one visit. Requests at equal instants count in input order. A request
without a session counts as a request, but is on no walk.

`visits(x)` counts arrivals at x, so `P(i | x) = C(x -> i) / visits(x)` sums to less than one: the rest stops at x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from models.events import HOUR_US, Float64, Int32, Int64
from models.keys import Key, KeyIndex, KeyTable, add_key, find_key, grown
from models.successors import SuccessorLists, SuccessorTable, add_successor, pool_has_room


class SessionTable(NamedTuple):
    """State of every session heard of lately; a row per session code."""

    session_index: KeyTable
    last: Int32
    """Content where the session is."""
    before: Int32
    """Content where it was before, or -1."""
    cell: Int32
    """Row of the cell (content, location) where it is."""
    last_us: Int64


class WalkTable(NamedTuple):
    """Everything that a step of a walk changes."""

    sessions: SessionTable
    moves: SuccessorTable
    visits: Float64  # (contents, half-lives)
    contexts: KeyTable  # key (content before, content)
    context_moves: SuccessorTable
    occupancy: Float64  # (cells,)


class WalkRates(NamedTuple):
    """Decay per hour and limits, as jitted code wants them."""

    per_hour: Float64  # 1 / half-life of transitions, fast to slow
    active_per_hour: float
    timeout_us: int
    cap: int
    context_cap: int


@njit(cache=True)
def _room(table: WalkTable, rates: WalkRates) -> bool:
    return (
        table.sessions.session_index.size[0] < len(table.sessions.last)
        and table.contexts.size[0] < len(table.context_moves.start)
        and pool_has_room(table.moves, rates.cap)
        and pool_has_room(table.context_moves, rates.context_cap)
    )


@njit(cache=True)
def _leave(table: WalkTable, row: Key, base_us: int, rates: WalkRates) -> None:
    arrived = (table.sessions.last_us[row] - base_us) / HOUR_US
    cell = table.sessions.cell[row]
    rest = table.occupancy[cell] - 2.0 ** (arrived * rates.active_per_hour)
    table.occupancy[cell] = max(rest, 0.0)


@njit(cache=True)
def _move(table: WalkTable, row: Key, content: int, weight: Float64, rates: WalkRates) -> None:
    x1, x2 = np.int64(table.sessions.last[row]), np.int64(table.sessions.before[row])
    add_successor(table.moves, x1, content, weight, rates.cap)
    if x2 >= 0:
        context = add_key(table.contexts, (x2 << 32) | x1)
        add_successor(table.context_moves, context, content, weight[len(weight) - 1 :], rates.context_cap)


@njit(cache=True)
def follow(first: int, log: tuple[Int64, Int32, Int32, Int32], table: WalkTable, base_us: int, rates: WalkRates) -> int:
    """Follows rows of (ts_us, session, content, cell) from `first` on; stops where an array is full."""
    ts_us, session, content, cell = log
    weight = np.empty(len(rates.per_hour))
    sessions = table.sessions
    for i in range(first, len(ts_us)):
        if session[i] < 0:
            continue
        if not _room(table, rates):
            return i
        row = find_key(sessions.session_index, np.int64(session[i]))
        known = row >= 0
        live = known and ts_us[i] - sessions.last_us[row] <= rates.timeout_us
        if live:
            _leave(table, row, base_us, rates)
        if not known:
            row = add_key(sessions.session_index, np.int64(session[i]))
        x = content[i]
        hours = (ts_us[i] - base_us) / HOUR_US
        if not (live and sessions.last[row] == x):
            for h in range(len(weight)):
                weight[h] = 2.0 ** (hours * rates.per_hour[h])
                table.visits[x, h] += weight[h]
            if live:
                _move(table, row, x, weight, rates)
            sessions.before[row] = sessions.last[row] if live else -1
            sessions.last[row] = x
        sessions.cell[row] = cell[i]
        sessions.last_us[row] = ts_us[i]
        table.occupancy[cell[i]] += 2.0 ** (hours * rates.active_per_hour)
    return len(ts_us)


class OpenSessions:
    """The sessions that may still go on; those that timed out are forgotten when room is needed."""

    def __init__(self) -> None:
        self._resize(KeyIndex())

    def _resize(self, index: KeyIndex) -> None:
        self.index = index
        n = index.capacity
        self.last = np.full(n, -1, dtype=np.int32)
        self.before = np.full(n, -1, dtype=np.int32)
        self.cell = np.full(n, -1, dtype=np.int32)
        self.last_us = np.zeros(n, dtype=np.int64)

    @property
    def table(self) -> SessionTable:
        return SessionTable(self.index.table, self.last, self.before, self.cell, self.last_us)

    def rows_since(self, oldest_us: int) -> Int64:
        return np.flatnonzero(self.last_us[: len(self.index)] >= oldest_us)

    def reserve(self, *, oldest_us: int) -> None:
        """Forgets sessions last heard of before `oldest_us` and leaves room for as many again."""
        rows = self.rows_since(oldest_us)
        kept = (self.index.keys[rows], self.last[rows], self.before[rows], self.cell[rows], self.last_us[rows])
        self.fill(*kept)

    def fill(self, session: Int64, last: Int32, before: Int32, cell: Int32, last_us: Int64) -> None:
        self._resize(KeyIndex(session, capacity=2 * len(session) + 512))
        n = len(session)
        self.last[:n], self.before[:n], self.cell[:n], self.last_us[:n] = last, before, cell, last_us


class Walks:
    """Open sessions, transitions of order 1 and 2, visits, and the presence of sessions in cells."""

    def __init__(
        self,
        *,
        half_lives_hours: tuple[float, ...],
        active_half_life_hours: float,
        timeout_us: int,
        cap: int,
        context_cap: int,
    ) -> None:
        n = len(half_lives_hours)
        self.rates = WalkRates(
            1 / np.array(half_lives_hours, dtype=np.float64),
            1 / active_half_life_hours,
            timeout_us,
            cap,
            context_cap,
        )
        self.sessions = OpenSessions()
        self.moves = SuccessorLists(rows=0, n_half_lives=n, cap=cap)
        self.visits = np.zeros((0, n))
        self.contexts = KeyIndex()
        self.context_moves = SuccessorLists(rows=self.contexts.capacity, n_half_lives=1, cap=context_cap)
        self.occupancy = np.zeros(0)

    @property
    def table(self) -> WalkTable:
        return WalkTable(
            self.sessions.table,
            self.moves.table,
            self.visits,
            self.contexts.table,
            self.context_moves.table,
            self.occupancy,
        )

    def reserve(self, *, contents: int, cells: int) -> None:
        """Makes room for content codes below `contents` and cell rows below `cells`."""
        if contents > len(self.visits):
            self.visits = grown(self.visits, 2 * contents)
            self.moves.reserve_rows(2 * contents)
        if cells > len(self.occupancy):
            self.occupancy = grown(self.occupancy, 2 * cells)

    def feed(self, ts_us: Int64, session: Int32, content: Int32, cell: Int32, *, base_us: int) -> None:
        done = 0
        while True:
            done = follow(done, (ts_us, session, content, cell), self.table, base_us, self.rates)
            if done == len(ts_us):
                return
            self._reserve(int(ts_us[done]))

    def _reserve(self, now_us: int) -> None:
        if len(self.sessions.index) == self.sessions.index.capacity:
            self.sessions.reserve(oldest_us=now_us - self.rates.timeout_us)
        self.reserve_contexts(1)
        for lists in (self.moves, self.context_moves):
            if lists.table.pool_end[0] + lists.cap > len(lists.table.item):
                lists.reserve_pool()

    def reserve_contexts(self, extra: int) -> None:
        self.contexts.reserve(extra)
        self.context_moves.reserve_rows(self.contexts.capacity)

    def scale(self, hours: float) -> None:
        """Moves the base instant `hours` on."""
        factors = 2.0 ** (-hours * self.rates.per_hour)
        self.visits *= factors
        self.moves.scale(factors)
        self.context_moves.scale(factors[-1:])
        self.occupancy *= 2.0 ** (-hours * self.rates.active_per_hour)
