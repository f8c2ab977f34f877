"""Parts of a problem: some of its segments, or some of its demand rows with what uplink the rest leaves to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.copies import Copies
from placement.flows import Flows, best_flows
from placement.problem import Bool, Demand, Float64, Int32, Int64, PlacementProblem, Segments


def with_segments(problem: PlacementProblem, kept: Bool) -> PlacementProblem:
    """The problem with the segments in `kept` alone, in the same order under new codes."""
    codes = new_codes(kept)
    rows, held = kept[problem.demand.segment], kept[problem.current_segment]
    return replace(
        problem,
        segments=_take(problem.segments, np.flatnonzero(kept)),
        demand=_rows(problem.demand, np.flatnonzero(rows), codes),
        current_segment=codes[problem.current_segment[held]],
        current_source=problem.current_source[held],
    )


def new_codes(kept: Bool) -> Int32:
    """Code after everything else is gone; -1 for what is gone, (n,)."""
    return np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)


@dataclass(frozen=True)
class Leftover:
    """Demand rows that are routed anew, and the uplink that all other flows leave to them.

    Attributes:
        rows: sorted. (R,)
        free_uplink_bytes: after headroom and survival. (N,)
        exact_arcs: most arcs for which the shares are solved exactly.
    """

    rows: Int64
    free_uplink_bytes: Float64
    exact_arcs: int

    def flows(self, problem: PlacementProblem, copies: Copies) -> Flows:
        """The best shares for these rows alone: they are a small problem of their own."""
        if not len(self.rows):
            return Flows(self.rows, np.zeros(0, np.int32), np.zeros(0))
        wanted = np.zeros(len(problem.segments), dtype=np.bool_)
        wanted[problem.demand.segment[self.rows]] = True
        part, codes = self._problem(problem, wanted), new_codes(wanted)
        mine = wanted[copies.segment]
        found = best_flows(part, codes[copies.segment[mine]], copies.source[mine])
        return Flows(self.rows[found.row], found.source, found.share)

    def _problem(self, problem: PlacementProblem, wanted: Bool) -> PlacementProblem:
        nothing = np.zeros(0, dtype=np.int32)
        usable = problem.usable_uplink_bytes
        share = np.divide(
            self.free_uplink_bytes, usable, out=np.ones(len(usable)), where=np.isfinite(usable) & (usable > 0)
        )
        uplink = problem.sources.uplink_bytes
        return replace(
            problem,
            segments=_take(problem.segments, np.flatnonzero(wanted)),
            demand=_rows(problem.demand, self.rows, new_codes(wanted)),
            sources=replace(problem.sources, uplink_bytes=np.where(share < 1, uplink * np.clip(share, 0, 1), uplink)),
            current_segment=nothing,
            current_source=nothing,
            settings=replace(problem.settings, exact_flow_arcs=self.exact_arcs),
        )


def _take(segments: Segments, codes: Int64) -> Segments:
    return Segments(segments.content[codes], segments.segment[codes], segments.bytes[codes])


def _rows(demand: Demand, rows: Int64, codes: Int32) -> Demand:
    return Demand(codes[demand.segment[rows]], demand.location[rows], demand.requests[rows])
