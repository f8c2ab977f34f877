"""Placement beside its peers: cost above the proven bound, gap, seconds and memory, all from one run.

    python -m benchmarks.placement --sizes xs s --seeds 11 12 13 --limit-seconds 20 [--methods ours greedy] [--json]
    python -m benchmarks.placement --plan .premirror/plans/current [--sizes s]
    python -m benchmarks.placement --pruning --sizes s

Every method runs in a process of its own, so that its memory is its own, on an instance that tuning has not seen (tuning
uses seeds 1 to 3), after a small instance that compiles what is compiled. One evaluator prices what each has placed. "Above
bound" is over the best bound that our certificate proves in the same run; "gap" is what a method proves about its own plan.
Whole programmes run at xs and s alone, until --limit-seconds. `--plan` adds the instance that a plan of `premirror place`
answered, as written beside it, once, with the first seed; reading it counts towards a method's memory and not its time.
`--pruning` says what narrower candidates lose; see `benchmarks/placement_pruning.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from benchmarks.placement_methods import METHODS, WHOLE, cost_of
from benchmarks.placement_pruning import prunings
from placement.copies import within_limits
from placement.formulation import arc_count
from placement.instances import SIZES, InstanceSettings, random_instance
from placement.problem import PlacementProblem

TOY = InstanceSettings(segments=20, locations=2, nodes=5, pops=1)
SHAPES = {"toy": TOY, **SIZES}
WHOLE_SIZES = ("toy", "xs", "s")
PLAN = "plan"
"""The size of the instance of `--plan`."""
WHOLE_ARCS = 100_000
"""Most arcs of a plan's instance that whole programmes are tried on: about those of size s."""
GRACE_SECONDS = 3_000.0
"""What a method may take beyond the limit, which only whole programmes heed, before it counts as without an answer."""


@dataclass(frozen=True)
class Row:
    """One method on one instance.

    Attributes:
        cost: in millidollars; None without an answer.
        bound: what the method proves itself; 0 for nothing.
        above: cost over the best certified bound of the run on this instance, less 1; None if there is none.
    """

    size: str
    seed: int
    method: str
    cost: float | None
    bound: float
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    above: float | None = None

    @property
    def gap(self) -> float | None:
        return None if self.cost is None or self.bound <= 0 else (self.cost - self.bound) / self.cost


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parsed(arguments)
    sizes, seeds = options.sizes, options.seeds
    if options.only:
        size = PLAN if options.plan else sizes[0]
        print(json.dumps(asdict(measure(options.only, size, seeds[0], options.limit_seconds, options.plan))))
        return
    if options.pruning:
        rows = [row for size in sizes for seed in seeds for row in prunings(size, SHAPES[size], seed)]
        print(json.dumps([asdict(row) for row in rows]) if options.json else "\n".join(map(str, rows)))
        return
    instances = [(PLAN, seeds[0])] if options.plan else []
    instances += [(size, seed) for size in sizes for seed in seeds]
    results = [row for size, seed in instances for row in _instance(size, seed, options)]
    if options.json:
        print(json.dumps({"machine": machine(), "rows": [{**asdict(row), "gap": row.gap} for row in results]}))
    else:
        print(table(results))


def measure(method: str, size: str, seed: int, limit_seconds: float, plan: Path | None = None) -> Row:
    """Runs one method here and now, on the instance of the plan where one is given."""
    METHODS[method](random_instance(TOY, seed=1), seed, 1.0)  # compiles
    problem = random_instance(SHAPES[size], seed=seed) if plan is None else _of_plan(plan)
    wall, cpu = -time.perf_counter(), -time.process_time()
    found = METHODS[method](problem, seed, limit_seconds)
    wall, cpu = wall + time.perf_counter(), cpu + time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cost = None
    if found.copies is not None:
        kept = within_limits(problem, found.copies)
        if len(kept.segment) < len(found.copies.segment) and method not in WHOLE:  # solvers may round a limit up
            raise AssertionError(f"{method} broke a hard limit")
        cost = cost_of(problem, kept)
    return Row(size, seed, method, cost, found.bound, wall, cpu, peak)


def table(rows: list[Row]) -> str:
    """One line for each size and method, over seeds."""
    lines = [machine(), "| size | method | seeds | above bound, mean (worst) | gap | wall s | CPU s | peak MiB |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for size, method in dict.fromkeys((row.size, row.method) for row in rows):
        mine = [row for row in rows if (row.size, row.method) == (size, method)]
        above = [row.above for row in mine if row.above is not None]
        gaps = [row.gap for row in mine if row.gap is not None]
        shown = f"{fmean(above):.2%} ({max(above):.2%})" if above else "no answer"
        answered = f"{len(mine)}" if len(above) == len(mine) else f"{len(above)} of {len(mine)}"
        gap = f"{fmean(gaps):.2%}" if gaps else "-"
        seconds = f"{fmean(r.wall_seconds for r in mine):.1f} | {fmean(r.cpu_seconds for r in mine):.1f}"
        peak = max(row.peak_mib for row in mine)
        lines.append(f"| {size} | {method} | {answered} | {shown} | {gap} | {seconds} | {peak:.0f} |")
    return "\n".join(lines)


def machine() -> str:
    load = os.getloadavg()[0]
    versions = f"Python {platform.python_version()}, OR-Tools {version('ortools')}"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, {versions}"


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _options()
    options = parser.parse_args(arguments)
    if options.sizes is None:
        options.sizes = [] if options.plan else ["xs"]
    if options.plan and options.pruning:
        parser.error("--pruning narrows random instances alone: leave out --plan, or name --sizes without it.")
    return options


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), help="default: xs, or none beside --plan")
    parser.add_argument("--plan", type=Path, help="folder of a plan, such as plans/current of a home")
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--limit-seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pruning", action="store_true", help="what narrower candidates lose")
    parser.add_argument("--only", choices=list(METHODS), help="run this one method in this process, print one JSON row")
    return parser


def _instance(size: str, seed: int, options: argparse.Namespace) -> list[Row]:
    """All methods on one instance, each in a process of its own."""
    plan = options.plan if size == PLAN else None
    whole = size in WHOLE_SIZES if plan is None else arc_count(_of_plan(plan)) <= WHOLE_ARCS
    methods = [name for name in options.methods if name not in WHOLE or whole]
    rows = [_apart(name, size, seed, options.limit_seconds, plan) for name in methods]
    proven = max((row.bound for row in rows if row.method not in WHOLE), default=0.0)
    if proven <= 0:
        return rows
    return [row if row.cost is None else Row(**{**asdict(row), "above": row.cost / proven - 1}) for row in rows]


def _of_plan(folder: Path) -> PlacementProblem:
    from benchmarks.placement_plan import plan_instance  # other sizes need not carry the pipelines' imports
    from pipelines.errors import PipelineError

    try:
        return plan_instance(folder)
    except PipelineError as error:
        sys.exit(str(error))


def _apart(method: str, size: str, seed: int, limit_seconds: float, plan: Path | None) -> Row:
    instance = ["--sizes", size] if plan is None else ["--plan", str(plan)]
    command = [sys.executable, "-m", "benchmarks.placement", "--only", method, *instance, "--seeds", str(seed)]
    command += ["--limit-seconds", str(limit_seconds)]
    began = time.perf_counter()
    print(f"{size} {seed} {method}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return Row(size, seed, method, None, 0.0, time.perf_counter() - began, 0.0, 0.0)
    if done.returncode:
        raise RuntimeError(f"{method} at {size}, seed {seed}, failed:\n{done.stderr}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
