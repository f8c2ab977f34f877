"""Charts are read by people who decide: they must be well formed, say what they show, and survive hostile names."""

from __future__ import annotations

import math
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.changes import Change, change_texts, interval_row, review_card
from models.charts import (
    Bar,
    ReliabilityPoint,
    bars_with_whiskers,
    reliability,
    reliability_sentence,
    sparkline,
    split_bar,
)
from models.events import DAY_US, HOUR_US
from models.maps import MapPlace, MapPop, is_drawable, place_map
from models.quantities import Estimate
from models.svg import nice_ticks, palette_css, with_light_palette
from models.time_charts import BandSeries, StackedSeries, line_with_band, outside_sentence, stacked_bars
from models.timeline import Timeline

HOSTILE = '<script>alert("x")</script>&\x00|'
SVG = "{http://www.w3.org/2000/svg}"
START_US = 20_000 * DAY_US  # midnight

BAND = BandSeries(START_US, (10.0,) * 4, (5.0,) * 4, (15.0,) * 4, (10.0, 15.0, 16.0, math.nan))
STACK = StackedSeries(START_US, ("small", HOSTILE), ((1e9,) * 30, (3e9,) * 30))
PLACES = (
    MapPlace("Lisbon", 38.7, -9.1, 4e9, 0.25, flagged=True),
    MapPlace(HOSTILE, 52.5, 13.4, 1e9, 1.0),
    MapPlace("Oslo", 59.9, 10.7, 0.0, 0.0),
)
CHANGES = (
    Change("Delivery", "Kept off the CDN", "share", 0.40, 0.42, Estimate(0.02, 0.01, 0.03), True, "better"),
    Change("Delivery", HOSTILE, "bytes", 700e9, 730e9, Estimate(30e9, 15e9, 42e9), False, "worse", 0.1),
    Change("Error", "1 h", "score", 0.5, 0.6, Estimate(0.1, 0.05, 0.15), False, "refused", 0.01),
    Change("Error", "6 h", "score", 0.5, 0.5, Estimate(0.0, -0.01, 0.01), False, "unclear", 0.01),
)

