"""Routing: which source answers a request.

    literal:     score = w1 / latency_ms + w2 bandwidth_availability + w3 health + w4 / distance_km
    normalised:  score = w1 l / (l + latency_ms) + w2 bandwidth_availability + w3 health + w4 d / (d + distance_km)

with weights (0.4, 0.3, 0.2, 0.1) by default and reference values l and d at which a term is one half. The term
functions use only arithmetic, so one formula serves tensors (here, CPU or GPU) and scalars (the replay compiles the
very same functions). A candidate that fails a hard rule has score minus infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numba.extending import register_jitable
from torch import Tensor

from placement.errors import RoutingError
from placement.problem import Bool, Float64, Ids, Int32, Int64

Coefficients = tuple[float, float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class RoutingSettings:
    """How sources are scored and chosen; one of these for each class of traffic."""

    mode: Literal["literal", "normalised"] = "normalised"
    """Whether latency and distance enter as inverses (literal) or on a scale from 0 to 1 (normalised)."""
    weights: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    """Weights of latency, bandwidth availability, health and distance."""
    latency_ref_ms: float = 50.0
    """Latency whose normalised term is one half, in milliseconds."""
    distance_ref_km: float = 500.0
    """Distance whose normalised term is one half, in kilometres."""
    latency_floor_ms: float = 1.0
    """Latencies below this count as this, so that the literal inverse stays finite, in milliseconds."""
    distance_floor_km: float = 1.0
    """Distances below this count as this, in kilometres."""
    tie_tolerance: float = 0.01
    """Candidates within this of the best score are near-ties, chosen at random by free bandwidth."""
    explore_share: float = 0.01
    """Share of requests that go to a random allowed candidate, so that unproven sources show what they can do."""

    def __post_init__(self) -> None:
        problems = []
        if self.mode not in ("literal", "normalised"):
            problems.append(f"Expected mode 'literal' or 'normalised', got {self.mode!r}.")
        if len(self.weights) != 4 or not all(0 <= weight < float("inf") for weight in self.weights):
            problems.append(f"Expected weights to be four numbers >= 0, got {self.weights!r}.")
        for name in ("latency_ref_ms", "distance_ref_km", "latency_floor_ms", "distance_floor_km"):
            if not 0 < getattr(self, name) < float("inf"):
                problems.append(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        if not 0 <= self.tie_tolerance < float("inf"):
            problems.append(f"Expected tie_tolerance >= 0, got {self.tie_tolerance!r}.")
        if not 0 <= self.explore_share <= 1:
            problems.append(f"Expected explore_share in [0, 1], got {self.explore_share!r}.")
        if problems:
            raise RoutingError("The routing settings cannot be used:", problems)

    def coefficients(self) -> Coefficients:
        """Weights, then numerator, offset and floor of latency, then those of distance: see `score_terms`."""
        weights = (self.weights[0], self.weights[1], self.weights[2], self.weights[3])
        latency, distance = self.latency_ref_ms, self.distance_ref_km
        if self.mode == "literal":
            return (*weights, 1.0, 0.0, self.latency_floor_ms, 1.0, 0.0, self.distance_floor_km)
        return (*weights, latency, latency, self.latency_floor_ms, distance, distance, self.distance_floor_km)


@register_jitable
def latency_term(latency_ms: Any, coefficients: Coefficients) -> Any:
    """`w / latency` (literal) or `w l / (l + latency)` (normalised), with the latency floored."""
    w, numerator, offset, floor = coefficients[0], coefficients[4], coefficients[5], coefficients[6]
    return w * numerator / (offset + at_least(latency_ms, floor))


@register_jitable
def bandwidth_term(bandwidth_availability: Any, coefficients: Coefficients) -> Any:
    return coefficients[1] * bandwidth_availability


@register_jitable
def health_term(health: Any, coefficients: Coefficients) -> Any:
    return coefficients[2] * health


@register_jitable
def distance_term(distance_km: Any, coefficients: Coefficients) -> Any:
    """`w / distance` (literal) or `w d / (d + distance)` (normalised), with the distance floored."""
    w, numerator, offset, floor = coefficients[3], coefficients[7], coefficients[8], coefficients[9]
    return w * numerator / (offset + at_least(distance_km, floor))


@register_jitable
def at_least(quantity: Any, floor: float) -> Any:
    """`max(quantity, floor)` by arithmetic alone, so that tensors and scalars take the same path."""
    return (quantity + floor + abs(quantity - floor)) * 0.5


@register_jitable
def score_terms(
    latency_ms: Any, bandwidth_availability: Any, health: Any, distance_km: Any, coefficients: Coefficients
) -> tuple[Any, Any, Any, Any]:
    """The four terms whose sum is the score; of tensors here, of scalars inside compiled code."""
    return (
        latency_term(latency_ms, coefficients),
        bandwidth_term(bandwidth_availability, coefficients),
        health_term(health, coefficients),
        distance_term(distance_km, coefficients),
    )


@register_jitable
def total_score(
    latency_ms: Any, bandwidth_availability: Any, health: Any, distance_km: Any, coefficients: Coefficients
) -> Any:
    """The score: the sum of the four terms, added in their order."""
    terms = score_terms(latency_ms, bandwidth_availability, health, distance_km, coefficients)
    return terms[0] + terms[1] + terms[2] + terms[3]


@dataclass(frozen=True)
class CandidateBatch:
    """Candidates of R requests, ragged: those of request r are rows offsets[r] to offsets[r + 1].

    Attributes:
        offsets: (R + 1,)
        source: source codes. (M,)
        latency_ms: (M,)
        bandwidth_availability: free share of the allowed uplink, in [0, 1]. (M,)
        health: from CPU, memory and recent failures, in [0, 1]. (M,)
        distance_km: (M,)
        allowed: whether every hard rule is passed. (M,)
        rejection: why a candidate is not allowed, for `explain`; a sentence or "" for each. (M,)
    """

    offsets: Int64
    source: Int32
    latency_ms: Float64
    bandwidth_availability: Float64
    health: Float64
    distance_km: Float64
    allowed: Bool
    rejection: Ids | None = None

    def __post_init__(self) -> None:
        problems = _batch_problems(self)
        if problems:
            raise RoutingError("The candidates cannot be scored:", problems)

    @property
    def n_requests(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def request(self) -> Int64:
        """Request of each candidate, (M,)."""
        return np.repeat(np.arange(self.n_requests), np.diff(self.offsets))


def score(batch: CandidateBatch, settings: RoutingSettings, *, device: str = "cpu") -> Tensor:
    """Score of each candidate in float64, minus infinity where it is not allowed, (M,)."""
    quantities = (batch.latency_ms, batch.bandwidth_availability, batch.health, batch.distance_km)
    tensors = [torch.as_tensor(quantity, dtype=torch.float64, device=device) for quantity in quantities]
    total: Tensor = total_score(tensors[0], tensors[1], tensors[2], tensors[3], settings.coefficients())
    allowed = torch.as_tensor(batch.allowed, device=device)
    return torch.where(allowed, total, -torch.inf)


def top_k(batch: CandidateBatch, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best allowed candidates of each request, best first; equal scores keep the order of the batch.

    Returns:
        Source codes, -1 where a request has fewer than k allowed candidates, and their scores. Both (R, k).
    """
    if k < 1:
        raise RoutingError(f"Expected k >= 1, got {k!r}.")
    device, n = scores.device, len(scores)
    offsets = torch.as_tensor(batch.offsets, device=device)
    length = torch.diff(offsets)
    source = torch.as_tensor(batch.source, device=device)
    best_source = torch.full((batch.n_requests, k), -1, dtype=torch.int32, device=device)
    best_score = torch.full((batch.n_requests, k), -torch.inf, dtype=scores.dtype, device=device)
    # Rows of like length are ranked together, padded to the next power of two: at most half of a block is padding.
    width = 1
    while n and width < 2 * int(length.max()):
        rows = torch.nonzero((length > width // 2) & (length <= width)).ravel()
        if len(rows):
            best_source[rows], best_score[rows] = _top_of_rows(scores, source, (offsets[rows], length[rows]), width, k)
        width *= 2
    return best_source, best_score


def _top_of_rows(
    scores: Tensor, source: Tensor, rows: tuple[Tensor, Tensor], width: int, k: int
) -> tuple[Tensor, Tensor]:
    """The k best of each row, given where it starts and its length; all are at most `width` long. Both (rows, k)."""
    start, length = rows
    place = torch.arange(width, device=scores.device)
    at = torch.clamp(start[:, None] + place, max=len(scores) - 1)
    block = torch.where(place < length[:, None], scores[at], -torch.inf)
    kept = min(k, width)
    ranked, place = torch.sort(block, dim=1, descending=True, stable=True)
    ranked, chosen = ranked[:, :kept], at.gather(1, place[:, :kept])
    best = torch.full((len(start), k), -torch.inf, dtype=scores.dtype, device=scores.device)
    found = torch.full((len(start), k), -1, dtype=torch.int32, device=scores.device)
    best[:, :kept] = ranked
    found[:, :kept] = torch.where(torch.isfinite(ranked), source[chosen], -1)
    return found, best


def choose(batch: CandidateBatch, scores: Tensor, settings: RoutingSettings, *, seed: int) -> Int64:
    """One candidate for each request, or -1 where none is allowed, (R,).

    Among the near-ties of the best score the choice is random in proportion to free bandwidth, because always taking
    the maximum sends every request to the same source; a share of the requests goes to any allowed candidate.
    """
    values = scores.cpu().numpy()
    rng = np.random.default_rng(seed)
    request, allowed = batch.request, np.isfinite(values)
    best = _maximum_by_request(batch.offsets, values)
    near = allowed & (values >= best[request] - settings.tie_tolerance)
    weight = np.where(near, batch.bandwidth_availability, 0.0)
    idle = np.bincount(request, weights=weight, minlength=batch.n_requests) <= 0
    explores = rng.random(batch.n_requests) < settings.explore_share
    weight = np.where(idle[request], near, weight)
    weight = np.where(explores[request], allowed, weight)
    # The smallest of exponential times with rates w falls on candidate i with probability w_i / sum w.
    with np.errstate(divide="ignore"):
        arrival = rng.exponential(size=len(values)) / weight
    order = np.lexsort((arrival, request))
    first = np.minimum(batch.offsets[:-1], max(0, len(order) - 1))
    filled = (np.diff(batch.offsets) > 0) & np.isfinite(best)
    chosen = np.full(batch.n_requests, -1, dtype=np.int64)
    chosen[filled] = order[first[filled]]
    return chosen


@dataclass(frozen=True)
class Explanation:
    """One candidate of one request: its terms add up to its score; a rejected one has a reason and no score."""

    source: int
    latency: float
    bandwidth: float
    health: float
    distance: float
    score: float
    rejection: str


def explain(batch: CandidateBatch, request: int, settings: RoutingSettings) -> tuple[Explanation, ...]:
    """Every candidate of one request, best first and rejected ones last."""
    if not 0 <= request < batch.n_requests:
        raise RoutingError(f"There is no request {request!r}; this batch has 0 to {batch.n_requests - 1}.")
    rows = range(int(batch.offsets[request]), int(batch.offsets[request + 1]))
    found = [_explain_row(batch, row, settings) for row in rows]
    return tuple(sorted(found, key=lambda candidate: -candidate.score))


def _explain_row(batch: CandidateBatch, row: int, settings: RoutingSettings) -> Explanation:
    quantities = (batch.latency_ms, batch.bandwidth_availability, batch.health, batch.distance_km)
    values = [float(quantity[row]) for quantity in quantities]
    terms = score_terms(values[0], values[1], values[2], values[3], settings.coefficients())
    if batch.allowed[row]:
        total, rejection = terms[0] + terms[1] + terms[2] + terms[3], ""
    else:
        total, rejection = -np.inf, _rejection(batch, row)
    return Explanation(int(batch.source[row]), *terms, total, rejection)


def _rejection(batch: CandidateBatch, row: int) -> str:
    given = "" if batch.rejection is None else str(batch.rejection[row])
    return given or "A hard rule refused it."


def _maximum_by_request(offsets: Int64, values: Float64) -> Float64:
    """Largest value of each request, minus infinity where it has no candidates, (R,)."""
    best = np.full(len(offsets) - 1, -np.inf)
    filled = np.diff(offsets) > 0
    if filled.any():
        best[filled] = np.maximum.reduceat(values, offsets[:-1][filled])
    return best


def _batch_problems(batch: CandidateBatch) -> list[str]:
    n, problems = len(batch.source), []
    offsets = batch.offsets
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != n or bool(np.any(np.diff(offsets) < 0)):
        problems.append(f"Expected offsets to rise from 0 to {n}, the number of candidates.")
    columns = ("latency_ms", "bandwidth_availability", "health", "distance_km", "allowed", "rejection")
    for name in columns:
        value = getattr(batch, name)
        if value is not None and value.shape != (n,):
            problems.append(f"{name} has shape {value.shape}, expected ({n},).")
    if problems:
        return problems
    for name, high in (("latency_ms", np.inf), ("bandwidth_availability", 1), ("health", 1), ("distance_km", np.inf)):
        value = getattr(batch, name)
        wrong = np.flatnonzero(batch.allowed & ~((value >= 0) & (value <= high)))
        if len(wrong):
            shown = f"{name}[{wrong[0]}] is {float(value[wrong[0]])!r} ({len(wrong)} such)"
            problems.append(f"{shown}; expected 0 to {high} for an allowed candidate.")
    return problems
