"""The shortlist: for each session the contents worth ranking, and all that is known of each, as one table of numbers.

    columns = log(p_k(i) + 1e-6) for every expert k | log(p_sequence(i) + 1e-6) | facts about content and session

The sequence network is a distribution over the shortlist alone. Facts are logarithms of ages and decayed counts, so that
a network sees evidence beside shares, and marks: already requested in this session, in an earlier one, of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from models.counters import CounterStore
from models.events import HOUR_US, Float64, Int32, Int64
from models.keys import KeyTable, find_key
from models.next_content.asking import places
from models.next_content.candidates import survey
from models.next_content.experts import Experts, ExpertTable, expert_table, place_of
from models.next_content.sequence import SequenceNetwork
from models.next_content.sessions import SessionBatch
from models.next_content.trail_memory import trail_of
from models.successors import list_total

Float32 = npt.NDArray[np.float32]

FIELDS = ("contents", "table", "mass", "context", "codes", "log_weight")
LEAST = 1e-6
"""Added to probabilities before their logarithm."""
SEQUENCE = "sequence"
FACTS = ("log_age", "log_count", "log_local_count", "log_trend", "in_session", "in_earlier", "same_kind")
CONTEXT = (
    "log_departures",
    "log_pair_departures",
    "log_successors",
    "log_pair_successors",
    "log_position",
    "log_earlier",
    "log_traffic",
    "log_local_traffic",
    "log_current_age",
    "sin_hour",
    "cos_hour",
)
CODES = ("location", "device", "arrival")
LEAST_AGE_HOURS, MOST_AGE_HOURS = 1 / 60, 30 * 24.0
COUNT_FLOOR = 0.1


@dataclass(frozen=True)
class Shortlist:
    """Candidates of n sessions.

    Attributes:
        contents: content codes, -1 where there are fewer. (n, m)
        table: the columns of every candidate; zeros where there is none. (n, m, columns)
        mass: known part of each expert. (n, experts)
        context: what is known of the session, in the order of `CONTEXT` and then the masses. (n, context)
        codes: location, device and arrival of the session, -1 where unknown. (n, 3)
        log_weight: logarithm of how many candidates each one stands for, where some were drawn for all; None where all
            are there. (n, m)
    """

    contents: Int32
    table: npt.NDArray[np.floating]
    mass: Float32
    context: Float32
    codes: Int32
    log_weight: Float32 | None = None

    def __len__(self) -> int:
        return len(self.contents)

    def rows(self, rows: slice | Int64) -> Shortlist:
        return self._each(lambda column: column[rows])

    def place_of(self, content: Int32) -> Int64:
        """Column of a content in each session's list, -1 where it is not listed. (n,)"""
        same = (self.contents == np.asarray(content)[:, None]) & (self.contents >= 0)
        return np.where(same.any(axis=1), same.argmax(axis=1), -1).astype(np.int64)

    def compact(self) -> Shortlist:
        """The same at half precision, for keeping many."""
        return replace(self, table=self.table.astype(np.float16))

    def room_for(self, n: int) -> Shortlist:
        """Room for n lists of this width."""
        return self._each(lambda column: np.empty((n, *column.shape[1:]), dtype=column.dtype))

    def _each(self, change: Callable[[Any], Any]) -> Shortlist:
        columns = {name: getattr(self, name) for name in FIELDS}
        changed: dict[str, Any] = {name: None if c is None else change(c) for name, c in columns.items()}
        return Shortlist(**changed)

    def put(self, other: Shortlist, first: int, last: int) -> None:
        """Copies other lists into rows of this one."""
        for name in FIELDS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None:
                mine[first:last] = theirs

    def thinned(self, place: Int64, *, kept: int, drawn: int, rng: np.random.Generator) -> Shortlist:
        """The first `kept` candidates, the one at `place`, and `drawn` of the others, which stand for all the others.

        A softmax over the rest, each weighted by how many it stands for, agrees in expectation with that over all.
        """
        m = self.contents.shape[1]
        if m <= kept + drawn + 1:
            return replace(self, log_weight=np.zeros(self.contents.shape, dtype=np.float32))
        column = np.arange(m)
        chance = rng.random(self.contents.shape)
        chance[:, :kept] = -1.0
        chance[column == place[:, None]] = -1.0
        sure = chance < 0
        chance[self.contents < 0] = 2.0
        chosen = np.sort(np.argsort(chance, axis=1, kind="stable")[:, : kept + drawn + 1], axis=1)
        others = ((self.contents >= 0) & ~sure).sum(axis=1)
        standing = np.take_along_axis((self.contents >= 0) & ~sure, chosen, axis=1)
        share = np.log(np.maximum(others, 1) / np.maximum(standing.sum(axis=1), 1))
        return Shortlist(
            np.take_along_axis(self.contents, chosen, axis=1),
            np.take_along_axis(self.table, chosen[..., None], axis=1),
            self.mass,
            self.context,
            self.codes,
            np.where(standing, share[:, None], 0.0).astype(np.float32),
        )

    @classmethod
    def joined(cls, parts: Sequence[Shortlist]) -> Shortlist:
        """Lists of equal width, one after the other."""

        def column(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else np.concatenate(columns)

        return cls(*(column(name) for name in FIELDS))


def columns_of(experts: Experts) -> tuple[str, ...]:
    """Names of the columns of a shortlist."""
    return (*experts.names, SEQUENCE, *FACTS)


def context_names(experts: Experts) -> tuple[str, ...]:
    """Names of what is known of a session."""
    return (*CONTEXT, *(f"mass_{name}" for name in experts.names))


def draw_up(store: CounterStore, sessions: SessionBatch, *, limit: int) -> Shortlist:
    """The shortlist of each session at its instant; the column of the sequence network is empty.

    Raises:
        LogOrderError: a question is older than the newest request counted.
    """
    store.refuse_before(int(sessions.ts_us.min(initial=np.iinfo(np.int64).max)))
    table, place = expert_table(store), places(store, sessions)
    contents, said, mass = survey(table, *place, limit)
    n, m, n_experts = said.shape
    columns = np.zeros((n, m, n_experts + 1 + len(FACTS)), dtype=np.float32)
    np.log(said + np.float32(LEAST), out=columns[..., :n_experts])
    columns[..., n_experts] = np.log(LEAST)
    facts = _fact_table(store)
    _facts(facts, sessions.items, sessions.before_this, (sessions.location, sessions.ts_us), contents, columns)
    context = np.zeros((n, len(CONTEXT) + n_experts), dtype=np.float32)
    _context(facts, table, sessions.items, sessions.before_this, place, sessions.ts_us, context)
    context[:, len(CONTEXT) :] = mass
    return Shortlist(contents, columns, mass.astype(np.float32), context, sessions.codes)


def with_sequence(shortlist: Shortlist, sequence: SequenceNetwork, sessions: SessionBatch) -> Shortlist:
    """The shortlist with what a sequence network gives to its contents."""
    probability = sequence.probability(trail_of(sessions), shortlist.contents)
    table = shortlist.table.copy()
    table[..., shortlist.mass.shape[1]] = np.where(shortlist.contents >= 0, np.log(probability + LEAST), 0.0)
    return replace(shortlist, table=table)


class FactTable(NamedTuple):
    """What facts are made of. Counts are inflated: at the fastest, the second and the slowest half-life."""

    base_us: int
    per_hour: Float64
    transitions_per_hour: Float64
    content: Float64
    cell_index: KeyTable
    cell: npt.NDArray[np.floating]
    appeared_us: Int64
    kind: Int32


def _fact_table(store: CounterStore) -> FactTable:
    p = store.popularity
    return FactTable(
        store.base_us,
        p.per_hour,
        store.walks.rates.per_hour,
        p.content,
        p.index.table,
        p.cell,
        p.appeared_us,
        store.kinds,
    )


@njit(cache=True)
def _context(
    facts: FactTable,
    table: ExpertTable,
    items: Int32,
    earlier: Int32,
    place: tuple[Int32, Int32, Int64],
    ts_us: Int64,
    context: Float32,
) -> None:
    """Fills the numbers of `CONTEXT`."""
    last_items, location, audience = place
    n_slow = len(facts.transitions_per_hour) - 1
    for i in range(len(items)):
        x1, _, _, pair, known, _, _ = place_of(table, last_items[i], location[i], audience[i])
        hours = (ts_us[i] - facts.base_us) / HOUR_US
        to_now = 2.0 ** (-hours * facts.per_hour[0])
        out = context[i]
        left = list_total(table.moves, x1, 0) if x1 >= 0 else 0.0
        pair_left = list_total(table.context_moves, pair, 0) if pair >= 0 else 0.0
        out[0] = np.log(left * 2.0 ** (-hours * facts.transitions_per_hour[0]) + COUNT_FLOOR)
        out[1] = np.log(pair_left * 2.0 ** (-hours * facts.transitions_per_hour[n_slow]) + COUNT_FLOOR)
        out[2] = np.log1p(table.moves.length[x1]) if x1 >= 0 else 0.0
        out[3] = np.log1p(table.context_moves.length[pair]) if pair >= 0 else 0.0
        out[4] = np.log1p((items[i] >= 0).sum())
        out[5] = np.log1p((earlier[i] >= 0).sum())
        out[6] = np.log1p(table.total[0] * to_now)
        out[7] = np.log1p(table.location[known, 0] * to_now) if known >= 0 else 0.0
        age = (ts_us[i] - facts.appeared_us[x1]) / HOUR_US if x1 >= 0 else LEAST_AGE_HOURS
        out[8] = np.log(min(max(age, LEAST_AGE_HOURS), MOST_AGE_HOURS))
        of_day = ts_us[i] / HOUR_US * (2 * np.pi / 24)
        out[9], out[10] = np.sin(of_day), np.cos(of_day)


@njit(cache=True)
def _listed(items: Int32, content: int) -> float:
    for item in items:
        if item == content:
            return 1.0
    return 0.0


@njit(cache=True)
def _facts(
    table: FactTable,
    items: Int32,
    earlier: Int32,
    asked: tuple[Int32, Int64],
    contents: Int32,
    columns: Float32,
) -> None:
    """Fills the last columns with the facts; clears the rows of no content."""
    location, ts_us = asked
    first = columns.shape[2] - len(FACTS)
    second = min(1, len(table.per_hour) - 1)
    rows = np.full(contents.shape[1], -1, dtype=np.int64)
    for i in range(len(contents)):
        hours = (ts_us[i] - table.base_us) / HOUR_US
        fast = 2.0 ** (-hours * table.per_hour[0])
        slower = 2.0 ** (-hours * table.per_hour[second])
        ratio = table.per_hour[0] / table.per_hour[second]
        x1 = items[i, items.shape[1] - 1]
        kind = table.kind[x1] if 0 <= x1 < len(table.kind) else -1
        # A short loop of look-ups alone: the processor then waits for several rows at once.
        if location[i] >= 0:
            for j in range(contents.shape[1]):
                if contents[i, j] >= 0:
                    rows[j] = find_key(table.cell_index, (np.int64(contents[i, j]) << 32) | np.int64(location[i]))
        for j in range(contents.shape[1]):
            c = contents[i, j]
            if c < 0:
                columns[i, j] = 0.0
                continue
            out = columns[i, j, first:]
            age = (ts_us[i] - table.appeared_us[c]) / HOUR_US
            out[0] = np.log(min(max(age, LEAST_AGE_HOURS), MOST_AGE_HOURS))
            count, before = table.content[c, 0] * fast, table.content[c, second] * slower
            out[1] = np.log(count + COUNT_FLOOR)
            local = table.cell[rows[j], second] * slower if location[i] >= 0 and rows[j] >= 0 else 0.0
            out[2] = np.log(local + COUNT_FLOOR)
            out[3] = np.log(ratio * count + COUNT_FLOOR) - np.log(before + COUNT_FLOOR)
            out[4] = _listed(items[i], c)
            out[5] = _listed(earlier[i], c)
            out[6] = 1.0 if kind >= 0 and table.kind[c] == kind else 0.0
