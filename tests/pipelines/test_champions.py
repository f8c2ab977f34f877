"""Next content after training: fed what was known before the cut-off, or left as it was with a sentence that says why."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.counters import CounterStore
from models.events import HOUR_US, RequestLog
from models.next_content.memory import StreamMemory
from models.next_content.predictor import NextContentPredictor
from models.next_content.refresh import Refresher, RefreshSettings
from models.next_content.sequence import SequenceNetwork, SequenceSettings
from models.next_content.sessions import SessionBatch
from pipelines.champions import Champions, brought_up_to_date, feed, same_codes
from pipelines.config import DataSource
from pipelines.forecast import forecast_step
from pipelines.inputs import Inputs
from pipelines.jobs import iso
from tests.conftest import END_US, NAME, QUIET, TinyHome

HALF_DAY_US = 12 * HOUR_US


def forecast(tiny: TinyHome, *, at_us: int = END_US) -> dict[str, Any]:
    told: dict[str, Any] = forecast_step(tiny.config("placement"), tiny.home, QUIET, at=iso(at_us))[0]
    return told


def copy_of(tiny: TinyHome) -> NextContentPredictor:
    return NextContentPredictor.load(tiny.home.state / "next-content")


def trained(tiny: TinyHome) -> NextContentPredictor:
    return NextContentPredictor.load(tiny.artefact("next-content"))


def inputs(tiny: TinyHome) -> Inputs:
    return Inputs.find(DataSource(tables=NAME), tiny.home)


def starts(model: NextContentPredictor, *, at_us: int) -> SessionBatch:
    """A session at its start in each location."""
    n = len(model.store.locations)
    nothing, none = np.full((n, 10), -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    return SessionBatch(nothing, np.arange(n, dtype=np.int32), np.full(n, at_us), nothing, none, none)


def files(tiny: TinyHome) -> dict[str, bytes]:
    folder = tiny.home.state / "next-content"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_next_content__is_the_champion_fed_until_the_cut_off(operated_home: TinyHome) -> None:
    """The copy answers with contents first requested after training, as the champion fed by hand does."""
    told = forecast(operated_home)
    copy, model = copy_of(operated_home), trained(operated_home)
    trained_until = model.memory.time_us
    assert feed(model, inputs(operated_home), at_us=END_US)
    assert trained_until < END_US - HALF_DAY_US < copy.memory.time_us < END_US
    assert told["next_content"] == {"version": "1", "as_of": iso(copy.memory.time_us), "note": ""}
    assert (operated_home.home.state / "next-content" / "as_of").read_text().strip() == iso(copy.memory.time_us)
    mine, theirs = (m.predict(starts(m, at_us=END_US), k=40) for m in (copy, model))
    assert np.array_equal(mine.content, theirs.content)
    assert np.array_equal(mine.probability, theirs.probability)
    named = copy.store.contents[mine.content[mine.content >= 0]]
    first_us = copy.store.first_seen_us(copy.store.content_ids.codes(list(named)))
    assert (first_us > trained_until).any()


def test_next_content__holds_nothing_from_the_cut_off_on(operated_home: TinyHome) -> None:
    """A forecast for an instant inside the tables must not know what came later."""
    at_us = END_US - HALF_DAY_US
    forecast(operated_home, at_us=at_us)
    store = copy_of(operated_home).store
    assert store.time_us < at_us
    known = store.first_seen_us(np.arange(len(store.contents)))
    assert known[known < np.iinfo(np.int64).max].max() < at_us
    assert store.appeared_us(np.arange(len(store.contents))).max() < at_us


def test_next_content__in_two_steps_is_as_in_one(operated_home: TinyHome, tmp_path: Path) -> None:
    """The second forecast goes on from the first's copy, sessions under way included, byte for byte."""
    in_one = TinyHome(type(operated_home.home)(tmp_path / "one"), operated_home.configs)
    shutil.copytree(operated_home.home.root, in_one.home.root)
    forecast(in_one)
    forecast(operated_home, at_us=END_US - HALF_DAY_US)
    told = forecast(operated_home)
    assert told["next_content"]["note"] == ""
    one, two = copy_of(in_one), copy_of(operated_home)
    asked = starts(one, at_us=END_US)
    assert np.array_equal(one.predict(asked, k=40).probability, two.predict(asked, k=40).probability)


def test_next_content__a_second_run_leaves_the_copy_alone(operated_home: TinyHome) -> None:
    """Same window, versions, tables and settings: nothing is read or written again. An older window neither."""
    forecast(operated_home)
    manifest = operated_home.home.state / "next-content" / "artefact.json"
    stamp = manifest.stat().st_mtime_ns
    assert not forecast(operated_home)["changed"]
    assert forecast(operated_home, at_us=END_US - HALF_DAY_US)["changed"]
    assert manifest.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("version", "noted"), [("1", True), ("7", False)])
def test_next_content__a_copy_that_cannot_be_used(operated_home: TinyHome, version: str, *, noted: bool) -> None:
    """A damaged copy is begun again from the champion, with a note; one of another version is not even read."""
    forecast(operated_home, at_us=END_US - HALF_DAY_US)
    folder = operated_home.home.state / "next-content"
    (folder / "version").write_text(version, encoding="utf-8")
    (folder / "artefact.json").write_text("{", encoding="utf-8")
    told = forecast(operated_home)
    assert told["quality"] == "good"
    assert ("the last copy cannot be read" in told["next_content"]["note"]) == noted
    assert (folder / "version").read_text(encoding="utf-8") == "1\n"
    assert copy_of(operated_home).memory.time_us > END_US - HALF_DAY_US


