"""Plays the rows of a comparison one after the other here, or side by side in processes of their own: the same numbers.

The unit is a row, never a day: a day begins with what the day before left on devices, in queues and in counters, so that
days played apart would be another replay. Rows share nothing but what they read. A process reads the tables itself, once
for all of its rows, and the models from their folders; it needs no registry.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.churn.forecaster import ChurnForecaster
from models.demand.forecaster import DemandForecaster
from models.registry import MODEL_NAMES
from pipelines.arena import Arena
from pipelines.champions import Champion, saved_digest
from pipelines.config import ReplayRun
from pipelines.console import Console
from pipelines.contest import Contest, Result
from pipelines.errors import TryLater
from pipelines.faulty_arena import with_faults
from pipelines.home import Home
from pipelines.memo import Memo
from pipelines.row_names import ROW_NAMES, PlayedRow
from pipelines.rows import play_row
from pipelines.runner import PoolRunner
from pipelines.saved_plan import FixedPlan


@dataclass(frozen=True)
class PlayedResult:
    """What a row came to, and how long it took."""

    result: Result
    seconds: float


@dataclass(frozen=True)
class SavedModels:
    """Folders of the models of every row, and the digests that they had when the replay began."""

    demand: Path
    churn: Path
    digests: tuple[str, str]


@dataclass(frozen=True)
class RowUnit:
    """One row for a process that knows nothing else; `plan` is the folder of a saved plan where one is played."""

    row: PlayedRow
    run: ReplayRun
    tables: Path
    models: SavedModels
    plan: Path | None


def rows_here(
    rows: Sequence[PlayedRow],
    arena: Arena,
    run: ReplayRun,
    models: tuple[Any, Any],
    plan: FixedPlan | None,
    console: Console,
) -> list[PlayedResult]:
    """One row after the other in this process; every plan moves a bar on."""
    played, memo = [], Memo()
    with console.progress() as progress:
        for row in rows:
            name = ROW_NAMES[row]
            contest = Contest(
                arena,
                run,
                *models,
                watch=lambda done, total, name=name: progress(name, done, total),  # type: ignore[misc]
                memo=memo,
                plan=plan,
            )
            played.append(_timed(row, contest))
            console.note(sentence(played[-1]))
    return played


def rows_apart(units: Sequence[RowUnit], processes: int, console: Console) -> list[PlayedResult]:
    """Rows side by side; 0 processes are one for each core. The results are in the order of the units.

    The longest rows come last in a comparison, so they are begun first.
    """
    turned = list(reversed(units))

    def told(label: str, done: int, total: int) -> None:
        console.note(f"{label}: {ROW_NAMES[turned[done - 1].row]} is played, {done} of {total}")

    played = PoolRunner(processes, told).map(play_unit, turned, label="rows")[::-1]
    for one in played:
        console.note(sentence(one))
    return played


def play_unit(unit: RowUnit) -> PlayedResult:
    """Plays one row in a process of its own."""
    return _timed(unit.row, _workplace(unit.tables, unit.run, unit.models, unit.plan))


def saved_models(home: Home, champions: tuple[Champion, Champion], keep: ExitStack) -> SavedModels:
    """The champions' local copies; what was fitted on the spot is saved for as long as `keep` is open."""
    folders, digests = [], []
    for kind, champion in zip(("demand", "churn"), champions, strict=True):
        folder = home.local_model(MODEL_NAMES[kind]) / "model"
        if not champion.digest:
            folder = Path(keep.enter_context(TemporaryDirectory(prefix="premirror-"))) / "model"
            champion.model.save(folder)
        folders.append(folder)
        digests.append(champion.digest or saved_digest(folder))
    return SavedModels(folders[0], folders[1], (digests[0], digests[1]))


def sentence(played: PlayedResult) -> str:
    result = played.result
    return f"{ROW_NAMES[result.row]}: {result.tally.net_share:.1%} kept off the CDN, net ({played.seconds:.1f} s)"


@lru_cache(maxsize=1)
def _workplace(tables: Path, run: ReplayRun, models: SavedModels, plan: Path | None) -> Contest:
    """Everything that rows of one replay share in a process."""
    arena = with_faults(Arena.read(tables, run), run)
    demand, churn = DemandForecaster.load(models.demand), ChurnForecaster.load(models.churn)
    if (saved_digest(models.demand), saved_digest(models.churn)) != models.digests:
        raise TryLater("A champion changed while the replay began; run it again.")
    fixed = None if plan is None else FixedPlan.read(plan, arena, run)
    return Contest(arena, run, demand, churn, watch=_nobody, plan=fixed)


def _timed(row: PlayedRow, contest: Contest) -> PlayedResult:
    began = time.perf_counter()
    return PlayedResult(play_row(row, contest), time.perf_counter() - began)


def _nobody(done: int, total: int) -> None:
    """Nobody watches plans in another process."""
