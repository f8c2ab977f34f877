"""A regime change made from sessions that one has: from an instant on, departures multiply.

    f(t) = 1 + (factor − 1) min(1, (t − from) / ramp)       and 1 before `from`

λ is the hazard of leaving by age, own rate and class, as a life table of the sessions from `from` on tells it.

    factor > 1    departures are added inside sessions with hazard (f(t) − 1) λ; the node comes back after one of its
                  own gaps, or of the fleet's where it has too few, if the session still lasts then
    factor < 1    a departure is dropped with probability 1 − f(t); the node stays on with hazard f(t) λ until it
                  leaves after all or its next session begins

The age of a session goes on through absences that were added, so the rate of departures per hour up becomes f times
what it was. A departure that was added is seen as the log sees departures: between two sightings as far apart as those
of a real one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from models.churn.history import SessionHistory
from models.churn.lifetable import LifeTable, fit_life_table, session_durations
from models.churn.markov import PopulationRates, fit_population
from models.churn.session_statistics import session_rates
from models.churn.settings import ChurnSettings
from models.events import HOUR_US, Bool, Float64, Int64

_OWN_GAPS = 3
"""Gaps of its own from which a node's absences are drawn; with fewer, the fleet's."""


@dataclass(frozen=True)
class RegimeChange:
    """How departures change.

    Attributes:
        from_us: instant of the change.
        factor: departures per hour up afterwards over before, > 0.
        ramp_hours: hours until the whole change is there; 0 is at once.
        among: nodes that change; all when absent. (n,)
    """

    from_us: int
    factor: float
    ramp_hours: float = 0.0
    among: Bool | None = None

    def __post_init__(self) -> None:
        problems = []
        if not (np.isfinite(self.factor) and self.factor > 0.0):
            problems.append(f"Expected factor > 0, got {self.factor!r}.")
        if not (np.isfinite(self.ramp_hours) and self.ramp_hours >= 0.0):
            problems.append(f"Expected ramp_hours >= 0, got {self.ramp_hours!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    def at(self, at_us: Int64) -> Float64:
        """The factor f at each instant, shape of `at_us`."""
        since = np.maximum(at_us - self.from_us, 0)
        ramp_us = self.ramp_hours * HOUR_US
        share = np.minimum(since / ramp_us, 1.0) if ramp_us > 0.0 else (at_us >= self.from_us).astype(np.float64)
        return np.asarray(1.0 + (self.factor - 1.0) * share, dtype=np.float64)


def intensified(history: SessionHistory, change: RegimeChange, *, seed: int) -> SessionHistory:
    """The history as it would have been under the change; what was known before `from_us` stays as it is.

    Args:
        history: sessions of the whole time.
        change: when, how much, how fast, whom.
        seed: of the draws.

    Raises:
        ValueError: `among` does not name each node, or there is no session after `from_us`.
    """
    among = np.ones(len(history), dtype=np.bool_) if change.among is None else np.asarray(change.among, dtype=np.bool_)
    if among.shape != (len(history),):
        raise ValueError(f"Expected a flag for each of {len(history)} nodes, got shape {among.shape}.")
    if change.factor == 1.0 or not among.any():
        return history
    end_us = int(history.end_upper_us.max(initial=0))
    if end_us <= change.from_us:
        raise ValueError(f"Expected sessions after from_us, got none after {change.from_us!r}.")
    hazard = _session_hazards(history, change.from_us, end_us)
    rng = np.random.default_rng(seed)
    offsets, start, end, upper, censored = _redrawn(
        rng,
        (history.offsets, history.start_us, history.end_us, history.end_upper_us, history.censored),
        np.minimum(history.observed_until_us, end_us),
        among,
        hazard,
        _gaps(history),
        _widths_us(history),
        np.array([float(change.from_us), change.ramp_hours * HOUR_US, change.factor]),
    )
    return replace(history, offsets=offsets, start_us=start, end_us=end, end_upper_us=upper, censored=censored)


def departure_rate(
    history: SessionHistory, *, start_us: int, end_us: int, among: Bool | None = None
) -> tuple[float, float]:
    """Departures in the window, and hours up in it, of the nodes `among` (all when absent)."""
    kept = history if among is None else history.select(history.nodes[among])
    middle = kept.end_us + (kept.end_upper_us - kept.end_us) // 2
    gone = ~kept.censored & (middle >= start_us) & (middle < end_us)
    up_us = np.clip(middle, start_us, end_us) - np.clip(kept.start_us, start_us, end_us)
    return float(gone.sum()), float(np.maximum(up_us, 0).sum()) / HOUR_US


def _session_hazards(history: SessionHistory, start_us: int, end_us: int) -> tuple[Float64, Int64, Float64]:
    """Hazards per hour by cell and age bucket, the cell of each session, and lower edges of the age buckets."""
    settings = ChurnSettings()
    population = fit_population(history, start_us=start_us, end_us=end_us)
    up, _ = session_durations(history, start_us=start_us, end_us=end_us, population=population, settings=settings)
    table = fit_life_table(up, prior_rate=population.departures_per_hour, settings=settings)
    cells = table.hazard.reshape(-1, table.hazard.shape[-1])
    return cells, _cells(history, table, population, settings), np.concatenate([[0.0], table.age_edges_hours])


def _cells(history: SessionHistory, table: LifeTable, population: PopulationRates, settings: ChurnSettings) -> Int64:
    rate, _ = session_rates(history, population=population, settings=settings)
    code = {name: i + 1 for i, name in enumerate(table.classes)}
    of_node = np.array([code.get(str(name), 0) for name in history.device_class], dtype=np.int64)
    buckets = np.searchsorted(table.rate_edges, rate, side="right")
    return np.asarray(of_node[history.node_of_session] * table.hazard.shape[1] + buckets, dtype=np.int64)


def _gaps(history: SessionHistory) -> tuple[Int64, Int64, Int64]:
    """Gaps of all nodes in their order, the first of each node, and the fleet's to draw from; at least one."""
    node = history.node_of_session
    follows = np.flatnonzero((node[1:] == node[:-1]) & ~history.censored[:-1])
    gap_us = history.start_us[follows + 1] - history.end_us[follows]
    first = np.concatenate([[0], np.cumsum(np.bincount(node[follows], minlength=len(history)))]).astype(np.int64)
    fleet = gap_us if len(gap_us) else np.array([HOUR_US], dtype=np.int64)
    return gap_us, first, fleet


