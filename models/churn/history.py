"""Who was up when: on-sessions per node, with what is unknown kept unknown.

A session is `[start, end)`. Its node was last seen up at `end` and first known gone at `end_upper`, so the departure
lies in `(end, end_upper]`. A `censored` session has no departure: the node was still up when the observation stopped,
at the cut or at a gap. After it nothing is known until the next session starts.

In a *hole* nobody was watching (`models.churn.holes`). A session that goes on behind it is up in it; of any other node
nothing is known there, and a node that looked up where it began is lost from sight, not gone.

`before(cutoff)` is the point-in-time view: a departure that was not known before the cut-off is a node that still
looked up, whatever the log learned later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.churn.holes import find_holes, given_holes, hole_at, holes_before
from models.churn.session_rows import Repairs, SessionRows, microseconds, shown
from models.churn.telemetry import TelemetryLog
from models.errors import TableError
from models.events import Bool, Int64, Window
from models.observation import Gap
from models.tables import SKEW_US

Objects = npt.NDArray[np.object_]

UNKNOWN = "unknown"
OPEN_US = np.iinfo(np.int64).max


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
        telemetry: heartbeats of the nodes, in their order; absent where there are none. (n nodes)
        holes: windows in which nobody was watching, in time order, each with the instant from which it is known.
        repairs: what was mended in the tables.
        outage_us: instant from which the departure is known to have been part of an outage, `OPEN_US` where it is none;
            absent where outages were not looked for. (m,)

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
    telemetry: TelemetryLog | None = None
    holes: tuple[Gap, ...] = ()
    repairs: Repairs = field(default_factory=Repairs)
    outage_us: Int64 | None = None

    def __post_init__(self) -> None:
        n, m = len(self.nodes), len(self.start_us)
        expected = {
            **dict.fromkeys(("device_class", "network", "location", "observed_from_us", "observed_until_us"), n),
            **dict.fromkeys(("end_us", "end_upper_us", "censored"), m),
            "offsets": n + 1,
            **({} if self.telemetry is None else {"telemetry": n}),
            **({} if self.outage_us is None else {"outage_us": m}),
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

    @property
    def own_departure(self) -> Bool:
        """Which sessions ended by a departure that was not part of an outage, shape (m,)."""
        return ~self.censored if self.outage_us is None else ~self.censored & (self.outage_us == OPEN_US)

    @classmethod
    def from_arrow(
        cls,
        availability: pa.Table,
        nodes: pa.Table,
        telemetry: pa.Table | None = None,
        *,
        holes: Sequence[Window] | None = None,
    ) -> SessionHistory:
        """Builds the history of the nodes in `nodes` (its order) from rows of `availability` (any order).

        `nodes` needs `source`; `device_class`, `network`, `location`, `available_at` and, for nodes that were watched
        for a part of the time only, `observed_until` are read where present. `end_upper` and `censored` may be absent.
        Holes are found where none are given. What is mended and what is refused: `models.churn.session_rows`.

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
        rows = SessionRows.read(availability, ids)
        problems = [*_node_problems(ids), *rows.problems(availability)]
        if problems:
            raise TableError("availability", problems)
        rows = rows.clipped()
        known = find_holes(rows.instants_us()) if holes is None else given_holes(holes)
        rows = rows.broken_at(known)
        first = np.full(len(ids), OPEN_US)
        np.minimum.at(first, rows.node, rows.start_us)
        return cls(
            ids,
            _labels(nodes, "device_class"),
            _labels(nodes, "network"),
            _labels(nodes, "location"),
            np.minimum(first, _instants(nodes, "available_at", OPEN_US)),
            _instants(nodes, "observed_until", OPEN_US),
            _offsets(np.bincount(rows.node, minlength=len(ids))),
            rows.start_us,
            rows.end_us,
            rows.end_upper_us,
            rows.censored,
            None if telemetry is None else TelemetryLog.from_arrow(telemetry, ids),
            known,
            rows.repairs,
        )

    def before(self, cutoff_us: int) -> SessionHistory:
        """What was known at `cutoff_us`: sessions that had started, with unknown departures censored there."""
        started = self.start_us < cutoff_us
        counts = np.add.reduceat(np.append(started, False), self.offsets[:-1]) if len(self) else np.zeros(0)
        counts = np.where(np.diff(self.offsets) > 0, counts, 0)
        holes = holes_before(self.holes, cutoff_us)
        end, upper = self.end_us[started], self.end_upper_us[started]
        censored = self.censored[started]
        departed = ~censored & (upper < cutoff_us)
        # A gap in observation that began earlier stays where it is; every other node was up when last looked at.
        lost = censored & (end < cutoff_us)
        looked_us = next((hole.start_us for hole in holes if cutoff_us <= hole.end_us), cutoff_us)
        known_end = np.where(departed | lost, end, np.maximum(looked_us, self.start_us[started]))
        return replace(
            self,
            offsets=_offsets(counts),
            start_us=self.start_us[started],
            end_us=known_end,
            end_upper_us=np.where(departed, upper, known_end),
            censored=~departed,
            telemetry=None if self.telemetry is None else self.telemetry.before(cutoff_us),
            holes=holes,
            outage_us=None if self.outage_us is None else self._outages_before(cutoff_us)[started],
        )

    def _outages_before(self, cutoff_us: int) -> Int64:
        assert self.outage_us is not None
        return np.where(self.outage_us < cutoff_us, self.outage_us, OPEN_US)

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
        if self.in_hole(at_us):
            observed &= self.up_at(at_us)
        last = self.last_session(at_us)
        if not len(self.start_us):
            return np.asarray(observed, dtype=np.bool_)
        row = np.maximum(last, 0)
        leaving = ~self.censored[row] & (self.end_us[row] <= at_us) & (at_us < self.end_upper_us[row])
        lost = self.censored[row] & (self.end_us[row] < at_us)
        return np.asarray(observed & ~((last >= 0) & (leaving | lost)), dtype=np.bool_)

    def in_hole(self, at_us: int) -> bool:
        """Whether nobody was watching at the instant; an origin there knows nothing, and is no fair question."""
        return hole_at(self.holes, at_us) is not None

    def watched_until_us(self, at_us: int) -> Int64:
        """Until when each node was watched from an instant on: not past a hole that broke sessions, shape (n,).

        Counting departures only among those followed that long keeps a hole from hiding who stayed.
        """
        lost_us = self.end_us[self.censored]
        broke = (
            hole.start_us
            for hole in self.holes
            if hole.start_us >= at_us and ((lost_us <= hole.start_us) & (lost_us >= hole.start_us - SKEW_US)).any()
        )
        return np.minimum(self.observed_until_us, next(broke, OPEN_US))

    def select(self, nodes: Sequence[str] | Objects) -> SessionHistory:
        """The history of these nodes, in this order.

        Raises:
            KeyError: naming the ids that the history does not hold.
        """
        index = self.index_of(nodes)
        counts = np.diff(self.offsets)[index]
        first = np.repeat(self.offsets[:-1][index] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        rows = first + np.arange(int(counts.sum()))
        per_node = ("nodes", "device_class", "network", "location", "observed_from_us", "observed_until_us")
        per_session = ("start_us", "end_us", "end_upper_us", "censored")
        taken = {name: getattr(self, name)[index] for name in per_node}
        taken |= {name: getattr(self, name)[rows] for name in per_session}
        telemetry = None if self.telemetry is None else self.telemetry.select(index)
        outage_us = None if self.outage_us is None else self.outage_us[rows]
        return replace(self, **taken, offsets=_offsets(counts), telemetry=telemetry, outage_us=outage_us)

    def index_of(self, nodes: Sequence[str] | Objects) -> Int64:
        """Position of each id; KeyError names the unknown ones."""
        place = {node: i for i, node in enumerate(self.nodes)}
        unknown = [node for node in nodes if node not in place]
        if unknown:
            raise KeyError(f"The session history does not hold {shown(unknown)}.")
        return np.array([place[node] for node in nodes], dtype=np.int64)

    def last_session(self, at_us: int) -> Int64:
        """Row of the last session that started at or before the instant, -1 where none has, shape (n,)."""
        started = np.concatenate([[0], np.cumsum(self.start_us <= at_us)])
        count = started[self.offsets[1:]] - started[self.offsets[:-1]]
        return np.where(count > 0, self.offsets[:-1] + count - 1, -1)


def _instants(nodes: pa.Table, name: str, default: int) -> Int64:
    if name not in nodes.column_names:
        return np.full(len(nodes), default, dtype=np.int64)
    return microseconds(nodes[name], default)


def _offsets(counts: npt.NDArray[Any]) -> Int64:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _labels(nodes: pa.Table, name: str) -> Objects:
    if name not in nodes.column_names:
        return np.full(len(nodes), UNKNOWN, dtype=object)
    return np.array([UNKNOWN if v is None else str(v) for v in nodes[name].to_pylist()], dtype=object)


def _node_problems(ids: Objects) -> list[str]:
    unique, counts = np.unique(ids.astype(str), return_counts=True)
    repeated = [str(u) for u in unique[counts > 1]]
    return [f"The nodes table repeats {shown(repeated)}."] if repeated else []
