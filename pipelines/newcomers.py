"""A plan that also knows sources which the tables name only since it was made, and a plan under today's consent.

Nothing is forecast of a newcomer: it is believed to be up as often as the median source of its kind of device, is priced as
the nodes of its location are, and is of tier 3 until the next placement. Codes of what the plan knows stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from models.events import HOUR_US
from pipelines.plan_prices import with_neighbours_prices
from pipelines.plan_problem import NOBODY_MS, AnsweredPlan, Listed, plan_again
from pipelines.planning import PlanningSettings, judge_sources
from pipelines.scene import Float64, Int32, Int64, Objects, Scene
from placement.directory import PATHS_SCHEMA, SOURCES_SCHEMA
from placement.problem import PlacementProblem, Sources

UNKNOWN_SURVIVAL = 0.5
"""Of a newcomer where no source of the plan is a node."""
WHY_NEW = "joined since the placement"


def with_newcomers(
    answered: AnsweredPlan, scene: Scene, newcomers: Sequence[str], settings: PlanningSettings, *, now_us: int
) -> AnsweredPlan:
    """The same plan with these sources of the scene behind its own, holding nothing."""
    if not newcomers:
        return answered
    row = scene.source_codes(np.asarray(newcomers, dtype=object))
    networks, network = _networks(answered.networks, scene, row)
    added = _sources(answered, scene, row, network, settings, now_us=now_us)
    problem = _extended(answered.problem, added, *_paths(answered.problem.locations, scene, row, settings))
    storage, uplink = with_neighbours_prices(answered.prices, answered.problem.sources, added)
    prices = replace(answered.prices, storage=storage, uplink=uplink)
    listed = Listed(
        *(
            np.concatenate((old, new[row]))
            for old, new in zip(vars(answered.listed).values(), vars(Listed.of(scene)).values(), strict=True)
        )
    )
    tables = {
        **answered.tables,
        "sources": pa.concat_tables([answered.tables["sources"], _sources_table(scene, row, added)]).combine_chunks(),
        "paths": pa.concat_tables([answered.tables["paths"], _paths_table(problem, scene, row)]).combine_chunks(),
    }
    return replace(
        answered,
        problem=problem,
        plan=plan_again(problem, answered.plan, prices),
        prices=prices,
        networks=networks,
        listed=listed,
        tables=tables,
    )


def under_consent(answered: AnsweredPlan, scene: Scene, *, now_us: int) -> AnsweredPlan:
    """The plan with what consent and room allow today: a source whose consent is over may hold nothing, back or not."""
    sources, row = answered.problem.sources, scene.source_codes(answered.problem.sources.source)
    known = row >= 0
    lapsed = known & (scene.consent_until_us[row] <= now_us)
    smaller = known & (scene.storage_bytes[row] < sources.storage_bytes)
    room = np.where(smaller, scene.storage_bytes[row], sources.storage_bytes)
    if not (lapsed & sources.eligible).any() and not smaller.any():
        problem = answered.problem
    else:
        allowed = replace(sources, eligible=sources.eligible & ~lapsed, storage_bytes=room)
        problem = replace(answered.problem, sources=allowed)
    banned = set(sources.source[lapsed].tolist())
    memory = answered.state.memory
    away = tuple(replace(a, eligible=False) if a.source in banned else a for a in memory.away)
    state = replace(answered.state, memory=replace(memory, away=away))
    return replace(answered, problem=problem, state=state)


def _networks(known: Objects, scene: Scene, row: Int64) -> tuple[Objects, Int32]:
    """The plan's networks with those of the newcomers behind, and the newcomers' codes; -1 for none."""
    names = [str(scene.networks[code]) if code >= 0 else None for code in scene.network[row].tolist()]
    new = [name for name in dict.fromkeys(names) if name is not None and name not in set(known.tolist())]
    networks = np.asarray([*known.tolist(), *new, None], dtype=object)[:-1]
    return networks, np.asarray(pd.Index(networks).get_indexer(pd.Index(names, dtype=object)), dtype=np.int32)


def _sources(
    answered: AnsweredPlan, scene: Scene, row: Int64, network: Int32, settings: PlanningSettings, *, now_us: int
) -> Sources:
    hours = answered.horizon_hours
    verdicts = judge_sources(
        scene,
        settings.tiers,
        uplink_bps=scene.uplink_bps,
        stay=np.zeros(len(scene.source)),
        horizon_end_us=now_us + round(hours * HOUR_US),
    )
    locations = pd.Index(answered.problem.locations)
    return Sources(
        source=scene.source[row],
        tier=verdicts.tier[row],
        location=locations.get_indexer(pd.Index(scene.locations[scene.location[row]])).astype(np.int32),
        network=network,
        storage_bytes=scene.storage_bytes[row],
        uplink_bytes=scene.uplink_bps[row] / 8 * hours * 3600,
        survival=_believed(answered.problem, scene, row),
        egress_cost_per_gb=scene.egress_cost_per_gb[row],
        eligible=verdicts.eligible[row],
        lat=scene.lat[row],
        lon=scene.lon[row],
    )


def _believed(problem: PlacementProblem, scene: Scene, row: Int64) -> Float64:
    """Survival of each newcomer: the median of the plan's eligible nodes of its device class, or of all of them."""
    at = scene.source_codes(problem.sources.source)
    nodes = problem.sources.eligible & ~problem.is_pop
    device = np.asarray([*scene.device_class.tolist(), None], dtype=object)[at]
    found = np.ones(len(row))
    for i in np.flatnonzero(~scene.is_pop[row]).tolist():
        alike = nodes & (device == scene.device_class[row[i]])
        chosen = alike if alike.any() else nodes
        found[i] = float(np.median(problem.sources.survival[chosen])) if chosen.any() else UNKNOWN_SURVIVAL
    return found


