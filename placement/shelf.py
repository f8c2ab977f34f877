"""Least-recently-used lists of many devices over one pool of copies, and which copies a location has of a segment.

Every slot is in its device's list, most recently used first, and in the chain of its (location, segment); slots not
in use are in a free list. All links are slot numbers, so that nothing is allocated while requests are served.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.mesh import Mesh, Records, kernel
from placement.problem import Int32, Int64


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
def gather(candidates: Records, shelf: Shelf, key: int) -> int:
    slot, n = shelf.first_copy[key], 0
    while slot >= 0:
        candidates[n].slot = slot
        n += 1
        slot = shelf.sibling[slot]
    return n


@kernel
def touch(mesh: Mesh, shelf: Shelf, slot: int) -> None:
    """Makes the slot its device's most recently used."""
    source = mesh.copies[slot].source
    if mesh.sources[source].head != slot:
        _unlink(mesh.sources, shelf, slot, source)
        _link(mesh.sources, shelf, slot, source)


@kernel
def _link(sources: Records, shelf: Shelf, slot: int, source: int) -> None:
    head = sources[source].head
    shelf.newer[slot], shelf.older[slot] = -1, head
    if head >= 0:
        shelf.newer[head] = slot
    else:
        sources[source].tail = slot
    sources[source].head = slot


@kernel
def _unlink(sources: Records, shelf: Shelf, slot: int, source: int) -> None:
    newer, older = shelf.newer[slot], shelf.older[slot]
    if newer >= 0:
        shelf.older[newer] = older
    else:
        sources[source].head = older
    if older >= 0:
        shelf.newer[older] = newer
    else:
        sources[source].tail = newer


@kernel
def put(mesh: Mesh, shelf: Shelf, location: int, copy: tuple[int, int, int]) -> None:
    """Takes a free slot for a copy (segment, source, ready_us), as its device's most recently used."""
    segment, source, ready_us = copy
    slot = shelf.free[0]
    shelf.free[0] = shelf.sibling[slot]
    mesh.copies[slot].segment, mesh.copies[slot].source = segment, source
    mesh.copies[slot].ready_us, mesh.copies[slot].served_bytes = ready_us, 0
    key = location * len(mesh.segment_bytes) + segment
    shelf.sibling[slot] = shelf.first_copy[key]
    shelf.first_copy[key] = slot
    mesh.sources[source].held_bytes += mesh.segment_bytes[segment]
    _link(mesh.sources, shelf, slot, source)


@kernel
def drop(mesh: Mesh, shelf: Shelf, slot: int) -> None:
    """Gives a copy up and its slot back."""
    segment, source = np.int64(mesh.copies[slot].segment), mesh.copies[slot].source
    mesh.sources[source].held_bytes -= mesh.segment_bytes[segment]
    _unlink(mesh.sources, shelf, slot, source)
    key = mesh.sources[source].location * len(mesh.segment_bytes) + segment
    before, at = -1, shelf.first_copy[key]
    while at != slot:
        before, at = at, shelf.sibling[at]
    if before < 0:
        shelf.first_copy[key] = shelf.sibling[slot]
    else:
        shelf.sibling[before] = shelf.sibling[slot]
    mesh.copies[slot].source = -1
    shelf.sibling[slot] = shelf.free[0]
    shelf.free[0] = slot
