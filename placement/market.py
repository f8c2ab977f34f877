"""Copies that are held or might be, and what each could serve: the plan's neighbourhood as restocking looks at it.

What a byte of demand row k saves at source n is counted over the cheapest source that needs no copy:

    density_kn = (base_k - price_kn) / bytes_s,   base_k = min(origin, POPs that hold everything and never fail)

Arcs are sorted by row, so that a row is one stretch of memory; copies are sorted by (segment, source).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.copies import Copies, copy_caps
from placement.flows import contested, serving_arcs
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem

SURE_CREDIT = 40.0
"""Credit of a copy on a POP towards serving everybody: 1 - e^-40 = 1 in double precision."""


class Market(NamedTuple):
    """What does not change while sources choose."""

    segment: Int32  # of each copy (C,)
    source: Int32  # (C,)
    size: Float64  # bytes (C,)
    push: Float64  # m$ to push the copy, 0 where it is held now (C,)
    moved: Float64  # bytes to push (C,)
    stands: Bool  # held in any case, for nothing (C,)
    of_segment: Int64  # first copy of each segment (S + 1,)
    at_source: Int64  # copies by source (C,)
    source_start: Int64  # (N + 1,)
    row_start: Int64  # arcs of each demand row (D + 1,)
    row_bytes: Float64  # (D,)
    arc_row: Int64  # (A,)
    arc_copy: Int64  # (A,)
    density: Float64  # m$ saved per byte (A,)
    copy_arc: Int64  # arcs by copy (A,)
    copy_start: Int64  # (C + 1,)
    survival: Float64  # (N,)
    coverage: Float64  # credit towards serving a row (N,)
    uplink: Float64  # usable, in bytes (N,)
    network: Int64  # (N,)
    slots: Int64  # budgets that a push is taken from (N, 3)
    tier: Int64  # (N,)
    caps: Int64  # most copies in one network, then on tiers 1, 2 and 3 (4,)
    required: Float64  # availability credit that copies must add up to (S,)
    credit: Float64  # towards that (N,)
    domain: Int64  # failure domain that counts once (N,)
    needs_pop: bool  # whether each segment needs a copy on tier 1
    worth_meeting: float  # m$ for a segment that meets its requirements


def market_of(problem: PlacementProblem, copies: Copies) -> Market:
    """The market of these copies, held or not, and of the standing sources that may run out or fail."""
    everything = _with_standing(problem, copies, np.flatnonzero(problem.standing & ~problem.sure))
    segment, source = everything.segment, everything.source
    arcs = serving_arcs(problem, segment, source)
    mine, saving = contested(problem, arcs)
    row, n_copies = arcs.row[mine], len(segment)
    keys = problem.copy_keys(segment, source)
    copy = np.searchsorted(keys, problem.copy_keys(problem.demand.segment[row], arcs.source[mine]))
    copy_arc, at_source = np.argsort(copy, kind="stable"), np.argsort(source, kind="stable")
    size, stands = problem.segments.bytes[segment].astype(np.float64), problem.standing[source]
    moved = np.where(problem.is_current(segment, source) | stands, 0.0, size)
    return Market(
        segment=segment,
        source=source,
        size=size,
        push=moved * problem.push_price[source],
        moved=moved,
        stands=stands,
        of_segment=np.searchsorted(segment, np.arange(len(problem.segments) + 1)),
        at_source=at_source,
        source_start=np.searchsorted(source[at_source], np.arange(len(problem.sources) + 1)),
        row_start=np.searchsorted(row, np.arange(len(problem.demand) + 1)),
        row_bytes=problem.demand_segment_bytes * problem.demand.requests,
        arc_row=row,
        arc_copy=copy,
        density=saving / problem.demand_segment_bytes[row],
        copy_arc=copy_arc,
        copy_start=np.searchsorted(copy[copy_arc], np.arange(n_copies + 1)),
        survival=problem.sources.survival,
        coverage=np.where(problem.is_pop, SURE_CREDIT, problem.credit),
        uplink=problem.usable_uplink_bytes,
        network=problem.sources.network.astype(np.int64),
        slots=problem.movement_slots,
        tier=problem.sources.tier.astype(np.int64),
        caps=copy_caps(problem),
        required=problem.required_credit - float(problem.credit[problem.standing].sum()),
        credit=problem.credit,
        domain=problem.domain,
        needs_pop=problem.settings.require_tier_one_copy and not bool(problem.standing.any()),
        worth_meeting=problem.fallback_price,
    )


def _with_standing(problem: PlacementProblem, copies: Copies, standing: Int64) -> Copies:
    everyone = np.arange(len(problem.segments), dtype=np.int32)
    segment = np.concatenate([copies.segment, np.repeat(everyone, len(standing))])
    return Copies.sorted(segment, np.concatenate([copies.source, np.tile(standing, len(everyone)).astype(np.int32)]))
