"""Prices from PDLP, the first-order solver of OR-Tools, certified by `placement/bound.py`.

The relaxation of `placement/relaxation.py` is solved whole, or in parts of its segments. A part g gets a share of each
limit, at first in proportion to its demand; its duals price_n^g then say where a byte is worth most, and the shares move by

    share_n^g  <-  share_n^g (price_n^g / mean price_n)^(step / sqrt(round)),  normalised over g.

At last all parts are solved once more at the mean prices in place of limits, which
makes their other duals fit. Any duals prove a bound, so PDLP may stop early. Iterations limit it; the time is a guard.

Where (2') is in the relaxation, the duals d_t of a row's tangents become one price and one tangent for the certificate,

    once = d_inf + sum_t d_t,   e^-tangent = sum_t d_t e^-t / once,   d_inf the dual of (1),

which proves at least as much: the intercept of a tangent is convex in its slope.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ortools.pdlp import solvers_pb2
from ortools.pdlp.python import pdlp
from scipy import sparse

from placement.bound import FLAT, Prices, certify
from placement.errors import ProblemError
from placement.flows import Flows
from placement.formulation import TANGENTS
from placement.problem import Bool, Float64, Int32, PlacementProblem
from placement.relaxation import UNIT_BYTES, Limits, Relaxation, relax

STEP = 0.3
"""How far the shares follow the duals in the first correction; 0.5 overshoots."""
RELATIVE_PRICES = (0.1, 5.0)
"""Least and most that a part's price counts for, over the mean: a part without need keeps some of its limit."""
SMALLEST_SHARE = 1e-3
"""Copies held less than this are left out of the answer."""


@dataclass(frozen=True)
class PdlpSettings:
    """How far PDLP goes.

    Attributes:
        iterations: most iterations of each solve.
        relative_gap: gap and infeasibility at which a solve stops, relative to the size of the numbers.
        time_limit_seconds: guard on each solve; one that strikes makes the answer depend on the machine.
        parts: how many parts the segments are split into.
        rounds: how often the parts are solved under shares of the limits.
        coverage: whether (2') is in the relaxation.
        spread: whether (8) is.
    """

    iterations: int = 4_000
    relative_gap: float = 1e-4
    time_limit_seconds: float = 600.0
    parts: int = 1
    rounds: int = 6
    coverage: bool = False
    spread: bool = False

    def __post_init__(self) -> None:
        names = ("iterations", "parts", "rounds")
        problems = [f"Expected {name} >= 1, got {getattr(self, name)!r}." for name in names if getattr(self, name) < 1]
        if not 0 < self.relative_gap < 1:
            problems.append(f"Expected relative_gap in (0, 1), got {self.relative_gap!r}.")
        if not self.time_limit_seconds > 0:
            problems.append(f"Expected time_limit_seconds > 0, got {self.time_limit_seconds!r}.")
        if problems:
            raise ProblemError("The PDLP settings cannot be used:", problems)


@dataclass(frozen=True)
class PdlpAnswer:
    """What PDLP found.

    Attributes:
        bound: certified lower bound on the cost of any plan, in millidollars.
        prices: what proves it.
        segment: segment of each copy that is held at least in part. (H,)
        source: its source. (H,)
        share: how far, in (0, 1]. (H,)
        flows: expected shares that they serve, sorted by (row, source).
        iterations: of all solves together.
    """

    bound: float
    prices: Prices
    segment: Int32
    source: Int32
    share: Float64
    flows: Flows
    iterations: int


@dataclass(frozen=True)
class _Solution:
    primal: Float64
    dual: Float64
    iterations: int


