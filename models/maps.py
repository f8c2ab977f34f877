"""A map as SVG text: the land, places as circles sized by bytes, POPs as diamonds.

Longitude is squeezed by the cosine of the middle latitude, so that a region keeps its shape. The outline is at
1:110 million: below about three degrees it says nothing, and a table of places says more (`is_drawable`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.land import LAND_PATH
from models.quantities import format_bytes, format_share
from models.svg import Attribute, colour, drawing, escape, number, shorten, tag, text_width

_SMALLEST_BOX_DEGREES = 3.0
_LARGEST_RADIUS = 17.0

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MapPlace:
    """A place where requests come from; `node_share` of its bytes came from nodes, the rest from POPs.

    `flagged` places are ringed and labelled first.
    """

    name: str
    latitude: float
    longitude: float
    bytes: float
    node_share: float
    flagged: bool = False

    def __post_init__(self) -> None:
        if not (-90 <= self.latitude <= 90 and -180 <= self.longitude <= 180):
            raise ValueError(f"Expected degrees, got {self.latitude!r} north and {self.longitude!r} east.")
        if not 0 <= self.node_share <= 1:
            raise ValueError(f"Expected 0 <= node_share <= 1, got {self.node_share!r}.")


@dataclass(frozen=True)
class MapPop:
    """A CDN point of presence."""

    name: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class Projection:
    """Degrees to pixels, `pixels` a degree of latitude, north up."""

    west: float
    north: float
    squeeze: float
    pixels: float

    def __call__(self, longitude: float, latitude: float) -> Point:
        return (longitude - self.west) * self.squeeze * self.pixels, (self.north - latitude) * self.pixels


def is_drawable(places: Sequence[MapPlace]) -> bool:
    """Whether the places lie far enough apart for the outline to mean something."""
    if not places:
        return False
    latitudes, longitudes = [p.latitude for p in places], [p.longitude for p in places]
    squeeze = math.cos(math.radians((min(latitudes) + max(latitudes)) / 2))
    height = max(latitudes) - min(latitudes)
    return max(height, squeeze * (max(longitudes) - min(longitudes))) >= _SMALLEST_BOX_DEGREES


def place_map(places: Sequence[MapPlace], pops: Sequence[MapPop], *, width: float, label: str) -> str:
    """The map; `label` is the sentence that states its result. Raises ValueError without places."""
    if not places:
        raise ValueError("A map needs at least one place.")
    spots: list[MapPlace | MapPop] = [*places, *pops]
    projection, height = _fit(spots, width)
    parts = [tag("rect", width=width, height=height, rx=6, fill=colour("panel"))]
    parts.append(tag("path", d=_land(projection, width, height) or "M0,0", fill=colour("land")))
    largest = max(max(p.bytes for p in places), 1.0)
    top_radius = _LARGEST_RADIUS if width > 500 else 0.7 * _LARGEST_RADIUS
    circles = [
        (p, *projection(p.longitude, p.latitude), max(3.0, top_radius * math.sqrt(p.bytes / largest)))
        for p in sorted(places, key=lambda p: (-p.bytes, p.name))
    ]
    diamonds = [(p, *projection(p.longitude, p.latitude)) for p in pops]
    edge: dict[str, Attribute] = {"stroke": colour("ground"), "stroke_width": 1}
    parts.append(tag("g", *(_diamond(pop, x, y) for pop, x, y in diamonds), fill=colour("ink"), **edge))
    parts.append(tag("g", *(_circle(place, x, y, r) for place, x, y, r in circles), fill=colour("other"), **edge))
    circles = [(p, x, y, r + 4.5 if p.flagged else r) for p, x, y, r in circles]
    taken = [(x - r, y - r, x + r, y + r) for _, x, y, r in circles]
    taken += [(x - 5, y - 5, x + 5, y + 5) for _, x, y in diamonds]
    by_need = sorted(circles, key=lambda c: not c[0].flagged)
    labels = [_label(place, (x, y, r), taken, (width, height)) for place, x, y, r in by_need]
    halo: dict[str, Attribute] = {"stroke": colour("panel"), "stroke_width": 2.5, "paint_order": "stroke"}
    parts.append(tag("g", *labels, fill=colour("ink"), font_size=11.5, **halo))
    return drawing(width, height, label, parts)


def _fit(spots: Sequence[MapPlace | MapPop], width: float) -> tuple[Projection, float]:
    """The box of all spots with a margin, grown where it would be flatter or taller than a page wants."""
    south, north = min(s.latitude for s in spots), max(s.latitude for s in spots)
    west, east = min(s.longitude for s in spots), max(s.longitude for s in spots)
    squeeze = max(0.2, math.cos(math.radians((south + north) / 2)))
    margin = 0.09 * max(north - south, squeeze * (east - west), _SMALLEST_BOX_DEGREES)
    across = squeeze * (east - west) + 2 * margin
    tall = max(north - south + 2 * margin, 0.45 * across)
    across = max(across, tall / (0.66 if width > 500 else 1.1))
    pixels = width / across
    middle = (west + east) / 2, (south + north) / 2
    corner = middle[0] - across / 2 / squeeze, middle[1] + tall / 2
    return Projection(corner[0], corner[1], squeeze, pixels), tall * pixels


def _land(projection: Projection, width: float, height: float) -> str:
    """The outline inside the picture only, without points that nobody could tell apart."""
    rings = []
    for ring in LAND_PATH.replace("\n", " ").split("Z"):
        points = [projection(*map(float, word.split(","))) for word in ring.strip().removeprefix("M").split()]
        clipped = _thin(_clip(points, (-2.0, -2.0, width + 2, height + 2)))
        if len(clipped) > 2:
            rings.append("M" + " ".join(f"{x:.0f},{y:.0f}" for x, y in clipped) + "Z")
    return "".join(rings)


def _clip(points: list[Point], box: tuple[float, float, float, float]) -> list[Point]:
    """Sutherland-Hodgman: cut the ring by each side of the box in turn."""
    for axis, limit, sign in ((0, box[0], 1), (0, box[2], -1), (1, box[1], 1), (1, box[3], -1)):
        kept: list[Point] = []
        for before, after in zip(points[-1:] + points[:-1], points, strict=True):
            inside_before, inside_after = (sign * (p[axis] - limit) >= 0 for p in (before, after))
            if inside_before != inside_after:
                part = (limit - before[axis]) / (after[axis] - before[axis])
                kept.append((before[0] + part * (after[0] - before[0]), before[1] + part * (after[1] - before[1])))
            if inside_after:
                kept.append(after)
        points = kept
    return points


def _thin(points: list[Point], nearest: float = 1.8) -> list[Point]:
    kept: list[Point] = []
    for point in points:
        if not kept or math.dist(kept[-1], point) >= nearest:
            kept.append(point)
    return kept


def _circle(place: MapPlace, x: float, y: float, radius: float) -> str:
    """A grey disc with the node share as a slice from twelve o'clock."""
    title = f"{place.name}: {format_bytes(place.bytes)}, {format_share(place.node_share, 0)} from nodes"
    disc = {"cx": x, "cy": y, "r": radius}
    parts = [tag("title", escape(title))]
    parts.append(tag("circle", **disc))
    if place.node_share >= 0.999:
        parts.append(tag("circle", **disc, fill=colour("ours")))
    elif place.node_share > 0:
        parts.append(tag("path", d=_slice(x, y, radius, place.node_share), fill=colour("ours"), stroke="none"))
    if place.flagged:
        ring: dict[str, Attribute] = {"fill": "none", "stroke": colour("bad"), "stroke_width": 2}
        parts.append(tag("circle", cx=x, cy=y, r=radius + 3.5, **ring))
    return tag("g", *parts)


