"""Settings of the churn model, in one frozen value that is saved with it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

MESH_EDGES_HOURS = (5 / 60, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 24.0)
ALWAYS_ON_EDGES_HOURS = (2.0, 4.0, 8.0, 16.0, 24.0, 48.0)


@dataclass(frozen=True)
class ChurnSettings:
    """How churn is measured, learned and forecast; durations in hours."""

    edges_hours: tuple[float, ...] = MESH_EDGES_HOURS
    """Lead times at which survival is forecast, increasing; the first bins serve phones, the last ones homes."""
    age_edges_hours: tuple[float, ...] = (5 / 60, 0.25, 0.5, 1, 2, 4, 8, 16, 24, 48, 96, 168, 336, 720)
    """Inner edges of the uptime-age buckets of the life table; the hazard is constant inside a bucket."""
    rate_buckets: int = 6
    """Buckets of nodes by their own past departure rate in the life table."""
    pseudo_departures: float = 20.0
    """Strength of the shrinkage of each life-table cell towards its parent, in departures."""
    rate_prior_departures: float = 1.0
    """Strength of the shrinkage of a node's own rate towards its class, in departures."""
    rate_half_lives_hours: tuple[float, ...] = (12.0, 72.0, 336.0)
    """Half-lives of the decayed departure and return rates; the last one is the on/off chain's."""
    availability_half_lives_hours: tuple[float, ...] = (6.0, 24.0, 96.0)
    """Half-lives of the decayed share of time up."""
    clock_offsets_hours: tuple[float, ...] = (0.0, 0.5, 2.0, 6.0)
    """Lead times whose same-clock availability on previous days is an input."""
    clock_days: int = 7
    """Previous days averaged for the same-clock availability."""
    fleet_window_hours: float = 6.0
    """Recent hours over which departures of the network and of the fleet are counted."""
    maximum_age_hours: float = 720.0
    """Ages, durations and times since first seen are clipped here, so that inputs do not grow with the log."""
    hidden_size: int = 64
    """Width of the two hidden layers of each network."""
    dropout: float = 0.1
    """Share of hidden units dropped in training, in [0, 1)."""
    networks: int = 3
    """Networks averaged in log-odds, each from its own seed; 0 leaves the life table alone."""
    boosting_iterations: int = 160
    """Most trees of the gradient boosting that is blended with the networks; validation says how many, 0 none."""
    boosting_learning_rate: float = 0.1
    """Share of each tree that is added."""
    boosting_leaves: int = 31
    """Most leaves of a tree."""
    boosting_least_rows: int = 100
    """Fewest rows of a leaf."""
    boosting_input_share: float = 0.5
    """Share of the inputs, drawn anew at each split, in (0, 1]."""
    epochs: int = 12
    """Most passes over the training rows; the best epoch on validation is kept."""
    batch_size: int = 2048
    """Rows of a gradient step."""
    learning_rate: float = 0.003
    """Peak step size of AdamW."""
    weight_decay: float = 0.001
    """Decoupled weight decay of AdamW."""
    origin_every_hours: float = 5.0
    """Spacing of training origins; not a divisor of 24, so that every hour of the day is met."""
    maximum_origins: int = 200
    """Most training origins; where the window holds more, evenly spaced ones among them."""
    maximum_rows: int = 200_000
    """Most training rows of each head; more are thinned evenly at random."""
    calibration_strength: float = 20.0
    """Precision of the shrinkage of the calibration per device class towards the fleet's."""

    def __post_init__(self) -> None:
        problems = [*self._sequence_problems(), *self._number_problems()]
        if problems:
            raise ValueError(" ".join(problems))

    def _sequence_problems(self) -> list[str]:
        problems = []
        for name in ("edges_hours", "age_edges_hours"):
            values = getattr(self, name)
            if not values or values[0] <= 0 or any(b <= a for a, b in pairwise(values)):
                problems.append(f"Expected {name} positive and increasing, got {values!r}.")
        for name in ("rate_half_lives_hours", "availability_half_lives_hours"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                problems.append(f"Expected {name} > 0, got {values!r}.")
        if self.clock_offsets_hours and min(self.clock_offsets_hours) < 0:
            problems.append(f"Expected clock_offsets_hours >= 0, got {self.clock_offsets_hours!r}.")
        return problems

    def _number_problems(self) -> list[str]:
        positive = (
            "pseudo_departures",
            "rate_prior_departures",
            "fleet_window_hours",
            "maximum_age_hours",
            "learning_rate",
            "origin_every_hours",
            "calibration_strength",
            "boosting_learning_rate",
        )
        at_least_one = (
            "rate_buckets",
            "clock_days",
            "hidden_size",
            "epochs",
            "batch_size",
            "maximum_origins",
            "maximum_rows",
            "boosting_least_rows",
        )
        not_negative = ("networks", "boosting_iterations", "weight_decay")
        checks = [(n, "> 0", getattr(self, n) > 0) for n in positive]
        checks += [(n, ">= 1", getattr(self, n) >= 1) for n in at_least_one]
        checks += [(n, ">= 0", getattr(self, n) >= 0) for n in not_negative]
        checks.append(("dropout", "in [0, 1)", 0 <= self.dropout < 1))
        checks.append(("boosting_leaves", ">= 2", self.boosting_leaves >= 2))
        checks.append(("boosting_input_share", "in (0, 1]", 0 < self.boosting_input_share <= 1))
        return [f"Expected {n} {rule}, got {getattr(self, n)!r}." for n, rule, holds in checks if not holds]

    @property
    def middle_edge_hours(self) -> float:
        """The edge in the middle, at which statistics look besides the last."""
        return self.edges_hours[(len(self.edges_hours) - 1) // 2]

    def to_json(self) -> dict[str, object]:
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, values: dict[str, object]) -> ChurnSettings:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})  # type: ignore[arg-type]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
