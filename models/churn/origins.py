"""Evenly spaced origins of a window, with what became of the nodes that were up at each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.churn.history import Objects, SessionHistory
from models.churn.outcomes import Outcomes, concatenate, outcomes_at
from models.events import HOUR_US, Float64


@dataclass(frozen=True)
class OriginOutcomes:
    """Outcomes as known when the window ends.

    Attributes:
        known: the history at the end of the window.
        origins: instants with a node that was up.
        parts: outcomes of each origin.
    """

    known: SessionHistory
    origins: tuple[int, ...]
    parts: tuple[Outcomes, ...]

    @property
    def outcomes(self) -> Outcomes:
        return concatenate(list(self.parts))

    @property
    def device_class(self) -> Objects:
        """Class of each row of `outcomes`."""
        return self.known.device_class[self.outcomes.node]

    def collect(self, values: Callable[[SessionHistory, int], Float64]) -> Float64:
        """What `values` (history, origin) → (n, B) says of each row of `outcomes`. (rows, B)"""
        return np.concatenate(
            [values(self.known, at_us)[part.node] for at_us, part in zip(self.origins, self.parts, strict=True)]
        )


def origin_outcomes(
    history: SessionHistory,
    window: tuple[int, int],
    *,
    edges_hours: tuple[float, ...],
    every_hours: float,
    most: int,
) -> OriginOutcomes:
    """At most `most` origins, further apart than asked for where there would be more.

    Raises:
        ValueError: nobody was up in the window.
    """
    start_us, end_us = window
    known = history.before(end_us)
    step = max(round(every_hours * HOUR_US), -(-(end_us - start_us) // most))
    found = [
        (at_us, part)
        for at_us in range(start_us, end_us, step)
        if len(part := outcomes_at(known, at_us=at_us, edges_hours=edges_hours, until_us=end_us))
    ]
    if not found:
        raise ValueError(f"No node was up in the window [{start_us}, {end_us}); choose a window inside the history.")
    return OriginOutcomes(known, tuple(at_us for at_us, _ in found), tuple(part for _, part in found))
