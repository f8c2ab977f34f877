"""Random instances with the features that matter: Zipf demand, regional taste, uneven devices, a stale placement.

Request rates are rate_sl = popularity_s share_l taste_sl (home_boost where l is s's home), popularity Zipf over a random
order; the largest `rows_per_segment` S of them become demand. Same arguments, same instance: every block of segments and
every network draws from a generator of its own, and no array of segments by locations exists beyond one block, so a
million segments fit. For tests and benchmarks; nothing here is used to place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from placement.problem import (
    Bool,
    Demand,
    Float32,
    Float64,
    Int32,
    Int64,
    PlacementProblem,
    PlacementSettings,
    Segments,
    Sources,
)

BLOCK_CELLS = 1_000_000
"""Cells (segment, location) drawn at once."""
WORLD, RATES, HOLDINGS = 0, 1, 2
"""Which part of the instance a generator draws; never the last word of a seed, where a zero would not count."""


@dataclass(frozen=True)
class InstanceSettings:
    """Size and shape of a random instance.

    Attributes:
        rows_per_segment: locations that ask for a segment, on average.
        storage_share: storage of all nodes over the bytes of distinct segments asked for at each location, summed.
        demand_over_uplink: bytes asked for over the uplink of eligible nodes, each times its survival.
        movement_share: movement budget over the storage of all nodes; None for no limit.
        current_share: share of each node's storage that the stale placement fills.
        staleness: standard deviation of the log of yesterday's popularity about today's.
        neighbour_nodes: nodes of other locations that a location reaches, beside all of its own.
        pops_in_reach: POPs that a location reaches, nearest first.
        phone_share: share of nodes on tier 3, which stay with probability Beta(12, 4) and not Beta(28, 2).
        networks_per_location: failure domains of a location's nodes, one for each access network.
    """

    segments: int = 300
    locations: int = 10
    nodes: int = 40
    pops: int = 2
    zipf_exponent: float = 0.85
    home_boost: float = 8.0
    rows_per_segment: float = 7.0
    mean_segment_bytes: float = 30e6
    storage_share: float = 0.4
    demand_over_uplink: float = 1.3
    movement_share: float | None = 0.15
    current_share: float = 0.75
    staleness: float = 0.7
    neighbour_nodes: int = 5
    pops_in_reach: int = 3
    phone_share: float = 0.4
    networks_per_location: int = 4
    placement: PlacementSettings = field(default_factory=PlacementSettings)


SIZES = {
    "xs": InstanceSettings(segments=300, locations=10, nodes=40, pops=1, rows_per_segment=7.5),
    "s": InstanceSettings(segments=1_000, locations=20, nodes=100, pops=2, rows_per_segment=7.9),
    "m": InstanceSettings(
        segments=20_000, locations=50, nodes=1_000, pops=5, rows_per_segment=5.25, neighbour_nodes=10
    ),
    "l": InstanceSettings(
        segments=200_000, locations=100, nodes=10_000, pops=10, rows_per_segment=5.25, neighbour_nodes=10
    ),
    "xl": InstanceSettings(
        segments=1_000_000,
        locations=200,
        nodes=50_000,
        pops=20,
        rows_per_segment=5.0,
        neighbour_nodes=10,
        placement=PlacementSettings(time_limit_seconds=2_640.0),
    ),
}
"""The sizes that benchmarks speak of."""


def random_instance(settings: InstanceSettings, *, seed: int) -> PlacementProblem:
    """Draws one instance."""
    rng = np.random.default_rng([seed, WORLD, 1])
    size = np.maximum(1, rng.lognormal(np.log(settings.mean_segment_bytes), 0.6, settings.segments)).astype(np.int64)
    demand = _demand(settings, rng, seed)
    place = rng.uniform(0, 1, (settings.locations, 2))
    sources = _sources(settings, rng, size, demand)
    rtt = _round_trips(place, sources, rng)
    popularity = np.bincount(demand.segment, weights=demand.requests, minlength=settings.segments)
    yesterday = popularity * rng.lognormal(0.0, settings.staleness, settings.segments)
    current_segment, current_source = _current(settings, seed, size, yesterday, sources)
    budget = settings.movement_share
    stored = int(sources.storage_bytes[sources.tier > 1].sum())
    limit = settings.placement.movement_budget_bytes if budget is None else int(budget * stored)
    return PlacementProblem(
        segments=Segments(_ids("c", settings.segments), np.zeros(settings.segments, np.int32), size),
        locations=_ids("l", settings.locations),
        sources=sources,
        demand=demand,
        rtt_ms=rtt,
        reach=_reach(settings, sources, rtt),
        current_segment=current_segment,
        current_source=current_source,
        settings=replace(settings.placement, movement_budget_bytes=limit),
    )


def _ids(prefix: str, count: int) -> np.ndarray:
    return np.array([f"{prefix}{at}" for at in range(count)], dtype=object)


def _demand(settings: InstanceSettings, rng: np.random.Generator, seed: int) -> Demand:
    """The largest cells of the rate matrix, of which only these and the block in hand are ever kept."""
    rank = 1.0 + rng.permutation(settings.segments).astype(np.float64)
    popularity = np.power(rank, -settings.zipf_exponent)
    share = rng.dirichlet(np.full(settings.locations, 2.0))
    wanted = max(1, int(settings.rows_per_segment * settings.segments))
    cells, rates, floor = np.zeros(0, np.int64), np.zeros(0), 0.0
    for first, rate in _rate_blocks(settings, popularity, share, seed):
        kept = np.flatnonzero(rate.ravel() > floor)
        cells = np.concatenate([cells, first * settings.locations + kept])
        rates = np.concatenate([rates, rate.ravel()[kept]])
        if len(rates) > 2 * wanted:
            cells, rates = _largest(cells, rates, wanted)
            floor = float(rates.min())
    cells, rates = _largest(cells, rates, wanted)
    segment, location = np.divmod(cells, settings.locations)
    return Demand(segment.astype(np.int32), location.astype(np.int32), rates / rates.min() * 0.5)


def _rate_blocks(
    settings: InstanceSettings, popularity: Float64, share: Float64, seed: int
) -> Iterator[tuple[int, Float64]]:
    """First segment and rates (block, L) of each block of segments."""
    n_segments, n_locations = settings.segments, settings.locations
    step = max(1, BLOCK_CELLS // n_locations)
    for first in range(0, n_segments, step):
        rng = np.random.default_rng([seed, RATES, 1 + first])
        rows = popularity[first : first + step]
        rate = rng.lognormal(0.0, 0.7, (len(rows), n_locations)) * rows[:, None] * share[None, :]
        rate[np.arange(len(rows)), rng.integers(0, n_locations, len(rows))] *= settings.home_boost
        yield first, rate


def _largest(cells: Int64, rates: Float64, wanted: int) -> tuple[Int64, Float64]:
    """The `wanted` largest rates, still in order of their cells."""
    if len(rates) <= wanted:
        return cells, rates
    kept = np.sort(np.argpartition(rates, -wanted)[-wanted:])
    return cells[kept], rates[kept]


def _sources(settings: InstanceSettings, rng: np.random.Generator, size: Int64, demand: Demand) -> Sources:
    n_pops, n_nodes = settings.pops, settings.nodes
    n, first = n_pops + n_nodes, np.arange(n_pops + n_nodes) < n_pops
    phone = ~first & (rng.random(n) < settings.phone_share)
    survival = np.where(phone, rng.beta(12, 4, n), rng.beta(28, 2, n))
    location = rng.integers(0, settings.locations, n).astype(np.int32)
    storage = _spread(settings.storage_share * float(size[demand.segment].sum()), ~first, rng)
    eligible = first | (rng.random(n) < 0.97)
    uplink = _spread(1.0, ~first, rng)
    expected = float((uplink * survival)[eligible].sum())
    asked = float(size[demand.segment] @ demand.requests)
    uplink *= asked / settings.demand_over_uplink / max(1e-300, expected)
    network = location * settings.networks_per_location + rng.integers(0, settings.networks_per_location, n)
    return Sources(
        source=np.concatenate([_ids("pop", n_pops), _ids("node", n_nodes)]),
        tier=np.where(first, 1, np.where(phone, 3, 2)).astype(np.int8),
        location=location,
        network=np.where(first, -1, network).astype(np.int32),
        storage_bytes=np.where(first, 4 * int(size.sum()), storage).astype(np.int64),
        uplink_bytes=np.where(first, np.inf, uplink),
        survival=np.where(first, 1.0, survival),
        egress_cost_per_gb=np.where(first, 0.02, 0.0),
        eligible=eligible,
        lat=rng.uniform(-60, 60, n),
        lon=rng.uniform(-180, 180, n),
    )


def _spread(total: float, among: Bool, rng: np.random.Generator) -> Float64:
    weight = np.where(among, rng.lognormal(0.0, 0.8, len(among)), 0.0)
    return np.asarray(total * weight / max(1e-300, float(weight.sum())))


def _round_trips(place: Float64, sources: Sources, rng: np.random.Generator) -> Float32:
    """Distance between places in a unit square, 100 ms from side to side, plus a last mile for nodes."""
    apart = np.linalg.norm(place[:, None, :] - place[None, :, :], axis=2)
    last_mile = np.where(sources.tier == 1, 5.0, rng.lognormal(np.log(8.0), 0.5, len(sources)))
    return np.asarray(100.0 * apart[:, sources.location] + last_mile[None, :], dtype=np.float32)


def _reach(settings: InstanceSettings, sources: Sources, rtt: Float32) -> Bool:
    """A location reaches all of its own nodes, the nearest of its neighbours' and its nearest POPs.

    Counting neighbours, and not milliseconds, keeps candidates for each row alike however many nodes there are.
    """
    pop = sources.tier == 1
    own = (sources.location[None, :] == np.arange(len(rtt))[:, None]) & ~pop[None, :]
    neighbours = _nearest(np.where(own | pop[None, :], np.inf, rtt), settings.neighbour_nodes)
    return np.asarray(own | neighbours | _nearest(np.where(pop[None, :], rtt, np.inf), settings.pops_in_reach))


def _nearest(distance: Float32, count: int) -> Bool:
    """The `count` smallest finite entries of each row, ties by column."""
    chosen = np.zeros(distance.shape, dtype=np.bool_)
    for at, row in enumerate(distance):
        chosen[at, np.argsort(row, kind="stable")[:count]] = True
    return np.asarray(chosen & np.isfinite(distance))


def _current(
    settings: InstanceSettings, seed: int, size: Int64, yesterday: Float64, sources: Sources
) -> tuple[Int32, Int32]:
    """Each node filled to `current_share` by draws in proportion to yesterday's popularity, without replacement.

    As many copies in one network as a plan may hold, so that the placement that is left alone is a valid one.
    """
    upto = np.cumsum(yesterday)
    copies = np.zeros(len(size), np.int64)  # of each segment in the network in hand
    segments, holders = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    nodes = np.flatnonzero(sources.tier > 1)
    nodes = nodes[np.argsort(sources.network[nodes], kind="stable")]
    for members in np.split(nodes, np.flatnonzero(np.diff(sources.network[nodes])) + 1):
        rng = np.random.default_rng([seed, HOLDINGS, 1 + int(sources.network[members].max(initial=0))])
        held: list[Int64] = []
        for n in members:
            full = copies >= settings.placement.max_copies_per_network
            held.append(_drawn(rng, upto, size, full, settings.current_share * sources.storage_bytes[n]))
            copies[held[-1]] += 1
            holders.append(np.full(len(held[-1]), n, dtype=np.int32))
        segments.extend(chosen.astype(np.int32) for chosen in held)
        for chosen in held:
            copies[chosen] = 0
    return np.concatenate(segments), np.concatenate(holders)


def _drawn(rng: np.random.Generator, upto: Float64, size: Int64, full: Bool, room: float) -> Int64:
    """Segments in order of first draw, up to the first that does not fit; repeated draws are dropped."""
    draws = 2 * int(room / size.mean()) + 4
    chosen = np.zeros(0, np.int64)
    while True:
        drawn = np.searchsorted(upto, rng.random(draws) * upto[-1], side="right")
        chosen = np.concatenate([chosen, drawn[~full[drawn]]])
        chosen = chosen[np.sort(np.unique(chosen, return_index=True)[1])]
        fits = np.cumsum(size[chosen]) <= room
        if not fits.all() or draws > 4 * len(size):
            return np.asarray(chosen[fits])
        draws *= 2
