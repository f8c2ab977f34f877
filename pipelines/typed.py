"""From a mapping to a frozen, typed settings object: every mistake at once, each with file, key, value and remedy.

Settings are plain frozen dataclasses beside the code that they parametrise. Pydantic checks and converts the values;
what it does not do for dataclasses is done here: unknown keys are fatal at every depth, with a suggestion, and the JSON
Schema takes the description of each key from the string below the field.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import ConfigError
from pipelines.yaml_file import parse

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], *, source: str) -> T:
    """Checks `values` against the dataclass `kind`.

    Raises:
        ConfigError: with one sentence for every unknown key and every value that does not fit.
    """
    known, mistakes = _without_unknown(kind, values, "")
    try:
        result = TypeAdapter(kind).validate_python(known)
    except ValidationError as error:
        mistakes += [_sentence(e) for e in error.errors(include_url=False)]
    if mistakes:
        raise ConfigError([f"{source}: {mistake}" for mistake in mistakes])
    return result


def override(values: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`values` with every `key.path=value` applied; values are read as YAML.

    Raises:
        ConfigError: for an assignment without `=` or a path through something that has no keys.
    """
    result: dict[str, Any] = _copy(values)
    mistakes = []
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            mistakes.append(f"--set {assignment!r}: expected key.path=value, such as model.seed=7.")
            continue
        node: Any = result
        for key in keys[:-1]:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            mistakes.append(f"--set {assignment!r}: {'.'.join(keys[:-1])!r} holds a value, not keys.")
            continue
        node[keys[-1]] = parse(text, f"--set {path}")
    if mistakes:
        raise ConfigError(mistakes)
    return result


def plain(value: Any) -> Any:
    """A settings object as what JSON can hold, for logging and hashing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    tree: Any = plain(value)
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    pairs: dict[str, Any] = {}
    for key, item in tree.items():
        pairs |= flat(item, f"{prefix}{key}.")
    return pairs


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a settings class, unknown keys forbidden, described by the strings below its fields."""
    schema: dict[str, Any] = TypeAdapter(kind).json_schema()
    classes = {c.__name__: c for c in settings_classes(kind)}
    for name, part in [(kind.__name__, schema), *schema.get("$defs", {}).items()]:
        if name not in classes or "properties" not in part:
            continue
        part["additionalProperties"] = False
        part["description"] = (inspect.getdoc(classes[name]) or "").split("\n\n")[0]
        for key, text in field_descriptions(classes[name]).items():
            if key in part["properties"]:
                part["properties"][key]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def field_descriptions(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, by field name; base classes included."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[field.target.id] = " ".join(below.value.value.split())
    return found


def undocumented(kind: type) -> list[str]:
    """`Class.field` for every field without a string below it, at any depth."""
    return [
        f"{c.__name__}.{f.name}"
        for c in settings_classes(kind)
        for f in dataclasses.fields(c)
        if f.name not in field_descriptions(c)
    ]


def settings_classes(kind: Any) -> list[Any]:
    """`kind` and every dataclass reachable from its fields, each once."""
    found: list[type] = []

    def visit(hint: Any) -> None:
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if hint not in found:
                found.append(hint)
                for inner in typing.get_type_hints(hint).values():
                    visit(inner)
            return
        for inner in typing.get_args(hint):
            visit(inner)

    visit(kind)
    return found


def _without_unknown(hint: Any, value: Any, path: str) -> tuple[Any, list[str]]:
    """`value` without the keys that `hint` does not know, and a sentence for each of them."""
    dataclass = _dataclass_for(hint, value)
    if dataclass is not None and isinstance(value, Mapping):
        hints = typing.get_type_hints(dataclass)
        names = [f.name for f in dataclasses.fields(dataclass) if f.init]
        kept: dict[str, Any] = {}
        mistakes: list[str] = []
        for key, item in value.items():
            if key not in names:
                mistakes.append(_unknown(f"{path}{key}", key, names))
                continue
            kept[key], inner = _without_unknown(hints[key], item, f"{path}{key}.")
            mistakes += inner
        return kept, mistakes
    if isinstance(value, list | tuple):
        element = next((a for a in _options(hint) if typing.get_origin(a) in (tuple, list)), None)
        if element is not None and typing.get_args(element):
            pairs = [_without_unknown(typing.get_args(element)[0], v, f"{path}{i}.") for i, v in enumerate(value)]
            return [v for v, _ in pairs], [m for _, ms in pairs for m in ms]
    return value, []


def _options(hint: Any) -> Iterator[Any]:
    """The members of a union, else the hint itself."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        yield from _options(typing.get_args(hint)[0])
    elif origin in (typing.Union, types.UnionType):
        for inner in typing.get_args(hint):
            yield from _options(inner)
    else:
        yield hint


def _dataclass_for(hint: Any, value: Any) -> type | None:
    """The dataclass that `value` should become; a tagged union is decided by its `kind`."""
    choices: list[type] = [o for o in _options(hint) if isinstance(o, type) and dataclasses.is_dataclass(o)]
    if len(choices) > 1 and isinstance(value, Mapping):
        for choice in choices:
            if value.get("kind") in typing.get_args(typing.get_type_hints(choice).get("kind")):
                return choice
        return None
    return choices[0] if choices else None


def _unknown(path: str, key: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"allowed here: {', '.join(sorted(names))}."
    return f"{path}: unknown key; {hint}"


def _sentence(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "missing":
        return f"{path}: required but missing; add it."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    if error["type"] == "string_type":
        message += "; put it in quotes if it is meant as text"
    shown = error.get("input")
    value = "" if isinstance(shown, Mapping) or error["type"] == "value_error" else f" (got {shown!r})"
    return f"{path}: {message}{value}."


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value
