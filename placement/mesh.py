"""The replay's state as a few arrays of records, which compiled code passes on and changes at no cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from placement.errors import ReplayError
from placement.problem import Float64, Int32, Int64
from placement.routing import Coefficients, RoutingSettings
from placement.trace import ReplayWorld
from placement.uptime import ALWAYS_US, NEVER_US

Records = npt.NDArray[Any]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compiles a function that allocates nothing; without numba's reference counts it is five times as fast."""
    compiled: _Function = njit(cache=True, _nrt=False)(function)  # type: ignore[call-overload]  # not in the stubs
    return compiled


@dataclass(frozen=True)
class ReplaySettings:
    """How the mesh behaves in a replay; the same for every row of a comparison."""

    detection_s: float = 30.0
    """Seconds until monitoring notices that a node went away."""
    retry_timeout_ms: float = 500.0
    """What a request to a source that sends nothing costs before the next one is asked, in milliseconds."""
    max_wait_s: float = 0.5
    """Longest queue at an uplink that a request joins, in seconds; beyond it the node is overloaded."""
    max_attempts: int = 2
    """Nodes asked in turn before tier 1 serves."""
    health_half_life_s: float = 3600.0
    """Half-life of failures in a source's health, in seconds."""
    gone_threshold: float = 0.5
    """A node that is gone counts as forecast when the plan gave it a survival below this."""
    tier1_bps: float = 50_000_000.0
    """Speed of a tier-1 stream to a viewer, in bit/s."""
    keeps_copies: bool = True
    """Whether devices that come back still hold what they held."""
    tier1_competes: bool = False
    """Whether the POP is scored like a node and wins where its score is higher."""
    latency_tolerance_share: float | None = None
    """A node is asked only if its round trip and queue take at most this share longer than the round trip to the POP;
    0.05 for 5 %. Null asks however late the first byte would be."""
    latency_tolerance_ms: float = 0.0
    """Milliseconds that the tolerance allows on top of the share."""
    deadline_s: float | None = None
    """A transfer that has not ended this many seconds after tier 1 alone would have sent it all is broken off, and tier 1
    sends the rest. Null waits for the last byte."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} >= 0, got {getattr(self, name)!r}."
            for name in ("detection_s", "retry_timeout_ms", "max_wait_s", "latency_tolerance_ms")
            if not 0 <= getattr(self, name) < float("inf")
        ]
        problems += [
            f"Expected {name} >= 0 or null, got {getattr(self, name)!r}."
            for name in ("latency_tolerance_share", "deadline_s")
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < float("inf")
        ]
        problems += [
            f"Expected {name} > 0, got {getattr(self, name)!r}."
            for name in ("health_half_life_s", "tier1_bps")
            if not getattr(self, name) > 0
        ]
        if self.max_attempts < 1:
            problems.append(f"Expected max_attempts >= 1, got {self.max_attempts!r}.")
        if not 0 <= self.gone_threshold <= 1:
            problems.append(f"Expected gone_threshold in [0, 1], got {self.gone_threshold!r}.")
        if problems:
            raise ReplayError("The replay settings cannot be used:", problems)


SOURCE = np.dtype(
    [
        # first what every candidate is asked, in one cache line
        ("eligible", np.bool_),
        ("row", np.int64),  # first up-interval that ends after the latest request seen
        ("last_row", np.int64),  # where the source's up-intervals end
        ("busy_us", np.int64),  # when the uplink's queue is empty
        ("uplink_bps", np.float64),  # at the latest request seen, and until rate_until_us
        ("rate_until_us", np.int64),
        ("failures", np.float64),  # recent failures, decayed to failure_us
        ("pending", np.int64),  # failures that will be seen at pending_us, when the node goes
        ("believed_bps", np.float64),  # what the router takes for the uplink
        ("pending_us", np.int64),
        ("failure_us", np.int64),
        ("known_gone_us", np.int64),  # the latest departure that a failure told
        ("first_row", np.int64),
        ("rate_row", np.int64),  # that piece of uplink, where there is a schedule
        # of a monitor that may be wrong: where the believed up-intervals lie, and what requests told
        ("believed_row", np.int64),  # first one that ends after the latest request seen
        ("last_believed_row", np.int64),
        ("first_believed_row", np.int64),
        ("failed_us", np.int64),  # the latest failure
        ("ask_again_us", np.int64),  # until then it counts for more than the monitor
        ("location", np.int64),
        ("tier", np.int64),
        ("downlink_bps", np.float64),
        ("storage_bytes", np.int64),
        ("downlink_us", np.int64),  # when the downlink's queue is empty
        ("sent_bytes", np.int64),
        ("held_bytes", np.int64),  # with head and tail: of a reactive cache
        ("head", np.int64),
        ("tail", np.int64),
    ],
    align=True,
)
PATH = np.dtype([("rtt_ms", np.float32), ("distance_km", np.float32), ("reach", np.bool_)], align=True)
# bps: of a piece of uplink; not read of up-intervals
INTERVAL = np.dtype([("start_us", np.int64), ("end_us", np.int64), ("bps", np.float64)])
COPY = np.dtype(
    [
        ("ready_us", np.int64),
        ("survival", np.float64),
        ("served_bytes", np.int64),
        ("segment", np.int32),
        ("source", np.int32),
    ],
    align=True,
)
CANDIDATE = np.dtype([("slot", np.int64), ("score", np.float64), ("free_bps", np.float64)])


class Rules(NamedTuple):
    """Settings as numbers."""

    detection_us: int
    retry_us: int
    max_wait_us: int
    max_attempts: int
    health_half_life_us: float
    gone_threshold: float
    keeps_copies: bool
    tier1_competes: bool
    tier1_bps: float
    tolerance_share: float  # by which a first byte may be later than tier 1's; below 0 any may
    tolerance_us: int
    deadline_us: int
    monitored: bool  # by what is believed in place of the truth
    coefficients: Coefficients
    tie_tolerance: float
    explore_share: float
    seed: np.uint64


class Request(NamedTuple):
    """One request; `number` counts from the start of the replay, `hour` from the tally's first hour."""

    ts_us: int
    segment: int
    location: int
    bytes: int
    number: int
    hour: int


