"""Compiles the kernels of next content, churn, planner and replay beside other work, so that nobody waits for them.

A fresh checkout compiles each kernel once and keeps it on disk. Run as `python -m pipelines.warmup CONFIG HOME` while
models train, this plays a few minutes of the replay's own tables, so that exactly the kernels it needs are there in time.
It writes nothing else, and whatever goes wrong here shows again, properly reported, in the real step.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np

WARM_MINUTES = 90
WARM_QUESTIONS = 8


def compile_kernels(config: Path, home_root: Path) -> None:
    """Asks next content a few questions, then plays the replay's first minutes for rows without a model, then churn."""
    from models.churn.features import node_features
    from models.churn.settings import ChurnSettings
    from models.churn.training import fit_tables
    from models.events import DAY_US
    from pipelines.arena import Arena
    from pipelines.backtest import OptimisingPlanner
    from pipelines.config import load, microseconds
    from pipelines.contest import Contest
    from pipelines.home import Home
    from pipelines.outlook import ClairvoyantOutlook
    from pipelines.planning import Copies
    from pipelines.row_names import Row
    from pipelines.rows import play_row

    run = load("replay", config, [])
    start = run.window[0]
    compile_next_content(Home(home_root).tables(run.tables), before_us=microseconds(start))
    run = replace(run, window=(start, start + timedelta(minutes=WARM_MINUTES)), clairvoyant_hours=(6.0,))
    arena = Arena.read(Home(home_root).tables(run.tables), run)
    at_us = microseconds(start)

    contest = Contest(arena, run, demand=None, churn=None, watch=lambda done, total: None)  # type: ignore[arg-type]
    rows: tuple[Row, ...] = ("lru-second-hit", "clairvoyant", "top-k")
    for row in rows:
        play_row(row, contest)
    tables = fit_tables(arena.history, train=(at_us - 2 * DAY_US, at_us), settings=ChurnSettings())
    node_features(arena.history, at_us=at_us, population=tables.population, settings=ChurnSettings())
    outlook = ClairvoyantOutlook(arena.scene, arena.stretch.requests, arena.world.uptime, horizon_hours=1.0)
    whole = replace(run.planning, placement=type(run.planning.placement)(time_limit_seconds=1.0))
    OptimisingPlanner(arena.scene, outlook, whole, seed=0).plan(at_us, Copies.none())


def compile_next_content(tables: Path, *, before_us: int) -> None:
    """Counts a few requests and asks about the last, as training, its mixtures and the service do."""
    from models.counters import CounterStore
    from models.next_content.lessons import collect, hear
    from models.next_content.memory import StreamMemory
    from models.next_content.mixture import MixturePredictor
    from models.next_content.refresh import Refresher
    from models.next_content.sequence import SequenceNetwork
    from models.next_content.settings import NextContentSettings
    from models.next_content.stream import draw_questions, finish
    from models.next_content.weights import StaticWeights
    from pipelines.store import read_request_log

    settings = NextContentSettings()
    log = read_request_log(tables, before_us=before_us, catalogue=True)
    log = log.rows(0, min(len(log), 1000))
    refresher = Refresher(settings.refresh, SequenceNetwork(settings.sequence, seed=0), seed=0)
    memory = StreamMemory(CounterStore(settings.counters.plain), refresher)
    window = (int(log.ts_us[0]) + 1, int(log.ts_us[-1]) + 1)
    questions = draw_questions(log, window=window, n=WARM_QUESTIONS, seed=0, timeout_us=memory.timeout_us)
    collect(memory, log, questions, limit=settings.shortlist)
    finish(memory, log, questions.rows)
    session = questions.sessions.rows(0, 1)
    session = replace(session, ts_us=session.ts_us * 0 + memory.time_us)
    n = len(hear(memory, session, log.content[:1]).experts.names)
    MixturePredictor("warm", memory.store, StaticWeights(np.full((1, n), 1.0 / n))).predict(session)


@contextmanager
def compiling(config: Path, home_root: Path) -> Iterator[None]:
    """Runs `compile_kernels` in a process of its own while the block runs."""
    command = [sys.executable, "-m", "pipelines.warmup", str(config), str(home_root)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


if __name__ == "__main__":
    compile_kernels(Path(sys.argv[1]), Path(sys.argv[2]))
