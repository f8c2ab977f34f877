"""Improvement by neighbourhoods: the copies of a few segments are chosen anew, exactly, while everything else stays.

A neighbourhood is one location and the segments there that the relaxation and the plan disagree about most. Their copies
give their storage, uplink and movement back; the programme of `placement/formulation.py` for them alone, over the
candidates that the relaxation holds at least a little, that are held now or that are free to keep, goes to OR-Tools
with the present copies as a hint. The answer is kept only if it saves more, with the shares cut to what copies truly
cover. Locations come in a seeded order; the solver's work is limited in nodes, so that the same input gives the same plan.

HiGHS is not used here: through MathOpt it writes to standard output, which belongs to the caller.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from ortools.math_opt.python import mathopt

from placement.copies import Copies, movement_left, within_limits
from placement.flows import Flows
from placement.guard import UNGUARDED, Guard
from placement.prices import Guide
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem

SEGMENTS_EACH, ARCS_EACH = 25, 600
"""Most segments chosen anew in one neighbourhood, and most of their arcs: what SCIP answers in about a second."""
LEAST_HELD = 0.05
"""Share from which the relaxation's candidates take part."""
TOUCHED = (0.8, 1.9, 3.2)
"""Credits at which (2') touches the true coverage: fewer than for whole programmes, since answers are cut to the truth."""
NODES_EACH = 50
"""Branch-and-bound nodes spent on one neighbourhood."""
RELATIVE_GAP = 1e-3
SECONDS_EACH = 20.0
"""Guard on the time of one neighbourhood."""
MB = 1e6


@dataclass(frozen=True)
class _Rest:
    """What the segments outside a neighbourhood leave: storage, uplink (N,) and movement budgets (B,), in bytes."""

    storage: Float64
    uplink: Float64
    movement: Float64


@dataclass(frozen=True)
class _Choice:
    """An answer: candidates held, their arcs' shares, and what they save together less their pushes, in m$."""

    held: Int64
    arc: Int64
    share: Float64
    saving: float


def improve_by_neighbourhoods(
    problem: PlacementProblem,
    guide: Guide,
    copies: Copies,
    flows: Flows,
    *,
    count: int,
    seed: int,
    guard: Guard = UNGUARDED,
) -> Copies:
    """Better copies after `count` neighbourhoods, or the same ones."""
    search = _Improvement(problem, guide, copies, flows)
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(len(problem.locations)) for _ in range(1 + count // len(problem.locations))]
    )
    for location in order[:count].tolist():
        if guard.passed:
            break
        search.improve_at(location)
    return within_limits(problem, search.copies)  # solvers may round a limit up


