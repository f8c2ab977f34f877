"""What a rebalance changes, with ids in place of codes: copies to push and to drop, shares that change, and why.

Every row carries its reason, the event that caused it; the groups add them up in a sentence each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from placement.copies import Copies
from placement.flows import Flows
from placement.plan import Plan
from placement.problem import Float64, Ids, Int32, Int64, PlacementProblem
from placement.rebalance.aftermath import Aftermath

SAME_SHARE = 1e-9
EXPIRED = "nobody will want it any more"
MAKES_ROOM = "makes room for something worth more"
SHARES_UPLINK = "uplink is shared anew"

_COPY_FIELDS: list[pa.Field[Any]] = [
    pa.field("content", pa.string(), nullable=False),
    pa.field("segment", pa.int32(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("bytes", pa.int64(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
]
_FLOW_FIELDS: list[pa.Field[Any]] = [
    pa.field("content", pa.string(), nullable=False),
    pa.field("segment", pa.int32(), nullable=False),
    pa.field("location", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("old_share", pa.float64(), nullable=False),
    pa.field("new_share", pa.float64(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
]
COPIES_SCHEMA, FLOWS_SCHEMA = pa.schema(_COPY_FIELDS), pa.schema(_FLOW_FIELDS)


@dataclass(frozen=True)
class ChangeGroup:
    """All changes with one reason."""

    reason: str
    pushed: int
    dropped: int
    rerouted: int
    bytes_moved: int

    @property
    def sentence(self) -> str:
        parts = [
            f"{_counted(self.pushed, 'copy', 'copies')} pushed ({self.bytes_moved / 1e6:,.1f} MB)" * (self.pushed > 0),
            f"{_counted(self.dropped, 'copy', 'copies')} dropped" * (self.dropped > 0),
            f"{_counted(self.rerouted, 'share', 'shares')} changed" * (self.rerouted > 0),
        ]
        return f"{self.reason}: {', '.join(filter(None, parts))}."


def _counted(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


@dataclass(frozen=True)
class PlanDelta:
    """From the plan in force to the new one.

    Attributes:
        pushed: copies to push; `COPIES_SCHEMA`.
        dropped: copies that are gone or to be dropped; `COPIES_SCHEMA`.
        rerouted: shares that change; `FLOWS_SCHEMA`.
        groups: the same by reason, sorted.
    """

    pushed: pa.Table
    dropped: pa.Table
    rerouted: pa.Table
    groups: tuple[ChangeGroup, ...]

    @property
    def bytes_moved(self) -> int:
        return int(np.asarray(self.pushed["bytes"]).sum())

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(group.sentence for group in self.groups)


def segment_causes(after: Aftermath, planned: Copies, flows: Flows) -> Ids:
    """The cause of the first changed source that held or served each segment, in words; "" for none, (S,)."""
    problem, changed = after.problem, after.changed
    first = np.full(len(problem.segments), len(changed), dtype=np.int64)
    served = problem.demand.segment[flows.row]
    for segment, source in (
        (planned.segment, planned.source),
        (after.copies.segment, after.copies.source),
        (served, flows.source),
    ):
        mine = changed[source]
        np.minimum.at(first, segment[mine], source[mine])
    return np.append(after.cause, "")[first]


def plan_delta(before: PlacementProblem, old: Plan, after: Aftermath, new: Plan, causes: Ids) -> PlanDelta:
    """Compares the plan in force with the new one; `causes` are those of the segments."""
    codes = np.flatnonzero(after.kept_segment).astype(np.int32)
    pushed = _pushed(before, after, new, codes, causes)
    dropped = _dropped(before, old, after, new, codes)
    rerouted = _rerouted(before, old, new, codes, causes)
    return PlanDelta(pushed, dropped, rerouted, _groups(pushed, dropped, rerouted))


def _pushed(before: PlacementProblem, after: Aftermath, new: Plan, codes: Int32, causes: Ids) -> pa.Table:
    segment, source = new.segment[new.moved], new.source[new.moved]
    reason = np.where(causes[segment] != "", causes[segment], after.cause[source])
    return _copies(before, codes[segment], source, reason)


def _dropped(before: PlacementProblem, old: Plan, after: Aftermath, new: Plan, codes: Int32) -> pa.Table:
    n = max(1, len(before.sources))
    held = np.union1d(
        before.copy_keys(old.segment, old.source),
        before.copy_keys(codes[after.problem.current_segment], after.problem.current_source),
    )
    gone = np.setdiff1d(held, before.copy_keys(codes[new.segment], new.source))
    segment, source = (gone // n).astype(np.int32), (gone % n).astype(np.int32)
    lives = after.problem.sources.eligible[source]
    reason = np.where(lives, MAKES_ROOM, after.cause[source])
    reason = np.where(after.kept_segment[segment], reason, EXPIRED)
    return _copies(before, segment, source, reason)


def _rerouted(before: PlacementProblem, old: Plan, new: Plan, codes: Int32, causes: Ids) -> pa.Table:
    old_keys = _flow_keys(before, old.flow_segment, old.flow_location, old.flow_source)
    new_keys = _flow_keys(before, codes[new.flow_segment], new.flow_location, new.flow_source)
    keys = np.union1d(old_keys, new_keys)
    shares = _at(keys, old_keys, old.flow_share), _at(keys, new_keys, new.flow_share)
    differs = np.abs(shares[0] - shares[1]) > SAME_SHARE
    keys, n_sources = keys[differs], max(1, len(before.sources))
    pair, source = keys // n_sources, keys % n_sources
    segment, location = pair // max(1, len(before.locations)), pair % max(1, len(before.locations))
    words = np.full(len(before.segments), EXPIRED, dtype=object)
    words[codes] = np.where(causes != "", causes, SHARES_UPLINK)
    columns = [
        before.segments.content[segment],
        before.segments.segment[segment],
        before.locations[location],
        before.sources.source[source],
        shares[0][differs],
        shares[1][differs],
        words[segment],
    ]
    return _table(columns, FLOWS_SCHEMA)


def _copies(before: PlacementProblem, segment: Int32, source: Int32, reason: Ids) -> pa.Table:
    segments = before.segments
    columns = [
        segments.content[segment],
        segments.segment[segment],
        before.sources.source[source],
        segments.bytes[segment],
        reason,
    ]
    return _table(columns, COPIES_SCHEMA)


def _flow_keys(problem: PlacementProblem, segment: Int32, location: Int32, source: Int32) -> Int64:
    pair = segment.astype(np.int64) * max(1, len(problem.locations)) + location
    return np.asarray(pair * max(1, len(problem.sources)) + source)


def _at(keys: Int64, known: Int64, values: Float64) -> Float64:
    """Values spread over all keys, 0 where unknown; both are sorted and `known` is among the keys."""
    spread = np.zeros(len(keys))
    spread[np.searchsorted(keys, known)] = values
    return spread


def _groups(pushed: pa.Table, dropped: pa.Table, rerouted: pa.Table) -> tuple[ChangeGroup, ...]:
    counts: dict[str, list[int]] = {}
    for kind, table in enumerate((pushed, dropped, rerouted)):
        for reason in table["reason"].to_pylist():
            counts.setdefault(reason, [0, 0, 0, 0])[kind] += 1
    for reason, size in zip(pushed["reason"].to_pylist(), pushed["bytes"].to_pylist(), strict=True):
        counts[reason][3] += size
    return tuple(ChangeGroup(reason, *counts[reason]) for reason in sorted(counts))


def _table(columns: list[np.ndarray], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
