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
summed in double precision over every candidate there is, found anew from `placement/reach.py`: a price search may have
looked at a few of them only, and what it proves holds all the same. Candidates worth more than their prices lower the
bound; the search learns from here which they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.problem import Float64, Int64, PlacementProblem
from placement.reach import BLOCKS, Reach, for_each_block
from placement.response import NOTHING, Known, NearBy, Offer, respond

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

    @classmethod
    def of_sources(cls, problem: PlacementProblem, storage: Float64, uplink: Float64, movement: float) -> Prices:
        """These prices of the sources, and none yet of rows and segments: `certify(raise_rows=True)` finds them."""
        return cls(storage, uplink, movement, np.zeros(len(problem.demand)), np.zeros(len(problem.segments)))


@dataclass(frozen=True)
class Bound:
    """A proven lower bound in millidollars and the prices that prove it."""

    value: float
    prices: Prices


def certify(problem: PlacementProblem, prices: Prices, *, raise_rows: bool = False, threads: int = 1) -> float:
    """The lower bound that these prices prove, never below zero: every cost is positive.

    With `raise_rows` the price of each demand row is first set to where it proves most, those of the sources as they are.

    Infinite limits cannot be priced, and a tier-1 copy is worth no more than the penalty for missing it: such prices
    are lowered to what proves something.
    """
    reach = Reach.of(problem)
    return max(0.0, prove(reach, lawful(problem, reach, prices), raise_rows=raise_rows, threads=threads).value)


def lawful(problem: PlacementProblem, reach: Reach, prices: Prices) -> Offer:
    """These prices as the kernels read them, lowered to what proves something."""
    tangent = np.full(len(reach.demand_row), FLAT)
    if prices.tangent is not None:
        tangent = np.minimum(prices.tangent[reach.demand_row], FLAT)
    return Offer(
        np.concatenate(
            [
                np.where(problem.standing, 0.0, prices.storage),
                np.where(np.isfinite(problem.usable_uplink_bytes), prices.uplink, 0.0),
                [prices.movement if np.isfinite(problem.movement_limit_bytes) else 0.0],
            ]
        ),
        prices.once[reach.demand_row],
        tangent,
        np.minimum(prices.backing, reach.rows.backing_limit),
    )


def prove(reach: Reach, offer: Offer, known: Known = NOTHING, *, raise_rows: bool = False, threads: int = 1) -> Proof:
    """What these prices prove, or what they do once the price of each row in turn is where it proves most.

    Args:
        reach: the instance.
        offer: the prices, which stay as they are.
        known: candidates that are looked at already.
        raise_rows: whether to set the prices of rows anew, with those of the sources as they are.
        threads: the proof is the same on any number of them.
    """
    value, found = np.zeros(BLOCKS), [np.zeros(0, np.int64)] * BLOCKS
    near_by, better = NearBy.of(reach.near, offer), offer._replace(once=offer.once.copy())

    def answer(block: int, first: int, end: int) -> None:
        value[block], found[block] = respond(reach.rows, reach.near, first, end, better, near_by, known, raise_rows)

    for_each_block(reach.blocks, answer, threads, arcs=reach.n_pairs)
    bound = reach.constant - float(value.sum()) - float(reach.limits @ offer.source)
    return Proof(bound, better, np.concatenate(found))


@dataclass(frozen=True)
class Proof:
    """A bound, what proves it, and what would make it better.

    Attributes:
        value: in m$.
        offer: the prices.
        underpriced: for each row the candidate that is worth most above its prices and not known yet, as keys
            segment * N + source. One for each row is enough to go on with: against it the price of the row rises, which
            all others pay, too.
    """

    value: float
    offer: Offer
    underpriced: Int64
