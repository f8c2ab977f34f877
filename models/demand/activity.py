"""What goes on around a cell: its content everywhere else, and the other contents of its location.

All of it comes from one pass over the cells that the counters remember.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from models.counters import CounterStore
from models.events import HOUR_US, Float64, Int32, Int64
from models.keys import PAIR_MASK

RECENT_HOURS = 3
"""Full clock hours that are told apart."""
LEAST_RATE_PER_HOUR = 0.05
"""A content is asked for at a location from this rate on."""
_STEPS_PER_DOUBLING = 4
_STEPS = 80


@dataclass(frozen=True)
class Activity:
    """Contents and locations at an instant.

    Attributes:
        hours: requests of each content in each of the last full hours, newest first. (n_contents, RECENT_HOURS)
        spread: locations at which each content is asked for. (n_contents,)
        presence: sessions that are at each content. (n_contents,)
        rank: contents with a higher rate, by the fast and by a slow half-life. (n_contents, 2)
        newborn: contents that became known in the last hour.
        above: contents of each location whose rate lies in a higher step. (n_locations, steps)
    """

    hours: Float64
    spread: Float64
    presence: Float64
    rank: Float64
    newborn: int
    above: Int64

    @classmethod
    def of(cls, store: CounterStore, hour_sums: Int32, *, at_us: int, slow: int) -> Activity:
        """Reads the store.

        Args:
            store: the counters.
            hour_sums: requests of each cell row in the last hours, newest first. (rows, >= RECENT_HOURS)
            at_us: the instant.
            slow: index of the slow half-life.
        """
        popularity, n_contents = store.popularity, len(store.contents)
        keys = popularity.index.keys
        rates = store.filled(popularity.cell[: len(keys)] * store._rate_factors(at_us), at_us)[:, 0]
        per_unit = float(store.deflation(np.array([store.walks.rates.active_per_hour]), at_us)[0])
        hours, spread = np.zeros((n_contents, RECENT_HOURS)), np.zeros(n_contents)
        presence, steps = np.zeros(n_contents), np.zeros((len(store.locations), _STEPS), dtype=np.int64)
        _look_around(keys, rates, hour_sums, store.walks.occupancy, (hours, spread, presence, steps))
        content_rates = store.content_rates(np.arange(n_contents), at_us)
        appeared_us = popularity.appeared_us[:n_contents]
        return cls(
            hours,
            spread,
            presence * per_unit,
            np.column_stack([_places(content_rates[:, 0]), _places(content_rates[:, slow])]),
            int(((appeared_us > at_us - HOUR_US) & (appeared_us <= at_us)).sum()),
            steps[:, ::-1].cumsum(axis=1)[:, ::-1] - steps,
        )

    def local_rank(self, location: Int32, fast_rate: Float64) -> Float64:
        """About how many contents are asked for more often at the cell's location, shape (n,)."""
        return _ranks(self.above, location, fast_rate)


def _places(rates: Float64) -> Float64:
    """How many are greater than each, shape (n,)."""
    return (len(rates) - np.searchsorted(np.sort(rates), rates, side="right")).astype(np.float64)


@njit(cache=True, nogil=True)
def _step(rate: float) -> int:
    if rate < LEAST_RATE_PER_HOUR:
        return 0
    return min(1 + int(_STEPS_PER_DOUBLING * np.log2(rate / LEAST_RATE_PER_HOUR)), _STEPS - 1)


@njit(cache=True, nogil=True)
def _look_around(
    keys: Int64, rates: Float64, hour_sums: Int32, occupancy: Float64, sums: tuple[Float64, Float64, Float64, Int64]
) -> None:
    hours, spread, presence, steps = sums
    for row in range(len(keys)):
        content, location = keys[row] >> 32, keys[row] & PAIR_MASK
        presence[content] += occupancy[row]
        for k in range(hours.shape[1]):
            hours[content, k] += hour_sums[row, k]
        step = _step(rates[row])
        if step > 0:
            spread[content] += 1.0
            steps[location, step] += 1


@njit(cache=True, nogil=True)
def _ranks(above: Int64, location: Int32, rates: Float64) -> Float64:
    ranks = np.empty(len(rates))
    for i in range(len(rates)):
        ranks[i] = above[location[i], _step(rates[i])]
    return ranks
