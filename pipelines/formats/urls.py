"""A URL to content and segment, by the first pattern that fits it."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import InputError
from pipelines.formats.reading import on_unique, to_bool


def read_urls(urls: pa.Array, patterns: tuple[str, ...]) -> tuple[pa.Array, pa.Array]:
    """Content (text) and segment (int64) of each URL; content is null where no pattern fits.

    Raises:
        InputError: a pattern uses what the fast engine lacks (look-around, references back).
    """
    texts, indices = on_unique(urls)
    contents, segments = pa.nulls(len(texts), pa.string()), pa.nulls(len(texts), pa.string())
    open_rows = np.arange(len(texts))
    for pattern in patterns:
        if len(open_rows) == 0:
            break
        found = _extract(texts.take(pa.array(open_rows)), pattern)
        fits = to_bool(pc.is_valid(found))
        mask = np.zeros(len(texts), dtype=np.bool_)
        mask[open_rows[fits]] = True
        matched = found.filter(pa.array(fits))
        contents = pc.replace_with_mask(contents, pa.array(mask), matched.field("content"))
        if "segment" in re.compile(pattern).groupindex:
            segments = pc.replace_with_mask(segments, pa.array(mask), matched.field("segment"))
        open_rows = open_rows[~fits]
    number = pc.match_substring_regex(segments, r"^\d{1,9}$")
    whole = pc.if_else(number, segments, pa.scalar(None, pa.string())).cast(pa.int64())
    return contents.take(indices), whole.take(indices)


def _extract(texts: pa.Array, pattern: str) -> pa.StructArray:
    try:
        return pc.extract_regex(texts, pattern)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"url_patterns: {pattern!r} cannot be used ({error}). Every group needs a name ((?:...) for others), "
            "and look-around and references back are not available."
        ) from None
