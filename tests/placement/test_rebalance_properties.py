"""Whatever happens, in whatever order: hard rules hold, budgets hold, and the same inputs give the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check import check
from placement.instances import InstanceSettings, random_instance
from placement.prices import search_prices
from placement.problem import PlacementProblem
from placement.rebalance import improve
from placement.rebalance.aftermath import aftermath
from placement.rebalance.events import NodeFailed, NodeJoined
from placement.rebalance.memory import Memory
from placement.rebalance.moves import Moves
from placement.rebalance.rebalance import Rebalanced, rebalance
from placement.rebalance.reroute import route_around
from placement.rebalance.settings import RebalanceSettings
from tests.placement.rebalance_worlds import lawful, plan_of, random_events

SHAPE = InstanceSettings(segments=24, locations=3, nodes=30, pops=2, rows_per_segment=2.0, storage_share=0.3)
HOUR_US = 3_600_000_000
SEQUENCES, REBALANCES, EVENTS = 50, 10, 20


def instance(seed: int, *, pops_hold_everything: bool = True) -> PlacementProblem:
    """A small instance whose current copies, as far as they are lawful, are its plan."""
    problem = random_instance(SHAPE, seed=seed)
    caps = (2, 4, 3) if seed % 2 else None
    chosen = replace(problem.settings, pops_hold_everything=pops_hold_everything, max_copies_by_tier=caps)
    return lawful(replace(problem, settings=chosen))


def pushed_by_domain(done: Rebalanced) -> np.ndarray:
    sizes = done.problem.segments.bytes[done.plan.segment[done.plan.moved]]
    return np.bincount(done.problem.domain[done.plan.source[done.plan.moved]], weights=sizes)


def test_ten_thousand_events__never_break_a_hard_rule() -> None:
    """Every plan of every sequence passes the judge, keeps both movement budgets and is no dearer than moving nothing."""
    seen = moved = 0
    for seed in range(SEQUENCES):
        rng = np.random.default_rng(seed)
        problem = instance(seed, pops_hold_everything=seed % 3 > 0)
        plan, memory, now_us = plan_of(problem), Memory(), 0
        most = int(problem.movement_limit_bytes / 4)
        chosen = RebalanceSettings(most_bytes_per_network=most, rounds=2)
        for _ in range(REBALANCES):
            events = random_events(problem, rng, EVENTS)
            now_us += int(rng.integers(0, HOUR_US))
            done = rebalance(problem, plan, events, settings=chosen, memory=memory, now_us=now_us)
            report = check(done.problem, done.plan)
            assert report.ok, report.violations
            assert report.bytes_moved == done.delta.bytes_moved <= problem.movement_limit_bytes
            assert pushed_by_domain(done).max(initial=0) <= most
            assert done.plan.objective <= done.route_around_cost * (1 + 1e-9)
            problem, plan, memory = done.problem, done.plan, done.memory
            seen += len(events)
            moved += done.delta.bytes_moved
    assert seen >= SEQUENCES * REBALANCES * EVENTS
    assert moved > 0


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=8, deadline=None)
def test_rebalance__same_inputs_same_bytes(seed: int, pops_hold_everything: bool) -> None:
    """Two runs agree in every array, table and memory; a third without events returns the plan as it is."""
    problem = instance(seed, pops_hold_everything=pops_hold_everything)
    plan = plan_of(problem)
    events = random_events(problem, np.random.default_rng(seed), 6)
    first, second = (rebalance(problem, plan, events) for _ in range(2))
    for name, value in vars(first.plan).items():
        other = getattr(second.plan, name)
        same = value.tobytes() == other.tobytes() if isinstance(value, np.ndarray) else value == other
        assert same, name
    assert first.delta.pushed.equals(second.delta.pushed)
    assert first.delta.rerouted.equals(second.delta.rerouted)
    assert first.memory == second.memory
    settled = rebalance(first.problem, first.plan, [], memory=first.memory)
    assert settled.plan.bytes_moved == 0
    assert rebalance(settled.problem, settled.plan, [], memory=settled.memory).plan is settled.plan


@pytest.mark.parametrize("seed", range(3))
def test_bound__old_prices_prove_something_of_the_new_problem(seed: int) -> None:
    """After failures the bound at the prices from before stays below the cost and is worth stating."""
    problem = instance(seed)
    plan = plan_of(problem)
    prices = search_prices(problem).bound.prices
    nodes = np.flatnonzero(problem.sources.eligible & ~problem.is_pop)[:2]
    done = rebalance(problem, plan, [NodeFailed(problem.sources.source[n]) for n in nodes], prices=prices)
    assert 0.5 * done.plan.objective < done.plan.bound <= done.plan.objective
    assert done.plan.gap == pytest.approx(1 - done.plan.bound / done.plan.objective)


def test_moves__the_first_by_hand() -> None:
    """The first of two pushes, and of three copies that go the one that makes room for it."""
    names = np.array([7, 3], dtype=np.int32)
    moves = Moves(names, names, np.array([2, 5, 9]), np.array([1, 0, 1]), np.array([4.0, 3.0]))
    first = moves.first(1)
    assert (first.segment.tolist(), first.evicted.tolist(), first.gain.tolist()) == ([7], [5], [4.0])
    assert moves.first(2).evicted.tolist() == [2, 5, 9]


@pytest.mark.parametrize("seed", range(8))
def test_moves__the_first_are_those_of_a_lower_limit(seed: int) -> None:
    """Where moves do not pay, fewer of them are tried without choosing anew; nodes that joined find several each time."""
    problem, thrift, memory = instance(seed), RebalanceSettings(), Memory()
    asked = replace(problem.demand, requests=40 * problem.demand.requests)
    sources = replace(problem.sources, uplink_bytes=40 * problem.sources.uplink_bytes)
    budget = replace(problem.settings, movement_budget_bytes=None)
    problem = replace(problem, demand=asked, sources=sources, settings=budget)
    plan, nodes = plan_of(problem), np.flatnonzero(problem.sources.eligible & ~problem.is_pop)[:12]
    joined = [NodeJoined(source) for source in problem.sources.source[nodes].tolist()]
    after = aftermath(problem, plan, joined, settings=thrift, memory=memory, now_us=0)
    around = route_around(problem, plan, after, exact_arcs=thrift.exact_arcs)
    lost = improve._lost(after, plan, around, memory)
    many = improve._moves(around, after, lost, thrift, memory, 16)
    assert len(many.segment) > 1
    for count in (1, 2, 4):
        few, first = improve._moves(around, after, lost, thrift, memory, count), many.first(count)
        for name in ("segment", "source", "evicted", "makes_room_for", "gain"):
            assert getattr(first, name).tolist() == getattr(few, name).tolist()
