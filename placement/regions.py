"""Exact shares of a region: the rows around a change, against what the rest of the world leaves of every uplink.

    max  sum_{k in region} bytes_k density_kn x_kn,   x_kn <= p_n,   sum_n x_kn <= 1 - prod_n (1 - p_n),
         sum_{k in region} bytes_k x_kn <= uplink_n - what n sends elsewhere

is a flow with the rows outside left as they are, so what a change of copies saves here it saves at least in the whole world.
It begins at the shares that were there and takes a fraction of a millisecond (`placement/network_simplex.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from placement.market import Market
from placement.network_simplex import best_flow
from placement.problem import Bool, Float64, Int64


class LocalShares(NamedTuple):
    """Arcs of the region that serve or might, their best shares, and what that saves beside what was there, in m$."""

    arc: Int64
    share: Float64
    gain: float


@numba.njit(cache=True)
def best_local_shares(market: Market, held: Bool, share: Float64, used: Float64, rows: Int64) -> LocalShares:
    """The best shares of these rows; `share` (A,) and `used` (N,) are as they were, maybe with other copies held."""
    arc, at, credit = _region(market, held, share, rows)
    free, best, gain = market.uplink - used, np.zeros(len(arc)), 0.0
    source, live = np.empty(len(arc), np.int64), np.empty(len(arc), np.bool_)
    sent, limit = np.empty(len(arc)), np.empty(len(arc))
    for i in range(len(arc)):
        copy, row_bytes = market.arc_copy[arc[i]], market.row_bytes[rows[at[i]]]
        source[i], live[i] = market.source[copy], held[copy]
        sent[i], limit[i] = row_bytes * share[arc[i]], row_bytes * market.survival[source[i]]
        free[source[i]] += sent[i]
    mine = np.flatnonzero(live)
    if len(mine) > 0:
        covered = (1.0 - np.exp(-credit)) * market.row_bytes[rows]
        density = market.density[arc[mine]]
        best[mine] = best_flow(at[mine], source[mine], limit[mine], density, covered, np.maximum(0.0, free), sent[mine])
    for i in range(len(arc)):
        gain += market.density[arc[i]] * (best[i] - sent[i])
        best[i] /= market.row_bytes[rows[at[i]]]
    return LocalShares(arc, best, gain)


@numba.njit(cache=True)
def _region(market: Market, held: Bool, share: Float64, rows: Int64):  # type: ignore[no-untyped-def]
    """Arcs of copies that are held or still serve, the position of their row among `rows`, and each row's credit."""
    most, found = 0, 0
    for k in rows:
        most += market.row_start[k + 1] - market.row_start[k]
    arcs, at, credit = np.empty(most, np.int64), np.empty(most, np.int64), np.zeros(len(rows))
    for i in range(len(rows)):
        for a in range(market.row_start[rows[i]], market.row_start[rows[i] + 1]):
            c = market.arc_copy[a]
            if held[c]:
                credit[i] += market.coverage[market.source[c]]
            if held[c] or share[a] > 0:
                arcs[found], at[found] = a, i
                found += 1
    return arcs[:found], at[:found], credit
