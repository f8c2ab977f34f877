"""The memoryless part: a two-state chain per node.

A node leaves at rate λ and returns at rate μ (per hour). With π = μ / (λ + μ),

    P(up at h | up)   = π + (1 − π) e^{−(λ + μ) h}          P(up without a break until h) = e^{−λ h}
    P(up at h | down) = π (1 − e^{−(λ + μ) h})

λ and μ of a class are departures over hours up and returns over hours down, shrunk towards the fleet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.churn.history import Objects, SessionHistory
from models.events import HOUR_US, Bool, Float64, Int64

_RATE_FLOOR = 1e-6


@dataclass(frozen=True)
class PopulationRates:
    """Departures per hour up and returns per hour down, of the fleet and of each device class."""

    departures_per_hour: float
    returns_per_hour: float
    by_class: Mapping[str, tuple[float, float]]

    def of(self, device_class: Objects) -> tuple[Float64, Float64]:
        """Both rates for each node; an unknown class has the fleet's. (n,), (n,)."""
        fleet = (self.departures_per_hour, self.returns_per_hour)
        import pandas as pd

        code, names = pd.factorize(device_class)
        rates = np.array([self.by_class.get(name, fleet) for name in names], dtype=np.float64).reshape(-1, 2)[code]
        return rates[:, 0], rates[:, 1]


def fit_population(
    history: SessionHistory, *, start_us: int, end_us: int, pseudo_departures: float = 20.0
) -> PopulationRates:
    """Rates over [start, end) as known at `end_us`, classes shrunk towards the fleet."""
    known = history.before(end_us)
    names, code = np.unique(known.device_class.astype(str), return_inverse=True)
    counts = _window_counts(known, code, len(names), start_us=start_us, end_us=end_us)
    total = counts.sum(axis=0)
    fleet_off = max((total[0] + 0.5) / (total[1] + 24.0), _RATE_FLOOR)
    fleet_on = max((total[2] + 0.5) / (total[3] + 24.0), _RATE_FLOOR)
    kappa = pseudo_departures
    off = (counts[:, 0] + kappa) / (counts[:, 1] + kappa / fleet_off)
    on = (counts[:, 2] + kappa) / (counts[:, 3] + kappa / fleet_on)
    return PopulationRates(
        float(fleet_off),
        float(fleet_on),
        {str(name): (float(off[i]), float(on[i])) for i, name in enumerate(names)},
    )


def _window_counts(known: SessionHistory, code: Int64, classes: int, *, start_us: int, end_us: int) -> Float64:
    """Departures, hours up, returns and hours down of each class in the window. (classes, 4)."""
    node = known.node_of_session
    left = known.end_us + (known.end_upper_us - known.end_us) // 2
    up = _overlap_hours(known.start_us, left, start_us, end_us)
    departed = known.own_departure & (left >= start_us) & (left < end_us)
    observed_until = np.minimum(known.observed_until_us, end_us)
    follows = np.append(node[1:] == node[:-1], False) if len(node) else np.zeros(0, dtype=np.bool_)
    next_start = np.where(follows, np.roll(known.start_us, -1), observed_until[node])
    down = _overlap_hours(left, next_start, start_us, end_us) * ~known.censored
    returned = follows & ~known.censored & (next_start >= start_us)
    group = code[node]
    columns = (departed.astype(np.float64), up, returned.astype(np.float64), down)
    return np.column_stack([np.bincount(group, weights=c, minlength=classes) for c in columns])


def _overlap_hours(first_us: Int64, last_us: Int64, start_us: int, end_us: int) -> Float64:
    span = np.minimum(last_us, end_us) - np.maximum(first_us, start_us)
    return np.asarray(np.maximum(span, 0) / HOUR_US, dtype=np.float64)


def chain_availability(up: Bool, departure_hazard: Float64, return_hazard: Float64, edges_hours: Float64) -> Float64:
    """P(up at each edge) of a two-state chain whose mean rates over the horizon are hazard / edge.

    Args:
        up: state at the origin. (n,)
        departure_hazard: cumulative hazard of leaving until each edge, for a node that is up. (n, B)
        return_hazard: cumulative hazard of returning until each edge, for a node that is down. (n, B)
        edges_hours: the edges. (B,)
    """
    total = departure_hazard + return_hazard
    stationary = np.where(total > 0, return_hazard / np.maximum(total, 1e-300), 0.5)
    faded = np.exp(-total)
    from_up = stationary + (1.0 - stationary) * faded
    return np.where(up[:, None], from_up, stationary * (1.0 - faded))


def availability_after_return(returned: Float64, once_back: Float64, edges_hours: Float64) -> Float64:
    """P(up at e_b | down now) = Σ_{k ≤ b} P(first back in bin k) A(e_b − m_k), m_k the middle of bin k.

    A, the availability of a node that has just come back, is read between the edges by straight lines from A(0) = 1.

    Args:
        returned: P(back at least once by each edge). (n, B)
        once_back: A at each edge. (n, B)
        edges_hours: the edges. (B,)
    """
    edges = np.concatenate([[0.0], edges_hours])
    middle = 0.5 * (edges[1:] + edges[:-1])
    first = np.diff(returned, axis=1, prepend=0.0)
    stays = np.column_stack([np.ones(len(returned)), once_back])
    available = np.zeros_like(returned)
    for b in range(len(edges_hours)):
        for k in range(b + 1):
            since = edges_hours[b] - middle[k]
            right = int(np.searchsorted(edges, since, side="right"))
            share = (since - edges[right - 1]) / (edges[right] - edges[right - 1])
            available[:, b] += first[:, k] * ((1.0 - share) * stays[:, right - 1] + share * stays[:, right])
    return available
