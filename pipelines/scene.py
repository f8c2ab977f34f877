"""The static tables of a tables folder as arrays: contents cut into segments, places, sources, round trips.

Every segment of every content has one code (`first_segment[content] + number`), every source one code (POPs first, then
nodes), every location one code. Forecasts, plans and replays of one run all speak in these codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.errors import InputError
from pipelines.store import has_table, read_nodes, read_table
from placement.geography import DistanceModel, great_circle_km

Objects = npt.NDArray[np.object_]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

FALLBACK_DISTANCE = DistanceModel(5.0, 0.02)
"""Round trips where nothing was measured at all: light in fibre with detours, and some equipment."""


@dataclass(frozen=True)
class Catalogue:
    """Contents and their segments.

    Attributes:
        contents: ids. (C,)
        bytes: size of each content. (C,)
        segment_bytes: size of its segments; the last one may be shorter. (C,)
        kinds: what each content is, None where unknown; None when the table does not say. (C,)
    """

    contents: Objects
    bytes: Int64
    segment_bytes: Int64
    kinds: Objects | None = None

    @cached_property
    def first_segment(self) -> Int64:
        """Code of segment 0 of each content, and the number of all segments at the end. (C + 1,)"""
        return np.concatenate(([0], np.cumsum(self.n_segments)))

    @cached_property
    def n_segments(self) -> Int64:
        return -(-self.bytes // self.segment_bytes)

    @cached_property
    def content_of_segment(self) -> Int32:
        return np.repeat(np.arange(len(self.contents), dtype=np.int32), self.n_segments)

    @cached_property
    def number_of_segment(self) -> Int32:
        total = int(self.first_segment[-1])
        return (np.arange(total) - self.first_segment[self.content_of_segment]).astype(np.int32)

    @cached_property
    def sizes(self) -> Int64:
        """Bytes of every segment. (S,)"""
        content, number = self.content_of_segment, self.number_of_segment
        return np.minimum(self.segment_bytes[content], self.bytes[content] - number * self.segment_bytes[content])

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.contents)

    def codes(self, ids: Objects) -> Int64:
        """Content codes, -1 where the catalogue does not know an id."""
        return np.asarray(self._index.get_indexer(pd.Index(ids)), dtype=np.int64)


@dataclass(frozen=True)
class Scene:
    """Where everything is and what it can do; nothing here depends on time but `consent_until_us` and `known_from_us`.

    Attributes:
        locations: ids. (L,)
        names: what a person calls them. (L,)
        source: ids, POPs first. (N,)
        n_pops: how many of the sources are POPs.
        network: code of the failure domain; -1 for POPs. (N,)
        consent_until_us: -1 for no consent. (N,)
        known_from_us: when the source became known. (N,)
        rtt_ms: (L, N)
        distance_km: (L, N)
        networks: ids of the networks, by code.
    """

    catalogue: Catalogue
    locations: Objects
    names: Objects
    location_lat: Float64
    location_lon: Float64
    source: Objects
    n_pops: int
    location: Int32
    network: Int32
    storage_bytes: Int64
    uplink_bps: Float64
    downlink_bps: Float64
    egress_cost_per_gb: Float64
    device_class: Objects
    consent_until_us: Int64
    known_from_us: Int64
    lat: Float64
    lon: Float64
    rtt_ms: Float32
    distance_km: Float32
    networks: Objects = field(default_factory=lambda: np.empty(0, dtype=object))

    @property
    def nodes(self) -> slice:
        return slice(self.n_pops, len(self.source))

    @cached_property
    def is_pop(self) -> Bool:
        return np.arange(len(self.source)) < self.n_pops

    def reach(self, reach_rtt_ms: float) -> Bool:
        """Whether a source may serve a location: POPs all, nodes their own and those within the round trip. (L, N)"""
        own = self.location[None, :] == np.arange(len(self.locations))[:, None]
        return np.asarray(own | self.is_pop[None, :] | (self.rtt_ms <= reach_rtt_ms), dtype=np.bool_)

    def leaving(self, share: Float64) -> Scene:
        """The scene with so much less storage at the nodes of each location. (L,)"""
        kept = self.storage_bytes * (1.0 - np.where(self.is_pop, 0.0, share[self.location]))
        return replace(self, storage_bytes=kept.astype(np.int64))

    def location_codes(self, ids: Objects) -> Int64:
        return np.asarray(pd.Index(self.locations).get_indexer(pd.Index(ids)), dtype=np.int64)

    def source_codes(self, ids: Objects) -> Int64:
        return np.asarray(pd.Index(self.source).get_indexer(pd.Index(ids)), dtype=np.int64)


def read_scene(folder: Path) -> Scene:
    """The scene of a tables folder.

    Raises:
        InputError: the folder lacks a table that placement needs.
    """
    needed = ("contents", "locations", "pops", "nodes")
    missing = [name for name in needed if not has_table(folder, name)]
    if missing:
        raise InputError(
            f"{folder}: placement needs the tables {', '.join(needed)}; missing: {', '.join(missing)}. "
            "Name them under `tables` in the ingest configuration, or build a world."
        )
    contents, locations = read_table(folder, "contents"), read_table(folder, "locations")
    pops, nodes = read_table(folder, "pops"), read_nodes(folder)
    catalogue = Catalogue(
        _ids(contents, "content"),
        _ints(contents, "bytes"),
        _ints(contents, "segment_bytes"),
        _ids(contents, "kind") if "kind" in contents.column_names else None,
    )
    place = pd.Index(_ids(locations, "location"))
    lat, lon = _floats(locations, "lat"), _floats(locations, "lon")
    both = {name: np.concatenate((_floats(pops, name), _floats(nodes, name))) for name in ("lat", "lon")}
    distance = great_circle_km(lat[:, None], lon[:, None], both["lat"][None, :], both["lon"][None, :])
    source = np.concatenate((_ids(pops, "source"), _ids(nodes, "source")))
    n_pops, n_nodes = len(pops), len(nodes)
    network, networks = pd.factorize(_ids(nodes, "network"))
    return Scene(
        catalogue=catalogue,
        locations=np.asarray(place, dtype=object),
        names=_ids(locations, "name") if "name" in locations.column_names else np.asarray(place, dtype=object),
        location_lat=lat,
        location_lon=lon,
        source=source,
        n_pops=n_pops,
        location=np.concatenate(
            (place.get_indexer(pd.Index(_ids(pops, "location"))), place.get_indexer(pd.Index(_ids(nodes, "location"))))
        ).astype(np.int32),
        network=np.concatenate((np.full(n_pops, -1), network)).astype(np.int32),
        storage_bytes=np.concatenate((_ints(pops, "storage_bytes"), _ints(nodes, "storage_bytes"))),
        uplink_bps=np.concatenate((np.full(n_pops, np.inf), _floats(nodes, "uplink_bps"))),
        downlink_bps=np.concatenate((np.full(n_pops, np.inf), _floats(nodes, "downlink_bps"))),
        egress_cost_per_gb=np.concatenate((_floats(pops, "egress_cost_per_gb"), np.zeros(n_nodes))),
        device_class=np.concatenate((np.full(n_pops, "pop", dtype=object), _ids(nodes, "device_class"))),
        consent_until_us=np.concatenate((np.full(n_pops, np.iinfo(np.int64).max), _instants(nodes, "consent_until"))),
        known_from_us=np.concatenate((np.full(n_pops, -1), _instants(nodes, "available_at"))),
        lat=both["lat"],
        lon=both["lon"],
        rtt_ms=_round_trips(folder, place, pd.Index(source), np.asarray(distance, dtype=np.float64)),
        distance_km=np.asarray(distance, dtype=np.float32),
        networks=np.asarray(networks, dtype=object),
    )


def _round_trips(folder: Path, place: pd.Index, source: pd.Index, distance_km: Float64) -> Float32:
    """Measured where the table has a pair, else from the distance model fitted on the pairs that it has."""
    rtt_ms = np.full(distance_km.shape, np.nan)
    if has_table(folder, "rtt"):
        table = read_table(folder, "rtt")
        row = place.get_indexer(pd.Index(_ids(table, "location")))
        column = source.get_indexer(pd.Index(_ids(table, "source")))
        known = (row >= 0) & (column >= 0)
        rtt_ms[row[known], column[known]] = _floats(table, "rtt_ms")[known]
    given = ~np.isnan(rtt_ms)
    if not given.all():
        enough = int(given.sum()) >= 10
        model = DistanceModel.fit(distance_km[given], rtt_ms[given]) if enough else FALLBACK_DISTANCE
        rtt_ms[~given] = model.rtt_ms(distance_km[~given])
    return rtt_ms.astype(np.float32)


def _ids(table: pa.Table, name: str) -> Objects:
    return np.asarray(table[name].to_pylist(), dtype=object)


def _ints(table: pa.Table, name: str) -> Int64:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def _floats(table: pa.Table, name: str) -> Float64:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _instants(table: pa.Table, name: str) -> Int64:
    """Microseconds since 1970, -1 where null or where the table lacks the column."""
    if name not in table.column_names:
        return np.full(len(table), -1, dtype=np.int64)
    instants = table[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return np.asarray(np.where(np.isnan(instants), -1, instants), dtype=np.int64)
