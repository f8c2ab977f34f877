"""Plans judged in scenarios: many drawn demands and departures, the same copies, other shares in each.

    risk(copies) = 1/K sum_w cost_w + weight * CVaR_q(unserved_w),   CVaR_q(u) = min_t  t + sum_w (u_w - t)^+ / ((1 - q) K)

`unserved` are the bytes that no node sends, so that tier 1 or the origin must. CVaR is their mean over the worst 1 - q
of the scenarios (Rockafellar and Uryasev, 2000). In a scenario a node is up for the whole horizon or not at all, and a
network may go down with all its nodes; each node is up with its survival all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from placement.copies import Copies, add_while_fitting
from placement.errors import ProblemError
from placement.flows import best_flows, delivery_cost
from placement.problem import BYTES_PER_GB, Bool, Float64, PlacementProblem
from placement.requirements import missing_requirements

POISSON_DISPERSION = 1e-6
"""Below this dispersion requests are drawn from the Poisson law."""
EXACT_ARCS = 50_000
"""Arcs up to which the shares of a scenario are exact; in larger ones they are filled, for all plans alike."""


@dataclass(frozen=True)
class RiskSettings:
    """How many scenarios are drawn, and how much their worst counts."""

    scenarios: int = 20
    """Scenarios drawn."""
    tail: float = 0.9
    """The q of CVaR, in [0, 1): the mean over the worst 1 - q of the scenarios counts; 0 is the plain mean."""
    weight_millidollars_per_gb: float = 10.0
    """Price of a GB that no node serves, in that tail, in millidollars."""
    outage_share: float = 0.5
    """Share, in [0, 1], of the absence of a network's surest node that is an outage of the whole network."""

    def __post_init__(self) -> None:
        rules = (
            ("scenarios", ">= 1", self.scenarios >= 1),
            ("tail", "in [0, 1)", 0 <= self.tail < 1),
            ("weight_millidollars_per_gb", ">= 0 and finite", 0 <= self.weight_millidollars_per_gb < np.inf),
            ("outage_share", "in [0, 1]", 0 <= self.outage_share <= 1),
        )
        wrong = [f"Expected {name} {rule}, got {getattr(self, name)!r}." for name, rule, holds in rules if not holds]
        if wrong:
            raise ProblemError("The risk settings cannot be used:", wrong)


@dataclass(frozen=True)
class Scenarios:
    """Requests of each demand row (K, D) and whether each source is up (K, N)."""

    requests: Float64
    up: Bool

    def __len__(self) -> int:
        return len(self.requests)

    def part(self, first: int, end: int) -> Scenarios:
        """Some of the scenarios."""
        return Scenarios(self.requests[first:end], self.up[first:end])

    def problem(self, base: PlacementProblem, at: int) -> PlacementProblem:
        """The instance as it turns out in one scenario: known, so that no uplink needs a margin."""
        arcs = min(base.settings.exact_flow_arcs, EXACT_ARCS)
        return replace(
            base,
            settings=replace(base.settings, uplink_quantile=None, exact_flow_arcs=arcs),
            demand=replace(base.demand, requests=self.requests[at]),
            sources=replace(base.sources, survival=self.up[at].astype(np.float64)),
        )


@dataclass(frozen=True)
class ScenarioReport:
    """Cost in millidollars and bytes that no node serves, in each scenario (K,), and their summary."""

    cost: Float64
    unserved_bytes: Float64
    tail: float

    @property
    def mean_cost(self) -> float:
        return float(self.cost.mean())

    @property
    def cvar_bytes(self) -> float:
        return conditional_value_at_risk(self.unserved_bytes, self.tail)

    def risk(self, settings: RiskSettings) -> float:
        """Mean cost and priced tail, in millidollars."""
        return self.mean_cost + settings.weight_millidollars_per_gb * self.cvar_bytes / BYTES_PER_GB


def draw_scenarios(problem: PlacementProblem, settings: RiskSettings, *, seed: int) -> Scenarios:
    """The same scenarios for the same problem, settings and seed."""
    rng = np.random.default_rng(seed)
    return Scenarios(_requests(problem, settings.scenarios, rng), _up(problem, settings, rng))


def evaluate(problem: PlacementProblem, copies: Copies, scenarios: Scenarios, *, tail: float = 0.9) -> ScenarioReport:
    """What copies cost in each scenario, with the best shares in each, and what no node serves."""
    cost, unserved = np.zeros(len(scenarios)), np.zeros(len(scenarios))
    for at in range(len(scenarios)):
        turned_out = scenarios.problem(problem, at)
        flows = best_flows(turned_out, copies.segment, copies.source)
        sent = turned_out.demand_segment_bytes * turned_out.demand.requests
        served = (sent[flows.row] * flows.share)[~problem.is_pop[flows.source]].sum()
        cost[at], unserved[at] = delivery_cost(turned_out, flows), max(0.0, float(sent.sum() - served))
    return ScenarioReport(cost + _fixed_cost(problem, copies), unserved, tail)


