"""The report's tables as text: rows of cells that a template writes out without knowing what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from models.changes import Change, change_texts, interval_row
from models.charts import split_bar
from models.quantities import (
    NO_BREAK_SPACE,
    Estimate,
    byte_unit,
    format_bounds,
    format_bytes,
    format_milliseconds,
    format_money,
    format_number,
    format_score,
    format_share,
    in_unit,
    round_money,
    round_to_total,
    significant_digits,
)
from models.svg import stack_colour
from pipelines.movement import Movement
from pipelines.report_data import Causes, MethodRow, ModelTable, Place, ReportData

TIERS = ("POPs (tier 1)", "tier 2", "tier 3")
TIER_COLOURS = ("other", "ours", "stack-3")
SHOWN_DAYS = 7


@dataclass(frozen=True)
class Cell:
    """Text with a quieter addition; a drawing (SVG) or a swatch of a colour stands before it."""

    text: str
    small: str = ""
    drawing: str = ""
    swatch: str = ""
    strong: bool = False
    state: str = ""


@dataclass(frozen=True)
class Row:
    """Cells of one line; the first names it."""

    cells: tuple[Cell, ...]
    ours: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under a heading, which may be empty."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Column:
    """A heading; columns of figures are set to the right, drawings have their heading in the middle."""

    title: str
    figures: bool = True
    drawn: bool = False


@dataclass(frozen=True)
class Table:
    """What the template draws; `total` is a last line set apart."""

    caption: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    total: Row | None = None
    note: str = ""


def outcome_table(data: ReportData) -> Table:
    """The comparison: what each method achieved and what it cost."""
    reference = data.method("reference")
    titles = ["Method", "Kept off the CDN, net", "Of the clairvoyant", "Cost"]
    titles += ["Saved"] if reference else []
    titles += ["Latency p50", "p95", "Failed", "Resumed"]
    rows = tuple(_outcome_row(m, reference, data.currency) for m in data.methods)
    return _table("What each method achieved", titles, rows)


def saved(method: MethodRow, reference: MethodRow) -> float:
    """What the reference would have cost more, between the two sums as they are written, so that a reader finds it."""
    return round_money(reference.cost) - round_money(method.cost)


def table_unit(values: Sequence[float]) -> str:
    """One byte unit for a table: its largest value has two to four digits, so that the small ones keep some."""
    return byte_unit([max(values, default=0.0) / 10])


def source_table(methods: Sequence[MethodRow]) -> Table:
    """Where each method's bytes came from and what it pushed for that, in one unit for the whole table."""
    unit = table_unit([sum(m.served_bytes) for m in methods])
    titles = ["Method", "", *(f"{tier}, {unit}" for tier in TIERS), f"Pushed, {unit}", f"Never used, {unit}"]
    rows = tuple(_source_row(m, unit) for m in methods)
    note = "Never used: bytes pushed to a device and not served from it before they were dropped."
    return _table("Where the bytes came from", titles, rows, note=note)


def movement_table(methods: Sequence[MethodRow]) -> Table | None:
    """What each method's plans moved, by day, and how much of it came back soon after it was dropped; None if unknown."""
    moved = [(method, method.movement) for method in methods if method.movement is not None]
    if not moved:
        return None
    days = sorted({day for _, movement in moved for day, _ in movement.bytes_by_day})
    shown = days[-SHOWN_DAYS:]
    unit = table_unit([amount for _, movement in moved for _, amount in movement.bytes_by_day])
    titles = ["Method", f"Moved a day, {unit}", "Flapping", *shown]
    rows = tuple(_movement_row(method, movement, shown, unit) for method, movement in moved)
    note = "Moved: pushed because a plan says so, on the day (UTC) of the plan; for caches, what they fetched to keep. "
    note += "What devices keep of what passes through, beside a plan, is pushed and not moved. "
    note += "Flapping: the share of it that had been dropped within the 24 hours before; not recorded for caches."
    if len(days) > len(shown):
        note += f" The mean is over all {len(days)} days; the last {len(shown)} are listed."
    return _table("What was moved, by day", titles, rows, note=note)


