"""Why a requirement that allows no fallback cannot be met: the shortest reason and the least relaxation.

A reason names one constraint where one will do. First what no plan could meet, whatever else it held: a POP (7), a cap
(10), room for the segment itself (3), the target (6). Then what the required copies lack beside everything else: bytes
to move (5, 5', 5''), room (3), or several. `Relaxation.applied` grants exactly what the sentence asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.copies import Copies, moved_bytes, movement_left, spare_storage
from placement.problem import Float64, Int64, PlacementProblem, PlacementSettings
from placement.requirements import fewest_copies, may_hold, may_receive, required_copies

SOURCES_NAMED = 3
CLASSES = ("head", "torso", "tail")
TARGET_DIGITS = 1e6
"""Targets are told, and lowered, in steps of a millionth."""


@dataclass(frozen=True)
class Relaxation:
    """What must be granted so that `segments` meet their requirements; zeros and None where nothing must.

    Attributes:
        segments: codes of the segments that this is about.
        needs_pop: a POP that is eligible.
        tier_one_cap: most copies on tier 1 that must be allowed.
        target: availability that can be attained.
        popularity: the class of segments (head 0, torso 1, tail 2) whose target that is; -1 where there is one target.
        storage_bytes: more storage at each source. (N,)
        movement_bytes: more bytes to move.
        network_bytes: more bytes to move to any one network.
        location_bytes: more bytes to move to the nodes of any one location.
    """

    segments: Int64
    storage_bytes: Int64
    needs_pop: bool = False
    tier_one_cap: int = 0
    target: float | None = None
    popularity: int = -1
    movement_bytes: int = 0
    network_bytes: int = 0
    location_bytes: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """How many limits are relaxed, and by how many bytes: the least relaxation has the least of it."""
        amounts = (int(self.storage_bytes.sum()), *(more for _, _, more in self._movement))
        parts = (self.needs_pop, self.tier_one_cap > 0, self.target is not None, *amounts)
        return sum(map(bool, parts)), sum(amounts)

    @property
    def _movement(self) -> tuple[tuple[str, str, int], ...]:
        """Number, setting and further bytes of each budget."""
        return (
            ("(5)", "movement_budget_bytes", self.movement_bytes),
            ("(5')", "movement_budget_bytes_per_network", self.network_bytes),
            ("(5'')", "movement_budget_bytes_per_location", self.location_bytes),
        )

    def applied(self, problem: PlacementProblem) -> PlacementProblem:
        """The problem with what this asks for granted (a POP alone cannot be conjured up)."""
        settings, sources = problem.settings, problem.sources
        if self.tier_one_cap and settings.max_copies_by_tier:
            settings = replace(settings, max_copies_by_tier=(self.tier_one_cap, *settings.max_copies_by_tier[1:]))
        if self.target is not None:
            settings = self._with_target(settings)
        for _, name, more in self._movement:
            if (budget := getattr(settings, name)) is not None:
                settings = replace(settings, **{name: budget + more})
        sources = replace(sources, storage_bytes=sources.storage_bytes + self.storage_bytes)
        return replace(problem, settings=settings, sources=sources)

    def _with_target(self, settings: PlacementSettings) -> PlacementSettings:
        assert self.target is not None
        targets = settings.availability_target_by_popularity
        if targets is None:
            return replace(settings, availability_target=self.target)
        changed = tuple(self.target if at == self.popularity else target for at, target in enumerate(targets))
        return replace(settings, availability_target_by_popularity=changed)

    def sentence(self, problem: PlacementProblem) -> str:
        """One sentence: the constraint, the segment and how many there are, and what to change."""
        name, n = problem.segments.name(int(self.segments[0])), len(self.segments)
        others = f" ({n} segments in all)" if n > 1 else ""
        if self.needs_pop:
            return f"(7) {name} needs a copy on a POP{others}, but no POP is eligible: add one, or allow the fallback."
        if self.tier_one_cap:
            wanted = f"raise the first of max_copies_by_tier to {self.tier_one_cap}"
            return f"(10) {name} needs a copy on a POP{others}, but none is allowed on tier 1: {wanted}."
        if self.target is not None:
            live = f"{name}{others} can be live with probability {self.target:.6g} at most"
            if self.popularity < 0:
                return f"(6) {live}: lower availability_target to it."
            return f"(6) {live}: lower the {CLASSES[self.popularity]}'s in availability_target_by_popularity to it."
        asked = [(number, f"raise {name} by {more} bytes") for number, name, more in self._movement if more]
        number = asked[0][0] if asked else "(3)"
        wishes = [wish for _, wish in asked]
        if self.storage_bytes.any():
            wishes.insert(1 if self.movement_bytes else 0, f"add storage: {self._storage_wishes(problem)}")
        if not wishes:
            return f"{number} {name}{others} could meet its requirements within all limits, but no plan tried does."
        return f"{number} {name} misses its requirements{others}: {' and '.join(wishes)}."

    def _storage_wishes(self, problem: PlacementProblem) -> str:
        most = np.argsort(-self.storage_bytes, kind="stable")[: np.count_nonzero(self.storage_bytes)]
        named = [f"{self.storage_bytes[n]} bytes at {problem.sources.source[n]}" for n in most[:SOURCES_NAMED]]
        rest = int(self.storage_bytes[most[SOURCES_NAMED:]].sum())
        return ", ".join(named) + (f" and {rest} bytes at {len(most) - SOURCES_NAMED} others" if rest else "")


def shortest_reason(problem: PlacementProblem, copies: Copies, fallback: np.ndarray) -> str:
    """The requirement that no plan found meets and its least relaxation, in words; empty where nothing falls back."""
    return least_relaxation(problem, copies, fallback).sentence(problem) if len(fallback) else ""


def least_relaxation(problem: PlacementProblem, copies: Copies, fallback: np.ndarray) -> Relaxation:
    """The least relaxation that lets the segments of `fallback` meet what they miss.

    What no plan could meet comes first, alone. Else the missing copies are counted on top of the plan's and on top of the
    required copies alone, and the lesser of both is asked for.
    """
    missing = np.asarray(fallback, dtype=np.int64)
    alone = _tier_one(problem, missing) or _room(problem, missing) or _target(problem, missing)
    if alone is not None:
        return alone
    everything, required = np.arange(len(problem.segments), dtype=np.int64), required_copies(problem)
    beside = [_beside(problem, copies, missing), _beside(problem, required, everything)]
    found = [relaxation for relaxation in beside if relaxation is not None]
    return min(found, key=lambda relaxation: relaxation.size)


def _nothing(problem: PlacementProblem) -> Int64:
    return np.zeros(len(problem.sources), dtype=np.int64)


def _tier_one(problem: PlacementProblem, missing: Int64) -> Relaxation | None:
    """A POP that is eligible, and allowed to hold a copy."""
    settings = problem.settings
    if not settings.require_tier_one_copy or problem.standing.any():
        return None
    if not (problem.is_pop & problem.sources.eligible).any():
        return Relaxation(missing, _nothing(problem), needs_pop=True)
    if settings.max_copies_by_tier is not None and settings.max_copies_by_tier[0] < 1:
        return Relaxation(missing, _nothing(problem), tier_one_cap=1)
    return None


def _room(problem: PlacementProblem, missing: Int64) -> Relaxation | None:
    """Room on one POP for each segment that is larger than every POP's: at the one that is least short of it."""
    if not problem.settings.require_tier_one_copy or problem.standing.any():
        return None
    pops = np.flatnonzero(problem.is_pop & problem.sources.eligible & (_storage_share(problem) > 0))
    if not len(pops):
        return None
    largest = pops[np.argmax(problem.storage_limit_bytes[pops])]
    too_large = missing[problem.segments.bytes[missing] > problem.storage_limit_bytes[largest]]
    if not len(too_large):
        return None
    wanted = np.zeros(len(problem.sources))
    wanted[largest] = problem.segments.bytes[too_large].max() - problem.storage_limit_bytes[largest]
    return Relaxation(too_large, _storage_for(problem, wanted))


