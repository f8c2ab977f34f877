"""Pieces of lines as positions in one buffer, so that only what is wanted of a line is ever copied."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.formats.reading import Bool, Int64


class Pieces:
    """Positions in the bytes of many texts.

    Attributes:
        begin: where each text begins.
        end: where it ends.
    """

    def __init__(self, texts: pa.StringArray) -> None:
        _, offsets, self._data = texts.buffers()
        bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        self._bytes = np.frombuffer(self._data or b"", np.uint8)
        self._marks: dict[str, Int64] = {}
        self.begin, self.end = bounds[:-1], bounds[1:]

    def cuts(self, separator: str, begin: Int64, end: Int64, count: int) -> list[Int64]:
        """Where the first `count` separators of each span [begin, end) are; its end where it has fewer."""
        if separator not in self._marks:
            self._marks[separator] = np.flatnonzero(self._bytes == ord(separator))
        marks = self._marks[separator]
        beyond = np.full(count, len(self._bytes), dtype=np.int64)
        padded, first = np.concatenate([marks, beyond]), np.searchsorted(marks, begin)
        return [np.minimum(padded[first + place], end) for place in range(count)]

    def text(self, begin: Int64, end: Int64) -> pa.StringArray:
        """The spans [begin, end) as texts; they follow one another and none overlaps the next."""
        return take_spans(pa.string(), self._data, begin, end)

    def are_digits(self, begin: Int64, end: Int64, *, count: int) -> Bool:
        """Whether the span is this many digits."""
        found: Bool = end - begin == count
        for place in range(count):
            byte = self._bytes[np.minimum(begin + place, len(self._bytes) - 1)]
            found &= (byte >= ord("0")) & (byte <= ord("9"))
        return found


def take_spans(kind: pa.DataType, data: pa.Buffer, begin: Int64, end: Int64) -> pa.Array:
    """The spans [begin, end) of the bytes as text or binary values; no span begins before the one before it ends."""
    if len(begin) == 0:
        return pa.array([], kind)
    # Arrow values that also hold what lies between the spans; every second one is then taken.
    offsets = np.stack([begin, end], axis=1).astype(np.int32).ravel()
    both = pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets), data])
    return both.take(pa.array(np.arange(0, len(both), 2)))
