"""Cost of the hourly demand refresh by size: seconds of each part, and peak memory with the counters it reads.

    python -m benchmarks.demand_refresh [--pairs 1000000 3000000 10000000] [--threads 1 2] [--hidden 96 96] [--json]

Each size runs in a process of its own: a synthetic stream (see `benchmarks.counter_memory`) of one content for every ten
pairs is fed until that many pairs (content, location) are active, and all of them are forecast by a prior, networks
and trees of the size that training makes. Weights are drawn at random, because the cost does not depend on their values
as long as none is zero. Parts are timed on one thread, in processor seconds for one horizon; whole refreshes also by the
clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.counter_memory import pieces, resident_gb
from models.blocks import blocks
from models.counters import CounterStore
from models.demand.cells import CellObserver, CellState
from models.demand.features import base_feature_names
from models.demand.forecaster import DemandForecaster
from models.demand.law import CountLaw
from models.demand.learned import LearnedResidual
from models.demand.network import InputScale, ResidualEnsemble, build_network
from models.demand.prior import DemandPrior, prior_column_names
from models.demand.ratios import BoostedRatio
from models.demand.remainder import Remainder
from models.demand.settings import DemandSettings
from models.events import HOUR_US
from models.trees import Trees

LOCATIONS = 1_000
PAIRS_OF_A_CONTENT = 10
DAYS = 3.0
PARTS_HORIZON_HOURS = 6
TREE_DEPTH = 5
TIMED_BLOCKS = 32


def filled_store(pairs: int) -> CounterStore:
    """Counters with at least that many pairs, fed from a stream of up to three days."""
    store = CounterStore()
    for piece in pieces(3 * pairs, pairs // PAIRS_OF_A_CONTENT, LOCATIONS, DAYS):
        store.update(piece)
        if len(store.popularity.index) >= pairs:
            break
    return store


def drawn_model(store: CounterStore, settings: DemandSettings) -> DemandForecaster:
    """A model of the trained shape with no weight at zero."""
    horizons, half_lives = settings.horizons_hours, store.settings.half_lives_hours
    coefficients = np.full((len(horizons), len(prior_column_names(half_lives))), 0.1)
    n_inputs = len(base_feature_names(half_lives, horizons)) + 2
    rng = np.random.default_rng(0)
    trees = [drawn_trees(settings.boosting_iterations, n_inputs, rng) for _ in horizons]
    learned = LearnedResidual(
        (drawn_network(settings, n_inputs),) * len(horizons),
        tuple(BoostedRatio(part, cap) for part, cap in zip(trees, settings.residual_caps, strict=True)),
        tuple(0.5 if settings.boosting_iterations else 0.0 for _ in horizons),
        settings.residual_caps,
    )
    return DemandForecaster(
        settings,
        prior=DemandPrior(horizons, half_lives, coefficients),
        laws=[CountLaw(slope=-0.3) for _ in horizons],
        remainder=Remainder(horizons, (0.1,) * len(horizons), {}),
        learned=learned,
    )


def drawn_network(settings: DemandSettings, n_inputs: int) -> ResidualEnsemble:
    scale = InputScale(np.zeros(n_inputs), np.full(n_inputs, 2.0), settings.input_limit_sd)
    members = [build_network(settings, n_inputs=n_inputs, seed=seed) for seed in range(settings.members)]
    generator = torch.Generator().manual_seed(0)
    for member in members:
        for head in (member.mean_head, member.dispersion_head):
            torch.nn.init.normal_(head.weight, std=0.05, generator=generator)
    return ResidualEnsemble(members, scale)


def drawn_trees(n_trees: int, n_inputs: int, rng: np.random.Generator) -> Trees:
    """Complete trees of 32 leaves, about as many as boosting grows."""
    inner, nodes = 2**TREE_DEPTH - 1, 2 ** (TREE_DEPTH + 1) - 1
    root = np.arange(n_trees) * nodes
    node = np.tile(np.arange(nodes), n_trees)
    shift = np.repeat(root, nodes)
    return Trees(
        root,
        feature=rng.integers(0, n_inputs, len(node)),
        threshold=rng.normal(-1.0, 2.0, len(node)),
        left=np.where(node < inner, 2 * node + 1 + shift, -1),
        right=np.where(node < inner, 2 * node + 2 + shift, -1),
        value=rng.normal(0.0, 0.02, len(node)),
        base=0.0,
    )


class Parts:
    """Processor seconds of each part of one refresh, on one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, part: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        answer = work()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - began
        return answer


