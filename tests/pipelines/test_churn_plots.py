"""Pictures of a churn review: sentences hold the figures of the track, and nothing to draw is said, not framed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from models.churn.edge_calibration import ClassCalibration
from models.churn.track import ChurnTrack, JointTrack
from pipelines.churn_plots import (
    calibration_picture,
    churn_pictures,
    drift_picture,
    joint_picture,
    reliability_picture,
    return_picture,
    separation_picture,
    survival_picture,
)
from pipelines.churn_words import data_facts, hours_text, stay_sentence
from pipelines.pictures import Picture, Pictures
from tests.pipelines.followed_churn import EDGES, HOSTILE, NAN, TRACK, group, points, unknown

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> str:
    return " ".join(t.text or "" for t in ET.fromstring(svg).iter(SVG + "text")).replace("\u00a0", " ")


def sentence(picture: Picture | None) -> str:
    assert picture is not None
    return picture.sentence.replace("\u00a0", " ")


def test_survival__says_expected_and_observed() -> None:
    """The middle edge is 4 h: 62 % expected, 60 % [57, 63] stayed; the last edge is missed by ten points."""
    picture = survival_picture(TRACK)
    assert sentence(picture).startswith("Of nodes that were up, 62 % were expected to stay 4 h and 60 % [57, 63] did.")
    assert "The interval holds the forecast at 2 of 3 edges." in sentence(picture)
    assert "phone: 40 nodes, 1,200 forecasts" in texts(picture.svg)
    assert "15 min" in texts(picture.svg)
    assert len(ET.fromstring(picture.svg).findall(SVG + "svg")) == 3
    assert float(ET.fromstring(picture.narrow).get("width") or 0) < 390


def test_survival__a_ring_is_where_the_interval_does_not_hold_the_forecast() -> None:
    """One of three edges of one group: one circle without filling, its numbers in its title."""
    picture = survival_picture(replace(TRACK, groups=TRACK.groups[:1]))
    circles = list(ET.fromstring(picture.svg).iter(SVG + "circle"))
    hollow = [c for c in circles if "ground" in (c.get("fill") or "")]
    assert len(hollow) == 1
    title = hollow[0].findtext(SVG + "title") or ""
    assert title.replace("\u00a0", " ") == "24 h: forecast 30.0 %, observed 20.0 % (17.0 % to 23.0 %), 40 cases"


def test_reliability__speaks_of_the_bin_next_to_80_per_cent() -> None:
    """P(gone) of 0.2 is P(stay) of 80 %; 22 % were gone, so 78 % stayed. At 4 h one bin of three is missed."""
    assert stay_sentence(TRACK).replace("\u00a0", " ") == (
        "Of nodes forecast to stay 4 h with 80 %, 78 % [75, 81] did. The interval holds the forecast at 2 of 3 bins."
    )
    picture = reliability_picture(TRACK)
    assert stay_sentence(TRACK) in picture.sentence
    assert "Gone within 24 h" in texts(picture.svg)
    assert "ECE 0.040." in texts(picture.svg)


def test_separation__compares_the_first_quarter_with_the_last() -> None:
    """At 4 h 0.3 · 60 % = 18 % of the riskiest quarter stayed and 60 % of the safest, each as forecast."""
    assert sentence(separation_picture(TRACK)).startswith(
        "Of the nodes forecast to leave first, 18 % [15, 21] stayed 4 h (18 % expected); of those forecast to stay "
        "longest, 60 % [57, 63] (60 % expected)."
    )
    alike = replace(TRACK, quarters=TRACK.quarters[:1])
    assert "Every node got the same forecast" in sentence(separation_picture(alike))


def test_calibration__names_each_class_with_its_figures() -> None:
    """ECE, slope and intercept by class; zones are counted edge by edge."""
    picture = calibration_picture(TRACK)
    assert "phone: ECE 0.021, slope 0.85, intercept −0.10" in picture.sentence
    assert "All nodes: ECE" not in picture.sentence  # shown, but the classes are what is judged
    said = texts(picture.svg)
    assert "All nodes: slope" in said
    # Errors 0.01, 0.015, 0.04 with 0.01 by chance; slopes 1, 0.95 and 0.6 with 0.2 to each side.
    assert said.count("In the shaded zone at 2 of 3 edges, outside by more than chance at 1.") == 6


def test_returns__tell_back_at_all_from_up_then() -> None:
    """Of those down 40 % were expected back and 42 % came; 30 % were expected to be up at 4 h and 28 % were."""
    assert (
        "40 % were expected back within 4 h and 42 % [39, 45] came; 30 % were expected to be up then and "
        "28 % [25, 31] were."
    ) in sentence(return_picture(TRACK))


def test_joint__counts_tenths_within_five_points() -> None:
    """Both tenths of the shared law are within five points; independence is off by ten in both."""
    said = sentence(joint_picture(TRACK))
    assert "2 of 2 tenths within 5 points; furthest off: 20 % stated, 22 % [19, 25] observed." in said
    assert "If departures shared nothing: 0 of 2 tenths within 5 points" in said
    assert joint_picture(replace(TRACK, joint=())) is None


def test_drift__names_the_worst_day() -> None:
    """The second day is off by ten points: 40 % expected, 50 % observed."""
    said = sentence(drift_picture(TRACK))
    assert "at 2 of 3 days. Furthest off: 5 October, 40 % expected to leave within 4 h, 50 % [47, 53] did." in said


def test_pictures__are_well_formed_small_and_complete() -> None:
    """Every picture is an artefact and a part of the page; names from data stay text; nothing reads NaN."""
    found = churn_pictures(f"version 7 {HOSTILE}", TRACK, facts=("Sessions: measured.",)).texts()
    names = ("survival", "separation", "reliability", "calibration", "returns", "joint", "days")
    assert list(found) == [f"plots/{name}.svg" for name in names] + ["report.html"]
    for name, text in found.items():
        assert "<script" not in text, name
        assert "nan" not in text.lower().replace("narrow", ""), name
        if name.endswith(".svg"):
            assert "var(" not in text
            assert ET.fromstring(text).get("aria-label")
            assert len(text) < 60_000
    page = found["report.html"]
    assert "Sessions: measured." in page
    assert page.count('class="narrow"') == len(names)
    assert "a ring a dot whose interval" in page.replace("\n", " ")


def nobody_leaves(track: ChurnTrack) -> ChurnTrack:
    everyone = points([0.999] * 3, [1.0] * 3)
    none = ClassCalibration(*(np.full(3, NAN),) * 5, *(NAN,) * 6)
    quiet = replace(group("", everyone), calibration=none, departures=0)
    gone = tuple(points([0.001], [0.0]) for _ in EDGES)
    return replace(track, groups=(quiet,), quarters=(everyone,), reliability=gone, joint=())


def all_censored(track: ChurnTrack) -> ChurnTrack:
    lost = replace(group("", unknown(3)), available=unknown(3), returned=unknown(3))
    return replace(
        track,
        groups=(lost,),
        quarters=(unknown(3),) * 4,
        reliability=(unknown(2),) * 3,
        days=unknown(3),
        joint=(JointTrack("all", unknown(2), unknown(2)),),
    )


def one_day_one_node(track: ChurnTrack) -> ChurnTrack:
    alone = replace(group(""), nodes=1, rows=1, departures=1)
    return replace(
        track,
        groups=(alone,),
        quarters=track.quarters[:1],
        reliability=tuple(points([0.5], [1.0]) for _ in EDGES),
        day_us=track.day_us[:1],
        days=points([0.5], [1.0]),
        joint=(),
    )


@pytest.mark.parametrize("change", [nobody_leaves, all_censored, one_day_one_node])
def test_pictures__of_next_to_nothing_say_so(change: Callable[[ChurnTrack], ChurnTrack]) -> None:
    """No departures, everybody lost from sight, a single node: a sentence instead of an empty frame, and no NaN."""
    drawn = churn_pictures("version 7", change(TRACK)).drawn
    assert len(drawn) >= 6
    for picture in drawn:
        for svg in (picture.svg, picture.narrow):
            root = ET.fromstring(svg)
            assert [t for t in root.iter(SVG + "text") if t.text], picture.name
            assert "nan" not in svg.lower(), picture.name
        assert picture.sentence


def test_pictures__of_the_censored_have_sentences_only() -> None:
    """Where nothing could be observed no axis is drawn."""
    for picture in (survival_picture, separation_picture, reliability_picture, return_picture, drift_picture):
        found = picture(all_censored(TRACK))
        assert not list(ET.fromstring(found.svg).iter(SVG + "circle")), found.name
        said = f"{found.sentence} {texts(found.svg)}"
        assert "could be observed" in said or "could anything be observed" in said or "No node was known" in said


def test_facts__say_what_was_measured_and_what_telemetry_can_show() -> None:
    """Columns by sort; a table without world.json says that nothing is known; telemetry carries its limit."""
    world = {
        "measured": ["availability.start", "availability.end"],
        "modelled": ["availability.censored", "telemetry.rtt_ms"],
    }
    sessions, telemetry = data_facts(world, telemetry=True)
    assert sessions == "Sessions: measured (start, end); modelled (censored) by world.json."
    assert telemetry.startswith("Telemetry: modelled (rtt_ms) by world.json. No public data set holds telemetry")
    assert "do not say what was measured" in data_facts(None, telemetry=False)[0]
    assert "There is no telemetry" in data_facts(world, telemetry=False)[1]
    assert data_facts({}, telemetry=False)[0] == "Sessions: not listed in world.json."


@pytest.mark.parametrize(("hours", "text"), [(5 / 60, "5 min"), (0.25, "15 min"), (4.0, "4 h"), (1.5, "1.5 h")])
def test_hours__read_as_people_say_them(hours: float, text: str) -> None:
    """Nobody says 0.08 h."""
    assert hours_text(hours).replace("\u00a0", " ") == text


def test_pictures__none_have_no_artefacts() -> None:
    """A model without pictures adds nothing to its review run."""
    assert Pictures().texts() == {}
