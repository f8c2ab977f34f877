"""The programme says what the judge says, and its limits bind at their boundary."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from placement.copies import Copies
from placement.formulation import formulate, solve_whole
from tests.placement.tiny import GB, cost_of, hand_problem, tiny_problem


def test_solver_objective__is_the_judges() -> None:
    """With sources that stay up the programme is exact, so its objective is what the judge computes."""
    problem = tiny_problem(1, sure=True, minimum_improvement_share=0.0)
    answer = solve_whole(problem, seed=0)
    assert answer.copies is not None
    assert answer.objective == pytest.approx(cost_of(problem, answer.copies), rel=1e-5)


def test_formulate__names_everything() -> None:
    """A model printed for a person must read like the header of the module."""
    model = formulate(hand_problem()).model
    assert {variable.name for variable in model.variables()} == {
        *("y[0,1]", "y[1,1]", "x[0,0]", "x[0,1]", "x[1,0]", "x[1,1]", "z[0]", "z[1]")
    }
    names = {constraint.name for constraint in model.linear_constraints()}
    assert {"1[0]", "2[0,1]", "3[1]", "4[1]", "8[0,0]"} - names == {"8[0,0]"}  # one copy cannot crowd a network


@pytest.mark.parametrize(("room", "held"), [(2 * GB, 2), (GB, 1), (GB // 2, 0)])
def test_storage__in_threes(room: int, held: int) -> None:
    """Room for both segments, for exactly one, and for half of one, when both are held now and free to keep."""
    problem = hand_problem()
    storage = problem.sources.storage_bytes.copy()
    storage[1] = room
    problem = replace(
        problem,
        sources=replace(problem.sources, storage_bytes=storage),
        current_segment=problem.demand.segment,
        current_source=problem.demand.segment * 0 + 1,
    )
    copies = solve_whole(problem, seed=0).copies
    assert isinstance(copies, Copies)
    assert len(copies.segment) == held


@pytest.mark.parametrize("solver", ["highs", "cp-sat", "gscip"])
def test_solvers__agree(solver: Literal["highs", "cp-sat", "gscip"]) -> None:
    """One formulation, three solvers of the same wheel."""
    problem = hand_problem()
    problem = replace(problem, settings=replace(problem.settings, solver=solver))
    # see test_solve__by_hand: 20 for the push, 40 by the node, 20 by the POP
    assert solve_whole(problem, seed=0).objective == pytest.approx(80.0, rel=1e-5)
