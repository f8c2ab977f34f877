"""Settings of the counter store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.events import DAY_US, HOUR_US

DOUBLE_HALF_LIVES = 256
"""Half-lives that counts in double precision may be inflated by: 2^256, far below overflow at 2^1024."""
SINGLE_HALF_LIVES = 64
"""The same in single precision, which overflows at 2^128."""


@dataclass(frozen=True)
class CounterSettings:
    """What the counter store remembers, and for how long."""

    half_lives_hours: tuple[float, ...] = (0.5, 1.5, 6.0, 24.0)
    """Half-lives of contents, locations and cells (content, location), in hours, from fast to slow."""
    transition_half_lives_hours: tuple[float, ...] = (2.0, 24.0)
    """Half-lives of transitions between contents, in hours, from fast to slow; order 2 uses the slowest."""
    local_transition_half_life_hours: float = 6.0
    """Half-life of transitions from a content in a location, in hours."""
    skip_half_life_hours: float = 6.0
    """Half-life of transitions two and three steps on, in hours."""
    successor_cap: int = 64
    """Most successors remembered for one content."""
    context_successor_cap: int = 16
    """Most successors remembered for one pair of contents (order 2)."""
    local_successor_cap: int = 16
    """Most successors remembered for one content in one location."""
    skip_cap: int = 32
    """Most contents remembered that come two or three steps after one content."""
    audience_half_life_hours: float = 1.0
    """Half-life of what an audience requests, in hours; audiences differ by device and by how a request came about."""
    newest: int = 64
    """Contents that appeared last, remembered so that they can be suggested before anybody asks for them."""
    active_half_life_minutes: float = 15.0
    """Half-life of the presence of a session at the content it is at, in minutes."""
    session_timeout_minutes: float = 30.0
    """A longer silence ends a session, in minutes."""
    leaders: int = 64
    """Length of the lists of most popular contents, overall and by location."""
    location_hours: int = 216
    """Clock hours for which requests by location are kept."""
    cell_hours: int = 27
    """Clock hours for which requests by (content, location) are kept."""
    forget_weight: float = 1e-3
    """Cells and successors whose slowest count fell below this are forgotten, at most a day later; 0 keeps all.
    One request falls below 0.001 after ten of its half-lives: ten days at 24 hours."""

    def __post_init__(self) -> None:
        for name in ("half_lives_hours", "transition_half_lives_hours"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or list(values) != sorted(values):
                raise ValueError(f"Expected {name} > 0, from fast to slow, got {values!r}.")
        for name in (
            "local_transition_half_life_hours",
            "skip_half_life_hours",
            "audience_half_life_hours",
            "active_half_life_minutes",
            "session_timeout_minutes",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        for name, bound in {"location_hours": 170, "cell_hours": 26}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"Expected {name} >= {bound}, got {getattr(self, name)!r}.")
        self._check_lengths()
        if not 0 <= self.forget_weight < 1:
            raise ValueError(f"Expected 0 <= forget_weight < 1, got {self.forget_weight!r}.")

    def _check_lengths(self) -> None:
        most = int(np.iinfo(np.int16).max)
        caps = ("successor_cap", "context_successor_cap", "local_successor_cap", "skip_cap")
        for name in (*caps, "newest", "leaders"):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"Expected 1 <= {name} <= {most}, got {getattr(self, name)!r}.")

    @property
    def rebase_us(self) -> int:
        """Distance of the instants at which the base may stand, and at which the faded is forgotten; at most a day."""
        double = min(*self.half_lives_hours, *self.transition_half_lives_hours, self.active_half_life_hours)
        single = min(
            self.transition_half_lives_hours[-1], self.local_transition_half_life_hours, self.skip_half_life_hours
        )
        return min(DAY_US, int(DOUBLE_HALF_LIVES * double * HOUR_US), int(SINGLE_HALF_LIVES * single * HOUR_US))

    @property
    def active_half_life_hours(self) -> float:
        return self.active_half_life_minutes / 60
