"""W3C extended logs: a `#Fields:` line names what follows, values are separated by blanks, instants are UTC.

The same layout with tabs is what CloudFront writes, so both share this reader. A file may hold several `#Fields:` lines;
each counts for the lines after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tables import INSTANT
from pipelines.errors import InputError
from pipelines.formats.fields import split_fields, take_field
from pipelines.formats.instants import parse_instants
from pipelines.formats.lines import Lines, read_lines
from pipelines.formats.reading import Broken, Reading
from pipelines.formats.records import read_records
from pipelines.formats.settings import InputSettings

MEANING = {
    "user": "c-ip",
    "url": "cs-uri-stem",
    "method": "cs-method",
    "status": "sc-status",
    "bytes": "sc-bytes",
}
_UTC = InputSettings(path="-", timezone="UTC")


@dataclass(frozen=True)
class Layout:
    """How one kind of field log is written and what its fields mean."""

    separator: str
    meaning: dict[str, str]
    required: tuple[str, ...] = ("date", "time", "cs-uri-stem")


def read_w3c(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one W3C extended log.

    Raises:
        InputError: a needed field is not named, or the file cannot be read.
    """
    yield from read_field_log(path, settings, Layout(" ", MEANING | settings.columns))


def read_field_log(path: Path, settings: InputSettings, layout: Layout) -> Iterator[Reading]:
    """Requests of a log whose `#Fields:` lines name its columns."""
    names: list[str] | None = None
    for lines in read_lines(path):
        comment = pc.starts_with(lines.text, "#").to_numpy(zero_copy_only=False)
        marks = np.flatnonzero(comment)
        broken = lines.broken
        for begin, end in zip([-1, *marks], [*marks, len(comment)], strict=True):
            if begin >= 0:
                names = _named(lines.text[int(begin)].as_py(), names)
            if end - begin > 1:
                part = Lines(lines.text.slice(begin + 1, end - begin - 1), lines.number[begin + 1 : end], broken)
                yield _read(part, _checked(names, path, layout, settings), settings, layout)
                broken = Broken()
        if len(broken):
            yield Reading(_nothing(), np.empty(0, dtype=np.int64), broken)


def _named(comment: str, names: list[str] | None) -> list[str] | None:
    return comment.partition(":")[2].split() if comment.lower().startswith("#fields:") else names


def _checked(names: list[str] | None, path: Path, layout: Layout, settings: InputSettings) -> list[str]:
    if names is None:
        raise InputError(f"{str(path)!r} has rows before any '#Fields:' line. Keep the head of the log.")
    wanted = [*layout.required, *settings.columns.values()]
    missing = sorted({field for field in wanted if field not in names})
    if missing:
        raise InputError(f"{str(path)!r} lacks the fields {', '.join(missing)}; it has {', '.join(names)}.")
    return names


def _read(lines: Lines, names: list[str], settings: InputSettings, layout: Layout) -> Reading:
    split = split_fields(lines.text, layout.separator)
    good = split[2] == len(names)
    text, number = lines.text, lines.number
    if not good.all():
        bad = ~good
        reason = f"the line does not have the {len(names)} fields that '#Fields:' names"
        lines.broken.add(number[bad], text.filter(pa.array(bad)).to_pylist(), reason)
        text, number = text.filter(pa.array(good)), number[good]
        split = split_fields(text, layout.separator)
    by_role = {role: take_field(split, names.index(f)) for role, f in layout.meaning.items() if f in names}
    stamp = pc.binary_join_element_wise(
        take_field(split, names.index("date")), take_field(split, names.index("time")), "T"
    )
    by_role["ts"], _ = parse_instants(stamp, _UTC)
    return read_records(by_role, number, text, lines.broken, settings)


def _nothing() -> pa.Table:
    return pa.table({"ts": pa.array([], INSTANT)})
