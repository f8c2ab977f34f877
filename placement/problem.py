"""An instance of the placement programme: what to place, where it may go, who will ask, and what everything costs.

An instance is valid by construction: `PlacementProblem(...)` raises `ProblemError` with every mistake at once, so that
the solvers and the judge never meet a NaN, an unknown code or a negative size. Zero demand, zero storage, zero uplink
and ineligible sources are all fine. Money is in millidollars (m$), sizes in bytes, prices in m$ per GB (10^9 bytes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from placement.errors import ProblemError

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.object_]

BYTES_PER_GB = 1e9
CREDIT_LIMIT = 13.8
"""Most that one copy counts towards availability: nobody is believed beyond six nines, since -ln(1e-6) = 13.8."""


@dataclass(frozen=True)
class PlacementSettings:
    """Prices, limits and solver choices of one placement."""

    latency_millidollars_per_request_second: float = 0.1
    """What one second of waiting, by one request, is worth, in millidollars."""
    reward_millidollars_per_gb: float = 4.0
    """Paid to the owner of a node for each GB it serves, on top of the source's own egress cost."""
    push_handling_millidollars_per_gb: float = 0.0
    """Price of pushing a GB to a source, on top of the egress of the POP (or origin) that sends it."""
    origin_egress_millidollars_per_gb: float = 50.0
    """Price of a GB served by the origin, or sent by it to fill a POP."""
    origin_rtt_ms: float = 200.0
    """Round-trip time to the origin from anywhere, in milliseconds."""
    origin_fallback_millidollars: float = 100.0
    """Penalty for each segment that falls back to the origin: misses its availability target or its tier-1 copy."""
    failure_detection_ms: float = 250.0
    """Time lost when a chosen source turns out to be gone, until the next source answers, in milliseconds."""
    movement_budget_bytes: int | None = None
    """Most bytes that one plan may push to sources that do not hold them; null for no limit."""
    availability_target: float = 0.999
    """Least probability that a live copy of each segment exists over the horizon, in [0, 1)."""
    require_tier_one_copy: bool = True
    """Whether each segment needs a copy on a POP (or else falls back to the origin)."""
    allow_origin_fallback: bool = True
    """Whether missing the two requirements above is only penalised; false makes them hard."""
    pops_hold_everything: bool = True
    """Whether POPs are caches of unlimited storage, so that every segment is on every eligible POP already."""
    max_copies_per_network: int = 2
    """Most copies of one segment inside one network (failure domain)."""
    max_copies_by_tier: tuple[int, ...] | None = None
    """Most copies of one segment on tiers 1, 2 and 3; null for no limit."""
    storage_share_by_tier: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Share of the storage of a source of tier 1, 2 and 3 that a plan may fill."""
    uplink_share_by_tier: tuple[float, ...] = (1.0, 0.9, 0.7)
    """Share of the uplink of a source of tier 1, 2 and 3 that a plan may count on: the rest is headroom."""
    minimum_improvement_share: float = 0.001
    """A plan that moves bytes replaces the one that moves none only if it saves at least this share of the cost."""
    candidates_per_location: int = 48
    """Nodes with room left that the greedy looks at for each location, nearest first."""
    solver: Literal["highs", "cp-sat", "gscip"] = "highs"
    """Solver of the whole programme: HiGHS, CP-SAT or SCIP."""
    whole_programme_arcs: int = 60_000
    """Largest instance, in (segment, location, source) arcs, that is handed to the solver as one programme."""
    exact_flow_arcs: int = 300_000
    """Largest instance, in arcs over held copies, whose shares are solved exactly as a minimum-cost flow."""
    relative_gap: float = 0.005
    """Gap at which a plan counts as optimal and the solver may stop."""
    node_limit: int = 2_000
    """Branch-and-bound nodes after which the solver stops: the same on every machine, unlike a time."""
    time_limit_seconds: float = 60.0
    """Guard on the solver's time; a plan comes back in any case."""
    bound_iterations: int = 60
    """Steps of the price search that proves the lower bound of instances too large for the solver."""

    def __post_init__(self) -> None:
        problems = _setting_problems(self)
        if problems:
            raise ProblemError("The placement settings cannot be used:", problems)


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
    """Expected requests over the horizon, one row for each (segment, location) with any. All arrays are (D,)."""

    segment: Int32
    location: Int32
    requests: Float64

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
        problems = _problems(self)
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
    def credit(self) -> Float64:
        """What a copy counts towards availability, -ln(1 - survival), (N,)."""
        loss = np.maximum(1.0 - self.sources.survival, np.exp(-CREDIT_LIMIT))
        return np.where(self.sources.eligible, -np.log(loss), 0.0)

    @cached_property
    def required_credit(self) -> float:
        return float(-np.log(1.0 - self.settings.availability_target))

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
    def unplaceable(self) -> Bool:
        """Segments that are larger than the room of every eligible node, (S,)."""
        mesh = self.sources.eligible & ~self.is_pop
        largest = float(self.storage_limit_bytes[mesh].max(initial=0.0))
        return self.segments.bytes > largest

    @cached_property
    def current_keys(self) -> Int64:
        """Sorted keys segment * N + source of the copies held now."""
        keys = self.current_segment.astype(np.int64) * max(1, len(self.sources)) + self.current_source
        return np.sort(keys)

    def is_current(self, segment: Int32, source: Int32) -> Bool:
        """Whether each (segment, source) pair is held now."""
        keys = segment.astype(np.int64) * max(1, len(self.sources)) + source
        at = np.searchsorted(self.current_keys, keys)
        found = np.zeros(len(keys), dtype=np.bool_)
        inside = at < len(self.current_keys)
        found[inside] = self.current_keys[at[inside]] == keys[inside]
        return found

    def serving_price(self, row: Int64, source: Int32) -> Float64:
        """Price of one request of demand row `row` served by `source`, in m$."""
        waiting = self.request_price[self.demand.location[row], source]
        return waiting + self.byte_price[source] * self.demand_segment_bytes[row]


