"""The plan of least risk: the mean's plan and others, compared in drawn scenarios.

    risk(copies) = mean cost + weight * CVaR_q(unserved)  =  max_Q  E[cost] + weight * E_Q[unserved],   Q <= P / (1 - q)

At the worst Q of a plan its risk is linear, so the best answer to it is once more a plan for the mean: of demand
r + kappa r^Q on uplinks (1 + kappa) U, where kappa = weight / what a GB served by a node saves, and of survival
(p + kappa p^Q) / (1 + kappa). The few scenarios of a tail are mostly chance for a single row, so that r^Q and p^Q follow
only what rows share: how busy locations are, and how far networks are up.

Compared are: the plan for the mean; plans for its own tail, one after the other; plans on uplinks lowered until the
mean's load fits with a probability; and, where it is small, the programme of `placement/stochastic.py`. The least risk
wins if it wins by `minimum_improvement_share`. Half of the scenarios choose; the figures told come from the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from placement.copies import Copies, within_limits
from placement.formulation import arc_count
from placement.margins import limits_with_margin
from placement.plan import PlanRisk
from placement.problem import BYTES_PER_GB, Float64, PlacementProblem
from placement.publish import Incumbent, incumbent
from placement.requirements import meet_requirements
from placement.scenarios import RiskSettings, ScenarioReport, Scenarios, draw_scenarios, evaluate, tail_weights
from placement.stochastic import solve_scenarios

TAIL_ROUNDS = 2
"""Plans made for the tail of the plan before."""
QUANTILES = (0.65, 0.8)
"""Probabilities with which the load of the mean's plan fits the lowered uplinks."""
WHOLE_SCENARIOS = 10
"""The programme with scenarios may have so many times the arcs of `whole_programme_arcs`, over all scenarios."""


Ladder = Callable[[PlacementProblem, Copies], Copies]
"""Copies for a problem that differs in demand, survival or uplinks alone, no dearer there than those given."""


def hedged(problem: PlacementProblem, mean: Incumbent, ladder: Ladder, *, seed: int) -> tuple[Incumbent, PlanRisk]:
    """The plan of least risk, and what it and the mean's plan come to in scenarios that chose nothing."""
    settings = risk_settings(problem)
    drawn = draw_scenarios(problem, replace(settings, scenarios=2 * settings.scenarios), seed=seed)
    choosing, telling = drawn.part(0, settings.scenarios), drawn.part(settings.scenarios, 2 * settings.scenarios)
    best, report = mean, evaluate(problem, mean.copies, choosing, tail=settings.tail)
    for _ in range(TAIL_ROUNDS):
        found = _answer(problem, with_tail(problem, best, choosing, report), best, ladder, "hedged for the tail")
        best, report, improved = _safer(problem, (best, report), found, choosing)
        if not improved:
            break
    for found in _others(problem, mean, choosing, ladder, seed):
        best, report, _ = _safer(problem, (best, report), found, choosing)
    told = evaluate(problem, mean.copies, telling, tail=settings.tail)
    ours = told if best is mean else evaluate(problem, best.copies, telling, tail=settings.tail)
    figures = (ours.mean_cost, ours.cvar_bytes, told.mean_cost, told.cvar_bytes)
    return best, PlanRisk(settings.scenarios, settings.tail, *figures)


def risk_settings(problem: PlacementProblem) -> RiskSettings:
    chosen = problem.settings
    weight = chosen.cvar_weight_millidollars_per_gb
    return RiskSettings(chosen.scenarios, tail=chosen.cvar_level, weight_millidollars_per_gb=weight)


def _safer(
    problem: PlacementProblem, best: tuple[Incumbent, ScenarioReport], found: Incumbent, choosing: Scenarios
) -> tuple[Incumbent, ScenarioReport, bool]:
    """What is kept of both, its report, and whether it is the new one."""
    settings = risk_settings(problem)
    report = evaluate(problem, found.copies, choosing, tail=settings.tail)
    least = best[1].risk(settings) * (1.0 - problem.settings.minimum_improvement_share)
    better = report.risk(settings) < least
    return (found, report, True) if better else (*best, False)


