"""The kernel of `benchmarks/swap_search.py`: knapsacks of single nodes and the swaps that improve them."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from placement.problem import Float64, Int32, Int64

LEAST_GAIN = 1e-6
"""Millidollars that a swap must save."""


class World(NamedTuple):
    """What does not change. Rows are those of the demand with requests, sorted by (segment, location)."""

    row_start: Int64  # (S + 1,)
    location: Int64  # (D,)
    segment: Int64  # (D,)
    requests: Float64  # (D,)
    base: Float64  # price where no node serves (D,)
    size: Float64  # (S,)
    place_start: Int64  # rows of each location (L + 1,)
    place_rows: Int64  # (D,)
    reach_start: Int64  # locations that each source serves (N + 1,)
    reach: Int64
    request_price: Float64  # (L, N)
    byte_price: Float64  # (N,)
    push_price: Float64  # (N,)
    survival: Float64  # (N,)
    uplink: Float64  # (N,)
    member_start: Int64  # nodes of each domain (F + 1,)
    members: Int64
    domain: Int64  # (N,)
    current_start: Int64  # segments held now, by source (N + 1,)
    current: Int64
    cap: int


class State(NamedTuple):
    """What swaps change."""

    held: Int64  # segments at each source, -1 where a slot is free (N, slots)
    flow: Float64  # share that each slot serves of the row at each location in its reach (N, slots, width)
    served: Float64  # share of each row that nodes serve (D,)
    nobody: Float64  # log of the chance that no holder in reach is up (D,)
    spare: Float64  # (N,)
    budget: Float64  # (1,)


@numba.njit(cache=True)
def put_flows(world: World, state: State, rows: Int64, sources: Int32, shares: Float64) -> None:
    for at in range(len(rows)):
        k, n = rows[at], sources[at]
        if _save(world, k, n) <= 0:
            continue
        for slot in range(state.held.shape[1]):
            if state.held[n, slot] == world.segment[k]:
                for j in range(world.reach_start[n], world.reach_start[n + 1]):
                    if world.reach[j] == world.location[k]:
                        state.flow[n, slot, j - world.reach_start[n]] = shares[at]
                        state.served[k] += shares[at]
    for n in range(state.held.shape[0]):
        for slot in range(state.held.shape[1]):
            if state.held[n, slot] >= 0:
                _count_holder(world, state, n, int(state.held[n, slot]), 1.0)


@numba.njit(cache=True)
def _row(world: World, s: int, location: int) -> int:
    """Row of a segment at a location, or -1."""
    low, high = world.row_start[s], world.row_start[s + 1]
    while low < high:
        middle = (low + high) // 2
        if world.location[middle] < location:
            low = middle + 1
        else:
            high = middle
    return low if low < world.row_start[s + 1] and world.location[low] == location else -1


@numba.njit(cache=True)
def _save(world: World, k: int, n: int) -> float:
    """What one request of row k saves at node n, in m$."""
    price = world.request_price[world.location[k], n] + world.byte_price[n] * world.size[world.segment[k]]
    return float(world.base[k] - price)


@numba.njit(cache=True)
def _count_holder(world: World, state: State, n: int, s: int, sign: float) -> None:
    for j in range(world.reach_start[n], world.reach_start[n + 1]):
        k = _row(world, s, world.reach[j])
        if k >= 0 and _save(world, k, n) > 0:
            state.nobody[k] += sign * np.log1p(-world.survival[n])


@numba.njit(cache=True)
def _push(world: World, n: int, s: int) -> float:
    """Bytes to push for a copy: none where it is held now."""
    low, high = world.current_start[n], world.current_start[n + 1]
    at = low + np.searchsorted(world.current[low:high], s)
    return 0.0 if at < high and world.current[at] == s else float(world.size[s])


@numba.njit(cache=True)
def _bound(world: World, state: State, n: int, k: int) -> float:
    """Most that n may serve of row k; state holds neither its flows nor its copies."""
    covered = 1.0 - np.exp(state.nobody[k]) * (1.0 - world.survival[n])
    return float(max(0.0, min(world.survival[n], covered - state.served[k])))


@numba.njit(cache=True)
def _lift(world: World, state: State, n: int) -> None:
    """Takes node n's flows and copies out of the state of the rows."""
    for slot in range(state.held.shape[1]):
        s = state.held[n, slot]
        if s >= 0:
            for j in range(world.reach_start[n], world.reach_start[n + 1]):
                k = _row(world, s, world.reach[j])
                if k >= 0:
                    state.served[k] -= state.flow[n, slot, j - world.reach_start[n]]
            _count_holder(world, state, n, s, -1.0)


