"""The search for prices that prove much: smoothed ascent of the Lagrangian bound of `placement/bound.py`.

The bound is concave in its prices and piecewise linear, and a best response jumps: at good prices most copies are worth
exactly what they cost, so plain subgradients oscillate. Here a copy whose value lies within a width of its price is held
in part, which smooths the bound; width and rate shrink together, geometrically:

    slope_i = use_i / limit_i - 1,   m_i <- a m_i + (1 - a) slope_i,   q_i <- b q_i + (1 - b) slope_i^2,
    price_i <- max(0, price_i + rate scale_i m_i / (sqrt q_i + 0.01))                    (Adam; Kingma and Ba, 2015)

The scale of a row's price is what its best source saves; that of a price per byte is the mean of it over all bytes
asked for. When there is work for only a few passes, each is cut into blocks of segments and the prices of sources move
after each block. The work is counted in arcs looked at and not in seconds, so that the bound repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.bound import Bound, Market, Prices, RowSearch, Used, first_backing, respond
from placement.problem import Float64, Int32, Int64, PlacementProblem

FEWEST_PASSES = 4
FORBIDDING = 1e3
"""Price of moving, in its scale, where nothing may move."""
LARGEST_SLOPE = 4.0
CERTIFICATES = 4
"""Times that the prices are certified in the last quarter of the search; the best is kept."""


@dataclass(frozen=True)
class Schedule:
    """First and last rate and width, decay of the running means, blocks of a pass, first prices in their scales."""

    rate: tuple[float, float]
    width: tuple[float, float]
    decay: tuple[float, float]
    blocks: int
    first_row_price: float
    first_source_price: float

    def at(self, done: float) -> tuple[float, float]:
        """Rate and width when the share `done` of the search is over."""
        rate, width = self.rate, self.width
        return rate[0] * (rate[1] / rate[0]) ** done, width[0] * (width[1] / width[0]) ** done


LONG = Schedule((0.15, 0.005), (0.3, 0.02), (0.9, 0.98), 1, 0.0, 0.0)
SHORT = Schedule((0.15, 0.03), (0.5, 0.2), (0.7, 0.98), 4, 0.8, 0.2)
SETTLED_SHARE = 0.3
"""Share of the passes, at the end, over which the copies held are averaged."""
MOST_COPIES = 2_000_000
"""Copies that one step can remember."""
_NO_KEYS = np.zeros(0, dtype=np.int64)
LONG_PASSES = 100
"""Passes from which the long schedule proves more than the short one."""


@dataclass(frozen=True)
class Guide:
    """What the search leaves behind: its bound, and how far it held each copy while it settled.

    Attributes:
        bound: the best certified bound and its prices.
        segment: of each copy held at least in part. (G,)
        source: of each copy. (G,)
        share: mean over the settled part of the search, in (0, 1]. (G,)
    """

    bound: Bound
    segment: Int32
    source: Int32
    share: Float64


def lower_bound(problem: PlacementProblem) -> Bound:
    """The best bound within `bound_iterations` passes and about `bound_arc_visits` arcs looked at."""
    return search_prices(problem).bound


def search_prices(problem: PlacementProblem) -> Guide:
    """Searches prices within `bound_iterations` passes and about `bound_arc_visits` arcs looked at."""
    market, settings = Market.of(problem), problem.settings
    affordable = settings.bound_arc_visits // max(1, market.n_arcs)
    passes = min(settings.bound_iterations, max(FEWEST_PASSES, affordable))
    schedule = LONG if passes >= LONG_PASSES else SHORT
    search, steps = _Search(problem, market, schedule), passes * schedule.blocks
    best = search.certified()
    checks = {steps - 1 - at * max(1, steps // (4 * CERTIFICATES)) for at in range(CERTIFICATES)}
    settled = schedule.blocks * int(passes * (1 - SETTLED_SHARE))
    for at in range(steps):
        search.step(at, steps, counts=at >= settled)
        if at in checks:
            found = search.certified()
            best = found if found.value > best.value else best
    once = np.zeros(len(problem.demand))
    once[market.rows] = best.prices.once
    bound = Bound(max(0.0, best.value), replace(best.prices, once=once))
    return _guide(bound, search, passes - settled // schedule.blocks)


def _guide(bound: Bound, search: _Search, passes: int) -> Guide:
    n_sources = max(1, len(search.market.storage))
    keys, copy = np.unique(np.concatenate([_NO_KEYS, *search.found]), return_inverse=True)
    share = np.bincount(copy, weights=np.concatenate([np.zeros(0), *search.part]), minlength=len(keys))
    segment, source = (keys // n_sources).astype(np.int32), (keys % n_sources).astype(np.int32)
    return Guide(bound, segment, source, np.minimum(share / max(1, passes), 1.0))


class _Search:
    """Prices on their way."""

    def __init__(self, problem: PlacementProblem, market: Market, schedule: Schedule) -> None:
        n_sources, n_rows = len(market.storage), len(market.rows)
        self.market, self.schedule = market, schedule
        self.row_scale = _row_savings(market)
        row_bytes = market.arrays.requests @ problem.demand_segment_bytes[market.rows] if n_rows else 1.0
        self.byte_scale = float(market.arrays.requests @ self.row_scale / row_bytes)
        self.once = self.row_scale * schedule.first_row_price
        self.backing = first_backing(problem)
        first = self.byte_scale * schedule.first_source_price
        self.limit = np.concatenate([market.storage, market.uplink, [market.budget]])
        self.source_prices = np.where(self.limit > 0, first, 0.0)
        if problem.movement_limit_bytes == 0:  # whatever nobody may do can cost anything
            self.source_prices[-1] = FORBIDDING * self.byte_scale
        self.mean, self.square = np.zeros(2 * n_sources + 1), np.zeros(2 * n_sources + 1)
        self.found: list[Int64] = []
        self.part: list[Float64] = []
        self.row_mean, self.row_square = np.zeros(n_rows), np.zeros(n_rows)

    def step(self, at: int, steps: int, *, counts: bool) -> None:
        """Responds to the prices over one block of segments and moves them."""
        schedule = self.schedule
        rate, width = schedule.at(at / max(1, steps - 1))
        used, blocks = self.market.nothing_used(MOST_COPIES if counts else 0), schedule.blocks
        rows = RowSearch(
            self.row_scale, self.row_mean, self.row_square, rate, schedule.decay, self._correction(at // blocks)
        )
        prices = self.prices()
        arguments = (prices.storage, prices.uplink, prices.movement, prices.backing)
        block = (at % blocks, blocks)
        respond(self.market.arrays, arguments, self.once, width * self.byte_scale, used, rows, block)
        self.found.append(used.found[: used.n_found[0]].copy())
        self.part.append(used.part[: used.n_found[0]].copy())
        self._move(_slope(used, blocks, self.limit), rate, at)

    def _move(self, slope: Float64, rate: float, at: int) -> None:
        a, b = self.schedule.decay
        self.mean = a * self.mean + (1 - a) * slope
        self.square = b * self.square + (1 - b) * slope**2
        correction = self._correction(at)
        stride = self.mean / correction[0] / (np.sqrt(self.square / correction[1]) + 1e-2)
        self.source_prices = np.maximum(0.0, self.source_prices + self.byte_scale * rate * stride)

    def _correction(self, at: int) -> tuple[float, float]:
        a, b = self.schedule.decay
        return 1 - a ** (at + 1), 1 - b ** (at + 1)

    def prices(self) -> Prices:
        n = len(self.market.storage)
        storage, uplink = self.source_prices[:n], self.source_prices[n : 2 * n]
        return Prices(storage, uplink, float(self.source_prices[-1]), self.once.copy(), self.backing)

    def certified(self) -> Bound:
        prices = self.prices()
        return Bound(self.market.value(prices), prices)


def _slope(used: Used, blocks: int, limit: Float64) -> Float64:
    """Use over limit, less one; zero where the limit is zero or absent, so that such prices stay."""
    use = blocks * np.concatenate([used.storage, used.uplink, used.movement])
    slope = np.divide(use - limit, limit, out=np.zeros(len(limit)), where=limit > 0)
    return np.minimum(slope, LARGEST_SLOPE)


def _row_savings(market: Market) -> Float64:
    """What the best priced source saves for a request of each row, before any price, (rows,)."""
    arrays, savings = market.arrays, np.zeros(len(market.rows))
    size = np.repeat(arrays.size, np.diff(arrays.row_start))
    for location in range(len(arrays.near_start) - 1):
        rows = np.flatnonzero(arrays.location == location)
        near = slice(arrays.near_start[location], arrays.near_start[location + 1])
        waiting, byte_price = arrays.waiting[near], arrays.byte_price[arrays.near[near]]
        for price in np.unique(byte_price):  # few: one for each egress price
            nearest = waiting[byte_price == price].min()
            savings[rows] = np.maximum(savings[rows], arrays.base[rows] - nearest - price * size[rows])
    return savings
