"""The flow that saves most: bytes from sources to demand rows, as a minimum-cost flow by OR-Tools.

    max  sum_a density_a f_a,   0 <= f_a <= capacity_a,   sum_{a into r} f_a <= most_r,   sum_{a from n} f_a <= free_n

What a row takes may count in another row, too (its parent), whose `most` holds for both. A source supplies what it may
send, and the sources that need no copy take what is left of the rows, so they are not part of it. A row that one arc alone
serves needs no node: most rows are such, and the network is a tenth of one that carries all demand.
"""

from __future__ import annotations

import numpy as np
from ortools.graph.python import min_cost_flow

from placement.problem import Float64, Int32, Int64

FLOW_UNITS = 2.0**33
COST_UNITS = 2.0**24
"""Steps into which the largest saving per byte is cut."""


def savings_flow(
    row: Int64,
    source: Int32 | Int64,
    capacity: Float64,
    density: Float64,
    most: Float64,
    free: Float64,
    *,
    parent: Int64 | None = None,
) -> Float64 | None:
    """Bytes on each arc, to within the rounding to whole units; None if the solver gives up.

    Args:
        row: into which each arc goes. (A,)
        source: from which it comes. (A,)
        capacity: bytes. (A,)
        density: m$ saved per byte. (A,)
        most: bytes that each row can take. (R,)
        free: bytes that each source can send. (N,)
        parent: the row that what a row takes counts in, too; -1 for none. (R,)
    """
    parent = np.full(len(most), -1) if parent is None else parent
    sources, source = np.unique(source, return_inverse=True)
    noded = np.bincount(row, minlength=len(most)) > 1
    noded[parent >= 0] = True
    noded[parent[parent >= 0]] = True
    rows, sink = np.flatnonzero(noded), len(sources) + int(noded.sum())
    node = np.full(len(most) + 1, sink)  # the last one stands for no row
    node[rows] = len(sources) + np.arange(len(rows))
    capacity = np.where(noded[row], capacity, np.minimum(capacity, most[row]))
    useful = np.minimum(free[sources], np.bincount(source, weights=capacity))
    if useful.sum() <= 0:
        return np.zeros(len(row))
    unit, top = float(useful.sum()) / FLOW_UNITS, max(float(density.max()), 1e-300)
    supply, idle = np.floor(useful / unit).astype(np.int64), np.arange(len(sources))
    limit = np.concatenate([capacity, useful, most[rows]]) / unit
    cost = np.concatenate([1.0 - density / top, np.ones(len(sources)), np.zeros(len(rows))])
    network = min_cost_flow.SimpleMinCostFlow()
    network.add_arcs_with_capacity_and_unit_cost(
        np.concatenate([source, idle, node[rows]]),
        np.concatenate([node[row], np.full(len(sources), sink), node[parent[rows]]]),
        np.floor(np.minimum(limit, FLOW_UNITS)).astype(np.int64),
        (COST_UNITS * cost).astype(np.int64),
    )
    network.set_nodes_supplies(idle, supply)
    network.set_nodes_supplies(np.array([sink]), np.array([-supply.sum()]))
    if network.solve() != network.OPTIMAL:
        return None
    return np.asarray(network.flows(np.arange(len(row))) * unit, dtype=np.float64)
