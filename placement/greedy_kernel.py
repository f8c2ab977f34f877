"""The compiled inside of the greedy placement: the heap, the values of copies, and what placing one changes.

An uplink is a budget of bytes, or a line that sends one transfer at a time and refuses who comes meanwhile. A line that is
asked for a times what it could send is busy a / (1 + a) of the time (Erlang 1917, one line). Of a further load of l times
what it could send it therefore carries the share

    f f',   f = 1 / (1 + a) the time it was idle before,   f' = 1 / (1 + a + l) the time it is idle then

where what it now refuses of the earlier load is taken off. So copies spread over devices long before any budget is used up.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numba
import numpy as np

from placement.copies import has_room, may_pay, pay
from placement.problem import Bool, Float64, Int32, Int64

ACCEPTED_SHARE = 0.95
"""A copy is placed when it is worth at least this share of the best that the heap promises: exactness costs time."""
SPENT_BEFORE_SWEEP = 8
"""Sources that run out of uplink or storage before the lists of candidates are swept."""
COPIES_BEFORE_RANKING = 64
"""Copies that are placed before the candidates with lines are ranked anew by their idle time."""


class GreedyInstance(NamedTuple):
    """What does not change while copies are placed. Demand rows are sorted by segment."""

    row_start: Int64  # (S + 1,)
    location: Int32  # (D,)
    requests: Float64  # (D,)
    fallback_price: Float64  # price of a request that no candidate serves (D,)
    size: Float64  # (S,)
    near_start: Int64  # (L + 1,)
    near: Int32  # candidates of each location, cheapest first; spent ones are swept out
    smallest: float  # size of the smallest segment
    current_start: Int64  # (S + 1,)
    current: Int32  # sources that hold a segment now and are candidates
    typical_saving: Float64  # of a request of mean price for a segment of mean size (L, N); empty without lines
    can_serve: Bool  # (L, N)
    request_price: Float64  # (L, N)
    byte_price: Float64  # (N,)
    push_price: Float64  # (N,)
    survival: Float64  # (N,)
    uplink: Float64  # (N,)
    least_uplink: Float64  # free uplink with which a source is looked at no more (N,)
    line: Bool  # whether the uplink is a line and not a budget (N,)
    network: Int32  # (N,)
    slots: Int64  # budgets that a push is taken from (N, 3)
    tier: Int64  # (N,)
    caps: Int64  # (4,)
    thrift: float
    steadiness: float


class GreedyState(NamedTuple):
    """What changes with every copy."""

    delivered: Float64  # share of a row's requests that copies serve (D,)
    nobody: Float64  # probability that none of the copies in a row's reach is up (D,)
    uplink: Float64  # free: of a budget what is left, of a line what it could send in its idle time (N,)
    spare: Float64  # free storage (N,)
    budget: Float64  # bytes that may still move within each budget (B,)
    first: Int64  # newest copy of each segment, -1 for none (S,)
    following: Int64  # the copy placed before it (capacity,)
    holder: Int64  # (capacity,)
    near_end: Int64  # end of each location's candidates that are not spent (L,)
    value: Float64  # scratch: value of a candidate before its uplink is counted (N,)
    load: Float64  # scratch: bytes it would serve (N,)
    stamp: Int64  # scratch: the valuation that `value` and `load` belong to (N,)
    holds: Int64  # scratch: the valuation in which the source holds the segment now (N,)


@numba.njit(cache=True)
def lazy_greedy(
    instance: GreedyInstance,
    state: GreedyState,
    held: tuple[Int32, Int32, Int32, Int32],
    limit: int,
) -> tuple[Int32, Int32]:
    """Copies at the candidates, those already there first."""
    segments, sources = [np.int32(0) for _ in range(0)], [np.int32(0) for _ in range(0)]
    for at in range(len(held[2])):
        _link(state, int(held[2][at]), int(held[3][at]), at)
    for at in range(len(held[0])):
        _commit(instance, state, int(held[0][at]), int(held[1][at]), len(held[2]) + len(segments))
        segments.append(held[0][at])
        sources.append(held[1][at])
    if instance.line.any():
        _rank(instance, state)
    heap = [(-np.inf, s) for s in range(len(instance.size)) if _asked(instance, s)]
    valuation, spent = 0, 0
    while len(heap):
        s = heapq.heappop(heap)[1]
        valuation += 1
        gain, n = _best_copy(instance, state, s, limit, valuation)
        if n < 0:
            continue
        density = gain / instance.size[s]
        if len(heap) == 0 or density >= -ACCEPTED_SHARE * heap[0][0]:
            _pay(instance, state, s, n)
            state.spare[n] -= instance.size[s]
            _commit(instance, state, s, n, len(held[2]) + len(segments))
            segments.append(np.int32(s))
            sources.append(np.int32(n))
            spent += 1 if _is_spent(instance, state, n) else 0
            if spent >= SPENT_BEFORE_SWEEP:
                _sweep(instance, state)
                spent = 0
            if instance.line[n] and len(segments) % COPIES_BEFORE_RANKING == 0:
                _rank(instance, state)
        heapq.heappush(heap, (-density, s))
    return np.array(segments, dtype=np.int32), np.array(sources, dtype=np.int32)


@numba.njit(cache=True)
def _is_spent(instance: GreedyInstance, state: GreedyState, n: int) -> bool:
    return bool(state.uplink[n] <= instance.least_uplink[n] or state.spare[n] < instance.smallest)


@numba.njit(cache=True)
def _carried(instance: GreedyInstance, n: int, free: float, load: float) -> float:
    """Share of a further load that source n carries, less what it then refuses of the load before."""
    if load <= 0 or free <= 0:
        return 0.0
    if not instance.line[n]:
        return float(min(1.0, free / load))
    whole = instance.uplink[n]
    return float(free / whole * (_idle_after(whole, free, load) / whole))


@numba.njit(cache=True)
def _idle_after(whole: float, free: float, load: float) -> float:
    """What a line could send in the time in which it is still idle under a further load."""
    return float(free / (1.0 + load * free / whole / whole))


@numba.njit(cache=True)
def _sweep(instance: GreedyInstance, state: GreedyState) -> None:
    """Takes spent sources off the lists of candidates, keeping their order."""
    for location in range(len(state.near_end)):
        end = instance.near_start[location]
        for at in range(instance.near_start[location], state.near_end[location]):
            n = instance.near[at]
            if not _is_spent(instance, state, n):
                instance.near[end] = n
                end += 1
        state.near_end[location] = end


@numba.njit(cache=True)
def _rank(instance: GreedyInstance, state: GreedyState) -> None:
    """Puts the candidates of each location in order by what they would save of a small load of its rows."""
    for location in range(len(state.near_end)):
        first, end = instance.near_start[location], state.near_end[location]
        worth = np.empty(end - first)
        for at in range(first, end):
            n = instance.near[at]
            idle = state.uplink[n] / instance.uplink[n] if instance.line[n] else 1.0
            worth[at - first] = instance.typical_saving[location, n] * instance.survival[n] * idle * idle
        order = np.argsort(-worth, kind="mergesort")
        instance.near[first:end] = instance.near[first:end][order]


@numba.njit(cache=True)
def _asked(instance: GreedyInstance, s: int) -> bool:
    return bool(instance.row_start[s + 1] > instance.row_start[s])


@numba.njit(cache=True)
def _best_copy(instance: GreedyInstance, state: GreedyState, s: int, limit: int, valuation: int) -> tuple[float, int]:
    """The most valuable copy of segment s and its value; source -1 where none is worth its push."""
    size, touched = instance.size[s], [np.int64(0) for _ in range(0)]
    may_push = size <= state.budget[0]
    near, current, spare, uplink, holds = instance.near, instance.current, state.spare, state.uplink, state.holds
    least = instance.least_uplink
    slots, budget = instance.slots, state.budget
    arrays = (state.stamp, state.value, state.load, instance.survival, instance.byte_price)
    for at in range(instance.current_start[s], instance.current_start[s + 1]):
        holds[current[at]] = valuation
    for k in range(instance.row_start[s], instance.row_start[s + 1]):
        seen, location = 0, instance.location[k]
        prices, reached = instance.request_price[location], instance.can_serve[location]
        row = (instance.requests[k], instance.fallback_price[k], state.nobody[k], state.delivered[k])
        for at in range(instance.near_start[location], state.near_end[location]):
            n = near[at]
            if not may_push or seen >= limit:
                break
            if size <= spare[n] and uplink[n] > least[n] and holds[n] != valuation and may_pay(n, size, slots, budget):
                seen += 1
                _value_row(row, arrays, prices, n, size, valuation, touched)
        for at in range(instance.current_start[s], instance.current_start[s + 1]):
            n = current[at]
            if reached[n] and size <= spare[n]:
                _value_row(row, arrays, prices, n, size, valuation, touched)
    return _pick(instance, state, s, valuation, touched)


@numba.njit(cache=True)
def _new_share(instance: GreedyInstance, state: GreedyState, k: int, n: int) -> float:
    """Share of row k's requests that a copy at n would newly serve, if its uplink were free."""
    survival = instance.survival[n]
    together = 1.0 - state.nobody[k] * (1.0 - survival)
    return float(max(0.0, min(survival, together - state.delivered[k])))


