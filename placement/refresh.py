"""Between two placements: stale copies make room and what demand now calls for is pushed, in a fraction of a second.

What falls to a copy of segment s at n over the horizon, of the rows k that n reaches and together with their other holders,

    due(s, n) = sum_k requests_k · survival_n / sum of the survivals of the holders of s that reach k

is compared with `keep_requests`: copies with less are stale, all others stay. On top of these the greedy adds copies by
value per byte, each worth several pushes, because a forecast of minutes ago errs and a copy that is dropped at the next
refresh has cost its push. Prices are not searched: the next placement chooses everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.bound import Prices, certify
from placement.copies import Copies, keep_current
from placement.errors import ProblemError
from placement.greedy import place_greedily
from placement.plan import Plan
from placement.problem import Float64, PlacementProblem
from placement.publish import incumbent, judged, published


@dataclass(frozen=True)
class RefreshSettings:
    """How plans follow demand between two placements."""

    every_minutes: float = 20.0
    """Distance of refreshes, in minutes; 0 for none."""
    keep_requests: float = 0.3
    """Expected requests over the horizon below which a copy is stale and makes room."""
    thrift: float = 1.0
    """What a pushed copy must be worth beyond its push, as a multiple of the push's price."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} >= 0 and finite, got {getattr(self, name)!r}."
            for name in ("every_minutes", "keep_requests", "thrift")
            if not 0 <= getattr(self, name) < float("inf")
        ]
        if problems:
            raise ProblemError("The refresh settings cannot be used:", problems)


def refresh(problem: PlacementProblem, settings: RefreshSettings) -> Copies:
    """What is held, less what is stale, and more where demand is worth the push; within the hard limits."""
    held = keep_current(problem)
    held = Copies(held.segment[~problem.standing[held.source]], held.source[~problem.standing[held.source]])
    fresh = due_requests(problem, held) >= settings.keep_requests
    return place_greedily(problem, start=Copies(held.segment[fresh], held.source[fresh]), thrift=settings.thrift)


def refreshed_plan(problem: PlacementProblem, settings: RefreshSettings, prices: Prices) -> Plan:
    """The refreshed copies as a judged plan, with what the prices of the last search still prove about it.

    Raises:
        PlanError: the judge refused the plan, which is a fault of this package and never of the problem.
    """
    bound = certify(problem, prices, raise_rows=True, threads=problem.settings.threads)
    best = incumbent(problem, "refresh", refresh(problem, settings))
    return judged(problem, published(problem, best, bound, prices))


def due_requests(problem: PlacementProblem, copies: Copies) -> Float64:
    """Expected requests that fall to each copy over the horizon. (C,)"""
    demand = problem.demand
    order = np.lexsort((demand.location, demand.segment))
    start = np.searchsorted(demand.segment[order], np.arange(len(problem.segments) + 1))
    rows = np.diff(start)[copies.segment]
    copy = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(copy)) + np.repeat(start[copies.segment] - (np.cumsum(rows) - rows), rows)
    location = demand.location[order[row]]
    reached = problem.can_serve[location, copies.source[copy]]
    copy, row = copy[reached], row[reached]
    weight = problem.sources.survival[copies.source[copy]]
    together = np.bincount(row, weight, len(order))
    requests = demand.requests[order[row]] * weight / np.maximum(together[row], 1e-300)
    return np.bincount(copy, requests, len(rows)).astype(np.float64)
