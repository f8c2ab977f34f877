"""What each counter, asked alone, says about the next content of a session.

With x1 the current content, x2 the one before and l the location, in order of the columns:

    unseen          all mass on "a content that nobody has requested yet"
    uniform         1 / N over the N known contents
    popularity_h    C_h(i) / sum over j of C_h(j), a column for each half-life
    local_h         C_h(i, l) / C_h(l), a column for each half-life
    order1_h        C_h(x1 -> i) / sum over j of C_h(x1 -> j), a column for each transition half-life
    order2          C(x1, x2 -> i) / sum over j of C(x1, x2 -> j)

A repeat is no move (`models.walks`), so every expert is conditioned on `i != x1`. The known part of an expert sums to its
**mass**: below one where successors were evicted, zero where nothing is known (first event, new location). The rest
goes to the expert that it backs off to: order 2 to order 1 to local popularity to popularity to uniform to unseen.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit

from models.counters import CounterStore
from models.events import Float64, Int32, Int64
from models.keys import Key, KeyTable, find_key
from models.leaders import LeaderTable
from models.successors import SuccessorTable

Place: TypeAlias = tuple[Key, Key, Key]
"""Where a session is: (current content, row of the pair of its last two contents, location), each -1 if unknown."""

UNSEEN, UNIFORM, FIRST_POPULARITY = 0, 1, 2
LEAST_REST = 1e-9


class ExpertTable(NamedTuple):
    """The counters as the jitted loops below read them."""

    n_contents: int
    n_locations: int
    total: Float64
    content: Float64
    location: Float64
    cell_index: KeyTable
    cell: Float64
    moves: SuccessorTable
    contexts: KeyTable
    context_moves: SuccessorTable
    content_leaders: LeaderTable
    cell_leaders: LeaderTable


class Experts(NamedTuple):
    """Names of the columns, and to which column each backs off (itself for `unseen`)."""

    names: tuple[str, ...]
    backs_off_to: tuple[int, ...]

    def column(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"No expert is called {name!r}; there are {', '.join(self.names)}.")
        return self.names.index(name)


class Answers(NamedTuple):
    """What the experts say of one content for each session."""

    probability: Float64  # (n, experts)
    mass: Float64  # (n, experts)
    departures: Float64  # inflated; (n, 2): from x1 at the fast half-life, from (x2, x1)
    distinct: Int64  # successors listed; (n, 2): of x1, of (x2, x1)


def experts_of(store: CounterStore) -> Experts:
    """The experts that a store can answer for, by its half-lives."""
    s = store.settings
    popularity = [f"popularity_{h:g}h" for h in s.half_lives_hours]
    local = [f"local_{h:g}h" for h in s.half_lives_hours]
    order1 = [f"order1_{h:g}h" for h in s.transition_half_lives_hours]
    first_local, first_order1 = 2 + len(popularity), 2 + 2 * len(popularity)
    middle = first_local + min(1, len(local) - 1)
    return Experts(
        names=("unseen", "uniform", *popularity, *local, *order1, "order2"),
        backs_off_to=(
            UNSEEN,
            UNSEEN,
            *[UNIFORM] * len(popularity),
            *range(FIRST_POPULARITY, first_local),
            *[middle] * len(order1),
            first_order1,
        ),
    )


def expert_table(store: CounterStore) -> ExpertTable:
    p, w = store.popularity, store.walks
    return ExpertTable(
        len(store.contents),
        len(store.locations),
        p.total,
        p.content,
        p.location,
        p.index.table,
        p.cell,
        w.moves.table,
        w.contexts.table,
        w.context_moves.table,
        p.content_leaders.table,
        p.cell_leaders.table,
    )


@njit(cache=True)
def _listed(table: SuccessorTable, row: Key, item: Key) -> Key:
    """Pool place of an item in a list, or -1."""
    for j in range(table.start[row], table.start[row] + table.length[row]):
        if table.item[j] == item:
            return np.int64(j)
    return np.int64(-1)


@njit(cache=True)
def _context_row(table: ExpertTable, before: int, last: int) -> Key:
    if before < 0 or last < 0:
        return np.int64(-1)
    return find_key(table.contexts, (np.int64(before) << 32) | np.int64(last))


@njit(cache=True)
def _say(table: ExpertTable, session: Place, item: Key, out: Float64) -> None:
    """Unconditioned probabilities of one item: (last, context row, location) -> out. (experts,)"""
    last, context, place = session
    out[:] = 0.0
    if item < 0 or item >= table.n_contents:
        out[UNSEEN] = 1.0
        return
    out[UNIFORM] = 1.0 / table.n_contents
    n_half_lives = len(table.total)
    column = FIRST_POPULARITY
    row: Key = np.int64(-1)
    if 0 <= place < table.n_locations:
        row = find_key(table.cell_index, (np.int64(item) << 32) | np.int64(place))
    for h in range(n_half_lives):
        if table.total[h] > 0:
            out[column + h] = table.content[item, h] / table.total[h]
        if row >= 0 and table.location[place, h] > 0:
            out[column + n_half_lives + h] = table.cell[row, h] / table.location[place, h]
    column += 2 * n_half_lives
    if 0 <= last < table.n_contents:
        j = _listed(table.moves, last, item)
        for h in range(table.moves.total.shape[1]):
            if j >= 0 and table.moves.total[last, h] > 0:
                out[column + h] = table.moves.weight[j, h] / table.moves.total[last, h]
    column += table.moves.total.shape[1]
    if context >= 0 and table.context_moves.total[context, 0] > 0:
        j = _listed(table.context_moves, context, item)
        if j >= 0:
            out[column] = table.context_moves.weight[j, 0] / table.context_moves.total[context, 0]


@njit(cache=True)
def _masses(table: ExpertTable, session: Place, out: Float64) -> None:
    """Sum of each expert's known part, before conditioning. (experts,)"""
    last, context, place = session
    out[:] = 0.0
    out[UNSEEN] = 1.0
    out[UNIFORM] = 1.0 if table.n_contents > 0 else 0.0
    n_half_lives = len(table.total)
    column = FIRST_POPULARITY
    for h in range(n_half_lives):
        out[column + h] = 1.0 if table.total[h] > 0 else 0.0
        if 0 <= place < table.n_locations and table.location[place, h] > 0:
            out[column + n_half_lives + h] = 1.0
    column += 2 * n_half_lives
    if 0 <= last < table.n_contents:
        _list_mass(table.moves, last, out[column:])
    column += table.moves.total.shape[1]
    if context >= 0:
        _list_mass(table.context_moves, context, out[column:])


