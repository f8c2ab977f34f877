"""Uplinks that change with time, monitors that are wrong, and first bytes that must not be late: by hand and as laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import ReplayError
from placement.replay import Replay, ReplaySettings, ReplayWorld
from placement.tally import Cause
from placement.uplinks import UplinkSchedule
from placement.uptime import Uptime
from tests.placement.replay_worlds import DAY_S, MB, SECOND, asked, plan, random_world, tiny_world
from tests.placement.test_replay import FIRM, causes, same


def near_sends(*pieces: tuple[float, float]) -> UplinkSchedule:
    """Pieces (second, share) of source 1 of the tiny world."""
    start_us = np.array([round(second * SECOND) for second, _ in pieces], np.int64)
    return UplinkSchedule(np.array([0, 0, len(pieces), len(pieces)]), start_us, np.array([s for _, s in pieces], float))


def random_schedule(world: ReplayWorld, seed: int) -> UplinkSchedule:
    """Up to four pieces for each source within the two hours of a random world, some of them pauses."""
    rng = np.random.default_rng(seed)
    pieces = rng.integers(0, 5, world.n_sources)
    starts = [np.sort(rng.choice(7200, n, replace=False)) * SECOND for n in pieces]
    return UplinkSchedule(
        np.concatenate([[0], np.cumsum(pieces)]),
        np.concatenate(starts).astype(np.int64),
        rng.choice([0.0, 0.1, 0.5, 1.0, 3.0], int(pieces.sum())),
    )


def test_slow_uplink__every_byte_of_ten_events() -> None:
    """Transfers over a change, behind a change and into a pause, worked by hand."""
    # near sends 1 MB/s, from 10 s on 0.5, from 20 s on nothing, from 30 s on 2 MB/s; far 1 MB/s throughout
    replay = Replay(tiny_world(uplinks=near_sends((10, 0.5), (20, 0.0), (30, 2.0))), routing=FIRM)
    replay.adopt(plan(0, (0, 1), (1, 1), (1, 2)))
    served = replay.serve(
        asked(
            (5.0, 0),  # near, 1 s
            (9.5, 0),  # near: half in 0.5 s, the other half in 1 s, until 11.0 s
            (10.2, 0),  # its queue lasts 0.8 s: overloaded
            (10.6, 0),  # near after 0.4 s, in 2 s
            (12.0, 1),  # near is busy for another second: far
            (19.0, 0),  # near until the pause at 20 s: half of it, tier 1 the rest
            (25.0, 0),  # near is paused
            (25.5, 1),  # far
            (30.0, 0),  # near in half a second
            (30.1, 0),  # near after 0.4 s, in half a second
        )
    )
    assert served.source.tolist() == [1, 1, 0, 1, 2, 1, 0, 2, 1, 1]
    assert served.latency_ms.tolist() == [10, 10, 30, 410, 20, 10, 30, 20, 10, 410]
    tally = replay.finish()
    assert tally.source_bytes.tolist() == [2_500_000, 5_500_000, 2_000_000]
    assert causes(tally) == {Cause.OVERLOADED: 2_500_000}
    assert (tally.resumed.sum(), tally.resumed_bytes.sum(), tally.failed_over.sum()) == (1, 500_000, 0)
    # a paused node says so: the rest of the sixth comes without a timeout, 1010 + 30 + 80 ms
    whole_ms = [1010, 1510, 190, 2410, 1020, 1120, 190, 1020, 510, 910]
    assert tally.transfer_us.sum() == 1000 * sum(whole_ms)


def test_departure_of_a_slow_node__every_byte_of_ten_events() -> None:
    """Who leaves in the middle of a transfer costs a resume from tier 1 at the broken byte, whatever its rate was."""
    # near is up until 100 s and from 200 to 204 s; it sends 1 MB/s, and 0.5 MB/s between 99 and 150 s
    world = tiny_world(sessions=[(1, 0, 100), (1, 200, 204), (2, 0, DAY_S)], uplinks=near_sends((99, 0.5), (150, 1.0)))
    replay = Replay(world, routing=FIRM)
    replay.adopt(plan(0, (0, 1), (1, 1), (1, 2)))
    served = replay.serve(
        asked(
            (98.5, 0),  # near: half by 99.0 s, the other half by 100.0 s, its last instant
            (99.2, 0),  # 0.8 s of queue: overloaded
            (99.6, 0),  # would start at 100.0 s: gone, one timeout, tier 1
            (100.5, 0),  # that told: tier 1 at once
            (100.6, 1),  # far
            (140.0, 0),  # gone
            (200.0, 0),  # near is back, with what it held, and at its full rate
            (200.3, 0),  # 0.7 s of queue: overloaded
            (200.5, 0),  # near after 0.5 s
            (203.5, 0),  # near until 204 s: half of it
        )
    )
    assert served.source.tolist() == [1, 0, 0, 0, 2, 0, 1, 0, 1, 1]
    assert served.latency_ms.tolist() == [10, 30, 930, 30, 20, 30, 10, 30, 510, 10]
    tally = replay.finish()
    assert tally.source_bytes.tolist() == [5_500_000, 3_500_000, 1_000_000]
    assert causes(tally) == {Cause.GONE_UNFORECAST: 3_500_000, Cause.OVERLOADED: 2_000_000}
    assert (tally.resumed.sum(), tally.resumed_bytes.sum(), tally.failed_over.sum()) == (1, 500_000, 1)
    whole_ms = [1510, 190, 1090, 190, 1020, 190, 1010, 190, 1510, 10 + 500 + 500 + 30 + 80]
    assert tally.transfer_us.sum() == 1000 * sum(whole_ms)


def sendable(world: ReplayWorld, source: int, start_us: int, end_us: int) -> float:
    """Bytes that a source's uplink can send in [start, end), from first principles."""
    schedule, up = world.uplinks, world.uptime
    assert schedule is not None
    first, last = schedule.offsets[source], schedule.offsets[source + 1]
    edges = [-(2**62), *schedule.start_us[first:last].tolist(), 2**62]
    shares = [1.0, *schedule.share[first:last].tolist()]
    total = 0.0
    for row in range(up.offsets[source], up.offsets[source + 1]):
        for at, share in enumerate(shares):
            from_us = max(start_us, up.start_us[row], edges[at])
            until_us = min(end_us, up.end_us[row], edges[at + 1])
            total += max(until_us - from_us, 0) * share * world.uplink_bps[source] / 8e6
    return total


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_uplink__is_never_exceeded(seed: int) -> None:
    """From the start of each transfer to that of the next a node sends at most what its uplink lets through."""
    world, requests, plans = random_world(seed)
    world = replace(world, uplinks=random_schedule(world, seed))
    replay = Replay(world, settings=ReplaySettings(deadline_s=2.0 if seed % 2 else None), seed=seed)
    transfers: dict[int, list[tuple[int, int]]] = {n: [] for n in range(world.n_sources)}
    waiting, before = list(plans), np.zeros(world.n_sources, np.int64)
    for row in range(len(requests)):
        while waiting and waiting[0].start_us <= requests.ts_us[row]:
            replay.adopt(waiting.pop(0))
        served = replay.serve(requests.rows(row, row + 1))
        now = replay.tally().source_bytes
        for n in np.flatnonzero((now > before) & (world.tier != 1)).tolist():
            rtt_us = int(world.rtt_ms[requests.location[row], n] * np.float32(1000) + 0.5)
            start_us = int(requests.ts_us[row]) + round(served.latency_ms[0] * 1000) - rtt_us
            transfers[n].append((start_us, int(now[n] - before[n])))
        before = now
    for source, sent in transfers.items():
        ends = [*(start_us for start_us, _ in sent[1:]), 2**62]
        for (start_us, n_bytes), end_us in zip(sent, ends, strict=False):
            # the instant of the first byte is read off a latency that was rounded to a microsecond
            assert n_bytes <= sendable(world, source, start_us - 2, end_us + 2)
    assert replay.finish().source_bytes.sum() == requests.bytes.sum()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_laws__hold_with_everything_that_changes(seed: int) -> None:
    """Slow uplinks, a lying monitor, a tolerance and a deadline at once: no byte is lost, no request fails."""
    world, requests, plans = random_world(seed)
    rng = np.random.default_rng(seed)
    liars = rng.permutation(world.n_sources)
    believed = world.uptime.including(liars[:3], 0, 3600 * SECOND).without(liars[3:5], 1800 * SECOND, 7200 * SECOND)
    world = replace(world, uplinks=random_schedule(world, seed), believed=believed)
    rules = ReplaySettings(latency_tolerance_share=0.5, latency_tolerance_ms=20.0, deadline_s=1.0)
    tally = Replay(world, settings=rules, seed=seed).play([requests], plans)
    mesh = tally.tier_bytes[:, :, 1:].sum(axis=2)
    assert np.array_equal(mesh + tally.cause_bytes.sum(axis=2), tally.tier_bytes.sum(axis=2))
    assert tally.requested_bytes == tally.source_bytes.sum() == requests.bytes.sum()
    assert tally.failed.sum() == 0
    assert tally.latency_bins.sum() == len(requests)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_monitor__that_tells_the_truth_changes_nothing(seed: int) -> None:
    """Believed intervals are a second way to say what one knows by default: that monitoring is late, and never wrong."""
    world, requests, plans = random_world(seed)
    world = replace(world, uplinks=random_schedule(world, seed))
    honest = replace(world, believed=world.uptime)
    assert same(Replay(world, seed=1).play([requests], plans), Replay(honest, seed=1).play([requests], plans))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_schedule__of_whole_shares_changes_nothing(seed: int) -> None:
    """Pieces that change nothing are not seen in the numbers."""
    world, requests, plans = random_world(seed)
    schedule = random_schedule(world, seed)
    whole = replace(world, uplinks=replace(schedule, share=np.ones(len(schedule.share))))
    a, b = (Replay(w, seed=1).play([requests], plans) for w in (world, whole))
    # a transfer over a boundary is rounded once more, down to whole bytes and up to whole microseconds
    assert np.array_equal(a.tier_bytes, b.tier_bytes) or abs(a.mesh_bytes - b.mesh_bytes) < requests.bytes.max()


