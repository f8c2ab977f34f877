"""What can go wrong in placement, as a tree.

PlacementError
├── ProblemError    an instance cannot be valid; carries every problem at once
├── PlanError       a plan does not fit its problem, or broke a constraint before it left
├── EventError      events that cannot have happened to the problem, or rebalance settings out of bounds
├── RoutingError    a batch of candidates or its settings cannot be scored
└── ReplayError     a trace and a plan cannot be played together
"""

from __future__ import annotations

from collections.abc import Sequence


class PlacementError(Exception):
    """Root of every error that placement raises; `problems` holds one sentence for each mistake found."""

    def __init__(self, subject: str, problems: Sequence[str] = ()) -> None:
        self.problems = list(problems)
        super().__init__(subject + "".join(f"\n  - {problem}" for problem in problems))


class ProblemError(PlacementError, ValueError):
    """An instance or a setting is not valid; the solver never sees it."""


class PlanError(PlacementError):
    """A plan does not fit its problem, or the judge refused it."""


class EventError(PlacementError, ValueError):
    """Events, or settings of the rebalance, that cannot be used."""


class RoutingError(PlacementError, ValueError):
    """Candidates or routing settings that cannot be scored."""


class ReplayError(PlacementError, ValueError):
    """A trace and a plan that cannot be played together."""