def _setting_problems(settings: PlacementSettings) -> list[str]:
    nonnegative = [name for name in _FLOATS if not 0 <= getattr(settings, name) < float("inf")]
    problems = [f"Expected {name} >= 0 and finite, got {getattr(settings, name)!r}." for name in nonnegative]
    if not 0 <= settings.availability_target < 1:
        problems.append(f"Expected availability_target in [0, 1), got {settings.availability_target!r}.")
    for name in ("max_copies_per_network", "candidates_per_location"):
        if getattr(settings, name) < 1:
            problems.append(f"Expected {name} >= 1, got {getattr(settings, name)!r}.")
    for name in ("storage_share_by_tier", "uplink_share_by_tier"):
        value = getattr(settings, name)
        if len(value) != 3 or not all(0 <= share <= 1 for share in value):
            problems.append(f"Expected {name} to be three shares in [0, 1], got {value!r}.")
    caps = settings.max_copies_by_tier
    if caps is not None and (len(caps) != 3 or any(cap < 0 for cap in caps)):
        problems.append(f"Expected max_copies_by_tier to be three numbers >= 0 or null, got {caps!r}.")
    if settings.movement_budget_bytes is not None and settings.movement_budget_bytes < 0:
        problems.append(f"Expected movement_budget_bytes >= 0 or null, got {settings.movement_budget_bytes!r}.")
    if settings.solver not in ("highs", "cp-sat", "gscip"):
        problems.append(f"Expected solver to be 'highs', 'cp-sat' or 'gscip', got {settings.solver!r}.")
    return problems


_FLOATS = (
    "latency_millidollars_per_request_second",
    "reward_millidollars_per_gb",
    "push_handling_millidollars_per_gb",
    "origin_egress_millidollars_per_gb",
    "origin_rtt_ms",
    "origin_fallback_millidollars",
    "failure_detection_ms",
    "minimum_improvement_share",
    "whole_programme_arcs",
    "exact_flow_arcs",
    "relative_gap",
    "node_limit",
    "time_limit_seconds",
    "bound_iterations",
)


def _problems(problem: PlacementProblem) -> list[str]:
    shapes = _shape_problems(problem)
    if shapes:
        return shapes  # values cannot be judged while the shapes disagree
    return _code_problems(problem) + _value_problems(problem) + _duplicate_problems(problem)


