"""Targets by popularity hold alike in the programme, the requirements, the judge and the reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.copies import Copies
from placement.errors import ProblemError
from placement.formulation import solve_whole
from placement.problem import Demand, PlacementProblem, PlacementSettings, Segments
from placement.requirements import missing_requirements
from placement.shortfall import least_relaxation
from placement.solve import solve
from tests.placement.tiny import GB, hand_problem

HEAD, TORSO, TAIL = 0.995, 0.95, 0.5


def three_classes(**settings: object) -> PlacementProblem:
    """Segments asked for 60, 30, 10 and 0 times; three nodes of three networks, each up 9 times in 10, with ample room.

    One copy is live with 0.9, two with 0.99, three with 0.999; a POP that is never up holds nothing.
    """
    base = hand_problem()
    sources = replace(
        base.sources,
        source=np.array(["pop", "n1", "n2", "n3"], dtype=object),
        tier=np.array([1, 2, 2, 2], dtype=np.int8),
        location=np.zeros(4, np.int32),
        network=np.array([-1, 0, 1, 2], dtype=np.int32),
        storage_bytes=np.full(4, 9 * GB),
        uplink_bytes=np.full(4, np.inf),
        survival=np.array([0.0, 0.9, 0.9, 0.9]),
        egress_cost_per_gb=np.array([0.02, 0.0, 0.0, 0.0]),
        eligible=np.ones(4, np.bool_),
        lat=np.zeros(4),
        lon=np.zeros(4),
    )
    hard = {"pops_hold_everything": False, "require_tier_one_copy": False, "allow_origin_fallback": False}
    chosen = {**vars(base.settings), **hard, "availability_target_by_popularity": (HEAD, TORSO, TAIL), **settings}
    return replace(
        base,
        sources=sources,
        segments=Segments(np.array(list("abcd"), dtype=object), np.zeros(4, np.int32), np.full(4, GB)),
        demand=Demand(np.arange(4, dtype=np.int32), np.zeros(4, np.int32), np.array([60.0, 30.0, 10.0, 0.0]) * 1e-3),
        rtt_ms=np.full((1, 4), 10, np.float32),
        reach=np.ones((1, 4), np.bool_),
        settings=PlacementSettings(**chosen),
    )


def test_popularity__by_hand() -> None:
    """60 of 100 requests start the head, 30 more the torso (up to 90), and the rest is the tail, asked for or not."""
    problem = three_classes()
    assert problem.popularity.tolist() == [0, 1, 2, 2]
    assert problem.availability_target.tolist() == [HEAD, TORSO, TAIL, TAIL]
    quiet = replace(problem, demand=replace(problem.demand, requests=np.zeros(4)))
    assert quiet.popularity.tolist() == [2, 2, 2, 2]
    single = three_classes(availability_target_by_popularity=None, availability_target=0.7)
    assert single.availability_target.tolist() == [0.7] * 4


def test_targets__decide_how_many_copies() -> None:
    """0.995 needs three copies, 0.95 two and 0.5 one: 3 + 2 + 1 + 1, by the ladder and by the whole programme."""
    problem = three_classes()
    assert np.bincount(solve(problem).segment).tolist() == [3, 2, 1, 1]
    copies = solve_whole(problem, seed=0).copies
    assert copies is not None
    assert np.bincount(copies.segment).tolist() == [3, 2, 1, 1]
    greedily = solve(replace(problem, settings=replace(problem.settings, whole_programme_arcs=0)))
    assert np.bincount(greedily.segment).tolist() == [3, 2, 1, 1]


def test_check__judges_each_segment_by_its_own_target() -> None:
    """Two copies of everything are enough for the torso and not for the head."""
    problem = three_classes()
    copies = Copies(np.repeat(np.arange(4), 2).astype(np.int32), np.tile([1, 2], 4).astype(np.int32))
    assert missing_requirements(problem, copies).tolist() == [True, False, False, False]
    plan = replace(
        solve(problem),
        segment=copies.segment,
        source=copies.source,
        moved=np.ones(8, np.bool_),
        fallback_segment=np.zeros(0, np.int32),
    )
    short = [found for found in check(problem, plan).violations if found.constraint == "6 availability"]
    assert [found.where for found in short] == ["a#0"]
    assert "live with probability 0.99, below the target 0.995" in short[0].sentence


def test_shortfall__names_the_class() -> None:
    """Three nodes make 0.999; the head asks for 0.9999, and only its target is lowered."""
    problem = three_classes(availability_target_by_popularity=(0.9999, 0.999, 0.99))
    plan = solve(problem)
    assert "0.999 at most: lower the head's in availability_target_by_popularity to it" in plan.reason
    asked = least_relaxation(problem, Copies(plan.segment, plan.source), plan.fallback_segment)
    relaxed = asked.applied(problem)
    assert relaxed.settings.availability_target_by_popularity == pytest.approx((0.999, 0.999, 0.99))
    assert solve(relaxed).status != "infeasible"


@pytest.mark.parametrize("targets", [(0.9,), (0.9, 1.0, 0.5), (float("nan"), 0.5, 0.5)])
def test_settings__three_targets_below_one(targets: tuple[float, ...]) -> None:
    """A target of 1 would need infinitely many copies."""
    with pytest.raises(ProblemError, match="availability_target_by_popularity"):
        PlacementSettings(availability_target_by_popularity=targets)
