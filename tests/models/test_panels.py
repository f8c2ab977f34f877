"""Pictures that stand alone: what they say is written in them, figures stand where they belong."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from models.bar_tables import BarRow, bar_table
from models.panels import Panel, as_image, panels
from models.svg import drawing, tag

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("x")</script>&\x00|'
SQUARE = drawing(100, 50, "square", [tag("rect", width=100, height=50, fill="var(--ours, #00609e)")])
ROWS = (
    BarRow("head", ((0.2, 0.4), (None, 0.1))),
    BarRow(HOSTILE, ((0.0, float("nan")), (0.3, 0.1))),
)


def table(rows: tuple[BarRow, ...] = ROWS, **changes: object) -> str:
    settings: dict[str, object] = {
        "series": ("candidate", "champion"), "width": 600, "label": HOSTILE, "write": lambda v: f"{v:.2f}",
    } | changes  # fmt: skip
    return bar_table(rows, ("1 h", "6 h"), **settings)  # type: ignore[arg-type]


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ET.fromstring(svg).iter(SVG + "text")]


def test_panels__stand_beside_each_other_and_below() -> None:
    """Two columns of (218 - 18) / 2 = 100 px; the third panel begins 24 + 16 + 50 + 18 = 108 px lower."""
    parts = [Panel(f"panel {i}", "one line", SQUARE) for i in range(3)]
    root = ET.fromstring(panels(parts, width=218, columns=2, label="Three."))
    places = [(p.get("x"), p.get("y")) for p in root.findall(SVG + "svg")]
    assert places == [("0", "40"), ("118", "40"), ("0", "148")]
    # The last one ends at 148 + 50.
    assert (root.get("width"), root.get("height")) == ("218", "198")
    assert root.get("aria-label") == "Three. panel 0: one line panel 1: one line panel 2: one line"


def test_panels__write_their_sentence_in_lines_that_fit() -> None:
    """In MLflow nobody hears the label, so the sentence is in the picture, whole."""
    sentence = "a sentence that is much longer than one line of so narrow a picture"
    svg = panels([Panel(HOSTILE, sentence, SQUARE)], width=160, label="x")
    lines = texts(svg)[1:]
    assert len(lines) > 2
    assert " ".join(lines) == sentence
    assert max(map(len, lines)) <= 160 * 1.12 / 7.2


def test_panels__nothing_to_show_is_still_a_picture() -> None:
    """A model without panels must not break the page."""
    assert ET.fromstring(panels([], width=300, label="nothing")).get("aria-label") == "nothing"


def test_panel__refuses_what_has_no_size() -> None:
    """Without a size it cannot be placed."""
    with pytest.raises(ValueError, match="viewBox from 0 0, got '<p>'"):
        panels([Panel("t", "s", "<p>")], width=300, label="x")


def test_image__has_a_ground_a_margin_and_its_own_colours() -> None:
    """An image cannot see the page's theme; its statement is kept as it was, escaped once."""
    hostile = panels([Panel(HOSTILE, "a & b", SQUARE)], width=218, label="It's <fine>")
    image = as_image(hostile, margin=10)
    root = ET.fromstring(image)
    assert "var(" not in image
    assert root.get("aria-label") == ET.fromstring(hostile).get("aria-label")
    assert (root.get("width"), root[0].get("fill")) == ("238", "#ffffff")
    assert (root[1].get("x"), root[1].get("y")) == ("10", "10")
    assert root.get("font-family")


def test_bar_table__bars_share_one_scale() -> None:
    """0.2 is half as long as 0.4, in whichever column; 0.3 is three quarters of it."""
    root = ET.fromstring(table())
    bars = [float(b.get("width", 0)) for b in root.iter(SVG + "rect")][2:]  # after the two marks of the legend
    longest = max(bars)
    assert [b / longest for b in bars] == pytest.approx([0.5, 1, 0.25, 0.8 / longest, 0.75, 0.25], abs=0.01)


def test_bar_table__writes_each_figure_and_a_dash_for_none() -> None:
    """Figures stand beside their bars; what is not known is not zero."""
    written = texts(table())
    assert [t for t in written if t[:1].isdigit() and t[-1] != "h"] == ["0.20", "0.40", "0.10", "0.00", "0.30", "0.10"]
    assert written.count("–") == 2
    assert {"candidate", "champion", "1 h", "6 h", "head"} <= set(written)


def test_bar_table__one_series_has_no_legend_and_nothing_has_a_picture() -> None:
    """A legend of one entry says nothing; a table without rows or with zeros only is still drawn."""
    one = table((BarRow("a", ((0.0,), (0.0,))),), series=("weight",))
    assert "weight" not in texts(one)
    assert ET.fromstring(table(())).get("role") == "img"


@pytest.mark.parametrize("svg", [table(), table(width=340.0), as_image(table())])
def test_bar_table__is_xml_without_scripts_inside_its_picture(svg: str) -> None:
    """Names come from data and the width from the page: text stays text, bars stay inside."""
    root = ET.fromstring(svg)
    assert not list(root.iter(SVG + "script"))
    assert "nan" not in svg
    width = float(root.get("width", 0))
    for bar in root.iter(SVG + "rect"):
        assert 0 <= float(bar.get("x", 0)) <= float(bar.get("x", 0)) + float(bar.get("width", 0)) <= width


def test_bar_table__refuses_values_that_do_not_fit() -> None:
    """A value in the wrong column would be a wrong figure."""
    with pytest.raises(ValueError, match="Expected 2 cases of 2 values in row 'a'"):
        table((BarRow("a", ((1.0, 2.0),)),))
    with pytest.raises(ValueError, match="one or two series, got 3"):
        table((), series=("a", "b", "c"))