def change_table(
    changes: Sequence[Change], currency: str, *, sides: tuple[str, str] = ("champion", "candidate")
) -> Table:
    """The second side against the first with the interval drawn in each row."""
    titles = ("Outcome", *sides, "change", "worse ◂ 0 ▸ better", "verdict")
    columns = tuple(Column(t, figures=0 < i < 4, drawn=i == 4) for i, t in enumerate(titles))
    groups = tuple(
        Group(heading, tuple(_change_row(c, currency) for c in rows))
        for heading, rows in groupby(changes, key=lambda c: c.group)
    )
    note = f"Drawn in per cent of the value under {sides[0]!r}, ±10 %"
    note += "; the shaded strip is what the gate tolerates." if any(c.tolerated is not None for c in changes) else "."
    return Table(f"{sides[1][:1].upper()}{sides[1][1:]} against {sides[0]}", columns, groups, note=note)


def cause_table(causes: Causes) -> Table:
    """Bytes by cause, largest first as in the stack, rounded so that the column adds up to its total."""
    stack = causes.stack
    ordered = [causes.causes[i] for i in stack.order]
    totals = [c.total_bytes for c in ordered]
    unit = table_unit([sum(totals)])
    in_units = [in_unit(t, unit) for t in totals]
    digits = min(2, significant_digits(sum(in_units)))
    figures = round_to_total(in_units, digits)
    shares = cause_shares(causes)
    champion = [c.champion_bytes for c in ordered]
    with_champion = any(b is not None for b in champion)
    rows = []
    for rank, cause in enumerate(ordered):
        cells = [
            Cell(cause.name, swatch=stack_colour(rank)),
            Cell(format_number(figures[rank], digits)),
            Cell(format_share(shares[rank], 0)),
        ]
        if with_champion:
            before = champion[rank]
            cells.append(Cell(format_number(None if before is None else in_unit(before, unit), digits)))
        rows.append(Row((*cells, Cell(cause.what_would_help))))
    columns = [Column("Cause, largest first", figures=False), Column(unit), Column("share")]
    columns += [Column("champion")] if with_champion else []
    total = [Cell("Total"), Cell(format_number(sum(figures), digits)), Cell(format_share(sum(shares), 0))]
    if with_champion:
        known = [in_unit(b, unit) for b in champion if b is not None]
        total.append(Cell(format_number(sum(known) if len(known) == len(rows) else None, digits)))
    return Table(
        "Bytes not served from their best place",
        (*columns, Column("what would help", figures=False)),
        (Group("", tuple(rows)),),
        total=Row((*total, Cell(""))),
    )


def cause_shares(causes: Causes) -> list[float]:
    """Shares of the total, largest first, in whole per cent that add up to one hundred."""
    totals = sorted((c.total_bytes for c in causes.causes), reverse=True)
    return [per_cent / 100 for per_cent in round_to_total([100 * t / (sum(totals) or 1.0) for t in totals])]


def place_table(places: Sequence[Place], currency: str = "€") -> Table:
    """The places of the map, largest first, with what mirroring saved there and what the stop-loss says."""
    unit = byte_unit([p.bytes for p in places])
    judged = any(p.verdict for p in places)
    columns = [Column("Place", figures=False), Column("bytes"), Column("from nodes")]
    supposed = any(p.saved_with_stop_loss is not None for p in places)
    if judged:
        columns += [Column("saved"), *([Column("if stopped")] if supposed else []), Column("stop-loss", figures=False)]
    rows = tuple(_place_row(p, unit, currency, judged=judged, supposed=supposed) for p in places)
    first = "that need a look, then " if any(p.flagged for p in places) else ""
    note = (
        "If stopped: saved, had nothing been pushed or served where and while the stop-loss says off."
        if supposed
        else ""
    )
    return Table(f"Places {first}by bytes", tuple(columns), (Group("", rows),), note=note)


def captured_table(methods: Sequence[MethodRow]) -> Table | None:
    """Captured share over all hours beside that of the busiest; None where it was not counted."""
    if not any(m.captured_peak for m in methods):
        return None
    rows = tuple(
        Row(
            (
                Cell(m.name),
                *(_share_cell(e) if e else Cell(format_share(None)) for e in (m.captured_share, m.captured_peak)),
            ),
            ours=m.role == "ours",
        )
        for m in methods
        if m.role in ("ours", "baseline")
    )
    note = "Busiest: the tenth of the hours in which most bytes were requested."
    return _table("Captured share, mean and peak", ["Method", "all hours", "busiest hours"], rows, note=note)


