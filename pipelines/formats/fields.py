"""Splits lines of text into fields at a separator."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.reading import Int64


def split_fields(text: pa.Array, separator: str, *, at_most: int | None = None) -> tuple[pa.Array, Int64, Int64]:
    """All fields in one array, where each line's begin in it, and how many each line has."""
    parts = pc.split_pattern(text, separator, max_splits=None if at_most is None else at_most - 1)
    begins = parts.offsets.to_numpy()
    counts = pc.fill_null(pc.list_value_length(parts), 0).to_numpy(zero_copy_only=False)
    return parts.values, begins[:-1].astype(np.int64), counts.astype(np.int64)


def take_field(fields: tuple[pa.Array, Int64, Int64], position: int) -> pa.Array:
    """The field at this position of each line; null where the line is too short."""
    values, begins, counts = fields
    short = counts <= position
    indices = pa.array(begins + position, mask=short if bool(short.any()) else None)
    return values.take(indices)
