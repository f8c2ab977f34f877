"""Heartbeats as inputs: known answers by hand, what is unknown, stuck or from the future, and bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.churn.history import SessionHistory
from models.churn.telemetry import QUANTITIES, TelemetryLog, telemetry_inputs, telemetry_names
from models.errors import TableError
from models.events import HOUR_US, Float64

INSTANT = pa.timestamp("us", tz="UTC")
NAMES = telemetry_names()
AT_US = 1000 * HOUR_US
"""A clock time of 16:00."""


def heartbeats(*rows: tuple[str, float], **readings: list[Any]) -> pa.Table:
    """Rows of (node, hours after AT_US), with further columns; `leaves_at` is in hours after AT_US too."""
    node, hours = zip(*rows, strict=True)
    columns: dict[str, Any] = {
        "ts": pa.array([AT_US + round(h * HOUR_US) for h in hours], INSTANT),
        "node": list(node),
        **readings,
    }
    if "leaves_at" in readings:
        leaves = [None if h is None else AT_US + round(h * HOUR_US) for h in readings["leaves_at"]]
        columns["leaves_at"] = pa.array(leaves, INSTANT)
    return pa.table(columns)


def inputs_of(table: pa.Table, *nodes: str, at_us: int = AT_US) -> Float64:
    return telemetry_inputs(TelemetryLog.from_arrow(table, list(nodes)), len(nodes), at_us=at_us)


def value(inputs: Float64, name: str, node: int = 0) -> float:
    return float(inputs[node, NAMES.index(name)])


def test_names__every_column_has_one() -> None:
    """The forecaster stores the names; they must be as many as the columns, each once."""
    assert telemetry_inputs(None, 3, at_us=0).shape == (3, len(NAMES))
    assert len(set(NAMES)) == len(NAMES)


def test_inputs__last_reading_and_its_age() -> None:
    """Node a told 30 and 60 minutes ago; the later row counts, wherever it stands in the table."""
    table = heartbeats(("a", -0.5), ("a", -1.0), charging=[True, False], battery=[0.75, 0.5], metered=[False, True])
    found = inputs_of(table, "a")
    assert value(found, "log_minutes_since_heartbeat") == pytest.approx(math.log(31))
    assert [value(found, name) for name in ("charging", "battery", "metered")] == [1.0, 0.75, 0.0]
    assert value(found, "charging_share_of_day") == 0.5


def test_inputs__what_a_device_cannot_tell_is_not_zero() -> None:
    """Node a says it is unplugged and empty, b cannot tell, c has no heartbeat: three different rows."""
    table = heartbeats(("a", -0.1), ("b", -0.1), charging=[False, None], battery=[0.0, None], rtt_ms=[20.0, 20.0])
    found = inputs_of(table, "a", "b", "c")
    for name in ("charging", "battery"):
        assert [value(found, f"{name}_known", node) for node in range(3)] == [1.0, 0.0, 0.0]
        assert value(found, name, 0) == 0.0
        assert value(found, name, 1) == value(found, name, 2) == 0.5
    assert [value(found, "log_rtt_ms_known", node) for node in range(3)] == [1.0, 1.0, 0.0]
    assert [value(found, "log_minutes_since_heartbeat_known", node) for node in range(3)] == [1.0, 1.0, 0.0]
    np.testing.assert_array_equal(found[2], telemetry_inputs(None, 1, at_us=AT_US)[0])


def test_inputs__a_reading_that_is_missing_once_is_the_one_before() -> None:
    """A sensor that skips one heartbeat is not a device that cannot tell; after six hours the reading is too old."""
    table = heartbeats(("a", -1), ("a", -0.5), metered=[True, None])
    assert (value(inputs_of(table, "a"), "metered"), value(inputs_of(table, "a"), "metered_known")) == (1.0, 1.0)
    assert value(inputs_of(heartbeats(("a", -6.1), metered=[True]), "a"), "metered_known") == 0.0


def test_inputs__impossible_values_are_no_readings() -> None:
    """A battery in percent, a negative round trip and a loss of 3 come from a bug, not from the device's state."""
    found = inputs_of(heartbeats(("a", -0.1), battery=[57.0], rtt_ms=[-1.0], loss=[3.0]), "a")
    assert [value(found, f"{name}_known") for name in ("battery", "log_rtt_ms", "log_loss")] == [0.0, 0.0, 0.0]


def test_inputs__battery_slope_since_the_plug_was_pulled() -> None:
    """Unplugged for an hour at −0.1 in half an hour: −0.2 per hour; the charging before does not count."""
    table = heartbeats(
        ("a", -2),
        ("a", -1),
        ("a", -0.5),
        ("a", 0 - 1e-6),
        charging=[True, False, False, False],
        battery=[0.2, 0.9, 0.8, 0.7],
    )
    assert value(inputs_of(table, "a"), "battery_slope_per_hour") == pytest.approx(-0.2, abs=1e-4)


