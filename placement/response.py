"""What copies are worth at given prices: the best response of every candidate of a block of segments.

    worth_sn = sum_k r_k (p_n (gain_kn - bytes_s mu_n - u_k)^+ + u_k e^-t_k w_n) + tau_s [n is a POP] - its prices

The rules and letters are those of `placement/bound.py`. On the way the price u_k of each row can be set to where the
bound is highest, all others given, and the candidates that are worth more than their prices can be named.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Float64, Int32, Int64
from placement.reach import Near, Rows, mark_held, may_hold

BISECTIONS = 14
"""Halvings of the range of a row's price: to a ten-thousandth of what a request can save."""


class Offer(NamedTuple):
    """Lawful prices as the kernels read them, by source, by row of `Reach` and by segment."""

    source: Float64  # storage (N), uplink (N) and movement (1) (2 N + 1,)
    once: Float64  # (R,)
    tangent: Float64  # (R,)
    backing: Float64  # (S,)


class Known(NamedTuple):
    """Candidates by segment; empty starts: none are asked about."""

    start: Int64  # (S + 1,)
    source: Int32  # (C,)


NOTHING = Known(np.zeros(0, np.int64), np.zeros(0, np.int32))


class NearBy(NamedTuple):
    """What the innermost loop needs of each source near a location, side by side. All (P,)."""

    byte_price: Float64
    uplink: Float64
    survival: Float64
    credit: Float64

    @classmethod
    def of(cls, near: Near, offer: Offer) -> NearBy:
        n = near.source
        uplink = offer.source[len(near.room) : -1]
        return cls(near.byte_price[n], uplink[n], near.survival[n], near.credit[n])


