"""Greedy placement: again and again the copy that saves most per byte of storage.

The value of a copy of segment s at source n, given the copies already placed, is

    value(s, n) = sum_l requests_sl * saving_sln * new share_sln  -  push price_n * bytes_s (if not held now)

where `new share` is what n would serve of the demand nobody serves yet: at most its survival, at most what the nodes
together are up for (1 - prod(1 - survival)), and at most its free uplink, a budget of bytes or a line that refuses who
comes while it sends (`placement/greedy_kernel.py`). Values only fall as copies are added, so an old value is an upper
bound: the heap holds one entry for each segment, its best copy, which is valued anew when it reaches the top and placed if
it still leads (lazy greedy). At last, free current copies that still fit are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.copies import (
    Copies,
    add_while_fitting,
    copy_caps,
    movement_left,
    requests_per_segment,
    spare_storage,
)
from placement.flows import serving_arcs
from placement.greedy_kernel import GreedyInstance, GreedyState, lazy_greedy
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem
from placement.requirements import meet_requirements

SPENT_SHARE = 0.005
"""A source with less than this share of its uplink left is looked at no more."""
SPENT_LINE = 0.3
"""The same for a line: asked for more than twice what it could send, it would carry less than a tenth of what comes."""


@dataclass(frozen=True)
class GreedyRules:
    """How copies are valued.

    Attributes:
        thrift: what a push counts beyond its price, as a multiple of it.
        steadiness: by how many pushes the value of a copy that is there now is raised, each as far as the copy is worth
            one: what is dropped and comes back costs another push.
        lines: whether uplinks are lines that refuse, and not budgets.
    """

    thrift: float = 0.0
    steadiness: float = 0.0
    lines: bool = False


PLAIN = GreedyRules()


def place_greedily(problem: PlacementProblem, *, start: Copies | None = None, rules: GreedyRules = PLAIN) -> Copies:
    """Places copies one by one, starting from `start`, and then keeps every free current copy that still fits.

    Args:
        problem: the instance.
        start: copies that stay in any case; nothing by default.
        rules: how copies are valued.
    """
    empty = np.zeros(0, dtype=np.int32)
    copies = start or Copies(empty, empty)
    if not problem.settings.pops_hold_everything:
        copies = _place_tier(problem, copies, problem.is_pop, rules)
    copies = _place_tier(problem, copies, ~problem.is_pop, rules)
    order = np.argsort(-requests_per_segment(problem)[problem.current_segment], kind="stable")
    kept = add_while_fitting(problem, copies, problem.current_segment[order], problem.current_source[order])
    return meet_requirements(problem, kept)


def _place_tier(problem: PlacementProblem, start: Copies, among: Bool, rules: GreedyRules) -> Copies:
    """Adds copies at the sources in `among` to those in `start`."""
    instance = _instance(problem, start, among, rules)
    state = _state(problem, start, instance)
    mine = among[start.source]
    held = (start.segment[mine], start.source[mine], start.segment[~mine], start.source[~mine])
    limit = problem.settings.candidates_per_location
    segment, source = lazy_greedy(instance, state, held, limit)
    segments = np.concatenate([start.segment[~mine], segment])
    return Copies.sorted(segments, np.concatenate([start.source[~mine], source]))


def _instance(problem: PlacementProblem, start: Copies, among: Bool, rules: GreedyRules) -> GreedyInstance:
    demand = problem.demand
    order = np.lexsort((demand.location, demand.segment))
    order = order[demand.requests[order] > 0]
    n_segments = len(problem.segments)
    near_start, near = _near(problem, among)
    keys = problem.current_keys
    holder = (keys % max(1, len(problem.sources))).astype(np.int32)
    usable = among[holder] & problem.sources.eligible[holder] & ~problem.standing[holder]
    holders = (keys // max(1, len(problem.sources)))[usable]
    uplink = problem.usable_uplink_bytes
    limited = np.isfinite(uplink)
    line = limited & (uplink > 0) & rules.lines
    price = _fallback_price(problem, start, among)
    return GreedyInstance(
        row_start=np.searchsorted(demand.segment[order], np.arange(n_segments + 1)),
        location=demand.location[order],
        requests=demand.requests[order],
        fallback_price=price[order],
        size=problem.segments.bytes.astype(np.float64),
        near_start=near_start,
        near=near,
        smallest=float(problem.segments.bytes.min(initial=0)),
        current_start=np.searchsorted(holders, np.arange(n_segments + 1)),
        current=holder[usable],
        typical_saving=_typical_saving(problem, price) if rules.lines else np.zeros((0, 0)),
        can_serve=problem.can_serve,
        request_price=problem.request_price,
        byte_price=problem.byte_price,
        push_price=problem.push_price,
        survival=problem.sources.survival,
        uplink=uplink,
        line=line,
        least_uplink=np.where(limited, uplink * np.where(line, SPENT_LINE, SPENT_SHARE), 0.0),
        network=problem.sources.network,
        slots=problem.movement_slots,
        tier=problem.sources.tier.astype(np.int64),
        caps=copy_caps(problem),
        thrift=float(rules.thrift),
        steadiness=float(rules.steadiness),
    )


def _state(problem: PlacementProblem, start: Copies, instance: GreedyInstance) -> GreedyState:
    n_rows, n_sources, n_segments = len(instance.location), len(problem.sources), len(problem.segments)
    room = np.maximum(1, spare_storage(problem, start)) / max(1.0, float(instance.size.min(initial=np.inf)))
    capacity = int(np.minimum(room, n_segments).sum()) + n_sources + len(start.segment)
    return GreedyState(
        delivered=np.zeros(n_rows),
        nobody=np.ones(n_rows),
        uplink=problem.usable_uplink_bytes.copy(),
        spare=spare_storage(problem, start),
        budget=movement_left(problem, start),
        first=np.full(n_segments, -1),
        following=np.full(capacity, -1),
        holder=np.zeros(capacity, dtype=np.int64),
        near_end=instance.near_start[1:].copy(),
        value=np.zeros(n_sources),
        load=np.zeros(n_sources),
        stamp=np.full(n_sources, -1),
        holds=np.full(n_sources, -1),
    )


def _near(problem: PlacementProblem, among: Bool) -> tuple[Int64, Int32]:
    """Candidates of each location, cheapest first for a segment of mean size, as (L + 1,) starts and codes."""
    size = float(problem.segments.bytes.mean()) if len(problem.segments) else 0.0
    useful = problem.can_serve & (among & ~problem.standing & (problem.storage_limit_bytes > 0))[None, :]
    price = problem.request_price + problem.byte_price[None, :] * size
    lists = [nodes[np.argsort(price[at, nodes], kind="stable")] for at, nodes in enumerate(map(np.flatnonzero, useful))]
    starts = np.cumsum([0, *map(len, lists)])
    return starts, np.concatenate([np.zeros(0, np.int64), *lists]).astype(np.int32)


def _typical_saving(problem: PlacementProblem, fallback_price: Float64) -> Float64:
    """What each source saves of a request of mean fallback price at each location, for a segment of mean size, (L, N)."""
    places, rows = problem.demand.location, len(problem.locations)
    count = np.maximum(1, np.bincount(places, minlength=rows))
    mean = np.bincount(places, weights=fallback_price, minlength=rows) / count
    size = float(problem.segments.bytes.mean()) if len(problem.segments) else 0.0
    return np.asarray(mean[:, None] - problem.request_price - problem.byte_price[None, :] * size)


def _fallback_price(problem: PlacementProblem, start: Copies, among: Bool) -> Float64:
    """Price of each row's request when no source in `among` serves it: its cheapest POP or the origin, (D,)."""
    price = problem.origin_price.copy()
    if among[problem.is_pop].any():
        return price
    pops = problem.is_pop[start.source]
    arcs = serving_arcs(problem, start.segment[pops], start.source[pops])
    np.minimum.at(price, arcs.row, problem.origin_price[arcs.row] - arcs.saving)
    return price
