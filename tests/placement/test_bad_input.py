"""Whatever the input, `solve` answers with a judged plan, or the problem with one error that lists every mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from placement.check import check
from placement.errors import ProblemError
from placement.instances import InstanceSettings, random_instance
from placement.plan import Plan
from placement.problem import Demand, PlacementProblem, PlacementSettings, Segments
from placement.solve import solve

Change = Callable[[PlacementProblem], PlacementProblem]


def world(*, everything: bool = True, **settings: object) -> PlacementProblem:
    """8 segments, 2 locations, 2 POPs and 5 nodes that hold some of them."""
    shape = InstanceSettings(segments=8, locations=2, nodes=5, pops=2, rows_per_segment=2.0)
    problem = random_instance(shape, seed=5)
    chosen = {**vars(problem.settings), "pops_hold_everything": everything, **settings}
    return replace(problem, settings=PlacementSettings(**chosen))


def sources(problem: PlacementProblem, **columns: Any) -> PlacementProblem:
    return replace(problem, sources=replace(problem.sources, **columns))


def planned(problem: PlacementProblem) -> Plan:
    """The plan, which must be of a finite cost that is not below its bound, and pass the judge."""
    plan = solve(problem)
    assert check(problem, plan).ok
    assert np.isfinite(plan.objective)
    assert plan.bound <= plan.objective * (1 + 1e-9) + 1e-9
    return plan


def no_storage(problem: PlacementProblem) -> PlacementProblem:
    return sources(problem, storage_bytes=np.zeros(len(problem.sources), np.int64))


def no_uplink(problem: PlacementProblem) -> PlacementProblem:
    return sources(problem, uplink_bytes=np.zeros(len(problem.sources)))


def no_survival(problem: PlacementProblem) -> PlacementProblem:
    return sources(problem, survival=np.zeros(len(problem.sources)))


def nobody_eligible(problem: PlacementProblem) -> PlacementProblem:
    return sources(problem, eligible=np.zeros(len(problem.sources), np.bool_))


def nobody_in_reach(problem: PlacementProblem) -> PlacementProblem:
    return replace(problem, reach=np.zeros_like(problem.reach))


def no_demand(problem: PlacementProblem) -> PlacementProblem:
    return replace(problem, demand=replace(problem.demand, requests=np.zeros(len(problem.demand))))


def no_rows(problem: PlacementProblem) -> PlacementProblem:
    none = np.zeros(0, np.int32)
    return replace(problem, demand=Demand(none, none, np.zeros(0)))


def huge_segment(problem: PlacementProblem) -> PlacementProblem:
    sizes = problem.segments.bytes.copy()
    sizes[0] = 2**60
    return replace(problem, segments=replace(problem.segments, bytes=sizes))


def tiny_demand(problem: PlacementProblem) -> PlacementProblem:
    return replace(problem, demand=replace(problem.demand, requests=np.full(len(problem.demand), 1e-300)))


def huge_demand(problem: PlacementProblem) -> PlacementProblem:
    return replace(problem, demand=replace(problem.demand, requests=np.full(len(problem.demand), 1e12)))


def nothing_at_all(problem: PlacementProblem) -> PlacementProblem:
    none, columns = np.zeros(0, np.int32), vars(problem.sources)
    empty = replace(problem.sources, **{name: values[:0] for name, values in columns.items()})
    return replace(
        problem,
        segments=Segments(np.zeros(0, object), none, np.zeros(0, np.int64)),
        locations=np.zeros(0, object),
        sources=empty,
        demand=Demand(none, none, np.zeros(0)),
        rtt_ms=np.zeros((0, 0), np.float32),
        reach=np.zeros((0, 0), np.bool_),
        current_segment=none,
        current_source=none,
    )


def no_sources(problem: PlacementProblem) -> PlacementProblem:
    none, empty = np.zeros(0, np.int32), nothing_at_all(problem).sources
    return replace(
        problem,
        sources=empty,
        current_segment=none,
        current_source=none,
        rtt_ms=problem.rtt_ms[:, :0],
        reach=problem.reach[:, :0],
    )


EXTREMES: tuple[Change, ...] = (
    no_storage,
    no_uplink,
    no_survival,
    nobody_eligible,
    nobody_in_reach,
    no_demand,
    no_rows,
    huge_segment,
    tiny_demand,
    huge_demand,
    nothing_at_all,
    no_sources,
)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("change", EXTREMES)
def test_solve__extremes_get_a_plan(change: Change, everything: bool) -> None:
    """Zero, nobody, nothing and far too much are unusual and not wrong."""
    planned(change(world(everything=everything)))


@pytest.mark.parametrize("change", EXTREMES)
def test_solve__extremes_without_fallback_get_a_plan_and_a_reason(change: Change) -> None:
    """Where falling back is forbidden and cannot be avoided, the plan is infeasible, with a reason, and comes back."""
    plan = planned(change(world(everything=False, allow_origin_fallback=False)))
    assert (plan.status == "infeasible") == bool(len(plan.fallback_segment))
    assert bool(plan.reason) == bool(len(plan.fallback_segment))


@pytest.mark.parametrize("change", EXTREMES)
def test_solve__extremes_with_every_rule_on(change: Change) -> None:
    """Budgets of networks, targets by popularity and margins together."""
    everything_on = world(
        everything=False,
        uplink_quantile=0.9,
        movement_budget_bytes_per_network=30_000_000,
        movement_budget_bytes_per_location=40_000_000,
        availability_target_by_popularity=(0.999, 0.99, 0.9),
        max_copies_by_tier=(1, 2, 2),
    )
    planned(change(everything_on))


def test_solve__a_segment_larger_than_any_device_stays_on_tier_one() -> None:
    """Nobody but a POP that holds everything can serve it; the plan says so."""
    plan = planned(huge_segment(world()))
    assert 0 not in plan.segment
    assert any("larger than the room of every eligible node" in sentence for sentence in plan.binding)


@pytest.mark.parametrize(
    "name", ["movement_budget_bytes", "movement_budget_bytes_per_network", "movement_budget_bytes_per_location"]
)
def test_solve__a_budget_of_nothing_moves_nothing(name: str) -> None:
    """What is held stays, and nothing is pushed to a node."""
    budgets: dict[str, Any] = {"movement_budget_bytes": None, name: 0}
    problem = world(**budgets)
    assert planned(problem).bytes_moved == 0


def wrong(problem: PlacementProblem, at: str, value: float) -> PlacementProblem:
    owner, name = at.split(".")
    part = getattr(problem, owner)
    column = getattr(part, name).copy()
    column[-1] = value
    return replace(problem, **{owner: replace(part, **{name: column})})


@pytest.mark.parametrize("value", [np.nan, -1.0, -np.inf])
@pytest.mark.parametrize(
    "at", ["demand.requests", "sources.survival", "sources.uplink_bytes", "sources.egress_cost_per_gb"]
)
def test_problem__nan_and_negative_numbers_are_named(at: str, value: float) -> None:
    """The column, the row and the value."""
    with pytest.raises(ProblemError, match=rf"{at}\[\d+\] is {value!r}".replace("-", r"\-")) as caught:
        wrong(world(), at, value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("at", ["segments.bytes", "sources.storage_bytes"])
def test_problem__negative_sizes_are_named(at: str) -> None:
    """A negative room would create storage elsewhere."""
    with pytest.raises(ProblemError, match=rf"{at}\[\d+\] is -1"):
        wrong(world(), at, -1)


def test_problem__unknown_current_copies_are_named() -> None:
    """A plan in force that names what is not there: both mistakes at once."""
    with pytest.raises(ProblemError) as caught:
        replace(world(), current_segment=np.array([8], np.int32), current_source=np.array([7], np.int32))
    assert caught.value.problems == [
        "current_segment[0] is 8 (1 such); allowed are 0 to 7.",
        "current_source[0] is 7 (1 such); allowed are 0 to 6.",
    ]


def test_problem__duplicate_ids_are_named() -> None:
    """A source, a location and a copy that are there twice, in one message."""
    problem = world()
    ids, places = problem.sources.source.copy(), problem.locations.copy()
    ids[3], places[1] = ids[2], places[0]
    twice = np.zeros(2, np.int32)
    with pytest.raises(ProblemError) as caught:
        replace(
            problem,
            sources=replace(problem.sources, source=ids),
            locations=places,
            current_segment=twice,
            current_source=twice,
        )
    assert [text.split(" hold ")[0] for text in caught.value.problems] == [
        "The sources",
        "The locations",
        "The current copies",
    ]


@pytest.mark.parametrize("name", ["movement_budget_bytes", "latency_millidollars_per_request_second"])
def test_settings__nan_and_negative_are_named(name: str) -> None:
    """A budget below nothing, and a price that is not a number."""
    for value in (-1, float("nan")):
        changed: dict[str, Any] = {name: value}
        with pytest.raises(ProblemError, match=name):
            PlacementSettings(**changed)
