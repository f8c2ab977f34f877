"""Who was up when: on-sessions per node, with what is unknown kept unknown.

A session is `[start, end)`. Its node was last seen up at `end` and first known gone at `end_upper`, so the departure
lies in `(end, end_upper]`. A `censored` session has no departure: the node was still up when the observation stopped,
at the cut or at a gap. After it nothing is known until the next session starts.

`before(cutoff)` is the point-in-time view: a departure that was not known before the cut-off is a node that still
looked up, whatever the log learned later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import TableError
from models.events import Bool, Int64

Objects = npt.NDArray[np.object_]

UNKNOWN = "unknown"
OPEN_US = np.iinfo(np.int64).max
_PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class SessionHistory:
    """Sessions in compressed rows: those of node i are `offsets[i]:offsets[i + 1]`, in time order.

    Attributes:
        nodes: node ids, each once. (n,)
        device_class: "home", "phone", ...; "unknown" where the table has none. (n,)
        network: failure domain. (n,)
        location: where the node is. (n,)
        observed_from_us: instant from which the absence of a session means down. (n,)
        observed_until_us: instant after which nothing is known of the node. (n,)
        offsets: first session of each node. (n + 1,)
        start_us: start of the session. (m,)
        end_us: last instant seen up. (m,)
        end_upper_us: first instant known gone; `end_us` where censored. (m,)
        censored: no departure was seen. (m,)

    Raises:
        ValueError: an array has the wrong length.
    """

    nodes: Objects
    device_class: Objects
    network: Objects
    location: Objects
    observed_from_us: Int64
    observed_until_us: Int64
    offsets: Int64
    start_us: Int64
    end_us: Int64
    end_upper_us: Int64
    censored: Bool

    def __post_init__(self) -> None:
        n, m = len(self.nodes), len(self.start_us)
        expected = {
            **dict.fromkeys(("device_class", "network", "location", "observed_from_us", "observed_until_us"), n),
            **dict.fromkeys(("end_us", "end_upper_us", "censored"), m),
            "offsets": n + 1,
        }
        wrong = [
            f"{k} has {len(getattr(self, k))} rows, expected {v}."
            for k, v in expected.items()
            if len(getattr(self, k)) != v
        ]
        if wrong or self.offsets[-1] != m:
            raise ValueError(" ".join(wrong) or f"offsets end at {self.offsets[-1]}, expected {m}.")

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def node_of_session(self) -> Int64:
        """Node index of each session, shape (m,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    @classmethod
    def from_arrow(cls, availability: pa.Table, nodes: pa.Table) -> SessionHistory:
        """Builds the history of the nodes in `nodes` (its order) from rows of `availability` (any order).

        `nodes` needs `source`; `device_class`, `network`, `location`, `available_at` and, for nodes that were watched
        for a part of the time only, `observed_until` are read where present. `end_upper` and `censored` may be absent.

        Raises:
            TableError: listing every kind of mistake: columns, unknown or repeated nodes, ends before starts, overlaps.
        """
        problems = [f"Column {c!r} is missing from nodes." for c in ("source",) if c not in nodes.column_names]
        problems += [
            f"Column {c!r} is missing." for c in ("node", "start", "end") if c not in availability.column_names
        ]
        if problems:
            raise TableError("availability", problems)
        ids = np.asarray(nodes["source"].to_pylist(), dtype=object)
        rows = _session_rows(availability, ids)
        problems = [*_node_problems(ids), *rows.problems(availability)]
        if problems:
            raise TableError("availability", problems)
        return rows.history(ids, nodes)

    def before(self, cutoff_us: int) -> SessionHistory:
        """What was known at `cutoff_us`: sessions that had started, with unknown departures censored there."""
        started = self.start_us < cutoff_us
        counts = np.add.reduceat(np.append(started, False), self.offsets[:-1]) if len(self) else np.zeros(0)
        counts = np.where(np.diff(self.offsets) > 0, counts, 0)
        end, upper = self.end_us[started], self.end_upper_us[started]
        censored = self.censored[started]
        departed = ~censored & (upper < cutoff_us)
        # A gap in observation that began earlier stays where it is; every other node still looked up.
        lost = censored & (end < cutoff_us)
        known_end = np.where(departed | lost, end, cutoff_us)
        return SessionHistory(
            self.nodes,
            self.device_class,
            self.network,
            self.location,
            self.observed_from_us,
            self.observed_until_us,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.start_us[started],
            known_end,
            np.where(departed, upper, known_end),
            ~departed,
        )

    def up_at(self, at_us: int) -> Bool:
        """Whether each node was seen up at the instant, shape (n,).

        On the view `before(t)`, `up_at(t)` is what an observer believed at t.
        """
        last = self.last_session(at_us)
        row = np.maximum(last, 0)
        if not len(self.start_us):
            return np.zeros(len(self), dtype=np.bool_)
        inside = (at_us < self.end_us[row]) | (self.censored[row] & (at_us == self.end_us[row]))
        return np.asarray((last >= 0) & inside, dtype=np.bool_)

    def known_at(self, at_us: int) -> Bool:
        """Whether each node is certain to be up or down at the instant, shape (n,)."""
        observed = (self.observed_from_us <= at_us) & (at_us < self.observed_until_us)
        last = self.last_session(at_us)
        if not len(self.start_us):
            return np.asarray(observed, dtype=np.bool_)
        row = np.maximum(last, 0)
        leaving = ~self.censored[row] & (self.end_us[row] <= at_us) & (at_us < self.end_upper_us[row])
        lost = self.censored[row] & (self.end_us[row] < at_us)
        return np.asarray(observed & ~((last >= 0) & (leaving | lost)), dtype=np.bool_)

    def select(self, nodes: Sequence[str] | Objects) -> SessionHistory:
        """The history of these nodes, in this order.

        Raises:
            KeyError: naming the ids that the history does not hold.
        """
        index = self.index_of(nodes)
        counts = np.diff(self.offsets)[index]
        first = np.repeat(self.offsets[:-1][index] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        rows = first + np.arange(int(counts.sum()))
        return SessionHistory(
            self.nodes[index],
            self.device_class[index],
            self.network[index],
            self.location[index],
            self.observed_from_us[index],
            self.observed_until_us[index],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.start_us[rows],
            self.end_us[rows],
            self.end_upper_us[rows],
            self.censored[rows],
        )

    def index_of(self, nodes: Sequence[str] | Objects) -> Int64:
        """Position of each id; KeyError names the unknown ones."""
        place = {node: i for i, node in enumerate(self.nodes)}
        unknown = [node for node in nodes if node not in place]
        if unknown:
            raise KeyError(f"The session history does not hold {_shown(unknown)}.")
        return np.array([place[node] for node in nodes], dtype=np.int64)

    def last_session(self, at_us: int) -> Int64:
        """Row of the last session that started at or before the instant, -1 where none has, shape (n,)."""
        started = np.concatenate([[0], np.cumsum(self.start_us <= at_us)])
        count = started[self.offsets[1:]] - started[self.offsets[:-1]]
        return np.where(count > 0, self.offsets[:-1] + count - 1, -1)


@dataclass(frozen=True)
class _SessionRows:
    """Sessions sorted by node and start, before they are known to be consistent."""

    node: Int64
    start_us: Int64
    end_us: Int64
    end_upper_us: Int64
    censored: Bool
    unknown: list[str]

    def problems(self, table: pa.Table) -> list[str]:
        nulls = [
            f"Column {c!r} holds {table[c].null_count} empty values; every session needs one."
            for c in ("node", "start", "end")
            if table[c].null_count
        ]
        if nulls:
            return nulls
        found = []
        if self.unknown:
            found.append(f"Sessions name nodes that the nodes table does not have: {_shown(self.unknown)}.")
        backwards = self.end_us < self.start_us
        if backwards.any():
            found.append(f"{int(backwards.sum())} sessions end before they start, e.g. {self._example(backwards)}.")
        early = self.end_upper_us < self.end_us
        if early.any():
            found.append(f"{int(early.sum())} sessions have end_upper before end, e.g. {self._example(early)}.")
        overlap = np.zeros(len(self.start_us), dtype=np.bool_)
        overlap[1:] = (self.node[1:] == self.node[:-1]) & (self.start_us[1:] < self.end_us[:-1])
        if overlap.any():
            found.append(
                f"{int(overlap.sum())} sessions start before the previous one of their node ended, "
                f"e.g. {self._example(overlap)}; merge or drop them."
            )
        return found

    def history(self, ids: Objects, nodes: pa.Table) -> SessionHistory:
        n = len(ids)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(self.node, minlength=n))]).astype(np.int64)
        first = np.full(n, OPEN_US)
        np.minimum.at(first, self.node, self.start_us)
        seen_from = _instants(nodes, "available_at", OPEN_US)
        # A departure known only after the next session began happened before that session.
        upper = self.end_upper_us.copy()
        follows = np.flatnonzero(self.node[1:] == self.node[:-1])
        upper[follows] = np.minimum(upper[follows], self.start_us[follows + 1])
        return SessionHistory(
            ids,
            _labels(nodes, "device_class"),
            _labels(nodes, "network"),
            _labels(nodes, "location"),
            np.minimum(first, seen_from),
            _instants(nodes, "observed_until", OPEN_US),
            offsets,
            self.start_us,
            self.end_us,
            np.maximum(upper, self.end_us),
            self.censored,
        )

    def _example(self, rows: Bool) -> str:
        row = int(np.flatnonzero(rows)[0])
        start, end = (np.datetime64(int(t[row]), "us") for t in (self.start_us, self.end_us))
        return f"[{start}, {end})"


