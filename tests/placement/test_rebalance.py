"""Known answers of the rebalance on worlds that are easy to do by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.errors import EventError
from placement.rebalance.events import (
    ContentExpired,
    Event,
    NetworkOutage,
    NodeDraining,
    NodeFailed,
    NodeJoined,
    NodeOverloaded,
    OutageEnded,
    SurvivalChanged,
)
from placement.rebalance.memory import Memory
from placement.rebalance.rebalance import Rebalanced, bytes_moved_by_day, rebalance
from placement.rebalance.settings import RebalanceSettings
from tests.placement.rebalance_worlds import GB, busiest_node, busy_world, copies_of, hand_world

HOUR_US = 3_600_000_000


def after(held: Sequence[tuple[str, str]], *events: Event, **world: object) -> Rebalanced:
    problem, plan = hand_world(held, **world)  # type: ignore[arg-type]
    done = rebalance(problem, plan, events)
    assert check(done.problem, done.plan).ok
    return done


def test_failed__second_copy_serves_and_nothing_moves() -> None:
    """Routing around is free while another copy lives."""
    done = after([("a", "n0"), ("a", "n1")], NodeFailed("n0"))
    assert done.plan.bytes_moved == 0
    # a from n1: 10 * 4; b from the POP: 20
    assert done.plan.objective == pytest.approx(60)
    assert copies_of(done.problem, done.plan) == [("a", "n1")]
    assert done.delta.dropped.to_pylist() == [
        {"content": "a", "segment": 0, "source": "n0", "bytes": GB, "reason": "n0 failed"}
    ]


def test_failed__last_copy_of_what_is_wanted_is_pushed_once() -> None:
    """Ten requests would save 160 m$ and a push costs 20 m$: one push, not two."""
    done = after([("a", "n0")], NodeFailed("n0"), networks=(0, 1, 2))
    assert done.delta.bytes_moved == done.plan.bytes_moved == GB
    assert done.route_around_cost == pytest.approx(10 * 20 + 20)
    assert done.plan.objective == pytest.approx(20 + 10 * 4 + 20)
    assert [row["reason"] for row in done.delta.pushed.to_pylist()] == ["n0 failed"]
    assert done.delta.reasons == ("n0 failed: 1 copy pushed (1,000.0 MB), 1 copy dropped, 2 shares changed.",)


def test_failed__push_that_costs_more_than_it_gains() -> None:
    """One request would save 16 m$, less than the push of 20 m$."""
    assert after([("b", "n0")], NodeFailed("n0")).plan.bytes_moved == 0


@pytest.mark.parametrize(("budget", "moved"), [(0, 0), (GB - 1, 0), (GB, GB), (None, GB)])
def test_movement_budget__in_threes(budget: int | None, moved: int) -> None:
    """None, one byte short, exactly enough, no limit."""
    assert after([("a", "n0")], NodeFailed("n0"), budget=budget).plan.bytes_moved == moved


def test_network_budget__another_network_takes_the_copy() -> None:
    """A network without budget receives nothing."""
    problem, plan = hand_world([("a", "n0")])
    settings = RebalanceSettings(most_bytes_per_network=GB - 1)
    assert rebalance(problem, plan, [NodeFailed("n0")], settings=settings).plan.bytes_moved == 0


@pytest.mark.parametrize(("budget", "moved"), [(0, 0), (GB - 1, 0), (GB, GB), (None, GB)])
def test_location_budget__in_threes(budget: int | None, moved: int) -> None:
    """The problem's own budget of a location binds replacements, too: none, one byte short, exactly enough, no limit."""
    problem, plan = hand_world([("a", "n0")])
    problem = replace(problem, settings=replace(problem.settings, movement_budget_bytes_per_location=budget))
    assert rebalance(problem, plan, [NodeFailed("n0")]).plan.bytes_moved == moved


def test_failed__room_is_made_by_what_is_worth_less() -> None:
    """The only other node is full with b, which saves 16 m$: a, which saves 160 m$, takes its place."""
    done = after([("a", "n0"), ("b", "n1")], NodeFailed("n0"), room_gb=1)
    assert copies_of(done.problem, done.plan) == [("a", "n1")]
    assert {row["reason"] for row in done.delta.dropped.to_pylist()} == {
        "n0 failed",
        "makes room for something worth more",
    }


@pytest.mark.parametrize(("hours", "moved"), [(2.4, GB), (23.9, 0)])
def test_draining__moved_ahead_if_it_leaves_early(hours: float, moved: int) -> None:
    """A node that leaves after a tenth of the day loses 9 of 10 requests: 9 * 16 > 20; one at its end loses 0.04 of 10."""
    done = after([("a", "n0")], NodeDraining("n0", hours * 3600))
    assert done.plan.bytes_moved == moved
    assert ("a", "n0") in copies_of(done.problem, done.plan)


