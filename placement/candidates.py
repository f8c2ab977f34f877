"""The copies that prices are put on, and the requests that each could serve: the graph of the price search.

Candidates, as `placement/reach.py` defines them, are sorted by segment and source, arcs by candidate, so that a segment
is one block of memory and blocks of segments are independent of each other once the limits of the sources have prices.

Without `for_each_row` all candidates are here. With it each segment begins with one group of the nodes of every
location (`groups`: a node belongs to the group of its number in its location), the POPs and with whatever holds it now;
the copies that prices call for join later. Every certificate is about all candidates in any case (`placement/bound.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numba
import numpy as np

from placement.keys import find_keys
from placement.problem import Bool, Float32, Float64, Int32, Int64, PlacementProblem
from placement.reach import Near, Reach, Rows, cut_evenly, for_each_block, mark_held, may_hold


class Graph(NamedTuple):
    """The candidates as the kernels read them."""

    row_start: Int64  # rows of each segment (S + 1,)
    copy_start: Int64  # candidates of each segment (S + 1,)
    size: Float64  # bytes (S,)
    backing_limit: Float64  # penalty for a segment without a tier-1 copy, 0 where none is asked for (S,)
    requests: Float64  # (R,)
    arc_start: Int64  # arcs of each candidate (C + 1,)
    source: Int32  # (C,)
    push: Float32  # m$ to push the copy, 0 where it is held (C,)
    moved: Float32  # bytes to push (C,)
    stands: Bool  # held in any case, for nothing (C,)
    arc_row: Int32  # (A,)
    arc_gain: Float32  # (A,)
    survival: Float64  # (N,)
    credit: Float64  # towards coverage (N,)
    is_backing: Bool  # POPs whose copies count for tier 1 (N,)


@dataclass(frozen=True)
class Candidates:
    """A graph, and the instance that it belongs to."""

    graph: Graph
    reach: Reach
    blocks: Int64

    @classmethod
    def of(cls, problem: PlacementProblem, *, for_each_row: int | None = None) -> Candidates:
        """All candidates, or about so many for each demand row and the copies held now."""
        reach = Reach.of(problem)
        groups = (
            1 if for_each_row is None else max(1, round(reach.n_pairs / max(1, for_each_row * len(reach.demand_row))))
        )
        return cls.among(reach, *_candidates_of_groups(reach.rows, reach.near, groups))

    @classmethod
    def among(cls, reach: Reach, copy_start: Int64, source: Int32) -> Candidates:
        """The graph of these candidates, sorted by segment and source."""
        rows, near = reach.rows, reach.near
        arc_start, push, moved, arc_row, arc_gain = _arcs(rows, near, copy_start, source)
        graph = Graph(
            rows.start,
            copy_start,
            rows.size,
            rows.backing_limit,
            rows.requests,
            arc_start,
            source,
            push,
            moved,
            near.stands[source],
            arc_row,
            arc_gain,
            near.survival,
            near.credit,
            near.is_backing,
        )
        return cls(graph, reach, cut_evenly(arc_start[copy_start]))

    def __len__(self) -> int:
        return len(self.graph.source)

    @property
    def n_arcs(self) -> int:
        return len(self.graph.arc_row)

    @property
    def rows(self) -> Int64:
        """Demand row of each row of the graph. (R,)"""
        return self.reach.demand_row

    @property
    def limits(self) -> Float64:
        return self.reach.limits

    @cached_property
    def segment(self) -> Int32:
        """Segment of each candidate, (C,)."""
        return np.repeat(np.arange(len(self.graph.size), dtype=np.int32), np.diff(self.graph.copy_start))

    @cached_property
    def keys(self) -> Int64:
        """One number for each candidate, segment * N + source, ascending. (C,)"""
        return np.asarray(self.segment * np.int64(max(1, len(self.graph.survival))) + self.graph.source)

    def sent_bytes(self, share: Float32) -> Float64:
        """Bytes that each candidate sends when it serves these shares of its arcs, (C,)."""
        graph = self.graph
        of = np.repeat(np.arange(len(self)), np.diff(graph.arc_start))
        weights = graph.requests[graph.arc_row] * graph.size[self.segment[of]] * share
        return np.asarray(np.bincount(of, weights=weights, minlength=len(self)), np.float64)

    def shares_on_arcs(self, row: Int64, source: Int32, share: Float64) -> tuple[Float64, Bool]:
        """Shares of (demand row, source) pairs on the arcs, (A,), and which pairs have an arc. (F,)"""
        row_of = np.full(1 + max(int(self.rows.max(initial=-1)), int(row.max(initial=-1))), -1, dtype=np.int64)
        row_of[self.rows] = np.arange(len(self.rows))
        graph, n_sources = self.graph, np.int64(max(1, len(self.graph.survival)))
        arcs = graph.arc_row * n_sources + np.repeat(graph.source, np.diff(graph.arc_start))
        on_arcs = np.zeros(len(arcs))
        at, known = find_keys(arcs, row_of[row] * n_sources + source, order=np.argsort(arcs, kind="stable"))
        on_arcs[at[known]] = share[known]
        return on_arcs, known

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
        return replace(self, graph=smaller, blocks=cut_evenly(smaller.arc_start[smaller.copy_start]))

    def joined_by(self, keys: Int64) -> tuple[Candidates, Bool]:
        """The graph with these candidates too, and which of its candidates were there before."""
        graph, n_sources = self.graph, np.int64(max(1, len(self.graph.survival)))
        start, source, at = _missing(graph.copy_start, graph.source, np.sort(keys), int(n_sources))
        more = Candidates.among(self.reach, start, source).graph
        arcs = np.diff(more.arc_start)
        arcs_at = np.repeat(graph.arc_start[at], arcs)
        larger = graph._replace(
            copy_start=graph.copy_start + start,
            arc_start=np.concatenate([[0], np.cumsum(np.insert(np.diff(graph.arc_start), at, arcs))]),
            source=np.insert(graph.source, at, more.source),
            push=np.insert(graph.push, at, more.push),
            moved=np.insert(graph.moved, at, more.moved),
            stands=np.insert(graph.stands, at, more.stands),
            arc_row=np.insert(graph.arc_row, arcs_at, more.arc_row),
            arc_gain=np.insert(graph.arc_gain, arcs_at, more.arc_gain),
        )
        old = np.insert(np.ones(len(self), dtype=np.bool_), at, False)
        return replace(self, graph=larger, blocks=cut_evenly(larger.arc_start[larger.copy_start])), old

    def for_each_block(self, work: Callable[[int, int, int], None], threads: int) -> None:
        """Calls `work(block, first segment, end)` for every block, on as many threads as are worth it."""
        for_each_block(self.blocks, work, threads, arcs=self.n_arcs)


@numba.njit(cache=True)
def _missing(copy_start: Int64, source: Int32, keys: Int64, n_sources: int) -> tuple[Int64, Int32, Int64]:
    """Of ascending keys, those that are no candidates yet: starts by segment, sources, and where they are to stand."""
    n_segments, start = len(copy_start) - 1, np.zeros(len(copy_start), np.int64)
    found, at, count, k = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64), 0, 0
    for s in range(n_segments):
        c = copy_start[s]
        while k < len(keys) and keys[k] < (s + 1) * n_sources:
            n = keys[k] - s * n_sources
            while c < copy_start[s + 1] and source[c] < n:
                c += 1
            repeated = k > 0 and keys[k] == keys[k - 1]
            if not repeated and (c == copy_start[s + 1] or source[c] != n):
                found[count], at[count] = n, c
                count += 1
            k += 1
        start[s + 1] = count
    return start, found[:count], at[:count]


@numba.njit(cache=True)
def _candidates_of_groups(rows: Rows, near: Near, groups: int) -> tuple[Int64, Int32]:
    """Where each segment's candidates begin, and their sources in ascending order."""
    n_sources, n_segments = len(near.room), len(rows.size)
    seen, held = np.full(n_sources, -1), np.full(n_sources, -1)
    found, copy_start = [np.int32(0) for _ in range(0)], np.zeros(n_segments + 1, np.int64)
    for s in range(n_segments):
        mark_held(near, s, held)
        size = rows.size[s]
        for k in range(rows.start[s], rows.start[s + 1]):
            location = rows.location[k]
            for at in range(near.start[location], near.start[location + 1]):
                n = near.source[at]
                if seen[n] == s or (near.place[n] >= 0 and near.place[n] % groups != s % groups and held[n] != s):
                    continue
                gain = rows.base[k] - near.waiting[at] - size * near.byte_price[n]
                if gain > 0 and may_hold(near, n, size, held[n] == s):
                    seen[n] = s
                    found.append(n)
        for n in near.backing:
            if seen[n] != s and may_hold(near, n, size, held[n] == s):
                seen[n] = s
                found.append(np.int32(n))
        copy_start[s + 1] = len(found)
    source = np.array(found, dtype=np.int32)
    for s in range(n_segments):
        source[copy_start[s] : copy_start[s + 1]].sort()
    return copy_start, source


