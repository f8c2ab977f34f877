"""Exact shares of a region: the rows around a change, against what the rest of the world leaves of every uplink.

    max  sum_{k in region} bytes_k density_kn x_kn,   x_kn <= p_n,   sum_n x_kn <= 1 - prod_n (1 - p_n),
         sum_{k in region} bytes_k x_kn <= uplink_n - what n sends elsewhere

is the minimum-cost flow of `placement/flows.py` with the rows outside left as they are, so what a change of copies saves
here it saves at least in the whole world. OR-Tools answers in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from placement.market import Market
from placement.problem import Bool, Float64, Int64
from placement.savings_flow import COARSE, savings_flow


@dataclass(frozen=True)
class LocalShares:
    """Arcs of the region that serve or might, their best shares, and what that saves beside what was there, in m$."""

    arc: Int64
    share: Float64
    gain: float


def best_local_shares(market: Market, held: Bool, share: Float64, used: Float64, rows: Int64) -> LocalShares | None:
    """The best shares of these rows; `share` (A,) and `used` (N,) are as they were, maybe with other copies held.

    None if the solver gives up.
    """
    arc, at, credit = _region(market, held, share, rows)
    copy, sent = market.arc_copy[arc], market.row_bytes[market.arc_row[arc]]
    source, density = market.source[copy], market.density[arc]
    before = sent * share[arc]
    elsewhere = used - np.bincount(source, weights=before, minlength=len(used))
    live = np.flatnonzero(held[copy])
    flow = np.zeros(len(arc))
    if len(live):
        covered = -np.expm1(-credit) * market.row_bytes[rows]
        free = np.maximum(0.0, market.uplink - elsewhere)
        capacity = market.survival[source[live]] * sent[live]
        found = savings_flow(at[live], source[live], capacity, density[live], covered, free, cost_units=COARSE)
        if found is None:
            return None
        flow[live] = found
    return LocalShares(arc, flow / sent, float(density @ (flow - before)))


@numba.njit(cache=True)
def rows_around(market: Market, held: Bool, copies: Int64, rows: Int64) -> Int64:
    """Of these rows, those served by whoever may serve what the copies serve: a change of the copies hardly reaches further.

    What else could follow, two exchanges away, is left as it is, so that what is saved in them is saved at least.
    """
    sources, chosen = np.zeros(len(market.uplink), np.bool_), np.zeros(len(market.row_bytes), np.bool_)
    for c in copies:
        sources[market.source[c]] = True
        for at in range(market.copy_start[c], market.copy_start[c + 1]):
            k = market.arc_row[market.copy_arc[at]]
            chosen[k] = True
            for a in range(market.row_start[k], market.row_start[k + 1]):
                if held[market.arc_copy[a]]:
                    sources[market.source[market.arc_copy[a]]] = True
    for n in np.flatnonzero(sources):
        for i in range(market.source_start[n], market.source_start[n + 1]):
            c = market.at_source[i]
            if held[c]:
                for at in range(market.copy_start[c], market.copy_start[c + 1]):
                    chosen[market.arc_row[market.copy_arc[at]]] = True
    return rows[chosen[rows]]


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