def test_inputs__trend_of_rising_round_trips() -> None:
    """Readings e^3 four hours before the last one, e^4: the weights are 2^-8 and 2^-1 beside 1.

    Fast: (4 + 3/256) / (1 + 1/256); slow: (4 + 3/2) / 1.5 = 11/3.
    """
    table = heartbeats(("a", -4.5), ("a", -0.5), rtt_ms=[math.exp(3), math.exp(4)])
    found = inputs_of(table, "a")
    fast = (4 + 3 / 256) / (1 + 1 / 256)
    assert value(found, "log_rtt_ms") == pytest.approx(fast, abs=1e-5)
    assert value(found, "rtt_trend") == pytest.approx(fast - 11 / 3, abs=1e-5)
    assert value(found, "rtt_change") == pytest.approx(4 - fast, abs=1e-5)
    assert value(found, "loss_trend_known") == 0.0


def test_inputs__charging_rhythm_by_the_clock() -> None:
    """Plugged in at 22:00 on two of three days, seen at 16:00 for 6 hours ahead: (2 + 1/2) / (3 + 1)."""
    table = heartbeats(("a", -66), ("a", -42), ("a", -18), charging=[True, False, True])
    found = inputs_of(table, "a")
    assert value(found, "charging_same_clock_6h") == pytest.approx(2.5 / 4)
    assert value(found, "charging_same_clock_6h_known") == 1.0
    assert value(found, "charging_same_clock_0h_known") == 0.0  # no heartbeat around 16:00 on any day


def test_inputs__planned_leave() -> None:
    """Node a leaves in 90 minutes; b has taken its plan back; c's hour passed 20 minutes ago, so it stayed."""
    table = heartbeats(("a", -0.1), ("b", -1), ("b", -0.1), ("c", -1), leaves_at=[1.5, 1.5, None, -1 / 3])
    found = inputs_of(table, "a", "b", "c")
    assert found[:, NAMES.index("leave_announced")].tolist() == [1.0, 0.0, 0.0]
    assert value(found, "log_minutes_to_leave") == pytest.approx(math.log(91))
    assert value(found, "log_minutes_to_leave", 1) == pytest.approx(math.log1p(48 * 60))
    assert [value(found, f"leave_within_{h}h") for h in ("1", "2", "4")] == [0.0, 1.0, 1.0]


def stuck(n: int, every_hours: float, **readings: list[Any]) -> Float64:
    return inputs_of(heartbeats(*(("a", -0.1 - every_hours * (n - 1 - i)) for i in range(n)), **readings), "a")


def test_stuck__eight_equal_readings_over_hours_are_missing() -> None:
    """A round trip equal to the last digit for 7 hours is a broken meter; loads that move stay known."""
    found = stuck(8, 1.0, rtt_ms=[31.25] * 8, cpu_load=[0.1 + 0.01 * i for i in range(8)], metered=[True] * 8)
    assert [value(found, f"{name}_known") for name in ("log_rtt_ms", "rtt_trend", "cpu_load")] == [0.0, 0.0, 1.0]
    assert value(found, "metered_known") == 1.0  # a link stays metered; that is no sign of being stuck


@pytest.mark.parametrize(
    ("n", "every_hours", "readings"),
    [
        (7, 1.0, {"rtt_ms": [31.25] * 7, "cpu_load": [0.1 * i for i in range(7)]}),
        (20, 0.1, {"rtt_ms": [31.25] * 20, "cpu_load": [0.01 * i for i in range(20)]}),
        (9, 1.0, {"rtt_ms": [31.25] * 8 + [31.26], "cpu_load": [0.1 * i for i in range(9)]}),
    ],
    ids=["too few", "too short", "it moved"],
)
def test_stuck__at_the_boundary_it_is_not(n: int, every_hours: float, readings: dict[str, list[Any]]) -> None:
    """Seven readings, two hours or one that moves are no proof."""
    assert value(stuck(n, every_hours, **readings), "log_rtt_ms_known") == 1.0


def test_stuck__what_may_rest_may() -> None:
    """No loss for a day, a battery at its charger's limit, and a single quantity that nothing can be held against."""
    moving = [20.0 + i for i in range(12)]
    found = stuck(12, 1.0, loss=[0.0] * 12, battery=[0.8] * 12, charging=[True] * 12, rtt_ms=moving)
    assert [value(found, f"{name}_known") for name in ("log_loss", "battery")] == [1.0, 1.0]
    assert value(stuck(12, 1.0, battery=[0.8] * 12), "battery_known") == 1.0
    unplugged = stuck(12, 1.0, battery=[0.8] * 12, charging=[False] * 12, rtt_ms=moving)
    assert value(unplugged, "battery_known") == value(unplugged, "battery_slope_per_hour_known") == 0.0


