"""From the fields of an access log to rows of requests: the part that all logs share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.places import read_places
from pipelines.formats.reading import Broken, Int64, Reading, on_unique, to_bool
from pipelines.formats.settings import InputSettings
from pipelines.formats.urls import read_urls

ROLES = ("ts", "user", "session", "content", "segment", "location", "bytes", "url", "method", "status")


def read_records(
    fields: dict[str, pa.Array], line: Int64, text: pa.Array, broken: Broken, settings: InputSettings
) -> Reading:
    """Rows of requests from a log's fields.

    Args:
        fields: text by role (`ts` already instants); roles that the log lacks are left out, other names pass through.
        line: line number of each row.
        text: the raw lines, for what turns out unreadable.
        broken: takes the lines that cannot be read.
        settings: how URLs and places are read.
    """
    skipped: Counter[str] = Counter()
    keep = _viewed(fields, skipped)
    columns, faults = _columns(fields, len(line), settings)
    for reason, fault in faults.items():
        bad = fault & keep
        broken.add(line[bad], text.filter(pa.array(bad)).to_pylist(), reason)
        keep &= ~bad
    table = pa.table(columns)
    if not keep.all():
        table = table.filter(pa.array(keep))
    return Reading(table, line[keep], broken, skipped)


def _viewed(fields: dict[str, pa.Array], skipped: Counter[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Only answered views are demand: GET with a 2xx status."""
    keep = np.ones(len(fields["ts"]), dtype=np.bool_)
    for role, wanted in (("method", r"^GET$"), ("status", r"^2\d\d$")):
        if role not in fields:
            continue
        values, indices = on_unique(fields[role])
        fits = pc.fill_null(pc.match_substring_regex(values, wanted), True)
        out = keep & ~to_bool(pc.fill_null(fits.take(indices), True))
        for value, count in Counter(fields[role].filter(pa.array(out)).to_pylist()).items():
            skipped[f"{role} {value}"] += count
        keep &= ~out
    return keep


def _columns(
    fields: dict[str, pa.Array], rows: int, settings: InputSettings
) -> tuple[dict[str, pa.Array], dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]]:
    faults = {}
    columns = {"ts": fields["ts"]}
    faults["the time cannot be read"] = to_bool(pc.is_null(fields["ts"]))
    for name in ("user", "session"):
        if name in fields:
            columns[name] = fields[name]
    if "content" in fields:
        columns["content"] = fields["content"]
        columns["segment"], bad = whole_numbers(fields.get("segment"), rows)
        faults["segment is no whole number"] = bad
    else:
        columns["content"], columns["segment"] = read_urls(fields["url"], settings.url_patterns)
        faults["the URL fits none of url_patterns"] = to_bool(pc.is_null(columns["content"]))
    columns["location"] = read_places(fields.get("location"), rows, settings)
    faults["the location field is empty or has no entry in location_map"] = to_bool(pc.is_null(columns["location"]))
    columns["bytes"], bad = whole_numbers(fields.get("bytes"), rows)
    faults["bytes is no whole number"] = bad
    further = {name: values for name, values in fields.items() if name not in ROLES}
    return columns | further, faults


def whole_numbers(texts: pa.Array | None, rows: int) -> tuple[pa.Array, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Text to int64: blank and `-` are null; also where a text is no whole number."""
    if texts is None:
        return pa.nulls(rows, pa.int64()), np.zeros(rows, dtype=np.bool_)
    number = pc.match_substring_regex(texts, r"^[+-]?\d{1,18}$")
    absent = pc.is_in(texts, value_set=pa.array([None, "", "-"], pa.string()))
    values = pc.if_else(number, texts, pa.scalar(None, pa.string())).cast(pa.int64())
    bad = ~to_bool(number) & ~to_bool(absent)
    return values, bad
