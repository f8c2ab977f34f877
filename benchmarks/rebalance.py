"""Rebalance: seconds and cost after one node in a hundred fails, against placing everything anew.

    python -m benchmarks.rebalance [xs s m l] [--seed 11]

For each size: a plan, then its failures; seconds to judge the events and to route around them, to prove a bound at the
plan's prices, to improve with moves; and the cost of both plans over that of a full re-solve of the same problem, which
may spend the movement budget once more.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from benchmarks.placement import SIZES
from placement.instances import InstanceSettings, random_instance
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.publish import judged, published
from placement.rebalance.aftermath import aftermath
from placement.rebalance.events import Event, NodeFailed
from placement.rebalance.improve import improved
from placement.rebalance.memory import Memory
from placement.rebalance.rebalance import certified, rebalance
from placement.rebalance.reroute import route_around
from placement.rebalance.settings import RebalanceSettings
from placement.solve import solve

FAILED_SHARE = 0.01
T = TypeVar("T")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["s"], choices=list(SIZES))
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args(arguments)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    small = random_instance(InstanceSettings(segments=20, nodes=5, locations=2), seed=0)
    first = solve(small)
    rebalance(small, first, failures(small), prices=first.prices)  # compiles
    for name in options.sizes:
        report(name, random_instance(SIZES[name], seed=options.seed))


def failures(problem: PlacementProblem) -> list[Event]:
    nodes = np.flatnonzero(problem.sources.eligible & ~problem.is_pop)
    count = max(1, round(FAILED_SHARE * len(nodes)))
    chosen = np.random.default_rng(0).choice(nodes, count, replace=False)
    return [NodeFailed(source) for source in problem.sources.source[np.sort(chosen)].tolist()]


def report(name: str, problem: PlacementProblem) -> None:
    plan = solve(problem)
    prices, settings, memory = plan.prices, RebalanceSettings(), Memory()
    events = failures(problem)
    after, applied = timed(lambda: aftermath(problem, plan, events, settings=settings, memory=memory, now_us=0))
    around, routed = timed(lambda: route_around(problem, plan, after, exact_arcs=settings.exact_arcs))
    _, judging = timed(lambda: judged(after.problem, published(after.problem, around, 0.0)))
    bound, proved = timed(lambda: certified(problem, after, prices))
    best, moved = timed(lambda: improved(around, after, plan, settings=settings, memory=memory))
    done = rebalance(problem, plan, events, prices=prices)
    anew, solved = timed(lambda: solve(after.problem))
    print(
        f"{name}: {len(problem.demand)} demand rows, {len(events)} nodes fail; events {applied:.2f} s, route around "
        f"{routed:.2f} s, judge {judging:.2f} s, bound {proved:.2f} s, moves {moved:.1f} s; re-solve {solved:.1f} s"
    )
    print(
        f"{name}: of a re-solve of {anew.objective:.1f} m$ moving {gigabytes(anew)}, routing around costs "
        f"{around.cost / anew.objective:.4f}, with moves of {gigabytes(done.plan)} {best.cost / anew.objective:.4f}; "
        f"bound {bound:.1f} m$, gap {done.plan.gap:.2%}"
    )


def gigabytes(plan: Plan) -> str:
    return f"{plan.bytes_moved / 1e9:.2f} GB"


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    main()
