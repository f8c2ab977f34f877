"""The placement job: forecast in, checked plan out, `plans/current` moved in one step.

`plans/<id>/` holds placements, routes (shares), ranked (the scored route table), sources, paths, the problem that the
plan answers (`pipelines/plan_problem.py`), the prices that prove its bound, from which the next search sets out
(`pipelines/plan_prices.py`), what the next plan must know (`pipelines/plan_state.py`) and a manifest. The id is a hash of
the forecast, the plan in force, the tables and the configuration: a second run finds its work done. `current` never moves
to an older window; a kill at any instant leaves the old plan or the new one.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.churn.joint import JointSurvival
from models.errors import RegistryError
from models.registry import Registry, RunEntry
from pipelines.config import DataSource, PlacementRun
from pipelines.console import Console, table
from pipelines.errors import Degraded, InputError, PipelineError
from pipelines.forecast import Forecasts, forecasts_at, latest_forecasts
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import instant_us, iso, job_id, only_one, point_at, read_manifest, write_result
from pipelines.plan_prices import read_prices
from pipelines.plan_problem import Listed, problem_facts, problem_tables
from pipelines.plan_state import STATE, PlanState, read_state
from pipelines.planning import (
    Copies,
    NodeOutlook,
    PlannedInstance,
    SegmentDemand,
    availability_counts,
    instance,
    outlook_from,
    segment_demand,
)
from pipelines.provenance import code_commit, settings_digest
from pipelines.requests import RequestRows, WatchThrough
from pipelines.scene import Int32, Objects, Scene, read_scene
from pipelines.staging import staged_folder
from pipelines.store import read_parquet
from pipelines.typed import plain
from placement.bound import Prices
from placement.check import check
from placement.directory import PATHS_SCHEMA, SOURCES_SCHEMA, SourceDirectory
from placement.plan import Plan, diff
from placement.problem import PlacementProblem
from placement.refresh import refreshed_plan, with_budget_left
from placement.routing import RoutingSettings, explain, score, top_k
from placement.solve import solve

CURRENT = "current"
RANKED_SOURCES = 4


@dataclass(frozen=True)
class CurrentPlan:
    """The plan in force."""

    folder: Path
    manifest: dict[str, Any]

    def table(self, name: str) -> pa.Table:
        return read_parquet(self.folder / f"{name}.parquet", name)

    def directory(self) -> SourceDirectory:
        return SourceDirectory(self.table("placements"), self.table("sources"), self.table("paths"))


def current_plan(home: Home) -> CurrentPlan | None:
    """The plan that `plans/current` points at, if any."""
    link = home.plans / CURRENT
    return CurrentPlan(link.resolve(), read_manifest(link.resolve())) if link.exists() else None


def place_step(
    settings: PlacementRun, home: Home, console: Console, *, at: str, dry_run: bool, refreshes: bool = False
) -> tuple[dict[str, Any], str]:
    """Plans the window of a forecast and publishes the plan; `dry_run` only shows what would change.

    With `refreshes`, the plan in force is only brought up to date (`placement/refresh.py`), in a fraction of the time.
    """
    forecasts = forecasts_at(home, instant_us(at)) if at else latest_forecasts(home)
    with only_one(home.plans):
        current = current_plan(home)
        if current is not None and current.manifest["at_us"] > forecasts.at_us:
            raise PipelineError(
                f"The plan in force starts at {current.manifest['at']}, after the forecast of {iso(forecasts.at_us)}: "
                "a plan never goes back in time. Run `premirror forecast` for a later window."
            )
        if refreshes and current is None:
            raise InputError(f"There is no plan under {home.plans} to refresh. Run `premirror place` first.")
        return _place(settings, home, console, forecasts, current, dry_run=dry_run, refreshes=refreshes)


def _place(
    settings: PlacementRun,
    home: Home,
    console: Console,
    forecasts: Forecasts,
    current: CurrentPlan | None,
    *,
    dry_run: bool,
    refreshes: bool,
) -> tuple[dict[str, Any], str]:
    inputs = Inputs.find(DataSource(tables=settings.tables), home)
    planned_for = current.manifest["forecast"] if current else ""
    facts = {"forecast": forecasts.manifest["id"], "config": settings_digest(settings), "data": inputs.digest}
    if current and planned_for == facts["forecast"] and current.manifest["config"] == facts["config"] and not dry_run:
        _refuse_fallback(current.manifest, settings)
        value = {**current.manifest, "changed": False}
        return value, f"Plan {current.manifest['id']} answers this forecast already; nothing to do."
    started = time.perf_counter()
    scene = read_scene(inputs.path)
    asked = replace(settings, planning=settings.planning.for_refresh()) if refreshes else settings
    planned = _instance(asked, scene, inputs, forecasts, current)
    console.note(f"placing {len(planned.segment_code):,} segments on {len(scene.source):,} sources")
    before = PlanState(forecasts.at_us) if current is None else _state_of(current, console)
    start = _start(planned.problem, current, console)
    placed_us = forecasts.at_us
    if current is not None and refreshes:
        placed_us = current.manifest.get("placed_at_us", current.manifest["at_us"])
        planned = replace(planned, problem=with_budget_left(planned.problem, before.moved_since_placement(placed_us)))
        plan = refreshed_plan(planned.problem, settings.refresh, start or _no_prices(planned.problem))
    else:
        plan = solve(planned.problem, seed=settings.seed, start=start)
    report = check(planned.problem, plan)
    if report.violations:
        raise RuntimeError(f"The judge refused the plan: {report.violations[0]}")  # our own bug: exit 70
    assert plan.prices is not None  # every placement searches prices
    tables = _tables(planned, plan, scene, settings)
    tables |= problem_tables(planned.problem, Listed.of(scene), plan.prices)
    difference = diff(_held_table(current), tables["placements"].drop_columns(["moved"]))
    known = current.manifest["id"] if current else ""
    name = job_id(forecasts.at_us, current=known, prices=start is not None, refreshes=refreshes, **facts)
    manifest = {
        "id": name,
        "at_us": forecasts.at_us,
        "at": iso(forecasts.at_us),
        "placed_at_us": placed_us,
        "horizon_hours": settings.planning.horizon_hours,
        "tables": settings.tables,
        "routing": plain(settings.routing),
        "versions": forecasts.manifest["versions"],
        "quality": forecasts.manifest["quality"],
        "reasons": forecasts.manifest["reasons"],
        "code_commit": code_commit(),
        "status": plan.status,
        "reason": plan.reason,
        "method": plan.method,
        "objective_millidollars": plan.objective,
        "bound_millidollars": plan.bound,
        "gap": plan.gap,
        "binding": list(plan.binding),
        "risk": None if plan.risk is None else asdict(plan.risk),
        "copies": len(plan.segment),
        "bytes_to_move": plan.bytes_moved,
        "movement_budget_bytes": planned.problem.settings.movement_budget_bytes,
        "added_bytes": difference.added_bytes,
        "dropped_bytes": difference.dropped_bytes,
        "kept_bytes": difference.kept_bytes,
        "availability": _availability(planned, plan, forecasts),
        "problem": problem_facts(planned.problem, scene.networks, plan.prices),
        **facts,
    }
    if not dry_run:
        state = before.after_placement(at_us=forecasts.at_us, bytes_moved=plan.bytes_moved)
        publish(home, name, tables, manifest, state)
        log_plan(home, manifest, time.perf_counter() - started, console)
    _refuse_fallback(manifest, settings)
    return {**manifest, "changed": not dry_run}, _text(manifest, tables["placements"], dry_run=dry_run)


def publish(home: Home, name: str, tables: dict[str, pa.Table], manifest: dict[str, Any], state: PlanState) -> None:
    """Writes a plan's folder whole, then puts it in force in one step."""
    with staged_folder(home.plans / name) as staging:
        write_result(staging, tables, manifest, {STATE: state.to_json()})
    point_at(home.plans / CURRENT, home.plans / name)


