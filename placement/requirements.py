"""What each segment must have: its availability target and a copy on tier 1, else it falls back to the origin."""

from __future__ import annotations

import numpy as np

from placement.copies import Copies, add_while_fitting, spare_storage
from placement.problem import Bool, Float64, Int64, PlacementProblem


def meet_requirements(problem: PlacementProblem, copies: Copies) -> Copies:
    """Adds the cheapest copies that bring segments to their availability target and tier-1 copy, where they fit.

    A segment is left to the origin when its copies would cost more than the penalty, unless fallback is forbidden.
    """
    offer = _offers(problem, copies)
    if not len(offer.segment):
        return copies
    return add_while_fitting(problem, copies, offer.segment, offer.source)


def _offers(problem: PlacementProblem, copies: Copies) -> Copies:
    """For each segment that misses a requirement, sources in the order in which they would mend it."""
    needy = np.flatnonzero(missing_requirements(problem, copies))
    spare = spare_storage(problem, copies)
    price = problem.push_price / np.maximum(problem.credit, 1e-9)
    candidates = np.flatnonzero(problem.sources.eligible & ~problem.standing & (spare > 0))
    pops_first = ~problem.is_pop[candidates] & problem.settings.require_tier_one_copy
    ranked = candidates[np.lexsort((candidates, price[candidates], pops_first))]
    segments, sources = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for s in needy:
        chosen = _mend(problem, copies, int(s), ranked, spare)
        spare[chosen] -= problem.segments.bytes[s]
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
    credit = sum(best.values()) + float(problem.credit[problem.standing].sum())
    backed = bool(problem.standing.any() or problem.is_pop[held].any() or not settings.require_tier_one_copy)
    chosen: list[int] = []
    cost = 0.0
    for n in ranked[spare[ranked] >= size].tolist():
        if credit >= problem.required_credit and backed:
            break
        if int(problem.domain[n]) in best or (credit >= problem.required_credit and not problem.is_pop[n]):
            continue
        chosen.append(n)
        best[int(problem.domain[n])] = float(problem.credit[n])
        credit += float(problem.credit[n])
        backed = backed or bool(problem.is_pop[n])
        cost += float(problem.push_price[n] * size)
    met = credit >= problem.required_credit and backed
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
    missing = credit + float(problem.credit[problem.standing].sum()) < problem.required_credit - 1e-6
    if problem.settings.require_tier_one_copy and not problem.standing.any():
        backed = np.zeros(n_segments, dtype=np.bool_)
        backed[copies.segment[problem.is_pop[copies.source]]] = True
        missing |= ~backed
    return np.asarray(missing)
