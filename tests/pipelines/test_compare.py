"""Two replays on one page: paired where the hours are the same, side by side with the reason where they are not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from models.quantities import Estimate
from pipelines.accounts import HourlyAccount
from pipelines.cli import app
from pipelines.compare import Comparison, compare_step
from pipelines.compare_page import headline, render_comparison
from pipelines.errors import InputError
from pipelines.home import Home
from pipelines.report_data import FORMAT, MethodRow, Place, Repeat, ReportData, Role
from pipelines.saved_report import DATA, find_replay, read_replay
from tests.pipelines.test_report import HOSTILE, Page, _cells

HOURS = 48


def method(key: str, role: Role, net: float, cost: float) -> MethodRow:
    """100 MB are requested and the same share of them is avoided in every hour; money is spent evenly."""
    account = HourlyAccount(0, (1e8,) * HOURS, (net * 1e8,) * HOURS, (cost / HOURS,) * HOURS)
    return MethodRow(
        {"ours": "Premirror", "cdn-alone": "CDN alone"}.get(key, key),
        Estimate(net),
        None,
        (1e9, 1e9, 1e9),
        1e9,
        1e8,
        cost,
        20.0,
        80.0,
        0.0,
        0.0,
        role,
        key=key,
        hourly=account,
        cause_bytes=(("not forecast", 3e9), ("copy not yet there", (1 - net) * 1e9)),
    )


def place(name: str, saved: float, users: int = 500) -> Place:
    return Place(name, 48.9, 2.3, 4e9, 0.3, users, saved=saved, saved_with_stop_loss=saved, verdict="on")


def run(net: float, cost: float, *, more: tuple[MethodRow, ...] = (), **changes: Any) -> ReportData:
    """A replay whose method keeps this share at this cost, beside the CDN alone at 10."""
    data = ReportData(
        title="Replay small",
        subtitle="Two days.",
        repeat=Repeat("premirror replay", "data-1", "code", "config", (("Demand model", "version 3"),)),
        methods=(method("cdn-alone", "reference", 0.0, 10.0), *more, method("ours", "ours", net, cost)),
        places=(place("Berlin", 10 - cost), place("Lisbon", 1.0), place("Oslo", cost), place("Hamlet", 1.0, 3)),
        currency="$",
        settings={"seed": "0", "every_hours": "3", "window": '["a", "b"]'},
        format=FORMAT,
    )
    return dataclasses.replace(data, **changes)


A = run(0.3, 8.0)
B = run(0.4, 6.0, settings={"seed": "0", "every_hours": "1", "window": '["a", "b"]'})


def compared(a: ReportData = A, b: ReportData = B) -> Comparison:
    return Comparison(("a", "b"), (a, b))


def test_changes__are_paired_and_say_which_is_better() -> None:
    """B keeps 10 points more in every hour and costs 2 $ less: both certain, since every hour differs alike."""
    by_row = {(c.group, c.outcome): c for c in compared().changes}
    share = by_row["Kept off the CDN, net", "Premirror"]
    assert (share.difference.low, share.difference.high) == pytest.approx((0.1, 0.1))
    assert share.state == "better"
    cost = by_row["Cost", "Premirror"]
    assert (cost.difference.value, cost.difference.high) == pytest.approx((-2, -2))
    assert cost.state == "better"
    assert by_row["Cost", "CDN alone"].state == "unclear"


def test_page__shows_the_difference_the_settings_and_the_places() -> None:
    """What differs, what that changed, and where: Berlin saves 2 $ more, Oslo 2 $ less, Lisbon the same."""
    html = render_comparison(compared())
    text = Page(html).text
    assert "B keeps 40.0 % of the traffic off the CDN, A 30.0 %: +10.0 points [+10.0, +10.0], better" in text
    assert _cells(html, "every_hours") == {"A": "3", "B": "1"}
    assert _cells(html, "seed") == {}
    assert _cells(html, "Berlin")["change"] == "+$ 2.00"
    assert _cells(html, "Oslo")["change"] == "−$ 2.00"
    assert _cells(html, "Lisbon") == {}
    assert "Hamlet" not in html  # three users
    assert "Premirror A $ 2.00" in text
    assert "Premirror B $ 4.00" in text


def test_page__causes_stand_side_by_side_and_add_up() -> None:
    """3 + 0.7 and 3 + 0.6 GB, in the unit in which the small ones keep some digits."""
    html = render_comparison(compared())
    total = _cells(html, "Total")
    assert (total["A, MB"], total["B, MB"]) == ("3,700", "3,600")
    assert _cells(html, "copy not yet there")["B less A"] == "−100 MB"


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            dataclasses.replace(B, repeat=dataclasses.replace(B.repeat, data_hash="data-2")),
            "other data: data-1 and data-2",
        ),
        (dataclasses.replace(B, settings={"window": '["a", "c"]'}), "other windows: a, b and a, c"),
        (
            dataclasses.replace(B, methods=tuple(dataclasses.replace(m, hourly=None) for m in B.methods)),
            "b was saved by an older version, without figures by hour; run that replay again",
        ),
        (
            dataclasses.replace(
                B,
                methods=tuple(
                    dataclasses.replace(m, hourly=HourlyAccount(0, (2e8,) * HOURS, (0.0,) * HOURS, (0.0,) * HOURS))
                    for m in B.methods
                ),
            ),
            "requests of their hours differ",
        ),
    ],
)
def test_page__says_why_hours_are_not_paired_and_still_shows_both(other: ReportData, sentence: str) -> None:
    """An interval of unlike hours would be a lie; the columns are still worth a look."""
    found = compared(A, other)
    html = render_comparison(found)
    assert found.changes == ()
    assert found.places == []
    assert sentence in Page(html).text
    assert _cells(html, "Premirror")["net, A"] == "30.0 %"
    assert "cannot be paired" in headline(found)


def test_methods__of_one_run_alone_have_a_dash_in_the_other() -> None:
    """Rows may differ; what was not replayed is not known."""
    with_top = run(0.4, 6.0, more=(method("top-k", "baseline", 0.1, 9.0),))
    html = render_comparison(compared(A, with_top))
    assert _cells(html, "top-k")["net, A"] == "–"
    assert not [c for c in compared(A, with_top).changes if c.outcome == "top-k"]


def test_page__names_from_data_stay_text() -> None:
    """Methods and places may be called anything."""
    hostile = dataclasses.replace(A, places=(place(HOSTILE, 1.0),), title=HOSTILE)
    html = render_comparison(compared(hostile, dataclasses.replace(B, places=(place(HOSTILE, 2.0),))))
    assert HOSTILE not in html
    assert len(Page(html).all("script")) == 1


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two saved replays, `one` and `two`."""
    found = Home(tmp_path).create()
    for name, data in (("one", A), ("two", B)):
        (found.reports / name).mkdir(parents=True)
        (found.reports / name / DATA).write_bytes(TypeAdapter(ReportData).dump_json(data))
    return found


