"""The report of a run: one self-contained HTML page that a person who must decide reads in a minute.

The order is that of the questions: does it help and at what price, what changes, how close to a planner who knows the
future, why not better, what moves, is the forecast right, what are the limits, how to repeat it. The page asks no network
and keeps nothing in the browser; it is laid out for a frame of 901 px first (MLflow shows it so), then for a phone, then
wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from models.quantities import bind_units, format_bytes, format_share
from models.svg import palette_css
from pipelines.report_data import ReportData
from pipelines.report_layout import Section
from pipelines.report_sections import absences, build_sections, methods_unit


def render(data: ReportData) -> str:
    """The whole page as text. The same data give the same bytes."""
    sections = build_sections(data)
    return render_page(data, sections, absences(data, sections))


def render_page(data: ReportData, sections: Sequence[Section], absent: Sequence[tuple[str, str]] = ()) -> str:
    """A page of these sections; `data` gives what stands around them, `absent` what is missing and why."""
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bound"] = bind_units
    return environment.get_template("report.html").render(
        data=data,
        headline=data.headline or headline(data),
        sections=sections,
        absent=absent,
        style=palette_css() + _resource("report.css"),
        script=_resource("report.js"),
    )


def headline(data: ReportData) -> str:
    """Outcome and price in one sentence, from the rows of the comparison."""
    ours = data.method("ours")
    if ours is None:
        return data.title
    unit = methods_unit(data)
    net = ours.net_avoided_share.value
    if net <= 0:
        return (
            f"{ours.name} does not pay: it pushes {format_bytes(ours.pushed_bytes, unit)} and adds {format_share(-net)} "
            "to the CDN's traffic"
        )
    of_possible = ""
    if ours.captured_share and ours.role != "bound":
        of_possible = f", {format_share(ours.captured_share.value, 0)} of what a clairvoyant planner keeps,"
    return (
        f"{ours.name} keeps {format_share(net)} of the traffic off the CDN{of_possible} "
        f"and pushes {format_bytes(ours.pushed_bytes, unit)} to do it"
    )


def _resource(name: str) -> str:
    return (files("pipelines") / name).read_text(encoding="utf-8")
