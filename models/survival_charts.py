"""Charts of forecast against observation as SVG text: curves over edges or days, reliability, figures with a zone.

One language for all: the line is the forecast, a dot is what was observed with its interval as a whisker, and a ring is
an observation whose interval does not hold the forecast. Edges of a horizon are drawn evenly spaced, because they grow
by factors. A chart without anything to draw says so in a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.compared import Compared
from models.quantities import NO_BREAK_SPACE, format_count, format_number, format_share
from models.svg import (
    Attribute,
    Scale,
    colour,
    drawing,
    escape,
    line,
    nice_ticks,
    number,
    path_through,
    tag,
    text_at,
    text_width,
)

_LEFT, _TOP, _BOTTOM, _RIGHT = 46.0, 12.0, 22.0, 10.0
_START, _END = 12.0, 14.0
"""Least room between the axes and the first and the last name."""
_STRETCHED = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Ticks of the stretched axes of a reliability chart."""


@dataclass(frozen=True)
class Curve:
    """Forecast and observation at the names of the axis; `name` stands at the end of the line."""

    points: Compared
    name: str = ""


@dataclass(frozen=True)
class ZonedFigures:
    """Figures at the names of the axis and the zone in which they should lie.

    Attributes:
        values: the figures; NaN where one is not known.
        low, high: ends of their intervals; NaN: none.
        zone: its ends.
        chance: what chance alone would give, as a dash; empty or NaN: not said.
    """

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    zone: tuple[float, float]
    chance: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len({len(self.values), len(self.low), len(self.high)}) > 1:
            raise ValueError("Expected values, low and high of one length.")

    def outside(self, index: int) -> bool:
        """Whether a known figure lies outside the zone."""
        value = self.values[index]
        return math.isfinite(value) and not self.zone[0] <= value <= self.zone[1]

    def surely_outside(self, index: int) -> bool:
        """Whether it lies outside by more than chance: its interval does not reach the zone, or it exceeds `chance`."""
        missed = self.low[index] > self.zone[1] or self.high[index] < self.zone[0]
        no_interval = math.isnan(self.low[index])
        by_chance = bool(self.chance) and self.values[index] <= self.chance[index]
        return self.outside(index) and (missed or no_interval) and not by_chance


def said(sentence: str, *, width: float) -> str:
    """A sentence where there is nothing to draw."""
    lines: list[str] = []
    for word in sentence.split(" "):
        if lines and text_width(f"{lines[-1]} {word}") <= width - 4:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    parts = [text_at(2, 14 + 16 * i, text) for i, text in enumerate(lines)]
    return drawing(width, 22 + 16 * (len(lines) - 1), sentence, parts)


def curves_with_dots(
    curves: Sequence[Curve], names: Sequence[str], *, width: float, label: str, height: float = 190, nothing: str
) -> str:
    """Forecast lines and observed dots at evenly spaced names.

    Args:
        curves: one point a name each.
        names: of the horizontal axis.
        width: at which the chart will be shown.
        label: sentence for those who cannot see it.
        height: of the chart.
        nothing: sentence that is drawn instead where nothing was observed.
    """
    seen = [v for c in curves for v in _drawn(c.points)]
    if not any(c.points.known.any() for c in curves):
        return said(nothing, width=width)
    ticks = nice_ticks(max(seen), low=min(seen) if min(seen) > 0.5 else 0.0)
    write = _per_cent_tick(ticks)
    room = max(text_width(c.name, 11.5) for c in curves)
    frame = _Frame.around(names, [write(tick) for tick in ticks], right=width - _RIGHT - room)
    y = Scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
    parts = _axes(frame, y, names, ticks=ticks, write=write)
    for curve in curves:
        parts += _curve(curve.points, frame.places, y, names)
    return drawing(width, height, label, [*parts, *_line_names(curves, y, frame.right + 6)])


