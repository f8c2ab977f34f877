"""Settings of one input: where it lies, how it is written, and what its fields mean."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass, field
from typing import Literal, get_args

Format = Literal["parquet", "csv", "cloudfront", "combined", "json_lines", "w3c", "libcachesim_csv", "oracle_general"]
Unit = Literal["", "s", "ms", "us", "ns"]

URL_PATTERNS = (
    r"^(?:[a-z]+://[^/]+)?(?P<content>/[^?#]*?)/seg-(?P<segment>\d+)(?:\.\w+)?(?:[?#].*)?$",
    r"^(?:[a-z]+://[^/]+)?(?P<content>/[^?#]*?)-(?P<segment>\d+)\.(?:ts|m4s)(?:[?#].*)?$",
    r"^(?:[a-z]+://[^/]+)?(?P<content>/[^?#]*)",
)


@dataclass(frozen=True)
class InputSettings:
    """One source of requests: files of one format whose fields mean the same."""

    path: str
    """A file, a folder, or a pattern such as `logs/*.gz`; files ending in .gz are unpacked on the way."""
    format: Format = "parquet"
    """How the files are written."""
    columns: dict[str, str] = field(default_factory=dict)
    """Which field of the input is which column: canonical name to the input's name, for those that differ. Logs also know
    `url`, `method` and `status`; further names become further columns."""
    url_patterns: tuple[str, ...] = URL_PATTERNS
    """Regular expressions with a group `content` and perhaps a group `segment`; the first that fits a URL reads it."""
    location: str = ""
    """The location of every request of this input, where the input does not say."""
    location_map: dict[str, str] = field(default_factory=dict)
    """Location by the value of the location field (an edge, country or city); a value without an entry is a bad row."""
    location_prefix_length: int = 0
    """How many leading characters of the location field count; 0 takes all (3 for CloudFront edges, such as IAD89-C1)."""
    timezone: str = ""
    """The zone of instants that are written without one, such as `UTC`; empty refuses them."""
    ts_unit: Unit = ""
    """The unit of instants that are numbers since 1970 UTC; empty refuses numbers."""

    def __post_init__(self) -> None:
        problems = [*self._choices(), *self._patterns()]
        if self.location and (self.location_map or "location" in self.columns):
            problems.append(
                f"Expected either location ({self.location!r}) or a location field with its map, got both; drop one."
            )
        if self.location_prefix_length < 0:
            problems.append(f"Expected location_prefix_length >= 0, got {self.location_prefix_length}.")
        if self.timezone and self.timezone not in zoneinfo.available_timezones():
            problems.append(f"Unknown timezone {self.timezone!r}. Give a name such as 'UTC' or 'Europe/Paris'.")
        if problems:
            raise ValueError(" ".join(problems))

    def _choices(self) -> list[str]:
        problems = [] if self.path else ["Expected a path, got ''."]
        if self.format not in get_args(Format):
            problems.append(f"Unknown format {self.format!r}. Known formats: {', '.join(get_args(Format))}.")
        if self.ts_unit not in get_args(Unit):
            problems.append(f"Unknown ts_unit {self.ts_unit!r}. Known units: s, ms, us, ns.")
        return problems

    def _patterns(self) -> list[str]:
        problems = [] if self.url_patterns else ["Expected at least one of url_patterns."]
        for pattern in self.url_patterns:
            try:
                groups = re.compile(pattern).groupindex
            except re.error as error:
                problems.append(f"url_patterns: {pattern!r} is no regular expression ({error}).")
                continue
            if "content" not in groups:
                problems.append(f"url_patterns: {pattern!r} has no group (?P<content>...). Add one.")
        return problems