@numba.njit(cache=True)
def _saving(instance: GreedyInstance, k: int, n: int, size: float) -> float:
    """What a request of row k saves when n serves it, in m$."""
    price = instance.request_price[instance.location[k], n] + instance.byte_price[n] * size
    return float(instance.fallback_price[k] - price)


@numba.njit(cache=True, inline="always")
def _value_row(row, arrays, prices, n: int, size: float, valuation: int, touched) -> None:  # type: ignore[no-untyped-def]
    """Adds what a copy at n is worth to one demand row. Takes bare arrays: this is the innermost loop."""
    requests, fallback_price, nobody, delivered = row
    stamp, value, load, survival, byte_price = arrays
    saving = fallback_price - prices[n] - byte_price[n] * size
    served = requests * min(survival[n], 1.0 - nobody * (1.0 - survival[n]) - delivered)
    if saving > 0 and served > 0:
        if stamp[n] != valuation:
            stamp[n], value[n], load[n] = valuation, 0.0, 0.0
            touched.append(np.int64(n))
        value[n] += served * saving
        load[n] += served * size


@numba.njit(cache=True)
def _pick(  # type: ignore[no-untyped-def]
    instance: GreedyInstance, state: GreedyState, s: int, valuation: int, touched
) -> tuple[float, int]:
    """The touched source with the largest value by the rules; equal ones by free uplink, then in their order."""
    best, chosen, size = 0.0, -1, instance.size[s]
    holds, value, uplink, load, push_price = state.holds, state.value, state.uplink, state.load, instance.push_price
    for n in touched:
        push = push_price[n] * size
        gain = value[n] * _carried(instance, int(n), uplink[n], load[n])
        if holds[n] == valuation:
            gain += instance.steadiness * min(gain, push)
        else:
            gain -= push * (1.0 + instance.thrift)
        if gain < best or gain <= 0:
            continue
        if gain == best and uplink[n] <= uplink[chosen]:
            continue
        if has_room(s, n, state.first, state.following, state.holder, instance.network, instance.tier, instance.caps):
            best, chosen = gain, int(n)
    return best, chosen


