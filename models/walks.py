"""Sessions as walks over contents: what follows what, and where sessions stand now.

Rules. A session goes on while its requests are at most `timeout_us` apart; later requests of the same session begin a
new walk. A request for the content that the session is already at is a **repeat**: it keeps the session alive and moves
nothing, so the segments of one content are one visit. Requests at equal instants count in input order. A request
without a session counts as a request, but is on no walk.

A step from ..., x3, x2, x1 to i, in a session that was last in the cell (x1, l), counts

    moves          x1 -> i              1
    context_moves  (x2, x1) -> i        1
    local_moves    (x1, l) -> i         1
    skips          x2 -> i, x3 -> i     1/2, 1/3   (sequential rules, 1 / steps back; one step back is in `moves`)

`visits(x)` counts arrivals at x, so `P(i | x) = C(x -> i) / visits(x)` sums to less than one: the rest stops at x.

Source of the skip rules: Ludewig & Jannach, Evaluation of session-based recommendation algorithms, 2018 (SR).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from models.events import HOUR_US, Float64, Int32, Int64
from models.keys import Key, KeyIndex, KeyTable, add_key, find_key, grown
from models.open_sessions import OpenSessions, SessionTable
from models.successors import SuccessorLists, SuccessorTable, add_successor, pool_has_room

if TYPE_CHECKING:
    from models.counter_settings import CounterSettings


class WalkTable(NamedTuple):
    """Everything that a step of a walk changes."""

    sessions: SessionTable
    moves: SuccessorTable
    visits: Float64  # (contents, half-lives)
    contexts: KeyTable  # key (content before, content)
    context_moves: SuccessorTable
    local_moves: SuccessorTable  # a row per cell
    skips: SuccessorTable
    occupancy: Float64  # (cells,)


class WalkRates(NamedTuple):
    """Decay per hour and limits, as jitted code wants them."""

    per_hour: Float64  # 1 / half-life of transitions, fast to slow
    local_per_hour: float
    skip_per_hour: float
    active_per_hour: float
    timeout_us: int
    cap: int
    context_cap: int
    local_cap: int
    skip_cap: int


@njit(cache=True)
def _room(table: WalkTable, rates: WalkRates) -> bool:
    return (
        table.sessions.session_index.size[0] < len(table.sessions.last_us)
        and table.contexts.size[0] < len(table.context_moves.start)
        and pool_has_room(table.moves, rates.cap)
        and pool_has_room(table.context_moves, rates.context_cap)
        and pool_has_room(table.local_moves, rates.local_cap)
        and pool_has_room(table.skips, 2 * rates.skip_cap)
    )


@njit(cache=True)
def _leave(table: WalkTable, row: Key, base_us: int, rates: WalkRates) -> None:
    arrived = (table.sessions.last_us[row] - base_us) / HOUR_US
    cell = table.sessions.cell[row]
    rest = table.occupancy[cell] - 2.0 ** (arrived * rates.active_per_hour)
    table.occupancy[cell] = max(rest, 0.0)


@njit(cache=True)
def _move(table: WalkTable, row: Key, content: int, hours: float, weight: Float64, rates: WalkRates) -> None:
    """Counts one step; `weight` holds the inflated weights of transitions and one place more for other half-lives."""
    items = table.sessions.items[row]
    x1, x2, x3 = np.int64(items[-1]), np.int64(items[-2]), np.int64(items[-3])
    n = len(rates.per_hour)
    other = weight[n:]
    add_successor(table.moves, x1, content, weight[:n], rates.cap)
    other[0] = 2.0 ** (hours * rates.local_per_hour)
    add_successor(table.local_moves, np.int64(table.sessions.cell[row]), content, other, rates.local_cap)
    if x2 < 0:
        return
    context = add_key(table.contexts, (x2 << 32) | x1)
    add_successor(table.context_moves, context, content, weight[n - 1 : n], rates.context_cap)
    skip = 2.0 ** (hours * rates.skip_per_hour)
    other[0] = skip / 2.0
    add_successor(table.skips, x2, content, other, rates.skip_cap)
    if x3 >= 0:
        other[0] = skip / 3.0
        add_successor(table.skips, x3, content, other, rates.skip_cap)


@njit(cache=True)
def _arrive(items: Int32, content: int, live: bool) -> None:
    """Puts a content behind those that the session looked at before."""
    last = len(items) - 1
    for j in range(last):
        items[j] = items[j + 1] if live else -1
    items[last] = content


@njit(cache=True)
def follow(first: int, log: tuple[Int64, Int32, Int32, Int32], table: WalkTable, base_us: int, rates: WalkRates) -> int:
    """Follows rows of (ts_us, session, content, cell) from `first` on; stops where an array is full."""
    ts_us, session, content, cell = log
    n = len(rates.per_hour)
    weight = np.empty(n + 1)
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
        if not (live and sessions.items[row, -1] == x):
            for h in range(n):
                weight[h] = 2.0 ** (hours * rates.per_hour[h])
                table.visits[x, h] += weight[h]
            if live:
                _move(table, row, x, hours, weight, rates)
            _arrive(sessions.items[row], x, bool(live))
        sessions.cell[row] = cell[i]
        sessions.last_us[row] = ts_us[i]
        table.occupancy[cell[i]] += 2.0 ** (hours * rates.active_per_hour)
    return len(ts_us)


class Walks:
    """Open sessions, transitions of all kinds, visits, and the presence of sessions in cells.

    Attributes:
        rates: decay and limits.
        sessions: those that may go on.
        moves: content -> next content, at all transition half-lives; it feeds the flow, so in double precision.
        visits: arrivals. (contents, half-lives)
        contexts: pairs (content before, content), the rows of `context_moves`, at the slowest half-life.
        local_moves: cell -> next content, a row per cell.
        skips: content -> contents two and three steps on.
        occupancy: inflated presence. (cells,)
    """

    def __init__(self, settings: CounterSettings) -> None:
        s = settings
        self.rates = WalkRates(
            1 / np.array(s.transition_half_lives_hours, dtype=np.float64),
            1 / s.local_transition_half_life_hours,
            1 / s.skip_half_life_hours,
            1 / s.active_half_life_hours,
            int(s.session_timeout_minutes * 60_000_000),
            s.successor_cap,
            s.context_successor_cap,
            s.local_successor_cap,
            s.skip_cap,
        )
        n = len(s.transition_half_lives_hours)
        self.sessions = OpenSessions()
        self.moves = SuccessorLists(rows=0, n_half_lives=n, cap=s.successor_cap)
        self.visits = np.zeros((0, n))
        self.contexts = KeyIndex()
        self.context_moves = self._single(s.context_successor_cap, rows=self.contexts.capacity)
        self.local_moves = self._single(s.local_successor_cap)
        self.skips = self._single(s.skip_cap)
        self.occupancy = np.zeros(0)

    @staticmethod
    def _single(cap: int, *, rows: int = 0) -> SuccessorLists:
        return SuccessorLists(rows=rows, n_half_lives=1, cap=cap, dtype=np.float32)

    @property
    def table(self) -> WalkTable:
        return WalkTable(
            self.sessions.table,
            self.moves.table,
            self.visits,
            self.contexts.table,
            self.context_moves.table,
            self.local_moves.table,
            self.skips.table,
            self.occupancy,
        )

    @property
    def lists(self) -> tuple[tuple[SuccessorLists, Float64], ...]:
        """Every kind of list with its decay per hour, fast to slow."""
        r = self.rates
        return (
            (self.moves, r.per_hour),
            (self.context_moves, r.per_hour[-1:]),
            (self.local_moves, np.array([r.local_per_hour])),
            (self.skips, np.array([r.skip_per_hour])),
        )

    def reserve(self, *, contents: int, cells: int) -> None:
        """Makes room for content codes below `contents` and cell rows below `cells`."""
        if contents > len(self.visits):
            self.visits = grown(self.visits, contents + contents // 2)
            self.moves.reserve_rows(len(self.visits))
            self.skips.reserve_rows(len(self.visits))
        if cells > len(self.occupancy):
            self.occupancy = grown(self.occupancy, cells)
            self.local_moves.reserve_rows(cells)

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
        for lists, _ in self.lists:
            if lists.table.pool_end[0] + 2 * lists.cap > len(lists.table.item):
                lists.reserve_pool()

    def reserve_contexts(self, extra: int) -> None:
        self.contexts.reserve(extra)
        self.context_moves.reserve_rows(self.contexts.capacity)

    def scale(self, hours: float) -> None:
        """Moves the base instant `hours` on."""
        self.visits *= 2.0 ** (-hours * self.rates.per_hour)
        for lists, per_hour in self.lists:
            lists.scale(2.0 ** (-hours * per_hour))
        self.occupancy *= 2.0 ** (-hours * self.rates.active_per_hour)

    def forget(self, minimum: float, *, before_us: int) -> None:
        """Drops successors whose slow weight is below `minimum`, pairs left without any, and sessions timed out."""
        self.sessions.reserve(oldest_us=before_us - self.rates.timeout_us)
        for lists, _ in self.lists:
            lists.forget(minimum)
        kept = np.flatnonzero(self.context_moves.table.length[: len(self.contexts)])
        self.contexts = KeyIndex(self.contexts.keys[kept])
        self.context_moves.keep_rows(kept)
        self.reserve_contexts(0)

    def keep_cells(self, rows: Int64, row_of: Int32, *, capacity: int) -> None:
        """Keeps some cells only; `row_of` gives the new row of each old one."""
        self.occupancy = grown(self.occupancy[rows], capacity)
        self.local_moves.keep_rows(rows)
        self.local_moves.reserve_rows(capacity)
        n = len(self.sessions.index)
        self.sessions.cell[:n] = row_of[self.sessions.cell[:n]]
