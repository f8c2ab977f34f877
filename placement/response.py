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
    """What the innermost loops need of each source near a location, side by side. All (P,)."""

    room: Float64  # bytes; endless where everything stands
    byte_price: Float64
    uplink: Float64
    survival: Float64
    credit: Float64

    @classmethod
    def of(cls, near: Near, offer: Offer) -> NearBy:
        n = near.source
        uplink, room = offer.source[len(near.room) : -1], np.where(near.stands, np.inf, near.room)
        return cls(room[n], near.byte_price[n], uplink[n], near.survival[n], near.credit[n])


class _Segment(NamedTuple):
    """The copies of the segment in hand that could serve anybody, and whom: scratch that is written over and over.

    A copy is known by its place among those met so far. `place[n]` is right where `met` has source n there: nothing has
    to be cleared between segments.
    """

    place: Int32  # (N,)
    met: Int32  # sources in the order they were met
    worth: Float64  # of each copy met
    copy: Int32  # copy of each pair (row, source) with a gain, by row
    near: Int32  # and its place near the row's location
    ahead: Float64  # m$ of gain for each request, less the price of uplink
    pairs: Int64  # where the pairs of each row begin
    case: Float64  # (6, M) for one row's alternatives
    bends: Int32  # and those whose slope is not the same all over the range (M,)


