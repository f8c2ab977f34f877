"""Restocking: source by source chooses anew what it holds, and what that is worth is found exactly.

A source knows two sets of prices: those that the present plan puts on uplink, which are right for small changes, and those
of the relaxation, which say what uplink will be worth once everybody has chosen well. At either it proposes what it would
rather hold (`placement/restock_kernel.py`); the flows around what changes are solved again with that
(`placement/regions.py`), and the proposal is accepted if it saves, push and requirements counted. A source whose locations
have not changed since it last chose is not asked again.

Some steps pay only together: a popular copy must move to a source with idle uplink before its old holders can use theirs
for other copies. So a source may take a step that loses no more than it promises at the relaxation's prices; if it and
those who were relieved then win more, all of it stays, else all of it is undone. Sources with much uplink come first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.copies import Copies, movement_left, spare_storage
from placement.flows import Flows, delivery_cost
from placement.guard import UNGUARDED, Guard
from placement.keys import find_keys
from placement.market import Market, market_of
from placement.prices import Guide
from placement.problem import Bool, Float64, Int64, PlacementProblem
from placement.regions import best_local_shares
from placement.restock_kernel import Stock, propose, requirement_worth
from placement.uplink_prices import update_prices

LEAST_HELD = 1e-3
"""Share from which the relaxation's candidates may come."""
SWEEPS = 6
"""Times that every source with news in its locations is asked."""
SETTLED = 1e-5
"""Share of the cost that a sweep must save for another one to follow."""
LEAST_PROMISE, LEAST_GAIN = 1e-6, 1e-8
"""Shares of the cost from which a proposal is looked into, and accepted."""
HOPE = 1e-5
"""Share of the cost that a source must promise at the relaxation's prices for a step that loses a little."""
RELIEVED = 6
"""Sources that may follow such a step, those relieved of most bytes first."""
CHAINS = 40
"""Steps of that kind in one sweep."""


def restock(
    problem: PlacementProblem, guide: Guide, copies: Copies, flows: Flows, *, guard: Guard = UNGUARDED
) -> Copies:
    """Copies that cost less than these, or these; within the hard limits if these were."""
    shelves = _Shelves(problem, guide, copies, flows, guard)
    for _ in range(SWEEPS):
        before = shelves.saved
        for n in np.argsort(-problem.usable_uplink_bytes, kind="stable").tolist():
            shelves.visit(n)
            shelves.log.clear()
        for n in shelves.hopeful():
            shelves.chain(n)
            shelves.log.clear()
        if shelves.saved - before <= SETTLED * shelves.cost or shelves.spent:
            break
    return shelves.copies if shelves.saved > 0 else copies


@dataclass(frozen=True)
class _Change:
    """What an accepted proposal overwrote."""

    copies: Int64
    held: Bool
    arcs: Int64
    share: Float64
    used: Float64
    room: Float64
    budget: Float64
    price: Float64
    gain: float
    locations: Int64
    asked: Int64


