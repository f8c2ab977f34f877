"""The canonical tables: their Arrow schemas, and validation that reports every mistake at once.

Mistakes in a table's shape (a missing column, a wrong type, instants without a zone, no rows) refuse the whole table:
:func:`validate` raises one :class:`~models.errors.TableError` that lists them all. Mistakes in single rows set these
rows aside, each with its reason, and leave the rest usable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.casting import cast_column
from models.errors import TableError
from models.rules import (
    ColumnRule,
    Mask,
    TableRule,
    at_least,
    disjoint,
    known,
    more_than,
    not_blank,
    ordered,
    to_mask,
    unique,
    within,
)

INSTANT = pa.timestamp("us", tz="UTC")
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Column:
    """One column; a nullable one may also be missing and is then filled with nulls."""

    name: str
    type: pa.DataType
    nullable: bool = False
    rule: ColumnRule | None = None


@dataclass(frozen=True)
class TableSchema:
    """Columns of one canonical table and the rules between them; further columns pass through."""

    name: str
    columns: tuple[Column, ...]
    rules: tuple[TableRule, ...] = ()

    @property
    def arrow(self) -> pa.Schema:
        """The canonical columns as an Arrow schema."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])


@dataclass(frozen=True)
class ValidationContext:
    """Ids that other tables define; None means not checked."""

    locations: frozenset[str] | set[str] | None = None
    contents: frozenset[str] | set[str] | None = None


@dataclass(frozen=True)
class Validated:
    """The good rows of a table, and those set aside.

    Attributes:
        table: good rows in input order, cast to the schema; further columns follow the canonical ones.
        quarantine: `row` (0-based, in the input), `reason`, and the raw columns as text.
        problems: one sentence for each kind of mistake: column, first bad values with their rows, remedy.
    """

    name: str
    table: pa.Table
    quarantine: pa.Table
    problems: tuple[str, ...]

    @property
    def bad_share(self) -> float:
        """Rows set aside over all rows."""
        return len(self.quarantine) / max(len(self.quarantine) + len(self.table), 1)

    def require(self, *, max_bad_share: float) -> pa.Table:
        """The good rows, if at most this share was bad.

        Raises:
            TableError: a larger share is bad, or no good row is left; lists every problem.
        """
        if self.bad_share <= max_bad_share and len(self.table):
            return self.table
        total = len(self.quarantine) + len(self.table)
        share = f"{len(self.quarantine)} of {total} rows ({self.bad_share:.1%}) are bad; allowed: {max_bad_share:.1%}."
        raise TableError(self.name, [share, *self.problems])


def _id(name: str, *, nullable: bool = False) -> Column:
    return Column(name, pa.string(), nullable, not_blank())


def _instant(name: str, *, nullable: bool = False) -> Column:
    return Column(name, INSTANT, nullable)


_LAT = Column("lat", pa.float64(), rule=within(-90, 90, "check that lat and lon are degrees and not swapped"))
_LON = Column("lon", pa.float64(), rule=within(-180, 180, "check that lat and lon are degrees"))