def _shape_problems(problem: PlacementProblem) -> list[str]:
    n_locations, n_sources = len(problem.locations), len(problem.sources)
    problems = []
    for owner, length in (
        ("segments", len(problem.segments)),
        ("sources", n_sources),
        ("demand", len(problem.demand)),
    ):
        for name, value in vars(getattr(problem, owner)).items():
            if np.shape(value) != (length,):
                problems.append(f"{owner}.{name} has shape {np.shape(value)}, expected ({length},).")
    for name in ("rtt_ms", "reach"):
        if getattr(problem, name).shape != (n_locations, n_sources):
            shape = getattr(problem, name).shape
            problems.append(f"{name} has shape {shape}, expected ({n_locations}, {n_sources}).")
    if problem.current_segment.shape != problem.current_source.shape:
        shapes = f"{problem.current_segment.shape} and {problem.current_source.shape}"
        problems.append(f"current_segment and current_source have shapes {shapes}; expected them equal.")
    return problems


def _code_problems(problem: PlacementProblem) -> list[str]:
    n_segments, n_locations, n_sources = len(problem.segments), len(problem.locations), len(problem.sources)
    n_networks = np.iinfo(np.int32).max
    columns = (
        ("demand.segment", problem.demand.segment, 0, n_segments),
        ("demand.location", problem.demand.location, 0, n_locations),
        ("current_segment", problem.current_segment, 0, n_segments),
        ("current_source", problem.current_source, 0, n_sources),
        ("sources.location", problem.sources.location, -1, n_locations),
        ("sources.network", problem.sources.network, -1, n_networks),
        ("sources.tier", problem.sources.tier, 1, 4),
    )
    problems = []
    for name, codes, low, high in columns:
        wrong = np.flatnonzero((codes < low) | (codes >= high))
        if len(wrong):
            shown = f"{name}[{wrong[0]}] is {int(codes[wrong[0]])!r} ({len(wrong)} such)"
            problems.append(f"{shown}; allowed are {low} to {high - 1}.")
    return problems


def _value_problems(problem: PlacementProblem) -> list[str]:
    segments, sources = problem.segments, problem.sources
    inf = float("inf")
    columns: tuple[tuple[str, npt.NDArray[np.generic], float, float, str], ...] = (
        ("segments.bytes", segments.bytes, 1, 2.0**62, "at least 1 byte"),
        ("sources.storage_bytes", sources.storage_bytes, 0, 2.0**62, "0 or more"),
        ("sources.uplink_bytes", sources.uplink_bytes, 0, inf, "0 or more, or infinity"),
        ("sources.survival", sources.survival, 0, 1, "a probability in [0, 1]"),
        ("sources.egress_cost_per_gb", sources.egress_cost_per_gb, 0, 1e9, "0 or more dollars"),
        ("sources.lat", sources.lat, -90, 90, "degrees in [-90, 90]"),
        ("sources.lon", sources.lon, -180, 180, "degrees in [-180, 180]"),
        ("demand.requests", problem.demand.requests, 0, 1e18, "0 or more, finite"),
        ("rtt_ms", problem.rtt_ms, 0, 1e9, "0 or more milliseconds"),
    )
    problems = []
    for name, values, low, high, allowed in columns:
        flat = np.ravel(values)
        wrong = np.flatnonzero(~((flat >= low) & (flat <= high)))  # a NaN fails both comparisons
        if len(wrong):
            shown = f"{name}[{wrong[0]}] is {flat[wrong[0]].item()!r} ({len(wrong)} such)"
            problems.append(f"{shown}; expected {allowed}.")
    return problems


def _duplicate_problems(problem: PlacementProblem) -> list[str]:
    columns = (
        ("segments", list(zip(problem.segments.content, problem.segments.segment.tolist(), strict=True))),
        ("sources", problem.sources.source.tolist()),
        ("locations", problem.locations.tolist()),
        ("demand rows", list(zip(problem.demand.segment.tolist(), problem.demand.location.tolist(), strict=True))),
        ("current copies", list(zip(problem.current_segment.tolist(), problem.current_source.tolist(), strict=True))),
    )
    problems = []
    for name, keys in columns:
        if len(set(keys)) < len(keys):
            seen: set[object] = set()
            first = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            problems.append(f"The {name} hold {first!r} more than once; expected each once.")
    return problems