DRAWINGS: dict[str, Callable[[], str]] = {
    "line": lambda: line_with_band(BAND, width=860, unit="requests", label=HOSTILE, tips=True),
    "stack": lambda: stacked_bars(STACK, width=352, label=HOSTILE, tips=True),
    "bars": lambda: bars_with_whiskers([Bar(HOSTILE, Estimate(0.5, 0.4, 0.6))], width=860, label=HOSTILE),
    "bars, narrow": lambda: bars_with_whiskers([Bar(HOSTILE, Estimate(-0.2))], width=352, label=HOSTILE),
    "reliability": lambda: reliability(
        [ReliabilityPoint(0.1, 0.2, 5)], width=400, label=HOSTILE, horizontal=HOSTILE, vertical=HOSTILE
    ),
    "interval": lambda: interval_row(CHANGES[1]),
    "card": lambda: review_card(HOSTILE, CHANGES, passed=False),
    "map": lambda: place_map(PLACES, [MapPop(HOSTILE, 48.0, 2.0)], width=540, label=HOSTILE),
    "sparkline": lambda: sparkline([0.1, math.nan, 0.3], low=0, high=1, label=HOSTILE),
    "split": lambda: split_bar([1.0, 3.0], ["other", "ours"], label=HOSTILE),
    "nothing known": lambda: sparkline([], low=0, high=1, label="nothing"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing__is_xml_that_states_its_result(name: str) -> None:
    """A name from the data must stay text, and a picture without a sentence says nothing to a screen reader."""
    svg = DRAWINGS[name]()
    root = ET.fromstring(svg)
    assert root.tag == SVG + "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert not list(root.iter(SVG + "script"))
    assert "nan" not in svg.lower().replace("nancy", "")


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing__colours_are_variables_with_a_light_fallback(name: str) -> None:
    """A page sets the variables for dark mode; a viewer without variables must still see colours."""
    svg = DRAWINGS[name]()
    assert "var(--" in svg or name == "card"
    assert "var(" not in with_light_palette(svg)


def test_review_card__carries_its_own_colours_and_ground() -> None:
    """An image in a description cannot see the theme of the page around it."""
    card = review_card("Gate refused", CHANGES, passed=False)
    assert "var(" not in card
    first = ET.fromstring(card)[0]
    assert (first.tag, first.get("fill"), first.get("width")) == (SVG + "rect", "#ffffff", "840")


def test_review_card__holds_the_figures_of_its_rows() -> None:
    """The card and the report's table are two views of the same rows, so both write the same text."""
    words = " ".join(ET.fromstring(review_card("t", CHANGES, passed=True)).itertext())
    for change in CHANGES:
        texts = change_texts(change)
        for text in (texts.champion, texts.candidate, texts.difference, texts.bounds, change.state_text):
            assert text in words


def test_change__relative_turns_so_that_positive_is_better() -> None:
    """30 GB more of 700 GB pushed is 4.3 % worse; its interval [15, 42] GB turns into [-6.0 %, -2.1 %]."""
    relative = CHANGES[1].relative
    assert relative.value == pytest.approx(-30 / 700)
    assert relative.low == pytest.approx(-42 / 700)
    assert relative.high == pytest.approx(-15 / 700)


def test_change__refuses_a_difference_that_is_not_the_difference() -> None:
    """A card whose columns contradict each other is worse than none."""
    with pytest.raises(ValueError, match="candidate minus champion"):
        Change("g", "o", "score", 1.0, 2.0, Estimate(0.5), True, "better")


def test_band__outcomes_on_the_edge_are_inside_and_misses_are_hollow() -> None:
    """Of 10, 15, 16 in [5, 15] only 16 is a miss; the unknown fourth hour is not counted."""
    assert (BAND.misses, BAND.known) == (1, 3)
    root = ET.fromstring(line_with_band(BAND, width=860, unit="requests", label="Total"))
    assert len(list(root.iter(SVG + "circle"))) == 1
    # 1 of 3 = 33 %
    assert root.get("aria-label") == ("Total: 33\u00a0% outside the 80\u00a0% interval, 20\u00a0% expected (1 of 3).")
    assert outside_sentence(0, 0) == "no outcome is known yet."


def test_band__last_keeps_the_clock() -> None:
    """The last two of four hours begin two hours later."""
    last = BAND.last(2)
    assert last.start_us == START_US + 2 * HOUR_US
    assert last.mean == (10.0, 10.0)


def test_band__refuses_series_of_different_lengths() -> None:
    """A shifted outcome would look like a bad forecast."""
    with pytest.raises(ValueError, match="one length"):
        BandSeries(0, (1.0,), (1.0,), (1.0,), ())


def test_stack__largest_series_lies_at_the_bottom_and_merging_keeps_totals() -> None:
    """Row 1 holds 3 GB an hour against 1 GB, so it has rank 0; thirty hours in ten bins hold the same bytes."""
    assert STACK.ranks == (1, 0)
    merged = STACK.merged(10)
    assert merged.bins == 10
    assert merged.step_us == 3 * HOUR_US
    assert [sum(row) for row in merged.values] == [30e9, 90e9]


def test_stack__heights_are_proportional() -> None:
    """With 3 GB below 1 GB on an axis up to 4 GB, the lower bar is three times as tall but for the gaps."""
    svg = stacked_bars(StackedSeries(START_US, ("a", "b"), ((1e9,), (3e9,))), width=860, label="x", height=248)
    # 248 - 26 - 22 = 200 px for 4 GB: 150 and 50 px, less a gap of 0.8 each.
    assert "v-149.2h" in svg
    assert "v-49.2h" in svg


def test_bars__whisker_ends_and_bar_share_one_scale() -> None:
    """On an axis from 0 to 100 % over 4 .. 290 px, 50 % lies at 147 px."""
    svg = bars_with_whiskers([Bar("a", Estimate(0.5, 0.25, 0.75))], width=352, label="x")
    # 352 - 62 = 290; 25 % -> 4 + 71.5; 75 % -> 4 + 214.5
    assert 'width="143"' in svg
    assert "M75.5,30.5H218.5" in svg


def test_reliability__gap_is_weighted_by_count() -> None:
    """|0.2 - 0.1| * 30 + |0.5 - 0.5| * 10 over 40 cases = 0.075."""
    points = [ReliabilityPoint(0.1, 0.2, 30), ReliabilityPoint(0.5, 0.5, 10)]
    assert reliability_sentence(points) == "stated and observed differ by 7.5 points on average."


def test_map__is_for_places_that_lie_apart() -> None:
    """A city fits within three degrees, where the outline says nothing."""
    assert is_drawable(PLACES)
    assert not is_drawable([MapPlace("a", 48.8, 2.3, 1, 0.5), MapPlace("b", 48.9, 2.4, 1, 0.5)])
    assert not is_drawable([])


def test_map__labels_do_not_meet() -> None:
    """Six places on one spot have room for four names around it; the hover text has all six."""
    names = [f"place {i}" for i in range(6)]
    places = [MapPlace(n, 50.0, 10.0, 1e9, 0.5) for n in names] + [PLACES[0]]
    root = ET.fromstring(place_map(places, [], width=540, label="x"))
    written = [t.text for t in root.iter(SVG + "text")]
    titles = " ".join(t.text or "" for t in root.iter(SVG + "title"))
    assert "Lisbon" in written
    assert len(written) == 1 + 4
    assert all(n in titles for n in names)


def test_map__stays_inside_its_picture() -> None:
    """Whatever the region, the land is clipped and the places lie inside."""
    root = ET.fromstring(place_map(PLACES, [], width=540, label="x"))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for circle in root.iter(SVG + "circle"):
        assert 0 <= float(circle.get("cx", -1)) <= width
        assert 0 <= float(circle.get("cy", -1)) <= height
    land = next(p.get("d", "") for p in root.iter(SVG + "path"))
    numbers = [float(n) for n in land.replace("M", " ").replace("Z", " ").replace(",", " ").split()]
    assert min(numbers) >= -2
    assert max(numbers) <= max(width, height) + 3


def test_timeline__marks_stand_at_round_clock_times() -> None:
    """Thirty hours from 22:00 in at most five marks: every six hours, the first at midnight, two bins in."""
    marks = Timeline(START_US - 2 * HOUR_US, 30).marks(5)
    # 2024-10-04 is day 20,000 and a Friday.
    assert marks == [(2.0, "Fri 4"), (8.0, "06:00"), (14.0, "12:00"), (20.0, "18:00"), (26.0, "Sat 5")]


def test_palette__sets_each_variable_for_both_themes() -> None:
    """A variable that only one theme sets would vanish in the other."""
    css = palette_css()
    assert css.count("--ink:") == 3  # light, dark by preference, dark forced
    assert css.count("--stack-6:") == 3
    assert "prefers-color-scheme:dark" in css


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks__enclose_the_data_with_few_round_steps(low: float, span: float) -> None:
    """An axis that ends below the largest value would cut it off."""
    ticks = nice_ticks(low + span, low=low)
    # With all values alike the axis may start at zero, so only its ends are promised.
    assert ticks[0] <= low + 1e-6 * max(span, abs(low))
    assert ticks[-1] >= low + span - 1e-6 * max(span, abs(low))
    assert 2 <= len(ticks) <= 9


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9)), min_size=1, max_size=40),
    st.sampled_from([352.0, 860.0]),
)
def test_line__any_forecast_gives_well_formed_svg(rows: list[tuple[float, float, float]], width: float) -> None:
    """Zeros, one hour, and outcomes far from the forecast all have a drawing."""
    ordered = [sorted(r[:2]) for r in rows]
    low, high = tuple(o[0] for o in ordered), tuple(o[1] for o in ordered)
    series = BandSeries(START_US, low, low, high, tuple(r[2] for r in rows))
    svg = line_with_band(series, width=width, unit="requests", label="x", tips=True)
    root = ET.fromstring(svg)
    assert len((root.get("data-tips") or "").split("|")) == len(rows)
