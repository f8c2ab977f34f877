"""Who could hold what for whom: an instance as the kernels walk it, without writing its candidates down.

A copy (s, n) is a candidate where source n may hold segment s (9), has room for it at all (3), and serves at least one
location that asks for s more cheaply than the sources that need no copy. Those sources (POPs that hold everything,
never fail and have no uplink limit, and the origin) take what is left of every row, so they need no variables:

    gain_kn = base_k - price_kn      saved by a request of row k that n serves, in m$

A large instance has thousands of millions of pairs (row, source); they are found anew from lists of the sources near
each location whenever something has to be said about all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem

BLOCKS = 16
"""Parts of about equal work into which the segments are cut; sums over them are taken in order, on any machine."""
WORTH_THREADS = 50_000
"""Arcs below which threads cost more than they save."""
ALWAYS = 40.0
"""Credit of a copy on a POP towards serving everybody: 1 - e^-40 = 1 in double precision."""


class Rows(NamedTuple):
    """Demand rows with any requests, sorted by segment and location, and their segments."""

    start: Int64  # rows of each segment (S + 1,)
    location: Int32  # (R,)
    requests: Float64  # (R,)
    base: Float64  # m$ for a request that no candidate serves (R,)
    size: Float64  # bytes (S,)
    backing_limit: Float64  # penalty for a segment without a tier-1 copy, 0 where none is asked for (S,)


class Near(NamedTuple):
    """Sources within reach of each location, and what holding and serving costs there."""

    start: Int64  # (L + 1,)
    source: Int32  # by location (P,)
    waiting: Float64  # m$ for each request (P,)
    serves: Bool  # (L, N)
    request_price: Float64  # (L, N)
    byte_price: Float64  # m$ for each byte served (N,)
    survival: Float64  # (N,)
    credit: Float64  # towards coverage (N,)
    room: Float64  # bytes (N,)
    stands: Bool  # holds everything in any case, for nothing (N,)
    is_backing: Bool  # POPs whose copies count for tier 1 (N,)
    backing: Int64  # their codes: candidates whether or not they serve
    push_price: Float64  # m$ for each byte pushed (N,)
    place: Int64  # number of the node among those of its own location, -1 for POPs (N,)
    current_start: Int64  # copies held now, by segment (S + 1,)
    current: Int32
    budget: float  # bytes that may be pushed


@dataclass(frozen=True)
class Reach:
    """The instance for the kernels, its limits, and what maps it to the problem.

    Attributes:
        rows, near: as the kernels read them.
        demand_row: demand row of each row. (R,)
        limits: bytes of storage (N), of uplink (N) and of movement (1); 0 where there is no limit. (2 N + 1,)
        constant: cost of serving everything from the sources that need no copy, in m$.
        best_gain: most that a request of each row could save, in m$. (R,)
        blocks: first segment of each block, and the end. (BLOCKS + 1,)
        n_pairs: pairs of a row and a source within its reach: no graph has more arcs.
    """

    rows: Rows
    near: Near
    demand_row: Int64
    limits: Float64
    constant: float
    best_gain: Float64
    blocks: Int64
    n_pairs: int

    @classmethod
    def of(cls, problem: PlacementProblem) -> Reach:
        demand, n_segments = problem.demand, len(problem.segments)
        order = np.lexsort((demand.location, demand.segment))
        order = order[demand.requests[order] > 0]
        rows = Rows(
            np.searchsorted(demand.segment[order], np.arange(n_segments + 1)),
            demand.location[order],
            demand.requests[order],
            problem.cheapest_of(problem.sure)[order],
            problem.segments.bytes.astype(np.float64),
            np.full(n_segments, _backing_penalty(problem)),
        )
        near = _near(problem)
        pairs = np.concatenate([[0], np.cumsum(np.diff(near.start)[rows.location])])
        constant, best_gain = float(rows.requests @ rows.base), _best_gain(rows, near)
        blocks = cut_evenly(pairs[rows.start])
        return cls(rows, near, order, _limits(problem), constant, best_gain, blocks, int(pairs[-1]))


def cut_evenly(work_before: Int64) -> Int64:
    """First segments of `BLOCKS` blocks of about equal work, and the end, from the work before each segment. (S + 1,)"""
    work = work_before + np.arange(len(work_before))
    cuts = np.searchsorted(work, np.linspace(0.0, float(work[-1]), BLOCKS + 1))
    cuts[0], cuts[-1] = 0, len(work_before) - 1
    return np.maximum.accumulate(cuts)


def for_each_block(blocks: Int64, work: Callable[[int, int, int], None], threads: int, *, arcs: int) -> None:
    """Calls `work(block, first segment, end)` for every block, on as many threads as so many arcs are worth."""
    spans = [(b, first, end) for b, (first, end) in enumerate(itertools.pairwise(blocks.tolist()))]
    if threads <= 1 or arcs < WORTH_THREADS:
        for span in spans:
            work(*span)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda span: work(*span), spans))


def _backing_penalty(problem: PlacementProblem) -> float:
    """What a segment without a tier-1 copy costs, where one is asked for and no POP holds everything."""
    asked = problem.settings.require_tier_one_copy and not problem.standing.any()
    return problem.settings.origin_fallback_millidollars if asked else 0.0


def _limits(problem: PlacementProblem) -> Float64:
    uplink, budget = problem.usable_uplink_bytes, problem.movement_limit_bytes
    storage = np.where(problem.standing, 0.0, problem.storage_limit_bytes)
    movement = budget if np.isfinite(budget) else 0.0
    return np.concatenate([storage, np.where(np.isfinite(uplink), uplink, 0.0), [movement]])


def _near(problem: PlacementProblem) -> Near:
    may_hold = problem.standing | (problem.sources.eligible & (problem.storage_limit_bytes > 0))
    location, near = np.nonzero(problem.can_serve & (may_hold & ~problem.sure)[None, :])
    pops = problem.is_pop & problem.sources.eligible & ~problem.standing
    backs = pops if _backing_penalty(problem) > 0 else np.zeros_like(pops)
    return Near(
        np.searchsorted(location, np.arange(len(problem.locations) + 1)),
        near.astype(np.int32),
        problem.request_price[location, near],
        problem.can_serve,
        problem.request_price,
        problem.byte_price,
        problem.sources.survival,
        np.where(problem.is_pop, ALWAYS, problem.credit),
        problem.storage_limit_bytes,
        problem.standing,
        backs,
        np.flatnonzero(backs),
        problem.push_price,
        np.where(problem.is_pop, -1, _places(problem.sources.location)),
        *problem.by_segment(problem.current_keys),
        problem.movement_limit_bytes,
    )


def _places(location: Int32) -> Int64:
    """0, 1, 2, ... for the sources of each location, by code. (N,)"""
    order = np.argsort(location, kind="stable")
    ordered = location[order]
    place = np.empty(len(location), np.int64)
    place[order] = np.arange(len(location)) - np.searchsorted(ordered, ordered)
    return place


@numba.njit(cache=True)
def _best_gain(rows: Rows, near: Near) -> Float64:
    best = np.zeros(len(rows.requests))
    for s in range(len(rows.size)):
        for k in range(rows.start[s], rows.start[s + 1]):
            for at in range(near.start[rows.location[k]], near.start[rows.location[k] + 1]):
                gain = rows.base[k] - near.waiting[at] - rows.size[s] * near.byte_price[near.source[at]]
                best[k] = max(best[k], gain)
    return best


@numba.njit(cache=True, nogil=True)
def mark_held(near: Near, s: int, held: Int64) -> None:
    """Notes in `held` the sources that hold segment s now. (N,)"""
    for at in range(near.current_start[s], near.current_start[s + 1]):
        held[near.current[at]] = s


@numba.njit(cache=True, nogil=True)
def may_hold(near: Near, n: int, size: float, is_held: bool) -> bool:
    """Whether source n has room for a segment of this size, and the budget suffices to bring it there."""
    if near.stands[n]:
        return True
    return bool(size <= near.room[n] and (is_held or size <= near.budget))
