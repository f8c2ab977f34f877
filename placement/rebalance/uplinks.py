"""What uplink of each source costs to use, and what it is worth when freed; both on the side of caution.

    price_n = (base_k - price_kn) / bytes_k of the flow at which the cheapest DISPLACED_SHARE of its bytes ends
    worth_n = max (base_k - price_kn) / bytes_k of the rows that it holds, could cover and does not serve

Free uplink costs nothing. A new copy at a source whose uplink is spent may still be worth its push: it serves what saves
more per byte. Freed uplink of a source that has some left is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.problem import Float64, Int64
from placement.rebalance.ground import LEAST_SHARE, Ground

DISPLACED_SHARE = 0.1
"""Share of what a source sends that moves may take over: prices hold only for small changes."""
SPENT_SHARE = 0.01
"""A source with no more than this share of its uplink left has spent it."""


@dataclass
class Uplinks:
    """Free bytes, bytes that may be taken over, and their price and worth in m$ per byte. All (N,)."""

    free: Float64
    displaced: Float64
    price: Float64
    worth: Float64

    @classmethod
    def of(cls, ground: Ground) -> Uplinks:
        problem, flows = ground.problem, ground.flows
        size, n_sources = problem.demand_segment_bytes[flows.row], len(problem.sources)
        sent = size * problem.demand.requests[flows.row] * flows.share
        load = np.bincount(flows.source, weights=sent, minlength=n_sources)
        saving = ground.base_price[flows.row] - problem.serving_price(flows.row, flows.source)
        worth = np.maximum(0.0, saving) / size
        order = np.lexsort((worth, flows.source))
        source = flows.source[order]
        before = np.concatenate([[0.0], np.cumsum(load)])[source]
        within = np.cumsum(sent[order]) - before
        beyond = np.flatnonzero(within >= DISPLACED_SHARE * load[source])
        price = np.zeros(n_sources)
        price[source[beyond[::-1]]] = worth[order][beyond[::-1]]  # the first one of each source is written last
        free = np.maximum(0.0, problem.usable_uplink_bytes - load)
        displaced = np.where(np.isfinite(free), DISPLACED_SHARE * load, 0.0)
        spent = free <= SPENT_SHARE * problem.usable_uplink_bytes
        return cls(free, displaced, price, np.where(spent, np.minimum(price, _worth(ground)), 0.0))

    def value(self, nodes: Int64, served: Float64, saving: Float64, size: float) -> tuple[Float64, Float64, Float64]:
        """Value of serving (K, n) requests that save so much each, the share served (K, n), and its bytes (n,).

        The better of using free uplink alone and of taking over what saves less than the price.
        """
        free, price = self.free[nodes], self.price[nodes]
        alone = served * _scale(served, size, free)
        value = (alone * saving).sum(axis=0)
        better = np.where(saving > price * size, served, 0.0)
        more = better * _scale(better, size, free + self.displaced[nodes])
        more_bytes = more.sum(axis=0) * size
        net = (more * saving).sum(axis=0) - price * np.maximum(0.0, more_bytes - free)
        takes = net > value
        chosen = np.where(takes, more, alone)
        return np.where(takes, net, value), chosen, chosen.sum(axis=0) * size

    def take(self, node: int, load_bytes: float) -> None:
        free = min(load_bytes, float(self.free[node]))
        self.free[node] -= free if np.isfinite(self.free[node]) else 0.0
        self.displaced[node] = max(0.0, float(self.displaced[node]) - (load_bytes - free))


def _worth(ground: Ground) -> Float64:
    problem, row, source = ground.problem, ground.arcs.row, ground.arcs.source
    could = (ground.coverage - ground.mesh_share)[row] > LEAST_SHARE
    could &= problem.sources.survival[source] - ground.arc_share > LEAST_SHARE
    worth = np.zeros(len(problem.sources))
    saving = ground.arc_saving[could] / problem.demand_segment_bytes[row[could]]
    np.maximum.at(worth, source[could], saving)
    return worth


def _scale(served: Float64, size: float, room: Float64) -> Float64:
    load = served.sum(axis=0) * size
    scale: Float64 = np.ones(len(load))
    np.divide(room, load, out=scale, where=load > room)
    return scale
