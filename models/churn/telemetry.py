"""What heartbeats say of every node at one instant: inputs of the churn model beside the Markov statistics.

    level    x̄_h = Σ 2^(−a_i/h) x_i / Σ 2^(−a_i/h)      readings x_i of age a_i, at most a day old; log of rtt, loss, uplink
    trend    x̄_½h − x̄_4h                               rising round trips and losses are positive
    change   x − x̄_½h                                   the last reading: still rising, or sinking already
    slope    least squares of battery on time, over the stretch in which `charging` did not change
    rhythm   (½ + days charging) / (1 + days known)      at the same clock time of previous days, now and hours ahead

A device that cannot tell is not one that says 0: every value is followed by a column `..._known`, and is neutral where
that is 0. So is a *stuck* value: the same reading for hours of a quantity that must move. Heartbeats at or after the
instant do not exist, whatever the device's clock says; one whose clock is minutes behind only looks minutes older.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.churn.heartbeats import (
    BATTERY,
    CHARGING,
    CPU,
    LEAST_LOSS,
    MEMORY,
    METERED,
    MOVING,
    RANGES,
    averages,
    battery_slope,
    charging_days,
    charging_share,
    first_from,
    is_stuck,
    latest,
    stops_before,
)
from models.errors import TableError
from models.events import DAY_US, HOUR_US, Float64, Int64

Float32 = npt.NDArray[np.float32]
Objects = npt.NDArray[np.object_]

QUANTITIES = tuple(RANGES)
"""Columns of `TelemetryLog.values`."""
NO_LEAVE_US = np.iinfo(np.int64).max
FRESH_HOURS = 6.0
"""A reading older than this says nothing about now."""
RHYTHM_OFFSETS_HOURS = (0.0, 2.0, 6.0)
LEAVE_WITHIN_HOURS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 48.0)

_FRESH_US = round(FRESH_HOURS * HOUR_US)
_SKEW_US = 15 * 60_000_000
# Every value, and what stands for it where it is not known.
_NEUTRAL = {
    "log_minutes_since_heartbeat": math.log1p(FRESH_HOURS * 60.0),
    "charging": 0.5,
    "charging_share_of_day": 0.5,
    "metered": 0.5,
    "battery": 0.5,
    "battery_slope_per_hour": 0.0,
    "cpu_load": 0.2,
    "memory_load": 0.5,
    "log_rtt_ms": math.log(50.0),
    "rtt_trend": 0.0,
    "rtt_change": 0.0,
    "log_loss": math.log(2 * LEAST_LOSS),
    "loss_trend": 0.0,
    "loss_change": 0.0,
    "log_uplink_bps": math.log(5e6),
    "uplink_trend": 0.0,
    "uplink_change": 0.0,
    **{f"charging_same_clock_{h:g}h": 0.5 for h in RHYTHM_OFFSETS_HOURS},
}
_SINCE, _PLUGGED, _SHARE, _METER, _LEVEL, _SLOPE, _CPU, _MEMORY = (2 * i for i in range(8))
_AVERAGES, _RHYTHM, _LEAVE = 16, 34, 2 * len(_NEUTRAL)


@dataclass(frozen=True)
class TelemetryLog:
    """Heartbeats by node and time; those of node i are `starts[i]:stops[i]` of arrays that all views share.

    Attributes:
        starts: first heartbeat of each node. (n,)
        stops: one past its last visible one. (n,)
        ts_us: instants, in order within a node. (k,)
        values: readings of `QUANTITIES`, NaN where the device cannot tell. (k, quantities)
        leaves_us: instant of the leave that the device plans, `NO_LEAVE_US` where it plans none. (k,)

    Raises:
        ValueError: an array has the wrong length.
    """

    starts: Int64
    stops: Int64
    ts_us: Int64
    values: Float32
    leaves_us: Int64

    def __post_init__(self) -> None:
        k = len(self.ts_us)
        if len(self.starts) != len(self.stops) or self.values.shape != (k, len(QUANTITIES)) or len(self.leaves_us) != k:
            raise ValueError(
                f"Expected as many starts as stops and {k} rows of {len(QUANTITIES)} values and of leaves, got "
                f"{len(self.starts)}, {len(self.stops)}, {self.values.shape} and {len(self.leaves_us)}."
            )

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.starts)

    @classmethod
    def from_arrow(cls, telemetry: pa.Table, nodes: Sequence[str] | Objects) -> TelemetryLog:
        """Heartbeats of these nodes, in their order, from rows in any order.

        Only `ts` and `node` must be there. Heartbeats of other nodes are left out, and a value that cannot be (a battery
        of 57, a negative round trip) is no reading.

        Raises:
            TableError: a column is missing, or an instant or a node is empty.
        """
        problems = [f"Column {c!r} is missing." for c in ("ts", "node") if c not in telemetry.column_names]
        problems = problems or [
            f"Column {c!r} holds {telemetry[c].null_count} empty values; every heartbeat needs one."
            for c in ("ts", "node")
            if telemetry[c].null_count
        ]
        if problems:
            raise TableError("telemetry", problems)
        known = pa.array(list(nodes), pa.string())
        code = _numpy(pc.fill_null(pc.index_in(telemetry["node"].cast(pa.string()), value_set=known), -1))
        ts_us = _microseconds(telemetry["ts"], 0)
        order = np.lexsort((ts_us, code))
        order = order[np.searchsorted(code[order], 0) :]
        bounds = np.searchsorted(code[order], np.arange(len(known) + 1)).astype(np.int64)
        values = np.column_stack([_readings(telemetry, name) for name in QUANTITIES])
        leaves_us = np.full(len(ts_us), NO_LEAVE_US)
        if "leaves_at" in telemetry.column_names:
            leaves_us = _microseconds(telemetry["leaves_at"], NO_LEAVE_US)
        return cls(bounds[:-1], bounds[1:], ts_us[order], values[order], leaves_us[order])

    def before(self, cutoff_us: int) -> TelemetryLog:
        """The heartbeats with `ts` before the cut-off."""
        return replace(self, stops=stops_before(self.starts, self.stops, self.ts_us, cutoff_us))

    def within(self, nodes: slice) -> TelemetryLog:
        """The heartbeats of consecutive nodes."""
        return replace(self, starts=self.starts[nodes], stops=self.stops[nodes])

    def select(self, index: Int64) -> TelemetryLog:
        """The heartbeats of the nodes at these positions, in this order."""
        return replace(self, starts=self.starts[index], stops=self.stops[index])


def telemetry_names() -> tuple[str, ...]:
    """Names of the columns of `telemetry_inputs`."""
    values = (name for value in _NEUTRAL for name in (value, f"{value}_known"))
    return (*values, "leave_announced", "log_minutes_to_leave", *(f"leave_within_{h:g}h" for h in LEAVE_WITHIN_HOURS))


def telemetry_inputs(log: TelemetryLog | None, n_nodes: int, *, at_us: int) -> Float64:
    """What the heartbeats before `at_us` say of each node, finite everywhere, shape (n_nodes, columns).

    Without a log nothing is known. A planned leave that the latest heartbeat does not repeat has been withdrawn, and one
    that is overdue by more than clocks differ did not happen.

    Raises:
        ValueError: the log is of another number of nodes.
    """
    neutral = [column for value in _NEUTRAL.values() for column in (value, 0.0)]
    neutral += [0.0, math.log1p(LEAVE_WITHIN_HOURS[-1] * 60.0), *[0.0] * len(LEAVE_WITHIN_HOURS)]
    inputs = np.tile(np.array(neutral), (n_nodes, 1))
    if log is None:
        return inputs
    if len(log) != n_nodes:
        raise ValueError(f"Expected telemetry of {n_nodes} nodes, got {len(log)}; give both the same nodes.")
    ahead_us = np.array([round(h * HOUR_US) for h in RHYTHM_OFFSETS_HOURS], dtype=np.int64)
    seen = log.before(at_us)
    within = np.array(LEAVE_WITHIN_HOURS)
    _fill(seen.starts, seen.stops, seen.ts_us, seen.values, seen.leaves_us, at_us, ahead_us, within, inputs)
    return inputs


def _readings(telemetry: pa.Table, name: str) -> Float32:
    if name not in telemetry.column_names:
        return np.full(len(telemetry), np.nan, dtype=np.float32)
    values = _numpy(pc.fill_null(telemetry[name].cast(pa.float32(), safe=False), math.nan))
    low, high = RANGES[name]
    return np.where((values >= low) & (values <= high), values, np.float32(np.nan))


def _microseconds(column: pa.ChunkedArray, empty: int) -> Int64:
    return _numpy(pc.fill_null(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), empty))


def _numpy(column: Any) -> npt.NDArray[Any]:
    return np.asarray(column.to_numpy())


@numba.njit(cache=True, nogil=True)
def _fill(starts, stops, ts, values, leaves, at, ahead, within, out):  # type: ignore[no-untyped-def]
    for node in range(len(starts)):
        first, stop, row = starts[node], stops[node], out[node]
        if stop == first:
            continue
        last = stop - 1
        for k in range(len(ahead)):
            plugged, days = charging_days(ts, values, first, stop, at, ahead[k])
            if days:
                _put(row, _RHYTHM + 2 * k, (0.5 + plugged) / (1.0 + days))
        if at - ts[last] > _FRESH_US:
            continue
        _put(row, _SINCE, math.log1p((at - ts[last]) / 6e7))
        day = first_from(ts, first, stop, at - DAY_US)
        fresh = first_from(ts, first, stop, at - _FRESH_US)
        _fill_states(ts, values, day, fresh, last, row)
        for k in range(3):
            i = latest(values, fresh, last, k)
            if i >= fresh and not is_stuck(ts, values, day, i, k):
                readings, fast, slow, level = averages(ts, values, day, i, k)
                _put(row, _AVERAGES + 6 * k, fast)
                if readings > 1:
                    _put(row, _AVERAGES + 6 * k + 2, fast - slow)
                    _put(row, _AVERAGES + 6 * k + 4, level - fast)
        _fill_leave(leaves[last], at, within, row)


@numba.njit(cache=True, nogil=True)
def _fill_states(ts, values, day, fresh, last, row):  # type: ignore[no-untyped-def]
    """Charging, metered link, battery and loads: the last reading that is still fresh."""
    for quantity, column, most in (
        (CHARGING, _PLUGGED, 1.0),
        (METERED, _METER, 1.0),
        (BATTERY, _LEVEL, 1.0),
        (CPU, _CPU, 4.0),
        (MEMORY, _MEMORY, 1.0),
    ):
        i = latest(values, fresh, last, quantity)
        if i < fresh or (quantity < MOVING and is_stuck(ts, values, day, i, quantity)):
            continue
        _put(row, column, min(values[i, quantity], most))
        if quantity == BATTERY:
            _put_known(row, _SLOPE, battery_slope(ts, values, day, i))
    _put_known(row, _SHARE, charging_share(values, day, last))


@numba.njit(cache=True, nogil=True)
def _fill_leave(leaves, at, within, row):  # type: ignore[no-untyped-def]
    if leaves == NO_LEAVE_US or leaves < at - _SKEW_US:
        return
    hours = max((leaves - at) / 3.6e9, 0.0)
    row[_LEAVE] = 1.0
    row[_LEAVE + 1] = math.log1p(min(hours, within[-1]) * 60.0)
    for k in range(len(within)):
        row[_LEAVE + 2 + k] = 1.0 if hours <= within[k] else 0.0


@numba.njit(cache=True, nogil=True)
def _put(row, column, value):  # type: ignore[no-untyped-def]
    row[column] = value
    row[column + 1] = 1.0


@numba.njit(cache=True, nogil=True)
def _put_known(row, column, value):  # type: ignore[no-untyped-def]
    if not math.isnan(value):
        _put(row, column, value)