SCHEMAS: dict[str, TableSchema] = {
    schema.name: schema
    for schema in (
        TableSchema(
            "requests",
            (
                _instant("ts"),
                Column("user", pa.string(), nullable=True),
                Column("session", pa.string(), nullable=True),
                _id("content"),
                Column("segment", pa.int32(), nullable=True, rule=at_least(0)),
                _id("location"),
                Column("bytes", pa.int64(), nullable=True, rule=at_least(0)),
                _instant("available_at", nullable=True),
            ),
            # A row known before it happened would leak the future into every backtest.
            (ordered("ts", "available_at"),),
        ),
        TableSchema(
            "contents",
            (
                _id("content"),
                Column("bytes", pa.int64(), rule=more_than(0)),
                Column("segment_bytes", pa.int64(), rule=more_than(0)),
                _id("kind", nullable=True),
                _instant("published_at", nullable=True),
            ),
            (unique("content"),),
        ),
        TableSchema("locations", (_id("location"), _LAT, _LON, _id("parent", nullable=True)), (unique("location"),)),
        TableSchema(
            "pops",
            (
                _id("source"),
                _id("location"),
                _LAT,
                _LON,
                Column("storage_bytes", pa.int64(), rule=at_least(0)),
                Column("egress_cost_per_gb", pa.float64(), rule=at_least(0)),
            ),
            (unique("source"),),
        ),
        TableSchema(
            "nodes",
            (
                _id("source"),
                _id("location"),
                _LAT,
                _LON,
                _id("network"),
                Column("storage_bytes", pa.int64(), rule=at_least(0)),
                Column("uplink_bps", pa.float64(), rule=at_least(0)),
                Column("downlink_bps", pa.float64(), rule=at_least(0)),
                _id("device_class"),
                _instant("consent_until", nullable=True),
                _instant("available_at", nullable=True),
            ),
            (unique("source"),),
        ),
        TableSchema(
            "availability",
            (
                _id("node"),
                _instant("start"),
                _instant("end"),
                _instant("end_upper", nullable=True),
                Column("censored", pa.bool_()),
            ),
            (ordered("start", "end"), ordered("end", "end_upper"), disjoint("node", "start", "end")),
        ),
        TableSchema(
            "telemetry",
            (
                _instant("ts"),
                _id("node"),
                Column("rtt_ms", pa.float64(), nullable=True, rule=at_least(0)),
                Column("loss", pa.float64(), nullable=True, rule=within(0, 1)),
                Column("uplink_bps", pa.float64(), nullable=True, rule=at_least(0)),
                Column("storage_free_bytes", pa.int64(), nullable=True, rule=at_least(0)),
                Column("battery", pa.float64(), nullable=True, rule=within(0, 1)),
                Column("charging", pa.bool_(), nullable=True),
                Column("metered", pa.bool_(), nullable=True),
                Column("cpu_load", pa.float64(), nullable=True, rule=at_least(0)),
                Column("memory_load", pa.float64(), nullable=True, rule=within(0, 1)),
            ),
        ),
        TableSchema(
            "rtt",
            (
                _id("location"),
                _id("source"),
                Column("rtt_ms", pa.float64(), rule=at_least(0)),
                Column("modelled", pa.bool_(), nullable=True),
            ),
            (unique("location", "source"),),
        ),
    )
}


def schema_of(name: str) -> TableSchema:
    """The schema of a canonical table.

    Raises:
        TableError: there is no such table; names those there are.
    """
    if name not in SCHEMAS:
        raise TableError(name, [f"No such table. Canonical tables: {', '.join(SCHEMAS)}."])
    return SCHEMAS[name]


def validate(name: str, table: pa.Table, *, context: ValidationContext | None = None) -> Validated:
    """Casts a table to its schema and sets bad rows aside, each with its reasons.

    Args:
        name: which canonical table it is.
        table: the raw rows; types that hold the same values without loss are accepted.
        context: ids that other tables define.

    Raises:
        TableError: the table's shape is wrong; lists every such problem with its remedy.
    """
    schema = schema_of(name)
    findings = _Findings(len(table))
    columns = _cast_columns(schema, table, findings)
    cast = pa.table(columns)
    _check_columns(schema, cast, context or ValidationContext(), findings)
    for rule in schema.rules:
        # Bad rows must not accuse good ones: a broken instant may not make its neighbours overlap.
        sound = np.flatnonzero(~findings.any())
        broken = np.zeros(len(cast), dtype=np.bool_)
        subset = cast.select(rule.columns)
        broken[sound] = rule.broken(subset if len(sound) == len(cast) else subset.take(pa.array(sound)))
        findings.add(rule.columns[0], broken, rule.must, rule.remedy, cast[rule.columns[0]])
    return findings.split(name, cast, table)


