"""Numbers as text: one way to write each kind of quantity, so that a figure shown twice reads the same.

A number and its unit are joined by a no-break space, a minus is the real sign, thousands are split by commas, bytes
are decimal (1 kB = 1,000 B). What is not known (None, NaN) reads as a dash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

NO_BREAK_SPACE = "\u00a0"
UNKNOWN = "–"

_BYTE_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")

_AFTER_NUMBER = re.compile(r"(?<=\d) (?=(?:%|[kMGTP]?B|ms|min|h|s|k|M|points|UTC)(?![\w]))")
_BEFORE_NUMBER = re.compile(r"(?<=[€$£]) (?=\d)")

Kind = Literal["bytes", "count", "milliseconds", "money", "score", "share"]
"""The kinds of quantity that `format_quantity` and `format_change` can write."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; `low` and `high` are None where no interval is known."""

    value: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"Expected both ends of the interval or none, got {self.low!r} and {self.high!r}.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Expected low <= high, got {self.low!r} and {self.high!r}.")


def clean_text(text: str) -> str:
    """Names from data may hold control characters, which no SVG or HTML document may contain."""
    return _CONTROL.sub(" ", text).strip()


def bind_units(text: str) -> str:
    """The sentence with no-break spaces between its numbers and their units or currency signs."""
    return _BEFORE_NUMBER.sub(NO_BREAK_SPACE, _AFTER_NUMBER.sub(NO_BREAK_SPACE, text))


def format_number(value: float | None, digits: int = 0) -> str:
    """`digits` decimals, commas between thousands, a real minus, and no negative zero."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def format_counted(number: int, noun: str) -> str:
    """`1 place`, `12 places`."""
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def significant_digits(value: float, significant: int = 3) -> int:
    """Decimals that show `value` with about this many significant digits: 9.87, 98.7, 987."""
    if not math.isfinite(value) or value == 0:
        return 0
    return max(0, significant - 1 - math.floor(math.log10(abs(value))))


def byte_unit(values: Sequence[float]) -> str:
    """The unit in which the largest of these values reads between 1 and 1,000."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return next((u for u in reversed(_BYTE_UNITS) if largest >= _BYTE_UNITS[u]), "B")


def in_unit(value_bytes: float, unit: str) -> float:
    """Bytes in the unit named."""
    if unit not in _BYTE_UNITS:
        raise ValueError(f"Unknown byte unit {unit!r}; expected one of {', '.join(_BYTE_UNITS)}.")
    return value_bytes / _BYTE_UNITS[unit]


def format_bytes(value: float | None, unit: str | None = None) -> str:
    """Bytes with three significant digits: `38.4 GB`; with `unit`, at most two decimals in that unit."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    unit = unit or byte_unit([value])
    scaled = in_unit(value, unit)
    digits = 0 if unit == "B" else min(2, significant_digits(scaled))
    return format_number(scaled, digits) + NO_BREAK_SPACE + unit


def format_count(value: float | None) -> str:
    """`4,120`, `812 k`, `4.10 M`: whole numbers stay whole below ten thousand."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for size, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if name == "k" else size)
            return format_number(scaled, min(2, significant_digits(scaled))) + NO_BREAK_SPACE + name
    return format_number(value, 0 if float(value).is_integer() else 1)


def format_share(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] in per cent: `41.2 %`; a second decimal below one per cent."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    digits = 2 if digits == 1 and 0 < abs(value) < 0.01 else digits
    return format_number(100 * value, digits) + NO_BREAK_SPACE + "%"


def format_money(value: float | None, currency: str = "€") -> str:
    """`€ 1,744`; cents below one hundred."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    value = round_money(value)
    sign = "−" if value < 0 else ""
    return sign + currency + NO_BREAK_SPACE + format_number(abs(value), 0 if abs(value) >= 100 else 2)


def round_money(value: float) -> float:
    """The sum as it is written: whole from one hundred up, cents below."""
    return round(value, 0 if abs(value) >= 100 else 2)


def format_milliseconds(value: float | None) -> str:
    """`86 ms`; one decimal below ten."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return format_number(value, 0 if abs(value) >= 10 else 1) + NO_BREAK_SPACE + "ms"


