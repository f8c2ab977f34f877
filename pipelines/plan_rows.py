"""Rows that plan ahead: by simple rules, by our models, and with the truth in hand."""

from __future__ import annotations

from dataclasses import replace

from pipelines.backtest import OptimisingPlanner, Planner, PopularityPlanner, roll
from pipelines.contest import Contest, Player, Result
from pipelines.outlook import ClairvoyantOutlook, ModelOutlook
from pipelines.popularity_outlooks import PopularityOutlook, YesterdayOutlook
from pipelines.row_names import Row
from pipelines.stop_loss import StopLossGuard
from placement.audience import AudienceCount
from placement.reactive import ReactiveSettings


def _ours(row: Row, contest: Contest) -> Result:
    """Predict and react, or one of the two ways to react, or none."""
    outlook, run = model_outlook(contest), contest.run
    refresh = row in ("ours", "plan-refresh")
    reactive = run.reactive if row in ("ours", "plan-keep") else None
    planner = OptimisingPlanner(
        contest.arena.scene, outlook, run.planning, seed=run.seed, refresh=run.refresh, reactive=reactive
    )
    played = _rolled(row, contest, planner, refresh=refresh, reactive=reactive)
    return replace(played, by_prior=len(outlook.by_prior_us))


def _clairvoyant(row: Row, contest: Contest) -> Result:
    """Everything is known to it; how far ahead it had best plan is found by trying."""
    played = [_rolled(row, contest, _all_knowing(contest, hours)) for hours in contest.run.clairvoyant_hours]
    return max(played, key=lambda result: result.tally.net_avoided_bytes)


def _all_knowing(contest: Contest, hours: float) -> Planner:
    arena, run = contest.arena, contest.run
    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=hours)
    planning = replace(run.planning, horizon_hours=hours)
    return OptimisingPlanner(arena.scene, outlook, planning, seed=run.seed, refresh=replace(run.refresh, thrift=0.0))


def _popular(row: Row, contest: Contest) -> Result:
    arena, run = contest.arena, contest.run
    rule = YesterdayOutlook(arena, run) if row == "yesterday" else PopularityOutlook(arena, run)
    pushed_from = run.push_minimum_requests
    return _rolled(row, contest, PopularityPlanner(arena.scene, rule, run.planning, push_minimum_requests=pushed_from))


def _rolled(
    row: Row, contest: Contest, planner: Planner, *, refresh: bool = True, reactive: ReactiveSettings | None = None
) -> Result:
    arena, run = contest.arena, contest.run
    audience = AudienceCount(arena.audiences)
    tally, notes = roll(
        arena.world,
        arena.stretch,
        planner,
        replay_settings=run.replay,
        routing=run.routing,
        seed=run.seed,
        watch=contest.watch,
        refresh_minutes=run.refresh.every_minutes if refresh else 0.0,
        reactive=reactive,
        guard=None if run.stop_loss is None else StopLossGuard(arena.world, run.stop_loss),
        audience=audience,
    )
    return Result(row, tally, notes, audience=audience.tally())


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


OURS: tuple[Row, ...] = ("plan-only", "plan-refresh", "plan-keep", "ours")
PLAN_ROWS: dict[Row, Player] = {
    "yesterday": _popular,
    "top-k": _popular,
    **dict.fromkeys(OURS, _ours),
    "clairvoyant": _clairvoyant,
}
