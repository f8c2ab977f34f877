"""What share of a group truly stayed until each edge, and how sure that is.

An outcome says that its departure lies in a set A of bins: (low, high], or anywhere after `low`. The shares p of the
bins, the last one being "after the last edge", maximise Σᵢ log Σ_{k ∈ Aᵢ} p_k and are a fixed point of

    p_k = (1/n) Σᵢ 1[k ∈ Aᵢ] p_k / Σ_{j ∈ Aᵢ} p_j

(Turnbull 1976, "The empirical distribution function with arbitrarily grouped, censored and truncated data"). Where every
departure is known to its bin this is the estimate of Kaplan and Meier (1958), read at the edges. A row whose follow-up
ends inside a bin counts until the edge before, whether it left in that bin or not: counting only those that left would
make departures look more frequent.

Rows of one node resemble each other, so the interval comes from drawing whole nodes with replacement. Where everything
or nothing stayed, drawing again shows no spread: that end of the interval is the exact binomial one over nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from models.churn.outcomes import Outcomes
from models.compared import Compared
from models.events import Bool, Float64, Int64

REPLICATES = 200
LEVEL = 0.95
_MOST_STEPS = 3000
_SETTLED, _SETTLED_REPLICATES = 1e-10, 1e-6
_SPREAD = 1e-3
_NOTHING = 1e-7


@dataclass(frozen=True)
class NodeResamples:
    """How often each node is drawn: the first column is the sample itself, each further one a replicate. (nodes, 1 + R)"""

    weight: Float64

    @classmethod
    def draw(cls, nodes: int, *, replicates: int = REPLICATES, seed: int = 0) -> NodeResamples:
        rng = np.random.default_rng(seed)
        drawn = (np.bincount(rng.integers(0, nodes, nodes), minlength=nodes) for _ in range(replicates))
        return cls(np.column_stack([np.ones(nodes), *drawn]).astype(np.float64))

    def sums(self, node: Int64, column: Int64, *, columns: int, value: Float64 | None = None) -> Float64:
        """Weighted sum of `value` (1 where absent) by column in the sample and each replicate. (1 + R, columns)"""
        values = np.ones(len(node)) if value is None else value
        shape = (len(self.weight), columns)
        by_node = sparse.coo_matrix((values, (node, column)), shape=shape).tocsr()
        return np.asarray((by_node.T @ self.weight).T, dtype=np.float64)


def observed_stay(outcomes: Outcomes, forecast: Float64, resamples: NodeResamples) -> Compared:
    """Share that stayed until each edge, beside the mean of the forecasts.

    Args:
        outcomes: of the group; `node` indexes the resamples. (n)
        forecast: survival at the edges. (n, B)
        resamples: of the nodes.

    Returns:
        One point an edge; NaN beyond the last edge that any row was followed to.
    """
    edges = len(outcomes.edges_hours)
    if not len(outcomes):
        unknown = np.full(edges, np.nan)
        return Compared(unknown, unknown, unknown, unknown, np.zeros(edges))
    low, high = followed(outcomes)
    stay = _stay(low, high, outcomes.node, edges, resamples)
    reached = np.arange(1, edges + 1) <= max(low.max(), high.max())
    stay[:, ~reached & (stay[0] > _NOTHING)] = np.nan
    at_risk = np.array([(low >= b).sum() + ((high > 0) & (high <= b)).sum() for b in range(1, edges + 1)])
    return compared(forecast.mean(axis=0), stay, count=at_risk, nodes=len(np.unique(outcomes.node)))


def followed(outcomes: Outcomes) -> tuple[Int64, Int64]:
    """`low` and `high` of each row, with what happened after the last edge that it could be followed to left out."""
    last = np.searchsorted(outcomes.edges_hours, outcomes.followed_hours, side="right")
    return np.minimum(outcomes.low, last), np.where(outcomes.high > last, 0, outcomes.high)


def compared(forecast: Float64, shares: Float64, *, count: Float64 | Int64, nodes: int) -> Compared:
    """Shares of the sample (first row) with the interval that the replicates (further rows) give. shares (1 + R, n)"""
    observed = np.clip(shares[0], 0.0, 1.0)
    tail = (1.0 - LEVEL) / 2.0
    # A replicate may hold none of the rows behind a point; a point without any is unknown throughout.
    known = np.isfinite(observed)
    ends = np.full((2, len(observed)), np.nan)
    if known.any():
        ends[:, known] = np.nanquantile(np.vstack([shares[1:, known], observed[known]]), [tail, 1.0 - tail], axis=0)
    least = 1.0 - tail ** (1.0 / max(nodes, 1))
    low = np.where(observed > 1.0 - _NOTHING, 1.0 - least, ends[0])
    high = np.where(observed < _NOTHING, least, ends[1])
    low, high = np.minimum(np.clip(low, 0.0, 1.0), observed), np.maximum(np.clip(high, 0.0, 1.0), observed)
    return Compared(forecast, observed, low, high, np.asarray(count, dtype=np.float64))


def _stay(low: Int64, high: Int64, node: Int64, edges: int, resamples: NodeResamples) -> Float64:
    """Share that stayed until each edge, in the sample and each replicate. (1 + R, edges)"""
    cells, code = np.unique(low * (edges + 1) + high, return_inverse=True)
    weight = resamples.sums(node, code, columns=len(cells))
    shares = _self_consistent(weight, _bins_of(cells // (edges + 1), cells % (edges + 1), edges))
    return 1.0 - np.cumsum(shares[:, :-1], axis=1)


def _bins_of(low: Int64, high: Int64, edges: int) -> Bool:
    """Which bins each kind of outcome leaves possible; the last is after the last edge. (cells, edges + 1)"""
    at = np.arange(edges + 1)
    until = np.where(high > 0, high, edges + 1)
    return np.asarray((at >= low[:, None]) & (at < until[:, None]), dtype=np.bool_)


def _self_consistent(weight: Float64, possible: Bool) -> Float64:
    """Fixed point of the shares for each row of weights; NaN where a row has no weight. (rows, bins)

    The replicates set out from the shares of the sample, a little spread so that no bin is lost for good.
    """
    bins = possible.shape[1]
    first = _iterated(weight[:1], possible, np.full((1, bins), 1.0 / bins), settled=_SETTLED)
    start = np.repeat((1.0 - _SPREAD) * first + _SPREAD / bins, len(weight) - 1, axis=0)
    shares = np.vstack([first, _iterated(weight[1:], possible, start, settled=_SETTLED_REPLICATES)])
    shares[weight.sum(axis=1) == 0] = np.nan
    return shares


def _iterated(weight: Float64, possible: Bool, shares: Float64, *, settled: float) -> Float64:
    may = possible.astype(np.float64)
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    for _ in range(_MOST_STEPS if len(weight) else 0):
        chance = np.maximum(shares @ may.T, 1e-300)
        moved = shares * ((weight / chance) @ may) / total
        change = float(np.abs(moved - shares).max())
        shares = moved
        if change < settled:
            break
    return shares
