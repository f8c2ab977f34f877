"""Outlooks of simple rules: popularity that carries on, or yesterday again; whoever is up now stays up."""

from __future__ import annotations

import numpy as np

from models.counters import CounterStore
from models.events import DAY_US, HOUR_US
from models.forecast import DemandForecast
from pipelines.arena import Arena
from pipelines.config import ReplayRun
from pipelines.outlook import Expectation
from pipelines.planning import NodeOutlook, SegmentDemand, segment_demand

POPULARITY_HALF_LIFE_HOURS = 6.0


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
    up = (arena.world.monitored.up_us(at_us - 1, at_us) > 0) | arena.scene.is_pop
    return NodeOutlook(up.astype(np.float64), up.astype(np.float64), up)
