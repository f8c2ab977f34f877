"""Departures that come together: what a fleet, a network and an outage share.

Given a fleet frailty Z_f and a network frailty Z_g, both gamma with mean 1 and variances θ_f and θ_g, and an outage of
the network with probability π that takes node i with probability q_i, the nodes of a set stay independently:

    P(i stays | Z_f, Z_g, outage) = e^{−c_i Z_f Z_g − d_i} (1 − q_i)^{outage}

    S_i = (1 − π q_i) L(c_i) e^{−d_i},    L(c) = E e^{−c Z_f Z_g},    q_i = min(q, 0.9 (1 − S_i) / π)

c_i is solved from L, so each node's own survival stays as forecast whatever the variances. d_i is what a node leaves by
itself: frailties act on the first `most_shared` of its probability of leaving, L(c_i) ≥ 1 − most_shared, and a node that
comes and goes all day does so for reasons of its own. Without outages and d, two nodes of one network have
P(both stay) = L(c_1 + c_2) ≥ S_1 S_2; with both variances and π at 0 they are independent. The expectation over a gamma
variable is Gauss quadrature (generalised Laguerre): whatever the number of its nodes, S stays exact.

Vaupel, Manton & Stallard 1979 (frailty); Golub & Welsch 1969 (quadrature); Marshall & Olkin 1967 (common shock).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

import numba
import numpy as np
from scipy.linalg import eigh_tridiagonal

from models.events import Float64

NODES = 10
"""Quadrature nodes of each gamma variable."""
MOST_VARIANCE = 5.0
"""Beyond it so few nodes of the quadrature no longer follow the gamma; up to 2 and for shared survival of at least 0.5 it
follows it to 1e-3, six nodes of one network that share most of their departures to 0.02. What is fitted is what
forecasts: the quadrature is a law of its own, with exact survivals."""
_LEAST_VARIANCE = 1e-6
_MOST_BY_OUTAGE = 0.9
"""Largest part of a node's departures that an outage explains: the steadiest nodes bound what can take them."""
_LOG_C = np.linspace(np.log(1e-12), np.log(1e7), 600)


