"""Configuration files: all of them load, every key is described, and the list of keys is complete."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipelines.config import KINDS, load, schema_step
from pipelines.reference import reference
from pipelines.typed import settings_classes, undocumented

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.glob("*/**/*.yaml"))


def kind_of(path: Path) -> str:
    """That of the folder of `configs` in which the file lies, however deep."""
    return path.relative_to(CONFIGS).parts[0].replace("_", "-")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_file__loads_as_the_kind_of_its_folder(path: Path) -> None:
    """A file that ships must work as it is, and editors must find its schema."""
    assert kind_of(path) in KINDS
    load(kind_of(path), path, [])
    first = path.read_text(encoding="utf-8").splitlines()[0]
    up = "../" * len(path.relative_to(CONFIGS).parts[:-1])
    assert first == f"# yaml-language-server: $schema={up}schema/{kind_of(path)}.json"


def test_files__are_there_for_every_kind() -> None:
    """Each command has a file to start from."""
    assert {kind_of(path) for path in FILES} == set(KINDS)


def test_demo__names_files_that_exist_and_are_of_their_kind() -> None:
    """`make demo` goes through all of them."""
    for path in (p for p in FILES if kind_of(p) == "demo"):
        run = load("demo", path, [])
        for kind in set(KINDS) - {"demo"}:
            load(kind, path.parent / getattr(run, kind.replace("-", "_")), [])


@pytest.mark.parametrize("kind", KINDS)
def test_keys__are_all_described(kind: str) -> None:
    """The schema is the documentation: a key without words helps nobody."""
    assert undocumented(KINDS[kind]) == []


def test_readme__lists_every_key_as_the_code_has_it() -> None:
    """It is generated, and this says when it was forgotten: `python -m pipelines.reference > configs/README.md`."""
    text = (CONFIGS / "README.md").read_text(encoding="utf-8")
    assert text == reference()
    for kind, top in KINDS.items():
        assert f"## {kind}\n" in text
        for settings in settings_classes(top):
            assert all(f"| `{f.name}` |" in text for f in dataclasses.fields(settings))


def test_schema__is_one_valid_file_a_kind(tmp_path: Path) -> None:
    """Every object in it is closed and every property described, as editors show them."""
    schema_step("", tmp_path / "schema")
    assert {p.stem for p in (tmp_path / "schema").iterdir()} == set(KINDS)
    for path in (tmp_path / "schema").iterdir():
        schema = json.loads(path.read_text(encoding="utf-8"))
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        parts = [part for part in [schema, *schema.get("$defs", {}).values()] if "properties" in part]
        assert parts
        for part in parts:
            assert part["additionalProperties"] is False
            assert all("description" in found for found in part["properties"].values()), path.name


def test_schema__that_ships_is_up_to_date(tmp_path: Path) -> None:
    """Files point to `configs/schema`; where it was generated, it is what the code says now."""
    if not (CONFIGS / "schema").is_dir():
        pytest.skip("configs/schema was not generated; `premirror schema --out configs/schema` does")
    schema_step("", tmp_path)
    for path in tmp_path.iterdir():
        assert (CONFIGS / "schema" / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
