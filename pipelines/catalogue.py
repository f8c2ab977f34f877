"""The contents table where nobody gives one: sizes as large as the requests show them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from models.tables import SCHEMAS


def derived_contents(requests: pa.Table, *, segment_bytes: int) -> pa.Table:
    """One row for each content in `requests`, sorted by id.

    A content requested whole is as large as its largest answer; nothing known counts as one segment. A content requested
    by segments has segments as large as the largest one seen, and ends with the last one seen.

    Args:
        requests: `content`, `segment`, `bytes`.
        segment_bytes: the segment size of contents that the log does not cut itself.
    """
    seen = requests.select(["content", "segment", "bytes"])
    seen = seen.set_column(0, "content", seen["content"].cast(pa.string()))
    sizes = seen.group_by("content").aggregate([("segment", "max"), ("bytes", "max")]).sort_by("content")
    largest = pc.max_element_wise(pc.fill_null(sizes["bytes_max"], segment_bytes), 1)
    cut = pc.is_valid(sizes["segment_max"])
    count = pc.add(pc.fill_null(sizes["segment_max"], 0).cast(pa.int64()), 1)
    columns = {
        "content": sizes["content"],
        "bytes": pc.if_else(cut, pc.multiply(largest, count), largest),
        "segment_bytes": pc.if_else(cut, largest, segment_bytes),
        "kind": pa.nulls(len(sizes), pa.string()),
        "published_at": pa.nulls(len(sizes), pa.timestamp("us", tz="UTC")),
    }
    return pa.table(columns).cast(pa.schema([f.with_nullable(True) for f in SCHEMAS["contents"].arrow]))


def with_missing_contents(contents: pa.Table | None, requests: pa.Table, *, segment_bytes: int) -> tuple[pa.Table, int]:
    """The contents table with a derived row for each requested content that it lacks, and how many that were."""
    if contents is None:
        derived = derived_contents(requests, segment_bytes=segment_bytes)
        return derived, len(derived)
    ids = requests["content"].cast(pa.string())
    lacking = pc.invert(pc.is_in(ids, value_set=contents["content"].combine_chunks()))
    if not pc.any(lacking).as_py():
        return contents, 0
    derived = derived_contents(requests.filter(lacking), segment_bytes=segment_bytes)
    return pa.concat_tables([contents, derived], promote_options="default"), len(derived)
