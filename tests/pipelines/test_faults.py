"""Faults: each changes what it names and nothing else, and whatever goes wrong, every request is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.events import DAY_US, HOUR_US
from pipelines.arena import Arena
from pipelines.config import ReplayRun, microseconds
from pipelines.contest import Contest
from pipelines.errors import ConfigError, InputError
from pipelines.faulty_arena import with_faults
from pipelines.outlook import ClairvoyantOutlook
from pipelines.popularity_outlooks import nodes_now
from pipelines.row_names import Row
from pipelines.rows import play_row
from pipelines.typed import build
from tests.conftest import GREEDY, TinyHome

START, END = "2026-03-06T12:00:00Z", "2026-03-07T00:00:00Z"
T14, T18 = "2026-03-06T14:00:00Z", "2026-03-06T18:00:00Z"
EVERYTHING: list[dict[str, Any]] = [
    {"kind": "slow_nodes", "start": START, "end": END, "share": 0.3},
    {"kind": "dead_nodes", "start": T14, "end": T18, "share": 0.2},
    {"kind": "network_cut", "start": T14},
    {"kind": "lying_monitor", "start": T14, "end": T18, "up_share": 0.3, "down_share": 0.2},
    {"kind": "flash_crowd", "start": T18, "rank": 0},
    {"kind": "no_log", "start": START, "end": T18},
    {"kind": "mass_departure", "start": T18, "hours": 2},
]


def run_with(*faults: dict[str, Any], **more: Any) -> ReplayRun:
    values = {"name": "test", "tables": "tiny", "window": [START, END], "every_hours": 4, "planning": GREEDY}
    return build(ReplayRun, {**values, "faults": list(faults), **more}, source="test")


def at(text: str) -> int:
    return microseconds(np.datetime64(text.removesuffix("Z"), "us").item().replace(tzinfo=run_with().window[0].tzinfo))


@pytest.fixture(scope="module")
def arena(tiny_world: TinyHome) -> Arena:
    return Arena.read(tiny_world.tables, run_with())


def faulty(arena: Arena, *faults: dict[str, Any], **more: Any) -> Arena:
    return with_faults(arena, run_with(*faults, **more))


@pytest.mark.parametrize("fault", EVERYTHING, ids=lambda fault: fault["kind"])
@pytest.mark.parametrize("row", ["lru-paid", "top-k", "clairvoyant"])
def test_fault__never_fails_a_request(arena: Arena, fault: dict[str, Any], row: Row) -> None:
    """There is a POP, so that whatever goes wrong costs bytes and time and no request; and no byte is lost."""
    none: Any = None
    run = run_with(fault, clairvoyant_hours=[4.0])
    broken = with_faults(arena, run)
    tally = play_row(row, Contest(broken, run, demand=none, churn=none, watch=lambda *_: None)).tally
    assert tally.failed.sum() == 0
    assert tally.requested_bytes == sum(int(part.bytes.sum()) for part in broken.stretch.hours())
    assert tally.tier1_bytes + tally.mesh_bytes == tally.requested_bytes == int(tally.source_bytes.sum())


def test_faults__all_at_once_and_repeatable(arena: Arena) -> None:
    """Same seed, same world; another seed, another; and a fault more at the end leaves the others as they were."""
    one, same, other = (faulty(arena, *EVERYTHING, seed=seed) for seed in (1, 1, 2))
    assert one.world.uptime.start_us.tolist() == same.world.uptime.start_us.tolist()
    assert [part.ts_us.tolist() for part in one.stretch.hours()] == [
        part.ts_us.tolist() for part in same.stretch.hours()
    ]
    assert one.world.uplinks is not None
    assert other.world.uplinks is not None
    assert one.world.uplinks.offsets.tolist() != other.world.uplinks.offsets.tolist()
    fewer = faulty(arena, *EVERYTHING[:2], seed=1)
    assert fewer.world.uplinks is not None
    assert fewer.world.uplinks.offsets.tolist() == one.world.uplinks.offsets.tolist()


def test_slow_nodes__are_known_to_nobody_but_the_clairvoyant(arena: Arena) -> None:
    """Six of twenty nodes at a tenth: declared uplinks stay, and the true mean is what a planner with the truth gets."""
    broken = faulty(arena, {"kind": "slow_nodes", "start": START, "end": T18, "share": 0.3, "factor": 0.1})
    world = broken.world
    assert world.uplinks is not None
    start_us, middle_us, end_us = at(START), at(T18), at(END)
    shares = world.uplinks.mean_share(start_us, middle_us)
    assert sorted(shares.tolist()) == pytest.approx([0.1] * 6 + [1.0] * (world.n_sources - 6))
    assert world.uplinks.mean_share(middle_us, end_us).tolist() == [1.0] * world.n_sources
    assert world.uplink_bps.tolist() == arena.world.uplink_bps.tolist()
    outlook = ClairvoyantOutlook(
        broken.scene, broken.stretch.requests, world.uptime, horizon_hours=4.0, uplinks=world.uplinks
    )
    nodes = outlook.at(start_us).nodes
    assert nodes.uplink_share is not None
    assert nodes.uplink_share.tolist() == pytest.approx(shares.tolist())


def test_dead_nodes__are_gone_for_the_world_and_for_monitoring(arena: Arena) -> None:
    """Up-intervals and sessions lose the same hours; what was known before the fault is untouched."""
    broken = faulty(arena, {"kind": "dead_nodes", "start": T14, "end": T18, "share": 0.2})
    start_us, end_us = at(T14), at(T18)
    before, after = (a.world.uptime.up_us(start_us, end_us) for a in (arena, broken))
    dead = np.flatnonzero((before > 0) & (after == 0))
    assert 0 < len(dead) <= 4
    rest = np.setdiff1d(np.arange(len(before)), dead)
    assert before[rest].tolist() == after[rest].tolist()
    rows = broken.history.index_of(broken.scene.source[dead])
    for instant_us in range(start_us, end_us, HOUR_US):
        assert not broken.history.up_at(instant_us)[rows].any()
        assert not broken.history.before(instant_us + 1).up_at(instant_us)[rows].any()
    past, same_past = (a.history.before(start_us) for a in (arena, broken))
    assert past.end_us.tolist() == same_past.end_us.tolist()
    assert (broken.world.uptime.up_us(end_us, end_us + 1) == arena.world.uptime.up_us(end_us, end_us + 1)).all()


def test_network_cut__takes_one_network_for_its_minutes(arena: Arena) -> None:
    """The network with most nodes, for ten minutes, and no node of another."""
    broken = faulty(arena, {"kind": "network_cut", "start": T14})
    scene, start_us = arena.scene, at(T14)
    largest = np.bincount(scene.network[scene.n_pops :]).argmax()
    for since_us, off in ((0, True), (599_999_999, True), (600_000_000, False)):
        before, after = (a.world.uptime.up_us(start_us + since_us, start_us + since_us + 1) for a in (arena, broken))
        assert after.tolist() == np.where(off & (scene.network == largest), 0, before).tolist()


def test_mass_departure__takes_half_of_those_that_are_up(arena: Arena) -> None:
    """Of the nodes that are up at the instant, the share asked for leaves, for as long as asked for."""
    broken = faulty(arena, {"kind": "mass_departure", "start": T18, "hours": 2, "share": 0.5})
    up = [int((a.world.uptime.up_us(at(T18), at(T18) + 1) > 0).sum()) for a in (arena, broken)]
    assert up[0] - up[1] == round(0.5 * up[0]) or up[0] - up[1] == round(0.5 * (up[0] - arena.scene.n_pops))
    later_us = at(T18) + 2 * HOUR_US
    assert broken.world.uptime.up_us(later_us, later_us + 1).tolist() == (
        arena.world.uptime.up_us(later_us, later_us + 1).tolist()
    )


def test_lying_monitor__is_believed_and_changes_nothing(arena: Arena) -> None:
    """What planners see and what the router believes is wrong; what nodes do is not touched."""
    broken = faulty(arena, {"kind": "lying_monitor", "start": T14, "end": T18, "up_share": 0.3, "down_share": 0.2})
    assert broken.world.uptime is arena.world.uptime
    assert broken.world.believed is not None
    instant_us = at(T14) + HOUR_US
    believed = broken.world.believed.up_us(instant_us - 1, instant_us) > 0
    true = arena.world.uptime.up_us(instant_us - 1, instant_us) > 0
    assert (believed & ~true).sum() + (~believed & true).sum() > 0
    assert nodes_now(broken, instant_us).up.tolist() == (believed | arena.scene.is_pop).tolist()
    nodes = arena.scene.nodes
    seen = broken.history.before(instant_us).up_at(instant_us - 1)[broken.history.index_of(arena.scene.source[nodes])]
    assert seen.tolist() == believed[nodes].tolist()
    after_us = at(T18) + HOUR_US
    assert broken.world.believed.up_us(after_us, after_us + 1).tolist() == (
        arena.world.uptime.up_us(after_us, after_us + 1).tolist()
    )


def test_flash_crowd__comes_as_asked(arena: Arena) -> None:
    """The most asked content, fifty times as often as the day before, in the trace and in the log alike."""
    start_us = at(T18)
    broken = faulty(arena, {"kind": "flash_crowd", "start": T18, "minutes": 120, "factor": 50.0, "rank": 1})
    day = arena.log.between(start_us - DAY_US, start_us)
    usual = np.bincount(day.content).max()
    added = len(broken.log) - len(arena.log)
    mean = 50.0 * usual * 2 / 24
    assert abs(added - mean) < 5 * np.sqrt(mean)
    assert len(broken.stretch.requests) - len(arena.stretch.requests) >= added
    top = arena.log.contents[np.bincount(day.content).argmax()]
    window = broken.log.between(start_us, start_us + 2 * HOUR_US)
    assert (window.contents[window.content] == top).sum() >= added
    past, same_past = (a.log.before(start_us) for a in (arena, broken))
    assert past.content.tolist() == same_past.content.tolist()


def test_flash_crowd__for_a_new_content_at_one_place(arena: Arena) -> None:
    """Nobody had asked for it, and only viewers of the place come."""
    start_us, place = at(T18), str(arena.scene.locations[1])
    broken = faulty(arena, {"kind": "flash_crowd", "start": T18, "rank": 0, "location": place, "factor": 500})
    old, new = (a.log.between(start_us, start_us + HOUR_US) for a in (arena, broken))
    asked = arena.log.before(start_us)
    counts = {content: int((new.contents[new.content] == content).sum()) for content in set(new.contents)}
    crowd = max(set(counts) - set(asked.contents), key=lambda content: counts[content])
    rows = new.contents[new.content] == crowd
    assert rows.sum() >= len(new) - len(old) > 0
    assert (new.locations[new.location][rows] == place).sum() >= len(new) - len(old)


def test_no_log__is_played_and_never_seen(arena: Arena) -> None:
    """The trace is whole, the log is not."""
    broken = faulty(arena, {"kind": "no_log", "start": START, "end": END})
    assert broken.stretch.requests is arena.stretch.requests
    assert len(broken.log.between(at(START), at(END))) == 0
    assert broken.log.before(at(START)).content.tolist() == arena.log.before(at(START)).content.tolist()
    assert not ((broken.watch.ts_us >= at(START)) & (broken.watch.ts_us < at(END))).any()


def test_no_log__is_a_gap_where_traffic_tells(arena: Arena) -> None:
    """Silence after a busy hour is known to be missing, not zero; the models' own rule finds it, nobody tells them."""
    crowd = {"kind": "flash_crowd", "start": START, "minutes": 120, "factor": 500}
    broken = faulty(arena, {"kind": "no_log", "start": T14, "end": END}, crowd)
    assert any(start_us <= at(T18) < end_us for start_us, end_us in broken.log.gaps)


