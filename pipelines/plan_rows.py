"""Rows that plan ahead: by simple rules, by our models, and with the truth in hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from models.demand.forecaster import DemandForecaster
from pipelines.backtest import OptimisingPlanner, Planner, PopularityPlanner, roll
from pipelines.contest import Contest, Player, Result
from pipelines.memo import RememberedPlanner
from pipelines.outlook import ClairvoyantOutlook, ModelOutlook, Outlook
from pipelines.patience import PatientOutlook
from pipelines.popularity_outlooks import PopularityOutlook, YesterdayOutlook
from pipelines.row_names import Row
from pipelines.stop_loss import StopLossGuard
from placement.audience import AudienceCount
from placement.reactive import ReactiveSettings
from placement.routing import RoutingSettings


def play_ours(
    row: Row,
    contest: Contest,
    *,
    outlook: Outlook | None = None,
    planner: Planner | None = None,
    routing: RoutingSettings | None = None,
    follows: bool = True,
    keeps: bool = True,
) -> Result:
    """Our models, our planner and our routing, or what stands in for one of them; all else is the same.

    With our own outlook and planner, plans that another row of the contest made are played again.

    Args:
        row: that is played.
        contest: what it is given.
        outlook: in place of our models.
        planner: in place of the optimiser.
        routing: in place of the run's.
        follows: whether plans are refreshed.
        keeps: whether devices keep what passes through.
    """
    reactive = contest.run.reactive if keeps else None
    if planner is None:
        planner = optimising(contest, outlook or our_outlook(contest), reactive=reactive)
        if outlook is None:
            planner = RememberedPlanner(planner, contest.memo.book(f"ours, keeps {keeps}"))
    result = rolled(row, contest, planner, routing=routing, follows=follows, reactive=reactive)
    return replace(result, by_prior=sum(note.by_prior for note in result.plans))


def _ours(row: Row, contest: Contest) -> Result:
    """Predict and react, or one of the two ways to react, or none."""
    return play_ours(row, contest, follows=row in ("ours", "plan-refresh"), keeps=row in ("ours", "plan-keep"))


def optimising(contest: Contest, outlook: Outlook, *, reactive: ReactiveSettings | None = None) -> OptimisingPlanner:
    """The optimiser under the run's limits, leaving room for what passes through."""
    run = contest.run
    return OptimisingPlanner(
        contest.arena.scene, outlook, run.planning, seed=run.seed, refresh=run.refresh, reactive=reactive
    )


def our_outlook(contest: Contest, *, horizon_hours: float | None = None) -> Outlook:
    """The models' view of the arena, asked once whichever rows look."""
    hours = horizon_hours or contest.run.planning.horizon_hours
    return contest.memo.outlook(f"models, {hours:g} h", lambda: model_outlook(contest, horizon_hours=hours))


def model_outlook(
    contest: Contest, *, demand: DemandForecaster | None = None, horizon_hours: float | None = None
) -> ModelOutlook:
    """The models' view of the arena, with another demand model or horizon if one is given."""
    arena, run = contest.arena, contest.run
    hours = horizon_hours or run.planning.horizon_hours
    return ModelOutlook(
        arena.scene,
        log=arena.log,
        history=arena.history,
        watch=arena.watch,
        demand=demand or contest.demand,
        churn=contest.churn,
        settings=replace(run.planning, horizon_hours=hours),
        trailing=run.trailing,
    )


def _clairvoyant(row: Row, contest: Contest) -> Result:
    """Everything is known to it; how it had best look ahead is found by trying."""
    outlooks = all_knowing(contest, contest.run.clairvoyant_hours)
    return best_of([play_knowing(row, contest, outlook) for outlook in outlooks])


def play_knowing(row: Row, contest: Contest, outlook: Outlook) -> Result:
    """Ours with the truth in hand: its refreshes need no thrift against forecasts that err."""
    run = contest.run
    thriftless = replace(run.refresh, thrift=0.0)
    planner = OptimisingPlanner(contest.arena.scene, outlook, run.planning, seed=run.seed, refresh=thriftless)
    return rolled(row, contest, planner, reactive=run.reactive)


def all_knowing(contest: Contest, hours: Iterable[float]) -> list[ClairvoyantOutlook]:
    """The truth, all of some hours alike for each number of hours; and patiently, as far ahead as the most of them."""
    hours, stretch = tuple(hours), contest.arena.stretch
    world = contest.arena.world
    truth = (contest.arena.scene, stretch.requests, world.uptime)
    bounds: dict[str, Any] = {"end_us": stretch.end_us, "uplinks": world.uplinks}
    alike = [ClairvoyantOutlook(*truth, horizon_hours=each, **bounds) for each in hours]
    patient = PatientOutlook(*truth, every_hours=stretch.every_hours, horizon_hours=max(hours), **bounds)
    return [*alike, patient]


def best_of(played: Iterable[Result]) -> Result:
    """The result that saves most, net."""
    return max(played, key=lambda result: result.tally.net_avoided_bytes)


def _popular(row: Row, contest: Contest) -> Result:
    arena, run = contest.arena, contest.run
    rule = YesterdayOutlook(arena, run) if row == "yesterday" else PopularityOutlook(arena, run)
    pushed_from = run.push_minimum_requests
    return rolled(row, contest, PopularityPlanner(arena.scene, rule, run.planning, push_minimum_requests=pushed_from))


def rolled(
    row: Row,
    contest: Contest,
    planner: Planner,
    *,
    routing: RoutingSettings | None = None,
    follows: bool = True,
    reactive: ReactiveSettings | None = None,
) -> Result:
    """The whole stretch, planned, refreshed where `follows`, and played."""
    arena, run = contest.arena, contest.run
    audience = AudienceCount(arena.audiences)
    tally, notes = roll(
        arena.world,
        arena.stretch,
        planner,
        replay_settings=run.replay,
        routing=routing or run.routing,
        seed=run.seed,
        watch=contest.watch,
        refresh_minutes=run.refresh.every_minutes if follows else 0.0,
        reactive=reactive,
        guard=None if run.stop_loss is None else StopLossGuard(arena.world, run.stop_loss),
        audience=audience,
    )
    return Result(row, tally, notes, audience=audience.tally())


OURS: tuple[Row, ...] = ("plan-only", "plan-refresh", "plan-keep", "ours")
PLAN_ROWS: dict[Row, Player] = {
    "yesterday": _popular,
    "top-k": _popular,
    **dict.fromkeys(OURS, _ours),
    "clairvoyant": _clairvoyant,
}
