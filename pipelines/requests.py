"""Requests in the scene's codes, whole and cut into segments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.errors import InputError
from pipelines.scene import Int64, Objects, Scene
from pipelines.store import read_requests
from placement.trace import SegmentRequests


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
        columns = ["ts", "content", "location", "segment", "bytes"]
        table = read_requests(folder, start_us=start_us, before_us=before_us, columns=columns)
        content = _codes(table["content"], scene.catalogue.contents)
        location = _codes(table["location"], scene.locations)
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
        part = slice(int(first), int(last))
        return RequestRows(
            self.ts_us[part], self.content[part], self.location[part], self.segment[part], self.bytes[part]
        )


@dataclass(frozen=True)
class WatchThrough:
    """P(the next segment is watched | this one is and there is a next), as known at any instant.

    The maximum-likelihood estimate of a geometric law that the end of the content cuts: continuations over chances,
    counted over earlier requests for contents of several segments.
    """

    ts_us: Int64
    continued: Int64
    chances: Int64

    @classmethod
    def count(cls, rows: RequestRows, scene: Scene) -> WatchThrough:
        catalogue = scene.catalogue
        available = catalogue.n_segments[rows.content]
        watched = np.clip(-(-rows.bytes // catalogue.segment_bytes[rows.content]), 1, available)
        tells = (available > 1) & (rows.segment < 0)
        continued = np.where(tells, watched - 1, 0)
        chances = np.where(tells, np.minimum(watched, available - 1), 0)
        return cls(rows.ts_us, np.cumsum(continued), np.cumsum(chances))

    def at(self, at_us: int) -> float:
        """The estimate from requests before `at_us`; 1 where none tells: nothing says that viewers stop early."""
        n = int(np.searchsorted(self.ts_us, at_us, side="left"))
        if n == 0 or self.chances[n - 1] == 0:
            return 1.0
        return float(self.continued[n - 1] / self.chances[n - 1])


@dataclass(frozen=True)
class Playback:
    """Cuts requests into segment requests: segment j of a view is asked for `j x segment_seconds` after its start."""

    segment_seconds: float = 10.0

    def cut(self, rows: RequestRows, scene: Scene) -> SegmentRequests:
        """Segment requests in time order; a view of b bytes asks for ceil(b / segment_bytes) whole segments."""
        catalogue = scene.catalogue
        whole = rows.segment < 0
        size = catalogue.segment_bytes[rows.content]
        count = np.where(whole, np.maximum(-(-rows.bytes // size), 1), 1)
        row = np.repeat(np.arange(len(rows)), count)
        number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        code = catalogue.first_segment[rows.content[row]] + np.where(whole[row], number, rows.segment[row])
        ts_us = rows.ts_us[row] + (number * self.segment_seconds * 1e6).astype(np.int64)
        order = np.argsort(ts_us, kind="stable")
        return SegmentRequests(
            ts_us=ts_us[order],
            segment=code[order].astype(np.int32),
            location=rows.location[row][order].astype(np.int32),
            bytes=catalogue.sizes[code[order]],
        )


def _or_unknown(values: Any) -> Int64:
    """Whole numbers with -1 for null; a column with nulls comes from Arrow as floats."""
    numbers = values.to_numpy()
    return np.where(np.isnan(numbers), -1, numbers).astype(np.int64)


def _codes(values: Any, vocabulary: Objects) -> Int64:
    """Position of each value in the vocabulary, -1 where it is not there; looked up once per distinct value."""
    parts = values.dictionary_encode().unify_dictionaries().chunks
    if not parts:
        return np.zeros(0, dtype=np.int64)
    found = pd.Index(vocabulary).get_indexer(pd.Index(parts[0].dictionary.to_pylist(), dtype=object))
    codes = np.concatenate([part.indices.to_numpy() for part in parts])
    return np.asarray(found[codes], dtype=np.int64)
