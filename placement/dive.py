"""From copies held in part to whole ones: fix the surest, let the relaxation answer, fix the next.

The relaxation spreads a copy over sources that are nearly alike, so single candidates are rarely held whole. What counts
is the mass of a cluster: the candidates of one segment in one location. In each round the clusters of most mass get one
copy each, at the candidate held most that still has room, until a share of all mass is fixed; where hardly any mass is
left, the cluster's other candidates are barred. Then the passes go on from where they were, on what is left.

Candidates that the search hardly holds are left out beforehand: they prove nothing here, and the rest is much smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from placement.copies import Copies, add_while_fitting, may_pay, pay
from placement.flows import best_flows
from placement.guard import UNGUARDED, Guard
from placement.keys import find_keys
from placement.node_groups import hand_out
from placement.prices import Groups, Guide
from placement.primal_dual import FREE, HELD, PrimalDual
from placement.problem import Float64, Int64, PlacementProblem

LEAST_HELD = 1e-3
"""Share of a candidate below which the dive does without it."""
CERTAIN, POSSIBLE = 0.3, 0.05
"""Least mass of a cluster that gets a copy, and that in the last round."""


CLOSING_MASS = 0.25
"""Mass left in a cluster, beside a copy just fixed, below which its other candidates are barred."""


def dive(problem: PlacementProblem, guide: Guide, *, guard: Guard = UNGUARDED) -> Copies:
    """Whole copies within the hard limits, led by the relaxation; the guide itself is not touched.

    Where the guide searched groups of nodes, whole copies of groups are found first and then handed out to their nodes.
    """
    if guide.groups is not None:
        return _handed_out(problem, guide.groups, guard)
    search, rounds = guide.search.copy(), problem.settings.dive_rounds
    search.keep((guide.share > LEAST_HELD) | guide.candidates.graph.stands)
    clusters = _Clusters.of(problem, search)
    room = _Room.of(problem)
    for number in range(rounds):
        mass = clusters.mass(search)
        possible = mass >= (POSSIBLE if number == rounds - 1 else CERTAIN)
        total = float(mass[mass >= POSSIBLE].sum())
        if total <= 0:
            break
        order = np.flatnonzero(possible)
        order = order[np.argsort(-mass[order], kind="stable")]
        _fix(problem, search, clusters, room, order, mass, total / (rounds - number))
        search.run(problem.settings.dive_passes, guard)
    held = np.flatnonzero((search.fixed == HELD) & ~search.candidates.graph.stands)
    empty = np.zeros(0, dtype=np.int32)
    segment, source = search.candidates.segment[held], search.candidates.graph.source[held]
    return add_while_fitting(problem, Copies(empty, empty), segment, source)


def _handed_out(problem: PlacementProblem, groups: Groups, guard: Guard) -> Copies:
    small = groups.problem
    copies = dive(small, groups.guide, guard=guard)
    flows = best_flows(small, copies.segment, copies.source)
    keys = small.copy_keys(copies.segment, copies.source)
    at, known = find_keys(keys, small.copy_keys(small.demand.segment[flows.row], flows.source))
    bytes_sent = small.demand_segment_bytes[flows.row] * small.demand.requests[flows.row] * flows.share
    sent = np.asarray(np.bincount(at[known], weights=bytes_sent[known], minlength=len(keys)), np.float64)
    node = hand_out(problem, groups.group, copies.segment, copies.source, np.ones(len(keys)), sent)
    order = np.argsort(-sent, kind="stable")
    order = order[node[order] >= 0]
    empty = np.zeros(0, dtype=np.int32)
    return add_while_fitting(problem, Copies(empty, empty), copies.segment[order], node[order])


@dataclass(frozen=True)
class _Clusters:
    """Candidates by (segment, location): cluster of each candidate, and the members of each cluster."""

    of_candidate: Int64
    start: Int64
    member: Int64

    @classmethod
    def of(cls, problem: PlacementProblem, search: PrimalDual) -> _Clusters:
        candidates = search.candidates
        location = problem.sources.location[candidates.graph.source].astype(np.int64)
        keys = candidates.segment.astype(np.int64) * (len(problem.locations) + 1) + location + 1
        found, code = np.unique(keys, return_inverse=True)
        member = np.argsort(code, kind="stable")
        return cls(code, np.searchsorted(code[member], np.arange(len(found) + 1)), member)

    def mass(self, search: PrimalDual) -> Float64:
        free = np.where(search.fixed == FREE, np.clip(search.state.hold, 0.0, 1.0), 0.0)
        return np.asarray(np.bincount(self.of_candidate, weights=free, minlength=len(self.start) - 1), np.float64)


@dataclass(frozen=True)
class _Room:
    """What is left of storage (N,) and of the movement budgets (B,), and those of each source (N, 3)."""

    storage: Float64
    movement: Float64
    slots: Int64

    @classmethod
    def of(cls, problem: PlacementProblem) -> _Room:
        return cls(problem.storage_limit_bytes.copy(), problem.movement_limits_bytes.copy(), problem.movement_slots)


def _fix(
    problem: PlacementProblem,
    search: PrimalDual,
    clusters: _Clusters,
    room: _Room,
    order: Int64,
    mass: Float64,
    quota: float,
) -> None:
    _fix_clusters(
        search.candidates.graph,
        search.candidates.segment,
        (clusters.start, clusters.member, order, mass),
        (search.fixed, search.state.hold),
        (room.storage, room.movement, room.slots),
        (problem.sources.network, problem.settings.max_copies_per_network),
        quota,
    )


@numba.njit(cache=True)
def _fix_clusters(graph, segment, clusters, state, room, spread, quota) -> None:  # type: ignore[no-untyped-def]
    start, member, order, mass = clusters
    fixed, hold = state
    storage, movement, slots = room
    done = 0.0
    for cluster in order:
        if done >= quota:
            break
        best = -1
        for at in range(start[cluster], start[cluster + 1]):
            c = member[at]
            if fixed[c] != 0:
                continue
            if not _fits(graph, segment, c, fixed, room, spread):
                fixed[c], hold[c] = -1, 0.0
            elif best < 0 or hold[c] > hold[best]:
                best = c
        if best < 0:
            continue
        fixed[best], hold[best] = 1, 1.0
        storage[graph.source[best]] -= graph.size[segment[best]]
        pay(graph.source[best], graph.moved[best], slots, movement)
        done += min(mass[cluster], 1.0)
        if mass[cluster] - 1.0 < CLOSING_MASS:
            for at in range(start[cluster], start[cluster + 1]):
                if fixed[member[at]] == 0:
                    fixed[member[at]], hold[member[at]] = -1, 0.0


@numba.njit(cache=True)
def _fits(graph, segment, c: int, fixed, room, spread) -> bool:  # type: ignore[no-untyped-def]
    """Whether candidate c still fits its source, the movement budgets and the spread over networks."""
    (storage, movement, slots), (network, most) = room, spread
    s, n = segment[c], graph.source[c]
    if graph.size[s] > storage[n] or not may_pay(n, graph.moved[c], slots, movement):
        return False
    crowd = 0
    if network[n] >= 0:
        for other in range(graph.copy_start[s], graph.copy_start[s + 1]):
            if fixed[other] == 1 and network[graph.source[other]] == network[n]:
                crowd += 1
    return bool(crowd < most)
