"""The report must show each figure once or twice alike, keep small groups out, and need nothing but itself."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from models.changes import Change, change_texts
from models.charts import ReliabilityPoint
from models.events import DAY_US
from models.maps import MapPop
from models.quantities import Estimate
from models.time_charts import BandSeries
from pipelines.accounts import HourlyAccount
from pipelines.movement import Movement
from pipelines.report import headline, render
from pipelines.report_data import (
    Audience,
    Cause,
    Causes,
    ForecastPanel,
    MethodRow,
    Metric,
    ModelRow,
    ModelTable,
    Place,
    PlanSummary,
    Repeat,
    ReportData,
    Role,
    Verdict,
)
from tests.pipelines.followed_churn import TRACK

HOSTILE = '<script>alert("x")</script>'
START_US = 20_000 * DAY_US
REPEAT = Repeat("premirror replay --config c.yaml", "sha256 ab12", "4c1d9e7", "5512aa")


MOVED = Movement((("2026-03-06", 40_000_000_000), ("2026-03-07", 33_000_000_000)), 36.5e9, 0.125)


def method(name: str, role: Role, *, net: float, pushed: float, cost: float) -> MethodRow:
    """1,000 GB are requested; the clairvoyant row avoids half of them."""
    nodes = net * 1e12 + pushed
    hourly = HourlyAccount(START_US, (500e9,) * 2, (net * 500e9,) * 2, (0.6 * cost, 0.4 * cost))
    return MethodRow(
        name,
        Estimate(net, net - 0.01, net + 0.01),
        Estimate(net / 0.5, net / 0.5 - 0.02, net / 0.5 + 0.02),
        (1e12 - nodes, 0.75 * nodes, 0.25 * nodes),
        pushed,
        pushed / 2,
        cost,
        30.0,
        84.0,
        0.004,
        0.007,
        role,
        None if role == "reference" else MOVED,
        hourly=hourly,
        captured_peak=Estimate(net / 0.5 - 0.1),
        audiences=(Audience("1", 2e11, 2e11 * net, 0.0), Audience("2", 8e11, 4e11, 4e11)),
    )


METHODS = (
    method("CDN alone", "reference", net=0.0, pushed=0.0, cost=500.0),
    method(HOSTILE, "baseline", net=0.2, pushed=90e9, cost=420.0),
    method("Premirror", "ours", net=0.4, pushed=73e9, cost=310.0),
    method("Clairvoyant", "bound", net=0.5, pushed=60e9, cost=250.0),
)


def panel(name: str, users: int | None, hours: int = 48) -> ForecastPanel:
    """Every fifth outcome lies outside the interval."""
    actual = tuple(99.0 if i % 5 == 0 else 10.0 for i in range(hours))
    return ForecastPanel(name, BandSeries(START_US, (10.0,) * hours, (5.0,) * hours, (15.0,) * hours, actual), users)


def place(name: str, latitude: float, longitude: float, users: int) -> Place:
    """A third of the bytes comes from nodes."""
    return Place(name, latitude, longitude, 4e9, 1 / 3, users)


def full(hours: int = 48) -> ReportData:
    """Every section has something to show, and each kind of name is hostile once."""
    thirds = tuple(Cause(n, (1e9,) * hours, HOSTILE) for n in ("Not forecast", HOSTILE, "Node left"))
    return ReportData(
        title=f"Replay of {HOSTILE}",
        subtitle="2 days replayed.",
        repeat=REPEAT,
        verdict=Verdict(False, (f"worse by 4 % {HOSTILE}",)),
        measured=("requests.ts",),
        modelled=("rtt",),
        methods=METHODS,
        changes=(Change("Delivery", "Pushed", "bytes", 70e9, 73e9, Estimate(3e9, 1e9, 5e9), False, "worse", 0.1),),
        causes=Causes(START_US, thirds, ("Outage at noon.",)),
        plan=PlanSummary("Last plan", (("tier 2", 19424),), 38.4e9, 60e9, 0.008, "feasible", ("Uplink binds.",)),
        places=(
            place(HOSTILE, 48.9, 2.3, 500),
            place("Berlin", 52.5, 13.4, 500),
            place("Hamlet", 45.0, 5.0, 19),
        ),
        pops=(MapPop(HOSTILE, 50.1, 8.7),),
        forecasts=(panel("All places", None, hours), panel(HOSTILE, 20), panel("cell in Hamlet", 19)),
        devices=TRACK,
        quantile_reliability=(ReliabilityPoint(0.9, 0.8, 30),),
        model_tables=(
            ModelTable(
                "Demand",
                (Metric("WAPE", False), Metric("captured", True)),
                (ModelRow("naive", (0.6, None)), ModelRow(HOSTILE, (0.5, 0.7), ours=True)),
            ),
        ),
        limits=("One week.",),
    )


class Page(HTMLParser):
    """What the page holds: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """The text with ordinary single spaces."""
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of each element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]


