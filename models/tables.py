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
from models.findings import Findings, Validated
from models.rules import (
    ColumnRule,
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
SKEW_US = 5 * 60 * 1_000_000
"""By how much the clocks of a fleet may differ: sessions of a node that overlap by no more are mended, not refused."""


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
    nodes: frozenset[str] | set[str] | None = None


def _id(name: str, *, nullable: bool = False) -> Column:
    return Column(name, pa.string(), nullable, not_blank())


def _instant(name: str, *, nullable: bool = False) -> Column:
    return Column(name, INSTANT, nullable)


_APART = disjoint("node", "start", "end", skew_us=SKEW_US)
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
            (ordered("start", "end"), ordered("end", "end_upper"), unique("node", "start"), _APART),
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
                # When the device plans to leave, announced anew with every heartbeat; empty: it plans no leave.
                _instant("leaves_at", nullable=True),
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
    findings = Findings(len(table))
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


def _cast_columns(schema: TableSchema, table: pa.Table, findings: Findings) -> dict[str, pa.ChunkedArray]:
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


def _check_columns(schema: TableSchema, cast: pa.Table, context: ValidationContext, findings: Findings) -> None:
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
    if column.name == "node" and context.nodes is not None:
        rules.append(known(frozenset(context.nodes), "nodes"))
    return rules
