"""What happens between two plans: nodes fail, drain, tire and come back, networks go out, content expires.

Events are facts with ids, not codes, so that they can be written down and read back. `event_problems` finds every
mistake in a list of them at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from placement.errors import EventError
from placement.problem import PlacementProblem


@dataclass(frozen=True)
class NodeFailed:
    """A source is gone, unannounced; what it held may still be there when it comes back."""

    source: str


@dataclass(frozen=True)
class NodeDraining:
    """A source has said that it will leave."""

    source: str
    leaves_in_seconds: float


@dataclass(frozen=True)
class NodeOverloaded:
    """A source can send no more than this over the rest of the horizon, before headroom and survival."""

    source: str
    uplink_bytes: float


@dataclass(frozen=True)
class SurvivalChanged:
    """The churn model now gives the source this probability of being up when a request comes."""

    source: str
    survival: float


@dataclass(frozen=True)
class NodeJoined:
    """A source is new, or as it was before its events; consent is in the problem and no event gives it."""

    source: str
    kept_copies: bool = True
    """Whether it still has what it held when it left."""


@dataclass(frozen=True)
class NetworkOutage:
    """Every node of a network is unreachable, most likely for a while; those of `back` have returned by now."""

    network: int
    back: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutageEnded:
    """The nodes of a network that an outage took are back, with what they held."""

    network: int


@dataclass(frozen=True)
class ContentExpired:
    """Nobody will want a content any more, or only one of its segments."""

    content: str
    segment: int | None = None


NodeEvent = NodeFailed | NodeDraining | NodeOverloaded | SurvivalChanged | NodeJoined
NetworkEvent = NetworkOutage | OutageEnded
Event = NodeEvent | NetworkEvent | ContentExpired
WHERE_IT_STANDS = (NodeFailed, NodeDraining, SurvivalChanged, NodeJoined)
"""Kinds of which a node can have one at a time: they contradict each other."""


def require_valid(problem: PlacementProblem, events: Sequence[Event]) -> None:
    """Raises `EventError` with every mistake; silent when there is none."""
    problems = list(event_problems(problem, events))
    if problems:
        raise EventError("The events cannot be used:", problems)


def event_problems(problem: PlacementProblem, events: Sequence[object]) -> Iterator[str]:
    """One sentence for each unknown id, number out of bounds and contradiction."""
    known = [event for event in events if isinstance(event, Event)]
    strange = [event for event in events if not isinstance(event, Event)]
    yield from (f"{event!r} is no event; expected one of those in placement.events." for event in strange)
    yield from _unknown_ids(problem, known)
    yield from (sentence for event in known if (sentence := _bad_number(event)))
    yield from _contradictions(known)


def _unknown_ids(problem: PlacementProblem, events: Sequence[Event]) -> Iterator[str]:
    sources, networks = set(problem.sources.source.tolist()), set(problem.sources.network.tolist()) - {-1}
    contents = set(problem.segments.content.tolist())
    pairs: set[tuple[str, int | None]] = {(content, None) for content in contents}
    pairs |= set(zip(problem.segments.content.tolist(), problem.segments.segment.tolist(), strict=True))
    for event in events:
        if isinstance(event, NodeEvent) and event.source not in sources:
            yield f"{_kind(event)}: source {event.source!r} is unknown; expected one of the problem's {len(sources)}."
        elif isinstance(event, NetworkEvent) and event.network not in networks:
            yield f"{_kind(event)}: network {event.network!r} is unknown; expected one with nodes in the problem."
        elif isinstance(event, ContentExpired) and event.content not in contents:
            yield f"{_kind(event)}: content {event.content!r} is unknown; expected one of the problem's."
        elif isinstance(event, ContentExpired) and (event.content, event.segment) not in pairs:
            yield f"{_kind(event)}: content {event.content!r} has no segment {event.segment!r} in the problem."


def _bad_number(event: Event) -> str:
    if isinstance(event, NodeDraining) and not 0 <= event.leaves_in_seconds < float("inf"):
        return _number(event, "leaves_in_seconds", event.leaves_in_seconds, "0 or more, finite")
    if isinstance(event, NodeOverloaded) and not event.uplink_bytes >= 0:  # a NaN fails it
        return _number(event, "uplink_bytes", event.uplink_bytes, "0 or more")
    if isinstance(event, SurvivalChanged) and not 0 <= event.survival <= 1:
        return _number(event, "survival", event.survival, "a probability in [0, 1]")
    return ""


def _number(event: NodeEvent, name: str, value: float, allowed: str) -> str:
    return f"{_kind(event)} of {event.source!r}: {name} is {value!r}; expected {allowed}."


def _contradictions(events: Sequence[Event]) -> Iterator[str]:
    standing = [event for event in events if isinstance(event, WHERE_IT_STANDS)]
    for source, count in Counter(event.source for event in standing).items():
        if count > 1:
            kinds = ", ".join(_kind(event) for event in standing if event.source == source)
            yield f"Source {source!r} has {count} events that say where it stands ({kinds}); give only the last one."
    tired = Counter(event.source for event in events if isinstance(event, NodeOverloaded))
    yield from (f"Source {s!r} is overloaded {n} times; give only the last one." for s, n in tired.items() if n > 1)
    networks = Counter(event.network for event in events if isinstance(event, NetworkEvent))
    yield from (f"Network {f!r} has {n} outage events; give only the last one." for f, n in networks.items() if n > 1)
    expired = Counter((event.content, event.segment) for event in events if isinstance(event, ContentExpired))
    yield from (f"Content {key!r} expires {n} times; expected once." for key, n in expired.items() if n > 1)


def _kind(event: Event) -> str:
    return type(event).__name__
