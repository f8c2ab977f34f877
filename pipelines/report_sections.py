"""The sections of a run report: from the values to sentences, tables and drawings, in the order of the questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.charts import Bar, bars_with_whiskers, reliability, reliability_sentence
from models.maps import MapPlace, is_drawable, place_map
from models.quantities import (
    NO_BREAK_SPACE,
    Estimate,
    format_bytes,
    format_counted,
    format_milliseconds,
    format_money,
    format_number,
    format_share,
)
from models.time_charts import line_with_band, outside_sentence, stacked_bars
from pipelines.report_audiences import audiences_section
from pipelines.report_data import Causes, ForecastPanel, MethodRow, PlanSummary, ReportData
from pipelines.report_devices import devices_section
from pipelines.report_layout import SECTIONS, Figure, Section, Tile
from pipelines.report_money import money_section
from pipelines.report_tables import (
    TIER_COLOURS,
    TIERS,
    captured_table,
    cause_shares,
    cause_table,
    change_table,
    model_table,
    movement_table,
    outcome_table,
    place_table,
    saved,
    source_table,
    table_unit,
)

_WIDE, _HALF, _NARROW = 860.0, 415.0, 352.0
_SHOWN_HOURS = 7 * 24
_SHOWN_CELLS = 2
_SHOWN_PLACES = 12


def build_sections(data: ReportData) -> list[Section]:
    """The sections for which there are data."""
    built = (build(data, SECTIONS[key].question) for key, build in _BUILDERS.items())
    return [section for section in built if section is not None]


def absences(data: ReportData, present: Sequence[Section]) -> list[tuple[str, str]]:
    """(heading, why it is missing) of the sections left out."""
    keys = {section.key for section in present}
    reasons = [(h.question, data.missing.get(key, h.missing)) for key, h in SECTIONS.items() if key not in keys]
    return [(title, why) for title, why in reasons if why]


def _comparison(data: ReportData, title: str) -> Section | None:
    if not data.methods:
        return None
    lead = f"Every row: the same requests, devices and budgets. {data.brackets}"
    legend = tuple(zip(TIER_COLOURS, TIERS, strict=True))
    moved = movement_table(data.methods)
    tables = (outcome_table(data), source_table(data.methods), *((moved,) if moved else ()))
    return Section("comparison", title, lead, tiles=_tiles(data), tables=tables, legend=legend)


def _tiles(data: ReportData) -> tuple[Tile, ...]:
    ours, reference, bound = (data.method(r) for r in ("ours", "reference", "bound"))
    if ours is None:
        return ()
    beside = f"{_interval(ours.net_avoided_share)}"
    if bound:
        beside += f" · clairvoyant {format_share(bound.net_avoided_share.value)}"
    tiles = [Tile("Kept off the CDN, net", format_share(ours.net_avoided_share.value), beside.removeprefix(" · "))]
    if reference:
        money = f"{format_money(ours.cost, data.currency)} instead of {format_money(reference.cost, data.currency)}"
        tiles.append(Tile("Saved", format_money(saved(ours, reference), data.currency), money))
    latency = f"CDN alone {format_milliseconds(reference.latency_p95_ms)}" if reference else "of all requests"
    tiles.append(Tile("Latency, p95", format_milliseconds(ours.latency_p95_ms), latency))
    resumed = f"{format_share(ours.resumed_share)} resumed from a POP"
    tiles.append(Tile("Failed", format_share(ours.failed_share), resumed))
    unused = ours.wasted_bytes / ours.pushed_bytes if ours.pushed_bytes else None
    pushed = f"{format_share(unused, 0)} never used" if unused is not None else "nothing was pushed"
    tiles.append(Tile("Pushed", format_bytes(ours.pushed_bytes, methods_unit(data)), pushed))
    return tuple(tiles)


def methods_unit(data: ReportData) -> str:
    """The byte unit of the comparison, so that a figure reads the same in the headline, the tiles and the table."""
    return table_unit([sum(m.served_bytes) for m in data.methods])


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{format_share(estimate.low).split(NO_BREAK_SPACE)[0]} to {format_share(estimate.high)}"


def _changes(data: ReportData, title: str) -> Section | None:
    if not data.changes:
        return None
    lead = f"Candidate against champion on the same requests. {data.brackets}"
    return Section("changes", title, lead, tables=(change_table(data.changes, data.currency),))


def _ladder(data: ReportData, title: str) -> Section | None:
    rows = [m for m in data.methods if m.captured_share is not None]
    if not rows or data.method("bound") is None:
        return None
    bars = [_rung(m) for m in rows]
    ours = data.method("ours")
    label = "Captured share of each method"
    if ours and ours.captured_share:
        label += f": {ours.name} {format_share(ours.captured_share.value, 0)} of what a clairvoyant planner keeps"
    draw: Callable[[float], str] = lambda width: bars_with_whiskers(bars, width=width, label=label)  # noqa: E731
    lead = (
        "Captured share: net bytes kept off the CDN, as a share of what a planner who knows the future keeps "
        "with the same budgets."
    )
    at_peak = captured_table(rows)
    return Section("ladder", title, lead, figures=(_both(draw),), tables=(at_peak,) if at_peak else ())


def _rung(method: MethodRow) -> Bar:
    return Bar(method.name, method.captured_share or Estimate(0.0), method.role == "ours", method.role == "bound")


def _causes(data: ReportData, title: str) -> Section | None:
    causes = data.causes
    if causes is None or not causes.causes or not causes.causes[0].bytes_by_hour:
        return None
    label = _cause_sentence(causes)
    stack = causes.stack
    wide = stacked_bars(stack, width=_WIDE, label=label, tips=True)
    narrow = stacked_bars(stack, width=_NARROW, label=label, height=190)
    return Section(
        "causes",
        title,
        f"Every byte not served from its best place, by cause. {label}{_completeness(causes)}",
        figures=(Figure(wide, narrow),),
        tables=(cause_table(causes),),
        events=causes.events,
    )


def _cause_sentence(causes: Causes) -> str:
    largest = max(causes.causes, key=lambda c: c.total_bytes)
    total = sum(c.total_bytes for c in causes.causes)
    if total <= 0:
        return "No byte was served from anywhere but its best place."
    share = format_share(cause_shares(causes)[0], 0)
    return f"Largest: {largest.name.lower()}, {share} of {format_bytes(total, table_unit([total]))}."


def _completeness(causes: Causes) -> str:
    """Whether the causes account for everything that the mesh did not serve; empty where that was not counted."""
    unserved = causes.unserved_bytes
    if not unserved:
        return ""
    named = sum(c.total_bytes for c in causes.causes)
    if abs(named - unserved) <= 0.5:
        return " Together they are all bytes that the mesh did not serve: 100 %."
    return f" They name {format_share(named / unserved)} of the bytes that the mesh did not serve."


def _plan(data: ReportData, title: str) -> Section | None:
    plan = data.plan
    if plan is None:
        return None
    return Section("plan", title, plan.subject + ".", facts=_plan_facts(plan), events=plan.binding)


def _plan_facts(plan: PlanSummary) -> tuple[tuple[str, str], ...]:
    copies = [(f"Copies on {tier}", format_number(count)) for tier, count in plan.copies_by_tier]
    moved = format_bytes(plan.bytes_moved)
    if plan.movement_budget_bytes is not None:
        moved += f" of {format_bytes(plan.movement_budget_bytes)} allowed"
    gap = "no bound known" if plan.gap is None else f"within {format_share(plan.gap)} of the least possible cost"
    return (*copies, ("Bytes moved", moved), ("Solver", f"{plan.status}, {gap}"), *plan.facts)


def _places(data: ReportData, title: str) -> Section | None:
    shown = data.shown_places
    if not shown:
        return None
    places = [MapPlace(p.name, p.latitude, p.longitude, p.bytes, p.node_share, p.flagged) for p in shown]
    largest = shown[0]
    label = (
        f"{format_number(len(shown))} places; {largest.name} asked for most, {format_bytes(largest.bytes)}, "
        f"{format_share(largest.node_share, 0)} of it from nodes."
    )
    figures: tuple[Figure, ...] = ()
    if is_drawable(places):
        draw: Callable[[float], str] = lambda width: place_map(places, data.pops, width=width, label=label)  # noqa: E731
        figures = (_both(draw),)
    listed = [p for p in shown if p.flagged] + [p for p in shown if not p.flagged]
    stopped = [p for p in shown if p.verdict.startswith("off")]
    if any(p.verdict for p in shown):
        label += f" The stop-loss says off at {format_counted(len(stopped), 'place') if stopped else 'none'}."
    return Section(
        "places",
        title,
        label,
        figures=figures,
        legend=_map_legend(data) if figures else (),
        tables=(place_table(listed[:_SHOWN_PLACES], data.currency),),
        notes=(*((data.stop_loss,) if data.stop_loss else ()), *_hidden_places(data)),
    )


def _map_legend(data: ReportData) -> tuple[tuple[str, str], ...]:
    legend = [("ours", "from nodes"), ("other", "from POPs")]
    legend += [("", "◆ POP")] if data.pops else []
    legend += [("ring", "costs more than it saves, or is off")] if any(p.flagged for p in data.shown_places) else []
    return tuple(legend)


def _hidden_places(data: ReportData) -> tuple[str, ...]:
    notes = []
    if len(data.shown_places) > _SHOWN_PLACES:
        notes.append(f"The table holds {_SHOWN_PLACES} of {format_number(len(data.shown_places))} places.")
    hidden = len(data.places) - len(data.shown_places)
    if hidden:
        notes.append(f"Not shown: {format_counted(hidden, 'place')} with fewer than {data.minimum_users} users.")
    return (" ".join(notes),) if notes else ()


def _forecasts(data: ReportData, title: str) -> Section | None:
    shown = data.shown_forecasts[: 1 + _SHOWN_CELLS]
    if not shown:
        return None
    first = shown[0].series
    lead = f"{shown[0].name}: {outside_sentence(first.misses, first.known)} Hollow marks lie outside the interval."
    notes = []
    if any(len(f.series.mean) > _SHOWN_HOURS for f in shown):
        notes.append("Drawn: the last 7 days; the shares outside count all hours.")
    hidden = len(data.forecasts) - len(data.shown_forecasts)
    if hidden:
        notes.append(f"Not shown: {format_counted(hidden, 'cell')} with fewer than {data.minimum_users} users.")
    legend = (("ours", "forecast"), ("band", "80 % interval"), ("ink", "actual"), ("ring", "actual, outside"))
    figures = tuple(_forecast_figure(f, first=i == 0) for i, f in enumerate(shown))
    return Section("forecasts", title, lead, figures=figures, legend=legend, notes=tuple(notes))


def _forecast_figure(panel: ForecastPanel, *, first: bool) -> Figure:
    drawn, unit = panel.series.last(_SHOWN_HOURS), panel.unit
    text = "" if first else outside_sentence(panel.series.misses, panel.series.known).capitalize()
    wide = line_with_band(
        drawn, width=_WIDE if first else _HALF, unit=unit, label=panel.name, tips=True, height=210 if first else 180
    )
    if not first:
        return Figure(wide, title=panel.name, text=text, half=True)
    narrow = line_with_band(drawn, width=_NARROW, unit=unit, label=panel.name, height=180)
    return Figure(wide, narrow, title=panel.name)


def _calibration(data: ReportData, title: str) -> Section | None:
    points = data.quantile_reliability
    if not points:
        return None
    svg = reliability(
        points,
        width=_HALF,
        label="Demand",
        horizontal="stated quantile of demand",
        vertical="share of outcomes at or below it",
    )
    lead = f"Demand, on the dashed line as forecast: {reliability_sentence(points)} Larger dots: more cases."
    return Section("calibration", title, lead, figures=(Figure(svg, title="Demand", half=True),))


def _models(data: ReportData, title: str) -> Section | None:
    if not data.model_tables:
        return None
    lead = "Arrows: whether higher or lower is better. Bold: the best of its column."
    return Section("models", title, lead, tables=tuple(model_table(t) for t in data.model_tables))


def _both(draw: Callable[[float], str]) -> Figure:
    return Figure(draw(_WIDE), draw(_NARROW))


_BUILDERS: dict[str, Callable[[ReportData, str], Section | None]] = {
    "changes": _changes,
    "comparison": _comparison,
    "ladder": _ladder,
    "money": money_section,
    "causes": _causes,
    "audiences": audiences_section,
    "plan": _plan,
    "places": _places,
    "forecasts": _forecasts,
    "devices": devices_section,
    "calibration": _calibration,
    "models": _models,
}
