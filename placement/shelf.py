"""Least-recently-used lists of many devices over one pool of copies, and which copies a location has of a segment.

Every slot is in its device's list, most recently used first, and in the chain of its (location, segment); slots not
in use are in a free list. All links are slot numbers, so that nothing is allocated while requests are served.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from placement.mesh import Mesh, Records, kernel
from placement.problem import Int32, Int64

Record = Any  # one record of an array, by reference


class Shelf(NamedTuple):
    """Least-recently-used lists of all devices over one pool of slots; links are slots, -1 ends a list."""

    newer: Int32  # (slots,) towards the device's head, the most recently used
    older: Int32  # (slots,)
    sibling: Int32  # (slots,) next copy of the same segment in the same location; next free slot in the free list
    first_copy: Int32  # (locations * segments,)
    free: Int64  # (1,) first free slot


def fresh_shelf(keys: int) -> Shelf:
    """Without a slot; `keys` is locations times segments."""
    none = np.zeros(0, np.int32)
    return Shelf(none, none.copy(), none.copy(), np.full(keys, -1, np.int32), np.full(1, -1, np.int64))


def grown_shelf(shelf: Shelf, added: int) -> Shelf:
    """With so many more free slots."""
    before = len(shelf.newer)
    links = np.full(added, -1, np.int32)
    chain = np.arange(before + 1, before + added + 1, dtype=np.int32)
    chain[-1] = shelf.free[0]
    shelf.free[0] = before
    return shelf._replace(
        newer=np.concatenate([shelf.newer, links]),
        older=np.concatenate([shelf.older, links]),
        sibling=np.concatenate([shelf.sibling, chain]),
    )


@kernel
def gather(candidates: Records, shelf: Shelf, key: int, n: int) -> int:
    """Puts the copies of a (location, segment) behind the first n candidates; how many there are then."""
    slot = shelf.first_copy[key]
    while slot >= 0:
        candidates[n].slot = slot
        n += 1
        slot = shelf.sibling[slot]
    return n


@kernel
def touch(mesh: Mesh, shelf: Shelf, slot: int) -> None:
    """Makes the slot its device's most recently used."""
    device = mesh.sources[mesh.copies[slot].source]
    if device.head != slot:
        unlink(device, shelf, slot)
        link(device, shelf, slot)


@kernel
def link(ends: Record, shelf: Shelf, slot: int) -> None:
    """Puts the slot at the head of the list that begins and ends in this record."""
    head = ends.head
    shelf.newer[slot], shelf.older[slot] = -1, head
    if head >= 0:
        shelf.newer[head] = slot
    else:
        ends.tail = slot
    ends.head = slot


@kernel
def unlink(ends: Record, shelf: Shelf, slot: int) -> None:
    """Takes the slot out of its list."""
    newer, older = shelf.newer[slot], shelf.older[slot]
    if newer >= 0:
        shelf.older[newer] = older
    else:
        ends.head = older
    if older >= 0:
        shelf.newer[older] = newer
    else:
        ends.tail = newer


@kernel
def put(mesh: Mesh, shelf: Shelf, location: int, copy: tuple[int, int, int]) -> None:
    """Takes a free slot for a copy (segment, source, ready_us), as its device's most recently used."""
    link(mesh.sources[copy[1]], shelf, place(mesh, shelf, location, copy))


@kernel
def place(mesh: Mesh, shelf: Shelf, location: int, copy: tuple[int, int, int]) -> int:
    """As `put`, into none of the device's lists yet; gives the slot."""
    segment, source, ready_us = copy
    slot = shelf.free[0]
    shelf.free[0] = shelf.sibling[slot]
    mesh.copies[slot].segment, mesh.copies[slot].source = segment, source
    mesh.copies[slot].ready_us, mesh.copies[slot].served_bytes = ready_us, 0
    chain(shelf.first_copy, shelf.sibling, location * len(mesh.segment_bytes) + segment, slot)
    mesh.sources[source].held_bytes += mesh.segment_bytes[segment]
    return int(slot)


@kernel
def drop(mesh: Mesh, shelf: Shelf, slot: int) -> None:
    """Gives a copy up and its slot back."""
    unlink(mesh.sources[mesh.copies[slot].source], shelf, slot)
    remove(mesh, shelf, slot)
    release(shelf, slot)


@kernel
def drop_oldest(mesh: Mesh, shelf: Shelf, source: int) -> int:
    """Drops what the device used longest ago; gives its bytes if it never served, else 0."""
    oldest = mesh.sources[source].tail
    unused = unused_bytes(mesh, oldest)
    drop(mesh, shelf, oldest)
    return unused


@kernel
def unused_bytes(mesh: Mesh, slot: int) -> int:
    """Size of the copy if it never served, else 0."""
    if mesh.copies[slot].served_bytes > 0:
        return 0
    return int(mesh.segment_bytes[mesh.copies[slot].segment])


@kernel
def remove(mesh: Mesh, shelf: Shelf, slot: int) -> None:
    """The copy is no longer held; its slot is in use still, and remembers the segment."""
    segment, source = np.int64(mesh.copies[slot].segment), mesh.copies[slot].source
    mesh.sources[source].held_bytes -= mesh.segment_bytes[segment]
    key = mesh.sources[source].location * len(mesh.segment_bytes) + segment
    unchain(shelf.first_copy, shelf.sibling, key, slot)
    mesh.copies[slot].source = -1


@kernel
def release(shelf: Shelf, slot: int) -> None:
    """Makes a slot free that is in no list and no chain."""
    shelf.sibling[slot] = shelf.free[0]
    shelf.free[0] = slot


@kernel
def chain(first: Int32, sibling: Int32, key: int, slot: int) -> None:
    """Puts the slot first into the chain of the key."""
    sibling[slot] = first[key]
    first[key] = slot


@kernel
def unchain(first: Int32, sibling: Int32, key: int, slot: int) -> None:
    """Takes the slot out of the chain of the key."""
    before, at = -1, first[key]
    while at != slot:
        before, at = at, sibling[at]
    if before < 0:
        first[key] = sibling[slot]
    else:
        sibling[before] = sibling[slot]
