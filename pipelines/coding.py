"""Columns of the canonical tables as the arrays that models read, by way of Arrow's dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.casting import cast_column
from models.errors import TableError
from models.events import NEVER_US, Catalogue, Ids, Int32, Int64, RequestLog, as_text, first_rows
from models.tables import INSTANT


def request_log(table: pa.Table, features: Sequence[str]) -> RequestLog:
    """Requests in time order as codes; the column `user` may be missing, the features may not."""
    ts_us = instants(table["ts"])
    content, contents = _codes_by_appearance(table["content"])
    location, locations = _codes_by_appearance(table["location"])
    coded = {name: _codes_by_appearance(table[name]) for name in features}
    return RequestLog(
        ts_us,
        _codes_by_appearance(table["session"])[0],
        content,
        location,
        _objects(contents),
        _objects(locations),
        visitor=_codes_by_appearance(table["user"])[0] if "user" in table.column_names else None,
        features={name: codes for name, (codes, _) in coded.items()},
        feature_values={name: as_text(_objects(values)) for name, (_, values) in coded.items()},
        appeared_us=ts_us[first_rows(content, len(contents))],
    )


def catalogue(table: pa.Table) -> Catalogue:
    """The table `contents`; without `published_at` nothing is known of publication, without `kind` of kinds.

    Raises:
        TableError: a content is listed twice, or `published_at` holds no instants with a zone.
    """
    published_us = np.full(len(table), NEVER_US)
    if "published_at" in table.column_names:
        published = in_utc(table["published_at"], "contents", "published_at")
        published_us = np.asarray(pc.fill_null(published.cast(pa.int64()), NEVER_US).to_numpy(), dtype=np.int64)
    kinds = _objects(table["kind"]) if "kind" in table.column_names else None
    try:
        return Catalogue(_objects(table["content"]), published_us, kinds)
    except ValueError as error:
        raise TableError("contents", [str(error)]) from None


def in_utc(values: pa.ChunkedArray, table: str, column: str) -> pa.ChunkedArray:
    """Instants of any unit and zone as the canonical ones.

    Raises:
        TableError: they are no instants, or have no zone.
    """
    cast = cast_column(values, INSTANT)
    if isinstance(cast, str):
        raise TableError(table, [f"Column {column!r} {cast}"])
    return cast.values


def instants(values: pa.ChunkedArray) -> Int64:
    """Canonical instants as microseconds since 1970 UTC."""
    return np.ascontiguousarray(values.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _objects(values: pa.Array | pa.ChunkedArray) -> Ids:
    return np.array(values.to_pylist(), dtype=object)


def _codes_by_appearance(values: pa.ChunkedArray) -> tuple[Int32, pa.Array]:
    """Codes by order of first appearance (null: -1), and the values by code."""
    encoded = values if pa.types.is_dictionary(values.type) else pc.dictionary_encode(values)
    if len(encoded) == 0:
        return np.empty(0, dtype=np.int32), pa.array([], encoded.type.value_type)
    whole = encoded.combine_chunks() if encoded.num_chunks > 1 else encoded.chunk(0)
    raw = pc.fill_null(whole.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    first = first_rows(raw, len(whole.dictionary))
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(raw))]
    code = np.full(len(first) + 1, -1, dtype=np.int32)  # the last place answers for null
    code[order] = np.arange(len(order), dtype=np.int32)
    return code[raw], whole.dictionary.take(pa.array(order))
