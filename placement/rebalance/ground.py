"""What moves start from: the copies, the shares, how each row is served now, and the arcs over the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from placement.copies import Copies
from placement.flows import Flows, ServingArcs, mesh_coverage, serving_arcs
from placement.keys import find_keys
from placement.problem import Bool, Float64, Int64, PlacementProblem

LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Ground:
    """A problem with its copies and lawful shares."""

    problem: PlacementProblem
    copies: Copies
    flows: Flows

    @cached_property
    def arcs(self) -> ServingArcs:
        """Useful arcs over the copies at nodes."""
        arcs = serving_arcs(self.problem, self.copies.segment, self.copies.source)
        mesh = ~self.problem.is_pop[arcs.source]
        return ServingArcs(arcs.row[mesh], arcs.source[mesh], arcs.saving[mesh])

    @cached_property
    def arc_share(self) -> Float64:
        """What each arc serves, (A,)."""
        n, flows = max(1, len(self.problem.sources)), self.flows
        share = np.zeros(len(self.arcs))
        at, known = find_keys(self.arcs.row * n + self.arcs.source, flows.row * n + flows.source)
        share[at[known]] = flows.share[known]
        return share

    @cached_property
    def arc_saving(self) -> Float64:
        """What a request saves on each arc over what no node serves of its row, (A,)."""
        row, source = self.arcs.row, self.arcs.source
        return np.maximum(0.0, self.base_price[row] - self.problem.serving_price(row, source))

    @cached_property
    def coverage(self) -> Float64:
        """Chance that a node of a row's arcs is up, (D,)."""
        return mesh_coverage(self.problem, self.arcs)

    @cached_property
    def mesh_share(self) -> Float64:
        """What nodes serve of each row, (D,)."""
        mesh = ~self.problem.is_pop[self.flows.source]
        return self._by_row(self.flows.share[mesh], mesh)

    @cached_property
    def base_price(self) -> Float64:
        """Mean price of a request that no node serves; where nodes serve all, that of the cheapest POP, (D,)."""
        problem, flows, pop = self.problem, self.flows, self.problem.is_pop[self.flows.source]
        by_pop = self._by_row(flows.share[pop], pop)
        paid = self._by_row(flows.share[pop] * problem.serving_price(flows.row[pop], flows.source[pop]), pop)
        rest, base = np.maximum(0.0, 1.0 - self.mesh_share - by_pop), problem.cheapest_of(problem.standing)
        np.divide(paid + rest * problem.origin_price, by_pop + rest, out=base, where=by_pop + rest > LEAST_SHARE)
        return base

    def _by_row(self, weights: Float64, which: Bool) -> Float64:
        rows = self.flows.row[which]
        return np.asarray(np.bincount(rows, weights=weights, minlength=len(self.problem.demand)), dtype=np.float64)

    def arc_copy(self) -> Int64:
        """Position of each arc's copy, (A,)."""
        segment = self.problem.demand.segment[self.arcs.row]
        keys = self.problem.copy_keys(self.copies.segment, self.copies.source)
        return np.searchsorted(keys, self.problem.copy_keys(segment, self.arcs.source))
