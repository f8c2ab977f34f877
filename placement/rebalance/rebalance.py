"""From today's plan and what has happened since to tomorrow's plan, with as few moves as pay.

    1  route around: the copies that live, shares anew where events touched them; moves nothing, always there
    2  the lower bound at the prices of the last search, in one pass
    3  moves for what was lost or will be, within the movement budgets; published only if cheaper than 1

Mass loss in one network is an outage: routed around at once, moved for only when patience ends. Nothing happened:
the same plan, byte for byte. Every plan passes the judge. Same inputs, same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from placement.bound import Prices, certify
from placement.check import check
from placement.plan import Plan
from placement.problem import Ids, PlacementProblem
from placement.publish import judged, published
from placement.rebalance.aftermath import Aftermath, aftermath
from placement.rebalance.delta import MAKES_ROOM, PlanDelta, plan_delta, segment_causes
from placement.rebalance.events import Event, require_valid
from placement.rebalance.fleet import DAY_SECONDS, US_PER_SECOND
from placement.rebalance.improve import improved
from placement.rebalance.memory import Memory, RecentMove
from placement.rebalance.reroute import carry_over, copy_keys, route_around
from placement.rebalance.settings import RebalanceSettings


@dataclass(frozen=True)
class Rebalanced:
    """The answer to a list of events.

    Attributes:
        problem: after the events; what is held now is what the plan before held on live sources.
        plan: for this problem, judged.
        delta: what changes from the plan before.
        memory: for the next rebalance.
        route_around_cost: what the plan without moves costs, in m$.
        now_us: when, in microseconds since 1970 UTC.
        cause: what happened to each source, in words; empty for most. (N,)
    """

    problem: PlacementProblem
    plan: Plan
    delta: PlanDelta
    memory: Memory
    route_around_cost: float
    now_us: int
    cause: Ids


def rebalance(
    problem: PlacementProblem,
    plan: Plan,
    events: Sequence[Event],
    *,
    settings: RebalanceSettings | None = None,
    memory: Memory | None = None,
    prices: Prices | None = None,
    now_us: int = 0,
    horizon_seconds: float = DAY_SECONDS,
    network_names: Mapping[int, str] | None = None,
) -> Rebalanced:
    """Applies events to the plan in force.

    Args:
        problem: what the plan answers: the `problem` of the last rebalance, or a new one and `memory.for_new_problem()`.
        plan: in force.
        events: since the last rebalance.
        settings: thresholds and patience.
        memory: of the last rebalance.
        prices: of the last price search over this problem; without them nothing is proven and the bound is 0.
        now_us: microseconds since 1970 UTC; patience is measured by it.
        horizon_seconds: time that the plan covers: a node that leaves after half of it is up for half of the requests.
        network_names: what the networks are called where causes name them; codes where absent.

    Raises:
        EventError: events that cannot be used, every mistake in a sentence.
        PlanError: the judge refused the new plan, which is a fault of this package and never of the events.
    """
    settings, memory = settings or RebalanceSettings(), memory or Memory()
    require_valid(problem, events)
    after = aftermath(
        problem,
        plan,
        events,
        settings=settings,
        memory=memory,
        now_us=now_us,
        horizon_seconds=horizon_seconds,
        network_names=network_names,
    )
    if _nothing_happened(problem, plan, after):
        delta = plan_delta(problem, plan, after, plan, np.full(len(problem.segments), "", dtype=object))
        remembered = _remembered(after, delta, settings)
        return Rebalanced(problem, plan, delta, remembered, plan.objective, now_us, after.cause)
    around = route_around(problem, plan, after, exact_arcs=settings.exact_arcs)
    bound = certified(problem, after, prices)
    best = improved(around, after, plan, settings=settings, memory=memory)
    new = judged(after.problem, published(after.problem, best, bound))
    delta = plan_delta(problem, plan, after, new, _causes(problem, plan, after))
    remembered = _remembered(after, delta, settings)
    return Rebalanced(after.problem, new, delta, remembered, around.cost, now_us, after.cause)


def certified(problem: PlacementProblem, after: Aftermath, prices: Prices | None) -> float:
    """The lower bound that the prices of the problem before prove of the problem after; 0 without prices."""
    if prices is None:
        return 0.0
    if not after.kept_segment.all():
        rows = after.kept_segment[problem.demand.segment]
        tangent = None if prices.tangent is None else prices.tangent[rows]
        prices = replace(prices, once=prices.once[rows], backing=prices.backing[after.kept_segment], tangent=tangent)
    return certify(after.problem, prices, raise_rows=True, threads=problem.settings.threads)


def bytes_moved_by_day(rebalances: Iterable[Rebalanced]) -> dict[str, int]:
    """Bytes pushed on each day (UTC, as YYYY-MM-DD) by a sequence of rebalances."""
    days: dict[str, int] = {}
    for done in rebalances:
        day = datetime.fromtimestamp(done.now_us / US_PER_SECOND, UTC).date().isoformat()
        days[day] = days.get(day, 0) + done.delta.bytes_moved
    return days


def _nothing_happened(problem: PlacementProblem, plan: Plan, after: Aftermath) -> bool:
    """Whether the plan still answers the very same problem."""
    if after.changed.any() or not after.kept_segment.all():
        return False
    held = copy_keys(problem, after.planned(plan))
    same = np.array_equal(held, problem.current_keys) and np.array_equal(held, copy_keys(problem, after.copies))
    return bool(same and check(problem, plan).ok)


def _causes(problem: PlacementProblem, plan: Plan, after: Aftermath) -> Ids:
    return segment_causes(after, after.planned(plan), carry_over(problem, plan, after))


def _remembered(after: Aftermath, delta: PlanDelta, settings: RebalanceSettings) -> Memory:
    """The memory with this rebalance's moves, less those too old to matter.

    A push stays young while a copy of its segment is parked: should that source come back and fail again, the push has
    replaced it already.
    """
    memory, now = after.memory, after.memory.rebalances + 1
    parked = {(copy.content, copy.segment) for copy in memory.parked}
    moves = [
        replace(move, rebalance=now) if move.pushed and (move.content, move.segment) in parked else move
        for move in memory.recent
    ]
    moves = [move for move in moves if move.rebalance > now - settings.remembered_rebalances]
    for table, pushed in ((delta.pushed, True), (delta.dropped, False)):
        for row in table.to_pylist():
            if (pushed or row["reason"] == MAKES_ROOM) and settings.remembered_rebalances:
                moves.append(RecentMove(row["content"], row["segment"], row["source"], pushed, now))
    moves.sort(key=lambda move: (move.rebalance, move.pushed, move.content, move.segment, move.source))
    return replace(memory, rebalances=now, recent=tuple(moves))