def choose(
    problem: PlacementProblem, candidates: Sequence[Copies], scenarios: Scenarios, settings: RiskSettings
) -> Copies:
    """The candidate of least risk, the first of equals."""
    risks = [evaluate(problem, copies, scenarios, tail=settings.tail).risk(settings) for copies in candidates]
    return candidates[int(np.argmin(risks))]


def improve(
    problem: PlacementProblem, copies: Copies, scenarios: Scenarios, settings: RiskSettings, *, tries: int = 200
) -> Copies:
    """Moves single copies to other networks while that lowers the risk, looking at no more than `tries` moves."""
    best, risk = copies, evaluate(problem, copies, scenarios, tail=settings.tail).risk(settings)
    improved = True
    while improved and tries > 0:
        improved = False
        for moved in _moves(problem, best):
            if tries <= 0 or improved:
                break
            tries -= 1
            found = evaluate(problem, moved, scenarios, tail=settings.tail).risk(settings)
            if found < risk * (1 - 1e-9):
                best, risk, improved = moved, found, True
    return best


def conditional_value_at_risk(values: Float64, tail: float) -> float:
    """Mean of the largest 1 - tail of the values, the last of them counted in part."""
    return float(values @ tail_weights(values, tail))


def tail_weights(values: Float64, tail: float) -> Float64:
    """Weights, of sum 1, of the largest 1 - tail of the values, the last of them in part; of equals the first, (K,)."""
    share = (1.0 - tail) * len(values)
    weight = np.zeros(len(values))
    weight[np.argsort(-values, kind="stable")] = np.clip(share - np.arange(len(values)), 0.0, 1.0)
    return np.asarray(weight / weight.sum())


def _requests(problem: PlacementProblem, count: int, rng: np.random.Generator) -> Float64:
    """Negative binomial as Poisson of a gamma rate; rows of one content at one location share how busy they are."""
    demand, alpha = problem.demand, problem.dispersion
    viewers = problem.content_code[demand.segment] * max(1, len(problem.locations)) + demand.location
    groups, group = np.unique(viewers, return_inverse=True)
    busy = rng.random((count, len(groups)))[:, group]
    safe = np.maximum(alpha, POISSON_DISPERSION)
    rate = np.where(alpha > POISSON_DISPERSION, special.gammaincinv(1.0 / safe, busy) * safe, 1.0)
    return rng.poisson(np.minimum(rate * demand.requests, 1e18)).astype(np.float64)


def _up(problem: PlacementProblem, settings: RiskSettings, rng: np.random.Generator) -> Bool:
    """P(up) is each source's survival: P(no outage) times what is left of it."""
    survival, network = problem.sources.survival, problem.sources.network
    known = np.flatnonzero(network >= 0)
    outage = np.full(int(network.max(initial=-1)) + 1, 1.0)
    np.minimum.at(outage, network[known], 1.0 - survival[known])
    outage *= settings.outage_share
    down = rng.random((settings.scenarios, len(outage))) < outage
    common = np.zeros(len(survival))
    common[known] = outage[network[known]]
    left = np.divide(survival, 1.0 - common, out=np.zeros(len(survival)), where=common < 1.0)
    up = rng.random((settings.scenarios, len(survival))) < left
    up[:, known] &= ~down[:, network[known]]
    return np.asarray(up)


def _fixed_cost(problem: PlacementProblem, copies: Copies) -> float:
    """Pushes and fallbacks, the same in every scenario."""
    is_new = ~problem.is_current(copies.segment, copies.source)
    push = (problem.segments.bytes[copies.segment] * problem.push_price[copies.source])[is_new].sum()
    return float(push) + int(missing_requirements(problem, copies).sum()) * problem.fallback_price


def _moves(problem: PlacementProblem, copies: Copies) -> Iterator[Copies]:
    """Each copy on a node moved to each node of another domain where it fits."""
    nodes = np.flatnonzero(problem.sources.eligible & ~problem.is_pop).astype(np.int32)
    for at in np.flatnonzero(~problem.is_pop[copies.source]).tolist():
        kept = Copies(np.delete(copies.segment, at), np.delete(copies.source, at))
        elsewhere = nodes[problem.domain[nodes] != problem.domain[copies.source[at]]]
        for n in elsewhere.tolist():
            moved = add_while_fitting(problem, kept, copies.segment[at : at + 1], np.array([n], dtype=np.int32))
            if len(moved.segment) == len(copies.segment):
                yield moved
