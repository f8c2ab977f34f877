"""The price engine: prices that prove much, and how far the relaxation holds each copy at them.

Passes of `placement/primal_dual.py` over all candidates, certified now and then by `placement/bound.py`, until they are
used up or prove hardly more than before. The work is counted in passes and not in seconds, so that the bound repeats. A
search may start from the prices of the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.bound import Bound, Prices
from placement.candidates import Candidates
from placement.primal_dual import PrimalDual
from placement.problem import Float64, PlacementProblem

FEWEST_PASSES = 10
CERTIFIED_EVERY = 50
"""Passes between two certificates."""
WIDE_PASSES = 150
"""Passes over all candidates; later ones leave out those that are far from worth their prices. Certificates never do."""
SETTLED = 1e-4
"""Share of itself by which a certificate must raise the bound for the search to go on."""


@dataclass(frozen=True)
class Guide:
    """What the search leaves behind.

    Attributes:
        bound: the best certified bound, over all candidates, and its prices.
        search: the passes where they stopped: how far each candidate is held, and at which prices.
    """

    bound: Bound
    search: PrimalDual

    @property
    def candidates(self) -> Candidates:
        """The candidates that the search still looked at."""
        return self.search.candidates

    @property
    def share(self) -> Float64:
        """How far each candidate is held, in [0, 1]. (C,)"""
        return np.clip(self.search.state.hold.astype(np.float64), 0.0, 1.0)


def lower_bound(problem: PlacementProblem) -> Bound:
    """The best bound within `bound_iterations` passes and about `bound_arc_visits` arcs looked at."""
    return search_prices(problem).bound


def search_prices(problem: PlacementProblem, *, start: Prices | None = None) -> Guide:
    """Searches prices within `bound_iterations` passes and about `bound_arc_visits` arcs looked at.

    Args:
        problem: the instance.
        start: prices of an instance with the same sources, demand rows and segments.
    """
    settings, candidates = problem.settings, Candidates.of(problem)
    search = PrimalDual(candidates, threads=settings.threads)
    if start is not None:
        search.begin_at(start)
    affordable = settings.bound_arc_visits // max(1, candidates.n_arcs)
    passes = min(settings.bound_iterations, max(FEWEST_PASSES, affordable))
    best, done = Bound(max(0.0, search.bound()), _prices(problem, search)), 0
    while done < passes:
        search.run(min(passes - done, CERTIFIED_EVERY))
        done += CERTIFIED_EVERY
        value = search.bound(candidates)
        settled = value < best.value + SETTLED * abs(best.value)
        if value > best.value:
            best = Bound(value, _prices(problem, search))
        if settled:
            break
        if done == WIDE_PASSES:
            search.keep(search.promising())
    return Guide(best, search)


def _prices(problem: PlacementProblem, search: PrimalDual) -> Prices:
    n, rows = len(problem.sources), search.candidates.rows
    once, tangent = np.zeros(len(problem.demand)), np.zeros(len(problem.demand))
    once[rows] = np.maximum(search.state.row, 0.0) / search.candidates.graph.requests
    tangent[rows] = search.tangent
    source = np.maximum(search.source_prices, 0.0)
    backing = np.clip(search.state.backing, 0.0, search.candidates.graph.backing_limit)
    return Prices(source[:n], source[n : 2 * n], float(source[-1]), once, backing, tangent)