def _others(
    problem: PlacementProblem, mean: Incumbent, choosing: Scenarios, ladder: Ladder, seed: int
) -> Iterator[Incumbent]:
    for quantile in QUANTILES:
        lowered = _with_margins(problem, mean, quantile)
        if lowered is not None:
            yield _answer(problem, lowered, mean, ladder, f"hedged for uplinks at {quantile:g}")
    if arc_count(problem) * len(choosing) <= WHOLE_SCENARIOS * problem.settings.whole_programme_arcs:
        found = solve_scenarios(problem, choosing, risk_settings(problem), seed=seed, hint=mean.copies).copies
        if found is not None:
            yield incumbent(problem, "hedged by the programme with scenarios", within_limits(problem, found))


def _answer(
    problem: PlacementProblem, changed: PlacementProblem, plan: Incumbent, ladder: Ladder, method: str
) -> Incumbent:
    """The ladder's copies for the changed problem, from those of the plan; storage and budgets are the same in both."""
    return incumbent(problem, method, meet_requirements(problem, ladder(changed, plan.copies)))


def with_tail(
    problem: PlacementProblem, plan: Incumbent, scenarios: Scenarios, report: ScenarioReport
) -> PlacementProblem:
    """The mean's problem whose best answer is the best answer to the plan's tail."""
    demand, sources, weight = problem.demand, problem.sources, tail_weights(report.unserved_bytes, report.tail)
    kappa = risk_settings(problem).weight_millidollars_per_gb / _saved_per_gb(problem, plan)
    busy = _ratio(demand.location, weight @ scenarios.requests, demand.requests, problem.demand_segment_bytes)
    up = _ratio(problem.domain, weight @ scenarios.up, sources.survival, np.ones(len(sources)))
    survival = np.where(problem.is_pop, sources.survival, np.clip(sources.survival * up, 0.0, 1.0))
    return replace(
        problem,
        demand=replace(demand, requests=demand.requests * (1.0 + kappa * busy)),
        sources=replace(
            sources,
            survival=(sources.survival + kappa * survival) / (1.0 + kappa),
            uplink_bytes=sources.uplink_bytes * (1.0 + kappa),
        ),
    )


def _ratio(group: np.ndarray, drawn: Float64, expected: Float64, weight: Float64) -> Float64:
    """Drawn over expected of each one's group."""
    n_groups = int(group.max(initial=-1)) + 1
    there = np.bincount(group, weights=weight * drawn, minlength=n_groups)
    mean = np.bincount(group, weights=weight * expected, minlength=n_groups)
    return np.asarray(np.divide(there, mean, out=np.ones(n_groups), where=mean > 0)[group])


def _saved_per_gb(problem: PlacementProblem, plan: Incumbent) -> float:
    """What a GB that nodes serve saves over tier 1 or the origin, in the mean of the plan, in m$."""
    flows, requests = plan.flows, problem.demand.requests
    mesh = ~problem.is_pop[flows.source]
    row, source, share = flows.row[mesh], flows.source[mesh], flows.share[mesh]
    otherwise = problem.cheapest_of(problem.is_pop)
    saved = requests[row] * share @ np.maximum(otherwise[row] - problem.serving_price(row, source), 0.0)
    served = requests[row] * share @ problem.demand_segment_bytes[row]
    if saved <= 0:  # no plan to learn from: as if a node cost nothing
        saved, served = requests @ otherwise, requests @ problem.demand_segment_bytes
    return max(float(saved), 1e-9) / max(float(served), 1.0) * BYTES_PER_GB


def _with_margins(problem: PlacementProblem, plan: Incumbent, quantile: float) -> PlacementProblem | None:
    """Uplinks lowered to what the plan's load may be for them to suffice with a probability; None where none is tight."""
    asked = replace(problem, settings=replace(problem.settings, uplink_quantile=quantile))
    usable = problem.usable_uplink_bytes
    limit = limits_with_margin(asked, plan.flows.row, plan.flows.source, plan.flows.share)
    lower = limit < usable
    if not lower.any():
        return None
    share = np.divide(limit, usable, out=np.ones(len(usable)), where=lower)
    sources = problem.sources
    return replace(
        problem,
        sources=replace(sources, uplink_bytes=np.where(lower, sources.uplink_bytes * share, sources.uplink_bytes)),
        settings=replace(problem.settings, uplink_quantile=None),
    )