@dataclass(frozen=True)
class Dependence:
    """How strongly departures go together over one lead time; all 0 is independence.

    Attributes:
        fleet_variance: θ_f, variance of the fleet frailty, in [0, 5].
        network_variance: θ_g, variance of the network frailty, in [0, 5].
        outage_probability: π, that a network has an outage until then, in [0, 1).
        outage_share: q, share of its nodes that an outage takes, in [0, 1].
        most_shared: largest probability of leaving that frailties act on, in [0, 1]; 1 is all of it.
    """

    fleet_variance: float = 0.0
    network_variance: float = 0.0
    outage_probability: float = 0.0
    outage_share: float = 0.0
    most_shared: float = 1.0

    def __post_init__(self) -> None:
        most = {"outage_probability": 1.0, "outage_share": 1.0, "most_shared": 1.0}
        problems = [
            f"Expected {f.name} in [0, {most.get(f.name, MOST_VARIANCE):g}], got {value!r}."
            for f in fields(self)
            if not 0.0 <= (value := getattr(self, f.name)) <= most.get(f.name, MOST_VARIANCE)
        ]
        if not problems and self.outage_probability >= 1.0:
            problems.append(f"Expected outage_probability below 1, got {self.outage_probability!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def is_independent(self) -> bool:
        outages = self.outage_probability > 0.0 and self.outage_share > 0.0
        return not outages and max(self.fleet_variance, self.network_variance) <= 0.0


@dataclass(frozen=True)
class Conditional:
    """Nodes given what they share: P(i stays | f, g, outage) = e^{−c_i f g − d_i} (1 − q_i)^{outage}.

    Attributes:
        cumulative: c_i, infinite for a node that is certainly gone. (m,)
        own: d_i, likewise. (m,)
        taken: q_i. (m,)
    """

    cumulative: Float64
    own: Float64
    taken: Float64

    @classmethod
    def of(cls, survival: Float64, dependence: Dependence) -> Conditional:
        """Solves c_i, d_i and q_i for each survival, shape (m,)."""
        taken = np.zeros(len(survival))
        probability = dependence.outage_probability
        if probability > 0.0:
            taken = np.minimum(dependence.outage_share, _MOST_BY_OUTAGE * (1.0 - survival) / max(probability, 1e-12))
        rest = np.minimum(survival / (1.0 - probability * taken), 1.0)
        shared = np.maximum(rest, 1.0 - dependence.most_shared)
        with np.errstate(divide="ignore"):
            own = np.where(shared > 0.0, np.log(np.where(shared > 0.0, shared, 1.0)) - np.log(rest), np.inf)
        return cls(_solved(shared, dependence.fleet_variance, dependence.network_variance), own, taken)


@functools.lru_cache(maxsize=256)
def quadrature(variance: float, nodes: int = NODES) -> tuple[Float64, Float64]:
    """Values and weights that stand for a gamma variable of mean 1; exact for polynomials of degree < 2 nodes."""
    if variance < _LEAST_VARIANCE:
        return np.ones(1), np.ones(1)
    alpha = 1.0 / variance - 1.0
    k = np.arange(nodes, dtype=np.float64)
    values, vectors = eigh_tridiagonal(2.0 * k + 1.0 + alpha, np.sqrt(k[1:] * (k[1:] + alpha)))
    return np.maximum(values, 0.0) * variance, vectors[0] ** 2


@functools.lru_cache(maxsize=64)
def _laplace_table(fleet_variance: float, network_variance: float) -> tuple[Float64, Float64]:
    """log(−log L(c)) on the grid of log c, and its slope there."""
    (f, weight_f), (g, weight_g) = quadrature(fleet_variance), quadrature(network_variance)
    z, weight = np.outer(f, g).ravel(), np.outer(weight_f, weight_g).ravel()
    c = np.exp(_LOG_C)[:, None]
    faded = np.exp(-c * z)
    # 1 − L by expm1: at small c the difference to 1 would be lost.
    gone = np.minimum(-np.expm1(-c * z) @ weight, 1.0 - 1e-16)
    hazard = np.where(gone < 0.5, -np.log1p(-gone), -np.log(np.maximum(faded @ weight, 1e-300)))
    slope = (faded @ (weight * z)) / np.maximum(faded @ weight, 1e-300) * c[:, 0] / hazard
    return np.log(hazard), slope


def _solved(survival: Float64, fleet_variance: float, network_variance: float) -> Float64:
    """The c with L(c) = survival: cubic Hermite interpolation of log c over log(−log L), which rises."""
    log_hazard, slope = _laplace_table(fleet_variance, network_variance)
    with np.errstate(divide="ignore"):
        wanted = np.log(-np.log(survival))
    out = _hermite(wanted, log_hazard, _LOG_C, slope)
    return np.asarray(np.where(survival >= 1.0, 0.0, np.where(survival <= 0.0, np.inf, np.exp(out))), dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _hermite(wanted: Any, x: Any, y: Any, slope: Any) -> Any:
    """y(x) at `wanted`; `slope` is dx/dy at the grid. Beyond the grid it goes on straight."""
    out = np.empty(len(wanted))
    for i in range(len(wanted)):
        w = wanted[i]
        j = min(max(np.searchsorted(x, w) - 1, 0), len(x) - 2)
        width, step = y[j + 1] - y[j], x[j + 1] - x[j]
        if not np.isfinite(w):
            out[i] = w
        elif w <= x[0]:
            out[i] = y[0] + (w - x[0]) / slope[0]
        elif step < 1e-12 or w >= x[-1]:
            out[i] = y[j + 1]
        else:
            t = (w - x[j]) / step
            a, b = step / slope[j], step / slope[j + 1]
            out[i] = y[j] + t * (a + t * (3.0 * width - 2.0 * a - b + t * (a + b - 2.0 * width)))
    return out
