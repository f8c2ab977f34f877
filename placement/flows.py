"""Shares given copies: which share of each location's requests each held copy serves.

For demand row k (a segment asked for by a location) with r_k requests, source n serves the share x_kn:

    max  sum_kn  r_k (origin price_k - price_kn) x_kn
    (1)  sum_n x_kn <= 1                                    the origin serves what is left
    (2)  x_kn <= survival_n                                 a source serves only while it is up
    (2') sum_{n in mesh} x_kn <= 1 - prod_n (1 - survival_n)   and the nodes together only while one of them is up
    (4)  sum_k bytes_k x_kn <= usable uplink_n

That is a minimum-cost flow: row -> hub of the mesh (2') -> source -> sink, solved exactly by OR-Tools when small
enough, else by filling arcs in order of saving per byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from placement.margins import limits_with_margin
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem
from placement.savings_flow import savings_flow

SMALLEST_SHARE = 1e-9
MARGIN_PASSES = 4
"""Rounds in which load that leaves a tight source may make others tight."""


@dataclass(frozen=True)
class Flows:
    """Shares, sorted by (demand row, source): row (F,), source (F,) and share in (0, 1] (F,)."""

    row: Int64
    source: Int32
    share: Float64


@dataclass(frozen=True)
class ServingArcs:
    """Pairs (demand row, source holding its segment in reach), cheaper than the origin; sorted by row. All (A,)."""

    row: Int64
    source: Int32
    saving: Float64
    """Saving over the origin for each request, in m$."""

    def __len__(self) -> int:
        return len(self.row)


def delivery_cost(problem: PlacementProblem, flows: Flows) -> float:
    """Expected cost of serving all demand with these flows, in m$."""
    requests, origin = problem.demand.requests, problem.origin_price
    price = problem.serving_price(flows.row, flows.source)
    saved = requests[flows.row] * (origin[flows.row] - price) * flows.share
    return float(requests @ origin - saved.sum())


def best_flows(problem: PlacementProblem, segment: Int32, source: Int32) -> Flows:
    """Shares for these copies: exact when the instance has at most `exact_flow_arcs` arcs, else filled in order.

    Where `uplink_quantile` is set, sources that turn out tight get their margin and the shares are found anew.
    """
    arcs = serving_arcs(problem, segment, source)
    coverage, limit = mesh_coverage(problem, arcs), problem.usable_uplink_bytes
    flows = _shares(problem, arcs, coverage, limit)
    for _ in range(MARGIN_PASSES if problem.settings.uplink_quantile is not None else 0):
        lower = limits_with_margin(problem, flows.row, flows.source, flows.share, limit)
        if np.array_equal(lower, limit):
            break
        limit = lower
        flows = _shares(problem, arcs, coverage, limit)
    return flows


def _shares(problem: PlacementProblem, arcs: ServingArcs, coverage: Float64, uplink: Float64) -> Flows:
    start, (mine, saving) = np.zeros(len(arcs)), contested(problem, arcs)
    if 0 < len(mine) <= problem.settings.exact_flow_arcs:
        start[mine] = _exact_shares(problem, arcs.row[mine], arcs.source[mine], saving, coverage, uplink)
    share = _fill(problem, arcs, (coverage, uplink), start)
    kept = share > SMALLEST_SHARE
    return Flows(arcs.row[kept], arcs.source[kept], np.minimum(share[kept], 1.0))


def serving_arcs(problem: PlacementProblem, segment: Int32, source: Int32) -> ServingArcs:
    """All useful arcs over the given copies and over the POPs that hold everything."""
    holding = ~problem.standing[source]
    order = np.lexsort((source[holding], segment[holding]))
    segment, source = segment[holding][order], source[holding][order]
    starts = np.searchsorted(segment, np.arange(len(problem.segments) + 1))
    standing = np.flatnonzero(problem.standing).astype(np.int32)
    demand = problem.demand
    row, arc_source = _serving_pairs(demand.segment, demand.location, starts, source, standing, problem.can_serve)
    saving = problem.origin_price[row] - problem.serving_price(row, arc_source)
    kept = (saving > 0) & (demand.requests[row] > 0)
    row, arc_source, saving = row[kept], arc_source[kept], saving[kept]
    order = np.lexsort((arc_source, row))
    return ServingArcs(row[order], arc_source[order], saving[order])


def mesh_coverage(problem: PlacementProblem, arcs: ServingArcs) -> Float64:
    """Probability that at least one node among a row's arcs is up: 1 - prod (1 - survival), (D,)."""
    mesh = ~problem.is_pop[arcs.source]
    loss = np.log(np.maximum(1.0 - problem.sources.survival[arcs.source[mesh]], 1e-300))
    total = np.bincount(arcs.row[mesh], weights=loss, minlength=len(problem.demand))
    return np.asarray(-np.expm1(total))


