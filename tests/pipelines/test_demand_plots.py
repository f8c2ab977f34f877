"""Pictures of a demand review: figures come from the rows, and what is not known is left out."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from models.demand.prior import DemandPrior, prior_column_names
from models.demand.track import DemandTrack, SeriesTrack
from models.events import DAY_US, Float64
from pipelines.demand_plots import (
    demand_pictures,
    errors_picture,
    forecast_picture,
    laws_picture,
    prior_picture,
)
from pipelines.pictures import Pictures

SVG = "{http://www.w3.org/2000/svg}"
START_US = 20_000 * DAY_US
HOSTILE = '<script>alert("x")</script>'
HALF_LIVES = (0.5, 24.0)
NAN = float("nan")


def series(role: str, mean: list[float], actual: list[float], content: str = "c") -> SeriesTrack:
    middle: Float64 = np.array(mean)
    return SeriesTrack(role, content, "lisbon", middle, middle / 2, 2 * middle, np.array(actual))


FOLLOWED = DemandTrack(
    START_US,
    1,
    (
        series("busiest", [4.0, 4.0, 4.0, 4.0], [4.0, 9.0, 1.0, NAN], content=HOSTILE),
        series("new", [NAN, NAN, 2.0, 2.0], [0.0, 1.0, 2.0, 3.0]),
        series("middle", [NAN] * 4, [0.0, 0.0, 0.0, 1.0]),
    ),
    series("total", [10.0] * 4, [9.0, 11.0, NAN, 10.0], content=""),
    {1: np.linspace(0.005, 0.995, 100), 6: np.linspace(0.3, 0.7, 50), 24: np.empty(0)},
)


def prior() -> DemandPrior:
    names = prior_column_names(HALF_LIVES)
    return DemandPrior((1, 6), HALF_LIVES, np.arange(2.0 * len(names)).reshape(2, -1) / 10)


def row(stratum: str, model: str, hours: int, error: float | None) -> dict[str, Any]:
    return {"stratum": stratum, "model": model, "horizon_hours": hours, "scaled_pinball": error}


ROWS = [
    row("tail", "candidate", 1, 0.9), row("tail", "champion", 1, 0.8),
    row("all", "candidate", 1, 0.5), row("all", "champion", 1, 0.6),
    row("all", "candidate", 6, 0.4), row("all", "champion", 6, 0.45),
    row("all", "EWMA 6 h", 6, 7.7), row("other", "candidate", 1, None), row("other", "champion", 1, None),
]  # fmt: skip


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ET.fromstring(svg).iter(SVG + "text")]


def pictures(**changes: Any) -> Pictures:
    settings: dict[str, Any] = {"rows": ROWS, "opponent": "champion", "ours": "candidate"} | changes
    return demand_pictures(f"version 7 {HOSTILE}", FOLLOWED, prior(), **settings)


def test_forecast__panels_count_their_misses() -> None:
    """[2, 8] holds 4, not 9 and 1: 2 of 3 known. The new cell: 1 came when 0 was expected; then 2 and 3 in [1, 4]."""
    picture = forecast_picture(FOLLOWED)
    said = " ".join(texts(picture.svg))
    assert "67\u00a0% outside the 80\u00a0% interval, 20\u00a0% expected (2 of 3)." in said
    assert "33\u00a0% outside the 80\u00a0% interval, 20\u00a0% expected (1 of 3)." in said
    # Nothing was ever said of the cell in the middle, so it has no panel; the total has one.
    assert len(ET.fromstring(picture.svg).findall(SVG + "svg")) == 3
    assert "All requests of the busiest location: lisbon" in said


def test_forecast__total_ignores_hours_without_outcome() -> None:
    """An unobserved hour must not make the band of the hours after it unknown."""
    svg = forecast_picture(FOLLOWED).svg
    assert "nan" not in svg
    # 9, 11 and 10 lie in the Poisson band around 10, which holds until there are errors to learn from.
    assert "0\u00a0% outside the 80\u00a0% interval, 20\u00a0% expected (0 of 3)." in " ".join(texts(svg))


def test_laws__say_by_horizon_how_far_they_are_off() -> None:
    """Evenly spread places are honest; places in [0.3, 0.7] only mean that all outcomes lie inside the interval."""
    picture = laws_picture(FOLLOWED.positions)
    assert picture is not None
    said = " ".join(texts(picture.svg))
    assert "1\u00a0h, 100 outcomes" in said
    assert "80\u00a0% inside the 80\u00a0% interval." in said
    assert "100\u00a0% inside the 80\u00a0% interval." in said
    assert "24\u00a0h" not in said
    assert laws_picture({1: np.empty(0)}) is None


def test_errors__stand_by_stratum_in_a_fixed_order() -> None:
    """`all` comes first; strata without this error and other methods are left out; what was not scored is a dash."""
    picture = errors_picture(ROWS, opponent="champion", ours="candidate")
    assert picture is not None
    written = texts(picture.svg)
    assert [t for t in written if t in ("all", "tail", "other")] == ["all", "tail"]
    assert [t for t in written if t.startswith("0.")] == ["0.500", "0.600", "0.400", "0.450", "0.900", "0.800"]
    assert written.count("–") == 2
    assert "7.700" not in written
    assert "The candidate errs more than champion in: tail at 1\u00a0h." in picture.sentence


def test_errors__that_are_nowhere_larger_are_said_so_and_none_have_no_picture() -> None:
    """The sentence is what a reader of the alternative text gets."""
    picture = errors_picture(ROWS[2:], opponent="champion", ours="candidate")
    assert picture is not None
    assert picture.sentence.endswith("Nowhere more than champion.")
    assert errors_picture([], opponent="champion", ours="candidate") is None
    assert len(pictures(rows=[]).drawn) == 3


def test_prior__names_its_terms_in_words() -> None:
    """Nobody should have to know what `own:0.5h` is; the third term is content at 0.5 h with weights 0.2 and 0.9."""
    written = texts(prior_picture(prior()).svg)
    assert "own cell, 0.5\u00a0h" in written
    assert "sessions under way, to this cell" in written
    at = written.index("content × share of the place, 0.5\u00a0h")
    assert written[at + 1 : at + 3] == ["0.20", "0.90"]
    assert all(":" not in text for text in written)


def test_texts__are_pictures_and_one_page_that_need_nothing_else() -> None:
    """Images have their colours written in, the page keeps variables for dark mode; a name from data stays text."""
    found = pictures().texts()
    assert list(found) == [f"plots/{n}.svg" for n in ("forecast", "quantiles", "errors", "prior")] + ["report.html"]
    for name, text in found.items():
        assert "<script" not in text, name
        assert "nan" not in text.lower()
        if name.endswith(".svg"):
            assert "var(" not in text
            assert ET.fromstring(text).get("aria-label")
    page = found["report.html"]
    assert page.count("<svg ") >= 4
    assert "var(--ours" in page
    assert "&lt;script&gt;" in page
    assert Pictures().texts() == {}


@pytest.mark.parametrize("text", pictures().texts().values())
def test_texts__are_small(text: str) -> None:
    """The page opens at once over a slow line."""
    assert len(text) < 100_000
