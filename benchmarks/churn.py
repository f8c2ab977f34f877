"""Churn: every method on real sessions, in one harness, and what training and forecasting cost.

    python -m benchmarks.churn relays|phones [--stage development|final] [--seeds 5] [--methods churn boosting …] [--json]

Ours, boosting alone and networks alone are trained once a seed, and the scores of the seeds are averaged; on the relays
ours is also shown as it is recalibrated daily (one seed). The other methods have one training; the head of returns is
left out. Every method gets its calibration on the validation window and sees nothing later than each origin.
Differences of skill are paired, with intervals over nodes; the best Markov peer is the best on the rows scored, with
hindsight. In the development stage nothing of the final test window of the relays is read; the phones, which have no
calendar, are the same in both stages.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.churn_table import BOOSTING, OURS, RECALIBRATED, tell
from benchmarks.churn_worlds import ChurnWorld, Fold, phones_world, real_data, relays_world
from benchmarks.survival_peers import NAMES as SURVIVAL_PEERS
from benchmarks.survival_peers import fit_survival_peers
from models.churn.baselines import MARKOV_PEERS, ForecastsChurn, fit_peers
from models.churn.evaluation import ScoredRows, pool, score_rows
from models.churn.features import NodeFeatures, node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import Objects, SessionHistory
from models.churn.recalibrated import RecalibratedForecaster
from models.churn.training import fit_seeds
from models.events import Float64
from models.forecast import ChurnForecast

NETWORK = "network"
LEARNED: dict[str, float | None] = {OURS: None, BOOSTING: 0.0, NETWORK: 1.0}
"""Weight of the networks: the one that validation chose, or that of one part alone. All come from one training."""
PREDICTORS = ("sat_count", "twiddled_history")
METHODS = (*LEARNED, RECALIBRATED, *MARKOV_PEERS, *PREDICTORS, *SURVIVAL_PEERS)
WORLDS: dict[str, Callable[[argparse.Namespace], ChurnWorld]] = {
    "relays": lambda options: relays_world(options.stage, every_hours=options.every_hours or 31.0),
    "phones": lambda options: phones_world(every_hours=options.every_hours or 0.27),
}


class Statistics:
    """Statistics of the nodes at the last instant asked for: all trainings of a split read the same."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._found: NodeFeatures | None = None

    def of(self, model: ChurnForecaster, history: SessionHistory, at_us: int) -> NodeFeatures:
        key = (id(history), at_us, id(model.population))
        if self._found is None or self._key != key:
            self._found = node_features(history, at_us=at_us, population=model.population, settings=model.settings)
            self._key = key
        return self._found


@dataclass
class Timed:
    """A method, and the CPU seconds that its forecasts have taken."""

    method: ForecastsChurn
    statistics: Statistics
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def edges_hours(self) -> Float64:
        return self.method.edges_hours

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        started = time.process_time()
        if isinstance(self.method, ChurnForecaster) and nodes is None:
            features = self.statistics.of(self.method, history, at_us)
            forecast = self.method.forecast_from(features, history, np.arange(len(history)), at_us=at_us)
        else:
            forecast = self.method.forecast(history, at_us=at_us, nodes=nodes)
        self.seconds += time.process_time() - started
        return forecast


class Costs:
    """CPU seconds by method and phase, over folds and seeds."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    def add(self, name: str, phase: str, seconds: float) -> None:
        phases = self.seconds.setdefault(name, {"training": 0.0, "forecasting": 0.0})
        phases[phase] += seconds


def run(options: argparse.Namespace) -> tuple[ChurnWorld, ScoredRows, Costs]:
    """Trains on every fold and scores what it held out."""
    world, costs = WORLDS[options.world](options), Costs()
    parts = []
    for number, fold in enumerate(world.folds):
        statistics = Statistics()
        methods = [Timed(method, statistics) for method in fit_methods(world, fold, options, costs)]
        scored = score_rows(
            methods, fold.tested, start_us=fold.test[0], end_us=fold.test[1], every_hours=world.every_hours
        )
        parts.append(scored.take(np.isin(scored.outcomes.node, fold.nodes), np.isin(scored.all_nodes, fold.nodes)))
        for method in methods:
            costs.add(method.name, "forecasting", method.seconds)
        print(f"split {number + 1} of {len(world.folds)}: {len(parts[-1].outcomes)} rows scored", file=sys.stderr)
    return world, pool(parts, [np.arange(len(fold.tested)) for fold in world.folds]), costs


def fit_methods(world: ChurnWorld, fold: Fold, options: argparse.Namespace, costs: Costs) -> list[ForecastsChurn]:
    """The chosen methods, those of one name being seeds."""
    windows: dict[str, Any] = {"train": fold.train, "validation": fold.validation}
    found: list[ForecastsChurn] = []
    chosen = [name for name in LEARNED if name in options.methods]
    if chosen:
        started = time.process_time()
        trained = fit_seeds(
            fold.trained, settings=world.settings, seeds=range(options.seeds), with_returns=False, **windows
        )
        costs.add("all learned", "training", time.process_time() - started)
        found += [parts.model(name=name, network_weight=LEARNED[name]) for parts in trained for name in chosen]
        if OURS in chosen and RECALIBRATED in options.methods and world.trained_until_us is not None:
            found.append(RecalibratedForecaster(trained[0].model(), name=RECALIBRATED))
    started = time.process_time()
    peers = fit_peers(fold.trained, settings=world.settings, **windows)
    costs.add("all counted peers", "training", time.process_time() - started)
    found += [peer for peer in peers if peer.name in options.methods]
    for name in (name for name in SURVIVAL_PEERS if name in options.methods):
        started = time.process_time()
        found += fit_survival_peers(fold.trained, settings=world.settings, names=(name,), **windows)
        costs.add(name, "training", time.process_time() - started)
    return found


def _chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Without the survival peers where their library is missing, which is said and not an end."""
    try:
        import sksurv  # noqa: F401
    except ImportError:
        missing = [name for name in names if name in SURVIVAL_PEERS]
        if missing:
            print(
                f"scikit-survival is not installed, so {' and '.join(missing)} are left out: "
                "pip install -c constraints.txt -e '.[bench]'",
                file=sys.stderr,
            )
        return tuple(name for name in names if name not in SURVIVAL_PEERS)
    return tuple(names)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", nargs="?", default="phones", choices=tuple(WORLDS))
    parser.add_argument("--stage", default="development", choices=("development", "final"))
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each learned method")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--every-hours", type=float, help="spacing of the test origins")
    parser.add_argument("--json", action="store_true", help="all rows for a programme instead of tables")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"Expected --seeds >= 1, got {options.seeds!r}.")
    options.methods = _chosen(options.methods)
    return options


def main() -> None:
    options = _options()
    if not real_data().is_dir():
        print(f"There are no sessions at {real_data()}; set PREMIRROR_REAL_DATA. Nothing was measured.")
        return
    world, scored, costs = run(options)
    facts: dict[str, Any] = {
        "world": f"{world.name}: {world.machines}",
        "stage": options.stage,
        "nodes": len(world.history),
        "sessions": len(world.history.start_us),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "splits": len(world.folds),
        "seeds": options.seeds,
        "rows scored": len(scored.outcomes),
    }
    told = tell(world, scored, costs.seconds)
    if options.json:
        json.dump({"facts": facts, **told.rows}, sys.stdout)
        return
    print("\n".join(f"{key:14} {value}" for key, value in facts.items()))
    print(told.text)


if __name__ == "__main__":
    main()