def test_compare_step__writes_the_page_and_the_values(home: Home) -> None:
    """Both for people and for programs; the same again is the same page."""
    value, text = compare_step("one", "two", home)
    page = Path(value["report"])
    assert page.read_text(encoding="utf-8") == render_comparison(Comparison(("one", "two"), (A, B)))
    saved = json.loads((page.parent / "compare.json").read_text(encoding="utf-8"))
    assert saved["paired"] is True
    assert saved["settings"] == [{"key": "every_hours", "a": "3", "b": "1"}]
    assert "40.0" in text
    assert find_replay("latest", home).name in ("one", "two")  # a comparison is no replay


def test_compare_step__names_every_replay_that_is_not_there(home: Home) -> None:
    """Both mistakes at once, with what there is."""
    with pytest.raises(InputError, match=r"(?s)2 mistakes.*no replay 'here'.*one, two.*no replay 'there'"):
        compare_step("here", "there", home)


def test_read_replay__refuses_what_is_damaged_or_too_new(home: Home) -> None:
    """A cut file and one of a later version each get a sentence."""
    path = home.reports / "one" / DATA
    newer = dataclasses.replace(A, format=FORMAT + 1)
    path.write_bytes(TypeAdapter(ReportData).dump_json(newer))
    with pytest.raises(InputError, match=f"format {FORMAT + 1}, and this version reads up to {FORMAT}"):
        read_replay(path.parent)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        compare_step("one", "two", home)


def test_report_command__compares_two(home: Home) -> None:
    """`premirror report --compare A B`."""
    done = CliRunner().invoke(app, ["report", "--compare", "one", "two", "--home", str(home.root), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["paired"] is True
