"""The real click log: read, coded, and its location codes ranked by traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.capacity import TIMESTAMP, Demand, daily_distinct_bytes, iso
from pipelines.sizes import Bool, Catalogue, Int64, hash_ids, mix, watched_bytes

DAY_US = 86_400_000_000
ELSEWHERE = "elsewhere"
FURTHER_COLUMNS = ("device_group", "os", "referrer")

Objects = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Clicks:
    """Clicks in time order.

    Attributes:
        table: all columns as they were read. (n,)
        ts_us: microseconds since 1970 UTC. (n,)
        content: row in `contents`. (n,)
        location: row in `locations`. (n,)
        contents: ids, sorted.
        locations: the busiest codes of the training days, busiest first, then `elsewhere`.
        start_us: first instant of the world.
        train_until_us: end of the training days.
    """

    table: pa.Table
    ts_us: Int64
    content: Int64
    location: Int64
    contents: Objects
    locations: Objects
    start_us: int
    train_until_us: int

    @property
    def training(self) -> Bool:
        return np.asarray(self.ts_us < self.train_until_us)

    @property
    def n_served(self) -> int:
        """Locations that have nodes; `elsewhere` comes after them."""
        return len(self.locations) - 1

    def training_requests(self) -> Int64:
        """Training requests of each location, `elsewhere` last. (n_served + 1,)"""
        return np.bincount(self.location[self.training], minlength=len(self.locations))

    def bytes_requested(self, catalogue: Catalogue, *, watch_through: float, seed: int) -> Int64:
        """Bytes of each click: drawn from a hash of its instant, session and content, never from its row. (n,)"""
        session, sessions = coded(self.table["session"])
        key = mix(hash_ids(self.contents, seed=seed)[self.content], self.ts_us)
        key = mix(key ^ hash_ids(sessions, seed=seed)[session], 3)
        return watched_bytes(catalogue, self.content, key, watch_through=watch_through)

    def demand(self, catalogue: Catalogue, requested_bytes: Int64) -> Demand:
        """Mean demand of the served locations over the training days, `elsewhere` left out."""
        ours = self.training & (self.location < self.n_served)
        seconds = (self.train_until_us - self.start_us) / 1e6
        distinct = daily_distinct_bytes(
            (self.ts_us[ours] - self.start_us) // DAY_US,
            self.location[ours],
            self.content[ours],
            catalogue.bytes,
            n_locations=self.n_served,
            n_days=(self.train_until_us - self.start_us) // DAY_US,
        )
        return Demand(float(requested_bytes[ours].sum()) / seconds, distinct)

    def requests_table(self, requested_bytes: Int64) -> pa.Table:
        """The canonical table, with what else was measured about each click."""
        n = len(self.ts_us)
        names = pa.array(self.locations, pa.string())
        columns: dict[str, Any] = {
            "ts": pa.array(self.ts_us, TIMESTAMP),
            "user": self.table["user"].cast(pa.string()),
            "session": self.table["session"].cast(pa.string()),
            "content": self.table["content"].cast(pa.string()),
            "segment": pa.nulls(n, pa.int32()),
            "location": names.take(self.location),
            "bytes": pa.array(requested_bytes),
        }
        further = [c for c in FURTHER_COLUMNS if c in self.table.column_names]
        return pa.table(columns | {c: self.table[c] for c in further})


def read_clicks(table: pa.Table, *, start_us: int, end_us: int, train_until_us: int, n_locations: int) -> Clicks:
    """Clicks in [start, end); the `n_locations` codes with most training clicks keep their name.

    Raises:
        ValueError: no clicks in that time, or fewer codes than asked for.
    """
    ts_us = table["ts"].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    inside = (ts_us >= start_us) & (ts_us < end_us)
    if not (inside & (ts_us < train_until_us)).any():
        raise ValueError(
            f"The click log holds nothing between {iso(start_us)} and {iso(train_until_us)}; it runs from "
            f"{iso(int(ts_us.min()))} to {iso(int(ts_us.max()))}. Choose another start."
        )
    table, ts_us = _in_time_order(table.filter(pa.array(inside)), ts_us[inside])
    content, contents = coded(table["content"])
    code, codes = coded(table["location"])
    if len(codes) < n_locations:
        raise ValueError(f"The click log has {len(codes)} location codes, but n_locations is {n_locations}; lower it.")
    clicks = np.bincount(code[ts_us < train_until_us], minlength=len(codes))
    busiest = np.argsort(-clicks, kind="stable")[:n_locations]
    rank = np.full(len(codes), n_locations, dtype=np.int64)
    rank[busiest] = np.arange(n_locations)
    locations = np.append(codes[busiest], ELSEWHERE).astype(object)
    return Clicks(table, ts_us, content, rank[code], contents, locations, start_us, train_until_us)


def _in_time_order(table: pa.Table, ts_us: Int64) -> tuple[pa.Table, Int64]:
    if bool(np.all(ts_us[1:] >= ts_us[:-1])):
        return table, ts_us
    order = np.argsort(ts_us, kind="stable")
    return table.take(order), ts_us[order]


def coded(column: Any) -> tuple[Int64, Objects]:
    """An Arrow column of text as codes into its distinct values, sorted, so that the order of rows leaves no mark."""
    whole: Any = pa.chunked_array([pc.dictionary_encode(column).combine_chunks()]).chunk(0)
    values = whole.dictionary.to_numpy(zero_copy_only=False).astype(object)
    order = np.argsort(values)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[whole.indices.to_numpy()], values[order]
