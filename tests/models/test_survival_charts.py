"""Charts of forecast against observation: rings where the forecast is missed, labels apart, sentences for nothing."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.compared import Compared
from models.quantities import format_number
from models.survival_charts import Curve, ZonedFigures, curves_with_dots, reliability_with_intervals, said, zoned_dots
from models.svg import text_width

HOSTILE = '<script>alert("x")</script>&\x00|'
SVG = "{http://www.w3.org/2000/svg}"
NAN = float("nan")
NAMES = ("0", "15 min", "30 min", "1 h", "2 h", "4 h", "8 h", "24 h")


def points(forecast: list[float], observed: list[float]) -> Compared:
    """Intervals of 5 points to each side."""
    seen = np.array(observed)
    return Compared(
        np.array(forecast), seen, np.clip(seen - 0.05, 0, 1), np.clip(seen + 0.05, 0, 1), np.ones(len(seen))
    )


def circles(svg: str) -> list[bool]:
    """Whether each dot is a ring."""
    return ["ground" in (c.get("fill") or "") for c in ET.fromstring(svg).iter(SVG + "circle")]


def placed(svg: str) -> list[tuple[float, float, str]]:
    """Texts centred below the axis: left end, right end, text."""
    found = [t for t in ET.fromstring(svg).iter(SVG + "text") if t.get("text-anchor") == "middle"]
    wide = [(float(t.get("x") or 0), text_width(t.text or "") / 2, t.text or "") for t in found]
    return sorted((x - half, x + half, text) for x, half, text in wide)


def curve(width: float, curves: list[Curve], names: tuple[str, ...] = NAMES) -> str:
    return curves_with_dots(curves, names, width=width, label=HOSTILE, nothing="Nothing was seen.")


FALLING = points([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1], [NAN, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.1])


@pytest.mark.parametrize("width", [260.0, 352.0, 860.0])
def test_curves__labels_stay_apart_and_inside(width: float) -> None:
    """Names are left out rather than written over each other; the last one is always there."""
    svg = curve(width, [Curve(FALLING)])
    below = placed(svg)
    assert "24 h" in [text for _, _, text in below]
    assert all(one[1] < other[0] for one, other in pairwise(below))
    assert all(left >= 0 and right <= width for left, right, _ in below)


def test_curves__a_ring_is_a_missed_forecast_and_the_unknown_has_no_dot() -> None:
    """Eight points, the first unobserved, the seventh 20 points off an interval of 5."""
    assert circles(curve(500, [Curve(FALLING)])) == [False, False, False, False, False, True, False]


def test_curves__names_of_lines_that_end_together_stay_apart() -> None:
    """Four lines with one end: their names are a line of text apart and in the picture."""
    svg = curve(860, [Curve(FALLING, name) for name in ("a", "b", "c", "d")])
    heights = sorted(float(t.get("y") or 0) for t in ET.fromstring(svg).iter(SVG + "text") if t.text in set("abcd"))
    assert (np.diff(heights) >= 14).all()
    assert heights[-1] < 190


def test_charts__of_nothing_are_a_sentence() -> None:
    """No axes where nothing was observed, and the sentence wraps."""
    unknown = points([0.5, 0.5], [NAN, NAN])
    none = ZonedFigures((NAN,), (NAN,), (NAN,), (0.0, 1.0))
    drawn = [
        curve(300, [Curve(unknown)], ("1 h", "2 h")),
        reliability_with_intervals(unknown, width=300, label="x", axes=("a", "b"), nothing="Nothing was seen."),
        zoned_dots(none, ("1 h",), width=300, label="x", write=str, nothing="Nothing was seen."),
    ]
    for svg in drawn:
        assert [t.text for t in ET.fromstring(svg).iter(SVG + "text")] == ["Nothing was seen."]
    assert len(list(ET.fromstring(said("word " * 40, width=200)).iter(SVG + "text"))) > 3


def test_zone__figures_outside_are_rings_and_a_wide_interval_does_not_flatten_the_rest() -> None:
    """0.8 and 1.3 lie outside 0.9 to 1.1, but the interval of the last, which is cut, reaches from -40 to 40."""
    figures = ZonedFigures((0.8, 1.0, 1.3), (0.7, 0.9, -40.0), (0.85, 1.1, 40.0), (0.9, 1.1))
    svg = zoned_dots(
        figures, ("1 h", "2 h", "4 h"), width=400, label="x", write=lambda v: format_number(v, 1), nothing=""
    )
    assert circles(svg) == [True, False, False]
    assert [figures.outside(i) for i in range(3)] == [True, False, True]
    heights = [float(c.get("cy") or 0) for c in ET.fromstring(svg).iter(SVG + "circle")]
    assert heights[0] - heights[2] > 15
    # An error of 0.05 is above 0.02, and chance alone explains 0.06 but not 0.04.
    errors = ZonedFigures((0.05, 0.05), (NAN, NAN), (NAN, NAN), (0.0, 0.02), chance=(0.06, 0.04))
    assert [errors.surely_outside(i) for i in range(2)] == [False, True]
    with pytest.raises(ValueError, match="one length"):
        ZonedFigures((1.0,), (), (), (0.0, 1.0))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), st.sampled_from([260, 352, 480]))
def test_reliability__stays_in_its_frame(pairs: list[tuple[float, float]], width: int) -> None:
    """Whatever the probabilities: well formed, no NaN, dots inside, tick labels apart."""
    found = points([p for p, _ in pairs], [y for _, y in pairs])
    svg = reliability_with_intervals(found, width=width, label=HOSTILE, axes=(HOSTILE, "share"), nothing="Nothing.")
    assert "nan" not in svg
    assert "<script" not in svg
    for circle in ET.fromstring(svg).iter(SVG + "circle"):
        assert 0 <= float(circle.get("cx") or -1) <= width
        assert 0 <= float(circle.get("cy") or -1) <= 240
    below = placed(svg)
    assert all(one[1] <= other[0] for one, other in pairwise(below))


def test_charts__say_their_label_to_a_screen_reader() -> None:
    """A picture without a statement is nothing to those who cannot see it; dots carry their figures."""
    root = ET.fromstring(curve(400, [Curve(FALLING)]))
    assert root.get("role") == "img"
    assert 'alert("x")' in (root.get("aria-label") or "")
    titles = [t.text or "" for t in root.iter(SVG + "title")]
    assert len(titles) == 7
    assert all(re.search(r"forecast .* observed .* to ", title) for title in titles)