def solve_relaxation(problem: PlacementProblem, settings: PdlpSettings | None = None) -> PdlpAnswer:
    """Prices and fractional copies of the relaxation, in parts if asked."""
    chosen = settings or PdlpSettings()
    dealt = parts_of(len(problem.segments), chosen.parts)
    parts = [relax(problem, part, coverage=chosen.coverage, spread=chosen.spread) for part in dealt]
    whole, shares = Limits.of(problem), _first_shares(problem, dealt)
    solutions = [_Solution(np.zeros(len(part.cost)), np.zeros(len(part.upper)), 0) for part in parts]
    tried = [_no_prices(problem)]
    for at in range(chosen.rounds if len(parts) > 1 else 1):
        if at:
            shares = _corrected(shares, _limit_prices(parts, solutions), STEP / np.sqrt(at))
        for g, part in enumerate(parts):
            solutions[g] = _solve(part, part.cost, part.within(_scaled(whole, shares[g])), solutions[g], chosen)
        tried.append(_prices(problem, parts, solutions, shares))
    copies, flows = _copies(parts, solutions), _flows(problem, parts, solutions)
    if len(parts) > 1:
        mean, free = tried[-1], Limits(np.full_like(whole.storage, np.inf), np.full_like(whole.uplink, np.inf), np.inf)
        for g, part in enumerate(parts):
            solutions[g] = _solve(part, _priced(problem, part, mean), part.within(free), solutions[g], chosen)
        fitting = _prices(problem, parts, solutions, shares)
        tried.append(replace(mean, once=fitting.once, backing=fitting.backing, tangent=fitting.tangent))
    bounds = [certify(problem, prices) for prices in tried]
    best = int(np.argmax(bounds))
    return PdlpAnswer(bounds[best], tried[best], *copies, flows, iterations=sum(s.iterations for s in solutions))


def parts_of(n_segments: int, n_parts: int) -> list[Bool]:
    """Segments of each part, dealt in turn so that parts are alike: n_parts arrays, (S,)."""
    return [np.arange(n_segments) % n_parts == part for part in range(n_parts)]


def _no_prices(problem: PlacementProblem) -> Prices:
    n = len(problem.sources)
    return Prices(np.zeros(n), np.zeros(n), 0.0, np.zeros(len(problem.demand)), np.zeros(len(problem.segments)))


def _first_shares(problem: PlacementProblem, parts: list[Bool]) -> Float64:
    """Share of each part in every limit, by its demand in bytes: storage (N), uplink (N), movement, (G, 2 N + 1)."""
    demand = problem.demand
    asked = np.bincount(demand.segment, weights=problem.demand_segment_bytes * demand.requests, minlength=len(parts[0]))
    share = np.array([asked[part].sum() for part in parts])
    share = share / share.sum() if share.sum() > 0 else np.full(len(parts), 1 / len(parts))
    return np.repeat(share[:, None], 2 * len(problem.sources) + 1, axis=1)


def _corrected(shares: Float64, prices: Float64, step: float) -> Float64:
    """Shares moved to the parts whose duals (G, 2 N + 1) say that they need more."""
    mean = (shares * prices).sum(axis=0)
    relative = np.where(mean > 0, prices / np.where(mean > 0, mean, 1.0), 1.0)
    moved = shares * np.clip(relative, *RELATIVE_PRICES) ** step
    return np.asarray(moved / moved.sum(axis=0))


def _scaled(limits: Limits, share: Float64) -> Limits:
    n = len(limits.storage)
    return Limits(limits.storage * share[:n], limits.uplink * share[n:-1], limits.movement * share[-1])


def _limit_prices(parts: list[Relaxation], solutions: list[_Solution]) -> Float64:
    """Prices of storage (N), uplink (N) and movement in each part, in m$ per byte, (G, 2 N + 1)."""
    limits = [
        np.concatenate([solution.dual[part.rows[name]] for name in ("3", "4", "5")])
        for part, solution in zip(parts, solutions, strict=True)
    ]
    return np.asarray(np.maximum(0.0, -np.array(limits)) / UNIT_BYTES)


