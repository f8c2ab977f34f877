"""The backtest command: every row on the same days, the comparison table, the report.

At every planning instant the models see only what was known before it; a champion trained on anything inside the window
is refused, because its replay would prove nothing.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from models.calibration import block_bootstrap_interval
from models.errors import RegistryError
from models.events import Float64
from models.quantities import Estimate, format_bytes, format_share
from models.registry import DatasetInput, Registry, RunEntry
from models.snapshot import load_counters, load_sessions
from pipelines.arena import Arena
from pipelines.champions import Champion, Champions
from pipelines.config import DataSource, ReplayRun, microseconds
from pipelines.console import Console, table
from pipelines.contest import Result
from pipelines.errors import InputError, PipelineError
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import iso, job_id
from pipelines.movement import Movement
from pipelines.provenance import code_commit, settings_digest
from pipelines.report import render
from pipelines.report_data import ReportData
from pipelines.row_names import PLAN_ROW, ROW_NAMES, PlayedRow
from pipelines.row_runner import RowUnit, rows_apart, rows_here, saved_models
from pipelines.saved_plan import FixedPlan
from pipelines.staging import staged_folder
from pipelines.typed import flat
from placement.tally import ReplayTally

BLOCK_HOURS = 6
"""Hours that the bootstrap keeps together: shorter than a day, because a backtest has few days."""
REPORT, DATA, RUN = "report.html", "report.json", "run.json"
LATEST = "latest"


@dataclass(frozen=True)
class Backtest:
    """A finished comparison."""

    run: ReplayRun
    arena: Arena
    results: list[Result]
    demand: Champion
    churn: Champion
    digest: str
    seconds: dict[str, float]
    plan: FixedPlan | None = None

    def result(self, row: str) -> Result | None:
        return next((r for r in self.results if r.row == row), None)

    def net_share(self, result: Result) -> Estimate:
        """Net avoided bytes per requested byte, with an interval over blocks of hours."""
        return share_estimate(net_by_hour(result.tally), requested_by_hour(result.tally), seed=self.run.seed)

    def captured_share(self, result: Result) -> Estimate | None:
        """Net avoided bytes over those of the clairvoyant row."""
        best = self.result("clairvoyant")
        if best is None or best.tally.net_avoided_bytes <= 0:
            return None
        return share_estimate(net_by_hour(result.tally), net_by_hour(best.tally), seed=self.run.seed)

    def movement(self, result: Result) -> Movement:
        """What a row moved by day: by its plans, or where it makes none, by what it pushed."""
        window = {"start_us": self.arena.stretch.start_us, "end_us": self.arena.stretch.end_us}
        if result.plans:
            return Movement.of_plans(result.plans, **window)
        return Movement.of_tally(result.tally, **window)

    def fallbacks(self) -> list[str]:
        """What stood in for a champion, and for how many plans."""
        found = [champion.reason for champion in (self.demand, self.churn) if champion.reason]
        ours = self.result("ours")
        if ours is not None and ours.by_prior:
            found.append(
                f"premirror-demand: its own prior answered for {ours.by_prior} of {len(ours.plans)} plans, because the "
                "network had lost to it over the hours before"
            )
        return found


def net_by_hour(tally: ReplayTally) -> Float64:
    """Mesh bytes less pushes and repairs, by hour."""
    mesh = tally.tier_bytes[:, :, 1:].sum(axis=(1, 2))
    moved = tally.pushed_bytes.sum(axis=1) + tally.repaired_bytes.sum(axis=1)
    return np.asarray(mesh - moved, dtype=np.float64)


def requested_by_hour(tally: ReplayTally) -> Float64:
    return np.asarray(tally.tier_bytes.sum(axis=(1, 2)) + tally.failed_bytes.sum(axis=1), dtype=np.float64)


def share_estimate(part: Float64, whole: Float64, *, seed: int) -> Estimate:
    """sum(part) / sum(whole) with a 95 % interval; blocks of hours are resampled, the ratio is linearised."""
    hours = max(len(part), len(whole))  # a row whose last hours saw nothing is shorter
    part, whole = np.pad(part, (0, hours - len(part))), np.pad(whole, (0, hours - len(whole)))
    value = float(part.sum() / whole.sum()) if whole.sum() > 0 else 0.0
    blocks = np.arange(len(part), dtype=np.int64) // BLOCK_HOURS
    if len(np.unique(blocks)) < 2 or whole.sum() <= 0:
        return Estimate(value)
    influence = (part - value * whole) / whole.mean()
    low, high = block_bootstrap_interval(influence, blocks, seed=seed)
    return Estimate(value, value + min(low, 0.0), value + max(high, 0.0))


def backtest(
    run: ReplayRun, home: Home, console: Console, *, processes: int = 1, plan_folder: Path | None = None
) -> Backtest:
    """Plays every row of the run, and that of a saved plan where one is given.

    Args:
        run: what is played.
        home: tables and models.
        console: is told how far it is.
        processes: rows that are played at once, each in a process; 0 is one for each core. The numbers do not depend
            on it.
        plan_folder: a folder under `plans`; its plan is played beside the rows, without planning anew.
    """
    inputs = Inputs.find(DataSource(tables=run.tables), home)
    started = time.perf_counter()
    arena = Arena.read(inputs.path, run)
    plan = None if plan_folder is None else FixedPlan.read(plan_folder, arena, run)
    seconds = {"read": time.perf_counter() - started}
    console.note(f"{arena.stretch.n_requests:,} segment requests, {len(arena.stretch.instants())} planning instants")
    start_us = microseconds(run.window[0])
    champions = Champions(home)
    demand = champions.demand(arena.log.before(start_us), at_us=start_us)
    churn = champions.churn(arena.history.before(start_us), at_us=start_us)
    _refuse_leaks(home, start_us, demand, churn)
    rows: tuple[PlayedRow, ...] = run.rows if plan is None else (*run.rows, PLAN_ROW)
    if processes == 1:
        played = rows_here(rows, arena, run, (demand.model, churn.model), plan, console)
    else:
        with ExitStack() as keep:
            models = saved_models(home, (demand, churn), keep)
            units = [RowUnit(row, run, inputs.path, models, plan_folder) for row in rows]
            played = rows_apart(units, processes, console)
    for note in (note for row in played for note in row.result.notes):
        console.note(note)
    seconds |= {one.result.row: one.seconds for one in played}
    return Backtest(run, arena, [one.result for one in played], demand, churn, inputs.digest, seconds, plan)


def _refuse_leaks(home: Home, start_us: int, demand: Champion, churn: Champion) -> None:
    """A model saw everything up to its snapshot; that must lie before the window."""
    for champion, name, read in (
        (demand, "premirror-demand", _counters_until_us),
        (churn, "premirror-churn", _sessions_until_us),
    ):
        if champion.version == "none":
            continue
        seen_us = read(home.local_model(name))
        if seen_us > start_us:
            raise PipelineError(
                f"{name} version {champion.version} was trained on data up to {iso(seen_us)}, but the replay starts at "
                f"{iso(start_us)}: it would be judged on what it has seen. Replay later days, or train on earlier ones."
            )


def _counters_until_us(folder: Path) -> int:
    return int(load_counters(folder / "counters").time_us)


def _sessions_until_us(folder: Path) -> int:
    return load_sessions(folder / "sessions")[1]


def replay_step(
    run: ReplayRun, home: Home, console: Console, *, processes: int = 1, plan_folder: Path | None = None
) -> tuple[dict[str, Any], str]:
    """Runs the backtest, writes and logs its report, answers with the comparison; arguments as of `backtest`."""
    from pipelines.replay_report import report_data

    done = backtest(run, home, console, processes=processes, plan_folder=plan_folder)
    data = report_data(done, home)
    rows = comparison(done)
    given = {} if done.plan is None else {"plan": done.plan.name}
    name = job_id(microseconds(run.window[0]), run=settings_digest(run), data=done.digest,
                  versions=[done.demand.version, done.churn.version], **given)  # fmt: skip
    folder = home.reports / f"{run.name}-{name}"
    value = {
        "id": folder.name,
        "report": str(folder / REPORT),
        "rows": rows,
        "seconds": {k: round(v, 2) for k, v in done.seconds.items()},
        "versions": {"demand": done.demand.version, "churn": done.churn.version},
        "fallbacks": done.fallbacks(),
        "plan": None if done.plan is None else done.plan.name,
        "notes": [note for result in done.results for note in result.notes],
        "config_hash": settings_digest(run),
        "data_hash": done.digest,
        "code_commit": code_commit(),
    }
    with staged_folder(folder) as staging:
        (staging / REPORT).write_text(render(data), encoding="utf-8")
        (staging / DATA).write_bytes(TypeAdapter(ReportData).dump_json(data))
        (staging / RUN).write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
    _log(home, run, done, value, folder, console)
    return value, f"{comparison_text(rows)}\nReport: {folder / REPORT}"


def comparison(done: Backtest) -> list[dict[str, Any]]:
    """One row a method: what was kept off tier 1, what it cost, how fast it was."""
    rows = []
    for result in done.results:
        net, captured, movement = done.net_share(result), done.captured_share(result), done.movement(result)
        rows.append(
            {
                "row": result.row,
                "method": ROW_NAMES[result.row],
                **result.tally.row(),
                "net_share_low": net.low,
                "net_share_high": net.high,
                "captured_share": captured.value if captured else None,
                "captured_share_low": captured.low if captured else None,
                "captured_share_high": captured.high if captured else None,
                "moved_bytes_per_day": movement.bytes_per_day,
                "moved_bytes_by_day": dict(movement.bytes_by_day),
                "flapping_share": movement.flapping_share,
                "money": result.tally.egress_money + result.tally.reward_money,
            }
        )
    return rows


def comparison_text(rows: list[dict[str, Any]]) -> str:
    """The comparison as people read it."""
    shown = []
    for row in rows:
        captured = row["captured_share"]
        interval = ""
        if captured is not None and row["captured_share_low"] is not None:
            interval = f" [{row['captured_share_low']:.2f}, {row['captured_share_high']:.2f}]"
        mesh = row["tier2_bytes"] + row["tier3_bytes"]
        shown.append(
            {
                "method": row["method"],
                "kept off CDN, net": f"{row['net_share']:.1%}",
                "captured": "-" if captured is None else f"{captured:.2f}{interval}",
                "gross": f"{mesh / max(row['requested_bytes'], 1):.1%}",
                "pushed": format_bytes(row["pushed_bytes"]),
                "wasted": format_bytes(row["wasted_bytes"]),
                "moved a day": format_bytes(row["moved_bytes_per_day"]),
                "flapping": format_share(row["flapping_share"]),
                "money $": f"{row['money']:,.2f}",
                "p50 ms": f"{row['latency_p50_ms']:.1f}",
                "p95 ms": f"{row['latency_p95_ms']:.1f}",
                "resumed": f"{row['resumed']:,}",
                "failed": f"{row['failed']:,}",
            }
        )
    return table(shown, list(shown[0]))


def _log(home: Home, run: ReplayRun, done: Backtest, value: dict[str, Any], folder: Path, console: Console) -> None:
    """Flat runs with the same metric names, one a method, and one that holds the report."""
    experiment = "premirror-replays"
    try:
        registry = Registry(home.tracking_uri, home.artefact_root)
        registry.log_run(
            RunEntry(
                experiment=experiment,
                name=f"replay {value['id']}",
                parameters=flat(run),
                tags={"replay": value["id"], "role": "report", "config_hash": value["config_hash"],
                      "data_hash": value["data_hash"], "code_commit": value["code_commit"]},
                description="The report is report.html among this run's artifacts.",
                datasets=[DatasetInput(run.tables, done.digest, run.tables, "backtest",
                                       done.arena.stretch.n_requests)],
                files=[(folder / REPORT, ""), (folder / RUN, "")],
            )
        )  # fmt: skip
        for row in value["rows"]:
            numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and np.isfinite(v)}
            registry.log_run(
                RunEntry(
                    experiment=experiment,
                    name=row["method"],
                    metrics={f"delivery.{name}": float(number) for name, number in numbers.items()},
                    tags={"replay": value["id"], "role": row["row"]},
                )
            )
    except RegistryError as error:
        console.note(f"the report is written, but not logged: {error}")


def report_step(name: str, home: Home) -> tuple[dict[str, Any], str]:
    """Renders a finished replay's page again from its saved data."""
    if name == LATEST:
        found = sorted(home.reports.glob(f"*/{DATA}"), key=lambda path: path.stat().st_mtime_ns)
        if not found:
            raise InputError(f"There is no replay under {home.reports}. Run `premirror replay` first.")
        folder = found[-1].parent
    else:
        folder = home.reports / name
        if not (folder / DATA).is_file():
            have = ", ".join(sorted(p.parent.name for p in home.reports.glob(f"*/{DATA}"))) or "none"
            raise InputError(f"There is no replay {name!r} under {home.reports}; there are: {have}.")
    try:
        data = TypeAdapter(ReportData).validate_json((folder / DATA).read_bytes())
    except ValidationError as error:
        raise InputError(f"{folder / DATA} is damaged: {error.errors()[0]['msg']}. Run the replay again.") from None
    path = folder / REPORT
    beside = path.with_suffix(".new")
    beside.write_text(render(data), encoding="utf-8")
    beside.replace(path)
    return {"report": str(path), "id": folder.name}, f"Report: {path}"
