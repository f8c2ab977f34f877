"""Routing around: lawful, close to all shares anew, and blind to what the events did not touch."""

from __future__ import annotations

import pytest

from placement.flows import best_flows, delivery_cost
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.publish import judged, published
from placement.rebalance.aftermath import Aftermath, aftermath
from placement.rebalance.events import Event, NodeFailed, SurvivalChanged
from placement.rebalance.memory import Memory
from placement.rebalance.reroute import carry_over, route_around, touched_rows
from placement.rebalance.settings import RebalanceSettings
from tests.placement.rebalance_worlds import busiest_node, busy_world


def after_events(problem: PlacementProblem, plan: Plan, events: list[Event]) -> Aftermath:
    return aftermath(problem, plan, events, settings=RebalanceSettings(), memory=Memory(), now_us=0)


@pytest.mark.parametrize("seed", range(4))
def test_route_around__close_to_all_shares_anew(seed: int) -> None:
    """With room for neighbours it costs at most 1 % more than solving every share, and moves nothing."""
    problem, plan = busy_world(seed)
    after = after_events(problem, plan, [NodeFailed(busiest_node(problem, plan))])
    around = route_around(problem, plan, after, exact_arcs=10**6)
    anew = delivery_cost(after.problem, best_flows(after.problem, after.copies.segment, after.copies.source))
    assert judged(after.problem, published(after.problem, around, 0.0)).bytes_moved == 0
    assert delivery_cost(after.problem, around.flows) <= anew * 1.01


def test_route_around__leaves_alone_what_nothing_touched() -> None:
    """Without neighbours, rows that lost neither share nor cover keep their shares to the last bit."""
    problem, plan = busy_world(1)
    after = after_events(problem, plan, [NodeFailed(busiest_node(problem, plan))])
    before = carry_over(problem, plan, after)
    touched = touched_rows(after, after.planned(plan), before)
    now = route_around(problem, plan, after, exact_arcs=0).flows
    assert 0 < touched.sum() < len(touched)
    assert before.share[~touched[before.row]].tobytes() == now.share[~touched[now.row]].tobytes()
    assert before.source[~touched[before.row]].tobytes() == now.source[~touched[now.row]].tobytes()


def test_route_around__better_survival_is_used() -> None:
    """A node that is now believed to stay serves no less than before, and the plan is no dearer."""
    problem, plan = busy_world(2)
    node = busiest_node(problem, plan)
    after = after_events(problem, plan, [SurvivalChanged(node, 1.0)])
    around = route_around(problem, plan, after, exact_arcs=10**6)
    assert judged(after.problem, published(after.problem, around, 0.0)).objective < plan.objective
