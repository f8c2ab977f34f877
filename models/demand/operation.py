"""What can be set about hourly and daily operation of the demand model."""

from __future__ import annotations

from dataclasses import dataclass

from models.events import HOUR_US

MEMORY_WINDOWS = 4
"""The verdict looks back over this many trailing windows: long enough to see a model set aside and come back."""


@dataclass(frozen=True)
class TrailingSettings:
    """When the prior answers in place of a network that does worse."""

    hours: int = 6
    """Trailing hours over which the demand model is compared with its own prior."""
    minimum_hours: int = 3
    """Fewer compared hours than this decide nothing: the model answers."""
    tolerance: float = 0.0
    """Relative excess over the prior's loss that is still accepted, in [0, 1): few requests make small differences."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.minimum_hours <= self.hours <= 24:
            problems.append(
                f"Expected 1 <= minimum_hours <= hours <= 24, got minimum_hours={self.minimum_hours!r} and "
                f"hours={self.hours!r}."
            )
        if not 0 <= self.tolerance < 1:
            problems.append(f"Expected tolerance in [0, 1), got {self.tolerance!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def memory_us(self) -> int:
        """How far back the forecasts lie that a verdict rests on."""
        return MEMORY_WINDOWS * self.hours * HOUR_US


@dataclass(frozen=True)
class DemandUpdateSettings:
    """The daily update of a demand model that is in use."""

    days: int = 7
    """Days before the update that it reads, validation included."""
    validation_days: int = 2
    """Last of these days: nothing is fitted on them but biases and dispersions, and they decide what is kept."""
    replay_share: float = 1.0
    """Share of the rows before the recent ones that is fitted again, in [0, 1]. On five days of news, 0.2 instead of all
    saved 1 s of 28 s and gave up two thirds of the gain; it pays where there are many more days."""
    learning_rate: float = 0.002
    """Step size of AdamW at the start of the pass; it falls to zero along a cosine."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.validation_days < self.days:
            problems.append(
                f"Expected 1 <= validation_days < days, got validation_days={self.validation_days!r} and "
                f"days={self.days!r}."
            )
        if not 0 <= self.replay_share <= 1:
            problems.append(f"Expected replay_share in [0, 1], got {self.replay_share!r}.")
        if not self.learning_rate > 0:
            problems.append(f"Expected learning_rate > 0, got {self.learning_rate!r}.")
        if problems:
            raise ValueError(" ".join(problems))
