"""How much the mesh serves by how many ask: the requests for one segment at one place over the whole trace.

A cache that begins empty and fills after the first request serves at most

    (N - 1) / N

of the bytes of a segment that is asked for N times at its place; only who expects the first request can serve more.
Sizes of audiences are counted in a first pass over the requests; what became of each request is added as it is served.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from placement.errors import ReplayError
from placement.problem import Float64, Int64
from placement.replay import Served
from placement.trace import ReplayWorld, SegmentRequests
from placement.transfers import SERVED

AUDIENCE_WORDS = ("1", "2", "3 to 4", "5 to 9", "10 and more")
_FIRST_OF_GROUP = np.array([2, 3, 5, 10])  # of every group but the first


class AudienceSizes:
    """Requests for each segment at each place: four bytes for each pair, however long the trace."""

    def __init__(self, world: ReplayWorld) -> None:
        self._n_locations = world.n_locations
        self._counts = np.zeros(world.n_segments * world.n_locations, np.int32)

    @classmethod
    def count(cls, world: ReplayWorld, parts: Iterable[SegmentRequests]) -> AudienceSizes:
        sizes = cls(world)
        for part in parts:
            np.add.at(sizes._counts, sizes._keys(part), 1)
        return sizes

    def of(self, requests: SegmentRequests) -> Int64:
        """The size of each request's audience. (requests,)"""
        return self._counts[self._keys(requests)].astype(np.int64)

    def _keys(self, requests: SegmentRequests) -> Int64:
        return requests.segment.astype(np.int64) * self._n_locations + requests.location


@dataclass(frozen=True)
class AudienceTally:
    """Sums by size of the audience, in the groups of `AUDIENCE_WORDS`. All are (groups,).

    Attributes:
        requests: requests.
        requested_bytes: bytes asked for.
        mesh_bytes: bytes of the requests that the mesh served whole; transfers that broke count as not served.
        bound_bytes: bytes times (N - 1) / N.
    """

    requests: Int64
    requested_bytes: Float64
    mesh_bytes: Float64
    bound_bytes: Float64


class AudienceCount:
    """Adds up what became of the requests of one row of a comparison."""

    def __init__(self, sizes: AudienceSizes) -> None:
        self._sizes = sizes
        self._sums = np.zeros((4, len(AUDIENCE_WORDS)))

    def add(self, requests: SegmentRequests, served: Served) -> None:
        """The next requests with what `serve` said of them.

        Raises:
            ReplayError: a request was not in the first pass.
        """
        size = self._sizes.of(requests)
        if np.any(size < 1):
            raise ReplayError("A request is of no counted audience; count the sizes over the same requests first.")
        group = np.searchsorted(_FIRST_OF_GROUP, size, side="right")
        wanted = requests.bytes.astype(np.float64)
        whole = np.where(served.cause == SERVED, wanted, 0.0)
        for row, weight in enumerate((np.ones(len(size)), wanted, whole, wanted * (1.0 - 1.0 / size))):
            self._sums[row] += np.bincount(group, weights=weight, minlength=len(AUDIENCE_WORDS))

    def tally(self) -> AudienceTally:
        requests, requested, mesh, bound = self._sums
        return AudienceTally(requests.astype(np.int64), requested.copy(), mesh.copy(), bound.copy())
