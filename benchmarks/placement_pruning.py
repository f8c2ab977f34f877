"""What narrower candidates lose: bound and plan on the full graph beside those on a part of it.

    start k     the price search begins with k sources for each row, and others join at their prices: ours
    nearest k   each location sees its k nodes of least price alone: bounds of that graph hold for it alone
    G groups    segment group g (codes g mod G) is held by nodes n = g mod G alone

Groups are problems of their own: their nodes, their segments and a share of the movement budget in proportion to their
nodes' storage. Their costs and bounds add up. A plan of the narrow graph is priced on the full one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.placement_methods import cost_of
from placement.copies import Copies
from placement.formulation import arc_count
from placement.instances import InstanceSettings, random_instance
from placement.pdlp import PdlpSettings, solve_relaxation
from placement.plan import Plan
from placement.problem import Demand, PlacementProblem, Segments, Sources
from placement.solve import solve

START = (2, 4, 8)
NEAREST = (6, 16)
GROUPS = (4, 16)
EVERYTHING = 1_000_000
PDLP_ARCS = 500_000
"""Arcs up to which PDLP proves the bound of a graph; beyond, the solve's own price search does."""


@dataclass(frozen=True)
class Pruning:
    """One candidate graph of one instance.

    Attributes:
        candidates: nodes that each demand row sees, on average.
        bound: certified for this graph, in m$.
        cost: of the plan made on this graph, priced with the best flows of the full one.
        above: of the cost over the full graph's bound, less 1.
    """

    size: str
    seed: int
    graph: str
    candidates: float
    bound: float
    cost: float
    above: float

    def __str__(self) -> str:
        return (
            f"{self.size} seed {self.seed}, {self.graph}: {self.candidates:.1f} candidates a row, own bound "
            f"{self.bound:.1f} m$, plan {self.cost:.1f} m$, {self.above:.2%} above the full graph's bound"
        )


def prunings(size: str, shape: InstanceSettings, seed: int) -> list[Pruning]:
    """The full graph, the search that starts with few, the nearest few and each number of groups, on one instance."""
    problem = random_instance(shape, seed=seed)
    nodes = int((~problem.is_pop).sum())
    graphs = {"full": [starting_with(problem, EVERYTHING)]}
    graphs |= {f"start {count}": [starting_with(problem, count)] for count in START}
    graphs |= {f"nearest {count}": [nearest_candidates(problem, count)] for count in NEAREST}
    graphs |= {f"{count} groups": groups_of(problem, count) for count in GROUPS if count <= nodes}
    rows: list[Pruning] = []
    for name, parts in graphs.items():
        plans = [solve(part) for part in parts]
        bound = sum(max(plan.bound, _proven(part)) for part, plan in zip(parts, plans, strict=True))
        copies = _together(problem, [_ids(part, plan) for part, plan in zip(parts, plans, strict=True)])
        cost = cost_of(problem, copies)
        full = rows[0].bound if rows else bound
        rows.append(Pruning(size, seed, name, _candidates(parts), bound, cost, cost / full - 1))
    return rows


def _proven(problem: PlacementProblem) -> float:
    if arc_count(problem) > PDLP_ARCS:
        return 0.0
    return solve_relaxation(problem, PdlpSettings(relative_gap=1e-3)).bound


def starting_with(problem: PlacementProblem, count: int) -> PlacementProblem:
    """The problem whose price search begins with `count` sources for each demand row."""
    return replace(problem, settings=replace(problem.settings, starting_candidates=count))


def nearest_candidates(problem: PlacementProblem, count: int) -> PlacementProblem:
    """The problem in which each location reaches its `count` cheapest nodes and all its POPs."""
    size = float(problem.segments.bytes.mean())
    price = problem.request_price + problem.byte_price[None, :] * size
    price = np.where(problem.can_serve & ~problem.is_pop[None, :], price, np.inf)
    near = np.zeros_like(problem.reach)
    for at, row in enumerate(price):
        near[at, np.argsort(row, kind="stable")[:count]] = True
    return replace(problem, reach=problem.reach & (near | problem.is_pop[None, :]))


def groups_of(problem: PlacementProblem, count: int) -> list[PlacementProblem]:
    """One problem for each group of segments, with the POPs and the nodes of its residue."""
    return [_group(problem, count, group) for group in range(count)]


def _group(problem: PlacementProblem, count: int, group: int) -> PlacementProblem:
    own = np.arange(len(problem.sources)) % count == group
    segments, sources = np.arange(len(problem.segments)) % count == group, own | problem.is_pop
    new_segment, new_source = np.cumsum(segments) - 1, np.cumsum(sources) - 1
    asked, demand = segments[problem.demand.segment], problem.demand
    held = segments[problem.current_segment] & sources[problem.current_source]
    return replace(
        problem,
        segments=Segments(**{name: value[segments] for name, value in vars(problem.segments).items()}),
        sources=Sources(**{name: value[sources] for name, value in vars(problem.sources).items()}),
        demand=Demand(
            new_segment[demand.segment[asked]].astype(np.int32), demand.location[asked], demand.requests[asked]
        ),
        rtt_ms=problem.rtt_ms[:, sources],
        reach=problem.reach[:, sources],
        current_segment=new_segment[problem.current_segment[held]].astype(np.int32),
        current_source=new_source[problem.current_source[held]].astype(np.int32),
        settings=replace(problem.settings, movement_budget_bytes=_budget(problem, own & ~problem.is_pop)),
    )


def _budget(problem: PlacementProblem, nodes: np.ndarray) -> int | None:
    budget, storage = problem.settings.movement_budget_bytes, problem.sources.storage_bytes
    if budget is None:
        return None
    return int(budget * float(storage[nodes].sum() / max(1, storage[~problem.is_pop].sum())))


def _ids(problem: PlacementProblem, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Content ids and source ids of a plan's copies."""
    return problem.segments.content[plan.segment], problem.sources.source[plan.source]


def _together(problem: PlacementProblem, placed: list[tuple[np.ndarray, np.ndarray]]) -> Copies:
    """The copies of all parts in the codes of the whole problem."""
    segment = {name: at for at, name in enumerate(problem.segments.content.tolist())}
    source = {name: at for at, name in enumerate(problem.sources.source.tolist())}
    segments = [segment[name] for contents, _ in placed for name in contents.tolist()]
    sources = [source[name] for _, holders in placed for name in holders.tolist()]
    return Copies.sorted(np.array(segments, dtype=np.int32), np.array(sources, dtype=np.int32))


def _candidates(parts: list[PlacementProblem]) -> float:
    """Nodes in reach of a demand row, averaged over the rows of all parts."""
    seen = sum(int((part.can_serve & ~part.is_pop).sum(axis=1)[part.demand.location].sum()) for part in parts)
    return seen / max(1, sum(len(part.demand) for part in parts))
