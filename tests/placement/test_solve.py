"""The ladder: always a judged plan, never above greedy, never below the bound, the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check import check
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.prices import lower_bound
from placement.solve import solve
from tests.placement.tiny import GB, brute_force, cost_of, hand_problem, tiny_problem


def test_solve__by_hand() -> None:
    """Pushing pays for the segment that is asked for ten times and not for the one asked for once."""
    plan = solve(hand_problem())
    # a: push 20, then 10 * 4 = 40 instead of 10 * 20 = 200; b: a push of 20 would save only 16, so the POP serves it
    assert plan.objective == pytest.approx(20 + 40 + 20)
    assert plan.status == "optimal"
    assert list(zip(plan.segment.tolist(), plan.source.tolist(), strict=True)) == [(0, 1)]
    placements, routes = plan.to_arrow(hand_problem())
    assert placements.to_pylist() == [
        {"content": "a", "segment": 0, "source": "node", "tier": 2, "bytes": GB, "moved": True}
    ]
    assert [(row["content"], row["source"], row["share"]) for row in routes.to_pylist()] == [
        ("a", "node", 1.0),
        ("b", "pop", 1.0),
    ]


def test_solve__a_node_that_may_leave() -> None:
    """A node that is up half the time serves half, and the POP serves the rest."""
    plan = solve(hand_problem(survival=np.array([1.0, 0.5])))
    # a: push 20 + 5 * 4 by the node + 5 * 20 by the POP; b: 20
    assert plan.objective == pytest.approx(20 + 20 + 100 + 20)


@pytest.mark.parametrize(("budget", "copies"), [(None, 1), (GB, 1), (GB - 1, 0), (0, 0)])
def test_movement_budget__in_threes(budget: int | None, copies: int) -> None:
    """No limit, exactly enough, one byte short, and none."""
    problem = hand_problem()
    chosen = replace(problem.settings, movement_budget_bytes=budget)
    assert len(solve(replace(problem, settings=chosen)).segment) == copies


def test_uplink__boundary() -> None:
    """Five of ten requests fit an uplink of 5 GB."""
    plan = solve(hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB])))
    # a: push 20 + 5 * 4 + 5 * 20; b: 20
    assert plan.objective == pytest.approx(160)
    assert any("Uplink" in sentence for sentence in plan.binding)


@pytest.mark.parametrize("seed", range(3))
def test_solve__between_bound_and_brute_force(seed: int) -> None:
    """Both bounds lie below the true optimum, every plan above, and the whole programme finds it when all stay up."""
    problem = tiny_problem(seed, sure=True)
    optimum = brute_force(problem)
    plan = solve(problem)
    assert lower_bound(problem).value <= optimum * (1 + 1e-6)
    assert plan.bound <= optimum * (1 + 1e-6)
    assert optimum <= cost_of(problem, place_greedily(problem)) * (1 + 1e-6)
    assert plan.objective <= optimum * (1 + problem.settings.minimum_improvement_share + 1e-5)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=6, deadline=None)
def test_solve__random_instances(seed: int, pops_hold_everything: bool) -> None:
    """Any instance gets a plan that the judge passes, not above greedy, not below the bound, the same every time."""
    shape = InstanceSettings(segments=12, locations=3, nodes=6, pops=2, rows_per_segment=2.0)
    problem = random_instance(shape, seed=seed)
    chosen = replace(problem.settings, pops_hold_everything=pops_hold_everything, whole_programme_arcs=0)
    problem = replace(problem, settings=chosen)
    plan = solve(problem, seed=1)
    assert check(problem, plan).ok
    assert plan.bound <= plan.objective * (1 + 1e-9)
    margin = 1 + 2 * problem.settings.minimum_improvement_share
    assert plan.objective <= cost_of(problem, place_greedily(problem)) * margin
    again = solve(problem, seed=1)
    assert plan.flow_share.tobytes() == again.flow_share.tobytes()
    assert plan.source.tobytes() == again.source.tobytes()


def test_solve__unchanged_world_moves_nothing() -> None:
    """No balancing for its own sake: yesterday's plan on the same forecast is kept."""
    shape = InstanceSettings(segments=60, locations=3, nodes=8, movement_share=None)
    problem = random_instance(shape, seed=2)
    problem = replace(problem, settings=replace(problem.settings, whole_programme_arcs=0, neighbourhoods=2))
    for _ in range(3):
        plan = solve(problem)
        problem = replace(problem, current_segment=plan.segment, current_source=plan.source)
    assert solve(problem).bytes_moved == 0


def test_solve__nothing_to_place() -> None:
    """An empty world has an empty plan of cost 0, and says so as optimal."""
    problem = hand_problem()
    quiet = replace(problem, demand=replace(problem.demand, requests=np.zeros(2)))
    plan = solve(quiet)
    assert (plan.objective, plan.status, len(plan.segment)) == (0.0, "optimal", 0)


def test_solve__infeasible_names_the_requirement() -> None:
    """A hard requirement that cannot be met is named with its least relaxation, and a plan comes back all the same."""
    problem = hand_problem(survival=np.array([0.9, 0.9]))
    strict = replace(problem.settings, allow_origin_fallback=False, availability_target=0.999)
    plan = solve(replace(problem, settings=strict))
    assert plan.status == "infeasible"
    # both up 9 times in 10: 1 - 0.1 * 0.1 = 0.99 at most
    assert "0.99 at most: lower availability_target" in plan.reason
