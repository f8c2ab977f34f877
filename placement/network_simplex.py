"""The network simplex method from the flow that was there: the best flow after a small change, in well under a millisecond.

    max  sum_a density_a f_a,   0 <= f_a <= capacity_a,   sum_{a into r} f_a <= most_r,   sum_{a from n} f_a <= free_n

What a source does not send goes to the root, and so does what a row takes; a row that one arc alone serves needs no node.
A basis is a tree over sources, rows and root. Arcs outside it are empty or full, and the value of a node is what one more
byte there is worth if it goes to the root through the tree. So an arc outside pays if

    density_a + value_head - value_tail  > 0 and it is not full,  or  < 0 and it is not empty.

It comes into the tree, as much flow as possible turns around the cycle that it closes, and the arc that stopped the flow
leaves. Old arcs that are neither empty nor full come in first, which makes a basis of the old flow. Flows are whole units,
and of several arcs that stop the flow the last one along the cycle leaves, seen from its node nearest to the root, so
that the method ends (W. H. Cunningham, A network simplex method, 1976). Wherever it ends, the flow keeps all limits.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Bool, Float64, Int32, Int64

UNITS = 2.0**44
"""Units that all sources together may send."""
AT_LIMIT = 1e-5
"""Share of its capacity by which an old flow may fall short and still count as full."""
LEAST_PROFIT = 1e-11
"""Over the largest density."""
TURNS_PER_ARC = 100
"""Where it stops in any case, with what it has."""


class _Network(NamedTuple):
    """Arcs in whole units. Node 0 is the root; the last arcs lead from nodes 1, 2, ... to it."""

    tail: Int32  # (A + V,)
    head: Int32
    capacity: Int64
    flow: Int64
    density: Float64


class _Tree(NamedTuple):
    """Nodes by what is above them, and the children of each as a list in both directions; 0 ends it."""

    above: Int32  # (V + 1,)
    link: Int32  # arc between a node and what is above it
    depth: Int32
    value: Float64
    first: Int32
    after: Int32
    before: Int32
    within: Bool  # arcs of the tree (A + V,)
    stack: Int32  # scratch


@numba.njit(cache=True)
def best_flow(
    row: Int64, source: Int64, capacity: Float64, density: Float64, most: Float64, free: Float64, start: Float64
) -> Float64:
    """Bytes on each arc, to within the rounding to whole units. (A,)

    Args:
        row: into which each arc goes. (A,)
        source: from which it comes. (A,)
        capacity: bytes. (A,)
        density: m$ saved per byte, above 0. (A,)
        most: bytes that each row can take. (R,)
        free: bytes that each source can send. (N,)
        start: bytes on each arc in a flow that is nearly as good; what breaks a limit of it is left out. (A,)
    """
    network, unit, n_nodes = _network(row, source, capacity, density, most, free)
    for a in range(len(row)):
        _load(network, a, start[a] / unit, len(row))
    _optimise(network, n_nodes, len(row))
    best: Float64 = network.flow[: len(row)] * unit
    return best


@numba.njit(cache=True)
def _network(row, source, capacity, density, most, free):  # type: ignore[no-untyped-def]
    """The network without any flow, bytes for each unit, and nodes, the root included."""
    of_source, of_row, limit, first_row, unit = _nodes(row, source, capacity, most, free)
    n_arcs, n_nodes = len(row), len(limit)
    size = n_arcs + n_nodes - 1
    tail, head = np.empty(size, np.int32), np.zeros(size, np.int32)
    units, flow, gain = np.empty(size, np.int64), np.zeros(size, np.int64), np.zeros(size)
    for a in range(n_arcs):
        tail[a], head[a], gain[a] = of_source[source[a]], of_row[row[a]], density[a]
        units[a] = np.int64(min(min(capacity[a], most[row[a]]) / unit, UNITS))
    for v in range(1, n_nodes):
        a = n_arcs + v - 1
        tail[a], units[a] = v, np.int64(min(limit[v] / unit, UNITS))
        if v < first_row:  # what is not sent has no limit of its own
            flow[a], units[a] = units[a], np.int64(4.0 * UNITS)
    return _Network(tail, head, units, flow, gain), unit, n_nodes


@numba.njit(cache=True)
def _nodes(row, source, capacity, most, free):  # type: ignore[no-untyped-def]
    """Node of each source, (N,), and row, (R,); the limit of each node in bytes; the first row; bytes for each unit."""
    of_source, of_row = np.zeros(len(free), np.int32), np.zeros(len(most), np.int32)
    arcs_into, wanted = np.zeros(len(most), np.int32), np.zeros(len(free))
    limit, n_nodes, total = np.zeros(len(row) + len(most) + 1), 1, 0.0
    for a in range(len(row)):
        arcs_into[row[a]] += 1
        wanted[source[a]] += capacity[a]
        if of_source[source[a]] == 0:
            of_source[source[a]] = n_nodes
            n_nodes += 1
    first_row = n_nodes
    for n in np.flatnonzero(of_source):
        limit[of_source[n]] = min(free[n], wanted[n])
        total += limit[of_source[n]]
    unit = max(total, 1e-300) / UNITS
    for k in range(len(most)):
        if arcs_into[k] > 1 and most[k] >= unit:
            of_row[k], limit[n_nodes] = n_nodes, most[k]
            n_nodes += 1
    return of_source, of_row, limit[:n_nodes], first_row, unit


@numba.njit(cache=True)
def _load(network: _Network, a: int, units: float, n_arcs: int) -> None:
    """Puts so much on arc a, if source and row have room; a row keeps some, so that everything can reach the root."""
    idle, taken = n_arcs + network.tail[a] - 1, n_arcs + network.head[a] - 1
    most = network.capacity[a]
    load = min(most if units >= most * (1.0 - AT_LIMIT) else np.int64(units), network.flow[idle])
    if network.head[a] > 0:
        load = min(load, network.capacity[taken] - network.flow[taken] - 1)
    if load > 0:
        network.flow[a] = load
        network.flow[idle] -= load
        if network.head[a] > 0:
            network.flow[taken] += load


@numba.njit(cache=True)
def _optimise(network: _Network, n_nodes: int, n_arcs: int) -> None:
    tree, least = _star(network, n_nodes, n_arcs), LEAST_PROFIT * np.max(network.density)
    for a in range(n_arcs):
        if 0 < network.flow[a] < network.capacity[a] and not tree.within[a]:
            _enter(network, tree, a)
    at = 0
    for _ in range(TURNS_PER_ARC * len(network.tail)):
        a, at = _best_of_block(network, tree, at, least)
        if a < 0:
            break
        _enter(network, tree, a)


@numba.njit(cache=True)
def _star(network: _Network, n_nodes: int, n_arcs: int) -> _Tree:
    """The tree in which every node is right below the root."""
    node = np.arange(n_nodes).astype(np.int32)
    link = (n_arcs + node - 1).astype(np.int32)
    depth = np.minimum(node, 1).astype(np.int32)
    first, after, before = np.zeros(n_nodes, np.int32), node + np.int32(1), np.maximum(node - 1, 0).astype(np.int32)
    first[0], after[0], after[-1] = min(1, n_nodes - 1), 0, 0
    within = np.arange(len(network.tail)) >= n_arcs
    value, stack = np.zeros(n_nodes), np.empty(n_nodes, np.int32)
    return _Tree(np.zeros(n_nodes, np.int32), link, depth, value, first, after, before, within, stack)


@numba.njit(cache=True)
def _best_of_block(network: _Network, tree: _Tree, at: int, least: float):  # type: ignore[no-untyped-def]
    """The arc that pays most of the next block of arcs in which any does, -1 for none, and where the next block begins."""
    size = len(network.tail)
    block = max(16, int(np.sqrt(size)))
    best, found = least, -1
    for looked in range(1, size + 1):
        if not tree.within[at]:
            profit = _profit(network, tree, at)
            if profit > best and network.flow[at] < network.capacity[at]:
                found, best = at, profit
            elif -profit > best and network.flow[at] > 0:
                found, best = at, -profit
        at = at + 1 if at + 1 < size else 0
        if found >= 0 and looked % block == 0:
            break
    return found, at


@numba.njit(cache=True)
def _profit(network: _Network, tree: _Tree, a: int) -> float:
    return float(network.density[a] + tree.value[network.head[a]] - tree.value[network.tail[a]])


@numba.njit(cache=True)
def _enter(network: _Network, tree: _Tree, a: int) -> None:
    """Turns as much flow as possible around the cycle that arc a closes, the way that pays, and changes the tree."""
    grows = _profit(network, tree, a) > 0
    begin, end = network.tail[a], network.head[a]
    if not grows:
        begin, end = end, begin
    join = _join(tree, begin, end)
    units = network.capacity[a] - network.flow[a] if grows else network.flow[a]
    stop, below_begin = -1, False
    x = begin
    while x != join:
        room = _room(network, tree, x, False)
        if room < units:
            units, stop, below_begin = room, x, True
        x = tree.above[x]
    x = end
    while x != join:
        room = _room(network, tree, x, True)
        if room <= units:
            units, stop, below_begin = room, x, False
        x = tree.above[x]
    if units > 0:
        network.flow[a] += units if grows else -units
        _push(network, tree, begin, join, -units)
        _push(network, tree, end, join, units)
    if stop >= 0:
        tree.within[tree.link[stop]], tree.within[a] = False, True
        top, over = (begin, end) if below_begin else (end, begin)
        _hang(tree, top, over, a, stop)
        _relabel(network, tree, top)


@numba.njit(cache=True)
def _join(tree: _Tree, x: int, y: int) -> int:
    """The node where the ways to the root meet."""
    while x != y:
        if tree.depth[x] >= tree.depth[y]:
            x = tree.above[x]
        else:
            y = tree.above[y]
    return x


@numba.njit(cache=True)
def _room(network: _Network, tree: _Tree, x: int, up: bool) -> int:
    """Units that still go from node x to what is above it, or down to it."""
    a = tree.link[x]
    if (network.tail[a] == x) == up:
        return int(network.capacity[a] - network.flow[a])
    return int(network.flow[a])


@numba.njit(cache=True)
def _push(network: _Network, tree: _Tree, x: int, join: int, units: int) -> None:
    """Sends so many units from node x up to the join."""
    while x != join:
        a = tree.link[x]
        network.flow[a] += units if network.tail[a] == x else -units
        x = tree.above[x]


@numba.njit(cache=True)
def _hang(tree: _Tree, node: int, over: int, arc: int, last: int) -> None:
    """Hangs the branch cut off above `last` below node `over` by its node `node`: the way between the two turns around."""
    while True:
        old, old_arc = tree.above[node], tree.link[node]
        if tree.before[node] > 0:
            tree.after[tree.before[node]] = tree.after[node]
        else:
            tree.first[old] = tree.after[node]
        if tree.after[node] > 0:
            tree.before[tree.after[node]] = tree.before[node]
        tree.above[node], tree.link[node] = over, arc
        tree.before[node], tree.after[node] = 0, tree.first[over]
        if tree.first[over] > 0:
            tree.before[tree.first[over]] = node
        tree.first[over] = node
        if node == last:
            break
        over, arc, node = node, old_arc, old


@numba.njit(cache=True)
def _relabel(network: _Network, tree: _Tree, top: int) -> None:
    """Depths and values from a node down."""
    count = 1
    tree.stack[0] = top
    while count > 0:
        count -= 1
        x = tree.stack[count]
        a, over = tree.link[x], tree.above[x]
        tree.depth[x] = tree.depth[over] + 1
        tree.value[x] = tree.value[over] + (network.density[a] if network.tail[a] == x else -network.density[a])
        child = tree.first[x]
        while child > 0:
            tree.stack[count] = child
            count += 1
            child = tree.after[child]
