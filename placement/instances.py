"""Random instances with the features that matter: Zipf demand, regional taste, uneven devices, a stale placement.

Same arguments, same instance. For tests and benchmarks; nothing here is used to place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from placement.problem import (
    Bool,
    Demand,
    Float32,
    Float64,
    Int32,
    PlacementProblem,
    PlacementSettings,
    Segments,
    Sources,
)


@dataclass(frozen=True)
class InstanceSettings:
    """Size and shape of a random instance."""

    segments: int = 300
    locations: int = 10
    nodes: int = 40
    pops: int = 2
    zipf_exponent: float = 0.85
    home_boost: float = 8.0
    rows_per_segment: float = 7.0
    mean_segment_bytes: float = 30e6
    storage_share: float = 0.4
    uplink_share: float = 1.3
    movement_share: float | None = 0.15
    current_share: float = 0.75
    neighbour_reach_ms: float = 60.0
    phone_share: float = 0.4
    placement: PlacementSettings = field(default_factory=PlacementSettings)


def random_instance(settings: InstanceSettings, *, seed: int) -> PlacementProblem:
    """Draws one instance.

    Storage of all nodes is `storage_share` of the bytes of distinct segments asked for at each location, summed; uplink
    is `uplink_share` times the demand; the movement budget is `movement_share` of the storage.
    """
    rng = np.random.default_rng(seed)
    size = np.maximum(1, rng.lognormal(np.log(settings.mean_segment_bytes), 0.6, settings.segments)).astype(np.int64)
    demand = _demand(settings, rng)
    place = rng.uniform(0, 1, (settings.locations, 2))
    sources = _sources(settings, rng, size, demand)
    rtt = _round_trips(place, sources, rng)
    reach = _reach(settings, sources, rtt)
    budget = settings.movement_share
    stored = int(sources.storage_bytes[sources.tier > 1].sum())
    placement = settings.placement
    if budget is not None:
        placement = PlacementSettings(**{**vars(placement), "movement_budget_bytes": int(budget * stored)})
    current = _current(settings, rng, size, demand, sources)
    ids = np.array([f"c{at}" for at in range(settings.segments)], dtype=object)
    return PlacementProblem(
        segments=Segments(ids, np.zeros(settings.segments, np.int32), size),
        locations=np.array([f"l{at}" for at in range(settings.locations)], dtype=object),
        sources=sources,
        demand=demand,
        rtt_ms=rtt,
        reach=reach,
        current_segment=current[0],
        current_source=current[1],
        settings=placement,
    )


def _demand(settings: InstanceSettings, rng: np.random.Generator) -> Demand:
    """Zipf over segments, boosted in each segment's home location, kept where at least asked for now and then."""
    n_segments, n_locations = settings.segments, settings.locations
    popularity = (1.0 + rng.permutation(n_segments)) ** -settings.zipf_exponent
    share = rng.dirichlet(np.full(n_locations, 2.0))
    rate = popularity[:, None] * share[None, :] * rng.lognormal(0.0, 0.7, (n_segments, n_locations))
    rate[np.arange(n_segments), rng.integers(0, n_locations, n_segments)] *= settings.home_boost
    kept = min(rate.size, max(1, int(settings.rows_per_segment * n_segments)))
    threshold = np.partition(rate.ravel(), -kept)[-kept]
    segment, location = np.nonzero(rate >= threshold)
    requests = rate[segment, location] / threshold * 0.5
    return Demand(segment.astype(np.int32), location.astype(np.int32), requests)


def _sources(settings: InstanceSettings, rng: np.random.Generator, size: np.ndarray, demand: Demand) -> Sources:
    n_pops, n_nodes = settings.pops, settings.nodes
    n, first = n_pops + n_nodes, np.arange(n_pops + n_nodes) < n_pops
    phone = ~first & (rng.random(n) < settings.phone_share)
    survival = np.where(phone, rng.beta(12, 4, n), rng.beta(28, 2, n))
    location = rng.integers(0, settings.locations, n).astype(np.int32)
    storage = _spread(settings.storage_share * float(size[demand.segment].sum()), ~first, rng)
    uplink = _spread(settings.uplink_share * float(size[demand.segment] @ demand.requests), ~first, rng)
    networks = max(3, n_nodes // 12)
    return Sources(
        source=np.array([f"pop{at}" if first[at] else f"node{at}" for at in range(n)], dtype=object),
        tier=np.where(first, 1, np.where(phone, 3, 2)).astype(np.int8),
        location=location,
        network=np.where(first, -1, rng.integers(0, networks, n)).astype(np.int32),
        storage_bytes=np.where(first, 4 * int(size.sum()), storage).astype(np.int64),
        uplink_bytes=np.where(first, np.inf, uplink),
        survival=np.where(first, 1.0, survival),
        egress_cost_per_gb=np.where(first, 0.02, 0.0),
        eligible=first | (rng.random(n) < 0.97),
        lat=rng.uniform(-60, 60, n),
        lon=rng.uniform(-180, 180, n),
    )


def _spread(total: float, among: Bool, rng: np.random.Generator) -> Float64:
    weight = np.where(among, rng.lognormal(0.0, 0.8, len(among)), 0.0)
    return np.asarray(total * weight / max(1e-300, float(weight.sum())))


def _round_trips(place: Float64, sources: Sources, rng: np.random.Generator) -> Float32:
    """Distance between places in a unit square, 100 ms from side to side, plus a last mile for nodes."""
    apart = np.linalg.norm(place[:, None, :] - place[sources.location][None, :, :], axis=2)
    last_mile = np.where(sources.tier == 1, 5.0, rng.lognormal(np.log(8.0), 0.5, len(sources)))
    return np.asarray(100.0 * apart + last_mile[None, :], dtype=np.float32)


def _reach(settings: InstanceSettings, sources: Sources, rtt: Float32) -> Bool:
    """POPs reach everyone; a node reaches its own location and those within `neighbour_reach_ms`."""
    own = sources.location[None, :] == np.arange(len(rtt))[:, None]
    return np.asarray((sources.tier == 1)[None, :] | own | (rtt <= settings.neighbour_reach_ms))


def _current(
    settings: InstanceSettings, rng: np.random.Generator, size: np.ndarray, demand: Demand, sources: Sources
) -> tuple[Int32, Int32]:
    """Each node filled to `current_share` with segments in noisy order of popularity, as yesterday's plan left them."""
    popularity = np.bincount(demand.segment, weights=demand.requests, minlength=len(size))
    segments, holders = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for n in np.flatnonzero(sources.tier > 1):
        order = np.argsort(-popularity * rng.lognormal(0.0, 1.5, len(size)), kind="stable")
        fitting = np.cumsum(size[order]) <= settings.current_share * sources.storage_bytes[n]
        kept = order[fitting].astype(np.int32)
        segments.append(kept)
        holders.append(np.full(len(kept), n, dtype=np.int32))
    return np.concatenate(segments), np.concatenate(holders)
