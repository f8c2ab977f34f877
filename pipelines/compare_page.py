"""The page that compares two replays: sections of two columns, A and B, in the order of the questions."""

from __future__ import annotations

from models.line_charts import TotalCurve, running_totals
from models.quantities import (
    NO_BREAK_SPACE,
    format_bounds,
    format_bytes,
    format_change,
    format_milliseconds,
    format_money,
    format_share,
    round_money,
)
from pipelines.compare import SHARE, Comparison, saved_more
from pipelines.console import table as text_table
from pipelines.report import render_page
from pipelines.report_data import MethodRow, Place, Repeat, ReportData
from pipelines.report_layout import OTHER_SECTIONS, Figure, Section
from pipelines.report_money import NARROW, WIDE, money_tick
from pipelines.report_tables import Cell, Column, Group, Row, Table, change_table, saved, table_unit

_MOST_PLACES = 5
_HALF = 415.0


def render_comparison(found: Comparison) -> str:
    """The whole page as text."""
    a, b = found.runs
    data = ReportData(
        title=f"Comparison of two replays: {a.title} (A) and {b.title} (B)",
        subtitle=f"A: {found.ids[0]}. {a.subtitle} B: {found.ids[1]}. {b.subtitle}",
        repeat=Repeat(
            command=f"premirror report --compare {found.ids[0]} {found.ids[1]}",
            data_hash=_both(a.repeat.data_hash, b.repeat.data_hash),
            code_commit=_both(a.repeat.code_commit, b.repeat.code_commit),
            config_hash=_both(a.repeat.config_hash, b.repeat.config_hash),
        ),
        headline=headline(found),
        limits=found.unpaired,
        minimum_users=max(a.minimum_users, b.minimum_users),
        currency=b.currency,
    )
    built = (_pairs(found), _sides(found), _totals(found), _causes(found), _places(found), _settings(found))
    return render_page(data, [section for section in built if section is not None])


def headline(found: Comparison) -> str:
    """What each keeps off the CDN, and how sure the difference is."""
    one, two = found.ours
    if one is None or two is None:
        return "Two replays side by side"
    a, b = format_share(one.net_avoided_share.value), format_share(two.net_avoided_share.value)
    change = next((c for c in found.changes if c.group == SHARE and c.outcome == two.name), None)
    if change is None:
        why = "; their hours cannot be paired" if found.unpaired else ""
        return f"A keeps {a} of the traffic off the CDN and B {b}{why}"
    size = max(abs(change.champion), abs(change.candidate))
    difference = format_change(change.difference.value, "share", size=size)
    bounds = format_bounds(change.difference, "share", size=size, signed=True)
    return f"B keeps {b} of the traffic off the CDN, A {a}: {difference} {bounds}".rstrip() + f", {change.state_text}"


def comparison_text(found: Comparison) -> str:
    """The comparison as people read it on a terminal."""
    lines = [headline(found), *found.unpaired]
    rows = [
        {"method": _name(a, b), **_side_texts(found, a, "A"), **_side_texts(found, b, "B")} for a, b in found.methods
    ]
    if rows:
        lines.append(text_table(rows, list(rows[0])))
    return "\n".join(lines)


def _side_texts(found: Comparison, method: MethodRow | None, side: str) -> dict[str, str]:
    currency = found.runs[side == "B"].currency
    return {
        f"{side} net": "-" if method is None else format_share(method.net_avoided_share.value),
        f"{side} cost": "-" if method is None else format_money(method.cost, currency),
        f"{side} p95": "-" if method is None else format_milliseconds(method.latency_p95_ms),
    }


def _pairs(found: Comparison) -> Section | None:
    title = OTHER_SECTIONS["pairs"].question
    if found.unpaired:
        return Section("pairs", title, "No interval: " + " ".join(found.unpaired))
    lead = "Both played the same requests in the same hours; brackets: 95 % interval of the difference, paired over "
    lead += "blocks of six hours."
    return Section(
        "pairs", title, lead, tables=(change_table(found.changes, found.runs[1].currency, sides=("run A", "run B")),)
    )


def _sides(found: Comparison) -> Section:
    unit = table_unit([m.pushed_bytes * 10 for run in found.runs for m in run.methods])
    titles = ["Method", "net, A", "B", "of the clairvoyant, A", "B", "p95, A", "B", f"pushed, A, {unit}", f"B, {unit}"]
    columns = tuple(Column(title, figures=i > 0) for i, title in enumerate(titles))
    rows = []
    for a, b in found.methods:
        pairs = zip(_outcome_cells(a, unit), _outcome_cells(b, unit), strict=True)
        ours = any(m is not None and m.role == "ours" for m in (a, b))
        rows.append(Row((Cell(_name(a, b)), *(cell for pair in pairs for cell in pair)), ours=ours))
    table = Table("Every method of either run", columns, (Group("", tuple(rows)),))
    return Section("sides", OTHER_SECTIONS["sides"].question, tables=(table,))


def _outcome_cells(method: MethodRow | None, unit: str) -> list[Cell]:
    if method is None:
        return [Cell(format_share(None))] * 4
    captured = method.captured_share.value if method.captured_share else None
    return [
        Cell(format_share(method.net_avoided_share.value)),
        Cell(format_share(captured, 0)),
        Cell(format_milliseconds(method.latency_p95_ms)),
        Cell(format_bytes(method.pushed_bytes, unit).rpartition(NO_BREAK_SPACE)[0]),
    ]


def _name(a: MethodRow | None, b: MethodRow | None) -> str:
    found = b or a
    return "" if found is None else found.name


