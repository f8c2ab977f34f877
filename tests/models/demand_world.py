"""A tiny world whose true rates are known: constant Poisson demand of 12 contents at 3 locations."""

from __future__ import annotations

import numpy as np

from models.demand.settings import DemandSettings
from models.events import HOUR_US, Float64, RequestLog

START_US = 480_000 * HOUR_US
"""A midnight, so that clock hours and hours since the start agree."""
RATES_PER_HOUR = np.outer(8.0 / np.arange(1, 13), np.array([1.0, 0.5, 0.25]))
"""True requests per hour by (content, location): 8, 4, 2.7, ... at the first location, less at the others."""

SMALL = DemandSettings(
    horizons_hours=(1, 6),
    residual_caps=(3.0, 1.5),
    origin_every_hours=2,
    max_cells_per_origin=30,
    hidden_sizes=(8,),
    max_epochs=2,
    members=2,
    batch_rows=256,
)


def hours(count: float) -> int:
    """Instant that many hours after the start."""
    return START_US + round(count * HOUR_US)


def constant_log(*, n_hours: int, seed: int, rates: Float64 = RATES_PER_HOUR) -> RequestLog:
    """Requests of independent visitors (each its own session) at the given rates."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rates * n_hours)
    content, location = (np.repeat(codes.ravel(), counts.ravel()) for codes in np.indices(rates.shape))
    n = len(content)
    ts_us = START_US + np.sort(rng.integers(0, n_hours * HOUR_US, n))
    order = rng.permutation(n)
    return RequestLog.from_columns(
        ts_us.astype(np.int64),
        np.array([f"s{i}" for i in range(n)], dtype=object),
        np.array([f"c{code:02d}" for code in content[order]], dtype=object),
        np.array([f"l{code}" for code in location[order]], dtype=object),
    )
