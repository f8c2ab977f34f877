"""What a format's reader hands on: rows of requests, the lines it could not read, and those it left out on purpose."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

T = TypeVar("T")
R = TypeVar("R")
Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Broken:
    """Lines that could not be read: number (from 1), reason, and the raw text, which never leaves this process."""

    line: list[int] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.line)

    def add(self, lines: Int64, texts: Iterable[str | None], reason: str) -> None:
        """Sets these lines aside for one reason."""
        self.line.extend(lines.tolist())
        self.reason.extend([reason] * len(lines))
        self.text.extend(text or "" for text in texts)


@dataclass(frozen=True)
class Reading:
    """A piece of one input file.

    Attributes:
        table: columns named as in the requests table, not yet validated; further columns follow.
        line: line or row number in the file, from 1, for each row of the table.
        broken: what could not be read.
        skipped: rows left out on purpose, by reason (a method other than GET, an error status).
    """

    table: pa.Table
    line: Int64
    broken: Broken = field(default_factory=Broken)
    skipped: Counter[str] = field(default_factory=Counter)


def in_threads(work: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
    """Results in the order of the pieces; a few pieces at a time, so that a long file need not fit into memory.

    Arrow lets go of the interpreter while it works, so threads use all cores.
    """
    ahead = os.cpu_count() or 1
    with ThreadPoolExecutor(ahead) as pool:
        waiting: deque[Future[R]] = deque()
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def to_bool(values: pa.Array | pa.ChunkedArray) -> Bool:
    """A boolean Arrow column as numpy; null counts as False."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def on_unique(values: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """The distinct values and each row's index among them: most fields of a log repeat, so work is done once each."""
    encoded = pc.dictionary_encode(values)
    whole = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return whole.dictionary, whole.indices
