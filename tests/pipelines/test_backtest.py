"""Rolling operation: every byte accounted for, the same again, and nothing planned twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pipelines.backtest
from models.events import DAY_US, HOUR_US
from pipelines.arena import Arena
from pipelines.backtest import OptimisingPlanner, Planned, PlanNote, PopularityPlanner, roll
from pipelines.config import ReplayRun
from pipelines.contest import Contest
from pipelines.movement import Movement
from pipelines.outlook import ClairvoyantOutlook
from pipelines.planning import Copies
from pipelines.popularity_outlooks import PopularityOutlook, YesterdayOutlook
from pipelines.replay import Backtest, comparison, comparison_text
from pipelines.replay_places import judged_places
from pipelines.row_names import Row
from pipelines.rows import play_row
from pipelines.stretch import Stretch
from pipelines.typed import build
from placement.bound import Prices
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.reactive import ReactiveSettings
from placement.replay import ReplaySettings
from placement.routing import RoutingSettings
from placement.solve import solve
from placement.stop_loss import StopLossSettings
from placement.tally import ReplayTally
from placement.trace import Holdings
from tests.conftest import GREEDY, START_US, TinyHome


@pytest.fixture(scope="module")
def run() -> ReplayRun:
    """Twelve hours of the tiny world, planned every four, each plan for six."""
    values = {
        "name": "test",
        "tables": "tiny",
        "window": ["2026-03-06T12:00:00Z", "2026-03-07T00:00:00Z"],
        "every_hours": 4,
        "planning": GREEDY,
    }
    return build(ReplayRun, values, source="test")


@pytest.fixture(scope="module")
def arena(tiny_world: TinyHome, run: ReplayRun) -> Arena:
    return Arena.read(tiny_world.tables, run)


def _roll(
    arena: Arena, planner: Any, seen: list[tuple[int, int]] | None = None, **more: Any
) -> tuple[ReplayTally, list[PlanNote]]:
    return roll(
        arena.world,
        arena.stretch,
        planner,
        replay_settings=ReplaySettings(),
        routing=RoutingSettings(),
        seed=3,
        watch=lambda done, total: (seen if seen is not None else []).append((done, total)),
        **more,
    )


def _popularity(arena: Arena, run: ReplayRun) -> PopularityPlanner:
    return PopularityPlanner(arena.scene, PopularityOutlook(arena, run), run.planning, push_minimum_requests=1.0)


def test_roll__every_requested_byte_is_served_by_some_tier(arena: Arena, run: ReplayRun) -> None:
    """Conservation: what was asked for is what tier 1 and the mesh sent, and the plans moved something."""
    tally, notes = _roll(arena, _popularity(arena, run))
    assert tally.n_requests == arena.stretch.n_requests
    assert tally.requested_bytes == sum(int(part.bytes.sum()) for part in arena.stretch.hours())
    assert tally.tier1_bytes + tally.mesh_bytes == tally.requested_bytes
    assert tally.mesh_bytes > 0
    assert sum(note.bytes_moved for note in notes) > 0


def test_roll__same_seed_same_outcome(arena: Arena, run: ReplayRun) -> None:
    """A comparison that cannot be repeated proves nothing."""
    (one, notes), (other, _) = (_roll(arena, _popularity(arena, run)) for _ in range(2))
    assert one.row() == other.row()
    assert [note.at_us for note in notes] == arena.stretch.instants()


def test_roll__plans_at_every_instant_and_says_so(arena: Arena, run: ReplayRun) -> None:
    """Twelve hours every four are three plans."""
    seen: list[tuple[int, int]] = []
    _roll(arena, _popularity(arena, run), seen)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_roll__refreshes_between_plans(arena: Arena, run: ReplayRun) -> None:
    """Three plans, each refreshed three times an hour apart: twelve notes in time order, three of them plans."""
    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=6.0)
    tally, notes = _roll(arena, OptimisingPlanner(arena.scene, outlook, run.planning, seed=0), refresh_minutes=60.0)
    assert np.diff([note.at_us for note in notes]).tolist() == [HOUR_US] * 11
    assert [note.refreshed for note in notes] == 3 * [False, True, True, True]
    assert tally.requested_bytes == sum(int(part.bytes.sum()) for part in arena.stretch.hours())


def test_roll__a_plan_and_its_refreshes_share_one_movement_budget(arena: Arena, run: ReplayRun) -> None:
    """Each refresh is told what its plan and the refreshes before it moved; and moves no more than is left then."""
    told: list[int] = []

    class Listening(OptimisingPlanner):
        def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
            told.append(spent_bytes)
            return super().refresh(at_us, held, spent_bytes=spent_bytes)

    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=6.0)
    tight = replace(run.planning, movement_budget_share=0.02)
    _, notes = _roll(arena, Listening(arena.scene, outlook, tight, seed=0), refresh_minutes=60.0)
    moved = np.array([note.bytes_moved for note in notes]).reshape(3, 4)
    assert told == np.cumsum(moved, axis=1)[:, :3].ravel().tolist()
    assert all(note.bytes_moved <= (note.movement_budget_bytes or 0) for note in notes)
    assert moved[:, 1:].sum() > 0


def test_roll__what_passes_through_reaches_the_planner(arena: Arena) -> None:
    """A planner that wants nothing is told, at each later plan, of what devices have kept meanwhile."""
    planner = WantsNothing()
    tally, _ = _roll(arena, planner, reactive=ReactiveSettings(admit_requests=1.0))
    assert planner.told[0] == 0
    assert min(planner.told[1:]) > 0
    assert tally.mesh_bytes > 0


class WantsNothing:
    """An empty plan, again and again."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def plan(self, at_us: int, held: Copies) -> Planned:
        self.told.append(len(held.segment))
        none = np.zeros(0, np.int32)
        return Planned(Holdings(at_us, none, none), Copies.none(), PlanNote(at_us, "rule", (0, 0, 0), 0, None))

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        return self.plan(at_us, held)


