"""Text and numbers to instants; whatever has no zone stays null unless the input's zone is stated."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tables import INSTANT
from pipelines.formats.reading import Bool, on_unique, to_bool
from pipelines.formats.settings import InputSettings, Unit

NO_ZONE = "ts has no time zone, which is not guessed; write it with its zone, or state `timezone`"
NO_INSTANT = "ts is no instant (expected such as 2024-05-01T12:00:00Z)"

_DATE = r"^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?"
_ZONED = _DATE + r"(?:Z|[+-]\d\d:?\d\d|[+-]\d\d)$"
_NAIVE = _DATE + "$"
_US_PER = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}


def parse_instants(values: pa.Array | pa.ChunkedArray, settings: InputSettings) -> tuple[pa.Array, Bool]:
    """ISO 8601 text (or numbers, when `ts_unit` says of what) to instants; null where that is not possible.

    Returns:
        The instants, and where a value failed for want of a zone alone.
    """
    if settings.ts_unit:
        return numbers_to_instants(values, settings.ts_unit), np.zeros(len(values), dtype=np.bool_)
    texts, indices = on_unique(values)
    zoned = pc.match_substring_regex(texts, _ZONED)
    naive = pc.match_substring_regex(texts, _NAIVE)
    instants = _cast(pc.if_else(zoned, texts, None), INSTANT)
    if settings.timezone:
        local = _cast(pc.if_else(naive, texts, None), pa.timestamp("us"))
        # An hour that a clock change repeats or leaves out is taken as the earlier one, as calendars do.
        there = pc.assume_timezone(local, settings.timezone, ambiguous="earliest", nonexistent="earliest")
        instants = pc.coalesce(instants, there.cast(INSTANT))
        naive = pa.array(np.zeros(len(texts), dtype=np.bool_))
    return instants.take(indices), to_bool(naive.take(indices))


def numbers_to_instants(values: pa.Array | pa.ChunkedArray, unit: Unit) -> pa.Array:
    """Numbers (or their text) since 1970 UTC to instants; null where there is no such number."""
    if pa.types.is_string(values.type):
        number = pc.match_substring_regex(values, r"^\d{1,19}(?:\.\d{1,9})?$")
        values = pc.if_else(number, values, pa.scalar(None, pa.string())).cast(pa.float64())
    if pa.types.is_integer(values.type) and unit in ("s", "ms", "us"):
        whole = pc.multiply(values.cast(pa.int64()), int(_US_PER[unit]))
    else:
        whole = pc.round(pc.multiply(values.cast(pa.float64(), safe=False), _US_PER[unit])).cast(pa.int64(), safe=False)
    result = whole.cast(INSTANT)
    return result.combine_chunks() if isinstance(result, pa.ChunkedArray) else result


def parse_clf(values: pa.Array) -> pa.Array:
    """`10/Oct/2000:13:55:36 -0700` to instants; null where the text is no such time."""
    texts, indices = on_unique(values)
    shaped = pc.match_substring_regex(
        texts, r"^(?:0[1-9]|[12]\d|3[01])/[A-Z][a-z]{2}/\d{4}:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d [+-][01]\d[0-5]\d$"
    )
    texts = pc.if_else(shaped, texts, pa.scalar(None, pa.string()))
    month = pc.index_in(pc.utf8_slice_codeunits(texts, 3, 6), value_set=pa.array(_MONTHS))
    padded = pc.utf8_lpad(pc.add(month, 1).cast(pa.string()), 2, "0")
    date = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(texts, 7, 11), padded, pc.utf8_slice_codeunits(texts, 0, 2), "-"
    )
    clock = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(texts, 12, 20), pc.utf8_slice_codeunits(texts, 21, 26), ""
    )
    return _cast(pc.binary_join_element_wise(date, clock, "T"), INSTANT).take(indices)


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def _cast(texts: pa.Array, target: pa.DataType) -> pa.Array:
    """The whole column at once; value by value only when it holds a day that no calendar has."""
    try:
        # Arrow takes at most microseconds here; further digits are cut off.
        return pc.replace_substring_regex(texts, r"(\.\d{6})\d+", r"\1").cast(target)
    except pa.ArrowInvalid:
        return pa.array([_parse(text) for text in texts.to_pylist()], INSTANT).cast(target)


def _parse(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        parsed = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)
