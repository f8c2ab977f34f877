"""Markov flow: requests that the sessions now under way are expected to make next.

`flow(i, l) = sum over contents x of a(x, l) P(i | x)`, with a(x, l) the decayed number of sessions that are at x in
location l, and `P(i | x) = C(x -> i) / visits(x)`, which sums to less than one because some sessions stop at x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from models.events import Float64, Int64
from models.keys import KeyTable, find_key
from models.successors import SuccessorTable

LEAST_PRESENCE = 1e-4


class FlowTable(NamedTuple):
    """Sessions by cell and where they may go; `per_unit` turns inflated presence into sessions."""

    cells: Int64  # key (content, location) of each cell row
    occupancy: Float64
    per_unit: float
    moves: SuccessorTable
    visits: Float64
    half_life: int


@njit(cache=True, nogil=True)
def flow_by_row(table: FlowTable, stored: KeyTable, strangers: KeyTable) -> Float64:
    """Expected next requests of every cell that the store has a row for, and behind them of some that it has none for.

    Rows of `stored` first, then those of `strangers`.
    """
    known = stored.size[0]
    flow = np.zeros(known + strangers.size[0])
    moves, h = table.moves, table.half_life
    for cell in range(len(table.cells)):
        present = table.occupancy[cell] * table.per_unit
        if present < LEAST_PRESENCE:
            continue
        x, location = table.cells[cell] >> 32, table.cells[cell] & 0x7FFFFFFF
        per_visit = present / table.visits[x, h]
        for j in range(moves.start[x], moves.start[x] + moves.length[x]):
            key = (np.int64(moves.item[j]) << 32) | location
            row = find_key(stored, key)
            if row < 0:
                stranger = find_key(strangers, key)
                row = -1 if stranger < 0 else known + stranger
            if row >= 0:
                flow[row] += per_visit * moves.weight[j, h]
    return flow


@njit(cache=True)
def content_flow(table: FlowTable) -> Float64:
    """Expected next requests of every content, over all locations. (contents,)"""
    present = np.zeros(len(table.visits))
    for cell in range(len(table.cells)):
        present[table.cells[cell] >> 32] += table.occupancy[cell] * table.per_unit
    flow = np.zeros(len(table.visits))
    moves, h = table.moves, table.half_life
    for x in range(len(present)):
        if present[x] < LEAST_PRESENCE:
            continue
        for j in range(moves.start[x], moves.start[x] + moves.length[x]):
            flow[moves.item[j]] += present[x] * moves.weight[j, h] / table.visits[x, h]
    return flow
