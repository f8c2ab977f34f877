"""The judge names the limit that is broken, where, and by how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.instances import InstanceSettings, random_instance
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.solve import solve


@pytest.fixture(scope="module")
def world() -> tuple[PlacementProblem, Plan]:
    """30 segments, 3 locations, 2 POPs, 6 nodes, and a good plan."""
    problem = random_instance(InstanceSettings(segments=30, locations=3, nodes=6), seed=1)
    problem = replace(problem, settings=replace(problem.settings, whole_programme_arcs=0))
    return problem, solve(problem)


def broken(problem: PlacementProblem, plan: Plan) -> set[str]:
    return {violation.constraint for violation in check(problem, plan).violations}


def test_check__a_good_plan(world: tuple[PlacementProblem, Plan]) -> None:
    """A plan from the solver has no violation and costs what it says."""
    problem, plan = world
    report = check(problem, plan)
    assert report.ok
    assert report.cost == pytest.approx(plan.objective, rel=1e-9)
    assert report.bytes_moved == plan.bytes_moved


def test_check__storage(world: tuple[PlacementProblem, Plan]) -> None:
    """One byte less than needed in the fullest sense: no room at all."""
    problem, plan = world
    storage = np.where(problem.is_pop, problem.sources.storage_bytes, 0)
    assert "3 storage" in broken(replace(problem, sources=replace(problem.sources, storage_bytes=storage)), plan)


def test_check__uplink(world: tuple[PlacementProblem, Plan]) -> None:
    """Nodes that lost nine tenths of their uplink cannot serve the same shares."""
    problem, plan = world
    uplink = np.where(problem.is_pop, np.inf, problem.sources.uplink_bytes / 1e3)
    assert "4 uplink" in broken(replace(problem, sources=replace(problem.sources, uplink_bytes=uplink)), plan)


def test_check__movement(world: tuple[PlacementProblem, Plan]) -> None:
    """The budget in threes: ample, exactly met, and one hundredth short."""
    problem, plan = world
    assert plan.bytes_moved > 0
    for budget, fine in ((None, True), (plan.bytes_moved, True), (int(plan.bytes_moved * 0.99), False)):
        changed = replace(problem, settings=replace(problem.settings, movement_budget_bytes=budget))
        assert ("5 movement" not in broken(changed, plan)) is fine


def test_check__availability_and_tier_one(world: tuple[PlacementProblem, Plan]) -> None:
    """When POPs no longer hold everything, a plan without copies on them must say that it falls back."""
    problem, plan = world
    bare = replace(problem, settings=replace(problem.settings, pops_hold_everything=False))
    assert {"6 availability", "7 tier one"} <= broken(bare, plan)


def test_check__masks(world: tuple[PlacementProblem, Plan]) -> None:
    """Consent withdrawn after the plan was made must be seen."""
    problem, plan = world
    banned = replace(problem, sources=replace(problem.sources, eligible=problem.is_pop))
    assert "9 masks" in broken(banned, plan)


def test_check__spread_and_tier_caps(world: tuple[PlacementProblem, Plan]) -> None:
    """A copy on every node of one network breaks the spread, and a cap of none the tier."""
    problem, plan = world
    one_network = replace(problem.sources, network=np.where(problem.is_pop, -1, 0).astype(np.int32))
    copied = np.bincount(plan.segment).max()
    limits = replace(problem.settings, max_copies_per_network=max(1, int(copied) - 1), max_copies_by_tier=(9, 0, 9))
    found = broken(replace(problem, sources=one_network, settings=limits), plan)
    assert "10 tier cap" in found
    assert ("8 spread" in found) is bool(copied > 1)


def test_check__shares(world: tuple[PlacementProblem, Plan]) -> None:
    """A share for a copy nobody holds, and more than a source's survival, are both seen."""
    problem, plan = world
    assert "2 held and up" in broken(problem, replace(plan, flow_source=(plan.flow_source + 1) % len(problem.sources)))
    assert "1 demand" in broken(problem, replace(plan, flow_share=np.ones_like(plan.flow_share)))


def test_check__a_wrong_cost_is_a_violation(world: tuple[PlacementProblem, Plan]) -> None:
    """What a plan says about itself is judged too."""
    problem, plan = world
    report = check(problem, replace(plan, objective=plan.objective + 1.0, bytes_moved=plan.bytes_moved + 1))
    assert {(violation.where, round(violation.amount, 6)) for violation in report.violations} == {
        ("objective", 1.0),
        ("bytes_moved", 1.0),
    }


def test_check__unknown_codes(world: tuple[PlacementProblem, Plan]) -> None:
    """A plan for another problem is refused before anything is computed from it."""
    problem, plan = world
    assert broken(problem, replace(plan, source=plan.source + 1000)) == {"codes"}
