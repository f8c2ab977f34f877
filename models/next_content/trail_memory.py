"""What visitors requested lately, kept up request by request: the trails that sequence networks learn from.

A trail is a visitor's last contents at the instant of a request: those of the session under way, and in front of them
those of earlier sessions that are not older than a day. A session goes on while its requests are at most the timeout
apart; a content twice in a row is one visit. Where the visitor is unknown, the session takes his place; where both are,
nothing is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from models.events import DAY_US, Int32, Int64
from models.keys import KeyIndex, KeyTable, add_key
from models.next_content.sequence import CURRENT, EARLIER, Int8, SequenceBatch
from models.next_content.sessions import SessionBatch

HISTORY = 10
"""Contents of a trail at most."""
SESSION_KEY = np.int64(1) << 32
"""Keys of visitors lie below, those of sessions without a visitor above."""


@dataclass(frozen=True)
class Requests:
    """Requests in time order, in the codes of one store; -1 where unknown. All (n,)."""

    ts_us: Int64
    visitor: Int32
    session: Int32
    content: Int32
    location: Int32
    device: Int32
    arrival: Int32


class TrailTable(NamedTuple):
    """State of every visitor heard of lately."""

    visitors: KeyTable
    items: Int32  # most recent last, -1 in front. (rows, HISTORY)
    times_us: Int64  # of the same. (rows, HISTORY)
    current: Int32  # how many of them the session under way has, at most HISTORY
    session: Int32
    arrival: Int32  # of the last request
    last_us: Int64


@njit(cache=True)
def _copy_trail(table: TrailTable, row: int, live: bool, oldest_us: int, items: Int32, part: Int8) -> None:
    """Fills one trail from its end: the session's contents, then earlier ones, once where they stand side by side."""
    last = len(items) - 1
    place, mine = last, table.current[row] if live else 0
    for back in range(HISTORY):
        item, then_us = table.items[row, HISTORY - 1 - back], table.times_us[row, HISTORY - 1 - back]
        if item < 0 or (back >= mine and then_us < oldest_us):
            return
        if back > mine and place < last and items[place + 1] == item:
            continue
        items[place], part[place] = item, CURRENT if back < mine else EARLIER
        place -= 1


@njit(cache=True)
def _note_request(table: TrailTable, row: int, live: bool, content: int, ts_us: int) -> None:
    for j in range(HISTORY - 1):
        table.items[row, j] = table.items[row, j + 1]
        table.times_us[row, j] = table.times_us[row, j + 1]
    table.items[row, HISTORY - 1], table.times_us[row, HISTORY - 1] = content, ts_us
    table.current[row] = min(table.current[row] + 1, HISTORY) if live else 1


@njit(cache=True)
def _follow(
    first: int,
    log: tuple[Int64, Int64, Int32, Int32, Int32],
    table: TrailTable,
    reach: tuple[int, int],
    out: tuple[Int32, Int8, Int32, npt.NDArray[np.bool_]],
) -> int:
    """Follows (ts_us, key, session, content, arrival) from a row on; stops where the table is full."""
    ts_us, keys, session, content, arrival = log
    items, part, came, moved = out
    timeout_us, earlier_us = reach
    for i in range(first, len(ts_us)):
        if keys[i] < 0:
            continue
        if table.visitors.size[0] >= len(table.last_us):
            return i
        before = table.visitors.size[0]
        row = int(add_key(table.visitors, keys[i]))
        known = row < before
        live = known and table.session[row] == session[i] and ts_us[i] - table.last_us[row] <= timeout_us
        if not (live and table.items[row, HISTORY - 1] == content[i]):
            moved[i] = True
            if known:
                _copy_trail(table, row, live, ts_us[i] - earlier_us, items[i], part[i])
            came[i] = table.arrival[row] if live else -1
            _note_request(table, row, live, content[i], ts_us[i])
        table.session[row], table.arrival[row], table.last_us[row] = session[i], arrival[i], ts_us[i]
    return len(ts_us)