def test_monitor__that_sees_a_dead_node_up() -> None:
    """Asked and silent: one timeout, then not again for 30 s, then for a minute; tier 1 serves every request."""
    replay = Replay(tiny_world(sessions=[(1, 0, 100), (2, 0, DAY_S)], believed=Uptime.always(3)), routing=FIRM)
    replay.adopt(plan(0, (0, 1)))
    served = replay.serve(asked((90, 0), (200, 0), (210, 0), (231, 0), (285, 0), (292, 0)))
    assert served.source.tolist() == [1, 0, 0, 0, 0, 0]
    assert served.latency_ms.tolist() == [10, 530, 30, 530, 30, 530]
    tally = replay.finish()
    assert (tally.failed.sum(), causes(tally)) == (0, {Cause.GONE_UNFORECAST: 5 * MB})


def test_monitor__that_sees_a_dead_node_up_beside_another() -> None:
    """Health remembers what the monitor does not say: the other holder is asked first from then on."""
    replay = Replay(tiny_world(sessions=[(1, 0, 100), (2, 0, DAY_S)], believed=Uptime.always(3)), routing=FIRM)
    replay.adopt(plan(0, (0, 1), (0, 2)))
    served = replay.serve(asked((90, 0), (200, 0), (231, 0)))
    assert served.source.tolist() == [1, 2, 2]
    assert served.latency_ms.tolist() == [10, 520, 20]


