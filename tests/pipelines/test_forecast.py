"""The forecast job: once per window, honest about what it fell back to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.churn.recalibrated import composed
from models.churn.recalibration import HazardCalibration
from models.counters import CounterStore
from models.events import DAY_US
from models.snapshot import load_counters
from pipelines.config import DataSource
from pipelines.errors import Degraded, InputError, PipelineError, TryLater
from pipelines.forecast import forecast_step, forecasts_at, latest_forecasts
from pipelines.inputs import Inputs
from pipelines.jobs import iso, only_one, read_manifest
from pipelines.place import place_step
from pipelines.review import LOADERS
from pipelines.store import read_request_log
from tests.conftest import END_US, QUIET, TinyHome


def forecast(tiny: TinyHome, *assignments: str, at: str = "") -> dict[str, Any]:
    return forecast_step(tiny.config("placement", *assignments), tiny.home, QUIET, at=at)[0]


def folders(tiny: TinyHome) -> list[str]:
    return sorted(p.name for p in tiny.home.forecasts.iterdir() if p.is_dir() and not p.is_symlink())


def test_forecast__a_second_run_finds_its_work_done(operated_home: TinyHome) -> None:
    """Schedulers retry; the same window, versions, data and settings are the same job."""
    first = forecast(operated_home)
    files = {p: p.stat().st_mtime_ns for p in operated_home.home.forecasts.rglob("*.parquet")}
    second = forecast(operated_home)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["id"] == second["id"]
    assert first["at_us"] == END_US
    assert first["quality"] == "good"
    assert first["versions"] == {"churn": "1", "demand": "1"}
    assert {p: p.stat().st_mtime_ns for p in operated_home.home.forecasts.rglob("*.parquet")} == files
    assert first["next_content"]["version"] == "1"
    assert forecast(operated_home, "seed=1")["id"] != first["id"]


def test_forecast__checksums_match_and_the_tables_come_back(operated_home: TinyHome) -> None:
    """What `place` reads is what the models said, cell for cell."""
    forecast(operated_home)
    found = latest_forecasts(operated_home.home)
    for name, checksum in found.manifest["checksums"].items():
        assert hashlib.sha256((found.folder / name).read_bytes()).hexdigest() == checksum
    store = CounterStore()
    store.update(read_request_log(operated_home.tables))
    said = LOADERS["demand"](operated_home.home.local_model("premirror-demand") / "model").forecast(
        store, at_us=END_US, horizon_hours=6
    )
    read = found.demand()
    assert read.mean.sum() == pytest.approx(said.mean.sum())
    assert read.total_by_location().sum() == pytest.approx(said.total_by_location().sum())
    ids = set(zip(read.contents[read.content], read.locations[read.location], read.mean, strict=True))
    assert ids == set(zip(said.contents[said.content], said.locations[said.location], said.mean, strict=True))
    churn = found.churn()
    assert len(churn) == 20
    assert churn.up.any()
    raw = pq.read_table(found.folder / "churn.parquet").to_pandas()
    node = raw[raw["node"] == churn.nodes[7]]
    assert np.array_equal(node["survival"], churn.survival[7])
    assert np.array_equal(node["availability"], churn.availability[7])


def test_forecast__says_which_calibration_was_applied(operated_home: TinyHome) -> None:
    """The manifest holds what was fitted at the last midnight; the forecast is the champion's under it."""
    value = forecast(operated_home)
    told = value["recalibration"]
    assert told["at_us"] == END_US
    assert told["origins"] > 0
    assert told["rows"] >= told["origins"]
    assert set(told["drift"]) == {"observed", "expected", "ratio", "low", "high", "sentence"}
    model = LOADERS["churn"](operated_home.home.local_model("premirror-churn") / "model")
    history = Inputs.find(DataSource(tables="tiny"), operated_home.home).history(END_US)
    found = {name: HazardCalibration.from_json(c) for name, c in told["calibration"].items()}
    said = model.calibrated(composed(found, model.calibration)).forecast(history, at_us=END_US)
    assert np.allclose(latest_forecasts(operated_home.home).churn().survival, said.survival)


