"""The backtest command: every row on the same days, the comparison table, the report.

At every planning instant the models see only what was known before it; a champion trained on anything inside the window
is refused, because its replay would prove nothing.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from models.errors import RegistryError
from models.quantities import Estimate, format_bytes, format_share
from models.registry import DatasetInput, Registry, RunEntry
from models.snapshot import load_counters, load_sessions
from pipelines.accounts import HourlyAccount
from pipelines.arena import Arena
from pipelines.champions import Champion, Champions
from pipelines.config import DataSource, ReplayRun, microseconds
from pipelines.console import Console, table
from pipelines.contest import Result
from pipelines.errors import PipelineError
from pipelines.faulty_arena import with_faults
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.intervals import share_estimate
from pipelines.jobs import iso, job_id
from pipelines.movement import Movement
from pipelines.provenance import code_commit, settings_digest
from pipelines.report import render
from pipelines.report_data import ReportData
from pipelines.row_names import GROUP_OF, PLAN_ROW, ROW_GROUPS, ROW_NAMES, PlayedRow
from pipelines.row_runner import RowUnit, rows_apart, rows_here, saved_models
from pipelines.saved_plan import FixedPlan
from pipelines.saved_report import DATA, REPORT, RUN
from pipelines.staging import staged_folder
from pipelines.typed import flat
from placement.audience import AUDIENCE_WORDS, AudienceTally


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

    def account(self, result: Result) -> HourlyAccount:
        """What the row did hour by hour, over the hours of the window."""
        stretch = self.arena.stretch
        return HourlyAccount.of_tally(result.tally, start_us=stretch.start_us, end_us=stretch.end_us)

    def net_share(self, result: Result) -> Estimate:
        """Net avoided bytes per requested byte, with an interval over blocks of hours."""
        account = self.account(result)
        return share_estimate(account.net, account.requested, seed=self.run.seed)

    def captured_share(self, result: Result, *, at_peak: bool = False) -> Estimate | None:
        """Net avoided bytes over those of the clairvoyant row; `at_peak`: in the busiest hours alone."""
        best = self.result("clairvoyant")
        if best is None:
            return None
        mine, theirs = self.account(result), self.account(best)
        counted = theirs.busiest if at_peak else np.ones(theirs.hours, dtype=np.bool_)
        whole = np.where(counted, theirs.net, 0.0)
        if whole.sum() <= 0:
            return None
        return share_estimate(np.where(counted, mine.net, 0.0), whole, seed=self.run.seed)

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
                f"premirror-demand: its own prior answered for {ours.by_prior} of {len(ours.plans)} plans and refreshes, "
                "because the network had lost to it over the hours before"
            )
        return found


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
    arena = with_faults(Arena.read(inputs.path, run), run)
    plan = None if plan_folder is None else FixedPlan.read(plan_folder, arena, run)
    seconds = {"read": time.perf_counter() - started}
    console.note(f"{arena.stretch.n_requests:,} segment requests, {len(arena.stretch.instants())} planning instants")
    demand, churn = champions_before(home, arena, run)
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


def champions_before(home: Home, arena: Arena, run: ReplayRun) -> tuple[Champion, Champion]:
    """The champions for demand and churn, as known at the start of the window.

    Raises:
        PipelineError: one of them was trained on something inside the window.
    """
    start_us = microseconds(run.window[0])
    champions = Champions(home)
    demand = champions.demand(arena.log.before(start_us), at_us=start_us)
    churn = champions.churn(arena.history.before(start_us), at_us=start_us)
    _refuse_leaks(home, start_us, demand, churn)
    return demand, churn


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
        "places": [asdict(place) for place in data.shown_places],
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
        net, movement = done.net_share(result), done.movement(result)
        captured, peak = done.captured_share(result), done.captured_share(result, at_peak=True)
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
                "captured_share_peak": peak.value if peak else None,
                "captured_share_peak_low": peak.low if peak else None,
                "captured_share_peak_high": peak.high if peak else None,
                "audiences": audience_rows(result.audience),
                "moved_bytes_per_day": movement.bytes_per_day,
                "moved_bytes_by_day": dict(movement.bytes_by_day),
                "flapping_share": movement.flapping_share,
                "money": result.tally.egress_money + result.tally.reward_money,
            }
        )
    return rows


def audience_rows(tally: AudienceTally | None) -> list[dict[str, Any]]:
    """What the mesh served by how many asked for the same segment at the same place; nothing where it was not counted."""
    if tally is None:
        return []
    return [
        {
            "audience": words,
            "requests": int(tally.requests[i]),
            "requested_bytes": float(tally.requested_bytes[i]),
            "mesh_bytes": float(tally.mesh_bytes[i]),
            "bound_bytes": float(tally.bound_bytes[i]),
        }
        for i, words in enumerate(AUDIENCE_WORDS)
    ]


def comparison_text(rows: list[dict[str, Any]]) -> str:
    """The comparison as people read it, by kind of row."""
    rows = sorted(rows, key=lambda row: list(ROW_GROUPS).index(GROUP_OF[row["row"]]))
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
    return table(_under_headings([GROUP_OF[row["row"]] for row in rows], shown), list(shown[0]))


def _under_headings(groups: list[str], lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """A heading before the lines of each group, where there are several groups."""
    if len(set(groups)) < 2:
        return lines
    headed = []
    for group, before, line in zip(groups, [None, *groups], lines, strict=False):
        if group != before:
            headed.append({**dict.fromkeys(line, ""), "method": group})
        headed.append({**line, "method": f"  {line['method']}"})
    return headed


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
