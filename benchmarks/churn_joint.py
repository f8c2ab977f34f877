"""Replicas that fail together: P(at least k of n stay), forecast against observed, on the relays.

    python -m benchmarks.churn_joint [--stage development|final] [--every-hours 13] [--seed 0] [--json]

Sets of relays are drawn within one network, across networks and mixed. A network is a cell of latitude and longitude,
which the model never sees. Places were looked up from 13 February 2026 on, once a relay had been up for a while: of
those up for less than a day since then most that left have none, so "has a cell" selects who stayed. Having been seen
early is not enough: in March, of relays first seen three to four weeks before, 16 % of those that left within 8 h had
no cell and 0.2 % of those that stayed. Of relays up for seven days since that day both shares are 0.2 % or less, and
they stay as forecast. Dependence is therefore fitted, in the validation window, and judged among the *long known*
alone: first seen 14 days before the origin and up for seven days since places were looked up. `selection` shows both.

What is left of a gap may be the nodes' own forecasts, not their dependence: `single` sets share nothing, and
`right_on_average` repeats the judgement with the log-odds of every node moved, in hindsight and at each edge, by what
makes their mean right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.optimize import brentq
from scipy.special import expit, logit

from benchmarks.churn_worlds import Window, instant_us, real_data, relays_world
from models.churn.history import SessionHistory
from models.churn.joint import JointSurvival, network_codes
from models.churn.joint_evaluation import KINDS, SetDraw, forecast_sets, joint_reliability, joint_scores, worst_gap
from models.churn.joint_fitting import fit_joint, states_at_edges
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, concatenate, outcomes_at
from models.churn.recalibrated import RecalibratedForecaster
from models.churn.training import fit_parts
from models.events import DAY_US, HOUR_US, Bool, Float64, Int64

JOINT, NO_FLEET, INDEPENDENT = "joint", "without fleet", "independent"
PLACED_FROM_US = instant_us("2026-02-13")
LEAST_KNOWN_US, LEAST_UP_US = 14 * DAY_US, 7 * DAY_US
SETS_PER_ORIGIN = 200
"""With 60 the middle tenths held 300 sets of one kind, whose draw alone moves a tenth by some points."""
_SHOWN_HOURS = 24.0


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


def long_known(history: SessionHistory, outcomes: Outcomes, *, placed_from_us: int = PLACED_FROM_US) -> Bool:
    """Rows of nodes known for 14 days and up for 7 since places were looked up: theirs is known whatever follows. (n,)

    Only what happened before the origin counts.
    """
    up_us = np.zeros(len(outcomes), dtype=np.int64)
    for at_us in np.unique(outcomes.at_us):
        span = np.minimum(history.end_us, at_us) - np.clip(history.start_us, placed_from_us, at_us)
        total = np.bincount(history.node_of_session, weights=np.maximum(span, 0), minlength=len(history))
        here = outcomes.at_us == at_us
        up_us[here] = total[outcomes.node[here]]
    known_us = outcomes.at_us - history.observed_from_us[outcomes.node]
    return np.asarray((known_us >= LEAST_KNOWN_US) & (up_us >= LEAST_UP_US), dtype=np.bool_)


def selection(outcomes: Outcomes, survival: Float64, network: Int64, kept: Bool) -> list[dict[str, Any]]:
    """Departures by 24 h, forecast and observed, and who has no cell, among the long known and the others."""
    alive, usable = states_at_edges(outcomes, survival)
    b = int(np.argmin(np.abs(outcomes.edges_hours - _SHOWN_HOURS)))
    rows = []
    for name, part in (("long known", kept), ("others", ~kept)):
        chosen = part & usable[:, b]
        stayed, unplaced, gone = alive[chosen, b], network[chosen] < 0, 1.0 - survival[chosen, b]
        rows.append(
            {
                "nodes": name,
                "rows": len(stayed),
                "gone_forecast": float(gone.mean()),
                "gone_observed": float(np.mean(~stayed)),
                "gone_forecast_with_cell": float(gone[~unplaced].mean()),
                "gone_observed_with_cell": float(np.mean(~stayed[~unplaced])),
                "no_cell_of_gone": float(np.mean(unplaced[~stayed])),
                "no_cell_of_stayed": float(np.mean(unplaced[stayed])),
            }
        )
    return rows


def right_on_average(outcomes: Outcomes, survival: Float64) -> Float64:
    """Survival whose mean at each edge is the share that stayed: one shift of the log-odds an edge, in hindsight."""
    alive, usable = states_at_edges(outcomes, survival)
    odds = logit(np.clip(survival, 1e-7, 1.0 - 1e-7))
    shift = np.zeros(survival.shape[1])
    for b in range(len(shift)):
        x, share = odds[usable[:, b], b], float(np.mean(alive[usable[:, b], b]))
        shift[b] = brentq(lambda d, x=x, share=share: float(np.mean(expit(x + d))) - share, -20.0, 20.0)
    return np.asarray(expit(odds + shift), dtype=np.float64)


def judged(joint: JointSurvival, outcomes: Outcomes, survival: Float64, network: Int64, *, seed: int) -> dict[str, Any]:
    """Worst gaps, scores and tenths of the joint law, of it without what the whole fleet shares, and of products."""
    alone = JointSurvival(joint.edges_hours, tuple(replace(d, fleet_variance=0.0) for d in joint.dependence))
    methods = {JOINT: joint, NO_FLEET: alone, INDEPENDENT: JointSurvival.independent(joint.edges_hours)}
    drawn = forecast_sets(methods, outcomes, survival, network, draw=SetDraw(SETS_PER_ORIGIN, seed=seed))
    rows = joint_reliability(drawn, seed=seed)
    return {
        "sets": len(drawn.happened),
        "worst_gap": {m: {k: worst_gap(rows, model=m, kind=k) for k in ("all", *KINDS)} for m in methods},
        "scores": joint_scores(drawn, reference=INDEPENDENT, seed=seed),
        "tenths": rows,
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    started = time.process_time()
    world = relays_world(options.stage)
    fold, history = world.folds[0], with_outages(world.folds[0].tested)
    parts = fit_parts(
        fold.trained, train=fold.train, validation=fold.validation, settings=world.settings, seed=options.seed
    )
    model, network = RecalibratedForecaster(parts.model()), cells(history)
    chosen_on, fitted_on = forecasts(model, history, fold.validation, options.every_hours)
    kept = long_known(history, chosen_on)
    chosen_on, fitted_on = chosen_on.take(kept), fitted_on[kept]
    joint = fit_joint(chosen_on, fitted_on, network[chosen_on.node], seed=options.seed)
    every, survival = forecasts(model, history, fold.test, options.every_hours)
    kept = long_known(history, every)
    outcomes, mine = every.take(kept), survival[kept]
    where = network[outcomes.node]
    moved = judged(joint, outcomes, right_on_average(outcomes, mine), where, seed=options.seed)
    return {
        "stage": options.stage,
        "dependence": joint.to_json(),
        "selection": selection(every, survival, network[every.node], kept),
        **judged(joint, outcomes, mine, where, seed=options.seed),
        "right_on_average": {"worst_gap": moved["worst_gap"], "scores": moved["scores"]},
        "cpu_seconds": time.process_time() - started,
    }


def show(result: dict[str, Any]) -> None:
    for name in ("stage", "sets", "cpu_seconds"):
        print(f"{name:14} {result[name]}")
    for name, values in result["dependence"].items():
        print(f"{name:20} " + " ".join(f"{v:9.4f}" for v in values))
    print()
    _show_rows(result["selection"])
    for title, part in (("as forecast", result), ("every mean right", result["right_on_average"])):
        print(f"\nworst gap between forecast and observed over tenths of the forecast (goal 0.05), {title}")
        for method, gaps in part["worst_gap"].items():
            print(f"{method:14} " + "  ".join(f"{kind} {gap:.3f}" for kind, gap in gaps.items()))
    print()
    _show_rows(result["scores"])
    print("\njoint: forecast, observed, gap [95 % over blocks of time and networks] by tenth")
    for row in result["tenths"]:
        if row["model"] == JOINT:
            forecast = row["predicted"]
            low, gap, high = (row[c] - forecast for c in ("observed_low", "observed", "observed_high"))
            print(
                f"{row['kind']:7} {forecast:.3f} {row['observed']:.3f} {gap:+.3f} [{low:+.3f}, {high:+.3f}]  "
                f"{row['n']} sets, {row['blocks']} blocks, {row['networks']} networks"
            )


def _show_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


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
