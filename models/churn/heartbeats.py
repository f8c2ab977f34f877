"""What the heartbeats of one node, in time order, say at an instant: the kernels of `models.churn.telemetry`.

`values` has a column a quantity and NaN where the device could not tell; rows are heartbeats, all before the instant.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from models.events import DAY_US, HOUR_US

# Name, least and greatest value that can be; anything else is no reading.
RANGES = {
    "rtt_ms": (0.0, 1e6),
    "loss": (0.0, 1.0),
    "uplink_bps": (0.0, 1e12),
    "battery": (0.0, 1.0),
    "cpu_load": (0.0, 1e4),
    "memory_load": (0.0, 1.0),
    "charging": (0.0, 1.0),
    "metered": (0.0, 1.0),
}
RTT, LOSS, UPLINK, BATTERY, CPU, MEMORY, CHARGING, METERED = range(len(RANGES))
MOVING = 6
"""The first so many quantities move all the time in a device that works."""

STUCK_READINGS, STUCK_HOURS = 8, 4.0
FAST_HALF_LIFE_HOURS, SLOW_HALF_LIFE_HOURS = 0.5, 4.0
RHYTHM_DAYS = 7
LEAST_LOSS = 1e-3
"""Added to a loss before its logarithm is taken."""

_LN2 = math.log(2.0)
_HELD_US = 2 * HOUR_US
_SLOPE_US = 3 * HOUR_US
_LEAST_SLOPE_HOURS = 0.15
_LEAST_RTT_MS, _LEAST_UPLINK_BPS = 0.1, 1e3


@numba.njit(cache=True, nogil=True)
def first_from(ts, first, stop, at):  # type: ignore[no-untyped-def]
    """Row of the first heartbeat in [first, stop) at or after an instant, `stop` where there is none."""
    while first < stop:
        middle = (first + stop) // 2
        if ts[middle] < at:
            first = middle + 1
        else:
            stop = middle
    return first


@numba.njit(cache=True, nogil=True)
def stops_before(starts, stops, ts, cutoff):  # type: ignore[no-untyped-def]
    """One past the last heartbeat of each node before the cut-off."""
    out = np.empty_like(stops)
    for node in range(len(starts)):
        first, stop = starts[node], stops[node]
        out[node] = first_from(ts, first, stop, cutoff) if stop > first and ts[stop - 1] >= cutoff else stop
    return out


@numba.njit(cache=True, nogil=True)
def latest(values, first, last, quantity):  # type: ignore[no-untyped-def]
    """Row of the last reading in [first, last], first − 1 where there is none."""
    i = last
    while i >= first and math.isnan(values[i, quantity]):
        i -= 1
    return i


@numba.njit(cache=True, nogil=True)
def is_stuck(ts, values, first, last, quantity):  # type: ignore[no-untyped-def]
    """Whether the reading at `last` has stood still too long for a quantity that moves.

    Eight equal readings over four hours, while another quantity moved, or stood still as well where nothing holds it
    (the device repeats itself). 0 may last (no loss, an idle processor), and so may a full battery or one on its charger.
    """
    if last - first + 1 < STUCK_READINGS or _may_rest(values, last, quantity):
        return False
    readings, oldest = 0, last
    for i in range(last, first - 1, -1):
        if math.isnan(values[i, quantity]):
            continue
        if values[i, quantity] != values[last, quantity] or _may_rest(values, i, quantity):
            break
        readings, oldest = readings + 1, i
    if readings < STUCK_READINGS or ts[last] - ts[oldest] < STUCK_HOURS * HOUR_US:
        return False
    for other in range(MOVING):
        seen = latest(values, oldest, last, other)
        if other == quantity or seen < oldest:
            continue
        if not _may_rest(values, seen, other):
            return True
        for i in range(oldest, seen):
            if not math.isnan(values[i, other]) and values[i, other] != values[seen, other]:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _may_rest(values, i, quantity):  # type: ignore[no-untyped-def]
    if quantity == BATTERY and (values[i, BATTERY] == 1.0 or values[i, CHARGING] == 1.0):
        return True
    return values[i, quantity] == 0.0


@numba.njit(cache=True, nogil=True)
def battery_slope(ts, values, first, last):  # type: ignore[no-untyped-def]
    """Charge gained an hour since `charging` last changed, at most three hours back; NaN after less than 9 minutes."""
    n, x, y, xx, xy, span = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    plugged = values[last, CHARGING]
    for i in range(last, first - 1, -1):
        changed = not math.isnan(plugged) and not math.isnan(values[i, CHARGING]) and values[i, CHARGING] != plugged
        if changed or ts[last] - ts[i] > _SLOPE_US:
            break
        if math.isnan(values[i, BATTERY]):
            continue
        hours, gain = (ts[i] - ts[last]) / 3.6e9, values[i, BATTERY] - values[last, BATTERY]
        n, x, y, xx, xy, span = n + 1.0, x + hours, y + gain, xx + hours * hours, xy + hours * gain, -hours
    if span < _LEAST_SLOPE_HOURS:
        return math.nan
    return min(max((n * xy - x * y) / (n * xx - x * x), -2.0), 2.0)


@numba.njit(cache=True, nogil=True)
def averages(ts, values, first, last, quantity):  # type: ignore[no-untyped-def]
    """(readings, fast, slow, last) of the logarithm of a quantity; the averages fade with age."""
    readings, level, fast, slow, fast_weight, slow_weight = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(first, last + 1):
        if math.isnan(values[i, quantity]):
            continue
        # Ages count from the last heartbeat: only ratios of weights matter, and within a day none vanishes.
        hours = (ts[last] - ts[i]) / 3.6e9
        a, b = math.exp(-_LN2 * hours / FAST_HALF_LIFE_HOURS), math.exp(-_LN2 * hours / SLOW_HALF_LIFE_HOURS)
        level = _log_level(values[i, quantity], quantity)
        readings, fast, slow = readings + 1, fast + a * level, slow + b * level
        fast_weight, slow_weight = fast_weight + a, slow_weight + b
    return readings, fast / fast_weight, slow / slow_weight, level


@numba.njit(cache=True, nogil=True)
def _log_level(reading, quantity):  # type: ignore[no-untyped-def]
    if quantity == LOSS:
        return math.log(reading + LEAST_LOSS)
    return math.log(max(reading, _LEAST_RTT_MS if quantity == RTT else _LEAST_UPLINK_BPS))


@numba.njit(cache=True, nogil=True)
def charging_days(ts, values, first, stop, at, ahead):  # type: ignore[no-untyped-def]
    """Previous days on which the device charged at the clock time of `at + ahead`, and those on which it told.

    A heartbeat holds for two hours.
    """
    days, plugged = 0, 0
    for d in range(1, RHYTHM_DAYS + 1):
        instant = at + ahead - d * DAY_US
        if instant >= at or instant < ts[first]:
            continue
        i = first_from(ts, first, stop, instant + 1) - 1
        if instant - ts[i] <= _HELD_US and not math.isnan(values[i, CHARGING]):
            days += 1
            plugged += values[i, CHARGING] > 0.5
    return plugged, days


@numba.njit(cache=True, nogil=True)
def charging_share(values, first, last):  # type: ignore[no-untyped-def]
    """Share of the heartbeats in [first, last] that charged, NaN where none tells."""
    known, plugged = 0, 0
    for i in range(first, last + 1):
        if not math.isnan(values[i, CHARGING]):
            known += 1
            plugged += values[i, CHARGING] > 0.5
    return plugged / known if known else math.nan