@numba.njit(cache=True)
def _serving_pairs(
    segment: Int32, location: Int32, starts: Int64, holder: Int32, standing: Int32, can_serve: Bool
) -> tuple[Int64, Int32]:
    rows, sources = [np.int64(0) for _ in range(0)], [np.int32(0) for _ in range(0)]
    for k in range(len(segment)):
        for at in range(starts[segment[k]], starts[segment[k] + 1]):
            if can_serve[location[k], holder[at]]:
                rows.append(np.int64(k))
                sources.append(holder[at])
        for n in standing:
            if can_serve[location[k], n]:
                rows.append(np.int64(k))
                sources.append(n)
    return np.array(rows, dtype=np.int64), np.array(sources, dtype=np.int32)


def _fill(
    problem: PlacementProblem, arcs: ServingArcs, coverage_and_uplink: tuple[Float64, Float64], start: Float64
) -> Float64:
    """Adds to `start` in order of saving per byte over the row's own fallback, ties by arc."""
    if not len(arcs):
        return start
    size = problem.demand_segment_bytes
    fallback = np.zeros(len(problem.demand))
    pop = problem.is_pop[arcs.source]
    np.maximum.at(fallback, arcs.row[pop], arcs.saving[pop])
    advantage = np.where(pop, arcs.saving - 1e9, arcs.saving - fallback[arcs.row]) / size[arcs.row]
    order = np.argsort(-advantage, kind="stable")
    order = order[(advantage[order] > 0) | pop[order]]
    row_bytes = size * problem.demand.requests
    coverage, uplink = coverage_and_uplink
    limits = (problem.sources.survival, uplink, coverage)
    return _fill_arcs(order, arcs.row, arcs.source, pop, start.copy(), row_bytes, *limits)


@numba.njit(cache=True)
def _fill_arcs(
    order: Int64,
    row: Int64,
    source: Int32,
    pop: Bool,
    share: Float64,
    row_bytes: Float64,
    survival: Float64,
    uplink: Float64,
    coverage: Float64,
) -> Float64:
    left, uncovered, free = np.ones(len(row_bytes)), coverage.copy(), uplink.copy()
    for a in range(len(row)):
        left[row[a]] -= share[a]
        free[source[a]] -= share[a] * row_bytes[row[a]]
        if not pop[a]:
            uncovered[row[a]] -= share[a]
    for a in order:
        k, n = row[a], source[a]
        more = min(left[k], survival[n] - share[a], free[n] / row_bytes[k])
        if not pop[a]:
            more = min(more, uncovered[k])
        if more > 0:
            share[a] += more
            left[k] -= more
            free[n] -= more * row_bytes[k]
            if not pop[a]:
                uncovered[k] -= more
    return share


def contested(problem: PlacementProblem, arcs: ServingArcs) -> tuple[Int64, Float64]:
    """Arcs that save more than the row's cheapest source of those that need no copy, and by how much a request. Both (M,).

    Only these compete for anything; what they leave of a row is that source's.
    """
    saving = arcs.saving - (problem.origin_price - problem.cheapest_of(problem.sure))[arcs.row]
    mine = np.flatnonzero(~problem.sure[arcs.source] & (saving > 0))
    return mine, saving[mine]


def _exact_shares(
    problem: PlacementProblem, arc_row: Int64, source: Int32, saving: Float64, coverage: Float64, usable: Float64
) -> Float64:
    """The best shares of the contested arcs, (M,), to within the rounding to whole units; zeros if the solver gives up.

    What nodes send a row goes through its hub (2'); POPs that hold copies send it past the hub.
    """
    rows, row = np.unique(arc_row, return_inverse=True)
    density = saving / problem.demand_segment_bytes[arc_row]
    size = (problem.demand_segment_bytes * problem.demand.requests)[rows]
    covered, by_pop = np.minimum(coverage[rows], 1.0) * size, problem.is_pop[source]
    mixed = np.flatnonzero(np.bincount(row, weights=by_pop) > 0)
    hub, most = np.arange(len(rows)), covered.copy()
    hub[mixed], most[mixed] = len(rows) + np.arange(len(mixed)), size[mixed]
    capacity = problem.sources.survival[source] * size[row]
    flow = savings_flow(
        np.where(by_pop, row, hub[row]),
        source,
        capacity,
        density,
        np.concatenate([most, covered[mixed]]),
        usable,
        parent=np.concatenate([np.full(len(rows), -1), mixed]),
    )
    return np.zeros(len(arc_row)) if flow is None else flow / size[row]
