"""The engine whose prices lead the ladder: our own passes, or PDLP of OR-Tools (`price_engine`).

Whoever found them, prices are certified by `placement/bound.py` in double precision, and the ladder goes on from there
alike: PDLP's prices, shares x and copies y become the state of the passes, at which the dive begins to fix copies. With
more than `ARCS_EACH` arcs PDLP solves the relaxation in parts of its segments, which trade shares of the limits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.bound import Bound, Prices
from placement.candidates import Candidates
from placement.guard import LEAST_SECONDS, UNGUARDED, Guard
from placement.pdlp import PdlpAnswer, PdlpSettings, solve_relaxation
from placement.prices import Guide, search_prices
from placement.primal_dual import PrimalDual
from placement.problem import Bool, Int64, PlacementProblem

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
    _stand_at(search, answer, len(problem.sources), len(problem.demand))
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


def _stand_at(search: PrimalDual, answer: PdlpAnswer, n_sources: int, n_rows: int) -> None:
    """Holds every candidate, and serves over every arc, as far as PDLP does."""
    candidates, graph = search.candidates, search.candidates.graph
    copies = candidates.segment.astype(np.int64) * n_sources + graph.source
    held, known = _found(answer.segment.astype(np.int64) * n_sources + answer.source, copies)
    search.state.hold[:] = np.where(graph.stands, 1.0, np.where(known, answer.share[held], 0.0))
    row_of = np.full(n_rows, -1, dtype=np.int64)
    row_of[candidates.rows] = np.arange(len(candidates.rows))
    arcs = graph.arc_row.astype(np.int64) * n_sources + np.repeat(graph.source, np.diff(graph.arc_start))
    served, known = _found(row_of[answer.flows.row] * n_sources + answer.flows.source, arcs)
    search.state.share[:] = np.where(known, answer.flows.share[served], 0.0)


def _found(keys: Int64, wanted: Int64) -> tuple[Int64, Bool]:
    """Where each wanted key is among the keys, and whether it is there at all."""
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], wanted), max(0, len(keys) - 1))
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    return order[at], np.asarray(keys[order][at] == wanted)
