"""From copies and shares to a judged plan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from placement.check import check
from placement.errors import PlanError
from placement.plan import Plan, Status
from placement.problem import PlacementProblem
from placement.requirements import missing_requirements
from placement.reroute import Incumbent


def published(problem: PlacementProblem, best: Incumbent, bound: float) -> Plan:
    """The plan of these copies and shares, with what is proven about it."""
    copies, flows = best.copies, best.flows
    segment, location = problem.demand.segment[flows.row], problem.demand.location[flows.row]
    order = np.lexsort((flows.source, location, segment))
    moved = ~problem.is_current(copies.segment, copies.source)
    bytes_moved = int(problem.segments.bytes[copies.segment[moved]].sum())
    fallback = np.flatnonzero(missing_requirements(problem, copies)).astype(np.int32)
    bound = min(bound, best.cost)
    gap = (best.cost - bound) / best.cost if best.cost > 0 else 0.0
    reason = "" if problem.settings.allow_origin_fallback or not len(fallback) else _reason(problem, fallback)
    status: Status = "optimal" if gap <= problem.settings.relative_gap else "feasible"
    return Plan(
        segment=copies.segment,
        source=copies.source,
        moved=moved,
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
        binding=tuple(_binding(problem, bytes_moved, len(fallback))),
        bytes_moved=bytes_moved,
        method=best.method,
    )


def judged(problem: PlacementProblem, plan: Plan) -> Plan:
    """The plan, if the judge passes it."""
    report = check(problem, plan)
    if not report.ok:
        raise PlanError("The judge refused the plan:", [violation.sentence for violation in report.violations])
    return plan


def _reason(problem: PlacementProblem, fallback: np.ndarray) -> str:
    name = problem.segments.name(int(fallback[0]))
    return (
        f"(6, 7) {name} misses its requirements after these events ({len(fallback)} segments in all): "
        f"allow the fallback, raise movement_budget_bytes, or place anew."
    )


def _binding(problem: PlacementProblem, bytes_moved: int, fallbacks: int) -> Iterator[str]:
    smallest = int(problem.segments.bytes.min(initial=0))
    if bytes_moved and problem.movement_limit_bytes - bytes_moved < smallest:
        yield f"Movement: {bytes_moved} of {problem.movement_limit_bytes:.0f} bytes are used."
    if fallbacks:
        yield f"Requirements: {fallbacks} segments fall back to the origin."
