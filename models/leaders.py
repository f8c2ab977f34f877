"""The most popular rows of each group, kept exactly and per event.

Inflated counters only grow between two rebases, and a rebase scales all of them alike, so a list of leaders changes
only where a count was just raised: the raised row moves up past the smaller ones. No periodic sort is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from models.events import Float64, Int32, Int64
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

    def rebuild(self, group: Int64, value: Float64) -> None:
        """Lists from scratch; equal values keep the order of their rows."""
        t = self.table
        t.length[:] = 0
        t.position[:] = -1
        for h in range(value.shape[1]):
            order = np.lexsort((np.arange(len(group)), -value[:, h], group))
            order = order[value[order, h] > 0]
            groups = group[order]
            place = np.arange(len(order)) - np.searchsorted(groups, groups, side="left")
            kept = place < t.item.shape[2]
            t.item[groups[kept], h, place[kept]] = order[kept]
            t.position[order[kept], h] = place[kept]
            t.length[:, h] = np.bincount(groups[kept], minlength=len(t.length))
