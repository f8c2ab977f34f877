"""The pictures of a review: each is an SVG artefact that stands alone, and one page holds all of them.

The page is in the reader's colours, needs nothing beside it, and shows a phone the narrow drawing where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.panels import as_image
from models.quantities import bind_units
from models.svg import escape, palette_css

WIDTH = 860.0
NARROW = 352.0
REPORT = "report.html"


@dataclass(frozen=True)
class Picture:
    """One picture: its file name, its title, the sentence that states its result, and the drawing.

    `narrow` is the drawing for a phone; empty where the wide one serves both.
    """

    name: str
    title: str
    sentence: str
    svg: str
    narrow: str = ""


@dataclass(frozen=True)
class Pictures:
    """The pictures of one review; none for a model that has none. `facts` are what to know before looking at them."""

    title: str = ""
    drawn: tuple[Picture, ...] = field(default_factory=tuple)
    facts: tuple[str, ...] = ()

    def texts(self) -> dict[str, str]:
        """Artefacts of the review run by name."""
        if not self.drawn:
            return {}
        return {f"plots/{p.name}.svg": as_image(p.svg) for p in self.drawn} | {REPORT: self.page()}

    def page(self) -> str:
        """All pictures on one page that needs nothing beside it."""
        sections = "".join(
            f"<section><h2>{escape(p.title)}</h2><p>{escape(bind_units(p.sentence))}</p>{_drawings(p)}</section>"
            for p in self.drawn
        )
        title = escape(self.title)
        facts = "".join(f"<p>{escape(bind_units(fact))}</p>" for fact in self.facts)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<style>{palette_css()}{_STYLE}</style></head><body><main><h1>{title}</h1>{facts}{sections}</main></body>"
            "</html>\n"
        )


def _drawings(picture: Picture) -> str:
    if not picture.narrow:
        return f"<div>{picture.svg}</div>"
    return f'<div class="wide">{picture.svg}</div><div class="narrow">{picture.narrow}</div>'


_STYLE = (
    "body{margin:0;background:var(--ground);color:var(--ink);"
    'font:15px/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}'
    "main{max-width:860px;margin:0 auto;padding:20px 16px 60px}h1{font-size:24px;line-height:1.25;margin:0 0 10px}"
    "section{padding-top:30px}h2{font-size:18px;margin:0 0 2px}p{margin:0 0 14px;max-width:76ch;color:var(--soft)}"
    "div{overflow-x:auto}.narrow{display:none}"
    "@media(max-width:640px){.wide{display:none}.narrow{display:block}}"
)
