"""The contents worth ranking for a session, and what every expert says of each: input of rankers and re-rankers.

Candidates are the union of what some expert ranks high: successors of the current content, overall, in this location
and after the pair of the last two; what came two or three steps after the contents before; the most popular contents,
overall and in this location; and the newest. A few hundred, whatever the size of the catalogue.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from models.events import Float64, Int32, Int64
from models.keys import Key
from models.next_content.experts import ExpertTable, ItemMap, Place, n_columns, new_map, place_of, say, slot_for
from models.successors import SuccessorTable

Float32 = npt.NDArray[np.float32]


@njit(cache=True)
def _length(lists: SuccessorTable, row: Key) -> int:
    return int(lists.length[row]) if row >= 0 else 0


@njit(cache=True)
def _most_candidates(table: ExpertTable, place: Place) -> int:
    """As many as a session may have, if no two lists share one."""
    x1, x2, x3, context, location, cell, audience = place
    n = _length(table.moves, x1) + _length(table.context_moves, context) + _length(table.local_moves, cell)
    n += _length(table.skips, x2) + _length(table.skips, x3) + len(table.newest)
    for h in range(len(table.total)):
        n += table.content_leaders.length[0, h]
        if location >= 0:
            n += table.cell_leaders.length[location, h]
    if audience >= 0:
        n += table.audience_leaders.length[audience, 0]
    return n


@njit(cache=True)
def _room_for(table: ExpertTable, items: Int32, location: Int32, audience: Int64) -> int:
    """Most candidates of any of the sessions."""
    most = 1
    if table.n_contents > 0:
        for i in range(len(items)):
            most = max(most, _most_candidates(table, place_of(table, items[i], location[i], audience[i])))
    return most


@njit(cache=True)
def _note(item: Key, x1: Key, found: ItemMap, candidates: Int32, n: int) -> int:
    """Adds an item to the candidates once. Returns how many there are."""
    slots, _ = found
    if item == x1:
        return n
    slot = slot_for(slots, item)
    if slots[slot] >= 0:
        return n
    slots[slot] = item
    candidates[n] = item
    return n + 1


@njit(cache=True)
def _note_list(lists: SuccessorTable, row: Key, x1: Key, found: ItemMap, candidates: Int32, n: int) -> int:
    if row >= 0:
        for j in range(lists.start[row], lists.start[row] + lists.length[row]):
            n = _note(np.int64(lists.item[j]), x1, found, candidates, n)
    return n


@njit(cache=True)
def _collect(table: ExpertTable, place: Place, found: ItemMap, candidates: Int32) -> int:
    """Everything that some expert ranks high, in no order that matters. Returns how many there are."""
    x1, x2, x3, context, location, cell, audience = place
    found[0][:] = -1
    n = _note_list(table.moves, x1, x1, found, candidates, 0)
    n = _note_list(table.context_moves, context, x1, found, candidates, n)
    n = _note_list(table.local_moves, cell, x1, found, candidates, n)
    n = _note_list(table.skips, x2, x1, found, candidates, n)
    n = _note_list(table.skips, x3, x1, found, candidates, n)
    for item in table.newest:
        n = _note(np.int64(item), x1, found, candidates, n)
    for h in range(len(table.total)):
        for j in range(table.content_leaders.length[0, h]):
            n = _note(np.int64(table.content_leaders.item[0, h, j]), x1, found, candidates, n)
        if location >= 0:
            for j in range(table.cell_leaders.length[location, h]):
                row = table.cell_leaders.item[location, h, j]
                n = _note(table.cell_index.keys[row] >> 32, x1, found, candidates, n)
    if audience >= 0:
        for j in range(table.audience_leaders.length[audience, 0]):
            row = table.audience_leaders.item[audience, 0, j]
            n = _note(table.audience_cells.keys[row] >> 32, x1, found, candidates, n)
    return n


@njit(cache=True)
def survey(
    table: ExpertTable, items: Int32, location: Int32, audience: Int64, limit: int
) -> tuple[Int32, Float32, Float64]:
    """Candidates of each session by falling sum of what the experts give them, ties by code, and what they give.

    Args:
        table: the counters.
        items: last contents of each session, most recent last, -1 where there were fewer. (n, history)
        location: location of each session. (n,)
        audience: row of each session's audience, -1 where unknown. (n,)
        limit: most candidates kept, for instance 256.

    Returns:
        Content codes, -1 where there are fewer, (n, limit); what every expert gives to them, conditioned on a move and
        before back-off, (n, limit, experts); and the mass of each expert, (n, experts).
    """
    n, n_experts = len(items), n_columns(table)
    listed = np.full((n, limit), -1, dtype=np.int32)
    probability, masses = np.zeros((n, limit, n_experts), dtype=np.float32), np.zeros((n, n_experts))
    room = _room_for(table, items, location, audience)
    candidates, found = np.empty(room, dtype=np.int32), new_map(room + 1)
    said = np.empty((room + 1, n_experts))
    for i in range(n):
        place = place_of(table, items[i], location[i], audience[i])
        n_found = _collect(table, place, found, candidates)
        found_items = np.sort(candidates[:n_found])
        say(table, place, found_items, found, said[: n_found + 1], masses[i])
        order = np.argsort(-said[:n_found].sum(axis=1), kind="mergesort")  # stable: equal sums stay by code
        for j in range(min(n_found, limit)):
            listed[i, j] = found_items[order[j]]
            for k in range(n_experts):
                probability[i, j, k] = said[order[j], k]
    return listed, probability, masses


@njit(cache=True)
def rank(
    table: ExpertTable, items: Int32, location: Int32, audience: Int64, weights: Float64, k: int
) -> tuple[Int32, Float64]:
    """The k likeliest next contents under mixture weights (n, experts), ties by content code; -1 where fewer exist."""
    n, n_experts = weights.shape
    content, probability = np.full((n, k), -1, dtype=np.int32), np.zeros((n, k))
    room = _room_for(table, items, location, audience)
    candidates, found = np.empty(room, dtype=np.int32), new_map(room + 1)
    said, mass = np.empty((room + 1, n_experts)), np.empty(n_experts)
    for i in range(n):
        place = place_of(table, items[i], location[i], audience[i])
        n_candidates = _collect(table, place, found, candidates)
        say(table, place, candidates[:n_candidates], found, said[: n_candidates + 1], mass)
        kept = 0
        for c in range(n_candidates):
            kept = insert(content[i], probability[i], kept, candidates[c], np.dot(said[c], weights[i]))
    return content, probability


@njit(cache=True)
def insert(content: Int32, probability: Float64, kept: int, item: Key, p: float) -> int:
    """Keeps a short list sorted by falling probability, then by code. Returns its length."""
    k = len(content)
    if kept == k and (p < probability[k - 1] or (p == probability[k - 1] and item > content[k - 1])):
        return kept
    j = kept if kept < k else k - 1
    while j > 0 and (p > probability[j - 1] or (p == probability[j - 1] and item < content[j - 1])):
        content[j], probability[j] = content[j - 1], probability[j - 1]
        j -= 1
    content[j], probability[j] = item, p
    return min(kept + 1, k)
