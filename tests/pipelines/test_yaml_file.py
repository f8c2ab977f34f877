"""YAML's traps give the right value or a clear error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.yaml_file import parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("-7", -7),
        ("010", 10),
        ("12:30:00", "12:30:00"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("NULL", None),
        ("", None),
        ("~", None),
        ("2026-03-02", "2026-03-02"),
        ("2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z"),
        ("0x10", "0x10"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("'1.10'", "1.10"),
        ("1.", 1.0),
    ],
)
def test_parse__scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    """YAML 1.1 makes a string of 1e-3, false of `no` and 45000 of 12:30:00; a reader expects none of that."""
    found = parse(text, "s")
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_parse__every_number_that_python_writes_comes_back(value: float) -> None:
    """Whatever `repr` gives (1e-07, 1e+16, -0.0) is the same number here."""
    assert parse(repr(value), "s") == value


def test_parse__a_key_given_twice_is_refused_with_its_line() -> None:
    """PyYAML keeps the last one silently, so half of an edit would be lost."""
    with pytest.raises(ConfigError, match=r"f.yaml:3:1: key 'a' is given twice; keep one"):
        parse("a: 1\nb: 2\na: 3\n", "f.yaml")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!thing 3"])
def test_parse__tags_that_build_objects_are_refused(text: str) -> None:
    """A configuration file is data; it can run nothing."""
    with pytest.raises(ConfigError, match=r"f\.yaml:1:1"):
        parse(text, "f.yaml")


def test_parse__a_syntax_error_has_a_line_and_a_column() -> None:
    """The reader goes straight to the place."""
    with pytest.raises(ConfigError, match=r"f.yaml:3:1"):
        parse("a: 1\nb: [1, 2\n", "f.yaml")


def test_parse__control_characters_are_an_error_and_not_a_crash() -> None:
    """PyYAML raises another class here than for syntax."""
    with pytest.raises(ConfigError, match=r"f\.yaml"):
        parse("a: \x00", "f.yaml")


def test_read__what_is_no_file_of_keys_is_said_so(tmp_path: Path) -> None:
    """Missing, a folder, not text, a list: each is one sentence with the path."""
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    for name in ("absent.yaml", ".", "bytes.yaml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read(tmp_path / name)
    with pytest.raises(ConfigError, match="expected keys and values at the top level, got list"):
        read(tmp_path / "list.yaml")
    assert read(tmp_path / "empty.yaml") == {}


def test_parse__anchors_and_merges_work() -> None:
    """People share blocks between keys this way."""
    found = parse("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\n", "s")
    assert found["other"] == {"x": 1, "y": 3}