class Mesh(NamedTuple):
    """Everything a request meets; the dtypes are above. Few arrays: every call that is not inlined copies them all."""

    sources: Records  # (sources,)
    paths: Records  # (locations, sources)
    intervals: (
        Records  # all sources' up-intervals; then as a monitor believes, if it may be wrong; then uplinks by piece
    )
    copies: Records  # by slot
    candidates: Records  # work space: as long as the most candidates of any request
    pop: Int32  # (locations,)
    segment_bytes: Int64  # (segments,)
    rules: Rules


class Outcome(NamedTuple):
    """What the mesh did for a request; `slot` is -1 and `sent` 0 where it did nothing."""

    slot: int
    sent: int
    start_us: int
    finish_us: int
    delay_us: int  # lost on sources that sent nothing
    failures: int
    cause: int  # why tier 1 serves the rest; SERVED if there is none, UNSEEN if no copy lies within reach


class Sums(NamedTuple):
    """The growing arrays behind a `ReplayTally`."""

    cells: Int64  # (hours, locations, columns of `tally`)
    bins: Int64  # (latency and transfer, locations, bins)


def fresh_mesh(world: ReplayWorld, settings: ReplaySettings, routing: RoutingSettings, seed: int) -> Mesh:
    """The world before the first request, with nothing held."""
    return Mesh(
        sources=_sources(world),
        paths=_paths(world),
        intervals=_intervals(world),
        copies=np.zeros(0, COPY),
        candidates=np.zeros(1, CANDIDATE),
        pop=np.require(world.pop, np.int32, ["C", "W"]),
        segment_bytes=np.require(world.segment_bytes, np.int64, ["C", "W"]),
        rules=_rules(settings, routing, seed, monitored=world.believed is not None),
    )


