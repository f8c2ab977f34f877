"""`premirror update`: from the champion to a candidate that says where it comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.churn.forecaster import ChurnForecaster
from models.churn.recalibrated import composed
from models.churn.updating import UpdatedChurn, update_churn
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.updating import UpdatedDemand, update_demand
from models.errors import UnknownVersion
from models.events import DAY_US
from models.registry import Registry
from models.snapshot import load_counters
from pipelines import cli
from pipelines.errors import InputError, PipelineError
from pipelines.jobs import iso
from pipelines.store import read_request_log
from pipelines.update import update_step
from tests.conftest import END_US, QUIET, TinyHome

SHORT = ("update.days=4", "update.validation_days=1")


def update(tiny: TinyHome, *assignments: str, at: str = "", version: str = "champion") -> dict[str, Any]:
    run = tiny.config("demand", *SHORT, *assignments)
    return update_step("demand", run, tiny.home, QUIET, at=at, version=version)[0]


def update_churn_step(tiny: TinyHome, *assignments: str, at: str = "") -> dict[str, Any]:
    run = tiny.config("churn", *assignments)
    return update_step("churn", run, tiny.home, QUIET, at=at, version="champion")[0]


def registry(tiny: TinyHome) -> Registry:
    return Registry(tiny.home.tracking_uri, tiny.home.artefact_root)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[UpdatedDemand]:
    """Updates that were made; the refitted prior is kept, whatever the tiny validation day says."""
    found: list[UpdatedDemand] = []

    def forced(*args: Any, **options: Any) -> UpdatedDemand:
        found.append(replace(update_demand(*args, **options), kept="prior"))
        return found[-1]

    monkeypatch.setattr("pipelines.update.update_demand", forced)
    return found


def test_update__registers_a_candidate_that_names_its_origin(
    operated_home: TinyHome, decided: list[UpdatedDemand]
) -> None:
    """The champion stays; the candidate is a version of its own with history, tags and counters until the instant."""
    told = update(operated_home, at=iso(END_US))
    assert told["changed"]
    assert (told["updated_from"], told["version"], told["at"]) == ("1", "2", iso(END_US))
    found = registry(operated_home)
    assert found.aliases("demand") == {"candidate": "2", "champion": "1"}
    version = found.version("demand", "2")
    assert (version.tags["updated_from"], version.tags["kept"]) == ("1", "prior")
    run = found.client.get_run(version.run_id)
    assert run.data.tags["updated_from"] == "1"
    assert run.data.metrics["validation.prior"] == 1.0
    assert run.data.params["read.validation"] == "2026-03-07T00:00Z/2026-03-08T00:00Z"
    assert {row["epoch"] for row in told["history"]} == {0.0, 1.0}
    folder = operated_home.home.root / "fetched"
    found.download("demand", "2", folder)
    assert DemandForecaster.load(folder / "model").settings == decided[0].model.settings
    store, expected = load_counters(folder / "counters"), CounterStore()
    expected.update(read_request_log(operated_home.tables, before_us=END_US))
    assert store.time_us == expected.time_us


def test_update__where_nothing_is_better_registers_nothing(
    operated_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model in use stays in use, and the answer says so."""

    def forced(*args: Any, **options: Any) -> UpdatedDemand:
        return replace(update_demand(*args, **options), kept="model in use")

    monkeypatch.setattr("pipelines.update.update_demand", forced)
    run = operated_home.config("demand", *SHORT)
    told, text = update_step("demand", run, operated_home.home, QUIET, at="", version="1")
    assert not told["changed"]
    assert text == "Nothing was better than premirror-demand version 1; no candidate was registered."
    assert registry(operated_home).aliases("demand") == {"candidate": "1", "champion": "1"}


def test_update__until_the_last_whole_hour_by_default(operated_home: TinyHome) -> None:
    """The hour that is still running is not an outcome yet."""
    told = update(operated_home)
    assert told["at"] == "2026-03-07T23:00:00Z"
    assert set(told["losses"]) == {"model in use", "updated", "prior"}
    assert all(np.isfinite(loss) for loss in told["losses"].values())


def test_update__refusals_are_sentences(operated_home: TinyHome, tiny_world: TinyHome) -> None:
    """Too few days, a model that is not updated like this, a version that does not exist."""
    with pytest.raises(InputError, match="An update needs 30 h of rows before 1 days of validation"):
        update(operated_home, at=iso(END_US - 4 * DAY_US))
    run = operated_home.config("next-content")
    with pytest.raises(
        PipelineError, match="Only demand and churn models are updated by themselves, not premirror-next"
    ):
        update_step("next-content", run, operated_home.home, QUIET, at="", version="champion")
    with pytest.raises(UnknownVersion, match="has no version 9"):
        update(operated_home, version="9")


def test_update__churn_registers_a_calibrated_candidate(
    operated_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 is the champion with another calibration, says so, and comes with its sessions."""
    found: list[UpdatedChurn] = []

    def forced(*args: Any, **options: Any) -> UpdatedChurn:
        made = update_churn(*args, **options)
        model = args[1].calibrated(composed(made.recalibration.calibration, args[1].calibration))
        found.append(replace(made, model=model, kept="calibration"))
        return found[-1]

    monkeypatch.setattr("pipelines.update.update_churn", forced)
    told = update_churn_step(operated_home, at=iso(END_US))
    assert (told["changed"], told["updated_from"], told["version"], told["kept"]) == (True, "1", "2", "calibration")
    assert set(told["losses"]) == {"model in use", "calibration", "tables and calibration"}
    kept = registry(operated_home)
    assert kept.aliases("churn") == {"candidate": "2", "champion": "1"}
    run = kept.client.get_run(kept.version("churn", "2").run_id)
    assert run.data.params["read.validation"] == "2026-03-06T00:00Z/2026-03-08T00:00Z"
    assert run.data.metrics["validation.model_in_use"] == pytest.approx(told["losses"]["model in use"], abs=1e-4)
    folder = operated_home.home.root / "fetched"
    kept.download("churn", "2", folder)
    assert ChurnForecaster.load(folder / "model").calibration == found[0].model.calibration
    assert (folder / "sessions").is_dir()


def test_update__churn_where_nothing_is_better_registers_nothing(operated_home: TinyHome) -> None:
    """No choice gains a whole nat a row, so the model in use stays; the last whole hour is the default instant."""
    told = update_churn_step(operated_home, "update.least_gain=1.0")
    assert (told["changed"], told["kept"], told["version"]) == (False, "model in use", "1")
    assert told["at"].startswith("2026-03-0")
    assert told["recalibration"]["origins"] > 0
    assert registry(operated_home).aliases("churn") == {"candidate": "1", "champion": "1"}


def test_cli__update(operated_home: TinyHome, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object, from the command with its options."""
    from typer.testing import CliRunner

    arguments = ["update", "demand", "-c", str(operated_home.config_file("demand")), "--home"]
    arguments += [str(operated_home.home.root), "--at", iso(END_US), "--json", "--quiet"]
    for assignment in SHORT:
        arguments += ["--set", assignment]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["updated_from"] == "1"