class _Improvement:
    """The plan on its way, in terms of the guide's candidates and arcs."""

    def __init__(self, problem: PlacementProblem, guide: Guide, copies: Copies, flows: Flows) -> None:
        self.problem, self.candidates, self.hold = problem, guide.candidates, guide.share
        graph, self.n_sources = guide.candidates.graph, len(problem.sources)
        self.segment = guide.candidates.segment
        planned = problem.copy_keys(copies.segment, copies.source)
        self.held: Bool = np.isin(guide.candidates.keys, planned)
        # What the search did not look at, or what saves nothing and is held for availability, stays.
        strange = np.isin(planned, guide.candidates.keys, invert=True)
        self.strangers = Copies(copies.segment[strange], copies.source[strange])
        self.candidate_of_arc = np.repeat(np.arange(len(graph.source)), np.diff(graph.arc_start))
        self.share, known = guide.candidates.shares_on_arcs(flows.row, flows.source, flows.share)
        sent = problem.demand_segment_bytes[flows.row] * problem.demand.requests[flows.row] * flows.share
        self.strange_sent = np.bincount(flows.source[~known], weights=sent[~known], minlength=self.n_sources)
        self.sent = graph.requests[graph.arc_row] * graph.size[self.segment[self.candidate_of_arc]]
        self.location = problem.sources.location[graph.source]
        self.likely: Bool = (self.hold > LEAST_HELD) | self.held | (graph.moved == 0)
        arcs = np.where(self.likely, np.diff(graph.arc_start), 0)
        self.arcs_of_segment = np.bincount(self.segment, weights=arcs, minlength=len(problem.segments))

    @property
    def copies(self) -> Copies:
        mine = np.flatnonzero(self.held & ~self.candidates.graph.stands)
        segment = np.concatenate([self.strangers.segment, self.segment[mine]])
        return Copies.sorted(segment, np.concatenate([self.strangers.source, self.candidates.graph.source[mine]]))

    def improve_at(self, location: int) -> None:
        chosen = self._disputed(location)
        if not chosen.any():
            return
        mine = chosen[self.segment]
        rest, now = self._rest(mine), self._choice(mine)
        graph = self.candidates.graph
        part = np.flatnonzero(
            mine & self.likely & ~graph.stands & (graph.size[self.segment] <= rest.storage[graph.source])
        )
        found = _solved(self, part, rest)
        if found is not None and found.saving > now.saving + 1e-9 * abs(now.saving):
            self.held[mine] = graph.stands[mine]
            self.held[found.held] = True
            self.share[mine[self.candidate_of_arc]] = 0.0
            self.share[found.arc] = found.share

    def _disputed(self, location: int) -> Bool:
        """The segments whose copies at the location relaxation and plan disagree about most. (S,)"""
        here = np.flatnonzero(self.location == location)
        apart = np.abs(self.hold[here] - self.held[here]) + np.minimum(self.hold[here], 1.0 - self.hold[here])
        weight = np.bincount(self.segment[here], weights=apart, minlength=len(self.problem.segments))
        chosen = np.zeros(len(weight), dtype=np.bool_)
        best = np.argsort(-weight, kind="stable")[:SEGMENTS_EACH]
        best = best[(weight[best] > 0) & (np.cumsum(self.arcs_of_segment[best]) <= ARCS_EACH)]
        chosen[best] = True
        return chosen

    def _rest(self, mine: Bool) -> _Rest:
        problem, graph, n = self.problem, self.candidates.graph, self.n_sources
        others = self.held & ~mine & ~graph.stands
        size = graph.size[self.segment]
        storage = np.bincount(graph.source[others], weights=size[others], minlength=n)
        strange = problem.segments.bytes[self.strangers.segment]
        storage = storage + np.bincount(self.strangers.source, weights=strange, minlength=n)
        arcs = ~mine[self.candidate_of_arc] & (self.share > 0)
        sent = np.bincount(
            graph.source[self.candidate_of_arc[arcs]], weights=self.sent[arcs] * self.share[arcs], minlength=n
        )
        outside = Copies(
            np.concatenate([self.strangers.segment, self.segment[others]]),
            np.concatenate([self.strangers.source, graph.source[others]]),
        )
        return _Rest(
            problem.storage_limit_bytes - storage,
            problem.usable_uplink_bytes - self.strange_sent - sent,
            movement_left(problem, outside),
        )

    def _choice(self, mine: Bool) -> _Choice:
        arcs = np.flatnonzero(mine[self.candidate_of_arc] & (self.share > 0))
        held = np.flatnonzero(mine & self.held)
        return _Choice(held, arcs, self.share[arcs], self.saving(held, arcs, self.share[arcs]))

    def saving(self, held: Int64, arcs: Int64, share: Float64) -> float:
        graph = self.candidates.graph
        saved = graph.requests[graph.arc_row[arcs]] * graph.arc_gain[arcs] * share
        return float(saved.sum() - graph.push[held].sum())


def _solved(plan: _Improvement, part: Int64, rest: _Rest) -> _Choice | None:
    """The best copies among the candidates `part` within what the rest leaves."""
    if not len(part):
        return None
    programme = _Programme(plan, part, rest)
    hint = mathopt.SolutionHint(
        variable_values={y: float(plan.held[c]) for c, y in zip(part.tolist(), programme.hold, strict=True)}
    )
    parameters = mathopt.SolveParameters(
        time_limit=dt.timedelta(seconds=SECONDS_EACH),
        node_limit=NODES_EACH,
        relative_gap_tolerance=RELATIVE_GAP,
        threads=1,
    )
    result = mathopt.solve(
        programme.model,
        mathopt.SolverType.GSCIP,
        params=parameters,
        model_params=mathopt.ModelSolveParameters(solution_hints=[hint]),
    )
    if not result.solutions or result.solutions[0].primal_solution is None:
        return None
    values = result.variable_values()
    held = part[[values[y] > 0.5 for y in programme.hold]]
    share = np.array([values[x] for x in programme.serve])
    return _true_choice(plan, held, programme.arcs, share)


def _true_choice(plan: _Improvement, held: Int64, arcs: Int64, share: Float64) -> _Choice:
    """The answer with its shares cut to whole copies and to what they truly cover."""
    graph = plan.candidates.graph
    candidate = plan.candidate_of_arc[arcs]
    kept = np.isin(candidate, held) & (share > 0)
    arcs, share, candidate = arcs[kept], share[kept], candidate[kept]
    rows, code = np.unique(graph.arc_row[arcs], return_inverse=True)
    served = np.bincount(code, weights=share, minlength=len(rows))
    credit = np.bincount(code, weights=graph.credit[graph.source[candidate]], minlength=len(rows))
    share = share * np.minimum(1.0, -np.expm1(-credit) / np.maximum(served, 1e-300))[code]
    return _Choice(held, arcs, share, plan.saving(held, arcs, share))


