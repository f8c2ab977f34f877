"""The ways to place that `benchmarks/placement.py` compares: each gives copies and, where it can, a lower bound."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ortools.math_opt.python import mathopt
from ortools.sat import sat_parameters_pb2

from benchmarks.swap_search import search_swaps
from placement.copies import Copies, add_while_fitting, keep_current
from placement.flows import best_flows, delivery_cost
from placement.formulation import formulate, solve_whole
from placement.greedy import place_greedily
from placement.pdlp import PdlpSettings, solve_relaxation
from placement.popularity import most_popular_copies
from placement.problem import Float64, Int64, PlacementProblem
from placement.requirements import missing_requirements
from placement.solve import solve

ROUNDED_FROM = 0.9
"""Share from which a fractional copy of the relaxation is placed before the greedy fills the rest."""
GRID = 1000
"""Steps of a share that CP-SAT sees."""
WIDTH = 4
"""Global popularity offers each location so many times what its nodes can hold."""


@dataclass(frozen=True)
class Found:
    """Copies (None if there was no answer) and a proven lower bound in m$ (0 if nothing was proven)."""

    copies: Copies | None
    bound: float = 0.0


Method = Callable[[PlacementProblem, int, float], Found]
"""Takes the problem, a seed and a limit in seconds, which only whole programmes heed."""


def cost_of(problem: PlacementProblem, copies: Copies) -> float:
    """What these copies cost with their best flows: the one evaluator of all methods."""
    flows = best_flows(problem, copies.segment, copies.source)
    is_new = ~problem.is_current(copies.segment, copies.source)
    push = float((problem.segments.bytes[copies.segment] * problem.push_price[copies.source])[is_new].sum())
    missing = int(missing_requirements(problem, copies).sum())
    return delivery_cost(problem, flows) + push + missing * problem.settings.origin_fallback_millidollars


def _ours(problem: PlacementProblem, seed: int, _: float) -> Found:
    plan = solve(problem, seed=seed)
    return Found(Copies(plan.segment, plan.source), plan.bound)


def _pdlp_ladder(problem: PlacementProblem, seed: int, _: float) -> Found:
    """The same ladder, led by PDLP's prices and shares."""
    led = replace(problem, settings=replace(problem.settings, price_engine="pdlp"))
    return _ours(led, seed, 0.0)


def _keep(problem: PlacementProblem, _: int, __: float) -> Found:
    return Found(keep_current(problem))


def _greedy(problem: PlacementProblem, _: int, __: float) -> Found:
    return Found(place_greedily(problem))


def _popular_here(problem: PlacementProblem, _: int, __: float) -> Found:
    """Each location holds what it asks for most."""
    demand = problem.demand
    return Found(_top(problem, demand.segment.astype(np.int64), demand.location.astype(np.int64), demand.requests))


def _popular_everywhere(problem: PlacementProblem, _: int, __: float) -> Found:
    """Each location holds what all ask for most."""
    total = np.bincount(problem.demand.segment, weights=problem.demand.requests, minlength=len(problem.segments))
    room = np.bincount(_places(problem), weights=_room(problem), minlength=len(problem.locations)).max()
    count = min(len(total), 1 + int(WIDTH * room / problem.segments.bytes.mean()))
    head = np.sort(np.argsort(-total, kind="stable")[:count])
    segment, location = np.repeat(head, len(problem.locations)), np.tile(np.arange(len(problem.locations)), count)
    return Found(_top(problem, segment, location, total[segment].astype(np.float64)))


def _lfu(problem: PlacementProblem, seed: int, limit: float) -> Found:
    """Each location holds what it asks for most, and keeps in what is left whatever it has."""
    popular = _popular_here(problem, seed, limit).copies
    assert popular is not None
    total = np.bincount(problem.demand.segment, weights=problem.demand.requests, minlength=len(problem.segments))
    order = np.argsort(-total[problem.current_segment], kind="stable")
    return Found(add_while_fitting(problem, popular, problem.current_segment[order], problem.current_source[order]))


def _swap(problem: PlacementProblem, _: int, __: float) -> Found:
    return Found(search_swaps(problem, place_greedily(problem)).copies)


