"""The section on money of a run report: what each method has saved against the CDN alone, from the first hour on."""

from __future__ import annotations

from models.line_charts import TotalCurve, running_totals
from models.quantities import NO_BREAK_SPACE, format_money
from pipelines.report_data import MethodRow, ReportData
from pipelines.report_layout import Figure, Section
from pipelines.report_tables import saved

WIDE, NARROW = 860.0, 352.0
MOST_CURVES = 8


def money_section(data: ReportData, title: str) -> Section | None:
    """Curves of ours, of the bound and of the best others; the reference is the line at zero."""
    reference = data.method("reference")
    drawn = _drawn(data)
    if reference is None or not drawn:
        return None
    ours = data.method("ours")
    lead = "Money saved against the CDN alone since the start: egress and rewards, pushes included."
    if ours is not None and ours.hourly is not None:
        total = format_money(saved(ours, reference), data.currency)
        lead += f" {ours.name}: {total} in {ours.hourly.hours} h."
    curves = [_curve(method, reference, data.currency) for method in drawn]
    left_out = len([m for m in data.methods if m is not reference]) - len(drawn)
    notes = (f"Not drawn: {left_out} methods that saved less.",) if left_out > 0 else ()
    wide, narrow = (_chart(curves, drawn[0], data.currency, lead, width) for width in (WIDE, NARROW))
    return Section("money", title, lead, figures=(Figure(wide, narrow),), notes=notes)


def _drawn(data: ReportData) -> list[MethodRow]:
    """Methods with figures by hour: ours and the bound, then the others by what they saved."""
    reference = data.method("reference")
    if reference is None or reference.hourly is None:
        return []
    known = [m for m in data.methods if m.hourly is not None and m is not reference]
    first = [m for m in known if m.role in ("ours", "bound")]
    others = sorted((m for m in known if m.role == "baseline"), key=lambda m: m.cost)
    return [*first, *others][:MOST_CURVES]


def _curve(method: MethodRow, reference: MethodRow, currency: str) -> TotalCurve:
    assert method.hourly is not None
    assert reference.hourly is not None
    return TotalCurve(
        method.name,
        method.hourly.saved_against(reference.hourly),
        text=format_money(saved(method, reference), currency),
        ours=method.role == "ours",
        bound=method.role == "bound",
    )


def _chart(curves: list[TotalCurve], first: MethodRow, currency: str, label: str, width: float) -> str:
    assert first.hourly is not None
    return running_totals(
        curves,
        start_us=first.hourly.start_us,
        width=width,
        unit=f"{currency} saved",
        label=label,
        write=money_tick,
    )


def money_tick(value: float) -> str:
    """An amount on an axis, whose currency stands above it."""
    return format_money(value, "").replace(NO_BREAK_SPACE, "")
