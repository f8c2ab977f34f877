"""The rows of an events file: JSON lines or Parquet, each checked by itself, every mistake in a sentence.

| kind | keys beside `at` and `kind` |
|---|---|
| failed | source |
| draining | source, leaves_at |
| overloaded | source, uplink_bps: what it can still send |
| survival | source, survival: probability of being up when a request comes |
| joined | source, kept_copies (default true): new, or back |
| outage, outage_ended | network |
| expired | content, segment (default all) |
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from models.errors import TableError
from pipelines.errors import PipelineError
from pipelines.jobs import instant_us, iso
from pipelines.store import read_parquet

NEEDED: dict[str, tuple[str, ...]] = {
    "failed": ("source",),
    "draining": ("source", "leaves_at"),
    "overloaded": ("source", "uplink_bps"),
    "survival": ("source", "survival"),
    "joined": ("source",),
    "outage": ("network",),
    "outage_ended": ("network",),
    "expired": ("content",),
}
OPTIONAL: dict[str, tuple[str, ...]] = {"joined": ("kept_copies",), "expired": ("segment",)}
INSTANTS, NUMBERS = ("at", "leaves_at"), {"uplink_bps": 1e18, "survival": 1.0, "segment": 2**31 - 1}
"""Keys that hold instants, and those that hold numbers from 0 to so much."""


@dataclass(frozen=True)
class EventRow:
    """One valid row.

    Attributes:
        where: such as "line 3".
        values: its keys but `at` and `kind`; instants in microseconds since 1970 UTC.
        text: the row in canonical form: equal for equal events, however they were written.
    """

    where: str
    at_us: int
    kind: str
    values: dict[str, Any]
    text: str

    @property
    def what(self) -> str:
        """Where it stands and what it is of, for messages."""
        return f"{self.where}: {self.kind}"


def read_rows(path: Path, mistakes: list[str]) -> list[EventRow]:
    """The valid rows of a file, in its order; what is wrong with the others, and repetitions, join the mistakes."""
    rows: list[EventRow] = []
    seen: dict[str, str] = {}
    for where, values in _raw_rows(path, mistakes):
        found = list(_mistakes_of(values))
        mistakes.extend(f"{where}: {sentence}" for sentence in found)
        if found:
            continue
        row = _row(where, values)
        if row.text in seen:
            mistakes.append(f"{where} repeats {seen[row.text]}; give each event once.")
            continue
        seen[row.text] = where
        rows.append(row)
    return rows


def _raw_rows(path: Path, mistakes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, mistakes)
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # an id may hold other line ends
    except OSError as error:
        mistakes.append(f"The file cannot be read ({error.strerror or error}). Give a JSON lines or a .parquet file.")
        return
    except UnicodeDecodeError as error:
        mistakes.append(f"The file is no UTF-8 text (byte {error.start}). Give a JSON lines or a .parquet file.")
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield from _json_row(f"line {number}", line, mistakes)


def _json_row(where: str, line: str, mistakes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        value = json.loads(line, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        mistakes.append(f"{where} is no JSON object ({error}).")
        return
    if isinstance(value, dict):
        yield where, value
    else:
        mistakes.append(f"{where} is no JSON object, but {value!r:.40}.")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"key given twice: {', '.join(twice)}")
    return dict(pairs)


def _parquet_rows(path: Path, mistakes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows without their empty cells; instants as text with zone."""
    try:
        table = read_parquet(path, "events")
    except TableError as error:
        mistakes.extend(error.problems)
        return
    for number, row in enumerate(table.to_pylist(), start=1):
        kept = {key: value for key, value in row.items() if value is not None}
        yield f"row {number}", {k: v.isoformat() if isinstance(v, datetime) else v for k, v in kept.items()}


def _mistakes_of(values: dict[str, Any]) -> Iterator[str]:
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in NEEDED:
        close = difflib.get_close_matches(str(kind), NEEDED, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose {', '.join(NEEDED)}."
        yield f"{kind!r} is no kind of event; {hint}" if "kind" in values else f"the key 'kind' is missing; {hint}"
        return
    needed, allowed = ("at", *NEEDED[kind]), ("at", "kind", *NEEDED[kind], *OPTIONAL.get(kind, ()))
    yield from (f"{kind} needs the key {key!r}." for key in needed if key not in values)
    for key, value in values.items():
        if key not in allowed:
            yield f"{kind} has no key {key!r}; it has {', '.join(allowed)}."
        elif key != "kind" and (sentence := _value_mistake(key, value)):
            yield f"{kind}: {sentence}"


def _value_mistake(key: str, value: Any) -> str:
    """What is wrong with a value, "" for nothing."""
    if key in INSTANTS:
        try:
            instant_us(value if isinstance(value, str) else repr(value))
        except (PipelineError, OverflowError) as error:
            return f"{key}: {error}"
        return ""
    if key == "kept_copies":
        return "" if isinstance(value, bool) else f"kept_copies is {value!r}; expected true or false."
    if key in NUMBERS:
        return _number_mistake(key, value, NUMBERS[key])
    return "" if isinstance(value, str) and value else f"{key} is {value!r}; expected an id as text."


def _number_mistake(key: str, value: Any, most: float) -> str:
    whole, number = key == "segment", isinstance(value, int | float) and not isinstance(value, bool)
    # Tables hold whole numbers as 3.0 where others are missing; a NaN fails both comparisons.
    if number and 0 <= value <= most and (not whole or int(value) == value):
        return ""
    kind = "a whole number" if whole else "a number"
    return f"{key} is {value!r:.40}; expected {kind}, {'0 or more' if most > 1 else 'from 0 to 1'}."


def _row(where: str, values: dict[str, Any]) -> EventRow:
    instants = {key: instant_us(values[key]) for key in INSTANTS if key in values}
    rest = {key: value for key, value in (values | instants).items() if key not in ("at", "kind")}
    for key in NUMBERS.keys() & rest.keys():
        rest[key] = int(rest[key]) if key == "segment" else float(rest[key])
    if values["kind"] == "joined":
        rest.setdefault("kept_copies", True)
    shown = {key: iso(value) if key in INSTANTS else value for key, value in rest.items()}
    text = json.dumps({**shown, "at": iso(instants["at"]), "kind": values["kind"]}, sort_keys=True)
    return EventRow(where, instants["at"], values["kind"], rest, text)