@numba.njit(cache=True)
def _arcs(world: World, state: State, n: int, s: int, slot: int, arcs) -> None:  # type: ignore[no-untyped-def]
    """Appends the useful arcs of segment s at n: (-saving per byte, most bytes, slot, reach position)."""
    for j in range(world.reach_start[n], world.reach_start[n + 1]):
        k = _row(world, s, world.reach[j])
        if k >= 0:
            save = _save(world, k, n)
            if save > 0:
                sent = world.requests[k] * world.size[s] * _bound(world, state, n, k)
                arcs.append((-save / world.size[s], sent, slot, j - world.reach_start[n]))


@numba.njit(cache=True)
def _held_arcs(world: World, state: State, n: int):  # type: ignore[no-untyped-def]
    """Arcs of all that n holds, best per byte first."""
    arcs = [(0.0, 0.0, 0, 0) for _ in range(0)]
    for slot in range(state.held.shape[1]):
        if state.held[n, slot] >= 0:
            _arcs(world, state, n, state.held[n, slot], slot, arcs)
    arcs.sort()
    return arcs


@numba.njit(cache=True)
def _value(arcs, out: int, extra, uplink: float) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """V of the arcs without slot `out` and with the extra ones, and the price of a byte of uplink."""
    value, at, more = 0.0, 0, 0
    while at < len(arcs) or more < len(extra):
        if at < len(arcs) and arcs[at][2] == out:
            at += 1
            continue
        from_extra = at >= len(arcs) or (more < len(extra) and extra[more][0] < arcs[at][0])
        arc = extra[more] if from_extra else arcs[at]
        if from_extra:
            more += 1
        else:
            at += 1
        taken = min(arc[1], uplink)
        value -= arc[0] * taken
        uplink -= taken
        if taken < arc[1]:
            return value, -arc[0]
    return value, 0.0


@numba.njit(cache=True)
def _outs(world: World, state: State, n: int, arcs, price: float):  # type: ignore[no-untyped-def]
    """(Most that is lost without it, slot) for each copy that may go, and for none (slot -1); cheapest first."""
    lost = np.zeros(state.held.shape[1])
    for arc in arcs:
        lost[arc[2]] += arc[1] * max(0.0, -arc[0] - price)
    outs = [(0.0, -1)]
    for slot in range(len(lost)):
        s = state.held[n, slot]
        if s >= 0 and not _needed(world, state, n, s):
            outs.append((lost[slot] - world.push_price[n] * _push(world, n, s), slot))
    outs.sort()
    return outs


@numba.njit(cache=True)
def _needed(world: World, state: State, n: int, s: int) -> bool:
    """Whether others serve more than they could be up for without n's copy."""
    for j in range(world.reach_start[n], world.reach_start[n + 1]):
        k = _row(world, s, world.reach[j])
        if k >= 0 and state.served[k] > 1.0 - np.exp(state.nobody[k]) + 1e-9:
            return True
    return False


@numba.njit(cache=True)
def _ins(world: World, state: State, n: int, price: float, closed: Int64, gained: Float64):  # type: ignore[no-untyped-def]
    """(-most that is gained with it, segment) for each segment that may come, and for none (-1); best first."""
    touched = [np.int64(0) for _ in range(0)]
    for j in range(world.reach_start[n], world.reach_start[n + 1]):
        for at in range(world.place_start[world.reach[j]], world.place_start[world.reach[j] + 1]):
            k = world.place_rows[at]
            s = world.segment[k]
            over = _save(world, k, n) - price * world.size[s]
            if over > 0 and closed[s] < world.cap:
                if gained[s] == 0.0:
                    touched.append(s)
                gained[s] += world.requests[k] * over * _bound(world, state, n, k) + 1e-300
    ins = [(0.0, np.int64(-1))]
    for s in touched:
        net = gained[s] - world.push_price[n] * _push(world, n, int(s))
        gained[s] = 0.0
        if net > 0:
            ins.append((-net, s))
    ins.sort()
    return ins


