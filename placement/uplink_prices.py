"""What a byte of uplink is worth, given copies and their best flows: the shadow prices of the minimum-cost flow.

With c_kn what a byte of row k saves at n, the least prices that fit the flows are

    mu_n = 0 where uplink is left,             else max_{k: x_kn < p_n} (c_kn - u_k)^+
    u_k  = 0 where k could be served further,  else min_{m: x_km > 0} (c_km - mu_m)^+

Starting from nothing, mu only rises, along the paths by which one more byte at n would find its use elsewhere.
"""

from __future__ import annotations

import numba
import numpy as np

from placement.market import Market
from placement.problem import Bool, Float64, Int64

SWEEPS = 60
"""Sweeps over all arcs: a use that is further away than so many exchanges is not looked for."""
SLACK = 1e-6
"""Share of a limit that counts as left."""


@numba.njit(cache=True)
def update_prices(market: Market, held: Bool, share: Float64, used: Float64, rows: Int64, price: Float64) -> None:
    """Prices anew every source that holds anything in these rows, as if there were no others."""
    arcs, once, full = _arcs(market, held, rows), np.empty(len(rows)), np.empty(len(rows), np.bool_)
    for n in _sources(market, arcs):
        price[n] = 0.0
    _serve(market, held, share, rows, full)
    for _ in range(SWEEPS):
        at, changed = 0, False
        for i in range(len(rows)):
            once[i] = np.inf if full[i] else 0.0
            while at < len(arcs) and market.arc_row[arcs[at]] == rows[i]:
                a = arcs[at]
                if full[i] and share[a] > 1e-7:
                    once[i] = min(once[i], max(0.0, market.density[a] - price[market.source[market.arc_copy[a]]]))
                at += 1
        at = 0
        for i in range(len(rows)):
            while at < len(arcs) and market.arc_row[arcs[at]] == rows[i]:
                a = arcs[at]
                n = market.source[market.arc_copy[a]]
                tight = used[n] >= market.uplink[n] * (1.0 - SLACK)
                worth = market.density[a] - once[i]
                if tight and share[a] < market.survival[n] * (1.0 - SLACK) and worth > price[n] * (1.0 + 1e-9) + 1e-18:
                    price[n], changed = worth, True
                at += 1
        if not changed:
            break


@numba.njit(cache=True)
def _arcs(market: Market, held: Bool, rows: Int64) -> Int64:
    """Arcs of copies that are held, by row."""
    arcs = [np.int64(0) for _ in range(0)]
    for k in rows:
        for a in range(market.row_start[k], market.row_start[k + 1]):
            if held[market.arc_copy[a]]:
                arcs.append(np.int64(a))
    return np.array(arcs, dtype=np.int64)


@numba.njit(cache=True)
def _sources(market: Market, arcs: Int64) -> Int64:
    found = np.zeros(len(market.uplink), np.bool_)
    for a in arcs:
        found[market.source[market.arc_copy[a]]] = True
    return np.flatnonzero(found)


@numba.njit(cache=True)
def _serve(market: Market, held: Bool, share: Float64, rows: Int64, full: Bool) -> None:
    """Which rows are served as far as their copies reach together."""
    for i in range(len(rows)):
        credit, served = 0.0, 0.0
        for a in range(market.row_start[rows[i]], market.row_start[rows[i] + 1]):
            if held[market.arc_copy[a]]:
                credit += market.coverage[market.source[market.arc_copy[a]]]
                served += share[a]
        full[i] = served >= (1.0 - np.exp(-credit)) * (1.0 - SLACK)
