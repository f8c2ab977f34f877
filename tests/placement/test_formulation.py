"""The programme says what the judge says, and its limits bind at their boundary."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from placement.copies import Copies
from placement.formulation import formulate, solve_whole
from placement.problem import Demand, PlacementProblem, PlacementSettings, Segments
from placement.solve import solve
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


def crowded(**settings: object) -> PlacementProblem:
    """Two nodes of one network, both up, one segment of 1 GB asked for 10 times, held by both nodes and the POP now."""
    base = hand_problem()
    sources = replace(
        base.sources,
        source=np.array(["pop", "n1", "n2"], dtype=object),
        tier=np.array([1, 2, 2], dtype=np.int8),
        location=np.zeros(3, np.int32),
        network=np.array([-1, 0, 0], dtype=np.int32),
        storage_bytes=np.full(3, 2 * GB),
        uplink_bytes=np.array([np.inf, 5.0 * GB, 5.0 * GB]),
        survival=np.ones(3),
        egress_cost_per_gb=np.array([0.02, 0.0, 0.0]),
        eligible=np.ones(3, np.bool_),
        lat=np.zeros(3),
        lon=np.zeros(3),
    )
    return replace(
        base,
        sources=sources,
        segments=Segments(np.array(["a"], dtype=object), np.zeros(1, np.int32), np.array([GB])),
        demand=Demand(np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([10.0])),
        rtt_ms=np.full((1, 3), 10, np.float32),
        reach=np.ones((1, 3), np.bool_),
        current_segment=np.zeros(3, np.int32),
        current_source=np.arange(3, dtype=np.int32),
        settings=PlacementSettings(**{**vars(base.settings), **settings}),
    )


@pytest.mark.parametrize(("most", "cost"), [(9, 40.0), (2, 40.0), (1, 120.0)])
def test_spread__in_threes(most: int, cost: float) -> None:
    """Two copies in one network: allowed, just allowed, and one too many; each node serves half the requests."""
    # both: 10 * 4 = 40; one: 5 * 4 + 5 * 20 = 120
    problem = crowded(max_copies_per_network=most)
    assert solve_whole(problem, seed=0).objective == pytest.approx(cost, rel=1e-5)
    assert solve(problem).objective == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize(("most", "cost"), [(9, 40.0), (2, 40.0), (1, 120.0), (0, 200.0)])
def test_tier_cap__in_threes(most: int, cost: float) -> None:
    """Two copies on tier 2: allowed, just allowed, one too many; none allowed leaves 10 * 20 to the POP."""
    problem = crowded(max_copies_by_tier=(9, most, 9))
    assert solve_whole(problem, seed=0).objective == pytest.approx(cost, rel=1e-5)
    assert solve(problem).objective == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize(("uplink", "cost"), [(100.0, 40.0), (5.0, 40.0), (4.0, 72.0)])
def test_uplink__in_threes(uplink: float, cost: float) -> None:
    """Room to spare, exactly enough for 5 requests each, and for 4 each: the POP serves the other two."""
    # 8 * 4 + 2 * 20 = 72
    problem = crowded()
    limits = np.array([np.inf, uplink * GB, uplink * GB])
    problem = replace(problem, sources=replace(problem.sources, uplink_bytes=limits))
    assert solve_whole(problem, seed=0).objective == pytest.approx(cost, rel=1e-5)
    assert solve(problem).objective == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize(("target", "fallbacks"), [(0.5, 0), (0.9, 0), (0.95, 1)])
def test_availability__in_threes(target: float, fallbacks: int) -> None:
    """One network that stays up 9 times in 10 meets a target of 0.5, just meets 0.9, and misses 0.95."""
    # the POP is full and holds nothing; two copies in one network count once, because they may fail together
    problem = crowded(pops_hold_everything=False, require_tier_one_copy=False, availability_target=target)
    sources = replace(problem.sources, survival=np.array([1.0, 0.9, 0.9]), storage_bytes=np.array([0, 2 * GB, 2 * GB]))
    problem = replace(problem, sources=sources)
    assert len(solve(problem).fallback_segment) == fallbacks


@pytest.mark.parametrize(("room", "fallbacks"), [(2 * GB, 0), (GB, 0), (GB - 1, 1)])
def test_tier_one__in_threes(room: int, fallbacks: int) -> None:
    """A POP with room to spare, with exactly enough, and one byte short: then the segment falls back to the origin."""
    problem = crowded(pops_hold_everything=False)
    problem = replace(problem, sources=replace(problem.sources, storage_bytes=np.array([room, 2 * GB, 2 * GB])))
    plan = solve(problem)
    assert len(plan.fallback_segment) == fallbacks
    # nodes serve all for 40, and the penalty is 100
    assert plan.objective == pytest.approx(40.0 + 100.0 * fallbacks, rel=1e-5)


@pytest.mark.parametrize(("penalty", "cost"), [(100.0, 90.0), (50.0, 90.0), (10.0, 50.0)])
def test_tier_one__push_or_penalty(penalty: float, cost: float) -> None:
    """A copy that nobody on tier 1 holds is pushed by the origin for 50, unless doing without is cheaper."""
    problem = crowded(pops_hold_everything=False, origin_fallback_millidollars=penalty)
    problem = replace(problem, current_segment=np.zeros(2, np.int32), current_source=np.array([1, 2], np.int32))
    # 40 by the nodes, and 50 or the penalty
    assert solve(problem).objective == pytest.approx(cost, rel=1e-5)


def test_cp_sat__serves_in_shares_and_claims_no_bound() -> None:
    """CP-SAT knows whole numbers alone: shares taken for 0 or 1 once made it place nothing and prove what is not true."""
    problem = tiny_problem(4)
    chosen = replace(problem, settings=replace(problem.settings, solver="cp-sat"))
    exact, found = solve_whole(problem, seed=0), solve_whole(chosen, seed=0)
    assert found.objective == pytest.approx(exact.objective, rel=5e-3)
    assert found.bound == 0.0
