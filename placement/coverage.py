"""How surely a location reaches a live copy on some node, for the judge: from a plan alone, knowing no solver."""

from __future__ import annotations

import numba
import numpy as np

from placement.plan import Plan
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem


def chance_any_node_is_up(problem: PlacementProblem, plan: Plan) -> Float64:
    """Probability that a node which holds the segment and reaches the location is up, (D,)."""
    return chance_any_is_up(problem, plan.segment, plan.source)


def chance_any_is_up(problem: PlacementProblem, segment: Int32, source: Int32) -> Float64:
    """The same for copies sorted by segment, (D,)."""
    nodes = ~problem.is_pop[source]
    segment, source = segment[nodes], source[nodes]
    starts = np.searchsorted(segment, np.arange(len(problem.segments) + 1))
    absence = 1.0 - problem.sources.survival
    demand = problem.demand
    return _any_up(demand.segment, demand.location, starts, source, absence, problem.can_serve)


@numba.njit(cache=True)
def _any_up(
    segment: Int32, location: Int32, starts: Int64, source: Int32, absence: Float64, can_serve: Bool
) -> Float64:
    coverage = np.zeros(len(segment))
    for k in range(len(segment)):
        nobody = 1.0
        for at in range(starts[segment[k]], starts[segment[k] + 1]):
            if can_serve[location[k], source[at]]:
                nobody *= absence[source[at]]
        coverage[k] = 1.0 - nobody
    return coverage