def part_seconds(store: CounterStore, settings: DemandSettings, at_us: int) -> dict[str, float]:
    """Finding the cells with the passes over the store, observing, prior alone, and what learning adds to it."""
    parts, hours = Parts(), PARTS_HORIZON_HOURS
    model = drawn_model(store, settings)
    networks, prior = drawn_model(store, replace(settings, boosting_iterations=0)), model.prior_only()
    observer = parts.time("cells", lambda: CellObserver(store, at_us=at_us, settings=settings))

    def block_parts(block: slice) -> None:
        state: CellState = parts.time("observe", lambda: observer.rows(block))
        parts.time("prior", lambda: prior.law(state, hours))
        parts.time("and networks", lambda: networks.law(state, hours))
        parts.time("and trees", lambda: model.law(state, hours))

    # Blocks at even distances stand for all; each is computed three times here.
    chosen = blocks(len(observer))
    chosen = chosen[:: -(-len(chosen) // TIMED_BLOCKS)]
    for block in chosen:
        block_parts(block)
    share = sum(block.stop - block.start for block in chosen) / len(observer)
    parts.seconds = {name: value if name == "cells" else value / share for name, value in parts.seconds.items()}
    with_networks, with_trees = parts.seconds.pop("and networks"), parts.seconds.pop("and trees")
    learned = {"networks": with_networks - parts.seconds["prior"], "trees": with_trees - with_networks}
    return parts.seconds | learned


def refresh(model: DemandForecaster, store: CounterStore, at_us: int, *, hours: Sequence[int], threads: int) -> Any:
    """Seconds of one refresh by the clock and on the processor, and the forecast of its last horizon."""
    clock, processor = time.perf_counter(), time.process_time()
    found = model.forecasts(store, at_us=at_us, horizons_hours=hours, threads=threads)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return clock, processor, found[hours[-1]]


def measure(pairs: int, threads: Sequence[int], settings: DemandSettings) -> dict[str, Any]:
    torch.set_num_threads(1)
    warm = filled_store(1_000)
    refresh(drawn_model(warm, settings), warm, warm.time_us, hours=(1,), threads=1)[2].to_arrow()  # compiles
    began = time.process_time()
    store = filled_store(pairs)
    fed = time.process_time() - began
    at_us = -(-(store.time_us + 1) // HOUR_US) * HOUR_US
    result: dict[str, Any] = {"contents": len(store.contents), "locations": len(store.locations), "fed": fed}
    result |= {"store_gb": resident_gb()} | part_seconds(store, settings, at_us)
    model = drawn_model(store, settings)
    for several, hours in (("one", (PARTS_HORIZON_HOURS,)), ("all", settings.horizons_hours)):
        for n in threads:
            clock, processor, forecast = refresh(model, store, at_us, hours=hours, threads=n)
            result |= {f"{several}_{n}_clock": clock, f"{several}_{n}_processor": processor}
    result |= {"pairs": len(forecast), "peak_gb": resident_gb()}
    began = time.process_time()
    forecast.to_arrow(with_other=True)
    return result | {"table": time.process_time() - began, "with_table_gb": resident_gb()}


def measured_apart(pairs: int, threads: Sequence[int], settings: DemandSettings) -> dict[str, Any]:
    """In a new process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, pairs, threads, settings).result()


def table_of(results: Sequence[dict[str, Any]], threads: Sequence[int]) -> str:
    """One row a figure, one column a size; seconds are also given per million pairs."""
    columns = [f"{result['pairs']:,}" for result in results]
    lines = [_line("pairs", columns), _line("contents", [f"{r['contents']:,}" for r in results])]
    for name in ("cells", "observe", "prior", "networks", "trees", "table"):
        lines.append(_line(f"{name}, s", [_seconds(r[name], r["pairs"]) for r in results]))
    for several, label in (("one", "one horizon"), ("all", "all horizons")):
        for n in threads:
            for kind in ("processor", "clock"):
                key = f"{several}_{n}_{kind}"
                lines.append(_line(f"{label}, {n} thr., {kind}, s", [_seconds(r[key], r["pairs"]) for r in results]))
    for name, label in (("store_gb", "counters"), ("peak_gb", "+ forecasts"), ("with_table_gb", "+ one table")):
        lines.append(_line(f"peak, {label}, GB", [f"{r[name]:.2f}" for r in results]))
    return "\n".join(lines) + "\n"


def _line(name: str, values: Sequence[str]) -> str:
    return f"{name:36}" + "".join(f"{value:>22}" for value in values)


def _seconds(seconds: float, pairs: int) -> str:
    return f"{seconds:.2f} ({seconds / pairs * 1e6:.2f}/M)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hidden", type=int, nargs="+", default=list(DemandSettings().hidden_sizes))
    parser.add_argument("--trees", type=int, default=DemandSettings().boosting_iterations)
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    chosen = parser.parse_args()
    settings = replace(DemandSettings(), hidden_sizes=tuple(chosen.hidden), boosting_iterations=chosen.trees)
    results = [measured_apart(pairs, chosen.threads, settings) for pairs in chosen.pairs]
    sys.stdout.write(json.dumps(results) + "\n" if chosen.json else table_of(results, chosen.threads))


if __name__ == "__main__":
    main()
