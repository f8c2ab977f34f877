"""The best prices of every node, given those of the rows: one small programme for each node, solved exactly.

With the prices u_k of demand rows and pi of movement fixed, the bound of `placement/bound.py` is a sum over nodes,

    - min_{lambda, mu >= 0}  storage lambda + uplink mu + sum_s max(0, value_s(mu) - bytes_s lambda)
    value_s(mu) = sum_k r_k (p (gain_k - bytes_s mu - u_k)^+ + u_k e^-t_k w) - bytes_s (push + pi) new_s

and each term is the dual of a knapsack with two limits: mu is bisected, and at each mu the segments are taken by worth
per byte of storage until it is full. Nodes do not disturb each other, so that the bound rises; what the price of a group
says about all its nodes becomes right for each of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Float64, Int32, Int64
from placement.reach import Near, Reach, Rows
from placement.response import Offer

LOWEST, HIGHEST = 0.93, 1.1
"""Range around a node's present prices in which the best ones are looked for: what would be worth less is left out."""
BISECTIONS = 7
"""Halvings of that range."""
CHUNKS = 64
"""Parts of the nodes that threads take one after the other."""


class _Market(NamedTuple):
    """Rows side by side for each location, and for each source the locations that reach it and what it holds."""

    start: Int64  # rows of each location, in order of their segments (L + 1,)
    segment: Int32  # of each row (R,)
    size: Float64  # bytes (R,)
    requests: Float64  # (R,)
    base: Float64  # m$ for a request that no candidate serves (R,)
    once: Float64  # u_k (R,)
    flat: Float64  # u_k e^-t_k (R,)
    reach_start: Int64  # (N + 1,)
    reached: Int32  # locations that reach each source (P,)
    waiting: Float64  # m$ for each of their requests (P,)
    held_start: Int64  # (N + 1,)
    held: Int32  # segments that each source holds now


class _Items(NamedTuple):
    """What one node may hold, and what it could serve with it: scratch that is written over and over."""

    segment: Int32  # (I,)
    size: Float64  # bytes (I,)
    constant: Float64  # m$ that holding is worth before anything is served (I,)
    worth: Float64  # m$ at the lowest price of uplink (I,)
    of: Int32  # item of each piece (P,)
    requests: Float64  # that the node would serve (P,)
    ahead: Float64  # m$ saved by each of them before uplink (P,)


def fit_node_prices(reach: Reach, offer: Offer, *, threads: int = 1) -> Offer:
    """The offer with the best storage and uplink prices of every node; those of POPs stay."""
    near, market = reach.near, _market(reach, offer)
    nodes = np.flatnonzero((near.place >= 0) & ~near.stands & (near.room > 0) & (np.diff(market.reach_start) > 0))
    nodes = nodes[np.argsort(market.reached[market.reach_start[nodes]], kind="stable")]  # neighbours share rows
    prices = offer.source.copy()

    def fit(chunk: Int64) -> None:
        _fit(reach.rows, near, market, offer.source, reach.limits, chunk, prices)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(fit, np.array_split(nodes, CHUNKS)))
    return offer._replace(source=prices)


def _market(reach: Reach, offer: Offer) -> _Market:
    rows, near = reach.rows, reach.near
    n_locations, n_sources = len(near.start) - 1, len(near.room)
    order = np.argsort(rows.location, kind="stable")
    segment = np.repeat(np.arange(len(rows.size), dtype=np.int32), np.diff(rows.start))[order]
    at = np.argsort(near.source, kind="stable")
    held = np.argsort(near.current, kind="stable")
    holding = np.repeat(np.arange(len(rows.size), dtype=np.int32), np.diff(near.current_start))
    once = offer.once[order]
    return _Market(
        np.searchsorted(rows.location[order], np.arange(n_locations + 1)),
        segment,
        rows.size[segment],
        rows.requests[order],
        rows.base[order],
        once,
        once * np.exp(-offer.tangent[order]),
        np.searchsorted(near.source[at], np.arange(n_sources + 1)),
        np.repeat(np.arange(n_locations, dtype=np.int32), np.diff(near.start))[at],
        near.waiting[at],
        np.searchsorted(near.current[held], np.arange(n_sources + 1)),
        holding[held],
    )


@numba.njit(cache=True, nogil=True)
def _fit(rows: Rows, near: Near, market: _Market, old: Float64, limits: Float64, nodes: Int64, prices: Float64) -> None:
    """Writes the prices of these nodes into `prices`. (2 N + 1,)"""
    n_sources, items = len(near.room), _scratch(market, nodes)
    slot, here = np.zeros(len(rows.size), np.int32), np.full(len(rows.size), np.int32(-1))
    for n in nodes:
        for at in range(market.held_start[n], market.held_start[n + 1]):
            here[market.held[at]] = n
        storage, uplink = old[n], old[n_sources + n]
        least = LOWEST * storage
        terms = (LOWEST * uplink, least, near.push_price[n] + old[2 * n_sources])
        count, pieces = _gather(near, market, n, terms, items, slot, here)
        count, pieces = _worthwhile(items, count, pieces, here, n, near.budget, terms)
        if count > 0:
            limit = (limits[n], limits[n_sources + n])
            prices[n], prices[n_sources + n] = _best(items, count, pieces, limit, storage, uplink)