def _sources(world: ReplayWorld) -> Records:
    sources = np.zeros(world.n_sources, SOURCE)
    for name in ("location", "tier", "uplink_bps", "downlink_bps", "storage_bytes"):
        sources[name] = getattr(world, name)
    sources["believed_bps"] = world.uplink_bps
    sources["rate_until_us"] = NEVER_US
    sources["first_row"] = sources["row"] = world.uptime.offsets[:-1]
    sources["last_row"] = world.uptime.offsets[1:]
    used = len(world.uptime.start_us)
    if world.believed is not None:
        sources["first_believed_row"] = sources["believed_row"] = used + world.believed.offsets[:-1]
        sources["last_believed_row"] = used + world.believed.offsets[1:]
        used += len(world.believed.start_us)
    if world.uplinks is not None:
        sources["rate_row"] = used + world.uplinks.pieces.offsets[:-1]
        sources["rate_until_us"] = ALWAYS_US  # looked up at the first request
    sources["busy_us"] = sources["downlink_us"] = sources["known_gone_us"] = ALWAYS_US
    sources["failed_us"] = sources["ask_again_us"] = ALWAYS_US
    sources["eligible"] = True
    sources["head"] = sources["tail"] = -1
    return sources


def _paths(world: ReplayWorld) -> Records:
    paths = np.zeros(world.reach.shape, PATH)
    for name in ("rtt_ms", "distance_km", "reach"):
        paths[name] = getattr(world, name)
    return paths


def _intervals(world: ReplayWorld) -> Records:
    """In the order in which `_sources` counts the rows."""
    parts = [_records(world.uptime.start_us, world.uptime.end_us, 0.0)]
    if world.believed is not None:
        parts.append(_records(world.believed.start_us, world.believed.end_us, 0.0))
    if world.uplinks is not None:
        pieces = world.uplinks.pieces
        bps = np.repeat(world.uplink_bps, np.diff(pieces.offsets)) * pieces.share
        parts.append(_records(pieces.start_us, pieces.end_us, np.where(bps < 1.0, 0.0, bps)))
    return np.concatenate(parts)


def _records(start_us: Int64, end_us: Int64, bps: Float64 | float) -> Records:
    intervals = np.zeros(len(start_us), INTERVAL)
    intervals["start_us"], intervals["end_us"], intervals["bps"] = start_us, end_us, bps
    return intervals


def _rules(settings: ReplaySettings, routing: RoutingSettings, seed: int, *, monitored: bool) -> Rules:
    deadline_us = NEVER_US if settings.deadline_s is None else round(settings.deadline_s * 1e6)
    return Rules(
        detection_us=round(settings.detection_s * 1e6),
        retry_us=round(settings.retry_timeout_ms * 1e3),
        max_wait_us=min(round(settings.max_wait_s * 1e6), deadline_us),
        max_attempts=settings.max_attempts,
        health_half_life_us=settings.health_half_life_s * 1e6,
        gone_threshold=float(settings.gone_threshold),
        keeps_copies=bool(settings.keeps_copies),
        tier1_competes=bool(settings.tier1_competes),
        tier1_bps=float(settings.tier1_bps),
        tolerance_share=-1.0 if settings.latency_tolerance_share is None else float(settings.latency_tolerance_share),
        tolerance_us=round(settings.latency_tolerance_ms * 1e3),
        deadline_us=deadline_us,
        monitored=monitored,
        coefficients=routing.coefficients(),
        tie_tolerance=float(routing.tie_tolerance),
        explore_share=float(routing.explore_share),
        seed=np.uint64(seed),
    )


def fresh_copies(n: int) -> Records:
    copies = np.zeros(n, COPY)
    copies["survival"] = 1.0
    return copies


def fresh_candidates(length: int) -> Records:
    return np.zeros(max(length, 1), CANDIDATE)
