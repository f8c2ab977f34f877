"""What became of the nodes that looked up at an instant, in bins of the horizon.

With edges 0 = e₀ < e₁ < … < e_B, an outcome is a pair of edge numbers: the node certainly stayed until edge `low`, and
was certainly gone by edge `high` (0 where no departure is known). This one form holds a departure inside a bin
(high = low + 1), one between two sightings (high > low + 1) and right censoring (high = 0). Its likelihood is
S(e_low) − S(e_high), or S(e_low) where censored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.churn.history import OPEN_US, SessionHistory
from models.events import HOUR_US, Bool, Float64, Int64

_EXACT_US = 1_000_000
_TURNBULL_ROUNDS = 20


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the nodes that looked up at `at_us`.

    Attributes:
        at_us: origin, the same for all rows or one a row.
        node: index of the node in the history. (n,)
        low: edges certainly survived, 0 to B. (n,)
        high: edge by which the node was certainly gone, low < high <= B; 0 where censored. (n,)
        followed_hours: how long the node could have been observed after the origin. (n,)
        edges_hours: upper edges of the bins. (B,)
    """

    at_us: Int64
    node: Int64
    low: Int64
    high: Int64
    followed_hours: Float64
    edges_hours: Float64

    def __len__(self) -> int:
        return len(self.node)

    def alive(self) -> Float64:
        """P(stayed until the edge | what was seen), shape (n, B): 0 or 1, except where a departure straddles the edge.

        Such a departure, between edges l and h, counts as (S̄(e) − S̄(h)) / (S̄(l) − S̄(h)) with the survival S̄ of all
        these rows. Leaving it out instead would hide departures and not those who stayed.
        """
        edge = np.arange(1, len(self.edges_hours) + 1)
        alive = (self.low[:, None] >= edge).astype(np.float64)
        row, b = np.nonzero(self._straddled())
        if len(row):
            stayed = marginal_survival(self)
            low, high = stayed[self.low[row]], stayed[self.high[row]]
            alive[row, b] = (stayed[b + 1] - high) / np.maximum(low - high, 1e-300)
        return alive

    def known(self) -> Bool:
        """Where the node could be followed until the edge and was not lost from sight before it, shape (n, B).

        A row that was followed for less than an edge is left out there even if it departed before: keeping only the
        departures of the short-followed would bias the frequency upwards.
        """
        edge = np.arange(1, len(self.edges_hours) + 1)
        settled = (self.low[:, None] >= edge) | (self.high[:, None] > 0)
        return np.asarray(settled & (self.followed_hours[:, None] >= self.edges_hours), dtype=np.bool_)

    def _straddled(self) -> Bool:
        edge = np.arange(1, len(self.edges_hours) + 1)
        return np.asarray((self.low[:, None] < edge) & (edge < self.high[:, None]), dtype=np.bool_)

    def take(self, rows: Int64 | Bool) -> Outcomes:
        return Outcomes(
            self.at_us[rows],
            self.node[rows],
            self.low[rows],
            self.high[rows],
            self.followed_hours[rows],
            self.edges_hours,
        )


def outcomes_at(
    history: SessionHistory, *, at_us: int, edges_hours: tuple[float, ...] | Float64, until_us: int | None = None
) -> Outcomes:
    """Outcomes of every node that looked up at `at_us`, as known at `until_us` (or to the whole history).

    A node between its last sighting and its first absence still looked up at that instant; it is a row. In a hole of
    the observation there are no rows.
    """
    known = history if until_us is None else history.before(until_us)
    edges = np.asarray(edges_hours, dtype=np.float64)
    node = np.flatnonzero(history.before(at_us).up_at(at_us) & (not history.in_hole(at_us)))
    row = known.last_session(at_us - 1)[node]
    seen = np.maximum(known.end_us[row] - at_us, 0) / HOUR_US
    gone = np.where(known.censored[row], np.inf, (known.end_upper_us[row] - at_us) / HOUR_US)
    low = np.searchsorted(edges, seen, side="right")
    # A departure at exactly an edge belongs to the bin that ends there.
    exact = known.end_upper_us[row] - known.end_us[row] < _EXACT_US
    low = np.where(exact & ~known.censored[row], np.searchsorted(edges, seen, side="left"), low)
    high = np.searchsorted(edges, gone, side="left") + 1
    high = np.where(high > len(edges), 0, np.maximum(high, low + 1))
    high = np.where(high > len(edges), 0, high)
    end = np.minimum(known.watched_until_us(at_us)[node], OPEN_US if until_us is None else until_us)
    followed = (end - at_us) / HOUR_US
    return Outcomes(np.full(len(node), at_us), node, low, high, followed, edges)


