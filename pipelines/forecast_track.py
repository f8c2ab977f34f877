"""One-hour forecasts of the last days of a backtest beside what came: for the report's charts and calibration.

The band of a total cannot come from its cells' laws, because their errors move together. It is taken from the relative
errors of the hours before: the 10 % and 90 % quantiles of actual / forecast over the last day, as known at each hour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from models.charts import ReliabilityPoint
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.events import HOUR_US, Float64, RequestLog
from models.forecast import DemandForecast
from models.time_charts import BandSeries
from pipelines.arena import Arena

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
BAND = (0.1, 0.9)
MEMORY_HOURS = 24
LEAST_ERRORS = 6
TRACK_HOURS = 48
BUSY_MEAN = 0.5
"""Cells with a smaller mean are nearly always zero and would fill the calibration with nothing."""


@dataclass(frozen=True)
class Track:
    """Hour by hour: forecast and outcome.

    Attributes:
        start_us: first hour.
        mean: forecast requests of each location; locations in the order of `names`. (hours, L)
        actual: requests that came. (hours, L)
        names: location ids. (L,)
        below: share of busy cells whose outcome lay at or below each of `LEVELS`.
        cells: how many busy cells were looked at.
    """

    start_us: int
    mean: Float64
    actual: Float64
    names: list[str]
    below: tuple[float, ...]
    cells: int

    def total(self) -> BandSeries:
        return band(self.start_us, self.mean.sum(axis=1), self.actual.sum(axis=1))

    def location(self, index: int) -> BandSeries:
        return band(self.start_us, self.mean[:, index], self.actual[:, index])

    def quantile_points(self) -> tuple[ReliabilityPoint, ...]:
        points = zip(LEVELS, self.below, strict=True)
        return tuple(ReliabilityPoint(p, share, self.cells) for p, share in points) if self.cells else ()


def band(start_us: int, mean: Float64, actual: Float64) -> BandSeries:
    """A series with the 80 % band that the errors of the hours before imply; Poisson until there are enough."""
    ratio = np.where(mean > 0, actual / np.maximum(mean, 1e-9), 1.0)
    low, high = np.zeros(len(mean)), np.zeros(len(mean))
    for hour, expected in enumerate(_floats(mean)):
        known = ratio[max(0, hour - MEMORY_HOURS) : hour]
        if len(known) < LEAST_ERRORS:
            low[hour], high[hour] = (stats.poisson.ppf(p, max(float(expected), 1e-9)) for p in BAND)
        else:
            low[hour], high[hour] = (expected * float(np.quantile(known, p)) for p in BAND)
    return BandSeries(start_us, _floats(mean), _floats(low), _floats(high), _floats(actual))


def _floats(values: Float64) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def track_demand(arena: Arena, demand: DemandForecaster, *, seed: int) -> Track | None:
    """Forecasts each of the last hours from what was known before it; None where the model has no one-hour horizon."""
    if 1 not in demand.settings.horizons_hours:
        return None
    end_us = arena.stretch.end_us - arena.stretch.end_us % HOUR_US
    start_us = max(arena.stretch.start_us, end_us - TRACK_HOURS * HOUR_US)
    store, fed_us = CounterStore(), 0
    rng = np.random.default_rng(seed)
    names = [str(name) for name in arena.log.locations]
    means, actuals, positions = [], [], []
    for at_us in range(start_us, end_us, HOUR_US):
        store.update(arena.log.between(fed_us, at_us))
        fed_us = at_us
        forecast = demand.forecast(store, at_us=at_us, horizon_hours=1)
        came = arena.log.between(at_us, at_us + HOUR_US)
        expected = forecast.total_by_location()
        means.append(np.pad(expected, (0, len(names) - len(expected))))
        actuals.append(np.bincount(came.location, minlength=len(names)).astype(np.float64))
        positions.append(_positions(forecast, came, rng))
    if not means:
        return None
    at = np.concatenate(positions)
    below = tuple(float((at <= level).mean()) if len(at) else 0.0 for level in LEVELS)
    return Track(start_us, np.array(means), np.array(actuals), names, below, len(at))


def _positions(forecast: DemandForecast, came: RequestLog, rng: np.random.Generator) -> Float64:
    """Where each busy cell's outcome lies in its law, uniform on [0, 1] if the law is right (drawn within jumps)."""
    n_locations = len(came.locations)
    busy = forecast.mean >= BUSY_MEAN
    keys = forecast.content[busy].astype(np.int64) * n_locations + forecast.location[busy]
    seen, counts = np.unique(came.content.astype(np.int64) * n_locations + came.location, return_counts=True)
    actual = np.zeros(len(keys))
    if len(seen):
        at = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
        actual = np.where(seen[at] == keys, counts[at], 0).astype(np.float64)
    shape = 1.0 / np.maximum(forecast.dispersion[busy], 1e-6)
    success = shape / (shape + forecast.mean[busy])
    upper = stats.nbinom.cdf(actual, shape, success)
    lower = np.where(actual > 0, stats.nbinom.cdf(actual - 1, shape, success), 0.0)
    return np.asarray(lower + rng.random(len(keys)) * (upper - lower), dtype=np.float64)
