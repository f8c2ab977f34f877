"""The devices of each location as one ring of storage, and the segment's place on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.mesh import Mesh, Request, kernel
from placement.problem import Float64, Int64
from placement.shelf import Shelf
from placement.trace import ReplayWorld
from placement.transfers import uniform, up_row


class Homes(NamedTuple):
    """The devices of each location, and the storage before each."""

    offsets: Int64  # (locations + 1,)
    device: Int64  # (devices,)
    storage_before: Float64  # (devices,) within the location


def homes_of(world: ReplayWorld) -> Homes:
    nodes = np.flatnonzero(world.tier != 1)
    nodes = nodes[np.argsort(world.location[nodes], kind="stable")]
    offsets = np.searchsorted(world.location[nodes], np.arange(world.n_locations + 1)).astype(np.int64)
    storage = world.storage_bytes[nodes].astype(np.float64)
    before = np.concatenate([[0.0], np.cumsum(storage)])
    starts = np.repeat(before[offsets[:-1]], np.diff(offsets))
    return Homes(offsets, nodes.astype(np.int64), before[:-1] - starts)


@kernel
def device_for(mesh: Mesh, shelf: Shelf, homes: Homes, request: Request) -> int:
    """The first device from the segment's place on the location's ring of storage that can take it; -1 if none."""
    first, last = homes.offsets[request.location], homes.offsets[request.location + 1]
    if first == last:
        return -1
    end = homes.device[last - 1]
    total = homes.storage_before[last - 1] + mesh.sources[end].storage_bytes
    place = uniform(np.uint64(0), request.segment, 0) * total
    low, high = first, last - 1
    while low < high:
        middle = (low + high + 1) // 2
        if homes.storage_before[middle] <= place:
            low = middle
        else:
            high = middle - 1
    for step in range(last - first):
        source = homes.device[first + (low - first + step) % (last - first)]
        if _can_take(mesh, shelf, source, request):
            return int(source)
    return -1


@kernel
def _can_take(mesh: Mesh, shelf: Shelf, source: int, request: Request) -> bool:
    if mesh.segment_bytes[request.segment] > mesh.sources[source].storage_bytes:
        return False
    if mesh.sources[source].downlink_bps <= 0.0:
        return False
    if up_row(mesh.sources, mesh.intervals, source, request.ts_us) < 0:
        return False
    slot = shelf.first_copy[request.location * len(mesh.segment_bytes) + request.segment]
    while slot >= 0:
        if mesh.copies[slot].source == source:
            return False
        slot = shelf.sibling[slot]
    return True