@numba.njit(cache=True)
def _gain(rows: Rows, near: Near, k: int, n: int, size: float) -> float:
    location = rows.location[k]
    if not near.serves[location, n]:
        return 0.0
    return float(rows.base[k] - near.request_price[location, n] - size * near.byte_price[n])


@numba.njit(cache=True)
def _arcs(rows: Rows, near: Near, copy_start: Int64, source: Int32):  # type: ignore[no-untyped-def]
    """Arc starts, pushes and bytes of the candidates, and the rows and gains of their arcs."""
    n_sources, n_copies = len(near.room), len(source)
    arc_start, held = np.zeros(n_copies + 1, np.int64), np.full(n_sources, -1)
    push, moved = np.zeros(n_copies, np.float32), np.zeros(n_copies, np.float32)
    for s in range(len(rows.size)):
        mark_held(near, s, held)
        for c in range(copy_start[s], copy_start[s + 1]):
            n, arcs = source[c], 0
            for k in range(rows.start[s], rows.start[s + 1]):
                arcs += 1 if _gain(rows, near, k, n, rows.size[s]) > 0 else 0
            arc_start[c + 1] = arc_start[c] + arcs
            if not near.stands[n] and held[n] != s:
                push[c], moved[c] = rows.size[s] * near.push_price[n], rows.size[s]
    arc_row, arc_gain = np.empty(arc_start[-1], np.int32), np.empty(arc_start[-1], np.float32)
    for s in range(len(rows.size)):
        for c in range(copy_start[s], copy_start[s + 1]):
            at = arc_start[c]
            for k in range(rows.start[s], rows.start[s + 1]):
                gain = _gain(rows, near, k, source[c], rows.size[s])
                if gain > 0:
                    arc_row[at], arc_gain[at] = k, gain
                    at += 1
    return arc_start, push, moved, arc_row, arc_gain
