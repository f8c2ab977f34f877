"""Between two placements: what the last minutes taught, in a fraction of a second.

The greedy places every copy anew against fresh demand, with uplinks as lines that refuse who comes while they send. What is
held costs nothing and leads: a push counts for more than its price, because a forecast of minutes ago errs, and a copy that
is there is worth some pushes more, because one that is dropped and comes back costs another push. So plans follow demand and
do not flap. Prices are not searched: the next placement chooses everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.bound import Prices, certify
from placement.copies import Copies
from placement.errors import ProblemError
from placement.greedy import GreedyRules, place_greedily
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.publish import incumbent, judged, published


@dataclass(frozen=True)
class RefreshSettings:
    """How plans follow demand between two placements."""

    every_minutes: float = 20.0
    """Distance of refreshes, in minutes; 0 for none."""
    thrift: float = 0.5
    """What a push counts beyond its price, as a multiple of it."""
    steadiness: float = 4.0
    """By how many pushes a copy that is held leads, each as far as the copy is worth one."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} >= 0 and finite, got {getattr(self, name)!r}."
            for name in ("every_minutes", "thrift", "steadiness")
            if not 0 <= getattr(self, name) < float("inf")
        ]
        if problems:
            raise ProblemError("The refresh settings cannot be used:", problems)


def refresh(problem: PlacementProblem, settings: RefreshSettings) -> Copies:
    """What is held where it still leads, and what now is worth more than that; within the hard limits."""
    rules = GreedyRules(thrift=settings.thrift, steadiness=settings.steadiness, lines=True)
    return place_greedily(problem, rules=rules)


def with_budget_left(problem: PlacementProblem, spent_bytes: int) -> PlacementProblem:
    """A placement and all that follows it until the next one share one movement budget, of which so much is spent."""
    budget = problem.settings.movement_budget_bytes
    if budget is None:
        return problem
    return replace(problem, settings=replace(problem.settings, movement_budget_bytes=max(0, budget - spent_bytes)))


def refreshed_plan(problem: PlacementProblem, settings: RefreshSettings, prices: Prices) -> Plan:
    """The refreshed copies as a judged plan, with what the prices of the last search still prove about it.

    Raises:
        PlanError: the judge refused the plan, which is a fault of this package and never of the problem.
    """
    bound = certify(problem, prices, raise_rows=True, threads=problem.settings.threads)
    best = incumbent(problem, "refresh", refresh(problem, settings))
    return judged(problem, published(problem, best, bound, prices))
