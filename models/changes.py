"""Candidate against champion: one row an outcome, its interval drawn on an axis where right is better.

Used twice with the same rows, hence with the same figures: as a table in the report, and as one picture (`review_card`)
for pages that show an image but no styled table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.quantities import Estimate, Kind, format_bounds, format_change, format_quantity, format_share
from models.svg import Scale, colour, drawing, escape, line, number, shorten, tag, text_at, with_light_palette

State = Literal["better", "unclear", "worse", "refused"]
"""Better or worse with the whole interval on one side; refused: past what the gate tolerates."""

_COLOUR = {"better": "good", "unclear": "soft", "worse": "warn", "refused": "bad"}
_SIGN = {"better": "▲", "unclear": "○", "worse": "▼", "refused": "✕"}
_AXIS_SHARE = 0.10
"""Half the axis: ten per cent of the champion's value; what lies beyond is drawn at the edge."""


@dataclass(frozen=True)
class Change:
    """How one outcome differs between candidate and champion (or the best baseline).

    Attributes:
        group: heading above the row, such as "Delivery".
        outcome: what is measured.
        kind: how to write it.
        champion: the champion's value.
        candidate: the candidate's value.
        difference: candidate minus champion with its interval, in the unit of the values.
        higher_is_better: direction.
        state: what the gate found.
        tolerated: how much worse the gate allows, as a share of the champion's value; None: not judged.
    """

    group: str
    outcome: str
    kind: Kind
    champion: float
    candidate: float
    difference: Estimate
    higher_is_better: bool
    state: State
    tolerated: float | None = None

    def __post_init__(self) -> None:
        expected = self.candidate - self.champion
        size = max(abs(self.candidate), abs(self.champion), 1e-12)
        if abs(self.difference.value - expected) > 1e-6 * size:
            raise ValueError(
                f"{self.outcome!r}: the difference is {self.difference.value!r}, but candidate minus champion is "
                f"{expected!r}."
            )

    @property
    def relative(self) -> Estimate:
        """The difference as a share of the champion's value, turned so that positive is better."""
        base = (abs(self.champion) or 1.0) * (1 if self.higher_is_better else -1)
        ends = [e / base for e in (self.difference.low, self.difference.high) if e is not None]
        value = self.difference.value / base
        return Estimate(value, min(ends), max(ends)) if ends else Estimate(value)

    @property
    def state_text(self) -> str:
        """The verdict in words, never by colour alone."""
        if self.state in ("worse", "refused") and self.tolerated is not None:
            over = "over" if self.state == "refused" else "worse,"
            return f"{over} limit {format_share(self.tolerated, 0)}"
        return {"better": "better", "unclear": "no clear change", "worse": "worse", "refused": "refused"}[self.state]

    @property
    def sign(self) -> str:
        """A mark that tells the states apart without colour."""
        return _SIGN[self.state]


@dataclass(frozen=True)
class ChangeTexts:
    """A change in words and figures."""

    champion: str
    candidate: str
    difference: str
    bounds: str


def change_texts(change: Change, *, currency: str = "€") -> ChangeTexts:
    """The figures of a row as they are written wherever they are shown."""
    size = max(abs(change.champion), abs(change.candidate))
    return ChangeTexts(
        format_quantity(change.champion, change.kind, currency=currency),
        format_quantity(change.candidate, change.kind, currency=currency),
        format_change(change.difference.value, change.kind, size=size, currency=currency),
        format_bounds(change.difference, change.kind, size=size, signed=True),
    )


def interval_row(change: Change, *, width: float = 150, height: float = 22) -> str:
    """The interval for a table cell; right is better, the shaded strip is what the gate tolerates."""
    statement = f"{change.outcome}: {change.state_text}, {format_share(change.relative.value)} of the champion's value"
    return drawing(width, height, statement, _interval_parts(change, left=0, width=width, height=height))