class _Programme:
    """Constraints are numbered as in `placement/formulation.py`."""

    def __init__(self, plan: _Improvement, part: Int64, rest: _Rest) -> None:
        self.plan, self.part, self.rest = plan, part, rest
        self.graph = plan.candidates.graph
        self.model = mathopt.Model(name="neighbourhood")
        self.arcs = np.concatenate([np.arange(*self.graph.arc_start[[c, c + 1]]) for c in part])
        self.hold = [self.model.add_binary_variable() for _ in part]
        sources = self.graph.source[plan.candidate_of_arc[self.arcs]]
        self.source = sources
        self.serve = [self.model.add_variable(lb=0.0, ub=float(self.graph.survival[n])) for n in sources]
        self.row = self.graph.arc_row[self.arcs]
        self._objective()
        self._serve_what_is_held()
        self._met_once_and_covered()
        self._storage_and_movement()
        self._uplink()
        self._spread()
        self._tier_caps()

    def _objective(self) -> None:
        gain = (self.graph.requests[self.row] * self.graph.arc_gain[self.arcs]).tolist()
        terms = [g * x for g, x in zip(gain, self.serve, strict=True)]
        terms += [-push * y for push, y in zip(self.graph.push[self.part].tolist(), self.hold, strict=True)]
        self.model.maximize(mathopt.fast_sum(terms))

    def _serve_what_is_held(self) -> None:
        """(2)"""
        of = np.searchsorted(self.part, self.plan.candidate_of_arc[self.arcs])
        for at, x in enumerate(self.serve):
            survival = float(self.graph.survival[self.source[at]])
            self.model.add_linear_constraint(x - survival * self.hold[of[at]] <= 0.0)

    def _met_once_and_covered(self) -> None:
        """(1), (2')"""
        of = np.searchsorted(self.part, self.plan.candidate_of_arc[self.arcs])
        for arcs in _groups(self.row):
            if len(arcs) < 2:
                continue
            served = mathopt.fast_sum([self.serve[a] for a in arcs])
            credit = mathopt.fast_sum([float(self.graph.credit[self.source[a]]) * self.hold[of[a]] for a in arcs])
            self.model.add_linear_constraint(served <= 1.0)
            for t in TOUCHED:
                slope = float(np.exp(-t))
                self.model.add_linear_constraint(served - slope * credit <= 1.0 - slope - slope * t)

    def _storage_and_movement(self) -> None:
        """(3), (5), (5'), (5'')"""
        size = (self.graph.size[self.plan.segment[self.part]] / MB).tolist()
        for members in _groups(self.graph.source[self.part]):
            room = float(self.rest.storage[self.graph.source[self.part[members[0]]]]) / MB
            self.model.add_linear_constraint(mathopt.fast_sum([size[i] * self.hold[i] for i in members]) <= room)
        moved = np.flatnonzero(self.graph.moved[self.part] > 0)
        slots = self.plan.problem.movement_slots[self.graph.source[self.part[moved]]]
        for slot in np.unique(slots[np.isfinite(self.rest.movement[slots])]):
            pushed = mathopt.fast_sum([size[i] * self.hold[i] for i in moved[(slots == slot).any(axis=1)]])
            self.model.add_linear_constraint(pushed <= max(0.0, float(self.rest.movement[slot])) / MB)

    def _uplink(self) -> None:
        """(4)"""
        sent = (self.plan.sent[self.arcs] / MB).tolist()
        for arcs in _groups(self.source):
            limit = float(self.rest.uplink[self.source[arcs[0]]]) / MB
            if np.isfinite(limit):
                used = mathopt.fast_sum([sent[a] * self.serve[a] for a in arcs])
                self.model.add_linear_constraint(used <= max(0.0, limit))

    def _spread(self) -> None:
        """(8)"""
        problem = self.plan.problem
        network = problem.sources.network[self.graph.source[self.part]].astype(np.int64)
        keys = self.plan.segment[self.part].astype(np.int64) * (int(network.max(initial=0)) + 2) + network + 1
        for members in _groups(keys):
            if network[members[0]] >= 0 and len(members) > problem.settings.max_copies_per_network:
                crowd = mathopt.fast_sum([self.hold[i] for i in members])
                self.model.add_linear_constraint(crowd <= float(problem.settings.max_copies_per_network))

    def _tier_caps(self) -> None:
        """(10)"""
        problem, caps = self.plan.problem, self.plan.problem.settings.max_copies_by_tier
        if caps is None:
            return
        tier = problem.sources.tier[self.graph.source[self.part]].astype(np.int64)
        for members in _groups(self.plan.segment[self.part].astype(np.int64) * 4 + tier):
            most = float(caps[tier[members[0]] - 1])
            self.model.add_linear_constraint(mathopt.fast_sum([self.hold[i] for i in members]) <= most)


def _groups(keys: Int64 | Int32) -> list[Int64]:
    """Positions of equal keys, by key."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(order, cuts)
