"""SVG as text: escaped elements, colours as CSS variables with a light fallback, and axes.

A drawing carries no style sheet. It names colours as `var(--ink, #17212b)`: the page that shows it may set the
variables (`palette_css`), for dark mode too, and an image that no page can reach gets them written in
(`with_light_palette`).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.quantities import clean_text

_COLOURS = {
    # name: (light, dark)
    "ink": ("#17212b", "#e8edf2"),
    "soft": ("#4c5a67", "#aab6c2"),
    "line": ("#d5dbe1", "#3a4651"),
    "grid": ("#e8ecef", "#2b353e"),
    "ground": ("#ffffff", "#151c22"),
    "panel": ("#f3f5f7", "#1e272f"),
    "land": ("#e1e5ea", "#323e49"),
    "ours": ("#00609e", "#5ab4f0"),
    "band": ("#cfe3f2", "#20455f"),
    "other": ("#949ca5", "#7d8893"),
    "good": ("#00724f", "#45c797"),
    "bad": ("#b23a05", "#ff9466"),
    "warn": ("#805600", "#e8b95a"),
    "allowed": ("#f6e6cd", "#4a3a1c"),
    # The stack alternates dark and light, so that neighbours differ without colour vision and in grey.
    "stack-0": ("#004f86", "#3f8fd2"),
    "stack-1": ("#f2a72e", "#ffcf85"),
    "stack-2": ("#a2370e", "#cf5c33"),
    "stack-3": ("#73c0ef", "#b5e1ff"),
    "stack-4": ("#005c44", "#219273"),
    "stack-5": ("#e2a1cb", "#f5cbe4"),
    "stack-6": ("#59636d", "#7f8b97"),
}
Attribute = str | float | None
"""Value of an attribute; None leaves it out."""

STACK_SIZE = 7
"""Colours in the stack; further series share the last one, so callers should join them."""

_VARIABLE = re.compile(r"var\(--[a-z0-9-]+, (#[0-9a-f]{6})\)")


def colour(name: str) -> str:
    """The CSS variable of a palette colour, with its light value as fallback."""
    return f"var(--{name}, {_COLOURS[name][0]})"


def stack_colour(rank: int) -> str:
    """Colour of the series with this rank, 0 at the bottom of the stack."""
    return colour(f"stack-{min(rank, STACK_SIZE - 1)}")


def palette_css() -> str:
    """Style sheet that sets the variables: light, dark where the reader prefers it, `data-theme` to force one."""
    light, dark = (";".join(f"--{n}:{c[i]}" for n, c in _COLOURS.items()) for i in (0, 1))
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}"
        f":root[data-theme=light]{{color-scheme:light}}:root[data-theme=dark]{{color-scheme:dark;{dark}}}"
    )


def with_light_palette(svg: str) -> str:
    """The drawing with its light colours written in, for viewers that resolve no variables."""
    return _VARIABLE.sub(r"\1", svg)


def escape(text: str) -> str:
    """Text from data made safe as element content and as attribute value."""
    return html.escape(clean_text(text), quote=True)


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def tag(name: str, *children: str, **attributes: Attribute) -> str:
    """An element; `children` are markup, attribute values are escaped, `_` in a name stands for `-`."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            written = escape(value) if isinstance(value, str) else number(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{written}"')
    opening = " ".join(parts)
    return f"<{opening}>{''.join(children)}</{name}>" if children else f"<{opening}/>"


def text_at(x: float, y: float, text: str, **attributes: Attribute) -> str:
    """Escaped text at a point; 12 px and quiet unless told."""
    settings: dict[str, Attribute] = {"fill": colour("soft"), "font_size": 12, **attributes}
    return tag("text", escape(text), x=x, y=y, **settings)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: Attribute) -> str:
    """A straight line, quiet unless told."""
    settings: dict[str, Attribute] = {"stroke": colour("line"), **attributes}
    return tag("path", d=f"M{number(x1)},{number(y1)}L{number(x2)},{number(y2)}", fill="none", **settings)


def drawing(width: float, height: float, statement: str, parts: Sequence[str], **attributes: Attribute) -> str:
    """The whole picture; `statement` is the sentence that a screen reader says instead of it."""
    return tag(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=statement,
        **attributes,
    )


def path_through(points: Sequence[tuple[float, float]]) -> str:
    """Path data of straight lines through the points; empty without points."""
    return "M" + "L".join(f"{number(x)},{number(y)}" for x, y in points) if points else ""


def text_width(text: str, font_size: float = 12) -> float:
    """Rough width in pixels, on the wide side, for placing labels."""
    return 0.6 * font_size * len(text)


def shorten(text: str, width: float, font_size: float = 12) -> str:
    """The text, cut with an ellipsis where it would exceed `width` pixels."""
    text = clean_text(text)
    room = max(1, int(width / (0.6 * font_size)))
    return text if len(text) <= room else text[: room - 1].rstrip() + "…"


@dataclass(frozen=True)
class Scale:
    """Linear map from [low, high] in data to [start, end] in pixels."""

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"Expected high > low, got {self.low!r} and {self.high!r}.")

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clamp(self, value: float) -> float:
        """As called, but values outside land on the nearer end."""
        return self(min(max(value, self.low), self.high))


def nice_ticks(high: float, *, low: float = 0.0, about: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from at most `low` up to at least `high`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        # All values alike: start from zero rather than magnify rounding.
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low if high - low > 1e-12 else 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [i * step for i in range(first, last + 1)]
