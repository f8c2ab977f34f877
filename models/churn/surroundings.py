"""How long nodes like this one have been staying of late: hazards by age in the fleet, the place and the network.

In group g and age bucket a, with events D and hours at risk E that fade by half in two weeks,

    λ_ga = (D_ga + κ) / (E_ga + κ / λ_parent,a)          network within place, place within fleet
    Λ_g(u, h) = ∫_u^{u+h} λ_g                            expected departures of a node of age u until h

A life table that is fitted anew at every instant from what was known there: it follows a fleet whose habits change,
and knows networks that renew addresses after a day. For nodes that are down the same is counted of returns.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from models.blocks import for_each_block
from models.churn.history import SessionHistory
from models.churn.session_groups import order_by
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
    known: SessionHistory, up: Bool, age_hours: Float64, *, at_us: int, settings: ChurnSettings, threads: int = 1
) -> Float64:
    """Logarithm of Λ of fleet, place and network at the present age of each node, to a middle and the last edge.

    Args:
        known: what was known at `at_us`.
        up: which nodes are up: departures are counted for them, returns for the others. (n,)
        age_hours: time in the present state. (n,)
        at_us: the instant.
        settings: gives age buckets and edges.
        threads: how many may work; the answer does not depend on it.

    Returns:
        Columns fleet, place, network for the middle edge, then for the last. (n, 6)
    """
    place, network = _groups(known)
    ages = np.concatenate([[0.0], np.asarray(settings.age_edges_hours, dtype=np.float64)])
    edges = np.array([settings.middle_edge_hours, settings.edges_hours[-1]])
    counts = _counts(known, network, ages, at_us=at_us, threads=threads)
    tables = [_hazards(events, hours, place, network) for events, hours in counts]
    fleet, places = (np.stack([table[level] for table in tables]) for level in range(2))
    columns = np.empty((len(known), 2 * _LEVELS))

    def fill(nodes: slice) -> None:
        found = columns[nodes]
        _expected_events(
            fleet, places, counts, ages, edges, place[nodes], network[nodes], up[nodes], age_hours[nodes], found
        )
        np.log(np.maximum(found, _LEAST_EXPECTED), out=found)

    for_each_block(fill, len(known), threads=threads)
    return columns


def _counts(known: SessionHistory, network: Int64, ages: Float64, *, at_us: int, threads: int) -> Float64:
    """Departures and hours up, then returns and hours down, of each network and age: (2, 2, networks, ages).

    A network is counted by one thread, its nodes in their order, so that sums do not depend on the number of threads.
    """
    members = order_by(network)
    first = np.searchsorted(network[members], np.arange(int(network.max(initial=-1)) + 2))
    counts = np.zeros((2, 2, len(first) - 1, len(ages)))
    sessions = (known.offsets, known.start_us, known.end_us, known.end_upper_us, known.censored, known.own_departure)

    def count(block: slice) -> None:
        begin, end = np.searchsorted(first[:-1], (block.start, block.stop))
        _count(*sessions, known.observed_until_us, at_us, members, first, begin, end, ages, _HALF_LIFE_HOURS, counts)

    for_each_block(count, len(known), threads=threads)
    return counts


def _groups(known: SessionHistory) -> tuple[Int64, Int64]:
    """Codes of place and network; one network in two places is two groups, so that each has one parent."""
    import pandas as pd

    place = np.asarray(pd.factorize(known.location)[0], dtype=np.int64)
    network = np.asarray(pd.factorize(known.network)[0], dtype=np.int64)
    within = np.asarray(pd.factorize(place * (int(network.max(initial=0)) + 1) + network)[0], dtype=np.int64)
    return place, within


def _hazards(events: Float64, hours: Float64, place: Int64, network: Int64) -> tuple[Float64, Float64]:
    """Shrunk hazards of the fleet (A,) and of places (P, A); events and hours are given by network."""
    place_of = np.zeros(len(events), dtype=np.int64)
    place_of[network] = place
    of_places = [np.zeros((int(place.max(initial=0)) + 1, events.shape[1])) for _ in range(2)]
    for part, summed in zip((events, hours), of_places, strict=True):
        _add_rows(part, place_of, summed)
    overall = (events.sum() + 1.0) / (hours.sum() + _PRIOR_HOURS)
    fleet = _shrunk(events.sum(axis=0), hours.sum(axis=0), np.array(overall))
    return fleet, _shrunk(of_places[0], of_places[1], fleet)


def _shrunk(events: Float64, hours: Float64, parent: Float64) -> Float64:
    return np.asarray((events + _PSEUDO_EVENTS) / (hours + _PSEUDO_EVENTS / parent), dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _add_rows(part, group, summed):  # type: ignore[no-untyped-def]
    for i in range(len(part)):
        for a in range(part.shape[1]):
            summed[group[i], a] += part[i, a]


@numba.njit(cache=True, nogil=True)
def _count(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, own, seen_until, at, members, first, begin, stop, ages, half_life, counts
):
    """Adds faded events and hours of each session to counts[0], of the time down after it to counts[1]."""
    hour = 3.6e9
    scale = math.log(2.0) / half_life
    growth = np.exp(scale * (ages[1:] - ages[:-1]))
    for group in range(begin, stop):
        up, down = counts[0, :, group], counts[1, :, group]
        for k in range(first[group], first[group + 1]):
            node = members[k]
            for i in range(offsets[node], offsets[node + 1]):
                left = 0.5 * (end[i] + upper[i])
                last = i + 1 == offsets[node + 1]
                until = float(min(at, seen_until[node]) if last else start[i + 1])
                if (at - until) / hour > _FORGOTTEN * half_life:
                    continue
                gone = math.exp(-scale * (at - left) / hour)
                faded = math.exp(-scale * (at - start[i]) / hour)
                _add(float(start[i]), faded, left, gone, own[i], ages, growth, scale, up)
                if not censored[i]:
                    faded = math.exp(-scale * (at - until) / hour)
                    _add(left, gone, until, faded, not last, ages, growth, scale, down)


@numba.njit(cache=True, nogil=True)
def _add(begin, faded, until, at_end, ended, ages, growth, scale, counts):  # type: ignore[no-untyped-def]
    """Integral of the weight over each age bucket, and the faded event in the bucket where it ended.

    The weight 2^(−(time since) / half-life) is `faded` at `begin`, `at_end` at `until`, and grows by a known factor over
    every whole bucket: an exponential for each would take most of the time.
    """
    hour = 3.6e9
    low = begin
    for a in range(len(ages)):
        if low >= until:
            break
        within = a + 1 < len(ages) and begin + ages[a + 1] * hour < until
        fresh = faded * growth[a] if within else at_end
        counts[1, a] += (fresh - faded) / scale
        if ended and not within:
            counts[0, a] += fresh
        low, faded = begin + ages[a + 1] * hour if within else until, fresh


@numba.njit(cache=True, nogil=True)
def _expected_events(  # type: ignore[no-untyped-def]
    fleet, places, counts, ages, edges, place, network, up, age, out
):
    """Hazard times time over each lead, in fleet, place and network; a network's hazard is shrunk where it is read."""
    for i in range(len(age)):
        state = 0 if up[i] else 1
        of_fleet, of_place = fleet[state], places[state, place[i]]
        events, hours = counts[state, 0, network[i]], counts[state, 1, network[i]]
        out[i] = 0.0
        for b in range(len(edges)):
            position, until = age[i], age[i] + edges[b]
            a = np.searchsorted(ages, position, side="right") - 1
            while position < until:
                upper = until if a + 1 == len(ages) else min(until, ages[a + 1])
                span = upper - position
                out[i, 3 * b] += of_fleet[a] * span
                out[i, 3 * b + 1] += of_place[a] * span
                of_network = (events[a] + _PSEUDO_EVENTS) / (hours[a] + _PSEUDO_EVENTS / of_place[a])
                out[i, 3 * b + 2] += of_network * span
                position = upper
                a += 1
