"""What each counter, asked alone, says about the next content of a session.

With x1 the current content, x2 and x3 those before and l the location, in order of the columns:

    unseen          all mass on "a content that nobody knows yet"
    uniform         1 / N over the N known contents
    popularity_h    C_h(i) / sum over j of C_h(j), a column for each half-life
    local_h         C_h(i, l) / C_h(l), a column for each half-life
    newest          1 / M over the M contents that appeared last
    audience        C(i, a) / C(a), with a the audience of the session: its device, and how it came to x1
    order1_h        P_h(i | x1) = C_h(x1 -> i) / sum over j of C_h(x1 -> j), a column for each transition half-life
    order1_local    P(i | x1, l), from sessions that were at x1 in location l
    skip            sum over g of P_g(i | xg) / g, over the sum of 1 / g; g = 1 to 3 steps back, as far as xg was left
    order2          P(i | x2, x1)

In `skip`, P_1 is order 1 at its slowest half-life; P_2 and P_3 come from one list of what came two or three steps after
a content. A repeat is no move (`models.walks`), so every expert is conditioned on `i != x1`. The known part of an expert
sums to its **mass**: below one where successors were evicted, zero where nothing is known (first event, new location).
The rest goes to the expert that it backs off to: order 2 and local order 1 to order 1, skips to slow order 1, those to
local popularity, that and the audience to popularity, popularity and the newest to uniform, that to unseen.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit

from models.counters import CounterStore
from models.events import Float64, Int32, Int64
from models.keys import Key, KeyTable, find_key
from models.leaders import LeaderTable
from models.successors import SuccessorTable, list_total

Place: TypeAlias = tuple[Key, Key, Key, Key, Key, Key, Key]
"""Where a session is: x1, x2, x3, row of the pair (x2, x1), location, row of the cell (x1, l), row of the audience;
each -1 if unknown."""

ItemMap: TypeAlias = tuple[Int32, Int32]
"""Items asked about by open addressing, and the place of each: a few hundred, whatever the size of the catalogue."""

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
    newest: Int32
    audience: Float64  # (audiences, 1)
    audience_cells: KeyTable
    audience_cell: Float64
    moves: SuccessorTable
    contexts: KeyTable
    context_moves: SuccessorTable
    local_moves: SuccessorTable
    skips: SuccessorTable
    content_leaders: LeaderTable
    cell_leaders: LeaderTable
    audience_leaders: LeaderTable


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
    first_local, first_order1 = 2 + len(popularity), 4 + 2 * len(popularity)
    middle = first_local + min(1, len(local) - 1)
    return Experts(
        names=(
            "unseen",
            "uniform",
            *popularity,
            *local,
            "newest",
            "audience",
            *order1,
            "order1_local",
            "skip",
            "order2",
        ),
        backs_off_to=(
            UNSEEN,
            UNSEEN,
            *[UNIFORM] * len(popularity),
            *range(FIRST_POPULARITY, first_local),
            UNIFORM,
            FIRST_POPULARITY,
            *[middle] * len(order1),
            first_order1,
            first_order1 + len(order1) - 1,
            first_order1,
        ),
    )


def expert_table(store: CounterStore) -> ExpertTable:
    p, w, a = store.popularity, store.walks, store.audiences
    return ExpertTable(
        len(store.contents),
        len(store.locations),
        p.total,
        p.content,
        p.location,
        p.index.table,
        p.cell,
        p.newest,
        a.total,
        a.cells.table,
        a.cell,
        w.moves.table,
        w.contexts.table,
        w.context_moves.table,
        w.local_moves.table,
        w.skips.table,
        p.content_leaders.table,
        p.cell_leaders.table,
        a.leaders.table,
    )


@njit(cache=True)
def n_columns(table: ExpertTable) -> int:
    """Number of experts: one for each half-life, and seven more."""
    return int(7 + 2 * len(table.total) + table.moves.weight.shape[1])


@njit(cache=True)
def place_of(table: ExpertTable, items: Int32, location: int, audience: int) -> Place:
    """Where a session with these last items is; items that the store does not know are unknown."""
    x = np.full(3, -1, dtype=np.int64)
    for g in range(min(3, len(items))):
        if items[len(items) - 1 - g] < table.n_contents:
            x[g] = items[len(items) - 1 - g]
    known = location if 0 <= location < table.n_locations else -1
    context: Key = np.int64(-1)
    cell: Key = np.int64(-1)
    if x[0] >= 0 and x[1] >= 0:
        context = find_key(table.contexts, (x[1] << 32) | x[0])
    if x[0] >= 0 and known >= 0:
        cell = find_key(table.cell_index, (x[0] << 32) | np.int64(known))
    return x[0], x[1], x[2], context, np.int64(known), cell, np.int64(audience)


@njit(cache=True)
def new_map(items: int) -> ItemMap:
    """An empty map with room for so many items."""
    n_slots = 4
    while n_slots < 2 * items:
        n_slots *= 2
    return np.full(n_slots, -1, dtype=np.int32), np.zeros(n_slots, dtype=np.int32)


@njit(cache=True)
def slot_for(slots: Int32, item: Key) -> Key:
    """Slot that holds an item, or the empty one where it belongs."""
    mask = len(slots) - 1
    slot = (np.int64(item) * np.int64(0x9E3779B1) >> np.int64(7)) & mask
    while slots[slot] >= 0 and slots[slot] != item:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True)
def _spread(lists: SuccessorTable, row: Key, h: int, factor: float, found: ItemMap, out: Float64) -> float:
    """Adds factor * P(i | row) to the items asked about. Returns the sum over all that the list holds."""
    if row < 0:
        return 0.0
    total = list_total(lists, row, h)
    if total <= 0:
        return 0.0
    slots, where = found
    listed = 0.0
    for j in range(lists.start[row], lists.start[row] + lists.length[row]):
        p = factor * lists.weight[j, h] / total
        listed += p
        slot = slot_for(slots, lists.item[j])
        if slots[slot] >= 0:
            out[where[slot]] += p
    return listed


@njit(cache=True)
def _spread_skips(table: ExpertTable, place: Place, found: ItemMap, out: Float64) -> float:
    """The column `skip`: a mixture over one, two and three steps back. Returns its mass."""
    x1, x2, x3 = place[0], place[1], place[2]
    slow = table.moves.weight.shape[1] - 1
    share = np.zeros(3)
    share[0] = 1.0 if x1 >= 0 and list_total(table.moves, x1, slow) > 0 else 0.0
    share[1] = 0.5 if x2 >= 0 and list_total(table.skips, x2, 0) > 0 else 0.0
    share[2] = 1.0 / 3.0 if x3 >= 0 and list_total(table.skips, x3, 0) > 0 else 0.0
    if share.sum() == 0:
        return 0.0
    share /= share.sum()
    return (
        _spread(table.moves, x1, slow, share[0], found, out)
        + _spread(table.skips, x2, 0, share[1], found, out)
        + _spread(table.skips, x3, 0, share[2], found, out)
    )


@njit(cache=True)
def _say_lists(table: ExpertTable, place: Place, found: ItemMap, out: Float64, mass: Float64) -> None:
    """The columns of transitions, for all items in the map: (items, experts), (experts,)."""
    x1, context, cell = place[0], place[3], place[5]
    column = FIRST_POPULARITY + 2 * len(table.total) + 2
    n_half_lives = table.moves.weight.shape[1]
    for h in range(n_half_lives):
        mass[column + h] = _spread(table.moves, x1, h, 1.0, found, out[:, column + h])
    column += n_half_lives
    mass[column] = _spread(table.local_moves, cell, 0, 1.0, found, out[:, column])
    mass[column + 1] = _spread_skips(table, place, found, out[:, column + 1])
    mass[column + 2] = _spread(table.context_moves, context, 0, 1.0, found, out[:, column + 2])


@njit(cache=True)
def _say_counts(table: ExpertTable, place: Place, items: Int64, out: Float64) -> None:
    """The columns without a current content, for items of which -1 is left out. (items, experts)"""
    n, location, audience = len(table.total), place[4], place[6]
    share = 1.0 / np.maximum(table.total, 1e-300)
    for k in range(len(items)):
        if items[k] >= 0:
            out[k, UNIFORM] = 1.0 / table.n_contents
            for h in range(n):
                if table.total[h] > 0:
                    out[k, FIRST_POPULARITY + h] = table.content[items[k], h] * share[h]
    # Short loops of look-ups alone: the processor then waits for several rows at once.
    rows = np.full(len(items), -1, dtype=np.int64)
    if location >= 0:
        for k in range(len(items)):
            if items[k] >= 0:
                rows[k] = find_key(table.cell_index, (items[k] << 32) | location)
        for h in range(n):
            share[h] = 1.0 / table.location[location, h] if table.location[location, h] > 0 else 0.0
        for k in range(len(items)):
            if rows[k] >= 0:
                for h in range(n):
                    out[k, FIRST_POPULARITY + n + h] = table.cell[rows[k], h] * share[h]
    if audience >= 0 and table.audience[audience, 0] > 0:
        whole = 1.0 / table.audience[audience, 0]
        for k in range(len(items)):
            if items[k] >= 0:
                rows[k] = find_key(table.audience_cells, (items[k] << 32) | audience)
        for k in range(len(items)):
            if items[k] >= 0 and rows[k] >= 0:
                out[k, FIRST_POPULARITY + 2 * n + 1] = table.audience_cell[rows[k], 0] * whole


@njit(cache=True)
def _count_masses(table: ExpertTable, place: Place, mass: Float64) -> None:
    n, location, audience = len(table.total), place[4], place[6]
    mass[UNSEEN] = 1.0
    mass[UNIFORM] = 1.0 if table.n_contents > 0 else 0.0
    for h in range(n):
        mass[FIRST_POPULARITY + h] = 1.0 if table.total[h] > 0 else 0.0
        known = location >= 0 and table.location[location, h] > 0
        mass[FIRST_POPULARITY + n + h] = 1.0 if known else 0.0
    mass[FIRST_POPULARITY + 2 * n] = 1.0 if len(table.newest) > 0 else 0.0
    shown = audience >= 0 and table.audience[audience, 0] > 0
    mass[FIRST_POPULARITY + 2 * n + 1] = 1.0 if shown else 0.0


@njit(cache=True)
def say(table: ExpertTable, place: Place, items: Int32, found: ItemMap, out: Float64, mass: Float64) -> None:
    """What every expert gives to distinct items, conditioned on a move: (items + 1, experts), (experts,).

    Rows of items that are unknown, or x1 itself, are zero. The last row is room to work in.
    """
    slots, where = found
    slots[:] = -1
    out[:] = 0.0
    mass[:] = 0.0
    x1 = place[0]
    here = len(items)
    asked = np.full(here + 1, -1, dtype=np.int64)
    for k in range(here + 1):
        item = x1 if k == here else np.int64(items[k])
        if 0 <= item < table.n_contents and (k == here or item != x1):
            slot = slot_for(slots, item)
            slots[slot], where[slot] = item, k
            asked[k] = item
    _say_counts(table, place, asked, out)
    newest = FIRST_POPULARITY + 2 * len(table.total)
    for item in table.newest:
        slot = slot_for(slots, item)
        if slots[slot] >= 0:
            out[where[slot], newest] = 1.0 / len(table.newest)
    _count_masses(table, place, mass)
    _say_lists(table, place, found, out, mass)
    if x1 >= 0:
        _condition(out, mass)
    else:
        np.minimum(mass, 1.0, mass)


@njit(cache=True)
def _condition(out: Float64, mass: Float64) -> None:
    """Conditions on `i != x1`, whose unconditioned probabilities are in the last row."""
    here = len(out) - 1
    for k in range(len(mass)):
        rest = 1.0 - out[here, k]
        scale = 1.0 / rest if rest > LEAST_REST else 0.0
        mass[k] = min(max((mass[k] - out[here, k]) * scale, 0.0), 1.0)
        for i in range(here):
            out[i, k] *= scale


@njit(cache=True)
def ask(
    table: ExpertTable, items: Int32, location: Int32, audience: Int64, content: Int32
) -> tuple[Float64, Float64, Float64, Int64]:
    """What every expert gives to `content[i]` as the next content of session i; see `Answers`.

    Args:
        table: the counters.
        items: last contents of each session, most recent last, -1 where there were fewer. (n, history)
        location: location of each session. (n,)
        audience: row of each session's audience, -1 where unknown. (n,)
        content: what is asked about; unknown codes stand for any unseen content. (n,)
    """
    n, n_experts = len(items), n_columns(table)
    probability, mass = np.zeros((n, n_experts)), np.zeros((n, n_experts))
    departures, distinct = np.zeros((n, 2)), np.zeros((n, 2), dtype=np.int64)
    said = np.empty((2, n_experts))
    found = new_map(2)
    for i in range(n):
        place = place_of(table, items[i], location[i], audience[i])
        x1, context = place[0], place[3]
        say(table, place, content[i : i + 1], found, said, mass[i])
        probability[i] = said[0]
        if content[i] < 0 or content[i] >= table.n_contents:
            probability[i, UNSEEN] = 1.0
        if x1 >= 0:
            departures[i, 0] = list_total(table.moves, x1, 0)
            distinct[i, 0] = table.moves.length[x1]
        if context >= 0:
            departures[i, 1] = list_total(table.context_moves, context, 0)
            distinct[i, 1] = table.context_moves.length[context]
    return probability, mass, departures, distinct