def _totals(found: Comparison) -> Section | None:
    """One chart for both where they share their hours, else one for each."""
    curves = [_curve(found, side) for side in (0, 1)]
    drawn = [curve for curve in curves if curve is not None]
    if not drawn:
        return None
    title, lead = (
        OTHER_SECTIONS["totals"].question,
        "Money saved against the CDN alone since the start, by the method reported on.",
    )
    if found.unpaired:
        figures = tuple(
            Figure(_chart([c], found, side, _HALF), title=f"Run {'AB'[side]}", half=True)
            for side, c in enumerate(curves)
            if c is not None
        )
    else:
        figures = (Figure(_chart(drawn, found, 1, WIDE), _chart(drawn, found, 1, NARROW)),)
    return Section("totals", title, lead, figures=figures)


def _curve(found: Comparison, side: int) -> TotalCurve | None:
    run = found.runs[side]
    ours, reference = run.method("ours"), run.method("reference")
    if ours is None or reference is None or ours.hourly is None or reference.hourly is None:
        return None
    text = format_money(saved(ours, reference), run.currency)
    return TotalCurve(f"{ours.name} {'AB'[side]}", ours.hourly.saved_against(reference.hourly), text, ours=side == 1)


def _chart(curves: list[TotalCurve], found: Comparison, side: int, width: float) -> str:
    run = found.runs[side]
    ours = run.method("ours")
    assert ours is not None
    assert ours.hourly is not None
    label = "Money saved: " + ", ".join(f"{curve.name} {curve.text}" for curve in curves) + "."
    return running_totals(
        curves,
        start_us=ours.hourly.start_us,
        width=width,
        unit=f"{run.currency} saved",
        label=label,
        write=money_tick,
        height=230,
    )


def _causes(found: Comparison) -> Section | None:
    a, b = (dict(method.cause_bytes) if method else {} for method in found.ours)
    if not a or not b:
        return None
    unit = table_unit([sum(a.values()), sum(b.values())])
    names = sorted({*a, *b}, key=lambda name: -max(a.get(name, 0.0), b.get(name, 0.0)))
    rows = tuple(Row((Cell(name), *_cause_cells(a.get(name, 0.0), b.get(name, 0.0), a, b, unit))) for name in names)
    total = Row((Cell("Total"), *_cause_cells(sum(a.values()), sum(b.values()), a, b, unit)))
    titles = ("Cause", f"A, {unit}", f"B, {unit}", "of all, A", "B", "B less A")
    columns = tuple(Column(title, figures=i > 0) for i, title in enumerate(titles))
    table = Table("Bytes not served from their best place", columns, (Group("", rows),), total=total)
    lead = "Of the method reported on; in each run the causes are all bytes that the mesh did not serve."
    return Section("both-causes", OTHER_SECTIONS["both-causes"].question, lead, tables=(table,))


def _cause_cells(
    one: float, two: float, a: dict[str, float], b: dict[str, float], unit: str
) -> tuple[Cell, Cell, Cell, Cell, Cell]:
    change = format_change(two - one, "bytes", size=max(one, two))
    return (
        Cell(format_bytes(one, unit).rpartition(NO_BREAK_SPACE)[0]),
        Cell(format_bytes(two, unit).rpartition(NO_BREAK_SPACE)[0]),
        Cell(format_share(one / (sum(a.values()) or 1.0), 0)),
        Cell(format_share(two / (sum(b.values()) or 1.0), 0)),
        Cell(change),
    )


def _places(found: Comparison) -> Section | None:
    """Where B saves most more than A, and where most less."""
    pairs = found.places
    if not pairs:
        return None
    more = [pair for pair in pairs if round_money(saved_more(*pair)) > 0]
    less = [pair for pair in reversed(pairs) if round_money(saved_more(*pair)) < 0]
    currency = found.runs[1].currency
    groups = [
        Group(heading, tuple(_place_row(a, b, currency) for a, b in chosen))
        for heading, chosen in (("B saves more", more[:_MOST_PLACES]), ("B saves less", less[:_MOST_PLACES]))
        if chosen
    ]
    titles = ("Place", "saved, A", "B", "change")
    columns = (*(Column(title, figures=i > 0) for i, title in enumerate(titles)), Column("stop-loss, B", figures=False))
    lead = f"Of {len(pairs)} places shown in both, B saves more at {len(more)} and less at {len(less)}."
    tables = (Table("Places that won and lost most", columns, tuple(groups)),) if groups else ()
    return Section("moved-places", OTHER_SECTIONS["moved-places"].question, lead, tables=tables)


def _place_row(a: Place, b: Place, currency: str) -> Row:
    change = saved_more(a, b)
    size = max(abs(a.saved or 0.0), abs(b.saved or 0.0))
    return Row(
        (
            Cell(b.name),
            Cell(format_money(a.saved, currency)),
            Cell(format_money(b.saved, currency)),
            Cell(format_change(change, "money", size=size, currency=currency)),
            Cell(b.verdict),
        )
    )


def _settings(found: Comparison) -> Section:
    rows = tuple(Row((Cell(key), Cell(a or "–"), Cell(b or "–"))) for key, a, b in found.settings)
    columns = (Column("Key", figures=False), Column("A", figures=False), Column("B", figures=False))
    title = OTHER_SECTIONS["settings"].question
    if not rows:
        return Section("settings", title, "Nothing: settings, data, code and models are the same.")
    table = Table("Settings, data, code and models that differ", columns, (Group("", rows),))
    return Section("settings", title, "What is not listed is the same in both.", tables=(table,))


def _both(a: str, b: str) -> str:
    return a if a == b else f"A {a}, B {b}"