def format_score(value: float | None, digits: int = 3) -> str:
    """A metric without unit."""
    return format_number(value, digits)


def format_quantity(value: float | None, kind: Kind, *, currency: str = "€") -> str:
    """The value in the way of its kind."""
    if kind == "money":
        return format_money(value, currency)
    writers: dict[str, Callable[[float | None], str]] = {
        "bytes": format_bytes,
        "count": format_count,
        "milliseconds": format_milliseconds,
        "score": format_score,
        "share": format_share,
    }
    return writers[kind](value)


def format_change(value: float | None, kind: Kind, *, size: float | None = None, currency: str = "€") -> str:
    """A difference with its sign, in the unit and decimals of values of `size`: `+1.4 points`, `−€ 68`, `+29 GB`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    unit, digits = _style(kind, abs(value if size is None else size), abs(value))
    text = format_number(abs(value) / unit.size, digits)
    sign = _sign(value, text)
    if kind == "money":
        return sign + currency + NO_BREAK_SPACE + text
    return sign + text + (NO_BREAK_SPACE + unit.name if unit.name else "")


def format_bounds(estimate: Estimate, kind: Kind, *, size: float | None = None, signed: bool = False) -> str:
    """The interval without unit, to stand beside its value of `size`: `[39.8, 41.9]`; empty where unknown."""
    if estimate.low is None or estimate.high is None:
        return ""
    unit, digits = _style(kind, abs(estimate.value if size is None else size), abs(estimate.value))
    texts = []
    for end in (estimate.low, estimate.high):
        text = format_number(abs(end) / unit.size, digits)
        sign = _sign(end, text)
        texts.append((sign if signed or sign == "−" else "") + text)
    return f"[{texts[0]},{NO_BREAK_SPACE}{texts[1]}]"


def format_instant(time_us: int, *, with_time: bool = True) -> str:
    """`8 March 2026, 06:12 UTC` for microseconds since 1970."""
    at = datetime.fromtimestamp(time_us / 1e6, tz=UTC)
    day = f"{at.day}{NO_BREAK_SPACE}{at:%B %Y}"
    return f"{day}, {at:%H:%M}{NO_BREAK_SPACE}UTC" if with_time else day


def round_to_total(values: Sequence[float], digits: int = 0) -> list[float]:
    """Largest-remainder rounding: the rounded values add up to the rounded total."""
    scale = 10**digits
    floors = [math.floor(v * scale) for v in values]
    missing = round(sum(values) * scale) - sum(floors)
    by_remainder = sorted(range(len(values)), key=lambda i: (floors[i] - values[i] * scale, i))
    for i in by_remainder[: max(0, missing)]:
        floors[i] += 1
    return [f / scale for f in floors]


def _sign(value: float, text: str) -> str:
    """No sign before a difference that is shown as zero."""
    if not re.search("[1-9]", text):
        return ""
    return "+" if value > 0 else "−"


class _Unit(NamedTuple):
    name: str
    size: float


def _style(kind: Kind, size: float, difference: float) -> tuple[_Unit, int]:
    """Unit and decimals of values of this size; more decimals where a small difference would read as zero."""
    if kind == "share":
        return _Unit("points", 0.01), 2 if 0 < size < 0.01 else 1
    if kind == "score":
        return _Unit("", 1.0), 3
    name, digits = "ms" if kind == "milliseconds" else "", {"money": 2, "milliseconds": 1}.get(kind, 0)
    unit = _Unit(name, 1.0)
    if kind == "bytes":
        name = byte_unit([size])
        unit = _Unit(name, _BYTE_UNITS[name])
        digits = min(2, significant_digits(size / unit.size))
    elif (kind == "money" and size >= 100) or (kind == "milliseconds" and size >= 10):
        digits = 0
    return unit, max(digits, min(2, significant_digits(difference / unit.size, 1)))
