"""A certified lower bound on the cost of any plan, from any non-negative prices.

Put prices lambda_n on storage, mu_n on uplink, pi on movement (each in m$ per byte) and v_k on serving row k beyond once,
and drop the spread, tier, coverage and availability rules, which only cost. For every choice of prices >= 0,

    LB = sum_k r_k (origin price_k - v_k)
         - sum_sn max(0, sum_k r_k p_n (saving_kn - bytes_s mu_n - v_k)^+ - bytes_s (lambda_n + (push_n + pi) new_sn))
         - sum_n storage_n lambda_n - sum_n uplink_n mu_n - budget pi   <=   cost of any plan,

because the best response of each copy to its prices is at least as cheap as what a plan can do with it. Sources that
hold everything pay no storage. Good prices are searched by subgradient steps; the bound needs none of them to converge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem


@dataclass(frozen=True)
class Prices:
    """Non-negative prices: storage (N,), uplink (N,), movement (a number) and serving once (D,)."""

    storage: Float64
    uplink: Float64
    movement: float
    once: Float64


@dataclass(frozen=True)
class Bound:
    """A proven lower bound in millidollars and the prices that prove it."""

    value: float
    prices: Prices


def first_prices(problem: PlacementProblem) -> Prices:
    """No prices, except that serving a row once costs what its best source in reach saves: never a negative bound."""
    size, n_sources = problem.demand_segment_bytes, len(problem.sources)
    once = np.zeros(len(problem.demand))
    for location in range(len(problem.locations)):
        rows = np.flatnonzero(problem.demand.location == location)
        for n in np.flatnonzero(problem.can_serve[location]):
            price = problem.request_price[location, n] + problem.byte_price[n] * size[rows]
            once[rows] = np.maximum(once[rows], problem.origin_price[rows] - price)
    return Prices(np.zeros(n_sources), np.zeros(n_sources), 0.0, once)


def certify(problem: PlacementProblem, prices: Prices) -> float:
    """The lower bound that these prices prove, never below zero: every cost is positive."""
    return max(0.0, _respond(_arrays(problem), prices)[0])


def lower_bound(problem: PlacementProblem, *, above: float, start: Prices | None = None) -> Bound:
    """Searches prices by `bound_iterations` Polyak steps towards `above`, the cost of a known plan."""
    arrays = _arrays(problem)
    prices = start or first_prices(problem)
    best = Bound(-np.inf, prices)
    reach, stalled = 1.0, 0
    for _ in range(problem.settings.bound_iterations):
        value, response = _respond(arrays, prices)
        if value > best.value:
            best, stalled = Bound(value, prices), 0
        else:
            stalled += 1
        if stalled >= 5:  # overshooting: shorter steps, from the best prices so far
            reach, stalled, prices = reach / 2, 0, best.prices
            continue
        prices = _step(arrays, prices, response, reach * max(above - value, 0.0))
    return Bound(max(0.0, best.value), best.prices)


class _Arrays(NamedTuple):
    row_start: Int64  # rows of each segment, in the order of `row` (S + 1,)
    row: Int64  # demand row at each place (D,)
    location: Int32  # (D,)
    requests: Float64  # (D,)
    origin: Float64  # (D,)
    size: Float64  # (S,)
    can_serve: Bool  # (L, N)
    request_price: Float64  # (L, N)
    byte_price: Float64  # (N,)
    push_price: Float64  # (N,)
    survival: Float64  # (N,)
    free: Bool  # holds everything (N,)
    fits: Float64  # largest segment that can be held (N,)
    current_start: Int64  # (S + 1,)
    current: Int64  # (C,)
    storage: Float64  # (N,)
    uplink: Float64  # infinite uplinks as -1: never priced (N,)
    budget: float  # an infinite budget as -1


class _Response(NamedTuple):
    """What the best response uses of each limit: the supergradient is use minus limit."""

    storage: Float64
    uplink: Float64
    movement: float
    once: Float64


def _arrays(problem: PlacementProblem) -> _Arrays:
    demand, n_segments = problem.demand, len(problem.segments)
    order = np.lexsort((demand.location, demand.segment))
    holder = problem.current_keys % max(1, len(problem.sources))
    held = problem.current_keys // max(1, len(problem.sources))
    uplink, budget = problem.usable_uplink_bytes, problem.movement_limit_bytes
    return _Arrays(
        row_start=np.searchsorted(demand.segment[order], np.arange(n_segments + 1)),
        row=order,
        location=demand.location[order],
        requests=demand.requests[order],
        origin=problem.origin_price[order],
        size=problem.segments.bytes.astype(np.float64),
        can_serve=problem.can_serve,
        request_price=problem.request_price,
        byte_price=problem.byte_price,
        push_price=problem.push_price,
        survival=problem.sources.survival,
        free=problem.standing,
        fits=problem.storage_limit_bytes,
        current_start=np.searchsorted(held, np.arange(n_segments + 1)),
        current=holder,
        storage=problem.storage_limit_bytes,
        uplink=np.where(np.isfinite(uplink), uplink, -1.0),
        budget=budget if np.isfinite(budget) else -1.0,
    )


def _respond(arrays: _Arrays, prices: Prices) -> tuple[float, _Response]:
    """The bound at these prices, and what its best response uses."""
    n_sources = len(arrays.survival)
    once = prices.once[arrays.row]
    used = _Response(np.zeros(n_sources), np.zeros(n_sources), 0.0, np.zeros(len(once)))
    served, movement = np.zeros(len(once)), np.zeros(1)
    inner = _best_response(arrays, prices.storage, prices.uplink, prices.movement, once, used, served, movement)
    value = float(arrays.requests @ (arrays.origin - once)) - inner - float(arrays.storage @ prices.storage)
    value -= float(np.maximum(arrays.uplink, 0.0) @ prices.uplink) + max(arrays.budget, 0.0) * prices.movement
    once_used = np.zeros(len(once))
    once_used[arrays.row] = served
    return value, _Response(used.storage, used.uplink, float(movement[0]), once_used)


@numba.njit(cache=True)
def _best_response(  # type: ignore[no-untyped-def]
    arrays: _Arrays, storage, uplink, movement: float, once, used: _Response, served, moved
) -> float:
    """Total value of the copies worth their prices; fills in what they use."""
    total, n_sources = 0.0, len(storage)
    held = np.full(n_sources, -1)
    for s in range(len(arrays.size)):
        size = arrays.size[s]
        for at in range(arrays.current_start[s], arrays.current_start[s + 1]):
            held[arrays.current[at]] = s
        first, last = arrays.row_start[s], arrays.row_start[s + 1]
        for n in range(n_sources):
            if size > arrays.fits[n] and not arrays.free[n]:
                continue
            value = 0.0
            for k in range(first, last):
                value += max(0.0, _worth(arrays, k, n, size, uplink[n], once[k]))
            price = 0.0 if arrays.free[n] else size * storage[n]
            if not arrays.free[n] and held[n] != s:
                price += size * (arrays.push_price[n] + movement)
            if value <= price:
                continue
            total += value - price
            if not arrays.free[n]:
                used.storage[n] += size
                moved[0] += size if held[n] != s else 0.0
            for k in range(first, last):
                if _worth(arrays, k, n, size, uplink[n], once[k]) > 0:
                    used.uplink[n] += arrays.requests[k] * arrays.survival[n] * size
                    served[k] += arrays.survival[n]
    return total


@numba.njit(cache=True)
def _worth(arrays: _Arrays, k: int, n: int, size: float, uplink: float, once: float) -> float:
    """What source n adds for row k at these prices, serving while it is up."""
    if not arrays.can_serve[arrays.location[k], n]:
        return 0.0
    price = arrays.request_price[arrays.location[k], n] + (arrays.byte_price[n] + uplink) * size
    worth = arrays.requests[k] * arrays.survival[n] * (arrays.origin[k] - price - once)
    return float(worth)


def _step(arrays: _Arrays, prices: Prices, used: _Response, distance: float) -> Prices:
    """A projected Polyak step, each price measured by its likely share of the whole cost.

    With z = price * limit / size of that product, the gain is the slope (use - limit) / limit times that size.
    """
    cost = float(arrays.requests @ arrays.origin)
    rows = np.zeros(len(prices.once))
    rows[arrays.row] = arrays.requests
    origin = np.zeros(len(prices.once))
    origin[arrays.row] = arrays.origin
    budget = np.array([arrays.budget])
    parts = (
        (prices.storage, _slope(used.storage, arrays.storage), arrays.storage, _share(arrays.storage, cost)),
        (prices.uplink, _slope(used.uplink, arrays.uplink), arrays.uplink, _share(arrays.uplink, cost)),
        (np.array([prices.movement]), _slope(np.array([used.movement]), budget), budget, _share(budget, cost)),
        (prices.once, used.once - 1.0, rows, rows * origin),
    )
    length = sum(float(((slope * size) ** 2).sum()) for _, slope, _, size in parts)
    step = distance / length if length > 0 else 0.0
    new = []
    for price, slope, limit, size in parts:
        rate = np.divide(size**2, limit, out=np.zeros(len(limit)), where=limit > 0)
        new.append(np.maximum(0.0, price + step * slope * rate))
    return Prices(new[0], new[1], float(new[2][0]), new[3])


def _share(limit: Float64, cost: float) -> Float64:
    """Cost spread over the limits in proportion."""
    room = np.maximum(limit, 0.0)
    return room * (cost / max(float(room.sum()), 1e-300))


def _slope(used: Float64, limit: Float64) -> Float64:
    """Use over limit, less one; zero where the limit is zero or absent (such prices stay as they are)."""
    return np.divide(used - limit, limit, out=np.zeros(len(limit)), where=limit > 0)
