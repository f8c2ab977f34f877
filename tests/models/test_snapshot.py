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
from models.snapshot import (
    counters_until_us,
    load_counters,
    load_sessions,
    save_counters,
    save_sessions,
    sessions_until_us,
)
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
    assert sessions_until_us(tmp_path / "s") == until_us
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


def test_counters_until__without_reading_the_tables(tmp_path: Path) -> None:
    """Counters of any format say until when they were fed; what does not say it is refused, with what was found."""
    folder, store = tmp_path / "counters", CounterStore()
    save_counters(folder, store)
    assert counters_until_us(folder) == -1
    store.update(chain_log(sessions=20))
    save_counters(folder, store)
    assert counters_until_us(folder) == store.time_us
    manifest = json.loads((folder / "artefact.json").read_text(encoding="utf-8"))
    (folder / "cells.arrow").unlink()
    for told in (7, "soon"):
        changed = manifest | {"format": 1, "state": {"time_us": told}}
        (folder / "artefact.json").write_text(json.dumps(changed), encoding="utf-8")
        if told == 7:
            assert counters_until_us(folder) == 7
    with pytest.raises(ArtefactError, match="does not say until when it knows the world: its 'time_us' is 'soon'"):
        counters_until_us(folder)
    with pytest.raises(ArtefactError, match="holds a model of kind 'counters', but kind 'sessions' was asked for"):
        sessions_until_us(folder)