def _widths_us(history: SessionHistory) -> Int64:
    """How long after the last sighting real departures were noticed; 0 where none was seen."""
    seen = ~history.censored
    width = history.end_upper_us[seen] - history.end_us[seen]
    return width if len(width) else np.zeros(1, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def _factor(at, change):  # type: ignore[no-untyped-def]
    since = at - change[0]
    if since < 0.0:
        return 1.0
    share = min(since / change[1], 1.0) if change[1] > 0.0 else 1.0
    return 1.0 + (change[2] - 1.0) * share


@numba.njit(cache=True, nogil=True)
def _leaves(rng, since, until, born, hazard, edges, change):  # type: ignore[no-untyped-def]
    """First departure in [since, until) under f λ, or (f − 1) λ where f > 1, by thinning; -1 where there is none."""
    added = change[2] > 1.0
    most = change[2] - 1.0 if added else 1.0
    hour, at = 3.6e9, float(since)
    bucket = 0
    while at < until:
        age = (at - born) / hour
        while bucket + 1 < len(edges) and edges[bucket + 1] <= age + 1e-12:
            bucket += 1
        stop = float(until)
        if bucket + 1 < len(edges):
            stop = min(stop, born + edges[bucket + 1] * hour)
        at += rng.exponential() / (most * hazard[bucket]) * hour
        if at >= stop:
            at = stop
            continue
        f = _factor(at, change)
        if rng.random() * most < (f - 1.0 if added else f):
            return at
    return -1.0


@numba.njit(cache=True, nogil=True)
def _sightings(rng, left, first, limit, widths):  # type: ignore[no-untyped-def]
    """Last sighting and first absence around a departure, inside [first, limit]."""
    width = widths[rng.integers(0, len(widths))]
    seen = max(first, np.int64(left - rng.random() * width))
    return seen, min(max(seen + width, np.int64(left)), limit)


@numba.njit(cache=True, nogil=True)
def _redrawn(rng, sessions, observed_until, among, hazards, gaps, widths, change):  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored = sessions
    hazard, cell, edges = hazards
    own, own_first, fleet = gaps
    n = len(offsets) - 1
    out, ended = np.empty((len(start) + 64, 3), np.int64), np.empty(len(start) + 64, np.bool_)
    counts = np.zeros(n + 1, np.int64)
    m = 0
    for node in range(n):
        carried = np.int64(-1)
        for j in range(offsets[node], offsets[node + 1]):
            first = start[j] if carried < 0 else carried
            carried = np.int64(-1)
            is_last = j + 1 == offsets[node + 1]
            limit = max(observed_until[node], upper[j]) if is_last else start[j + 1]
            row = hazard[cell[j]]
            while True:
                a, b, cut, more = end[j], upper[j], censored[j], False
                back = np.int64(0)
                if among[node] and change[2] > 1.0:
                    left = _leaves(rng, max(first, np.int64(change[0])), a, start[j], row, edges, change)
                    if left >= 0.0:
                        a, b = _sightings(rng, left, first, b, widths)
                        cut = False
                        lo, hi = own_first[node], own_first[node + 1]
                        gap = own[rng.integers(lo, hi)] if hi - lo >= _OWN_GAPS else fleet[rng.integers(0, len(fleet))]
                        back = max(np.int64(left) + gap, b)
                        more = back < end[j]
                elif among[node] and not cut and a >= change[0]:
                    left = 0.5 * (a + b)
                    if rng.random() >= _factor(left, change):
                        left = _leaves(rng, left, limit, first, row, edges, change)
                        if left >= 0.0:
                            a, b = _sightings(rng, left, max(first, a), limit, widths)
                        elif is_last:
                            a, b, cut = limit, limit, True
                        else:
                            carried = first
                            break
                if m == len(ended):
                    grown, grown_ended = np.empty((2 * m, 3), np.int64), np.empty(2 * m, np.bool_)
                    grown[:m], grown_ended[:m] = out, ended
                    out, ended = grown, grown_ended
                out[m, 0], out[m, 1], out[m, 2], ended[m] = first, a, b, cut
                m += 1
                counts[node + 1] += 1
                if not more:
                    break
                first = back
    return np.cumsum(counts), out[:m, 0].copy(), out[:m, 1].copy(), out[:m, 2].copy(), ended[:m].copy()
