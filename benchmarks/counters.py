"""Counter store: microseconds per request, memory, flow, saving; beside the dictionaries that one would write first.

    python benchmarks/counters.py [--requests 2400000] [--json]

Reads real clicks where ../shared/data beside the repository (or PREMIRROR_REAL_DATA) holds them, random walks otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.counters import CounterStore
from models.events import HOUR_US, RequestLog

SAMPLE = 100_000


def clicks() -> RequestLog | None:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    path = Path(os.environ.get("PREMIRROR_REAL_DATA", beside)) / "news_clicks" / "requests.parquet"
    if not path.exists():
        return None
    table = pq.read_table(path, columns=["ts", "session", "content", "location"]).sort_by("ts")
    ids = [np.asarray(table[name].to_pylist(), dtype=object) for name in ("session", "content", "location")]
    return RequestLog.from_columns(table["ts"].cast(pa.int64()).to_numpy(), *ids)


def walks(n: int) -> RequestLog:
    """Zipf-like contents in a stream of about 30 requests a second."""
    rng = np.random.default_rng(0)
    ts_us = np.cumsum(rng.integers(0, 66_000, n))
    content = np.minimum(rng.zipf(1.3, n), 40_000)
    return RequestLog.from_columns(
        ts_us, rng.integers(0, n // 3 + 1, n), content.astype(str), rng.integers(0, 30, n).astype(str)
    )


def dictionaries(log: RequestLog, half_lives_hours: tuple[float, ...]) -> None:
    """The same decayed counts of contents, cells, locations and transitions, kept in dictionaries."""
    counts: dict[Any, list[float]] = defaultdict(lambda: [0.0] * len(half_lives_hours))
    seen: dict[Any, int] = {}
    last: dict[int, int] = {}
    columns = (column.tolist() for column in (log.ts_us, log.session, log.content, log.location))
    for ts, session, content, location in zip(*columns, strict=True):
        for key in (content, (content, location), ("location", location), ("move", last.get(session), content)):
            passed = (ts - seen.get(key, ts)) / HOUR_US
            counts[key] = [c * 2.0 ** (-passed / h) + 1.0 for c, h in zip(counts[key], half_lives_hours, strict=True)]
            seen[key] = ts
        last[session] = content


def every(log: RequestLog, n: int) -> RequestLog:
    """Every n-th request, over all days."""
    rows = log.ts_us[::n], log.session[::n], log.content[::n], log.location[::n]
    return RequestLog(*rows, log.contents, log.locations)


def cpu_seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(log: RequestLog) -> dict[str, Any]:
    CounterStore().update(every(log, 1000))  # compiles, forgetting included
    store = CounterStore()
    seconds = cpu_seconds(lambda: store.update(log))
    content, location = store.cells(minimum_weight=0.0)
    store.flow(content, location, store.time_us)
    flow = cpu_seconds(lambda: store.flow(content, location, store.time_us))
    tables: dict[str, pa.Table] = {}
    saving = cpu_seconds(lambda: tables.update(store.to_arrow()))
    loading = cpu_seconds(lambda: CounterStore.from_arrow(tables))
    sample = log.before(int(log.ts_us[min(SAMPLE, len(log) - 1)]))
    naive = cpu_seconds(lambda: dictionaries(sample, store.settings.half_lives_hours)) / len(sample)
    return {
        "requests": len(log),
        "contents": len(store.contents),
        "locations": len(store.locations),
        "cells": len(content),
        "microseconds_per_request": seconds / len(log) * 1e6,
        "requests_per_second": len(log) / seconds,
        "dictionaries_microseconds_per_request": naive * 1e6,
        "times_faster_than_dictionaries": naive / (seconds / len(log)),
        "snapshot_mb": sum(table.nbytes for table in tables.values()) / 1e6,
        "flow_seconds": flow,
        "save_seconds": saving,
        "load_seconds": loading,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_400_000, help="at most this many requests")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args()
    log = clicks()
    source = "real clicks" if log is not None else "random walks"
    log = walks(chosen.requests) if log is None else log
    if len(log) > chosen.requests:
        log = log.before(int(log.ts_us[chosen.requests]))
    result = {"source": source} | measure(log)
    if chosen.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        for name, value in result.items():
            sys.stdout.write(f"{name:40} {value:.4g}\n" if isinstance(value, float) else f"{name:40} {value}\n")


if __name__ == "__main__":
    main()
