"""Trains one model, saves it with the snapshot that it saw last, and registers it as the candidate.

One MLflow run a training: resolved configuration, losses by epoch, data sets with digests, the model as a pyfunc with
signature and input example. Nothing later than the end of the validation window is read.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from models.answers import churn_rows, demand_rows, next_content_rows
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.training import fit_churn
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.training import fit_demand
from models.events import RequestLog
from models.next_content.training import fit_next_content
from models.registry import MODEL_NAMES, DatasetInput, ModelVersion, Registry, RunEntry
from models.snapshot import save_counters, save_sessions
from pipelines.config import ChurnRun, DemandRun, NextContentRun
from pipelines.console import Console, table
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.provenance import code_commit, settings_digest
from pipelines.typed import flat

Run = DemandRun | NextContentRun | ChurnRun
EXAMPLE_ROWS = 3
History = list[dict[str, float]]


@dataclass(frozen=True)
class Trained:
    """A trained model before it is saved.

    Attributes:
        model: the forecaster.
        history: one row of losses an epoch; networks that are trained in turn have columns of their own.
        save: writes the model and its snapshot into a folder.
        example: one input of the pyfunc.
        answer: what it answers.
        rows: how many requests or sessions it read.
    """

    model: Any
    history: History
    save: Callable[[Path], None]
    example: pd.DataFrame
    answer: pd.DataFrame
    rows: int


def fit(kind: str, run: Run, inputs: Inputs) -> Trained:
    """Trains the model of `kind` on the run's train and validation windows."""
    if isinstance(run, DemandRun):
        return _fit_demand(run, inputs)
    if isinstance(run, NextContentRun):
        return _fit_next_content(run, inputs)
    return _fit_churn(run, inputs)


def train_step(kind: str, run: Run, home: Home, console: Console) -> tuple[dict[str, Any], str]:
    """Fits, saves and registers; answers with the version and the losses."""
    inputs = Inputs.find(run.data, home)
    registry = Registry(home.tracking_uri, home.artefact_root)
    console.note(f"training {MODEL_NAMES[kind]} on {inputs.path}")
    started = time.perf_counter()
    trained = fit(kind, run, inputs)
    seconds = time.perf_counter() - started
    console.note(f"trained in {seconds:.1f} s on {trained.rows:,} rows; registering")
    version = register(kind, trained, _entry(kind, run, inputs, trained, seconds), registry, home)
    value = {
        "model": version.name,
        "version": version.version,
        "run": version.run_id,
        "seconds": round(seconds, 2),
        "rows": trained.rows,
        "history": trained.history,
    }
    return value, f"{version.name} version {version.version} is the candidate.\n{losses_text(trained.history)}"


def register(kind: str, trained: Trained, entry: RunEntry, registry: Registry, home: Home) -> ModelVersion:
    """Saves a trained model with its snapshot and registers it as the candidate."""
    with tempfile.TemporaryDirectory(dir=home.root, prefix=".train-") as temporary:
        folder = Path(temporary) / "artefact"
        folder.mkdir()
        (folder / "kind").write_text(kind + "\n", encoding="utf-8")
        trained.save(folder)
        return registry.register(kind, entry, folder, signature=_signature(trained), example=trained.example)