def _target(problem: PlacementProblem, missing: Int64) -> Relaxation | None:
    """The availability that the worst of the segments attains with a copy wherever one counts."""
    reached = np.array([_attainable_credit(problem, s) for s in missing.tolist()])
    short = reached < problem.required_credit[missing] - 1e-6
    if not short.any():
        return None
    popularity = -1
    if problem.settings.availability_target_by_popularity is not None:
        popularity = int(problem.popularity[missing[short]].min())
        short &= problem.popularity[missing] == popularity
    lost = float(np.exp(-reached[short].min()))
    target = 1.0 - np.ceil(lost * TARGET_DIGITS * (1 - 1e-9)) / TARGET_DIGITS
    return Relaxation(missing[short], _nothing(problem), target=max(0.0, float(target)), popularity=popularity)


def _attainable_credit(problem: PlacementProblem, segment: int) -> float:
    """Availability credit if every source that may hold the segment did, each network counting once, within the caps."""
    able = may_hold(problem, segment)
    crowded = bool((problem.sources.network[problem.is_pop] >= 0).any())  # a POP may take a better node's place
    if crowded or problem.settings.max_copies_by_tier is not None:
        settings = replace(problem.settings, availability_target=1 - 1e-15, availability_target_by_popularity=None)
        endless = replace(problem, settings=settings)
        none = np.zeros(0, dtype=np.int32)
        able = np.isin(
            np.arange(len(able)), fewest_copies(endless, segment, none, able=able, spare=problem.storage_limit_bytes)[0]
        )
    able |= problem.standing
    best = np.zeros(int(problem.domain.max(initial=0)) + 1)
    np.maximum.at(best, problem.domain[able], problem.credit[able])
    return float(best.sum())


