"""The daily update: a demand or churn model in use, brought up to date with the last days, registered as the candidate.

It goes through the review as every candidate does. Where nothing was better on the validation days than the model in
use, nothing is registered. Counters need no update: the forecast job feeds them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from models.churn.forecaster import ChurnForecaster
from models.churn.updating import update_churn
from models.demand.forecaster import DemandForecaster
from models.demand.updating import update_demand
from models.events import HOUR_US, window_name
from models.registry import MODEL_NAMES, DatasetInput, ModelVersion, Registry, RunEntry
from pipelines.config import ChurnRun, DemandRun
from pipelines.console import Console, table
from pipelines.errors import InputError, PipelineError
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import instant_us, iso
from pipelines.provenance import code_commit, settings_digest
from pipelines.train import Trained, losses_text, register, steps, trained_churn, trained_demand
from pipelines.typed import flat

Model = TypeVar("Model")


@dataclass(frozen=True)
class Update:
    """An update before it is registered.

    Attributes:
        trained: the model with the snapshot that it saw last; None where nothing was better than the model in use.
        kept: which choice was best.
        losses: by choice, on the validation days.
        rows: rows that were fitted, or compared.
        read: windows that were read, by name.
        told: facts of this kind for the answer.
    """

    trained: Trained | None
    kept: str
    losses: dict[str, float]
    rows: int
    read: dict[str, str | None]
    told: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Where an update reads from: tables until `at`, and the registry's `version`."""

    inputs: Inputs
    registry: Registry
    home: Home
    console: Console
    at: str
    version: str

    def model(self, kind: str, load: Callable[[Path], Model], at_us: int) -> tuple[ModelVersion, Model]:
        with tempfile.TemporaryDirectory(dir=self.home.root, prefix=".update-") as temporary:
            folder = Path(temporary) / "artefact"
            found = self.registry.download(kind, self.version, folder)
            self.console.note(f"updating {found.name} version {found.version} until {iso(at_us)}")
            return found, load(folder / "model")


def update_step(
    kind: str, run: Any, home: Home, console: Console, *, at: str, version: str
) -> tuple[dict[str, Any], str]:
    """Updates the champion (or `version`) until `at` (default: the last whole hour of the tables)."""
    if not isinstance(run, DemandRun | ChurnRun):
        raise PipelineError(
            f"Only demand and churn models are updated by themselves, not {MODEL_NAMES[kind]}: next content goes on "
            "learning with every forecast."
        )
    inputs = Inputs.find(run.data, home)
    registry = Registry(home.tracking_uri, home.artefact_root)
    started = time.perf_counter()
    source = Source(inputs, registry, home, console, at, version)
    base, at_us, update = _demand(run, source) if isinstance(run, DemandRun) else _churn(run, source)
    seconds = time.perf_counter() - started
    value: dict[str, Any] = {
        "model": base.name,
        "updated_from": base.version,
        "at": iso(at_us),
        "kept": update.kept,
        "losses": {name: round(loss, 5) for name, loss in update.losses.items()},
        "seconds": round(seconds, 2),
        "rows": update.rows,
        **update.told,
        "changed": update.trained is not None,
        "version": base.version,
    }
    if update.trained is None:
        return value, f"Nothing was better than {base.name} version {base.version}; no candidate was registered."
    made = register(kind, update.trained, _entry(kind, run, inputs, update, base, seconds, at_us), registry, home)
    registry.describe(made, description=made.description, tags={"updated_from": base.version, "kept": update.kept})
    text = f"{made.name} version {made.version} is the candidate: version {base.version} updated, {update.kept} kept."
    if at_us > run.windows.us("test")[0]:
        seen = "requests" if isinstance(run, DemandRun) else "sessions"
        text += f"\nReview it on later {seen}, with `windows.test` from {iso(at_us)} on: it has seen those before."
    shown = losses_text(update.trained.history) if isinstance(run, DemandRun) else _losses_text(update.losses)
    return {**value, "version": made.version, "run": made.run_id}, f"{text}\n{shown}"


