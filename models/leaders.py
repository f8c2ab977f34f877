"""The most popular rows of each group, kept exactly and per event.

Inflated counters only grow between two rebases, and a rebase scales all of them alike, so a list of leaders changes
only where a count was just raised: the raised row moves up past the smaller ones. No periodic sort is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from models.events import Bool, Float64, Int32, Int64
from models.keys import Key, grown


class LeaderTable(NamedTuple):
    item: Int32  # (groups, half-lives, places)
    length: Int32  # (groups, half-lives)
    position: npt.NDArray[np.int16]  # (rows, half-lives), -1 where a row does not lead


@njit(cache=True)
def raise_leader(table: LeaderTable, group: int, row: Key, h: int, value: Float64) -> None:
    """Restores the order of one list after `value[row, h]` was raised."""
    places = table.item.shape[2]
    p = table.position[row, h]
    if p < 0:
        if table.length[group, h] < places:
            p = table.length[group, h]
            table.length[group, h] += 1
        else:
            last = table.item[group, h, places - 1]
            if value[row, h] <= value[last, h]:
                return
            table.position[last, h] = -1
            p = places - 1
    while p > 0 and value[row, h] > value[table.item[group, h, p - 1], h]:
        other = table.item[group, h, p - 1]
        table.item[group, h, p] = other
        table.position[other, h] = p
        p -= 1
    table.item[group, h, p] = row
    table.position[row, h] = p


@njit(cache=True)
def _renumber(table: LeaderTable, row_of: Int32, bereft: Bool) -> None:
    """Renames the leaders and closes gaps; `position` is by new rows already, its values are set here."""
    groups, n_half_lives, places = table.item.shape
    for group in range(groups):
        for h in range(n_half_lives):
            length = table.length[group, h]
            kept = 0
            for j in range(length):
                row = row_of[table.item[group, h, j]]
                if row >= 0:
                    table.item[group, h, kept] = row
                    table.position[row, h] = kept
                    kept += 1
            table.length[group, h] = kept
            if length == places and kept < length:
                bereft[group] = True
        if bereft[group]:
            for h in range(n_half_lives):
                for j in range(table.length[group, h]):
                    table.position[table.item[group, h, j], h] = -1
                table.length[group, h] = 0


class Leaders:
    """The `places` largest rows of each group, at each half-life, largest first."""

    def __init__(self, *, groups: int, rows: int, n_half_lives: int, places: int) -> None:
        self.table = LeaderTable(
            np.zeros((groups, n_half_lives, places), dtype=np.int32),
            np.zeros((groups, n_half_lives), dtype=np.int32),
            np.full((rows, n_half_lives), -1, dtype=np.int16),
        )

    def reserve(self, *, groups: int, rows: int) -> None:
        t = self.table
        self.table = LeaderTable(grown(t.item, groups), grown(t.length, groups), grown(t.position, rows, -1))

    def clear(self) -> None:
        """Empties all lists."""
        self.table.length[:] = 0
        self.table.position[:] = -1

    def rebuild(self, rows: Int64, group: Int64 | Int32, value: Float64) -> None:
        """Lists of the groups that `rows` belong to, from scratch; equal values keep the order of their rows.

        The groups must have no leaders before, and `rows` must name all rows of them.
        """
        t = self.table
        for h in range(value.shape[1]):
            order = np.lexsort((rows, -value[rows, h], group))
            order = order[value[rows[order], h] > 0]
            groups = group[order]
            place = np.arange(len(order)) - np.searchsorted(groups, groups, side="left")
            kept = place < t.item.shape[2]
            t.item[groups[kept], h, place[kept]] = rows[order[kept]]
            t.position[rows[order[kept]], h] = place[kept]
            t.length[:, h] += np.bincount(groups[kept], minlength=len(t.length)).astype(np.int32)

    def keep_rows(self, rows: Int64, row_of: Int32, *, capacity: int) -> Bool:
        """Keeps some rows only, under new numbers; `row_of` gives them, -1 for rows that go.

        Returns:
            Groups of which a full list lost a leader: their lists are emptied and must be rebuilt. (groups,)
        """
        t = self.table
        position = grown(t.position[rows], capacity, -1)
        bereft = np.zeros(len(t.length), dtype=np.bool_)
        self.table = t._replace(position=position)
        _renumber(self.table, row_of, bereft)
        return bereft
