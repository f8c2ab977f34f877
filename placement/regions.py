"""Exact shares of a region: the rows of a few locations, against what the rest of the world leaves of every uplink.

    max  sum_{k in region} bytes_k density_kn x_kn,   x_kn <= p_n,   sum_n x_kn <= 1 - prod_n (1 - p_n),
         sum_{k in region} bytes_k x_kn <= uplink_n - what n sends elsewhere

is the minimum-cost flow of `placement/flows.py` with the rows outside left as they are, so what a change of copies saves
here it saves at least in the whole world. OR-Tools answers in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from ortools.graph.python import min_cost_flow

from placement.market import Market
from placement.problem import Bool, Float64, Int64

FLOW_UNITS = 2.0**33
COST_UNITS = 2.0**20


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
        found = _cheapest_flow(at[live], source[live], capacity, density[live], covered, free)
        if found is None:
            return None
        flow[live] = found
    return LocalShares(arc, flow / sent, float(density @ (flow - before)))


def _cheapest_flow(
    row: Int64, source: Int64, capacity: Float64, density: Float64, covered: Float64, free: Float64
) -> Float64 | None:
    """Bytes on each arc, to within the rounding to whole units.

    What a source may send is its supply. A row that one copy alone serves needs no node of its own: most rows are such.
    """
    sources, source = np.unique(source, return_inverse=True)
    shared = np.bincount(row, minlength=len(covered)) > 1
    rows = np.flatnonzero(shared)
    node = np.full(len(covered), len(sources) + len(rows))  # the sink, where a row has none
    node[rows] = len(sources) + np.arange(len(rows))
    capacity = np.where(shared[row], capacity, np.minimum(capacity, covered[row]))
    useful = np.minimum(free[sources], np.bincount(source, weights=capacity))
    unit, top = max(float(useful.sum()), 1e-300) / FLOW_UNITS, max(float(density.max()), 1e-300)
    supply, idle = np.floor(useful / unit).astype(np.int64), np.arange(len(sources))
    sink = len(sources) + len(rows)
    limit = np.concatenate([capacity, useful, covered[rows]]) / unit
    cost = np.concatenate([1.0 - density / top, np.ones(len(sources)), np.zeros(len(rows))])
    network = min_cost_flow.SimpleMinCostFlow()
    network.add_arcs_with_capacity_and_unit_cost(
        np.concatenate([source, idle, node[rows]]),
        np.concatenate([node[row], np.full(len(sources) + len(rows), sink)]),
        np.floor(np.minimum(limit, FLOW_UNITS)).astype(np.int64),
        (COST_UNITS * cost).astype(np.int64),
    )
    network.set_nodes_supplies(idle, supply)
    network.set_nodes_supplies(np.array([sink]), np.array([-supply.sum()]))
    if network.solve() != network.OPTIMAL:
        return None
    return np.asarray(network.flows(np.arange(len(row))) * unit)


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
