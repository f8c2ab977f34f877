"""What a model saw last, saved beside it: the counters of the request stream, the sessions of the nodes.

A registered version holds `model/` and the snapshot that it was trained on, so that it answers alone; the forecast job
writes newer snapshots of the same form for the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.artefact import load_artefact, read_state, save_artefact
from models.churn.history import SessionHistory
from models.churn.outages import with_outages
from models.counter_tables import FORMAT as COUNTERS_FORMAT
from models.counters import CounterStore
from models.errors import ArtefactError
from models.events import DAY_US

SESSIONS_FORMAT = 1
_TELEMETRY_DAYS = 8
"""Heartbeats further back say nothing to a forecast: the longest rhythm looked at is a week."""


def save_counters(folder: Path, store: CounterStore, *, state: Mapping[str, Any] | None = None) -> None:
    """Writes the counter store as Arrow tables, and beside them plain JSON that says where they come from."""
    save_artefact(
        folder,
        kind="counters",
        format=COUNTERS_FORMAT,
        hyperparameters={},
        state={**(state or {}), "time_us": int(store.time_us)},
        tables=store.to_arrow(),
    )


def load_counters(folder: Path) -> CounterStore:
    """Reads a counter store; ArtefactError where it is damaged or of another format."""
    return load_counters_and_state(folder)[0]


def load_counters_and_state(folder: Path) -> tuple[CounterStore, Mapping[str, Any]]:
    """The counter store and what was written beside it."""
    artefact = load_artefact(folder, kind="counters", format=COUNTERS_FORMAT)
    return CounterStore.from_arrow(dict(artefact.tables)), artefact.state


def save_sessions(
    folder: Path, *, availability: pa.Table, nodes: pa.Table, known_until_us: int, telemetry: pa.Table | None = None
) -> None:
    """Writes sessions, and the last days of heartbeats, as known at an instant; the caller has cut them there."""
    tables = {"availability": availability, "nodes": nodes}
    if telemetry is not None:
        since = pa.scalar(known_until_us - _TELEMETRY_DAYS * DAY_US, pa.timestamp("us", tz="UTC"))
        tables["telemetry"] = telemetry.filter(pc.greater_equal(telemetry["ts"], since))
    save_artefact(
        folder,
        kind="sessions",
        format=SESSIONS_FORMAT,
        hyperparameters={},
        state={"known_until_us": known_until_us},
        tables=tables,
    )


def load_sessions(folder: Path) -> tuple[SessionHistory, int]:
    """Reads sessions and the instant up to which they are known."""
    artefact = load_artefact(folder, kind="sessions", format=SESSIONS_FORMAT)
    tables = artefact.tables
    history = SessionHistory.from_arrow(tables["availability"], tables["nodes"], tables.get("telemetry"))
    return with_outages(history), int(artefact.state["known_until_us"])


def counters_until_us(folder: Path) -> int:
    """Instant of the newest request in saved counters of any format, -1 for none; their tables are not read."""
    return _instant_us(folder, "counters", "time_us")


def sessions_until_us(folder: Path) -> int:
    """Instant up to which saved sessions are known; their tables are not read."""
    return _instant_us(folder, "sessions", "known_until_us")


def _instant_us(folder: Path, kind: str, name: str) -> int:
    found = read_state(folder, kind=kind).get(name)
    if not isinstance(found, int):
        raise ArtefactError(f"{str(folder)!r} does not say until when it knows the world: its {name!r} is {found!r}.")
    return found
