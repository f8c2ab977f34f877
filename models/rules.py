"""Rules that rows of a table must obey: each is a mask of the rows that break it, a sentence and a remedy.

A rule never raises and never looks at one row at a time: it answers for a whole column or table at once, and a null
breaks no rule (whether nulls are allowed is the column's own business).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ColumnRule:
    """What every value of one column must satisfy."""

    must: str
    """How the sentence about a bad value goes on: `must be at least 0`."""
    remedy: str
    """What to do about it."""
    broken: Callable[[pa.ChunkedArray], pa.ChunkedArray]
    """True where a value breaks the rule."""


@dataclass(frozen=True)
class TableRule:
    """What rows must satisfy together; checked only when every named column is there."""

    columns: tuple[str, ...]
    must: str
    remedy: str
    broken: Callable[[pa.Table], Mask]


def at_least(low: float) -> ColumnRule:
    """Value ≥ low."""
    return ColumnRule(
        f"must be at least {low:g}", "correct the value at its source", lambda values: pc.less(values, low)
    )


def more_than(low: float) -> ColumnRule:
    """Value > low."""
    return ColumnRule(
        f"must be more than {low:g}", "correct the value at its source", lambda values: pc.less_equal(values, low)
    )


def within(low: float, high: float, remedy: str = "correct the value at its source") -> ColumnRule:
    """Low ≤ value ≤ high."""
    return ColumnRule(
        f"must be between {low:g} and {high:g}",
        remedy,
        lambda values: pc.or_(pc.less(values, low), pc.greater(values, high)),
    )


def not_blank() -> ColumnRule:
    """An id has at least one character."""
    return ColumnRule(
        "must not be blank", "give the id, or leave the row out", lambda values: pc.equal(pc.binary_length(values), 0)
    )


def known(ids: frozenset[str], table: str) -> ColumnRule:
    """Value ∈ ids."""
    value_set = pa.array(sorted(ids), pa.string())
    return ColumnRule(
        f"is not in the table {table!r}",
        f"add it to {table!r}, or map it to a known one",
        lambda values: pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, value_set=value_set))),
    )


def unique(*columns: str) -> TableRule:
    """No two rows share these columns; the first one stays."""
    return TableRule(
        columns,
        f"must be the only row with its {' and '.join(columns)}",
        "keep one row for each",
        lambda table: repeated(table, columns),
    )


def ordered(earlier: str, later: str) -> TableRule:
    """Earlier ≤ later in every row that has both."""
    return TableRule(
        (earlier, later),
        f"must not have {later} before {earlier}",
        "check clocks and column order",
        lambda table: to_mask(pc.less(table[later], table[earlier])),
    )


def disjoint(key: str, start: str, end: str, *, skew_us: int = 0) -> TableRule:
    """Intervals [start, end) of one key overlap by no more than clocks differ; else the one that starts first stays."""
    more = f" by more than {skew_us // 60_000_000} minutes" if skew_us else ""
    return TableRule(
        (key, start, end),
        f"must not overlap an earlier row of the same {key}{more}",
        "merge overlapping sessions, or give separate ids",
        lambda table: _overlapping(table, key, start, end, skew_us),
    )


def to_mask(values: pa.ChunkedArray) -> Mask:
    """A boolean Arrow column as numpy; null counts as False."""
    if values.null_count:
        values = pc.fill_null(values, False)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.bool_)


def codes_of(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Whole numbers that are equal where the values are; null is -1 in text, and the smallest integer elsewhere."""
    if pa.types.is_integer(values.type) or pa.types.is_timestamp(values.type):
        whole = values.cast(pa.int64(), safe=False)
        if whole.null_count:
            whole = pc.fill_null(whole, np.iinfo(np.int64).min)
        return np.asarray(whole.to_numpy(), dtype=np.int64)
    encoded = encode(values)
    indices = pc.fill_null(encoded.indices, -1) if encoded.null_count else encoded.indices
    return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def encode(values: pa.ChunkedArray) -> pa.DictionaryArray:
    """The column as one dictionary array: its distinct values, and each row's index among them."""
    encoded = values if pa.types.is_dictionary(values.type) else pc.dictionary_encode(values)
    if len(encoded) == 0:
        return pa.array([], encoded.type)
    return encoded.combine_chunks() if encoded.num_chunks > 1 else encoded.chunk(0)


def repeated(table: pa.Table, columns: tuple[str, ...]) -> Mask:
    """True for each row that equals an earlier row in all `columns`."""
    if len(table) < 2:
        return np.zeros(len(table), dtype=np.bool_)
    # Rows are first compared by a 64-bit mix of their codes; only rows whose mix meets again are compared in full.
    codes = [codes_of(table[column]) for column in columns]
    mixed = np.zeros(len(table), dtype=np.uint64)
    for code in codes:
        mixed = (mixed ^ code.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    suspects = _meeting_again(mixed)
    order = suspects[np.lexsort([suspects, *[code[suspects] for code in codes]])]
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for code in codes:
        same &= code[order[1:]] == code[order[:-1]]
    found = np.zeros(len(table), dtype=np.bool_)
    found[order[1:][same]] = True
    return found


def _meeting_again(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Rows whose key occurs at least twice."""
    ordered_keys = np.sort(keys)
    twice = np.unique(ordered_keys[1:][ordered_keys[1:] == ordered_keys[:-1]])
    if len(twice) == 0:
        return np.empty(0, dtype=np.int64)
    place = np.minimum(np.searchsorted(twice, keys), len(twice) - 1)
    return np.flatnonzero(twice[place] == keys)


def _overlapping(table: pa.Table, key: str, start: str, end: str, skew_us: int) -> Mask:
    nodes = codes_of(table[key])
    starts = _instants(table[start])
    ends = _instants(table[end]) - skew_us
    order = np.lexsort([ends, starts, nodes])
    meets = (nodes[order[1:]] == nodes[order[:-1]]) & (starts[order[1:]] < ends[order[:-1]])
    found = np.zeros(len(table), dtype=np.bool_)
    suspects = np.isin(nodes[order], np.unique(nodes[order[1:][meets]]))
    node, free_from = -2, 0
    for row in order[suspects].tolist():
        if nodes[row] == node and starts[row] < free_from:
            found[row] = True
        else:
            node, free_from = int(nodes[row]), int(ends[row])
    return found


def _instants(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(values.cast(pa.int64()), 0).to_numpy(), dtype=np.int64)
