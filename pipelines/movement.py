"""How much the plans of a replay move, by day, and how much of that flaps.

    moved      copies that a plan names and the plan before did not, in bytes, on the plan's day (UTC)
    flapping   those of them that a plan of the 24 hours before had dropped, as a share of what was moved

What reactive caches fetch is counted when they fetch it; whether they held it before is not recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.events import DAY_US, HOUR_US
from pipelines.jobs import iso
from pipelines.planning import Copies
from placement.tally import ReplayTally

Int64 = npt.NDArray[np.int64]


class MovedPlan(Protocol):
    """What a plan moved, and how much of it had been dropped shortly before."""

    @property
    def at_us(self) -> int: ...
    @property
    def bytes_moved(self) -> int: ...
    @property
    def flapping_bytes(self) -> int: ...


@dataclass(frozen=True)
class Movement:
    """What one policy moved.

    Attributes:
        bytes_by_day: (day as YYYY-MM-DD, bytes) of every UTC day that the window meets.
        bytes_per_day: mean over 24 hours of the window.
        flapping_share: of the bytes moved; None where it is not recorded.
    """

    bytes_by_day: tuple[tuple[str, int], ...]
    bytes_per_day: float
    flapping_share: float | None

    @classmethod
    def of_plans(cls, plans: Sequence[MovedPlan], *, start_us: int, end_us: int) -> Movement:
        """From the plans of the window [start, end)."""
        by_day = _by_day(((plan.at_us, plan.bytes_moved) for plan in plans), start_us, end_us)
        moved = sum(plan.bytes_moved for plan in plans)
        flapping = sum(plan.flapping_bytes for plan in plans)
        return cls(by_day, _per_day(by_day, start_us, end_us), flapping / moved if moved else 0.0)

    @classmethod
    def of_tally(cls, tally: ReplayTally, *, start_us: int, end_us: int) -> Movement:
        """From what a row without plans pushed, by hour."""
        moved = (tally.pushed_bytes + tally.repaired_bytes).sum(axis=1).tolist()
        hours = ((tally.start_hour_us + hour * HOUR_US, amount) for hour, amount in enumerate(moved))
        by_day = _by_day(hours, start_us, end_us)
        return cls(by_day, _per_day(by_day, start_us, end_us), None)


class Flapping:
    """Watches plans, in time order, for copies that are pushed again within 24 hours after they were dropped.

    Args:
        segment_bytes: size of every segment. (segments,)
        n_sources: number of sources.
    """

    def __init__(self, segment_bytes: Int64, n_sources: int) -> None:
        self._segment_bytes, self._n_sources = segment_bytes, n_sources
        self._dropped: list[tuple[int, Int64]] = []

    def bytes_back(self, at_us: int, held: Copies, wanted: Copies) -> int:
        """Bytes of the copies that this plan pushes and a plan of the 24 hours before had dropped."""
        old, new = self._keys(held), self._keys(wanted)
        self._dropped = [(then_us, keys) for then_us, keys in self._dropped if at_us - then_us <= DAY_US]
        pushed = np.setdiff1d(new, old)
        back = pushed[np.isin(pushed, np.concatenate([np.zeros(0, np.int64), *(keys for _, keys in self._dropped)]))]
        self._dropped.append((at_us, np.setdiff1d(old, new)))
        return int(self._segment_bytes[back // self._n_sources].sum())

    def _keys(self, copies: Copies) -> Int64:
        return np.asarray(copies.segment * self._n_sources + copies.source, dtype=np.int64)


def _by_day(moves: Iterable[tuple[int, int]], start_us: int, end_us: int) -> tuple[tuple[str, int], ...]:
    days = dict.fromkeys((iso(day_us)[:10] for day_us in range(start_us // DAY_US * DAY_US, end_us, DAY_US)), 0)
    for at_us, amount in moves:
        day = iso(at_us)[:10]
        days[day] = days.get(day, 0) + int(amount)
    return tuple(sorted(days.items()))


def _per_day(by_day: tuple[tuple[str, int], ...], start_us: int, end_us: int) -> float:
    return sum(amount for _, amount in by_day) * DAY_US / (end_us - start_us)
