"""Who holds what under the plan in force, and what each location sees of it: the router's candidates.

A request's candidates are the holders of its segment that its location can reach, then every POP, because POPs hold
everything. One batch answers any number of requests; the score itself is in `placement.routing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from placement.errors import RoutingError
from placement.routing import CandidateBatch

Ids = npt.NDArray[np.object_]
Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_SOURCES: list[tuple[str, pa.DataType]] = [
    ("source", pa.string()),
    ("tier", pa.int8()),
    ("location", pa.string()),
    ("lat", pa.float64()),
    ("lon", pa.float64()),
    ("network", pa.int32()),
    ("storage_bytes", pa.int64()),
    ("uplink_bps", pa.float64()),
    ("eligible", pa.bool_()),
    ("reason", pa.string()),
    ("up", pa.bool_()),
    ("stay", pa.float64()),
    ("survival", pa.float64()),
]
_PATHS: list[tuple[str, pa.DataType]] = [
    ("location", pa.string()),
    ("source", pa.string()),
    ("rtt_ms", pa.float32()),
    ("distance_km", pa.float32()),
]
SOURCES_SCHEMA = pa.schema(_SOURCES)
PATHS_SCHEMA = pa.schema(_PATHS)


@dataclass(frozen=True)
class SourceDirectory:
    """The plan in force as arrays.

    Attributes:
        placements: columns content, segment, source.
        sources: as `SOURCES_SCHEMA`.
        paths: reachable (location, source) pairs, as `PATHS_SCHEMA`.
    """

    placements: pa.Table
    sources: pa.Table
    paths: pa.Table

    @cached_property
    def source_ids(self) -> Ids:
        return _objects(self.sources, "source")

    @cached_property
    def tier(self) -> Int8:
        return np.asarray(self.sources["tier"].to_numpy(), dtype=np.int8)

    @cached_property
    def is_usable(self) -> Bool:
        return np.asarray(self.sources["eligible"].to_numpy() & self.sources["up"].to_numpy(), dtype=np.bool_)

    @cached_property
    def why_not(self) -> Ids:
        """Why a source is not usable, "" where it is. (N,)"""
        reason = np.where(self.sources["eligible"].to_numpy(), "believed down", _objects(self.sources, "reason"))
        return np.where(self.is_usable, "", reason).astype(object)

    @cached_property
    def locations(self) -> Any:
        return pd.Index(sorted(set(_objects(self.paths, "location"))), dtype=object)

    @cached_property
    def rtt_ms(self) -> Float64:
        """NaN where the location cannot reach the source. (L, N)"""
        return self._grid("rtt_ms")

    @cached_property
    def distance_km(self) -> Float64:
        return self._grid("distance_km")

    @cached_property
    def _holders(self) -> tuple[Any, Int64, Int64, Int64]:
        """Contents held, sorted keys of held segments, where the holders of each begin, and the holders by source."""
        source = pd.Index(self.source_ids).get_indexer(pd.Index(_objects(self.placements, "source")))
        content, contents = pd.factorize(_objects(self.placements, "content"), sort=True)
        key = _segment_keys(content, np.asarray(self.placements["segment"].to_numpy(), dtype=np.int64))
        order = np.lexsort((source, key))
        held, first = np.unique(key[order], return_index=True)
        starts = np.append(first, len(key)).astype(np.int64)
        return pd.Index(contents, dtype=object), held, starts, source[order].astype(np.int64)

    def candidates(
        self,
        contents: Sequence[str],
        segments: Sequence[int],
        locations: Sequence[str],
        *,
        bandwidth_availability: Float64 | None = None,
        health: Float64 | None = None,
    ) -> CandidateBatch:
        """Candidates of each request: holders in order of source, then POPs.

        Args:
            contents: content id of each request. (R,)
            segments: segment number of each. (R,)
            locations: location id of each. (R,)
            bandwidth_availability: free share of each source's uplink; all free when absent. (N,)
            health: of each source; perfect when absent. (N,)

        Raises:
            RoutingError: a location that the plan does not know; lists them.
        """
        place = self.locations.get_indexer(pd.Index(list(locations), dtype=object))
        unknown = sorted({str(name) for name, code in zip(locations, place, strict=True) if code < 0})
        if unknown:
            raise RoutingError(
                f"The plan knows no location {', '.join(map(repr, unknown[:5]))}; it knows {len(self.locations)}, such "
                f"as {', '.join(map(repr, self.locations[:3]))}."
            )
        request, source = self._pairs(contents, segments)
        rtt = self.rtt_ms[place[request], source]
        reached = ~np.isnan(rtt)
        request, source, rtt = request[reached], source[reached], rtt[reached]
        n = len(self.source_ids)
        free = np.ones(n) if bandwidth_availability is None else bandwidth_availability
        sound = np.ones(n) if health is None else health
        return CandidateBatch(
            offsets=np.searchsorted(request, np.arange(len(place) + 1)).astype(np.int64),
            source=source.astype(np.int32),
            latency_ms=rtt,
            bandwidth_availability=free[source],
            health=sound[source],
            distance_km=self.distance_km[place[request], source],
            allowed=self.is_usable[source],
            rejection=self.why_not[source],
        )

    def _pairs(self, contents: Sequence[str], segments: Sequence[int]) -> tuple[Int64, Int64]:
        """(request, source) pairs sorted by request: holders first, then POPs."""
        known, held, starts, holders = self._holders
        n = len(contents)
        code = known.get_indexer(pd.Index(list(contents), dtype=object))
        key = _segment_keys(code, np.asarray(segments, dtype=np.int64))
        row = np.searchsorted(held, key)
        row[row == len(held)] = 0
        is_held = (held[row] == key) & (code >= 0) if len(held) else np.zeros(n, dtype=np.bool_)
        counts = np.where(is_held, np.diff(starts)[row], 0) if len(held) else np.zeros(n, dtype=np.int64)
        request = np.repeat(np.arange(n), counts)
        within = np.arange(len(request)) - np.repeat(np.cumsum(counts) - counts, counts)
        source = holders[starts[row[request]] + within] if len(request) else np.zeros(0, dtype=np.int64)
        pops = np.flatnonzero(self.tier == 1)
        all_requests = np.concatenate((request, np.repeat(np.arange(n), len(pops))))
        all_sources = np.concatenate((source, np.tile(pops, n)))
        order = np.argsort(all_requests, kind="stable")
        return all_requests[order].astype(np.int64), all_sources[order].astype(np.int64)

    def _grid(self, name: str) -> Float64:
        grid = np.full((len(self.locations), len(self.source_ids)), np.nan)
        row = self.locations.get_indexer(pd.Index(_objects(self.paths, "location")))
        column = pd.Index(self.source_ids).get_indexer(pd.Index(_objects(self.paths, "source")))
        grid[row, column] = self.paths[name].to_numpy()
        return grid


def _segment_keys(content: npt.ArrayLike, segment: Int64) -> Int64:
    """One sortable number for (content code, segment number)."""
    return (np.asarray(content, dtype=np.int64) << 32) + segment


def _objects(table: pa.Table, name: str) -> Ids:
    return np.asarray(table[name].to_pylist(), dtype=object)