def test_next_content__a_copy_of_other_networks_is_not_gone_on_from(operated_home: TinyHome) -> None:
    """A registry made anew counts its versions from 1 again; its version 1 is another model."""
    forecast(operated_home, at_us=END_US - HALF_DAY_US)
    folder = operated_home.home.state / "next-content"
    other = copy_of(operated_home)
    for tensor in other.hybrid.state_dict().values():
        tensor.zero_()
    other.save(folder)
    (folder / "version").write_text("1\n", encoding="utf-8")
    forecast(operated_home)
    mine, champion = (m.hybrid.state_dict() for m in (copy_of(operated_home), trained(operated_home)))
    assert all(np.array_equal(mine[name], champion[name]) for name in champion)


def test_next_content__no_champion(writable_world: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first promotion the forecast is made without a copy, and its manifest says so."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    told = forecast(writable_world)["next_content"]
    assert (told["version"], told["as_of"]) == ("none", None)
    assert "premirror-next-content: there is none to bring up to date, because" in told["note"]
    assert not (writable_world.home.state / "next-content").exists()


def test_next_content__a_version_that_cannot_be_read_spares_the_local_copy(operated_home: TinyHome) -> None:
    """What the registry holds takes the place of the last good copy only once it could be loaded."""
    forecast(operated_home, at_us=END_US - HALF_DAY_US)
    champions = Champions(operated_home.home)
    registry = champions._registry
    assert registry is not None
    folder = operated_home.home.root / "old" / "artifacts" / "artefact"
    registry.download("next-content", "1", folder)
    (folder / "model" / "artefact.json").write_text("{", encoding="utf-8")
    name = "premirror-next-content"
    second = registry.client.create_model_version(name, (operated_home.home.root / "old").as_uri())
    registry.client.set_registered_model_alias(name, "champion", second.version)
    found = champions.next_content()
    assert found.version == "1"
    assert "last good local copy, because" in found.reason
    assert NextContentPredictor.load(operated_home.home.local_model(name) / "model").name == found.model.name


def test_next_content__tables_without_its_columns(operated_home: TinyHome, tmp_path: Path) -> None:
    """Tables that lack what the model reads leave no copy, and a sentence that names the column."""
    champion = Champions(operated_home.home).next_content()
    champion.model.device_features = ("screen",)
    found = brought_up_to_date(champion, tmp_path / "none", inputs(operated_home), at_us=END_US)
    assert found.model is None
    assert "not brought up to date, because" in found.reason
    assert "screen" in found.reason


def test_next_content__trained_beyond_the_cut_off(operated_home: TinyHome, tmp_path: Path) -> None:
    """A window that begins before the end of training gets no copy: it would know its own future."""
    champion = Champions(operated_home.home).next_content()
    at_us = champion.model.memory.time_us
    found = brought_up_to_date(champion, tmp_path / "none", inputs(operated_home), at_us=at_us)
    assert found.model is None
    assert f"knows requests until {iso(at_us)}" in found.reason


# ---- sessions of another reading


def small_memory(log: RequestLog) -> StreamMemory:
    network = SequenceNetwork(SequenceSettings(size=4, features=2), seed=0)
    memory = StreamMemory(CounterStore(), Refresher(RefreshSettings(), network, seed=0))
    memory.update(log)
    return memory


def reading(*, users: bool = True) -> RequestLog:
    """Three sessions of two visitors within a minute."""
    return RequestLog.from_columns(
        HOUR_US + np.arange(6) * 10_000_000,
        session=["s", "t", "s", "u", "t", "u"],
        content=["a", "b", "c", "a", "c", "b"],
        location=["x"] * 6,
        user=["p", "q", "p", "p", "q", "p"] if users else None,
    )


@pytest.mark.parametrize("users", [True, False])
def test_same_codes__of_the_same_tables(*, users: bool) -> None:
    """What was fed, read again with more behind it, has the codes that the memory holds."""
    log = reading(users=users)
    memory = small_memory(log.rows(0, 4))
    assert same_codes(memory, log.rows(0, 4))
    assert not same_codes(memory, log.rows(1, 3))


def test_same_codes__one_session_more_moves_all_that_follow() -> None:
    """A request that became known late, or a table that begins earlier, is noticed by sessions and by visitors."""
    log = reading()
    memory = small_memory(log)
    assert not same_codes(memory, replace(log, session=log.session + 1))
    assert log.visitor is not None
    assert not same_codes(memory, replace(log, visitor=1 - log.visitor))


def test_next_content__sessions_that_are_numbered_anew_end(operated_home: TinyHome, tmp_path: Path) -> None:
    """Other tables: requests count on by id, no walk crosses, and the note says so; the time after that is sound."""
    champion = Champions(operated_home.home).next_content()
    sessions = champion.model.store.walks.sessions
    sessions.fill(np.array([5_000_000]), np.array([[-1, -1, 0]], dtype=np.int32), np.array([0], dtype=np.int32),
                  np.array([champion.model.memory.time_us]))  # fmt: skip
    found = brought_up_to_date(champion, tmp_path / "none", inputs(operated_home), at_us=END_US)
    assert "sessions under way were ended" in found.reason
    memory = found.model.memory
    assert memory.time_us > END_US - HOUR_US
    log = replace(inputs(operated_home), features=("segment",), catalogue=True).requests(END_US)
    assert same_codes(memory, log)
