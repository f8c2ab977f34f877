"""S3-FIFO on many devices over one pool of copies: three queues a device, first in first out.

    small   10 % of the storage: what is new. What is asked for twice before it leaves goes to main, the rest
            goes, and its key to ghost
    main    the rest. What was asked for goes round again, with one request less to its name, the others go
    ghost   keys alone, as many as 90 % of the storage would hold: what comes back while it is remembered is
            filled straight into main

Main gives way while it is over its share or small is empty, else small does. Until a device throws out for the first
time, what is new goes to main once small has its share. Requests are counted up to three. These are the rules of
libcachesim 0.3.5, request for request (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, with
libcachesim's rule for a cache that is not full yet), but for one: libcachesim refuses a segment as large as the small
queue, which would shut most segments out of devices that hold a few; here it is taken like any other.

A slot of the pool (`placement/shelf.py`) holds a copy, or remembers a key; the slot of a copy that leaves the small
queue becomes that of its key, so that a fill never takes more than one slot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.mesh import Mesh, Records, kernel
from placement.problem import Bool, Int8, Int32, Int64
from placement.shelf import Shelf, chain, link, place, release, remove, unchain, unlink, unused_bytes

SMALL, MAIN, GHOST = 0, 1, 2
SMALL_SHARE, GHOST_SHARE = 0.1, 0.9
MOST_REQUESTS = 3  # a counter of two bits
REQUESTS_FOR_MAIN = 2

QUEUE = np.dtype(
    [("head", np.int64), ("tail", np.int64), ("held_bytes", np.int64), ("share_bytes", np.int64)], align=True
)


class Fifos(NamedTuple):
    """The queues of all devices, beside a shelf with the same slots."""

    queues: Records  # (sources, 3); newest at the head
    full: Bool  # (sources,) whether the device has thrown out anything yet
    requests: Int8  # (slots,) since the copy came into its queue, or went round
    rememberer: Int32  # (slots,) the device in whose ghost the slot is
    first_ghost: Int32  # (keys,) of the chain of ghosts of a location's segment


def fresh_fifos(storage_bytes: Int64, keys: int) -> Fifos:
    """Without a slot; `keys` is locations times segments."""
    queues = np.zeros((len(storage_bytes), 3), QUEUE)
    queues["head"] = queues["tail"] = -1
    small = (storage_bytes * SMALL_SHARE).astype(np.int64)
    queues["share_bytes"][:, SMALL] = small
    queues["share_bytes"][:, MAIN] = storage_bytes - small
    queues["share_bytes"][:, GHOST] = (storage_bytes * GHOST_SHARE).astype(np.int64)
    full = np.zeros(len(storage_bytes), np.bool_)
    return Fifos(queues, full, np.zeros(0, np.int8), np.zeros(0, np.int32), np.full(keys, -1, np.int32))


def grown_fifos(fifos: Fifos, added: int) -> Fifos:
    """With so many more slots."""
    return fifos._replace(
        requests=np.concatenate([fifos.requests, np.zeros(added, np.int8)]),
        rememberer=np.concatenate([fifos.rememberer, np.full(added, -1, np.int32)]),
    )


@kernel
def count_request(fifos: Fifos, slot: int) -> None:
    fifos.requests[slot] = min(fifos.requests[slot] + 1, MOST_REQUESTS)


@kernel
def recall(mesh: Mesh, shelf: Shelf, fifos: Fifos, wanted: tuple[int, int]) -> bool:
    """Whether the source's ghost remembers the key; it then does no longer. `wanted` is (key, source)."""
    slot = fifos.first_ghost[wanted[0]]
    while slot >= 0:
        if fifos.rememberer[slot] == wanted[1]:
            _forget(mesh, shelf, fifos, slot)
            return True
        slot = shelf.sibling[slot]
    return False


