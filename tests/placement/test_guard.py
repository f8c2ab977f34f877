"""Time that runs out costs quality and never the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement.check import check
from placement.copies import keep_current
from placement.guard import UNGUARDED, Guard
from placement.instances import SIZES, random_instance
from placement.requirements import meet_requirements
from placement.solve import solve
from tests.placement.tiny import cost_of


def test_guard__passes_after_its_seconds() -> None:
    """One of no seconds has passed at once, one without end never does."""
    assert Guard(0.0).passed
    assert Guard(0.0).seconds_left == 0.0
    assert not UNGUARDED.passed
    assert UNGUARDED.seconds_left == float("inf")


def test_solve__no_time_keeps_what_is_held() -> None:
    """With the time up before the search begins the current copies are the plan, and it is judged like any other."""
    problem = random_instance(SIZES["xs"], seed=3)
    hurried = replace(problem, settings=replace(problem.settings, time_limit_seconds=0.0))
    plan = solve(hurried)
    assert check(hurried, plan).ok
    assert plan.method == "current copies"
    assert plan.objective == pytest.approx(
        cost_of(problem, meet_requirements(problem, keep_current(problem))), rel=1e-9
    )
    assert 0 <= plan.bound <= plan.objective


def test_solve__one_second_leaves_a_valid_plan() -> None:
    """Whatever step the guard strikes in: limits kept, no dearer than what is held, a bound that is below both plans."""
    problem = random_instance(SIZES["m"], seed=3)
    hurried = replace(problem, settings=replace(problem.settings, time_limit_seconds=1.0))
    plan = solve(hurried)
    assert check(hurried, plan).ok
    assert plan.bound <= plan.objective <= cost_of(problem, meet_requirements(problem, keep_current(problem))) * 1.001
