"""The rhythm of a synthetic world: how many sessions start at each place and minute, by its own clock.

    lambda_l(t) ∝ share_l · (1 + a cos(2π (h - p) / 24))^k · w_d

with h the local hour (by longitude), d the local day of the week, p the peak hour; a power k above 1 narrows the evening.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.sizes import Float64
from pipelines.visits import MINUTE_US

_EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday; Monday is 0


@dataclass(frozen=True)
class Rhythm:
    """Shape of a day and of a week.

    Attributes:
        amplitude: a, in [0, 1].
        peak_hour: p, local.
        power: k > 0.
        weekday_factors: w, Monday first. Seven numbers >= 0.
    """

    amplitude: float
    peak_hour: float
    power: float = 1.0
    weekday_factors: tuple[float, ...] = (1.0,) * 7

    def level(self, longitude: Float64, *, start_us: int, n_minutes: int) -> Float64:
        """Relative rate at the middle of each minute from `start_us`, a midnight UTC. (len(longitude), n_minutes)"""
        utc_hour = (np.arange(n_minutes) + 0.5) / 60
        local_hour = utc_hour[None, :] + longitude[:, None] / 15
        daily = 1 + self.amplitude * np.cos(2 * np.pi * (local_hour - self.peak_hour) / 24)
        local_day = np.floor(local_hour / 24).astype(np.int64) + start_us // (1440 * MINUTE_US)
        weekly = np.array(self.weekday_factors)[(local_day + _EPOCH_WEEKDAY) % 7]
        return np.asarray(daily**self.power * weekly)


def session_starts(
    rhythm: Rhythm, share: Float64, longitude: Float64, *, total: float, window: tuple[int, int]
) -> Float64:
    """Expected starts λ by minute, `total` of them, split by location as `share` says. (n_locations, n_minutes)

    Args:
        rhythm: shape of day and week.
        share: of each location, over whole days and weeks. (n_locations,)
        longitude: of each location, degrees east. (n_locations,)
        total: expected number of starts.
        window: start in microseconds, and minutes.
    """
    start_us, n_minutes = window
    rate = share[:, None] * rhythm.level(longitude, start_us=start_us, n_minutes=n_minutes)
    return np.asarray(total * rate / rate.sum())
