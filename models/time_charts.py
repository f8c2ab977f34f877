"""Charts over time as SVG text: a forecast with its interval and outcome, bytes by cause as a stack.

With `tips`, a chart carries one line of text a bin (`data-tips`, joined by `|`) that a page's script may show under the
pointer; `data-left` and `data-right` are the pixels between which the bins lie.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.events import HOUR_US
from models.quantities import byte_unit, format_count, format_number, format_share, in_unit
from models.svg import (
    Attribute,
    Scale,
    colour,
    drawing,
    line,
    nice_ticks,
    number,
    path_through,
    stack_colour,
    tag,
    text_at,
)
from models.timeline import Timeline

_IDLE_DECIMALS = re.compile(r"\.0+(?!\d)")
_TOP, _BOTTOM, _LEFT = 22.0, 26.0, 46.0


@dataclass(frozen=True)
class BandSeries:
    """A forecast in equal bins with its interval, and what happened (NaN where nothing is known yet)."""

    start_us: int
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    actual: tuple[float, ...]
    step_us: int = HOUR_US

    def __post_init__(self) -> None:
        lengths = {len(self.mean), len(self.low), len(self.high), len(self.actual)}
        if lengths != {len(self.mean)} or not self.mean:
            raise ValueError(f"Expected mean, low, high and actual of one length > 0, got {sorted(lengths)}.")
        if not all(math.isfinite(v) for v in (*self.mean, *self.low, *self.high)):
            raise ValueError("Expected finite mean, low and high; only actual may be NaN, where nothing is known.")

    def is_miss(self, index: int) -> bool:
        """Whether what happened lies outside the interval."""
        value = self.actual[index]
        return not math.isnan(value) and not self.low[index] <= value <= self.high[index]

    @property
    def known(self) -> int:
        """Bins of which the outcome is known."""
        return sum(not math.isnan(a) for a in self.actual)

    @property
    def misses(self) -> int:
        """Bins whose outcome lies outside the interval."""
        return sum(self.is_miss(i) for i in range(len(self.actual)))

    def last(self, bins: int) -> BandSeries:
        """The last `bins` bins only."""
        skip = max(0, len(self.mean) - bins)
        return BandSeries(
            self.start_us + skip * self.step_us,
            self.mean[skip:],
            self.low[skip:],
            self.high[skip:],
            self.actual[skip:],
            self.step_us,
        )


@dataclass(frozen=True)
class StackedSeries:
    """Bytes by name and bin. `values[i][t]` belongs to `names[i]`."""

    start_us: int
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    step_us: int = HOUR_US
    ranks: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values) or len({len(v) for v in self.values}) > 1:
            raise ValueError("Expected one name for each row of values, and rows of one length.")
        order = sorted(range(len(self.names)), key=lambda i: (-sum(self.values[i]), i))
        object.__setattr__(self, "ranks", tuple(order.index(i) for i in range(len(order))))

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.values[0]) if self.values else 0

    @property
    def order(self) -> list[int]:
        """Row numbers, largest total first: from the bottom of the stack to its top."""
        return sorted(range(len(self.names)), key=lambda i: self.ranks[i])

    def merged(self, bins: int) -> StackedSeries:
        """Neighbouring bins added up until at most `bins` are left."""
        n = max(1, -(-self.bins // bins))
        n = next((k for k in (1, 2, 3, 4, 6, 8, 12, 24) if k >= n), -(-n // 24) * 24)
        values = tuple(tuple(sum(v[i : i + n]) for i in range(0, len(v), n)) for v in self.values)
        return StackedSeries(self.start_us, self.names, values, self.step_us * n)


def line_with_band(
    series: BandSeries, *, width: float, unit: str, label: str, height: float = 210, tips: bool = False
) -> str:
    """Forecast mean, its interval as a band, outcomes as dots, outcomes outside the interval hollow."""
    seen = [v for v in (*series.high, *series.actual, *series.mean) if math.isfinite(v)]
    ticks = nice_ticks(max(seen, default=1.0))
    time = Timeline(series.start_us, len(series.mean), series.step_us)
    x = time.scale(_LEFT, width - 4)
    y = Scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
    centre = [x(i + 0.5) for i in range(len(series.mean))]
    band = [*zip(centre, map(y, series.high), strict=True)]
    band += reversed([*zip(centre, map(y, series.low), strict=True)])
    parts = _value_axis(y, ticks, right=width - 4, unit=unit, write=_tick_count)
    parts += time.axis(_LEFT, width - 4, top=_TOP, bottom=height - _BOTTOM)
    parts.append(tag("path", d=path_through(band) + "Z", fill=colour("band")))
    mean = path_through([*zip(centre, map(y, series.mean), strict=True)])
    parts.append(tag("path", d=mean, fill="none", stroke=colour("ours"), stroke_width=1.6))
    parts += _outcomes(series, centre, y, radius=2.6 if width > 500 else 2.0)
    hover: dict[str, Attribute] = _hover(width, [_band_tip(series, time, i) for i in range(time.bins)]) if tips else {}
    statement = f"{label}: {outside_sentence(series.misses, series.known)}"
    return drawing(width, height, statement, parts, **hover)


def outside_sentence(misses: int, known: int, *, expected: float = 0.2) -> str:
    """`24 % outside the 80 % interval, 20 % expected (40 of 168 hours).`, or that nothing is known yet."""
    if not known:
        return "no outcome is known yet."
    level = format_share(1 - expected, 0)
    return (
        f"{format_share(misses / known, 0)} outside the {level} interval, {format_share(expected, 0)} expected "
        f"({format_number(misses)} of {format_number(known)})."
    )


def stacked_bars(series: StackedSeries, *, width: float, label: str, height: float = 230, tips: bool = False) -> str:
    """Bytes a bin by name, largest series at the bottom, gaps of background colour between."""
    shown = series.merged(int((width - _LEFT) / (4.8 if width > 500 else 3.6)))
    heights = [sum(column) for column in zip(*shown.values, strict=True)]
    unit = byte_unit(heights)
    ticks = nice_ticks(in_unit(max(heights, default=0.0), unit))
    time = Timeline(shown.start_us, max(1, shown.bins), shown.step_us)
    x = time.scale(_LEFT, width - 4)
    y = Scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
    hours = shown.step_us // HOUR_US
    axis_unit = f"{unit} an hour" if hours <= 1 else f"{unit} in {hours} hours"
    parts = time.axis(_LEFT, width - 4, top=_TOP, bottom=height - _BOTTOM)
    parts += _value_axis(y, ticks, right=width - 4, unit=axis_unit, write=_tick_text)
    base = [0.0] * shown.bins
    for row in shown.order:
        values = [in_unit(v, unit) for v in shown.values[row]]
        path = "".join(_block(x, y, i, b, v) for i, (b, v) in enumerate(zip(base, values, strict=True)))
        parts.append(tag("path", d=path or "M0,0", fill=stack_colour(series.ranks[row])))
        base = [b + v for b, v in zip(base, values, strict=True)]
    hover: dict[str, Attribute] = (
        _hover(width, [_stack_tip(shown, time, i, unit) for i in range(shown.bins)]) if tips else {}
    )
    return drawing(width, height, label, parts, **hover)


def _tick_count(value: float) -> str:
    """A round count without idle decimals: `30 k`, not `30.0 k`."""
    return _IDLE_DECIMALS.sub("", format_count(value))


def _tick_text(value: float) -> str:
    return format_number(value, 0 if float(value).is_integer() else 1 if float(10 * value).is_integer() else 2)


def _value_axis(
    y: Scale, ticks: Sequence[float], *, right: float, unit: str, write: Callable[[float], str]
) -> list[str]:
    """Faint horizontals with their values, the unit once above."""
    parts = [text_at(2, 11, unit)]
    for tick in ticks:
        parts.append(line(_LEFT, y(tick), right, y(tick), stroke=colour("line" if tick == 0 else "grid")))
        parts.append(text_at(_LEFT - 6, y(tick) + 4, write(tick), text_anchor="end"))
    return parts


def _outcomes(series: BandSeries, centre: Sequence[float], y: Scale, *, radius: float) -> list[str]:
    """Dots inside the interval as one path of points, since there are many; rings outside."""
    inside, rings = [], []
    for i, value in enumerate(series.actual):
        if math.isnan(value):
            continue
        if series.is_miss(i):
            rings.append(tag("circle", cx=centre[i], cy=y(value), r=radius))
        else:
            inside.append(f"M{number(centre[i])},{number(y(value))}h0")
    dots = tag(
        "path",
        d="".join(inside) or "M0,0",
        stroke=colour("ink"),
        stroke_width=1.5 * radius,
        stroke_linecap="round",
    )
    return [dots, tag("g", *rings, fill=colour("ground"), stroke=colour("bad"), stroke_width=1.5)]


def _block(x: Scale, y: Scale, index: int, base: float, value: float) -> str:
    """One part of one bar; its upper edge gives way to the gap unless the part is too thin."""
    tall = y(base) - y(base + value)
    if tall < 0.05:
        return ""
    wide = x(index + 1) - x(index)
    wide -= 1 if wide > 4 else 0.4
    tall -= 0.8 if tall > 1.8 else 0
    start = f"M{number(x(index))},{number(y(base))}"
    return f"{start}h{number(wide)}v{number(-tall)}h{number(-wide)}z"


def _hover(width: float, tips: Sequence[str]) -> dict[str, Attribute]:
    text = "|".join(t.replace("|", "/") for t in tips)
    return {"data_tips": text, "data_left": _LEFT, "data_right": width - 4, "tabindex": 0.0}


def _band_tip(series: BandSeries, time: Timeline, index: int) -> str:
    low, high = format_count(series.low[index]), format_count(series.high[index])
    actual = series.actual[index]
    happened = "" if math.isnan(actual) else f"; actual {format_count(actual)}"
    outside = " (outside)" if series.is_miss(index) else ""
    expected = f"{format_count(series.mean[index])}, 80 %: {low} to {high}"
    return f"{time.instant_text(index)}: {expected}{happened}{outside}"


def _stack_tip(series: StackedSeries, time: Timeline, index: int, unit: str) -> str:
    column = [in_unit(row[index], unit) for row in series.values]
    worst = max(range(len(column)), key=lambda i: column[i])
    return (
        f"{time.instant_text(index)}: {format_number(sum(column), 1)} {unit}, "
        f"{format_number(column[worst], 1)} of it {series.names[worst]}"
    )