def _start(problem: PlacementProblem, current: CurrentPlan | None, console: Console) -> Prices | None:
    """The prices beside the plan in force; a new placement can do without them, and leaves new ones."""
    if current is None:
        return None
    try:
        return read_prices(current.folder, current.manifest).for_problem(problem)
    except InputError as error:
        console.note(f"the price search starts anew: {error}")
        return None


def _no_prices(problem: PlacementProblem) -> Prices:
    """They prove what every request costs at its best source, whatever limits there are."""
    nothing = np.zeros(len(problem.sources))
    return Prices.of_sources(problem, nothing, nothing, 0.0)


def _state_of(current: CurrentPlan, console: Console) -> PlanState:
    """The state beside the plan in force; a new placement can do without it, and mends it."""
    try:
        return read_state(current.folder)
    except InputError as error:
        console.note(f"nothing is remembered of earlier moves: {error}")
        return PlanState(current.manifest["at_us"])


def _availability(planned: PlannedInstance, plan: Plan, forecasts: Forecasts) -> dict[str, Any] | None:
    """Segments that meet the availability target; None for a forecast that does not say what departures share."""
    joint = forecasts.manifest.get("joint")
    if joint is None:
        return None
    hours = float(forecasts.manifest["horizon_hours"])
    return asdict(availability_counts(planned, plan, JointSurvival.from_json(joint), horizon_hours=hours))


