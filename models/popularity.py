"""Decayed request counts of contents, locations and cells (content, location), with their leaders and hourly counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from models.events import HOUR_US, NEVER_US, Float64, Int32, Int64
from models.hourly import HourlyCounts, HourTable, count_hour
from models.keys import KeyIndex, KeyTable, add_key, grown
from models.leaders import Leaders, LeaderTable, raise_leader

if TYPE_CHECKING:
    from models.counter_settings import CounterSettings


class PopularityTable(NamedTuple):
    """Everything that a request changes, whoever made it. Counts are inflated, (rows, half-lives)."""

    per_hour: Float64  # 1 / half-life, fast to slow. (half-lives,)
    total: Float64  # (half-lives,)
    content: Float64
    location: Float64
    cell_index: KeyTable  # key (content, location)
    cell: Float64
    content_first_us: Int64
    appeared_us: Int64
    location_first_us: Int64
    cell_first_us: Int64
    content_leaders: LeaderTable
    cell_leaders: LeaderTable
    hours: HourTable


@njit(cache=True)
def count(first: int, log: tuple[Int64, Int32, Int32], cells: Int32, table: PopularityTable, base_us: int) -> int:
    """Counts rows of (ts_us, content, location) from `first` on and notes cell rows; stops where an index is full."""
    ts_us, content, location = log
    for i in range(first, len(ts_us)):
        if table.cell_index.size[0] >= len(table.cell):
            return i
        if table.hours.cell_hours.size[0] >= len(table.hours.cell_counts):
            return i
        x, place, t = content[i], location[i], ts_us[i]
        row = add_key(table.cell_index, (np.int64(x) << 32) | np.int64(place))
        cells[i] = row
        table.content_first_us[x] = min(table.content_first_us[x], t)
        table.appeared_us[x] = min(table.appeared_us[x], t)
        table.location_first_us[place] = min(table.location_first_us[place], t)
        table.cell_first_us[row] = min(table.cell_first_us[row], t)
        for h in range(len(table.per_hour)):
            weight = 2.0 ** ((t - base_us) / HOUR_US * table.per_hour[h])
            table.total[h] += weight
            table.content[x, h] += weight
            table.location[place, h] += weight
            table.cell[row, h] += weight
            raise_leader(table.content_leaders, 0, x, h, table.content)
            raise_leader(table.cell_leaders, place, row, h, table.cell)
        count_hour(table.hours, t // HOUR_US, place, row)
    return len(ts_us)


class Popularity:
    """The arrays behind `PopularityTable`; rows of cells are in order of first request, as far as they are remembered.

    Attributes:
        content_first_us: first request of each content, `NEVER_US` before it. (contents,)
        appeared_us: when each content became known: its announcement or its first request. (contents,)
        newest: the contents that appeared last, newest last; equal instants by code. (at most `newest` places,)
    """

    def __init__(self, settings: CounterSettings) -> None:
        s, n = settings, len(settings.half_lives_hours)
        self.per_hour = 1 / np.array(s.half_lives_hours, dtype=np.float64)
        self.total = np.zeros(n)
        self.content, self.location, self.cell = np.zeros((0, n)), np.zeros((0, n)), np.zeros((0, n))
        self.content_first_us, self.appeared_us, self.location_first_us, self.cell_first_us = (
            np.zeros(0, dtype=np.int64) for _ in range(4)
        )
        self.index = KeyIndex()
        self.content_leaders = Leaders(groups=1, rows=0, n_half_lives=n, places=s.leaders)
        self.cell_leaders = Leaders(groups=0, rows=0, n_half_lives=n, places=s.leaders)
        self.hours = HourlyCounts(locations=0, location_hours=s.location_hours, cell_hours=s.cell_hours)
        self.newest_places = s.newest
        self.newest = np.zeros(0, dtype=np.int32)
        self._reserve_cells(0)

    @property
    def table(self) -> PopularityTable:
        return PopularityTable(
            self.per_hour,
            self.total,
            self.content,
            self.location,
            self.index.table,
            self.cell,
            self.content_first_us,
            self.appeared_us,
            self.location_first_us,
            self.cell_first_us,
            self.content_leaders.table,
            self.cell_leaders.table,
            self.hours.table,
        )

    @property
    def cell_content(self) -> Int32:
        return (self.index.keys >> 32).astype(np.int32)

    @property
    def cell_location(self) -> Int32:
        return (self.index.keys & 0x7FFFFFFF).astype(np.int32)

    def reserve(self, *, contents: int, locations: int) -> None:
        """Makes room for codes below `contents` and `locations`."""
        if contents > len(self.content):
            rows = contents + contents // 2
            self.content = grown(self.content, rows)
            self.content_first_us = grown(self.content_first_us, rows, NEVER_US)
            self.appeared_us = grown(self.appeared_us, rows, NEVER_US)
            self.content_leaders.reserve(groups=1, rows=rows)
        if locations > len(self.location):
            self.location = grown(self.location, 2 * locations)
            self.location_first_us = grown(self.location_first_us, 2 * locations, NEVER_US)
            self.cell_leaders.reserve(groups=2 * locations, rows=len(self.cell))
            self.hours.reserve_locations(2 * locations)

    def _reserve_cells(self, extra: int) -> None:
        self.index.reserve(extra)
        rows = self.index.capacity
        self.cell = grown(self.cell, rows)
        self.cell_first_us = grown(self.cell_first_us, rows, NEVER_US)
        self.cell_leaders.reserve(groups=len(self.cell_leaders.table.length), rows=rows)

    def feed(self, ts_us: Int64, content: Int32, location: Int32, *, base_us: int) -> Int32:
        """Counts requests and returns the cell row of each."""
        cells = np.empty(len(ts_us), dtype=np.int32)
        done = 0
        while True:
            done = count(done, (ts_us, content, location), cells, self.table, base_us)
            if done == len(ts_us):
                return cells
            if len(self.index) == self.index.capacity:
                self._reserve_cells(1)
            else:
                self.hours.reserve_cells()

    def scale(self, factors: Float64) -> None:
        for counts in (self.total, self.content, self.location, self.cell):
            counts *= factors

    def note_newest(self, contents: Int64) -> None:
        """Takes contents that just became known among the newest, as far as they are."""
        known = np.concatenate([self.newest.astype(np.int64), contents])
        self.newest = known[np.lexsort((known, self.appeared_us[known]))][-self.newest_places :].astype(np.int32)

    def forget(self, minimum: float, *, cells_in_use: Int64) -> tuple[Int64, Int32]:
        """Drops cells whose slow count is below `minimum`, unless they are in use or counted by hour.

        Returns:
            The old rows of those kept, in order, and the new row of each old one, -1 where it was dropped.
        """
        n = len(self.index)
        keep = self.cell[:n, -1] >= minimum
        keep[cells_in_use] = True
        keep[self.hours.cell_entries()[0] & 0x7FFFFFFF] = True
        rows = np.flatnonzero(keep)
        row_of = np.full(n, -1, dtype=np.int32)
        row_of[rows] = np.arange(len(rows), dtype=np.int32)
        if len(rows) < n:
            self._keep_cells(rows, row_of)
        return rows, row_of

    def _keep_cells(self, rows: Int64, row_of: Int32) -> None:
        self.index = KeyIndex(self.index.keys[rows])
        capacity = self.index.capacity
        self.cell = grown(self.cell[rows], capacity)
        self.cell_first_us = grown(self.cell_first_us[rows], capacity, NEVER_US)
        self.hours.renumber_cells(row_of)
        bereft = self.cell_leaders.keep_rows(rows, row_of, capacity=capacity)
        location = self.cell_location
        again = np.flatnonzero(bereft[location])
        self.cell_leaders.rebuild(again, location[again], self.cell)

    def add_cells(self, keys: Int64) -> Int64:
        """Rows of cells by key (content, location), new ones with nothing counted."""
        self._reserve_cells(len(keys))
        return self.index.add(keys)

    def rebuild_leaders(self) -> None:
        """Leaders from the counts, after counts were set or added in bulk."""
        contents, cells = np.arange(len(self.content)), np.arange(len(self.index))
        self.content_leaders.clear()
        self.content_leaders.rebuild(contents, np.zeros(len(contents), dtype=np.int64), self.content)
        self.cell_leaders.clear()
        self.cell_leaders.rebuild(cells, self.cell_location, self.cell)
