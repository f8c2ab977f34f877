"""Each part of ours taken away or made perfect: what is replaced, and that nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from models.events import HOUR_US, Int64
from pipelines.ablation_rows import ABLATION_ROWS, MixedOutlook, true_nodes
from pipelines.arena import Arena
from pipelines.backtest import Planned, PlanNote
from pipelines.config import ReplayRun
from pipelines.contest import Contest, Result
from pipelines.memo import Memo, PlanBook, RememberedPlanner
from pipelines.outlook import ClairvoyantOutlook, Expectation, ModelOutlook, RememberedOutlook
from pipelines.plan_rows import optimising, our_outlook
from pipelines.planning import Copies, NodeOutlook, SegmentDemand
from pipelines.popularity_outlooks import nodes_now
from pipelines.replay import Backtest, comparison, comparison_text
from pipelines.review import LOADERS
from pipelines.row_names import DEFAULT_ROWS, GROUP_OF, PLAN_ROW, ROW_GROUPS, ROW_NAMES, Row
from pipelines.rows import PLAYERS, play_row
from pipelines.typed import build
from placement.replay import Replay
from placement.routing import RoutingSettings
from placement.trace import Holdings
from placement.uptime import ALWAYS_US, NEVER_US, Uptime
from tests.conftest import GREEDY, TinyHome
from tests.placement.replay_worlds import asked, plan, tiny_world

ROWS: tuple[Row, ...] = ("ours", *ABLATION_ROWS)


@pytest.fixture(scope="module")
def contest(tiny_home: TinyHome) -> Contest:
    """Eight hours of the tiny world with its trained models, planned every four; its rows share one memo."""
    values = {
        "name": "test",
        "tables": "tiny",
        "window": ["2026-03-06T12:00:00Z", "2026-03-06T20:00:00Z"],
        "every_hours": 4,
        "clairvoyant_hours": [6],
        "refresh": {"every_minutes": 0},
        "reactive": {"admit_requests": 1e9},
        "planning": GREEDY,
    }
    run = build(ReplayRun, values, source="test")
    demand, churn = (LOADERS[kind](tiny_home.artefact(kind)) for kind in ("demand", "churn"))
    return Contest(Arena.read(tiny_home.tables, run), run, demand, churn, watch=lambda *_: None)


@pytest.fixture(scope="module")
def played(contest: Contest) -> dict[Row, Result]:
    """Every row, in order."""
    return {row: play_row(row, contest) for row in ROWS}


def test_rows__are_all_named_grouped_and_played() -> None:
    """A row that a configuration may ask for has a name, one place in the table, and somebody who plays it."""
    names = {*get_args(Row), PLAN_ROW}
    assert {*PLAYERS, PLAN_ROW} == set(ROW_NAMES) == set(GROUP_OF) == names > set(DEFAULT_ROWS)
    assert sum(map(len, ROW_GROUPS.values())) == len(names)


def test_every_row__plays_the_same_requests_and_makes_every_plan(contest: Contest, played: dict[Row, Result]) -> None:
    """What was asked for is served by somebody in every row, so that rows differ in what was saved alone."""
    wanted = sum(int(part.bytes.sum()) for part in contest.arena.stretch.hours())
    for row, result in played.items():
        assert result.row == row
        assert result.tally.tier1_bytes + result.tally.mesh_bytes == wanted, row
        assert [note.at_us for note in result.plans] == contest.arena.stretch.instants(), row
        assert all(note.bytes_moved <= (note.movement_budget_bytes or 0) for note in result.plans), row


def test_routing_rows__play_the_plans_of_ours(played: dict[Row, Result]) -> None:
    """Routing changes nothing about what is planned: the very same plans, made once, and other requests to each node."""
    for row in ("literal-routing", "uniform-routing"):
        assert played[row].plans == played["ours"].plans
    assert not np.array_equal(played["uniform-routing"].tally.source_bytes, played["ours"].tally.source_bytes)


def test_uniform_routing__spreads_evenly() -> None:
    """Two nodes hold the segment, one twice as near: of 1,000 requests each serves 500, give or take 63 (4 sd)."""
    requests = asked(*[(10.0 + 20 * n, 0) for n in range(1000)])
    replay = Replay(tiny_world(), routing=RoutingSettings(explore_share=1.0))
    replay.adopt(plan(0, (0, 1), (0, 2)))
    sources = replay.serve(requests).source
    assert abs(int((sources == 1).sum()) - 500) <= 63
    assert set(sources.tolist()) == {1, 2}


def test_greedy_row__asks_no_solver(played: dict[Row, Result]) -> None:
    """It says which step made the plan, and proves nothing."""
    assert {note.method for note in played["greedy"].plans} <= {"greedy", "current copies"}
    assert all(note.gap == 1.0 or note.objective == 0 for note in played["greedy"].plans)


def test_rows_on_our_models__ask_them_once(
    contest: Contest, played: dict[Row, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rows look through the same eyes: after the first, no model is asked again."""
    monkeypatch.setattr(ModelOutlook, "at", lambda *_: pytest.fail("the models were asked again"))
    again = play_row("greedy", contest)
    assert again.tally.row() == played["greedy"].tally.row()


