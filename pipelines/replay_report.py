"""A finished backtest as the report's data: nothing is computed here that the page shows twice."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from models.churn.track import ChurnTrack, NobodyUpError, follow_churn
from models.errors import RegistryError
from models.maps import MapPop
from models.quantities import format_count, format_counted, format_instant, format_share
from models.registry import MODEL_NAMES, Registry
from pipelines.cache_rows import POOLED_FREE, POOLED_LIMIT, POOLED_PAID
from pipelines.churn_words import TELEMETRY_LIMIT
from pipelines.config import ReplayRun, microseconds
from pipelines.contest import Result
from pipelines.evaluate import SHOWN
from pipelines.fault_words import fault_sentences
from pipelines.forecast_track import Track, track_demand
from pipelines.home import Home
from pipelines.provenance import code_commit, settings_digest
from pipelines.replay import Backtest, audience_rows
from pipelines.replay_places import judged_places, stop_loss_sentence, users_by_place
from pipelines.report_data import (
    FORMAT,
    Audience,
    Cause,
    Causes,
    ForecastPanel,
    MethodRow,
    Metric,
    ModelRow,
    ModelTable,
    PlanSummary,
    Repeat,
    ReportData,
    Role,
)
from pipelines.row_names import ROW_NAMES
from pipelines.typed import flat
from placement.tally import CAUSE_WORDS
from placement.tally import Cause as CauseCode

ROLES: dict[str, Role] = {"cdn-alone": "reference", "ours": "ours", "clairvoyant": "bound"}
HELP = {
    CauseCode.NOT_FORECAST: "demand model: contents that were new or too rare to expect",
    CauseCode.NOT_PLACED: "storage, uplink or movement budget; or not worth a push",
    CauseCode.INELIGIBLE: "consent and condition: not ours to change",
    CauseCode.GONE_AS_FORECAST: "more copies where departures are expected",
    CauseCode.GONE_UNFORECAST: "churn model, spread over networks",
    CauseCode.IN_TRANSIT: "earlier pushes: plan more often or further ahead",
    CauseCode.OVERLOADED: "more uplink, or copies on more nodes",
    CauseCode.ROUTER_CHOICE: "failed attempts and the share left to exploration",
}
WITHHELD_LIMIT = (
    "The row without Markov flow asks the same demand model with transitions withheld: as much goes on as before, spread "
    "as requests lately were. A model trained without them would do better."
)
HIGHER_IS_BETTER = {"top20_captured", "concordance", "ibss"}
AROUND_ONE = {"calibration_slope", "coverage_80"}
DEVICES_EVERY_HOURS = 6.0
MOST_PANELS = 3
MOST_CAUSES = 7


def report_data(done: Backtest, home: Home) -> ReportData:
    """Everything that the page shows."""
    run, arena = done.run, done.arena
    ours = done.result("ours") or done.results[-1]
    track = track_demand(arena, done.demand.model, seed=run.seed)
    users = users_by_place(home, done)
    start, end = (format_instant(microseconds(t)) for t in run.window)
    facts = arena.facts
    return ReportData(
        title=f"Replay {run.name}, {start} to {end}",
        subtitle=(
            f"{format_count(arena.stretch.n_requests)} segment requests at {len(arena.scene.locations)} places, "
            f"{len(arena.scene.source) - arena.scene.n_pops} devices, {arena.scene.n_pops} POPs, planned every "
            f"{run.every_hours:g} h; world {facts.get('name', run.tables)}, storage "
            f"{facts.get('storage_level', 'as given')}{_with_faults(run)}."
        ),
        repeat=Repeat(
            command="premirror replay --config FILE",
            data_hash=done.digest,
            code_commit=code_commit(),
            config_hash=settings_digest(run),
            facts=(
                ("Demand model", f"version {done.demand.version}"),
                ("Churn model", f"version {done.churn.version}"),
                ("Seed", str(run.seed)),
            ),
        ),
        measured=tuple(facts.get("measured", ())),  # type: ignore[arg-type]
        modelled=tuple(facts.get("modelled", ())),  # type: ignore[arg-type]
        brackets="Brackets: 95 % interval over blocks of six hours.",
        currency=run.currency,
        methods=tuple(_method(done, result, ours) for result in done.results),
        causes=_causes(ours, run),
        plan=_plan(ours),
        places=judged_places(done, ours, users),
        pops=tuple(
            MapPop(str(arena.scene.source[i]), float(arena.scene.lat[i]), float(arena.scene.lon[i]))
            for i in range(arena.scene.n_pops)
        ),
        forecasts=_forecasts(track, users, arena.scene.locations.tolist(), arena.scene.names.tolist()),
        devices=_devices(done),
        quantile_reliability=track.quantile_points() if track else (),
        model_tables=_model_tables(home),
        limits=_limits(done),
        missing={"models": "The champions have no review in the registry; run `premirror review` for each model."},
        minimum_users=run.minimum_users,
        stop_loss=stop_loss_sentence(run),
        settings={key: json.dumps(value) for key, value in flat(run).items() if not key.startswith("what_if.")},
        format=FORMAT,
    )


def _with_faults(run: ReplayRun) -> str:
    return f"; put through {format_counted(len(run.faults), 'fault')}, told below" if run.faults else ""


def _method(done: Backtest, result: Result, ours: Result) -> MethodRow:
    tally = result.tally
    requests = max(tally.n_requests, 1)
    role: Role = "ours" if result is ours else ROLES.get(result.row, "baseline")
    return MethodRow(
        name=ROW_NAMES[result.row],
        net_avoided_share=done.net_share(result),
        captured_share=done.captured_share(result),
        served_bytes=tuple(float(tally.tier_bytes[:, :, tier].sum()) for tier in range(3)),  # type: ignore[arg-type]
        pushed_bytes=float(tally.pushed_bytes.sum() + tally.repaired_bytes.sum()),
        wasted_bytes=float(tally.wasted_bytes.sum()),
        cost=tally.egress_money + tally.reward_money,
        latency_p50_ms=tally.latency_quantile_ms(0.5),
        latency_p95_ms=tally.latency_quantile_ms(0.95),
        failed_share=float(tally.failed.sum()) / requests,
        resumed_share=float(tally.resumed.sum()) / requests,
        role=role,
        movement=done.movement(result),
        key=result.row,
        hourly=done.account(result),
        captured_peak=done.captured_share(result, at_peak=True),
        cause_bytes=tuple((CAUSE_WORDS[cause], float(amount)) for cause, amount in tally.bytes_by_cause().items()),
        audiences=tuple(
            Audience(row["audience"], row["requested_bytes"], row["mesh_bytes"], row["bound_bytes"])
            for row in audience_rows(result.audience)
        ),
    )


def _causes(ours: Result, run: ReplayRun) -> Causes:
    """By falling bytes; the smallest join `router's choice` so that each keeps a colour of its own."""
    by_hour = ours.tally.cause_bytes.sum(axis=1)
    order = np.argsort(-by_hour.sum(axis=0), kind="stable")
    kept = [int(c) for c in order[: MOST_CAUSES - 1]]
    rest = [int(c) for c in order[MOST_CAUSES - 1 :]]
    causes = [Cause(CAUSE_WORDS[CauseCode(c)], _hours(by_hour[:, c]), HELP[CauseCode(c)]) for c in kept]
    words = " and ".join(CAUSE_WORDS[CauseCode(c)] for c in rest)
    causes.append(Cause(words, _hours(by_hour[:, rest].sum(axis=1)), HELP[CauseCode(rest[0])]))
    unserved = float(ours.tally.requested_bytes - ours.tally.mesh_bytes)
    events = fault_sentences(run.faults)
    return Causes(ours.tally.start_hour_us, tuple(causes), events=events, unserved_bytes=unserved)


def _hours(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _plan(ours: Result) -> PlanSummary | None:
    plans = [note for note in ours.plans if not note.refreshed]
    if not plans:
        return None
    last, refreshes = plans[-1], len(ours.plans) - len(plans)
    moved = sum(note.bytes_moved for note in ours.plans)
    gaps = [note.gap for note in plans if note.gap is not None]
    _, tier_two, tier_three = last.copies_by_tier
    return PlanSummary(
        subject=f"Last plan of the replay, {format_instant(last.at_us)}",
        copies_by_tier=(("Tier 2, top condition", tier_two), ("Tier 3, other devices", tier_three)),
        bytes_moved=float(last.bytes_moved),
        movement_budget_bytes=None if last.movement_budget_bytes is None else float(last.movement_budget_bytes),
        gap=last.gap,
        status=last.status,
        binding=last.binding[:6],
        facts=(
            ("In all", f"{len(plans)} plans and {refreshes} refreshes, {moved / 1e9:,.2f} GB to move together"),
            ("Largest gap of any", format_share(max(gaps)) if gaps else "not known"),
            ("Seconds a plan, mean", f"{np.mean([note.seconds for note in plans]):.2f}"),
        ),
    )


def _forecasts(
    track: Track | None, users: dict[str, int], locations: list[str], names: list[str]
) -> tuple[ForecastPanel, ...]:
    """The total, then the busiest places."""
    if track is None:
        return ()
    shown = dict(zip(locations, names, strict=True))
    busiest = np.argsort(-track.actual.sum(axis=0), kind="stable")[: MOST_PANELS - 1]
    panels = [ForecastPanel("All places", track.total(), None)]
    panels += [
        ForecastPanel(str(shown[track.names[i]]), track.location(int(i)), users.get(track.names[i], 0)) for i in busiest
    ]
    return tuple(panels)


def _devices(done: Backtest) -> ChurnTrack | None:
    """Forecasts every six hours beside what was known of the devices at the end; None where no device was ever up."""
    stretch, model = done.arena.stretch, done.churn.model
    try:
        return follow_churn(
            model,
            done.arena.history,
            start_us=stretch.start_us,
            end_us=stretch.end_us,
            every_hours=DEVICES_EVERY_HOURS,
            seed=done.run.seed,
        )
    except NobodyUpError:
        return None


def _model_tables(home: Home) -> tuple[ModelTable, ...]:
    """The champions' reviews: every method on the same test window."""
    try:
        registry = Registry(home.tracking_uri, home.artefact_root)
        return tuple(table for kind in MODEL_NAMES if (table := _model_table(registry, kind)) is not None)
    except RegistryError:
        return ()