@numba.njit(cache=True, nogil=True)
def respond(  # type: ignore[no-untyped-def]
    rows: Rows, near: Near, first: int, end: int, offer: Offer, near_by: NearBy, known: Known, raising: bool
):
    """What the rows and the best response of every copy of the segments [first, end) are worth at these prices."""
    n_sources, total, found = len(near.room), 0.0, [np.int64(0) for _ in range(0)]
    held, stamp = np.full(n_sources, -1), np.full(n_sources, -1)
    worth, touched, case = np.zeros(n_sources), np.zeros(n_sources, np.int64), np.empty((4, n_sources))
    # Bare arrays: reading a field costs more than the arithmetic of the innermost loop.
    starts, sources, waiting, room, stands = near.start, near.source, near.waiting, near.room, near.stands
    byte_price, uplink, survival, credit = near_by.byte_price, near_by.uplink, near_by.survival, near_by.credit
    for s in range(first, end):
        mark_held(near, s, held)
        size, n_touched = rows.size[s], 0
        too_large = size > near.budget
        for n in near.backing:
            if may_hold(near, n, size, held[n] == s):
                stamp[n], worth[n], touched[n_touched] = s, offer.backing[s], n
                n_touched += 1
        for k in range(rows.start[s], rows.start[s + 1]):
            requests, base, once = rows.requests[k], rows.base[k], offer.once[k]
            flat = once * np.exp(-offer.tangent[k])
            for at in range(starts[rows.location[k]], starts[rows.location[k] + 1]):
                gain, n = base - waiting[at] - size * byte_price[at], sources[at]
                if gain <= 0 or ((size > room[n] or (too_large and held[n] != s)) and not stands[n]):
                    continue
                if stamp[n] != s:
                    stamp[n], worth[n], touched[n_touched] = s, 0.0, n
                    n_touched += 1
                reduced = max(0.0, gain - once - size * uplink[at])
                worth[n] += requests * (flat * credit[at] + survival[at] * reduced)
        _pay(near, s, size, held, offer, worth, touched[:n_touched])
        for k in range(rows.start[s], rows.start[s + 1]):
            if raising:
                _raise_row(rows, near, k, s, size, offer, near_by, worth, stamp, case)
            flat = np.exp(-offer.tangent[k])
            total += rows.requests[k] * offer.once[k] * (1.0 - flat * (1.0 + offer.tangent[k]))
        total -= offer.backing[s]
        for n in touched[:n_touched]:
            if stands[n] or worth[n] > 0:
                total += worth[n]
        if len(known.start):
            for at in range(known.start[s], known.start[s + 1]):
                worth[known.source[at]] = 0.0
            _pick_underpriced(rows, near, s, worth, stamp, found)
    return total, np.array(found, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def _pay(near: Near, s: int, size: float, held: Int64, offer: Offer, worth: Float64, touched: Int64) -> None:
    """Lowers what the touched copies are worth by the prices of what they take."""
    storage, push_price, stands, movement = offer.source, near.push_price, near.stands, offer.source[2 * len(near.room)]
    for n in touched:
        if not stands[n]:
            worth[n] -= size * (storage[n] if held[n] == s else storage[n] + push_price[n] + movement)


@numba.njit(cache=True, nogil=True)
def _raise_row(  # type: ignore[no-untyped-def]
    rows: Rows, near: Near, k: int, s: int, size: float, offer: Offer, near_by: NearBy, worth, stamp, case
) -> None:
    """Sets the price of row k to where it proves most, all others given, and `worth` to what follows.

    At price u the row costs  r phi(t) u + sum_n max(0, a_n + r (p_n (c_n - u)^+ + e^-t w_n u)),  with a_n what the copy
    is worth elsewhere less its prices, and c_n its gain less its uplink: convex in u, so the slope is bisected.
    """
    elsewhere, gain, share, lift = case[0], case[1], case[2], case[3]
    requests, old, flat = rows.requests[k], offer.once[k], np.exp(-offer.tangent[k])
    covered, base = 1.0 - flat * (1.0 + offer.tangent[k]), rows.base[k]
    first, last = near.start[rows.location[k]], near.start[rows.location[k] + 1]
    sources, waiting, byte_price, uplink = near.source, near.waiting, near_by.byte_price, near_by.uplink
    survival, credit = near_by.survival, near_by.credit
    high = 0.0
    for at in range(first, last):
        high = max(high, base - waiting[at] - size * byte_price[at])
    m, low, most = 0, 0.0, high
    for at in range(first, last):
        n, here = sources[at], base - waiting[at] - size * byte_price[at]
        if stamp[n] == s and here > 0:
            ahead, p, w = here - size * uplink[at], survival[at], flat * credit[at]
            apart = worth[n] / requests - p * max(0.0, ahead - old) - w * old
            if apart + p * max(0.0, ahead) + w * most > 0:  # else it is worth nothing at any price of the row
                elsewhere[m], gain[m], share[m], lift[m] = apart, ahead, p, w
                m += 1
    for _ in range(BISECTIONS):
        u, slope = (low + high) / 2, covered
        for i in range(m):
            ahead = max(0.0, gain[i] - u)
            if elsewhere[i] + share[i] * ahead + lift[i] * u > 0:
                slope += lift[i] - (share[i] if ahead > 0 else 0.0)
        if slope < 0:
            low = u
        else:
            high = u
    cost, old_cost = covered * high, covered * old
    for i in range(m):
        cost += max(0.0, elsewhere[i] + share[i] * max(0.0, gain[i] - high) + lift[i] * high)
        old_cost += max(0.0, elsewhere[i] + share[i] * max(0.0, gain[i] - old) + lift[i] * old)
    if cost >= old_cost:
        return
    offer.once[k] = high
    for at in range(first, last):
        n, here = sources[at], base - waiting[at] - size * byte_price[at]
        if stamp[n] == s and here > 0:
            ahead = here - size * uplink[at]
            more = survival[at] * (max(0.0, ahead - high) - max(0.0, ahead - old)) + flat * credit[at] * (high - old)
            worth[n] += requests * more


@numba.njit(cache=True, nogil=True)
def _pick_underpriced(rows: Rows, near: Near, s: int, worth: Float64, stamp: Int64, found) -> None:  # type: ignore[no-untyped-def]
    """For each row of segment s the copy that is worth most, each once."""
    for k in range(rows.start[s], rows.start[s + 1]):
        best = -1
        for at in range(near.start[rows.location[k]], near.start[rows.location[k] + 1]):
            n = near.source[at]
            if stamp[n] == s and worth[n] > 0 and (best < 0 or worth[n] > worth[best]):
                best = n
        if best >= 0:
            found.append(s * np.int64(len(near.room)) + best)
            worth[best] = 0.0
