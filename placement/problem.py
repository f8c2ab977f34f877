"""An instance of the placement programme: what to place, where it may go, who will ask, and what everything costs.

An instance is valid by construction: `PlacementProblem(...)` raises `ProblemError` with every mistake at once, so that
the solvers and the judge never meet a NaN, an unknown code or a negative size. Zero demand, zero storage, zero uplink
and ineligible sources are all fine. Money is in millidollars (m$), sizes in bytes, prices in m$ per GB (10^9 bytes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from placement.errors import ProblemError
from placement.keys import find_keys
from placement.settings import PlacementSettings
from placement.validity import mistakes

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.object_]

__all__ = ["Demand", "PlacementProblem", "PlacementSettings", "Segments", "Sources"]

BYTES_PER_GB = 1e9
CREDIT_LIMIT = 13.8
"""Most that one copy counts towards availability: nobody is believed beyond six nines, since -ln(1e-6) = 13.8."""

HEAD_SHARE, TORSO_SHARE = 0.5, 0.9
"""Shares of all requests that the head holds, and head and torso together; the rest is the tail."""
COPIES_OF_EVERYTHING = 4.0
"""A hard requirement is worth more than serving all from the origin and pushing so many copies of every segment."""


@dataclass(frozen=True)
class Segments:
    """What is placed: fixed-size parts of contents. All arrays are (S,)."""

    content: Ids
    segment: Int32
    bytes: Int64

    def __len__(self) -> int:
        return len(self.bytes)

    def name(self, code: int) -> str:
        return f"{self.content[code]}#{self.segment[code]}"


@dataclass(frozen=True)
class Sources:
    """Where segments may be held: POPs (tier 1) and nodes (tiers 2 and 3). All arrays are (N,).

    Attributes:
        source: ids.
        tier: 1, 2 or 3.
        location: code of the location the source is in; -1 where it is in none of them.
        network: code of the failure domain; -1 for a domain of its own (POPs).
        storage_bytes: room for segments.
        uplink_bytes: bytes that can be sent over the horizon if the source stays up; infinity for no limit.
        survival: probability of being up when a request of the horizon comes.
        egress_cost_per_gb: what the CDN bills for a GB that leaves here, in dollars; 0 for nodes, whose owners'
            reward is a setting.
        eligible: whether consent and condition allow holding and serving anything.
        lat: degrees.
        lon: degrees.
    """

    source: Ids
    tier: Int8
    location: Int32
    network: Int32
    storage_bytes: Int64
    uplink_bytes: Float64
    survival: Float64
    egress_cost_per_gb: Float64
    eligible: Bool
    lat: Float64
    lon: Float64

    def __len__(self) -> int:
        return len(self.tier)


@dataclass(frozen=True)
class Demand:
    """Expected requests over the horizon, one row for each (segment, location) with any. All arrays are (D,).

    `dispersion` alpha says how far requests scatter about their mean m: Var = m + alpha m^2; none is 0, the Poisson law.
    """

    segment: Int32
    location: Int32
    requests: Float64
    dispersion: Float64 | None = None

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True)
class PlacementProblem:
    """One instance. Codes are indices into the instance's own arrays.

    Attributes:
        segments: (S,)
        locations: ids. (L,)
        sources: (N,)
        demand: (D,)
        rtt_ms: round-trip time from a location to a source, in milliseconds. (L, N)
        reach: whether a source may serve a location. (L, N)
        current_segment: what is held now: segment codes. (C,)
        current_source: and where: source codes. (C,)
        settings: prices and limits.
    """

    segments: Segments
    locations: Ids
    sources: Sources
    demand: Demand
    rtt_ms: Float32
    reach: Bool
    current_segment: Int32
    current_source: Int32
    settings: PlacementSettings = field(default_factory=PlacementSettings)

    def __post_init__(self) -> None:
        problems = mistakes(self)
        if problems:
            raise ProblemError("The placement problem is not valid:", problems)

    @cached_property
    def is_pop(self) -> Bool:
        return np.asarray(self.sources.tier == 1)

    @cached_property
    def standing(self) -> Bool:
        """Sources that hold every segment without being asked to: POPs, when they hold everything, (N,)."""
        everything = np.bool_(self.settings.pops_hold_everything)
        return self.is_pop & self.sources.eligible & everything

    @cached_property
    def sure(self) -> Bool:
        """Standing sources that never fail and have no uplink limit: they serve whatever others leave, (N,)."""
        return self.standing & (self.sources.survival >= 1) & ~np.isfinite(self.usable_uplink_bytes)

    @cached_property
    def can_serve(self) -> Bool:
        """Reach, for sources that are eligible and may be up at all, (L, N)."""
        usable = self.sources.eligible & (self.sources.survival > 0) & (self.usable_uplink_bytes > 0)
        return np.ascontiguousarray(self.reach & usable[None, :])

    @cached_property
    def storage_limit_bytes(self) -> Float64:
        """Room that a plan may fill at each source, (N,)."""
        share = np.asarray(self.settings.storage_share_by_tier)[self.sources.tier - 1]
        return np.asarray(np.floor(self.sources.storage_bytes * share), dtype=np.float64)

    @cached_property
    def usable_uplink_bytes(self) -> Float64:
        """Bytes each source is expected to be able to send: uplink, less headroom, times survival, (N,)."""
        share = np.asarray(self.settings.uplink_share_by_tier)[self.sources.tier - 1]
        scale = share * self.sources.survival
        return np.where(scale > 0, self.sources.uplink_bytes * np.where(scale > 0, scale, 1.0), 0.0)

    @cached_property
    def request_price(self) -> Float64:
        """Waiting, in m$ for each request that a source serves a location, failed tries included, (L, N).

        A source that is up with probability p fails (1 - p)/p times for each request it serves.
        """
        survival = np.maximum(self.sources.survival, 1e-9)
        waiting_ms = self.rtt_ms + self.settings.failure_detection_ms * ((1 - survival) / survival)[None, :]
        return np.ascontiguousarray(waiting_ms * self.settings.latency_millidollars_per_request_second / 1e3)

    @cached_property
    def byte_price(self) -> Float64:
        """Egress and reward, in m$ per byte that a source serves, (N,)."""
        reward = np.where(self.is_pop, 0.0, self.settings.reward_millidollars_per_gb)
        return (self.sources.egress_cost_per_gb * 1e3 + reward) / BYTES_PER_GB

    @cached_property
    def origin_price(self) -> Float64:
        """Price of a request that the origin serves, in m$, (D,)."""
        settings = self.settings
        waiting = settings.origin_rtt_ms * settings.latency_millidollars_per_request_second / 1e3
        egress = settings.origin_egress_millidollars_per_gb / BYTES_PER_GB
        return waiting + egress * self.demand_segment_bytes

    @cached_property
    def push_price(self) -> Float64:
        """Price of a byte pushed to a source: the egress of its nearest POP, or of the origin, in m$, (N,)."""
        settings, sources = self.settings, self.sources
        egress = np.full(len(sources), settings.origin_egress_millidollars_per_gb)
        pops = np.flatnonzero(self.is_pop & sources.eligible)
        if len(pops):
            rtt = self.rtt_ms[:, pops] if len(self.locations) else np.zeros((1, len(pops)))
            nearest = pops[np.argmin(rtt, axis=1)][np.maximum(sources.location, 0)]
            egress = np.where(self.is_pop, egress, sources.egress_cost_per_gb[nearest] * 1e3)
        return (egress + settings.push_handling_millidollars_per_gb) / BYTES_PER_GB

    @cached_property
    def demand_segment_bytes(self) -> Float64:
        """Size of the segment that each demand row asks for, (D,)."""
        return self.segments.bytes[self.demand.segment].astype(np.float64)

    @cached_property
    def dispersion(self) -> Float64:
        """Of each demand row, (D,)."""
        given = self.demand.dispersion
        return np.zeros(len(self.demand)) if given is None else given

    @cached_property
    def content_code(self) -> Int64:
        """Equal numbers for segments of one content, (S,)."""
        seen: dict[object, int] = {}
        return np.array([seen.setdefault(key, len(seen)) for key in self.segments.content.tolist()], dtype=np.int64)

    @cached_property
    def credit(self) -> Float64:
        """What a copy counts towards availability, -ln(1 - survival), (N,)."""
        loss = np.maximum(1.0 - self.sources.survival, np.exp(-CREDIT_LIMIT))
        return np.where(self.sources.eligible, -np.log(loss), 0.0)

    @cached_property
    def fallback_price(self) -> float:
        """Price of a segment that falls back to the origin, in m$; where that is forbidden, above any plan's whole cost."""
        settings = self.settings
        if settings.allow_origin_fallback:
            return settings.origin_fallback_millidollars
        fill = COPIES_OF_EVERYTHING * float(self.segments.bytes.sum()) * float(self.push_price.max(initial=0.0))
        return settings.origin_fallback_millidollars + float(self.demand.requests @ self.origin_price) + fill

    @cached_property
    def popularity(self) -> Int8:
        """0 for the head, which holds the first half of all requests, 1 for the torso, up to 90 %, 2 for the tail, (S,)."""
        demand, n_segments = self.demand, len(self.segments)
        requests = np.bincount(demand.segment, weights=demand.requests, minlength=n_segments)
        order = np.argsort(-requests, kind="stable")
        before = np.ones(n_segments)
        if requests.sum() > 0:
            before[order] = (np.cumsum(requests[order]) - requests[order]) / requests.sum()
        quiet = requests <= 0
        return np.where(quiet, 2, np.searchsorted([HEAD_SHARE, TORSO_SHARE], before, side="right")).astype(np.int8)

    @cached_property
    def availability_target(self) -> Float64:
        """Least probability of a live copy, (S,)."""
        targets = self.settings.availability_target_by_popularity or (self.settings.availability_target,) * 3
        return np.asarray(targets, dtype=np.float64)[self.popularity]

    @cached_property
    def required_credit(self) -> Float64:
        """Credit that copies must add up to for the availability target, (S,)."""
        return np.asarray(-np.log(1.0 - self.availability_target))

    @cached_property
    def domain(self) -> Int64:
        """Failure domain of each source; sources without a network are a domain of their own, (N,)."""
        n = len(self.sources)
        own = np.int64(self.sources.network.max(initial=-1)) + 1 + np.arange(n)
        return np.where(self.sources.network >= 0, self.sources.network.astype(np.int64), own)

    @cached_property
    def movement_limit_bytes(self) -> float:
        budget = self.settings.movement_budget_bytes
        return float("inf") if budget is None else float(budget)

    @cached_property
    def movement_limits_bytes(self) -> Float64:
        """Most bytes to push in all, to each network, to the nodes of each location, and where no budget holds, (B,)."""
        settings, networks = self.settings, 1 + int(self.sources.network.max(initial=-1))
        budgets = (settings.movement_budget_bytes_per_network, settings.movement_budget_bytes_per_location)
        into = [np.inf if budget is None else float(budget) for budget in budgets]
        counts = [1, networks, len(self.locations), 1]
        return np.repeat([self.movement_limit_bytes, *into, np.inf], counts)

    @property
    def first_location_slot(self) -> int:
        """Where the budgets of locations begin in `movement_limits_bytes`."""
        return len(self.movement_limits_bytes) - 1 - len(self.locations)

    @cached_property
    def movement_slots(self) -> Int64:
        """The budgets of `movement_limits_bytes` that a push to each source is taken from, (N, 3).

        Of POPs, and of nodes in no network or no location, the last one, which is endless.
        """
        sources, endless = self.sources, len(self.movement_limits_bytes) - 1
        network = np.where(sources.network >= 0, 1 + sources.network, endless)
        located = (sources.location >= 0) & ~self.is_pop
        location = np.where(located, self.first_location_slot + sources.location, endless)
        return np.ascontiguousarray(np.column_stack([np.zeros(len(network)), network, location]).astype(np.int64))

    @cached_property
    def unplaceable(self) -> Bool:
        """Segments that are larger than the room of every eligible node, (S,)."""
        mesh = self.sources.eligible & ~self.is_pop
        largest = float(self.storage_limit_bytes[mesh].max(initial=0.0))
        return self.segments.bytes > largest

    @cached_property
    def current_keys(self) -> Int64:
        """Sorted keys segment * N + source of the copies held now."""
        return np.sort(self.copy_keys(self.current_segment, self.current_source))

    def cheapest_of(self, which: Bool) -> Float64:
        """Price of each row's request at the cheapest of these sources in reach, or the origin, in m$, (D,)."""
        price, location = self.origin_price.copy(), self.demand.location
        for n in np.flatnonzero(which):
            here = self.request_price[location, n] + self.byte_price[n] * self.demand_segment_bytes
            price = np.where(self.can_serve[location, n], np.minimum(price, here), price)
        return np.asarray(price)

    def copy_keys(self, segment: Int32, source: Int32) -> Int64:
        """One number for each (segment, source) pair: segment * N + source."""
        return np.asarray(segment.astype(np.int64) * max(1, len(self.sources)) + source)

    def by_segment(self, keys: Int64) -> tuple[Int64, Int32]:
        """Of sorted `copy_keys`: where the copies of each segment begin, (S + 1,), and their sources, (C,)."""
        segment, source = np.divmod(keys, max(1, len(self.sources)))
        return np.searchsorted(segment, np.arange(len(self.segments) + 1)), source.astype(np.int32)

    def is_current(self, segment: Int32, source: Int32) -> Bool:
        """Whether each (segment, source) pair is held now."""
        return find_keys(self.current_keys, self.copy_keys(segment, source))[1]

    def serving_price(self, row: Int64, source: Int32) -> Float64:
        """Price of one request of demand row `row` served by `source`, in m$."""
        waiting = self.request_price[self.demand.location[row], source]
        return waiting + self.byte_price[source] * self.demand_segment_bytes[row]
