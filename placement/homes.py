"""Where the devices of a location keep what: a ring of storage, on which every segment has its place.

A segment belongs to the device on whose stretch of the ring its hash falls, so that every device sees its own part of
the contents, in proportion to its storage; who cannot take it passes it on to the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.mesh import Mesh, Request, kernel
from placement.problem import Float64, Int64
from placement.shelf import Shelf
from placement.trace import ReplayWorld
from placement.transfers import uniform
from placement.uplink_queue import up_row


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
def device_for(mesh: Mesh, shelf: Shelf, homes: Homes, request: Request) -> int:
    """The first device from the segment's place on the ring that is up and can take it; -1 if none."""
    first, last = homes.offsets[request.location], homes.offsets[request.location + 1]
    at = first_home(homes, request.location, request.segment)
    for _ in range(last - first):
        source = homes.device[at]
        if can_take(mesh, source, request) and not holds(mesh, shelf, source, request):
            return int(source)
        at = at + 1 if at + 1 < last else first
    return -1


@kernel
def can_take(mesh: Mesh, source: int, request: Request) -> bool:
    """Whether the device is up and has room for the segment at all."""
    if mesh.segment_bytes[request.segment] > mesh.sources[source].storage_bytes:
        return False
    if mesh.sources[source].downlink_bps <= 0.0:
        return False
    return bool(up_row(mesh.sources, mesh.intervals, source, request.ts_us) >= 0)


@kernel
def holds(mesh: Mesh, shelf: Shelf, source: int, request: Request) -> bool:
    """Whether the device keeps the segment on its shelf."""
    slot = shelf.first_copy[request.location * len(mesh.segment_bytes) + request.segment]
    while slot >= 0:
        if mesh.copies[slot].source == source:
            return True
        slot = shelf.sibling[slot]
    return False
