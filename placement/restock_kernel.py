"""What one source would rather hold, while all others keep their copies and sell their uplink at fixed prices.

Take source n out of row k. The others that hold its segment serve it in order of v_m = density_km - mu_m, each up to its
survival, all together up to 1 - prod(1 - p_m). With n they may serve more together, and what n serves beyond that takes
the place of the others from the least valuable on. So what n's share of row k is worth is concave,

    sum over pieces of  bytes (density_kn - v_displaced),

and the source solves a knapsack with two limits: room for whole copies, uplink for pieces in order of their worth,

    max  sum_{s held} (bonus_s - push_s) + the best pieces of what is held that fit the uplink.

Sets are tried at several prices of the source's own uplink, then by exchanges, each valued exactly. A copy that its
network is too full for may come all the same: it takes the place of the one there that is missed least.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from placement.market import Market
from placement.problem import Bool, Float64, Int64

PIECES = 6
"""Most pieces of one row at one source; what would be displaced beyond them is left where it is."""
HOLDERS = 64
"""Most other holders of a row that are looked at."""
BISECTIONS = 10
"""Prices of the source's own uplink at which a set is packed."""
INS = 12
"""Copies that are tried as newcomers in one round of exchanges."""
EXCHANGES = 12, 1, 3
"""Rounds of exchanges after packing, from the present set for a first proposal, and further for a last one."""
PROPOSALS = 3


class Stock(NamedTuple):
    """What changes: who holds what, what is left, and what a byte of uplink is worth."""

    held: Bool  # (C,)
    room: Float64  # bytes that are free (N,)
    budget: Float64  # bytes that may still be pushed, by budget (B,)
    price: Float64  # m$ per byte of uplink (N,)


class _Items(NamedTuple):
    """The copies that one source may hold, in scratch arrays that are long enough."""

    copy: Int64
    peer: Int64  # the copy that must go elsewhere in the network, -1 for none
    size: Float64
    moved: Float64  # bytes to push
    fixed: Float64  # what holding is worth before anything is served
    start: Int64  # pieces of each item (I + 1,)
    worth: Float64  # m$ per byte of each piece
    sent: Float64  # bytes of each piece
    of: Int64  # item of each piece


class _Limits(NamedTuple):
    uplink: float
    room: float
    budget: float


@numba.njit(cache=True)
def propose(market: Market, stock: Stock, n: int, movement_price: float):  # type: ignore[no-untyped-def]
    """Sets that source n might hold instead: copies (I,), their peers (I,), which are held (3, I), promises in m$ (3,)."""
    items, count, order = _items(market, stock, n, movement_price)
    proposals, promises = np.zeros((PROPOSALS, count), np.bool_), np.zeros(PROPOSALS)
    if count > 0:
        chosen, limits = _present(market, stock, n, items, count)
        now, _ = _value(items, order, chosen, limits.uplink)
        packed, value = _packed(items, order, count, limits, chosen, now)
        packed, value = _exchanged(items, order, count, limits, packed, value, EXCHANGES[0])
        proposals[0], promises[0] = packed, value - now
        once, value = _exchanged(items, order, count, limits, chosen, now, EXCHANGES[1])
        proposals[1], promises[1] = once, value - now
        several, value = _exchanged(items, order, count, limits, once, value, EXCHANGES[2])
        proposals[2], promises[2] = several, value - now
    return items.copy[:count], items.peer[:count], proposals, promises


@numba.njit(cache=True)
def _present(market: Market, stock: Stock, n: int, items: _Items, count: int):  # type: ignore[no-untyped-def]
    """Which items the source holds, and its limits if it held none."""
    chosen, room, pushed = np.zeros(count, np.bool_), stock.room[n], 0.0
    for i in range(count):
        if stock.held[items.copy[i]]:
            chosen[i] = True
            room += items.size[i]
            pushed += items.moved[i]
    budget = np.inf
    for slot in market.slots[n]:
        budget = min(budget, stock.budget[slot])
    return chosen, _Limits(market.uplink[n], room, budget + pushed)