def test_render__names_from_data_stay_text() -> None:
    """A content may be called anything; only the page's own script may be one."""
    html = render(full())
    assert len(Page(html).all("script")) == 1
    assert HOSTILE not in html
    assert HOSTILE in Page(html).text


def test_render__needs_no_network_no_storage_and_no_anchor() -> None:
    """MLflow shows the page in a sandbox where storage raises and anchors go nowhere."""
    html = render(full())
    page = Page(html)
    assert not [a for _, attributes in page.elements for a in attributes if a in ("src", "href", "action")]
    without_namespace = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|url\(|@import|localStorage|fetch\(|XMLHttp", without_namespace)
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {b.get("data-goto") for b in page.all("button")} <= ids


def test_render__is_the_same_twice() -> None:
    """The page is an artefact; its hash must not change between runs."""
    assert render(full()) == render(full())


def test_render__a_long_run_stays_below_300_kb() -> None:
    """Four weeks of hours, sixty places over the world and a dozen cells still load at once."""
    rows = 12
    data = dataclasses.replace(
        full(28 * 24),
        places=tuple(place(f"place {i}", -50 + 2 * i, -170 + 5 * i, 500) for i in range(60)),
        forecasts=tuple(panel(f"cell {i}", None if i == 0 else 500, 28 * 24) for i in range(rows)),
    )
    assert len(render(data).encode()) < 300_000


def test_render__figures_shown_twice_agree() -> None:
    """Headline, tiles, table, ladder and their sums come from the same rows."""
    html = render(full())
    text = Page(html).text
    # 40 % net, 40/50 of the clairvoyant, 73 GB pushed; 500 - 310 saved.
    assert headline(full()).replace("\u00a0", " ") == (
        "Premirror keeps 40.0 % of the traffic off the CDN, 80 % of what a clairvoyant planner keeps, "
        "and pushes 73.0 GB to do it"
    )
    cells = _cells(html, "Premirror")
    assert cells["Kept off the CDN, net"].startswith("40.0 %")
    assert cells["Of the clairvoyant"].startswith("80.0 %")
    assert cells["Pushed, GB"] == "73.0"
    assert (cells["Cost"], cells["Saved"]) == ("€ 310", "€ 190")
    assert "Saved € 190 € 310 instead of € 500" in text
    assert "Pushed 73.0 GB 50 % never used" in text
    assert "Premirror 80 % of what a clairvoyant planner keeps" in html.replace("\u00a0", " ")


def test_render__moved_bytes_by_day_and_what_of_them_flaps() -> None:
    """40 and 33 GB on two days are 36.5 GB a day, an eighth of it dropped and pushed again; older days are in the mean."""
    html = render(full())
    cells = _cells(html, "Premirror")
    assert (cells["Moved a day, GB"], cells["Flapping"]) == ("36.5", "12.5 %")
    assert (cells["2026-03-06"], cells["2026-03-07"]) == ("40.0", "33.0")
    assert "Moved a day, GB" not in _cells(html, "CDN alone")
    nine = Movement(tuple((f"2026-03-0{day}", 10**9) for day in range(1, 10)), 1e9, None)
    rows = (METHODS[0], dataclasses.replace(METHODS[2], movement=nine))
    html = render(dataclasses.replace(full(), methods=rows))
    cells = _cells(html, "Premirror")
    assert "2026-03-02" not in cells
    assert cells["2026-03-03"] == "1,000"  # MB: the largest value has two to four digits
    assert cells["Flapping"] == "–"
    assert "The mean is over all 9 days; the last 7 are listed." in Page(html).text


def test_render__savings_are_the_difference_of_the_costs_shown() -> None:
    """500.4 - 310.6 = 189.8, but a reader sees 500 and 311 and expects 189."""
    rows = (dataclasses.replace(METHODS[0], cost=500.4), dataclasses.replace(METHODS[2], cost=310.6))
    cells = _cells(render(dataclasses.replace(full(), methods=rows)), "Premirror")
    assert (cells["Cost"], cells["Saved"]) == ("€ 311", "€ 189")


def test_render__cumulative_money_ends_at_what_is_saved() -> None:
    """500 - 310 = 190 in the table, in the sentence and at the end of the curve; what pushes more than it saves is below."""
    html = render(full())
    assert "Premirror: € 190 in 2 h." in Page(html).text
    assert "Premirror € 190" in Page(html).text
    assert "Clairvoyant € 250" in Page(html).text
    bare = dataclasses.replace(full(), methods=tuple(dataclasses.replace(m, hourly=None) for m in METHODS))
    assert "No figures by hour were recorded." in Page(render(bare)).text


def test_render__captured_share_has_a_mean_and_a_peak() -> None:
    """0.4 of 0.5 over all hours, ten points less in the busiest."""
    cells = _cells(render(full()), "Premirror")
    assert cells["all hours"].startswith("80.0 %")
    assert cells["busiest hours"] == "70.0 %"


def test_render__audiences_stand_beside_the_bound_of_who_waits() -> None:
    """A fifth of the bytes is asked for once: a cache serves none of them, ours 40 %."""
    html = render(full())
    assert _cells(html, "Part of all bytes") == {"asked once": "20 %", "2 times": "80 %"}
    assert _cells(html, "Bound, (N − 1) / N") == {"asked once": "0 %", "2 times": "50 %"}
    assert _cells(html, "Premirror")["asked once"] == "40 %"
    assert "20 % of the bytes are asked for once at their place; Premirror serves 40 % of them." in Page(html).text


@pytest.mark.parametrize(
    ("unserved", "sentence"),
    [(144e9, "Together they are all bytes that the mesh did not serve: 100 %."), (288e9, "They name 50.0 % of")],
)
def test_render__causes_say_whether_they_are_complete(unserved: float, sentence: str) -> None:
    """Three causes of 48 GB against what the mesh did not serve, counted without regard to causes."""
    causes = full().causes
    assert causes is not None
    data = dataclasses.replace(full(), causes=dataclasses.replace(causes, unserved_bytes=unserved))
    assert sentence in Page(render(data)).text


def test_render__places_carry_the_verdict_of_the_stop_loss() -> None:
    """What was saved, what would have been, and a ring where it is off."""
    stopped = dataclasses.replace(
        place("Berlin", 52.5, 13.4, 500), saved=-3.0, saved_with_stop_loss=-1.0, verdict="off since noon", flagged=True
    )
    on = dataclasses.replace(place("Paris", 48.9, 2.3, 500), saved=5.0, saved_with_stop_loss=5.0, verdict="on")
    html = render(dataclasses.replace(full(), places=(on, stopped), stop_loss="Stop-loss: over 24 h."))
    berlin = _cells(html, "Berlin")
    assert (berlin["saved"], berlin["if stopped"], berlin["stop-loss"]) == ("−€ 3.00", "−€ 1.00", "off since noon")
    text = Page(html).text
    assert "The stop-loss says off at 1 place." in text
    assert "Stop-loss: over 24 h." in text
    assert "costs more than it saves, or is off" in text
    obeyed = (dataclasses.replace(stopped, saved_with_stop_loss=None),)
    assert "if stopped" not in _cells(render(dataclasses.replace(full(), places=obeyed)), "Berlin")


def test_render__changes_read_as_on_the_card() -> None:
    """The version's description shows the same rows as an image."""
    texts = change_texts(full().changes[0])
    cells = _cells(render(full()), "Pushed")
    assert cells["change"] == f"{texts.difference} {texts.bounds}".replace("\u00a0", " ")
    assert cells["candidate"] == texts.candidate.replace("\u00a0", " ")


def test_render__cause_column_adds_up_to_its_total() -> None:
    """Three equal causes of 48 GB: 144 GB, and shares of 34, 33 and 33 %."""
    html = render(full())
    total = _cells(html, "Total")
    assert (total["GB"], total["share"]) == ("144", "100 %")
    assert _cells(html, "Not forecast")["share"] == "34 %"
    assert _cells(html, "Node left")["share"] == "33 %"
    assert "Largest: not forecast, 34 % of 144 GB." in Page(html).text


def test_render__small_groups_are_counted_but_not_named() -> None:
    """Nineteen users are fewer than twenty, on the map, in the hover text and in the forecasts."""
    html = render(full())
    assert "Hamlet" not in html
    assert "1 place with fewer than 20 users" in Page(html).text
    assert "1 cell with fewer than 20 users" in Page(html).text
    assert "Hamlet" in render(dataclasses.replace(full(), minimum_users=19))


def test_render__places_close_together_get_a_table_only() -> None:
    """A map of one city would be a grey square."""
    near = (place("North", 48.9, 2.3, 500), place("South", 48.8, 2.3, 500))
    html = render(dataclasses.replace(full(), places=near))
    assert _cells(html, "North")["from nodes"] == "33 %"
    section = html.split('<section id="places">')[1].split("</section>")[0]
    assert "<svg" not in section


def test_render__empty_sections_say_why() -> None:
    """Somebody who looks for the replay must learn that there was none."""
    data = ReportData("Training of demand", "Nothing replayed.", REPEAT, missing={"causes": "The replay was skipped."})
    page = Page(render(data))
    assert "No forecast was compared with what happened." in page.text
    assert "The replay was skipped." in page.text
    assert page.all("svg") == []
    assert page.text.count("Training of demand") >= 2  # without rows the title is the headline


def test_render__coverage_is_counted_from_the_outcomes() -> None:
    """48 hours with every fifth outside: 10 of 48 = 21 %."""
    assert "All places: 21 % outside the 80 % interval, 20 % expected (10 of 48)." in Page(render(full())).text


def test_render__devices_stand_beside_what_they_were_forecast_to_do() -> None:
    """The sentence, the table and the reliability speak of the same edge: 62 % were to stay 4 h and 60 % did."""
    text = Page(render(full())).text
    assert "Of nodes that were up, 62 % were expected to stay 4 h and 60 % [57, 63] did." in text
    assert "Of nodes forecast to stay 4 h with 80 %, 78 % [75, 81] did." in text
    assert "phone 40 1,200 62 % 60 % [57, 63] 0.021 0.85" in text
    without = Page(render(dataclasses.replace(full(), devices=None))).text
    assert "No device was up, so no forecast of one was compared." in without


def test_render__unknown_outcomes_are_not_misses() -> None:
    """A forecast of the future has nothing to be judged by."""
    series = BandSeries(START_US, (1.0,), (0.0,), (2.0,), (math.nan,))
    html = render(dataclasses.replace(full(), forecasts=(ForecastPanel("All", series, None),)))
    assert "All: no outcome is known yet." in Page(html).text


def test_headline__says_when_it_does_not_pay() -> None:
    """A method that pushes more than it saves must not read like a success."""
    rows = (METHODS[0], method("Premirror", "ours", net=-0.03, pushed=73e9, cost=510.0))
    text = headline(dataclasses.replace(full(), methods=rows)).replace("\u00a0", " ")
    assert text == "Premirror does not pay: it pushes 73.0 GB and adds 3.0 % to the CDN's traffic"


def test_report_data__saved_and_read_draws_the_same_page() -> None:
    """`premirror report` draws a page again from what the replay saved: arrays and NaN survive it."""
    adapter = TypeAdapter(ReportData)
    again = adapter.validate_json(adapter.dump_json(full()))
    assert render(again) == render(full())


@pytest.mark.parametrize(
    ("damage", "sentence"), [({}, "ChurnTrack lacks"), ({"edges_hours": 3}, "lacks"), (3, "fields")]
)
def test_report_data__damaged_devices_are_refused(damage: object, sentence: str) -> None:
    """A file that somebody cut or edited gets a sentence, not a page with holes."""
    adapter = TypeAdapter(ReportData)
    saved = json.loads(adapter.dump_json(full()))
    with pytest.raises(ValidationError, match=sentence):
        adapter.validate_json(json.dumps({**saved, "devices": damage}))


def test_report_data__refuses_two_of_ours_and_none() -> None:
    """The headline speaks of one method."""
    with pytest.raises(ValueError, match="at most one method of role 'ours'"):
        dataclasses.replace(full(), methods=(METHODS[2], METHODS[2]))
    with pytest.raises(ValueError, match="Expected one method of role 'ours'"):
        dataclasses.replace(full(), methods=METHODS[:1])


def test_model_table__marks_the_best_in_its_direction() -> None:
    """Lower WAPE, higher captured share; what was not measured is never best."""
    table = full().model_tables[0]
    assert [table.best(0), table.best(1)] == [0.5, 0.7]
    with pytest.raises(ValueError, match="1 values for 2 metrics"):
        dataclasses.replace(table, rows=(ModelRow("x", (1.0,)),))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the chromium browser")
@pytest.mark.parametrize("width", [390, 901, 1440])
def test_render__nothing_is_wider_than_its_frame(width: int, tmp_path: Path) -> None:
    """In a real browser, no section is cut off or pushes the page sideways."""
    (tmp_path / "report.html").write_text(render(full()), encoding="utf-8")
    # A frame, because a browser window cannot be made as narrow as a phone.
    probe = (
        f'<iframe id="f" src="report.html" width="{width}" height="900"></iframe><p id="p"></p><script>'
        'onload=()=>{const d=document.getElementById("f").contentDocument.documentElement;'
        'document.getElementById("p").textContent=`width ${d.scrollWidth} of ${d.clientWidth}`}</script>'
    )
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"]
    run = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", str(tmp_path / "probe.html")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = re.search(r"width (\d+) of (\d+)", run.stdout.split('id="p"')[1])
    assert found is not None
    assert int(found[1]) <= int(found[2])


def _cells(html: str, name: str) -> dict[str, str]:
    """Column to text of all table rows with this first cell."""
    cells: dict[str, str] = {}
    for row in re.findall(r'<tr role="row".*?</tr>', html, re.DOTALL):
        head = re.search(r"<th[^>]*>(.*?)</th>", row, re.DOTALL)
        if head and Page(head[1]).text == name:
            for label, body in re.findall(r'<td role="cell" data-label="([^"]*)"[^>]*>(.*?)</td>', row, re.DOTALL):
                cells[label] = Page(body).text
    return cells
