"""Rows that plan ahead: by simple rules, by our models, and with the truth in hand."""

from __future__ import annotations

from dataclasses import replace

from pipelines.backtest import OptimisingPlanner, Planner, PopularityPlanner, roll
from pipelines.contest import Contest, Player, Result
from pipelines.outlook import ClairvoyantOutlook, ModelOutlook
from pipelines.popularity_outlooks import PopularityOutlook, YesterdayOutlook
from pipelines.row_names import Row


def _ours(row: Row, contest: Contest) -> Result:
    outlook = model_outlook(contest)
    planner = OptimisingPlanner(contest.arena.scene, outlook, contest.run.planning, seed=contest.run.seed)
    return replace(_rolled(row, contest, planner), by_prior=len(outlook.by_prior_us))


def _clairvoyant(row: Row, contest: Contest) -> Result:
    """Everything is known to it; how far ahead it had best plan is found by trying."""
    played = [_rolled(row, contest, _all_knowing(contest, hours)) for hours in contest.run.clairvoyant_hours]
    return max(played, key=lambda result: result.tally.net_avoided_bytes)


def _all_knowing(contest: Contest, hours: float) -> Planner:
    arena, run = contest.arena, contest.run
    world = arena.world
    outlook = ClairvoyantOutlook(
        arena.scene, arena.stretch.requests, world.uptime, horizon_hours=hours, uplinks=world.uplinks
    )
    return OptimisingPlanner(arena.scene, outlook, replace(run.planning, horizon_hours=hours), seed=run.seed)


def _popular(row: Row, contest: Contest) -> Result:
    arena, run = contest.arena, contest.run
    rule = YesterdayOutlook(arena, run) if row == "yesterday" else PopularityOutlook(arena, run)
    pushed_from = run.push_minimum_requests
    return _rolled(row, contest, PopularityPlanner(arena.scene, rule, run.planning, push_minimum_requests=pushed_from))


def _rolled(row: Row, contest: Contest, planner: Planner) -> Result:
    arena, run = contest.arena, contest.run
    tally, notes = roll(
        arena.world,
        arena.stretch,
        planner,
        replay_settings=run.replay,
        routing=run.routing,
        seed=run.seed,
        watch=contest.watch,
    )
    return Result(row, tally, notes)


def model_outlook(contest: Contest) -> ModelOutlook:
    """The models' view of the arena."""
    arena, run = contest.arena, contest.run
    return ModelOutlook(
        arena.scene,
        log=arena.log,
        history=arena.history,
        watch=arena.watch,
        demand=contest.demand,
        churn=contest.churn,
        settings=run.planning,
        trailing=run.trailing,
    )


PLAN_ROWS: dict[Row, Player] = {
    "yesterday": _popular,
    "top-k": _popular,
    "ours": _ours,
    "clairvoyant": _clairvoyant,
}