@numba.njit(cache=True)
def _items(market: Market, stock: Stock, n: int, movement_price: float):  # type: ignore[no-untyped-def]
    """Copies the source holds, or that could pay for their push if uplink were free; and all pieces, best first."""
    first, end = market.source_start[n], market.source_start[n + 1]
    items, limit = _scratch(market, first, end), stock.room[n]
    for at in range(first, end):
        c = market.at_source[at]
        if stock.held[c] and not market.stands[c]:
            limit += market.size[c]
    count, value, most = 0, np.empty(HOLDERS), np.empty(HOLDERS)
    for at in range(first, end):
        c = market.at_source[at]
        if market.stands[c] or (not stock.held[c] and market.size[c] > limit):
            continue
        peer, fixed = -1, -market.push[c] - movement_price * market.moved[c]
        if not stock.held[c]:
            closed, peer, lost = _closed(market, stock, c, value, most)
            if closed:
                continue
            fixed -= lost
        pieces, total = items.start[count], 0.0
        for at_arc in range(market.copy_start[c], market.copy_start[c + 1]):
            bonus, used = _pieces(market, stock, c, peer, market.copy_arc[at_arc], pieces, items, value, most)
            fixed += bonus
            for j in range(pieces, pieces + used):
                items.of[j] = count
                total += items.worth[j] * items.sent[j]
            pieces += used
        fixed += requirement_worth(market, stock.held, c)
        if not stock.held[c] and fixed + total <= 0:
            continue
        items.copy[count], items.peer[count], items.size[count] = c, peer, market.size[c]
        items.moved[count], items.fixed[count] = market.moved[c], fixed
        items.start[count + 1] = pieces
        count += 1
    return items, count, np.argsort(-items.worth[: items.start[count]], kind="mergesort")


@numba.njit(cache=True)
def _scratch(market: Market, first: int, end: int) -> _Items:
    most, arcs = end - first, 0
    for at in range(first, end):
        c = market.at_source[at]
        arcs += market.copy_start[c + 1] - market.copy_start[c]
    pieces = (arcs + 1) * PIECES
    return _Items(
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most),
        np.empty(most),
        np.empty(most),
        np.zeros(most + 1, np.int64),
        np.empty(pieces),
        np.empty(pieces),
        np.empty(pieces, np.int64),
    )


@numba.njit(cache=True)
def _closed(market: Market, stock: Stock, c: int, value, most):  # type: ignore[no-untyped-def]
    """Whether a cap keeps copy c out for good, else the copy that must make way for it (-1) and what that loses."""
    n, s = market.source[c], market.segment[c]
    in_network, in_tier = 0, 0
    for other in range(market.of_segment[s], market.of_segment[s + 1]):
        if stock.held[other] and not market.stands[other]:
            m = market.source[other]
            in_network += 1 if market.network[n] >= 0 and market.network[m] == market.network[n] else 0
            in_tier += 1 if market.tier[m] == market.tier[n] else 0
    if in_network > market.caps[0] or in_tier >= market.caps[market.tier[n]]:
        return True, -1, 0.0
    if in_network < market.caps[0]:
        return False, -1, 0.0
    peer, least = -1, np.inf
    for other in range(market.of_segment[s], market.of_segment[s + 1]):
        if stock.held[other] and market.network[market.source[other]] == market.network[n]:
            lost = _loss(market, stock, other, c, value, most) - market.push[other]
            if lost < least:
                peer, least = other, lost
    return peer < 0, peer, least


@numba.njit(cache=True)
def _loss(market: Market, stock: Stock, c: int, without: int, value, most) -> float:  # type: ignore[no-untyped-def]
    """What goes with copy c, at the prices of uplink, while copy `without` is not there."""
    lost = requirement_worth(market, stock.held, c)
    for at in range(market.copy_start[c], market.copy_start[c + 1]):
        k = market.arc_row[market.copy_arc[at]]
        for sign in (1.0, -1.0):
            others, credit = _holders(market, stock, k, without, c if sign < 0 else -1, value, most)
            left = 1.0 - np.exp(-credit)
            for i in range(others):
                taken = min(most[i], left)
                lost += sign * market.row_bytes[k] * value[i] * taken
                left -= taken
    return lost