def _pdlp(problem: PlacementProblem, _: int, __: float) -> Found:
    answer = solve_relaxation(problem, PdlpSettings(relative_gap=1e-3))
    chosen = np.flatnonzero(answer.share >= ROUNDED_FROM)
    order = chosen[np.argsort(-answer.share[chosen], kind="stable")]
    start = add_while_fitting(problem, _nothing(), answer.segment[order], answer.source[order])
    return Found(place_greedily(problem, start=start), answer.bound)


def _cp_sat(problem: PlacementProblem, seed: int, limit: float) -> Found:
    """The whole programme with shares on a grid, because CP-SAT knows integers alone; so its bound proves nothing."""
    programme, start = formulate(problem), place_greedily(problem)
    held = set(zip(start.segment.tolist(), start.source.tolist(), strict=True))
    hint = mathopt.SolutionHint(variable_values={y: float(pair in held) for pair, y in programme.hold.items()})
    parameters = mathopt.SolveParameters(
        time_limit=dt.timedelta(seconds=limit),
        relative_gap_tolerance=0.001,
        random_seed=seed,
        cp_sat=sat_parameters_pb2.SatParameters(mip_var_scaling=GRID),
    )
    start_from = mathopt.ModelSolveParameters(solution_hints=[hint])
    result = mathopt.solve(programme.model, mathopt.SolverType.CP_SAT, params=parameters, model_params=start_from)
    if not result.solutions or result.solutions[0].primal_solution is None:
        return Found(None)
    values = result.variable_values()
    pairs = np.array([pair for pair, y in programme.hold.items() if values[y] > 0.5], np.int32).reshape(-1, 2)
    return Found(Copies.sorted(pairs[:, 0], pairs[:, 1]))


def _whole(solver: Literal["highs", "gscip"]) -> Method:
    """The whole programme, until the limit; those that take hints start from the greedy."""

    def method(problem: PlacementProblem, seed: int, limit: float) -> Found:
        chosen = replace(
            problem.settings, solver=solver, time_limit_seconds=limit, node_limit=10**9, relative_gap=0.001
        )
        answer = solve_whole(replace(problem, settings=chosen), seed=seed, hint=place_greedily(problem))
        return Found(answer.copies, answer.bound)

    return method


METHODS: dict[str, Method] = {
    "ours": _ours,
    "pdlp-ladder": _pdlp_ladder,
    "keep": _keep,
    "greedy": _greedy,
    "top-k": _popular_here,
    "popularity": _popular_everywhere,
    "lfu": _lfu,
    "swap": _swap,
    "pdlp": _pdlp,
    "highs": _whole("highs"),
    "cp-sat": _cp_sat,
    "gscip": _whole("gscip"),
}
WHOLE = ("highs", "cp-sat", "gscip")


def _nothing() -> Copies:
    return Copies(np.zeros(0, np.int32), np.zeros(0, np.int32))


def _places(problem: PlacementProblem) -> Int64:
    return np.maximum(problem.sources.location, 0).astype(np.int64)


def _room(problem: PlacementProblem) -> Float64:
    return np.where(problem.sources.eligible & ~problem.is_pop, problem.storage_limit_bytes, 0.0)


def _top(problem: PlacementProblem, segment: Int64, location: Int64, requests: Float64) -> Copies:
    """Top-k per location by these counts: what is there stays, the most wanted are pushed while the budget lasts."""
    chosen, source = most_popular_copies(
        segment=segment,
        location=location,
        requests=requests,
        sizes=problem.segments.bytes,
        source_location=problem.sources.location,
        room_bytes=_room(problem).astype(np.int64),
        up=problem.sources.eligible,
        held_segment=problem.current_segment.astype(np.int64),
        held_source=problem.current_source.astype(np.int64),
    )
    keys = segment * len(problem.locations) + location
    by_key = np.argsort(keys)
    wanted = chosen * len(problem.locations) + problem.sources.location[source]
    count = requests[by_key[np.searchsorted(keys[by_key], wanted)]]
    order = np.argsort(-count, kind="stable")
    return add_while_fitting(problem, _nothing(), chosen[order].astype(np.int32), source[order].astype(np.int32))