def _session_rows(table: pa.Table, ids: Objects) -> _SessionRows:
    import pandas as pd

    names = np.asarray(table["node"].to_pylist(), dtype=object)
    code = (
        pd.Index(ids).get_indexer(pd.Index(names))
        if len(set(ids)) == len(ids)
        else np.zeros(len(names), dtype=np.int64)
    )
    start, end = (_microseconds(table[c]) for c in ("start", "end"))
    censored = _flags(table, len(names))
    upper = end.copy()
    if "end_upper" in table.column_names:
        given = _microseconds(pc.coalesce(table["end_upper"], table["end"]))
        upper = np.where(censored, end, given)
    order = np.lexsort((start, code))
    unknown = sorted({str(name) for name in names[code < 0]})
    kept = order[code[order] >= 0]
    return _SessionRows(code[kept].astype(np.int64), start[kept], end[kept], upper[kept], censored[kept], unknown)


def _flags(table: pa.Table, n: int) -> Bool:
    if "censored" not in table.column_names:
        return np.zeros(n, dtype=np.bool_)
    return _filled(table["censored"], False).astype(np.bool_)


def _microseconds(column: Any) -> Int64:
    return _filled(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), 0).astype(np.int64)


def _instants(nodes: pa.Table, name: str, default: int) -> Int64:
    if name not in nodes.column_names:
        return np.full(len(nodes), default, dtype=np.int64)
    instants = nodes[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return _filled(instants, default).astype(np.int64)


def _filled(column: Any, value: int | bool) -> npt.NDArray[Any]:
    filled: Any = pc.fill_null(column, value)
    return np.asarray(filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy())


def _labels(nodes: pa.Table, name: str) -> Objects:
    if name not in nodes.column_names:
        return np.full(len(nodes), UNKNOWN, dtype=object)
    return np.array([UNKNOWN if v is None else str(v) for v in nodes[name].to_pylist()], dtype=object)


def _node_problems(ids: Objects) -> list[str]:
    unique, counts = np.unique(ids.astype(str), return_counts=True)
    repeated = [str(u) for u in unique[counts > 1]]
    return [f"The nodes table repeats {_shown(repeated)}."] if repeated else []


def _shown(names: Sequence[str]) -> str:
    more = "" if len(names) <= _PROBLEMS_SHOWN else f" and {len(names) - _PROBLEMS_SHOWN} more"
    return ", ".join(repr(str(name)) for name in names[:_PROBLEMS_SHOWN]) + more
