"""Capped successor lists: decayed counts of what followed what.

`total(x) = sum over i of C(x -> i)` over *everything* that ever followed x. A list keeps at most `cap` successors; a
newcomer to a full list takes the place of the one with the smallest slow weight. What was evicted stays in the total,
so `total(x) - sum of the list` is the escape mass that a predictor must give to its back-off.

Weights are inflated (see `models.counters`): all are in units of one base instant.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from models.events import Float64, Int32, Int64
from models.keys import Key, grown, pair_keys


class SuccessorTable(NamedTuple):
    """What jitted code sees: row r owns pool entries start[r] .. start[r] + length[r]."""

    start: Int64
    room: Int32
    length: Int32
    total: Float64  # (rows, half-lives)
    item: Int32  # (pool,)
    weight: Float64  # (pool, half-lives)
    pool_end: Int64  # (1,)


@njit(cache=True)
def pool_has_room(table: SuccessorTable, cap: int) -> bool:
    return bool(table.pool_end[0] + cap <= len(table.item))


@njit(cache=True)
def _move_to_larger(table: SuccessorTable, row: Key, cap: int) -> None:
    old = table.start[row]
    new = table.pool_end[0]
    room = min(max(2, 2 * table.room[row]), cap)
    for j in range(table.length[row]):
        table.item[new + j] = table.item[old + j]
        table.weight[new + j] = table.weight[old + j]
    table.start[row] = new
    table.room[row] = room
    table.pool_end[0] += room


@njit(cache=True)
def add_successor(table: SuccessorTable, row: Key, item: int, weight: Float64, cap: int) -> None:
    """Adds one transition; the caller has checked `pool_has_room`."""
    n_half_lives = table.total.shape[1]
    for h in range(n_half_lives):
        table.total[row, h] += weight[h]
    start, length = table.start[row], table.length[row]
    for j in range(start, start + length):
        if table.item[j] == item:
            for h in range(n_half_lives):
                table.weight[j, h] += weight[h]
            return
    if length < cap:
        if length == table.room[row]:
            _move_to_larger(table, row, cap)
        place = table.start[row] + length
        table.length[row] += 1
    else:
        place = start
        for j in range(start + 1, start + length):
            if table.weight[j, n_half_lives - 1] < table.weight[place, n_half_lives - 1]:
                place = j
    table.item[place] = item
    for h in range(n_half_lives):
        table.weight[place, h] = weight[h]


class SuccessorLists:
    """Lists for `rows` contexts at half-lives ordered from fast to slow; the last one rules evictions."""

    def __init__(self, *, rows: int, n_half_lives: int, cap: int) -> None:
        self.cap = cap
        self.table = SuccessorTable(
            np.zeros(rows, dtype=np.int64),
            np.zeros(rows, dtype=np.int32),
            np.zeros(rows, dtype=np.int32),
            np.zeros((rows, n_half_lives)),
            np.zeros(4 * cap, dtype=np.int32),
            np.zeros((4 * cap, n_half_lives)),
            np.zeros(1, dtype=np.int64),
        )

    def reserve_rows(self, capacity: int) -> None:
        t = self.table
        self.table = t._replace(
            start=grown(t.start, capacity),
            room=grown(t.room, capacity),
            length=grown(t.length, capacity),
            total=grown(t.total, capacity),
        )

    def reserve_pool(self) -> None:
        """Drops the space that moved lists left behind and doubles the rest."""
        t = self.table
        end = int(t.room.sum())
        start = np.concatenate(([0], np.cumsum(t.room[:-1], dtype=np.int64)))
        old, new = _entries(t.start, t.length), _entries(start, t.length)
        item = np.zeros(2 * end + 4 * self.cap, dtype=np.int32)
        weight = np.zeros((len(item), t.weight.shape[1]))
        item[new], weight[new] = t.item[old], t.weight[old]
        self.table = t._replace(start=start, item=item, weight=weight, pool_end=np.array([end], dtype=np.int64))

    def scale(self, factors: Float64) -> None:
        self.table.total[:] *= factors
        self.table.weight[: int(self.table.pool_end[0])] *= factors

    def entries(self) -> tuple[Int64, Int32, Float64]:
        """All lists as (row, successor, weights), by row and in list order."""
        t = self.table
        places = _entries(t.start, t.length)
        return np.repeat(np.arange(len(t.length)), t.length), t.item[places], t.weight[places]

    def successors(self, row: int) -> tuple[Int32, Float64]:
        """Successors of one row and their inflated weights. (m,), (m, half-lives)"""
        t = self.table
        places = slice(int(t.start[row]), int(t.start[row]) + int(t.length[row]))
        return t.item[places], t.weight[places]

    def fill(self, row: Int64, item: Int32, weight: Float64, total: Float64) -> None:
        """Replaces all lists by entries given in order of row; each row's own order is kept."""
        rows = len(self.table.length)
        length = np.bincount(row, minlength=rows).astype(np.int32)
        room = np.where(length > 0, np.minimum(self.cap, 2 ** np.ceil(np.log2(np.maximum(length, 2)))), 0)
        start = np.concatenate(([0], np.cumsum(room[:-1]))).astype(np.int64)
        end = int(room.sum())
        items = np.zeros(2 * end + 4 * self.cap, dtype=np.int32)
        weights = np.zeros((len(items), weight.shape[1]))
        places = _entries(start, length)
        items[places], weights[places] = item, weight
        totals = np.zeros((rows, weight.shape[1]))
        totals[: len(total)] = total
        self.table = SuccessorTable(
            start, room.astype(np.int32), length, totals, items, weights, np.array([end], dtype=np.int64)
        )


def merged_entries(row: Int64, item: Int32, weight: Float64, *, cap: int) -> tuple[Int64, Int32, Float64]:
    """Sums entries of the same (row, successor) and keeps the `cap` heaviest of each row by slow weight."""
    keys, inverse = np.unique(pair_keys(row, item), return_inverse=True)
    sums = np.zeros((len(keys), weight.shape[1]))
    np.add.at(sums, inverse, weight)
    rows, items = keys >> 32, (keys & 0x7FFFFFFF).astype(np.int32)
    order = np.lexsort((items, -sums[:, -1], rows))
    rows, items, sums = rows[order], items[order], sums[order]
    first = np.searchsorted(rows, rows, side="left")
    kept = np.arange(len(rows)) - first < cap
    return rows[kept], items[kept], sums[kept]


def _entries(start: Int64, length: Int32) -> Int64:
    """Pool places of all lists, list after list."""
    before = np.cumsum(length, dtype=np.int64) - length
    places: Int64 = np.arange(int(length.sum()), dtype=np.int64) + np.repeat(start - before, length)
    return places
