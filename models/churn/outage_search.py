"""The search for outages in departures by group: compiled, because every departure begins a window.

`outages.py` has the equations. Arrays of sessions and of departures are in compressed rows by group, in time order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from models.events import HOUR_US, Float64, Int64

_PRIOR_DEPARTURES = 2.0
"""Departures that the usual rate counts as much as those seen."""
_PRIOR_RATE_PER_HOUR = 1.0 / 24.0
"""Rate of a fleet of which nothing is known yet: high, so that the first hours of a log are no outages."""


class Around(NamedTuple):
    """Sessions among which the groups lie, in time order, with the sums of their hours; empty for the whole fleet."""

    starts: Int64
    ends: Int64
    known: Int64
    hours_start: Float64
    hours_end: Float64


def around_of(starts: Int64, ends: Int64, known: Int64) -> Around:
    """Starts, ends and instants at which departures were known, each rising."""
    return Around(starts, ends, known, _summed(starts), _summed(ends))


@numba.njit(cache=True, nogil=True)
def search(  # type: ignore[no-untyped-def]
    start, end, session_offsets, low, known, is_open, offsets, around, spans, limits
):
    """Windows that begin at each departure, in time order; those that overlap are one outage."""
    number = np.full(len(low), -1)
    expected, up = np.zeros(len(low)), np.zeros(len(low), dtype=np.int64)
    outages = 0
    for g in range(len(offsets) - 1):
        a, b = offsets[g], offsets[g + 1]
        if b - a >= limits[1]:
            outages = _search_group(
                start[session_offsets[g] : session_offsets[g + 1]],
                end[session_offsets[g] : session_offsets[g + 1]],
                low[a:b],
                known[a:b],
                is_open[a:b],
                around,
                spans,
                limits,
                outages,
                number[a:b],
                expected,
                up,
            )
    return number, expected, up


@numba.njit(cache=True, nogil=True)
def _search_group(  # type: ignore[no-untyped-def]
    starts, ends, low, known, is_open, around, spans, limits, outages, number, expected, up
):
    """Numbers the departures of one group from `outages` on, and returns the next number.

    Windows only move on, so each look-up begins where the one before it ended, and no departure is read once a window:
    in a large fleet a window holds many thousands.
    """
    window, before = spans
    level, least, share, spread = limits
    n = len(low)
    hours_start, hours_end = _summed(starts), _summed(ends)
    usual, opened = np.zeros(n + 1), np.zeros(n + 1, dtype=np.int64)
    opened[1:] = np.cumsum(is_open)
    earliest, head, tail = np.empty(n, dtype=np.int64), 0, 0  # open departures of the window, `low` rising
    at = np.zeros(16, dtype=np.int64)
    last, numbered = 0, 0
    for j in range(n):
        if is_open[j]:
            last = max(last, j)
            while last < n and known[last] <= known[j] + window:
                if is_open[last]:
                    while tail > head and low[earliest[tail - 1]] >= low[last]:
                        tail -= 1
                    earliest[tail] = last
                    tail += 1
                last += 1
            while earliest[head] < j:
                head += 1
            lost, first_us = opened[last] - opened[j], low[earliest[head]]
            if lost >= least and 2 * lost >= share * _up_at(starts, ends, low[j], at[:2]):
                there = _up_at(starts, ends, first_us, at[2:4])
                if lost >= share * there:
                    since = first_us - before
                    high = min(_until(known, first_us, at[4:5]), j)
                    gone = usual[high] - usual[min(_until(known, since, at[5:6]), high)]
                    hours = _hours(starts, hours_start, first_us, at[6:7]) - _hours(starts, hours_start, since, at[7:8])
                    hours -= _hours(ends, hours_end, first_us, at[8:9]) - _hours(ends, hours_end, since, at[9:10])
                    shape = _PRIOR_DEPARTURES + gone
                    exposure = max(known[last - 1] - first_us, window) / HOUR_US
                    prior = _usual_rate(around, low[j], before, at[10:])
                    due = shape / (_PRIOR_DEPARTURES / prior + hours) * there * exposure
                    if _is_rare(lost, due, 1.0 / (1.0 / shape + spread), level):
                        if number[j] < 0:
                            number[j] = outages
                            expected[outages], up[outages] = due, there
                            outages += 1
                        for i in range(max(j, numbered), last):
                            if is_open[i] and number[i] < 0:
                                number[i] = number[j]
                        numbered = last
        usual[j + 1] = usual[j] + (1.0 if is_open[j] and number[j] < 0 else 0.0)
    return outages


@numba.njit(cache=True, nogil=True)
def _usual_rate(around, at, before, near):  # type: ignore[no-untyped-def]
    """Departures per hour up in the window before an instant, among everything that lies around the group."""
    since = at - before
    gone = _until(around.known, at, near[:1]) - _until(around.known, since, near[1:2])
    hours = _hours(around.starts, around.hours_start, at, near[2:3])
    hours -= _hours(around.ends, around.hours_end, at, near[3:4])
    hours -= _hours(around.starts, around.hours_start, since, near[4:5])
    hours += _hours(around.ends, around.hours_end, since, near[5:6])
    return (gone + _PRIOR_DEPARTURES) / (hours + _PRIOR_DEPARTURES / _PRIOR_RATE_PER_HOUR)


@numba.njit(cache=True, nogil=True)
def _up_at(starts, ends, at, near):  # type: ignore[no-untyped-def]
    return _until(starts, at, near[:1]) - _until(ends, at - 1, near[1:])


@numba.njit(cache=True, nogil=True)
def _until(instants, at, near):  # type: ignore[no-untyped-def]
    """How many of the rising instants are at most `at`, sought from `near[0]` outwards; leaves the answer there."""
    n, step = len(instants), 1
    first, stop = near[0], near[0]
    while stop < n and instants[stop] <= at:
        first = stop + 1
        stop = min(n, first + step)
        step *= 2
    while first > 0 and instants[first - 1] > at:
        stop = first - 1
        first = max(0, stop - step)
        step *= 2
    while first < stop:
        middle = (first + stop) // 2
        if instants[middle] <= at:
            first = middle + 1
        else:
            stop = middle
    near[0] = first
    return first


@numba.njit(cache=True, nogil=True)
def _summed(instants):  # type: ignore[no-untyped-def]
    total = np.zeros(len(instants) + 1)
    for i in range(len(instants)):
        total[i + 1] = total[i] + instants[i] / HOUR_US
    return total


@numba.njit(cache=True, nogil=True)
def _hours(instants, total, at, near):  # type: ignore[no-untyped-def]
    before = _until(instants, at, near)
    return before * (at / HOUR_US) - total[before]


@numba.njit(cache=True, nogil=True)
def _is_rare(lost, due, shape, level):  # type: ignore[no-untyped-def]
    """Whether P(N >= lost) < level for a gamma-Poisson count with mean `due`.

    Terms are added from `lost` on, until they no longer matter or have reached the level: usual counts are told apart
    after a term or two.
    """
    if lost <= due:
        return False
    p = due / (due + shape)
    log_term = math.lgamma(lost + shape) - math.lgamma(shape) - math.lgamma(lost + 1.0)
    term = math.exp(log_term + lost * math.log(p) + shape * math.log1p(-p))
    total, n = 0.0, float(lost)
    while term > 1e-18 and term > total * 1e-9 and total < level:
        total += term
        term *= p * (n + shape) / (n + 1.0)
        n += 1.0
    return total < level


@numba.njit(cache=True, nogil=True)
def hours_with(start, end, offsets, least):  # type: ignore[no-untyped-def]
    """Hours in which at least `least` sessions of each group were under way."""
    out = np.zeros(len(offsets) - 1)
    for g in range(len(offsets) - 1):
        s, e, up, since = offsets[g], offsets[g], 0, 0
        stop = offsets[g + 1]
        while e < stop:
            if s < stop and start[s] <= end[e]:
                up += 1
                s += 1
                if up == least:
                    since = start[s - 1]
            else:
                if up == least:
                    out[g] += (end[e] - since) / HOUR_US
                up -= 1
                e += 1
    return out
