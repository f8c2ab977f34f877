"""Groups of nodes stand for their members: nothing is gained or lost, and what is handed out keeps every limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.bound import certify
from placement.instances import InstanceSettings, random_instance
from placement.node_groups import group_nodes, grouped, hand_out, of_groups, of_members
from placement.prices import lower_bound, search_prices
from placement.problem import PlacementProblem
from placement.solve import solve
from tests.placement.tiny import GB, hand_problem

DENSE = InstanceSettings(segments=500, locations=4, nodes=280, pops=4)


def by_groups(problem: PlacementProblem, **changes: object) -> PlacementProblem:
    return replace(problem, settings=replace(problem.settings, grouped_pairs=0, **changes))  # type: ignore[arg-type]


def test_group_nodes__members_are_alike() -> None:
    """One location, tier, eligibility and reach in each group, POPs alone, and about as many members as asked."""
    problem = random_instance(DENSE, seed=1)
    group = group_nodes(problem, 4)
    for number in range(group.max() + 1):
        members = np.flatnonzero(group == number)
        assert len(members) == 1 or not problem.is_pop[members].any()
        for values in (problem.sources.location, problem.sources.tier, problem.sources.eligible):
            assert len(set(values[members].tolist())) == 1
        assert (problem.reach[:, members] == problem.reach[:, members[:1]]).all()
    assert len(problem.sources) / 5 < group.max() + 1 < len(problem.sources) / 2


def test_grouped__has_the_same_room_and_uplink() -> None:
    """Sums over sources stay, the demand is untouched, and a segment that two members hold is held once."""
    problem = random_instance(DENSE, seed=2)
    group = group_nodes(problem, 4)
    small = grouped(problem, group)
    nodes, groups = ~problem.is_pop, ~small.is_pop
    assert small.storage_limit_bytes[groups].sum() == problem.storage_limit_bytes[nodes].sum()
    assert small.usable_uplink_bytes[groups].sum() == pytest.approx(problem.usable_uplink_bytes[nodes].sum())
    assert small.demand is problem.demand
    held = {
        (s, group[n]) for s, n in zip(problem.current_segment.tolist(), problem.current_source.tolist(), strict=True)
    }
    assert set(zip(small.current_segment.tolist(), small.current_source.tolist(), strict=True)) == held


def test_grouped__survival_zero_and_endless_uplink() -> None:
    """A node that is never up sends nothing, and a POP without a limit stays without one: no number is lost to 0 * inf."""
    problem = hand_problem(survival=np.array([1.0, 0.0]), uplink_bytes=np.array([np.inf, np.inf]))
    small = grouped(problem, np.array([0, 1]))
    assert small.usable_uplink_bytes.tolist() == [np.inf, 0.0]


def test_prices__of_members_and_back() -> None:
    """The mean of what every member got from its group is the group's price."""
    problem = random_instance(DENSE, seed=3)
    group = group_nodes(problem, 4)
    prices = lower_bound(grouped(problem, group)).prices
    back = of_groups(of_members(prices, group), group)
    assert back.storage == pytest.approx(prices.storage)
    assert back.uplink == pytest.approx(prices.uplink)


def test_hand_out__by_hand() -> None:
    """Who holds the segment goes first, then who is left least full; what fits nowhere is handed to nobody."""
    base = hand_problem()
    pick = np.array([0, 1, 1])
    columns = {name: value[pick] for name, value in vars(base.sources).items() if name != "source"}
    sources = replace(base.sources, **columns, source=np.array(["pop", "n1", "n2"], dtype=object))
    sources = replace(sources, storage_bytes=np.array([100, 1, 1]) * GB, network=np.array([-1, 0, 1], dtype=np.int32))
    problem = replace(
        base,
        sources=sources,
        rtt_ms=np.zeros((1, 3), np.float32),
        reach=np.ones((1, 3), np.bool_),
        current_segment=np.array([0], dtype=np.int32),
        current_source=np.array([2], dtype=np.int32),
    )
    segment, groups, ones = np.array([0, 1, 1], dtype=np.int32), np.array([1, 1, 1], dtype=np.int32), np.ones(3)
    node = hand_out(problem, np.array([0, 1, 1]), segment, groups, ones, np.array([1.0, 3.0, 2.0]) * GB)
    assert node.tolist() == [2, 1, -1]


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_hand_out__keeps_room_and_networks(seed: int) -> None:
    """Whatever groups hold, no node gets more than it has room for and no network more copies than it may have."""
    problem = random_instance(replace(DENSE, segments=120, nodes=80), seed=seed)
    rng, group = np.random.default_rng(seed), group_nodes(problem, 5)
    count = 600
    segment = np.sort(rng.integers(0, 120, count)).astype(np.int32)
    groups = group[rng.integers(4, len(problem.sources), count)].astype(np.int32)
    node = hand_out(problem, group, segment, groups, np.ones(count), rng.exponential(1e8, count))
    taken = node >= 0
    assert taken.any()
    assert (group[node[taken]] == groups[taken]).all()
    stored = np.bincount(node[taken], problem.segments.bytes[segment[taken]], len(problem.sources))
    assert (stored <= problem.storage_limit_bytes).all()
    assert problem.sources.eligible[node[taken]].all()
    crowd = np.unique(np.column_stack([segment, problem.sources.network[node]])[taken], axis=0, return_counts=True)[1]
    assert crowd.max() <= problem.settings.max_copies_per_network


def test_search__by_groups_proves_what_the_plain_search_does() -> None:
    """The prices of groups, made right for each node, prove nearly as much over all nodes, and certify alone."""
    problem = random_instance(DENSE, seed=4)
    guide, plain = search_prices(by_groups(problem)), search_prices(problem)
    assert guide.groups is not None
    assert plain.groups is None
    assert guide.bound.value >= plain.bound.value * (1 - 0.05)
    assert certify(problem, guide.bound.prices) == pytest.approx(guide.bound.value, rel=1e-9)


def test_search__by_groups_repeats_on_any_number_of_threads() -> None:
    """Nodes are priced each for itself, so two threads give what one gives."""
    problem = random_instance(DENSE, seed=5)
    one, two = (search_prices(by_groups(problem, threads=threads)) for threads in (1, 2))
    assert one.bound.value == two.bound.value
    assert one.candidates.keys.tobytes() == two.candidates.keys.tobytes()
    assert one.share.tobytes() == two.share.tobytes()


def test_search__by_groups_goes_on_from_known_prices() -> None:
    """Prices of the last plan prove at once what they proved then, however little is searched."""
    problem = by_groups(random_instance(DENSE, seed=6))
    first = search_prices(problem)
    hurried = replace(problem, settings=replace(problem.settings, bound_iterations=1))
    assert search_prices(hurried, start=first.bound.prices).bound.value >= first.bound.value * (1 - 1e-9)


@pytest.mark.parametrize("pops_hold_everything", [True, False])
def test_solve__by_groups(pops_hold_everything: bool) -> None:
    """The judge passes a plan led by groups, and it costs hardly more than one led by the nodes themselves."""
    problem = random_instance(DENSE, seed=7)
    problem = replace(problem, settings=replace(problem.settings, pops_hold_everything=pops_hold_everything))
    led, plain = solve(by_groups(problem)), solve(problem)
    assert led.bound <= led.objective
    assert led.bound <= plain.objective
    assert led.objective <= plain.objective * 1.05
