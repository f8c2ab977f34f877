"""What a model saw last, saved beside it: the counters of the request stream, the sessions of the nodes.

A registered version holds `model/` and the snapshot that it was trained on, so that it answers alone; the forecast job
writes newer snapshots of the same form for the service.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from models.artefact import load_artefact, save_artefact
from models.churn.history import SessionHistory
from models.counter_tables import FORMAT as COUNTERS_FORMAT
from models.counters import CounterStore

SESSIONS_FORMAT = 1


def save_counters(folder: Path, store: CounterStore) -> None:
    """Writes the counter store as Arrow tables."""
    save_artefact(
        folder,
        kind="counters",
        format=COUNTERS_FORMAT,
        hyperparameters={},
        state={"time_us": int(store.time_us)},
        tables=store.to_arrow(),
    )


def load_counters(folder: Path) -> CounterStore:
    """Reads a counter store; ArtefactError where it is damaged or of another format."""
    return CounterStore.from_arrow(dict(load_artefact(folder, kind="counters", format=COUNTERS_FORMAT).tables))


def save_sessions(folder: Path, *, availability: pa.Table, nodes: pa.Table, known_until_us: int) -> None:
    """Writes sessions as known at an instant; the caller has cut them there."""
    save_artefact(
        folder,
        kind="sessions",
        format=SESSIONS_FORMAT,
        hyperparameters={},
        state={"known_until_us": known_until_us},
        tables={"availability": availability, "nodes": nodes},
    )


def load_sessions(folder: Path) -> tuple[SessionHistory, int]:
    """Reads sessions and the instant up to which they are known."""
    artefact = load_artefact(folder, kind="sessions", format=SESSIONS_FORMAT)
    history = SessionHistory.from_arrow(artefact.tables["availability"], artefact.tables["nodes"])
    return history, int(artefact.state["known_until_us"])
