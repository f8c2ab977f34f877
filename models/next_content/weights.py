"""Mixture weights: which expert to trust, given how much is known about a session.

`p(i | session) = sum over k of w_k(session) p_k(i | session)`, weights non-negative and summing to one, so that the
mixture is a distribution over all known contents plus one outcome "a content never requested before".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.errors import ArtefactError
from models.events import Float64, Int64
from models.next_content.experts import Experts

Weights = TypeVar("Weights", npt.NDArray[np.float32], npt.NDArray[np.float64])


@dataclass(frozen=True)
class Evidence:
    """What is known about each session.

    Attributes:
        departures: effective number of departures, decayed to now, from the current content (fast half-life) and from
            the pair of the last two contents. (n, 2)
        distinct: how many different successors are remembered for each. (n, 2)
        known: known part of each expert. (n, experts)
    """

    departures: Float64
    distinct: Int64
    known: Float64


class Weighting(Protocol):
    """Weights for sessions with given evidence."""

    def weights(self, evidence: Evidence) -> Float64:
        """Rows that sum to one. (n, experts)"""
        ...

    def state(self) -> dict[str, Any]:
        """Everything needed to build it again, JSON types only."""
        ...


def backed_off(weights: Weights, known: Weights, backs_off_to: Sequence[int]) -> Weights:
    """Passes the weight on what an expert does not know to the expert that it backs off to. (n, experts)"""
    passed = weights.copy()
    for k in reversed(range(1, len(backs_off_to))):
        passed[:, backs_off_to[k]] += passed[:, k] * (1 - known[:, k])
    return passed


def completed(probability: Float64, known: Float64, experts: Experts) -> Float64:
    """Each expert's probability after back-off, `q_k = p_k + (1 - mass_k) q_backoff(k)`. (n, experts)"""
    whole = probability.copy()
    for k in range(1, len(experts.names)):
        whole[:, k] += (1.0 - known[:, k]) * whole[:, experts.backs_off_to[k]]
    return whole


def fitted_weights(
    completed_probability: Float64,
    *,
    prior: Float64 | None = None,
    prior_events: float = 0.0,
    iterations: int = 200,
    tolerance_nats: float = 1e-6,
) -> Float64:
    """Weights of greatest (penalised) likelihood by expectation maximisation; the problem is convex. (experts,)

    Args:
        completed_probability: what each expert gave to what came. (n, experts)
        prior: weights to shrink to, as if `prior_events` events had been seen with them.
        prior_events: strength of the prior, in events.
        iterations: most rounds.
        tolerance_nats: stops when a round gains less than this in mean log-likelihood.
    """
    n, n_experts = completed_probability.shape
    start = np.full(n_experts, 1.0 / n_experts) if prior is None else prior
    weights, before = start.copy(), -np.inf
    if n + prior_events == 0:
        return weights
    for _ in range(iterations):
        mixed = completed_probability @ weights
        share = completed_probability.T @ np.divide(1.0, mixed, out=np.zeros(n), where=mixed > 0)
        weights = (weights * share + prior_events * start) / (n + prior_events)
        weights /= weights.sum()
        likelihood = float(np.log(np.maximum(mixed, 1e-300)).sum()) / max(n, 1)
        if likelihood - before < tolerance_nats:
            break
        before = likelihood
    return weights


@dataclass(frozen=True)
class StaticWeights:
    """One row of weights for each class of sessions; classes are cells of departures from x1 and from (x2, x1).

    Attributes:
        table: weights by class. (classes, experts)
        edges: effective departures at which the next class begins; none makes a single class.
    """

    table: Float64
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        classes = (len(self.edges) + 1) ** 2
        if self.table.shape[0] != classes or not np.allclose(self.table.sum(axis=1), 1.0) or self.table.min() < 0:
            raise ValueError(f"Expected {classes} rows of weights that sum to one, got {self.table!r}.")

    def weights(self, evidence: Evidence) -> Float64:
        return np.asarray(self.table[evidence_class(evidence, self.edges)])

    def state(self) -> dict[str, Any]:
        return {"kind": "static", "table": self.table.tolist(), "edges": list(self.edges)}


def evidence_class(evidence: Evidence, edges: tuple[float, ...]) -> Int64:
    """Class of each session, counted by departures from x1, then from (x2, x1). (n,)"""
    level = np.searchsorted(np.asarray(edges), evidence.departures, side="right")
    return np.asarray(level[:, 0] * (len(edges) + 1) + level[:, 1], dtype=np.int64)


@dataclass(frozen=True)
class WittenBell:
    """Back-off by counting: with n departures to T distinct contents, a new one has probability `c T / (c T + n)`.

    Order 2 escapes to order 1, order 1 to local popularity, and that with a fixed share to `bottom`.

    Attributes:
        escape: the factor c.
        local_share: share of local popularity in what order 1 escapes to.
        bottom: weights of unseen, uniform and popularity. (experts,)
        order2, order1, local: columns of the three levels.
    """

    escape: float
    local_share: float
    bottom: Float64
    order2: int
    order1: int
    local: int

    def weights(self, evidence: Evidence) -> Float64:
        n, t = evidence.departures, self.escape * evidence.distinct
        trust = np.divide(n, n + t, out=np.zeros_like(n), where=n + t > 0)
        below2 = 1.0 - trust[:, 1]
        below1 = below2 * (1.0 - trust[:, 0])
        weights = below1[:, None] * (1.0 - self.local_share) * self.bottom
        weights[:, self.order2] += trust[:, 1]
        weights[:, self.order1] += below2 * trust[:, 0]
        weights[:, self.local] += below1 * self.local_share
        return np.asarray(weights)

    def state(self) -> dict[str, Any]:
        return {
            "kind": "witten_bell",
            "escape": self.escape,
            "local_share": self.local_share,
            "bottom": self.bottom.tolist(),
            "columns": [self.order2, self.order1, self.local],
        }


def weighting_from_state(state: dict[str, Any]) -> Weighting:
    """The weighting that `state` describes."""
    if state["kind"] == "static":
        return StaticWeights(np.array(state["table"]), tuple(state["edges"]))
    if state["kind"] == "witten_bell":
        return WittenBell(state["escape"], state["local_share"], np.array(state["bottom"]), *state["columns"])
    raise ArtefactError(f"Weights of kind {state['kind']!r} are not known; allowed are 'static' and 'witten_bell'.")