def review_card(title: str, changes: Sequence[Change], *, passed: bool, currency: str = "€") -> str:
    """The whole comparison as one picture with its own light colours and ground, 840 px wide."""
    width, top, row = 840.0, 52.0, 24.0
    parts = [text_at(16, 24, shorten(title, 800, 17), font_size=17, font_weight=700, fill=colour("ink"))]
    heads = ((16, "Outcome", "start"), (280, "champion", "end"), (368, "candidate", "end"))
    more = ((384, "change [95 %]", "start"), (613, "worse ◂ 0 ▸ better", "middle"), (702, "verdict", "start"))
    parts += [text_at(x, 46, text, font_size=11, text_anchor=anchor) for x, text, anchor in heads + more]
    y, group = top, ""
    for change in changes:
        if change.group != group:
            group = change.group
            style = {"font_weight": "700", "fill": colour("ink")}
            parts.append(text_at(16, y + 20, shorten(group, 400), font_size=12.5, **style))
            y += 28
        parts.append(_card_row(change, y, currency))
        y += row
    height = y + 14
    edge = tag("rect", width=6, height=height, fill=colour("good" if passed else "bad"))
    ground = tag("rect", width=width, height=height, fill=colour("ground"))
    words = "; ".join(f"{c.outcome} {c.state_text}" for c in changes)
    font = {"font_family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"}
    return with_light_palette(drawing(width, height, f"{title}. {words}", [ground, edge, *parts], **font))


def _card_row(change: Change, y: float, currency: str) -> str:
    texts, base = change_texts(change, currency=currency), y + 16
    ink = {"fill": colour("ink")}
    difference = tag(
        "text",
        tag("tspan", escape(texts.difference), fill=colour("ink")),
        tag("tspan", " " + escape(texts.bounds), fill=colour("soft")),
        x=384,
        y=base,
        font_size=12,
    )
    axis = tag("g", *_interval_parts(change, left=548, width=130, height=23), transform=f"translate(0 {y})")
    verdict = f"{change.sign} {change.state_text}"
    return "".join(
        [
            line(16, y + 23.5, 824, y + 23.5, stroke=colour("grid")),
            text_at(16, base, shorten(change.outcome, 190), **ink),
            text_at(280, base, texts.champion, text_anchor="end", **ink),
            text_at(368, base, texts.candidate, text_anchor="end", font_weight=700, **ink),
            difference,
            axis,
            text_at(702, base, verdict, fill=colour(_COLOUR[change.state])),
        ]
    )


def _interval_parts(change: Change, *, left: float, width: float, height: float) -> list[str]:
    x, middle = Scale(-_AXIS_SHARE, _AXIS_SHARE, left + 6, left + width - 6), height / 2
    parts = []
    if change.tolerated is not None:
        start = x.clamp(-change.tolerated)
        strip = {"x": start, "y": 1, "width": max(1.0, x(0) - start), "height": height - 2}
        parts.append(tag("rect", **strip, fill=colour("allowed")))
    parts.append(line(x(0), 0, x(0), height, stroke=colour("soft")))
    relative, ink = change.relative, colour(_COLOUR[change.state])
    if relative.low is not None and relative.high is not None:
        d = f"M{number(x.clamp(relative.low))},{number(middle)}H{number(x.clamp(relative.high))}"
        parts.append(tag("path", d=d, stroke=ink, stroke_width=1.8))
    return [*parts, _mark(change.state, x.clamp(relative.value), middle, ink)]


def _mark(state: State, x: float, y: float, ink: str) -> str:
    """Full dot, ring, triangle or cross: the shape says what the colour says."""
    if state == "better":
        return tag("circle", cx=x, cy=y, r=4, fill=ink)
    if state == "unclear":
        return tag("circle", cx=x, cy=y, r=3.6, fill=colour("ground"), stroke=ink, stroke_width=1.4)
    if state == "worse":
        return tag("path", d=f"M{number(x - 5)},{number(y - 4)}h10l-5,9z", fill=ink)
    d = f"M{number(x - 4)},{number(y - 4)}l8,8m0,-8l-8,8"
    return tag("path", d=d, fill="none", stroke=ink, stroke_width=2.4)
