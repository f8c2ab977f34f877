"""Strata: which cells a score is also reported for, from what was known at the origin and nothing later."""

from __future__ import annotations

import numpy as np

from models.counters import CounterStore
from models.demand.cells import nearest_half_life
from models.events import HOUR_US, Bool, Float64, Int32

NEW_CONTENT_HOURS = 3.0
YOUNG_CONTENT_HOURS = 24.0
HEAD_SHARE, TORSO_SHARE = 0.5, 0.9
BUSY_REQUESTS = 1.0
"""A cell is busy when its rate at a half-life of 6 h expects at least this many requests over the horizon."""
HOURS_OF_DAY = 6
"""Length of the blocks of the day (UTC) by which origins are told apart."""


def cell_strata(
    store: CounterStore, cells: tuple[Int32, Int32], *, at_us: int, horizon_hours: int, by_location: bool = False
) -> dict[str, Bool]:
    """Which cells belong to each stratum; the strata do not depend on any forecast.

    head, torso, tail       contents that hold the first half of the demand of a day, up to 90 %, the rest
    new, young, old content first requested less than 3 h ago, less than a day ago, earlier
    busy                    cells that expect a request over the horizon, by the rate at a half-life of 6 h
    new cell                contents never requested at this location

    Args:
        store: counters at the origin.
        cells: content and location codes. (n,)
        at_us: the origin.
        horizon_hours: length of the window.
        by_location: also one stratum for each location, `at <id>`.
    """
    names, row = np.unique(cells[0], return_inverse=True)
    before = _demand_before(store, names, at_us=at_us)[row]
    age_hours = ((at_us - store.first_seen_us(names).astype(np.float64)) / HOUR_US)[row]
    steady = nearest_half_life(store.settings.half_lives_hours, 6.0)
    new = age_hours < NEW_CONTENT_HOURS
    old = age_hours >= YOUNG_CONTENT_HOURS
    strata = {
        "all": np.ones(len(row), dtype=bool),
        "busy": store.cell_rates(*cells, at_us)[:, steady] * horizon_hours >= BUSY_REQUESTS,
        "head": before < HEAD_SHARE,
        "torso": (before >= HEAD_SHARE) & (before < TORSO_SHARE),
        "tail": before >= TORSO_SHARE,
        "new content": new,
        "young content": ~new & ~old,
        "old content": old,
        "new cell": store.cell_first_seen_us(*cells) > at_us,
    }
    if by_location:
        strata |= {f"at {name}": cells[1] == code for code, name in enumerate(store.locations)}
    return strata


def hours_stratum(at_us: int) -> str:
    """Name of the block of the day that an origin falls in: `origin 06-12 h`."""
    first = at_us // HOUR_US % 24 // HOURS_OF_DAY * HOURS_OF_DAY
    return f"origin {first:02d}-{first + HOURS_OF_DAY:02d} h"


def _demand_before(store: CounterStore, names: Int32, *, at_us: int) -> Float64:
    """Share of a day's demand held by the contents more popular than each, shape (len(names),)."""
    slow = nearest_half_life(store.settings.half_lives_hours, 24.0)
    rate = store.content_rates(names, at_us)[:, slow]
    order = np.argsort(-rate, kind="stable")
    before = np.zeros(len(names))
    before[order] = np.cumsum(rate[order]) - rate[order]
    return before / max(float(rate.sum()), 1e-12)