def _slice(x: float, y: float, radius: float, share: float) -> str:
    angle = 2 * math.pi * share
    end = f"{number(x + radius * math.sin(angle))},{number(y - radius * math.cos(angle))}"
    r = number(radius)
    return f"M{number(x)},{number(y)}v{number(-radius)}A{r},{r} 0 {int(share > 0.5)} 1 {end}Z"


def _diamond(pop: MapPop, x: float, y: float) -> str:
    shape = f"M{number(x)},{number(y - 5.5)}l5.5,5.5l-5.5,5.5l-5.5,-5.5z"
    return tag("path", tag("title", escape(f"POP {pop.name}")), d=shape)


def _label(place: MapPlace, disc: tuple[float, float, float], taken: list[Box], size: Point) -> str:
    """The name right, left, above or below its circle, wherever it meets nothing; else no name (hover has it)."""
    x, y, r = disc
    name = shorten(place.name, 150)
    wide, own = text_width(name, 11.5), (x - r, y - r, x + r, y + r)
    for left, base in (
        (x + r + 4, y + 4),
        (x - r - 4 - wide, y + 4),
        (x - wide / 2, y - r - 5),
        (x - wide / 2, y + r + 13),
    ):
        box = (left, base - 10, left + wide, base + 3)
        inside = box[0] >= 2 and box[1] >= 2 and box[2] <= size[0] - 2 and box[3] <= size[1] - 2
        if inside and not any(_overlap(box, other) for other in taken if other != own):
            taken.append(box)
            at, anchor = _anchor(left, wide, x, r)
            weight = "700" if place.flagged else None
            return tag("text", escape(name), x=at, y=base, text_anchor=anchor, font_weight=weight)
    return ""


def _anchor(left: float, wide: float, x: float, radius: float) -> tuple[float, str]:
    """The estimated width is generous, so text hangs on the end that faces its circle."""
    if left > x + radius:
        return left, "start"
    return (left + wide, "end") if left + wide < x - radius else (x, "middle")


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
