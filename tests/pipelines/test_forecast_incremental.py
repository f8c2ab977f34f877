"""Forecasts that go on from the counters of the one before: the same bytes as from the whole log, or built anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.counters import CounterStore
from models.demand.operation import TrailingSettings
from models.events import HOUR_US, RequestLog
from pipelines.champions import Champion, Champions
from pipelines.config import DataSource
from pipelines.counter_state import Counted, count_until, log_digest
from pipelines.errors import Degraded
from pipelines.forecast import forecast_step, latest_forecasts
from pipelines.inputs import Inputs
from pipelines.jobs import iso
from pipelines.place import place_step
from pipelines.review import LOADERS
from pipelines.store import read_request_log
from tests.conftest import END_US, NAME, QUIET, TinyHome, copied
from tests.models.losing_model import biased

EARLIER_US = END_US - 12 * HOUR_US


def forecast(tiny: TinyHome, *assignments: str, at_us: int = END_US) -> dict[str, Any]:
    told: dict[str, Any] = forecast_step(tiny.config("placement", *assignments), tiny.home, QUIET, at=iso(at_us))[0]
    return told


def counters(tiny: TinyHome) -> Path:
    return tiny.home.state / "counters"


@pytest.fixture(scope="module")
def in_one(home_with_champions: TinyHome, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a forecast from the whole log, with the counters' checksums."""
    tiny = copied(home_with_champions, tmp_path_factory.mktemp("whole") / "home")
    told = forecast(tiny)
    assert told["counters"] == {"went_on_from": None, "note": ""}
    return told | {"files": files(tiny)}


def files(tiny: TinyHome) -> dict[str, str]:
    found: dict[str, str] = json.loads((counters(tiny) / "artefact.json").read_text(encoding="utf-8"))["files"]
    return found


def same(told: dict[str, Any], whole: dict[str, Any]) -> bool:
    return bool(told["checksums"] == whole["checksums"] and told["trailing"] == whole["trailing"])