def test_perfect_churn__believes_what_is_true_and_expects_what_we_expect(contest: Contest) -> None:
    """Its demand is our forecast to the last number; a node that leaves before the end does not stay."""
    arena, at_us = contest.arena, contest.arena.stretch.start_us
    found, ours = true_nodes(contest, 6.0).at(at_us), our_outlook(contest).at(at_us)
    assert found.demand == ours.demand
    up_us = arena.world.uptime.up_us(at_us, at_us + 6 * HOUR_US)
    nodes = arena.scene.nodes
    assert found.nodes.survival[nodes] == pytest.approx(up_us[nodes] / (6 * HOUR_US))
    assert np.array_equal(found.nodes.stay[nodes] == 1.0, up_us[nodes] >= 6 * HOUR_US)
    assert not np.array_equal(found.nodes.survival, ours.nodes.survival)


def test_perfect_churn__plans_nothing_on_a_node_that_leaves(contest: Contest) -> None:
    """A node that gets copies while all stay gets none where it is up now and leaves at once: no forecast knows that."""
    leaver = int(_planned_on(contest, leaver=None)[0])
    assert leaver not in _planned_on(contest, leaver=leaver)


def _planned_on(contest: Contest, *, leaver: int | None) -> Int64:
    """Sources of the copies of the first plan with true departures, in a world that only the leaver leaves."""
    arena, at_us = contest.arena, contest.arena.stretch.start_us
    n = len(arena.scene.source)
    ends = np.where(np.arange(n) == leaver, at_us + 1, NEVER_US)
    uptime = Uptime.from_sessions(np.arange(n), np.full(n, ALWAYS_US), ends, n_sources=n)
    known = replace(contest, arena=replace(arena, world=replace(arena.world, uptime=uptime)))
    outlook = true_nodes(known, 6.0)
    assert outlook.at(at_us).nodes.up.all()
    return optimising(known, outlook).plan(at_us, Copies.none()).copies.source


def test_no_churn__believes_that_who_is_up_stays_up(contest: Contest) -> None:
    """Mixed with our demand: survival is 1 for whoever is up now and 0 for the others, and nothing in between."""
    at_us = contest.arena.stretch.start_us
    mixed = MixedOutlook(our_outlook(contest), lambda now_us, _: nodes_now(contest.arena, now_us), horizon_hours=6.0)
    nodes = mixed.at(at_us).nodes
    assert np.array_equal(nodes.survival, nodes.up.astype(np.float64))


class Counted:
    """Expects one request, and counts how often it was asked."""

    asked = 0

    def at(self, at_us: int) -> Expectation:
        Counted.asked += 1
        one = np.zeros(1, np.int64)
        return Expectation(
            SegmentDemand(one, one, np.ones(1)), NodeOutlook(np.ones(2), np.ones(2), np.ones(2, np.bool_))
        )