def _beside(problem: PlacementProblem, copies: Copies, segments: Int64) -> Relaxation | None:
    """What the missing copies of the segments lack in storage and movement beside the copies given."""
    spare, left = spare_storage(problem, copies), movement_left(problem, copies)
    lacking, sizes = [], problem.segments.bytes
    for s in segments[np.argsort(-sizes[segments], kind="stable")].tolist():
        held = copies.source[slice(*np.searchsorted(copies.segment, [s, s + 1]))]
        able, fits = may_hold(problem, s), spare >= sizes[s]
        for among in (able & fits & may_receive(problem, s, left), able & fits, able):
            added, met = fewest_copies(problem, s, held, able=among, spare=spare)
            if met:
                break
        else:
            return None  # what is held stands in the way
        spare[added] -= sizes[s]
        left -= moved_bytes(problem, Copies(np.full(len(added), s, dtype=np.int32), added))
        lacking += [s] if len(added) else []
    lacking_bytes, first_location = np.ceil(np.maximum(-left, 0.0)).astype(np.int64), problem.first_location_slot
    return Relaxation(
        np.array(sorted(lacking) or segments, dtype=np.int64),
        _storage_for(problem, np.maximum(-spare, 0.0)),
        movement_bytes=int(lacking_bytes[0]),
        network_bytes=int(lacking_bytes[1:first_location].max(initial=0)),
        location_bytes=int(lacking_bytes[first_location:].max(initial=0)),
    )


def _storage_share(problem: PlacementProblem) -> Float64:
    return np.asarray(problem.settings.storage_share_by_tier)[problem.sources.tier - 1]


def _storage_for(problem: PlacementProblem, room_bytes: Float64) -> Int64:
    """Storage that a source needs on top of what it has for so many bytes more of room, (N,)."""
    share = np.where(_storage_share(problem) > 0, _storage_share(problem), 1.0)
    wanted = np.ceil((problem.storage_limit_bytes + room_bytes) / share) - problem.sources.storage_bytes
    return np.where(room_bytes > 0, np.maximum(wanted, 0), 0).astype(np.int64)
