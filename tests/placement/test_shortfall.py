"""What a hard requirement lacks is named, is enough, and is the least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.copies import keep_current
from placement.instances import InstanceSettings, random_instance
from placement.problem import PlacementProblem, PlacementSettings
from placement.requirements import meet_requirements, missing_requirements
from placement.shortfall import Relaxation, least_relaxation
from placement.solve import solve
from tests.placement.tiny import GB, hand_problem


def strict(*, room: tuple[int, int] = (2 * GB, 2 * GB), **settings: object) -> PlacementProblem:
    """The world by hand without fallback: a POP that is a source like others, and one node, both up 9 times in 10."""
    problem = hand_problem(survival=np.array([0.9, 0.9]))
    hard = {"allow_origin_fallback": False, "pops_hold_everything": False, "availability_target": 0.9, **settings}
    sources = replace(problem.sources, storage_bytes=np.array(room))
    return replace(problem, sources=sources, settings=PlacementSettings(**{**vars(problem.settings), **hard}))


def relaxation(problem: PlacementProblem) -> Relaxation:
    copies = meet_requirements(problem, keep_current(problem))
    return least_relaxation(problem, copies, np.flatnonzero(missing_requirements(problem, copies)))


def check_relaxed(problem: PlacementProblem, asked: Relaxation) -> None:
    """The plan is infeasible with the reason that is asked about, and feasible once that is granted."""
    plan = solve(problem)
    assert (plan.status, plan.reason) == ("infeasible", asked.sentence(problem))
    assert solve(asked.applied(problem)).status != "infeasible"


def test_tier_one__a_pop_is_missing() -> None:
    """Nobody can hold the copy on tier 1: there is no number to relax, and the sentence says what to add."""
    problem = strict()
    sources = replace(problem.sources, eligible=np.array([False, True]))
    asked = relaxation(replace(problem, sources=sources))
    assert asked.needs_pop
    assert "no POP is eligible: add one" in asked.sentence(problem)
    assert solve(problem).status != "infeasible"  # with the POP


def test_tier_one__the_cap_of_the_tier_forbids_it() -> None:
    """A cap of none on tier 1 contradicts the copy on tier 1."""
    problem = strict(max_copies_by_tier=(0, 9, 9))
    asked = relaxation(problem)
    assert "raise the first of max_copies_by_tier to 1" in asked.sentence(problem)
    check_relaxed(problem, asked)


@pytest.mark.parametrize(("room", "lacking"), [(GB - 7, GB + 7), (2 * GB - 1, 1)])
def test_storage__short_by(room: int, lacking: int) -> None:
    """Two segments of 1 GB need 2 GB on the only POP: first one of them alone does not fit, then both together."""
    problem = strict(room=(room, 2 * GB))
    asked = relaxation(problem)
    if room < GB:  # the shortest reason is about a segment by itself: 7 bytes
        assert asked.storage_bytes.tolist() == [7, 0]
        asked = relaxation(asked.applied(problem))
        assert asked.storage_bytes.tolist() == [GB, 0]
        return
    assert asked.storage_bytes.tolist() == [lacking, 0]
    assert asked.sentence(problem) == "(3) b#0 misses its requirements: add storage: 1 bytes at pop."
    check_relaxed(problem, asked)


def test_storage__grows_by_the_share_that_a_plan_may_fill() -> None:
    """A plan may fill half of a POP's storage: 2 bytes more for each byte that is short."""
    problem = strict(room=(4 * GB - 2, 2 * GB), storage_share_by_tier=(0.5, 1.0, 1.0))
    asked = relaxation(problem)
    assert asked.storage_bytes.tolist() == [2, 0]
    check_relaxed(problem, asked)


def test_target__above_what_is_attainable() -> None:
    """POP and node together are live with 1 - 0.1 * 0.1 = 0.99; within a cap of none for nodes, with 0.9."""
    problem = strict(availability_target=0.999)
    asked = relaxation(problem)
    assert asked.target == pytest.approx(0.99)
    assert "(6) a#0 (2 segments in all) can be live with probability 0.99 at most" in asked.sentence(problem)
    check_relaxed(problem, asked)
    capped = strict(availability_target=0.999, max_copies_by_tier=(9, 0, 9))
    assert relaxation(capped).target == pytest.approx(0.9)
    check_relaxed(capped, relaxation(capped))
    nearly = replace(asked, target=0.991)
    assert solve(nearly.applied(problem)).status == "infeasible"


def test_movement__short_by() -> None:
    """Two copies of 1 GB on the POP, a budget of one and 9 bytes: the rest of the second is asked for, and no byte more."""
    problem = strict(movement_budget_bytes=GB + 9)
    asked = relaxation(problem)
    assert asked.movement_bytes == GB - 9
    assert "raise movement_budget_bytes by 999999991 bytes" in asked.sentence(problem)
    check_relaxed(problem, asked)
    assert solve(replace(asked, movement_bytes=GB - 10).applied(problem)).status == "infeasible"


def test_movement__what_is_held_is_free() -> None:
    """The copies on tier 1 are there already: nothing needs to move."""
    problem = strict(movement_budget_bytes=0)
    held = replace(problem, current_segment=np.array([0, 1], np.int32), current_source=np.zeros(2, np.int32))
    assert solve(held).status != "infeasible"


def test_required_copies__go_before_those_that_only_save() -> None:
    """POP and node are both full of a segment held now: one of its copies makes room for the other segment."""
    problem = strict(room=(GB, GB), require_tier_one_copy=False)
    held = replace(problem, current_segment=np.array([0, 0], np.int32), current_source=np.array([0, 1], np.int32))
    assert missing_requirements(held, keep_current(held)).tolist() == [False, True]
    assert solve(held).status != "infeasible"


def test_hard_requirements__hold_whatever_they_cost() -> None:
    """A copy on tier 1 costs 50 m$ and the penalty is 1: where falling back is forbidden nobody may weigh the two."""
    plan = solve(strict(origin_fallback_millidollars=1.0))
    assert plan.status != "infeasible"
    assert len(plan.fallback_segment) == 0
    soft = solve(strict(origin_fallback_millidollars=1.0, allow_origin_fallback=True))
    assert len(soft.fallback_segment) == 2


@pytest.mark.parametrize("seed", range(6))
def test_relaxation__is_enough_on_random_instances(seed: int) -> None:
    """Granting what is asked for, again and again, leads to a plan without fallback in a few steps."""
    settings = PlacementSettings(
        allow_origin_fallback=False,
        pops_hold_everything=False,
        require_tier_one_copy=seed % 2 == 0,
        availability_target=0.99,
    )
    shape = InstanceSettings(segments=12, locations=2, nodes=8, pops=2, movement_share=0.05, placement=settings)
    problem = random_instance(shape, seed=seed)
    small = np.where(problem.is_pop, problem.segments.bytes.sum() // 2, problem.sources.storage_bytes)
    problem = replace(problem, sources=replace(problem.sources, storage_bytes=small))
    for _ in range(5):
        copies = meet_requirements(problem, keep_current(problem))
        missing = missing_requirements(problem, copies)
        if not missing.any():
            return
        problem = least_relaxation(problem, copies, np.flatnonzero(missing)).applied(problem)
    raise AssertionError(f"{int(missing.sum())} segments still miss their requirements.")