def returns_at(
    history: SessionHistory, *, at_us: int, edges_hours: tuple[float, ...] | Float64, until_us: int | None = None
) -> Outcomes:
    """Outcomes of every node that was down for certain at `at_us`; the event is its next session.

    `low` counts the edges that it was away for, `high` the edge by which it was back.
    """
    known = history if until_us is None else history.before(until_us)
    view = history.before(at_us)
    edges = np.asarray(edges_hours, dtype=np.float64)
    node = np.flatnonzero(view.known_at(at_us) & ~view.up_at(at_us) & (not history.in_hole(at_us)))
    following = known.last_session(at_us)[node] + 1
    following = np.where(following == 0, known.offsets[:-1][node], following)
    some = following < known.offsets[1:][node]
    starts = np.append(known.start_us, OPEN_US)
    back = np.where(some, (starts[np.where(some, following, -1)] - at_us) / HOUR_US, np.inf)
    end = np.minimum(known.watched_until_us(at_us)[node], OPEN_US if until_us is None else until_us)
    followed = (end - at_us) / HOUR_US
    away = np.minimum(back, followed)
    # A return at exactly an edge belongs to the bin that ends there; one that is not seen ends the time away unseen.
    low = np.where(some, np.searchsorted(edges, away, side="left"), np.searchsorted(edges, away, side="right"))
    high = np.where(some & (low < len(edges)), low + 1, 0)
    return Outcomes(np.full(len(node), at_us), node, low, high, followed, edges)


def marginal_survival(outcomes: Outcomes) -> Float64:
    """Survival of all rows at 0 and each edge, (B + 1,): Turnbull's self-consistent estimate from hazards by bin.

    Source: Turnbull 1976, The empirical distribution function with arbitrarily grouped, censored and truncated data.
    """
    bins = len(outcomes.edges_hours)
    pairs, count = np.unique(np.column_stack([outcomes.low, outcomes.high]), axis=0, return_counts=True)
    hazard = np.full(bins, 0.1)
    for _ in range(_TURNBULL_ROUNDS):
        gone, at_risk = np.zeros(bins), np.zeros(bins)
        for (low, high), number in zip(pairs.tolist(), count.tolist(), strict=True):
            at_risk[:low] += number
            if high > 0:
                share = hazard[low:high] * np.concatenate([[1.0], np.cumprod(1.0 - hazard[low : high - 1])])
                share = share / share.sum()
                gone[low:high] += number * share
                at_risk[low:high] += number * (1.0 - np.concatenate([[0.0], np.cumsum(share)[:-1]]))
        hazard = np.clip(gone / np.maximum(at_risk, 1.0), 1e-9, 1.0 - 1e-9)
    return np.concatenate([[1.0], np.cumprod(1.0 - hazard)])


def concatenate(parts: list[Outcomes]) -> Outcomes:
    """Rows of several origins below each other; all parts have the same edges."""
    return Outcomes(
        np.concatenate([p.at_us for p in parts]),
        np.concatenate([p.node for p in parts]),
        np.concatenate([p.low for p in parts]),
        np.concatenate([p.high for p in parts]),
        np.concatenate([p.followed_hours for p in parts]),
        parts[0].edges_hours,
    )


def log_likelihood(survival: Float64, low: Int64, high: Int64) -> Float64:
    """Logarithm of P(outcome) of each row under survival at the edges, floored at log 1e-7.

    Args:
        survival: P(up until the edge). (n, B)
        low: see `Outcomes`. (n,)
        high: see `Outcomes`. (n,)
    """
    padded = np.column_stack([np.ones(len(survival)), survival])
    row = np.arange(len(survival))
    stayed = padded[row, low]
    gone = np.where(high > 0, padded[row, high], 0.0)
    return np.asarray(np.log(np.maximum(stayed - gone, 1e-7)), dtype=np.float64)
