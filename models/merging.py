"""Adding up two counter stores: counters shard by session, and the shards sum to the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.events import HOUR_US, Float64, Int32, Int64
from models.keys import pair_keys
from models.open_sessions import OpenSessions
from models.successors import SuccessorLists, beyond_cap, merged_entries
from models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from models.counters import CounterStore


def absorb(store: CounterStore, other: CounterStore) -> None:
    """Adds `other` to `store`, in place; both are first expressed at one base instant.

    Raises:
        ValueError: the settings differ, or a session is under way in both stores.
    """
    if store.settings != other.settings:
        raise ValueError(f"Settings must agree to merge counters, got {store.settings!r} and {other.settings!r}.")
    time_us = max(store.time_us, other.time_us)
    _check_sessions(store, other)
    base_us = max(store.base_us, other.base_us)
    store.rebase(base_us)
    content_of = _adopt(store.content_ids, other.content_ids)
    location_of = _adopt(store.location_ids, other.location_ids)
    hours = (base_us - other.base_us) / HOUR_US
    cell_of = _absorb_popularity(store, other, content_of, location_of, hours)
    _absorb_walks(store, other, content_of, cell_of, hours)
    store.audiences.merge(other.audiences, content_of=content_of, hours=hours)
    _absorb_kinds(store, other, content_of)
    store.time_us = time_us
    # Requests of a window are incomplete where one part was not observed.
    store.learn_gaps(other.gaps)


def _absorb_kinds(store: CounterStore, other: CounterStore, content_of: Int64) -> None:
    kinds = np.full(len(store.content_ids), -1, dtype=np.int32)
    kinds[content_of] = np.append(_adopt(store.kind_ids, other.kind_ids), -1)[other.kinds]
    known = store.kinds >= 0
    kinds[: len(known)][known] = store.kinds[known]
    store.kinds = kinds


def _adopt(mine: Vocabulary, theirs: Vocabulary) -> Int64:
    """Codes here for all codes there."""
    return mine.recode(np.arange(len(theirs), dtype=np.int32), theirs.ids).astype(np.int64)


def _check_sessions(store: CounterStore, other: CounterStore) -> None:
    both = np.intersect1d(store.walks.sessions.index.keys, other.walks.sessions.index.keys)
    if len(both):
        raise ValueError(
            f"Session codes {both[:5].tolist()!r} occur in both stores ({len(both)} in all). Split logs by "
            "session before counting, and number sessions alike in all parts."
        )


def _absorb_popularity(
    store: CounterStore, other: CounterStore, content_of: Int64, location_of: Int64, hours: float
) -> Int64:
    p, q = store.popularity, other.popularity
    p.reserve(contents=len(store.content_ids), locations=len(store.location_ids))
    cell_of = p.add_cells(pair_keys(content_of[q.cell_content], location_of[q.cell_location]))
    factors = 2.0 ** (-hours * p.per_hour)
    p.total += q.total * factors
    for mine, theirs, rows in (
        (p.content, q.content, content_of),
        (p.location, q.location, location_of),
        (p.cell, q.cell, cell_of),
    ):
        mine[rows] += theirs[: len(rows)] * factors
    for first, other_first, rows in (
        (p.content_first_us, q.content_first_us, content_of),
        (p.appeared_us, q.appeared_us, content_of),
        (p.location_first_us, q.location_first_us, location_of),
        (p.cell_first_us, q.cell_first_us, cell_of),
    ):
        first[rows] = np.minimum(first[rows], other_first[: len(rows)])
    p.newest = p.newest[:0]
    p.note_newest(np.arange(len(store.content_ids)))
    p.hours.absorb(q.hours, location_of=location_of, cell_of=cell_of)
    p.rebuild_leaders()
    return cell_of


def _absorb_walks(store: CounterStore, other: CounterStore, content_of: Int64, cell_of: Int64, hours: float) -> None:
    w, v = store.walks, other.walks
    w.reserve(contents=len(store.popularity.content), cells=store.popularity.index.capacity)
    w.visits[content_of] += v.visits[: len(content_of)] * 2.0 ** (-hours * w.rates.per_hour)
    w.occupancy[cell_of] += v.occupancy[: len(cell_of)] * 2.0 ** (-hours * w.rates.active_per_hour)
    keys = v.contexts.keys
    contexts = pair_keys(content_of[keys >> 32], content_of[keys & 0x7FFFFFFF])
    w.reserve_contexts(len(contexts))
    rows_of = (content_of, w.contexts.add(contexts), cell_of, content_of)
    for (mine, per_hour), (theirs, _), row_of in zip(w.lists, v.lists, rows_of, strict=True):
        _absorb_lists(mine, theirs, row_of, content_of, 2.0 ** (-hours * per_hour))
    _absorb_sessions(w.sessions, v.sessions, content_of, cell_of)


def _absorb_sessions(mine: OpenSessions, theirs: OpenSessions, content_of: Int64, cell_of: Int64) -> None:
    n, m = len(theirs.index), len(mine.index)
    mine.fill(
        np.concatenate([mine.index.keys, theirs.index.keys]),
        np.concatenate([mine.items[:m], _codes(content_of, theirs.items[:n])]),
        np.concatenate([mine.cell[:m], _codes(cell_of, theirs.cell[:n])]),
        np.concatenate([mine.last_us[:m], theirs.last_us[:n]]),
    )


def _codes(code_of: Int64, codes: Int32) -> Int32:
    """Codes here; -1 stays -1."""
    return np.append(code_of, -1)[codes].astype(np.int32)


def _absorb_lists(
    mine: SuccessorLists, theirs: SuccessorLists, row_of: Int64, content_of: Int64, factors: Float64
) -> None:
    row, item, weight = mine.entries()
    row2, item2, weight2 = theirs.entries()
    escaped = mine.table.escaped.astype(np.float64)
    escaped[row_of] += theirs.table.escaped[: len(row_of)] * factors
    rows, items, weights = merged_entries(
        np.concatenate([row, row_of[row2]]),
        np.concatenate([item, content_of[item2].astype(np.int32)]),
        np.concatenate([weight, weight2 * factors]),
    )
    beyond = beyond_cap(rows, mine.cap)
    np.add.at(escaped, rows[beyond], weights[beyond])
    mine.fill(rows[~beyond], items[~beyond], weights[~beyond], escaped)
