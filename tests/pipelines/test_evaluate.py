"""One harness for all methods: one row a metric set, differences with intervals, and data of an outsider's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
