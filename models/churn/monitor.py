"""Do devices leave as often as the model expects?

At each origin the model gives a node the cumulative hazard Λ(t). Until it leaves, or the next origin, it collects
Λ(time up); departures minus the sum of these is a martingale, so

    ratio = departures / Σ Λ(time up),      N ~ Poisson(ratio · Σ Λ): exact (Garwood) interval

A ratio far from 1 says that the fleet has changed since training; see Andersen et al., Statistical models based on
counting processes, VI.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaincinv

from models.churn.history import SessionHistory
from models.events import HOUR_US, Float64, Int64

FAR = 1.25
"""The interval lies beyond this factor, up or down, before it is called a drift."""


@dataclass(frozen=True)
class DepartureRatio:
    """Departures observed against expected in a window.

    Attributes:
        from_us: start of the window.
        until_us: end of the window.
        observed: departures.
        expected: departures that the model expected of the same nodes in the time that they were up.
    """

    from_us: int
    until_us: int
    observed: float
    expected: float

    @property
    def ratio(self) -> float:
        return self.observed / self.expected if self.expected > 0.0 else float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Exact Poisson interval of the ratio; departures that come together make it too narrow."""
        if not self.expected > 0.0:
            return 0.0, float("inf")
        tail = (1.0 - level) / 2.0
        low = float(gammaincinv(self.observed, tail)) if self.observed > 0.0 else 0.0
        return low / self.expected, float(gammaincinv(self.observed + 1.0, 1.0 - tail)) / self.expected

    @property
    def far(self) -> bool:
        low, high = self.interval()
        return low > FAR or high < 1.0 / FAR

    @property
    def sentence(self) -> str:
        """What to tell an operator; empty while the ratio is near 1."""
        if not self.far:
            return ""
        low, high = self.interval()
        hours = (self.until_us - self.from_us) / HOUR_US
        return (
            f"{self.observed:.0f} departures in the last {hours:.0f} h, {self.ratio:.2f} times (95 % interval {low:.2f} "
            f"to {high:.2f}) the {self.expected:.0f} that the trained model expected; recalibration follows, and "
            "training anew would serve better if it lasts."
        )

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval()
        return {
            "observed": self.observed,
            "expected": round(self.expected, 3),
            "ratio": round(self.ratio, 4) if self.expected > 0.0 else None,
            "low": round(low, 4),
            "high": round(high, 4) if np.isfinite(high) else None,
            "sentence": self.sentence,
        }


def departures_against(
    known: SessionHistory, node: Int64, cumulative: Float64, *, at_us: int, until_us: int, edges_hours: Float64
) -> tuple[float, float]:
    """Departures in (at, until] of nodes up at `at_us`, and those expected in the time that they were up.

    Args:
        known: what is known at the end of the window; a departure lies in the middle of its interval.
        node: indices of the nodes. (n,)
        cumulative: Λ at each edge after `at_us`. (n, B)
        at_us: origin.
        until_us: end, at most the last edge after the origin.
        edges_hours: the edges. (B,)
    """
    row = known.last_session(at_us - 1)[node]
    left = known.end_us[row] + (known.end_upper_us[row] - known.end_us[row]) // 2
    gone = ~known.censored[row] & (left <= until_us)
    hours = (np.clip(left, at_us, until_us) - at_us) / HOUR_US
    return float(gone.sum()), float(_interpolated(cumulative, hours, edges_hours).sum())


def _interpolated(cumulative: Float64, hours: Float64, edges_hours: Float64) -> Float64:
    """Λ at its own time for each row: linear between edges, 0 at the origin. (n,)"""
    edges = np.concatenate([[0.0], edges_hours])
    padded = np.column_stack([np.zeros(len(cumulative)), cumulative])
    right = np.clip(np.searchsorted(edges, hours, side="left"), 1, len(edges) - 1)
    share = np.clip((hours - edges[right - 1]) / (edges[right] - edges[right - 1]), 0.0, 1.0)
    row = np.arange(len(hours))
    return np.asarray((1.0 - share) * padded[row, right - 1] + share * padded[row, right], dtype=np.float64)
