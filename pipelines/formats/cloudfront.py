"""CloudFront standard logs: tabs, a `#Fields:` line, instants in UTC, `x-edge-location` such as IAD89-C1 for the place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipelines.formats.reading import Reading
from pipelines.formats.settings import InputSettings
from pipelines.formats.w3c import MEANING, Layout, read_field_log

_AIRPORT_LETTERS = 3


def read_cloudfront(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one CloudFront log; the place is the edge's airport code unless settings say otherwise.

    Raises:
        InputError: a needed field is not named, or the file cannot be read.
    """
    meaning = MEANING | {"location": "x-edge-location"} | settings.columns
    if meaning["location"] == "x-edge-location" and not settings.location_prefix_length:
        settings = replace(settings, location_prefix_length=_AIRPORT_LETTERS)
    yield from read_field_log(path, settings, Layout("\t", meaning))
