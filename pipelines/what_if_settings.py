"""What operators may ask a replay: how much would other devices bring."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.row_names import Row


@dataclass(frozen=True)
class WhatIfSettings:
    """Which combinations of storage, uplink and consent `premirror what-if` replays; every one with every other."""

    storage: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Factors on the storage of every node."""
    uplink: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Factors on the uplink of every node."""
    consent: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of the nodes that take part, in [0, 1]; those of a smaller share are among those of a larger one."""
    row: Row = "ours"
    """The method replayed; a rule such as top-k answers in seconds."""
    processes: int = 1
    """Processes that replay combinations; 0 for one a core. The result is the same."""

    def __post_init__(self) -> None:
        problems = []
        for name in ("storage", "uplink", "consent"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                problems.append(f"Expected {name} to name each value once, and one at least; got {values!r}.")
        for name in ("storage", "uplink"):
            wrong = [v for v in getattr(self, name) if not 0 < v < float("inf")]
            if wrong:
                problems.append(f"Expected factors {name} > 0, got {wrong!r}.")
        wrong = [v for v in self.consent if not 0 <= v <= 1]
        if wrong:
            problems.append(f"Expected shares consent in [0, 1], got {wrong!r}.")
        if self.processes < 0:
            problems.append(f"Expected processes >= 0, got {self.processes!r}.")
        if problems:
            raise ValueError(" ".join(problems))
