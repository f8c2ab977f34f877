"""What the nodes of a benchmark world have: a place, a network, uplink, storage, and round trips to every location.

    uplink    f · u_n, with one factor f for all nodes, so that  Σ_n up_n · f · u_n = 2 × mean demand rate
    storage   level · D_l · w_n / Σ w, where D_l are the bytes of the distinct contents that location l asks for on
              an average day and w_n are log-normal
    rtt       rtt(city of the location, city of the source) + last mile of the node

All figures of demand come from the training days, so that nothing of the test days shapes the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.sizes import Bool, Catalogue, Float64, Int64, part_rng

StorageLevel = Literal["scarce", "medium", "ample"]

STORAGE_SHARE: dict[StorageLevel, float] = {"scarce": 0.10, "medium": 0.40, "ample": 1.50}
"""Storage of a location as a share of the bytes of its distinct contents on an average day."""

UPLINK_PER_DEMAND = 2.0
STORAGE_SIGMA = 0.8
LAST_MILE_MEDIAN_MS = 12.0
LAST_MILE_SIGMA = 0.6
POP_STORAGE_BYTES = 10**15  # Stands for unlimited: more than any catalogue here, and sums stay far from overflow.
EGRESS_COST_PER_GB = 0.02
REWARD_PER_GB = 0.004
TIMESTAMP = pa.timestamp("us", tz="UTC")

Objects = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Demand:
    """What was asked for in the training days: mean rate of all locations, distinct bytes of each. (n_locations,)"""

    bytes_per_second: float
    daily_distinct_bytes: Float64


@dataclass(frozen=True)
class Devices:
    """Nodes before they are placed and scaled; `up` is the share of the training days that each is up. (n,) each."""

    names: Objects
    device_class: Objects
    uplink_bps: Float64
    downlink_bps: Float64
    up: Float64


@dataclass(frozen=True)
class Sites:
    """Where nodes are: their location, and their network numbered within it. (n,) each."""

    location: Int64
    network: Int64


@dataclass(frozen=True)
class Mesh:
    """Nodes with everything they have; uplink and downlink are scaled by `factor`. (n,) each."""

    devices: Devices
    sites: Sites
    storage_bytes: Int64
    last_mile_ms: Float64
    factor: float

    @property
    def location(self) -> Int64:
        return self.sites.location

    def table(self, locations: pa.Table, *, consent_until_us: Int64, available_at_us: int) -> pa.Table:
        """The canonical table of nodes; a node stands at the coordinates of its location.

        Args:
            locations: the canonical table, in the order of the location codes.
            consent_until_us: end of each node's consent; negative for none. (n,)
            available_at_us: when the nodes became known.
        """
        network = network_names(self.sites, locations["location"].to_numpy())
        place = locations.select(["location", "lat", "lon"]).take(self.location)
        columns: dict[str, Any] = {
            "source": pa.array(self.devices.names, pa.string()),
            "location": place["location"],
            "lat": place["lat"],
            "lon": place["lon"],
            "network": pa.array(network, pa.string()),
            "storage_bytes": pa.array(self.storage_bytes),
            "uplink_bps": pa.array(self.devices.uplink_bps * self.factor),
            "downlink_bps": pa.array(self.devices.downlink_bps * self.factor),
            "device_class": pa.array(self.devices.device_class, pa.string()),
            "consent_until": pa.array(consent_until_us, TIMESTAMP, mask=consent_until_us < 0),
            "available_at": pa.array(np.full(len(self.location), available_at_us), TIMESTAMP),
        }
        return pa.table(columns)

    def figures(self, demand: Demand) -> dict[str, Any]:
        """Sizes of the mesh for `world.json`, in words that need no code beside them."""
        uplink = self.devices.uplink_bps * self.factor
        figures: dict[str, Any] = {
            "uplink_factor": self.factor,
            "mean_demand_bps": demand.bytes_per_second * 8,
            "available_uplink_bps": float((uplink * self.devices.up).sum()),
            "storage_bytes_total": int(self.storage_bytes.sum()),
            "daily_distinct_bytes_total": float(demand.daily_distinct_bytes.sum()),
        }
        for kind in sorted(set(self.devices.device_class)):
            ours = self.devices.device_class == kind
            figures[kind] = {
                "nodes": int(ours.sum()),
                "mean_up_share": float(self.devices.up[ours].mean()),
                "median_uplink_bps": float(np.median(uplink[ours])),
                "median_storage_bytes": float(np.median(self.storage_bytes[ours])),
                "storage_bytes": int(self.storage_bytes[ours].sum()),
            }
        return figures


def place(n: int, location_weight: Float64, *, seed: int) -> Sites:
    """Location of each of `n` nodes with probability in proportion to weight; network uniform within the location."""
    weight = location_weight / location_weight.sum()
    location = part_rng(seed, "locations").choice(len(weight), size=n, p=weight).astype(np.int64)
    n_networks = np.maximum(3, np.bincount(location) // 12)
    network = part_rng(seed, "networks").integers(0, n_networks[location])
    return Sites(location, network.astype(np.int64))


def network_names(sites: Sites, locations: Objects) -> Objects:
    """`<location>/network-<number>` of each node. (n,)"""
    names = [f"{locations[place]}/network-{k}" for place, k in zip(sites.location, sites.network, strict=True)]
    return np.array(names, dtype=object)


def equip(devices: Devices, sites: Sites, demand: Demand, *, storage_share: float, seed: int) -> Mesh:
    """Gives nodes storage and a last mile, and ties their uplink to demand.

    Raises:
        ValueError: no node is up in the training days.
    """
    return Mesh(
        devices,
        sites,
        _split_storage(sites.location, storage_share * demand.daily_distinct_bytes, part_rng(seed, "storage")),
        _draw_last_mile_ms(len(sites.location), part_rng(seed, "last mile")),
        _uplink_factor(devices, demand),
    )


def _split_storage(location: Int64, total_bytes: Float64, rng: np.random.Generator) -> Int64:
    weight = np.exp(STORAGE_SIGMA * rng.standard_normal(len(location)))
    of_location = np.bincount(location, weights=weight, minlength=len(total_bytes))
    return np.floor(total_bytes[location] * weight / of_location[location]).astype(np.int64)


def _draw_last_mile_ms(n: int, rng: np.random.Generator) -> Float64:
    return np.asarray(LAST_MILE_MEDIAN_MS * np.exp(LAST_MILE_SIGMA * rng.standard_normal(n)))


def _uplink_factor(devices: Devices, demand: Demand) -> float:
    offered = float((devices.uplink_bps * devices.up).sum())
    if offered <= 0:
        raise ValueError("No node is up during the training days, so uplink cannot be tied to demand; add nodes.")
    return UPLINK_PER_DEMAND * demand.bytes_per_second * 8 / offered


def up_share(node: Int64, start_us: Int64, end_us: Int64, *, window_us: tuple[int, int], n: int) -> Float64:
    """Share of a window that each of `n` nodes is up, from sessions that do not overlap within a node. (n,)"""
    inside = np.minimum(end_us, window_us[1]) - np.maximum(start_us, window_us[0])
    up_us = np.bincount(node, weights=np.maximum(inside, 0), minlength=n)
    return np.asarray(up_us / (window_us[1] - window_us[0]))


def daily_distinct_bytes(
    day: Int64, location: Int64, content: Int64, content_bytes: Int64, *, n_locations: int, n_days: int
) -> Float64:
    """Bytes of the distinct contents requested at each location on an average day. (n_locations,)"""
    n_contents = len(content_bytes)
    cell = np.unique((day * n_locations + location) * n_contents + content)
    size = content_bytes[cell % n_contents].astype(np.float64)
    return np.asarray(np.bincount(cell // n_contents % n_locations, weights=size, minlength=n_locations) / n_days)


def contents_table(catalogue: Catalogue, *, published_at_us: Int64 | None = None) -> pa.Table:
    """The canonical table; `published_at` is null where it is not known."""
    n = len(catalogue.content)
    published: Any = pa.nulls(n, TIMESTAMP) if published_at_us is None else pa.array(published_at_us, TIMESTAMP)
    return pa.table(
        {
            "content": pa.array(catalogue.content, pa.string()),
            "bytes": pa.array(catalogue.bytes),
            "segment_bytes": pa.array(catalogue.segment_bytes),
            "kind": pa.array(np.where(catalogue.video, "video", "page"), pa.string()),
            "published_at": published,
        }
    )


def rtt_table(locations: pa.Table, pops: pa.Table, mesh: Mesh, rtt_ms: Float64, modelled: Bool) -> pa.Table:
    """Round trips of every location to every source, POPs first; the last mile of each node is added here.

    Args:
        locations: the canonical table. (n_locations rows)
        pops: the canonical table. (n_pops rows)
        mesh: the nodes. (n_nodes)
        rtt_ms: between the places of locations and sources. (n_locations, n_pops + n_nodes)
        modelled: where a distance model stands in for a measurement; same shape.
    """
    sources = np.concatenate([pops["source"].to_numpy(), mesh.devices.names])
    whole = rtt_ms + np.concatenate([np.zeros(len(pops)), mesh.last_mile_ms])
    return pa.table(
        {
            "location": pa.array(np.repeat(locations["location"].to_numpy(), len(sources)), pa.string()),
            "source": pa.array(np.tile(sources, len(locations)), pa.string()),
            "rtt_ms": pa.array(whole.ravel()),
            "modelled": pa.array(modelled.ravel()),
        }
    )


def day_us(day: str) -> int:
    """Midnight UTC of a day such as `2017-10-01`, in microseconds since 1970."""
    return int(np.datetime64(day, "us").astype(np.int64))


def iso(instant_us: int) -> str:
    """An instant as ISO 8601 text in UTC, to the second."""
    return f"{np.datetime64(instant_us, 'us').astype('datetime64[s]')}Z"