def _refuse_fallback(manifest: dict[str, Any], settings: PlacementRun) -> None:
    """The plan is published all the same: strict only changes what the job answers, however often it is asked."""
    if manifest["quality"] != "good" and settings.on_fallback == "strict":
        raise Degraded("The plan rests on a fallback: " + "; ".join(manifest["reasons"]))


def _instance(
    settings: PlacementRun, scene: Scene, inputs: Inputs, forecasts: Forecasts, current: CurrentPlan | None
) -> PlannedInstance:
    at_us, planning = forecasts.at_us, settings.planning
    if forecasts.manifest["horizon_hours"] != planning.horizon_hours:
        raise InputError(
            f"The forecast covers {forecasts.manifest['horizon_hours']:g} h, the plan asks for "
            f"{planning.horizon_hours:g} h. Run `premirror forecast` with the same configuration."
        )
    watch = WatchThrough.count(RequestRows.read(inputs.path, scene, before_us=at_us), scene)
    demand: SegmentDemand = segment_demand(
        forecasts.demand(), scene, continuation=watch.at(at_us), minimum_requests=planning.minimum_requests
    )
    outlook: NodeOutlook = outlook_from(forecasts.churn(), scene, horizon_hours=planning.horizon_hours)
    return instance(scene, demand, outlook, _held(scene, current), settings=planning, at_us=at_us)


def _held(scene: Scene, current: CurrentPlan | None) -> Copies:
    """Copies of the plan in force that the tables still know."""
    if current is None:
        return Copies.none()
    placements = current.table("placements")
    content = scene.catalogue.codes(np.asarray(placements["content"].to_pylist(), dtype=object))
    source = scene.source_codes(np.asarray(placements["source"].to_pylist(), dtype=object))
    number = np.asarray(placements["segment"].to_numpy(), dtype=np.int64)
    known = (content >= 0) & (source >= 0)
    known[known] &= number[known] < scene.catalogue.n_segments[content[known]]
    return Copies(scene.catalogue.first_segment[content[known]] + number[known], source[known])


def _held_table(current: CurrentPlan | None) -> pa.Table:
    from placement.plan import PLACEMENTS_SCHEMA

    held = PLACEMENTS_SCHEMA.empty_table() if current is None else current.table("placements")
    return held.drop_columns(["moved"])


def _tables(planned: PlannedInstance, plan: Plan, scene: Scene, settings: PlacementRun) -> dict[str, pa.Table]:
    problem = planned.problem
    placements, routes = plan.to_arrow(problem)
    columns: dict[str, Any] = {
        "source": scene.source,
        "tier": problem.sources.tier,
        "location": scene.locations[scene.location],
        "lat": scene.lat,
        "lon": scene.lon,
        "network": scene.network,
        "storage_bytes": scene.storage_bytes,
        "uplink_bps": scene.uplink_bps,
        "eligible": problem.sources.eligible,
        "reason": planned.verdicts.reason.astype(str).astype(object),
        "up": planned.outlook.up,
        "stay": planned.outlook.stay,
        "survival": planned.outlook.survival,
    }
    sources = pa.table(columns, schema=SOURCES_SCHEMA)
    place, source = np.nonzero(problem.reach)
    reachable: dict[str, Any] = {
        "location": scene.locations[place],
        "source": scene.source[source],
        "rtt_ms": scene.rtt_ms[place, source],
        "distance_km": scene.distance_km[place, source],
    }
    paths = pa.table(reachable, schema=PATHS_SCHEMA)
    code, catalogue = planned.demand.segment, scene.catalogue
    ranked = ranked_sources(
        SourceDirectory(placements, sources, paths),
        catalogue.contents[catalogue.content_of_segment[code]],
        catalogue.number_of_segment[code],
        scene.locations[planned.demand.location],
        settings.routing,
    )
    return {"placements": placements, "routes": routes, "sources": sources, "paths": paths, "ranked": ranked}