class ComesAndGoes:
    """The largest segment at the first node, in every other plan."""

    def __init__(self, arena: Arena) -> None:
        self.segment = int(np.argmax(arena.scene.catalogue.sizes))
        self.size, self.source = int(arena.scene.catalogue.sizes[self.segment]), arena.scene.n_pops
        self._plans = 0

    def plan(self, at_us: int, held: Copies) -> Planned:
        wants = self._plans % 2 == 0
        self._plans += 1
        codes = np.array([[self.segment, self.source]], dtype=np.int64)[: int(wants)]
        holdings = Holdings(at_us, codes[:, 0].astype(np.int32), codes[:, 1].astype(np.int32))
        note = PlanNote(at_us, "rule", (0, 0, int(wants)), self.size if wants else 0, None)
        return Planned(holdings, Copies(codes[:, 0], codes[:, 1]), note)

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        return self.plan(at_us, held)


def test_roll__counts_what_comes_back_soon_after_it_was_dropped(arena: Arena) -> None:
    """Pushed at noon, dropped at 16:00, pushed again at 20:00: twice its size is moved, and half of that flaps."""
    planner = ComesAndGoes(arena)
    _, notes = _roll(arena, planner)
    assert [note.flapping_bytes for note in notes] == [0, 0, planner.size]
    movement = Movement.of_plans(notes, start_us=arena.stretch.start_us, end_us=arena.stretch.end_us)
    assert movement.bytes_by_day == (("2026-03-06", 2 * planner.size),)
    assert movement.bytes_per_day == 4 * planner.size  # in twelve hours
    assert movement.flapping_share == 0.5


def test_comparison__every_row_says_what_it_moves_a_day(arena: Arena, run: ReplayRun) -> None:
    """By its plans or by its fetches: the days add up to what was moved, and twelve hours count half a day."""
    none: Any = None
    rows: tuple[Row, ...] = ("cdn-alone", "lru-paid", "top-k")
    contest = Contest(arena, run, demand=none, churn=none, watch=lambda *_: None)
    played = [play_row(row, contest) for row in rows]
    done = Backtest(run, arena, played, demand=none, churn=none, digest="", seconds={})
    alone, cache, rule = comparison(done)
    assert (alone["moved_bytes_per_day"], alone["flapping_share"]) == (0, None)
    assert (cache["moved_bytes_by_day"], cache["flapping_share"]) == ({"2026-03-06": cache["pushed_bytes"]}, None)
    ordered = sum(note.bytes_moved for note in played[2].plans)
    assert rule["moved_bytes_by_day"] == {"2026-03-06": ordered}
    assert rule["moved_bytes_per_day"] == 2 * ordered > 0
    assert 0 <= rule["flapping_share"] <= 1
    assert "moved a day" in comparison_text([alone, cache, rule])
    for row in (alone, cache, rule):  # every request belongs to an audience, and what the mesh served whole is its own
        assert sum(group["requests"] for group in row["audiences"]) == len(arena.stretch.requests)
        served = row["tier2_bytes"] + row["tier3_bytes"]
        assert served - 1e8 <= sum(group["mesh_bytes"] for group in row["audiences"]) <= served
    for group in cache["audiences"]:
        assert group["mesh_bytes"] <= group["bound_bytes"] + 1