def test_stuck__a_device_that_repeats_itself() -> None:
    """All readings the same for hours: an agent that sends an old heartbeat again; none of them is believed."""
    found = stuck(9, 1.0, rtt_ms=[31.25] * 9, uplink_bps=[4.5e6] * 9)
    assert value(found, "log_rtt_ms_known") == value(found, "log_uplink_bps_known") == 0.0


def test_future_heartbeats__change_nothing() -> None:
    """A device whose clock is ahead dates its heartbeat after the instant: the input must be as if it had not come."""
    past = heartbeats(("a", -1), battery=[0.5], leaves_at=[None])
    both = heartbeats(("a", -1), ("a", 0), ("a", 0.05), battery=[0.5, 0.1, 0.1], leaves_at=[None, 1, 1])
    np.testing.assert_array_equal(inputs_of(past, "a"), inputs_of(both, "a"))


def test_slow_clock__of_minutes_only_ages_the_reading() -> None:
    """A clock three minutes behind leaves every value as it is."""
    right, behind = (inputs_of(heartbeats(("a", h), battery=[0.5], leaves_at=[2.0]), "a") for h in (-0.1, -0.15))
    same = [i for i, name in enumerate(NAMES) if name != "log_minutes_since_heartbeat"]
    np.testing.assert_array_equal(right[:, same], behind[:, same])


def test_log__before_and_select_are_views() -> None:
    """Cutting and choosing share the arrays of the log, and commute."""
    table = heartbeats(("b", -3), ("a", -2), ("a", -1), ("z", -1), battery=[0.3, 0.2, 0.1, 0.9])
    log = TelemetryLog.from_arrow(table, ["a", "b", "c"])
    assert (log.stops - log.starts).tolist() == [2, 1, 0]  # z is nobody's
    cut = log.select(np.array([1, 0])).before(AT_US - HOUR_US)
    assert (cut.stops - cut.starts).tolist() == [1, 1]
    assert cut.values is log.values
    with pytest.raises(ValueError, match="telemetry of 2 nodes, got 3"):
        telemetry_inputs(log, 2, at_us=AT_US)


def test_log__bad_tables_are_told() -> None:
    """A missing column, an empty instant and arrays of other lengths are told, not guessed."""
    with pytest.raises(TableError, match="'ts' is missing"):
        TelemetryLog.from_arrow(pa.table({"node": ["a"]}), ["a"])
    with pytest.raises(TableError, match="'ts' holds 1 empty values"):
        TelemetryLog.from_arrow(pa.table({"node": ["a"], "ts": pa.nulls(1, INSTANT)}), ["a"])
    one, none = np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="as many starts as stops"):
        TelemetryLog(one, none, none, np.zeros((0, len(QUANTITIES)), np.float32), none)


def test_history__keeps_telemetry_with_its_nodes() -> None:
    """`select` reorders heartbeats with the nodes, `before` hides those of the future."""
    availability = pa.table(
        {
            "node": ["a", "b"],
            "start": pa.array([AT_US - 9 * HOUR_US] * 2, INSTANT),
            "end": pa.array([AT_US] * 2, INSTANT),
            "censored": [True, True],
        }
    )
    table = heartbeats(("a", -2), ("b", -2), ("b", -1), battery=[0.1, 0.2, 0.3])
    history = SessionHistory.from_arrow(availability, pa.table({"source": ["a", "b"]}), table)
    known = history.select(["b", "a"]).before(AT_US - HOUR_US)
    found = telemetry_inputs(known.telemetry, len(known), at_us=AT_US)
    assert found[:, NAMES.index("battery")] == pytest.approx([0.2, 0.1])


READING = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-200, 50), *[READING] * 6, st.one_of(st.none(), st.booleans())), min_size=1, max_size=30
    ),
    st.one_of(st.none(), st.floats(-100, 1000)),
)
def test_inputs__are_finite_and_bounded_whatever_devices_send(
    rows: list[tuple[Any, ...]], leaves: float | None
) -> None:
    """Any table gives finite inputs of modest size: a network must never meet a billion or a NaN."""
    hours, *readings, charging = zip(*rows, strict=True)
    names = ("rtt_ms", "loss", "uplink_bps", "battery", "cpu_load", "memory_load")
    columns: dict[str, Any] = {n: pa.array(list(v), pa.float64()) for n, v in zip(names, readings, strict=True)}
    columns["charging"] = pa.array(list(charging), pa.bool_())
    table = heartbeats(*(("a", h) for h in hours), **columns, leaves_at=[leaves] * len(rows))
    found = inputs_of(table, "a", "b")
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 30.0  # log of the greatest uplink, 1e12, is 27.6
    known = [i for i, name in enumerate(NAMES) if name.endswith("_known")]
    assert set(np.unique(found[:, known])) <= {0.0, 1.0}
