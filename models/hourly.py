"""Integer counts by clock hour: a dense ring for locations, a sparse one for (content, location) cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from models.events import Int32, Int64
from models.keys import Key, KeyIndex, KeyTable, add_key, grown, pair_keys


class HourTable(NamedTuple):
    """What jitted code sees. Hours are counted since 1970; hour h of the ring lies in column h mod hours."""

    location_counts: Int64  # (locations, hours)
    location_peaks: Int32  # (locations, hours) count of the content requested most
    newest: Int64  # (1,) newest hour in the ring, -1 before the first event
    cell_hours: KeyTable  # key (hour, cell row)
    cell_counts: Int32


@njit(cache=True)
def count_hour(table: HourTable, hour: int, location: int, cell: Key) -> None:
    """Counts one request; the caller has checked that one more (hour, cell) fits."""
    hours = table.location_counts.shape[1]
    newest = table.newest[0]
    if hour > newest:
        first = hour if newest < 0 else max(newest + 1, hour - hours + 1)
        for passed in range(first, hour + 1):
            table.location_counts[:, passed % hours] = 0
            table.location_peaks[:, passed % hours] = 0
        table.newest[0] = hour
    column = hour % hours
    table.location_counts[location, column] += 1
    row = add_key(table.cell_hours, (hour << 32) | cell)
    count = table.cell_counts[row] + 1
    table.cell_counts[row] = count
    if count > table.location_peaks[location, column]:
        table.location_peaks[location, column] = count


class HourlyCounts:
    """The last `location_hours` hours by location and at least the last `cell_hours` hours by cell."""

    def __init__(self, *, locations: int, location_hours: int, cell_hours: int) -> None:
        self.cell_hours = cell_hours
        self.index = KeyIndex()
        self.newest = np.full(1, -1, dtype=np.int64)
        self.location_counts = np.zeros((locations, location_hours), dtype=np.int64)
        self.location_peaks = np.zeros((locations, location_hours), dtype=np.int32)
        self.cell_counts = np.zeros(self.index.capacity, dtype=np.int32)

    @property
    def table(self) -> HourTable:
        return HourTable(self.location_counts, self.location_peaks, self.newest, self.index.table, self.cell_counts)

    def reserve_locations(self, capacity: int) -> None:
        self.location_counts = grown(self.location_counts, capacity)
        self.location_peaks = grown(self.location_peaks, capacity)

    def reserve_cells(self) -> None:
        """Forgets the cell hours that nobody may ask for any more, then makes room for as many again."""
        self.fill_cells(*self.cell_entries())

    def forget(self, *, before_hour: int) -> None:
        """Drops the counts of cells in hours before an hour, as if later ones had been counted already."""
        keys, counts = self.cell_entries()
        kept = keys >> 32 >= before_hour
        self.fill_cells(keys[kept], counts[kept])

    def cell_entries(self) -> tuple[Int64, Int32]:
        """Keys (hour, cell row) still within reach, and their counts."""
        keys = self.index.keys
        kept = keys >> 32 >= self.newest[0] - self.cell_hours
        return keys[kept], self.cell_counts[: len(keys)][kept]

    def fill_cells(self, keys: Int64, counts: Int32) -> None:
        self.index = KeyIndex(keys, capacity=max(512, 2 * len(keys)))
        self.cell_counts = grown(counts.astype(np.int32), self.index.capacity)

    def renumber_cells(self, row_of: Int32) -> None:
        """Gives cells their new rows; every cell counted within reach must have kept one."""
        keys, counts = self.cell_entries()
        self.fill_cells(pair_keys(keys >> 32, row_of[keys & 0x7FFFFFFF]), counts)

    def by_location(self, *, locations: int, first_hour: int, last_hour: int) -> Int64:
        """Counts of the hours [first_hour, last_hour); hours outside the ring count nothing. (locations, hours)"""
        return self._of_ring(self.location_counts[:locations], first_hour, last_hour)

    def peaks(self, *, locations: int, first_hour: int, last_hour: int) -> Int64:
        """How often the content requested most was, by location and hour, likewise. (locations, hours)"""
        return self._of_ring(self.location_peaks[:locations], first_hour, last_hour)

    def _of_ring(self, values: Int64 | Int32, first_hour: int, last_hour: int) -> Int64:
        ring = values.shape[1]
        newest = int(self.newest[0])
        hours = np.arange(first_hour, last_hour)
        found = values[:, hours % ring].astype(np.int64)
        found[:, (hours > newest) | (hours <= newest - ring)] = 0
        return found

    def by_cell(self, *, cells: int, first_hour: int, last_hour: int) -> Int64:
        """Sum of the hours [first_hour, last_hour) for every cell row. (cells,)"""
        keys = self.index.keys
        inside = (keys >> 32 >= first_hour) & (keys >> 32 < last_hour)
        rows = keys[inside] & 0x7FFFFFFF
        sums = np.bincount(rows, weights=self.cell_counts[: len(keys)][inside], minlength=cells)
        return sums.astype(np.int64)

    def absorb(self, other: HourlyCounts, *, location_of: Int64, cell_of: Int64) -> None:
        """Adds another store's counts; `location_of` and `cell_of` map its rows to this store's.

        The content requested most is taken to be the same in both: so it is wherever one outweighs all others.
        """
        ring = self.location_counts.shape[1]
        newest = int(max(self.newest[0], other.newest[0]))
        first, last = newest - ring + 1, newest + 1
        n, columns = len(self.location_counts), np.arange(first, last) % ring
        counts = self.by_location(locations=n, first_hour=first, last_hour=last)
        peaks = self.peaks(locations=n, first_hour=first, last_hour=last)
        np.add.at(counts, location_of, other.by_location(locations=len(location_of), first_hour=first, last_hour=last))
        np.add.at(peaks, location_of, other.peaks(locations=len(location_of), first_hour=first, last_hour=last))
        self.location_counts[:, columns], self.location_peaks[:, columns] = counts, peaks
        self.newest[0] = newest
        keys, cell_counts = other.cell_entries()
        rows = self.index.add(pair_keys(keys >> 32, cell_of[keys & 0x7FFFFFFF]))
        self.cell_counts = grown(self.cell_counts, self.index.capacity)
        np.add.at(self.cell_counts, rows, cell_counts)
