"""Several drawings as one picture, each under its title and a sentence that says what it shows.

In MLflow a picture stands alone: nobody hears the sentence that a screen reader says, and no page sets its colours. So
the sentence is written, and `as_image` gives the picture its light colours and its ground.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.svg import Attribute, colour, drawing, shorten, tag, text_at, text_width, with_light_palette

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_HEAD, _LINE, _GAP = 24.0, 16.0, 18.0


@dataclass(frozen=True)
class Panel:
    """A drawing, what it is of, and what it says."""

    title: str
    sentence: str
    svg: str

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the drawing."""
        found = _SIZE.search(self.svg)
        if found is None:
            raise ValueError(f"Expected an SVG drawing with a viewBox from 0 0, got {self.svg[:60]!r}.")
        return float(found[1]), float(found[2])


def panels(parts: Sequence[Panel], *, width: float, columns: int = 1, label: str) -> str:
    """The panels row by row, `columns` beside each other; `label` and the sentences are what a screen reader says."""
    wide = (width - _GAP * (columns - 1)) / columns
    drawn, top = [], 0.0
    for first in range(0, len(parts), columns):
        row = parts[first : first + columns]
        lines = [_wrapped(panel.sentence, wide) for panel in row]
        head = _HEAD + _LINE * max(len(texts) for texts in lines)
        for column, (panel, texts) in enumerate(zip(row, lines, strict=True)):
            drawn += _panel(panel, texts, left=column * (wide + _GAP), top=top, head=head, width=wide)
        top += head + max(panel.size[1] for panel in row) + _GAP
    said = " ".join([label, *(f"{panel.title}: {panel.sentence}" for panel in parts)])
    return drawing(width, max(top - _GAP, 1.0), said, drawn)


def as_image(svg: str, *, margin: float = 14.0) -> str:
    """The drawing for viewers that set no colours and no font: light palette, ground, a margin."""
    width, height = Panel("", "", svg).size
    total: tuple[float, float] = (width + 2 * margin, height + 2 * margin)
    statement = re.search(r'aria-label="([^"]*)"', svg)
    ground = tag("rect", width=total[0], height=total[1], fill=colour("ground"))
    picture = drawing(*total, "", [ground, _placed(svg, margin, margin)], font_family=FONT)
    # The statement is escaped already: it is moved, not written anew.
    return with_light_palette(picture.replace('aria-label=""', f'aria-label="{statement[1] if statement else ""}"', 1))


def _panel(panel: Panel, texts: Sequence[str], *, left: float, top: float, head: float, width: float) -> list[str]:
    strong: dict[str, Attribute] = {"fill": colour("ink"), "font_weight": "700", "font_size": 13}
    title = text_at(left, top + 13, shorten(panel.title, width, 13), **strong)
    said = [text_at(left, top + 30 + i * _LINE, text) for i, text in enumerate(texts)]
    return [title, *said, _placed(panel.svg, left, top + head)]


def _placed(svg: str, x: float, y: float) -> str:
    return svg.replace("<svg ", f'<svg x="{x:g}" y="{y:g}" ', 1)


def _wrapped(sentence: str, width: float) -> list[str]:
    """The sentence in lines of at most `width` pixels."""
    lines: list[str] = []
    for word in sentence.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer) <= width * 1.12:
            lines[-1] = longer
        elif word:
            lines.append(word)
    return lines
