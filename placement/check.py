"""The judge: recomputes the cost of a plan and every constraint, knowing no solver and none of its shortcuts.

The numbers are those of the programme in `placement/formulation.py`. Every plan passes here before anyone sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from placement.coverage import chance_any_node_is_up
from placement.plan import Plan
from placement.problem import Bool, Float64, Int32, PlacementProblem

Numbers = npt.NDArray[np.number[Any]]

TOLERANCE = 1e-6
"""Relative slack granted to every limit, for rounding."""
SHOWN = 5
"""Violations of one constraint that are spelled out; the rest are counted in the last one's amount."""


@dataclass(frozen=True)
class Violation:
    """A limit that the plan breaks: which, where, and by how much (in the unit that the sentence names)."""

    constraint: str
    where: str
    amount: float
    sentence: str


@dataclass(frozen=True)
class CheckReport:
    """What the judge found.

    Attributes:
        violations: empty for a valid plan.
        delivery: expected cost of serving, in millidollars.
        push: cost of pushing, in millidollars.
        fallback: penalties of segments that fall back to the origin, in millidollars.
        bytes_moved: bytes to push.
    """

    violations: tuple[Violation, ...]
    delivery: float
    push: float
    fallback: float
    bytes_moved: int

    @property
    def cost(self) -> float:
        return self.delivery + self.push + self.fallback

    @property
    def ok(self) -> bool:
        return not self.violations


def check(problem: PlacementProblem, plan: Plan) -> CheckReport:
    """Judges a plan against its problem."""
    broken = list(_codes(problem, plan))
    if broken:  # the other rules cannot be read off unknown codes
        return CheckReport(tuple(broken), np.inf, np.inf, np.inf, 0)
    sized = problem.segments.bytes[plan.segment]
    is_new = ~problem.is_current(plan.segment, plan.source)
    push = float((sized * problem.push_price[plan.source])[is_new].sum())
    fallback = len(plan.fallback_segment) * problem.fallback_price
    moved = int(sized[is_new].sum())
    report = CheckReport((), _delivery(problem, plan), push, fallback, moved)
    for rule in _RULES:
        broken.extend(rule(problem, plan))
    broken.extend(_statements(plan, report, is_new))
    return CheckReport(tuple(broken), report.delivery, report.push, report.fallback, report.bytes_moved)


def flow_rows(problem: PlacementProblem, plan: Plan) -> np.ndarray:
    """Demand row that each flow serves; -1 where nobody asks. (F,)."""
    n_locations = max(1, len(problem.locations))
    keys = problem.demand.segment.astype(np.int64) * n_locations + problem.demand.location
    order = np.argsort(keys)
    wanted = plan.flow_segment.astype(np.int64) * n_locations + plan.flow_location
    at = np.minimum(np.searchsorted(keys[order], wanted), max(0, len(keys) - 1))
    if not len(keys):
        return np.full(len(wanted), -1)
    return np.where(keys[order][at] == wanted, order[at], -1)


def _delivery(problem: PlacementProblem, plan: Plan) -> float:
    """Each flow at its source's price, the rest of each row at the origin's."""
    rows = flow_rows(problem, plan)
    known = rows >= 0
    rows, source, share = rows[known], plan.flow_source[known], plan.flow_share[known]
    requests = problem.demand.requests
    waiting = problem.request_price[plan.flow_location[known], source]
    price = waiting + problem.byte_price[source] * problem.segments.bytes[plan.flow_segment[known]]
    served = np.bincount(rows, weights=share, minlength=len(requests))
    return float((requests[rows] * share * price).sum() + (requests * (1 - served) * problem.origin_price).sum())