def ranked_sources(
    directory: SourceDirectory, content: Objects, number: Int32, location: Objects, routing: RoutingSettings
) -> pa.Table:
    """The best sources of every (segment, location) pair with demand, by the routing score with idle uplinks."""
    batch = directory.candidates(content.tolist(), number.tolist(), location.tolist())
    best, scores = top_k(batch, score(batch, routing), RANKED_SOURCES)
    row, rank = np.nonzero(best.numpy() >= 0)
    columns: dict[str, Any] = {
        "content": content[row],
        "segment": number[row],
        "location": location[row],
        "rank": (rank + 1).astype(np.int32),
        "source": directory.source_ids[best.numpy()[row, rank]],
        "score": scores.numpy()[row, rank],
    }
    types = {"content": pa.string(), "location": pa.string(), "source": pa.string()}
    return pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})


def log_plan(home: Home, manifest: dict[str, Any], seconds: float, console: Console) -> None:
    """Links the plan to the model versions in MLflow; the registry being away never stops a plan."""
    numbers = ("copies", "bytes_to_move", "gap", "objective_millidollars")
    try:
        Registry(home.tracking_uri, home.artefact_root).log_run(
            RunEntry(
                experiment="premirror-plans",
                name=manifest["id"],
                parameters={name: manifest[name] for name in ("at", "forecast", "status", "quality", "config", "data")}
                | {f"version.{name}": version for name, version in manifest["versions"].items()},
                metrics={name: float(manifest[name]) for name in numbers if manifest[name] is not None}
                | {"seconds": seconds},
            )
        )
    except RegistryError as error:
        console.note(f"the plan is published, but not logged: {error}")


def _text(manifest: dict[str, Any], placements: pa.Table, *, dry_run: bool) -> str:
    tiers = np.bincount(placements["tier"].to_numpy(), minlength=4)
    did = "would be" if dry_run else "is"
    lines = [
        f"Plan {manifest['id']} {did} in force from {manifest['at']} for {manifest['horizon_hours']:g} h "
        f"({manifest['status']}, gap {manifest['gap']:.1%}, {manifest['method']}).",
        f"Copies: {tiers[2]:,} on tier 2, {tiers[3]:,} on tier 3. To move: {manifest['bytes_to_move'] / 1e9:.2f} GB "
        f"of {manifest['movement_budget_bytes'] / 1e9:.2f} GB allowed; kept {manifest['kept_bytes'] / 1e9:.2f} GB, "
        f"dropped {manifest['dropped_bytes'] / 1e9:.2f} GB.",
    ]
    counts = manifest["availability"]
    if counts is not None:
        lines.append(
            f"Live with probability {counts['target']:g} or more: {counts['together']:,} of {counts['segments']:,} "
            f"segments with departures that come together, {counts['networks_once']:,} if a network counts once, "
            f"{counts['independent']:,} if departures shared nothing."
        )
    if manifest["risk"] is not None:
        lines.append(_risk_line(manifest["risk"]))
    lines += [f"  - {sentence}" for sentence in manifest["binding"]]
    if manifest["status"] == "infeasible":
        lines.append(f"Infeasible: {manifest['reason']}")
    return "\n".join([*lines, *(f"Fallback: {reason}" for reason in manifest["reasons"])])


def _risk_line(risk: dict[str, Any]) -> str:
    tails = [f"{risk[name] / 1e9:.2f} GB" for name in ("cvar_bytes", "mean_plan_cvar_bytes")]
    return (
        f"In {risk['scenarios']} drawn scenarios: {risk['expected_cost']:,.1f} m$ on average, {tails[0]} left unserved by "
        f"nodes in the worst {1 - risk['level']:.0%}; the plan for the mean: {risk['mean_plan_cost']:,.1f} m$, {tails[1]}."
    )


def route_step(
    settings: PlacementRun, home: Home, *, content: str, location: str, segment: int
) -> tuple[dict[str, Any], str]:
    """Every candidate for one request, each term of its score, each rejection."""
    current = current_plan(home)
    if current is None:
        raise InputError(f"There is no plan under {home.plans}. Run `premirror forecast` and `premirror place` first.")
    directory = current.directory()
    batch = directory.candidates([content], [segment], [location])
    rows = [
        {
            "source": directory.source_ids[found.source],
            "tier": int(directory.tier[found.source]),
            "score": None if found.rejection else found.score,
            "latency": found.latency,
            "bandwidth": found.bandwidth,
            "health": found.health,
            "distance": found.distance,
            "rejection": found.rejection,
        }
        for found in explain(batch, 0, settings.routing)
    ]
    value = {"plan": current.manifest["id"], "content": content, "segment": segment, "location": location,
             "mode": settings.routing.mode, "candidates": rows}  # fmt: skip
    columns = ["source", "tier", "score", "latency", "bandwidth", "health", "distance", "rejection"]
    return value, table(rows, columns)
