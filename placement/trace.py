"""What a replay plays: the world as it truly was, the requests, and the copies that a plan wants held."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from placement.errors import ReplayError
from placement.problem import Bool, Float32, Float64, Int8, Int32, Int64
from placement.uplinks import UplinkSchedule
from placement.uptime import Uptime


@dataclass(frozen=True)
class ReplayWorld:
    """The truth that the judge plays against; a planner sees none of it.

    A POP has tier 1, holds every segment, is always up and never full: its uplink, downlink, storage and uptime are
    not read. Codes of segments, locations and sources are indices into these arrays.

    Attributes:
        segment_bytes: size of each segment. (segments,)
        location: location of each source. (sources,)
        tier: 1 POP, 2 high-priority node, 3 secondary node. (sources,)
        uplink_bps: uplink that the owner allows, bit/s; 0 serves nothing. (sources,)
        downlink_bps: speed at which pushes arrive, bit/s; 0 receives nothing. (sources,)
        storage_bytes: storage that the owner allows. (sources,)
        rtt_ms: round trip from each location to each source. (locations, sources)
        distance_km: great-circle distance. (locations, sources)
        reach: whether viewers of the location may use the source. (locations, sources)
        uptime: the true up-intervals.
        egress_cost_per_gb: price of a POP's bytes, $/GB; not read for nodes. (sources,)
        reward_per_gb: what owners get for served bytes, $/GB.
        names: ids of the sources, for messages; None numbers them. (sources,)
        uplinks: how uplinks change with time; None where they do not. Nobody is told: the router believes
            `uplink_bps` and notices a slow node by its queue.
        believed: the up-intervals as monitoring sees them, but for its delay; None where it sees the truth.
    """

    segment_bytes: Int64
    location: Int32
    tier: Int8
    uplink_bps: Float64
    downlink_bps: Float64
    storage_bytes: Int64
    rtt_ms: Float32
    distance_km: Float32
    reach: Bool
    uptime: Uptime
    egress_cost_per_gb: Float64
    reward_per_gb: float = 0.0
    names: tuple[str, ...] | None = None
    uplinks: UplinkSchedule | None = None
    believed: Uptime | None = None

    def __post_init__(self) -> None:
        problems = self._shape_problems() or self._value_problems()
        if problems:
            raise ReplayError("The world cannot be replayed:", problems)

    @property
    def n_segments(self) -> int:
        return len(self.segment_bytes)

    @property
    def n_locations(self) -> int:
        return len(self.rtt_ms)

    @property
    def n_sources(self) -> int:
        return len(self.tier)

    @cached_property
    def pop(self) -> Int32:
        """The POP with the lowest round trip from each location; -1 everywhere if there is none. (locations,)"""
        if not np.any(self.tier == 1):
            return np.full(self.n_locations, -1, dtype=np.int32)
        rtt = np.where(self.tier[None, :] == 1, self.rtt_ms, np.inf)
        nearest: Int32 = np.argmin(rtt, axis=1).astype(np.int32)
        return nearest

    @cached_property
    def tier1_cost_per_gb(self) -> Float64:
        """Price of a tier-1 byte at each location, $/GB; 0 without a POP. (locations,)"""
        return np.where(self.pop >= 0, self.egress_cost_per_gb[self.pop], 0.0)

    @property
    def monitored(self) -> Uptime:
        """The up-intervals as monitoring sees them."""
        return self.uptime if self.believed is None else self.believed

    def name(self, source: int) -> str:
        return self.names[source] if self.names is not None else f"source {source}"

    def _shape_problems(self) -> list[str]:
        n = self.n_sources
        vectors = ("location", "uplink_bps", "downlink_bps", "storage_bytes", "egress_cost_per_gb", "uptime")
        given = [name for name in ("names", "uplinks", "believed") if getattr(self, name) is not None]
        problems = [
            f"{name} has {len(getattr(self, name))} entries for {n} sources."
            for name in (*vectors, *given)
            if len(getattr(self, name)) != n
        ]
        for name in ("rtt_ms", "distance_km", "reach"):
            shape = getattr(self, name).shape
            if shape != (self.n_locations, n):
                problems.append(f"{name} has shape {shape}, expected {(self.n_locations, n)}.")
        return problems

    def _value_problems(self) -> list[str]:
        problems = []
        if not np.all(np.isin(self.tier, (1, 2, 3))):
            problems.append(f"Expected tiers 1, 2 or 3, got {sorted(set(self.tier.tolist()))}.")
        if np.any((self.location < 0) | (self.location >= self.n_locations)):
            problems.append(f"Expected source locations in [0, {self.n_locations}).")
        if np.any(self.segment_bytes <= 0):
            problems.append(f"Expected segment_bytes > 0, got {int(self.segment_bytes.min())}.")
        for name in ("uplink_bps", "downlink_bps", "storage_bytes", "egress_cost_per_gb", "distance_km"):
            if np.any(~(getattr(self, name) >= 0)):
                problems.append(f"Expected {name} >= 0, got {getattr(self, name).min()}.")
        if np.any(~np.isfinite(self.rtt_ms)) or np.any(self.rtt_ms < 0):
            problems.append("Expected finite rtt_ms >= 0; close what cannot be reached in `reach` instead.")
        if not self.reward_per_gb >= 0:
            problems.append(f"Expected reward_per_gb >= 0, got {self.reward_per_gb!r}.")
        return problems


@dataclass(frozen=True)
class SegmentRequests:
    """Requests for segments in time order; a part of a trace, as long or as short as fits in memory.

    Attributes:
        ts_us: microseconds since 1970 UTC, non-decreasing. (requests,)
        segment: segment code. (requests,)
        location: code of the viewer's location. (requests,)
        bytes: bytes wanted, 1 up to the segment's size. (requests,)
    """

    ts_us: Int64
    segment: Int32
    location: Int32
    bytes: Int64

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("ts_us", "segment", "location", "bytes")}
        if len(set(lengths.values())) > 1:
            raise ReplayError(f"Columns of requests differ in length: {lengths}.")
        late = np.flatnonzero(np.diff(self.ts_us) < 0)
        if len(late):
            row = int(late[0]) + 1
            raise ReplayError(
                f"Requests must be in time order; row {row} is at {int(self.ts_us[row])} us, "
                f"after {int(self.ts_us[row - 1])} us. Sort them by time first."
            )

    def __len__(self) -> int:
        return len(self.ts_us)

    def rows(self, first: int, last: int) -> SegmentRequests:
        part = slice(first, last)
        return SegmentRequests(self.ts_us[part], self.segment[part], self.location[part], self.bytes[part])

    def between(self, start_us: int, end_us: int) -> SegmentRequests:
        """The requests in [start, end)."""
        first, last = np.searchsorted(self.ts_us, [start_us, end_us], side="left")
        return self.rows(int(first), int(last))

    def check(self, world: ReplayWorld) -> None:
        """Raises a ReplayError where a code or a size does not fit the world."""
        if len(self) == 0:
            return
        problems = []
        for name, codes, limit in (
            ("segment", self.segment, world.n_segments),
            ("location", self.location, world.n_locations),
        ):
            if codes.min() < 0 or codes.max() >= limit:
                problems.append(f"Expected {name} in [0, {limit}), got {codes.min()} to {codes.max()}.")
        if not problems:
            wrong = np.flatnonzero((self.bytes < 1) | (self.bytes > world.segment_bytes[self.segment]))
            if len(wrong):
                row = int(wrong[0])
                size = int(world.segment_bytes[self.segment[row]])
                problems.append(f"Row {row} wants {int(self.bytes[row])} bytes of a segment of {size}.")
        if problems:
            raise ReplayError("The requests do not fit the world:", problems)


@dataclass(frozen=True)
class Holdings:
    """The copies that a plan wants held from `start_us` until the next plan, in the order of their pushes.

    What was held before and is not named here is removed; what is named and not held is pushed from tier 1. Rows of
    POPs are ignored, because tier 1 holds everything.

    Attributes:
        start_us: when the plan takes effect.
        segment: segment code of each copy. (copies,)
        source: the source that should hold it. (copies,)
        survival: forecast probability that the source is up when asked; None means 1. (copies,)
        repair: whether a push of the copy counts as a repair; None means no. (copies,)
        forecast_segment: segments of the pairs with forecast demand. (pairs,)
        forecast_location: locations of these pairs. (pairs,)
        eligible: sources that may serve in this epoch; None means all. (sources,)
        names: ids of the sources that the codes stand for, to be compared with the world's; None trusts them. (sources,)
    """

    start_us: int
    segment: Int32
    source: Int32
    survival: Float64 | None = None
    repair: Bool | None = None
    forecast_segment: Int32 | None = None
    forecast_location: Int32 | None = None
    eligible: Bool | None = None
    names: tuple[str, ...] | None = None

    def check(self, world: ReplayWorld) -> None:
        """Raises a ReplayError with every mistake: another world, codes, lengths, copies named twice, storage exceeded."""
        problems = (
            self._name_problems(world)
            or self._length_problems(world)
            or self._code_problems(world)
            or self._storage_problems(world)
        )
        if problems:
            raise ReplayError(f"The plan of {self.start_us} us cannot be carried out:", problems)

    def _name_problems(self, world: ReplayWorld) -> list[str]:
        if self.names is None or world.names is None or self.names == world.names:
            return []
        if len(self.names) != len(world.names):
            return [
                f"It is a plan of another world: of {len(self.names)} sources, where this one has {len(world.names)}."
            ]
        other = [at for at, (mine, theirs) in enumerate(zip(self.names, world.names, strict=True)) if mine != theirs]
        at = other[0]
        return [
            f"It is a plan of another world: {len(other)} sources differ, the first of them source {at}, "
            f"{self.names[at]!r} in the plan and {world.names[at]!r} here."
        ]

    def _length_problems(self, world: ReplayWorld) -> list[str]:
        expected = {"source": len(self.segment), "survival": len(self.segment), "repair": len(self.segment)}
        expected["eligible"] = world.n_sources
        expected["forecast_location"] = 0 if self.forecast_segment is None else len(self.forecast_segment)
        problems = []
        for name, length in expected.items():
            value = getattr(self, name)
            if value is not None and len(value) != length:
                problems.append(f"{name} has {len(value)} entries, expected {length}.")
        if (self.forecast_segment is None) != (self.forecast_location is None):
            problems.append("Give both forecast_segment and forecast_location, or neither.")
        return problems

    def _code_problems(self, world: ReplayWorld) -> list[str]:
        problems = []
        for name, limit in (
            ("segment", world.n_segments),
            ("source", world.n_sources),
            ("forecast_segment", world.n_segments),
            ("forecast_location", world.n_locations),
        ):
            codes = getattr(self, name)
            if codes is not None and len(codes) and (codes.min() < 0 or codes.max() >= limit):
                problems.append(
                    f"Expected {name} in [0, {limit}), got {codes.min()} to {codes.max()}: is it a plan of another world?"
                )
        if self.survival is not None and np.any(~((self.survival >= 0) & (self.survival <= 1))):
            problems.append("Expected survival in [0, 1].")
        return problems

    def _storage_problems(self, world: ReplayWorld) -> list[str]:
        keys = self.segment.astype(np.int64) * world.n_sources + self.source
        values, counts = np.unique(keys, return_counts=True)
        problems = [
            f"Segment {int(key) // world.n_sources} is named twice for {world.name(int(key) % world.n_sources)}."
            for key in values[counts > 1][:5]
        ]
        used = np.zeros(world.n_sources, dtype=np.int64)
        np.add.at(used, self.source, world.segment_bytes[self.segment])
        over = np.flatnonzero((used > world.storage_bytes) & (world.tier != 1))
        problems += [
            f"{world.name(int(n))} would hold {int(used[n])} bytes, {int(used[n] - world.storage_bytes[n])} more "
            f"than its {int(world.storage_bytes[n])}."
            for n in over[:20]
        ]
        return problems
