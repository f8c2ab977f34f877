"""Saved models come back exactly, and anything that is not exactly what was saved is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from models.artefact import MANIFEST, WEIGHTS, load_artefact, save_artefact
from models.errors import ArtefactError


def save_small(folder: Path, *, format_number: int = 1) -> None:
    save_artefact(
        folder,
        kind="demand",
        format=format_number,
        hyperparameters={"cap": 3.0},
        state={"bias": [1.0, 0.5], "name": "prior"},
        tensors={"b": torch.tensor([1.5, -2.0]), "a": torch.eye(2)},
        tables={"cells": pa.table({"content": ["x", None], "count": [1, 2]})},
        git_commit="abc123",
    )


def test_load__returns_what_was_saved(tmp_path: Path) -> None:
    """A restart must answer as before: every part survives the round trip unchanged."""
    save_small(tmp_path / "model")
    artefact = load_artefact(tmp_path / "model", kind="demand", format=1)
    assert artefact.hyperparameters == {"cap": 3.0}
    assert artefact.state == {"bias": [1.0, 0.5], "name": "prior"}
    assert artefact.git_commit == "abc123"
    assert torch.equal(artefact.tensors["a"], torch.eye(2))
    assert torch.equal(artefact.tensors["b"], torch.tensor([1.5, -2.0]))
    assert artefact.tables["cells"].equals(pa.table({"content": ["x", None], "count": [1, 2]}))


def test_save__writes_the_same_bytes_twice(tmp_path: Path) -> None:
    """Content hashes identify a version, so saving must not depend on the hour or on dict order."""
    save_small(tmp_path / "one")
    save_small(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [MANIFEST, "cells.arrow", WEIGHTS]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_save__replaces_an_older_model_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Yesterday's table must not linger in today's model, nor a working folder next to it."""
    save_small(tmp_path / "model")
    save_artefact(tmp_path / "model", kind="demand", format=1, hyperparameters={}, state={"bias": [2.0]})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == [MANIFEST]


def test_save__keeps_the_old_model_when_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    """A failed save must not cost the model that worked."""
    save_small(tmp_path / "model")
    with pytest.raises(ArtefactError, match="not plain JSON"):
        save_artefact(tmp_path / "model", kind="demand", format=1, hyperparameters={}, state={"bias": float("nan")})
    assert load_artefact(tmp_path / "model", kind="demand", format=1).state["bias"] == [1.0, 0.5]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_load__names_both_formats(tmp_path: Path) -> None:
    """Whoever meets an old model needs both numbers to know which side to change."""
    save_small(tmp_path / "model", format_number=7)
    with pytest.raises(ArtefactError, match=r"format 7 .* reads format 1"):
        load_artefact(tmp_path / "model", kind="demand", format=1)


def test_load__refuses_another_kind(tmp_path: Path) -> None:
    """A churn model read as a demand model would answer nonsense with confidence."""
    save_small(tmp_path / "model")
    with pytest.raises(ArtefactError, match="'demand', but kind 'churn'"):
        load_artefact(tmp_path / "model", kind="churn", format=1)


def test_load__refuses_a_missing_folder(tmp_path: Path) -> None:
    """A wrong path is the commonest mistake and must say so."""
    with pytest.raises(ArtefactError, match="No saved model"):
        load_artefact(tmp_path / "nothing", kind="demand", format=1)


@pytest.mark.parametrize("name", [WEIGHTS, "cells.arrow"])
def test_load__refuses_a_damaged_or_missing_file(tmp_path: Path, name: str) -> None:
    """One flipped byte in the weights would otherwise forecast on, slightly wrong."""
    save_small(tmp_path / "model")
    path = tmp_path / "model" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="damaged"):
        load_artefact(tmp_path / "model", kind="demand", format=1)
    path.unlink()
    with pytest.raises(ArtefactError, match="missing"):
        load_artefact(tmp_path / "model", kind="demand", format=1)


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "demand"}'])
def test_load__refuses_a_broken_manifest(tmp_path: Path, text: str) -> None:
    """A truncated manifest must be an ArtefactError, which callers catch to fall back, never a KeyError."""
    save_small(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).write_text(text)
    with pytest.raises(ArtefactError, match="save the model again"):
        load_artefact(tmp_path / "model", kind="demand", format=1)


def test_load__reads_only_its_own_folder(tmp_path: Path) -> None:
    """A manifest from elsewhere must not make the reader open files outside the folder it was handed."""
    save_small(tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    (tmp_path / "secret.arrow").write_bytes(b"secret")
    manifest["files"]["../secret.arrow"] = "0"
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="not a file of a saved model"):
        load_artefact(tmp_path / "model", kind="demand", format=1)


@pytest.mark.parametrize("name", ["a/b", "../a", ""])
def test_save__refuses_table_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    """Table names become file names, so they must not lead elsewhere."""
    with pytest.raises(ArtefactError, match="not a file name"):
        save_artefact(
            tmp_path / "model", kind="k", format=1, hyperparameters={}, state={}, tables={name: pa.table({"a": [1]})}
        )
