"""Memory of the counter store at scale: peak resident size over a stream of many contents and locations.

    python -m benchmarks.counter_memory [--requests 20000000] [--contents 1000000] [--locations 1000] [--json]

Contents and locations are Zipf-distributed, a location's taste is its own: half of its requests follow a catalogue
order shuffled for it, so that active (content, location) pairs are as many as in a large network. Sessions are short
walks of one location. The stream is made and fed in pieces; only the store and one piece are held.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from models.counters import CounterStore
from models.events import DAY_US, Float64, Int64, RequestLog

PIECE = 500_000
MEAN_SESSION = 3
OPEN_SESSIONS = 2_000


def zipf_cumulative(n: int, exponent: float) -> Float64:
    weight = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    cumulative: Float64 = np.cumsum(weight) / weight.sum()
    return cumulative


def sessions_of(first: int, n: int, rng: np.random.Generator) -> Int64:
    """Session numbers of n requests: each belongs to one of many sessions under way, which end after a few."""
    slot = rng.integers(0, OPEN_SESSIONS, n)
    order = np.argsort(slot, kind="stable")
    begins = np.cumsum(rng.random(n) < 1 / MEAN_SESSION)
    number = np.empty(n, dtype=np.int64)
    number[order] = begins + slot[order]  # within a slot requests come in time order, so numbers rise there
    return first + number


def pieces(requests: int, contents: int, locations: int, days: float) -> Iterator[RequestLog]:
    """The stream in pieces that share one vocabulary, in order of appearance."""
    rng = np.random.default_rng(0)
    of_content, of_location = zipf_cumulative(contents, 0.8), zipf_cumulative(locations, 0.8)
    code_of, known = np.full(contents, -1, dtype=np.int32), 0
    ids = np.empty(contents, dtype=object)
    places = np.array([f"l{k}" for k in range(locations)], dtype=object)
    sessions = 0
    for first in range(0, requests, PIECE):
        n = min(PIECE, requests - first)
        ts_us = ((first + np.arange(n)) * (days * DAY_US / requests)).astype(np.int64)
        session = sessions_of(sessions, n, rng)
        sessions = int(session.max()) + 1
        location = np.searchsorted(of_location, _hashed(session), side="right").astype(np.int32)
        drawn = np.searchsorted(of_content, rng.random(n), side="right")
        own = rng.random(n) < 0.5
        drawn = np.where(own, (drawn + location.astype(np.int64) * 7919) % contents, drawn)
        new = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        new = new[code_of[new] < 0]
        code_of[new] = known + np.arange(len(new), dtype=np.int32)
        ids[known : known + len(new)] = [f"content-{k}" for k in new]
        known += len(new)
        yield RequestLog(ts_us, session.astype(np.int32), code_of[drawn], location, ids[:known], places)


def _hashed(session: Int64) -> Float64:
    """A number in [0, 1) that is the same for all requests of a session."""
    mixed = (session.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    return mixed.astype(np.float64) / 2.0**53


def resident_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def parts_mb(store: CounterStore) -> dict[str, float]:
    """Bytes reserved by each part of a store."""
    p, w = store.popularity, store.walks
    tables: dict[str, Any] = {
        "cells": (p.cell, p.cell_first_us, p.cell_leaders.table, w.occupancy, p.index.table),
        "contents": (p.content, p.content_first_us, p.appeared_us, p.content_leaders.table, w.visits),
        "cell_hours": (p.hours.cell_counts, p.hours.index.table),
        "moves": w.moves.table,
        "contexts": (w.contexts.table, w.context_moves.table),
        "local_moves": w.local_moves.table,
        "skips": w.skips.table,
        "sessions": w.sessions.table,
    }
    return {name: _bytes(table) / 1e6 for name, table in tables.items()}


def _bytes(table: Any) -> int:
    return table.nbytes if isinstance(table, np.ndarray) else sum(_bytes(part) for part in table)


def measure(requests: int, contents: int, locations: int, days: float) -> dict[str, Any]:
    CounterStore().update(next(pieces(1000, 100, 10, 1.0)))  # compiles
    store, before, most_cells = CounterStore(), resident_gb(), 0
    seconds, dearest = 0.0, 0.0
    for piece in pieces(requests, contents, locations, days):
        started = time.process_time()
        store.update(piece)
        spent = time.process_time() - started
        seconds, dearest = seconds + spent, max(dearest, spent)
        most_cells = max(most_cells, len(store.popularity.index))
    return {
        "requests": requests,
        "days": days,
        "contents": len(store.contents),
        "locations": len(store.locations),
        "most_cells": most_cells,
        "cells_at_end": len(store.popularity.index),
        "contexts_at_end": len(store.walks.contexts),
        "moves_at_end": int(store.walks.moves.table.length.sum(dtype=np.int64)),
        "microseconds_per_request": seconds / requests * 1e6,
        "longest_piece_seconds": dearest,
        "peak_gb_before": before,
        "peak_gb": resident_gb(),
    } | {f"{name}_mb": size for name, size in parts_mb(store).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000_000)
    parser.add_argument("--contents", type=int, default=1_000_000)
    parser.add_argument("--locations", type=int, default=1_000)
    parser.add_argument("--days", type=float, default=10.0, help="how long the stream lasts")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args()
    result = measure(chosen.requests, chosen.contents, chosen.locations, chosen.days)
    if chosen.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        for name, value in result.items():
            sys.stdout.write(f"{name:30} {value:.4g}\n" if isinstance(value, float) else f"{name:30} {value}\n")


if __name__ == "__main__":
    main()
