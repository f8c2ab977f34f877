"""What a byte of uplink is worth, given copies and their best flows: the shadow prices of the minimum-cost flow.

With c_kn what a byte of row k saves at n, the least prices that fit the flows are

    mu_n = 0 where uplink is left,             else max_{k: x_kn < p_n} (c_kn - u_k)^+
    u_k  = 0 where k could be served further,  else min_{m: x_km > 0} (c_km - mu_m)^+

Starting from nothing, mu only rises, along the paths by which one more byte at n would find its use elsewhere: a row whose
sources have become dearer is looked at again, and no other.
"""

from __future__ import annotations

import numba
import numpy as np

from placement.market import Market
from placement.problem import Bool, Float64, Int64

LOOKS = 60
"""Times that a row is looked at on average, at most: a use that is further away than that is not looked for."""
SERVES = 1e-7
"""Share from which an arc counts as serving."""
SLACK = 1e-6
"""Share of a limit that counts as left."""


@numba.njit(cache=True)
def update_prices(market: Market, held: Bool, share: Float64, used: Float64, rows: Int64, price: Float64) -> None:
    """Prices anew every source that holds anything in these rows, as if there were no others."""
    arcs, first = _arcs(market, held, rows)
    source = market.source[market.arc_copy[arcs]]
    served_from, row_at = _rows_served(source, share[arcs], first, len(market.uplink))
    for n in source:
        price[n] = 0.0
    waiting, queue = np.ones(len(rows), np.bool_), np.arange(len(rows))
    head, count = 0, len(rows)
    for _ in range(LOOKS * len(rows)):
        if count == 0:
            break
        i = queue[head]
        head, count, waiting[i] = (head + 1) % len(rows), count - 1, False
        once = _once(market, share, arcs[first[i] : first[i + 1]], price)
        for at in range(first[i], first[i + 1]):
            a, n = arcs[at], source[at]
            worth = market.density[a] - once
            if worth <= price[n] * (1.0 + 1e-9) + 1e-18 or used[n] < market.uplink[n] * (1.0 - SLACK):
                continue
            if share[a] >= market.survival[n] * (1.0 - SLACK):
                continue
            price[n] = worth
            for j in range(served_from[n], served_from[n + 1]):
                if not waiting[row_at[j]]:
                    queue[(head + count) % len(rows)] = row_at[j]
                    count, waiting[row_at[j]] = count + 1, True


@numba.njit(cache=True)
def _arcs(market: Market, held: Bool, rows: Int64):  # type: ignore[no-untyped-def]
    """Arcs of copies that are held, by row, and where each row begins."""
    most, found = 0, 0
    for k in rows:
        most += market.row_start[k + 1] - market.row_start[k]
    arcs, first = np.empty(most, np.int64), np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        for a in range(market.row_start[rows[i]], market.row_start[rows[i] + 1]):
            if held[market.arc_copy[a]]:
                arcs[found] = a
                found += 1
        first[i + 1] = found
    return arcs[:found], first


@numba.njit(cache=True)
def _rows_served(source, share: Float64, first: Int64, n_sources: int):  # type: ignore[no-untyped-def]
    """Where the rows of each source begin, (N + 1,), and the rows that each serves at all."""
    start = np.zeros(n_sources + 1, np.int64)
    for at in range(len(source)):
        start[source[at] + 1] += 1 if share[at] > SERVES else 0
    start = np.cumsum(start)
    at_source, row_at = start[:-1].copy(), np.empty(start[-1], np.int64)
    for i in range(len(first) - 1):
        for at in range(first[i], first[i + 1]):
            if share[at] > SERVES:
                row_at[at_source[source[at]]] = i
                at_source[source[at]] += 1
    return start, row_at


@numba.njit(cache=True)
def _once(market: Market, share: Float64, arcs: Int64, price: Float64) -> float:
    """u_k, from the arcs of row k that are held."""
    credit, served, once = 0.0, 0.0, np.inf
    for a in arcs:
        n = market.source[market.arc_copy[a]]
        credit += market.coverage[n]
        served += share[a]
        if share[a] > SERVES:
            once = min(once, max(0.0, market.density[a] - price[n]))
    return once if served >= (1.0 - np.exp(-credit)) * (1.0 - SLACK) else 0.0
