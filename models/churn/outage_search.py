"""The search for outages in departures by group: compiled, because every departure begins a window.

`outages.py` has the equations. Arrays of sessions and of departures are in compressed rows by group, in time order.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from models.events import HOUR_US

PRIOR_DEPARTURES = 2.0
"""Departures that the usual rate counts as much as those seen."""


@numba.njit(cache=True, nogil=True)
def search(  # type: ignore[no-untyped-def]
    start, end, session_offsets, low, known, is_open, offsets, prior_rate, spans, limits
):
    """Windows that begin at each departure, in time order; those that overlap are one outage."""
    window, before = spans
    level, least, share, spread = limits
    number = np.full(len(low), -1)
    expected, up = np.zeros(len(low)), np.zeros(len(low), dtype=np.int64)
    outages = 0
    for g in range(len(offsets) - 1):
        a, b = offsets[g], offsets[g + 1]
        if b - a < least:
            continue
        starts, ends = (
            start[session_offsets[g] : session_offsets[g + 1]],
            end[session_offsets[g] : session_offsets[g + 1]],
        )
        hours_start, hours_end = _summed(starts), _summed(ends)
        instants = known[a:b]
        usual, opened = np.zeros(b - a + 1), np.zeros(b - a + 1, dtype=np.int64)
        opened[1:] = np.cumsum(is_open[a:b])
        last = a
        for j in range(a, b):
            if is_open[j]:
                last = max(last, j)
                while last < b and known[last] <= known[j] + window:
                    last += 1
                lost, first_us = opened[last - a] - opened[j - a], low[j]
                if lost >= least and 2 * lost >= share * _up_at(starts, ends, first_us):
                    for i in range(j, last):
                        if is_open[i]:
                            first_us = min(first_us, low[i])
                    there = _up_at(starts, ends, first_us)
                    if lost >= share * there:
                        since = first_us - before
                        high = min(np.searchsorted(instants, first_us, side="right"), j - a)
                        gone = usual[high] - usual[min(np.searchsorted(instants, since, side="right"), high)]
                        hours = _hours(starts, hours_start, first_us) - _hours(starts, hours_start, since)
                        hours -= _hours(ends, hours_end, first_us) - _hours(ends, hours_end, since)
                        shape = PRIOR_DEPARTURES + gone
                        exposure = max(known[last - 1] - first_us, window) / HOUR_US
                        due = shape / (PRIOR_DEPARTURES / prior_rate[j] + hours) * there * exposure
                        if _tail(lost, due, 1.0 / (1.0 / shape + spread)) < level:
                            if number[j] < 0:
                                number[j] = outages
                                expected[outages], up[outages] = due, there
                                outages += 1
                            for i in range(j, last):
                                if is_open[i] and number[i] < 0:
                                    number[i] = number[j]
            usual[j - a + 1] = usual[j - a] + (1.0 if is_open[j] and number[j] < 0 else 0.0)
    return number, expected, up


@numba.njit(cache=True, nogil=True)
def _up_at(starts, ends, at):  # type: ignore[no-untyped-def]
    return np.searchsorted(starts, at, side="right") - np.searchsorted(ends, at)


@numba.njit(cache=True, nogil=True)
def _summed(instants):  # type: ignore[no-untyped-def]
    total = np.zeros(len(instants) + 1)
    for i in range(len(instants)):
        total[i + 1] = total[i] + instants[i] / HOUR_US
    return total


@numba.njit(cache=True, nogil=True)
def _hours(instants, total, at):  # type: ignore[no-untyped-def]
    before = np.searchsorted(instants, at, side="right")
    return before * (at / HOUR_US) - total[before]


@numba.njit(cache=True, nogil=True)
def _tail(lost, due, shape):  # type: ignore[no-untyped-def]
    """P(N >= lost) of a gamma-Poisson count with mean `due`: terms from `lost` on, until they no longer matter."""
    if lost <= due:
        return 1.0
    p = due / (due + shape)
    log_term = math.lgamma(lost + shape) - math.lgamma(shape) - math.lgamma(lost + 1.0)
    term = math.exp(log_term + lost * math.log(p) + shape * math.log1p(-p))
    total, n = 0.0, float(lost)
    while term > 1e-18 and term > total * 1e-9:
        total += term
        term *= p * (n + shape) / (n + 1.0)
        n += 1.0
    return total


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
