"""The world after events, before anything is moved: the new problem, the copies that live, and each source's cause.

What is held now is what the plan in force says, on the sources that live. The copies of a failed source are parked: they
are free again if it comes back with them. Expired segments leave the problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement.copies import Copies, add_while_fitting, requests_per_segment
from placement.plan import Plan
from placement.problem import Bool, Float64, Ids, Int32, PlacementProblem
from placement.rebalance.events import ContentExpired, Event
from placement.rebalance.excerpt import new_codes, with_segments
from placement.rebalance.fleet import DAY_SECONDS, Fleet, recent_returns
from placement.rebalance.memory import Memory, Outage, ParkedCopy, Return
from placement.rebalance.settings import RebalanceSettings


@dataclass(frozen=True)
class Aftermath:
    """The world after the events.

    Attributes:
        problem: its current copies are those held on live sources.
        copies: those of them that keep every hard limit.
        kept_segment: which segments of the problem before are in this one. (S before,)
        cause: what happened to each source, in words; empty for most. (N,)
        waits: sources in an outage that is waited out. (N,)
        joined: sources that are new or back. (N,)
        avoided: sources to which nothing is pushed: they leave, are gone, or were so lately. (N,)
        survival_after_outages: what survival is believed to be once the outages are over. (N,)
        memory: with the sources' standing; the moves are added later.
    """

    problem: PlacementProblem
    copies: Copies
    kept_segment: Bool
    cause: Ids
    waits: Bool
    joined: Bool
    avoided: Bool
    survival_after_outages: Float64
    memory: Memory

    def planned(self, plan: Plan) -> Copies:
        """The copies of the plan in force, on dead sources too, in codes of the problem after."""
        return _kept(Copies(plan.segment, plan.source), self.kept_segment)

    @property
    def changed(self) -> Bool:
        """Sources that something happened to, (N,)."""
        return np.asarray(self.cause != "", dtype=np.bool_)


def aftermath(
    problem: PlacementProblem,
    plan: Plan,
    events: Sequence[Event],
    *,
    settings: RebalanceSettings,
    memory: Memory,
    now_us: int,
    horizon_seconds: float = DAY_SECONDS,
    network_names: Mapping[int, str] | None = None,
) -> Aftermath:
    """Applies valid events to a problem and the plan in force."""
    fleet = Fleet.of(problem, settings, memory, horizon_seconds=horizon_seconds, network_names=network_names)
    fleet.apply(events, now_us)
    _note_bans(fleet, plan)
    lives = (fleet.eligible & ~_members(fleet, fleet.emptied))[plan.source]
    unparked = _unparked(problem, fleet, memory)
    held = _union(problem, Copies(plan.segment[lives], plan.source[lives]), unparked)
    kept = _wanted(problem, events)
    sources = replace(problem.sources, survival=fleet.survival, uplink_bytes=fleet.uplink, eligible=fleet.eligible)
    world = replace(problem, sources=sources, current_segment=held.segment, current_source=held.source)
    world = with_segments(world, kept) if not kept.all() else world
    return Aftermath(
        problem=world,
        copies=_fitting(world, _kept(Copies(plan.segment[lives], plan.source[lives]), kept)),
        kept_segment=kept,
        cause=fleet.cause,
        waits=fleet.having("out"),
        joined=fleet.joined,
        avoided=fleet.having("out", "failed", "draining") | _members(fleet, fleet.recovered),
        survival_after_outages=fleet.survival_after_outages(),
        memory=_memory(problem, plan, kept, fleet, memory),
    )


def _members(fleet: Fleet, sources: set[str]) -> Bool:
    return np.array([source in sources for source in fleet.ids], dtype=np.bool_)


def _note_bans(fleet: Fleet, plan: Plan) -> None:
    """Sources that hold something though the problem no longer lets them: consent is never soft."""
    banned = np.unique(plan.source[~fleet.eligible[plan.source]])
    for n in banned[fleet.cause[banned] == ""].tolist():
        fleet.cause[n] = f"{fleet.ids[n]} may hold nothing any more"


def _wanted(problem: PlacementProblem, events: Sequence[Event]) -> Bool:
    expired = {(event.content, event.segment) for event in events if isinstance(event, ContentExpired)}
    if not expired:
        return np.ones(len(problem.segments), dtype=np.bool_)
    keys = zip(problem.segments.content.tolist(), problem.segments.segment.tolist(), strict=True)
    gone = [(content, None) in expired or (content, segment) in expired for content, segment in keys]
    return ~np.array(gone, dtype=np.bool_)


def _unparked(problem: PlacementProblem, fleet: Fleet, memory: Memory) -> Copies:
    """Copies that came back with their sources."""
    back = [copy for copy in memory.parked if copy.source in fleet.returned]
    keys = zip(problem.segments.content.tolist(), problem.segments.segment.tolist(), strict=True)
    segment_code = {key: at for at, key in enumerate(keys)} if back else {}
    pairs = [(segment_code.get((copy.content, copy.segment), -1), fleet.code[copy.source]) for copy in back]
    found = np.array([pair for pair in pairs if pair[0] >= 0], dtype=np.int32).reshape(-1, 2)
    found = found[fleet.eligible[found[:, 1]]]
    return Copies.sorted(found[:, 0], found[:, 1])


def _union(problem: PlacementProblem, first: Copies, second: Copies) -> Copies:
    if not len(second.segment):
        return first
    n = max(1, len(problem.sources))
    keys = np.union1d(
        first.segment.astype(np.int64) * n + first.source, second.segment.astype(np.int64) * n + second.source
    )
    return Copies((keys // n).astype(np.int32), (keys % n).astype(np.int32))


def _kept(copies: Copies, kept: Bool) -> Copies:
    stays = kept[copies.segment]
    return Copies(new_codes(kept)[copies.segment[stays]], copies.source[stays])


def _fitting(problem: PlacementProblem, planned: Copies) -> Copies:
    """The planned copies first, then those that came back, each most requested first, as far as the limits allow."""
    empty, requests = np.zeros(0, dtype=np.int32), requests_per_segment(problem)
    held = Copies(empty, empty)
    for segment, source in (
        (planned.segment, planned.source),
        (problem.current_segment, problem.current_source),
    ):
        order = np.lexsort((source, segment, -requests[segment]))
        held = add_while_fitting(problem, held, segment[order], source[order])
    return held


def _memory(problem: PlacementProblem, plan: Plan, kept: Bool, fleet: Fleet, memory: Memory) -> Memory:
    wanted = set(_names(problem, np.flatnonzero(kept).astype(np.int32)))
    gone = [copy for copy in memory.parked if copy.source not in fleet.returned | fleet.emptied]
    failed = fleet.having("failed")[plan.source] & kept[plan.segment]
    names = _names(problem, plan.segment[failed])
    sources = problem.sources.source[plan.source[failed]].tolist()
    parked = {ParkedCopy(*name, source) for name, source in zip(names, sources, strict=True)}
    parked |= {copy for copy in gone if (copy.content, copy.segment) in wanted}
    known = recent_returns(memory, fleet.settings)
    now = memory.rebalances + 1
    back = fleet.returned | fleet.emptied
    returns = [old for old in known if old.source not in back] + [Return(s, now) for s in fleet.recovered & back]
    return replace(
        memory,
        returns=tuple(sorted(returns, key=lambda item: (item.rebalance, item.source))),
        away=tuple(sorted(fleet.away.values(), key=lambda away: away.source)),
        outages=tuple(Outage(network, since) for network, since in sorted(fleet.outages.items())),
        parked=tuple(sorted(parked, key=lambda copy: (copy.source, copy.content, copy.segment))),
    )


def _names(problem: PlacementProblem, segment: Int32) -> Iterator[tuple[str, int]]:
    contents = problem.segments.content[segment].tolist()
    return zip(contents, problem.segments.segment[segment].tolist(), strict=True)
