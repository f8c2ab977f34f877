"""Movement into each network, and to each location, stays within its own budget, whoever places the copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.copies import Copies, moved_bytes, movement_left
from placement.formulation import solve_whole
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.problem import PlacementProblem, PlacementSettings
from placement.shortfall import least_relaxation
from placement.solve import solve
from tests.placement.test_formulation import crowded
from tests.placement.tiny import GB, brute_force, hand_problem, tiny_problem

NETWORK, LOCATION = "movement_budget_bytes_per_network", "movement_budget_bytes_per_location"
EACH = pytest.mark.parametrize("name", [NETWORK, LOCATION])


def two_nodes(name: str, budget: int | None) -> PlacementProblem:
    """One segment of 1 GB and two nodes of one network, at one location, that each serve half of its 10 requests."""
    problem = crowded(**{name: budget})
    none = np.zeros(0, np.int32)
    return replace(problem, current_segment=none, current_source=none)


@EACH
@pytest.mark.parametrize(("budget", "cost"), [(None, 80.0), (2 * GB, 80.0), (2 * GB - 1, 140.0), (0, 200.0)])
def test_budget__in_threes(name: str, budget: int | None, cost: float) -> None:
    """No limit, exactly two pushes, a byte less, and none: a push costs 20, a request 4 from a node and 20 from the POP."""
    # two: 2 * 20 + 10 * 4; one: 20 + 5 * 4 + 5 * 20; none: 10 * 20
    problem = two_nodes(name, budget)
    assert solve(problem).objective == pytest.approx(cost, rel=1e-5)
    whole = solve_whole(problem, seed=0)
    if whole.copies is not None and budget != 2 * GB - 1:  # one byte is below the solver's tolerance
        assert whole.objective == pytest.approx(cost, rel=1e-5)
    assert (movement_left(problem, place_greedily(problem)) >= 0).all()


@pytest.mark.parametrize(
    ("name", "constraint", "where"), [(NETWORK, "5' movement", "network 0"), (LOCATION, "5'' movement", "here")]
)
def test_check__names_the_place(name: str, constraint: str, where: str) -> None:
    """A plan for two pushes, judged with a budget of one and a half."""
    plan = solve(two_nodes(name, None))
    assert check(two_nodes(name, 2 * GB), plan).ok
    found = check(two_nodes(name, 3 * GB // 2), plan).violations
    assert [(violation.constraint, violation.where, violation.amount) for violation in found] == [
        (constraint, where, GB / 2)
    ]


@EACH
def test_current_copies__move_nothing(name: str) -> None:
    """A budget of none leaves what is held already."""
    problem = replace(two_nodes(name, 0), current_segment=np.zeros(1, np.int32), current_source=np.ones(1, np.int32))
    assert solve(problem).objective == pytest.approx(5 * 4 + 5 * 20, rel=1e-5)


def test_location_budget__is_for_nodes_alone() -> None:
    """A POP is filled over the CDN's own lines: its push is in the whole budget and in that of no location."""
    problem = replace(two_nodes(LOCATION, GB), current_source=np.zeros(0, np.int32))
    problem = replace(problem, settings=replace(problem.settings, pops_hold_everything=False))
    both = Copies(np.zeros(2, np.int32), np.array([0, 1], np.int32))
    assert moved_bytes(problem, both).tolist()[0] == 2 * GB
    assert movement_left(problem, both).tolist() == [np.inf, np.inf, 0.0, np.inf]  # in all, network, location, endless
    plan = solve(problem)
    assert problem.is_pop[plan.source].sum() == 1
    assert (~problem.is_pop[plan.source]).sum() == 1


def test_budgets__of_network_and_location_hold_together() -> None:
    """Two nodes of two networks at one location: each network may take its push, the location only one."""
    problem = two_nodes(NETWORK, GB)
    problem = replace(problem, sources=replace(problem.sources, network=np.array([-1, 0, 1], np.int32)))
    for budget, copies in ((2 * GB, 2), (2 * GB - 1, 1), (GB - 1, 0)):
        chosen = replace(problem.settings, movement_budget_bytes_per_location=budget)
        assert len(solve(replace(problem, settings=chosen)).segment) == copies


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_budget__brute_force(name: str, seed: int) -> None:
    """On tiny instances with a budget of the smallest push the whole programme finds the best set of copies."""
    problem = tiny_problem(seed, sure=True)
    small = int(problem.segments.bytes.min())
    limits: dict[str, int | None] = {name: small, "movement_budget_bytes": None}
    problem = replace(problem, settings=PlacementSettings(**{**vars(problem.settings), **limits}))
    optimum = brute_force(problem)
    plan = solve(problem)
    assert plan.bound <= optimum * (1 + 1e-6)
    assert optimum * (1 - 1e-6) <= plan.objective <= optimum * (1 + problem.settings.minimum_improvement_share + 1e-5)


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_budget__on_larger_instances(name: str, seed: int) -> None:
    """Greedy, rounding and requirements all keep it, with and without POPs that hold everything."""
    shape = InstanceSettings(segments=60, locations=3, nodes=24, pops=2, movement_share=None)
    problem = random_instance(shape, seed=seed)
    budget = int(2 * problem.segments.bytes.mean())
    for everything in (True, False):
        options = {name: budget, "neighbourhoods": 2, "pops_hold_everything": everything, "whole_programme_arcs": 0}
        limited = replace(problem, settings=PlacementSettings(**{**vars(problem.settings), **options}))
        plan = solve(limited)
        left = movement_left(limited, Copies(plan.segment, plan.source))
        assert (left >= 0).all()
        assert plan.bytes_moved > 0
        places = "networks" if name == NETWORK else "locations"
        assert any(f"{places} have no room left" in sentence for sentence in plan.binding)


@EACH
def test_shortfall__of_a_place(name: str) -> None:
    """The only copy that would be live often enough may not be pushed there: a byte is missing."""
    problem = hand_problem(survival=np.array([0.0, 0.9]))
    strict = PlacementSettings(
        allow_origin_fallback=False,
        pops_hold_everything=False,
        require_tier_one_copy=False,
        availability_target=0.9,
    )
    limits = {name: 2 * GB - 1}
    problem = replace(problem, settings=PlacementSettings(**{**vars(strict), **limits}))
    plan = solve(problem)
    number = "(5')" if name == NETWORK else "(5'')"
    assert plan.reason == f"{number} b#0 misses its requirements: raise {name} by 1 bytes."
    asked = least_relaxation(problem, Copies(plan.segment, plan.source), plan.fallback_segment)
    assert solve(asked.applied(problem)).status != "infeasible"
