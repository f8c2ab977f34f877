"""Snapshots: what a model saw last, saved and read back."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.counters import CounterStore
from models.errors import ArtefactError
from models.snapshot import load_counters, load_sessions, save_counters, save_sessions
from models.tables import SCHEMAS
from tests.models.next_content_world import chain_log

NINE = dt.datetime(2026, 3, 7, 9, tzinfo=dt.UTC)


def test_counters__answer_as_before(tmp_path: Path) -> None:
    """The service goes on exactly where the job stopped."""
    store = CounterStore()
    store.update(chain_log(sessions=20))
    save_counters(tmp_path / "counters", store)
    back = load_counters(tmp_path / "counters")
    assert back.time_us == store.time_us
    cells = store.cells()
    assert all(np.array_equal(a, b) for a, b in zip(cells, back.cells(), strict=True))
    at_us = store.time_us
    assert np.array_equal(store.cell_rates(*cells, at_us), back.cell_rates(*cells, at_us))


def test_sessions__come_back_with_their_instant(tmp_path: Path) -> None:
    """A session still open at the instant stays open."""
    sessions = {
        "node": ["n", "m"],
        "start": [NINE, NINE],
        "end": [NINE + dt.timedelta(hours=1)] * 2,
        "end_upper": [NINE + dt.timedelta(hours=1), None],
        "censored": [False, True],
    }
    availability = pa.table(sessions, schema=SCHEMAS["availability"].arrow)
    nodes = pa.table(
        {"source": ["n", "m"], "device_class": ["home", "phone"], "network": ["x", "y"], "location": ["l", "l"]}
    )
    until_us = round((NINE + dt.timedelta(hours=1)).timestamp() * 1e6)
    save_sessions(tmp_path / "s", availability=availability, nodes=nodes, known_until_us=until_us)
    history, known_until_us = load_sessions(tmp_path / "s")
    assert known_until_us == until_us
    assert dict(zip(history.nodes, history.censored, strict=True)) == {"n": False, "m": True}


def test_load__another_format_is_refused_naming_both(tmp_path: Path) -> None:
    """A silent misreading costs more than a rebuilt snapshot."""
    store = CounterStore()
    save_counters(tmp_path / "counters", store)
    manifest = tmp_path / "counters" / "artefact.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(ArtefactError, match=r"has format 99 .* reads format 2"):
        load_counters(tmp_path / "counters")
    with pytest.raises(ArtefactError, match="kind 'counters', but kind 'sessions'"):
        load_sessions(tmp_path / "counters")
