"""The price engine: prices that prove much, and how far the relaxation holds each copy at them.

Passes of `placement/primal_dual.py` over a graph of candidates, certified now and then by `placement/bound.py`, until
they are used up or prove hardly more than before. The graph grows with the prices (column generation): a certificate
looks at every candidate there is, and for each row the one that is worth most above its prices joins. So a graph of a
few candidates for each row proves what the whole one would, in a fraction of its time and memory. The work is counted in
passes and not in seconds, so that the bound repeats. A search may start from the prices of the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.bound import Bound, Prices, Proof
from placement.candidates import Candidates
from placement.guard import UNGUARDED, Guard
from placement.primal_dual import PrimalDual
from placement.problem import Float64, Int64, PlacementProblem

CERTIFIED_EVERY = 25
"""Passes between two certificates."""
WIDE_PASSES = 100
"""Passes before candidates that are far from worth their prices leave the graph."""
SETTLED, PATIENCE = 5e-5, 2
"""Share of itself by which a certificate must raise the bound, and how many in a row may fail to before the search ends."""
SWINGS = 0.01
"""A certificate that falls by more than this share below the best one shows prices that still swing, and ends nothing."""


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


def search_prices(problem: PlacementProblem, *, start: Prices | None = None, guard: Guard = UNGUARDED) -> Guide:
    """Searches prices within `bound_iterations` passes and about `bound_arc_visits` arcs looked at.

    Args:
        problem: the instance.
        start: prices of an instance with the same sources, demand rows and segments.
        guard: ends the search early, and then the bound depends on the machine.
    """
    settings = problem.settings
    search = PrimalDual(Candidates.of(problem, for_each_row=settings.starting_candidates), threads=settings.threads)
    if start is not None:
        search.begin_at(start)
    best = _bound(problem, search.invite(), search.candidates.rows)
    done = visits = idle = 0
    while done < settings.bound_iterations and visits < settings.bound_arc_visits and not guard.passed:
        passes = min(CERTIFIED_EVERY, settings.bound_iterations - done)
        done += passes
        visits += passes * search.candidates.n_arcs
        search.run(passes, guard)
        found = _bound(problem, search.invite(), search.candidates.rows)
        swings = found.value < (1.0 - SWINGS) * best.value
        idle = idle + 1 if not swings and found.value < best.value + SETTLED * abs(best.value) else 0
        best = max(best, found, key=lambda bound: bound.value)
        if idle >= PATIENCE and (done > WIDE_PASSES or start is not None):
            break
        if done == WIDE_PASSES:
            search.keep(search.promising())
    return Guide(best, search)


def _bound(problem: PlacementProblem, proof: Proof, rows: Int64) -> Bound:
    n = len(problem.sources)
    once, tangent = np.zeros(len(problem.demand)), np.zeros(len(problem.demand))
    once[rows], tangent[rows] = proof.offer.once, proof.offer.tangent
    source = proof.offer.source
    prices = Prices(source[:n], source[n : 2 * n], float(source[-1]), once, proof.offer.backing, tangent)
    return Bound(max(0.0, proof.value), prices)