def _prices(problem: PlacementProblem, parts: list[Relaxation], solutions: list[_Solution], shares: Float64) -> Prices:
    """Duals as prices: limits at the mean over the parts' shares, rows and segments at those of their part."""
    n = len(problem.sources)
    limits = (shares * _limit_prices(parts, solutions)).sum(axis=0)
    once, slope, backing = np.zeros(len(problem.demand)), np.zeros(len(problem.demand)), np.zeros(len(problem.segments))
    for part, solution in zip(parts, solutions, strict=True):
        once[part.demand_row] = np.maximum(0.0, -solution.dual[part.rows["1"]])
        for t in TANGENTS if len(part.covered_row) else ():
            dual = np.maximum(0.0, -solution.dual[part.rows[f"2'[{t}]"]])
            once[part.covered_row] += dual
            slope[part.covered_row] += dual * np.exp(-t)
        backing[part.columns.backed] = np.maximum(0.0, solution.dual[part.rows["7"]])
    tangent = np.full(len(once), FLAT)
    touched = slope > once * np.exp(-FLAT)
    tangent[touched] = -np.log(slope[touched] / once[touched])
    once = np.divide(once, problem.demand.requests, out=np.zeros(len(once)), where=problem.demand.requests > 0)
    return Prices(limits[:n], limits[n:-1], float(limits[-1]), once, backing, tangent)


def _priced(problem: PlacementProblem, part: Relaxation, prices: Prices) -> Float64:
    """Cost with every limit replaced by its price."""
    columns = part.columns
    uplink = columns.served(problem) * problem.demand_segment_bytes[columns.arc_row] * prices.uplink[columns.arc_source]
    storage = problem.segments.bytes[columns.copy_segment] * prices.storage[columns.copy_source]
    moved = columns.pushed_bytes(problem) * prices.movement
    return np.asarray(part.cost + np.concatenate([uplink, storage + moved, np.zeros(len(columns.backed))]))


def _copies(parts: list[Relaxation], solutions: list[_Solution]) -> tuple[Int32, Int32, Float64]:
    """Copies that are held at least in part, sorted by (segment, source)."""
    share = np.concatenate([s.primal[p.columns.y] for p, s in zip(parts, solutions, strict=True)])
    segment = np.concatenate([part.columns.copy_segment for part in parts])
    source = np.concatenate([part.columns.copy_source for part in parts])
    order = np.lexsort((source, segment))
    order = order[share[order] > SMALLEST_SHARE]
    return segment[order].astype(np.int32), source[order].astype(np.int32), share[order]


def _flows(problem: PlacementProblem, parts: list[Relaxation], solutions: list[_Solution]) -> Flows:
    """What each arc serves, x_kn = p_n u_kn."""
    row = np.concatenate([part.columns.arc_row for part in parts])
    source = np.concatenate([part.columns.arc_source for part in parts])
    u = np.concatenate([s.primal[p.columns.u] for p, s in zip(parts, solutions, strict=True)])
    share = problem.sources.survival[source] * u
    order = np.lexsort((source, row))
    order = order[u[order] > SMALLEST_SHARE]
    return Flows(row[order], source[order].astype(np.int32), share[order])


def _solve(part: Relaxation, cost: Float64, upper: Float64, start: _Solution, settings: PdlpSettings) -> _Solution:
    """One run of PDLP on one thread: the same on every machine, unless the guard on its time strikes."""
    if not len(cost):
        return start
    programme = pdlp.QuadraticProgram()
    programme.resize_and_initialize(len(cost), len(upper))
    programme.objective_vector = cost
    programme.constraint_matrix = sparse.csc_matrix(part.matrix)
    programme.constraint_lower_bounds, programme.constraint_upper_bounds = part.lower, upper
    programme.variable_lower_bounds, programme.variable_upper_bounds = np.zeros(len(cost)), np.ones(len(cost))
    first = pdlp.PrimalAndDualSolution()
    first.primal_solution, first.dual_solution = start.primal, start.dual
    result = pdlp.primal_dual_hybrid_gradient(programme, _parameters(settings), initial_solution=first)
    iterations = start.iterations + int(result.solve_log.iteration_count)
    return _Solution(np.array(result.primal_solution), np.array(result.dual_solution), iterations)


def _parameters(settings: PdlpSettings) -> solvers_pb2.PrimalDualHybridGradientParams:
    parameters = solvers_pb2.PrimalDualHybridGradientParams(num_threads=1)
    criteria = parameters.termination_criteria
    criteria.simple_optimality_criteria.eps_optimal_relative = settings.relative_gap
    criteria.simple_optimality_criteria.eps_optimal_absolute = 1e-6
    criteria.iteration_limit = settings.iterations
    criteria.time_sec_limit = settings.time_limit_seconds
    return parameters
