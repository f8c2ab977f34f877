"""The segment requests of a window, cut from the tables as they are read: memory does not grow with the window.

A view goes on asking long after its start. So views are read in time order, cut only as far as one is asked, and those
that go on are kept for the next question: the parts, put together, are the cut of the whole, request for request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.errors import InputError
from pipelines.jobs import iso
from pipelines.request_batches import BATCH_ROWS
from pipelines.requests import BEGINNING_US, Playback, RequestRows
from pipelines.scene import Scene
from placement.trace import SegmentRequests


class Reader(Protocol):
    """Reads a trace; questions go forward in time."""

    def between(self, start_us: int, end_us: int) -> SegmentRequests:
        """Segment requests in [start, end), for starts that never go back."""
        ...


@dataclass(frozen=True)
class RequestTrace:
    """Where segment requests come from; holds none of them.

    Attributes:
        folder: the tables.
        window: [start, end) in microseconds: views that start in it, until it ends.
        n_requests: segment requests in all.
        batch_rows: requests that are read at once.
    """

    folder: Path
    scene: Scene
    playback: Playback
    window: tuple[int, int]
    n_requests: int
    batch_rows: int = BATCH_ROWS

    @classmethod
    def find(
        cls, folder: Path, scene: Scene, playback: Playback, window: tuple[int, int], *, batch_rows: int = BATCH_ROWS
    ) -> RequestTrace:
        """Reads the window through once, so that what is wrong with it is said before anything is played.

        Raises:
            InputError: no request lies in the window, or one names a content or location that is not in the tables.
            TableError: the requests are not in time order.
        """
        trace = cls(folder, scene, playback, window, 0, batch_rows)
        n = sum(int(playback.counts_before(rows, scene, window[1]).sum()) for rows in trace.views())
        if n == 0:
            start, end = (iso(at_us) for at_us in window)
            raise InputError(f"{folder}: no request lies in the window {start} to {end}; choose days of the data.")
        return cls(folder, scene, playback, window, n, batch_rows)

    def __len__(self) -> int:
        return self.n_requests

    def views(self) -> Iterator[RequestRows]:
        """The requests of the window as they were made, batch by batch."""
        start_us, end_us = self.window
        return RequestRows.stream(
            self.folder, self.scene, start_us=start_us, before_us=end_us, batch_rows=self.batch_rows
        )

    def reader(self) -> TraceReader:
        """One pass through the trace, from its start."""
        return TraceReader(self.views(), self.scene, self.playback, self.window)


class TraceReader:
    """One pass through the views of a window; holds the batch being read, views that go on, and what was asked for.

    Args:
        views: in time order, batch by batch.
        scene: codes and sizes of the segments.
        playback: how views become segment requests.
        window: [start, end); what views ask for at or after its end is left out.
    """

    def __init__(self, views: Iterator[RequestRows], scene: Scene, playback: Playback, window: tuple[int, int]) -> None:
        self._views, self._scene, self._playback = views, scene, playback
        self._until_us, self._end_us = window
        self._from_us = BEGINNING_US
        self._going_on = self._unread = RequestRows.joined([])
        self._held = joined([])

    def between(self, start_us: int, end_us: int) -> SegmentRequests:
        """Segment requests in [start, end); those before the start are forgotten.

        Raises:
            ValueError: the start lies before that of an earlier question.
        """
        if start_us < self._from_us:
            raise ValueError(
                f"Expected a start from {self._from_us} us on, got {start_us}: what lies before is forgotten."
            )
        self._from_us = start_us
        further = self._cut_until(end_us)
        self._held = joined([part.between(start_us, self._until_us) for part in (self._held, further)])
        return self._held.between(start_us, end_us)

    def _cut_until(self, end_us: int) -> SegmentRequests:
        """The segment requests from where the pass has come to an instant further on."""
        end_us = min(end_us, self._end_us)
        if end_us <= self._until_us:
            return joined([])
        views = RequestRows.joined([self._going_on, *self._read_before(end_us)])
        cut = self._playback.cut(views, self._scene, within=(self._until_us, end_us))
        self._going_on = self._playback.going_on(views, self._scene, end_us)
        self._until_us = end_us
        return cut

    def _read_before(self, end_us: int) -> Iterator[RequestRows]:
        """The views that start before an instant; no further batch is read than must be."""
        while True:
            n = int(np.searchsorted(self._unread.ts_us, end_us, side="left"))
            ready, self._unread = self._unread.rows(slice(0, n)), self._unread.rows(slice(n, None))
            yield ready
            if len(self._unread):
                return
            following = next(self._views, None)
            if following is None:
                return
            self._unread = following


def joined(parts: Sequence[SegmentRequests]) -> SegmentRequests:
    """Segment requests of parts that follow one another."""
    ts_us = np.concatenate([np.zeros(0, dtype=np.int64), *(part.ts_us for part in parts)])
    segment = np.concatenate([np.zeros(0, dtype=np.int32), *(part.segment for part in parts)])
    location = np.concatenate([np.zeros(0, dtype=np.int32), *(part.location for part in parts)])
    size = np.concatenate([np.zeros(0, dtype=np.int64), *(part.bytes for part in parts)])
    return SegmentRequests(ts_us, segment, location, size)
