"""How long nodes like this one have been staying of late: hazards by age in the fleet, the place and the network.

In group g and age bucket a, with events D and hours at risk E that fade by half in two weeks,

    λ_ga = (D_ga + κ) / (E_ga + κ / λ_parent,a)          network within place, place within fleet
    Λ_g(u, h) = ∫_u^{u+h} λ_g                            expected departures of a node of age u until h

A life table that is fitted anew at every instant from what was known there: it follows a fleet whose habits change,
and knows networks that renew addresses after a day. For nodes that are down the same is counted of returns.
"""

from __future__ import annotations

import numba
import numpy as np

from models.churn.history import SessionHistory
from models.churn.settings import ChurnSettings
from models.events import Bool, Float64, Int64

_HALF_LIFE_HOURS = 336.0
_PSEUDO_EVENTS = 4.0
_PRIOR_HOURS = 1000.0
_FORGOTTEN = 6.0
_LEAST_EXPECTED = 1e-6
_LEVELS = 3


def surroundings_names() -> tuple[str, ...]:
    """Names of the columns of `surrounding_hazards`."""
    return tuple(f"log_{group}_hazard_{edge}" for edge in ("middle", "last") for group in ("fleet", "place", "network"))


def surrounding_hazards(
    known: SessionHistory, up: Bool, age_hours: Float64, *, at_us: int, settings: ChurnSettings
) -> Float64:
    """Logarithm of Λ of fleet, place and network at the present age of each node, to a middle and the last edge.

    Args:
        known: what was known at `at_us`.
        up: which nodes are up: departures are counted for them, returns for the others. (n,)
        age_hours: time in the present state. (n,)
        at_us: the instant.
        settings: gives age buckets and edges.

    Returns:
        Columns fleet, place, network for the middle edge, then for the last. (n, 6)
    """
    place, network = _groups(known)
    ages = np.concatenate([[0.0], np.asarray(settings.age_edges_hours, dtype=np.float64)])
    edges = np.array([settings.middle_edge_hours, settings.edges_hours[-1]])
    # Departures and hours up, then returns and hours down, of each network and age.
    counts = np.zeros((2, 2, int(network.max(initial=0)) + 1, len(ages)))
    sessions = (known.offsets, known.start_us, known.end_us, known.end_upper_us, known.censored, known.own_departure)
    _count(*sessions, known.observed_until_us, at_us, network, ages, _HALF_LIFE_HOURS, counts)
    columns = np.empty((len(known), 2 * _LEVELS))
    for state, (events, hours) in ((True, counts[0]), (False, counts[1])):
        mine = np.flatnonzero(up == state)
        levels = _hazards(events, hours, place, network)
        for level, (hazard, codes) in enumerate(zip(levels, (None, place, network), strict=True)):
            group = np.zeros(len(mine), dtype=np.int64) if codes is None else codes[mine]
            found = _expected_events(hazard, ages, group, age_hours[mine], edges)
            columns[mine, level::_LEVELS] = np.log(np.maximum(found, _LEAST_EXPECTED))
    return columns


def _groups(known: SessionHistory) -> tuple[Int64, Int64]:
    """Codes of place and network; one network in two places is two groups, so that each has one parent."""
    import pandas as pd

    place = np.asarray(pd.factorize(known.location)[0], dtype=np.int64)
    network = np.asarray(pd.factorize(known.network)[0], dtype=np.int64)
    within = np.asarray(pd.factorize(place * (int(network.max(initial=0)) + 1) + network)[0], dtype=np.int64)
    return place, within


def _hazards(events: Float64, hours: Float64, place: Int64, network: Int64) -> tuple[Float64, Float64, Float64]:
    """Shrunk hazards of fleet (1, A), places (P, A) and networks (N, A); events and hours are given by network."""
    place_of = np.zeros(len(events), dtype=np.int64)
    place_of[network] = place
    of_places = [_summed(part, place_of, int(place.max(initial=0)) + 1) for part in (events, hours)]
    overall = (events.sum() + 1.0) / (hours.sum() + _PRIOR_HOURS)
    fleet = _shrunk(events.sum(axis=0)[None, :], hours.sum(axis=0)[None, :], np.array([[overall]]))
    places = _shrunk(of_places[0], of_places[1], fleet)
    return fleet, places, _shrunk(events, hours, places[place_of])


def _summed(part: Float64, group: Int64, groups: int) -> Float64:
    return np.column_stack([np.bincount(group, weights=column, minlength=groups) for column in part.T])


def _shrunk(events: Float64, hours: Float64, parent: Float64) -> Float64:
    return np.asarray((events + _PSEUDO_EVENTS) / (hours + _PSEUDO_EVENTS / parent), dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _count(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, own, seen_until, at, codes, ages, half_life, counts
):
    """Adds faded events and hours of each session to counts[0], of the time down after it to counts[1]."""
    hour = 3.6e9
    for node in range(len(offsets) - 1):
        group = codes[node]
        for i in range(offsets[node], offsets[node + 1]):
            left = 0.5 * (end[i] + upper[i])
            last = i + 1 == offsets[node + 1]
            until = min(at, seen_until[node]) if last else start[i + 1]
            if (at - until) / hour > _FORGOTTEN * half_life:
                continue
            _add(start[i], left, own[i], at, ages, half_life, counts[0, 0, group], counts[0, 1, group])
            if not censored[i]:
                _add(left, until, not last, at, ages, half_life, counts[1, 0, group], counts[1, 1, group])


@numba.njit(cache=True, nogil=True)
def _add(begin, until, ended, at, ages, half_life, events, hours):  # type: ignore[no-untyped-def]
    """∫ 2^(−(at − s)/half-life) ds over each age bucket, and the faded event in the bucket where it ended."""
    hour = 3.6e9
    scale = np.log(2.0) / half_life
    low, faded = begin, np.exp(-scale * (at - begin) / hour)
    for a in range(len(ages)):
        if low >= until:
            break
        high = min(until, begin + ages[a + 1] * hour) if a + 1 < len(ages) else until
        fresh = np.exp(-scale * (at - high) / hour)
        hours[a] += (fresh - faded) / scale
        if ended and high == until:
            events[a] += fresh
        low, faded = high, fresh


@numba.njit(cache=True, nogil=True)
def _expected_events(hazard, ages, codes, age, edges):  # type: ignore[no-untyped-def]
    out = np.zeros((len(age), len(edges)))
    for i in range(len(age)):
        row = hazard[codes[i]]
        for b in range(len(edges)):
            position, until = age[i], age[i] + edges[b]
            a = np.searchsorted(ages, position, side="right") - 1
            while position < until:
                upper = until if a + 1 == len(ages) else min(until, ages[a + 1])
                out[i, b] += row[a] * (upper - position)
                position = upper
                a += 1
    return out
