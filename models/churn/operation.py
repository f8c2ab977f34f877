"""What can be set about the daily operation of the churn model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecalibrationSettings:
    """How a churn model is put right while it is in use."""

    days: float = 14.0
    """Days before a refit whose origins are read."""
    origin_every_hours: float = 5.0
    """Spacing of the origins; not a divisor of 24, so that every hour of the day is met."""
    refit_every_hours: float = 24.0
    """Spacing of the refits."""
    half_lives_days: tuple[float, ...] = (1.0, 3.0, 7.0, 14.0)
    """Half-lives of an origin's weight; the one that forecast the last days best is used, or none at all."""
    judged_days: float = 2.0
    """Days over which half-lives are compared; with more, a change is answered later."""
    strength: float = 20.0
    """Precision of the shrinkage towards training's calibration, and of classes towards the fleet's, in departures."""
    maximum_rows: int = 200_000
    """Most rows of a fit; nodes are thinned at random in each origin."""
    slope: bool = True
    """Whether slope and bins follow too; else one common shift."""
    drift_hours: float = 24.0
    """Hours over which departures are compared with those expected."""

    def __post_init__(self) -> None:
        names = ("days", "origin_every_hours", "refit_every_hours", "judged_days", "strength", "drift_hours")
        problems = [f"Expected {n} > 0, got {getattr(self, n)!r}." for n in names if not getattr(self, n) > 0]
        if not self.half_lives_days or min(self.half_lives_days) <= 0:
            problems.append(f"Expected at least one of half_lives_days and all > 0, got {self.half_lives_days!r}.")
        if self.maximum_rows < 1000:
            problems.append(f"Expected maximum_rows >= 1000, got {self.maximum_rows!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def nodes_each(self) -> int:
        """Most nodes of one origin."""
        return max(1, round(self.maximum_rows * self.origin_every_hours / (24.0 * self.days)))


@dataclass(frozen=True)
class ChurnUpdateSettings:
    """How `premirror update churn` brings the champion up to date."""

    days: int = 28
    """Days before the update from which life tables and class rates are counted anew."""
    validation_days: int = 2
    """Last days, on whose outcomes the choices are compared."""
    least_gain: float = 0.0005
    """Least gain of log-likelihood a row, in nats, for which a candidate is registered."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.validation_days < self.days:
            problems.append(
                f"Expected 1 <= validation_days < days, got validation_days={self.validation_days!r} and "
                f"days={self.days!r}."
            )
        if not self.least_gain >= 0.0:
            problems.append(f"Expected least_gain >= 0, got {self.least_gain!r}.")
        if problems:
            raise ValueError(" ".join(problems))
