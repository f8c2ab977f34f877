"""A counter store as Arrow tables and back; a store that was resumed goes on exactly as one that never stopped.

Counts stay inflated, in units of the base instant that the table `store` names, so that loading copies arrays and
computes nothing. Successor lists keep their order, because order decides ties at the next eviction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import ArtefactError
from models.keys import KeyIndex, pair_keys
from models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from models.counters import CounterStore

FORMAT = 2
TABLES = ("store", "contents", "kinds", "locations", "cells", "cell_hours", "sessions", "contexts")
AUDIENCES = ("audience_devices", "audience_arrivals", "audiences", "audience_cells", "audience_sessions")
LISTS = ("moves", "context_moves", "local_moves", "skips")
"""Successor lists, in the order of `Walks.lists`. Their rows are contents, `contexts`, `cells` and contents."""


def store_tables(store: CounterStore) -> dict[str, pa.Table]:
    """Everything that a store knows, as tables named in `TABLES`, `AUDIENCES` and `LISTS`."""
    audiences = store.audiences.state(before_us=store.time_us - store.timeout_us)
    shown = {name: _table(**columns) for name, columns in audiences.items()}
    return _popularity_tables(store) | _walk_tables(store) | shown


def _popularity_tables(store: CounterStore) -> dict[str, pa.Table]:
    p, w = store.popularity, store.walks
    n_contents, n_locations, n_cells = len(store.contents), len(store.locations), len(p.index)
    hour_keys, hour_counts = p.hours.cell_entries()
    return {
        "store": _table(
            format=[FORMAT],
            settings=[json.dumps(asdict(store.settings), sort_keys=True)],
            time_us=[store.time_us],
            base_us=[store.base_us],
            newest_hour=p.hours.newest,
            total=_lists(p.total[None]),
            gaps=pa.array([np.array(store.gaps, dtype=np.int64).ravel()], type=pa.list_(pa.int64())),
        ),
        "contents": _table(
            content=pa.array(store.contents, type=pa.string()),
            kind=store.kinds,
            first_us=p.content_first_us[:n_contents],
            appeared_us=p.appeared_us[:n_contents],
            count=_lists(p.content[:n_contents]),
            visits=_lists(w.visits[:n_contents]),
            moves_escaped=_lists(w.moves.table.escaped[:n_contents]),
            skips_escaped=_lists(w.skips.table.escaped[:n_contents]),
        ),
        "kinds": _table(kind=pa.array(store.kind_ids.ids, type=pa.string())),
        "locations": _table(
            location=pa.array(store.locations, type=pa.string()),
            first_us=p.location_first_us[:n_locations],
            count=_lists(p.location[:n_locations]),
            hours=_lists(p.hours.location_counts[:n_locations]),
            peaks=_lists(p.hours.location_peaks[:n_locations]),
        ),
        "cells": _table(
            content=p.cell_content,
            location=p.cell_location,
            first_us=p.cell_first_us[:n_cells],
            count=_lists(p.cell[:n_cells]),
            presence=w.occupancy[:n_cells],
            local_moves_escaped=_lists(w.local_moves.table.escaped[:n_cells]),
        ),
        "cell_hours": _table(hour=hour_keys >> 32, cell=hour_keys & 0x7FFFFFFF, count=hour_counts),
    }


def _walk_tables(store: CounterStore) -> dict[str, pa.Table]:
    w = store.walks
    rows = w.sessions.rows_since(store.time_us - w.rates.timeout_us)
    rows = rows[np.argsort(w.sessions.index.keys[rows])]
    escaped = w.context_moves.table.escaped[: len(w.contexts)]
    tables = {
        "sessions": _table(
            session=w.sessions.index.keys[rows],
            items=_lists(w.sessions.items[rows]),
            cell=w.sessions.cell[rows],
            last_us=w.sessions.last_us[rows],
        ),
        "contexts": _table(context=w.contexts.keys, context_moves_escaped=_lists(escaped)),
    }
    for name, (lists, _) in zip(LISTS, w.lists, strict=True):
        row, item, weight = lists.entries()
        tables[name] = _table(row=row.astype(np.int32), content=item, weight=_lists(weight))
    return tables


def read_settings(tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Settings of a saved store, after checking that this program can read it."""
    found = tables["store"]["format"][0].as_py() if "store" in tables else FORMAT
    if found != FORMAT:
        raise ArtefactError(
            f"The saved counters have format {found!r}, but this version reads format {FORMAT}. "
            "Build the counters anew from the request log, or use the version that saved them."
        )
    missing = [name for name in (*TABLES, *AUDIENCES, *LISTS) if name not in tables]
    if missing:
        raise ArtefactError(f"The saved counters lack the tables {missing!r}; save them again.")
    settings = json.loads(tables["store"]["settings"][0].as_py())
    return {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}