@numba.njit(cache=True)
def _best_swap(world: World, state: State, n: int, closed: Int64, gained: Float64, limit: int):  # type: ignore[no-untyped-def]
    """(Gain, slot that goes, segment that comes, knapsacks solved) of the best swap at n."""
    arcs = _held_arcs(world, state, n)
    extra = [(0.0, 0.0, 0, 0) for _ in range(0)]
    value, price = _value(arcs, -1, extra, world.uplink[n])
    outs, ins = _outs(world, state, n, arcs, price), _ins(world, state, n, price, closed, gained)
    best, best_out, best_in, solved = LEAST_GAIN, -1, np.int64(-1), 1
    for bound, s in ins:
        if -bound - outs[0][0] <= best or solved >= limit:
            break
        extra.clear()
        if s >= 0:
            _arcs(world, state, n, s, -2, extra)
            extra.sort()
        size, pushed = (world.size[s], _push(world, n, s)) if s >= 0 else (0.0, 0.0)
        for lost, slot in outs:
            if -bound - lost <= best or solved >= limit:
                break
            gone = int(state.held[n, slot]) if slot >= 0 else -1
            freed, refunded = (world.size[gone], _push(world, n, gone)) if gone >= 0 else (0.0, 0.0)
            if size > state.spare[n] + freed or pushed - refunded > state.budget[0]:
                continue
            solved += 1
            gain = _value(arcs, slot if slot >= 0 else -1, extra, world.uplink[n])[0] - value
            gain -= world.push_price[n] * (pushed - refunded)
            if gain > best:
                best, best_out, best_in = gain, slot, s
    return best, best_out, best_in, solved


@numba.njit(cache=True)
def _apply(world: World, state: State, n: int, slot: int, s: int, closed: Int64) -> None:
    if slot >= 0:
        gone = state.held[n, slot]
        state.held[n, slot] = -1
        state.spare[n] += world.size[gone]
        state.budget[0] += _push(world, n, gone)
        closed[gone] -= world.cap + 1  # it was closed because n held it
    if s >= 0:
        for free in range(state.held.shape[1]):
            if state.held[n, free] < 0:
                state.held[n, free] = s
                break
        state.spare[n] -= world.size[s]
        state.budget[0] -= _push(world, n, s)
        closed[s] += world.cap + 1


@numba.njit(cache=True)
def _settle(world: World, state: State, n: int) -> None:
    """Puts n's copies and its best flows back into the state of the rows."""
    state.flow[n] = 0.0
    left = world.uplink[n]
    for density, sent, slot, j in _held_arcs(world, state, n):
        taken = min(sent, left)
        left -= taken
        k = _row(world, state.held[n, slot], world.reach[world.reach_start[n] + j])
        share = taken / (world.requests[k] * world.size[world.segment[k]]) if density < 0 else 0.0
        state.flow[n, slot, j] = share
    for slot in range(state.held.shape[1]):
        s = state.held[n, slot]
        if s >= 0:
            for j in range(world.reach_start[n], world.reach_start[n + 1]):
                k = _row(world, s, world.reach[j])
                if k >= 0:
                    state.served[k] += state.flow[n, slot, j - world.reach_start[n]]
            _count_holder(world, state, n, s, 1.0)


@numba.njit(cache=True)
def _close(world: World, state: State, n: int, closed: Int64, sign: int) -> None:
    """Counts the copies in n's domain; what n holds itself counts as too many to come again."""
    f = world.domain[n]
    for at in range(world.member_start[f], world.member_start[f + 1]):
        m = world.members[at]
        for slot in range(state.held.shape[1]):
            if state.held[m, slot] >= 0:
                closed[state.held[m, slot]] += sign * (world.cap + 1 if m == n else 1)


@numba.njit(cache=True)
def sweep(world: World, state: State, counts: Int64, saved: Float64, limits: tuple[int, int]) -> None:
    """Visits every node once; counts[0] swaps and counts[1] knapsacks grow."""
    closed, gained = np.zeros(len(world.size), np.int64), np.zeros(len(world.size))
    for n in range(len(world.uplink)):
        if world.reach_start[n] == world.reach_start[n + 1]:
            continue
        _lift(world, state, n)
        _close(world, state, n, closed, 1)
        while counts[1] < limits[0]:
            gain, slot, s, solved = _best_swap(world, state, n, closed, gained, limits[1])
            counts[1] += solved
            if slot < 0 and s < 0:
                break
            _apply(world, state, n, slot, s, closed)
            counts[0] += 1
            saved[0] += gain
        _close(world, state, n, closed, -1)
        _settle(world, state, n)