def test_forecast__an_older_window_does_not_become_the_newest(operated_home: TinyHome) -> None:
    """Filling in yesterday must not make the service, or the next plan, go back in time."""
    newest = forecast(operated_home)
    older = forecast(operated_home, at=iso(END_US - DAY_US))
    assert older["changed"]
    assert older["at_us"] == END_US - DAY_US
    assert latest_forecasts(operated_home.home).manifest["id"] == newest["id"]
    assert load_counters(operated_home.home.state / "counters").time_us > END_US - DAY_US
    assert forecasts_at(operated_home.home, END_US - DAY_US).manifest["id"] == older["id"]


def test_forecast__while_another_runs_is_asked_to_try_later(operated_home: TinyHome) -> None:
    """Exit 75: the scheduler's own retry is the right answer."""
    with only_one(operated_home.home.forecasts), pytest.raises(TryLater):
        forecast(operated_home)


def test_forecast__the_registry_away_falls_back_to_the_last_good_copy(
    operated_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Placement goes on with what was fetched last, and says so on the forecast and on the plan."""
    forecast(operated_home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    away = forecast(operated_home, "seed=1")
    assert away["quality"] == "fallback"
    assert away["versions"] == {"churn": "1", "demand": "1"}
    assert "last good local copy, because The registry at 'http://127.0.0.1:9'" in away["reasons"][0]
    plan, text = place_step(
        operated_home.config("placement", "seed=1"), operated_home.home, QUIET, at="", dry_run=False
    )
    assert plan["quality"] == "fallback"
    assert plan["reasons"] == away["reasons"]
    assert "Fallback: premirror-demand" in text

    for _ in range(2):  # a retry must not turn the alarm off
        with pytest.raises(Degraded) as caught:
            forecast(operated_home, "on_fallback=strict")
        assert caught.value.exit_code == 4
        strict = operated_home.config("placement", "on_fallback=strict")
        with pytest.raises(Degraded, match="rests on a fallback"):
            place_step(strict, operated_home.home, QUIET, at="", dry_run=False)


def test_forecast__with_no_model_at_all_fits_what_the_data_give(
    writable_world: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first promotion, or on a new machine with the registry away, there is a forecast all the same."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    value = forecast(writable_world)
    assert value["versions"] == {"churn": "none", "demand": "none"}
    assert len(value["reasons"]) == 2
    assert value["cells"] > 0
    assert value["nodes"] == 20


def test_forecast__a_damaged_local_copy_is_no_copy(operated_home: TinyHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file cut off by a full disk is noticed by its checksum, and the data are used instead."""
    forecast(operated_home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    weights = next((operated_home.home.local_model("premirror-demand") / "model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert forecast(operated_home, "seed=2")["versions"] == {"churn": "1", "demand": "none"}


def test_forecast__late_data_are_a_reason(operated_home: TinyHome) -> None:
    """Two days without a request are not a quiet night."""
    value = forecast(operated_home, at=iso(END_US + 2 * DAY_US))
    assert value["quality"] == "fallback"
    assert "48.1 h old, allowed are 24 h" in value["reasons"][0] or "48.0 h old" in value["reasons"][0]


def test_forecast__before_the_data_and_without_a_zone(operated_home: TinyHome) -> None:
    """Each is one sentence that says what to give instead."""
    with pytest.raises(InputError, match="No request is known before 2020-01-01T00:00:00Z; give a later --at"):
        forecast(operated_home, at="2020-01-01T00:00:00Z")
    with pytest.raises(PipelineError, match="no time zone"):
        forecast(operated_home, at="2026-03-07T00:00:00")
    with pytest.raises(InputError, match="There is no forecast"):
        latest_forecasts(operated_home.home)


def test_forecast__a_run_killed_before_its_folder_appeared_is_simply_done_again(
    operated_home: TinyHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was written by then, the rerun leaves forecast, link and state that belong together."""
    import pipelines.forecast

    def killed(staging: Path, *_: object) -> None:
        (staging / "demand.parquet").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.forecast, "write_result", killed)
        with pytest.raises(KeyboardInterrupt):
            forecast(operated_home)
    assert folders(operated_home) == []
    assert forecast(operated_home)["changed"]
    assert read_manifest(operated_home.home.forecasts / "latest")["at_us"] == END_US