class _Shelves:
    """The plan on its way: who holds what, which shares it serves, and what has been saved."""

    def __init__(self, problem: PlacementProblem, guide: Guide, copies: Copies, flows: Flows, guard: Guard) -> None:
        self.problem, self.guard = problem, guard
        self.market = market = market_of(problem, _choice(problem, guide, copies))
        self.held: Bool = np.isin(
            problem.copy_keys(market.segment, market.source), problem.copy_keys(copies.segment, copies.source)
        )
        self.held |= market.stands
        self.share = _shares(problem, market, flows)
        sent = self.share * market.row_bytes[market.arc_row]
        self.used: Float64 = _by_source(market, market.arc_copy, sent)
        self.room, self.budget = spare_storage(problem, copies), movement_left(problem, copies)
        self.relaxed, self.movement_price = guide.bound.prices.uplink, guide.bound.prices.movement
        self.price = np.zeros(len(problem.sources))
        update_prices(market, self.held, self.share, self.used, np.arange(len(problem.demand)), self.price)
        self.cost = delivery_cost(problem, flows)
        self.rows_of = _rows_by_location(problem)
        self.saved, self.visited, self.clock = 0.0, 0, 1
        self.changed = np.ones(len(problem.locations), dtype=np.int64)
        self.asked = np.zeros(len(problem.sources), dtype=np.int64)
        self.hope = np.zeros(len(problem.sources))
        self.log: list[_Change] = []

    @property
    def copies(self) -> Copies:
        mine = np.flatnonzero(self.held & ~self.market.stands)
        return Copies.sorted(self.market.segment[mine], self.market.source[mine])

    @property
    def spent(self) -> bool:
        settings = self.problem.settings
        most = settings.restock_arc_visits + settings.restock_arc_visits_per_row * len(self.problem.demand)
        return self.visited >= most or self.guard.passed

    def visit(self, n: int) -> None:
        """Source n chooses, at either set of prices, if anything has changed around it."""
        if self.spent:
            return
        reached = self.problem.can_serve[:, n]
        if not reached.any() or self.changed[reached].max() <= self.asked[n]:
            return
        self.asked[n] = self.clock
        for price in (self.price, self.relaxed):
            offer = propose(self.market, self._stock(price), n, self.movement_price)
            if price is self.relaxed:
                self.hope[n] = max((promise for _, _, promise in _distinct(offer)), default=0.0)
            for copies, held, promise in _distinct(offer):
                if promise > LEAST_PROMISE * self.cost and self._try(copies, held, LEAST_GAIN * self.cost):
                    break

    def hopeful(self) -> list[int]:
        """Sources that the relaxation's prices promise most."""
        order = np.argsort(-self.hope, kind="stable")[:CHAINS]
        return [int(n) for n in order if self.hope[n] > HOPE * self.cost]

    def chain(self, n: int) -> None:
        """A step of source n that may lose what it promises at the relaxation's prices, then those it relieved."""
        mark, before, used = len(self.log), self.saved, self.used
        offer = propose(self.market, self._stock(self.relaxed), n, self.movement_price)
        for copies, held, promise in _distinct(offer)[:1]:
            if promise <= HOPE * self.cost or not self._try(copies, held, -promise):
                return
            relieved = np.argsort(self.used - used, kind="stable")[:RELIEVED]
            for m in (*relieved.tolist(), n):
                self.visit(m)
            if self.saved <= before + LEAST_GAIN * self.cost:
                while len(self.log) > mark:
                    self._undo(self.log.pop())

    def _stock(self, price: Float64) -> Stock:
        return Stock(self.held, self.room, self.budget, price)

    def _try(self, copies: Int64, held: Bool, least: float) -> bool:
        """Accepts the proposal if it saves more than `least`, in m$."""
        if self.spent:
            return False
        market, before = self.market, self.held[copies]
        sign = held.astype(np.float64) - before
        met = sum(requirement_worth(market, self.held, c) for c in copies[before & ~held].tolist())
        self.held[copies] = held
        met = sum(requirement_worth(market, self.held, c) for c in copies[~before & held].tolist()) - met
        locations = np.flatnonzero(self.problem.can_serve[:, market.source[copies]].any(axis=1))
        rows = np.concatenate([self.rows_of[at] for at in locations.tolist()])
        found = best_local_shares(market, self.held, self.share, self.used, rows)
        self.visited += len(found.arc)
        gain = found.gain - float(market.push[copies] @ sign) + met
        if gain <= least:
            self.held[copies] = before
            return False
        state = (found.arc, self.share[found.arc], self.used, self.room, self.budget, self.price)
        self.log.append(_Change(copies, before, *state, gain, locations, self.changed[locations]))
        self._count(copies, sign)
        sent = market.row_bytes[market.arc_row[found.arc]] * (found.share - self.share[found.arc])
        self.used = self.used + _by_source(market, market.arc_copy[found.arc], sent)
        self.share[found.arc] = found.share
        self.saved += gain
        self.clock += 1
        self.changed[locations] = self.clock
        self.price = self.price.copy()
        update_prices(market, self.held, self.share, self.used, rows, self.price)
        return True

    def _count(self, copies: Int64, sign: Float64) -> None:
        """Room and budget after these copies have come (1) or gone (-1)."""
        market = self.market
        source, moved = market.source[copies], market.moved[copies] * sign
        self.room = self.room - _by_source(market, copies, market.size[copies] * sign)
        slots = market.slots[source]
        into = np.bincount(slots.ravel(), np.repeat(moved, slots.shape[1]), minlength=len(self.budget))
        self.budget = self.budget - into

    def _undo(self, change: _Change) -> None:
        self.held[change.copies], self.share[change.arcs] = change.held, change.share
        self.used, self.room, self.budget, self.price = change.used, change.room, change.budget, change.price
        self.changed[change.locations] = change.asked
        self.saved -= change.gain


def _by_source(market: Market, copies: Int64, weights: Float64) -> Float64:
    """Sums over the copies of each source, (N,)."""
    total = np.bincount(market.source[copies], weights=weights, minlength=len(market.uplink))
    return np.asarray(total, dtype=np.float64)


def _distinct(offer: tuple[Int64, Int64, Bool, Float64]) -> list[tuple[Int64, Bool, float]]:
    """Each proposal once: the copies it changes, peers that make way included, whether they are held, and its promise."""
    copies, peers, proposals, promises = offer
    found: dict[bytes, tuple[Int64, Bool, float]] = {}
    for held, promise in zip(proposals, promises.tolist(), strict=True):
        if promise > 0 and held.tobytes() not in found:
            away = peers[held & (peers >= 0)]
            changed = np.concatenate([copies, away])
            found[held.tobytes()] = (changed, np.concatenate([held, np.zeros(len(away), np.bool_)]), promise)
    return list(found.values())


def _choice(problem: PlacementProblem, guide: Guide, copies: Copies) -> Copies:
    """Copies that are held by the plan or might be: those the relaxation holds or nearly holds, and those held now."""
    candidates = guide.candidates
    likely = ((guide.share > LEAST_HELD) | guide.search.promising()) & ~candidates.graph.stands
    keys = np.concatenate([candidates.keys[likely], problem.copy_keys(copies.segment, copies.source)])
    segments, sources = np.divmod(np.unique(keys), max(1, len(problem.sources)))
    return Copies(segments.astype(np.int32), sources.astype(np.int32))


def _shares(problem: PlacementProblem, market: Market, flows: Flows) -> Float64:
    """The flows on the market's arcs, (A,); what standing sources serve in any case has no arc."""
    n_sources = max(1, len(problem.sources))
    keys = market.arc_row * n_sources + market.source[market.arc_copy]
    share = np.zeros(len(keys))
    at, known = find_keys(keys, flows.row * n_sources + flows.source)
    share[at[known]] = flows.share[known]
    return share


def _rows_by_location(problem: PlacementProblem) -> list[Int64]:
    location = problem.demand.location
    order = np.argsort(location, kind="stable")
    return np.split(order, np.searchsorted(location[order], np.arange(1, len(problem.locations))))
