"""Forecasts of one window: demand of every active cell, survival of every node, and the state they came from.

`forecasts/<id>/` holds `demand.parquet`, `churn.parquet` and a manifest; the id is a hash of the instant, the model
versions, the tables and the configuration, so a second run finds its work done. `state/` holds the counters, the sessions
and the next-content champion as of the newest forecast, for the service; the next forecast goes on from its counters
(`pipelines/counter_state.py`) and comes to the same result as from the whole log. No forecast rests on next content: what
is wrong with it is a note in the manifest and no reason to call the forecast a fallback.

Where the demand model lost to its own prior over the trailing hours (`models/demand/trailing.py`), the prior answers and
the forecast is a fallback; the manifest keeps both losses whoever answered.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.operation import RecalibrationSettings
from models.churn.recalibrated import RecalibratedForecaster, Recalibration
from models.demand.forecaster import DemandForecaster
from models.events import HOUR_US, RequestLog
from models.forecast import ChurnForecast, DemandForecast
from models.registry import MODEL_NAMES
from models.snapshot import save_sessions
from pipelines.champions import Champion, Champions, brought_up_to_date, save_copy
from pipelines.coding import instants
from pipelines.config import DataSource, PlacementRun
from pipelines.console import Console
from pipelines.counter_state import Counted, count_until
from pipelines.errors import Degraded, InputError
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import MANIFEST, instant_us, iso, job_id, only_one, point_at, read_manifest, write_result
from pipelines.provenance import code_commit, settings_digest
from pipelines.staging import staged_folder
from pipelines.store import read_parquet, read_requests

LATEST = "latest"
COUNTERS = "counters"
NEXT_CONTENT = "next-content"
THREADS = min(os.cpu_count() or 1, 4)
"""Of a demand forecast; it does not depend on their number."""


@dataclass(frozen=True)
class Forecasts:
    """A finished forecast job."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def at_us(self) -> int:
        return int(self.manifest["at_us"])

    def demand(self) -> DemandForecast:
        return _demand(self.folder, self.manifest)

    def churn(self) -> ChurnForecast:
        return _churn(self.folder, self.manifest)