def reliability_with_intervals(
    points: Compared, *, width: float, label: str, axes: tuple[str, str], height: float = 240, nothing: str
) -> str:
    """Stated against observed probability with intervals; both axes are stretched near 0 (square root).

    Args:
        points: bins of the forecast.
        width: at which the chart will be shown.
        label: sentence for those who cannot see it.
        axes: what stands on the horizontal and on the vertical one.
        height: of the chart.
        nothing: sentence that is drawn instead where nothing was observed.
    """
    if not points.known.any():
        return said(nothing, width=width)
    largest = next(t for t in _STRETCHED[1:] if t >= min(max(_drawn(points)), 1.0))
    x = Scale(0.0, math.sqrt(largest), _LEFT, width - _RIGHT)
    y = Scale(0.0, math.sqrt(largest), height - 40, _TOP + 10)
    parts = [text_at(2, 11, axes[1]), text_at(width - _RIGHT, height - 4, axes[0], text_anchor="end")]
    parts += _stretched_axes(x, y, largest)
    parts.append(line(x.start, y.start, x.end, y.end, stroke=colour("soft"), stroke_dasharray="3 4"))
    for i in _known(points):
        at = x(math.sqrt(points.forecast[i]))
        ends = (y(math.sqrt(points.low[i])), y(math.sqrt(min(points.high[i], largest))))
        title = _tip(f"stated {format_share(points.forecast[i])}", points, i)
        parts += _dot(at, y(math.sqrt(points.observed[i])), ends, ring=not points.inside[i], title=title)
    return drawing(width, height, label, parts)


def zoned_dots(
    figures: ZonedFigures,
    names: Sequence[str],
    *,
    width: float,
    label: str,
    write: Callable[[float], str],
    nothing: str,
    height: float = 130,
) -> str:
    """Figures at evenly spaced names beside the zone in which they should lie; those outside by more than chance are rings.

    Args:
        figures: one a name.
        names: of the horizontal axis.
        width: at which the chart will be shown.
        label: sentence for those who cannot see it.
        write: how a figure is written.
        nothing: sentence that is drawn instead where no figure is known.
        height: of the chart.
    """
    known = [v for v in figures.values if math.isfinite(v)]
    if not known:
        return said(nothing, width=width)
    lowest, highest = min(*known, figures.zone[0]), max(*known, figures.zone[1])
    span = highest - lowest
    # A whisker may run out of the picture: one wide interval must not flatten everything else.
    ends = [v for v in (*figures.low, *figures.high) if math.isfinite(v)]
    lowest = min(lowest, *(max(v, lowest - span) for v in ends), lowest)
    highest = max(highest, *(min(v, highest + span) for v in ends), highest)
    ticks = nice_ticks(highest, low=lowest, about=3)
    frame = _Frame.around(names, [write(tick) for tick in ticks], right=width - _RIGHT)
    x, y = frame.places, Scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
    zone = [y.clamp(end) for end in figures.zone]
    box = {"x": frame.left, "y": zone[1], "width": frame.right - frame.left, "height": zone[0] - zone[1]}
    parts = [tag("rect", **box, fill=colour("allowed"))]
    parts += _axes(frame, y, names, ticks=ticks, write=write)
    for i, value in enumerate(figures.chance):
        if math.isfinite(value):
            parts.append(
                line(x[i] - 8, y.clamp(value), x[i] + 8, y.clamp(value), stroke=colour("soft"), stroke_width=2)
            )
    for i, value in enumerate(figures.values):
        if not math.isfinite(value):
            continue
        bounds = (figures.low[i], figures.high[i])
        has_interval = all(math.isfinite(b) for b in bounds)
        whisker = (y.clamp(bounds[0]), y.clamp(bounds[1])) if has_interval else None
        interval = f" [{write(bounds[0])}, {write(bounds[1])}]" if has_interval else ""
        title = f"{names[i]}: {write(value)}{interval}"
        parts += _dot(x[i], y(value), whisker, ring=figures.surely_outside(i), title=title)
    return drawing(width, height, label, parts)


def _drawn(points: Compared) -> list[float]:
    """Everything of these points that a chart must have room for."""
    values = [*points.forecast, *points.observed, *points.low, *points.high]
    return [float(v) for v in values if math.isfinite(v)]


def _known(points: Compared) -> list[int]:
    return [i for i, known in enumerate(points.known) if known]


@dataclass(frozen=True)
class _Frame:
    """Where a chart with named places begins and ends, and the places."""

    left: float
    right: float
    places: tuple[float, ...]

    @classmethod
    def around(cls, names: Sequence[str], ticks: Sequence[str], *, right: float) -> _Frame:
        """Leaves room for the values on the left, and for half of the last name on the right."""
        left = max(_LEFT, max(map(text_width, ticks)) + 4)
        end = right - max(_END, text_width(names[-1]) / 2)
        steps = max(len(names) - 1, 1)
        span = end - left - _START
        return cls(left, right, tuple(end - span * (len(names) - 1 - i) / steps for i in range(len(names))))


