"""What a replay counted: pure sums, so that tallies of parts add up to the tally of the whole.

For every hour and location

    requested bytes = tier 1 + tier 2 + tier 3 + failed bytes
    requested bytes = bytes of the mesh (tiers 2 and 3) + sum over causes

and over the whole replay `net avoided tier-1 bytes = mesh bytes − bytes pushed or repaired`, because every push comes
from tier 1. All sums are integers (bytes, requests, microseconds); money and means are derived when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from math import log2
from typing import Any

import numpy as np
from numba import njit

from placement.errors import ReplayError
from placement.problem import Float64, Int64

HOUR_US = 3_600_000_000
GB = 1e9
BINS_PER_OCTAVE = 32  # one bin is 2.2 % wide
BINS = 24 * BINS_PER_OCTAVE
FIRST_BIN_MS = 0.1


class Cause(IntEnum):
    """Why a byte came from tier 1; where several hold, the last in this order does: the one nearest to success."""

    NOT_FORECAST = 0
    NOT_PLACED = 1
    INELIGIBLE = 2
    GONE_AS_FORECAST = 3
    GONE_UNFORECAST = 4
    IN_TRANSIT = 5
    OVERLOADED = 6
    ROUTER_CHOICE = 7


CAUSE_WORDS = {
    Cause.NOT_FORECAST: "not forecast",
    Cause.NOT_PLACED: "forecast, but no budget or capacity",
    Cause.INELIGIBLE: "holder not eligible",
    Cause.GONE_AS_FORECAST: "node gone, as forecast",
    Cause.GONE_UNFORECAST: "node gone, not forecast",
    Cause.IN_TRANSIT: "copy not yet there",
    Cause.OVERLOADED: "holder overloaded",
    Cause.ROUTER_CHOICE: "router's choice",
}

# Columns of a replay's cells (hours, locations, COLUMNS); plain numbers, because compiled code freezes them.
REQUESTS, FAILED, FAILED_BYTES, FAILED_OVER, RESUMED, RESUMED_BYTES, LATENCY_US, TRANSFER_US = range(8)
PUSHED_BYTES, REPAIRED_BYTES, WASTED_BYTES, TIER_BYTES = range(8, 12)
CAUSE_BYTES = TIER_BYTES + 3
COLUMNS = CAUSE_BYTES + len(Cause)


@dataclass(frozen=True)
class ReplayTally:
    """Sums by hour and location; the hours are consecutive from `start_hour_us`.

    Attributes:
        start_hour_us: first instant of the first hour.
        requests: requests by the viewer's location. (hours, locations)
        tier_bytes: bytes served by tiers 1, 2 and 3. (hours, locations, 3)
        cause_bytes: bytes not served by the mesh, by `Cause`. (hours, locations, causes)
        pushed_bytes: bytes moved by a plan or a cache's fill, at the node's location when the move began.
        repaired_bytes: the same, for moves marked as repairs.
        wasted_bytes: pushed or repaired copies that went or ended without serving a byte.
        failed: requests that nobody could serve (only where there is no POP).
        failed_bytes: their bytes.
        failed_over: requests whose first choice of source sent nothing.
        resumed: requests whose transfer broke and was finished by tier 1.
        resumed_bytes: the bytes that tier 1 sent for them.
        latency_us: sum of the times to the first byte. (hours, locations)
        latency_bins: requests by time to the first byte, log bins. (locations, bins)
        transfer_us: sum of the times to the last byte. (hours, locations)
        transfer_bins: requests by time to the last byte, log bins. (locations, bins)
        source_bytes: bytes served by each source. (sources,)
        egress_cost_per_gb: price of tier-1 bytes by location, $/GB. (locations,)
        reward_per_gb: what owners get for the bytes that their nodes serve, $/GB.
    """

    start_hour_us: int
    requests: Int64
    tier_bytes: Int64
    cause_bytes: Int64
    pushed_bytes: Int64
    repaired_bytes: Int64
    wasted_bytes: Int64
    failed: Int64
    failed_bytes: Int64
    failed_over: Int64
    resumed: Int64
    resumed_bytes: Int64
    latency_us: Int64
    latency_bins: Int64
    transfer_us: Int64
    transfer_bins: Int64
    source_bytes: Int64
    egress_cost_per_gb: Float64
    reward_per_gb: float

    @classmethod
    def of_cells(cls, cells: Int64, bins: Int64, **rest: Any) -> ReplayTally:
        """Copies the arrays of a running replay; `rest` are the fields that are not in them."""
        columns: dict[str, Any] = {name: cells[:, :, column].copy() for name, column in _COLUMN_OF.items()}
        return cls(
            tier_bytes=cells[:, :, TIER_BYTES:CAUSE_BYTES].copy(),
            cause_bytes=cells[:, :, CAUSE_BYTES:].copy(),
            latency_bins=bins[0].copy(),
            transfer_bins=bins[1].copy(),
            **columns,
            **rest,
        )

    @property
    def n_hours(self) -> int:
        return len(self.requests)

    @property
    def n_requests(self) -> int:
        return int(self.requests.sum())

    @property
    def requested_bytes(self) -> int:
        return int(self.tier_bytes.sum() + self.failed_bytes.sum())

    @property
    def tier1_bytes(self) -> int:
        return int(self.tier_bytes[:, :, 0].sum())

    @property
    def mesh_bytes(self) -> int:
        return int(self.tier_bytes[:, :, 1:].sum())

    @property
    def moved_bytes(self) -> int:
        """Bytes that tier 1 sent to nodes: pushes and repairs."""
        return int(self.pushed_bytes.sum() + self.repaired_bytes.sum())

    @property
    def net_avoided_bytes(self) -> int:
        """Tier-1 bytes avoided, net of what tier 1 sent to fill the mesh; negative where filling cost more."""
        return self.mesh_bytes - self.moved_bytes

    @property
    def net_share(self) -> float:
        """Net avoided bytes per requested byte; 0 of nothing."""
        return self.net_avoided_bytes / max(self.requested_bytes, 1)

    @property
    def egress_money(self) -> float:
        """What tier 1 charges for everything it sent, to viewers and to nodes, in $."""
        sent = self.tier_bytes[:, :, 0] + self.pushed_bytes + self.repaired_bytes
        return float(sent.sum(axis=0) @ self.egress_cost_per_gb) / GB

    @property
    def reward_money(self) -> float:
        """What owners get for the bytes that their nodes served, in $."""
        return self.mesh_bytes * self.reward_per_gb / GB

    def net_saving(self) -> Float64:
        """Money saved against the CDN alone by hour and location, in $: the input of a stop-loss."""
        mesh = self.tier_bytes[:, :, 1:].sum(axis=2)
        avoided = mesh - self.pushed_bytes - self.repaired_bytes
        saving: Float64 = (avoided * self.egress_cost_per_gb - mesh * self.reward_per_gb) / GB
        return saving

    def bytes_by_cause(self) -> dict[Cause, int]:
        totals = self.cause_bytes.sum(axis=(0, 1))
        return {cause: int(totals[cause]) for cause in Cause}

    @property
    def latency_mean_ms(self) -> float:
        return float(self.latency_us.sum()) / max(self.n_requests, 1) / 1000.0

    @property
    def transfer_mean_ms(self) -> float:
        return float(self.transfer_us.sum()) / max(self.n_requests, 1) / 1000.0

    def latency_quantile_ms(self, p: float, *, location: int | None = None) -> float:
        """Quantile of the time to the first byte, to within one bin (2.2 %); nan without requests."""
        bins = self.latency_bins.sum(axis=0) if location is None else self.latency_bins[location]
        return quantile_of_bins(bins, p)

    def transfer_quantile_ms(self, p: float) -> float:
        """Quantile of the time to the last byte, to within one bin (2.2 %); nan without requests."""
        return quantile_of_bins(self.transfer_bins.sum(axis=0), p)

    def merge(self, other: ReplayTally) -> ReplayTally:
        """The tally of both together: hours are aligned, everything else is added.

        Raises:
            ReplayError: the tallies are of worlds with other locations, sources or prices.
        """
        self._expect_same_world(other)
        first = min(self.start_hour_us, other.start_hour_us)
        ends = [t.start_hour_us + t.n_hours * HOUR_US for t in (self, other)]
        hours = (max(ends) - first) // HOUR_US
        added: dict[str, Any] = {}
        for name in _HOURLY:
            total = np.zeros((hours, *getattr(self, name).shape[1:]), dtype=np.int64)
            for tally in (self, other):
                lag = (tally.start_hour_us - first) // HOUR_US
                total[lag : lag + tally.n_hours] += getattr(tally, name)
            added[name] = total
        for name in _TOTAL:
            added[name] = getattr(self, name) + getattr(other, name)
        return ReplayTally(
            start_hour_us=first,
            egress_cost_per_gb=self.egress_cost_per_gb,
            reward_per_gb=self.reward_per_gb,
            **added,
        )

    def row(self) -> dict[str, float]:
        """One line of the comparison table."""
        numbers: dict[str, float] = {
            "requests": self.n_requests,
            "requested_bytes": self.requested_bytes,
            **{f"tier{tier + 1}_bytes": int(self.tier_bytes[:, :, tier].sum()) for tier in range(3)},
            "pushed_bytes": int(self.pushed_bytes.sum()),
            "repaired_bytes": int(self.repaired_bytes.sum()),
            "wasted_bytes": int(self.wasted_bytes.sum()),
            "net_avoided_bytes": self.net_avoided_bytes,
            "net_share": self.net_share,
            "egress_money": self.egress_money,
            "reward_money": self.reward_money,
            "latency_mean_ms": self.latency_mean_ms,
            "transfer_mean_ms": self.transfer_mean_ms,
        }
        for p in (0.5, 0.95, 0.99):
            numbers[f"latency_p{round(100 * p)}_ms"] = self.latency_quantile_ms(p)
            numbers[f"transfer_p{round(100 * p)}_ms"] = self.transfer_quantile_ms(p)
        for name in ("failed", "failed_over", "resumed", "resumed_bytes"):
            numbers[name] = int(getattr(self, name).sum())
        for cause, amount in self.bytes_by_cause().items():
            numbers[f"cause_{cause.name.lower()}_bytes"] = amount
        return numbers

    def _expect_same_world(self, other: ReplayTally) -> None:
        for name in ("latency_bins", "source_bytes", "egress_cost_per_gb"):
            mine, theirs = getattr(self, name).shape, getattr(other, name).shape
            if mine != theirs:
                raise ReplayError(f"Tallies of different worlds do not add: {name} is {mine} and {theirs}.")
        if self.reward_per_gb != other.reward_per_gb or np.any(self.egress_cost_per_gb != other.egress_cost_per_gb):
            raise ReplayError("Tallies with different prices do not add; replay both with the same world.")


_COLUMN_OF = {
    "requests": REQUESTS,
    "failed": FAILED,
    "failed_bytes": FAILED_BYTES,
    "failed_over": FAILED_OVER,
    "resumed": RESUMED,
    "resumed_bytes": RESUMED_BYTES,
    "latency_us": LATENCY_US,
    "transfer_us": TRANSFER_US,
    "pushed_bytes": PUSHED_BYTES,
    "repaired_bytes": REPAIRED_BYTES,
    "wasted_bytes": WASTED_BYTES,
}
_TOTAL = ("latency_bins", "transfer_bins", "source_bytes")
_HOURLY = tuple(
    f.name
    for f in fields(ReplayTally)
    if f.name not in {*_TOTAL, "start_hour_us", "egress_cost_per_gb", "reward_per_gb"}
)


def merge_tallies(tallies: Iterable[ReplayTally]) -> ReplayTally:
    """Adds up one or more tallies of the same world.

    Raises:
        ReplayError: there is none.
    """
    parts = iter(tallies)
    try:
        total = next(parts)
    except StopIteration:
        raise ReplayError("No tally to add up; give at least one.") from None
    for part in parts:
        total = total.merge(part)
    return total


def quantile_of_bins(bins: Int64, p: float) -> float:
    """The p-quantile in ms of a log histogram, geometric inside the bin; nan where it is empty."""
    if not 0.0 <= p <= 1.0:
        raise ReplayError(f"Expected a quantile in [0, 1], got {p!r}.")
    total = int(bins.sum())
    if total == 0:
        return float("nan")
    running = np.cumsum(bins)
    found = int(np.searchsorted(running, max(p * total, 1), side="left"))
    before = int(running[found] - bins[found])
    inside = (max(p * total, 1) - before) / int(bins[found])
    return float(FIRST_BIN_MS * 2.0 ** ((found + inside) / BINS_PER_OCTAVE))


@njit(cache=True)
def bin_of(ms: float) -> int:
    """Bin b covers [0.1 ms · 2^(b/32), 0.1 ms · 2^((b+1)/32)); the ends take what lies outside."""
    if ms <= FIRST_BIN_MS:
        return 0
    return min(int(log2(ms / FIRST_BIN_MS) * BINS_PER_OCTAVE), BINS - 1)
