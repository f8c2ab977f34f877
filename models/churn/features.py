"""Markov statistics of every node at one instant: the inputs of the churn network.

Everything is computed from `history.before(at)`, so nothing later can enter. With half-life h,

    N_h = Σ_departures 2^(−(t − t_d)/h)        T_h = ∫_up 2^(−(t − s)/h) ds
    departure rate   λ = (κ + N_h) / (κ / λ_class + T_h)         (gamma-shrunk towards the node's class)

and likewise for returns over time down. The rate of a session "before it began" leaves the session itself out: what it
did since is its age. Ages, durations and times since first seen are clipped, so that no input grows with the log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from models.churn.history import SessionHistory
from models.churn.markov import PopulationRates
from models.churn.settings import ChurnSettings
from models.events import DAY_US, HOUR_US, Bool, Float64, Int64

_LN2 = math.log(2.0)
_EXPERIENCE_SESSIONS = 20.0
_CLOCK_PRIOR = 0.5
_FLEET_PRIOR = 2.0


@dataclass(frozen=True)
class NodeFeatures:
    """What is known of each node at one instant.

    Attributes:
        up: whether it looked up. (n,)
        age_hours: time in the present state, up or down. (n,)
        departure_rate: per hour up, from before the present session. (n,)
        return_rate: per hour down, from before the present gap. (n,)
        chain_departure_rate: per hour up, the present session included, longest half-life. (n,)
        clock: shrunk share of previous days on which it was up at the clock time of each offset. (n, offsets)
        inputs: the network's inputs, `feature_names` gives the columns. (n, features)
    """

    up: Bool
    age_hours: Float64
    departure_rate: Float64
    return_rate: Float64
    chain_departure_rate: Float64
    clock: Float64
    inputs: Float64


def feature_names(settings: ChurnSettings) -> tuple[str, ...]:
    """Names of the columns of `NodeFeatures.inputs`."""
    return (
        "log_age_hours",
        "log_departure_rate_before_session",
        *(f"log_departure_rate_{h:g}h" for h in settings.rate_half_lives_hours),
        *(f"log_return_rate_{h:g}h" for h in settings.rate_half_lives_hours),
        *(f"logit_availability_{h:g}h" for h in settings.availability_half_lives_hours),
        *(f"same_clock_availability_{h:g}h" for h in settings.clock_offsets_hours),
        "log_own_residual_hours",
        "log_longer_sessions",
        "log_last_session_hours",
        "log_last_gap_hours",
        "log_sessions",
        "log_hours_since_first_seen",
        "log_network_departure_ratio",
        "network_share_up",
        "log_fleet_departure_ratio",
        "sin_day",
        "cos_day",
        "sin_half_day",
        "cos_half_day",
        "sin_week",
        "cos_week",
    )


def node_features(
    history: SessionHistory, *, at_us: int, population: PopulationRates, settings: ChurnSettings
) -> NodeFeatures:
    """Statistics of all nodes of the history at `at_us`; later sessions and departures change nothing."""
    known = history.before(at_us)
    columns = _statistics(known, at_us, settings)
    off, on = population.of(known.device_class)
    departure_rate, return_rate = current_rates(known, population=population, settings=settings)
    kappa = settings.rate_prior_departures
    off_rates = (kappa + columns.departures) / (kappa / off[:, None] + columns.hours_up)
    on_rates = (kappa + columns.returns) / (kappa / on[:, None] + columns.hours_down)
    base = off / (off + on)
    available = _shrunk_availability(columns, base)
    clock = (columns.clock_up + _CLOCK_PRIOR * (1.0 - base)[:, None]) / (columns.clock_days + _CLOCK_PRIOR)
    up = known.up_at(at_us)
    inputs = np.column_stack(
        [
            np.log1p(np.minimum(columns.age, settings.maximum_age_hours) * 60.0),
            np.log(departure_rate),
            np.log(off_rates),
            np.log(on_rates),
            np.log(available / (1.0 - available)),
            clock,
            *_own_history(columns, off, settings),
            *_fleet(known, up, columns, off),
            *_clock_waves(at_us, len(known)),
        ]
    )
    return NodeFeatures(up, columns.age, departure_rate, return_rate, off_rates[:, -1], clock, inputs)


def current_rates(
    known: SessionHistory, *, population: PopulationRates, settings: ChurnSettings
) -> tuple[Float64, Float64]:
    """Departure rate before the last session, return rate before the last gap; the class's where there is none."""
    off, on = population.of(known.device_class)
    before_session, before_gap = session_rates(known, population=population, settings=settings)
    last = known.offsets[1:] - 1
    some = known.offsets[1:] > known.offsets[:-1]
    if len(before_session):
        off = np.where(some, before_session[np.maximum(last, 0)], off)
        on = np.where(some, before_gap[np.maximum(last, 0)], on)
    return off, on


