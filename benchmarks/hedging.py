"""Do uplink margins or scenarios help in replay? The same days, forecasts and departures under different plans.

    python -m benchmarks.hedging --home .premirror --config configs/replay/small.yaml

needs a home in which the models are promoted, as `premirror demo` leaves it. Reported of each way to plan: net saving (bytes
that nodes served less bytes pushed, over all bytes asked for), and the bytes that nodes left unserved in the worst tenth
of the hours, its own worst ones. Differences to the plan for the mean are paired: blocks of hours are drawn anew, the
same for both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.accounts import net_by_hour, requested_by_hour
from pipelines.arena import Arena
from pipelines.backtest import OptimisingPlanner, PlanNote, roll
from pipelines.champions import Champions
from pipelines.config import DataSource, ReplayRun, load, microseconds
from pipelines.contest import Contest
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.outlook import Outlook
from pipelines.plan_rows import our_outlook
from placement.problem import Float64
from placement.scenarios import conditional_value_at_risk
from placement.tally import GB, ReplayTally

WORST = 0.9
REPLICATES = 2000
WAYS: dict[str, dict[str, Any]] = {
    "mean": {},
    "uplink_quantile 0.65": {"uplink_quantile": 0.65},
    "reward 0": {"reward_millidollars_per_gb": 0.0},
    "scenarios 20, weight 0": {"scenarios": 20, "cvar_weight_millidollars_per_gb": 0.0},
    "scenarios 20, weight 10": {"scenarios": 20},
    "scenarios 20, weight 40": {"scenarios": 20, "cvar_weight_millidollars_per_gb": 40.0},
}
Measure = Callable[[Float64, Float64, Float64], float]
"""Of net, requested and unserved bytes by hour."""


@dataclass(frozen=True)
class Hours:
    """Bytes by hour, (H,)."""

    net: Float64
    requested: Float64
    unserved: Float64

    @classmethod
    def of(cls, tallies: Sequence[ReplayTally]) -> Hours:
        """Of several replays of the same hours, their mean."""
        net = np.mean([net_by_hour(tally) for tally in tallies], axis=0)
        requested = np.mean([requested_by_hour(tally) for tally in tallies], axis=0)
        mesh = np.mean([tally.tier_bytes[:, :, 1:].sum(axis=(1, 2)) for tally in tallies], axis=0)
        return cls(net, requested, requested - mesh)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options().parse_args(arguments)
    run: ReplayRun = load("replay", options.config, [])
    arena, outlook = _world(run, Home(options.home))
    played = {way: [_played(arena, run, outlook, WAYS[way], seed) for seed in options.seeds] for way in options.ways}
    hours = {way: Hours.of([tally for tally, _ in found]) for way, found in played.items()}
    rows = []
    for way in options.ways:
        notes = [note for _, found in played[way] for note in found]
        rows.append({"way": way, **compared(hours[way], hours[options.ways[0]], options.block_hours), **_spent(notes)})
    print(json.dumps({"hours": len(hours[options.ways[0]].net), "seeds": options.seeds, "rows": rows}, indent=1))


def compared(ours: Hours, base: Hours, block_hours: int) -> dict[str, Any]:
    """Net share and worst unserved GB an hour, and their paired differences to the base with 95 % intervals."""
    blocks = np.arange(len(base.net)) // block_hours
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    rng, every = np.random.default_rng(0), np.arange(len(base.net))
    drawn = [
        np.concatenate([members[b] for b in rng.integers(0, len(members), len(members))]) for _ in range(REPLICATES)
    ]
    found: dict[str, Any] = {}
    for name, measure in (("net_share", _net_share), ("worst_unserved_gb_per_hour", _worst_unserved)):
        apart = [measure(ours, at) - measure(base, at) for at in drawn]
        found[name] = measure(ours, every)
        found[f"{name}_difference"] = measure(ours, every) - measure(base, every)
        found[f"{name}_interval"] = [float(end) for end in np.quantile(apart, (0.025, 0.975))]
    return found


def _net_share(hours: Hours, at: np.ndarray) -> float:
    return float(hours.net[at].sum() / hours.requested[at].sum())


def _worst_unserved(hours: Hours, at: np.ndarray) -> float:
    return conditional_value_at_risk(hours.unserved[at], WORST) / GB


def _spent(notes: list[PlanNote]) -> dict[str, Any]:
    return {
        "pushed_gb": sum(note.bytes_moved for note in notes) / GB,
        "plan_seconds": sum(note.seconds for note in notes) / max(1, len(notes)),
        "hedged_plans": dict(Counter(note.method for note in notes if "hedged" in note.method)),
        "plans": len(notes),
    }


def _world(run: ReplayRun, home: Home) -> tuple[Arena, Outlook]:
    arena = Arena.read(Inputs.find(DataSource(tables=run.tables), home).path, run)
    start_us, champions = microseconds(run.window[0]), Champions(home)
    demand = champions.demand(arena.log.before(start_us), at_us=start_us)
    churn = champions.churn(arena.history.before(start_us), at_us=start_us)
    return arena, our_outlook(Contest(arena, run, demand.model, churn.model, _told))


def _played(
    arena: Arena, run: ReplayRun, outlook: Outlook, options: dict[str, Any], seed: int
) -> tuple[ReplayTally, list[PlanNote]]:
    print(f"seed {seed}: {options or 'mean'}", file=sys.stderr, flush=True)
    planning = replace(run.planning, placement=replace(run.planning.placement, **options))
    planner = OptimisingPlanner(arena.scene, outlook, planning, seed=seed)
    limits: dict[str, Any] = {"replay_settings": run.replay, "routing": run.routing, "seed": seed}
    return roll(arena.world, arena.stretch, planner, watch=_told, **limits)


def _told(done: int, total: int) -> None:
    if done % 8 == 0:
        print(f"  {done} of {total} plans", file=sys.stderr, flush=True)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".premirror"))
    parser.add_argument("--config", type=Path, default=Path("configs/replay/small.yaml"))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--block-hours", type=int, default=6)
    return parser


if __name__ == "__main__":
    main()