def _model_table(registry: Registry, kind: str) -> ModelTable | None:
    if "champion" not in registry.aliases(kind):
        return None
    version = registry.version(kind, "champion")
    if "review_run" not in version.tags:
        return None
    review = json.loads(registry.read_text(version.tags["review_run"], "review.json"))
    rows = [row for row in review["rows"] if row["stratum"] == "all"]
    horizons = sorted({row["horizon_hours"] for row in rows if "horizon_hours" in row})
    if horizons:
        rows = [row for row in rows if row["horizon_hours"] == horizons[0]]
    names = [name for name in SHOWN[kind] if name not in ("horizon_hours", *AROUND_ONE)]
    higher = [name.startswith(("recall", "mrr")) or name in HIGHER_IS_BETTER for name in names]
    return ModelTable(
        title=f"{MODEL_NAMES[kind]} version {version.version}" + (f", {horizons[0]} h ahead" if horizons else ""),
        metrics=tuple(Metric(name, up) for name, up in zip(names, higher, strict=True)),
        rows=tuple(
            ModelRow(
                "Premirror" if row["model"] == "candidate" else row["model"],
                tuple(_number(row.get(name)) for name in names),
                ours=row["model"] == "candidate",
            )
            for row in rows
        ),
        note="On the review's test window; every method in the same harness.",
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _limits(done: Backtest) -> tuple[str, ...]:
    tally = (done.result("ours") or done.results[-1]).tally
    limits = [
        f"Latency is the time to the first byte. The time to the last byte is {tally.transfer_quantile_ms(0.5):,.0f} ms "
        f"at the median and {tally.transfer_quantile_ms(0.95):,.0f} ms at p95, where the CDN alone has "
        f"{_alone(done, 0.5)} and {_alone(done, 0.95)}.",
        "The clairvoyant row knows demand and departures but plans with the same solver: it is a reference, not a "
        "proven optimum. It is the best of several ways to look ahead, none of them beyond the end of the window, "
        "because what comes then counts for no row.",
        "Bands of totals come from the errors of the 24 hours before; a cell's own quantiles are judged under "
        "calibration.",
    ]
    if done.result("no-markov") is not None:
        limits.append(WITHHELD_LIMIT)
    modelled: Any = done.arena.facts.get("modelled", ())
    if modelled:
        limits.append("Columns listed as modelled follow a written rule (world.json), not a measurement.")
    if any(str(name).startswith("telemetry") for name in modelled):
        limits.append(TELEMETRY_LIMIT)
    if any(result.row in POOLED_PAID or result.row in POOLED_FREE for result in done.results):
        limits.append(POOLED_LIMIT)
    return (*limits, *done.fallbacks())


def _alone(done: Backtest, p: float) -> str:
    alone = done.result("cdn-alone")
    return "no row here" if alone is None else f"{alone.tally.transfer_quantile_ms(p):,.0f} ms"