def session_rates(
    history: SessionHistory, *, population: PopulationRates, settings: ChurnSettings
) -> tuple[Float64, Float64]:
    """For each session, the departure rate known before it began and the return rate known before the gap after it.

    Both use the longest half-life and only what happened earlier to the same node. (m,), (m,)
    """
    off, on = population.of(history.device_class)
    rates: tuple[Float64, Float64] = _session_rates(
        history.offsets,
        history.start_us,
        history.end_us,
        history.end_upper_us,
        history.censored,
        off,
        on,
        settings.rate_half_lives_hours[-1],
        settings.rate_prior_departures,
    )
    return rates


@dataclass(frozen=True)
class _Statistics:
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
    summary: Float64  # sessions, last session, last gap, longer sessions, their excess, since first seen, recent x2


def _statistics(known: SessionHistory, at_us: int, settings: ChurnSettings) -> _Statistics:
    n = len(known)
    rates, shares = len(settings.rate_half_lives_hours), len(settings.availability_half_lives_hours)
    clocks = len(settings.clock_offsets_hours)
    out = _Statistics(
        age=np.zeros(n),
        departures=np.zeros((n, rates)),
        hours_up=np.zeros((n, rates)),
        returns=np.zeros((n, rates)),
        hours_down=np.zeros((n, rates)),
        decayed_up=np.zeros((n, shares)),
        decayed_observed=np.zeros((n, shares)),
        clock_up=np.zeros((n, clocks)),
        clock_days=np.zeros((n, clocks)),
        summary=np.zeros((n, 8)),
    )
    sessions = (known.offsets, known.start_us, known.end_us, known.end_upper_us, known.censored)
    seen = (known.observed_from_us, np.minimum(known.observed_until_us, at_us))
    half_lives = np.array(settings.rate_half_lives_hours)
    _decayed_rates(*sessions, *seen, at_us, half_lives, out.departures, out.hours_up, out.returns, out.hours_down)
    _decayed_availability(
        *sessions, *seen, at_us, np.array(settings.availability_half_lives_hours), out.decayed_up, out.decayed_observed
    )
    offsets_us = np.array([round(h * HOUR_US) for h in settings.clock_offsets_hours], dtype=np.int64)
    _same_clock(*sessions, *seen, at_us, offsets_us, settings.clock_days, out.clock_up, out.clock_days)
    limits = np.array([settings.maximum_age_hours, settings.fleet_window_hours])
    _summaries(*sessions, *seen, at_us, limits, out.age, out.summary)
    return out


def _shrunk_availability(columns: _Statistics, base_down: Float64) -> Float64:
    prior_hours = 2.0
    up = columns.decayed_up + prior_hours * (1.0 - base_down)[:, None]
    return np.clip(up / (columns.decayed_observed + prior_hours), 1e-4, 1.0 - 1e-4)


def _own_history(columns: _Statistics, off: Float64, settings: ChurnSettings) -> list[Float64]:
    sessions, last_session, last_gap, longer, excess, first_seen = columns.summary[:, :6].T
    cap = settings.maximum_age_hours
    residual = (np.minimum(1.0 / off, cap) + excess) / (1.0 + longer)
    return [
        np.log1p(residual * 60.0),
        np.log1p(np.minimum(longer, _EXPERIENCE_SESSIONS)),
        np.log1p(np.minimum(last_session, cap) * 60.0),
        np.log1p(np.minimum(last_gap, cap) * 60.0),
        np.log1p(np.minimum(sessions, _EXPERIENCE_SESSIONS)),
        np.log1p(np.minimum(first_seen, cap)),
    ]