def _axes(
    frame: _Frame, y: Scale, names: Sequence[str], *, ticks: Sequence[float], write: Callable[[float], str]
) -> list[str]:
    parts, places = [], frame.places
    for tick in ticks:
        stroke = colour("line" if tick == ticks[0] else "grid")
        parts.append(line(frame.left, y(tick), frame.right, y(tick), stroke=stroke))
        parts.append(text_at(frame.left - 6, y(tick) + 4, write(tick), text_anchor="end"))
    # Counted from the last name, which matters most and so is never left out.
    room = (places[-1] - places[0]) / max(len(places) - 1, 1)
    every = max(1, math.ceil((max(map(text_width, names)) + 6) / room)) if room else 1
    for i in range(len(names) - 1, -1, -every):
        parts.append(text_at(places[i], y.start + 17, names[i], text_anchor="middle"))
    return parts


def _stretched_axes(x: Scale, y: Scale, largest: float) -> list[str]:
    """From the largest tick down, leaving out those without room."""
    parts, last_x, last_y = [], math.inf, -math.inf
    for tick in (t for t in reversed(_STRETCHED) if t <= largest):
        at_x, at_y, text = x(math.sqrt(tick)), y(math.sqrt(tick)), format_share(tick, 0)
        parts.append(line(x.start, at_y, x.end, at_y, stroke=colour("line" if tick == 0 else "grid")))
        if at_y - last_y >= 15:
            parts.append(text_at(x.start - 6, at_y + 4, text, text_anchor="end"))
            last_y = at_y
        if last_x - at_x >= 38 or math.isinf(last_x):
            anchor = "end" if tick == largest else "middle"
            parts.append(text_at(at_x, y.start + 16, text, text_anchor=anchor))
            last_x = at_x - (12 if tick == largest else 0)
    return parts


def _per_cent_tick(ticks: Sequence[float]) -> Callable[[float], str]:
    """As many decimals as the ticks need, the same for all."""
    step = 100 * (ticks[1] - ticks[0])
    digits = next((d for d in (0, 1, 2) if abs(step - round(step, d)) < 1e-9), 2)
    return lambda tick: format_number(100 * tick, digits) + NO_BREAK_SPACE + "%"


def _curve(points: Compared, x: Sequence[float], y: Scale, names: Sequence[str]) -> list[str]:
    path = path_through([(at, y(v)) for at, v in zip(x, points.forecast, strict=True) if math.isfinite(v)])
    parts = [tag("path", d=path or "M0,0", fill="none", stroke=colour("ours"), stroke_width=1.8)]
    for i in _known(points):
        title = _tip(f"{names[i]}: forecast {format_share(points.forecast[i])}", points, i)
        ends = (y(points.low[i]), y(points.high[i]))
        parts += _dot(x[i], y(points.observed[i]), ends, ring=not points.inside[i], title=title)
    return parts


def _line_names(curves: Sequence[Curve], y: Scale, left: float) -> list[str]:
    """Names at the ends of their lines, moved apart where lines end close together."""
    named = [(y(float(c.points.forecast[-1])), c.name) for c in curves if c.name and c.points.known.any()]
    parts, last = [], -1e9
    order = sorted((at, name) for at, name in named if math.isfinite(at))
    highest = y.start - 14 * len(order)
    for i, (at, name) in enumerate(order):
        last = max(min(at, highest + 14 * (i + 1)), last + 14)
        parts.append(text_at(left, last + 4, name, font_size=11.5, fill=colour("ink")))
    return parts


def _tip(forecast: str, points: Compared, index: int) -> str:
    ends = f"{format_share(points.low[index])} to {format_share(points.high[index])}"
    observed = f"observed {format_share(points.observed[index])} ({ends})"
    return f"{forecast}, {observed}, {format_count(points.count[index])} cases"


def _dot(x: float, y: float, ends: tuple[float, float] | None, *, ring: bool, title: str) -> list[str]:
    ink = colour("bad" if ring else "ink")
    parts = []
    if ends is not None:
        d = f"M{number(x)},{number(ends[0])}V{number(ends[1])}"
        # Drawn twice: a wide line of the ground colour keeps the whisker visible on the line of the forecast.
        parts.append(tag("path", d=d, fill="none", stroke=colour("ground"), stroke_width=4.0))
        parts.append(tag("path", d=d, fill="none", stroke=ink, stroke_width=1.4))
    style: dict[str, Attribute] = {"fill": colour("ground") if ring else ink, "stroke": ink, "stroke_width": 1.5}
    return [*parts, tag("circle", tag("title", escape(title)), cx=x, cy=y, r=3.2, **style)]
