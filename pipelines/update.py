"""The daily update: the demand model in use, brought up to date with the last days and registered as the candidate.

It goes through the review as every candidate does. Where nothing was better on the validation days than the model in
use, nothing is registered. Counters need no update: the forecast job feeds them.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from models.demand.forecaster import DemandForecaster
from models.demand.updating import UpdatedDemand, update_demand
from models.events import HOUR_US, window_name
from models.registry import MODEL_NAMES, DatasetInput, ModelVersion, Registry, RunEntry
from pipelines.config import DemandRun
from pipelines.console import Console
from pipelines.errors import InputError, PipelineError
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import instant_us, iso
from pipelines.provenance import code_commit, settings_digest
from pipelines.train import losses_text, register, steps, trained_demand
from pipelines.typed import flat

KIND = "demand"


def update_step(
    kind: str, run: Any, home: Home, console: Console, *, at: str, version: str
) -> tuple[dict[str, Any], str]:
    """Updates the champion (or `version`) until `at` (default: the last whole hour of the tables)."""
    if kind != KIND or not isinstance(run, DemandRun):
        raise PipelineError(
            f"Only the demand model is updated by itself, not {MODEL_NAMES[kind]}: next content goes on learning with "
            "every forecast, and churn is trained anew with `premirror train churn`."
        )
    inputs = Inputs.find(run.data, home)
    registry = Registry(home.tracking_uri, home.artefact_root)
    log = inputs.requests(instant_us(at) if at else int(np.iinfo(np.int64).max))
    at_us = instant_us(at) if at else int(log.ts_us[-1]) // HOUR_US * HOUR_US
    base, model = _fetch(registry, version, home)
    console.note(f"updating {base.name} version {base.version} until {iso(at_us)}")
    started = time.perf_counter()
    try:
        updated = update_demand(log, model, at_us=at_us, settings=run.update, seed=run.seed)
    except ValueError as error:
        raise InputError(f"{inputs.path}: {error}") from error
    seconds = time.perf_counter() - started
    value: dict[str, Any] = {
        "model": base.name,
        "updated_from": base.version,
        "at": iso(at_us),
        "kept": updated.kept,
        "losses": {name: round(loss, 5) for name, loss in updated.losses.items()},
        "seconds": round(seconds, 2),
        "rows": updated.rows,
        "history": updated.history,
        "changed": updated.changed,
        "version": base.version,
    }
    if not updated.changed:
        return value, f"Nothing was better than {base.name} version {base.version}; no candidate was registered."
    trained = trained_demand(updated.model, updated.history, log.before(at_us), at_us=at_us)
    made = register(KIND, trained, _entry(run, inputs, updated, base, seconds, at_us=at_us), registry, home)
    registry.describe(made, description=made.description, tags={"updated_from": base.version, "kept": updated.kept})
    text = f"{made.name} version {made.version} is the candidate: version {base.version} updated, {updated.kept} kept."
    if at_us > run.windows.us("test")[0]:
        text += f"\nReview it on later requests, with `windows.test` from {iso(at_us)} on: it has seen those before."
    return {**value, "version": made.version, "run": made.run_id}, f"{text}\n{losses_text(updated.history)}"


def _fetch(registry: Registry, version: str, home: Home) -> tuple[ModelVersion, DemandForecaster]:
    with tempfile.TemporaryDirectory(dir=home.root, prefix=".update-") as temporary:
        folder = Path(temporary) / "artefact"
        found = registry.download(KIND, version, folder)
        return found, DemandForecaster.load(folder / "model")


def _entry(
    run: DemandRun, inputs: Inputs, updated: UpdatedDemand, base: ModelVersion, seconds: float, *, at_us: int
) -> RunEntry:
    digest, windows = inputs.digest, updated.windows
    read = {
        "older": windows.older and window_name(*windows.older),
        "recent": window_name(*windows.recent),
        "validation": window_name(*windows.validation),
    }
    return RunEntry(
        experiment=MODEL_NAMES[KIND],
        name=f"update {KIND}",
        parameters=flat(run) | {"at": iso(at_us)} | {f"read.{name}": window for name, window in read.items()},
        metrics={
            "train_seconds": seconds,
            "rows": updated.rows,
            **{f"validation.{name.replace(' ', '_')}": loss for name, loss in updated.losses.items()},
        },
        steps=steps(updated.history),
        tags={
            "code_commit": code_commit(),
            "config_hash": settings_digest(run),
            "data_hash": digest,
            "updated_from": base.version,
            "kept": updated.kept,
        },
        description=f"Update of version {base.version} on {datetime.now(UTC):%Y-%m-%d}; the review of the version that it "
        "registered is on the version's page.",
        datasets=[DatasetInput(inputs.path.name, digest, str(inputs.path), "update", updated.rows)],
    )
