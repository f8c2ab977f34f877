"""The request log as arrays: what every model reads.

Contents and locations are coded by **order of first appearance**. A prefix of the log therefore has a prefix of the
vocabulary, so cutting the log at an instant also cuts off every content and location that nobody could know yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


@dataclass(frozen=True)
class RequestLog:
    """Requests in time order, as codes into vocabularies that grow with time.

    Attributes:
        ts_us: microseconds since 1970 UTC, non-decreasing. (n,)
        session: session code by order of first appearance; -1 where unknown. (n,)
        content: content code by order of first appearance. (n,)
        location: location code by order of first appearance. (n,)
        contents: content ids, by code.
        locations: location ids, by code.
    """

    ts_us: Int64
    session: Int32
    content: Int32
    location: Int32
    contents: npt.NDArray[np.object_]
    locations: npt.NDArray[np.object_]

    def __post_init__(self) -> None:
        n = len(self.ts_us)
        for name in ("session", "content", "location"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} rows but ts_us has {n}.")
        if n and bool(np.any(np.diff(self.ts_us) < 0)):
            raise ValueError("Requests must be in time order; sort them by ts first.")

    def __len__(self) -> int:
        return len(self.ts_us)

    @classmethod
    def from_columns(
        cls,
        ts_us: Int64,
        session: npt.ArrayLike,
        content: npt.ArrayLike,
        location: npt.ArrayLike,
    ) -> RequestLog:
        """Sorts by time (stable: equal instants keep their input order) and codes the ids by first appearance."""
        order = np.argsort(ts_us, kind="stable")
        session_codes, _ = _codes_by_appearance(np.asarray(session, dtype=object)[order])
        content_codes, contents = _codes_by_appearance(np.asarray(content, dtype=object)[order])
        location_codes, locations = _codes_by_appearance(np.asarray(location, dtype=object)[order])
        return cls(
            np.ascontiguousarray(ts_us[order]),
            session_codes,
            content_codes,
            location_codes,
            contents,
            locations,
        )

    def before(self, cutoff_us: int) -> RequestLog:
        """What was known at `cutoff_us`: earlier requests and only the contents and locations they name."""
        return self._slice(0, int(np.searchsorted(self.ts_us, cutoff_us, side="left")))

    def between(self, start_us: int, end_us: int) -> RequestLog:
        """Requests in [start, end), with the vocabulary as known at `end_us`; codes agree with `before`."""
        first, last = np.searchsorted(self.ts_us, [start_us, end_us], side="left")
        return self._slice(int(first), int(max(first, last)))

    def _slice(self, first: int, last: int) -> RequestLog:
        n_contents = int(self.content[:last].max(initial=-1)) + 1
        n_locations = int(self.location[:last].max(initial=-1)) + 1
        return RequestLog(
            self.ts_us[first:last],
            self.session[first:last],
            self.content[first:last],
            self.location[first:last],
            self.contents[:n_contents],
            self.locations[:n_locations],
        )


def _codes_by_appearance(values: npt.NDArray[np.object_]) -> tuple[Int32, npt.NDArray[np.object_]]:
    import pandas as pd

    codes, uniques = pd.factorize(values, use_na_sentinel=True)
    return codes.astype(np.int32), np.asarray(uniques, dtype=object)
