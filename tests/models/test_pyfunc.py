"""The registered form: MLflow alone, without our code around it, loads and asks each version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from models.errors import ArtefactError
from models.registry import Registry
from tests.conftest import MODELS, TinyHome

ANSWER_COLUMNS = {
    "demand": ["content", "location", "mean", "p10", "p50", "p90", "known", "horizon_hours"],
    "next-content": ["request", "rank", "content", "probability"],
    "churn": ["node", "horizon_hours", "up", "survival", "availability", "returned"],
}


def loaded(tiny: TinyHome, kind: str) -> Any:
    Registry(tiny.home.tracking_uri, tiny.home.artefact_root)
    return mlflow.pyfunc.load_model(f"models:/premirror-{kind}@candidate")


@pytest.mark.parametrize("kind", MODELS)
def test_load_model__answers_its_own_input_example(tiny_home: TinyHome, kind: str) -> None:
    """What the registry page shows as example works, has the signature's columns, and is the same each time."""
    model = loaded(tiny_home, kind)
    example = model.input_example
    answer = model.predict(example)
    assert list(answer.columns) == ANSWER_COLUMNS[kind]
    assert list(answer.columns) == model.metadata.signature.outputs.input_names()
    assert len(answer) >= len(example)
    numbers = answer.select_dtypes("number").to_numpy(dtype=np.float64)
    assert np.isfinite(numbers).all()
    assert (numbers >= 0).all()
    pd.testing.assert_frame_equal(answer, model.predict(example))


def test_demand__answers_in_the_order_asked_whatever_the_horizons(tiny_home: TinyHome) -> None:
    """Rows of several horizons come back where they were; six hours hold at least as much as one of them."""
    model = loaded(tiny_home, "demand")
    cell = model.input_example.iloc[0]
    asked = pd.DataFrame([{**cell, "horizon_hours": h} for h in (6, 1, 6)])
    answer = model.predict(asked)
    assert answer["horizon_hours"].tolist() == [6, 1, 6]
    assert answer["mean"].iloc[0] == answer["mean"].iloc[2] > answer["mean"].iloc[1] > 0


def test_model_folder__holds_no_pickle_and_no_copy_of_the_code(tiny_home: TinyHome) -> None:
    """Two versions in one process must not run the first one's code, and loading must run nothing that was uploaded."""
    files = [p for p in (tiny_home.home.artefact_root).rglob("*") if p.is_file()]
    assert files
    assert not [p for p in files if p.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")]
    assert {p.name for p in files if p.suffix == ".py"} == {"pyfunc.py"}


@pytest.mark.parametrize("kind", MODELS)
def test_load__an_artefact_of_another_format_is_refused_naming_both(
    tiny_home: TinyHome, tmp_path: Path, kind: str
) -> None:
    """A model of a later version of this project is not guessed at."""
    from pipelines.review import LOADERS

    shutil.copytree(tiny_home.artefact(kind), tmp_path / "model")
    manifest = tmp_path / "model" / "artefact.json"
    ours = json.loads(manifest.read_text(encoding="utf-8"))["format"]
    manifest.write_text(json.dumps(json.loads(manifest.read_text(encoding="utf-8")) | {"format": 99}))
    with pytest.raises(ArtefactError, match=rf"has format 99 .* reads format {ours}"):
        LOADERS[kind](tmp_path / "model")