@pytest.fixture
def fed_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First instants of the logs that counters are fed while a test runs."""
    found: list[int] = []
    update = CounterStore.update

    def spied(self: CounterStore, log: RequestLog, **options: bool) -> None:
        if len(log):
            found.append(int(log.ts_us[0]))
        update(self, log, **options)

    monkeypatch.setattr(CounterStore, "update", spied)
    return found


def test_forecast__goes_on_from_the_one_before(
    operated_home: TinyHome, in_one: dict[str, Any], fed_from: list[int]
) -> None:
    """Three steps give the forecast, the losses and the counters of one, and nothing is fed twice."""
    forecast(operated_home, at_us=EARLIER_US)
    forecast(operated_home, at_us=EARLIER_US + 3 * HOUR_US)
    fed_from.clear()
    told = forecast(operated_home)
    assert told["counters"] == {"went_on_from": iso(EARLIER_US + 3 * HOUR_US), "note": ""}
    assert min(fed_from) >= EARLIER_US + 3 * HOUR_US - HOUR_US  # next content, which has a state of its own
    assert same(told, in_one)
    assert files(operated_home) == in_one["files"]


def test_forecast__for_the_same_instant_feeds_nothing(operated_home: TinyHome, in_one: dict[str, Any]) -> None:
    """Other settings are another job on the same counters."""
    forecast(operated_home)
    told = forecast(operated_home, "seed=1")
    assert told["changed"]
    assert told["counters"]["went_on_from"] == iso(END_US)
    assert same(told, in_one)


def test_forecast__goes_on_when_requests_arrive(operated_home: TinyHome, in_one: dict[str, Any]) -> None:
    """The tables of the first run end where it stands; those of the second go on: another digest, the same beginning."""
    last = sorted((operated_home.tables / "requests").glob("day=*/*.parquet"))[-1]
    whole = pq.read_table(last)
    early = whole.filter(np.asarray(whole["ts"].cast("int64")) < EARLIER_US)
    pq.write_table(early, last)
    first = forecast_step(operated_home.config("placement"), operated_home.home, QUIET, at="")[0]
    assert first["at_us"] <= EARLIER_US
    pq.write_table(whole, last)
    told = forecast(operated_home)
    assert told["data"] != first["data"]
    assert told["counters"]["went_on_from"] == first["at"]
    assert told["checksums"] == in_one["checksums"]


def test_forecast__a_late_row_builds_the_counters_anew(operated_home: TinyHome) -> None:
    """A request that became known after the first run lies before its instant: its counters are not those of the log."""
    day = sorted((operated_home.tables / "requests").glob("day=*/*.parquet"))[1]
    whole = pq.read_table(day)
    pq.write_table(whole.slice(1), day)
    forecast(operated_home, at_us=EARLIER_US)
    pq.write_table(whole, day)
    told = forecast(operated_home)
    assert told["counters"]["went_on_from"] is None
    assert told["counters"]["note"] == (
        f"the counters were built anew, because the requests before {iso(EARLIER_US)} are no longer those that the ones "
        "kept were fed"
    )
    assert told["quality"] == "good"


def test_forecast__rows_known_later_are_not_read(operated_home: TinyHome) -> None:
    """A row of yesterday that becomes known tomorrow changes nothing today."""
    honest = forecast(operated_home)
    day = sorted((operated_home.tables / "requests").glob("day=*/*.parquet"))[1]
    table = pq.read_table(day)
    column = table.column_names.index("available_at")
    tomorrow = pa.array(np.full(200, END_US + HOUR_US)).cast(table["available_at"].type)
    late = table.slice(0, 200).set_column(column, "available_at", tomorrow)
    pq.write_table(pa.concat_tables([table, late]), day)
    told = forecast(operated_home)
    assert told["changed"]
    assert told["checksums"] == honest["checksums"]


def _cut(folder: Path) -> None:
    cells = folder / "cells.arrow"
    cells.write_bytes(cells.read_bytes()[: cells.stat().st_size // 2])


def _lost(folder: Path) -> None:
    (folder / "moves.arrow").unlink()


def _no_json(folder: Path) -> None:
    (folder / "artefact.json").write_text('{"kind": "counters",', encoding="utf-8")


def _changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "artefact.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            if name == "format":
                manifest["format"] = value
            else:
                manifest["state"][name] = value
        path.write_text(json.dumps(manifest), encoding="utf-8")

    return change


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (_cut, "checksum differs"),
    (_lost, "is missing"),
    (_no_json, "cannot be read"),
    (_changed(format=1), "has format 1"),
    (_changed(fed=None), "do not say which requests they were fed"),
    (_changed(fed={"digest": 7}), "cannot be read"),
    (
        _changed(trailing={"model": "another", "hours": []}),
        "have to be compared on hours that the ones kept have passed",
    ),
    (_changed(fed={"until_us": EARLIER_US, "digest": "wrong"}), "are no longer those that the ones kept were fed"),
]


def count(tiny: TinyHome, kept: Path) -> Counted:
    """Counters at the end of the tables, gone on with from a folder where that is allowed."""
    return count_until(
        END_US,
        Inputs.find(DataSource(tables=NAME), tiny.home).requests(END_US),
        kept=kept,
        model=LOADERS["demand"](tiny.home.local_model("premirror-demand") / "model"),
        model_digest=json.loads((counters(tiny) / "artefact.json").read_text())["state"]["trailing"]["model"],
        settings=TrailingSettings(),
    )


@pytest.fixture(scope="module")
def earlier(home_with_champions: TinyHome, tmp_path_factory: pytest.TempPathFactory) -> TinyHome:
    """A home whose state is twelve hours old. Read only."""
    tiny = copied(home_with_champions, tmp_path_factory.mktemp("earlier") / "home")
    forecast(tiny, at_us=EARLIER_US)
    return tiny


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_count__from_counters_that_cannot_be_used(
    earlier: TinyHome, in_one: dict[str, Any], tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    """Half-written, of another format, of other requests or of another model: built anew, said, and never a crash."""
    folder = tmp_path / "counters"
    shutil.copytree(counters(earlier), folder)
    damage(folder)
    found = count(earlier, folder)
    assert found.note.startswith("the counters were built anew, because ")
    assert said in found.note
    assert found.went_on_from_us is None
    found.save(folder, version="1")
    assert json.loads((folder / "artefact.json").read_text(encoding="utf-8"))["files"] == in_one["files"]


def test_count__from_sound_counters(earlier: TinyHome, in_one: dict[str, Any], tmp_path: Path) -> None:
    """The same without damage goes on, and comes to the same counters and losses as from nothing."""
    found, whole = count(earlier, counters(earlier)), count(earlier, tmp_path / "none")
    assert (found.note, found.went_on_from_us, whole.went_on_from_us) == ("", EARLIER_US, None)
    assert found.trailing == whole.trailing
    assert found.trailing is not None
    found.save(tmp_path / "counters", version="1")
    assert json.loads((tmp_path / "counters" / "artefact.json").read_text())["files"] == in_one["files"]


def test_forecast__a_damaged_state_is_a_note(operated_home: TinyHome, in_one: dict[str, Any]) -> None:
    """The forecast is as good as ever, and its manifest says what was wrong."""
    forecast(operated_home)
    _cut(counters(operated_home))
    told = forecast(operated_home, "seed=1")
    assert "checksum differs" in told["counters"]["note"]
    assert told["quality"] == "good"
    assert same(told, in_one)


def test_forecast__of_an_older_window_leaves_the_counters_alone(operated_home: TinyHome) -> None:
    """They are of a later instant: it builds its own, and the newest forecast's stay."""
    forecast(operated_home)
    kept = files(operated_home)
    told = forecast(operated_home, at_us=EARLIER_US)
    assert "which is later than" in told["counters"]["note"]
    assert files(operated_home) == kept


