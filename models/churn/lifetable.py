"""Semi-Markov life table: the hazard depends on the age of the state, the node's own rate, and its class.

The hazard λ is constant inside an age bucket a, for class c and bucket r of the node's own earlier rate:

    fleet   λ_a   = (D_a + κ) / (E_a + κ / λ)                      D events, E hours at risk
    class   λ_ca  = (D_ca + κ) / (E_ca + κ / λ_a)
    cell    λ_cra = (D_cra + κ) / (E_cra + κ / (m_cr λ_ca)),       m_cr = (Σ_a D_cra + κ) / (Σ_a E_cra λ_ca + κ)

    S(h | age u) = exp(−∫_u^{u+h} λ),   linear in the exponent between edges, so any horizon is a look-up.

Right censoring, and being taken along by an outage, only end the time at risk. An event known to lie in an interval is
spread over the buckets it overlaps in proportion to the present hazards, a few rounds of expectation-maximisation.
Sessions under way when the window begins enter late, at the age they had. The same table serves the time until a node
that is down returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from models.churn.history import Objects, SessionHistory
from models.churn.markov import PopulationRates
from models.churn.session_statistics import session_rates
from models.churn.settings import ChurnSettings
from models.events import HOUR_US, Bool, Float64, Int64

_ROUNDS = 4
_RATE_FLOOR = 1e-6


@dataclass(frozen=True)
class Durations:
    """Times spent in a state, delayed entry and censoring included; hours since the state began.

    Attributes:
        entry: age at which the observation begins. (m,)
        low: the state lasted at least this long. (m,)
        high: and at most this long, where `ended`. (m,)
        ended: whether the end was seen; else censored at `low`. (m,)
        rate: the node's own rate known before the state began, per hour. (m,)
        device_class: class of the node. (m,)
    """

    entry: Float64
    low: Float64
    high: Float64
    ended: Bool
    rate: Float64
    device_class: Objects


@dataclass(frozen=True)
class LifeTable:
    """Hazards by class, rate bucket and age bucket; class 0 is the fleet and serves every unknown class.

    Attributes:
        age_edges_hours: inner edges of the age buckets. (A − 1,)
        rate_edges: inner edges of the rate buckets, per hour. (R − 1,)
        classes: names of classes 1, 2, … (C,)
        hazard: per hour. (C + 1, R, A)
    """

    age_edges_hours: Float64
    rate_edges: Float64
    classes: tuple[str, ...]
    hazard: Float64

    def cumulative_hazard(
        self, *, age_hours: Float64, rate: Float64, device_class: Objects, edges_hours: Float64
    ) -> Float64:
        """∫ λ from the present age over each lead time. (n, B)."""
        classes = _class_codes(device_class, self.classes)
        buckets = np.searchsorted(self.rate_edges, rate, side="right")
        edges = np.concatenate([[0.0], self.age_edges_hours])
        widths = np.diff(edges)
        steps = self.hazard[:, :, :-1] * widths
        at_edge = np.concatenate([np.zeros((*steps.shape[:2], 1)), np.cumsum(steps, axis=2)], axis=2)
        return np.asarray(
            _cumulative(self.hazard, at_edge, edges, classes, buckets, age_hours, edges_hours), dtype=np.float64
        )


def session_durations(
    history: SessionHistory,
    *,
    start_us: int,
    end_us: int,
    population: PopulationRates,
    settings: ChurnSettings,
) -> tuple[Durations, Durations]:
    """Time up and time down of every node in [start, end), as known at `end_us`."""
    known = history.before(end_us)
    node = known.node_of_session
    departure_rate, return_rate = session_rates(known, population=population, settings=settings)
    device_class = known.device_class[node]
    up = Durations(
        _hours(known.start_us, np.full(len(node), start_us)),
        _hours(known.start_us, known.end_us),
        _hours(known.start_us, known.end_upper_us),
        known.own_departure,
        departure_rate,
        device_class,
    )
    follows = np.append(node[1:] == node[:-1], False) if len(node) else np.zeros(0, dtype=np.bool_)
    left = known.end_us + (known.end_upper_us - known.end_us) // 2
    observed_until = np.minimum(known.observed_until_us, end_us)[node]
    until = np.where(follows, np.roll(known.start_us, -1), observed_until)
    gaps = ~known.censored & (until > left)
    down = Durations(
        _hours(left, np.full(len(node), start_us))[gaps],
        _hours(left, until)[gaps],
        _hours(left, until)[gaps],
        follows[gaps],
        return_rate[gaps],
        device_class[gaps],
    )
    return up, down


def fit_life_table(durations: Durations, *, prior_rate: float, settings: ChurnSettings) -> LifeTable:
    """Expectation-maximisation over the interval-censored ends, shrinkage in every round."""
    edges = np.asarray(settings.age_edges_hours, dtype=np.float64)
    classes = tuple(sorted({str(c) for c in durations.device_class}))
    at_risk = np.maximum(durations.low - durations.entry, 0.0)
    rate_edges = _rate_edges(durations.rate, at_risk, settings.rate_buckets)
    cell_class = _class_codes(durations.device_class, classes)
    cell_rate = np.searchsorted(rate_edges, durations.rate, side="right")
    shape = (len(classes) + 1, len(rate_edges) + 1, len(edges) + 1)
    hazard = np.full(shape, max(prior_rate, _RATE_FLOOR))
    full_edges = np.concatenate([[0.0], edges])
    for _ in range(_ROUNDS):
        events, hours = np.zeros(shape), np.zeros(shape)
        _expected(
            durations.entry,
            durations.low,
            durations.high,
            durations.ended,
            cell_class,
            cell_rate,
            full_edges,
            hazard,
            events,
            hours,
        )
        hazard = _shrunk(events, hours, settings.pseudo_departures, prior_rate)
    return LifeTable(edges, rate_edges, classes, hazard)


def _shrunk(events: Float64, hours: Float64, kappa: float, prior_rate: float) -> Float64:
    """Fleet, class and cell hazards as in the module's equations; class 0 pools every class."""
    events, hours = events.copy(), hours.copy()
    events[0], hours[0] = events.sum(axis=0), hours.sum(axis=0)
    overall = max((events[0].sum() + 1.0) / (hours[0].sum() + 1.0 / max(prior_rate, _RATE_FLOOR)), _RATE_FLOOR)
    fleet = (events[0].sum(axis=0) + kappa) / (hours[0].sum(axis=0) + kappa / overall)
    by_class = (events.sum(axis=1) + kappa) / (hours.sum(axis=1) + kappa / fleet)
    by_class[0] = fleet
    expected = np.einsum("cra,ca->cr", hours, by_class)
    factor = (events.sum(axis=2) + kappa) / (expected + kappa)
    parent = factor[:, :, None] * by_class[:, None, :]
    hazard = (events + kappa) / (hours + kappa / parent)
    return np.asarray(np.maximum(hazard, _RATE_FLOOR * 1e-3), dtype=np.float64)