class _Findings:
    """Bad rows by kind of mistake."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._kinds: list[tuple[str, Mask, str, str, pa.ChunkedArray]] = []

    def add(self, column: str, bad: Mask, must: str, remedy: str, values: pa.ChunkedArray) -> None:
        if bad.any():
            self._kinds.append((column, bad, must, remedy, values))

    def any(self) -> Mask:
        bad = np.zeros(self._rows, dtype=np.bool_)
        for _, mask, *_ in self._kinds:
            bad |= mask
        return bad

    def split(self, name: str, cast: pa.Table, raw: pa.Table) -> Validated:
        bad = self.any()
        good = cast.filter(pa.array(~bad)) if bad.any() else cast
        rows = np.flatnonzero(bad)
        columns = {"row": pa.array(rows, pa.int64()), "reason": pa.array(self._reasons(rows), pa.string())}
        taken = raw.take(pa.array(rows))
        columns |= {c: _as_text(taken[c]) for c in raw.column_names if c not in columns}
        return Validated(name, good, pa.table(columns), tuple(self._sentences()))

    def _reasons(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
        reasons: dict[int, list[str]] = {row: [] for row in rows.tolist()}
        for column, mask, must, *_ in self._kinds:
            for row in np.flatnonzero(mask).tolist():
                reasons[row].append(f"{column} {must}")
        return ["; ".join(parts) for parts in reasons.values()]

    def _sentences(self) -> list[str]:
        sentences = []
        for column, mask, must, remedy, values in self._kinds:
            first = np.flatnonzero(mask)[:_SHOWN_ROWS]
            shown = ", ".join(f"row {row}: {v}" for row, v in zip(first, _shown(values, first), strict=True))
            count = int(mask.sum())
            more = f" and {count - len(first)} more" if count > len(first) else ""
            sentences.append(f"{column!r} {must}: {count} rows do not ({shown}{more}). Remedy: {remedy}.")
        return sentences


def _cast_columns(schema: TableSchema, table: pa.Table, findings: _Findings) -> dict[str, pa.ChunkedArray]:
    problems = _shape_problems(schema, table)
    columns: dict[str, pa.ChunkedArray] = {}
    for column in schema.columns:
        if column.name not in table.column_names:
            if column.nullable:
                columns[column.name] = pa.chunked_array([pa.nulls(len(table), column.type)])
            continue
        raw = table[column.name]
        cast = cast_column(raw, column.type)
        if isinstance(cast, str):
            problems.append(f"Column {column.name!r} {cast}")
            continue
        columns[column.name] = cast.values
        must = f"must fit {column.type}"
        findings.add(column.name, cast.lost, must, "correct the value at its source", raw)
    if problems:
        raise TableError(schema.name, problems)
    further = [c for c in table.column_names if c not in columns]
    return columns | {c: table[c] for c in further}


def _shape_problems(schema: TableSchema, table: pa.Table) -> list[str]:
    problems = []
    missing = [c.name for c in schema.columns if not c.nullable and c.name not in table.column_names]
    if missing:
        problems.append(
            f"Missing required columns: {', '.join(missing)}. Available columns: "
            f"{', '.join(table.column_names) or 'none'}. Rename or map a column, or add it."
        )
    twice = sorted({c for c in table.column_names if table.column_names.count(c) > 1})
    if twice:
        problems.append(f"Columns that occur more than once: {', '.join(twice)}. Keep one of each.")
    if len(table) == 0:
        problems.append("The table has no rows. Give at least one, or leave the table out.")
    return problems


def _check_columns(schema: TableSchema, cast: pa.Table, context: ValidationContext, findings: _Findings) -> None:
    for column in schema.columns:
        values = cast[column.name]
        if not column.nullable and values.null_count:
            empty = to_mask(pc.is_null(values)) & ~findings.any()
            findings.add(column.name, empty, "must not be empty", "fill it in, or leave the row out", values)
        for rule in _rules_of(schema, column, context):
            findings.add(column.name, to_mask(rule.broken(values)), rule.must, rule.remedy, values)


def _rules_of(schema: TableSchema, column: Column, context: ValidationContext) -> list[ColumnRule]:
    rules = [column.rule] if column.rule else []
    if column.name == "location" and schema.name != "locations" and context.locations is not None:
        rules.append(known(frozenset(context.locations), "locations"))
    if column.name == "content" and schema.name != "contents" and context.contents is not None:
        rules.append(known(frozenset(context.contents), "contents"))
    return rules


def _shown(values: pa.ChunkedArray, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    taken = values.take(pa.array(rows, pa.int64())).to_pylist()
    return [str(v) if hasattr(v, "isoformat") else repr(v) for v in taken]


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())])
