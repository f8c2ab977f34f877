"""Fits what departures share, from forecasts at many origins and what happened after them.

For each edge, over the rows whose outcome is known there, with z_o the fleet frailty of origin o and m = most_shared:

    networks   max_{θ_g, π, q, m} Σ_o Σ_g log E_{Z_g, outage} Π_i P(outcome_i | z_o, Z_g, outage) − penalty
    fleet      max_{θ_f} Σ_o log ∫ gamma(z; θ_f) exp ℓ_o(z) dz,        ℓ_o(z) the inner sum over networks at z

in turns: z_o begins as departures over those expected and is then the posterior mean. Networks with one node up say
nothing about θ_g (their survival is exact), so only the others enter it. The outage parameters are kept where they earn
more than their number. The penalty is weak and its mode is independence, which is what too little data gives.

Many departures are seen only as an interval that holds an edge. To leave them out would keep the stays alone, so they
are drawn (`states_at_edges`); where a hole in the observation hides too many of them, the origin is left out there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, gammaln, logit

from models.churn.frailty import MOST_VARIANCE, Conditional, Dependence, quadrature
from models.churn.joint import ALONE, JointSurvival
from models.churn.outcomes import Outcomes
from models.events import Bool, Float64, Int64

_ROUNDS = 2
_LEAST_DEPARTURES = 30
_OUTAGE_MUST_GAIN = 4.0
_MOST_OUTAGE = 0.5
_FLOOR = 1e-7
_GOLDEN = (5.0**0.5 - 1.0) / 2.0
_MOST_HIDDEN = 0.25
"""Most rows of unknown end, as a share of the departures of their origin."""
_GRID = np.exp(np.linspace(np.log(0.01), np.log(50.0), 90))
"""Fleet frailties at which the likelihood of an origin is known."""


@dataclass(frozen=True)
class _Rows:
    """Rows of one edge in the order of origin and network; those of group g are `first[g]:first[g + 1]`.

    `origin` is the origin of each group, `of_row` that of each row.
    """

    survival: Float64
    alive: Bool
    first: Int64
    origin: Int64
    of_row: Int64

    def shared(self) -> _Rows:
        """Only groups of several nodes."""
        size = np.diff(self.first)
        several = size > 1
        kept = np.repeat(several, size)
        first = np.concatenate([[0], np.cumsum(size[several])]).astype(np.int64)
        return _Rows(self.survival[kept], self.alive[kept], first, self.origin[several], self.of_row[kept])


def fit_joint(
    outcomes: Outcomes, survival: Float64, network: Int64, *, maximum_rows: int = 60_000, seed: int = 0
) -> JointSurvival:
    """Fits each edge by itself.

    Args:
        outcomes: of the nodes that were up at the origins.
        survival: forecast of each row, calibrated: what it gets wrong for a whole network looks shared. (n, B)
        network: code of each row's network, -1 where unknown. (n,)
        maximum_rows: of more rows, a random part of the networks at each origin is kept.
        seed: of that choice.

    Returns:
        Parameters at each edge; independence where fewer than 30 departures are known.

    Raises:
        ValueError: shapes disagree.
    """
    if survival.shape != (len(outcomes), len(outcomes.edges_hours)) or network.shape != (len(outcomes),):
        raise ValueError(
            f"Expected survival of shape {(len(outcomes), len(outcomes.edges_hours))} and a network a row, "
            f"got {survival.shape} and {network.shape}."
        )
    kept = _thinned(outcomes.at_us, network, maximum_rows, seed)
    outcomes, survival, network = outcomes.take(kept), survival[kept], network[kept]
    alive, known = states_at_edges(outcomes, survival)
    found = []
    for b in range(len(outcomes.edges_hours)):
        rows = _rows(survival[:, b], alive[:, b], outcomes.at_us, network, known[:, b])
        found.append(_fit_edge(rows))
    return JointSurvival(tuple(float(e) for e in outcomes.edges_hours), tuple(found))


def states_at_edges(outcomes: Outcomes, survival: Float64) -> tuple[Bool, Bool]:
    """Whether each row stayed until each edge, and where that can be used, both (n, B).

    A departure between edges l and h stays until an edge between them with probability
    (S(edge) − S(h)) / (S(l) − S(h)). One number decides for all rows of an origin, because departures of one network
    share their interval; over origins these numbers are even in (0, 1). Rows whose departure may lie anywhere behind
    an edge are left out, and with them their origin at that edge where they are many against the departures seen.
    """
    _, origin = np.unique(outcomes.at_us, return_inverse=True)
    padded = np.column_stack([np.ones(len(survival)), survival])
    row = np.arange(len(survival))
    stayed, left = padded[row, outcomes.low], padded[row, outcomes.high]
    even = np.mod((1.0 + origin) * _GOLDEN, 1.0)
    threshold = left + even * (stayed - left)
    edge = np.arange(1, len(outcomes.edges_hours) + 1)
    gone = (outcomes.high[:, None] > 0) & (outcomes.high[:, None] <= edge)
    between = (outcomes.low[:, None] < edge) & (edge < outcomes.high[:, None])
    alive = (outcomes.low[:, None] >= edge) | (between & (survival > threshold[:, None]))
    followed = outcomes.followed_hours[:, None] >= outcomes.edges_hours
    open_end = followed & (outcomes.low[:, None] < edge) & ~gone & ~between
    usable = followed & ~open_end
    for b in range(len(edge)):
        hidden = np.bincount(origin, weights=open_end[:, b])
        departed = np.bincount(origin, weights=usable[:, b] & ~alive[:, b])
        usable[:, b] &= (hidden <= _MOST_HIDDEN * (departed + 1.0))[origin]
    return np.asarray(alive, dtype=np.bool_), np.asarray(usable, dtype=np.bool_)


def _thinned(at_us: Int64, network: Int64, maximum: int, seed: int) -> Bool:
    """Rows of a random part of the networks at each origin; every origin stays, and a network whole or not at all."""
    rng = np.random.default_rng(seed)
    _, origin = np.unique(at_us, return_inverse=True)
    group = origin * (int(network.max(initial=0)) + 2) + np.maximum(network, ALONE) + 1
    _, code = np.unique(group, return_inverse=True)
    by_group, by_row = rng.random(int(code.max(initial=-1)) + 1), rng.random(len(at_us))
    drawn = np.where(network <= ALONE, by_row, by_group[code])
    return np.asarray(drawn * len(at_us) < maximum, dtype=np.bool_)


def _rows(survival: Float64, alive: Bool, at_us: Int64, network: Int64, known: Bool) -> _Rows:
    chosen = np.flatnonzero(known)
    alone = network[chosen] <= ALONE
    group = np.where(alone, network.max(initial=0) + 1 + np.arange(len(chosen)), network[chosen])
    order = np.lexsort((group, at_us[chosen]))
    chosen, group = chosen[order], group[order]
    _, origin = np.unique(at_us[chosen], return_inverse=True)
    begins = np.ones(len(chosen), dtype=np.bool_)
    begins[1:] = (origin[1:] != origin[:-1]) | (group[1:] != group[:-1])
    first = np.append(np.flatnonzero(begins), len(chosen)).astype(np.int64)
    clipped = np.clip(survival[chosen], _FLOOR, 1.0 - _FLOOR)
    return _Rows(clipped, alive[chosen], first, origin[begins].astype(np.int64), origin.astype(np.int64))


def _fit_edge(rows: _Rows) -> Dependence:
    if int(np.sum(~rows.alive)) < _LEAST_DEPARTURES:
        return Dependence()
    several = rows.shared()
    frailty = _departure_ratio(rows)
    found = Dependence()
    for _ in range(_ROUNDS):
        found = _fit_networks(several, frailty, found)
        found, frailty = _fit_fleet(rows, found)
    return found


def _departure_ratio(rows: _Rows) -> Float64:
    """Departures over those expected at each origin, shrunk towards 1 by five departures."""
    gone = np.bincount(rows.of_row, weights=~rows.alive)
    due = np.bincount(rows.of_row, weights=1.0 - rows.survival)
    return np.asarray((gone + 5.0) / (due + 5.0), dtype=np.float64)


def _fit_networks(rows: _Rows, frailty: Float64, start: Dependence) -> Dependence:
    fleet = start.fleet_variance
    if not len(rows.alive):
        return Dependence(fleet_variance=fleet)

    def loss(dependence: Dependence) -> float:
        given = Conditional.of(rows.survival, dependence)
        likelihood = _network_likelihood(
            given.cumulative,
            given.own,
            given.taken,
            rows.alive,
            rows.first,
            frailty[rows.origin],
            dependence.outage_probability,
            *quadrature(dependence.network_variance),
        )
        return _penalty(dependence) - float(likelihood)

    def with_outages(x: Float64) -> Dependence:
        variance, probability = np.exp(np.minimum(x[:2], np.log([MOST_VARIANCE, _MOST_OUTAGE])))
        return Dependence(fleet, float(variance), float(probability), float(expit(x[2])), float(expit(x[3])))

    def gamma_alone(x: Float64) -> Dependence:
        return Dependence(fleet, float(np.exp(min(x[0], np.log(MOST_VARIANCE)))), most_shared=float(expit(x[1])))

    if start.outage_probability > 0.0:
        return with_outages(_minimised(lambda x: loss(with_outages(x)), _begin(start)).x)
    shared = logit(np.clip(start.most_shared, 0.01, 0.5))
    plain = _minimised(lambda x: loss(gamma_alone(x)), np.array([np.log(start.network_variance or 1.0), shared]))
    likely = replace(gamma_alone(plain.x), outage_probability=1e-3, outage_share=0.7)
    both = _minimised(lambda x: loss(with_outages(x)), _begin(likely))
    return with_outages(both.x) if both.fun < plain.fun - _OUTAGE_MUST_GAIN else gamma_alone(plain.x)


def _begin(start: Dependence) -> Float64:
    shares = logit(np.clip([start.outage_share, start.most_shared], 0.01, 0.99))
    return np.concatenate([np.log([max(start.network_variance, 1e-2), start.outage_probability]), shares])


def _minimised(loss: Callable[[Float64], float], begin: Float64) -> Any:
    simplex = np.vstack([begin, begin + np.diag(np.full(len(begin), 0.7))])
    limits: Any = {"xatol": 0.03, "fatol": 0.3, "maxfev": 25 * len(begin), "initial_simplex": simplex}
    return minimize(loss, begin, method="Nelder-Mead", options=limits)


def _penalty(dependence: Dependence) -> float:
    """−log of priors: variance exponential with mean 2, π exponential with mean 0.02, q (1 − q), m (1 − m)."""
    shares = [dependence.most_shared] + ([dependence.outage_share] if dependence.outage_probability > 0.0 else [])
    share = -float(sum(np.log(max(q * (1.0 - q), 1e-12)) for q in shares))
    return dependence.network_variance / 2.0 + dependence.outage_probability / 0.02 + share


def _fit_fleet(rows: _Rows, start: Dependence) -> tuple[Dependence, Float64]:
    """The fleet's variance, and the posterior mean of each origin's frailty."""
    given = Conditional.of(rows.survival, start)
    profile = np.zeros((int(rows.origin[-1]) + 1, len(_GRID)))
    _fleet_profile(
        given.cumulative,
        given.own,
        given.taken,
        rows.alive,
        rows.first,
        rows.origin,
        start.outage_probability,
        *quadrature(start.network_variance),
        _GRID,
        profile,
    )
    top = profile.max(axis=1, keepdims=True)
    likelihood = np.exp(profile - top)

    def loss(x: float) -> float:
        return float(np.exp(x)) / 2.0 - float(np.sum(np.log(np.maximum(likelihood @ _grid_mass(np.exp(x)), 1e-300))))

    best = minimize_scalar(loss, bounds=(-8.0, np.log(MOST_VARIANCE)), method="bounded", options={"xatol": 0.01})
    variance = float(np.exp(best.x))
    posterior = likelihood * _grid_mass(variance)
    mean = (posterior @ _GRID) / np.maximum(posterior.sum(axis=1), 1e-300)
    return replace(start, fleet_variance=variance), np.asarray(np.maximum(mean, 1e-3), dtype=np.float64)


def _grid_mass(variance: float) -> Float64:
    """Mass of a gamma variable of mean 1 on the grid (log-spaced, so the density is multiplied by z)."""
    shape = 1.0 / variance
    log_mass = shape * np.log(shape * _GRID) - shape * _GRID - gammaln(shape)
    mass = np.exp(log_mass)
    return np.asarray(mass / max(float(mass.sum()), 1e-300), dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _network_likelihood(  # type: ignore[no-untyped-def]
    cumulative, own, taken, alive, first, frailty, outage, shared, shared_weight
):
    total = 0.0
    for g in range(len(first) - 1):
        total += _group_log_likelihood(
            cumulative, own, taken, alive, first[g], first[g + 1], frailty[g], outage, shared, shared_weight
        )
    return total


@numba.njit(cache=True, nogil=True)
def _fleet_profile(  # type: ignore[no-untyped-def]
    cumulative, own, taken, alive, first, origin, outage, shared, shared_weight, grid, profile
):
    for g in range(len(first) - 1):
        for z in range(len(grid)):
            profile[origin[g], z] += _group_log_likelihood(
                cumulative, own, taken, alive, first[g], first[g + 1], grid[z], outage, shared, shared_weight
            )


@numba.njit(cache=True, nogil=True)
def _group_log_likelihood(  # type: ignore[no-untyped-def]
    cumulative, own, taken, alive, first, last, frailty, outage, shared, shared_weight
) -> Any:
    """Logarithm of E Π_i P(outcome_i): those alive cost one exponential together, those gone one each."""
    stayed, alone, spared, gone = 0.0, 0.0, 1.0, 0
    for i in range(first, last):
        if alive[i]:
            stayed += cumulative[i]
            alone += own[i]
            spared *= 1.0 - taken[i]
        else:
            gone += 1
    likelihood = 0.0
    for k in range(len(shared)):
        z = frailty * shared[k]
        calm = np.exp(-stayed * z - alone)
        hit = calm * spared * outage
        calm *= 1.0 - outage
        if gone:
            for i in range(first, last):
                if not alive[i]:
                    stays = np.exp(-cumulative[i] * z - own[i])
                    calm *= 1.0 - stays
                    hit *= 1.0 - stays * (1.0 - taken[i])
        likelihood += shared_weight[k] * (calm + hit)
    return np.log(max(likelihood, 1e-300))