@numba.njit(cache=True, nogil=True)
def _scratch(market: _Market, nodes: Int64) -> _Items:
    most = 0
    for n in nodes:
        rows = 0
        for at in range(market.reach_start[n], market.reach_start[n + 1]):
            rows += market.start[market.reached[at] + 1] - market.start[market.reached[at]]
        most = max(most, rows)
    return _Items(
        np.empty(most, np.int32),
        np.empty(most),
        np.empty(most),
        np.empty(most),
        np.empty(most, np.int32),
        np.empty(most),
        np.empty(most),
    )


@numba.njit(cache=True, nogil=True)
def _gather(  # type: ignore[no-untyped-def]
    near: Near, market: _Market, n: int, terms, items: _Items, slot: Int32, here: Int32
):
    """Writes down what node n could hold, pushes not counted; (items, pieces).

    Where one location alone reaches it, each item is one row, and those that are not worth their room are left out.
    """
    uplink, storage, bringing = terms
    p, w, room, byte_price = near.survival[n], near.credit[n], near.room[n], near.byte_price[n]
    segment, sizes, requests, base = market.segment, market.size, market.requests, market.base
    once, flat = market.once, market.flat
    first, end = market.reach_start[n], market.reach_start[n + 1]
    alone, count, pieces = end - first == 1, 0, 0
    for at in range(first, end):
        location, waiting = market.reached[at], market.waiting[at]
        for k in range(market.start[location], market.start[location + 1]):
            size = sizes[k]
            gain = base[k] - waiting - size * byte_price
            if gain <= 0 or size > room:
                continue
            ahead, lift = gain - once[k], flat[k] * w
            worth = requests[k] * (lift + p * max(0.0, ahead - size * uplink))
            if alone:
                if worth <= size * (storage + bringing) and here[segment[k]] != n:
                    continue
                i = count
            else:
                i = slot[segment[k]]
            if alone or i >= count or items.segment[i] != segment[k]:
                i = count
                slot[segment[k]] = i
                items.segment[i], items.size[i], items.constant[i], items.worth[i] = segment[k], size, 0.0, 0.0
                count += 1
            items.constant[i] += requests[k] * lift
            items.worth[i] += worth
            items.of[pieces], items.requests[pieces], items.ahead[pieces] = i, p * requests[k], ahead
            pieces += 1
    return count, pieces


@numba.njit(cache=True, nogil=True)
def _worthwhile(items: _Items, count: int, pieces: int, here: Int32, n: int, budget: float, terms):  # type: ignore[no-untyped-def]
    """Pays for pushes, and leaves out the items that are not worth their room even at the lowest prices; (items, pieces)."""
    _, storage, bringing = terms
    kept, kept_pieces, place = 0, 0, np.full(count, np.int32(-1))
    for i in range(count):
        size = items.size[i]
        push = 0.0 if here[items.segment[i]] == n else (size * bringing if size <= budget else np.inf)
        if items.worth[i] - push > size * storage:
            items.size[kept], items.constant[kept] = size, items.constant[i] - push
            place[i] = kept
            kept += 1
    for j in range(pieces):
        i = place[items.of[j]]
        if i >= 0:
            items.of[kept_pieces], items.requests[kept_pieces], items.ahead[kept_pieces] = (
                i,
                items.requests[j],
                items.ahead[j],
            )
            kept_pieces += 1
    return kept, kept_pieces


@numba.njit(cache=True, nogil=True)
def _best(items: _Items, count: int, pieces: int, limit, storage: float, uplink: float):  # type: ignore[no-untyped-def]
    """The best prices of storage and uplink within the range around these."""
    low, high = LOWEST * uplink, HIGHEST * uplink
    found, load = _filled(items, count, pieces, limit[0], low)
    if limit[1] <= 0 or uplink <= 0:
        return max(found, LOWEST * storage), uplink
    if load > limit[1]:
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            _, load = _filled(items, count, pieces, limit[0], middle)
            low, high = (middle, high) if load > limit[1] else (low, middle)
        found, _ = _filled(items, count, pieces, limit[0], high)
        low = high
    return max(found, LOWEST * storage), low


@numba.njit(cache=True, nogil=True)
def _filled(items: _Items, count: int, pieces: int, room: float, uplink: float):  # type: ignore[no-untyped-def]
    """The price of the last byte of storage, and the bytes sent, where the best items fill the room."""
    size, of, requests, ahead = items.size[:count], items.of, items.requests, items.ahead
    density, sent = items.constant[:count].copy(), np.zeros(count)
    for j in range(pieces):
        net = ahead[j] - size[of[j]] * uplink
        if net > 0:
            density[of[j]] += requests[j] * net
            sent[of[j]] += requests[j] * size[of[j]]
    density, load = density / size, 0.0
    for i in np.argsort(-density):
        if density[i] <= 0:
            break
        if size[i] > room:
            return density[i], load + sent[i] * room / size[i]
        room -= size[i]
        load += sent[i]
    return 0.0, load