def _paths(locations: Objects, scene: Scene, row: Int64, settings: PlanningSettings) -> tuple[Any, Any]:
    """Round trips and reach from the plan's locations to the newcomers, both (L, newcomers)."""
    place = scene.location_codes(locations)
    known = (place >= 0)[:, None]
    rtt_ms = np.where(known, scene.rtt_ms[place][:, row], NOBODY_MS).astype(np.float32)
    return rtt_ms, known & scene.reach(settings.reach_rtt_ms)[place][:, row]


def _extended(problem: PlacementProblem, added: Sources, rtt_ms: Any, reach: Any) -> PlacementProblem:
    columns = {name: np.concatenate((old, getattr(added, name))) for name, old in vars(problem.sources).items()}
    return replace(
        problem,
        sources=Sources(**columns),
        rtt_ms=np.concatenate((problem.rtt_ms, rtt_ms), axis=1),
        reach=np.concatenate((problem.reach, reach), axis=1),
    )


def _sources_table(scene: Scene, row: Int64, added: Sources) -> pa.Table:
    columns: dict[str, Any] = {
        "source": added.source,
        "tier": added.tier,
        "location": scene.locations[scene.location[row]],
        "lat": added.lat,
        "lon": added.lon,
        "network": added.network,
        "storage_bytes": added.storage_bytes,
        "uplink_bps": scene.uplink_bps[row],
        "eligible": added.eligible,
        "reason": np.full(len(row), WHY_NEW, dtype=object),
        "up": np.ones(len(row), dtype=np.bool_),
        "stay": added.survival,
        "survival": added.survival,
    }
    return pa.table(columns, schema=SOURCES_SCHEMA)


def _paths_table(problem: PlacementProblem, scene: Scene, row: Int64) -> pa.Table:
    first = len(problem.sources) - len(row)
    place, column = np.nonzero(problem.reach[:, first:])
    columns: dict[str, Any] = {
        "location": problem.locations[place],
        "source": problem.sources.source[first:][column],
        "rtt_ms": problem.rtt_ms[:, first:][place, column],
        "distance_km": scene.distance_km[scene.location_codes(problem.locations)[place], row[column]],
    }
    return pa.table(columns, schema=PATHS_SCHEMA)