def test_survival_changed__moved_ahead_of_a_predicted_departure() -> None:
    """A node that the churn model gives one chance in ten is backed up, and serves its tenth."""
    done = after([("a", "n0")], SurvivalChanged("n0", 0.1))
    assert copies_of(done.problem, done.plan) == [("a", "n0"), ("a", "n1")]


def test_overloaded__traffic_goes_to_the_other_copy() -> None:
    """A node that can send 4 GB more keeps 4 of 10 requests at most, and no copy moves."""
    done = after([("a", "n0"), ("a", "n1")], NodeOverloaded("n0", 4.0 * GB))
    assert done.plan.bytes_moved == 0
    assert done.plan.objective == pytest.approx(60)
    assert done.plan.flow_share[done.plan.flow_source == 1].sum() <= 0.4 + 1e-6


def test_outage__waits_then_acts_then_takes_the_copies_back() -> None:
    """Copies in a network that is out stay in the plan until patience ends; when it comes back, they are free again."""
    problem, plan = hand_world([("a", "n0")])
    out = rebalance(problem, plan, [NetworkOutage(0)], now_us=0)
    assert (out.plan.bytes_moved, copies_of(out.problem, out.plan)) == (0, [("a", "n0")])
    assert out.plan.objective == pytest.approx(220)  # the POP serves all
    still = rebalance(out.problem, out.plan, [], memory=out.memory, now_us=HOUR_US - 1)
    assert still.plan is out.plan
    late = rebalance(out.problem, out.plan, [], memory=still.memory, now_us=HOUR_US)
    assert copies_of(late.problem, late.plan) == [("a", "n1")]
    back = rebalance(late.problem, late.plan, [OutageEnded(0)], memory=late.memory, now_us=2 * HOUR_US)
    assert (back.plan.bytes_moved, copies_of(back.problem, back.plan)) == (0, [("a", "n0"), ("a", "n1")])
    assert (back.memory.away, back.memory.outages, back.memory.parked) == ((), (), ())


def test_mass_loss__is_an_outage_and_single_losses_are_not() -> None:
    """Three of three nodes of a network fail at once: wait. One of three: replace."""
    networks = (0, 0, 0, 1)
    many = after([("a", "n0")], NodeFailed("n0"), NodeFailed("n1"), NodeFailed("n2"), networks=networks)
    assert (many.plan.bytes_moved, len(many.memory.outages)) == (0, 1)
    one = after([("a", "n0")], NodeFailed("n0"), networks=networks)
    assert (one.plan.bytes_moved, len(one.memory.outages)) == (GB, 0)


def test_expired__copies_are_dropped_and_the_segment_leaves() -> None:
    """What nobody will want frees its room and is in no plan."""
    done = after([("a", "n0"), ("b", "n0")], ContentExpired("b"))
    assert copies_of(done.problem, done.plan) == [("a", "n0")]
    assert done.problem.segments.content.tolist() == ["a"]
    assert [row["content"] for row in done.delta.dropped.to_pylist()] == ["b"]
    assert done.plan.bytes_moved == 0


def test_joined__used_only_for_what_gains() -> None:
    """A new node receives a, which saves 160 m$, and not b, which saves 16 m$ for a push of 20 m$."""
    done = after([], NodeJoined("n0"), networks=(0,))
    assert copies_of(done.problem, done.plan) == [("a", "n0")]


def test_joined__gives_no_consent() -> None:
    """A node that the problem does not let hold anything stays empty, whatever is said of it."""
    problem, plan = hand_world([])
    problem.sources.eligible[1:] = False
    assert rebalance(problem, plan, [NodeJoined("n0")]).plan.bytes_moved == 0


def test_flapping__moves_once() -> None:
    """A node that fails and comes back ten times costs one move, with its copies or without them."""
    for kept in (True, False):
        problem, plan = hand_world([("a", "n0")])
        memory, done = Memory(), []
        for _ in range(10):
            for event in (NodeFailed("n0"), NodeJoined("n0", kept_copies=kept)):
                done.append(rebalance(problem, plan, [event], memory=memory))
                problem, plan, memory = done[-1].problem, done[-1].plan, done[-1].memory
        assert bytes_moved_by_day(done) == {"1970-01-01": GB}


@pytest.mark.parametrize("seed", range(3))
def test_flapping__settles_where_uplink_is_scarce(seed: int) -> None:
    """On a random instance a busy node that flaps moves no more in all than what it held, and then nothing."""
    problem, plan = busy_world(seed)
    node, memory, moved = busiest_node(problem, plan), Memory(), []
    held = plan.segment[problem.sources.source[plan.source] == node]
    held_bytes = int(problem.segments.bytes[held].sum())
    for _ in range(10):
        for event in (NodeFailed(node), NodeJoined(node)):
            done = rebalance(problem, plan, [event], memory=memory)
            problem, plan, memory = done.problem, done.plan, done.memory
            moved.append(done.plan.bytes_moved)
    assert 0 < moved[0] <= held_bytes
    assert sum(moved[1:]) == 0


