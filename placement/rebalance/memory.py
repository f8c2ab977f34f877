"""What one rebalance tells the next: how sources were before their events, outages, parked copies and recent moves.

A small frozen record of ids and numbers, passed in and out, so that the rebalance itself keeps no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standing = Literal["failed", "out", "draining", "changed"]


@dataclass(frozen=True)
class Away:
    """A source that an event changed: how it stands, and what it was before.

    Attributes:
        standing: failed (its copies are written off), out (in an outage that is waited out), draining, or changed.
    """

    source: str
    standing: Standing
    survival: float
    uplink_bytes: float
    eligible: bool


@dataclass(frozen=True)
class Outage:
    """A network that went out at an instant, in microseconds since 1970 UTC."""

    network: int
    since_us: int


@dataclass(frozen=True)
class ParkedCopy:
    """A copy that a failed source held: free again if the source comes back with it."""

    content: str
    segment: int
    source: str


@dataclass(frozen=True)
class RecentMove:
    """A copy that a rebalance pushed or dropped."""

    content: str
    segment: int
    source: str
    pushed: bool
    rebalance: int


@dataclass(frozen=True)
class Return:
    """A source that had failed or been out and came back in a rebalance: for a while, nothing is pushed to it."""

    source: str
    rebalance: int


@dataclass(frozen=True)
class Memory:
    """All that is carried from one rebalance to the next; all tuples are sorted."""

    rebalances: int = 0
    away: tuple[Away, ...] = ()
    outages: tuple[Outage, ...] = ()
    parked: tuple[ParkedCopy, ...] = ()
    recent: tuple[RecentMove, ...] = ()
    returns: tuple[Return, ...] = ()

    def for_new_problem(self) -> Memory:
        """What still holds after a new forecast and a new look at the sources: only the moves and returns."""
        return Memory(rebalances=self.rebalances, recent=self.recent, returns=self.returns)