@njit(cache=True)
def _list_mass(table: SuccessorTable, row: Key, out: Float64) -> None:
    for h in range(table.total.shape[1]):
        if table.total[row, h] > 0:
            for j in range(table.start[row], table.start[row] + table.length[row]):
                out[h] += table.weight[j, h] / table.total[row, h]


@njit(cache=True)
def _condition(table: ExpertTable, session: Place, scale: Float64, mass: Float64) -> None:
    """Conditions on `i != last`: each expert's probabilities are to be multiplied by `scale`."""
    _masses(table, session, mass)
    scale[:] = 1.0
    if 0 <= session[0] < table.n_contents:
        _say(table, session, session[0], scale)  # scale holds p(last) for a moment
        for k in range(len(scale)):
            rest = 1.0 - scale[k]
            known = mass[k] - scale[k]
            scale[k] = 1.0 / rest if rest > LEAST_REST else 0.0
            mass[k] = min(max(known * scale[k], 0.0), 1.0)


@njit(cache=True)
def ask(
    table: ExpertTable, last: Int32, before: Int32, location: Int32, content: Int32, n_experts: int
) -> tuple[Float64, Float64, Float64, Int64]:
    """What every expert gives to `content[i]` as the next content of session i; see `Answers`."""
    n = len(last)
    probability, mass = np.zeros((n, n_experts)), np.zeros((n, n_experts))
    departures, distinct = np.zeros((n, 2)), np.zeros((n, 2), dtype=np.int64)
    scale = np.empty(n_experts)
    for i in range(n):
        context = _context_row(table, before[i], last[i])
        session = (np.int64(last[i]), context, np.int64(location[i]))
        _condition(table, session, scale, mass[i])
        if content[i] != last[i] or content[i] < 0:
            _say(table, session, np.int64(content[i]), probability[i])
            probability[i] *= scale
        if 0 <= last[i] < table.n_contents:
            departures[i, 0] = table.moves.total[last[i], 0]
            distinct[i, 0] = table.moves.length[last[i]]
        if context >= 0:
            departures[i, 1] = table.context_moves.total[context, 0]
            distinct[i, 1] = table.context_moves.length[context]
    return probability, mass, departures, distinct


@njit(cache=True)
def _note(item: Key, last: Key, place: Int32, candidates: Int32, n: int) -> int:
    """Adds an item to the candidates once; `place` remembers where. Returns how many there are."""
    if item != last and place[item] < 0:
        place[item] = n
        candidates[n] = item
        return n + 1
    return n


@njit(cache=True)
def _gather(table: ExpertTable, session: Place, place: Int32, candidates: Int32) -> int:
    """Everything that some expert ranks high: all successors and all leaders."""
    last, context, location = session
    n = 0
    if 0 <= last < table.n_contents:
        for j in range(table.moves.start[last], table.moves.start[last] + table.moves.length[last]):
            n = _note(table.moves.item[j], last, place, candidates, n)
    if context >= 0:
        first = table.context_moves.start[context]
        for j in range(first, first + table.context_moves.length[context]):
            n = _note(table.context_moves.item[j], last, place, candidates, n)
    for h in range(len(table.total)):
        for j in range(table.content_leaders.length[0, h]):
            n = _note(table.content_leaders.item[0, h, j], last, place, candidates, n)
        if 0 <= location < table.n_locations:
            for j in range(table.cell_leaders.length[location, h]):
                row = table.cell_leaders.item[location, h, j]
                n = _note(np.int64(table.cell_index.keys[row] >> 32), last, place, candidates, n)
    return n


@njit(cache=True)
def rank(
    table: ExpertTable, last: Int32, before: Int32, location: Int32, weights: Float64, k: int
) -> tuple[Int32, Float64]:
    """The k likeliest next contents under mixture weights (n, experts), ties by content code; -1 where fewer exist."""
    n, n_experts = weights.shape
    content, probability = np.full((n, k), -1, dtype=np.int32), np.zeros((n, k))
    place = np.full(table.n_contents, -1, dtype=np.int32)
    candidates = np.empty(table.n_contents, dtype=np.int32)
    scale, mass, said = np.empty(n_experts), np.empty(n_experts), np.empty(n_experts)
    for i in range(n):
        context = _context_row(table, before[i], last[i])
        session = (np.int64(last[i]), context, np.int64(location[i]))
        _condition(table, session, scale, mass)
        scale *= weights[i]
        n_candidates = _gather(table, session, place, candidates)
        kept = 0
        for c in range(n_candidates):
            item = candidates[c]
            place[item] = -1
            _say(table, session, np.int64(item), said)
            p = np.dot(said, scale)
            kept = _insert(content[i], probability[i], kept, item, p)
    return content, probability


@njit(cache=True)
def _insert(content: Int32, probability: Float64, kept: int, item: Key, p: float) -> int:
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