def test_forecast__killed_before_its_state_appeared(
    operated_home: TinyHome, in_one: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is replaced whole: a run killed while writing it leaves the one before, and the next goes on from that."""
    forecast(operated_home, at_us=EARLIER_US)

    def killed(folder: Path, **_: object) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.forecast.save_sessions", killed)
        with pytest.raises(KeyboardInterrupt):
            forecast(operated_home)
    assert latest_forecasts(operated_home.home).at_us == EARLIER_US
    told = forecast(operated_home)
    assert told["counters"]["went_on_from"] == iso(EARLIER_US)
    assert same(told, in_one)


def test_log_digest__tells_every_difference() -> None:
    """Sessions, ids, instants and gaps; not how the ids were cut: ("ab", "c") is not ("a", "bc")."""

    def log(*contents: str, session: str = "s", at_us: int = 0) -> RequestLog:
        return RequestLog.from_columns(np.array([0, 1]) + at_us, ["s", session], list(contents), ["x", "x"])

    logs = [log("ab", "c"), log("a", "bc"), log("ab", "c", session="t"), log("ab", "c", at_us=1)]
    logs.append(logs[0].with_gaps([(0, 1)]))
    assert len({log_digest(one) for one in logs}) == len(logs)
    assert log_digest(log("ab", "c")) == log_digest(logs[0])


# ---- fall-back to the prior


@pytest.fixture
def losing(operated_home: TinyHome, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The champion with a network that multiplies every mean by e."""
    model = biased(LOADERS["demand"](operated_home.artefact("demand")), 1.0)
    monkeypatch.setattr(Champions, "demand", lambda *_, **__: Champion(model, "1", digest="losing"))
    return model


def test_forecast__falls_back_to_the_prior_of_a_network_that_loses(operated_home: TinyHome, losing: Any) -> None:
    """The forecast is the prior's, marked with both losses, and so is the plan; strict answers 4, also when asked again."""
    told = forecast(operated_home, "trailing.tolerance=0")
    trailing = told["trailing"]
    assert (told["quality"], trailing["verdict"], trailing["hours"]) == ("fallback", "prior", 6)
    assert trailing["model_loss"] > trailing["prior_loss"]
    assert told["reasons"] == [f"premirror-demand: {trailing['sentence']}"]
    assert "nats a cell; the prior answers until it is better again" in trailing["sentence"]
    store = CounterStore()
    store.update(read_request_log(operated_home.tables))
    said = losing.prior_only().forecast(store, at_us=END_US, horizon_hours=6)
    assert latest_forecasts(operated_home.home).demand().mean.sum() == pytest.approx(said.mean.sum())
    plan, text = place_step(operated_home.config("placement"), operated_home.home, QUIET, at="", dry_run=True)
    assert plan["reasons"] == told["reasons"]
    assert "Fallback: premirror-demand: the network lost to its own prior" in text
    for _ in range(2):
        with pytest.raises(Degraded, match="lost to its own prior"):
            forecast(operated_home, "trailing.tolerance=0", "on_fallback=strict")


def test_forecast__a_network_that_wins_answers_and_its_losses_are_kept(operated_home: TinyHome) -> None:
    """Good forecasts carry the comparison as well, so that a page can show how near it is."""
    told = forecast(operated_home)
    assert told["quality"] == "good"
    assert told["trailing"]["verdict"] == "model"
    assert told["trailing"]["since"] is None
    assert 0 < told["trailing"]["prior_loss"] < 5
