"""The location of each request of a log: stated once, or read from a field through a map."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.reading import on_unique
from pipelines.formats.settings import InputSettings


def read_places(field: pa.Array | None, rows: int, settings: InputSettings) -> pa.Array:
    """Location ids; null where the field is empty or its value has no entry in the map."""
    if settings.location:
        return pa.repeat(settings.location, rows)
    if field is None:
        return pa.nulls(rows, pa.string())
    values, indices = on_unique(field)
    if settings.location_prefix_length:
        values = pc.utf8_slice_codeunits(values, 0, settings.location_prefix_length)
    values = pc.if_else(pc.is_in(values, value_set=pa.array(["", "-"])), pa.scalar(None, pa.string()), values)
    if settings.location_map:
        entries = settings.location_map
        values = pa.array([None if v is None else entries.get(v) for v in values.to_pylist()], pa.string())
    return values.take(indices)