def _fleet(known: SessionHistory, up: Bool, columns: _Statistics, off: Float64) -> list[Float64]:
    """Recent departures against what the classes' rates expect, in the node's network and in the whole fleet."""
    recent, recent_hours = columns.summary[:, 6], columns.summary[:, 7]
    expected = recent_hours * off
    network = _codes(known)
    size = np.bincount(network).astype(np.float64)
    gone = np.bincount(network, weights=recent)
    due = np.bincount(network, weights=expected)
    ratio = np.log((gone + _FLEET_PRIOR) / (due + _FLEET_PRIOR))
    share = (np.bincount(network, weights=up.astype(np.float64)) + 1.0) / (size + 2.0)
    fleet = math.log((recent.sum() + _FLEET_PRIOR) / (expected.sum() + _FLEET_PRIOR))
    return [ratio[network], share[network], np.full(len(known), fleet)]


def _codes(known: SessionHistory) -> Int64:
    import pandas as pd

    return np.asarray(pd.factorize(known.network)[0], dtype=np.int64)


def _clock_waves(at_us: int, n: int) -> list[Float64]:
    day = 2.0 * math.pi * (at_us % DAY_US) / DAY_US
    week = 2.0 * math.pi * (at_us % (7 * DAY_US)) / (7 * DAY_US)
    waves = (math.sin(day), math.cos(day), math.sin(2 * day), math.cos(2 * day), math.sin(week), math.cos(week))
    return [np.full(n, wave) for wave in waves]


@numba.njit(cache=True)
def _decayed_rates(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, half_lives, gone, hours_up, back, hours_down
):
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        for j in range(len(half_lives)):
            scale = math.log(2.0) / half_lives[j]
            known_since = seen_from[node]
            down = True
            for i in range(offsets[node], offsets[node + 1]):
                if down and start[i] > known_since:
                    a = math.exp(-scale * (at - known_since) / hour)
                    b = math.exp(-scale * (at - start[i]) / hour)
                    hours_down[node, j] += (b - a) / scale
                    back[node, j] += b
                left = 0.5 * (end[i] + upper[i])
                a = math.exp(-scale * (at - start[i]) / hour)
                b = math.exp(-scale * (at - left) / hour)
                hours_up[node, j] += (b - a) / scale
                if not censored[i]:
                    gone[node, j] += b
                down = not censored[i]
                known_since = left
            if down and seen_until[node] > known_since:
                a = math.exp(-scale * (at - known_since) / hour)
                b = math.exp(-scale * (at - seen_until[node]) / hour)
                hours_down[node, j] += (b - a) / scale


@numba.njit(cache=True)
def _decayed_availability(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, half_lives, up, observed
):
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        for j in range(len(half_lives)):
            scale = math.log(2.0) / half_lives[j]
            known_since = seen_from[node]
            down = True
            for i in range(offsets[node], offsets[node + 1]):
                left = 0.5 * (end[i] + upper[i])
                since = known_since if down and known_since < start[i] else start[i]
                a = math.exp(-scale * (at - since) / hour)
                s = math.exp(-scale * (at - start[i]) / hour)
                b = math.exp(-scale * (at - left) / hour)
                up[node, j] += (b - s) / scale
                observed[node, j] += (b - a) / scale
                down = not censored[i]
                known_since = left
            if down and seen_until[node] > known_since:
                a = math.exp(-scale * (at - known_since) / hour)
                b = math.exp(-scale * (at - seen_until[node]) / hour)
                observed[node, j] += (b - a) / scale


@numba.njit(cache=True)
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


@numba.njit(cache=True)
def _summaries(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, at, limits, age, out
):
    hour = 3.6e9
    cap, window = limits[0], limits[1]
    for node in range(len(offsets) - 1):
        first, last = offsets[node], offsets[node + 1]
        out[node, 5] = max(0.0, (at - seen_from[node]) / hour)
        if first == last:
            age[node] = out[node, 5]
            continue
        final = last - 1
        up = censored[final] and end[final] >= at
        left = 0.5 * (end[final] + upper[final])
        age[node] = (at - start[final]) / hour if up else (at - left) / hour
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


@numba.njit(cache=True)
def _session_rates(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, off, on, half_life, kappa
):
    hour = 3.6e9
    scale = math.log(2.0) / half_life
    before_session, before_gap = np.empty(len(start)), np.empty(len(start))
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
            if not censored[i]:
                gone += 1.0
            before_gap[i] = (kappa + back) / (kappa / on[node] + hours_down)
    return before_session, before_gap
