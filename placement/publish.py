"""From copies and shares to a judged plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.binding import binding_sentences
from placement.bound import Prices
from placement.check import check
from placement.copies import Copies
from placement.errors import PlanError
from placement.flows import Flows, best_flows, delivery_cost
from placement.plan import Plan, Status
from placement.problem import PlacementProblem
from placement.requirements import missing_requirements
from placement.shortfall import shortest_reason


@dataclass(frozen=True)
class Incumbent:
    """A plan to be: copies, their shares and what both cost, and how they were found."""

    method: str
    copies: Copies
    flows: Flows
    cost: float


def incumbent(problem: PlacementProblem, method: str, copies: Copies) -> Incumbent:
    """These copies with the best shares."""
    flows = best_flows(problem, copies.segment, copies.source)
    return Incumbent(method, copies, flows, cost_of(problem, copies, flows))


def cost_of(problem: PlacementProblem, copies: Copies, flows: Flows) -> float:
    """What the judge will say: delivery, pushes and fallbacks, in m$."""
    is_new = ~problem.is_current(copies.segment, copies.source)
    push = problem.segments.bytes[copies.segment] * problem.push_price[copies.source]
    missing = int(missing_requirements(problem, copies).sum())
    return delivery_cost(problem, flows) + float(push[is_new].sum()) + missing * problem.fallback_price


def moved_bytes(problem: PlacementProblem, copies: Copies) -> int:
    is_new = ~problem.is_current(copies.segment, copies.source)
    return int(problem.segments.bytes[copies.segment[is_new]].sum())


def published(problem: PlacementProblem, best: Incumbent, bound: float, prices: Prices | None = None) -> Plan:
    """The plan of these copies and shares, with what is proven about it; with prices, what its limits are worth."""
    copies, flows = best.copies, best.flows
    segment, location = problem.demand.segment[flows.row], problem.demand.location[flows.row]
    order = np.lexsort((flows.source, location, segment))
    fallback = np.flatnonzero(missing_requirements(problem, copies)).astype(np.int32)
    bound = min(bound, best.cost)
    gap = (best.cost - bound) / best.cost if best.cost > 0 else 0.0
    reason = "" if problem.settings.allow_origin_fallback else shortest_reason(problem, copies, fallback)
    status: Status = "optimal" if gap <= problem.settings.relative_gap else "feasible"
    return Plan(
        segment=copies.segment,
        source=copies.source,
        moved=~problem.is_current(copies.segment, copies.source),
        flow_segment=segment[order],
        flow_location=location[order],
        flow_source=flows.source[order],
        flow_share=flows.share[order],
        fallback_segment=fallback,
        objective=best.cost,
        bound=bound,
        gap=gap,
        status="infeasible" if reason else status,
        reason=reason,
        binding=binding_sentences(problem, copies, flows, prices),
        bytes_moved=moved_bytes(problem, copies),
        method=best.method,
        prices=prices,
    )


def judged(problem: PlacementProblem, plan: Plan) -> Plan:
    """The plan, if the judge passes it."""
    report = check(problem, plan)
    if not report.ok:
        raise PlanError("The judge refused the plan:", [violation.sentence for violation in report.violations])
    return plan
