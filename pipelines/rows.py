"""The rows of a comparison: what each method would have done with the same requests, devices and limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.churn.forecaster import ChurnForecaster
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.events import DAY_US, HOUR_US
from models.forecast import DemandForecast
from pipelines.arena import Arena
from pipelines.backtest import OptimisingPlanner, Planner, PlanNote, PopularityPlanner, roll
from pipelines.config import ReplayRun, Row
from pipelines.outlook import ClairvoyantOutlook, Expectation, ModelOutlook
from pipelines.planning import NodeOutlook, SegmentDemand, segment_demand
from placement.caches import CacheReplay, CacheSettings
from placement.replay import Replay
from placement.tally import ReplayTally

ROW_NAMES: dict[Row, str] = {
    "cdn-alone": "CDN alone",
    "lru-paid": "LRU, fills paid",
    "lru-second-hit": "LRU, second hit paid",
    "lru-free": "LRU, fills free",
    "yesterday": "Yesterday's demand",
    "top-k": "Popularity top-k",
    "ours": "Premirror",
    "clairvoyant": "Clairvoyant",
}
POPULARITY_HALF_LIFE_HOURS = 6.0
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """What one row came to.

    Attributes:
        by_prior: plans for which the demand model's prior answered, because the model had lost to it lately.
    """

    row: Row
    tally: ReplayTally
    plans: list[PlanNote]
    by_prior: int = 0


def play_row(
    row: Row, arena: Arena, run: ReplayRun, *, demand: DemandForecaster, churn: ChurnForecaster, watch: Watch
) -> Result:
    """Plays one row from the start of the window to its end."""
    common: dict[str, Any] = {"settings": run.replay, "routing": run.routing, "seed": run.seed}
    requests = arena.stretch.requests
    if row == "cdn-alone":
        return Result(row, Replay(arena.world, **common).play([requests]), [])
    if row in ("lru-paid", "lru-second-hit", "lru-free"):
        return Result(row, CacheReplay(arena.world, _cache(row), **common).play([requests]), [])
    if row == "clairvoyant":
        tries = [_clairvoyant(arena, run, hours) for hours in run.clairvoyant_hours]
        played = [_rolled(row, arena, run, planner, watch) for planner in tries]
        return max(played, key=lambda result: result.tally.net_avoided_bytes)
    if row == "ours":
        outlook = model_outlook(arena, run, demand, churn)
        planner = OptimisingPlanner(arena.scene, outlook, run.planning, seed=run.seed)
        return replace(_rolled(row, arena, run, planner, watch), by_prior=len(outlook.by_prior_us))
    return _rolled(row, arena, run, _popularity_planner(row, arena, run), watch)


def _rolled(row: Row, arena: Arena, run: ReplayRun, planner: Planner, watch: Watch) -> Result:
    tally, notes = roll(
        arena.world,
        arena.stretch,
        planner,
        replay_settings=run.replay,
        routing=run.routing,
        seed=run.seed,
        watch=watch,
    )
    return Result(row, tally, notes)


def _clairvoyant(arena: Arena, run: ReplayRun, hours: float) -> Planner:
    """Everything is known to it; how far ahead it had best plan is found by trying."""
    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=hours)
    farther = replace(run.planning, horizon_hours=hours)
    return OptimisingPlanner(arena.scene, outlook, farther, seed=run.seed)


def _cache(row: Row) -> CacheSettings:
    if row == "lru-paid":
        return CacheSettings(fill="every_miss")
    return CacheSettings(fill="second_request" if row == "lru-second-hit" else "free")


def _popularity_planner(row: Row, arena: Arena, run: ReplayRun) -> Planner:
    rule = YesterdayOutlook(arena, run) if row == "yesterday" else PopularityOutlook(arena, run)
    return PopularityPlanner(arena.scene, rule, run.planning, push_minimum_requests=run.push_minimum_requests)


def model_outlook(arena: Arena, run: ReplayRun, demand: DemandForecaster, churn: ChurnForecaster) -> ModelOutlook:
    """The models' view of the arena."""
    return ModelOutlook(
        arena.scene,
        log=arena.log,
        history=arena.history,
        watch=arena.watch,
        demand=demand,
        churn=churn,
        settings=run.planning,
        trailing=run.trailing,
    )


class PopularityOutlook:
    """Decayed popularity by location carries on at its present rate; whoever is up now stays up."""

    def __init__(self, arena: Arena, run: ReplayRun) -> None:
        self._arena, self._run = arena, run
        self._store = CounterStore()
        self._fed_until_us = 0
        halves = np.asarray(self._store.settings.half_lives_hours)
        self._half_life = int(np.argmin(np.abs(halves - POPULARITY_HALF_LIFE_HOURS)))

    def at(self, at_us: int) -> Expectation:
        arena, planning, store = self._arena, self._run.planning, self._store
        store.update(arena.log.between(self._fed_until_us, at_us))
        self._fed_until_us = at_us
        content, location = store.cells()
        rate = store.cell_rates(content, location, at_us)[:, self._half_life]
        forecast = DemandForecast(
            origin_us=at_us,
            horizon_hours=planning.horizon_hours,
            content=content,
            location=location,
            mean=rate * planning.horizon_hours,
            dispersion=np.zeros(len(content)),
            other_mean=np.zeros(len(store.locations)),
            contents=store.contents,
            locations=store.locations,
        )
        demand = segment_demand(
            forecast,
            arena.scene,
            continuation=arena.watch.at(at_us),
            minimum_requests=planning.minimum_requests,
        )
        return Expectation(demand, nodes_now(arena, at_us))


class YesterdayOutlook:
    """The same hours of yesterday come again; whoever is up now stays up."""

    def __init__(self, arena: Arena, run: ReplayRun) -> None:
        self._arena, self._horizon_us = arena, round(run.planning.horizon_hours * HOUR_US)

    def at(self, at_us: int) -> Expectation:
        arena = self._arena
        seen = arena.log.between(at_us - DAY_US, at_us - DAY_US + self._horizon_us)
        cells, counts = np.unique(
            seen.content.astype(np.int64) * len(seen.locations) + seen.location, return_counts=True
        )
        forecast = DemandForecast(
            origin_us=at_us,
            horizon_hours=self._horizon_us / HOUR_US,
            content=(cells // max(len(seen.locations), 1)).astype(np.int32),
            location=(cells % max(len(seen.locations), 1)).astype(np.int32),
            mean=counts.astype(np.float64),
            dispersion=np.zeros(len(cells)),
            other_mean=np.zeros(len(seen.locations)),
            contents=seen.contents,
            locations=seen.locations,
        )
        demand: SegmentDemand = segment_demand(
            forecast, arena.scene, continuation=arena.watch.at(at_us), minimum_requests=0.1
        )
        return Expectation(demand, nodes_now(arena, at_us))


def nodes_now(arena: Arena, at_us: int) -> NodeOutlook:
    """Monitoring's view without any model: up now means up."""
    up = (arena.world.uptime.up_us(at_us - 1, at_us) > 0) | arena.scene.is_pop
    return NodeOutlook(up.astype(np.float64), up.astype(np.float64), up)
