"""Moves on top of routing around, kept only where the whole plan is cheaper for them.

Candidates are the segments that lost a copy or a share to an event, and, for sources that joined, what is most asked
for in their reach. Sources in an outage are valued as if it were over: nothing is moved for it. What a push replaces,
or makes room for, is priced in `placement/rebalance/moves.py` and `placement/rebalance/evictions.py`; here the plan
with the moves is priced in full.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.check import availability_credit
from placement.copies import Copies, add_while_fitting
from placement.plan import Plan
from placement.problem import BYTES_PER_GB, Bool, Int64, PlacementProblem
from placement.publish import Incumbent, cost_of, published
from placement.rebalance.aftermath import Aftermath
from placement.rebalance.evictions import Room, losses
from placement.rebalance.ground import Ground
from placement.rebalance.memory import Memory
from placement.rebalance.moves import Candidates, Moves, choose_moves
from placement.rebalance.reroute import LEAST_IMPROVEMENT, changed_rows, copy_keys, reroute, rows_in_reach
from placement.rebalance.settings import RebalanceSettings

FEWER = 4
"""Part of the moves that are tried again when all of them together did not pay."""

WIDER = 3
"""Moves are priced over so many times the arcs that routing around takes: there is time, and they reach further."""


def improved(
    around: Incumbent, after: Aftermath, plan: Plan, *, settings: RebalanceSettings, memory: Memory
) -> Incumbent:
    """The incumbent with the moves that pay, or as it is; `plan` is the one in force.

    Values hold for few changes, so moves are made in rounds, each priced in full: more after one that paid, fewer after
    one that did not.
    """
    lost = _lost(after, plan, around, memory)
    if after.problem.movement_limit_bytes <= 0 or not (lost.any() or after.joined.any()):
        return around
    best, most, moves = around, settings.moves_per_round, None
    for _ in range(settings.rounds):
        moves = _moves(best, after, lost, settings, memory, most) if moves is None else moves.first(most)
        if not len(moves.segment):
            break
        moved = _moved(after.problem, best, moves, settings)
        if _pays(after.problem, best, moved, settings):
            best, most, moves = moved, 2 * most, None
        elif len(moves.segment) == 1:
            break
        else:
            most = max(1, len(moves.segment) // FEWER)
    return best


def _moves(
    best: Incumbent, after: Aftermath, lost: Int64, settings: RebalanceSettings, memory: Memory, most: int
) -> Moves:
    replaced = _copies_by_segment(after.problem, best.copies, ~_is_current(after.problem, best.copies))
    lost, ground = np.maximum(0, lost - replaced), _believed(after, best, settings)
    candidates = Candidates(
        lost=lost,
        asked=_asked(after, ground, settings) & (lost == 0),
        joined=after.joined,
        avoided=after.avoided,
        returning=_recent(ground.problem, memory, pushed=None),
    )
    wanted = (lost > 0) | candidates.asked
    room = _room(ground, wanted, _spared(ground.problem, best), settings, memory)
    return choose_moves(ground, room, candidates, settings, most)


def _pays(problem: PlacementProblem, old: Incumbent, new: Incumbent, settings: RebalanceSettings) -> bool:
    """Whether what the whole plan saves is more than the threshold for the bytes it moves more."""
    more = _moved_bytes(problem, new.copies) - _moved_bytes(problem, old.copies)
    least = max(settings.least_gain_millidollars_per_gb * more / BYTES_PER_GB, LEAST_IMPROVEMENT * old.cost)
    return old.cost - new.cost > least


def _moved_bytes(problem: PlacementProblem, copies: Copies) -> float:
    is_new = ~problem.is_current(copies.segment, copies.source)
    return float(problem.segments.bytes[copies.segment[is_new]].sum())


def _moved(problem: PlacementProblem, around: Incumbent, moves: Moves, settings: RebalanceSettings) -> Incumbent:
    stays = np.ones(len(around.copies.segment), dtype=np.bool_)
    stays[moves.evicted] = False
    base = Copies(around.copies.segment[stays], around.copies.source[stays])
    copies = add_while_fitting(problem, base, moves.segment, moves.source)
    touched = changed_rows(problem, around.copies, copies, around.flows)
    flows = reroute(problem, copies, around.flows, touched, exact_arcs=WIDER * settings.exact_arcs)
    return Incumbent("route around, then moves", copies, flows, cost_of(problem, copies, flows))


def _lost(after: Aftermath, plan: Plan, around: Incumbent, memory: Memory) -> Int64:
    """Copies of each segment that failed, leave or do worse, outages apart, less those replaced lately, (S,)."""
    problem, planned = after.problem, after.planned(plan)
    worse = (after.changed & ~after.waits & ~after.joined)[planned.source]
    gone = np.isin(copy_keys(problem, planned), copy_keys(problem, around.copies), invert=True)
    gone &= ~after.waits[planned.source]
    recent = np.isin(copy_keys(problem, around.copies), _recent(problem, memory, pushed=True))
    replaced = _copies_by_segment(problem, around.copies, recent)
    lost = _copies_by_segment(problem, planned, worse | gone) - replaced
    return np.asarray(np.maximum(0, lost), dtype=np.int64)


def _copies_by_segment(problem: PlacementProblem, copies: Copies, which: Bool) -> Int64:
    return np.bincount(copies.segment[which], minlength=len(problem.segments))


def _is_current(problem: PlacementProblem, copies: Copies) -> Bool:
    return problem.is_current(copies.segment, copies.source)


def _believed(after: Aftermath, around: Incumbent, settings: RebalanceSettings) -> Ground:
    """The problem and its shares as they will be once the outages are over."""
    if not after.waits.any():
        return Ground(after.problem, around.copies, around.flows)
    sources = replace(after.problem.sources, survival=after.survival_after_outages)
    problem = replace(after.problem, sources=sources)
    back = after.waits[around.copies.source]
    touched = rows_in_reach(problem, around.copies.segment[back], around.copies.source[back])
    flows = reroute(problem, around.copies, around.flows, touched, exact_arcs=settings.exact_arcs)
    return Ground(problem, around.copies, flows)


def _asked(after: Aftermath, ground: Ground, settings: RebalanceSettings) -> Bool:
    """Segments most asked for, and not yet served by nodes, in reach of the sources that joined, (S,)."""
    problem = after.problem
    asked = np.zeros(len(problem.segments), dtype=np.bool_)
    new = after.joined & ~after.avoided & problem.sources.eligible
    if not new.any():
        return asked
    reaches: Bool = np.asarray(problem.can_serve[:, new].any(axis=1))
    reached = reaches[problem.demand.location]
    open_share = np.maximum(0.0, 1.0 - ground.mesh_share)
    weight = np.where(reached, problem.demand.requests * open_share, 0.0)
    total = np.bincount(problem.demand.segment, weights=weight, minlength=len(asked))
    most = np.argsort(-total, kind="stable")[: settings.most_segments]
    asked[most[total[most] > 0]] = True
    return asked


def _room(ground: Ground, wanted: Bool, spared: Bool, settings: RebalanceSettings, memory: Memory) -> Room:
    problem, copies = ground.problem, ground.copies
    new = np.isin(copy_keys(problem, copies), _recent(problem, memory, pushed=True))
    push = problem.push_price[copies.source] * problem.segments.bytes[copies.segment]
    loss = losses(ground) + np.where(new, settings.return_gain_factor * push, 0.0)
    may_go = ~problem.is_pop[copies.source] & ~wanted[copies.segment] & spared
    return Room.of(problem, copies, loss, may_go)


def _spared(problem: PlacementProblem, around: Incumbent) -> Bool:
    """Copies without which their segment still meets its availability target, or misses it anyway, (C,)."""
    credit = availability_credit(problem, published(problem, around, 0.0))[around.copies.segment]
    required = problem.required_credit[around.copies.segment] - 1e-6
    own = problem.credit[around.copies.source]
    return np.asarray((credit < required) | (credit - own >= required))


def _recent(problem: PlacementProblem, memory: Memory, *, pushed: bool | None) -> Int64:
    """Sorted keys segment * N + source of recent moves of one kind, or of both."""
    moves = [move for move in memory.recent if pushed is None or move.pushed == pushed]
    if not moves:
        return np.zeros(0, dtype=np.int64)
    names = zip(problem.segments.content.tolist(), problem.segments.segment.tolist(), strict=True)
    segment = {name: at for at, name in enumerate(names)}
    source = {name: at for at, name in enumerate(problem.sources.source.tolist())}
    keys = [
        segment[move.content, move.segment] * len(source) + source[move.source]
        for move in moves
        if (move.content, move.segment) in segment and move.source in source
    ]
    return np.unique(np.array(keys, dtype=np.int64))
