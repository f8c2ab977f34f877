"""What one plan hands to the next beside its copies: memory against flapping, events that were taken, bytes moved lately.

It lies in the plan's folder as `memory.json`, so that it appears, and is gone, with the plan itself.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.events import DAY_US
from pipelines.errors import ConfigError, InputError
from pipelines.jobs import instant_us
from pipelines.typed import build
from placement.rebalance.memory import Memory

STATE = "memory.json"


@dataclass(frozen=True)
class Moved:
    """Bytes that one plan moved."""

    at_us: int
    bytes: int


@dataclass(frozen=True)
class PlanState:
    """What the next plan must know.

    Attributes:
        since_us: instant from which events are new.
        memory: what one rebalance tells the next.
        taken: events that a rebalance has answered, in canonical form, sorted: those since the placement and of the day
            before it.
        moved: what plans moved over the last 24 hours, oldest first.
    """

    since_us: int
    memory: Memory = field(default_factory=Memory)
    taken: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()

    def moved_since(self, at_us: int) -> tuple[Moved, ...]:
        """What was moved in the 24 hours up to an instant."""
        return tuple(moved for moved in self.moved if moved.at_us > at_us - DAY_US)

    def moved_since_placement(self, placed_us: int) -> int:
        """Bytes moved by the placement of an instant and by everything after it, as far as the last 24 hours tell."""
        return sum(moved.bytes for moved in self.moved if moved.at_us >= placed_us)

    def after_placement(self, *, at_us: int, bytes_moved: int) -> PlanState:
        """The state beside a new placement: outages and absences are in its forecast, its events are still to come.

        What was answered within the day before stays known, so that a file of events may be of a day.
        """
        taken = tuple(text for text in self.taken if instant_us(json.loads(text)["at"]) > at_us - DAY_US)
        moved = (*self.moved_since(at_us), Moved(at_us, bytes_moved))
        return PlanState(at_us, self.memory.for_new_problem(), taken, moved)

    def to_json(self) -> str:
        """As text; an uplink without limit is null."""
        values: dict[str, Any] = asdict(self)
        for away in values["memory"]["away"]:
            away["uplink_bytes"] = None if math.isinf(away["uplink_bytes"]) else away["uplink_bytes"]
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_state(folder: Path) -> PlanState:
    """The state beside a plan.

    Raises:
        InputError: it is missing or damaged.
    """
    path = folder / STATE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for away in values["memory"]["away"]:
            away["uplink_bytes"] = math.inf if away["uplink_bytes"] is None else away["uplink_bytes"]
        return build(PlanState, values, source=path.name)
    except ConfigError as error:
        raise InputError(" ".join(error.mistakes)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} cannot be read ({error!r}).") from None