def test_settings__every_mistake_at_once() -> None:
    """Shares, order and instants of several faults in one message."""
    slow = {"kind": "slow_nodes", "start": START, "end": END, "share": 1.5}
    crowd = {"kind": "flash_crowd", "start": START, "factor": 0}
    back = {"kind": "no_log", "start": T18, "end": T14}
    with pytest.raises(ConfigError) as error:
        run_with(slow, crowd, back, {"kind": "earthquake", "start": START})
    for words in ("share in [0, 1], got 1.5", "factor > 0, got 0", "no_log to end after it starts", "'earthquake'"):
        assert words in str(error.value)
    early = {"kind": "network_cut", "start": "2026-03-06T11:59:59Z"}
    late = {"kind": "dead_nodes", "start": START, "end": "2026-03-07T00:00:01Z"}
    with pytest.raises(ConfigError) as error:
        run_with(early, late)
    assert "faults.0.start inside the window" in str(error.value)
    assert "faults.1.end inside the window" in str(error.value)


def test_faults__name_what_the_tables_lack(arena: Arena) -> None:
    """Networks, places and ranks that do not exist, all in one message, with examples of what does."""
    with pytest.raises(InputError) as error:
        faulty(
            arena,
            {"kind": "network_cut", "start": T14, "network": "AS0"},
            {"kind": "flash_crowd", "start": T14, "location": "atlantis"},
            {"kind": "flash_crowd", "start": T14, "rank": 10_000},
        )
    words = str(error.value)
    assert "3 mistakes in the faults" in words
    assert "faults.0.network: the tables have no network 'AS0'" in words
    assert str(sorted(arena.scene.networks.tolist())[0]) in words
    assert "no location 'atlantis'" in words
    assert "faults.2.rank: 10000 asks for more contents" in words


def test_no_faults__leave_the_arena_as_it_is(arena: Arena) -> None:
    """The usual run pays nothing."""
    assert with_faults(arena, run_with()) is arena
    assert arena.world.uplinks is None
    assert arena.world.believed is None
