"""From a problem to a checked plan: always a plan, within the limits, with what is proven about it.

The ladder, each step kept only if it is cheaper: the current copies with the best flows (at once, moving nothing); the
copies that a dive makes of the relaxation, with greedy for what is left; greedy alone; the cheapest of these after every
source has chosen its stock anew; the whole programme where it is small, else neighbourhoods if any are asked for. Then the
binding limits in words, and the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from placement.copies import Copies, keep_current, within_limits
from placement.dive import dive
from placement.flows import best_flows
from placement.formulation import arc_count, solve_whole
from placement.greedy import place_greedily
from placement.neighbourhoods import improve_by_neighbourhoods
from placement.plan import Plan
from placement.prices import Guide, search_prices
from placement.problem import PlacementProblem
from placement.publish import Incumbent, cost_of, judged, moved_bytes, published
from placement.requirements import meet_requirements
from placement.restock import restock

Progress = Callable[[str], None]


def solve(problem: PlacementProblem, *, seed: int = 0, progress: Progress | None = None) -> Plan:
    """The best plan found, judged; same problem and seed, same plan, unless the time guard stops the solver.

    Raises:
        PlanError: the judge refused the plan, which is a fault of this package and never of the problem.
    """
    tell = progress or (lambda _: None)
    best = _price(problem, "current copies", meet_requirements(problem, keep_current(problem)))
    tell(f"current copies: {best.cost:.1f} m$")
    guide = search_prices(problem)
    proof = guide.bound
    tell(f"bound {proof.value:.1f} m$")
    for method, copies in _candidates(problem, guide):
        best = _better(problem, best, _price(problem, method, copies))
        tell(f"{method}: best {best.cost:.1f} m$")
    if problem.settings.restock_arc_visits and guide.candidates.n_arcs:
        best = _better(problem, best, _restocked(problem, guide, best))
        tell(f"restocking: best {best.cost:.1f} m$")
    bound = proof.value
    if len(problem.segments) and arc_count(problem) <= problem.settings.whole_programme_arcs:
        answer = solve_whole(problem, seed=seed, hint=best.copies)
        bound = max(proof.value, answer.bound)
        if answer.copies is not None:
            best = _better(problem, best, _price(problem, "whole programme", within_limits(problem, answer.copies)))
        tell(f"whole programme: best {best.cost:.1f} m$, bound {bound:.1f} m$")
    else:
        best = _improved(problem, guide, best, seed)
        tell(f"neighbourhoods: best {best.cost:.1f} m$")
    return judged(problem, published(problem, best, bound, proof.prices))


def _candidates(problem: PlacementProblem, guide: Guide) -> Iterator[tuple[str, Copies]]:
    thorough = guide.candidates.n_arcs <= problem.settings.thorough_arcs
    yield "dive", place_greedily(problem, start=dive(problem, guide))
    if thorough:
        yield "greedy", place_greedily(problem)
    if not problem.standing.any():  # tier-1 copies compete for the movement budget: serve them first, too
        kept = meet_requirements(problem, keep_current(problem))
        yield "requirements, then greedy", place_greedily(problem, start=kept)


def _restocked(problem: PlacementProblem, guide: Guide, best: Incumbent) -> Incumbent:
    copies = restock(problem, guide, best.copies, best.flows)
    return _price(problem, f"{best.method}, restocking", meet_requirements(problem, copies))


def _improved(problem: PlacementProblem, guide: Guide, best: Incumbent, seed: int) -> Incumbent:
    """The same or cheaper after the neighbourhoods, with free current copies refilled where that helps."""
    count = problem.settings.neighbourhoods
    if not count or not guide.candidates.n_arcs:
        return best
    copies = improve_by_neighbourhoods(problem, guide, best.copies, best.flows, count=count, seed=seed)
    copies = meet_requirements(problem, copies)
    for method, candidate in ((best.method, copies), (best.method, place_greedily(problem, start=copies))):
        best = _better(problem, best, _price(problem, f"{method}, neighbourhoods", candidate))
    return best


def _price(problem: PlacementProblem, method: str, copies: Copies) -> Incumbent:
    flows = best_flows(problem, copies.segment, copies.source)
    return Incumbent(method, copies, flows, cost_of(problem, copies, flows))


def _better(problem: PlacementProblem, old: Incumbent, new: Incumbent) -> Incumbent:
    """The cheaper one; a plan that moves more must earn it by `minimum_improvement_share`."""
    more = moved_bytes(problem, new.copies) > moved_bytes(problem, old.copies)
    margin = problem.settings.minimum_improvement_share * old.cost if more else 0.0
    return new if new.cost < old.cost - margin else old
