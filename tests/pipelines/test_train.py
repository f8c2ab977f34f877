"""Training: what is registered says where it came from, and saw nothing later than its windows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.events import DAY_US
from models.next_content.predictor import NextContentPredictor
from models.registry import Registry
from models.snapshot import load_counters, load_sessions
from pipelines.errors import InputError
from pipelines.inputs import Inputs
from pipelines.provenance import folder_digest, settings_digest
from pipelines.train import fit, train_step
from tests.conftest import MODELS, QUIET, START_US, TinyHome

VALIDATION_END_US = START_US + 4 * DAY_US + DAY_US // 2


@pytest.mark.parametrize("kind", MODELS)
def test_train__a_run_can_be_repeated_from_its_page(tiny_home: TinyHome, kind: str) -> None:
    """Resolved configuration, digests of data and configuration, commit, and the data as an input."""
    registry = Registry(tiny_home.home.tracking_uri, tiny_home.home.artefact_root)
    run = registry.client.get_run(registry.version(kind, "candidate").run_id)
    settings = tiny_home.config(kind)
    assert run.data.tags["data_hash"] == folder_digest(tiny_home.tables)
    assert run.data.tags["config_hash"] == settings_digest(settings)
    assert run.data.tags["code_commit"]
    assert run.data.params["data.tables"] == "tiny"
    assert run.data.params["windows.test"].startswith("['2026-03-06")
    assert run.inputs is not None
    inputs = {i.dataset.name: json.loads(i.dataset.profile or "{}") for i in run.inputs.dataset_inputs}
    assert inputs["tiny"]["num_rows"] > 100


def test_train__snapshots_end_with_the_validation_window(tiny_home: TinyHome) -> None:
    """The version that is reviewed on the test window must not have counted it."""
    counters = load_counters(tiny_home.artefact("demand").with_name("counters"))
    assert START_US + 4 * DAY_US < counters.time_us < VALIDATION_END_US
    history, until_us = load_sessions(tiny_home.artefact("churn").with_name("sessions"))
    assert until_us == VALIDATION_END_US
    assert history.start_us.max() < VALIDATION_END_US
    assert history.end_us.max() <= VALIDATION_END_US


def test_fit__same_seed_same_model(tiny_home: TinyHome) -> None:
    """A candidate can be trained again byte for byte, or its review says nothing about it."""
    run = tiny_home.config("churn")
    inputs = Inputs.find(run.data, tiny_home.home)
    one, other = (fit("churn", run, inputs) for _ in range(2))
    assert one.answer.equals(other.answer)
    assert np.array_equal([h["train_loss"] for h in one.history], [h["train_loss"] for h in other.history])


def test_train__another_version_becomes_the_candidate_and_says_so(writable_home: TinyHome) -> None:
    """The answer names the version; its history is plain JSON though a first loss may be undefined."""
    value, text = train_step("next-content", writable_home.config("next-content"), writable_home.home, QUIET)
    assert (value["model"], value["version"]) == ("premirror-next-content", "2")
    assert text.startswith("premirror-next-content version 2 is the candidate.")
    assert not list(writable_home.home.root.glob(".train-*"))


def test_train__next_content_keeps_its_features_and_logs_each_loss_once(tiny_home: TinyHome) -> None:
    """Gate and re-ranker are trained in turn: one curve for each, and one value a step."""
    assert NextContentPredictor.load(tiny_home.artefact("next-content")).device_features == ("segment",)
    registry = Registry(tiny_home.home.tracking_uri, tiny_home.home.artefact_root)
    run_id = registry.version("next-content", "candidate").run_id
    steps = {
        name: [point.step for point in registry.client.get_metric_history(run_id, name)]
        for name in ("gate_train_nll", "reranker_train_nll", "validation_nll")
    }
    assert steps == {"gate_train_nll": [0, 1], "reranker_train_nll": [2, 3], "validation_nll": [0, 1, 2, 3]}


def test_inputs__that_do_not_exist_say_how_to_make_them(tiny_world: TinyHome) -> None:
    """The next command is in the message."""
    run = tiny_world.config("demand", "data.tables=absent")
    with pytest.raises(InputError, match=r"no tables at .*absent. Run `premirror ingest` first"):
        Inputs.find(run.data, tiny_world.home)


def test_inputs__windows_before_the_data_are_refused(tiny_world: TinyHome) -> None:
    """An empty training set would give a model that knows nothing, without a word."""
    run = tiny_world.config("demand")
    with pytest.raises(InputError, match="no request lies before the end of the windows"):
        Inputs.find(run.data, tiny_world.home).requests(START_US)
