"""Copies: which source holds which segment, and which more fit within the hard limits."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from placement.problem import Float64, Int32, Int64, PlacementProblem

NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class Copies:
    """What is held where, sorted by (segment, source). Both arrays are (C,)."""

    segment: Int32
    source: Int32

    @classmethod
    def sorted(cls, segment: Int32, source: Int32) -> Copies:
        order = np.lexsort((source, segment))
        return cls(segment[order].astype(np.int32), source[order].astype(np.int32))


def keep_current(problem: PlacementProblem) -> Copies:
    """The copies held now, less what is no longer eligible or no longer fits; the most asked-for are kept first."""
    rank = requests_per_segment(problem)[problem.current_segment]
    order = np.lexsort((problem.current_source, problem.current_segment, -rank))
    segment, source = problem.current_segment[order], problem.current_source[order]
    empty = np.zeros(0, dtype=np.int32)
    return add_while_fitting(problem, Copies(empty, empty), segment, source)


def within_limits(problem: PlacementProblem, copies: Copies) -> Copies:
    """These copies less those that break a hard limit, by as little as a solver's rounding."""
    empty = np.zeros(0, dtype=np.int32)
    return add_while_fitting(problem, Copies(empty, empty), copies.segment, copies.source)


def requests_per_segment(problem: PlacementProblem) -> Float64:
    demand = problem.demand
    total = np.bincount(demand.segment, weights=demand.requests, minlength=len(problem.segments))
    return np.asarray(total, dtype=np.float64)


def spare_storage(problem: PlacementProblem, copies: Copies) -> Float64:
    sized = problem.segments.bytes[copies.segment]
    used = np.bincount(copies.source, weights=sized, minlength=len(problem.sources))
    return problem.storage_limit_bytes - used


def moved_bytes(problem: PlacementProblem, copies: Copies) -> Float64:
    """Bytes pushed from each of `movement_limits_bytes`, (B,)."""
    is_new = ~problem.is_current(copies.segment, copies.source)
    pushed = problem.segments.bytes[copies.segment[is_new]].astype(np.float64)
    slots = problem.movement_slots[copies.source[is_new]]
    weights = np.repeat(pushed, slots.shape[1])
    moved = np.bincount(slots.ravel(), weights=weights, minlength=len(problem.movement_limits_bytes))
    return np.asarray(moved, dtype=np.float64)


def movement_left(problem: PlacementProblem, copies: Copies) -> Float64:
    """Bytes that may still be pushed within each of `movement_limits_bytes`, (B,)."""
    return problem.movement_limits_bytes - moved_bytes(problem, copies)


def add_while_fitting(problem: PlacementProblem, copies: Copies, segment: Int32, source: Int32) -> Copies:
    """Adds the given pairs in order, skipping those already there and those that break a hard limit."""
    allowed = problem.sources.eligible[source] & ~problem.standing[source]
    segment, source = segment[allowed], source[allowed]
    price = np.where(problem.is_current(segment, source), 0, problem.segments.bytes[segment]).astype(np.float64)
    added = _fitting(
        (copies.segment, copies.source),
        (segment, source, price),
        problem.segments.bytes,
        spare_storage(problem, copies),
        _source_codes(problem),
        copy_caps(problem),
        movement_left(problem, copies),
    )
    segments = np.concatenate([copies.segment, segment[added]])
    return Copies.sorted(segments, np.concatenate([copies.source, source[added]]))


def _source_codes(problem: PlacementProblem) -> tuple[Int32, Int64, Int64]:
    return problem.sources.network, problem.sources.tier.astype(np.int64), problem.movement_slots


def copy_caps(problem: PlacementProblem) -> Int64:
    """Most copies in one network, then on tiers 1, 2 and 3."""
    tiers = problem.settings.max_copies_by_tier or (NO_LIMIT, NO_LIMIT, NO_LIMIT)
    return np.array([problem.settings.max_copies_per_network, *tiers], dtype=np.int64)


@numba.njit(cache=True)
def has_room(s, n, first, following, holder, network, tier, caps):  # type: ignore[no-untyped-def]
    """Whether one more copy of segment s at n repeats no copy and keeps its network and tier within their caps."""
    in_network, in_tier = 0, 0
    at = first[s]
    while at >= 0:
        m = holder[at]
        if m == n:
            return False
        in_network += 1 if network[n] >= 0 and network[m] == network[n] else 0
        in_tier += 1 if tier[m] == tier[n] else 0
        at = following[at]
    return in_network < caps[0] and in_tier < caps[tier[n]]


@numba.njit(cache=True)
def may_pay(n: int, price: float, slots: Int64, budget: Float64) -> bool:
    """Whether every budget that a push to n is taken from has so many bytes left."""
    least = np.inf
    for at in range(slots.shape[1]):
        least = min(least, budget[slots[n, at]])
    return bool(price <= least)


@numba.njit(cache=True)
def pay(n: int, price: float, slots: Int64, budget: Float64) -> None:
    """Takes a push to n from its budgets."""
    for at in range(slots.shape[1]):
        budget[slots[n, at]] -= price


@numba.njit(cache=True)
def _fitting(held, offered, size, spare, codes, caps, budget):  # type: ignore[no-untyped-def]
    """Which offered pairs are added, in order."""
    network, tier, slots = codes
    total = len(held[0]) + len(offered[0])
    first, following = np.full(len(size), -1), np.full(total, -1)
    holder = np.empty(total, np.int64)
    for at in range(len(held[0])):
        holder[at], following[at] = held[1][at], first[held[0][at]]
        first[held[0][at]] = at
    added, at = np.zeros(len(offered[0]), np.bool_), len(held[0])
    for i in range(len(offered[0])):
        s, n, price = offered[0][i], offered[1][i], offered[2][i]
        if size[s] > spare[n] or not may_pay(n, price, slots, budget):
            continue
        if not has_room(s, n, first, following, holder, network, tier, caps):
            continue
        added[i] = True
        spare[n] -= size[s]
        pay(n, price, slots, budget)
        holder[at], following[at], first[s] = n, first[s], at
        at += 1
    return added
