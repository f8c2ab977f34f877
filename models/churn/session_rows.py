"""Sessions as tables give them: read, checked and mended, before they become a history.

refused      empty values, unknown or repeated nodes, an end before its start, an end_upper before its end, a session
             that starts more than five minutes before the previous one of its node ended
mended       a session that starts up to five minutes before the previous one ended: two clocks disagree, and the
             earlier one ends where the later begins; a row that repeats another is left out
at a hole    a departure last seen within five minutes of where a hole begins was not seen: a node that is back where
             the hole ends was lost from sight (censored there), any other left somewhere in the hole
in a hole    a node that is still taken for up when the record ends in a hole was lost from sight where it begins
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.events import NEVER_US, Bool, Int64
from models.observation import Gap
from models.tables import SKEW_US

Objects = npt.NDArray[np.object_]
_PROBLEMS_SHOWN = 5
_COLUMNS = ("node", "start_us", "end_us", "end_upper_us", "censored")


@dataclass(frozen=True)
class Repairs:
    """How many sessions were mended."""

    repeated: int = 0
    """Left out, because they repeat another in everything."""
    clipped: int = 0
    """Cut by up to five minutes where the node's next session began."""
    broken: int = 0
    """Ends that a hole made, and that are no departures."""


@dataclass(frozen=True)
class SessionRows:
    """Sessions sorted by node and start, before they are known to be consistent.

    Attributes:
        node: position among the ids. (m,)
        start_us: start of the session. (m,)
        end_us: last instant seen up. (m,)
        end_upper_us: first instant known gone; `end_us` where censored. (m,)
        censored: no departure was seen. (m,)
        unknown: ids that sessions name and nobody has.
        repairs: what was mended so far.
    """

    node: Int64
    start_us: Int64
    end_us: Int64
    end_upper_us: Int64
    censored: Bool
    unknown: tuple[str, ...]
    repairs: Repairs = field(default_factory=Repairs)

    @classmethod
    def read(cls, table: pa.Table, ids: Objects) -> SessionRows:
        """Sessions of these nodes; rows that repeat another are left out."""
        names = np.asarray(table["node"].to_pylist(), dtype=object)
        code = (
            pd.Index(ids).get_indexer(pd.Index(names))
            if len(set(ids)) == len(ids)
            else np.zeros(len(names), dtype=np.int64)
        )
        start, end = (microseconds(table[c]) for c in ("start", "end"))
        censored = _flags(table, len(names))
        upper = end.copy()
        if "end_upper" in table.column_names:
            upper = np.where(censored, end, microseconds(pc.coalesce(table["end_upper"], table["end"])))
        order = np.lexsort((censored, upper, end, start, code))
        unknown = tuple(sorted({str(name) for name in names[code < 0]}))
        order = order[code[order] >= 0]
        rows = cls(code[order].astype(np.int64), start[order], end[order], upper[order], censored[order], unknown)
        again = np.zeros(len(order), dtype=np.bool_)
        columns = (getattr(rows, name) for name in _COLUMNS)
        again[1:] = np.all([column[1:] == column[:-1] for column in columns], axis=0)
        return replace(rows._taken(~again), repairs=Repairs(repeated=int(again.sum())))

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
            found.append(f"Sessions name nodes that the nodes table does not have: {shown(self.unknown)}.")
        backwards = self.end_us < self.start_us
        if backwards.any():
            found.append(f"{int(backwards.sum())} sessions end before they start, e.g. {self._example(backwards)}.")
        early = self.end_upper_us < self.end_us
        if early.any():
            found.append(f"{int(early.sum())} sessions have end_upper before end, e.g. {self._example(early)}.")
        overlap = np.append(False, self._overlap_us() > SKEW_US)[: len(self.node)]
        if overlap.any():
            found.append(
                f"{int(overlap.sum())} sessions start before the previous one of their node ended, by more than "
                f"{SKEW_US // 60_000_000} minutes, e.g. {self._example(overlap)}; merge or drop them."
            )
        return found

    def clipped(self) -> SessionRows:
        """No session reaches past the start of the next one of its node, nor does what is known of its end."""
        overlap = np.append(self._overlap_us() > 0, False)[: len(self.node)]
        follows = np.append(self.node[1:] == self.node[:-1], False)[: len(self.node)]
        following = np.append(self.start_us[1:], 0)[: len(self.node)]
        end = np.where(overlap, following, self.end_us)
        upper = np.where(follows, np.minimum(self.end_upper_us, following), self.end_upper_us)
        rows = replace(self, end_us=end, end_upper_us=np.maximum(upper, end))
        # What both clocks say began at the same instant is one session.
        nothing_left = overlap & (end <= self.start_us)
        return replace(rows._taken(~nothing_left), repairs=replace(self.repairs, clipped=int(overlap.sum())))

    def instants_us(self) -> Int64:
        """When something was seen of the fleet: starts, last sightings, absences."""
        return np.concatenate([self.start_us, self.end_us, self.end_upper_us])

    def broken_at(self, holes: Sequence[Gap]) -> SessionRows:
        """The same sessions with ends that are due to holes told from departures."""
        rows = self
        for hole in holes:
            rows = rows._broken_at(hole)
        return rows

    def _broken_at(self, hole: Gap) -> SessionRows:
        seen_after = np.where(self.censored, self.start_us, np.maximum(self.start_us, self.end_upper_us))
        still_open = not (seen_after >= hole.end_us).any()
        following = np.append(np.where(self.node[1:] == self.node[:-1], self.start_us[1:], NEVER_US), NEVER_US)
        following = following[: len(self.node)]
        # A node that was seen to be gone, or to be back, before the hole began has left.
        absent = (self.end_upper_us > self.end_us) & (self.end_upper_us < hole.start_us)
        ends = ~self.censored & ~absent & (following > hole.start_us)
        ends &= (self.end_us >= hole.start_us - SKEW_US) & (self.end_us < hole.end_us)
        back = ends & (still_open | (following <= hole.end_us + SKEW_US))
        upper = np.where(ends, np.maximum(self.end_upper_us, hole.end_us), self.end_upper_us)
        # Whoever is taken for up where the record ends in a hole was last seen where the hole began.
        lost = still_open & self.censored & (self.end_us > hole.start_us) & (self.start_us <= hole.start_us)
        end = np.where(lost, hole.start_us, self.end_us)
        return replace(
            self,
            end_us=end,
            end_upper_us=np.where(back | lost, end, upper),
            censored=self.censored | back,
            repairs=replace(self.repairs, broken=self.repairs.broken + int(back.sum())),
        )

    def _overlap_us(self) -> Int64:
        """By how much each session but the last reaches past the start of the next one of its node. (m − 1,)"""
        same = self.node[1:] == self.node[:-1]
        return np.where(same, self.end_us[:-1] - self.start_us[1:], 0)

    def _taken(self, rows: Bool) -> SessionRows:
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    def _example(self, rows: Bool) -> str:
        row = int(np.flatnonzero(rows)[0])
        start, end = (np.datetime64(int(t[row]), "us") for t in (self.start_us, self.end_us))
        return f"[{start}, {end})"


def microseconds(column: Any, empty: int = 0) -> Int64:
    """Instants as whole microseconds since 1970, `empty` where there is none."""
    return filled(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), empty).astype(np.int64)


def filled(column: Any, value: int | bool) -> npt.NDArray[Any]:
    """The values as numpy, with this one for nulls."""
    whole: Any = pc.fill_null(column, value)
    return np.asarray(whole.to_numpy(zero_copy_only=False) if isinstance(whole, pa.Array) else whole.to_numpy())


def shown(names: Sequence[str]) -> str:
    """The first few names, and how many there are more."""
    more = "" if len(names) <= _PROBLEMS_SHOWN else f" and {len(names) - _PROBLEMS_SHOWN} more"
    return ", ".join(repr(str(name)) for name in names[:_PROBLEMS_SHOWN]) + more


def _flags(table: pa.Table, n: int) -> Bool:
    if "censored" not in table.column_names:
        return np.zeros(n, dtype=np.bool_)
    return filled(table["censored"], False).astype(np.bool_)
