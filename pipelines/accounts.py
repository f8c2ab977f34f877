"""What a method did hour by hour, over the same hours for every method of a run: what intervals and curves are made of.

net avoided bytes = bytes of the mesh − bytes pushed or repaired
cost              = egress of everything that tier 1 sent + rewards of what nodes served
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from models.events import Float64
from placement.tally import GB, HOUR_US, ReplayTally

BUSIEST_SHARE = 0.1
"""Share of the hours that count as busiest, by the bytes requested in them."""

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HourlyAccount:
    """Sums of consecutive hours from `start_us`; all of one length."""

    start_us: int
    requested_bytes: tuple[float, ...]
    net_avoided_bytes: tuple[float, ...]
    cost: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.requested_bytes), len(self.net_avoided_bytes), len(self.cost)}
        if len(lengths) > 1:
            raise ValueError(f"Expected the same hours in every column of an account, got lengths {sorted(lengths)}.")

    @classmethod
    def of_tally(cls, tally: ReplayTally, *, start_us: int, end_us: int) -> HourlyAccount:
        """The hours that [start, end) meets; a row that saw nothing in the first or last of them has zeros there."""
        first_us = start_us // HOUR_US * HOUR_US
        hours = -(-(end_us - first_us) // HOUR_US)
        lag = (tally.start_hour_us - first_us) // HOUR_US
        columns = (requested_by_hour(tally), net_by_hour(tally), cost_by_hour(tally))
        return cls(first_us, *(tuple(_placed(column, lag, hours).tolist()) for column in columns))

    @property
    def hours(self) -> int:
        return len(self.cost)

    @property
    def net(self) -> Float64:
        """(hours,)"""
        return np.array(self.net_avoided_bytes)

    @property
    def requested(self) -> Float64:
        """(hours,)"""
        return np.array(self.requested_bytes)

    @property
    def money(self) -> Float64:
        """Cost by hour. (hours,)"""
        return np.array(self.cost)

    @property
    def busiest(self) -> Bool:
        """The tenth of the hours, one at least, in which most bytes were requested. (hours,)"""
        chosen = np.zeros(self.hours, dtype=np.bool_)
        count = max(1, round(BUSIEST_SHARE * self.hours))
        chosen[np.argsort(-self.requested, kind="stable")[:count]] = True
        return chosen

    def saved_against(self, reference: HourlyAccount) -> tuple[float, ...]:
        """Money saved against the reference from the start until the end of each hour."""
        return tuple(accumulate(theirs - ours for theirs, ours in zip(reference.cost, self.cost, strict=True)))

    def same_hours(self, other: HourlyAccount) -> bool:
        """Whether both speak of the same hours and of the same requests in them."""
        return (self.start_us, self.requested_bytes) == (other.start_us, other.requested_bytes)


def net_by_hour(tally: ReplayTally) -> Float64:
    """Mesh bytes less pushes and repairs, by hour of the tally."""
    mesh = tally.tier_bytes[:, :, 1:].sum(axis=(1, 2))
    moved = tally.pushed_bytes.sum(axis=1) + tally.repaired_bytes.sum(axis=1)
    return np.asarray(mesh - moved, dtype=np.float64)


def requested_by_hour(tally: ReplayTally) -> Float64:
    return np.asarray(tally.tier_bytes.sum(axis=(1, 2)) + tally.failed_bytes.sum(axis=1), dtype=np.float64)


def cost_by_hour(tally: ReplayTally) -> Float64:
    """Egress and rewards, by hour of the tally; adds up to `egress_money + reward_money`."""
    sent = tally.tier_bytes[:, :, 0] + tally.pushed_bytes + tally.repaired_bytes
    mesh = tally.tier_bytes[:, :, 1:].sum(axis=(1, 2))
    return np.asarray((sent @ tally.egress_cost_per_gb + mesh * tally.reward_per_gb) / GB, dtype=np.float64)


def _placed(values: Float64, lag: int, hours: int) -> Float64:
    """The values `lag` hours later on an axis of `hours`.

    Raises:
        ValueError: something but zero lies outside of it.
    """
    placed = np.zeros(hours)
    first, last = max(lag, 0), min(lag + len(values), hours)
    if last > first:
        placed[first:last] = values[first - lag : last - lag]
    if not np.isclose(placed.sum(), values.sum()):
        raise ValueError("Expected every byte of the tally inside the window of the account.")
    return placed
