"""Popularity top-k per location: the plain rule that every plan must beat.

Each location wants its most requested segments, in order, until its nodes' storage is full. What a node of the location
already holds stays where it is; the rest goes to the node with the most room that is up. Popularity knows nothing of
departures, uplinks or neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from placement.errors import ProblemError
from placement.problem import Bool, Float64, Int32, Int64


def most_popular_copies(
    *,
    segment: Int64,
    location: Int64,
    requests: Float64,
    sizes: Int64,
    source_location: Int32,
    room_bytes: Int64,
    up: Bool,
    held_segment: Int64,
    held_source: Int64,
) -> tuple[Int64, Int64]:
    """The copies that top-k per location wants held, as (segment, source), sorted.

    Args:
        segment: segment of each (segment, location) pair with demand. (D,)
        location: its location. (D,)
        requests: its popularity; pairs are served in falling order, ties by segment. (D,)
        sizes: bytes of each segment. (S,)
        source_location: where each source is. (N,)
        room_bytes: storage that each source may fill; 0 for POPs and ineligible nodes. (N,)
        up: whether a push can reach the source. (N,)
        held_segment: segments of the copies held now. (C,)
        held_source: and where. (C,)

    Raises:
        ProblemError: columns of one kind differ in length.
    """
    problems = [
        f"{name} have lengths {lengths}, expected them equal."
        for name, lengths in (
            ("segment, location, requests", (len(segment), len(location), len(requests))),
            ("source_location, room_bytes, up", (len(source_location), len(room_bytes), len(up))),
            ("held_segment, held_source", (len(held_segment), len(held_source))),
        )
        if len(set(lengths)) > 1
    ]
    if problems:
        raise ProblemError("The popularity rule cannot be applied:", problems)
    order = np.lexsort((segment, -requests, location))
    at_location = source_location[held_source].astype(np.int64)
    held_order = np.lexsort((held_source, held_segment, at_location))
    chosen_segment, chosen_source = _fill(
        segment[order],
        location[order],
        sizes,
        source_location.astype(np.int64),
        room_bytes.copy(),
        up,
        held_segment[held_order],
        held_source[held_order],
        at_location[held_order],
    )
    final = np.lexsort((chosen_source, chosen_segment))
    return chosen_segment[final], chosen_source[final]


@njit(cache=True)
def _fill(
    segment: Int64,
    location: Int64,
    sizes: Int64,
    source_location: Int64,
    room: Int64,
    up: Bool,
    held_segment: Int64,
    held_source: Int64,
    held_location: Int64,
) -> tuple[Int64, Int64]:
    """Pairs come by location and falling popularity; held copies by location, segment and source."""
    keeper = np.full(len(segment), -1, np.int64)
    wanted = np.zeros(len(segment), np.bool_)
    for row in range(len(segment)):
        place = location[row]
        if row == 0 or location[row - 1] != place:
            budget = 0
            for node in range(len(room)):
                if source_location[node] == place:
                    budget += room[node]
        size = sizes[segment[row]]
        if size > budget:
            continue
        wanted[row] = True
        budget -= size
        at = _first_held(held_location, held_segment, place, segment[row])
        while at < len(held_segment) and held_location[at] == place and held_segment[at] == segment[row]:
            if room[held_source[at]] >= size:
                keeper[row] = held_source[at]
                room[held_source[at]] -= size
                break
            at += 1
    for row in range(len(segment)):
        if wanted[row] and keeper[row] < 0:
            size = sizes[segment[row]]
            best = -1
            for node in range(len(room)):
                fits = source_location[node] == location[row] and up[node] and room[node] >= size
                if fits and (best < 0 or room[node] > room[best]):
                    best = node
            if best >= 0:
                keeper[row] = best
                room[best] -= size
    kept = keeper >= 0
    return segment[kept], keeper[kept]


@njit(cache=True)
def _first_held(held_location: Int64, held_segment: Int64, place: int, segment: int) -> int:
    """First held copy not before (place, segment) in the sorted list."""
    low, high = 0, len(held_segment)
    while low < high:
        middle = (low + high) // 2
        before = held_location[middle] < place or (held_location[middle] == place and held_segment[middle] < segment)
        if before:
            low = middle + 1
        else:
            high = middle
    return low
