"""Tables whose figures are drawn as bars: one row a name, one column a case, one bar a series.

All bars share one scale, so that rows and columns can be compared; each bar carries its figure, so that no axis is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.svg import Attribute, Scale, colour, drawing, line, shorten, tag, text_at, text_width

_BAR, _HEAD, _LEGEND = 13.0, 24.0, 24.0
_FIGURE = 46.0
COLOURS = ("ours", "other")


@dataclass(frozen=True)
class BarRow:
    """A name and its values: one tuple a column, one value a series in it; None where there is none."""

    name: str
    values: tuple[tuple[float | None, ...], ...]


def bar_table(
    rows: Sequence[BarRow],
    columns: Sequence[str],
    *,
    series: Sequence[str],
    width: float,
    label: str,
    write: Callable[[float], str],
) -> str:
    """Rows of horizontal bars from 0.

    Args:
        rows: in the order in which they are drawn.
        columns: heads of the columns.
        series: names of the bars of a case, ours first, at most two; with one series no legend is drawn.
        width: at which the table will be shown.
        label: sentence for those who cannot see it.
        write: how a figure is written.
    """
    _check(rows, columns, series)
    left = min(0.36 * width, max((text_width(row.name) for row in rows), default=0.0) + 12)
    wide = (width - left) / max(len(columns), 1)
    largest = max((v for row in rows for case in row.values for v in case if _is_known(v)), default=0.0) or 1.0  # type: ignore[type-var]
    scales = [Scale(0, largest, left + i * wide, left + (i + 1) * wide - _FIGURE - 12) for i in range(len(columns))]
    top = _LEGEND if len(series) > 1 else 0.0
    height = len(series) * _BAR + 9
    bottom = top + _HEAD + height * len(rows)
    parts = _legend(series) if len(series) > 1 else []
    for scale, head in zip(scales, columns, strict=True):
        parts.append(text_at(scale.start, top + 14, shorten(head, wide), fill=colour("ink"), font_weight="700"))
        parts.append(line(scale.start, top + _HEAD - 4, scale.start, bottom - 3))
    for index, row in enumerate(rows):
        parts += _row(row, scales, top=top + _HEAD + index * height, left=left, write=write)
    return drawing(width, bottom, label, parts)


def _row(row: BarRow, scales: Sequence[Scale], *, top: float, left: float, write: Callable[[float], str]) -> list[str]:
    tall = len(row.values[0]) * _BAR if row.values else _BAR
    parts = [text_at(left - 8, top + tall / 2 + 4, shorten(row.name, left - 8), text_anchor="end", fill=colour("ink"))]
    for scale, case in zip(scales, row.values, strict=True):
        for index, value in enumerate(case):
            parts += _bar(value, scale, index, top=top + index * _BAR, write=write)
    return parts


def _bar(value: float | None, scale: Scale, index: int, *, top: float, write: Callable[[float], str]) -> list[str]:
    strong: dict[str, Attribute] = {"font_size": 11.5}
    if index == 0:
        strong |= {"fill": colour("ink"), "font_weight": "700"}
    if value is None or not math.isfinite(value):
        return [text_at(scale.start + 5, top + 10.5, "–", **strong)]
    end = max(scale.clamp(value), scale.start)
    box = {"x": scale.start, "y": top + 1, "width": max(end - scale.start, 0.8), "height": _BAR - 2}
    bar = tag("rect", **box, rx=1.5, fill=colour(COLOURS[index]))
    return [bar, text_at(end + 5, top + 10.5, write(value), **strong)]


def _legend(series: Sequence[str]) -> list[str]:
    parts, x = [], 2.0
    for name, fill in zip(series, COLOURS, strict=False):
        parts.append(tag("rect", x=x, y=2, width=12, height=11, rx=1.5, fill=colour(fill)))
        parts.append(text_at(x + 18, 12, name, fill=colour("ink")))
        x += 18 + text_width(name) + 22
    return parts


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _check(rows: Sequence[BarRow], columns: Sequence[str], series: Sequence[str]) -> None:
    if not 1 <= len(series) <= len(COLOURS):
        raise ValueError(f"Expected one or two series, got {len(series)}.")
    for row in rows:
        if [len(case) for case in row.values] != [len(series)] * len(columns):
            raise ValueError(
                f"Expected {len(columns)} cases of {len(series)} values in row {row.name!r}, got {row.values!r}."
            )
