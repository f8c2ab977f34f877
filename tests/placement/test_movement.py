"""Movement into each network stays within its own budget, whoever places the copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.copies import Copies, movement_left
from placement.formulation import solve_whole
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.problem import PlacementProblem, PlacementSettings
from placement.shortfall import least_relaxation
from placement.solve import solve
from tests.placement.test_formulation import crowded
from tests.placement.tiny import GB, brute_force, hand_problem, tiny_problem


def two_nodes(budget: int | None) -> PlacementProblem:
    """One segment of 1 GB and two nodes of one network that each serve half of its 10 requests; nothing held yet."""
    problem = crowded(movement_budget_bytes_per_network=budget)
    none = np.zeros(0, np.int32)
    return replace(problem, current_segment=none, current_source=none)


@pytest.mark.parametrize(("budget", "cost"), [(None, 80.0), (2 * GB, 80.0), (2 * GB - 1, 140.0), (0, 200.0)])
def test_network_budget__in_threes(budget: int | None, cost: float) -> None:
    """No limit, exactly two pushes, a byte less, and none: a push costs 20, a request 4 from a node and 20 from the POP."""
    # two: 2 * 20 + 10 * 4; one: 20 + 5 * 4 + 5 * 20; none: 10 * 20
    problem = two_nodes(budget)
    assert solve(problem).objective == pytest.approx(cost, rel=1e-5)
    whole = solve_whole(problem, seed=0)
    if whole.copies is not None and budget != 2 * GB - 1:  # one byte is below the solver's tolerance
        assert whole.objective == pytest.approx(cost, rel=1e-5)
    assert (movement_left(problem, place_greedily(problem)) >= 0).all()


def test_check__names_the_network() -> None:
    """A plan for two pushes, judged with a budget of one and a half."""
    plan = solve(two_nodes(None))
    assert check(two_nodes(2 * GB), plan).ok
    found = check(two_nodes(3 * GB // 2), plan).violations
    assert [(violation.constraint, violation.where, violation.amount) for violation in found] == [
        ("5' movement", "network 0", GB / 2)
    ]


def test_current_copies__move_nothing() -> None:
    """A budget of none leaves what a network holds already."""
    problem = replace(two_nodes(0), current_segment=np.zeros(1, np.int32), current_source=np.ones(1, np.int32))
    assert solve(problem).objective == pytest.approx(5 * 4 + 5 * 20, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_network_budget__brute_force(seed: int) -> None:
    """On tiny instances with a budget of the smallest push the whole programme finds the best set of copies."""
    problem = tiny_problem(seed, sure=True)
    small = int(problem.segments.bytes.min())
    chosen = replace(problem.settings, movement_budget_bytes_per_network=small, movement_budget_bytes=None)
    problem = replace(problem, settings=chosen)
    optimum = brute_force(problem)
    plan = solve(problem)
    assert plan.bound <= optimum * (1 + 1e-6)
    assert optimum * (1 - 1e-6) <= plan.objective <= optimum * (1 + problem.settings.minimum_improvement_share + 1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_network_budget__on_larger_instances(seed: int) -> None:
    """Greedy, rounding and requirements all keep it, with and without POPs that hold everything."""
    shape = InstanceSettings(segments=60, locations=3, nodes=24, pops=2, movement_share=None)
    problem = random_instance(shape, seed=seed)
    budget = int(2 * problem.segments.bytes.mean())
    for everything in (True, False):
        chosen = replace(
            problem.settings,
            neighbourhoods=2,
            movement_budget_bytes_per_network=budget,
            pops_hold_everything=everything,
            whole_programme_arcs=0,
        )
        limited = replace(problem, settings=chosen)
        plan = solve(limited)
        left = movement_left(limited, Copies(plan.segment, plan.source))
        assert (left >= 0).all()
        assert plan.bytes_moved > 0
        assert any("networks have no room left" in sentence for sentence in plan.binding)


def test_shortfall__of_a_network() -> None:
    """The only copy that would be live often enough may not be pushed into its network: a byte is missing."""
    problem = hand_problem(survival=np.array([0.0, 0.9]))
    strict = PlacementSettings(
        allow_origin_fallback=False,
        pops_hold_everything=False,
        require_tier_one_copy=False,
        availability_target=0.9,
        movement_budget_bytes_per_network=2 * GB - 1,
    )
    problem = replace(problem, settings=strict)
    plan = solve(problem)
    assert plan.reason == ("(5') b#0 misses its requirements: raise movement_budget_bytes_per_network by 1 bytes.")
    asked = least_relaxation(problem, Copies(plan.segment, plan.source), plan.fallback_segment)
    assert solve(asked.applied(problem)).status != "infeasible"