def _rate_edges(rate: Float64, weight: Float64, buckets: int) -> Float64:
    """Edges at quantiles of the rate weighted half by sessions and half by time at risk, so that both tails are cut."""
    if not len(rate):
        return np.zeros(0)
    order = np.argsort(rate)
    mass = 1.0 / len(rate) + weight / max(float(weight.sum()), 1e-12)
    cumulative = np.cumsum(mass[order]) / mass.sum()
    cuts = np.searchsorted(cumulative, np.arange(1, buckets) / buckets)
    return np.unique(rate[order][np.minimum(cuts, len(rate) - 1)])


def _class_codes(device_class: Objects, classes: tuple[str, ...]) -> Int64:
    import pandas as pd

    code, names = pd.factorize(device_class)
    places = {name: i + 1 for i, name in enumerate(classes)}
    return np.array([places.get(str(name), 0) for name in names], dtype=np.int64)[code]


def _hours(start_us: Int64, end_us: Int64) -> Float64:
    return np.asarray(np.maximum(end_us - start_us, 0) / HOUR_US, dtype=np.float64)


@numba.njit(cache=True)
def _cumulative(hazard, at_edge, edges, classes, buckets, age, ahead):  # type: ignore[no-untyped-def]
    out = np.empty((len(age), len(ahead)))
    for i in range(len(age)):
        row, base = hazard[classes[i], buckets[i]], at_edge[classes[i], buckets[i]]
        a = np.searchsorted(edges, age[i], side="right") - 1
        begin = base[a] + row[a] * (age[i] - edges[a])
        for b in range(len(ahead)):
            until = age[i] + ahead[b]
            while a + 1 < len(edges) and edges[a + 1] <= until:
                a += 1
            out[i, b] = base[a] + row[a] * (until - edges[a]) - begin
    return out


@numba.njit(cache=True)
def _expected(  # type: ignore[no-untyped-def]
    entry, low, high, ended, classes, buckets, edges, hazard, events, hours
):
    """Adds expected events and hours at risk of each duration to its class and rate bucket."""
    pieces = len(edges)
    mass = np.empty(pieces)
    for i in range(len(entry)):
        first = entry[i]
        if (ended[i] and high[i] <= first) or (not ended[i] and low[i] <= first):
            continue
        last = max(low[i], first)
        row = hazard[classes[i], buckets[i]]
        event_row, hour_row = events[classes[i], buckets[i]], hours[classes[i], buckets[i]]
        for a in range(np.searchsorted(edges, first, side="right") - 1, pieces):
            upper = edges[a + 1] if a + 1 < pieces else np.inf
            hour_row[a] += max(0.0, min(upper, last) - max(edges[a], first))
            if upper >= last:
                break
        if not ended[i]:
            continue
        begin = np.searchsorted(edges, last, side="right") - 1
        if high[i] - last < 1e-9:
            event_row[begin] += 1.0
            continue
        survived, total, stop = 1.0, 0.0, begin
        for a in range(begin, pieces):
            upper = edges[a + 1] if a + 1 < pieces else np.inf
            span = min(upper, high[i]) - max(edges[a], last)
            left = survived * np.exp(-row[a] * span)
            mass[a] = survived - left
            total += mass[a]
            survived, stop = left, a
            if upper >= high[i]:
                break
        staying = 1.0
        for a in range(begin, stop + 1):
            upper = edges[a + 1] if a + 1 < pieces else np.inf
            span = min(upper, high[i]) - max(edges[a], last)
            share = mass[a] / total if total > 0.0 else 1.0 / (stop + 1 - begin)
            event_row[a] += share
            staying -= share
            hour_row[a] += span * (max(staying, 0.0) + 0.5 * share)