@numba.njit(cache=True)
def requirement_worth(market: Market, held: Bool, c: int) -> float:
    """What copy c is worth for its segment's requirements: all of it where only this copy meets them."""
    s, n = market.segment[c], market.source[c]
    if market.required[s] <= 1e-6 and not market.needs_pop:
        return 0.0
    credit, backed, mine = 0.0, False, market.credit[n]
    for other in range(market.of_segment[s], market.of_segment[s + 1]):
        m = market.source[other]
        if other == c or not held[other]:
            continue
        backed = backed or market.tier[m] == 1
        credit += market.credit[m] if _counts(market, held, other, c) else 0.0
        if market.domain[m] == market.domain[n]:
            mine = min(mine, max(0.0, market.credit[n] - market.credit[m]))
    without = credit >= market.required[s] - 1e-6 and (backed or not market.needs_pop)
    backed = backed or market.tier[n] == 1
    together = credit + mine >= market.required[s] - 1e-6 and (backed or not market.needs_pop)
    return market.worth_meeting if together and not without else 0.0


@numba.njit(cache=True)
def _counts(market: Market, held: Bool, c: int, without: int) -> bool:
    """Whether copy c is the one that its failure domain counts."""
    s, n = market.segment[c], market.source[c]
    for other in range(market.of_segment[s], market.of_segment[s + 1]):
        m = market.source[other]
        if other in (c, without) or not held[other] or market.domain[m] != market.domain[n]:
            continue
        if market.credit[m] > market.credit[n] or (market.credit[m] == market.credit[n] and m < n):
            return False
    return True


@numba.njit(cache=True)
def _pieces(  # type: ignore[no-untyped-def]
    market: Market, stock: Stock, c: int, peer: int, a: int, at: int, items, value, most
):
    """Writes the pieces of arc a from `at` on; (what more others may serve thanks to the copy, pieces)."""
    n, k = market.source[c], market.arc_row[a]
    p, density, sent = market.survival[n], market.density[a], market.row_bytes[k]
    others, credit = _holders(market, stock, k, c, peer, value, most)
    bonus, left_before, left = 0.0, 1.0 - np.exp(-credit), 1.0 - np.exp(-credit - market.coverage[n])
    for i in range(others):
        before = min(most[i], left_before)
        most[i] = min(most[i], left)  # what it serves together with n at most
        bonus += value[i] * (most[i] - before)
        left_before -= before
        left -= most[i]
    mine, used = max(0.0, min(p, left)), 0
    if mine > 0:
        items.worth[at], items.sent[at] = density, mine * sent
        used = 1
    for i in range(others - 1, -1, -1):
        if used == PIECES or mine >= p or value[i] >= density:
            break
        taken = min(p - mine, most[i])
        if taken <= 0:
            continue
        items.worth[at + used], items.sent[at + used] = density - value[i], taken * sent
        used += 1
        mine += taken
    return bonus * sent, used


@numba.njit(cache=True)
def _holders(  # type: ignore[no-untyped-def]
    market: Market, stock: Stock, k: int, without: int, nor: int, value, most
):
    """Other copies that serve row k, by what a byte saves there net of uplink; (how many, credit of all)."""
    found, credit = 0, 0.0
    for a in range(market.row_start[k], market.row_start[k + 1]):
        c = market.arc_copy[a]
        if not stock.held[c] or c in (without, nor):
            continue
        m = market.source[c]
        credit += market.coverage[m]
        net = market.density[a] - stock.price[m]
        if net <= 0 or found == HOLDERS:
            continue
        i = found
        while i > 0 and value[i - 1] < net:
            value[i], most[i] = value[i - 1], most[i - 1]
            i -= 1
        value[i], most[i] = net, market.survival[m]
        found += 1
    return found, credit


@numba.njit(cache=True)
def _value(items, order, chosen, uplink: float):  # type: ignore[no-untyped-def]
    """What the chosen items are worth together, and the price of the last byte of uplink."""
    total = 0.0
    for i in range(len(chosen)):
        if chosen[i]:
            total += items.fixed[i]
    for j in order:
        if chosen[items.of[j]]:
            taken = min(items.sent[j], uplink)
            total += items.worth[j] * taken
            uplink -= taken
            if taken < items.sent[j]:
                return total, items.worth[j]
    return total, 0.0