def model_table(table: ModelTable) -> Table:
    """Metrics of one model next to its baselines, the best value of each column in bold."""
    best = [table.best(i) for i in range(len(table.metrics))]
    rows = tuple(
        Row(
            (
                Cell(row.name),
                *(
                    Cell(format_score(v, m.digits), strong=v is not None and v == best[i])
                    for i, (v, m) in enumerate(zip(row.values, table.metrics, strict=True))
                ),
            ),
            ours=row.ours,
        )
        for row in table.rows
    )
    titles = ["Model", *(f"{m.name}{NO_BREAK_SPACE}{'↑' if m.higher_is_better else '↓'}" for m in table.metrics)]
    return _table(table.title, titles, rows, note=table.note)


def _table(caption: str, titles: Sequence[str], rows: tuple[Row, ...], note: str = "") -> Table:
    columns = tuple(Column(t, figures=i > 0) for i, t in enumerate(titles))
    return Table(caption, columns, (Group("", rows),), note=note)


def _outcome_row(method: MethodRow, reference: MethodRow | None, currency: str) -> Row:
    captured = _share_cell(method.captured_share) if method.captured_share else Cell(format_share(None))
    cells = [
        Cell(method.name),
        _share_cell(method.net_avoided_share, strong=method.role == "ours"),
        captured,
        Cell(format_money(method.cost, currency)),
    ]
    if reference:
        money = None if method is reference else saved(method, reference)
        cells.append(Cell(format_money(money, currency)))
    cells += [
        Cell(format_milliseconds(method.latency_p50_ms)),
        Cell(format_milliseconds(method.latency_p95_ms)),
        Cell(format_share(method.failed_share)),
        Cell(format_share(method.resumed_share)),
    ]
    return Row(tuple(cells), ours=method.role == "ours")


def _place_row(place: Place, unit: str, currency: str, *, judged: bool, supposed: bool) -> Row:
    cells = [
        Cell(place.name, place.note),
        Cell(format_bytes(place.bytes, unit)),
        Cell(format_share(place.node_share, 0)),
    ]
    if judged:
        cells.append(Cell(format_money(place.saved, currency)))
        cells += [Cell(format_money(place.saved_with_stop_loss, currency))] if supposed else []
        cells.append(Cell(place.verdict, state="refused" if place.verdict.startswith("off") else ""))
    return Row(tuple(cells))


def _movement_row(method: MethodRow, movement: Movement, days: Sequence[str], unit: str) -> Row:
    by_day = dict(movement.bytes_by_day)
    amounts = (movement.bytes_per_day, *(float(by_day.get(day, 0)) for day in days))
    mean, *daily = (Cell(format_bytes(amount, unit).rpartition(NO_BREAK_SPACE)[0]) for amount in amounts)
    flapping = Cell(format_share(movement.flapping_share))
    return Row((Cell(method.name), mean, flapping, *daily), method.role == "ours")


def _share_cell(estimate: Estimate, *, strong: bool = False) -> Cell:
    return Cell(format_share(estimate.value), format_bounds(estimate, "share"), strong=strong)


def _source_row(method: MethodRow, unit: str) -> Row:
    label = ", ".join(f"{t} {format_bytes(b, unit)}" for t, b in zip(TIERS, method.served_bytes, strict=True))
    bar = split_bar(method.served_bytes, TIER_COLOURS, label=f"{method.name}: {label}", width=120)
    write: Callable[[float], Cell] = lambda b: Cell(format_bytes(b, unit).rpartition(NO_BREAK_SPACE)[0])  # noqa: E731
    figures = (*method.served_bytes, method.pushed_bytes, method.wasted_bytes)
    return Row((Cell(method.name), Cell("", drawing=bar), *map(write, figures)), method.role == "ours")


def _change_row(change: Change, currency: str) -> Row:
    texts = change_texts(change, currency=currency)
    return Row(
        (
            Cell(change.outcome),
            Cell(texts.champion),
            Cell(texts.candidate, strong=True),
            Cell(texts.difference, texts.bounds),
            Cell("", drawing=interval_row(change)),
            Cell(f"{change.sign} {change.state_text}", state=change.state),
        )
    )