def forecast_step(settings: PlacementRun, home: Home, console: Console, *, at: str) -> tuple[dict[str, Any], str]:
    """Forecasts the window that starts at `at` (default: the first whole hour after the last request)."""
    inputs = Inputs.find(DataSource(tables=settings.tables), home)
    at_us = instant_us(at) if at else -(-(newest_us(inputs) + 1) // HOUR_US) * HOUR_US
    try:
        log = inputs.requests(at_us)
    except InputError:
        raise InputError(f"No request is known before {iso(at_us)}; give a later --at.") from None
    with only_one(home.forecasts):
        return _forecast(settings, home, console, inputs, log, at_us)


def newest_us(inputs: Inputs) -> int:
    """The newest request of all, in microseconds since 1970 UTC."""
    newest = instants(read_requests(inputs.path, columns=["ts"])["ts"])
    if not len(newest):
        raise InputError(f"{inputs.path}: there is no request at all. Run `ingest` on logs that hold some.")
    return int(newest[-1])


def _forecast(
    settings: PlacementRun, home: Home, console: Console, inputs: Inputs, log: RequestLog, at_us: int
) -> tuple[dict[str, Any], str]:
    history = inputs.history(at_us)
    champions = Champions(home)
    demand, churn = champions.demand(log, at_us=at_us), champions.churn(history, at_us=at_us)
    reasons = [champion.reason for champion in (demand, churn) if champion.reason]
    age_hours = (at_us - int(log.ts_us[-1])) / HOUR_US
    if age_hours > settings.maximum_age_hours:
        reasons.append(f"the newest request is {age_hours:.1f} h old, allowed are {settings.maximum_age_hours:g} h")
    versions = {"demand": demand.version, "churn": churn.version}
    facts = {"versions": versions, "data": inputs.digest, "config": settings_digest(settings)}
    next_content = champions.next_content()
    name = job_id(at_us, **facts, next_content=next_content.version)
    folder = home.forecasts / name
    manifest = {
        "id": name,
        "at_us": at_us,
        "at": iso(at_us),
        "horizon_hours": settings.planning.horizon_hours,
        "tables": settings.tables,
        "code_commit": code_commit(),
        **facts,
    }
    changed = not (folder / MANIFEST).exists()
    is_newest = not (home.forecasts / LATEST).exists() or latest_forecasts(home).at_us <= at_us
    if changed:
        console.note(f"forecasting {settings.planning.horizon_hours:g} h from {iso(at_us)}")
        counted = count_until(
            at_us,
            log,
            kept=home.state / COUNTERS,
            model=demand.model,
            model_digest=demand.digest,
            settings=settings.trailing,
        )
        if counted.note:
            console.note(counted.note)
        asked, told = _demand_at(counted, demand.model, round(settings.planning.horizon_hours))
        gone, recalibration = _churn_at(churn.model, history, at_us, settings.recalibration)
        if recalibration.drift.sentence:
            console.note(f"{MODEL_NAMES['churn']}: {recalibration.drift.sentence}")
        if is_newest:  # before the forecast appears: a run that was killed between the two finds it missing, not old
            next_content = brought_up_to_date(next_content, home.state / NEXT_CONTENT, inputs, at_us=at_us)
            _save_state(home, inputs, counted, demand, next_content)
            manifest["next_content"] = _told(next_content)
            if next_content.reason:
                console.note(next_content.reason)
        why = [*reasons, *_trailing_reasons(told)]
        manifest |= {"quality": "fallback" if why else "good", "reasons": why, "trailing": told}
        manifest["joint"] = churn.model.joint.to_json()
        manifest["recalibration"] = recalibration.to_json() | {"at": iso(recalibration.at_us)}
        manifest |= {"counters": counted.told(), "cells": len(asked), "nodes": len(gone)}
        with staged_folder(folder) as staging:
            tables = {"demand": asked.to_arrow(with_other=True), "churn": gone.to_arrow()}
            write_result(staging, tables, manifest)
    if is_newest:
        point_at(home.forecasts / LATEST, folder)
    value = {**read_manifest(folder), "changed": changed}
    reasons += _trailing_reasons(value.get("trailing"))
    if reasons and settings.on_fallback == "strict":
        raise Degraded("The forecast is a fallback: " + "; ".join(reasons))
    did = "written" if changed else "was there already; nothing to do"
    text = f"Forecast {name} {did}: {value['cells']:,} cells, {value['nodes']:,} nodes."
    return value, "\n".join([text, *(f"Fallback: {reason}" for reason in reasons)])


def _demand_at(
    counted: Counted, model: DemandForecaster, horizon_hours: int
) -> tuple[DemandForecast, dict[str, Any] | None]:
    """Demand from the model or, where that lost to its own prior lately, from the prior; and how they compare."""
    trailing, comparison = counted.trailing, counted.comparison
    if trailing is None or comparison is None:
        return model.forecast(counted.store, at_us=counted.at_us, horizon_hours=horizon_hours, threads=THREADS), None
    answering = comparison.prior if trailing.fallback else model
    asked = answering.forecast(counted.store, at_us=counted.at_us, horizon_hours=horizon_hours, threads=THREADS)
    since = None if trailing.since_us is None else iso(trailing.since_us)
    return asked, {**asdict(trailing), "since": since}


def _churn_at(
    model: ChurnForecaster, history: SessionHistory, at_us: int, settings: RecalibrationSettings
) -> tuple[ChurnForecast, Recalibration]:
    """The model's forecast, put right on the outcomes that are known by now; and what was found doing so."""
    recalibrated = RecalibratedForecaster(model, settings)
    return recalibrated.forecast(history, at_us=at_us), recalibrated.recalibration(history, at_us)


def _trailing_reasons(told: dict[str, Any] | None) -> list[str]:
    return [f"{MODEL_NAMES['demand']}: {told['sentence']}"] if told and told["verdict"] == "prior" else []


def _told(next_content: Champion) -> dict[str, Any]:
    """What a reader of the manifest should know about the copy of next content."""
    as_of = None if next_content.model is None else iso(next_content.model.memory.time_us)
    return {"version": next_content.version, "as_of": as_of, "note": next_content.reason}


def _save_state(home: Home, inputs: Inputs, counted: Counted, demand: Champion, next_content: Champion) -> None:
    at_us = counted.at_us
    availability, nodes = inputs.sessions(at_us)
    with staged_folder(home.state) as staging:
        counted.save(staging / COUNTERS, version=demand.version)
        save_sessions(
            staging / "sessions",
            availability=availability,
            nodes=nodes,
            known_until_us=at_us,
            telemetry=inputs.telemetry(at_us),
        )
        if next_content.model is not None:
            save_copy(staging / NEXT_CONTENT, next_content)


def latest_forecasts(home: Home) -> Forecasts:
    """The newest finished forecast.

    Raises:
        InputError: there is none.
    """
    link = home.forecasts / LATEST
    if not link.exists():
        raise InputError(f"There is no forecast under {home.forecasts}. Run `premirror forecast` first.")
    return Forecasts(link.resolve(), read_manifest(link.resolve()))


def forecasts_at(home: Home, at_us: int) -> Forecasts:
    """The newest forecast made for an instant; an InputError where there is none."""
    stamp = job_id(at_us).split("-")[0]
    found = sorted(home.forecasts.glob(f"{stamp}-*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise InputError(f"There is no forecast for {iso(at_us)}. Run `premirror forecast --at {iso(at_us)}` first.")
    return Forecasts(found[-1].parent, read_manifest(found[-1].parent))


def _demand(folder: Path, manifest: dict[str, Any]) -> DemandForecast:
    table = read_parquet(folder / "demand.parquet", "demand").to_pandas()
    other = table[table["content"].isna()]
    cells = table[table["content"].notna()]
    content, contents = pd.factorize(cells["content"], sort=True)
    locations = pd.Index(other["location"])
    location = locations.get_indexer(pd.Index(cells["location"]))
    order = np.lexsort((location, content))
    return DemandForecast(
        origin_us=int(manifest["at_us"]),
        horizon_hours=float(manifest["horizon_hours"]),
        content=content[order].astype(np.int32),
        location=location[order].astype(np.int32),
        mean=cells["mean"].to_numpy()[order],
        dispersion=cells["dispersion"].to_numpy()[order],
        other_mean=other["mean"].to_numpy(),
        contents=np.asarray(contents, dtype=object),
        locations=np.asarray(locations, dtype=object),
    )


def _churn(folder: Path, manifest: dict[str, Any]) -> ChurnForecast:
    table = read_parquet(folder / "churn.parquet", "churn").to_pandas()
    edges = np.unique(table["horizon_hours"].to_numpy())
    n = len(table) // max(len(edges), 1)
    shape = (n, len(edges))
    return ChurnForecast(
        origin_us=int(manifest["at_us"]),
        edges_hours=edges,
        nodes=np.asarray(table["node"], dtype=object).reshape(shape)[:, 0],
        up=table["up"].to_numpy().reshape(shape)[:, 0],
        survival=table["survival"].to_numpy().reshape(shape),
        availability=table["availability"].to_numpy().reshape(shape),
        returned=table["returned"].to_numpy().reshape(shape),
    )