@kernel
def put_first(mesh: Mesh, shelf: Shelf, fifos: Fifos, location: int, copy: tuple[int, int, int], known: bool) -> None:
    """Takes a free slot for a copy (segment, source, ready_us), in main if its key was remembered, else in small."""
    source = copy[1]
    small = fifos.queues[source, SMALL]
    filling_main = not fifos.full[source] and small.held_bytes >= small.share_bytes
    slot = place(mesh, shelf, location, copy)
    _enqueue(mesh, shelf, fifos, source, MAIN if known or filling_main else SMALL, slot)


@kernel
def throw_out(mesh: Mesh, shelf: Shelf, fifos: Fifos, source: int) -> int:
    """Takes the step that makes room, one copy at most; gives that copy's bytes if it never served, else 0."""
    fifos.full[source] = True
    main = fifos.queues[source, MAIN]
    if main.held_bytes > main.share_bytes or fifos.queues[source, SMALL].held_bytes == 0:
        return _throw_out_of_main(mesh, shelf, fifos, source)
    return _throw_out_of_small(mesh, shelf, fifos, source)


@kernel
def _throw_out_of_main(mesh: Mesh, shelf: Shelf, fifos: Fifos, source: int) -> int:
    while fifos.queues[source, MAIN].tail >= 0:
        slot = fifos.queues[source, MAIN].tail
        asked = fifos.requests[slot]
        _dequeue(mesh, shelf, fifos, source, MAIN, slot)
        if asked == 0:
            unused = unused_bytes(mesh, slot)
            remove(mesh, shelf, slot)
            release(shelf, slot)
            return unused
        _enqueue(mesh, shelf, fifos, source, MAIN, slot)
        fifos.requests[slot] = asked - 1
    return 0


@kernel
def _throw_out_of_small(mesh: Mesh, shelf: Shelf, fifos: Fifos, source: int) -> int:
    while fifos.queues[source, SMALL].tail >= 0:
        slot = fifos.queues[source, SMALL].tail
        asked = fifos.requests[slot]
        _dequeue(mesh, shelf, fifos, source, SMALL, slot)
        if asked < REQUESTS_FOR_MAIN:
            unused = unused_bytes(mesh, slot)
            remove(mesh, shelf, slot)
            _remember(mesh, shelf, fifos, source, slot)
            return unused
        _enqueue(mesh, shelf, fifos, source, MAIN, slot)
    return 0


@kernel
def _remember(mesh: Mesh, shelf: Shelf, fifos: Fifos, source: int, slot: int) -> None:
    ghost, size = fifos.queues[source, GHOST], mesh.segment_bytes[mesh.copies[slot].segment]
    if size > ghost.share_bytes:
        release(shelf, slot)
        return
    while ghost.held_bytes + size > ghost.share_bytes:
        _forget(mesh, shelf, fifos, ghost.tail)
    fifos.rememberer[slot] = source
    _enqueue(mesh, shelf, fifos, source, GHOST, slot)
    chain(fifos.first_ghost, shelf.sibling, _key(mesh, source, slot), slot)


@kernel
def _forget(mesh: Mesh, shelf: Shelf, fifos: Fifos, slot: int) -> None:
    source = fifos.rememberer[slot]
    _dequeue(mesh, shelf, fifos, source, GHOST, slot)
    unchain(fifos.first_ghost, shelf.sibling, _key(mesh, source, slot), slot)
    release(shelf, slot)


@kernel
def _key(mesh: Mesh, source: int, slot: int) -> int:
    return int(mesh.sources[source].location * len(mesh.segment_bytes) + mesh.copies[slot].segment)


@kernel
def _enqueue(mesh: Mesh, shelf: Shelf, fifos: Fifos, source: int, queue: int, slot: int) -> None:
    fifos.requests[slot] = 0
    fifos.queues[source, queue].held_bytes += mesh.segment_bytes[mesh.copies[slot].segment]
    link(fifos.queues[source, queue], shelf, slot)


@kernel
def _dequeue(mesh: Mesh, shelf: Shelf, fifos: Fifos, source: int, queue: int, slot: int) -> None:
    fifos.queues[source, queue].held_bytes -= mesh.segment_bytes[mesh.copies[slot].segment]
    unlink(fifos.queues[source, queue], shelf, slot)
