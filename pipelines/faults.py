"""Faults that a replay may be put through: what each of them is, and what it may be asked to do.

| kind | what happens |
|---|---|
| slow_nodes | a share of the nodes sends at a fraction of its uplink |
| dead_nodes | a share of the nodes is off |
| network_cut | all nodes of one network are off |
| mass_departure | a share of the nodes that are up leave at one instant |
| lying_monitor | monitoring sees nodes up that are down, or down that are up |
| flash_crowd | one content is suddenly asked for many times as often |
| no_log | requests happen, and no model ever sees them |

What each does to the arena is in `pipelines/faulty_arena.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field


@dataclass(frozen=True)
class SlowNodes:
    """A share of the nodes sends at a fraction of its uplink; nobody is told."""

    kind: Literal["slow_nodes"]
    """Which fault."""
    start: AwareDatetime
    """First instant of the fault, inside the window."""
    end: AwareDatetime
    """First instant after it."""
    share: float = 0.3
    """Share of the nodes, drawn at random, in [0, 1]."""
    factor: float = 0.1
    """What is left of their uplink, in [0, 1]."""

    def __post_init__(self) -> None:
        _refuse([*_late_start(self), *_no_shares(self, "share", "factor")])


@dataclass(frozen=True)
class DeadNodes:
    """A share of the nodes is off, whatever they did otherwise."""

    kind: Literal["dead_nodes"]
    """Which fault."""
    start: AwareDatetime
    """First instant of the fault, inside the window."""
    end: AwareDatetime
    """First instant after it."""
    share: float = 0.2
    """Share of the nodes, drawn at random, in [0, 1]."""

    def __post_init__(self) -> None:
        _refuse([*_late_start(self), *_no_shares(self, "share")])


@dataclass(frozen=True)
class NetworkCut:
    """All nodes of one network are off."""

    kind: Literal["network_cut"]
    """Which fault."""
    start: AwareDatetime
    """First instant of the fault, inside the window."""
    minutes: float = 10.0
    """How long it lasts, in minutes."""
    network: str = ""
    """Id of the network; empty for the one with most nodes."""

    def __post_init__(self) -> None:
        _refuse(_not_positive(self, "minutes"))


@dataclass(frozen=True)
class MassDeparture:
    """A share of the nodes that are up leave at one instant, and come back together."""

    kind: Literal["mass_departure"]
    """Which fault."""
    start: AwareDatetime
    """When they leave, inside the window."""
    hours: float = 6.0
    """How long they stay away, in hours."""
    share: float = 0.5
    """Share of the nodes that are up then, drawn at random, in [0, 1]."""

    def __post_init__(self) -> None:
        _refuse([*_not_positive(self, "hours"), *_no_shares(self, "share")])


@dataclass(frozen=True)
class LyingMonitor:
    """Monitoring is wrong about some nodes: planners and the router believe it, the nodes do as they did."""

    kind: Literal["lying_monitor"]
    """Which fault."""
    start: AwareDatetime
    """First instant of the fault, inside the window."""
    end: AwareDatetime
    """First instant after it."""
    up_share: float = 0.2
    """Share of the nodes that it sees up although they may be down, drawn at random, in [0, 1]."""
    down_share: float = 0.0
    """Share of the nodes, others than these, that it sees down although they may be up, in [0, 1]."""

    def __post_init__(self) -> None:
        problems = [*_late_start(self), *_no_shares(self, "up_share", "down_share")]
        if not problems and self.up_share + self.down_share > 1:
            problems.append(f"Expected up_share + down_share <= 1, got {self.up_share!r} + {self.down_share!r}.")
        _refuse(problems)


@dataclass(frozen=True)
class FlashCrowd:
    """One content is suddenly asked for many times as often as it was over the day before."""

    kind: Literal["flash_crowd"]
    """Which fault."""
    start: AwareDatetime
    """First instant of the fault, inside the window."""
    minutes: float = 60.0
    """How long it lasts, in minutes."""
    factor: float = 50.0
    """Requests that come in addition, over those that the content had in the same time on average."""
    rank: int = 1
    """The content with the rank-th most requests of the day before; 0 for one that nobody had asked for yet, with the
    requests of the first."""
    location: str = ""
    """Id of the location whose viewers come; empty for all, each in proportion to its requests."""

    def __post_init__(self) -> None:
        problems = list(_not_positive(self, "minutes", "factor"))
        if self.rank < 0:
            problems.append(f"Expected rank >= 0, got {self.rank!r}.")
        _refuse(problems)


@dataclass(frozen=True)
class NoLog:
    """Requests happen, and no model ever sees them."""

    kind: Literal["no_log"]
    """Which fault."""
    start: AwareDatetime
    """First instant of the fault, inside the window."""
    end: AwareDatetime
    """First instant after it."""

    def __post_init__(self) -> None:
        _refuse(list(_late_start(self)))


AnyFault = SlowNodes | DeadNodes | NetworkCut | MassDeparture | LyingMonitor | FlashCrowd | NoLog
Fault = Annotated[AnyFault, Field(discriminator="kind")]


def outside(faults: tuple[AnyFault, ...], window: tuple[Any, Any]) -> list[str]:
    """A sentence for every instant of a fault that does not lie in the window [start, end)."""
    return [
        f"Expected faults.{at}.{name} inside the window {window[0]} to {window[1]}, got {getattr(fault, name)}."
        for at, fault in enumerate(faults)
        for name in ("start", "end")
        if hasattr(fault, name)
        and not (window[0] <= getattr(fault, name) < window[1] or (name, getattr(fault, name)) == ("end", window[1]))
    ]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError(" ".join(problems))


def _late_start(fault: Any) -> Iterator[str]:
    if fault.end <= fault.start:
        yield f"Expected {fault.kind} to end after it starts, got {fault.start} to {fault.end}."


def _no_shares(fault: Any, *names: str) -> Iterator[str]:
    for name in names:
        if not 0 <= getattr(fault, name) <= 1:
            yield f"Expected {name} in [0, 1], got {getattr(fault, name)!r}."


def _not_positive(fault: Any, *names: str) -> list[str]:
    return [
        f"Expected {name} > 0, got {getattr(fault, name)!r}." for name in names if not 0 < getattr(fault, name) < 1e9
    ]
