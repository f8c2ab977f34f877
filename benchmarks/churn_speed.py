"""What one churn forecast of a large fleet costs: statistics of every node, then both heads.

    python -m benchmarks.churn_speed [--nodes 1000000] [--threads 2] [--json]

The fleet is made up: nodes with a few sessions each over three weeks, half of them up, in networks of about fifty. The
model has the default size and both parts, and is trained briefly on a small fleet: what a forecast costs does not
depend on how well it was learned. Beside it stands the life table, the peer that needs
no learning. Seconds are wall time, best of the repetitions; the machine should be otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from models.churn.features import node_features
from models.churn.history import SessionHistory
from models.churn.settings import ChurnSettings
from models.churn.training import fit_parts
from models.events import DAY_US, HOUR_US

DAYS = 21
TRAINED_NODES = 2_000
INSTANT = pa.timestamp("us", tz="UTC")


def fleet(nodes: int, seed: int) -> SessionHistory:
    """Alternating gamma-distributed times up and down, five sessions a node on average, straight from arrays."""
    rng = np.random.default_rng(seed)
    most = 16
    mean_up = rng.choice([8.0, 40.0, 90.0], nodes)
    spans = rng.gamma(0.7, 1.0, (nodes, 2 * most)) / 0.7
    spans[:, 0::2] *= rng.exponential(40.0, nodes)[:, None]
    spans[:, 1::2] *= mean_up[:, None]
    instants = (np.cumsum(spans, axis=1) * HOUR_US).astype(np.int64)
    start, end = instants[:, 0::2], instants[:, 1::2]
    cut = DAYS * DAY_US
    kept = start < cut
    censored = end >= cut
    counts = kept.sum(axis=1)
    names = np.array([f"node-{i}" for i in range(nodes)], dtype=object)
    end = np.minimum(end, cut)[kept]
    return SessionHistory(
        names,
        rng.choice(np.array(["home", "phone", "laptop"], dtype=object), nodes),
        np.array([f"as{i}" for i in range(nodes // 50 + 1)], dtype=object)[rng.integers(0, nodes // 50 + 1, nodes)],
        np.array([f"city{i}" for i in range(200)], dtype=object)[rng.integers(0, 200, nodes)],
        np.zeros(nodes, dtype=np.int64),
        np.full(nodes, np.iinfo(np.int64).max),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        start[kept],
        end,
        end,
        censored[kept],
    )


def best_seconds(action: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def run(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    small = fleet(TRAINED_NODES, seed=1)
    settings = ChurnSettings(epochs=1, maximum_origins=16, maximum_rows=20_000)
    parts = fit_parts(
        small, train=(4 * DAY_US, 14 * DAY_US), validation=(14 * DAY_US, 18 * DAY_US), settings=settings, seed=0
    )
    model = parts.model(network_weight=0.5)
    at_us = 19 * DAY_US
    model.forecast(small, at_us=at_us)  # compiles
    history = fleet(options.nodes, seed=0)
    statistics = best_seconds(
        lambda: node_features(
            history, at_us=at_us, population=model.population, settings=settings, threads=options.threads
        ),
        options.repeat,
    )
    seconds = best_seconds(lambda: model.forecast(history, at_us=at_us, threads=options.threads), options.repeat)
    table = best_seconds(
        lambda: model.fallback().forecast(history, at_us=at_us, threads=options.threads), options.repeat
    )
    cells = len(history) * len(settings.edges_hours)
    assert model.learned is not None
    return {
        "nodes": len(history),
        "sessions": len(history.start_us),
        "edges": len(settings.edges_hours),
        "threads": options.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "network_weight": model.learned.network_weight,
        "trees": 0 if model.learned.boosting is None else len(model.learned.boosting.trees.root),
        "statistics_seconds": statistics,
        "forecast_seconds": seconds,
        "life_table_seconds": table,
        "forecast_over_life_table": seconds / table,
        "microseconds_per_node_and_edge": seconds / cells * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    result = run(options := parser.parse_args())
    if options.json:
        json.dump(result, sys.stdout)
        return
    for key, value in result.items():
        print(f"{key:32} {value}")


if __name__ == "__main__":
    main()
