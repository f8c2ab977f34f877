"""A clock axis in UTC: where days or hours begin and what to write there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from models.events import DAY_US, HOUR_US
from models.svg import Scale, colour, line, text_at

_STEPS_HOURS = (1, 3, 6, 12, 24, 48, 168, 336, 672)


@dataclass(frozen=True)
class Timeline:
    """Equal bins from `start_us`, drawn between two pixels.

    Attributes:
        start_us: beginning of the first bin, microseconds since 1970.
        step_us: length of a bin.
        bins: how many.
    """

    start_us: int
    bins: int
    step_us: int = HOUR_US

    def __post_init__(self) -> None:
        if self.bins < 1 or self.step_us < 1:
            raise ValueError(f"Expected at least one bin, got bins={self.bins!r} of {self.step_us!r} us.")

    def scale(self, left: float, right: float) -> Scale:
        """Bins to pixels: bin i covers [i, i + 1)."""
        return Scale(0, self.bins, left, right)

    def marks(self, room: int) -> list[tuple[float, str]]:
        """(position in bins, text) of at most about `room` marks at round clock times."""
        hours = self.bins * self.step_us / HOUR_US
        every = next((s for s in _STEPS_HOURS if hours / s <= room), _STEPS_HOURS[-1]) * HOUR_US
        first = -(-self.start_us // every) * every
        end_us = self.start_us + self.bins * self.step_us
        return [((t - self.start_us) / self.step_us, _mark_text(t, every)) for t in range(first, end_us, every)]

    def instant_text(self, index: int) -> str:
        """`Wed 4 March, 20:00`, the beginning of a bin."""
        at = datetime.fromtimestamp((self.start_us + index * self.step_us) / 1e6, tz=UTC)
        return f"{at:%a} {at.day} {at:%B, %H:%M}"

    def axis(self, left: float, right: float, *, top: float, bottom: float) -> list[str]:
        """Faint verticals with their text below."""
        scale = self.scale(left, right)
        parts = []
        for position, text in self.marks(max(2, int((right - left) / 72))):
            x = scale(position)
            parts.append(line(x, top, x, bottom, stroke=colour("grid")))
            # A mark at the very edge would push half of its text out of the picture.
            anchor = "start" if x < left + 16 else "end" if x > right - 16 else "middle"
            parts.append(text_at(x, bottom + 17, text, text_anchor=anchor))
        return parts


def _mark_text(time_us: int, every_us: int) -> str:
    at = datetime.fromtimestamp(time_us / 1e6, tz=UTC)
    if every_us % DAY_US == 0:
        return f"{at:%a} {at.day}" if every_us < 7 * DAY_US else f"{at.day} {at:%b}"
    return f"{at:%a} {at.day}" if at.hour == 0 else f"{at:%H:%M}"
