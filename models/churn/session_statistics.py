"""Counts and times of every node's own sessions at one instant, and rates as known when each session began.

Only what lies before the instant is read, so the caller passes `history.before(at)`. A departure between two sightings
counts in their middle. One that was part of an outage is no habit of the node, and raises no rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numba
import numpy as np

from models.blocks import for_each_block
from models.churn.history import SessionHistory
from models.churn.markov import PopulationRates
from models.churn.settings import ChurnSettings
from models.events import HOUR_US, Bool, Float64

_RECENT = 5
_REMEMBERED = 50


def session_rates(
    history: SessionHistory, *, population: PopulationRates, settings: ChurnSettings, threads: int = 1
) -> tuple[Float64, Float64]:
    """For each session, the departure rate known before it began and the return rate known before the gap after it.

    Both use the longest half-life and only what happened earlier to the same node. (m,), (m,)
    """
    off, on = population.of(history.device_class)
    own, half_life, kappa = history.own_departure, settings.rate_half_lives_hours[-1], settings.rate_prior_departures
    rates = np.empty((2, len(history.start_us)))
    sessions = (history.start_us, history.end_us, history.end_upper_us, history.censored, own)

    def fill(nodes: slice) -> None:
        offsets = history.offsets[nodes.start : nodes.stop + 1]
        _session_rates(offsets, *sessions, off[nodes], on[nodes], half_life, kappa, *rates)

    for_each_block(fill, len(history), threads=threads)
    return rates[0], rates[1]


def ages_hours(known: SessionHistory, *, at_us: int) -> Float64:
    """Time in the present state of each node of a history that ends at `at_us`. (n,)"""
    age = np.empty(len(known))
    _ages(
        known.offsets,
        known.start_us,
        known.end_us,
        known.end_upper_us,
        known.censored,
        known.observed_from_us,
        at_us,
        age,
    )
    return age


@dataclass(frozen=True)
class SessionStatistics:
    """Raw counts and times at one instant; decayed ones have a column a half-life."""

    age: Float64
    departures: Float64
    hours_up: Float64
    returns: Float64
    hours_down: Float64
    decayed_up: Float64
    decayed_observed: Float64
    clock_up: Float64
    clock_days: Float64
    clock_remaining: Float64  # hours it went on on those days on which it was up at this clock time, and such days
    recent: Float64  # last five sessions: log mean, log spread, number; last five gaps: log mean; own shares gone x2
    summary: Float64  # sessions, last session, last gap, longer sessions, their excess, since first seen, recent x2

    def of(self, nodes: slice) -> SessionStatistics:
        """Those of some nodes; what is written there is written here."""
        return SessionStatistics(*(getattr(self, f.name)[nodes] for f in fields(self)))


def session_statistics(
    known: SessionHistory, *, at_us: int, settings: ChurnSettings, threads: int = 1
) -> SessionStatistics:
    """Statistics of all nodes of a history that ends at `at_us`, blocks of nodes on as many threads as allowed."""
    n = len(known)
    rates, shares = len(settings.rate_half_lives_hours), len(settings.availability_half_lives_hours)
    clocks = len(settings.clock_offsets_hours)
    out = SessionStatistics(
        age=ages_hours(known, at_us=at_us),
        departures=np.zeros((n, rates)),
        hours_up=np.zeros((n, rates)),
        returns=np.zeros((n, rates)),
        hours_down=np.zeros((n, rates)),
        decayed_up=np.zeros((n, shares)),
        decayed_observed=np.zeros((n, shares)),
        clock_up=np.zeros((n, clocks)),
        clock_days=np.zeros((n, clocks)),
        clock_remaining=np.zeros((n, 2)),
        recent=np.zeros((n, 6)),
        summary=np.zeros((n, 8)),
    )
    own = known.own_departure
    for_each_block(lambda nodes: _fill(out, nodes, known, own, at_us, settings), n, threads=threads)
    return out


def _fill(
    out: SessionStatistics, nodes: slice, known: SessionHistory, own: Bool, at_us: int, settings: ChurnSettings
) -> None:
    of = out.of(nodes)
    offsets = known.offsets[nodes.start : nodes.stop + 1]
    sessions = (offsets, known.start_us, known.end_us, known.end_upper_us, known.censored)
    seen = (known.observed_from_us[nodes], np.minimum(known.observed_until_us[nodes], at_us))
    rates, shares = (np.array(h) for h in (settings.rate_half_lives_hours, settings.availability_half_lives_hours))
    _decayed_rates(*sessions, own, *seen, at_us, rates, of.departures, of.hours_up, of.returns, of.hours_down)
    _decayed_availability(*sessions, *seen, at_us, shares, of.decayed_up, of.decayed_observed)
    offsets_us = np.array([round(h * HOUR_US) for h in settings.clock_offsets_hours], dtype=np.int64)
    _same_clock(*sessions, *seen, at_us, offsets_us, settings.clock_days, of.clock_up, of.clock_days)
    _clock_remaining(*sessions, *seen, at_us, settings.clock_days, settings.edges_hours[-1], of.clock_remaining)
    limits = np.array([settings.maximum_age_hours, settings.fleet_window_hours])
    _summaries(*sessions, *seen, at_us, limits, of.age, of.summary)
    leads = np.array([settings.middle_edge_hours, settings.edges_hours[-1]])
    _recent(*sessions, of.age, leads, of.recent)


@numba.njit(cache=True, nogil=True)
def _ages(offsets, start, end, upper, censored, seen_from, at, age):  # type: ignore[no-untyped-def]
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        if offsets[node] == offsets[node + 1]:
            age[node] = max(0.0, (at - seen_from[node]) / hour)
            continue
        final = offsets[node + 1] - 1
        up = censored[final] and end[final] >= at
        age[node] = (at - start[final]) / hour if up else (at - 0.5 * (end[final] + upper[final])) / hour


@numba.njit(cache=True, nogil=True)
def _decayed_rates(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, own, seen_from, seen_until, at, half_lives, gone, hours_up, back, hours_down
):
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        for j in range(len(half_lives)):
            scale = math.log(2.0) / half_lives[j]
            known_since = seen_from[node]
            a = math.exp(-scale * (at - known_since) / hour)
            down = True
            for i in range(offsets[node], offsets[node + 1]):
                s = math.exp(-scale * (at - start[i]) / hour)
                if down and start[i] > known_since:
                    hours_down[node, j] += (s - a) / scale
                    back[node, j] += s
                left = 0.5 * (end[i] + upper[i])
                a = math.exp(-scale * (at - left) / hour)
                hours_up[node, j] += (a - s) / scale
                if own[i]:
                    gone[node, j] += a
                down = not censored[i]
                known_since = left
            if down and seen_until[node] > known_since:
                b = math.exp(-scale * (at - seen_until[node]) / hour)
                hours_down[node, j] += (b - a) / scale


@numba.njit(cache=True, nogil=True)
def _decayed_availability(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, half_lives, up, observed
):
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        for j in range(len(half_lives)):
            scale = math.log(2.0) / half_lives[j]
            known_since = seen_from[node]
            a = math.exp(-scale * (at - known_since) / hour)
            down = True
            for i in range(offsets[node], offsets[node + 1]):
                left = 0.5 * (end[i] + upper[i])
                s = math.exp(-scale * (at - start[i]) / hour)
                b = math.exp(-scale * (at - left) / hour)
                up[node, j] += (b - s) / scale
                observed[node, j] += (b - (a if down and known_since < start[i] else s)) / scale
                down = not censored[i]
                known_since, a = left, b
            if down and seen_until[node] > known_since:
                b = math.exp(-scale * (at - seen_until[node]) / hour)
                observed[node, j] += (b - a) / scale


@numba.njit(cache=True, nogil=True)
def _same_clock(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, ahead, days, up, counted
):
    day = 86_400_000_000
    for node in range(len(offsets) - 1):
        first, last = offsets[node], offsets[node + 1]
        for k in range(len(ahead)):
            for d in range(1, days + 1):
                instant = at + ahead[k] - d * day
                if instant < seen_from[node] or instant >= seen_until[node] or instant >= at:
                    continue
                i = first + np.searchsorted(start[first:last], instant, side="right") - 1
                if i < first:
                    counted[node, k] += 1.0
                elif instant < end[i]:
                    up[node, k] += 1.0
                    counted[node, k] += 1.0
                elif not censored[i] and instant >= upper[i]:
                    counted[node, k] += 1.0


@numba.njit(cache=True, nogil=True)
def _clock_remaining(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, days, longest, out
):
    hour, day = 3.6e9, 86_400_000_000
    for node in range(len(offsets) - 1):
        first, last = offsets[node], offsets[node + 1]
        for d in range(1, days + 1):
            instant = at - d * day
            if instant < seen_from[node]:
                break
            i = first + np.searchsorted(start[first:last], instant, side="right") - 1
            if i < first:
                break
            left = 0.5 * (end[i] + upper[i])
            if instant < left:
                out[node, 0] += min((left - instant) / hour, longest)
                out[node, 1] += 1.0


@numba.njit(cache=True, nogil=True)
def _summaries(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, limits, age, out
):
    hour = 3.6e9
    cap, window = limits[0], limits[1]
    for node in range(len(offsets) - 1):
        first, last = offsets[node], offsets[node + 1]
        out[node, 5] = max(0.0, (at - seen_from[node]) / hour)
        if first == last:
            continue
        final = last - 1
        up = censored[final] and end[final] >= at
        past = final if up else last
        out[node, 0] = past - first
        if past > first:
            out[node, 1] = (0.5 * (end[past - 1] + upper[past - 1]) - start[past - 1]) / hour
        if final > first and not censored[final - 1]:
            out[node, 2] = (start[final] - 0.5 * (end[final - 1] + upper[final - 1])) / hour
        for i in range(first, last):
            left = 0.5 * (end[i] + upper[i])
            if i < past and up:
                excess = (left - start[i]) / hour - age[node]
                if excess > 0.0:
                    out[node, 3] += 1.0
                    out[node, 4] += min(excess, cap)
            since = max(start[i], at - window * hour)
            if left > since:
                out[node, 7] += (left - since) / hour
            if not censored[i] and left >= at - window * hour:
                out[node, 6] += 1.0


@numba.njit(cache=True, nogil=True)
def _recent(offsets, start, end, upper, censored, age, leads, out):  # type: ignore[no-untyped-def]
    """The last five completed sessions and gaps; of up to 50 longer than the present age, the shares gone by two leads."""
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        first, final = offsets[node], offsets[node + 1] - 1
        square, gaps = 0.0, 0
        longer, gone_soon, gone_late = 0.0, 0.0, 0.0
        for i in range(final - 1, max(first, final - _REMEMBERED) - 1, -1):
            length = (0.5 * (end[i] + upper[i]) - start[i]) / hour
            if final - i <= _RECENT:
                log_length = math.log1p(length)
                out[node, 0] += log_length
                square += log_length * log_length
                out[node, 2] += 1.0
            if not censored[i] and gaps < _RECENT:
                out[node, 3] += math.log1p(max(0.0, (start[i + 1] - 0.5 * (end[i] + upper[i])) / hour))
                gaps += 1
            if length > age[node]:
                longer += 1.0
                gone_soon += 0.0 if censored[i] or length > age[node] + leads[0] else 1.0
                gone_late += 0.0 if censored[i] or length > age[node] + leads[1] else 1.0
        if out[node, 2] > 0.0:
            out[node, 0] /= out[node, 2]
            out[node, 1] = math.sqrt(max(square / out[node, 2] - out[node, 0] ** 2, 0.0))
        if gaps > 0:
            out[node, 3] /= gaps
        out[node, 4] = (gone_soon + 0.05) / (longer + 1.0)
        out[node, 5] = (gone_late + 0.1) / (longer + 1.0)


@numba.njit(cache=True, nogil=True)
def _session_rates(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, own, off, on, half_life, kappa, before_session, before_gap
):
    hour = 3.6e9
    scale = math.log(2.0) / half_life
    for node in range(len(offsets) - 1):
        gone, hours_up, back, hours_down = 0.0, 0.0, 0.0, 0.0
        for i in range(offsets[node], offsets[node + 1]):
            if i > offsets[node] and not censored[i - 1]:
                length = max(0.0, (start[i] - 0.5 * (end[i - 1] + upper[i - 1])) / hour)
                fade = math.exp(-scale * length)
                gone, hours_up, back = gone * fade, hours_up * fade, back * fade + 1.0
                hours_down = hours_down * fade + (1.0 - fade) / scale
            before_session[i] = (kappa + gone) / (kappa / off[node] + hours_up)
            length = (0.5 * (end[i] + upper[i]) - start[i]) / hour
            fade = math.exp(-scale * length)
            back, hours_down, gone = back * fade, hours_down * fade, gone * fade
            hours_up = hours_up * fade + (1.0 - fade) / scale
            if own[i]:
                gone += 1.0
            before_gap[i] = (kappa + back) / (kappa / on[node] + hours_down)
