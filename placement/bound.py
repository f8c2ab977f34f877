"""A certified lower bound on the cost of any plan, from any non-negative prices.

Put prices lambda_n on storage, mu_n on uplink, pi on movement (each in m$ per byte), v_k on serving row k beyond once and
tau_s <= penalty on the tier-1 copy of a segment, and drop the spread, tier, coverage and availability rules, which only
cost. For every choice of prices,

    LB = sum_k r_k (base_k - v_k) + sum_s tau_s
         - sum_sn max(0, sum_k r_k p_n (base_k - price_kn - bytes_s mu_n - v_k)^+ + tau_s [n is a POP]
                         - bytes_s (lambda_n + (push_n + pi) new_sn))
         - sum_n storage_n lambda_n - sum_n uplink_n mu_n - budget pi   <=   cost of any plan,

because the best response of each copy to its prices is at least as cheap as what a plan can do with it. base_k is the
price of the cheapest source that needs no copy, never fails and has no uplink limit: such sources take what is left of
any row, so they need no variables. Sources that hold everything pay no storage and no push.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem


@dataclass(frozen=True)
class Prices:
    """Non-negative prices: storage (N,), uplink (N,), movement (a number), serving once (D,) and backing (S,)."""

    storage: Float64
    uplink: Float64
    movement: float
    once: Float64
    backing: Float64


@dataclass(frozen=True)
class Bound:
    """A proven lower bound in millidollars and the prices that prove it."""

    value: float
    prices: Prices


class Arrays(NamedTuple):
    """The instance as the kernel reads it. Demand rows with requests, sorted by segment; arcs grouped by location."""

    row_start: Int64  # (S + 1,)
    location: Int32  # (D,)
    requests: Float64  # (D,)
    base: Float64  # price of a request that no priced source serves (D,)
    size: Float64  # (S,)
    near_start: Int64  # priced sources in reach of each location (L + 1,)
    near: Int32  # (A,)
    waiting: Float64  # (A,)
    byte_price: Float64  # (N,)
    push_price: Float64  # (N,)
    survival: Float64  # (N,)
    free: Bool  # holds everything (N,)
    pop: Int64  # POPs that may hold copies
    is_backing: Bool  # whether a source is one of them (N,)
    fits: Float64  # largest segment that can be held (N,)
    current_start: Int64  # (S + 1,)
    current: Int32  # (C,)


class Used(NamedTuple):
    """What the best response uses of each limit; filled in by the kernel."""

    storage: Float64  # bytes (N,)
    uplink: Float64  # bytes (N,)
    movement: Float64  # bytes (1,)
    found: Int64  # keys segment * N + source of copies that are held, at least in part (room,)
    part: Float64  # how far (room,)
    n_found: Int64  # how many of them are filled in (1,); what exceeds the room is left out


class RowSearch(NamedTuple):
    """How the prices of the rows move with the pass over them; see `placement/prices.py`."""

    scale: Float64  # (D,)
    mean: Float64  # running mean of the slope (D,)
    square: Float64  # running mean of its square (D,)
    rate: float  # 0 leaves the prices as they are
    decay: tuple[float, float]  # of the running means
    correction: tuple[float, float]  # of the running means, for their start at zero


@dataclass(frozen=True)
class Market:
    """An instance laid out for the price search; `rows` maps its rows to those of the demand."""

    arrays: Arrays
    rows: Int64
    storage: Float64
    uplink: Float64
    budget: float
    constant: float

    @classmethod
    def of(cls, problem: PlacementProblem) -> Market:
        demand = problem.demand
        order = np.lexsort((demand.location, demand.segment))
        order = order[demand.requests[order] > 0]
        sure = problem.standing & (problem.sources.survival >= 1) & ~np.isfinite(problem.usable_uplink_bytes)
        base = _base_price(problem, sure)[order]
        uplink, budget = problem.usable_uplink_bytes, problem.movement_limit_bytes
        return cls(
            arrays=_arrays(problem, order, base, sure),
            rows=order,
            storage=np.where(problem.standing, 0.0, problem.storage_limit_bytes),
            uplink=np.where(np.isfinite(uplink), uplink, 0.0),
            budget=budget if np.isfinite(budget) else 0.0,
            constant=float(demand.requests[order] @ base),
        )

    @property
    def n_arcs(self) -> int:
        """(row, source) pairs that one pass looks at."""
        return int(np.diff(self.arrays.near_start)[self.arrays.location].sum())

    def value(self, prices: Prices) -> float:
        """The bound at these prices, whose `once` is (rows,) in the order of the market."""
        used, rows = self.nothing_used(), still(len(self.rows))
        inner = respond(self.arrays, _price_arrays(prices), prices.once, 0.0, used, rows, (0, 1))
        limits = float(self.storage @ prices.storage + self.uplink @ prices.uplink) + self.budget * prices.movement
        once = float(self.arrays.requests @ prices.once)
        return self.constant + float(prices.backing.sum()) - once - inner - limits

    def nothing_used(self, room: int = 0) -> Used:
        """Empty counters, with room for so many copies by name."""
        n = len(self.storage)
        named = np.empty(room, dtype=np.int64), np.empty(room), np.zeros(1, dtype=np.int64)
        return Used(np.zeros(n), np.zeros(n), np.zeros(1), *named)


def certify(problem: PlacementProblem, prices: Prices) -> float:
    """The lower bound that these prices prove, never below zero: every cost is positive.

    Infinite limits cannot be priced, and a tier-1 copy is worth no more than the penalty for missing it: such prices
    are lowered to what proves something.
    """
    market = Market.of(problem)
    return max(0.0, market.value(_lawful(problem, market, prices)))


def first_backing(problem: PlacementProblem) -> Float64:
    """What the cheapest tier-1 copy of each segment costs to push, at most the penalty for missing it, (S,)."""
    settings, n_sources = problem.settings, len(problem.sources)
    if not settings.require_tier_one_copy or problem.standing.any():
        return np.zeros(len(problem.segments))
    size, most = problem.segments.bytes.astype(np.float64), np.full(len(problem.segments), np.inf)
    for n in np.flatnonzero(problem.is_pop & problem.sources.eligible):
        held = np.isin(np.arange(len(size)) * n_sources + n, problem.current_keys)
        cost = np.where(held, 0.0, size * problem.push_price[n])
        most = np.where(size <= problem.storage_limit_bytes[n], np.minimum(most, cost), most)
    return np.asarray(np.minimum(most, settings.origin_fallback_millidollars))


def still(n_rows: int) -> RowSearch:
    """Row prices that do not move."""
    none = np.zeros(n_rows)
    return RowSearch(none, none, none, 0.0, (0.0, 0.0), (1.0, 1.0))


def _lawful(problem: PlacementProblem, market: Market, prices: Prices) -> Prices:
    settings, budget = problem.settings, problem.movement_limit_bytes
    backed = settings.require_tier_one_copy and not problem.standing.any()
    return Prices(
        storage=np.where(problem.standing, 0.0, prices.storage),
        uplink=np.where(np.isfinite(problem.usable_uplink_bytes), prices.uplink, 0.0),
        movement=prices.movement if np.isfinite(budget) else 0.0,
        once=prices.once[market.rows],
        backing=np.minimum(prices.backing, settings.origin_fallback_millidollars if backed else 0.0),
    )


def _base_price(problem: PlacementProblem, sure: Bool) -> Float64:
    """Price of each row's request at the cheapest sure source, or the origin, (D,)."""
    base, location = problem.origin_price.copy(), problem.demand.location
    for n in np.flatnonzero(sure):
        price = problem.request_price[location, n] + problem.byte_price[n] * problem.demand_segment_bytes
        base = np.where(problem.can_serve[location, n], np.minimum(base, price), base)
    return np.asarray(base)


