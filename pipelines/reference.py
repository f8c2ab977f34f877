"""The list of every configuration key, from the settings classes: `python -m pipelines.reference > configs/README.md`."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from typing import Any

from pipelines.config import KINDS
from pipelines.typed import field_descriptions, plain, settings_classes

HEAD = """\
# Configuration files

One folder a kind; `premirror COMMAND --config FILE` reads one, and `--set key.path=value` overrides any key. Unknown keys
are refused with a suggestion, and all mistakes of a file are reported at once. Every file points to the JSON Schema that
`premirror schema --out configs/schema` writes, so that editors complete and check keys.

YAML is read by the rules of version 1.2: `1e-3` is a number, `no` is text, `12:30:00` is text. Instants have a zone
(`"2026-03-02T00:00:00Z"`); intervals include their start and exclude their end.

| kind | folder | commands |
|---|---|---|
| world | `configs/world` | `world` |
| ingest | `configs/ingest` | `ingest` |
| demand, next-content, churn | `configs/demand`, `configs/next_content`, `configs/churn` | `train`, `evaluate`, `review` |
| placement | `configs/placement` | `forecast`, `place`, `rebalance`, `route` |
| replay | `configs/replay` | `replay`, `what-if` |
| demo | `configs/demo` | `demo` |

Sections that a key may hold stand at the end. This page is written by `python -m pipelines.reference`.
"""
_WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "datetime": "instant"}


def reference() -> str:
    """The page: a table for each kind, then one for each section."""
    sections: list[Any] = []
    lines = [HEAD]
    for kind, top in KINDS.items():
        lines.append(f"## {kind}\n")
        found = settings_classes(top)
        roots = [top] if top in found else list(typing.get_args(typing.get_args(top)[0]))
        sections += [c for c in found if c not in roots and c not in sections]
        for root in roots:
            lines += _table(root)
    lines.append("## Sections\n")
    for section in sections:
        lines += [f"### {section.__name__}\n", *_table(section)]
    return "\n".join(lines).rstrip() + "\n"


def _table(settings: Any) -> list[str]:
    intro = " ".join((settings.__doc__ or "").split("\n\n")[0].split())
    hints = typing.get_type_hints(settings, include_extras=True)
    words = field_descriptions(settings)
    rows = [
        f"| `{f.name}` | {_value(hints[f.name])} | {_default(f)} | {_cell(words.get(f.name, ''))} |"
        for f in dataclasses.fields(settings)
    ]
    return [intro, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "see there" if value == type(value)() else "see there, with changes"
    return f"`{_cell(json.dumps(plain(value), ensure_ascii=False))}`"


def _value(hint: Any) -> str:
    """A type in words; a settings class is a link to its section."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _value(part) for part in parts)
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(part)}`" for part in parts)
    if origin is tuple:
        return f"list of {_value(parts[0])}" if parts[-1] is Ellipsis else f"list of {len(parts)}: {_value(parts[0])}"
    if origin is dict:
        return f"{_value(parts[0])} to {_value(parts[1])}"
    name = getattr(hint, "__name__", str(hint))
    if dataclasses.is_dataclass(hint):
        return f"[{name}](#{name.lower()})"
    return _WORDS.get(name) or ("instant" if re.search("datetime", name, re.IGNORECASE) else name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
