"""The placement programme for one horizon, for OR-Tools.

Sets        s segment, l location, k = (s, l) with demand, n source that may serve l; P POPs, M nodes; f network.
Data        r_k requests, q_s bytes, p_n survival, c_kn price of a request served by n, c_ko by the origin,
            g_n price of a pushed byte, new_sn = 1 if n does not hold s yet, C_n storage, U_n uplink less headroom and
            times survival, B, B_f, B_l movement budgets, a_s = -ln(1 - availability target), w_n = -ln(1 - p_n), h penalty.
Variables   y_sn in {0, 1} hold a copy; x_kn in [0, p_n] expected share of k's requests that n serves;
            z_s in {0, 1} fall back to the origin; v_sn in [0, 1] the copy that a network counts for availability.
Programme   min  sum_k r_k (c_ko + sum_n (c_kn - c_ko) x_kn) + sum_sn g_n q_s new_sn y_sn + h sum_s z_s

(1)  sum_n x_kn <= 1                              nobody is served twice
(2)  x_kn <= p_n y_sn                             only what is held is served, and only while its source is up
(2') sum_{n in M} x_kn <= 1 - e^-t + e^-t (sum_{n in M} w_n y_sn - t)   for several t: nodes serve only while one is up
(3)  sum_s q_s y_sn <= C_n                        storage
(4)  sum_k q_s r_k x_kn <= U_n                    uplink
(5)  sum_sn q_s new_sn y_sn <= B                  movement
(5') sum_{n in f} sum_s q_s new_sn y_sn <= B_f     movement into a network
(5'') sum_{n in M at l} sum_s q_s new_sn y_sn <= B_l   movement to the nodes of a location
(6)  sum_n w_n v_sn + a_s z_s >= a_s, v_sn <= y_sn, sum_{n in f} v_sn <= 1   availability; a network counts once, because
     its sources may fail together
(7)  sum_{n in P} y_sn + z_s >= 1                 a copy on tier 1
(8)  sum_{n in f} y_sn <= k_f                     spread over networks
(9)  y_sn only for eligible n, x_kn only in reach: such variables alone exist
(10) sum_{n in tier} y_sn <= cap of the tier

1 - prod(1 - p_n y_sn) = 1 - e^-(sum w_n y_sn) is concave in the credit, so its tangents (2') contain it: the programme
is a relaxation that is exact with one copy in reach. Plans get exact shares from `placement/flows.py`, which also keeps
the margins on tight uplinks that `uplink_quantile` asks for.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from ortools.math_opt.python import mathopt
from ortools.sat import sat_parameters_pb2

from placement.copies import Copies
from placement.guard import LEAST_SECONDS, UNGUARDED, Guard
from placement.problem import PlacementProblem

TANGENTS = (0.4, 0.8, 1.3, 1.9, 2.6, 3.5, 5.0)
"""Credits t at which (2') touches the true coverage."""
SHARE_UNITS = 1000.0
"""Steps of a share where the solver knows whole numbers alone."""
SOLVERS = {
    "highs": mathopt.SolverType.HIGHS,
    "cp-sat": mathopt.SolverType.CP_SAT,
    "gscip": mathopt.SolverType.GSCIP,
}


@dataclass(frozen=True)
class Programme:
    """The model and its variables, by (segment, source), (row, source) and segment; `scenario` ends names of shares."""

    problem: PlacementProblem
    model: mathopt.Model
    hold: dict[tuple[int, int], mathopt.Variable] = field(default_factory=dict)
    serve: dict[tuple[int, int], mathopt.Variable] = field(default_factory=dict)
    fallback: dict[int, mathopt.Variable] = field(default_factory=dict)
    scenario: str = ""
    counted: dict[tuple[int, int], mathopt.Variable] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the solver returned: copies (None if it found none), its objective and its proven bound."""

    copies: Copies | None
    objective: float
    bound: float


def solve_whole(
    problem: PlacementProblem, *, seed: int, hint: Copies | None = None, guard: Guard = UNGUARDED
) -> Answer:
    """Builds the programme and solves it within the limits of the settings."""
    left = max(LEAST_SECONDS, min(problem.settings.time_limit_seconds, guard.seconds_left))
    problem = replace(problem, settings=replace(problem.settings, time_limit_seconds=left))
    return answered(formulate(problem), seed, hint)


def answered(programme: Programme, seed: int, hint: Copies | None = None) -> Answer:
    """What the solver makes of a programme within the limits of its settings."""
    result = _solved(programme, seed, hint)
    if result is None:
        return Answer(None, np.inf, 0.0)
    bound = result.termination.objective_bounds.dual_bound
    if not result.solutions or result.solutions[0].primal_solution is None:
        return Answer(None, np.inf, bound if np.isfinite(bound) else 0.0)
    if programme.problem.settings.solver == "cp-sat":
        bound = 0.0  # shares lie on a grid there, so what it proves is not proven of the programme
    values = result.variable_values()
    held = sorted(pair for pair, variable in programme.hold.items() if values[variable] > 0.5)
    pairs = np.array(held, dtype=np.int32).reshape(-1, 2)
    return Answer(Copies(pairs[:, 0].copy(), pairs[:, 1].copy()), result.objective_value(), max(0.0, bound))


def arc_count(problem: PlacementProblem) -> int:
    """Number of x_kn variables that the programme would have."""
    useful = problem.can_serve.sum(axis=1)
    return int(useful[problem.demand.location].sum())


def formulate(problem: PlacementProblem) -> Programme:
    """The programme, its parts in the order of the header."""
    programme = Programme(problem, mathopt.Model(name="placement"))
    for add in (copy_variables, share_variables):
        add(programme)
    programme.model.minimize(delivery_cost(programme) + copy_cost(programme))
    for add in (*SHARE_RULES, *COPY_RULES):
        add(programme)
    return programme


def copy_variables(programme: Programme) -> None:
    """y_sn where s fits n and n may hold anything, and z_s."""
    problem, model = programme.problem, programme.model
    fits = problem.segments.bytes[:, None] <= problem.storage_limit_bytes[None, :]
    may_hold = fits & (problem.sources.eligible & ~problem.standing)[None, :]
    for s, n in np.argwhere(may_hold).tolist():
        programme.hold[s, n] = model.add_binary_variable(name=f"y[{s},{n}]")
    for s in range(len(problem.segments)):
        programme.fallback[s] = model.add_binary_variable(name=f"z[{s}]")


def share_variables(programme: Programme) -> None:
    """x_kn where n may serve k's location and may hold its segment."""
    problem, model = programme.problem, programme.model
    for k in np.flatnonzero(problem.demand.requests > 0).tolist():
        s, location = int(problem.demand.segment[k]), int(problem.demand.location[k])
        for n in np.flatnonzero(problem.can_serve[location]).tolist():
            if (s, n) in programme.hold or problem.standing[n]:
                limit = float(problem.sources.survival[n])
                programme.serve[k, n] = model.add_variable(lb=0.0, ub=limit, name=f"x[{k},{n}]{programme.scenario}")


def delivery_cost(programme: Programme) -> mathopt.LinearSum:
    """sum_k r_k (c_ko + sum_n (c_kn - c_ko) x_kn)"""
    problem, requests = programme.problem, programme.problem.demand.requests
    pairs = np.array(list(programme.serve), dtype=np.int64).reshape(-1, 2)
    prices = problem.serving_price(pairs[:, 0], pairs[:, 1].astype(np.int32)) - problem.origin_price[pairs[:, 0]]
    terms = [(c, x) for c, x in zip((requests[pairs[:, 0]] * prices).tolist(), programme.serve.values(), strict=True)]
    return mathopt.fast_sum([_sum(terms), float(requests @ problem.origin_price)])


def copy_cost(programme: Programme) -> mathopt.LinearSum:
    """sum_sn g_n q_s new_sn y_sn + h sum_s z_s"""
    problem = programme.problem
    terms = [(_push_bytes(problem, s, n) * problem.push_price[n], y) for (s, n), y in programme.hold.items()]
    terms += [(problem.fallback_price, z) for z in programme.fallback.values()]
    return _sum(terms)


def _demand_met_once(programme: Programme) -> None:
    """(1) Nobody is served twice."""
    for k, arcs in groupby(programme.serve, key=lambda pair: pair[0]):
        served = mathopt.fast_sum([programme.serve[arc] for arc in arcs])
        programme.model.add_linear_constraint(served <= 1.0, name=f"1[{k}]{programme.scenario}")


def _serve_what_is_held(programme: Programme) -> None:
    """(2) Only what is held is served, and only while its source is up."""
    problem = programme.problem
    for (k, n), x in programme.serve.items():
        y = programme.hold.get((int(problem.demand.segment[k]), n))
        if y is not None:
            limit = float(problem.sources.survival[n])
            programme.model.add_linear_constraint(x <= limit * y, name=f"2[{k},{n}]{programme.scenario}")


def _coverage(programme: Programme) -> None:
    """(2') Nodes together serve only while one of them is up."""
    problem = programme.problem
    for k, arcs in groupby(programme.serve, key=lambda pair: pair[0]):
        nodes = [n for _, n in arcs if not problem.is_pop[n]]
        if len(nodes) < 2:
            continue
        s = int(problem.demand.segment[k])
        served = mathopt.fast_sum([programme.serve[k, n] for n in nodes])
        credit = _sum([(float(problem.credit[n]), programme.hold[s, n]) for n in nodes])
        for t in TANGENTS:
            slope = float(np.exp(-t))
            cut = served - slope * credit <= 1 - slope - slope * t
            programme.model.add_linear_constraint(cut, name=f"2'[{k},{t}]{programme.scenario}")


def _storage(programme: Programme) -> None:
    """(3) What a source holds fits its room."""
    sizes = programme.problem.segments.bytes
    for n, terms in _grouped([(n, float(sizes[s]), y) for (s, n), y in programme.hold.items()]):
        limit = float(programme.problem.storage_limit_bytes[n])
        programme.model.add_linear_constraint(_sum(terms) * 1e-6 <= limit * 1e-6, name=f"3[{n}]")


def _uplink(programme: Programme) -> None:
    """(4) What a source serves fits the uplink it is expected to have."""
    problem = programme.problem
    sent = (problem.demand_segment_bytes * problem.demand.requests).tolist()
    for n, terms in _grouped([(n, sent[k], x) for (k, n), x in programme.serve.items()]):
        limit = float(problem.usable_uplink_bytes[n])
        if np.isfinite(limit):
            programme.model.add_linear_constraint(
                _sum(terms) * 1e-6 <= limit * 1e-6, name=f"4[{n}]{programme.scenario}"
            )


def _movement(programme: Programme) -> None:
    """(5), (5'), (5'') What is pushed fits the movement budgets: in all, of each network and of each location's nodes."""
    problem = programme.problem
    slots, limits, first_location = problem.movement_slots, problem.movement_limits_bytes, problem.first_location_slot
    pushed = [
        (slot, _push_bytes(problem, s, n), y)
        for (s, n), y in programme.hold.items()
        for slot in slots[n].tolist()
        if np.isfinite(limits[slot])
    ]
    for slot, terms in _grouped(pushed):
        network, location = f"5'[{slot - 1}]", f"5''[{slot - first_location}]"
        name = "5" if slot == 0 else network if slot < first_location else location
        programme.model.add_linear_constraint(_sum(terms) * 1e-6 <= float(limits[slot]) * 1e-6, name=name)


def _availability(programme: Programme) -> None:
    """(6) Each segment is live with the target probability, a network counting only its best copy."""
    problem, model = programme.problem, programme.model
    needed_by_segment = (problem.required_credit - float(problem.credit[problem.standing].sum())).tolist()
    for s, pairs in groupby(programme.hold, key=lambda pair: pair[0]):
        needed = needed_by_segment[s]
        if needed <= 1e-6:
            continue
        networks: dict[int, list[mathopt.Variable]] = {}
        credit = [(needed, programme.fallback[s])]
        for pair in pairs:
            v = model.add_variable(lb=0.0, ub=1.0, name=f"v[{s},{pair[1]}]")
            model.add_linear_constraint(v <= programme.hold[pair], name=f"6a[{s},{pair[1]}]")
            networks.setdefault(int(problem.domain[pair[1]]), []).append(v)
            credit.append((float(problem.credit[pair[1]]), v))
        for f, counted in networks.items():
            model.add_linear_constraint(mathopt.fast_sum(counted) <= 1.0, name=f"6b[{s},{f}]")
        model.add_linear_constraint(_sum(credit) >= needed - 1e-6, name=f"6[{s}]")
    nowhere = set(programme.fallback) - {s for s, _ in programme.hold}
    for s in sorted(s for s in nowhere if needed_by_segment[s] > 1e-6):
        model.add_linear_constraint(programme.fallback[s] >= 1.0, name=f"6[{s}]")


def _tier_one(programme: Programme) -> None:
    """(7) A copy on tier 1."""
    problem = programme.problem
    if not problem.settings.require_tier_one_copy or problem.standing.any():
        return
    for s, z in programme.fallback.items():
        backing = [programme.hold[s, n] for n in np.flatnonzero(problem.is_pop).tolist() if (s, n) in programme.hold]
        programme.model.add_linear_constraint(mathopt.fast_sum([*backing, z]) >= 1.0, name=f"7[{s}]")


def _spread(programme: Programme) -> None:
    """(8) Copies of a segment are spread over networks."""
    problem, limit = programme.problem, float(programme.problem.settings.max_copies_per_network)
    groups: dict[tuple[int, int], list[mathopt.Variable]] = {}
    for (s, n), y in programme.hold.items():
        if problem.sources.network[n] >= 0:
            groups.setdefault((s, int(problem.sources.network[n])), []).append(y)
    for (s, f), copies in groups.items():
        if len(copies) > limit:
            programme.model.add_linear_constraint(mathopt.fast_sum(copies) <= limit, name=f"8[{s},{f}]")


def _tier_caps(programme: Programme) -> None:
    """(10) Copies of a segment on each tier."""
    caps = programme.problem.settings.max_copies_by_tier
    if caps is None:
        return
    groups: dict[tuple[int, int], list[mathopt.Variable]] = {}
    for (s, n), y in programme.hold.items():
        groups.setdefault((s, int(programme.problem.sources.tier[n])), []).append(y)
    for (s, tier), copies in groups.items():
        programme.model.add_linear_constraint(mathopt.fast_sum(copies) <= caps[tier - 1], name=f"10[{s},{tier}]")


SHARE_RULES = (_demand_met_once, _serve_what_is_held, _coverage, _uplink)
"""(1), (2), (2') and (4): what ties shares to copies, in one scenario or on average."""
COPY_RULES = (_storage, _movement, _availability, _tier_one, _spread, _tier_caps)
"""(3), (5) to (8) and (10): what binds copies whatever happens."""


def _push_bytes(problem: PlacementProblem, segment: int, source: int) -> float:
    """Bytes to push for a copy: none if the source holds it now."""
    at = segment * len(problem.sources) + source
    found = np.searchsorted(problem.current_keys, at)
    held = found < len(problem.current_keys) and problem.current_keys[found] == at
    return 0.0 if held else float(problem.segments.bytes[segment])


def _grouped(
    terms: list[tuple[int, float, mathopt.Variable]],
) -> list[tuple[int, list[tuple[float, mathopt.Variable]]]]:
    groups: dict[int, list[tuple[float, mathopt.Variable]]] = {}
    for key, factor, variable in terms:
        groups.setdefault(key, []).append((factor, variable))
    return sorted(groups.items())


def _sum(terms: list[tuple[float, mathopt.Variable]]) -> mathopt.LinearSum:
    return mathopt.fast_sum([float(factor) * variable for factor, variable in terms])


def _solved(programme: Programme, seed: int, hint: Copies | None) -> mathopt.SolveResult | None:
    """The solver's result; None where it failed, as HiGHS does on what breaks a limit by less than its tolerance."""
    solver, parameters = SOLVERS[programme.problem.settings.solver], _parameters(programme.problem, seed)
    try:
        return mathopt.solve(programme.model, solver, params=parameters, model_params=_hint(programme, hint))
    except (RuntimeError, ValueError, AttributeError):  # MathOpt raises the last where it cannot read its own status
        return None


def _parameters(problem: PlacementProblem, seed: int) -> mathopt.SolveParameters:
    settings = problem.settings
    whole_numbers = sat_parameters_pb2.SatParameters()
    # CP-SAT knows whole numbers alone: without a scale it would take each share for 0 or 1.
    whole_numbers.mip_var_scaling = SHARE_UNITS
    return mathopt.SolveParameters(
        time_limit=dt.timedelta(seconds=settings.time_limit_seconds),
        node_limit=settings.node_limit if settings.solver != "cp-sat" else None,
        relative_gap_tolerance=settings.relative_gap,
        random_seed=seed,
        threads=1 if settings.solver == "cp-sat" else None,
        cp_sat=whole_numbers,
    )


def _hint(programme: Programme, copies: Copies | None) -> mathopt.ModelSolveParameters:
    """A known plan as a start. HiGHS takes none through MathOpt."""
    if copies is None or programme.problem.settings.solver == "highs":
        return mathopt.ModelSolveParameters()
    held = set(zip(copies.segment.tolist(), copies.source.tolist(), strict=True))
    values = {y: float(pair in held) for pair, y in programme.hold.items()}
    return mathopt.ModelSolveParameters(solution_hints=[mathopt.SolutionHint(variable_values=values)])