def test_comparison__captured_share_of_the_clairvoyant_is_one_at_the_peak_too(arena: Arena, run: ReplayRun) -> None:
    """The busiest hours are the same for every row, also for one that saw its first request late."""
    none: Any = None
    contest = Contest(arena, run, demand=none, churn=none, watch=lambda *_: None)
    alone, best = play_row("cdn-alone", contest), replace(play_row("top-k", contest), row="clairvoyant")
    done = Backtest(run, arena, [alone, best], demand=none, churn=none, digest="", seconds={})
    peak = done.captured_share(best, at_peak=True)
    assert done.account(best).requested_bytes == done.account(alone).requested_bytes
    assert peak is not None
    assert peak.value == pytest.approx(1.0)


def test_places__save_together_what_the_row_saves(arena: Arena, run: ReplayRun) -> None:
    """Money by place is the row's saving against the CDN alone; where the rule acts, nothing is supposed any more."""
    none: Any = None
    contest = Contest(arena, run, demand=none, churn=none, watch=lambda *_: None)
    alone, rule = (play_row(row, contest) for row in ("cdn-alone", "top-k"))
    done = Backtest(run, arena, [alone, rule], demand=none, churn=none, digest="", seconds={})
    places = judged_places(done, rule, users={})
    money = [sum(done.account(result).cost) for result in (alone, rule)]
    assert sum(place.saved or 0.0 for place in places) == pytest.approx(money[0] - money[1])
    assert all(place.verdict == "on" and place.saved_with_stop_loss == place.saved for place in places)
    obeyed = replace(run, stop_loss=StopLossSettings(window_hours=1, retest_after_hours=1))
    acting = judged_places(replace(done, run=obeyed), rule, users={})
    assert all(place.saved_with_stop_loss is None for place in acting)


def test_pooled_rows__are_played_once_and_accounted_twice(arena: Arena, run: ReplayRun) -> None:
    """Paid and free fills have the same hits; another world begins anew."""
    none: Any = None
    contest = Contest(arena, run, demand=none, churn=none, watch=lambda *_: None)
    paid, free = (play_row(row, contest).tally for row in ("pooled-lru-paid", "pooled-lru-free"))
    assert len(arena.played) == 1
    assert free.tier_bytes.tolist() == paid.tier_bytes.tolist()
    assert (free.moved_bytes, paid.moved_bytes > 0) == (0, True)
    assert replace(arena, facts={}).played == {}


def test_optimising_planner__the_truth_saves_more_than_it_moves(arena: Arena, run: ReplayRun) -> None:
    """With true demand and true departures the net saving is positive: the ceiling of the comparison."""
    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=12.0)
    planner = OptimisingPlanner(arena.scene, outlook, replace(run.planning, horizon_hours=12.0), seed=0)
    tally, notes = _roll(arena, planner)
    assert tally.net_avoided_bytes > 0
    assert all(note.bytes_moved <= (note.movement_budget_bytes or 0) for note in notes)


def test_optimising_planner__starts_from_the_prices_of_the_plan_before(
    arena: Arena, run: ReplayRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing at first, and from what the last plan's sources were worth at each later instant."""
    starts: list[Prices | None] = []

    def spied(problem: PlacementProblem, *, seed: int, start: Prices | None) -> Plan:
        starts.append(start)
        return solve(problem, seed=seed, start=start)

    monkeypatch.setattr(pipelines.backtest, "solve", spied)
    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=6.0)
    _roll(arena, OptimisingPlanner(arena.scene, outlook, run.planning, seed=0))
    assert starts[0] is None
    assert all(start is not None and start.storage.max() > 0 for start in starts[1:])


def test_yesterday__expects_what_came_a_day_ago(arena: Arena, run: ReplayRun) -> None:
    """Contents' first segments are expected as often as they were asked for in the same six hours of the day before."""
    at_us = arena.stretch.start_us
    expected = YesterdayOutlook(arena, run).at(at_us).demand
    log = arena.log.between(at_us - DAY_US, at_us - DAY_US + 6 * HOUR_US)
    first = np.isin(expected.segment, arena.scene.catalogue.first_segment)
    assert expected.requests[first].sum() == pytest.approx(len(log))


def test_stretch__the_parts_make_up_the_whole(arena: Arena) -> None:
    """No request falls between two plans, and none is played twice; a last stretch may be shorter."""
    uneven = Stretch(arena.stretch.requests, arena.stretch.start_us, arena.stretch.end_us, every_hours=5.0)
    parts = list(uneven.parts())
    assert sum(len(part) for _, part in parts) == arena.stretch.n_requests
    for at_us, part in parts:
        assert part.ts_us.min() >= at_us
        assert part.ts_us.max() < at_us + 5 * HOUR_US


def test_arena__tiers_are_decided_before_the_window(arena: Arena) -> None:
    """One POP is tier 1; the nodes are judged by the week before, not by what is replayed."""
    assert arena.world.tier[0] == 1
    assert set(arena.world.tier[1:].tolist()) <= {2, 3}
    assert arena.stretch.start_us == START_US + 4 * DAY_US + 12 * HOUR_US
