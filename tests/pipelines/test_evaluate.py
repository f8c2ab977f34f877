"""One harness for all methods: one row a metric set, differences with intervals, and data of an outsider's own."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from models.next_content.baselines import MARKOV, PEERS
from pipelines.config import Peer
from pipelines.errors import ConfigError
from pipelines.evaluate import DECIDING_METRIC, SHOWN, evaluate, evaluate_step
from pipelines.inputs import Inputs
from tests.conftest import QUIET, TinyHome


@pytest.mark.parametrize("kind", ["next-content", "churn"])
def test_evaluate__every_method_has_every_metric(tiny_world: TinyHome, kind: str) -> None:
    """One row a (window, model, stratum); `ours` stands beside the baselines, and differences are taken against it."""
    run = tiny_world.config(kind)
    found = evaluate(kind, run, Inputs.find(run.data, tiny_world.home))
    overall = {row["model"]: row for row in found.overall()}
    assert "ours" in overall
    assert len(overall) >= 4
    assert all(set(SHOWN[kind]) <= set(row) for row in overall.values())
    assert len(found.overall()) == len(overall)
    keys = [(row["window"], row["model"], row["stratum"]) for row in found.rows]
    assert len(keys) == len(set(keys))
    decided = {d["model"] for d in found.differences if d["stratum"] == "all" and d["metric"] == DECIDING_METRIC}
    assert decided == set(overall) - {"ours"}
    for d in found.differences:
        assert not d["low"] > d["gain"] + 1e-9
        assert not d["gain"] > d["high"] + 1e-9


def test_evaluate_demand__of_an_outsiders_own_folder(tiny_world: TinyHome) -> None:
    """`--set data.requests=PATH` replaces our tables; sparse hours without any request are scored and not a crash."""
    path = str(tiny_world.tables)
    run = tiny_world.config("demand", "data={}", f"data.requests={path}", "test_every_hours=12", "model.max_epochs=0")
    value, text = evaluate_step("demand", run, tiny_world.home, QUIET)
    rows: list[dict[str, Any]] = value["rows"]
    assert {row["horizon_hours"] for row in rows} == {1, 6}
    overall = {row["model"] for row in rows if row["stratum"] == "all"}
    assert "ours" in overall
    assert len(overall) >= 6
    assert "ours" in text
    assert json.loads(json.dumps(value["rows"], allow_nan=False)) == rows


def test_evaluate_next_content__shows_every_day_and_every_seed(tiny_world: TinyHome) -> None:
    """The test window of a day and a half has two parts; a second training, on other lessons, is another model."""
    run = tiny_world.config("next-content", "seeds=2", "peers=[order1]", "test_events=30")
    found = evaluate("next-content", run, Inputs.find(run.data, tiny_world.home))
    assert {row["window"] for row in found.rows} == {
        "2026-03-06T12:00Z/2026-03-08T00:00Z",
        "2026-03-06T12:00Z/2026-03-07T12:00Z",
        "2026-03-07T12:00Z/2026-03-08T00:00Z",
    }
    overall = {row["model"]: row for row in found.overall()}
    assert {(row["n"], row["seeds"]) for row in overall.values()} == {(60, 2)}
    assert all(row["nll_sd"] > 0 for row in overall.values())
    strata = {row["stratum"] for row in found.rows if row["window"] == found.rows[0]["window"]}
    assert {"all", "first_event"} <= strata
    assert any(name.startswith("location:") for name in strata)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("peers=[popular]", "peers"),
        ("peers=[]", "one at least"),
        ("peers=[order1, order1]", "at most once"),
        ("seeds=0", "seeds >= 1, got 0"),
        ("test_window_hours=0", "test_window_hours > 0 or null, got 0"),
        ("test_events=0", "test_events >= 1, got 0"),
    ],
)
def test_evaluate_next_content__settings_that_make_no_sense(tiny_world: TinyHome, assignment: str, said: str) -> None:
    """Refused before anything is read."""
    with pytest.raises(ConfigError, match=said):
        tiny_world.config("next-content", assignment)


def test_peers__are_those_that_there_are() -> None:
    """The configuration lists them on its own, because importing the models takes seconds."""
    assert get_args(Peer) == (*MARKOV, *PEERS)