@numba.njit(cache=True)
def _worth(items, count: int, price: float):  # type: ignore[no-untyped-def]
    """What each item is worth where uplink has a price, (I,), and the bytes it would send, (I,)."""
    worth, sent = items.fixed[:count].copy(), np.zeros(count)
    for i in range(count):
        for j in range(items.start[i], items.start[i + 1]):
            if items.worth[j] > price:
                worth[i] += items.sent[j] * (items.worth[j] - price)
                sent[i] += items.sent[j]
    return worth, sent


@numba.njit(cache=True)
def _packed(items, order, count: int, limits: _Limits, chosen, now: float):  # type: ignore[no-untyped-def]
    """The best of the present set and those packed by worth per byte of room at several prices of uplink."""
    best, value = chosen.copy(), now
    low, high, price = 0.0, items.worth[order[0]] if len(order) else 0.0, 0.0
    for _ in range(BISECTIONS):
        worth, sent = _worth(items, count, price)
        trial, free, push, load = np.zeros(count, np.bool_), limits.room, limits.budget, 0.0
        for i in np.argsort(-worth / items.size[:count], kind="mergesort"):
            if worth[i] < 0 or (worth[i] == 0 and items.moved[i] > 0):
                break
            if items.size[i] <= free and items.moved[i] <= push:
                trial[i] = True
                free -= items.size[i]
                push -= items.moved[i]
                load += sent[i]
        found, _ = _value(items, order, trial, limits.uplink)
        if found > value:
            best, value = trial, found
        if load > limits.uplink:
            low = price
        else:
            high = price
        if high <= 0:
            break
        price = 0.5 * (low + high)
    return best, value


@numba.njit(cache=True)
def _exchanged(items, order, count: int, limits: _Limits, chosen, now: float, rounds: int):  # type: ignore[no-untyped-def]
    """The set after rounds of the best exchange: a newcomer and what makes way for it, or one that goes."""
    best, value = chosen.copy(), now
    for _ in range(rounds):
        start, before = best.copy(), value
        _, price = _value(items, order, start, limits.uplink)
        worth, _ = _worth(items, count, price)
        ratio, tried = np.argsort(worth / items.size[:count], kind="mergesort"), 0
        for i in np.argsort(-worth, kind="mergesort"):
            if start[i] or tried >= INS:
                continue
            tried += 1
            for single in (True, False):
                trial, fits = _with(items, start, i, limits, worth, ratio, single)
                if fits:
                    found, _ = _value(items, order, trial, limits.uplink)
                    if found > value + 1e-9:
                        best, value = trial, found
        for i in range(count):
            if start[i] and worth[i] < 0:
                trial = start.copy()
                trial[i] = False
                found, _ = _value(items, order, trial, limits.uplink)
                if found > value + 1e-9:
                    best, value = trial, found
        if value <= before:
            break
    return best, value


@numba.njit(cache=True)
def _with(items, start, i: int, limits: _Limits, worth, ratio, single: bool):  # type: ignore[no-untyped-def]
    """The set with item i, less the single item of least worth that frees its room, or less several by ratio."""
    trial = start.copy()
    trial[i] = True
    free, push = limits.room, limits.budget
    for j in range(len(start)):
        if trial[j]:
            free -= items.size[j]
            push -= items.moved[j]
    if free >= 0 and push >= 0:
        return trial, single
    if single:
        least = -1
        for j in range(len(start)):
            enough = start[j] and free + items.size[j] >= 0 and push + items.moved[j] >= 0
            if enough and (least < 0 or worth[j] < worth[least]):
                least = j
        if least >= 0:
            trial[least] = False
        return trial, least >= 0
    for j in ratio:
        if free >= 0 and push >= 0:
            break
        if start[j] and (free < 0 or items.moved[j] > 0):
            trial[j] = False
            free += items.size[j]
            push += items.moved[j]
    return trial, free >= 0 and push >= 0
