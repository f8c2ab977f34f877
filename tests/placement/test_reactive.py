"""Predict and react in one replay: worked by hand, equal to each part alone, and within every limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import ReplayError
from placement.reactive import ReactiveReplay, ReactiveSettings
from placement.replay import Replay
from placement.tally import Cause
from tests.placement.replay_worlds import MB, asked, plan, random_world, tiny_world

EVERY_MISS = ReactiveSettings(admit_requests=1.0)
NEVER = ReactiveSettings(admit_requests=1e9)


def test_reactive__keeps_what_is_asked_for_often_enough() -> None:
    """Three requests within the half-life fill a device, the fourth is served by it: one push, one hit."""
    replay = ReactiveReplay(tiny_world(), ReactiveSettings(admit_requests=2.9, half_life_hours=3.0))
    served = replay.serve(asked((0, 0), (1, 0), (2, 0), (100, 0)))
    tally = replay.finish()
    assert served.source.tolist()[:3] == [0, 0, 0]
    assert served.source[3] in (1, 2)
    assert (tally.moved_bytes, tally.mesh_bytes, int(tally.wasted_bytes.sum())) == (MB, MB, 0)


def test_reactive__forgets_requests_by_half_life() -> None:
    """Two requests a half-life apart count 1.5: short of a threshold of 1.6, past one of 1.4."""
    requests = asked((0, 0), (3600, 0))
    for threshold, moved in ((1.6, 0), (1.4, MB)):
        rule = ReactiveSettings(admit_requests=threshold, half_life_hours=1.0)
        assert ReactiveReplay(tiny_world(), rule).play([requests]).moved_bytes == moved


def test_reactive__each_fill_is_paid_for_by_misses() -> None:
    """The planned device's uplink is taken for long: the third miss in a row fills the other one, and the next do not."""
    world = tiny_world(uplink_bps=np.array([0.0, 8e3, 8e3]))  # a megabyte takes 1,000 s
    replay = ReactiveReplay(world, ReactiveSettings(admit_requests=2.99, half_life_hours=1000.0))
    replay.adopt(plan(0, (0, 1)))
    served = replay.serve(asked(*((100.0 + at, 0) for at in range(8))))
    assert served.source.tolist() == [1, 0, 0, 0, 2, 0, 0, 0]
    assert replay.finish().moved_bytes == 2 * MB  # the plan's copy and one more


def test_reactive__leaves_what_the_plan_serves_alone() -> None:
    """A planned copy serves; nothing passes through to be kept, whatever the count."""
    replay = ReactiveReplay(tiny_world(), EVERY_MISS)
    tally = replay.play([asked((10, 0), (20, 0), (30, 0))], [plan(0, (0, 1))])
    assert (tally.moved_bytes, tally.mesh_bytes) == (MB, 3 * MB)


def test_reactive__a_plan_takes_over_what_passed_through_without_a_push() -> None:
    """Segment 0 fills a device; the plan that wants it exactly there pushes nothing."""
    replay = ReactiveReplay(tiny_world(), EVERY_MISS)
    replay.serve(asked((0, 0)))
    replay.serve(asked((50, 1)))  # time passes: the copy has arrived
    (segment, source) = (column.tolist() for column in replay.passed_through())
    where = source[segment.index(0)]
    replay.adopt(plan(100, (0, where)))
    assert replay.serve(asked((200, 0))).source.tolist() == [where]
    assert replay.finish().moved_bytes == 2 * MB  # segments 0 and 1, once each


def test_reactive__makes_room_for_a_plan() -> None:
    """A device of one megabyte holds what passed through until a plan fills it with something else: that was wasted."""
    world = tiny_world(storage_bytes=np.array([0, MB, 0]))
    replay = ReactiveReplay(world, EVERY_MISS)
    replay.serve(asked((0, 0)))
    assert replay.held_bytes().tolist() == [0, MB, 0]
    replay.adopt(plan(100, (1, 1)))
    assert replay.held_bytes().tolist() == [0, MB, 0]
    served = replay.serve(asked((200, 1), (201, 0)))
    assert served.source.tolist() == [1, 0]
    assert served.cause.tolist() == [-1, Cause.NOT_FORECAST]
    assert int(replay.finish().wasted_bytes.sum()) == MB


def test_reactive__the_model_sizes_what_plans_leave_free() -> None:
    """As much as nobody could name, a half at most; a share that is given holds everywhere; without a model none."""
    unforeseen = np.array([0.1, 0.9])
    assert ReactiveSettings(storage_share=None).reserved(unforeseen, 2).tolist() == [0.1, 0.5]
    assert ReactiveSettings(storage_share=0.2).reserved(unforeseen, 2).tolist() == [0.2, 0.2]
    assert ReactiveSettings(storage_share=None).reserved(None, 2).tolist() == [0.0, 0.0]


def test_reactive__settings_name_every_mistake() -> None:
    """All three at once, each with its value."""
    with pytest.raises(ReplayError) as error:
        ReactiveSettings(storage_share=1.0, admit_requests=0.5, half_life_hours=0.0)
    for words in (
        "storage_share in [0, 1) or null, got 1.0",
        "admit_requests >= 1, got 0.5",
        "half_life_hours > 0, got 0.0",
    ):
        assert words in str(error.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 400))
def test_reactive__without_admission_is_the_plans_alone(seed: int, cut: int) -> None:
    """What is never kept changes nothing; and however the trace is cut, the same is counted."""
    world, requests, plans = random_world(seed)
    parts = [requests.rows(0, cut), requests.rows(cut, len(requests))]
    alone = Replay(world).play([requests], plans)
    assert ReactiveReplay(world, NEVER).play(parts, plans).row() == alone.row()
    whole = ReactiveReplay(world, EVERY_MISS).play([requests], plans)
    assert ReactiveReplay(world, EVERY_MISS).play(parts, plans).row() == whole.row()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 4.0))
def test_reactive__keeps_every_byte_and_every_limit(seed: int, admit: float) -> None:
    """Bytes asked for are served by some tier, causes explain tier 1's, and no device holds more than its storage."""
    world, requests, plans = random_world(seed)
    replay = ReactiveReplay(world, ReactiveSettings(admit_requests=admit))
    for at in range(3):
        replay.adopt(plans[at])
        first, last = np.searchsorted(requests.ts_us, [plans[at].start_us, plans[at].start_us + 1_800_000_000])
        replay.serve(requests.rows(int(first), int(last)))
        assert np.all(replay.held_bytes()[world.tier > 1] <= world.storage_bytes[world.tier > 1])
    tally = replay.finish()
    assert tally.requested_bytes == tally.tier1_bytes + tally.mesh_bytes + int(tally.failed_bytes.sum())
    assert tally.requested_bytes - tally.mesh_bytes == sum(tally.bytes_by_cause().values())
