"""Charts of values as SVG text: bars with their intervals, reliability of probabilities, a line without axes.

Every chart takes the `width` at which it will be shown, because text must not shrink with the picture, and carries a
sentence that states its result for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.quantities import Estimate, format_count, format_number, format_share
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
    shorten,
    tag,
    text_at,
    text_width,
)

_LEFT, _TOP = 46.0, 22.0


@dataclass(frozen=True)
class Bar:
    """One bar; `ours` stands out, a `bound` is dashed."""

    name: str
    estimate: Estimate
    ours: bool = False
    bound: bool = False


@dataclass(frozen=True)
class ReliabilityPoint:
    """Among `count` statements of probability `stated`, the share `observed` came true."""

    stated: float
    observed: float
    count: float


def bars_with_whiskers(bars: Sequence[Bar], *, width: float, label: str) -> str:
    """Horizontal bars of shares with their intervals; names stand beside the bars, above them when narrow."""
    beside = width >= 500
    left = min(0.36 * width, max((text_width(b.name) for b in bars), default=0) + 8) if beside else 4.0
    room = left - 8 if beside else width - 8
    row = 27.0 if beside else 42.0
    lows = [b.estimate.low if b.estimate.low is not None else b.estimate.value for b in bars]
    highs = [b.estimate.high if b.estimate.high is not None else b.estimate.value for b in bars]
    lowest, highest = min(0.0, *lows, 0.0), max(1.0, *highs, 0.0)
    x = Scale(lowest, highest, left, width - 62)
    ticks = [t for t in nice_ticks(highest, low=lowest, about=5) if lowest <= t <= highest]
    bottom = 4 + row * len(bars)
    parts = []
    for tick in ticks:
        parts.append(line(x(tick), 0, x(tick), bottom, stroke=colour("line" if tick == 0 else "grid")))
        anchor = "start" if not beside and x(tick) < 16 else "middle"
        parts.append(text_at(x(tick), bottom + 16, format_share(tick, 0), text_anchor=anchor))
    for i, bar in enumerate(bars):
        parts += _bar(bar, shorten(bar.name, room), x, top=4 + i * row, beside=beside)
    return drawing(width, bottom + 24, label, parts)


def reliability(
    points: Sequence[ReliabilityPoint],
    *,
    width: float,
    label: str,
    horizontal: str,
    vertical: str,
    radius: float = 9.0,
) -> str:
    """Stated against observed probability; on the diagonal both agree, the area of a dot grows with its count."""
    height = min(0.78 * width, 300.0)
    x, y = Scale(0, 1, _LEFT, width - 12), Scale(0, 1, height - 44, _TOP)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        text = format_share(tick, 0)
        parts.append(line(_LEFT, y(tick), width - 12, y(tick), stroke=colour("grid")))
        parts.append(text_at(_LEFT - 6, y(tick) + 4, text, text_anchor="end"))
        if width >= 300 or tick in (0, 0.5, 1):
            parts.append(text_at(x(tick), height - 27, text, text_anchor="end" if tick == 1 else "middle"))
    parts.append(line(x(0), y(0), x(1), y(1), stroke=colour("soft"), stroke_dasharray="3 4"))
    parts.append(text_at(2, 12, vertical))
    parts.append(text_at(width - 12, height - 7, horizontal, text_anchor="end"))
    known = [p for p in points if p.count > 0]
    largest = max((p.count for p in known), default=1.0)
    path = path_through([(x.clamp(p.stated), y.clamp(p.observed)) for p in known])
    parts.append(tag("path", d=path or "M0,0", fill="none", stroke=colour("ours"), stroke_width=1.4))
    for p in known:
        parts.append(_reliability_dot(p, x, y, 2.5 + (radius - 2.5) * math.sqrt(p.count / largest)))
    return drawing(width, height, f"{label}: {reliability_sentence(points)}", parts)


def reliability_sentence(points: Sequence[ReliabilityPoint]) -> str:
    """The gap between stated and observed, weighted by count."""
    total = sum(p.count for p in points)
    if not total:
        return "nothing was observed yet."
    gap = sum(p.count * abs(p.observed - p.stated) for p in points) / total
    return f"stated and observed differ by {format_number(100 * gap, 1)} points on average."


def split_bar(parts: Sequence[float], colours: Sequence[str], *, label: str, width: float = 150) -> str:
    """One bar cut into shares, for a table cell; `colours` are palette names."""
    total, left, height = sum(parts), 0.0, 14.0
    pieces = []
    for value, name in zip(parts, colours, strict=True):
        wide = width * value / total if total > 0 else 0.0
        if wide >= 0.5:
            gap = 1.0 if wide > 3 else 0.0
            pieces.append(tag("rect", x=left, width=wide - gap, height=height, fill=colour(name)))
        left += wide
    return drawing(width, height, label, pieces or [tag("rect", width=width, height=height, fill=colour("grid"))])


def sparkline(
    values: Sequence[float], *, low: float, high: float, label: str, width: float = 120, height: float = 24
) -> str:
    """A line without axes on a fixed scale, so that noise is not magnified."""
    x = Scale(0, max(1, len(values) - 1), 2, width - 4)
    y = Scale(low, high, height - 3, 3)
    points = [(x(i), y.clamp(v)) for i, v in enumerate(values) if math.isfinite(v)]
    parts = [tag("path", d=path_through(points) or "M0,0", fill="none", stroke=colour("ours"), stroke_width=1.5)]
    if points:
        parts.append(tag("circle", cx=points[-1][0], cy=points[-1][1], r=2.2, fill=colour("ours")))
    return drawing(width, height, label, parts)


def _bar(bar: Bar, name: str, x: Scale, *, top: float, beside: bool) -> list[str]:
    weight = "700" if bar.ours else "400"
    ink = colour("ink" if bar.ours else "soft")
    strong: dict[str, Attribute] = {"fill": ink, "font_weight": weight}
    left, base, anchor = (x.start - 8, top + 15, "end") if beside else (4.0, top + 12, "start")
    parts = [tag("text", escape(name), x=left, y=base, text_anchor=anchor, font_size=12, **strong)]
    middle = top + (10.5 if beside else 26.5)
    start, end = sorted((x(0), x(bar.estimate.value)))
    box = {"x": start, "y": middle - 8, "width": max(1.0, end - start), "height": 16}
    if bar.bound:
        parts.append(tag("rect", **box, fill="none", stroke=colour("soft"), stroke_dasharray="4 3"))
    else:
        parts.append(tag("rect", **box, rx=1.5, fill=colour("ours" if bar.ours else "other")))
    right = end
    if bar.estimate.low is not None and bar.estimate.high is not None and not bar.bound:
        low, high = x(bar.estimate.low), x(bar.estimate.high)
        parts.append(_whisker(low, high, middle))
        right = max(end, high)
    share = format_share(bar.estimate.value, 0)
    return [*parts, tag("text", share, x=right + 7, y=middle + 4.5, font_size=12, **strong)]


def _whisker(low: float, high: float, y: float) -> str:
    ends = "".join(f"M{number(e)},{number(y - 4)}v8" for e in (low, high))
    d = f"M{number(low)},{number(y)}H{number(high)}{ends}"
    # Drawn twice: a wide line of the ground colour keeps the whisker visible on its own bar.
    halo = tag("path", d=d, fill="none", stroke=colour("ground"), stroke_width=3.6)
    return halo + tag("path", d=d, fill="none", stroke=colour("ink"), stroke_width=1.3)


def _reliability_dot(point: ReliabilityPoint, x: Scale, y: Scale, radius: float) -> str:
    title = (
        f"stated {format_share(point.stated, 0)}, observed {format_share(point.observed, 0)}, "
        f"{format_count(point.count)} cases"
    )
    at = {"cx": x.clamp(point.stated), "cy": y.clamp(point.observed), "r": radius}
    return tag("circle", tag("title", escape(title)), **at, fill=colour("ours"), stroke=colour("ground"))
