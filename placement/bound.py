"""A certified lower bound on the cost of any plan, from any non-negative prices.

Put prices lambda_n on storage, mu_n on uplink, pi on movement (each in m$ per byte), u_k on the requests of row k that
copies serve beyond what they can cover, and tau_s <= penalty on the tier-1 copy of a segment. With w_n = -ln(1 - p_n)
the share that copies cover is 1 - e^-W at credit W = sum_n w_n y_sn: it is concave, so at any t it lies below its tangent

    1 - e^-W <= phi(t) + e^-t W,   phi(t) = 1 - e^-t (1 + t)         (at t = infinity: nobody is served twice)

Drop the spread, tier and availability rules, which only cost. For every choice of prices and tangents,

    LB = sum_k r_k (base_k - phi(t_k) u_k) + sum_s tau_s
         - sum_sn max(0, sum_k r_k (p_n (gain_kn - bytes_s mu_n - u_k)^+ + u_k e^-t_k w_n) + tau_s [n is a POP]
                         - bytes_s (lambda_n + (push_n + pi) new_sn))
         - sum_n storage_n lambda_n - sum_n uplink_n mu_n - budget pi   <=   cost of any plan,

because the best response of each copy to its prices is at least as cheap as what a plan can do with it. Everything is
summed in double precision; the gains are rounded up to single precision, which lowers the bound by a ten-millionth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from placement.candidates import BLOCKS, Candidates, Graph, backing_asked_for
from placement.problem import Float64, PlacementProblem

FLAT = 40.0
"""Tangent at which serving twice alone is priced: e^-40 is nothing."""


@dataclass(frozen=True)
class Prices:
    """Non-negative prices, and where the coverage of each row is linearised.

    Attributes:
        storage: m$ per byte of room. (N,)
        uplink: m$ per byte sent. (N,)
        movement: m$ per byte pushed.
        once: m$ per request of a demand row served beyond what its copies cover. (D,)
        backing: m$ for the tier-1 copy of a segment. (S,)
        tangent: credit t at which the coverage of a row is touched; (1) alone when absent. (D,)
    """

    storage: Float64
    uplink: Float64
    movement: float
    once: Float64
    backing: Float64
    tangent: Float64 | None = None


@dataclass(frozen=True)
class Bound:
    """A proven lower bound in millidollars and the prices that prove it."""

    value: float
    prices: Prices


def certify(problem: PlacementProblem, prices: Prices, *, threads: int = 1) -> float:
    """The lower bound that these prices prove, never below zero: every cost is positive.

    Infinite limits cannot be priced, and a tier-1 copy is worth no more than the penalty for missing it: such prices
    are lowered to what proves something.
    """
    return max(0.0, certified(Candidates.of(problem), _lawful(problem, prices), threads=threads))


def certified(candidates: Candidates, prices: Prices, *, threads: int = 1) -> float:
    """The bound of the candidates' whole graph at lawful prices of the problem's rows."""
    once, tangent = prices.once[candidates.rows], np.full(len(candidates.rows), FLAT)
    if prices.tangent is not None:
        tangent = np.minimum(prices.tangent[candidates.rows], FLAT)
    source_prices = np.concatenate([prices.storage, prices.uplink, [prices.movement]])
    return certified_rows(candidates, source_prices, once, tangent, prices.backing, threads=threads)


def certified_rows(
    candidates: Candidates,
    source_prices: Float64,
    once: Float64,
    tangent: Float64,
    backing: Float64,
    *,
    threads: int = 1,
) -> float:
    """The bound at prices by source (2 N + 1,), by the graph's rows (R,) and by segment (S,)."""
    value = np.zeros(BLOCKS)

    def respond(block: int, first: int, end: int) -> None:
        value[block] = _response(candidates.graph, first, end, source_prices, once, tangent, backing)

    candidates.for_each_block(respond, threads)
    return candidates.constant - float(value.sum()) - float(candidates.limits @ source_prices)


def _lawful(problem: PlacementProblem, prices: Prices) -> Prices:
    settings, budget = problem.settings, problem.movement_limit_bytes
    return Prices(
        storage=np.where(problem.standing, 0.0, prices.storage),
        uplink=np.where(np.isfinite(problem.usable_uplink_bytes), prices.uplink, 0.0),
        movement=prices.movement if np.isfinite(budget) else 0.0,
        once=prices.once,
        backing=np.minimum(
            prices.backing, settings.origin_fallback_millidollars if backing_asked_for(problem) else 0.0
        ),
        tangent=prices.tangent,
    )


@numba.njit(cache=True, nogil=True)
def _response(
    graph: Graph, first: int, end: int, source_prices: Float64, once: Float64, tangent: Float64, backing: Float64
) -> float:
    """What the rows and the best response of every copy of the segments [first, end) are worth at these prices."""
    n_sources, total = len(graph.survival), 0.0
    # Bare arrays: reading a field costs more than the arithmetic of the innermost loop.
    arc_start, arc_row, arc_gain, requests = graph.arc_start, graph.arc_row, graph.arc_gain, graph.requests
    source, survival, credit = graph.source, graph.survival, graph.credit
    for s in range(first, end):
        size, rows = graph.size[s], graph.row_start[s]
        n_rows = graph.row_start[s + 1] - rows
        flat = np.empty(n_rows)
        for at in range(n_rows):
            k = rows + at
            flat[at] = requests[k] * once[k] * np.exp(-tangent[k])
            total += requests[k] * once[k] - flat[at] * (1.0 + tangent[k])
        total -= backing[s]
        for c in range(graph.copy_start[s], graph.copy_start[s + 1]):
            n = source[c]
            sending, p, w = size * source_prices[n_sources + n], survival[n], credit[n]
            worth = backing[s] if graph.is_backing[n] else 0.0
            if not graph.stands[c]:
                worth -= graph.push[c] + size * source_prices[n] + graph.moved[c] * source_prices[2 * n_sources]
            for a in range(arc_start[c], arc_start[c + 1]):
                k = arc_row[a]
                gain = arc_gain[a] - sending - once[k]
                worth += flat[k - rows] * w
                if gain > 0:
                    worth += requests[k] * p * gain
            if graph.stands[c] or worth > 0:
                total += worth
    return total
