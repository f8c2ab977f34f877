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

FORMAT = 1
TABLES = ("store", "contents", "locations", "cells", "cell_hours", "sessions", "moves", "contexts", "context_moves")


def store_tables(store: CounterStore) -> dict[str, pa.Table]:
    """Everything that a store knows, as tables named in `TABLES`."""
    return _popularity_tables(store) | _walk_tables(store)


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
        ),
        "contents": _table(
            content=pa.array(store.contents, type=pa.string()),
            first_us=p.content_first_us[:n_contents],
            count=_lists(p.content[:n_contents]),
            visits=_lists(w.visits[:n_contents]),
            left=_lists(w.moves.table.total[:n_contents]),
        ),
        "locations": _table(
            location=pa.array(store.locations, type=pa.string()),
            first_us=p.location_first_us[:n_locations],
            count=_lists(p.location[:n_locations]),
            hours=_lists(p.hours.location_counts[:n_locations]),
        ),
        "cells": _table(
            content=p.cell_content,
            location=p.cell_location,
            first_us=p.cell_first_us[:n_cells],
            count=_lists(p.cell[:n_cells]),
            presence=w.occupancy[:n_cells],
        ),
        "cell_hours": _table(hour=hour_keys >> 32, cell=hour_keys & 0x7FFFFFFF, count=hour_counts),
    }


def _walk_tables(store: CounterStore) -> dict[str, pa.Table]:
    w = store.walks
    rows = w.sessions.rows_since(store.time_us - w.rates.timeout_us)
    previous, item, weight = w.moves.entries()
    context, context_item, context_weight = w.context_moves.entries()
    return {
        "sessions": _table(
            session=w.sessions.index.keys[rows],
            last=w.sessions.last[rows],
            before=w.sessions.before[rows],
            cell=w.sessions.cell[rows],
            last_us=w.sessions.last_us[rows],
        ),
        "moves": _table(previous=previous, content=item, weight=_lists(weight)),
        "contexts": _table(context=w.contexts.keys, left=_lists(w.context_moves.table.total[: len(w.contexts)])),
        "context_moves": _table(context=context, content=context_item, weight=_lists(context_weight)),
    }


def read_settings(tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Settings of a saved store, after checking that this program can read it."""
    missing = [name for name in TABLES if name not in tables]
    if missing:
        raise ArtefactError(f"The saved counters lack the tables {missing!r}; save them again.")
    found = tables["store"]["format"][0].as_py()
    if found != FORMAT:
        raise ArtefactError(
            f"The saved counters have format {found!r}, but this version reads format {FORMAT}. "
            "Build the counters anew from the request log, or use the version that saved them."
        )
    settings = json.loads(tables["store"]["settings"][0].as_py())
    return {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}


def fill_store(store: CounterStore, tables: Mapping[str, pa.Table]) -> None:
    """Puts saved tables into a new store with the same settings."""
    head = tables["store"]
    store.time_us, store.base_us = head["time_us"][0].as_py(), head["base_us"][0].as_py()
    store.content_ids = Vocabulary(_column(tables["contents"], "content").astype(object))
    store.location_ids = Vocabulary(_column(tables["locations"], "location").astype(object))
    _fill_popularity(store, tables)
    _fill_walks(store, tables)


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
    p.hours.newest[:] = _column(tables["store"], "newest_hour")
    hours = tables["cell_hours"]
    p.hours.fill_cells(pair_keys(_column(hours, "hour"), _column(hours, "cell")), _column(hours, "count"))
    p.rebuild_leaders()


def _fill_walks(store: CounterStore, tables: Mapping[str, pa.Table]) -> None:
    w, contents, cells = store.walks, tables["contents"], tables["cells"]
    w.reserve(contents=len(contents), cells=len(cells))
    w.visits[: len(contents)] = _matrix(contents, "visits")
    w.occupancy[: len(cells)] = _column(cells, "presence")
    moves, context_moves = tables["moves"], tables["context_moves"]
    w.moves.fill(
        _column(moves, "previous"), _column(moves, "content"), _matrix(moves, "weight"), _matrix(contents, "left")
    )
    w.contexts = KeyIndex(_column(tables["contexts"], "context"))
    w.reserve_contexts(0)
    w.context_moves.fill(
        _column(context_moves, "context"),
        _column(context_moves, "content"),
        _matrix(context_moves, "weight"),
        _matrix(tables["contexts"], "left"),
    )
    sessions = tables["sessions"]
    w.sessions.fill(*(_column(sessions, name) for name in ("session", "last", "before", "cell", "last_us")))


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
