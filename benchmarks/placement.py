"""Placement: seconds, gap and cost against keeping the current copies, over growing instances.

    python -m benchmarks.placement [xs s m l]

Prints one line for each size, with the machine it ran on. CPU seconds are those of this process.
"""

from __future__ import annotations

import platform
import sys
import time

from placement.check import check
from placement.greedy import place_greedily
from placement.instances import SIZES, InstanceSettings, random_instance
from placement.problem import PlacementProblem
from placement.solve import solve


def main(names: list[str]) -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    place_greedily(random_instance(InstanceSettings(segments=20, nodes=5, locations=2), seed=0))  # compiles
    for name in names or ["xs", "s"]:
        report(name, random_instance(SIZES[name], seed=1))


def report(name: str, problem: PlacementProblem) -> None:
    greedy_wall, greedy_cpu = -time.perf_counter(), -time.process_time()
    place_greedily(problem)
    greedy_wall, greedy_cpu = greedy_wall + time.perf_counter(), greedy_cpu + time.process_time()
    wall, cpu = -time.perf_counter(), -time.process_time()
    plan = solve(problem)
    wall, cpu = wall + time.perf_counter(), cpu + time.process_time()
    print(
        f"{name}: {len(problem.demand)} demand rows; greedy {greedy_wall:.2f} s ({greedy_cpu:.2f} s CPU); "
        f"solve {wall:.1f} s ({cpu:.1f} s CPU), {plan.method}, {plan.status}, cost {plan.objective:.1f} m$, "
        f"bound {plan.bound:.1f} m$, gap {plan.gap:.2%}, judged {check(problem, plan).ok}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