@numba.njit(cache=True)
def _pay(instance: GreedyInstance, state: GreedyState, s: int, n: int) -> None:
    """Takes the copy's bytes from the movement budgets, unless n holds the segment now."""
    for at in range(instance.current_start[s], instance.current_start[s + 1]):
        if instance.current[at] == n:
            return
    pay(n, instance.size[s], instance.slots, state.budget)


@numba.njit(cache=True)
def _commit(instance: GreedyInstance, state: GreedyState, s: int, n: int, copy: int) -> None:
    """Places a copy of s at n: it serves what it newly can, in proportion to its free uplink."""
    _link(state, s, n, copy)
    size, load = instance.size[s], 0.0
    for k in range(instance.row_start[s], instance.row_start[s + 1]):
        if instance.can_serve[instance.location[k], n] and _saving(instance, k, n, size) > 0:
            load += instance.requests[k] * _new_share(instance, state, k, n) * size
    free = state.uplink[n]
    scale = _carried(instance, n, free, load)
    for k in range(instance.row_start[s], instance.row_start[s + 1]):
        if instance.can_serve[instance.location[k], n]:
            if _saving(instance, k, n, size) > 0:
                state.delivered[k] += scale * _new_share(instance, state, k, n)
            state.nobody[k] *= 1.0 - instance.survival[n]
    if instance.line[n]:
        state.uplink[n] = _idle_after(instance.uplink[n], free, load)
    else:
        left = free - scale * load
        state.uplink[n] = left if left > instance.least_uplink[n] else 0.0


@numba.njit(cache=True)
def _link(state: GreedyState, s: int, n: int, copy: int) -> None:
    state.holder[copy], state.following[copy] = n, state.first[s]
    state.first[s] = copy
