"""Uplinks that change with time: each source sends at `share · uplink_bps`, with a share that is constant by pieces.

A source's share is 1 before its first piece, and that of a piece from its start until the next one begins. The pieces
of source `n` are rows `offsets[n]` to `offsets[n + 1]`, in time order. Less than 1 bit/s counts as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from placement.errors import ReplayError
from placement.problem import Float64, Int64
from placement.uptime import ALWAYS_US, NEVER_US


class Pieces(NamedTuple):
    """All time in pieces, each ending where the next begins; those of source `n` from row `offsets[n]` on."""

    offsets: Int64  # (sources + 1,)
    start_us: Int64
    end_us: Int64
    share: Float64


@dataclass(frozen=True)
class UplinkSchedule:
    """What share of its uplink each source has, and from when.

    Attributes:
        offsets: where each source's pieces begin. (sources + 1,)
        start_us: first instant of each piece. (pieces,)
        share: of the source's `uplink_bps`; 0 where the owner pauses it. (pieces,)
    """

    offsets: Int64
    start_us: Int64
    share: Float64

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.start_us):
            raise ReplayError(f"Expected offsets from 0 to {len(self.start_us)}, got {self.offsets!r}.")
        problems = []
        if len(self.share) != len(self.start_us):
            problems.append(f"{len(self.start_us)} pieces start, but {len(self.share)} have a share.")
        wrong = np.flatnonzero(~((self.share >= 0) & np.isfinite(self.share)))
        if len(wrong):
            problems.append(f"Expected shares of an uplink >= 0, got {self.share[wrong[0]]} in row {wrong[0]}.")
        if np.any(np.diff(self.offsets) < 0) or any(
            np.any(np.diff(self.start_us[first:last]) <= 0) for first, last in pairwise(self.offsets)
        ):
            problems.append("The pieces of a source must be in time order, each instant once.")
        if problems:
            raise ReplayError("The schedule of uplinks cannot be used:", problems)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def constant(cls, n_sources: int) -> UplinkSchedule:
        """Every source has its whole uplink for all time."""
        return cls(np.zeros(n_sources + 1, np.int64), np.zeros(0, np.int64), np.zeros(0))

    def slowed(self, sources: Int64, factor: float, start_us: int, end_us: int) -> UplinkSchedule:
        """The same, with the shares of some sources times `factor` over `[start_us, end_us)`.

        Raises:
            ReplayError: the window is empty, or the factor negative.
        """
        if end_us <= start_us:
            raise ReplayError(f"Expected a window that ends after its start, got [{start_us}, {end_us}) us.")
        chosen = set(np.asarray(sources).tolist())
        starts, shares = [], []
        for n, (first, last) in enumerate(pairwise(self.offsets)):
            piece_us, share = self.start_us[first:last], self.share[first:last]
            if n in chosen:
                edges_us = np.union1d(piece_us, [start_us, end_us])
                inside = (edges_us >= start_us) & (edges_us < end_us)
                share = _share_at(piece_us, share, edges_us) * np.where(inside, factor, 1.0)
                piece_us = edges_us
            starts.append(piece_us)
            shares.append(share)
        offsets = np.concatenate([[0], np.cumsum([len(piece_us) for piece_us in starts])]).astype(np.int64)
        return UplinkSchedule(offsets, np.concatenate(starts).astype(np.int64), np.concatenate(shares))

    @cached_property
    def pieces(self) -> Pieces:
        """With the whole share that each source has before its first piece."""
        first = self.offsets[:-1]
        start_us = np.insert(self.start_us, first, ALWAYS_US)
        offsets = self.offsets + np.arange(len(self.offsets))
        end_us = np.append(start_us[1:], NEVER_US)
        end_us[offsets[1:] - 1] = NEVER_US
        return Pieces(offsets, start_us, end_us, np.insert(self.share, first, 1.0))

    def mean_share(self, start_us: int, end_us: int) -> Float64:
        """Mean share of each source over `[start_us, end_us)`. (sources,)"""
        pieces = self.pieces
        overlap_us = np.minimum(pieces.end_us, end_us) - np.maximum(pieces.start_us, start_us)
        part = pieces.share * np.maximum(overlap_us, 0) / (end_us - start_us)
        return np.asarray(np.add.reduceat(part, pieces.offsets[:-1]), dtype=np.float64)


def _share_at(start_us: Int64, share: Float64, at_us: Int64) -> Float64:
    piece = np.searchsorted(start_us, at_us, side="right")
    return np.concatenate([[1.0], share])[piece]
