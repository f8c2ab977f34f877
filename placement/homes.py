"""Where the devices of a location keep what: a ring of storage, on which every segment has its place.

A segment belongs to the device on whose stretch of the ring its hash falls, so that every device sees its own part of
the contents, in proportion to its storage; who cannot take it passes it on to the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.mesh import Records, kernel
from placement.problem import Float64, Int64
from placement.trace import ReplayWorld
from placement.transfers import uniform


class Homes(NamedTuple):
    """The devices of each location, and the storage before each."""

    offsets: Int64  # (locations + 1,)
    device: Int64  # (devices,)
    storage_before: Float64  # (devices,) within the location
    total: Float64  # (locations,)


def homes_of(world: ReplayWorld) -> Homes:
    """The rings of a world; POPs are on none."""
    nodes = np.flatnonzero(world.tier != 1)
    nodes = nodes[np.argsort(world.location[nodes], kind="stable")]
    offsets = np.searchsorted(world.location[nodes], np.arange(world.n_locations + 1)).astype(np.int64)
    storage = world.storage_bytes[nodes].astype(np.float64)
    before = np.concatenate([[0.0], np.cumsum(storage)])
    starts = np.repeat(before[offsets[:-1]], np.diff(offsets))
    return Homes(offsets, nodes.astype(np.int64), before[:-1] - starts, before[offsets[1:]] - before[offsets[:-1]])


@kernel
def first_home(homes: Homes, location: int, segment: int) -> int:
    """Position, in `homes.device`, of the device that a segment belongs to; -1 where the location has none."""
    low, high = homes.offsets[location], homes.offsets[location + 1] - 1
    if high < low:
        return -1
    place = uniform(np.uint64(0), segment, 0) * homes.total[location]
    while low < high:
        middle = (low + high + 1) // 2
        if homes.storage_before[middle] <= place:
            low = middle
        else:
            high = middle - 1
    return int(low)


@kernel
def may_take(sources: Records, source: int, n_bytes: int) -> bool:
    """Whether a device may receive a segment of this size at all."""
    node = sources[source]
    return bool(node.eligible and n_bytes <= node.storage_bytes and node.downlink_bps > 0.0)
