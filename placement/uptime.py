"""When each source was truly up: half-open intervals `[start, end)` in one flat list, sources one after another.

The intervals of source `n` are rows `offsets[n]` to `offsets[n + 1]`; they are in time order and do not touch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from placement.errors import ReplayError
from placement.problem import Int64

NEVER_US = np.iinfo(np.int64).max // 4  # later than any trace, and safe to add durations to
ALWAYS_US = -NEVER_US


@dataclass(frozen=True)
class Uptime:
    """The true up-intervals of every source.

    Attributes:
        offsets: where each source's intervals begin. (sources + 1,)
        start_us: first instant up. (intervals,)
        end_us: first instant off again. (intervals,)
    """

    offsets: Int64
    start_us: Int64
    end_us: Int64

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.start_us):
            raise ReplayError(f"Expected offsets from 0 to {len(self.start_us)}, got {self.offsets!r}.")
        if len(self.start_us) != len(self.end_us):
            raise ReplayError(f"{len(self.start_us)} starts but {len(self.end_us)} ends.")
        if np.any(np.diff(self.offsets) < 0) or np.any(self.end_us <= self.start_us):
            raise ReplayError("Up-intervals must have end > start; build them with Uptime.from_sessions.")
        same = np.ones(max(len(self.start_us) - 1, 0), dtype=bool)
        borders = self.offsets[1:-1] - 1
        same[borders[(borders >= 0) & (borders < len(same))]] = False
        if np.any(self.start_us[1:][same] <= self.end_us[:-1][same]):
            raise ReplayError("Up-intervals overlap or touch; build them with Uptime.from_sessions.")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_sessions(cls, node: npt.ArrayLike, start_us: Int64, end_us: Int64, *, n_sources: int) -> Uptime:
        """Sorts sessions by node and time and merges those that overlap or touch; empty ones are dropped.

        Args:
            node: index of the source of each session. (sessions,)
            start_us: first instant up. (sessions,)
            end_us: first instant off. (sessions,)
            n_sources: how many sources there are; those without a session are never up.

        Raises:
            ReplayError: lengths differ, a node is outside `[0, n_sources)`, or an end lies before its start.
        """
        nodes = np.asarray(node, dtype=np.int64)
        starts, ends = np.asarray(start_us, dtype=np.int64), np.asarray(end_us, dtype=np.int64)
        if not len(nodes) == len(starts) == len(ends):
            raise ReplayError(f"{len(nodes)} nodes, {len(starts)} starts, {len(ends)} ends: expected equal.")
        if len(nodes) and (nodes.min() < 0 or nodes.max() >= n_sources):
            raise ReplayError(f"Expected nodes in [0, {n_sources}), got {int(nodes.min())} to {int(nodes.max())}.")
        if np.any(ends < starts):
            row = int(np.argmax(ends < starts))
            raise ReplayError(f"Session {row} ends at {int(ends[row])}, before its start {int(starts[row])}.")
        order = np.lexsort((starts, nodes))
        order = order[ends[order] > starts[order]]
        return cls(*_merged(nodes[order], starts[order], ends[order], n_sources))

    @classmethod
    def always(cls, n_sources: int) -> Uptime:
        """Every source is up for all time."""
        return cls(
            np.arange(n_sources + 1, dtype=np.int64),
            np.full(n_sources, ALWAYS_US, dtype=np.int64),
            np.full(n_sources, NEVER_US, dtype=np.int64),
        )

    def without(self, sources: Int64, start_us: int, end_us: int) -> Uptime:
        """The same, with some sources off over `[start_us, end_us)`."""
        node = self._node
        cut = np.isin(node, sources) & (self.start_us < end_us) & (self.end_us > start_us)
        before = np.where(cut, np.clip(start_us, self.start_us, self.end_us), self.end_us)
        after = np.clip(end_us, self.start_us[cut], self.end_us[cut])
        return Uptime.from_sessions(
            np.concatenate([node, node[cut]]),
            np.concatenate([self.start_us, after]),
            np.concatenate([before, self.end_us[cut]]),
            n_sources=len(self),
        )

    def including(self, sources: Int64, start_us: int, end_us: int) -> Uptime:
        """The same, with some sources up over `[start_us, end_us)`."""
        n = len(sources)
        return Uptime.from_sessions(
            np.concatenate([self._node, sources]),
            np.concatenate([self.start_us, np.full(n, start_us, np.int64)]),
            np.concatenate([self.end_us, np.full(n, end_us, np.int64)]),
            n_sources=len(self),
        )

    @property
    def _node(self) -> Int64:
        """The source of each interval. (intervals,)"""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def up_us(self, start_us: int, end_us: int) -> Int64:
        """Microseconds that each source was up inside `[start_us, end_us)`. (sources,)"""
        overlap = np.minimum(self.end_us, end_us) - np.maximum(self.start_us, start_us)
        running = np.concatenate([[0], np.cumsum(np.maximum(overlap, 0))]).astype(np.int64)
        return np.diff(running[self.offsets])


@njit(cache=True)
def _merged(node: Int64, start_us: Int64, end_us: Int64, n_sources: int) -> tuple[Int64, Int64, Int64]:
    offsets = np.zeros(n_sources + 1, np.int64)
    starts, ends = np.empty_like(start_us), np.empty_like(end_us)
    count, previous = 0, -1
    for row in range(len(node)):
        if node[row] == previous and start_us[row] <= ends[count - 1]:
            ends[count - 1] = max(ends[count - 1], end_us[row])
            continue
        starts[count], ends[count] = start_us[row], end_us[row]
        count += 1
        previous = node[row]
        offsets[previous + 1] += 1
    return np.cumsum(offsets), starts[:count].copy(), ends[:count].copy()
