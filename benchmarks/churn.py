"""Churn: accuracy beside every baseline on real sessions, and what training and forecasting cost.

    python benchmarks/churn.py relays|phones [--nodes 1500] [--json]

Real tables are found in ../shared/data beside the repository, or in PREMIRROR_REAL_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.churn.baselines import fit_baselines
from models.churn.evaluation import evaluate
from models.churn.history import SessionHistory
from models.churn.settings import ALWAYS_ON_EDGES_HOURS, MESH_EDGES_HOURS, ChurnSettings
from models.churn.training import fit_churn
from models.events import HOUR_US

SECOND_US = 1_000_000
INSTANT = pa.timestamp("us", tz="UTC")
SHOWN = ("nll", "ibs", "ibss", "concordance", "ece", "calibration_slope", "availability_brier")


def real_data() -> Path:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return Path(os.environ.get("PREMIRROR_REAL_DATA", beside))


def relays(nodes: int, seed: int) -> SessionHistory:
    """A random sample of volunteer-run relays; left-censored starts make ages lower bounds."""
    table = pq.read_table(real_data() / "relay_availability" / "sessions.parquet")
    ids = np.unique(np.asarray(table["node"].to_pylist(), dtype=str))
    chosen = np.random.default_rng(seed).choice(ids, min(nodes, len(ids)), replace=False)
    kept = table.filter(pa.array(np.isin(np.asarray(table["node"].to_pylist(), dtype=str), chosen)))
    listed = pa.table({"source": chosen.tolist(), "device_class": ["home"] * len(chosen)})
    return SessionHistory.from_arrow(kept.select(["node", "start", "end", "end_upper", "censored"]), listed)


def phones() -> SessionHistory:
    """Charging-on-Wi-Fi windows of smartphones, each observed for the days of its own trace."""
    table = pq.read_table(real_data() / "phone_availability" / "sessions.parquet").to_pandas()
    for column in ("start", "end", "trace_start", "trace_end"):
        table[column] = (table[column] * SECOND_US).astype("int64")
    listed = table.groupby("node").agg(available_at=("trace_start", "min"), observed_until=("trace_end", "max"))
    nodes = pa.table(
        {
            "source": listed.index.tolist(),
            "device_class": ["phone"] * len(listed),
            "available_at": pa.array(listed["available_at"].to_numpy(), INSTANT),
            "observed_until": pa.array(listed["observed_until"].to_numpy(), INSTANT),
        }
    )
    sessions = pa.table(
        {
            "node": table["node"].tolist(),
            "start": pa.array(table["start"].to_numpy(), INSTANT),
            "end": pa.array(table["end"].to_numpy(), INSTANT),
            "censored": pa.array(table["censored"].tolist()),
        }
    )
    return SessionHistory.from_arrow(sessions, nodes)


def _day(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


def plan(world: str, arguments: argparse.Namespace) -> tuple[SessionHistory, dict[str, Any], ChurnSettings, float]:
    """History, windows, settings and spacing of the test origins."""
    if world == "relays":
        windows = {
            "train": (_day("2026-03-01"), _day("2026-04-01")),
            "validation": (_day("2026-04-01"), _day("2026-04-10")),
            "test": (_day("2026-04-10"), _day("2026-04-20")),
        }
        return relays(arguments.nodes, arguments.seed), windows, ChurnSettings(edges_hours=ALWAYS_ON_EDGES_HOURS), 7.0
    cut = [round(s * SECOND_US) for s in (2_290_000, 2_580_000, 2_680_000, 2_850_000)]
    windows = {"train": (cut[0], cut[1]), "validation": (cut[1], cut[2]), "test": (cut[2], cut[3])}
    return phones(), windows, ChurnSettings(edges_hours=MESH_EDGES_HOURS, origin_every_hours=0.7), 1.1


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    history, windows, settings, every_hours = plan(arguments.world, arguments)
    started = time.perf_counter()
    model, log = fit_churn(
        history, train=windows["train"], validation=windows["validation"], settings=settings, seed=arguments.seed
    )
    training_seconds = time.perf_counter() - started
    learned = model.learned
    methods = [
        model,
        *fit_baselines(
            history, train=windows["train"], validation=windows["validation"], settings=settings, seed=arguments.seed
        ),
    ]
    if learned is not None and learned.ensemble is not None:
        alone, _ = fit_churn(
            history,
            train=windows["train"],
            validation=windows["validation"],
            settings=replace(settings, boosting_iterations=0),
            seed=arguments.seed,
        )
        methods.append(replace(alone, name="network"))
    rows = evaluate(
        methods,
        history,
        start_us=windows["test"][0],
        end_us=windows["test"][1],
        every_hours=every_hours,
        trained_until_us=windows["train"][1],
    )
    seconds = _forecast_seconds(model, history, windows["test"][0])
    cells = len(history) * len(settings.edges_hours)
    return {
        "world": arguments.world,
        "nodes": len(history),
        "sessions": len(history.start_us),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "training_seconds": training_seconds,
        "epochs": len(log),
        "forecast_seconds": seconds,
        "microseconds_per_node_and_edge": seconds / cells * 1e6,
        "network_weight": None if learned is None else learned.network_weight,
        "rows": rows,
    }


def _forecast_seconds(model: Any, history: SessionHistory, at_us: int) -> float:
    """Best of three, after one call that compiles."""
    model.forecast(history, at_us=at_us)
    times = []
    for k in range(3):
        started = time.perf_counter()
        model.forecast(history, at_us=at_us + k * HOUR_US)
        times.append(time.perf_counter() - started)
    return min(times)


def show(result: dict[str, Any]) -> None:
    rows = result.pop("rows")
    for key, value in result.items():
        print(f"{key:32} {value}")
    print(
        f"{'stratum':10} {'model':16} {'n':>7} {'gone':>6} " + " ".join(f"{c[:10]:>10}" for c in SHOWN) + "  paired NLL"
    )
    for row in rows:
        figures = " ".join(f"{row[c]:10.4f}" for c in SHOWN)
        paired = f"{row['nll_minus_reference']:+.4f} [{row['nll_minus_reference_low']:+.4f}, "
        paired += f"{row['nll_minus_reference_high']:+.4f}]"
        print(f"{row['stratum']:10} {row['model']:16} {row['n']:7} {row['departures']:6} {figures}  {paired}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=("relays", "phones"))
    parser.add_argument("--nodes", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments)
    if arguments.json:
        json.dump(result, sys.stdout)
    else:
        show(result)


if __name__ == "__main__":
    main()
