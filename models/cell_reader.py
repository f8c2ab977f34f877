"""Counters of many cells read by row: each cell is looked up once, however many numbers are read of it.

What needs a pass over the whole store, the flow of sessions and the counts by hour, is taken once when the reader is
made. Reading a block of cells is then a gather from the store's arrays and the same for any way of cutting blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from models.counters import CounterStore
from models.events import HOUR_US, NEVER_US, Float64, Int32, Int64
from models.flow import flow_by_row
from models.keys import PAIR_MASK, KeyIndex, pair_keys

HoursBack = tuple[int, int]
"""Clock hours [now - first, now - second)."""


@dataclass(frozen=True)
class StoredCells:
    """Cells and where a store keeps them.

    Attributes:
        content, location: codes of the store. (n,)
        row: row of the cell in the store; from `known` on those it has no row for, numbered onwards. (n,)
        known: cell rows of the store.
        strangers: keys of the cells without a row, in the order of their numbers.
    """

    content: Int32
    location: Int32
    row: Int32
    known: int
    strangers: KeyIndex

    def __len__(self) -> int:
        return len(self.content)

    @classmethod
    def find(cls, store: CounterStore, content: Int32, location: Int32) -> StoredCells:
        """Looks cells up."""
        keys = pair_keys(content, location)
        return cls.of_keys(store, keys, store.popularity.index.find(keys).astype(np.int32))

    @classmethod
    def of_keys(cls, store: CounterStore, keys: Int64, row: Int32) -> StoredCells:
        """From keys (content, location) and their rows, -1 where the store has none; `row` is taken over."""
        known, strangers = len(store.popularity.index), KeyIndex()
        missing = np.flatnonzero(row < 0)
        row[missing] = known + strangers.add(keys[missing])
        content, location = (keys >> 32).astype(np.int32), (keys & PAIR_MASK).astype(np.int32)
        return cls(content, location, row, known, strangers)


def active_rows(store: CounterStore, minimum_weight: float) -> Int64:
    """Rows of the cells that `CounterStore.cells` names, in no order that means anything."""
    popularity = store.popularity
    factor = 2.0 ** (-(store.time_us - store.base_us) / HOUR_US * popularity.per_hour[-1])
    return np.flatnonzero(popularity.cell[: len(popularity.index), -1] * factor >= minimum_weight)


class CellReader:
    """Counters of given cells at one instant; every answer is for a slice of them.

    Attributes:
        cells: what can be read.
        at_us: the instant.
        hour_sums: requests of every cell row of the store, then of the strangers, in each range. (rows, ranges)
    """

    def __init__(self, store: CounterStore, cells: StoredCells, *, at_us: int, hours_back: Sequence[HoursBack]) -> None:
        """Takes the passes over the whole store.

        Raises:
            LogOrderError: the store holds requests later than `at_us`.
        """
        self.cells, self.at_us = cells, at_us
        self._store, self._popularity = store, store.popularity
        self._factors = store._rate_factors(at_us)
        table = store._flow_table(at_us, 0)
        self._per_session = table.per_unit
        self._flow: Float64 = flow_by_row(table, store.popularity.index.table, cells.strangers.table)
        self._content_flow = store.content_flow(np.arange(len(store.contents)), at_us)
        self.hour_sums = _hour_sums(store, at_us // HOUR_US, hours_back, rows=cells.known + len(cells.strangers))

    def cell_rates(self, part: slice) -> Float64:
        """Requests per observed hour of cells at each half-life; zero for strangers. (n, half-lives)"""
        return self._rates(self._popularity.cell, self.cells.row[part], known=self.cells.known)

    def content_rates(self, part: slice) -> Float64:
        """The same of the cells' contents. (n, half-lives)"""
        counts = self._popularity.content
        return self._rates(counts, self.cells.content[part], known=len(counts))

    def _rates(self, counts: Float64, rows: Int32, *, known: int) -> Float64:
        return self._store.filled(_gathered(counts, rows, known, self._factors), self.at_us)

    def flow(self, part: slice) -> Float64:
        """Next requests expected in the cells of the sessions under way. (n,)"""
        return self._flow[self.cells.row[part]]

    def content_flow(self, part: slice) -> Float64:
        """The same by content, over all locations. (n,)"""
        return self._content_flow[self.cells.content[part]]

    def cell_first_seen_us(self, part: slice) -> Int64:
        """First request of cells since they were last forgotten, `NEVER_US` for strangers. (n,)"""
        row = self.cells.row[part]
        stranger = row >= self.cells.known
        first = self._popularity.cell_first_us[np.where(stranger, 0, row)]
        first[stranger] = NEVER_US
        return first

    def content_first_seen_us(self, part: slice) -> Int64:
        """First request of the cells' contents. (n,)"""
        return self._popularity.content_first_us[self.cells.content[part]]

    def content_appeared_us(self, part: slice) -> Int64:
        """When the cells' contents became known. (n,)"""
        return self._popularity.appeared_us[self.cells.content[part]]

    def presence(self, part: slice) -> Float64:
        """Sessions that are in the cells. (n,)"""
        row = self.cells.row[part]
        stranger = row >= self.cells.known
        present = self._store.walks.occupancy[np.where(stranger, 0, row)] * self._per_session
        present[stranger] = 0.0
        return present

    def hour_counts(self, part: slice) -> Float64:
        """Requests of cells in each range of clock hours. (n, ranges)"""
        return self.hour_sums[self.cells.row[part]].astype(np.float64)


@njit(cache=True, nogil=True)
def _gathered(counts: Float64, rows: Int32, known: int, factors: Float64) -> Float64:
    n_half_lives = len(factors)
    rates = np.zeros((len(rows), n_half_lives))
    for i in range(len(rows)):
        row = rows[i]
        if row < known:
            for h in range(n_half_lives):
                rates[i, h] = counts[row, h] * factors[h]
    return rates


def _hour_sums(store: CounterStore, now: int, hours_back: Sequence[HoursBack], *, rows: int) -> Int32:
    """Requests of every cell row in each range of hours, shape (rows, ranges)."""
    first, last = (now - np.array(hours_back, dtype=np.int64).reshape(-1, 2)).T
    keys = store.popularity.hours.index.keys
    sums = np.zeros((rows, len(hours_back)), dtype=np.int32)
    _add_hours(keys, store.popularity.hours.cell_counts, np.ascontiguousarray(first), np.ascontiguousarray(last), sums)
    return sums


@njit(cache=True, nogil=True)
def _add_hours(keys: Int64, counts: Int32, first: Int64, last: Int64, sums: Int32) -> None:
    for i in range(len(keys)):
        hour, row = keys[i] >> 32, keys[i] & PAIR_MASK
        for j in range(len(first)):
            if first[j] <= hour < last[j]:
                sums[row, j] += counts[i]
