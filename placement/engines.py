"""The engine whose prices lead the ladder: our own passes, or PDLP of OR-Tools (`price_engine`).

Whoever found them, prices are certified by `placement/bound.py` in double precision, and the ladder goes on from there
alike: PDLP's prices, shares x and copies y become the state of the passes, at which the dive begins to fix copies. With
more than `ARCS_EACH` arcs PDLP solves the relaxation in parts of its segments, which trade shares of the limits.
"""

from __future__ import annotations

from dataclasses import replace

from placement.bound import Bound, Prices
from placement.candidates import Candidates
from placement.guard import LEAST_SECONDS, UNGUARDED, Guard
from placement.keys import find_keys
from placement.pdlp import PdlpAnswer, PdlpSettings, solve_relaxation
from placement.prices import Guide, search_prices
from placement.primal_dual import PrimalDual
from placement.problem import PlacementProblem

FEWEST_PASSES = 10
ITERATIONS_PER_PASS = 5
"""Iterations of PDLP that count as one pass of `bound_iterations`."""
RELATIVE_GAP = 1e-3
"""Where PDLP stops: what is left of the gap then is lost in rounding anyway."""
COVERED_ARCS = 1_000_000
"""Arcs up to which PDLP is told what copies cover together (2'): each tangent doubles the arcs' entries."""
ARCS_EACH = 4_000_000
"""Most arcs of one relaxation; larger instances are solved in parts."""


def guide_of(problem: PlacementProblem, *, start: Prices | None = None, guard: Guard = UNGUARDED) -> Guide:
    """Certified prices and copies in part, by the engine of the settings; PDLP starts anew whatever the prices."""
    if problem.settings.price_engine == "own":
        return search_prices(problem, start=start, guard=guard)
    return guide_by_pdlp(problem, guard=guard)


def guide_by_pdlp(problem: PlacementProblem, *, guard: Guard = UNGUARDED) -> Guide:
    """PDLP's certified bound, and passes that stand where it ended; not one of ours is run."""
    candidates = Candidates.of(problem)
    settings = replace(_settings(problem, candidates.n_arcs), time_limit_seconds=max(LEAST_SECONDS, guard.seconds_left))
    answer = solve_relaxation(problem, settings)
    search = PrimalDual(candidates, threads=problem.settings.threads)
    search.begin_at(answer.prices)
    _stand_at(problem, search, answer)
    search.keep(search.promising())
    return Guide(Bound(answer.bound, answer.prices), search)


def _settings(problem: PlacementProblem, n_arcs: int) -> PdlpSettings:
    settings = problem.settings
    affordable = max(FEWEST_PASSES, settings.bound_arc_visits // max(1, n_arcs))
    return PdlpSettings(
        iterations=max(1, ITERATIONS_PER_PASS * min(settings.bound_iterations, affordable)),
        relative_gap=RELATIVE_GAP,
        parts=max(1, -(-n_arcs // ARCS_EACH)),
        coverage=n_arcs <= COVERED_ARCS,
    )


def _stand_at(problem: PlacementProblem, search: PrimalDual, answer: PdlpAnswer) -> None:
    """Holds every candidate, and serves over every arc, as far as PDLP does."""
    candidates, flows = search.candidates, answer.flows
    at, known = find_keys(candidates.keys, problem.copy_keys(answer.segment, answer.source))
    search.state.hold[at[known]] = answer.share[known]
    search.state.hold[candidates.graph.stands] = 1.0
    search.state.share[:] = candidates.shares_on_arcs(flows.row, flows.source, flows.share)[0]
