"""Settings from mappings: every mistake at once, with its key and a remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from pipelines.errors import ConfigError
from pipelines.typed import build, flat, json_schema, override, plain, undocumented


@dataclass(frozen=True)
class Inner:
    """The inner settings.

    More words that the schema leaves out.
    """

    hidden_size: int = 8
    """Width of the layer."""
    rates: tuple[float, ...] = (0.1,)
    """Rates, each positive."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ValueError(f"Expected hidden_size >= 1, got {self.hidden_size!r}.")


@dataclass(frozen=True)
class Cat:
    """A cat."""

    kind: Literal["cat"] = "cat"
    """Which."""
    lives: int = 9
    """How many."""


@dataclass(frozen=True)
class Dog:
    """A dog."""

    kind: Literal["dog"] = "dog"
    """Which."""
    tricks: int = 0
    """How many."""


@dataclass(frozen=True)
class Outer:
    """The outer settings."""

    name: str
    """Its name."""
    model: Inner = field(default_factory=Inner)
    """The model."""
    parts: tuple[Inner, ...] = ()
    """More models."""
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = field(default_factory=Cat)
    """A tagged union."""
    maybe: Inner | None = None
    """Perhaps one more."""


def mistakes(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values, source="a.yaml")
    return caught.value.mistakes


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"model": {"hiden_size": 4}}, "model.hiden_size"),
        ({"parts": [{}, {"hiden_size": 4}]}, "parts.1.hiden_size"),
        ({"maybe": {"hiden_size": 4}}, "maybe.hiden_size"),
    ],
)
def test_build__an_unknown_key_at_depth_gets_a_suggestion(values: dict[str, Any], path: str) -> None:
    """A typo that is ignored silently trains the default, wherever in the file it stands."""
    assert mistakes({"name": "x", **values}) == [f"a.yaml: {path}: unknown key; did you mean 'hidden_size'?"]


def test_build__an_unknown_key_without_a_likeness_lists_what_is_allowed() -> None:
    """Where no suggestion fits, the reader still learns what does."""
    assert mistakes({"name": "x", "model": {"zzz": 1}}) == [
        "a.yaml: model.zzz: unknown key; allowed here: hidden_size, rates."
    ]


def test_build__reports_every_mistake_at_once() -> None:
    """One run, all mistakes: an unknown key, a missing one, a wrong type, a broken bound."""
    found = mistakes({"nme": "x", "model": {"hidden_size": 0}, "pet": {"kind": "cat", "lives": "many"}})
    assert len(found) == 4
    text = "\n".join(found)
    assert "a.yaml: nme: unknown key; did you mean 'name'?" in text
    assert "a.yaml: name: required but missing; add it." in text
    assert "a.yaml: model: Expected hidden_size >= 1, got 0." in text
    assert "lives" in text
    assert "'many'" in text
    assert "4 mistakes" in str(ConfigError(found))


def test_build__a_tagged_union_knows_the_keys_of_the_chosen_kind() -> None:
    """`lives` is a key of cats; for a dog it is unknown."""
    assert mistakes({"name": "x", "pet": {"kind": "dog", "lives": 3}}) == [
        "a.yaml: pet.lives: unknown key; allowed here: kind, tricks."
    ]
    assert build(Outer, {"name": "x", "pet": {"kind": "dog", "tricks": 2}}, source="s").pet == Dog(tricks=2)


def test_build__an_unknown_tag_names_the_allowed_ones() -> None:
    """The kind decides everything else, so its mistake must not hide behind others."""
    (only,) = mistakes({"name": "x", "pet": {"kind": "cow"}})
    assert "'cat', 'dog'" in only


def test_build__a_number_where_text_is_meant_says_to_quote_it() -> None:
    """YAML reads 1.10 as a number; the remedy is a pair of quotes."""
    (only,) = mistakes({"name": 1.1})
    assert "put it in quotes" in only


def test_build__settings_of_placement_keep_their_sentences() -> None:
    """Leaves raise errors of their own tree; the file and the key must stand before them all the same."""
    from pipelines.config import PlacementRun

    values = {"tables": "t", "planning": {"placement": {"solver": "highs", "candidates_per_location": 0}}}
    with pytest.raises(ConfigError, match=r"p.yaml: planning.placement: .*\n.*candidates_per_location >= 1, got 0"):
        build(PlacementRun, values, source="p.yaml")


def test_override__values_are_typed_as_yaml() -> None:
    """`--set` must mean what the same text means in a file."""
    given = {"model": {"hidden_size": 8}}
    found = override(given, ["model.hidden_size=16", "model.rates=[1e-3, 2]", "name='7'", "maybe=null", "new.key=no"])
    assert found == {
        "model": {"hidden_size": 16, "rates": [0.001, 2]},
        "name": "7",
        "maybe": None,
        "new": {"key": "no"},
    }
    assert given == {"model": {"hidden_size": 8}}


def test_override__an_equals_sign_may_stand_in_the_value() -> None:
    """Patterns and addresses hold them; only the first one separates."""
    assert override({}, ["a=b=c"]) == {"a": "b=c"}


def test_override__says_what_is_wrong_with_every_assignment() -> None:
    """All of them at once, each shown as it was given."""
    with pytest.raises(ConfigError) as caught:
        override({"name": "x"}, ["seed", "name.first=1", ".=2"])
    assert [m.split(":")[0] for m in caught.value.mistakes] == ["--set 'seed'", "--set 'name.first=1'", "--set '.=2'"]
    assert "'name' holds a value" in caught.value.mistakes[1]


def test_json_schema__describes_every_key_and_forbids_others() -> None:
    """Editors complete and complain from this file alone."""
    schema = json_schema(Outer)
    assert schema["additionalProperties"] is False
    assert schema["description"] == "The outer settings."
    assert schema["properties"]["model"]["description"] == "The model."
    inner = schema["$defs"]["Inner"]
    assert inner["additionalProperties"] is False
    assert inner["description"] == "The inner settings."
    assert inner["properties"]["hidden_size"] | {"title": ""} == {
        "type": "integer",
        "default": 8,
        "description": "Width of the layer.",
        "title": "",
    }


def test_undocumented__finds_a_bare_field_at_any_depth() -> None:
    """The test of the real configurations rests on this."""
    assert undocumented(Outer) == []
    assert undocumented(Bare) == ["Bare.silent", "Bare.more"]


@dataclass(frozen=True)
class Bare:
    """Settings with holes."""

    silent: int = 0
    inner: tuple[Inner, ...] = ()
    """Described."""
    more: str = ""


def test_flat__is_what_a_run_logs() -> None:
    """Dotted keys, plain values."""
    assert flat(Outer("x"))["model.hidden_size"] == 8
    assert flat(Outer("x"))["maybe"] is None
    assert plain(Outer("x"))["pet"] == {"kind": "cat", "lives": 9}