@numba.njit(cache=True, nogil=True)
def respond(  # type: ignore[no-untyped-def]
    rows: Rows, near: Near, first: int, end: int, offer: Offer, near_by: NearBy, known: Known, raising: bool
):
    """What the rows and the best response of every copy of the segments [first, end) are worth at these prices."""
    total, found = 0.0, [np.int64(0) for _ in range(0)]
    held, scratch = np.full(len(near.room), -1), _scratch(rows, near, first, end)
    worth, met = scratch.worth, scratch.met
    for s in range(first, end):
        mark_held(near, s, held)
        n_met = _meet(rows, near, s, offer, near_by, held, scratch)
        _pay(near, s, rows.size[s], held, offer, worth, met[:n_met])
        for k in range(rows.start[s], rows.start[s + 1]):
            if raising:
                _raise_row(k, k - rows.start[s], rows.requests[k], offer, near_by, scratch)
            flat = np.exp(-offer.tangent[k])
            total += rows.requests[k] * offer.once[k] * (1.0 - flat * (1.0 + offer.tangent[k]))
        total -= offer.backing[s]
        for i in range(n_met):
            if near.stands[met[i]] or worth[i] > 0:
                total += worth[i]
        if len(known.start):
            _forget_known(known, s, n_met, scratch)
            _pick_underpriced(s, rows.start[s + 1] - rows.start[s], len(near.room), scratch, found)
    return total, np.array(found, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def _scratch(rows: Rows, near: Near, first: int, end: int) -> _Segment:
    """Long enough for any segment of [first, end)."""
    most_pairs, most_rows, most_near = 0, 0, 0
    for s in range(first, end):
        pairs = 0
        for k in range(rows.start[s], rows.start[s + 1]):
            reached = near.start[rows.location[k] + 1] - near.start[rows.location[k]]
            pairs, most_near = pairs + reached, max(most_near, reached)
        most_pairs, most_rows = max(most_pairs, pairs), max(most_rows, rows.start[s + 1] - rows.start[s])
    most_met = most_pairs + len(near.backing)
    return _Segment(
        np.zeros(len(near.room), np.int32),
        np.zeros(most_met + 1, np.int32),
        np.zeros(most_met + 1),
        np.empty(most_pairs, np.int32),
        np.empty(most_pairs, np.int32),
        np.empty(most_pairs),
        np.zeros(most_rows + 1, np.int64),
        np.empty((6, most_near)),
        np.empty(most_near, np.int32),
    )


@numba.njit(cache=True, nogil=True)
def _meet(rows: Rows, near: Near, s: int, offer: Offer, near_by: NearBy, held: Int64, scratch: _Segment) -> int:
    """Writes down the pairs of segment s and what each copy is worth before it is paid for; how many copies."""
    # Bare arrays: reading a field costs more than the arithmetic of the innermost loop.
    place, met, worth = scratch.place, scratch.met, scratch.worth
    copy, position, reduced = scratch.copy, scratch.near, scratch.ahead
    sources, waiting, room, stands = near.source, near.waiting, near_by.room, near.stands
    byte_price, uplink, survival, credit = near_by.byte_price, near_by.uplink, near_by.survival, near_by.credit
    size, n_met, n_pairs = rows.size[s], 0, 0
    too_large = size > near.budget
    for n in near.backing:
        if may_hold(near, n, size, held[n] == s):
            place[n], met[n_met], worth[n_met] = n_met, n, offer.backing[s]
            n_met += 1
    for k in range(rows.start[s], rows.start[s + 1]):
        requests, base, once = rows.requests[k], rows.base[k], offer.once[k]
        flat = once * np.exp(-offer.tangent[k])
        scratch.pairs[k - rows.start[s]] = n_pairs
        for at in range(near.start[rows.location[k]], near.start[rows.location[k] + 1]):
            gain = base - waiting[at] - size * byte_price[at]
            if gain <= 0 or size > room[at]:
                continue
            n = sources[at]
            if too_large and held[n] != s and not stands[n]:
                continue
            i = place[n]
            if i >= n_met or met[i] != n:
                i = np.int32(n_met)
                place[n], met[i], worth[i] = i, n, 0.0
                n_met += 1
            ahead = gain - size * uplink[at]
            copy[n_pairs], position[n_pairs], reduced[n_pairs] = i, at, ahead
            n_pairs += 1
            worth[i] += requests * (flat * credit[at] + survival[at] * max(0.0, ahead - once))
    scratch.pairs[rows.start[s + 1] - rows.start[s]] = n_pairs
    return n_met


@numba.njit(cache=True, nogil=True)
def _pay(near: Near, s: int, size: float, held: Int64, offer: Offer, worth: Float64, met: Int32) -> None:
    """Lowers what the copies are worth by the prices of what they take."""
    storage, push_price, stands, movement = offer.source, near.push_price, near.stands, offer.source[2 * len(near.room)]
    for i in range(len(met)):
        n = met[i]
        if not stands[n]:
            worth[i] -= size * (storage[n] if held[n] == s else storage[n] + push_price[n] + movement)


@numba.njit(cache=True, nogil=True)
def _raise_row(k: int, at: int, requests: float, offer: Offer, near_by: NearBy, scratch: _Segment) -> None:
    """Sets the price of row k to where it proves most, all others given, and `worth` to what follows.

    At price u the row costs  r phi(t) u + sum_n max(0, a_n + r (p_n (c_n - u)^+ + e^-t w_n u)),  with a_n what the copy
    is worth elsewhere less its prices, and c_n its gain less its uplink: convex in u, so the slope is bisected.
    """
    elsewhere, gain, share, lift = scratch.case[0], scratch.case[1], scratch.case[2], scratch.case[3]
    copy, position, reduced, worth = scratch.copy, scratch.near, scratch.ahead, scratch.worth
    survival, credit, once = near_by.survival, near_by.credit, offer.once
    first, last = scratch.pairs[at], scratch.pairs[at + 1]
    old, flat = once[k], np.exp(-offer.tangent[k])
    covered, high = 1.0 - flat * (1.0 + offer.tangent[k]), 0.0
    for i in range(first, last):
        high = max(high, reduced[i])
    m, most = 0, high
    for i in range(first, last):
        ahead, p, w = reduced[i], survival[position[i]], flat * credit[position[i]]
        apart = worth[copy[i]] / requests - p * max(0.0, ahead - old) - w * old
        if apart + max(p * max(0.0, ahead), w * most) > 0:  # else it is worth nothing at any price of the row
            elsewhere[m], gain[m], share[m], lift[m] = apart, ahead, p, w
            m += 1
    high = _bisected(covered, high, scratch, m)
    cost, old_cost = covered * high, covered * old
    for i in range(m):
        cost += max(0.0, elsewhere[i] + share[i] * max(0.0, gain[i] - high) + lift[i] * high)
        old_cost += max(0.0, elsewhere[i] + share[i] * max(0.0, gain[i] - old) + lift[i] * old)
    if cost >= old_cost:
        return
    once[k] = high
    for i in range(first, last):
        ahead = reduced[i]
        more = survival[position[i]] * (max(0.0, ahead - high) - max(0.0, ahead - old))
        worth[copy[i]] += requests * (more + flat * credit[position[i]] * (high - old))


@numba.njit(cache=True, nogil=True)
def _bisected(slope: float, high: float, scratch: _Segment, m: int) -> float:
    """Where the slope of the m alternatives' sum and of what they share, `slope`, turns positive, at most `high`.

    A convex alternative whose slope is the same at both ends of the range has it all the way: it is counted once and not
    looked at again. After a few halvings hardly any are left.
    """
    elsewhere, gain, share, lift = scratch.case[0], scratch.case[1], scratch.case[2], scratch.case[3]
    at_low, at_high, bends = scratch.case[4], scratch.case[5], scratch.bends
    low, left = 0.0, 0
    for i in range(m):
        at_low[i] = _slope(elsewhere[i], gain[i], share[i], lift[i], low)
        at_high[i] = _slope(elsewhere[i], gain[i], share[i], lift[i], high)
    for i in range(m):
        if at_low[i] == at_high[i]:
            slope += at_low[i]
        else:
            bends[left] = i
            left += 1
    for _ in range(BISECTIONS):
        u, here = (low + high) / 2, slope
        for j in range(left):
            i = bends[j]
            here += _slope(elsewhere[i], gain[i], share[i], lift[i], u)
        bending = left
        left = 0
        for j in range(bending):
            i = bends[j]
            middle = _slope(elsewhere[i], gain[i], share[i], lift[i], u)
            if here < 0:
                at_low[i] = middle
            else:
                at_high[i] = middle
            if at_low[i] == at_high[i]:
                slope += middle
            else:
                bends[left] = i
                left += 1
        low, high = (u, high) if here < 0 else (low, u)
    return high


@numba.njit(cache=True, nogil=True)
def _slope(elsewhere: float, gain: float, share: float, lift: float, u: float) -> float:
    """Of max(0, elsewhere + share (gain - u)^+ + lift u), to the right of u."""
    falling = share if gain > u else 0.0
    return lift - falling if elsewhere + falling * (gain - u) + lift * u > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def _forget_known(known: Known, s: int, n_met: int, scratch: _Segment) -> None:
    """Those that are looked at already count as worth nothing from here on."""
    for at in range(known.start[s], known.start[s + 1]):
        n = known.source[at]
        i = scratch.place[n]
        if i < n_met and scratch.met[i] == n:
            scratch.worth[i] = 0.0


@numba.njit(cache=True, nogil=True)
def _pick_underpriced(s: int, n_rows: int, n_sources: int, scratch: _Segment, found) -> None:  # type: ignore[no-untyped-def]
    """For each row of segment s the copy that is worth most among those that could serve it, each once."""
    copy, worth = scratch.copy, scratch.worth
    for at in range(n_rows):
        best = -1
        for i in range(scratch.pairs[at], scratch.pairs[at + 1]):
            if worth[copy[i]] > 0 and (best < 0 or worth[copy[i]] > worth[best]):
                best = copy[i]
        if best >= 0:
            found.append(s * np.int64(n_sources) + scratch.met[best])
            worth[best] = 0.0
