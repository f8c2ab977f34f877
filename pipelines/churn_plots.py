"""The pictures of a churn review: who stays, who is known to leave, whether the probabilities are honest, who comes back.

In each, the line is the forecast, a dot what was observed with its 95 % interval over nodes, a ring a dot whose interval
does not hold the forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.churn.track import FLEET, ChurnTrack, GroupTrack
from models.compared import Compared
from models.panels import Panel, panels
from models.quantities import clean_text, format_instant, format_number
from models.survival_charts import Curve, ZonedFigures, curves_with_dots, reliability_with_intervals, zoned_dots
from pipelines.churn_words import (
    LEGEND,
    counted,
    forecast_text,
    hours_text,
    inside_text,
    observed_text,
    stay_sentence,
    survival_sentence,
)
from pipelines.pictures import NARROW, WIDTH, Picture, Pictures

ERROR_ZONE = (0.0, 0.02)
SLOPE_ZONE = (0.9, 1.1)
JOINT_POINTS = 0.05
_MOST_CLASSES = 5
_LONGEST_NAME = 30
_GAP = 18.0
_JOINT_WORDS = {"all": "All sets", "within": "All replicas in one network", "across": "No two in one network"}
_QUARTERS = ("shortest", "second", "third", "longest")

Draw = Callable[[float, int], str]
"""The drawing at a width with so many columns."""


def churn_pictures(title: str, track: ChurnTrack, *, facts: Sequence[str] = ()) -> Pictures:
    """Draws a review of a model that was followed over the test window; `facts` say what the data are."""
    drawn = [
        survival_picture(track),
        separation_picture(track),
        reliability_picture(track),
        calibration_picture(track),
        return_picture(track),
        joint_picture(track),
        drift_picture(track),
    ]
    return Pictures(title, tuple(p for p in drawn if p is not None), (*facts, LEGEND))


def survival_picture(track: ChurnTrack) -> Picture:
    """Share that stayed until each edge, of the fleet and of each class."""
    draw: Draw = lambda width, columns: _by_group(track, lambda g: g.stay, width=width, columns=columns, start=1.0)  # noqa: E731
    title = "How long devices stay: forecast and what happened"
    return _picture("survival", title, survival_sentence(track), draw)


def return_picture(track: ChurnTrack) -> Picture:
    """Of nodes that were down: how many were back at least once by each edge, and how many were up at it."""
    edge = track.middle
    fleet = track.groups[0]
    hours = hours_text(track.edges_hours[edge])
    sentence = (
        f"Of nodes that were down, {forecast_text(fleet.returned, edge)} were expected back within {hours} and "
        f"{observed_text(fleet.returned, edge)} came; {forecast_text(fleet.available, edge)} were expected to be "
        f"up then and {observed_text(fleet.available, edge)} were. {inside_text(fleet.returned, 'edge')}"
        if fleet.returned.known[edge] and fleet.available.known[edge]
        else "No node was known to be down at any origin."
    )

    def draw(width: float, columns: int) -> str:
        parts = []
        for group in _shown(track.groups):
            for points, words in ((group.returned, "back at least once"), (group.available, "up at the edge")):
                title = f"{_group_name(group)}: {words}"
                parts.append(_curve_panel(title, points, track, width=width, columns=columns, start=0.0))
        return panels(parts, width=width, columns=columns, label="Nodes that were down.")

    return _picture("returns", "When devices that are down come back", sentence, draw)


def separation_picture(track: ChurnTrack) -> Picture:
    """Curves of the quarters of nodes by forecast time up."""
    edge = track.middle
    first, last = track.quarters[0], track.quarters[-1]
    hours = hours_text(track.edges_hours[edge])
    if len(track.quarters) == 1:
        sentence = "Every node got the same forecast, so it separates none from any other."
    elif first.known[edge] and last.known[edge]:
        sentence = (
            f"Of the nodes forecast to leave first, {observed_text(first, edge)} stayed {hours} "
            f"({forecast_text(first, edge)} expected); of those forecast to stay longest, {observed_text(last, edge)} "
            f"({forecast_text(last, edge)} expected)."
        )
    else:
        sentence = "Nothing could be observed of the quarters at this edge."
    names = _QUARTERS if len(track.quarters) == len(_QUARTERS) else tuple(map(str, range(1, len(track.quarters) + 1)))
    curves = [Curve(points.with_start(1.0), name) for points, name in zip(track.quarters, names, strict=True)]
    draw: Draw = lambda width, _: curves_with_dots(  # noqa: E731
        curves,
        ["0", *map(hours_text, track.edges_hours)],
        width=width,
        label=f"Quarters by forecast time up. {sentence}",
        height=260,
        nothing="Nothing could be observed.",
    )
    title = "Does it know who leaves? Nodes in four parts by forecast time up"
    return _picture("separation", title, f"{sentence} Share that stayed until the edge.", draw)


def reliability_picture(track: ChurnTrack) -> Picture:
    """P(gone by the edge) in bins of the forecast, beside the share that was gone."""

    def draw(width: float, columns: int) -> str:
        columns = min(columns + 1, 3) if columns > 1 else 1
        parts = []
        for edge, points in enumerate(track.reliability):
            hours = hours_text(track.edges_hours[edge])
            drawing = reliability_with_intervals(
                points,
                width=_column(width, columns),
                label=f"Gone within {hours}",
                axes=("stated", "share that was gone"),
                nothing="Nothing could be observed at this edge.",
            )
            error = format_number(track.groups[0].calibration.error[edge], 3)
            parts.append(Panel(f"Gone within {hours}", f"{inside_text(points, 'bin')} ECE {error}.", drawing))
        return panels(parts, width=width, columns=columns, label="Reliability of P(gone) by edge.")

    sentence = f"{stay_sentence(track)} On the dashed line both agree; the axes are stretched near 0."
    return _picture("reliability", "Are the probabilities honest?", sentence, draw)


def calibration_picture(track: ChurnTrack) -> Picture:
    """Expected calibration error and slope of P(gone by the edge), by class and edge."""
    shown = _shown(track.groups)
    judged = shown[1:] if len(shown) > 1 else shown
    figures = "; ".join(
        f"{_group_name(g)}: ECE {format_number(g.calibration.mean_error, 3)}, slope "
        f"{format_number(g.calibration.slope, 2)}, intercept {format_number(g.calibration.intercept, 2)}"
        for g in judged
    )
    sentence = (
        f"{figures}. Shaded: error at most {format_number(ERROR_ZONE[1], 2)}, slope {format_number(SLOPE_ZONE[0], 1)} "
        f"to {format_number(SLOPE_ZONE[1], 1)}; rings lie outside by more than chance. "
        "A slope below 1 is over-confident. A dash is the error that chance alone would give an honest forecast."
    )

    def draw(width: float, columns: int) -> str:
        parts = [p for group in shown for p in _calibration_panels(group, track, width=width, columns=columns)]
        return panels(parts, width=width, columns=columns, label="Calibration by class and edge.")

    return _picture("calibration", "Calibration by class and edge", sentence, draw)


def _calibration_panels(group: GroupTrack, track: ChurnTrack, *, width: float, columns: int) -> list[Panel]:
    found, unknown = group.calibration, (float("nan"),) * len(track.edges_hours)
    error = ZonedFigures(_floats(found.error), unknown, unknown, ERROR_ZONE, _floats(found.chance))
    slope = ZonedFigures(_floats(found.slopes), _floats(found.slopes_low), _floats(found.slopes_high), SLOPE_ZONE)
    name, wide = _group_name(group), _column(width, columns)
    return [
        _zoned_panel(f"{name}: calibration error", error, track, width=wide, digits=3),
        _zoned_panel(f"{name}: slope", slope, track, width=wide, digits=2),
    ]


def _zoned_panel(title: str, figures: ZonedFigures, track: ChurnTrack, *, width: float, digits: int) -> Panel:
    known = [i for i, value in enumerate(figures.values) if np.isfinite(value)]
    within = len(known) - sum(map(figures.outside, known))
    drawing = zoned_dots(
        figures,
        [*map(hours_text, track.edges_hours)],
        width=width,
        label=title,
        write=lambda value: format_number(value, digits),
        nothing="Not defined at any edge: outcomes or forecasts are all alike, or none is known.",
    )
    surely = sum(map(figures.surely_outside, known))
    sentence = (
        f"In the shaded zone at {within} of {counted(len(known), 'edge')}, outside by more than chance at {surely}."
    )
    return Panel(title, sentence if known else "Nothing to judge.", drawing)


def joint_picture(track: ChurnTrack) -> Picture | None:
    """P(at least k of n replicas stay) beside the share of sets that kept k; None where it was not compared."""
    if not track.joint:
        return None
    first = track.joint[0]
    sentence = (
        f"Of sets of replicas, drawn at each origin: {_within_points(first.shared)} If departures shared nothing: "
        f"{_within_points(first.independent)} Intervals are over blocks of consecutive origins."
    )

    def draw(width: float, columns: int) -> str:
        columns = min(columns + 1, len(track.joint)) if columns > 1 else 1
        parts = []
        for joint in track.joint:
            title = _JOINT_WORDS.get(joint.kind, joint.kind)
            drawing = reliability_with_intervals(
                joint.shared,
                width=_column(width, columns),
                label=title,
                axes=("stated", "share of sets that kept enough"),
                nothing="No set of replicas could be observed.",
            )
            parts.append(Panel(title, _within_points(joint.shared), drawing))
        return panels(parts, width=width, columns=columns, label="Joint survival of replicas.")

    return _picture("joint", "Do enough replicas stay as often as forecast?", sentence, draw)


def _within_points(points: Compared) -> str:
    """`10 of 10 tenths within 5 points; furthest off: 82 % stated, 79 % [75, 83] observed.`"""
    widest = points.widest
    if widest is None:
        return "No set of replicas could be observed."
    gaps = np.abs(points.forecast - points.observed)[points.known]
    return (
        f"{int((gaps <= JOINT_POINTS).sum())} of {counted(len(gaps), 'tenth')} within "
        f"{format_number(100 * JOINT_POINTS)} points; furthest off: {forecast_text(points, widest)} stated, "
        f"{observed_text(points, widest)} observed."
    )


def drift_picture(track: ChurnTrack) -> Picture:
    """P(gone by the middle edge) day by day."""
    days, hours = track.days, hours_text(track.edges_hours[track.middle])
    names = [format_instant(int(at), with_time=False).rpartition(" ")[0] for at in track.day_us]
    widest = days.widest
    if widest is None:
        sentence = "On no day could anything be observed."
    else:
        sentence = (
            f"{inside_text(days, 'day')} Furthest off: {names[widest]}, {forecast_text(days, widest)} expected to "
            f"leave within {hours}, {observed_text(days, widest)} did."
        )
    draw: Draw = lambda width, _: curves_with_dots(  # noqa: E731
        [Curve(days)], names, width=width, label=f"Day by day. {sentence}", height=200, nothing=sentence
    )
    return _picture("days", f"Does it hold day by day? Share gone within {hours}", sentence, draw)


def _by_group(
    track: ChurnTrack, points: Callable[[GroupTrack], Compared], *, width: float, columns: int, start: float
) -> str:
    shown = _shown(track.groups)
    columns = min(columns, len(shown))
    parts = [_curve_panel(_group_title(g), points(g), track, width=width, columns=columns, start=start) for g in shown]
    return panels(parts, width=width, columns=columns, label="Forecast and observed, by class.")


def _curve_panel(title: str, points: Compared, track: ChurnTrack, *, width: float, columns: int, start: float) -> Panel:
    names = ["0", *map(hours_text, track.edges_hours)]
    drawing = curves_with_dots(
        [Curve(points.with_start(start))],
        names,
        width=_column(width, columns),
        label=title,
        nothing="Nothing could be observed of these nodes.",
    )
    return Panel(title, inside_text(points, "edge"), drawing)


def _picture(name: str, title: str, sentence: str, draw: Draw) -> Picture:
    return Picture(name, title, sentence, draw(WIDTH, 2), draw(NARROW, 1))


def _column(width: float, columns: int) -> float:
    return (width - _GAP * (columns - 1)) / columns


def _shown(groups: Sequence[GroupTrack]) -> list[GroupTrack]:
    """The fleet and the largest classes."""
    classes = sorted(groups[1:], key=lambda g: (-g.rows, g.name))
    return [groups[0], *classes[:_MOST_CLASSES]]


def _group_name(group: GroupTrack) -> str:
    name = clean_text(group.name)
    return "All nodes" if group.name == FLEET else name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _group_title(group: GroupTrack) -> str:
    return f"{_group_name(group)}: {counted(group.nodes, 'node')}, {counted(group.rows, 'forecast')}"


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