def _arrays(problem: PlacementProblem, order: Int64, base: Float64, sure: Bool) -> Arrays:
    demand, n_segments, n_sources = problem.demand, len(problem.segments), max(1, len(problem.sources))
    may_hold = problem.standing | (problem.sources.eligible & (problem.storage_limit_bytes > 0))
    location, near = np.nonzero(problem.can_serve & (may_hold & ~sure)[None, :])
    backing = problem.is_pop & problem.sources.eligible & ~problem.standing
    return Arrays(
        row_start=np.searchsorted(demand.segment[order], np.arange(n_segments + 1)),
        location=demand.location[order],
        requests=demand.requests[order],
        base=base,
        size=problem.segments.bytes.astype(np.float64),
        near_start=np.searchsorted(location, np.arange(len(problem.locations) + 1)),
        near=near.astype(np.int32),
        waiting=problem.request_price[location, near],
        byte_price=problem.byte_price,
        push_price=problem.push_price,
        survival=problem.sources.survival,
        free=problem.standing,
        pop=np.flatnonzero(backing),
        is_backing=backing,
        fits=problem.storage_limit_bytes,
        current_start=np.searchsorted(problem.current_keys // n_sources, np.arange(n_segments + 1)),
        current=(problem.current_keys % n_sources).astype(np.int32),
    )


def _price_arrays(prices: Prices) -> tuple[Float64, Float64, float, Float64]:
    return prices.storage, prices.uplink, prices.movement, prices.backing


@numba.njit(cache=True)
def respond(  # type: ignore[no-untyped-def]
    arrays: Arrays, prices, once: Float64, width: float, used: Used, rows: RowSearch, block: tuple[int, int]
) -> float:
    """Total value of the copies worth their prices, over the segments block[0], block[0] + block[1], ...

    Adds to `used` what they use, copies within `width` m$ per byte of their price counting in part, and moves the prices
    of the rows if `rows` says so.
    """
    storage, uplink, movement, backing = prices
    n_sources, total, reward = len(storage), 0.0, arrays.byte_price + uplink
    # Bare arrays: reading a field costs more than the arithmetic of the innermost loops.
    near, waiting, survival, size_of = arrays.near, arrays.waiting, arrays.survival, arrays.size
    row_start, near_start, row_location = arrays.row_start, arrays.near_start, arrays.location
    row_base, row_requests, current, current_start = arrays.base, arrays.requests, arrays.current, arrays.current_start
    free, fits, push_price, pops, is_backing = (
        arrays.free,
        arrays.fits,
        arrays.push_price,
        arrays.pop,
        arrays.is_backing,
    )
    used_storage, used_uplink, used_movement = used.storage, used.uplink, used.movement
    found, found_part, n_found, room = used.found, used.part, used.n_found, len(used.found)
    worth, part, touched = np.zeros(n_sources), np.zeros(n_sources), np.empty(n_sources, np.int64)
    stamp, held = np.full(n_sources, -1), np.full(n_sources, -1)
    widest = 0
    for s in range(len(size_of)):
        widest = max(widest, _arcs_of(arrays, s))
    arc_source = np.empty(widest, np.int64)
    row_end = np.empty(len(near_start) + 1, np.int64)
    for s in range(block[0], len(size_of), block[1]):
        first, last, size = row_start[s], row_start[s + 1], size_of[s]
        if first == last and backing[s] <= 0:
            continue
        for at in range(current_start[s], current_start[s + 1]):
            held[current[at]] = s
        n_touched, n_arcs = 0, 0
        for k in range(first, last):
            best, requests = row_base[k] - once[k], row_requests[k]
            location = row_location[k]
            for at in range(near_start[location], near_start[location + 1]):
                n = near[at]
                gain = best - waiting[at] - size * reward[n]
                if gain > 0:
                    if stamp[n] != s:
                        stamp[n], worth[n], touched[n_touched] = s, 0.0, n
                        n_touched += 1
                    worth[n] += requests * survival[n] * gain
                    arc_source[n_arcs] = n
                    n_arcs += 1
            row_end[k - first] = n_arcs
        if backing[s] > 0:
            for n in pops:
                if stamp[n] != s:
                    stamp[n], worth[n], touched[n_touched] = s, 0.0, n
                    n_touched += 1
        for i in range(n_touched):
            n = touched[i]
            part[n] = 0.0
            if size > fits[n] and not free[n]:
                continue
            is_new = held[n] != s and not free[n]
            price = 0.0 if free[n] else size * storage[n]
            price += size * (push_price[n] + movement) if is_new else 0.0
            price -= backing[s] if is_backing[n] else 0.0
            value = worth[n] - price
            total += max(0.0, value)
            held_part = _ramp(value, width * size)
            if not free[n]:
                used_storage[n] += size * held_part
                used_movement[0] += size * held_part if is_new else 0.0
            part[n] = held_part * survival[n]
            if held_part > 0 and n_found[0] < room:
                found[n_found[0]], found_part[n_found[0]] = s * n_sources + n, held_part
                n_found[0] += 1
        start = 0
        for k in range(first, last):
            served, sent = 0.0, row_requests[k] * size
            for at in range(start, row_end[k - first]):
                n = arc_source[at]
                served += part[n]
                used_uplink[n] += sent * part[n]
            start = row_end[k - first]
            if rows.rate > 0:
                _move_row(rows, once, k, served)
    return total


@numba.njit(cache=True)
def _arcs_of(arrays: Arrays, s: int) -> int:
    arcs = 0
    for k in range(arrays.row_start[s], arrays.row_start[s + 1]):
        location = arrays.location[k]
        arcs += arrays.near_start[location + 1] - arrays.near_start[location]
    return arcs


@numba.njit(cache=True)
def _ramp(value: float, width: float) -> float:
    """1 where a copy is worth its price, 0 where it is not, and in between within `width` of it."""
    if value >= width:
        return 1.0 if value > 0 else 0.0
    return 0.0 if value <= -width else (value + width) / (2 * width)


@numba.njit(cache=True)
def _move_row(rows: RowSearch, once: Float64, k: int, served: float) -> None:
    slope, (a, b) = min(served - 1.0, 4.0), rows.decay
    rows.mean[k] = a * rows.mean[k] + (1 - a) * slope
    rows.square[k] = b * rows.square[k] + (1 - b) * slope * slope
    stride = rows.mean[k] / rows.correction[0] / (np.sqrt(rows.square[k] / rows.correction[1]) + 1e-2)
    once[k] = max(0.0, once[k] + rows.scale[k] * rows.rate * stride)