def _demand(run: DemandRun, source: Source) -> tuple[ModelVersion, int, Update]:
    inputs, at = source.inputs, source.at
    log = inputs.requests(instant_us(at) if at else int(np.iinfo(np.int64).max))
    at_us = instant_us(at) if at else int(log.ts_us[-1]) // HOUR_US * HOUR_US
    base, model = source.model("demand", DemandForecaster.load, at_us)
    try:
        made = update_demand(log, model, at_us=at_us, settings=run.update, seed=run.seed)
    except ValueError as error:
        raise InputError(f"{inputs.path}: {error}") from error
    windows = made.windows
    read = {
        "older": windows.older and window_name(*windows.older),
        "recent": window_name(*windows.recent),
        "validation": window_name(*windows.validation),
    }
    trained = trained_demand(made.model, made.history, log.before(at_us), at_us=at_us) if made.changed else None
    return base, at_us, Update(trained, made.kept, dict(made.losses), made.rows, read, {"history": made.history})


def _churn(run: ChurnRun, source: Source) -> tuple[ModelVersion, int, Update]:
    inputs, at = source.inputs, source.at
    at_us = instant_us(at) if at else _newest_session_us(inputs) // HOUR_US * HOUR_US
    history = inputs.history(at_us)
    base, model = source.model("churn", ChurnForecaster.load, at_us)
    try:
        made = update_churn(history, model, at_us=at_us, settings=run.update, recalibration=run.recalibration)
    except ValueError as error:
        raise InputError(f"{inputs.path}: {error}") from error
    fitted, validation = made.windows
    read: dict[str, str | None] = {"fitted": window_name(*fitted), "validation": window_name(*validation)}
    losses = {str(name): loss for name, loss in made.losses.items()}
    if made.recalibration.drift.sentence:
        source.console.note(made.recalibration.drift.sentence)
    trained = trained_churn(made.model, [], inputs, history, at_us=at_us) if made.changed else None
    told = {"recalibration": made.recalibration.to_json()}
    return base, at_us, Update(trained, made.kept, losses, made.rows, read, told)


def _newest_session_us(inputs: Inputs) -> int:
    """The last instant at which a session started, or one is known to have ended."""
    newest = inputs.history(int(np.iinfo(np.int64).max))
    ended = newest.end_upper_us[~newest.censored]
    if not len(newest.start_us):
        raise InputError(f"{inputs.path}: there is no session at all. Run `ingest` on tables that hold some.")
    return max(int(newest.start_us.max()), int(ended.max(initial=0)))


def _losses_text(losses: dict[str, float]) -> str:
    return table([{"choice": name, "loss": round(loss, 5)} for name, loss in losses.items()], ["choice", "loss"])


def _entry(
    kind: str, run: DemandRun | ChurnRun, inputs: Inputs, update: Update, base: ModelVersion, seconds: float, at_us: int
) -> RunEntry:
    digest = inputs.digest
    return RunEntry(
        experiment=MODEL_NAMES[kind],
        name=f"update {kind}",
        parameters=flat(run) | {"at": iso(at_us)} | {f"read.{name}": window for name, window in update.read.items()},
        metrics={
            "train_seconds": seconds,
            "rows": update.rows,
            **{f"validation.{name.replace(' ', '_')}": loss for name, loss in update.losses.items()},
        },
        steps=steps(update.trained.history) if update.trained is not None else [],
        tags={
            "code_commit": code_commit(),
            "config_hash": settings_digest(run),
            "data_hash": digest,
            "updated_from": base.version,
            "kept": update.kept,
        },
        description=f"Update of version {base.version} on {datetime.now(UTC):%Y-%m-%d}; the review of the version that it "
        "registered is on the version's page.",
        datasets=[DatasetInput(inputs.path.name, digest, str(inputs.path), "update", update.rows)],
    )