def test_remembered_outlook__is_bounded_and_answers_all_the_same() -> None:
    """An answer takes 58 bytes (3 numbers of 8 for the pair; 2 x 8, 2 x 8, 2 for the nodes): of two, one fits into 100."""
    Counted.asked = 0
    assert Counted().at(0).n_bytes == 58
    outlook = RememberedOutlook(Counted, most_bytes=100)
    first, second = outlook.at(0), outlook.at(1)
    assert Counted.asked == 3
    assert outlook.at(0) is first
    assert Counted.asked == 3
    assert outlook.at(1) is not second
    assert Counted.asked == 4


class CountedPlanner:
    """Keeps what is held, and counts its plans."""

    def __init__(self) -> None:
        self.plans = 0

    def plan(self, at_us: int, held: Copies) -> Planned:
        self.plans += 1
        holdings = Holdings(at_us, held.segment.astype(np.int32), held.source.astype(np.int32))
        return Planned(holdings, held, PlanNote(at_us, "rule", (0, 0, 0), 0, None))

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        return self.plan(at_us, held)


def test_remembered_planner__plans_again_where_something_else_is_held() -> None:
    """A guard that bars a push, say, makes two rows part ways: from then on they need plans of their own."""
    planner, book, other = CountedPlanner(), PlanBook(), Copies(np.array([1]), np.array([2]))
    remembered = RememberedPlanner(planner, book)
    one = remembered.plan(0, Copies.none())
    assert RememberedPlanner(planner, book).plan(0, Copies.none()) is one
    assert planner.plans == 1
    assert remembered.plan(0, other).copies is other
    assert planner.plans == 2


def test_memo__knows_outlooks_by_name() -> None:
    """The same name, the same outlook; another horizon has another name."""
    memo = Memo()
    assert memo.outlook("models, 6 h", Counted) is memo.outlook("models, 6 h", Counted)
    assert memo.outlook("models, 6 h", Counted) is not memo.outlook("models, 24 h", Counted)


def test_clairvoyant_hours__mixed_rows_know_the_cut_horizon(contest: Contest) -> None:
    """Two hours before the end the truth speaks of two hours, and so do the nodes that are mixed in."""
    arena, heard = contest.arena, list[float]()
    truth = ClairvoyantOutlook(
        arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=6.0, end_us=arena.stretch.end_us
    )

    def nodes(at_us: int, hours: float) -> NodeOutlook:
        heard.append(hours)
        return nodes_now(arena, at_us)

    found = MixedOutlook(truth, nodes, horizon_hours=6.0).at(arena.stretch.end_us - 2 * HOUR_US)
    assert heard == [found.horizon_hours] == [2.0]


def test_comparison_text__groups_rows_under_headings(contest: Contest, played: dict[Row, Result]) -> None:
    """Whatever their order in the run, ours stands above its parts, and one kind alone needs no heading."""
    none = type("NoChampion", (), {"reason": ""})()
    results = [played["perfect-churn"], played["no-churn"], played["ours"]]
    done = Backtest(contest.run, contest.arena, results, demand=none, churn=none, digest="", seconds={})
    rows = comparison(done)
    lines = [line.split("  ")[:2] for line in comparison_text(rows).splitlines()[2:]]
    assert [line[0] or line[1] for line in lines] == [
        "Premirror and its parts", "No churn model", "Premirror", "Oracles", "Perfect churn",
    ]  # fmt: skip
    assert "Oracles" not in comparison_text(rows[:1])


def test_by_prior__is_counted_from_the_plans(played: dict[Row, Result]) -> None:
    """The report says for how many plans the prior answered; without networks there is nothing to set aside."""
    assert played["no-network"].by_prior == 0
    for result in played.values():
        assert result.by_prior == sum(note.by_prior for note in result.plans) <= len(result.plans)
        assert replace(result, by_prior=0).plans == result.plans