def fill_store(store: CounterStore, tables: Mapping[str, pa.Table]) -> None:
    """Puts saved tables into a new store with the same settings."""
    head = tables["store"]
    store.time_us, store.base_us = head["time_us"][0].as_py(), head["base_us"][0].as_py()
    store.content_ids = Vocabulary(_column(tables["contents"], "content").astype(object))
    store.location_ids = Vocabulary(_column(tables["locations"], "location").astype(object))
    store.kind_ids = Vocabulary(_column(tables["kinds"], "kind").astype(object))
    store.kinds = _column(tables["contents"], "kind")
    if "gaps" in head.column_names:  # counters saved before gaps were known have none
        edges = head["gaps"][0].as_py()
        store.gaps = tuple(zip(edges[::2], edges[1::2], strict=True))
    _fill_popularity(store, tables)
    _fill_walks(store, tables)
    columns = {name: {c: _column(tables[name], c) for c in tables[name].column_names} for name in AUDIENCES}
    store.audiences.fill(columns)


def _fill_popularity(store: CounterStore, tables: Mapping[str, pa.Table]) -> None:
    p, cells = store.popularity, tables["cells"]
    contents, locations = tables["contents"], tables["locations"]
    p.reserve(contents=len(contents), locations=len(locations))
    p.add_cells(pair_keys(_column(cells, "content"), _column(cells, "location")))
    p.total[:] = _matrix(tables["store"], "total")[0]
    for table, counts, first_us in (
        (contents, p.content, p.content_first_us),
        (locations, p.location, p.location_first_us),
        (cells, p.cell, p.cell_first_us),
    ):
        counts[: len(table)] = _matrix(table, "count")
        first_us[: len(table)] = _column(table, "first_us")
    p.hours.location_counts[: len(locations)] = _matrix(locations, "hours")
    if "peaks" in locations.column_names:
        p.hours.location_peaks[: len(locations)] = _matrix(locations, "peaks")
    p.hours.newest[:] = _column(tables["store"], "newest_hour")
    hours = tables["cell_hours"]
    p.hours.fill_cells(pair_keys(_column(hours, "hour"), _column(hours, "cell")), _column(hours, "count"))
    p.appeared_us[: len(contents)] = _column(contents, "appeared_us")
    p.note_newest(np.arange(len(contents)))
    p.rebuild_leaders()


def _fill_walks(store: CounterStore, tables: Mapping[str, pa.Table]) -> None:
    w, contents, cells = store.walks, tables["contents"], tables["cells"]
    w.reserve(contents=len(store.popularity.content), cells=store.popularity.index.capacity)
    w.visits[: len(contents)] = _matrix(contents, "visits")
    w.occupancy[: len(cells)] = _column(cells, "presence")
    w.contexts = KeyIndex(_column(tables["contexts"], "context"))
    w.reserve_contexts(0)
    rows_of = (contents, tables["contexts"], cells, contents)
    for name, (lists, _), rows in zip(LISTS, w.lists, rows_of, strict=True):
        table, escaped = tables[name], _matrix(rows, f"{name}_escaped")
        lists.fill(_column(table, "row"), _column(table, "content"), _matrix(table, "weight"), escaped)
    sessions = tables["sessions"]
    columns = (_column(sessions, name) for name in ("cell", "last_us"))
    w.sessions.fill(_column(sessions, "session"), _matrix(sessions, "items"), *columns)


def _table(**columns: Any) -> pa.Table:
    return pa.table(columns)


def _lists(rows: npt.NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])


def _matrix(table: pa.Table, name: str) -> npt.NDArray[Any]:
    chunks: list[Any] = table[name].chunks
    width = table.schema.field(name).type.list_size
    rows = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in chunks]
    return np.concatenate(rows) if rows else np.zeros((0, width))


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    # Arrow's buffers are read-only, and the counters go on counting in these arrays.
    values: npt.NDArray[Any] = table[name].to_numpy().copy()
    return values