def test_monitor__that_never_saw_it_up_and_is_wrong_about_the_only_holder() -> None:
    """A node that was never on is believed up: the copy never got there, so it is not asked for it."""
    replay = Replay(tiny_world(sessions=[(2, 0, DAY_S)], believed=Uptime.always(3)), routing=FIRM)
    replay.adopt(plan(0, (0, 1)))
    served = replay.serve(asked((50, 0)))
    assert (served.source.tolist(), served.latency_ms.tolist()) == ([0], [30])
    assert causes(replay.finish()) == {Cause.IN_TRANSIT: MB}


def test_monitor__that_sees_a_live_node_down() -> None:
    """Noticed with its delay, and then not asked although it could serve: the router's choice, at tier 1's latency."""
    believed = Uptime.always(3).without(np.array([1]), 50 * SECOND, 300 * SECOND)
    replay = Replay(tiny_world(believed=believed), routing=FIRM)
    replay.adopt(plan(0, (0, 1)))
    served = replay.serve(asked((40, 0), (79, 0), (81, 0), (300, 0)))
    assert served.source.tolist() == [1, 1, 0, 1]
    assert served.latency_ms.tolist() == [10, 10, 30, 10]
    assert causes(replay.finish()) == {Cause.ROUTER_CHOICE: MB}


def test_tolerance__asks_nobody_who_would_be_later_than_tier1() -> None:
    """A POP at 30 ms with 5 % more is 31.5 ms: a queue beyond that is an overload, a round trip the router's choice."""
    rules = ReplaySettings(latency_tolerance_share=0.05)
    replay = Replay(tiny_world(), settings=rules, routing=FIRM)
    replay.adopt(plan(0, (0, 1)))
    served = replay.serve(asked((5, 0), (5.6, 0), (5.98, 0)))  # near's queue lasts until 6.0 s
    assert (served.source.tolist(), served.latency_ms.tolist()) == ([1, 0, 1], [10, 30, 30])
    assert causes(replay.finish()) == {Cause.OVERLOADED: MB}
    far_away = tiny_world(rtt_ms=np.array([[30, 40, 20]], np.float32))
    for more_ms, source in ((0.0, 0), (8.0, 0), (9.0, 1)):
        replay = Replay(far_away, settings=replace(rules, latency_tolerance_ms=more_ms), routing=FIRM)
        replay.adopt(plan(0, (0, 1)))
        assert replay.serve(asked((5, 0))).source.tolist() == [source]
        assert causes(replay.finish()) == ({Cause.ROUTER_CHOICE: MB} if source == 0 else {})


