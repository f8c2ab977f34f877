"""Requests in the scene's codes, whole and cut into segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.errors import InputError
from pipelines.request_batches import BATCH_ROWS, request_batches
from pipelines.scene import Bool, Float64, Int32, Int64, Objects, Scene
from pipelines.store import read_requests
from placement.trace import SegmentRequests

COLUMNS = ["ts", "content", "location", "segment", "bytes"]
BEGINNING_US = -(2**62)
"""Before every request, with room to count back from."""
Counts = npt.NDArray[Any]
PSEUDO_CHANCES = 50.0
"""Chances to go on that a content needs before its own viewers outweigh those of its kind."""


@dataclass(frozen=True)
class RequestRows:
    """Requests in time order; `segment` is -1 where a request starts at the content's first byte. All are (n,)."""

    ts_us: Int64
    content: Int64
    location: Int64
    segment: Int64
    bytes: Int64

    def __len__(self) -> int:
        return len(self.ts_us)

    @classmethod
    def read(
        cls, folder: Path, scene: Scene, *, start_us: int | None = None, before_us: int | None = None
    ) -> RequestRows:
        """Reads the requests known before `before_us`.

        Raises:
            InputError: a request names a content or a location that the other tables do not know.
        """
        table = read_requests(folder, start_us=start_us, before_us=before_us, columns=COLUMNS)
        return cls._coded(table, folder, scene)

    @classmethod
    def stream(
        cls,
        folder: Path,
        scene: Scene,
        *,
        start_us: int | None = None,
        before_us: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[RequestRows]:
        """The same requests batch by batch, none of them empty.

        Raises:
            InputError: as `read`.
            TableError: the requests are not in time order.
        """
        batches = request_batches(folder, COLUMNS, start_us=start_us, before_us=before_us, rows=batch_rows)
        return (cls._coded(table, folder, scene) for table in batches)

    @classmethod
    def _coded(cls, table: pa.Table, folder: Path, scene: Scene) -> RequestRows:
        content = _codes(table["content"], scene.catalogue.codes)
        location = _codes(table["location"], scene.location_codes)
        for name, codes in (("content", content), ("location", location)):
            if (codes < 0).any():
                example = table[name][int(np.flatnonzero(codes < 0)[0])].as_py()
                raise InputError(
                    f"{folder}: {int((codes < 0).sum())} requests name a {name} that the {name}s table lacks, such as "
                    f"{example!r}. Ingest the tables together, so that this is checked at the door."
                )
        size = scene.catalogue.bytes[content]
        wanted = _or_unknown(table["bytes"])
        return cls(
            ts_us=np.asarray(table["ts"].cast(pa.int64()).to_numpy(), dtype=np.int64),
            content=content,
            location=location,
            segment=_or_unknown(table["segment"]),
            bytes=np.where(wanted < 0, size, np.minimum(wanted, size)),
        )

    def between(self, start_us: int, end_us: int) -> RequestRows:
        first, last = np.searchsorted(self.ts_us, [start_us, end_us], side="left")
        return self.rows(slice(int(first), int(last)))

    def rows(self, part: slice | Bool) -> RequestRows:
        return RequestRows(
            self.ts_us[part], self.content[part], self.location[part], self.segment[part], self.bytes[part]
        )

    @classmethod
    def joined(cls, parts: Iterable[RequestRows]) -> RequestRows:
        """Requests of parts that follow one another."""
        columns = ([getattr(part, f.name) for part in parts] for parts in [list(parts)] for f in fields(cls))
        return cls(*(np.concatenate([np.zeros(0, dtype=np.int64), *column]) for column in columns))


@dataclass(frozen=True)
class WatchThrough:
    """P(the next segment is watched | this one is and there is a next), by content, as known at any instant.

    The maximum-likelihood estimate of a geometric law that the end of the content cuts, continuations over chances,
    drawn to that of the content's kind, and that to the one of all contents:

        p_i = (s_i + m p_k) / (n_i + m),    p_k = (s_k + m p) / (n_k + m),    p = s / n

    with s and n counted over earlier requests for contents of several segments, and m of `PSEUDO_CHANCES`. So a content
    that nobody watched yet is expected to be watched as its kind is, and one of an unknown kind as all are.

    Attributes:
        ts_us, content, continued, chances: the requests that tell, in time order. (n,)
        kind: code of the kind of each content, -1 where unknown. (contents,)
    """

    ts_us: Int64
    content: Int32
    continued: Int32
    chances: Int32
    kind: Int64

    @classmethod
    def count(cls, rows: RequestRows, scene: Scene) -> WatchThrough:
        return cls.count_all([rows], scene)

    @classmethod
    def count_all(cls, parts: Iterable[RequestRows], scene: Scene) -> WatchThrough:
        """Of requests that come part by part, in time order; only what tells is kept, in 20 bytes a request."""
        kinds = scene.catalogue.kinds
        kind = np.full(len(scene.catalogue.contents), -1) if kinds is None else pd.factorize(kinds)[0]
        told = [_told(rows, scene) for rows in (RequestRows.joined([]), *parts)]
        ts_us, content, continued, chances = (np.concatenate(column) for column in zip(*told, strict=True))
        return cls(ts_us, content, continued, chances, np.asarray(kind, dtype=np.int64))

    def at(self, at_us: int) -> Float64:
        """From requests before `at_us`, (contents,); 1 where none tells: nothing says that viewers stop early."""
        n = int(np.searchsorted(self.ts_us, at_us, side="left"))
        size = len(self.kind)
        continued, chances = (
            np.bincount(self.content[:n], values[:n], minlength=size) for values in (self.continued, self.chances)
        )
        overall = continued.sum() / chances.sum() if chances.sum() else 1.0
        kind = np.where(self.kind < 0, self.kind.max(initial=-1) + 1, self.kind)  # the last place takes the unknown
        by_kind = _drawn_to(overall, np.bincount(kind, continued), np.bincount(kind, chances))
        return _drawn_to(np.where(self.kind < 0, overall, by_kind[kind]), continued, chances)


def _told(rows: RequestRows, scene: Scene) -> tuple[Int64, Int32, Int32, Int32]:
    """Instant, content, continuations and chances of the requests that tell how far viewers watch."""
    catalogue = scene.catalogue
    tells = np.flatnonzero((catalogue.n_segments[rows.content] > 1) & (rows.segment < 0))
    content = rows.content[tells]
    available = catalogue.n_segments[content]
    watched = np.clip(-(-rows.bytes[tells] // catalogue.segment_bytes[content]), 1, available)
    chances = np.minimum(watched, available - 1)
    return rows.ts_us[tells], content.astype(np.int32), (watched - 1).astype(np.int32), chances.astype(np.int32)


def _drawn_to(parent: Float64 | float, continued: Counts, chances: Counts) -> Float64:
    return np.asarray((continued + PSEUDO_CHANCES * parent) / (chances + PSEUDO_CHANCES), dtype=np.float64)


@dataclass(frozen=True)
class Playback:
    """Cuts requests into segment requests: segment j of a view is asked for `j x segment_seconds` after its start."""

    segment_seconds: float = 10.0

    def cut(self, rows: RequestRows, scene: Scene, *, within: tuple[int, int] | None = None) -> SegmentRequests:
        """Segment requests in time order; a view of b bytes asks for ceil(b / segment_bytes) whole segments.

        Args:
            rows: the views.
            scene: codes and sizes of the segments.
            within: only what is asked for in [start, end); everything when left out. Of equal instants the earlier
                view comes first, so that cuts of adjacent windows are the cut of both.
        """
        catalogue = scene.catalogue
        first, last = self._numbers(rows, scene, within)
        count = last - first
        row = np.repeat(np.arange(len(rows)), count)
        number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + first[row]
        ts_us = rows.ts_us[row] + self._after_us(number)
        code = catalogue.first_segment[rows.content[row]] + np.where(rows.segment[row] < 0, number, rows.segment[row])
        order = np.argsort(ts_us, kind="stable")
        return SegmentRequests(
            ts_us=ts_us[order],
            segment=code[order].astype(np.int32),
            location=rows.location[row][order].astype(np.int32),
            bytes=catalogue.sizes[code[order]],
        )

    def counts_before(self, rows: RequestRows, scene: Scene, at_us: int) -> Int64:
        """Segments that each view asks for before an instant. (n,)"""
        return self._numbers(rows, scene, (BEGINNING_US, at_us))[1]

    def going_on(self, rows: RequestRows, scene: Scene, at_us: int) -> RequestRows:
        """The views that ask for a segment at or after an instant."""
        return rows.rows(self.counts_before(rows, scene, at_us) < _segments_of(rows, scene))

    def _numbers(self, rows: RequestRows, scene: Scene, within: tuple[int, int] | None) -> tuple[Int64, Int64]:
        """First number, and one past the last, of the segments that each view asks for. (n,), (n,)"""
        count = _segments_of(rows, scene)
        if within is None:
            return np.zeros_like(count), count
        after_us = self._after_us(np.arange(count.max(initial=0)))
        first, last = (np.searchsorted(after_us, at_us - rows.ts_us, side="left") for at_us in within)
        last = np.minimum(last, count)
        return np.minimum(first, last), last

    def _after_us(self, number: Int64) -> Int64:
        """How long after a view's start it asks for its segments of these numbers."""
        return np.asarray((number * self.segment_seconds * 1e6).astype(np.int64), dtype=np.int64)


def _segments_of(rows: RequestRows, scene: Scene) -> Int64:
    """How many segments each view asks for, one after the other. (n,)"""
    size = scene.catalogue.segment_bytes[rows.content]
    return np.where(rows.segment < 0, np.maximum(-(-rows.bytes // size), 1), 1)


def _or_unknown(values: Any) -> Int64:
    """Whole numbers with -1 for null; a column with nulls comes from Arrow as floats."""
    numbers = values.to_numpy()
    return np.where(np.isnan(numbers), -1, numbers).astype(np.int64)


def _codes(values: Any, codes_of: Callable[[Objects], Int64]) -> Int64:
    """Position of each value in a vocabulary, -1 where it is not there; looked up once per distinct value."""
    parts = values.dictionary_encode().unify_dictionaries().chunks
    if not parts:
        return np.zeros(0, dtype=np.int64)
    found = codes_of(np.asarray(parts[0].dictionary.to_pylist(), dtype=object))
    codes = np.concatenate([part.indices.to_numpy() for part in parts])
    return np.asarray(found[codes], dtype=np.int64)