def losses_text(history: History) -> str:
    """Losses by epoch as people read them."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    return table(history, columns) if history else "Nothing to learn: counters only."


def _fit_demand(run: DemandRun, inputs: Inputs) -> Trained:
    train, validation = run.windows.us("train"), run.windows.us("validation")
    log = inputs.requests(validation[1])
    model, history = fit_demand(log, train=train, validation=validation, settings=run.model, seed=run.seed)
    return trained_demand(model, history, log, at_us=validation[1])


def trained_demand(model: DemandForecaster, history: History, log: RequestLog, *, at_us: int) -> Trained:
    """A demand model with the counters of the log that it was trained on, which ends at `at_us`."""
    store = CounterStore()
    store.update(log)
    shortest = model.settings.horizons_hours[0]
    forecast = model.forecast(store, at_us=at_us, horizon_hours=shortest)
    cells = slice(0, EXAMPLE_ROWS)
    example = pd.DataFrame(
        {
            "content": store.contents[forecast.content[cells]],
            "location": store.locations[forecast.location[cells]],
            "horizon_hours": shortest,
        }
    )
    answer = demand_rows(forecast, example["content"].tolist(), example["location"].tolist())

    def save(folder: Path) -> None:
        model.save(folder / "model", git_commit=code_commit())
        save_counters(folder / "counters", store)

    answer = answer.assign(horizon_hours=shortest)
    return Trained(model, history, save, example, answer, len(log))


def _fit_next_content(run: NextContentRun, inputs: Inputs) -> Trained:
    train, validation = run.windows.us("train"), run.windows.us("validation")
    log = inputs.requests(validation[1])
    model, history = fit_next_content(log, train=train, validation=validation, settings=run.model, seed=run.seed)
    model.device_features, model.arrival_features = run.data.features, run.data.event_features
    example = _example_sessions(log)
    answer = next_content_rows(
        model, example["history"].tolist(), example["location"].tolist(), at_us=model.store.time_us, k=EXAMPLE_ROWS
    )
    return Trained(model, history, lambda folder: model.save(folder / "model"), example, answer, len(log))


def _example_sessions(log: RequestLog) -> pd.DataFrame:
    last = slice(len(log) - EXAMPLE_ROWS, len(log))
    return pd.DataFrame(
        {
            "history": [[content] for content in log.contents[log.content[last]]],
            "location": log.locations[log.location[last]],
        }
    )


def _fit_churn(run: ChurnRun, inputs: Inputs) -> Trained:
    train, validation = run.windows.us("train"), run.windows.us("validation")
    history = inputs.history(validation[1])
    model, losses = fit_churn(history, train=train, validation=validation, settings=run.model, seed=run.seed)
    return trained_churn(model, losses, inputs, history, at_us=validation[1])


def trained_churn(
    model: ChurnForecaster, losses: History, inputs: Inputs, history: SessionHistory, *, at_us: int
) -> Trained:
    """A churn model with the sessions that it was trained on, which end at `at_us`."""
    availability, nodes = inputs.sessions(at_us)
    telemetry = inputs.telemetry(at_us)
    example = pd.DataFrame({"node": history.nodes[:EXAMPLE_ROWS]})
    answer = churn_rows(model.forecast(history, at_us=at_us, nodes=example["node"].tolist()))

    def save(folder: Path) -> None:
        model.save(folder / "model")
        save_sessions(
            folder / "sessions", availability=availability, nodes=nodes, known_until_us=at_us, telemetry=telemetry
        )

    return Trained(model, losses, save, example, answer, len(availability))


def _signature(trained: Trained) -> Any:
    import warnings

    from mlflow.models import infer_signature

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about integer columns with missing values: there are none
        return infer_signature(trained.example, trained.answer)


def steps(history: History) -> list[tuple[str, int, float]]:
    """Losses as (name, step, value); a step is a row of the history, so that none has two values of a metric."""
    return [
        (name, step, value)
        for step, row in enumerate(history)
        for name, value in row.items()
        if name not in ("epoch", "network", "member")
    ]


def _entry(kind: str, run: Run, inputs: Inputs, trained: Trained, seconds: float) -> RunEntry:
    digest = inputs.digest
    return RunEntry(
        experiment=MODEL_NAMES[kind],
        name=f"train {kind}",
        parameters=flat(run),
        metrics={"train_seconds": seconds, "rows": trained.rows},
        steps=steps(trained.history),
        tags={"code_commit": code_commit(), "config_hash": settings_digest(run), "data_hash": digest},
        description="Training run; the review of the version that it registered is on the version's page.",
        datasets=[
            DatasetInput(inputs.path.name, digest, str(inputs.path), context, trained.rows)
            for context in ("train", "validation")
        ],
    )