def test_deadline__tier1_resumes_where_the_node_was() -> None:
    """Tier 1 needs 160 ms for 1 MB; 0.3 s later the viewer has 460 kB of a node's 1 MB/s, and takes the rest there."""
    replay = Replay(tiny_world(), settings=ReplaySettings(deadline_s=0.3), routing=FIRM)
    replay.adopt(plan(0, (0, 1)))
    served = replay.serve(asked((5, 0), (5.46, 0)))  # nobody waits behind what was broken off
    assert served.latency_ms.tolist() == [10, 10]
    tally = replay.finish()
    assert tally.source_bytes.tolist() == [1_080_000, 920_000, 0]
    assert (tally.resumed.sum(), causes(tally)) == (2, {Cause.OVERLOADED: 1_080_000})
    assert tally.transfer_us.sum() == 2 * (10_000 + 460_000 + 30_000 + 86_400)


def test_slowed__by_hand() -> None:
    """Factors multiply where windows overlap, end where they end, and concern nobody else."""
    schedule = UplinkSchedule.constant(3).slowed(np.array([1]), 0.5, 10, 30).slowed(np.array([1, 2]), 0.1, 20, 40)
    assert schedule.offsets.tolist() == [0, 0, 4, 6]
    assert schedule.start_us.tolist() == [10, 20, 30, 40, 20, 40]
    assert schedule.share.tolist() == pytest.approx([0.5, 0.05, 0.1, 1.0, 0.1, 1.0])
    # source 1 over [0, 40): 10 whole, 10 at a half, 10 at 0.05, 10 at 0.1
    assert schedule.mean_share(0, 40).tolist() == pytest.approx([1.0, (10 + 5 + 0.5 + 1) / 40, (20 + 2) / 40])
    assert schedule.mean_share(100, 200).tolist() == [1, 1, 1]


def test_uptime__windows_are_cut_out_and_put_in() -> None:
    """A window splits what it lies in, drops what lies in it, and joins what it touches."""
    up = Uptime.from_sessions(np.array([0, 0, 1]), np.array([0, 20, 0]), np.array([10, 30, 50]), n_sources=2)
    cut = up.without(np.array([0, 1]), 5, 25)
    assert (cut.offsets.tolist(), cut.start_us.tolist(), cut.end_us.tolist()) == (
        [0, 2, 4],
        [0, 25, 0, 25],
        [5, 30, 5, 50],
    )
    more = up.including(np.array([0]), 10, 15)
    assert (more.offsets.tolist(), more.start_us.tolist(), more.end_us.tolist()) == (
        [0, 2, 3],
        [0, 20, 0],
        [15, 30, 50],
    )
    assert up.without(np.array([1]), 0, 50).offsets.tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UplinkSchedule(np.array([0, 1]), np.array([5]), np.array([-1.0])), "shares of an uplink >= 0, got -1"),
        (lambda: UplinkSchedule(np.array([0, 2]), np.array([5, 5]), np.ones(2)), "in time order"),
        (lambda: UplinkSchedule(np.array([0, 2]), np.array([5, 6]), np.ones(1)), "2 pieces start, but 1 have a share"),
        (lambda: UplinkSchedule(np.array([0, 2]), np.array([5]), np.ones(1)), "offsets from 0 to 1"),
        (lambda: UplinkSchedule.constant(1).slowed(np.array([0]), 0.5, 9, 9), "ends after its start"),
        (lambda: tiny_world(uplinks=UplinkSchedule.constant(2)), "uplinks has 2 entries for 3 sources"),
        (lambda: tiny_world(believed=Uptime.always(4)), "believed has 4 entries for 3 sources"),
        (lambda: ReplaySettings(latency_tolerance_share=-0.1), "latency_tolerance_share >= 0 or null, got -0.1"),
        (lambda: ReplaySettings(deadline_s=float("nan")), "deadline_s >= 0 or null, got nan"),
    ],
)
def test_bad_input__is_named(make: Any, words: str) -> None:
    """A mistake says what it is, with the number."""
    with pytest.raises(ReplayError, match=words):
        make()
