"""The section on devices of a run report: how many stayed as forecast, and how honest the probabilities are by class."""

from __future__ import annotations

from models.churn.track import ChurnTrack, GroupTrack
from models.quantities import clean_text, format_count, format_number
from models.survival_charts import Curve, curves_with_dots, reliability_with_intervals
from pipelines.churn_words import LEGEND, forecast_text, hours_text, observed_text, stay_sentence, survival_sentence
from pipelines.report_data import ReportData
from pipelines.report_layout import Figure, Section
from pipelines.report_tables import Cell, Column, Group, Row, Table

_HALF = 415.0


def devices_section(data: ReportData, title: str) -> Section | None:
    """Survival of the fleet, P(gone by the middle edge) in bins, and one line a class."""
    track = data.devices
    if track is None:
        return None
    return Section(
        "devices",
        title,
        survival_sentence(track),
        figures=(_curve(track), _reliability(track)),
        tables=(_classes(track),),
        notes=(LEGEND,),
    )


def _curve(track: ChurnTrack) -> Figure:
    names = ["0", *map(hours_text, track.edges_hours)]
    stay = Curve(track.groups[0].stay.with_start(1.0))
    drawing = curves_with_dots(
        [stay], names, width=_HALF, label="Share still up", height=230, nothing="Nothing could be observed."
    )
    text = "Share of the devices that were still up, by time ahead."
    return Figure(drawing, title="How long devices stay", text=text, half=True)


def _reliability(track: ChurnTrack) -> Figure:
    hours = hours_text(track.edges_hours[track.middle])
    drawing = reliability_with_intervals(
        track.reliability[track.middle],
        width=_HALF,
        label=f"Gone within {hours}. {stay_sentence(track)}",
        axes=("stated probability of leaving", "share that left"),
        nothing="Nothing could be observed at this edge.",
    )
    return Figure(drawing, title=f"Gone within {hours}", text=stay_sentence(track), half=True)


def _classes(track: ChurnTrack) -> Table:
    hours = hours_text(track.edges_hours[track.middle])
    titles = ("Class", "devices", "forecasts", f"expected to stay {hours}", "stayed", "ECE", "slope")
    columns = tuple(Column(title, figures=i > 0) for i, title in enumerate(titles))
    rows = tuple(_class_row(group, track.middle) for group in track.groups)
    note = (
        "Brackets: 95 % interval over devices. ECE: how far stated and observed shares lie apart on average. Slope: "
        "below 1 the forecasts are over-confident."
    )
    return Table("Devices that were up, by class", columns, (Group("", rows),), note=note)


def _class_row(group: GroupTrack, edge: int) -> Row:
    stay, found = group.stay, group.calibration
    return Row(
        (
            Cell(clean_text(group.name) or "All devices"),
            Cell(format_count(group.nodes)),
            Cell(format_count(group.rows)),
            Cell(forecast_text(stay, edge)),
            Cell(observed_text(stay, edge)),
            Cell(format_number(found.mean_error, 3)),
            Cell(format_number(found.slope, 2)),
        )
    )
