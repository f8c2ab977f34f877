"""Capped successor lists: decayed counts of what followed what.

`total(x) = escaped(x) + sum over listed i of C(x -> i)`, over *everything* that ever followed x. A list keeps at most
`cap` successors; a newcomer to a full list takes the place of the one with the smallest slow weight. What was evicted
or forgotten stays in `escaped`, the mass that a predictor must give to its back-off.

Weights are inflated (see `models.counters`): all are in units of one base instant. Lists in single precision count
exactly to seven digits, and stop rising at 2^24 = 17 million effective transitions of one successor.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from models.events import Float64, Int32, Int64
from models.keys import Key, grown, pair_keys

Int16 = npt.NDArray[np.int16]
Weights: TypeAlias = npt.NDArray[Any]
"""Inflated weights in the precision of their list."""

LEAST_POOL = 256


class SuccessorTable(NamedTuple):
    """What jitted code sees: row r owns pool entries start[r] .. start[r] + length[r]."""

    start: Int32
    room: Int16
    length: Int16
    escaped: Weights  # (rows, half-lives)
    item: Int32  # (pool,)
    weight: Weights  # (pool, half-lives)
    pool_end: Int64  # (1,)


@njit(cache=True)
def pool_has_room(table: SuccessorTable, cap: int) -> bool:
    return bool(table.pool_end[0] + cap <= len(table.item))


@njit(cache=True)
def list_total(table: SuccessorTable, row: Key, h: int) -> float:
    """Everything that ever followed a row, inflated."""
    total = np.float64(table.escaped[row, h])
    for j in range(table.start[row], table.start[row] + table.length[row]):
        total += table.weight[j, h]
    return total


@njit(cache=True)
def _move_to_larger(table: SuccessorTable, row: Key, cap: int) -> None:
    old = np.int64(table.start[row])
    new = table.pool_end[0]
    room = int(min(max(1, 2 * int(table.room[row])), cap))
    for j in range(table.length[row]):
        table.item[new + j] = table.item[old + j]
        for h in range(table.weight.shape[1]):
            table.weight[new + j, h] = table.weight[old + j, h]
    table.start[row] = new
    table.room[row] = room
    table.pool_end[0] += room


@njit(cache=True)
def add_successor(table: SuccessorTable, row: Key, item: int, weight: Float64, cap: int) -> None:
    """Adds one transition; the caller has checked `pool_has_room`."""
    n_half_lives = table.weight.shape[1]
    start, length = np.int64(table.start[row]), np.int64(table.length[row])
    for j in range(start, start + length):
        if table.item[j] == item:
            for h in range(n_half_lives):
                table.weight[j, h] += weight[h]
            return
    if length < cap:
        if length == table.room[row]:
            _move_to_larger(table, row, cap)
        place = table.start[row] + length
        table.length[row] = length + 1
    else:
        place = start
        for j in range(start + 1, start + length):
            if table.weight[j, n_half_lives - 1] < table.weight[place, n_half_lives - 1]:
                place = j
        for h in range(n_half_lives):
            table.escaped[row, h] += table.weight[place, h]
    table.item[place] = item
    for h in range(n_half_lives):
        table.weight[place, h] = weight[h]


@njit(cache=True)
def _drop_faded(table: SuccessorTable, minimum: float) -> None:
    """Takes entries of a slow weight below `minimum` off their lists; the rest keeps its order."""
    n_half_lives = table.weight.shape[1]
    for row in range(len(table.length)):
        start = np.int64(table.start[row])
        place = start
        for j in range(start, start + table.length[row]):
            if table.weight[j, n_half_lives - 1] >= minimum:
                table.item[place] = table.item[j]
                for h in range(n_half_lives):
                    table.weight[place, h] = table.weight[j, h]
                place += 1
            else:
                for h in range(n_half_lives):
                    table.escaped[row, h] += table.weight[j, h]
        table.length[row] = place - start


@njit(cache=True)
def _copy_lists(start: Int32, length: Int16, values: Weights, new_start: Int32, into: Weights) -> None:
    """Moves pool entries, (pool, width), list by list."""
    for row in range(len(length)):
        old, new = np.int64(start[row]), np.int64(new_start[row])
        for j in range(length[row]):
            for h in range(values.shape[1]):
                into[new + j, h] = values[old + j, h]


class SuccessorLists:
    """Lists for `rows` contexts at half-lives ordered from fast to slow; the last one rules evictions."""

    def __init__(self, *, rows: int, n_half_lives: int, cap: int, dtype: type = np.float64) -> None:
        self.cap = cap
        pool = LEAST_POOL + 2 * cap
        self.table = SuccessorTable(
            np.zeros(rows, dtype=np.int32),
            np.zeros(rows, dtype=np.int16),
            np.zeros(rows, dtype=np.int16),
            np.zeros((rows, n_half_lives), dtype=dtype),
            np.zeros(pool, dtype=np.int32),
            np.zeros((pool, n_half_lives), dtype=dtype),
            np.zeros(1, dtype=np.int64),
        )

    def reserve_rows(self, capacity: int) -> None:
        t = self.table
        self.table = t._replace(
            start=grown(t.start, capacity),
            room=grown(t.room, capacity),
            length=grown(t.length, capacity),
            escaped=grown(t.escaped, capacity),
        )

    def reserve_pool(self) -> None:
        """Drops the space that moved lists left behind and leaves room for half as much again."""
        t = self.table
        self._repack(t.room)

    def _repack(self, room: Int16) -> None:
        t = self.table
        start, end = _starts(room)
        pool = end + end // 2 + LEAST_POOL + 2 * self.cap
        item = np.zeros((pool, 1), dtype=np.int32)
        _copy_lists(t.start, t.length, t.item[:, None], start, item)
        # The old items go before the new weights come, so that less is held at once.
        self.table = t = t._replace(item=item[:, 0])
        weight = np.zeros((pool, t.weight.shape[1]), dtype=t.weight.dtype)
        _copy_lists(t.start, t.length, t.weight, start, weight)
        self.table = t._replace(start=start, room=room, weight=weight, pool_end=np.array([end], dtype=np.int64))

    def forget(self, minimum: float) -> None:
        """Drops entries whose slow weight is below `minimum`, in inflated units, and the space they took."""
        _drop_faded(self.table, minimum)
        self._repack(_rooms(self.table.length, self.cap))

    def keep_rows(self, rows: Int64) -> None:
        """Keeps the named rows only, in the given order; their lists are not touched."""
        t = self.table
        self.table = t._replace(start=t.start[rows], room=t.room[rows], length=t.length[rows], escaped=t.escaped[rows])

    def scale(self, factors: Float64) -> None:
        self.table.escaped[:] *= factors.astype(self.table.escaped.dtype)
        self.table.weight[: int(self.table.pool_end[0])] *= factors.astype(self.table.weight.dtype)

    def entries(self) -> tuple[Int64, Int32, Weights]:
        """All lists as (row, successor, weights), by row and in list order."""
        t = self.table
        places = _entries(t.start, t.length)
        return np.repeat(np.arange(len(t.length)), t.length), t.item[places], t.weight[places]

    def successors(self, row: int) -> tuple[Int32, Float64]:
        """Successors of one row and their inflated weights. (m,), (m, half-lives)"""
        t = self.table
        places = slice(int(t.start[row]), int(t.start[row]) + int(t.length[row]))
        return t.item[places], t.weight[places].astype(np.float64)

    def totals(self, row: int) -> Float64:
        """Everything that ever followed one row, inflated. (half-lives,)"""
        total: Float64 = self.table.escaped[row].astype(np.float64) + self.successors(row)[1].sum(axis=0)
        return total

    def fill(self, row: Int64, item: Int32, weight: Weights, escaped: Weights) -> None:
        """Replaces all lists by entries given in order of row; each row's own order is kept."""
        t = self.table
        rows, dtype = len(t.length), t.weight.dtype
        length = np.bincount(row, minlength=rows).astype(np.int16)
        room = _rooms(length, self.cap)
        start, end = _starts(room)
        items = np.zeros(end + end // 2 + LEAST_POOL + 2 * self.cap, dtype=np.int32)
        weights = np.zeros((len(items), weight.shape[1]), dtype=dtype)
        places = _entries(start, length)
        items[places], weights[places] = item, weight
        mass = np.zeros((rows, weight.shape[1]), dtype=dtype)
        mass[: len(escaped)] = escaped
        self.table = SuccessorTable(start, room, length, mass, items, weights, np.array([end], dtype=np.int64))


def merged_entries(row: Int64, item: Int32, weight: Weights) -> tuple[Int64, Int32, Float64]:
    """Sums entries of the same (row, successor); the heaviest of each row by slow weight come first."""
    keys, inverse = np.unique(pair_keys(row, item), return_inverse=True)
    sums = np.zeros((len(keys), weight.shape[1]))
    np.add.at(sums, inverse, weight)
    rows, items = keys >> 32, (keys & 0x7FFFFFFF).astype(np.int32)
    order = np.lexsort((items, -sums[:, -1], rows))
    return rows[order], items[order], sums[order]


def beyond_cap(row: Int64, cap: int) -> npt.NDArray[np.bool_]:
    """Which entries, given by row, are past the first `cap` of their row. (n,)"""
    beyond: npt.NDArray[np.bool_] = np.arange(len(row)) - np.searchsorted(row, row, side="left") >= cap
    return beyond


def _rooms(length: Int16, cap: int) -> Int16:
    """Pool places given to lists of a length: the next power of two, at most the cap."""
    powers = 2 ** np.ceil(np.log2(np.maximum(length, 1).astype(np.float32)))
    return np.where(length > 0, np.minimum(powers, cap), 0).astype(np.int16)


def _starts(room: Int16) -> tuple[Int32, int]:
    ends = np.cumsum(room, dtype=np.int64)
    return (ends - room).astype(np.int32), int(ends[-1]) if len(ends) else 0


def _entries(start: Int32, length: Int16) -> Int64:
    """Pool places of all lists, list after list."""
    before = np.cumsum(length, dtype=np.int64) - length
    places: Int64 = np.arange(int(length.sum(dtype=np.int64)), dtype=np.int64) + np.repeat(start - before, length)
    return places
