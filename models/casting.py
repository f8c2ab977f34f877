"""Casts a column to its schema's type when that loses nothing, and points at the rows where it would.

Accepted: any width of integer or float where every value fits, decimals, plain or dictionary-encoded text, instants of
any unit with a zone. Refused: everything that would need a guess, above all instants without a zone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from models.rules import Mask, to_mask


@dataclass(frozen=True)
class Cast:
    """A column in its new type, and where a value could not be carried over (null there)."""

    values: pa.ChunkedArray
    lost: Mask


def cast_column(values: pa.ChunkedArray, target: pa.DataType) -> Cast | str:
    """The column in the target type, or the rest of a sentence that starts with its name and says why not."""
    if pt.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.type == target and not pt.is_floating(target):
        return _whole(values)
    if pt.is_null(values.type):
        return _whole(pa.chunked_array([pa.nulls(len(values), target)]))
    if pt.is_timestamp(target):
        return _instants(values, target)
    if pt.is_string(target) and _is_text(values.type):
        return _whole(values.cast(target))
    if pt.is_integer(target) and _is_number(values.type):
        return _integers(values, target)
    if pt.is_floating(target) and _is_number(values.type):
        floats = values.cast(target, safe=False)
        return _whole(pc.if_else(pc.is_finite(floats), floats, pa.scalar(None, target)))
    return f"is {values.type}, expected {target}. Convert it before writing the table."


def _instants(values: pa.ChunkedArray, target: pa.DataType) -> Cast | str:
    if pt.is_timestamp(values.type) and values.type.tz is None:
        return (
            f"is {values.type}: instants without a time zone, which are not guessed. "
            "Write them with their zone, or state the zone of the input."
        )
    if not pt.is_timestamp(values.type):
        return f"is {values.type}, expected {target}. Write instants with their zone, or state the unit of the input."
    return _whole(values.cast(target, safe=False))


def _integers(values: pa.ChunkedArray, target: pa.DataType) -> Cast:
    try:
        return _whole(values.cast(target))
    except pa.ArrowInvalid:
        pass
    # Only a table with a value that does not fit comes here; NaN is how pandas writes a missing integer.
    floats = values.cast(pa.float64(), safe=False)
    limits = np.iinfo(target.to_pandas_dtype())
    fits = pc.and_(pc.equal(floats, pc.floor(floats)), pc.less(pc.abs(floats), float(limits.max)))
    fits = pc.fill_null(fits, False)
    kept = pc.if_else(fits, values, pa.scalar(None, values.type)).cast(target, safe=False)
    missing = pc.fill_null(pc.is_nan(floats), True)
    return Cast(kept, to_mask(pc.invert(pc.or_(fits, missing))))


def _whole(values: pa.ChunkedArray) -> Cast:
    return Cast(values, np.zeros(len(values), dtype=np.bool_))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))
