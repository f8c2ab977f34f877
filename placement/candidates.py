"""The copies that could save something, and the requests that each could serve: the graph that prices are put on.

A copy (s, n) is a candidate where source n may hold segment s (9), has room for it at all (3), and serves at least one
location that asks for s more cheaply than the sources that need no copy. Those sources (POPs that hold everything,
never fail and have no uplink limit, and the origin) take what is left of every row, so they need no variables:

    gain_kn = base_k - price_kn      saved by a request of row k that n serves, in m$

Candidates are sorted by segment, arcs by candidate, so that a segment is one block of memory and blocks of segments are
independent of each other once the limits of the sources have prices. No eligible source is left out for being far down
some list: a candidate without a price would make the bound worthless.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Bool, Float32, Float64, Int32, Int64, PlacementProblem

BLOCKS = 16
"""Parts of about equal work into which the segments are cut; sums over them are taken in order, on any machine."""
WORTH_THREADS = 200_000
"""Arcs below which threads cost more than they save."""
ALWAYS = 40.0
"""Credit of a copy on a POP towards serving everybody: 1 - e^-40 = 1 in double precision."""


class Graph(NamedTuple):
    """The instance as the kernels read it."""

    row_start: Int64  # rows of each segment (S + 1,)
    copy_start: Int64  # candidates of each segment (S + 1,)
    size: Float64  # bytes (S,)
    backing_limit: Float64  # penalty for a segment without a tier-1 copy, 0 where none is asked for (S,)
    requests: Float64  # (R,)
    arc_start: Int64  # arcs of each candidate (C + 1,)
    source: Int32  # (C,)
    push: Float64  # m$ to push the copy, 0 where it is held (C,)
    moved: Float64  # bytes to push (C,)
    stands: Bool  # held in any case, for nothing (C,)
    arc_row: Int32  # (A,)
    arc_gain: Float32  # rounded up, so that a bound stays one (A,)
    survival: Float64  # (N,)
    credit: Float64  # towards coverage (N,)
    is_backing: Bool  # POPs whose copies count for tier 1 (N,)


@dataclass(frozen=True)
class Candidates:
    """The graph, its limits, and what maps it to the problem.

    Attributes:
        graph: as the kernels read it.
        rows: demand row of each row of the graph. (R,)
        limits: bytes of storage (N), of uplink (N) and of movement (1); 0 where there is no limit. (2 N + 1,)
        constant: cost of serving everything from the sources that need no copy, in m$.
        blocks: first segment of each block, and the end. (BLOCKS + 1,)
    """

    graph: Graph
    rows: Int64
    limits: Float64
    constant: float
    blocks: Int64

    @classmethod
    def of(cls, problem: PlacementProblem) -> Candidates:
        demand = problem.demand
        order = np.lexsort((demand.location, demand.segment))
        order = order[demand.requests[order] > 0]
        sure = problem.standing & (problem.sources.survival >= 1) & ~np.isfinite(problem.usable_uplink_bytes)
        base = _base_price(problem, sure)[order]
        graph = _graph(problem, order, base, sure)
        uplink, budget = problem.usable_uplink_bytes, problem.movement_limit_bytes
        storage = np.where(problem.standing, 0.0, problem.storage_limit_bytes)
        limits = np.concatenate([storage, np.where(np.isfinite(uplink), uplink, 0.0), [0.0]])
        limits[-1] = budget if np.isfinite(budget) else 0.0
        return cls(graph, order, limits, float(demand.requests[order] @ base), _blocks(graph))

    def __len__(self) -> int:
        return len(self.graph.source)

    @property
    def n_arcs(self) -> int:
        return len(self.graph.arc_row)

    @cached_property
    def segment(self) -> Int32:
        """Segment of each candidate, (C,)."""
        return np.repeat(np.arange(len(self.graph.size), dtype=np.int32), np.diff(self.graph.copy_start))

    @cached_property
    def best_gain(self) -> Float64:
        """Most that a request of each row can save, (R,)."""
        best = np.zeros(len(self.graph.requests))
        _row_maximum(self.graph.arc_row, self.graph.arc_gain, best)
        return best

    def where(self, kept: Bool) -> Candidates:
        """The graph with these candidates alone."""
        graph, arcs = self.graph, np.diff(self.graph.arc_start)
        of_kept = np.repeat(kept, arcs)
        smaller = graph._replace(
            copy_start=np.concatenate([[0], np.cumsum(kept)])[graph.copy_start],
            arc_start=np.concatenate([[0], np.cumsum(arcs[kept])]),
            source=graph.source[kept],
            push=graph.push[kept],
            moved=graph.moved[kept],
            stands=graph.stands[kept],
            arc_row=graph.arc_row[of_kept],
            arc_gain=graph.arc_gain[of_kept],
        )
        return replace(self, graph=smaller, blocks=_blocks(smaller))

    def for_each_block(self, work: Callable[[int, int, int], None], threads: int) -> None:
        """Calls `work(block, first segment, end)` for every block, on as many threads as allowed."""
        spans = [
            (b, int(first), int(end))
            for b, (first, end) in enumerate(zip(self.blocks[:-1], self.blocks[1:], strict=True))
        ]
        if threads <= 1 or self.n_arcs < WORTH_THREADS:
            for span in spans:
                work(*span)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda span: work(*span), spans))


def backing_asked_for(problem: PlacementProblem) -> bool:
    return problem.settings.require_tier_one_copy and not problem.standing.any()


def _base_price(problem: PlacementProblem, sure: Bool) -> Float64:
    """Price of each row's request at the cheapest sure source, or the origin, (D,)."""
    base, location = problem.origin_price.copy(), problem.demand.location
    for n in np.flatnonzero(sure):
        price = problem.request_price[location, n] + problem.byte_price[n] * problem.demand_segment_bytes
        base = np.where(problem.can_serve[location, n], np.minimum(base, price), base)
    return np.asarray(base)


