"""The trace of a backtest, planning instant by planning instant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from models.events import HOUR_US
from pipelines.request_trace import Reader, RequestTrace
from placement.trace import SegmentRequests


@dataclass(frozen=True)
class MergedTrace:
    """Two traces in one order of time; of requests at the same instant, those of the first come first."""

    first: Trace
    second: Trace

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def reader(self) -> MergedReader:
        """One pass through both, from their start."""
        return MergedReader(reader_of(self.first), reader_of(self.second))


@dataclass(frozen=True)
class MergedReader:
    """One pass through two traces."""

    first: Reader
    second: Reader

    def between(self, start_us: int, end_us: int) -> SegmentRequests:
        """Segment requests in [start, end), for starts that never go back."""
        parts = [reader.between(start_us, end_us) for reader in (self.first, self.second)]
        order = np.argsort(np.concatenate([part.ts_us for part in parts]), kind="stable")
        names = ("ts_us", "segment", "location", "bytes")
        return SegmentRequests(*(np.concatenate([getattr(part, name) for part in parts])[order] for name in names))


Trace = RequestTrace | MergedTrace | SegmentRequests
"""Requests that are read as they are played, or that are held."""


@dataclass(frozen=True)
class Stretch:
    """Segment requests of [start, end), planned anew every `every_hours`."""

    requests: Trace
    start_us: int
    end_us: int
    every_hours: float

    @property
    def n_requests(self) -> int:
        return len(self.requests)

    def instants(self) -> list[int]:
        return list(range(self.start_us, self.end_us, round(self.every_hours * HOUR_US)))

    def parts(self) -> Iterator[tuple[int, SegmentRequests]]:
        """Each planning instant with the requests until the next one; no other part is held meanwhile."""
        reader = reader_of(self.requests)
        for at_us, until_us in pairwise([*self.instants(), self.end_us]):
            yield at_us, reader.between(at_us, until_us)

    def hours(self) -> Iterator[SegmentRequests]:
        """The requests hour by hour, for rows that plan nothing."""
        reader = reader_of(self.requests)
        for at_us in range(self.start_us, self.end_us, HOUR_US):
            yield reader.between(at_us, min(at_us + HOUR_US, self.end_us))


def reader_of(requests: Trace) -> Reader:
    """A reader of one's own, at the start of the trace."""
    return requests if isinstance(requests, SegmentRequests) else requests.reader()