def _codes(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    columns = (
        ("segment", plan.segment, len(problem.segments)),
        ("source", plan.source, len(problem.sources)),
        ("flow_segment", plan.flow_segment, len(problem.segments)),
        ("flow_location", plan.flow_location, len(problem.locations)),
        ("flow_source", plan.flow_source, len(problem.sources)),
        ("fallback_segment", plan.fallback_segment, len(problem.segments)),
    )
    for name, codes, size in columns:
        wrong = np.flatnonzero((codes < 0) | (codes >= size))
        if len(wrong):
            sentence = f"{name} holds code {int(codes[wrong[0]])}; allowed are 0 to {size - 1}."
            yield Violation("codes", name, float(len(wrong)), sentence)


def _unique(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    copies = plan.segment.astype(np.int64) * max(1, len(problem.sources)) + plan.source
    if bool(np.any(np.diff(copies) <= 0)):
        yield Violation("codes", "copies", 1.0, "Copies are not sorted by (segment, source) without repeats.")
    flow = plan.flow_segment.astype(np.int64) * max(1, len(problem.locations)) + plan.flow_location
    order = np.lexsort((plan.flow_source, flow))
    repeats = (np.diff(flow) == 0) & (np.diff(plan.flow_source) <= 0)
    if bool(np.any(order != np.arange(len(flow)))) or bool(np.any(repeats)):
        yield Violation("codes", "flows", 1.0, "Flows are not sorted by (segment, location, source) without repeats.")


def _demand_met_once(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(1) The shares of a location's requests for a segment add up to at most 1."""
    rows = flow_rows(problem, plan)
    for at in np.flatnonzero(rows < 0)[:SHOWN]:
        where = f"{problem.segments.name(plan.flow_segment[at])} at {problem.locations[plan.flow_location[at]]}"
        yield Violation("1 demand", where, float(plan.flow_share[at]), f"Nobody asks for {where}, yet it is served.")
    total = np.bincount(rows[rows >= 0], weights=plan.flow_share[rows >= 0], minlength=len(problem.demand))
    yield from _above("1 demand", total, np.ones(len(total)), lambda k: _row_name(problem, k), "of the requests")


def _serves_what_it_holds(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(2) A source serves only what it holds, and only while it is up."""
    copies = problem.copy_keys(plan.segment, plan.source)
    held = np.isin(problem.copy_keys(plan.flow_segment, plan.flow_source), copies)
    held |= problem.standing[plan.flow_source]
    limit = np.where(held, problem.sources.survival[plan.flow_source], 0.0)
    yield from _above(
        "2 held and up", plan.flow_share, limit, lambda f: _flow_name(problem, plan, f), "of the requests"
    )


def _covered(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(2') Nodes together serve a request only while one of them that holds it and reaches it is up."""
    mesh = ~problem.is_pop[plan.flow_source]
    rows = flow_rows(problem, plan)
    mesh &= rows >= 0
    served = np.bincount(rows[mesh], weights=plan.flow_share[mesh], minlength=len(problem.demand))
    coverage = chance_any_node_is_up(problem, plan)
    yield from _above("2' coverage", served, coverage, lambda k: _row_name(problem, k), "of the requests")


def _storage(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(3) What a source holds fits its room."""
    keep = ~problem.standing[plan.source]
    sized = problem.segments.bytes[plan.segment[keep]]
    used = np.bincount(plan.source[keep], weights=sized, minlength=len(problem.sources))
    yield from _above("3 storage", used, problem.storage_limit_bytes, lambda n: _source_name(problem, n), "bytes")


def _uplink(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(4) What a source serves fits the uplink it is expected to have."""
    rows = flow_rows(problem, plan)
    known = rows >= 0
    sent = problem.demand.requests[rows[known]] * problem.segments.bytes[plan.flow_segment[known]]
    sent = sent * plan.flow_share[known]
    used = np.bincount(plan.flow_source[known], weights=sent, minlength=len(problem.sources))
    yield from _above("4 uplink", used, problem.usable_uplink_bytes, lambda n: _source_name(problem, n), "bytes")


def _movement(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(5) What is pushed fits the movement budget."""
    is_new = ~problem.is_current(plan.segment, plan.source)
    moved = np.array([problem.segments.bytes[plan.segment[is_new]].sum()], dtype=np.float64)
    limit = np.array([problem.movement_limit_bytes])
    yield from _above("5 movement", moved, limit, lambda _: "all sources", "bytes")


def _movement_per_network(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(5') What is pushed to each network fits that network's movement budget."""
    budget = problem.settings.movement_budget_bytes_per_network
    yield from _pushed_to_each("5' movement", problem, plan, problem.sources.network, budget, lambda f: f"network {f}")


def _movement_per_location(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(5'') What is pushed to the nodes of each location fits that location's movement budget."""
    budget = problem.settings.movement_budget_bytes_per_location
    location = np.where(problem.is_pop, -1, problem.sources.location)
    yield from _pushed_to_each("5'' movement", problem, plan, location, budget, lambda at: str(problem.locations[at]))


def _pushed_to_each(
    constraint: str,
    problem: PlacementProblem,
    plan: Plan,
    place: Int32,
    budget: int | None,
    name: Callable[[int], str],
) -> Iterator[Violation]:
    """Each place of the sources, by code and -1 for none, against one budget for all."""
    if budget is None:
        return
    pushed = ~problem.is_current(plan.segment, plan.source) & (place[plan.source] >= 0)
    sizes = problem.segments.bytes[plan.segment[pushed]].astype(np.float64)
    moved = np.bincount(place[plan.source[pushed]], weights=sizes)
    yield from _above(constraint, moved, np.full(len(moved), float(budget)), name, "bytes")


def availability_credit(problem: PlacementProblem, plan: Plan) -> Float64:
    """-ln P(no live copy) that is certain however copies of one network fail together, (S,).

    In each network only the best copy counts: the others may fail with it.
    """
    domain = problem.domain[plan.source]
    order = np.lexsort((problem.credit[plan.source], domain, plan.segment))
    last = np.ones(len(order), dtype=np.bool_)
    same = (np.diff(plan.segment[order]) == 0) & (np.diff(domain[order]) == 0)
    last[:-1] = ~same
    best = order[last]
    credit = np.bincount(plan.segment[best], weights=problem.credit[plan.source[best]], minlength=len(problem.segments))
    return np.asarray(credit + float(problem.credit[problem.standing].sum()))


def _availability(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(6) Each segment meets its availability target or falls back to the origin."""
    credit = availability_credit(problem, plan)
    credit[plan.fallback_segment] = np.inf
    short = problem.required_credit - credit
    for s in np.flatnonzero(short > TOLERANCE)[:SHOWN]:
        name = problem.segments.name(int(s))
        live, target = -np.expm1(-credit[s]), problem.availability_target[s]
        sentence = f"{name} is live with probability {live:.6g}, below the target {target:.6g}, and has no fallback."
        yield Violation("6 availability", name, float(short[s]), sentence)


def _tier_one(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(7) Each segment has a copy on a POP or falls back to the origin."""
    if not problem.settings.require_tier_one_copy or problem.standing.any():
        return
    backed = np.zeros(len(problem.segments), dtype=np.bool_)
    backed[plan.segment[problem.is_pop[plan.source]]] = True
    backed[plan.fallback_segment] = True
    for s in np.flatnonzero(~backed)[:SHOWN]:
        name = problem.segments.name(int(s))
        yield Violation("7 tier one", name, 1.0, f"{name} is on no POP and has no fallback.")


def _spread(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(8) Copies of a segment are spread over networks."""
    known = problem.sources.network[plan.source] >= 0
    width = int(problem.sources.network.max(initial=0)) + 1
    keys = plan.segment[known].astype(np.int64) * width + problem.sources.network[plan.source[known]]
    pairs, copies = np.unique(keys, return_counts=True)

    def name(at: int) -> str:
        return f"{problem.segments.name(int(pairs[at] // width))} in network {int(pairs[at] % width)}"

    limit = np.full(len(pairs), float(problem.settings.max_copies_per_network))
    yield from _above("8 spread", copies.astype(np.float64), limit, name, "copies")


def _masks(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(9) Only eligible sources hold anything, and only those in reach serve: consent is never soft."""
    banned = ~problem.sources.eligible[plan.source]
    for at in np.flatnonzero(banned)[:SHOWN]:
        name = _source_name(problem, plan.source[at])
        yield Violation("9 masks", name, 1.0, f"{name} is not eligible, yet it is to hold a copy.")
    usable = problem.can_serve[plan.flow_location, plan.flow_source]
    for at in np.flatnonzero(~usable)[:SHOWN]:
        name = _flow_name(problem, plan, at)
        yield Violation("9 masks", name, float(plan.flow_share[at]), f"{name} is served out of reach.")


def _tier_caps(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    """(10) Copies of a segment on each tier stay within the tier's cap."""
    caps = problem.settings.max_copies_by_tier
    if caps is None:
        return
    keys = plan.segment.astype(np.int64) * 3 + problem.sources.tier[plan.source] - 1
    pairs, copies = np.unique(keys, return_counts=True)
    limit = np.asarray(caps, dtype=np.float64)[pairs % 3]

    def name(at: int) -> str:
        return f"{problem.segments.name(int(pairs[at] // 3))} on tier {int(pairs[at] % 3) + 1}"

    yield from _above("10 tier cap", copies.astype(np.float64), limit, name, "copies")


def _fallback(problem: PlacementProblem, plan: Plan) -> Iterator[Violation]:
    if len(plan.fallback_segment) and not problem.settings.allow_origin_fallback and plan.status != "infeasible":
        name = problem.segments.name(int(plan.fallback_segment[0]))
        yield Violation("6 availability", name, 1.0, f"{name} falls back to the origin, which is not allowed.")


_RULES: tuple[Callable[[PlacementProblem, Plan], Iterator[Violation]], ...] = (
    _unique,
    _demand_met_once,
    _serves_what_it_holds,
    _covered,
    _storage,
    _uplink,
    _movement,
    _movement_per_network,
    _movement_per_location,
    _availability,
    _tier_one,
    _spread,
    _masks,
    _tier_caps,
    _fallback,
)


def _statements(plan: Plan, report: CheckReport, is_new: Bool) -> Iterator[Violation]:
    """What the plan says about itself is true."""
    mislabelled = int((plan.moved != is_new).sum())
    if mislabelled:
        sentence = f"{mislabelled} copies are marked wrongly as moved or held already."
        yield Violation("5 movement", "moved", float(mislabelled), sentence)
    off = abs(plan.objective - report.cost)
    if off > TOLERANCE * max(1.0, abs(report.cost)):
        sentence = f"The plan states a cost of {plan.objective:.9g} m$, but it costs {report.cost:.9g} m$."
        yield Violation("cost", "objective", off, sentence)
    if plan.bound > plan.objective + TOLERANCE * max(1.0, abs(plan.objective)):
        sentence = f"The bound {plan.bound:.9g} m$ lies above the cost {plan.objective:.9g} m$."
        yield Violation("cost", "bound", plan.bound - plan.objective, sentence)
    if plan.bytes_moved != report.bytes_moved:
        sentence = f"The plan states {plan.bytes_moved} bytes to move, but it moves {report.bytes_moved}."
        yield Violation("cost", "bytes_moved", float(abs(plan.bytes_moved - report.bytes_moved)), sentence)


def _above(
    constraint: str, used: Numbers, limit: Float64, name: Callable[[int], str], unit: str
) -> Iterator[Violation]:
    over: Bool = used > limit + TOLERANCE * np.maximum(1.0, limit)
    for at in np.flatnonzero(over)[:SHOWN]:
        where = name(int(at))
        sentence = f"{where} uses {used[at]:.9g} {unit}, {used[at] - limit[at]:.6g} above its limit {limit[at]:.9g}."
        yield Violation(constraint, where, float(used[at] - limit[at]), sentence)


def _row_name(problem: PlacementProblem, row: int) -> str:
    location = problem.locations[problem.demand.location[row]]
    return f"{problem.segments.name(int(problem.demand.segment[row]))} at {location}"


def _flow_name(problem: PlacementProblem, plan: Plan, flow: int) -> str:
    where = f"{problem.segments.name(int(plan.flow_segment[flow]))} at {problem.locations[plan.flow_location[flow]]}"
    return f"{where} from {problem.sources.source[plan.flow_source[flow]]}"


def _source_name(problem: PlacementProblem, source: int) -> str:
    return f"{problem.sources.source[source]} (tier {int(problem.sources.tier[source])})"
