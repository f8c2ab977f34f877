"""The stop-loss at work: a stopped place gets nothing new, keeps what is paid for, and every byte stays accounted for."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.backtest import Planned, PlanNote, roll
from pipelines.planning import Copies
from pipelines.replay_places import verdict_words
from pipelines.stop_loss import StopLossGuard
from pipelines.stretch import Stretch
from placement.replay import ReplaySettings
from placement.routing import RoutingSettings
from placement.stop_loss import StopLossSettings, judge_locations
from placement.tally import HOUR_US
from placement.trace import Holdings, ReplayWorld
from tests.placement.replay_worlds import MB, asked, tiny_world

HOURLY_RULE = StopLossSettings(window_hours=1, retest_after_hours=2)


class Churning:
    """Every hour another segment on the near node, none of which anybody asks for, beside one that somebody does."""

    def plan(self, at_us: int, held: Copies) -> Planned:
        segment = np.array([0, 1 + at_us // HOUR_US % 2], np.int64)
        source = np.array([2, 1], np.int64)
        holdings = Holdings(at_us, segment.astype(np.int32), source.astype(np.int32), survival=np.array([0.9, 0.8]))
        new = ~np.isin(3 * segment + source, 3 * held.segment + held.source)
        return Planned(holdings, Copies(segment, source), PlanNote(at_us, "rule", (0, 1, 1), MB * int(new.sum()), None))

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        return self.plan(at_us, held)


def played(world: ReplayWorld, guard: StopLossGuard | None) -> tuple[Any, list[PlanNote]]:
    """Six hours, one request an hour for segment 0."""
    requests = asked(*((hour * 3600.0 + 600, 0) for hour in range(6)))
    return roll(
        world,
        Stretch(requests, 0, 6 * HOUR_US, every_hours=1),
        Churning(),
        replay_settings=ReplaySettings(),
        routing=RoutingSettings(),
        seed=0,
        watch=lambda *_: None,
        guard=guard,
    )


def test_guard__stops_pushes_and_keeps_what_serves() -> None:
    """Hour 0 pushes 2 MB and serves one: off for two hours, in which its copy serves on; 1 MB is tried and lost again."""
    tally, notes = played(tiny_world(), StopLossGuard(tiny_world(), HOURLY_RULE))
    assert [note.bytes_moved for note in notes] == [2 * MB, 0, 0, MB, 0, 0]
    assert tally.pushed_bytes[:, 0].tolist() == [2 * MB, 0, 0, MB, 0, 0]
    assert tally.tier_bytes[:, 0, 1:].sum(axis=1).tolist() == [MB] * 6
    assert tally.tier1_bytes + tally.mesh_bytes == tally.requested_bytes == 6 * MB
    assert [note.copies_by_tier for note in notes] == [(0, 1, 1)] * 6


def test_guard__saves_what_the_pushes_would_have_cost() -> None:
    """Without it 1 MB is pushed every hour, 7 MB in all; with it 3 MB."""
    free, _ = played(tiny_world(), None)
    stopped, _ = played(tiny_world(), StopLossGuard(tiny_world(), HOURLY_RULE))
    assert (free.moved_bytes, stopped.moved_bytes) == (7 * MB, 3 * MB)
    assert stopped.net_saving().sum() > free.net_saving().sum()


def test_guard__and_the_verdict_afterwards_agree() -> None:
    """The page must not say `on` of an hour in which nothing was allowed."""
    tally, notes = played(tiny_world(), StopLossGuard(tiny_world(), HOURLY_RULE))
    verdict = judge_locations(tally.net_saving(), HOURLY_RULE)
    assert verdict.on[:, 0].tolist() == [True, False, False, True, False, False]
    assert [note.bytes_moved > 0 for note in notes] == verdict.on[:, 0].tolist()


def test_guard__without_a_loss_changes_nothing() -> None:
    """Where the window is longer than the replay nobody is judged."""
    guard = StopLossGuard(tiny_world(), StopLossSettings(window_hours=48))
    (free, notes), (guarded, others) = played(tiny_world(), None), played(tiny_world(), guard)
    assert free.row() == guarded.row()
    assert notes == others


def test_guard__takes_copies_off_nodes_that_may_not_serve() -> None:
    """Consent is never soft: a stopped node that is not eligible any more keeps nothing."""
    world = tiny_world()
    guard = StopLossGuard(world, HOURLY_RULE)
    tally, _ = played(world, None)
    planned = Churning().plan(HOUR_US, Copies.none())
    eligible = np.array([True, False, True])
    barred = guard.bar(
        Planned(
            Holdings(HOUR_US, planned.holdings.segment, planned.holdings.source, eligible=eligible),
            planned.copies,
            planned.note,
        ),
        Copies(np.array([0, 1]), np.array([2, 1])),
        tally,
    )
    assert barred.copies.source.tolist() == [2]
    assert barred.holdings.source.tolist() == [2]


def test_verdict_words__say_since_when() -> None:
    """On, on again, or off since an instant."""
    saving = np.array([[1.0, -1, -1], [1, 1, 1], [1, 1, 1], [1, 1, -2]])
    verdict = judge_locations(saving, HOURLY_RULE)
    words = [verdict_words(verdict, i, start_hour_us=0).replace("\u00a0", " ") for i in range(3)]
    assert words == ["on", "on, was off for 2 of 4 h", "off since 1 January 1970, 04:00 UTC"]