class TrailMemory:
    """The trails of the visitors of the last day.

    Attributes:
        timeout_us: a longer silence ends a session.
        earlier_us: how long contents of earlier sessions count.
    """

    def __init__(self, *, timeout_us: int, earlier_us: int = DAY_US) -> None:
        self.timeout_us = timeout_us
        self.earlier_us = earlier_us
        self._resize(KeyIndex())

    def __len__(self) -> int:
        return len(self.index)

    def follow(self, requests: Requests) -> tuple[SequenceBatch, Int32]:
        """Takes note of requests. Returns the trail before each move, and the content that it went to.

        A repeat of the content that a session is at is no move.
        """
        n = len(requests.ts_us)
        items, part = np.full((n, HISTORY), -1, dtype=np.int32), np.zeros((n, HISTORY), dtype=np.int8)
        came, moved = np.full(n, -1, dtype=np.int32), np.zeros(n, dtype=np.bool_)
        visitor, session = requests.visitor.astype(np.int64), requests.session.astype(np.int64)
        keys = np.where(visitor >= 0, visitor, np.where(session >= 0, session + SESSION_KEY, -1))
        log = (requests.ts_us, keys, requests.session, requests.content, requests.arrival)
        done = 0
        while True:
            reach = (self.timeout_us, self.earlier_us)
            done = _follow(done, log, self.table, reach, (items, part, came, moved))
            if done == n:
                break
            self._forget(int(requests.ts_us[done]))
        features = np.stack([requests.device, came], axis=1).astype(np.int32)
        batch = SequenceBatch(items, requests.location, requests.ts_us, features, part)
        rows = np.flatnonzero(moved)
        return batch.rows(rows), requests.content[rows]

    @property
    def table(self) -> TrailTable:
        return TrailTable(
            self.index.table, self.items, self.times_us, self.current, self.session, self.arrival, self.last_us
        )

    def _resize(self, index: KeyIndex) -> None:
        self.index = index
        n = index.capacity
        self.items = np.full((n, HISTORY), -1, dtype=np.int32)
        self.times_us = np.zeros((n, HISTORY), dtype=np.int64)
        self.current, self.session, self.arrival = (np.full(n, -1, dtype=np.int32) for _ in range(3))
        self.last_us = np.zeros(n, dtype=np.int64)

    def _forget(self, now_us: int) -> None:
        """Drops visitors not heard of for so long that they matter no more, and leaves room for as many again."""
        oldest_us = now_us - max(self.timeout_us, self.earlier_us)
        self._fill(self._state(np.flatnonzero(self.last_us[: len(self.index)] >= oldest_us)))

    def _state(self, rows: Int64) -> dict[str, npt.NDArray[np.integer]]:
        names = ("items", "times_us", "current", "session", "arrival", "last_us")
        return {"key": self.index.keys[rows]} | {name: getattr(self, name)[rows] for name in names}

    def _fill(self, state: dict[str, npt.NDArray[np.integer]]) -> None:
        n = len(state["key"])
        self._resize(KeyIndex(state["key"].astype(np.int64), capacity=2 * n + 512))
        for name, values in state.items():
            if name != "key":
                getattr(self, name)[:n] = values

    def to_arrow(self, now_us: int) -> pa.Table:
        """The visitors of the last day as codes; what they asked for earlier than that is forgotten."""
        oldest_us = now_us - max(self.timeout_us, self.earlier_us)
        rows = np.flatnonzero(self.last_us[: len(self.index)] >= oldest_us)
        state = self._state(rows[np.argsort(self.index.keys[rows])])
        past = np.arange(HISTORY) < HISTORY - state["current"][:, None]
        faded = past & (state["times_us"] < now_us - self.earlier_us)
        state["items"][faded], state["times_us"][faded] = -1, 0
        return pa.table(
            {
                name: pa.array(values)
                if values.ndim == 1
                else pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), HISTORY)
                for name, values in state.items()
            }
        )

    def load(self, table: pa.Table) -> None:
        """Takes over what `to_arrow` gave."""
        state = {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            wide = pa.types.is_fixed_size_list(column.type)
            state[name] = column.flatten().to_numpy().reshape(-1, HISTORY) if wide else column.to_numpy()
        self._fill(state)


def trail_of(sessions: SessionBatch) -> SequenceBatch:
    """The trail of each session as a sequence network reads it: its last contents behind those of earlier sessions."""
    items, part = _joined(sessions.items, sessions.before_this)
    return SequenceBatch(items, sessions.location, sessions.ts_us, sessions.codes[:, 1:], part)


@njit(cache=True)
def _joined(items: Int32, earlier: Int32) -> tuple[Int32, Int8]:
    trails = np.full((len(items), HISTORY), -1, dtype=np.int32)
    part = np.zeros((len(items), HISTORY), dtype=np.int8)
    for i in range(len(items)):
        place = HISTORY - 1
        for side in range(2):
            source = items if side == 0 else earlier
            for back in range(source.shape[1]):
                item = source[i, source.shape[1] - 1 - back]
                if item < 0 or place < 0:
                    break
                trails[i, place], part[i, place] = item, CURRENT if side == 0 else EARLIER
                place -= 1
    return trails, part
