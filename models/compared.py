"""A forecast probability beside the share that was observed, with an interval for what was observed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.events import Bool, Float64


@dataclass(frozen=True)
class Compared:
    """Forecast and observation at the same points: edges of a horizon, bins of a forecast, days. (n,) each.

    Attributes:
        forecast: mean forecast probability; NaN where nothing was forecast.
        observed: share that came true; NaN where nothing could be observed.
        low, high: ends of the interval of `observed`; NaN with it.
        count: cases behind each point.

    Raises:
        ValueError: the arrays differ in length, or an observation lies outside its interval.
    """

    forecast: Float64
    observed: Float64
    low: Float64
    high: Float64
    count: Float64

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(lengths) > 1:
            raise ValueError(f"Expected forecast, observed, low, high and count of one length, got {sorted(lengths)}.")
        outside = self.known & ((self.observed < self.low - 1e-9) | (self.observed > self.high + 1e-9))
        if outside.any():
            at = int(np.flatnonzero(outside)[0])
            raise ValueError(
                f"Expected low <= observed <= high, got {self.low[at]!r}, {self.observed[at]!r}, {self.high[at]!r}."
            )

    def __len__(self) -> int:
        return len(self.forecast)

    @property
    def known(self) -> Bool:
        """Points with a forecast and an observation."""
        return np.asarray(np.isfinite(self.forecast) & np.isfinite(self.observed), dtype=np.bool_)

    @property
    def inside(self) -> Bool:
        """Known points whose interval holds the forecast."""
        return np.asarray(self.known & (self.low <= self.forecast) & (self.forecast <= self.high), dtype=np.bool_)

    @property
    def widest(self) -> int | None:
        """The known point where forecast and observation differ most; None where nothing is known."""
        if not self.known.any():
            return None
        return int(np.nanargmax(np.where(self.known, np.abs(self.forecast - self.observed), np.nan)))

    def complement(self) -> Compared:
        """The same about the opposite event: 1 − p."""
        return Compared(1.0 - self.forecast, 1.0 - self.observed, 1.0 - self.high, 1.0 - self.low, self.count)

    def with_start(self, value: float) -> Compared:
        """With a point in front that is certain, so that there is a forecast and nothing to observe."""
        observed, low, high = (np.append(np.nan, values) for values in (self.observed, self.low, self.high))
        return Compared(np.append(value, self.forecast), observed, low, high, np.append(0.0, self.count))
