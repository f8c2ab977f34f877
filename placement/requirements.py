"""What each segment must have: its availability target and a copy on tier 1, else it falls back to the origin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from placement.copies import NO_LIMIT, Copies, add_while_fitting, moved_bytes, movement_left, spare_storage
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem

CREDIT_SLACK = 1e-6
"""Availability credit that may be missing, for rounding."""


def meet_requirements(problem: PlacementProblem, copies: Copies) -> Copies:
    """Adds the cheapest copies that bring segments to their availability target and tier-1 copy, where they fit.

    A segment is left to the origin when its copies would cost more than the penalty, unless fallback is forbidden: then
    the required copies go before all others where that brings more segments to their requirements.
    """
    offer = _offers(problem, copies)
    met = add_while_fitting(problem, copies, offer.segment, offer.source) if len(offer.segment) else copies
    missing = missing_requirements(problem, met)
    if problem.settings.allow_origin_fallback or not missing.any():
        return met
    first = add_while_fitting(problem, required_copies(problem), met.segment, met.source)
    return first if missing_requirements(problem, first).sum() < missing.sum() else met


def required_copies(problem: PlacementProblem) -> Copies:
    """The fewest copies that bring each segment to its requirements, the largest segments first, nothing else placed."""
    empty = np.zeros(0, dtype=np.int32)
    spare, left = problem.storage_limit_bytes.copy(), problem.movement_limits_bytes.copy()
    segments, sources = [empty], [empty]
    for s in np.argsort(-problem.segments.bytes, kind="stable").tolist():
        size = float(problem.segments.bytes[s])
        able = may_hold(problem, s) & (spare >= size) & may_receive(problem, s, left)
        added, met = fewest_copies(problem, s, empty, able=able, spare=spare)
        pushed = moved_bytes(problem, Copies(np.full(len(added), s, np.int32), added))
        if met and (pushed <= left).all():
            spare[added] -= size
            left -= pushed
            segments.append(np.full(len(added), s, dtype=np.int32))
            sources.append(added)
    return add_while_fitting(problem, Copies(empty, empty), np.concatenate(segments), np.concatenate(sources))


def may_hold(problem: PlacementProblem, segment: int) -> Bool:
    """Sources that could hold the segment if they held nothing else, (N,)."""
    fits = problem.segments.bytes[segment] <= problem.storage_limit_bytes
    return np.asarray(problem.sources.eligible & ~problem.standing & fits)


def may_receive(problem: PlacementProblem, segment: int, left: Float64) -> Bool:
    """Sources that hold the segment now or that may still be pushed so many bytes, (N,)."""
    everyone = np.arange(len(problem.sources), dtype=np.int32)
    is_current = problem.is_current(np.full(len(everyone), segment, np.int32), everyone)
    return np.asarray(is_current | (problem.segments.bytes[segment] <= left[problem.movement_slots].min(axis=1)))


def fewest_copies(
    problem: PlacementProblem, segment: int, held: Int32, *, able: Bool, spare: Float64
) -> tuple[Int32, bool]:
    """Sources in `able` that bring a segment held by `held` nearest to its requirements, and whether they meet them.

    A POP comes first where one is needed, then whoever closes the gap alone with the least room short. Where nobody does,
    what is held now is kept before more is pushed; if that leads nowhere (caps), what counts most comes first.
    """
    rank = _Rank(problem, segment, spare)
    added, met = _extended(problem, segment, held, able, rank.free_first)
    return (added, met) if met else _extended(problem, segment, held, able, rank.best_first)


class _Rank:
    """Orders in which sources are taken for one segment."""

    def __init__(self, problem: PlacementProblem, segment: int, spare: Float64) -> None:
        size = float(problem.segments.bytes[segment])
        everyone = np.arange(len(problem.sources), dtype=np.int32)
        is_current = problem.is_current(np.full(len(everyone), segment, np.int32), everyone)
        self.push = np.where(is_current, 0.0, size)
        self.short, self.spare = np.maximum(size - spare, 0.0), spare

    def free_first(self, among: Int64, gain: Float64, closes: bool) -> int:
        if closes:
            return int(among[np.lexsort((-self.spare[among], self.push[among], self.short[among]))[0]])
        return int(among[np.lexsort((self.short[among], -gain[among], self.push[among]))[0]])

    def best_first(self, among: Int64, gain: Float64, closes: bool) -> int:
        if closes:
            return self.free_first(among, gain, closes)
        return int(among[np.lexsort((self.short[among], self.push[among], -gain[among]))[0]])


def _extended(
    problem: PlacementProblem, segment: int, held: Int32, able: Bool, first: Callable[[Int64, Float64, bool], int]
) -> tuple[Int32, bool]:
    """Takes sources until the segment meets its requirements or nobody helps."""
    taken = held
    while True:
        gap, unbacked, gain = _gaps(problem, segment, taken)
        if gap <= CREDIT_SLACK and not unbacked:
            return taken[len(held) :], True
        useful = able & _within_caps(problem, taken) & (problem.is_pop if unbacked else gain > 0)
        closing = useful & (gain >= gap - CREDIT_SLACK)
        if not useful.any():
            return taken[len(held) :], False
        closes = bool(closing.any())
        chosen = first(np.flatnonzero(closing if closes else useful), gain, closes or unbacked)
        taken = np.append(taken, np.int32(chosen)).astype(np.int32)


def _gaps(problem: PlacementProblem, segment: int, taken: Int32) -> tuple[float, bool, Float64]:
    """Credit that is missing, whether a POP is, and the credit that a copy at each source would add, (N,)."""
    best = np.zeros(int(problem.domain.max(initial=0)) + 1)
    np.maximum.at(best, problem.domain[taken], problem.credit[taken])
    gap = float(problem.required_credit[segment]) - float(problem.credit[problem.standing].sum()) - float(best.sum())
    needs_pop = problem.settings.require_tier_one_copy and not problem.standing.any()
    unbacked = needs_pop and not bool(problem.is_pop[taken].any())
    return gap, unbacked, problem.credit - best[problem.domain]


def _within_caps(problem: PlacementProblem, taken: Int32) -> Bool:
    """Sources that do not hold the segment yet and whose network and tier may take one more copy, (N,)."""
    network, tier = problem.sources.network, problem.sources.tier
    caps = np.asarray(problem.settings.max_copies_by_tier or (NO_LIMIT, NO_LIMIT, NO_LIMIT))
    on_tier = np.bincount(tier[taken] - 1, minlength=3)
    known = network[taken][network[taken] >= 0]
    in_network = np.bincount(known, minlength=int(network.max(initial=0)) + 1)
    free = (network < 0) | (in_network[np.maximum(network, 0)] < problem.settings.max_copies_per_network)
    free &= (on_tier < caps)[tier - 1]
    free[taken] = False
    return np.asarray(free)


def _offers(problem: PlacementProblem, copies: Copies) -> Copies:
    """For each segment that misses a requirement, sources in the order in which they would mend it."""
    needy = np.flatnonzero(missing_requirements(problem, copies))
    spare = spare_storage(problem, copies)
    price = problem.push_price / np.maximum(problem.credit, 1e-9)
    candidates = np.flatnonzero(problem.sources.eligible & ~problem.standing & (spare > 0))
    pops_first = ~problem.is_pop[candidates] & problem.settings.require_tier_one_copy
    ranked = candidates[np.lexsort((candidates, price[candidates], pops_first))]
    segments, sources = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    left = movement_left(problem, copies)
    by_place = bool(np.isfinite(left[1:]).any())
    for s in needy:
        able = ranked[may_receive(problem, int(s), left)[ranked]] if by_place else ranked
        chosen = _mend(problem, copies, int(s), able, spare)
        spare[chosen] -= problem.segments.bytes[s]
        if by_place:
            left -= moved_bytes(problem, Copies(np.full(len(chosen), s, np.int32), chosen.astype(np.int32)))
        segments.append(np.full(len(chosen), s, dtype=np.int32))
        sources.append(chosen.astype(np.int32))
    return Copies(np.concatenate(segments), np.concatenate(sources))


def _mend(problem: PlacementProblem, copies: Copies, segment: int, ranked: Int64, spare: Float64) -> Int64:
    """The first sources in rank that bring one segment to its requirements; none if that costs too much."""
    settings, size = problem.settings, problem.segments.bytes[segment]
    held = copies.source[slice(*np.searchsorted(copies.segment, [segment, segment + 1]))]
    best = dict.fromkeys(problem.domain[held].tolist(), 0.0)
    for n in held:
        best[int(problem.domain[n])] = max(best[int(problem.domain[n])], float(problem.credit[n]))
    credit, required = (
        sum(best.values()) + float(problem.credit[problem.standing].sum()),
        problem.required_credit[segment],
    )
    backed = bool(problem.standing.any() or problem.is_pop[held].any() or not settings.require_tier_one_copy)
    chosen: list[int] = []
    cost = 0.0
    for n in ranked[spare[ranked] >= size].tolist():
        if credit >= required and backed:
            break
        if int(problem.domain[n]) in best or (credit >= required and not problem.is_pop[n]):
            continue
        chosen.append(n)
        best[int(problem.domain[n])] = float(problem.credit[n])
        credit += float(problem.credit[n])
        backed = backed or bool(problem.is_pop[n])
        cost += float(problem.push_price[n] * size)
    met = credit >= required and backed
    worth = not settings.allow_origin_fallback or cost <= settings.origin_fallback_millidollars
    return np.array(chosen if met and worth else [], dtype=np.int64)


def missing_requirements(problem: PlacementProblem, copies: Copies) -> Bool:
    """Segments without their availability target or tier-1 copy: these fall back to the origin, (S,)."""
    n_segments = len(problem.segments)
    order = np.lexsort((problem.credit[copies.source], problem.domain[copies.source], copies.segment))
    segment, domain = copies.segment[order], problem.domain[copies.source][order]
    best = np.ones(len(order), dtype=np.bool_)
    best[:-1] = (np.diff(segment) != 0) | (np.diff(domain) != 0)
    weights = problem.credit[copies.source][order][best]
    credit = np.bincount(segment[best], weights=weights, minlength=n_segments)
    missing = credit + float(problem.credit[problem.standing].sum()) < problem.required_credit - CREDIT_SLACK
    if problem.settings.require_tier_one_copy and not problem.standing.any():
        backed = np.zeros(n_segments, dtype=np.bool_)
        backed[copies.segment[problem.is_pop[copies.source]]] = True
        missing |= ~backed
    return np.asarray(missing)
