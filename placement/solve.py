"""From a problem to a checked plan: always a plan, within the limits, with what is proven about it.

The ladder, each step kept only if it is cheaper: the current copies with the best flows (at once, moving nothing); the
copies that a dive makes of the relaxation, with greedy for what is left; greedy alone; the cheapest of these after every
source has chosen its stock anew; the whole programme where it is small, else neighbourhoods if any are asked for. Where
`scenarios` are drawn, the plan of least risk in them takes the place of the cheapest on average. Then the binding limits
in words, and the judge. When `time_limit_seconds` are up, steps that are left are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from placement.bound import Prices
from placement.copies import Copies, keep_current, within_limits
from placement.dive import dive
from placement.engines import guide_of
from placement.formulation import arc_count, solve_whole
from placement.greedy import place_greedily
from placement.guard import Guard
from placement.hedging import hedged
from placement.neighbourhoods import improve_by_neighbourhoods
from placement.plan import Plan
from placement.prices import Guide, search_prices
from placement.problem import PlacementProblem
from placement.publish import Incumbent, incumbent, judged, moved_bytes, published
from placement.requirements import meet_requirements
from placement.restock import restock

Progress = Callable[[str], None]


def solve(
    problem: PlacementProblem, *, seed: int = 0, start: Prices | None = None, progress: Progress | None = None
) -> Plan:
    """The best plan found, judged; same arguments, same plan, unless the time guard strikes.

    Args:
        problem: the instance.
        seed: of the solvers and neighbourhoods.
        start: prices of the last plan, for the price search to go on from.
        progress: is told a sentence after each step.

    Raises:
        PlanError: the judge refused the plan, which is a fault of this package and never of the problem.
    """
    tell, guard = progress or (lambda _: None), Guard(problem.settings.time_limit_seconds)
    best = incumbent(problem, "current copies", meet_requirements(problem, keep_current(problem)))
    tell(f"current copies: {best.cost:.1f} m$")
    guide = guide_of(problem, start=start, guard=guard)
    proof = guide.bound
    tell(f"bound {proof.value:.1f} m$")
    ladder = _Ladder(guide, seed, guard, tell)
    best, bound = ladder.climb(problem, best), proof.value
    if len(problem.segments) and arc_count(problem) <= problem.settings.whole_programme_arcs and not guard.passed:
        answer = solve_whole(problem, seed=seed, hint=best.copies, guard=guard)
        bound = max(proof.value, answer.bound)
        if answer.copies is not None:
            best = _better(problem, best, incumbent(problem, "whole programme", within_limits(problem, answer.copies)))
        tell(f"whole programme: best {best.cost:.1f} m$, bound {bound:.1f} m$")
    else:
        best = ladder.improve(problem, best)
    risk = None
    if problem.settings.scenarios and not guard.passed:
        best, risk = hedged(problem, best, ladder, seed=seed)
        tell(f"{best.method}: {risk.cvar_bytes / 1e9:.3f} GB unserved by nodes in the worst scenarios")
    return judged(problem, replace(published(problem, best, bound, proof.prices), risk=risk))


def solve_greedily(problem: PlacementProblem) -> Plan:
    """The plan that greedy alone makes, judged like any other; nothing is proven about it, so that its bound is 0."""
    best = incumbent(problem, "current copies", meet_requirements(problem, keep_current(problem)))
    return judged(
        problem, published(problem, _better(problem, best, incumbent(problem, "greedy", place_greedily(problem))), 0.0)
    )


@dataclass(frozen=True)
class _Ladder:
    """Steps from a guide's prices; called, it climbs from given copies in a problem like the one of the guide."""

    guide: Guide
    seed: int
    guard: Guard
    tell: Progress

    def __call__(self, problem: PlacementProblem, start: Copies) -> Copies:
        guide = search_prices(problem, start=self.guide.bound.prices, guard=self.guard)
        ladder = replace(self, guide=guide, tell=lambda _: None)
        return ladder.improve(problem, ladder.climb(problem, incumbent(problem, "", start))).copies

    def climb(self, problem: PlacementProblem, best: Incumbent) -> Incumbent:
        """The same or cheaper after the copies that the guide suggests, greedy, and restocking."""
        for method, copies in self._suggested(problem):
            best = _better(problem, best, incumbent(problem, method, copies))
            self.tell(f"{method}: best {best.cost:.1f} m$")
        if problem.settings.restock_arc_visits and self.guide.candidates.n_arcs and not self.guard.passed:
            copies = restock(problem, self.guide, best.copies, best.flows, guard=self.guard)
            method = f"{best.method}, restocking"
            best = _better(problem, best, incumbent(problem, method, meet_requirements(problem, copies)))
            self.tell(f"restocking: best {best.cost:.1f} m$")
        return best

    def improve(self, problem: PlacementProblem, best: Incumbent) -> Incumbent:
        """The same or cheaper after the neighbourhoods, with free current copies refilled where that helps."""
        count = problem.settings.neighbourhoods
        if not count or not self.guide.candidates.n_arcs or self.guard.passed:
            return best
        copies = improve_by_neighbourhoods(
            problem, self.guide, best.copies, best.flows, count=count, seed=self.seed, guard=self.guard
        )
        copies, method = meet_requirements(problem, copies), f"{best.method}, neighbourhoods"
        for candidate in (copies, place_greedily(problem, start=copies)):
            best = _better(problem, best, incumbent(problem, method, candidate))
        self.tell(f"neighbourhoods: best {best.cost:.1f} m$")
        return best

    def _suggested(self, problem: PlacementProblem) -> Iterator[tuple[str, Copies]]:
        if not self.guard.passed:
            yield "dive", place_greedily(problem, start=dive(problem, self.guide, guard=self.guard))
        if self.guide.candidates.n_arcs <= problem.settings.thorough_arcs and not self.guard.passed:
            yield "greedy", place_greedily(problem)
        if not problem.standing.any() and not self.guard.passed:
            # tier-1 copies compete for the movement budget: serve them first, too
            kept = meet_requirements(problem, keep_current(problem))
            yield "requirements, then greedy", place_greedily(problem, start=kept)


def _better(problem: PlacementProblem, old: Incumbent, new: Incumbent) -> Incumbent:
    """The cheaper one; a plan that moves more must earn it by `minimum_improvement_share`."""
    more = moved_bytes(problem, new.copies) > moved_bytes(problem, old.copies)
    margin = problem.settings.minimum_improvement_share * old.cost if more else 0.0
    return new if new.cost < old.cost - margin else old
