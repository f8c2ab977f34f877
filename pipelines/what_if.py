"""What other devices would bring: one method replayed with storage, uplinks and consent changed, everything else equal.

Consent is drawn by a hash of the node's id and the seed, so that whoever is among the 25 % is among the 50 % too. A node
without consent stores and sends nothing. Tiers under which bytes are counted stay as they were.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.events import DAY_US
from pipelines.arena import Arena
from pipelines.config import DataSource, ReplayRun, microseconds
from pipelines.console import Console, table
from pipelines.contest import Contest, Result
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import job_id
from pipelines.provenance import code_commit, settings_digest
from pipelines.row_names import ROW_NAMES, Row
from pipelines.rows import play_row
from pipelines.runner import PoolRunner, SerialRunner
from pipelines.saved_report import write_beside
from pipelines.staging import staged_folder

PAGE, VALUES, TABLE = "what_if.html", "what_if.json", "what_if.csv"
WITHOUT_MODELS: frozenset[Row] = frozenset(
    {"cdn-alone", "lru-paid", "lru-second-hit", "lru-free", "yesterday", "top-k", "clairvoyant"}
)

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Devices:
    """One combination: factors on storage and uplink, and the share of nodes that take part."""

    storage: float
    uplink: float
    consent: float


@dataclass(frozen=True)
class Answer:
    """What the method did with such devices.

    Attributes:
        nodes: how many take part.
        net_share: net bytes kept off the CDN, of the bytes requested.
        saved_per_day: money saved against the CDN alone.
    """

    storage: float
    uplink: float
    consent: float
    nodes: int
    net_share: float
    saved_per_day: float
    latency_p95_ms: float


@dataclass(frozen=True)
class Unit:
    """Work of one process: where the tables are, the run, and the devices."""

    home_root: Path
    run: ReplayRun
    devices: Devices


@dataclass(frozen=True)
class WhatIf:
    """All answers, in the order of the settings, beside the CDN alone."""

    run: ReplayRun
    answers: tuple[Answer, ...]
    alone_p95_ms: float
    n_nodes: int
    days: float
    data_hash: str


def takes_part(names: npt.NDArray[np.object_], share: float, *, seed: int) -> Bool:
    """Whether each node is among this share; a larger share holds every node of a smaller one. (nodes,)"""
    draws = [hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8] for name in names]
    numbers = np.array([int.from_bytes(draw, "big") for draw in draws], dtype=np.float64) / 2.0**64
    return np.asarray(numbers < share) | (share >= 1.0)


def with_devices(arena: Arena, devices: Devices, *, seed: int) -> Arena:
    """The arena with other storage and uplinks, and without the nodes that do not take part."""
    scene, world = arena.scene, arena.world
    part = scene.is_pop.copy()
    part[scene.nodes] = takes_part(scene.source[scene.nodes], devices.consent, seed=seed)
    storage = np.where(scene.is_pop, 1.0, devices.storage * part)
    uplink = np.where(scene.is_pop, 1.0, devices.uplink * part)
    changed: dict[str, Any] = {}
    for name, found in (("scene", scene), ("world", world)):
        changed[name] = {
            "storage_bytes": np.floor(found.storage_bytes * storage).astype(np.int64),
            "uplink_bps": found.uplink_bps * uplink,
        }
    consent_until_us = np.where(part, scene.consent_until_us, -1)
    return replace(
        arena,
        scene=replace(scene, **changed["scene"], consent_until_us=consent_until_us),
        world=replace(world, **changed["world"]),
    )


def play_devices(unit: Unit) -> Answer:
    """Replays one combination; importable, so that any process can do it."""
    run, devices = unit.run, unit.devices
    stage = _stage(unit.home_root, run)
    arena = with_devices(stage.contest.arena, devices, seed=run.seed)
    result = play_row(run.what_if.row, replace(stage.contest, arena=arena))
    days = (arena.stretch.end_us - arena.stretch.start_us) / DAY_US
    return Answer(
        **asdict(devices),
        nodes=int(np.sum(takes_part(arena.scene.source[arena.scene.nodes], devices.consent, seed=run.seed))),
        net_share=result.tally.net_share,
        saved_per_day=(_money(stage.alone) - _money(result)) / days,
        latency_p95_ms=result.tally.latency_quantile_ms(0.95),
    )


@dataclass(frozen=True)
class Stage:
    """What all combinations of a process share: the world as it is, the models, and the CDN alone."""

    contest: Contest
    alone: Result


_stages: dict[tuple[Path, str], Stage] = {}
"""The stage of this process, by home folder and run: reading it costs more than a replay of a rule."""


def _stage(home_root: Path, run: ReplayRun) -> Stage:
    key = (home_root, settings_digest(run))
    if key not in _stages:
        _stages.clear()
        _stages[key] = _read_stage(Home(home_root), run)
    return _stages[key]


def _read_stage(home: Home, run: ReplayRun) -> Stage:
    from pipelines.replay import champions_before

    arena = Arena.read(home.tables(run.tables), run)
    demand: Any = None
    churn: Any = None
    if run.what_if.row not in WITHOUT_MODELS:
        demand, churn = (champion.model for champion in champions_before(home, arena, run))
    contest = Contest(arena, run, demand, churn, watch=lambda done, total: None)
    return Stage(contest, play_row("cdn-alone", contest))


def _money(result: Result) -> float:
    return result.tally.egress_money + result.tally.reward_money


def what_if(run: ReplayRun, home: Home, console: Console) -> WhatIf:
    """Replays every combination."""
    inputs = Inputs.find(DataSource(tables=run.tables), home)
    asked = run.what_if
    units = [Unit(home.root, run, Devices(*c)) for c in product(asked.storage, asked.uplink, asked.consent)]
    console.note(f"{len(units)} combinations of {ROW_NAMES[asked.row]}")
    with console.progress() as progress:
        runner = SerialRunner(progress) if asked.processes == 1 else PoolRunner(asked.processes, progress)
        answers = runner.map(play_devices, units, label="what-if")
    stage = _stage(home.root, run)
    arena = stage.contest.arena
    return WhatIf(
        run=run,
        answers=tuple(answers),
        alone_p95_ms=stage.alone.tally.latency_quantile_ms(0.95),
        n_nodes=len(arena.scene.source) - arena.scene.n_pops,
        days=(arena.stretch.end_us - arena.stretch.start_us) / DAY_US,
        data_hash=inputs.digest,
    )


def what_if_step(run: ReplayRun, home: Home, console: Console) -> tuple[dict[str, Any], str]:
    """Replays the combinations, writes page, JSON and CSV, answers with the table."""
    from pipelines.what_if_page import render_what_if

    found = what_if(run, home, console)
    name = job_id(microseconds(run.window[0]), run=settings_digest(run), data=found.data_hash)
    folder = home.reports / f"{run.name}-what-if-{name}"
    value = {
        "id": folder.name,
        "report": str(folder / PAGE),
        "row": run.what_if.row,
        "method": ROW_NAMES[run.what_if.row],
        "nodes": found.n_nodes,
        "cdn_alone_p95_ms": found.alone_p95_ms,
        "rows": [asdict(answer) for answer in found.answers],
        "config_hash": settings_digest(run),
        "data_hash": found.data_hash,
        "code_commit": code_commit(),
    }
    page = render_what_if(found)
    with staged_folder(folder) as staging:
        write_beside(staging / PAGE, page)
        write_beside(staging / VALUES, json.dumps(value, indent=1) + "\n")
        write_beside(staging / TABLE, _csv(found.answers))
    return value, f"{what_if_text(found)}\nReport: {folder / PAGE}"


def what_if_text(found: WhatIf) -> str:
    """The table as people read it."""
    rows = [
        {
            "storage": f"{a.storage:g}x",
            "uplink": f"{a.uplink:g}x",
            "consent": f"{a.consent:.0%}",
            "nodes": a.nodes,
            "kept off CDN, net": f"{a.net_share:.1%}",
            f"saved a day {found.run.currency}": f"{a.saved_per_day:,.2f}",
            "p95 ms": f"{a.latency_p95_ms:.1f}",
        }
        for a in found.answers
    ]
    return f"{ROW_NAMES[found.run.what_if.row]}; CDN alone has p95 {found.alone_p95_ms:.1f} ms\n" + table(
        rows, list(rows[0])
    )


def _csv(answers: tuple[Answer, ...]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(asdict(answers[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(answer) for answer in answers)
    return stream.getvalue()
