"""Replicas that fail together: P(at least k of n stay), forecast against observed, on the relays.

    python -m benchmarks.churn_joint [--stage development|final] [--every-hours 13] [--seed 0] [--json]

Sets of relays are drawn within one network, across networks and mixed. A network is a cell of latitude and longitude,
which the model never sees: places were looked up later and mostly for relays that had stayed, so relays with a cell
stay longer than forecast, with and without correlation. The dependence is fitted on the validation window.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.churn_worlds import Window, real_data, relays_world
from models.churn.history import SessionHistory
from models.churn.joint import JointSurvival, network_codes
from models.churn.joint_evaluation import KINDS, forecast_sets, joint_reliability, joint_scores, worst_gap
from models.churn.joint_fitting import fit_joint
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, concatenate, outcomes_at
from models.churn.recalibrated import RecalibratedForecaster
from models.churn.training import fit_parts
from models.events import HOUR_US, Float64, Int64

JOINT, INDEPENDENT = "joint", "independent"


def cells(history: SessionHistory) -> Int64:
    """Code of each node's (latitude, longitude) cell, -1 where it was never looked up."""
    table = pq.read_table(real_data() / "relay_availability" / "sessions.parquet", columns=["node", "lat", "lon"])
    table = table.filter(pc.is_valid(table["lat"])).group_by("node").aggregate([("lat", "min"), ("lon", "min")])
    lat, lon = (table[c].to_pylist() for c in ("lat_min", "lon_min"))
    names = [f"{a:.4f},{b:.4f}" for a, b in zip(lat, lon, strict=True)]
    cell = dict(zip(table["node"].to_pylist(), names, strict=True))
    return network_codes([cell.get(str(node), "unknown") for node in history.nodes])


def forecasts(
    model: RecalibratedForecaster, history: SessionHistory, window: Window, every_hours: float
) -> tuple[Outcomes, Float64]:
    """Outcomes of the nodes up at the origins of a window, and their forecast survival."""
    outcomes, survival = [], []
    for at_us in range(*window, round(every_hours * HOUR_US)):
        found = outcomes_at(history, at_us=at_us, edges_hours=model.edges_hours, until_us=window[1])
        if len(found):
            outcomes.append(found)
            survival.append(model.forecast(history, at_us=at_us).survival[found.node])
    return concatenate(outcomes), np.concatenate(survival)


def run(options: argparse.Namespace) -> dict[str, Any]:
    started = time.process_time()
    world = relays_world(options.stage)
    fold, history = world.folds[0], with_outages(world.folds[0].tested)
    parts = fit_parts(
        fold.trained, train=fold.train, validation=fold.validation, settings=world.settings, seed=options.seed
    )
    model, network = RecalibratedForecaster(parts.model()), cells(history)
    chosen_on, fitted_on = forecasts(model, history, fold.validation, options.every_hours)
    joint = fit_joint(chosen_on, fitted_on, network[chosen_on.node], seed=options.seed)
    outcomes, survival = forecasts(model, history, fold.test, options.every_hours)
    methods = {JOINT: joint, INDEPENDENT: JointSurvival.independent(world.settings.edges_hours)}
    drawn = forecast_sets(methods, outcomes, survival, network[outcomes.node])
    rows = joint_reliability(drawn, seed=options.seed)
    return {
        "stage": options.stage,
        "sets": len(drawn.happened),
        "cpu_seconds": time.process_time() - started,
        "dependence": joint.to_json(),
        "worst_gap": {m: {k: worst_gap(rows, model=m, kind=k) for k in ("all", *KINDS)} for m in methods},
        "scores": joint_scores(drawn, reference=INDEPENDENT, seed=options.seed),
        "tenths": rows,
    }


def show(result: dict[str, Any]) -> None:
    for name in ("stage", "sets", "cpu_seconds"):
        print(f"{name:14} {result[name]}")
    for name, values in result["dependence"].items():
        print(f"{name:20} " + " ".join(f"{v:9.4f}" for v in values))
    print("\nworst gap between forecast and observed over tenths of the forecast (goal 0.05)")
    for method, gaps in result["worst_gap"].items():
        print(f"{method:14} " + "  ".join(f"{kind} {gap:.3f}" for kind, gap in gaps.items()))
    print()
    for row in result["scores"]:
        print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    print("\nforecast / observed [95 %] by tenth")
    for row in result["tenths"]:
        if row["kind"] == "all":
            print(
                f"{row['model']:12} {row['predicted']:.3f} / {row['observed']:.3f} "
                f"[{row['observed_low']:.3f}, {row['observed_high']:.3f}]  {row['n']} sets"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("development", "final"), default="development")
    parser.add_argument("--every-hours", type=float, default=13.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options)
    if options.json:
        json.dump(result, sys.stdout)
    else:
        show(result)


if __name__ == "__main__":
    main()
