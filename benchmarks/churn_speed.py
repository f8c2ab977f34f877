"""What one churn forecast of a large fleet costs: outages, statistics of every node, then both heads.

    python -m benchmarks.churn_speed [--nodes 1000000] [--threads 2] [--repeat 1] [--json]

The fleet is made up: nodes with a few sessions each over three weeks, half of them up, in networks of about fifty. The
model has networks and trees in both heads, as many and as large as the settings allow, but is trained briefly on a small
fleet and its trees are repeated: what a forecast costs does not depend on how well it was learned. Beside it stands the
life table, the peer that needs no learning.

Seconds are wall time, best of the repetitions, on a history whose outages are marked, as histories are once they are
read; what marking takes stands beside, and `whole_seconds` is both. The machine should be otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from models.churn.features import node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.learned import LearnedHazard
from models.churn.outages import with_outages
from models.churn.settings import ChurnSettings
from models.churn.training import fit_parts
from models.events import DAY_US, HOUR_US
from models.trees import Trees

DAYS = 21
TRAINED_NODES = 1_000
FITTED_TREES = 16
T = TypeVar("T")


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


def model_of_full_size() -> ChurnForecaster:
    """Both heads blended, with as many trees as a training may keep; fitted on few rows, which takes seconds."""
    settings = ChurnSettings(
        epochs=1,
        maximum_origins=8,
        maximum_rows=4_000,
        boosting_iterations=FITTED_TREES,
        boosting_learning_rate=0.01,  # so slow that validation keeps every tree
        boosting_least_rows=20,
    )
    parts = fit_parts(
        fleet(TRAINED_NODES, seed=1),
        train=(4 * DAY_US, 14 * DAY_US),
        validation=(14 * DAY_US, 18 * DAY_US),
        settings=settings,
        seed=0,
    )
    leaving, returning = (
        full_size(head, ChurnSettings().boosting_iterations) for head in (parts.learned, parts.returns)
    )
    return replace(parts, learned=leaving, returns=returning).model()


def full_size(head: LearnedHazard | None, trees: int) -> LearnedHazard:
    """The head with its trees repeated until there are so many, and half of its weight on them."""
    assert head is not None
    assert head.boosting is not None
    few = head.boosting.trees
    times, nodes = -(-trees // len(few.root)), len(few.left)
    shift = np.repeat(np.arange(times) * nodes, nodes)
    left, right = (np.tile(child, times) for child in (few.left, few.right))
    many = Trees(
        root=(few.root + nodes * np.arange(times)[:, None]).ravel(),
        feature=np.tile(few.feature, times),
        threshold=np.tile(few.threshold, times),
        left=np.where(left < 0, left, left + shift),
        right=np.where(left < 0, right, right + shift),
        value=np.tile(few.value / times, times),
        base=few.base,
    )
    boosting = replace(head.boosting, trees=many.between(0, trees))
    return replace(head, boosting=boosting, network_weight=0.5)


def timed(what: str, action: Callable[[], T], repetitions: int) -> tuple[float, T]:
    """Least wall seconds of the repetitions, and the last answer; says on standard error what it does."""
    least = math.inf
    for _ in range(repetitions):
        started, cpu = time.perf_counter(), time.process_time()
        answer = action()
        seconds = time.perf_counter() - started
        print(f"{what}: {seconds:.2f} s, {time.process_time() - cpu:.2f} s of processors", file=sys.stderr)
        least = min(least, seconds)
    return least, answer


def run(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    at_us, threads, repeat = 19 * DAY_US, options.threads, options.repeat
    _, model = timed("training on a small fleet", model_of_full_size, 1)
    table, settings = model.fallback(), model.settings
    for method in (model, table):  # compiles
        method.forecast(fleet(TRAINED_NODES, seed=2), at_us=at_us, threads=threads)
    _, raw = timed("the fleet", lambda: fleet(options.nodes, seed=0), 1)
    marking, history = timed("outages", lambda: with_outages(raw, threads=threads), repeat)
    statistics, features = timed(
        "statistics",
        lambda: node_features(history, at_us=at_us, population=model.population, settings=settings, threads=threads),
        repeat,
    )
    del features
    seconds, _ = timed("forecast", lambda: model.forecast(history, at_us=at_us, threads=threads), repeat)
    table_seconds, _ = timed("life table", lambda: table.forecast(history, at_us=at_us, threads=threads), repeat)
    whole, cells = marking + seconds, len(history) * len(settings.edges_hours)
    heads = [head for head in (model.learned, model.returns) if head is not None]
    return {
        "nodes": len(history),
        "sessions": len(history.start_us),
        "edges": len(settings.edges_hours),
        "threads": threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": os.getloadavg()[0],
        "networks": [0 if head.ensemble is None else len(head.ensemble.networks) for head in heads],
        "trees": [0 if head.boosting is None else len(head.boosting.trees.root) for head in heads],
        "outages_seconds": marking,
        "statistics_seconds": statistics,
        "forecast_seconds": seconds,
        "whole_seconds": whole,
        "life_table_seconds": table_seconds,
        "forecast_over_life_table": seconds / table_seconds,
        "microseconds_per_node_and_edge": whole / cells * 1e6,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    result = run(options := parser.parse_args())
    if options.json:
        json.dump(result, sys.stdout)
        return
    for key, value in result.items():
        print(f"{key:32} {value}")


if __name__ == "__main__":
    main()