def test_draining__receives_nothing() -> None:
    """What fails is not pushed to a node that leaves, though it would serve half of the day."""
    done = after([("a", "n0")], NodeFailed("n0"), NodeDraining("n1", 43_200.0))
    assert done.plan.bytes_moved == 0


def test_hysteresis__a_recent_move_is_taken_back_only_for_a_multiple() -> None:
    """A copy pushed and lost again is pushed again only if it is worth three times its cost: 160 > 3 * 21 for a."""
    problem, plan = hand_world([("a", "n0")])
    first = rebalance(problem, plan, [NodeFailed("n0")])
    for factor, moved in ((3.0, GB), (9.0, 0)):
        settings = RebalanceSettings(return_gain_factor=factor)
        lost = rebalance(
            first.problem, first.plan, [NodeJoined("n1", kept_copies=False)], memory=first.memory, settings=settings
        )
        assert lost.plan.bytes_moved == moved


def test_unchanged_world__same_plan_and_no_moves() -> None:
    """No events, same bytes; a plan whose pushes have been made is restated without them."""
    problem, plan = hand_world([("a", "n0")])
    same = rebalance(problem, plan, [])
    assert same.plan is plan
    assert same.problem is problem
    assert len(same.delta.groups) == 0
    moved = after([("a", "n0")], NodeFailed("n0"))
    settled = rebalance(moved.problem, moved.plan, [], memory=moved.memory)
    assert settled.plan.bytes_moved == 0
    assert settled.plan.source.tobytes() == moved.plan.source.tobytes()
    assert settled.plan.flow_share.tobytes() == moved.plan.flow_share.tobytes()
    again = rebalance(settled.problem, settled.plan, [], memory=settled.memory)
    assert again.plan is settled.plan


def test_pop_failed__the_origin_serves() -> None:
    """Without POPs, what nodes do not hold comes from the origin at 50 m$/GB."""
    done = after([("a", "n0")], NodeFailed("pop"))
    assert done.plan.objective == pytest.approx(10 * 4 + 50 + 2 * 100)  # two segments without a tier-1 copy
    back = rebalance(done.problem, done.plan, [NodeJoined("pop")], memory=done.memory)
    assert back.plan.objective == pytest.approx(60)


def test_events__every_mistake_in_one_error() -> None:
    """Unknown ids, numbers out of bounds and contradictions are all listed."""
    problem, plan = hand_world([])
    events: list[object] = [
        NodeFailed("n9"),
        NodeDraining("n0", float("nan")),
        NodeJoined("n0"),
        SurvivalChanged("n1", 1.5),
        NodeOverloaded("n1", -1.0),
        NodeOverloaded("n1", 1.0),
        NetworkOutage(7),
        ContentExpired("z"),
        ContentExpired("a", 3),
        ContentExpired("b"),
        ContentExpired("b"),
        "n0 failed",
    ]
    with pytest.raises(EventError) as caught:
        rebalance(problem, plan, events)  # type: ignore[arg-type]
    assert caught.value.problems == [
        "'n0 failed' is no event; expected one of those in placement.events.",
        "NodeFailed: source 'n9' is unknown; expected one of the problem's 3.",
        "NetworkOutage: network 7 is unknown; expected one with nodes in the problem.",
        "ContentExpired: content 'z' is unknown; expected one of the problem's.",
        "ContentExpired: content 'a' has no segment 3 in the problem.",
        "NodeDraining of 'n0': leaves_in_seconds is nan; expected 0 or more, finite.",
        "SurvivalChanged of 'n1': survival is 1.5; expected a probability in [0, 1].",
        "NodeOverloaded of 'n1': uplink_bytes is -1.0; expected 0 or more.",
        "Source 'n0' has 2 events that say where it stands (NodeDraining, NodeJoined); give only the last one.",
        "Source 'n1' is overloaded 2 times; give only the last one.",
        "Content ('b', None) expires 2 times; expected once.",
    ]


def test_settings__every_mistake_in_one_error() -> None:
    """NaN and numbers out of bounds are named with what is allowed."""
    with pytest.raises(EventError) as caught:
        RebalanceSettings(rounds=-1, outage_share=np.nan, return_gain_factor=0.5, most_bytes_per_network=-1)
    assert len(caught.value.problems) == 4
    assert "Expected return_gain_factor >= 1 and finite, got 0.5." in caught.value.problems
