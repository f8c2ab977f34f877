"""The rebalance job: the plan in force and what has happened since in, the next plan and what it moves out.

What has happened is a file of events (`pipelines/event_rows.py`) or, without one, what the tables say otherwise than
when the plan was last compared with them. The new plan's folder holds all that a placement's does, and `pushed`,
`dropped` and `rerouted`. Where nothing has happened nothing is written. The window stays that of the placement; a kill at
any instant leaves the old plan or the new one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.events import HOUR_US
from pipelines.config import DataSource, PlacementRun
from pipelines.console import Console
from pipelines.errors import InputError
from pipelines.forecast import newest_us
from pipelines.happenings import Happened, Known, changes_of_tables, events_of_file
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import instant_us, iso, job_id, only_one
from pipelines.newcomers import under_consent, with_newcomers
from pipelines.place import current_plan, log_plan, publish, ranked_sources
from pipelines.plan_problem import AnsweredPlan, Listed, problem_facts, problem_tables, read_answered
from pipelines.plan_state import Moved, PlanState
from pipelines.provenance import code_commit, folder_digest, settings_digest
from pipelines.rebalance_words import nothing, summary, waits
from pipelines.scene import Scene, read_scene
from pipelines.store import has_table, table_path
from pipelines.typed import plain
from placement.directory import SourceDirectory
from placement.errors import PlanError
from placement.plan import diff
from placement.rebalance.fleet import GONE
from placement.rebalance.rebalance import Rebalanced, rebalance

READ = ("contents", "locations", "nodes", "pops", "rtt")
"""Tables that a rebalance reads: requests may come in between without another answer."""


@dataclass(frozen=True)
class Asked:
    """How a rebalance is asked for.

    Attributes:
        events: file of events; None for what the tables say otherwise.
        at: instant at which that is known; "" for the newest event, or the end of the data.
        dry_run: only show what would change.
    """

    events: Path | None = None
    at: str = ""
    dry_run: bool = False


def rebalance_step(settings: PlacementRun, home: Home, console: Console, asked: Asked) -> tuple[dict[str, Any], str]:
    """Answers what has happened since the plan in force with a new plan, where there is anything to answer."""
    with only_one(home.plans):
        current = current_plan(home)
        if current is None:
            raise InputError(
                f"There is no plan under {home.plans}. Run `premirror forecast` and `premirror place` first."
            )
        answered = read_answered(current.folder, current.manifest)
        if answered.manifest["tables"] != settings.tables:
            raise InputError(
                f"The plan in force is of the tables {answered.manifest['tables']!r}, but the configuration names "
                f"{settings.tables!r}. Rebalance with the configuration of the placement, or place anew."
            )
        return _rebalance(settings, home, console, asked, answered)


def _rebalance(
    settings: PlacementRun, home: Home, console: Console, asked: Asked, answered: AnsweredPlan
) -> tuple[dict[str, Any], str]:
    started = time.perf_counter()
    inputs = Inputs.find(DataSource(tables=settings.tables), home)
    scene = read_scene(inputs.path)
    happened = _happened(asked, Known(answered, scene), inputs)
    console.note(f"events since {iso(answered.state.since_us)}: {len(happened.events):,}")
    start = with_newcomers(answered, scene, happened.newcomers, settings.planning, now_us=happened.now_us)
    start = under_consent(start, scene, now_us=happened.now_us)
    done = _answer(settings, start, happened)
    if done.plan is start.plan and not happened.events:
        value = {**answered.manifest, "changed": False}
        value["rebalance"] = _told(settings, start, happened, start.state)
        return value, nothing(value["id"], value["rebalance"])
    state = _state(answered.state, done, happened)
    tables = _tables(start, done, _listed(asked, start, scene), settings)
    manifest = _manifest(settings, start, done, tables)
    manifest["id"] = _name(settings, answered, happened, inputs, asked)
    manifest["rebalance"] = _told(settings, replace(start, problem=done.problem, plan=done.plan), happened, state)
    manifest["rebalance"] |= _outcome(start, done)
    if not asked.dry_run:
        publish(home, manifest["id"], tables, manifest, state)
        log_plan(home, manifest, time.perf_counter() - started, console)
    return {**manifest, "changed": not asked.dry_run}, summary(manifest, dry_run=asked.dry_run)


def _happened(asked: Asked, known: Known, inputs: Inputs) -> Happened:
    at_us = instant_us(asked.at) if asked.at else None
    if asked.events is not None:
        return events_of_file(asked.events, known, at_us=at_us, clock_us=time.time_ns() // 1000)
    now_us = max(known.plan.state.since_us, newest_us(inputs)) if at_us is None else at_us
    return changes_of_tables(known, now_us=now_us, horizon_seconds=known.plan.horizon_hours * 3600)


def _answer(settings: PlacementRun, start: AnsweredPlan, happened: Happened) -> Rebalanced:
    try:
        return rebalance(
            start.problem,
            start.plan,
            happened.events,
            settings=settings.rebalance,
            memory=start.state.memory,
            prices=start.prices,
            now_us=happened.now_us,
            horizon_seconds=start.horizon_hours * 3600,
            network_names=dict(enumerate(start.networks.tolist())),
        )
    except PlanError as error:
        raise RuntimeError(f"The judge refused the plan: {error.problems[0]}") from error  # our own bug: exit 70


def _name(settings: PlacementRun, answered: AnsweredPlan, happened: Happened, inputs: Inputs, asked: Asked) -> str:
    return job_id(
        happened.now_us,
        plan=answered.manifest["id"],
        events=[repr(event) for event in happened.events],
        rows=happened.rows,
        config=settings_digest(settings),
        data=[folder_digest(table_path(inputs.path, name)) for name in READ if has_table(inputs.path, name)],
    )


def _state(before: PlanState, done: Rebalanced, happened: Happened) -> PlanState:
    moved = before.moved_since(happened.now_us)
    if done.plan.bytes_moved:
        moved = (*moved, Moved(happened.now_us, done.plan.bytes_moved))
    taken = tuple(sorted({*before.taken, *happened.rows}))
    return PlanState(happened.now_us, done.memory, taken, moved)


def _listed(asked: Asked, start: AnsweredPlan, scene: Scene) -> Listed:
    """What the tables say now, where they were compared; what they said then of sources that they no longer name."""
    if asked.events is not None:
        return start.listed
    row = scene.source_codes(start.problem.sources.source)
    named, before = row >= 0, start.listed
    return Listed(
        named,
        np.where(named, scene.uplink_bps[row], before.uplink_bps),
        np.where(named, scene.consent_until_us[row], before.consent_until_us),
    )


def _tables(start: AnsweredPlan, done: Rebalanced, listed: Listed, settings: PlacementRun) -> dict[str, pa.Table]:
    problem = done.problem
    placements, routes = done.plan.to_arrow(problem)
    sources, paths = _sources(start, done), start.tables["paths"]
    demand, segments = problem.demand, problem.segments
    ranked = ranked_sources(
        SourceDirectory(placements, sources, paths),
        segments.content[demand.segment],
        segments.segment[demand.segment],
        problem.locations[demand.location],
        settings.routing,
    )
    return {
        "placements": placements,
        "routes": routes,
        "sources": sources,
        "paths": paths,
        "ranked": ranked,
        "pushed": done.delta.pushed,
        "dropped": done.delta.dropped,
        "rerouted": done.delta.rerouted,
        **problem_tables(problem, listed, start.prices),
    }


def _sources(start: AnsweredPlan, done: Rebalanced) -> pa.Table:
    """The sources as the router should see them: who is gone is not up, and each cause is the reason."""
    table, sources, happened = start.tables["sources"], done.problem.sources, done.cause != ""
    gone = {away.source for away in done.memory.away if away.standing in GONE}
    is_gone = np.array([source in gone for source in sources.source.tolist()], dtype=np.bool_)
    up = np.asarray(table["up"].to_numpy(), dtype=np.bool_)
    reason = np.asarray(table["reason"].to_pylist(), dtype=object)
    columns: dict[str, Any] = {
        "eligible": sources.eligible,
        "reason": np.where(happened, done.cause, reason),
        "up": (up | happened) & ~is_gone,
        "survival": sources.survival,
    }
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    return table


def _manifest(
    settings: PlacementRun, start: AnsweredPlan, done: Rebalanced, tables: dict[str, pa.Table]
) -> dict[str, Any]:
    """That of the plan before, with what is new: window, forecast and versions stay."""
    plan = done.plan
    change = diff(*(table.drop_columns(["moved"]) for table in (start.tables["placements"], tables["placements"])))
    return {
        **{key: value for key, value in start.manifest.items() if key != "checksums"},
        "code_commit": code_commit(),
        "routing": plain(settings.routing),
        "status": plan.status,
        "reason": plan.reason,
        "method": plan.method,
        "objective_millidollars": plan.objective,
        "bound_millidollars": plan.bound,
        "gap": plan.gap,
        "binding": list(plan.binding),
        "copies": len(plan.segment),
        "bytes_to_move": plan.bytes_moved,
        "movement_budget_bytes": done.problem.settings.movement_budget_bytes,
        "added_bytes": change.added_bytes,
        "dropped_bytes": change.dropped_bytes,
        "kept_bytes": change.kept_bytes,
        "availability": None,
        "problem": problem_facts(done.problem, start.networks, start.prices),
    }


def _told(settings: PlacementRun, start: AnsweredPlan, happened: Happened, state: PlanState) -> dict[str, Any]:
    """What is known of the rebalance itself, whether or not it changed anything."""
    ends_us = int(start.manifest["at_us"]) + round(start.horizon_hours * HOUR_US)
    return {
        "of": start.manifest["id"],
        "at_us": happened.now_us,
        "at": iso(happened.now_us),
        "window_ends_us": ends_us,
        "window_ends": iso(ends_us),
        "events": len(happened.events),
        "events_before": happened.before,
        "moved_bytes_24_hours": sum(moved.bytes for moved in state.moved_since(happened.now_us)),
        "waits": waits(start.problem, start.plan, state.memory, start.networks, settings.rebalance),
    }


def _outcome(start: AnsweredPlan, done: Rebalanced) -> dict[str, Any]:
    delta = done.delta
    return {
        "pushed": len(delta.pushed),
        "dropped": len(delta.dropped),
        "rerouted": len(delta.rerouted),
        "pushed_bytes": delta.bytes_moved,
        "cost_before_millidollars": start.plan.objective,
        "route_around_millidollars": done.route_around_cost,
        "reasons": list(delta.reasons),
    }
