"""What it would cost to make room: the loss of dropping each copy held now, an upper bound of it.

    loss(t, m) = sum_k r_k (base_k - price_km) x_km                                what m serves is served by the base
               + sum_k r_k max_n (base_k - price_kn) (served_k - x_km - coverage without m)^+    less coverage (2')
               + return factor * push price * bytes, where m received it lately

base_k is the mean price of what no node serves of row k. Copies whose segment would miss its requirements, or whose
segment is a candidate for moves itself, are never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.copies import Copies
from placement.problem import Bool, Float64, Int64, PlacementProblem
from placement.rebalance.ground import Ground

MOST_EVICTIONS = 8
"""Copies that may make room for one push."""


def losses(ground: Ground) -> Float64:
    """Most that dropping each copy can cost in delivery, in m$, (C,)."""
    problem, row, share = ground.problem, ground.arcs.row, ground.arc_share
    requests = problem.demand.requests
    best = np.zeros(len(requests))
    np.maximum.at(best, row, ground.arc_saving)
    absence = np.maximum(1.0 - problem.sources.survival[ground.arcs.source], 1e-300)
    together = np.log1p(-np.minimum(ground.coverage, 1 - 1e-16))[row]
    without = -np.expm1(np.minimum(0.0, together - np.log(absence)))
    uncovered = np.maximum(0.0, ground.mesh_share[row] - share - without)
    loss = requests[row] * (share * ground.arc_saving + uncovered * best[row])
    return np.asarray(np.bincount(ground.arc_copy(), weights=loss, minlength=len(ground.copies.segment)))


@dataclass
class Room:
    """Copies that may be dropped, by source, cheapest per byte first."""

    copies: Copies
    size: Float64
    loss: Float64
    may_go: Bool
    order: Int64
    start: Int64

    @classmethod
    def of(cls, problem: PlacementProblem, copies: Copies, loss: Float64, may_go: Bool) -> Room:
        size = problem.segments.bytes[copies.segment].astype(np.float64)
        order = np.lexsort((copies.segment, loss / size, copies.source))
        start = np.searchsorted(copies.source[order], np.arange(len(problem.sources) + 1))
        return cls(copies, size, loss, may_go.copy(), order, start)

    def cheapest(self, source: int, short_bytes: float) -> tuple[float, list[int]]:
        """Loss and positions of copies whose drop frees so many bytes at a source; infinite where none do."""
        total: float = 0.0
        chosen: list[int] = []
        if short_bytes <= 0:
            return total, chosen
        for at in self.order[self.start[source] : self.start[source + 1]].tolist():
            if self.may_go[at]:
                chosen.append(at)
                total += float(self.loss[at])
                short_bytes -= float(self.size[at])
                if short_bytes <= 0:
                    return total, chosen
                if len(chosen) == MOST_EVICTIONS:
                    break
        return np.inf, []

    def drop(self, chosen: list[int]) -> float:
        """Takes copies away for good, and their segments' other copies out of reach; returns the bytes freed."""
        for at in chosen:
            first, last = np.searchsorted(self.copies.segment, [self.copies.segment[at], self.copies.segment[at] + 1])
            self.may_go[first:last] = False
        return float(self.size[chosen].sum())
