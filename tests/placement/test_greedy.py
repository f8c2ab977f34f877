"""Greedy places what is worth its push, keeps what is free, and breaks no limit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from placement.check import check
from placement.copies import keep_current
from placement.greedy import GreedyRules, place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.problem import Demand, PlacementProblem, Sources
from placement.solve import solve_greedily
from tests.placement.tiny import GB, cost_of, hand_problem, keeps_hard_limits, tiny_problem


def test_keep_current__drops_what_no_longer_fits() -> None:
    """Consent is never soft: a node that lost it keeps nothing."""
    problem = random_instance(InstanceSettings(segments=30, locations=2, nodes=5), seed=1)
    banned = replace(problem.sources, eligible=problem.is_pop)
    assert len(keep_current(problem).segment) > 0
    assert len(keep_current(replace(problem, sources=banned)).segment) == 0


def test_place_greedily__only_what_pays_for_its_push() -> None:
    """The segment asked for once would save 16 m$ and cost 20 m$ to push: it stays on the POP."""
    assert place_greedily(hand_problem()).segment.tolist() == [0]


def test_place_greedily__keeps_free_current_copies() -> None:
    """The same segment is kept where it already is, because keeping costs nothing."""
    problem = hand_problem()
    held = replace(problem, current_segment=np.array([1], np.int32), current_source=np.array([1], np.int32))
    assert place_greedily(held).segment.tolist() == [0, 1]


@pytest.mark.parametrize("thrift", [0.0, 6.9, 7.1])
def test_place_greedily__thrift(thrift: float) -> None:
    """A push of 20 m$ that saves 160 m$ is worth 7 times its price net of it."""
    assert len(place_greedily(hand_problem(), rules=GreedyRules(thrift=thrift)).segment) == (1 if thrift < 7 else 0)


def test_place_greedily__a_line_gets_a_second_copy_of_what_is_hot() -> None:
    """A segment asked for as often as one node could send it: by bytes, one holder serves all 100 requests.

    One that refuses who comes while it sends serves 50, and a second one 33.3 of the rest, for 533 m$ and a push of 20.
    """
    problem = _two_nodes()
    assert place_greedily(problem).source.tolist() == [1]
    assert place_greedily(problem, rules=GreedyRules(lines=True)).source.tolist() == [1, 2]
    dear = GreedyRules(lines=True, thrift=25.6)  # 26.6 pushes of 20 m$ cost 532 m$
    assert place_greedily(problem, rules=dear).source.tolist() == [1, 2]
    assert place_greedily(problem, rules=replace(dear, thrift=25.8)).source.tolist() == [1]


def _two_nodes() -> PlacementProblem:
    """The hand-worked world with a second node like the first, and its first segment asked for 100 times."""
    one, both = hand_problem(), np.array([0, 1, 1])
    columns = {field.name: getattr(one.sources, field.name)[both] for field in fields(one.sources)}
    columns |= {"source": np.array(["pop", "first", "second"], dtype=object), "network": np.array([-1, 0, 1], np.int32)}
    demand = Demand(np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([100.0]))
    return replace(one, sources=Sources(**columns), demand=demand, rtt_ms=one.rtt_ms[:, both], reach=one.reach[:, both])


@pytest.mark.parametrize("seed", range(4))
def test_place_greedily__keeps_hard_limits(seed: int) -> None:
    """Storage, movement, spread and masks hold whatever the instance, on top of current copies too."""
    problem = random_instance(InstanceSettings(segments=40, locations=3, nodes=8), seed=seed)
    start = keep_current(problem)
    for copies in (start, place_greedily(problem), place_greedily(problem, start=start)):
        assert keeps_hard_limits(problem, copies)
    assert cost_of(problem, place_greedily(problem, start=start)) <= cost_of(problem, start) * (1 + 1e-9)


def test_place_greedily__segment_larger_than_any_device() -> None:
    """It is left to tier 1, and the rest is placed."""
    problem = tiny_problem(0)
    sizes = problem.segments.bytes.copy()
    sizes[0] = 10_000 * GB
    large = replace(problem, segments=replace(problem.segments, bytes=sizes))
    assert large.unplaceable[0]
    assert 0 not in place_greedily(large).segment


@pytest.mark.parametrize("seed", range(3))
def test_solve_greedily__is_judged_and_no_dearer_than_leaving_all_as_it_is(seed: int) -> None:
    """The row without a solver plays plans that pass the same judge, within the same budget, and proves nothing."""
    problem = random_instance(InstanceSettings(segments=40, locations=3, nodes=8), seed=seed)
    problem = replace(problem, settings=replace(problem.settings, movement_budget_bytes=int(2 * GB)))
    plan = solve_greedily(problem)
    assert check(problem, plan).ok
    assert plan.objective <= cost_of(problem, keep_current(problem)) * (1 + 1e-9)
    assert plan.bytes_moved <= 2 * GB
    assert (plan.bound, plan.method in ("greedy", "current copies")) == (0.0, True)
