"""Curves over time as SVG text: running totals of several methods from one start, each named at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.events import HOUR_US
from models.svg import (
    Attribute,
    Scale,
    colour,
    drawing,
    line,
    nice_ticks,
    path_through,
    shorten,
    tag,
    text_at,
    text_width,
)
from models.timeline import Timeline

_TOP, _BOTTOM, _LEFT, _LABEL_GAP = 22.0, 26.0, 56.0, 14.0


@dataclass(frozen=True)
class TotalCurve:
    """A running total at the end of each bin; `ours` stands out, a `bound` is dashed, `text` follows the name."""

    name: str
    values: tuple[float, ...]
    text: str = ""
    ours: bool = False
    bound: bool = False


def running_totals(
    curves: Sequence[TotalCurve],
    *,
    start_us: int,
    width: float,
    unit: str,
    label: str,
    write: Callable[[float], str],
    height: float = 250,
) -> str:
    """Curves that begin at zero, over hours from `start_us`; names and last figures stand to the right.

    Args:
        curves: in any order, all of one length, one bin at least.
        start_us: beginning of the first hour.
        width: at which the chart will be shown.
        unit: above the axis.
        label: sentence for those who cannot see it.
        write: how a tick is written.
        height: grows where the names would not fit.
    """
    bins = _bins(curves)
    height = max(height, _TOP + _BOTTOM + _LABEL_GAP * len(curves))
    seen = [v for curve in curves for v in curve.values if math.isfinite(v)]
    ticks = nice_ticks(max(seen, default=0.0), low=min(0.0, min(seen, default=0.0)))
    names = [_label(curve, width) for curve in curves]
    right = width - max(map(text_width, names)) - 12
    time = Timeline(start_us, bins, HOUR_US)
    x, y = time.scale(_LEFT, right), Scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
    parts = [text_at(2, 11, unit)]
    for tick in ticks:
        parts.append(line(_LEFT, y(tick), right, y(tick), stroke=colour("soft" if tick == 0 else "grid")))
        parts.append(text_at(_LEFT - 6, y(tick) + 4, write(tick), text_anchor="end"))
    parts += time.axis(_LEFT, right, top=_TOP, bottom=height - _BOTTOM)
    for curve in sorted(curves, key=lambda c: (c.ours, c.bound)):  # ours last, above the others
        points = [(x(0), y(0)), *((x(i + 1), y(v)) for i, v in enumerate(curve.values))]
        parts.append(tag("path", d=path_through(points), fill="none", **_stroke(curve)))
    ends = _spread([y(curve.values[-1]) for curve in curves], low=_TOP, high=height - _BOTTOM)
    for curve, name, end in zip(curves, names, ends, strict=True):
        strong: dict[str, Attribute] = {"fill": colour("ink"), "font_weight": "700"} if curve.ours else {}
        parts.append(text_at(right + 8, end + 4, name, **strong))
    return drawing(width, height, label, parts)


def _bins(curves: Sequence[TotalCurve]) -> int:
    lengths = {len(curve.values) for curve in curves}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Expected curves of one length > 0, one at least; got lengths {sorted(lengths)}.")
    return lengths.pop()


def _label(curve: TotalCurve, width: float) -> str:
    """The name with its last figure; a phone has room for the figure of ours alone."""
    wide = width > 500
    name = shorten(curve.name, (0.26 if wide or curve.ours else 0.36) * width)
    return f"{name} {curve.text}".rstrip() if wide or curve.ours else name


def _stroke(curve: TotalCurve) -> dict[str, Attribute]:
    if curve.ours:
        return {"stroke": colour("ours"), "stroke_width": 2.2}
    return {"stroke": colour("soft" if curve.bound else "other"), "stroke_dasharray": "5 4" if curve.bound else None}


def _spread(wanted: Sequence[float], *, low: float, high: float) -> list[float]:
    """The heights, moved apart until no two names touch, as near to their curves as that allows."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    placed = [0.0] * len(wanted)
    last = low - _LABEL_GAP
    for i in order:
        last = placed[i] = max(wanted[i], last + _LABEL_GAP)
    limit = high + _LABEL_GAP
    for i in reversed(order):
        limit = placed[i] = min(placed[i], limit - _LABEL_GAP)
    return placed