def _graph(problem: PlacementProblem, order: Int64, base: Float64, sure: Bool) -> Graph:
    demand, n_segments, n_sources = problem.demand, len(problem.segments), max(1, len(problem.sources))
    may_hold = problem.standing | (problem.sources.eligible & (problem.storage_limit_bytes > 0))
    location, near = np.nonzero(problem.can_serve & (may_hold & ~sure)[None, :])
    pops = problem.is_pop & problem.sources.eligible & ~problem.standing
    backed = backing_asked_for(problem)
    row_start = np.searchsorted(demand.segment[order], np.arange(n_segments + 1))
    size = problem.segments.bytes.astype(np.float64)
    rows = _Rows(row_start, demand.location[order], base, size)
    reach = _Reach(
        np.searchsorted(location, np.arange(len(problem.locations) + 1)),
        near.astype(np.int32),
        problem.request_price[location, near],
        problem.byte_price,
        np.flatnonzero(pops) if backed else np.zeros(0, np.int64),
        problem.standing,
        problem.storage_limit_bytes,
        problem.push_price,
        np.searchsorted(problem.current_keys // n_sources, np.arange(n_segments + 1)),
        (problem.current_keys % n_sources).astype(np.int32),
        problem.movement_limit_bytes,
    )
    copy_start, n_arcs = _count(rows, reach)
    arc_start, source, push, moved, stands, arc_row, arc_gain = _filled(rows, reach, copy_start, n_arcs)
    return Graph(
        row_start,
        copy_start,
        size,
        np.full(n_segments, problem.settings.origin_fallback_millidollars if backed else 0.0),
        demand.requests[order],
        arc_start,
        source,
        push,
        moved,
        stands,
        arc_row,
        arc_gain,
        problem.sources.survival,
        np.where(problem.is_pop, ALWAYS, problem.credit),
        pops,
    )


def _blocks(graph: Graph) -> Int64:
    work = graph.arc_start[graph.copy_start] + graph.copy_start
    cuts = np.searchsorted(work, np.linspace(0.0, float(work[-1]), BLOCKS + 1))
    cuts[0], cuts[-1] = 0, len(graph.size)
    return np.maximum.accumulate(cuts)


class _Rows(NamedTuple):
    row_start: Int64
    location: Int32
    base: Float64
    size: Float64


class _Reach(NamedTuple):
    near_start: Int64
    near: Int32
    waiting: Float64
    byte_price: Float64
    backing: Int64  # POPs that are candidates whether or not they serve
    stands: Bool
    room: Float64
    push_price: Float64
    current_start: Int64
    current: Int32
    budget: float


@numba.njit(cache=True)
def _mark_held(reach: _Reach, s: int, held: Int64) -> None:
    for at in range(reach.current_start[s], reach.current_start[s + 1]):
        held[reach.current[at]] = s


@numba.njit(cache=True)
def _may_hold(reach: _Reach, s: int, n: int, size: float, held: Int64) -> bool:
    if reach.stands[n]:
        return True
    return bool(size <= reach.room[n] and (held[n] == s or size <= reach.budget))


@numba.njit(cache=True)
def _count(rows: _Rows, reach: _Reach) -> tuple[Int64, int]:
    """Where each segment's candidates begin, and how many arcs there are."""
    n_sources, n_segments, n_arcs = len(reach.room), len(rows.size), 0
    copy_start = np.zeros(n_segments + 1, np.int64)
    seen, held = np.full(n_sources, -1), np.full(n_sources, -1)
    for s in range(n_segments):
        _mark_held(reach, s, held)
        size, copies = rows.size[s], 0
        for k in range(rows.row_start[s], rows.row_start[s + 1]):
            location = rows.location[k]
            for at in range(reach.near_start[location], reach.near_start[location + 1]):
                n = reach.near[at]
                gain = rows.base[k] - reach.waiting[at] - size * reach.byte_price[n]
                if gain > 0 and _may_hold(reach, s, n, size, held):
                    n_arcs += 1
                    copies += 1 if seen[n] != s else 0
                    seen[n] = s
        for n in reach.backing:
            if seen[n] != s and _may_hold(reach, s, n, size, held):
                copies += 1
        copy_start[s + 1] = copy_start[s] + copies
    return copy_start, n_arcs


@numba.njit(cache=True)
def _filled(rows: _Rows, reach: _Reach, copy_start: Int64, n_arcs: int):  # type: ignore[no-untyped-def]
    """Arc starts, sources, pushes and bytes of the candidates, and their arcs."""
    n_sources, n_segments, n_copies = len(reach.room), len(rows.size), copy_start[-1]
    arc_start, source = np.zeros(n_copies + 1, np.int64), np.empty(n_copies, np.int32)
    push, moved, stands = np.zeros(n_copies), np.zeros(n_copies), np.zeros(n_copies, np.bool_)
    arc_row, arc_gain = np.empty(n_arcs, np.int32), np.empty(n_arcs, np.float32)
    held, copy_of, arcs = np.full(n_sources, -1), np.full(n_sources, -1), np.zeros(n_sources, np.int64)
    touched = np.empty(n_sources, np.int64)
    for s in range(n_segments):
        _mark_held(reach, s, held)
        size, n_touched, first = rows.size[s], 0, copy_start[s]
        for k in range(rows.row_start[s], rows.row_start[s + 1]):
            location = rows.location[k]
            for at in range(reach.near_start[location], reach.near_start[location + 1]):
                n = reach.near[at]
                gain = rows.base[k] - reach.waiting[at] - size * reach.byte_price[n]
                if gain > 0 and _may_hold(reach, s, n, size, held):
                    if copy_of[n] < first:
                        copy_of[n], arcs[n], touched[n_touched] = first + n_touched, 0, n
                        n_touched += 1
                    arcs[n] += 1
        for n in reach.backing:
            if copy_of[n] < first and _may_hold(reach, s, n, size, held):
                copy_of[n], arcs[n], touched[n_touched] = first + n_touched, 0, n
                n_touched += 1
        for i in range(n_touched):
            n, c = touched[i], first + i
            source[c], stands[c] = n, reach.stands[n]
            if not stands[c] and held[n] != s:
                push[c], moved[c] = size * reach.push_price[n], size
            arc_start[c + 1] = arc_start[c] + arcs[n]
            arcs[n] = arc_start[c]
        for k in range(rows.row_start[s], rows.row_start[s + 1]):
            location = rows.location[k]
            for at in range(reach.near_start[location], reach.near_start[location + 1]):
                n = reach.near[at]
                gain = rows.base[k] - reach.waiting[at] - size * reach.byte_price[n]
                if gain > 0 and _may_hold(reach, s, n, size, held):
                    arc_row[arcs[n]] = k
                    arc_gain[arcs[n]] = _rounded_up(gain)
                    arcs[n] += 1
    return arc_start, source, push, moved, stands, arc_row, arc_gain


@numba.njit(cache=True)
def _rounded_up(value: float):  # type: ignore[no-untyped-def]
    """A single-precision number that is not below the positive value."""
    return np.float32(value * (1.0 + 1.2e-7))


@numba.njit(cache=True)
def _row_maximum(arc_row: Int32, arc_gain: Float32, best: Float64) -> None:
    for at in range(len(arc_row)):
        best[arc_row[at]] = max(best[arc_row[at]], np.float64(arc_gain[at]))
