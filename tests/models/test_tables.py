"""Validation of the canonical tables: every mistake is found, named and mended by its message."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TableError
from models.rules import repeated
from models.tables import INSTANT, SCHEMAS, ValidationContext, validate

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def _requests(**columns: Any) -> pa.Table:
    """Three good requests, with columns replaced or added."""
    base: dict[str, Any] = {
        "ts": pa.array([NOON, NOON + dt.timedelta(seconds=1), NOON + dt.timedelta(seconds=2)], INSTANT),
        "content": pa.array(["a", "b", "c"]),
        "location": pa.array(["x", "x", "y"]),
        "bytes": pa.array([1, 2, 3], pa.int64()),
    }
    return pa.table({k: v for k, v in (base | columns).items() if v is not None})


def _availability(rows: list[tuple[str, int, int]], end_upper: list[int | None] | None = None) -> pa.Table:
    def instant(hours: int | None) -> dt.datetime | None:
        return None if hours is None else NOON + dt.timedelta(hours=hours)

    return pa.table(
        {
            "node": [node for node, _, _ in rows],
            "start": pa.array([instant(start) for _, start, _ in rows], INSTANT),
            "end": pa.array([instant(end) for _, _, end in rows], INSTANT),
            "end_upper": pa.array([instant(h) for h in end_upper or [None] * len(rows)], INSTANT),
            "censored": [False] * len(rows),
        }
    )


def test_validate__good_rows_pass_and_missing_nullable_columns_appear() -> None:
    """Code behind validation relies on every canonical column being there with its type."""
    result = validate("requests", _requests(device=pa.array(["tv", "tv", "phone"])))
    assert result.table.schema.names == [*SCHEMAS["requests"].arrow.names, "device"]
    assert [f.type for f in result.table.schema][:-1] == [f.type for f in SCHEMAS["requests"].arrow]
    assert len(result.quarantine) == 0
    assert result.bad_share == 0


def test_validate__reports_every_mistake_of_shape_at_once() -> None:
    """Mending one column an attempt is what total validation saves."""
    naive = pa.array([1, 2, 3], pa.timestamp("us"))
    with pytest.raises(TableError) as caught:
        validate("requests", _requests(ts=naive, bytes=pa.array(["1", "2", "3"]), content=None))
    message = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "Missing required columns: content. Available columns: ts, location, bytes" in message
    assert "'ts'" in message
    assert "without a time zone" in message
    assert "'bytes' is string, expected int64" in message


def test_validate__empty_table_is_refused() -> None:
    """A job over no rows would succeed and mean nothing."""
    with pytest.raises(TableError, match="no rows"):
        validate("requests", _requests().slice(0, 0))


def test_validate__unknown_table_names_those_there_are() -> None:
    """A typo in a table's name must not pass as an unchecked table."""
    with pytest.raises(TableError, match=r"No such table.*requests, contents"):
        validate("request", _requests())


def test_validate__bad_rows_are_set_aside_with_all_their_reasons() -> None:
    """One row may be wrong twice; the rest stays usable."""
    raw = _requests(bytes=pa.array([-5, 2, 3]), location=pa.array(["nowhere", "x", None]))
    result = validate("requests", raw, context=ValidationContext(locations={"x", "y"}))
    assert result.table["content"].to_pylist() == ["b"]
    assert result.quarantine["row"].to_pylist() == [0, 2]
    reasons = result.quarantine["reason"].to_pylist()
    assert reasons[0] == "location is not in the table 'locations'; bytes must be at least 0"
    assert reasons[1] == "location must not be empty"
    assert result.quarantine["bytes"].to_pylist() == ["-5", "3"]


def test_require__names_first_bad_rows_values_and_remedy() -> None:
    """The message alone must be enough to mend the input."""
    result = validate("requests", _requests(bytes=pa.array([-5, 2, -7])))
    with pytest.raises(TableError) as caught:
        result.require(max_bad_share=0.5)  # 2 of 3 rows are bad
    message = str(caught.value)
    assert "2 of 3 rows (66.7%) are bad; allowed: 50.0%" in message
    assert "'bytes' must be at least 0: 2 rows do not (row 0: -5, row 2: -7)" in message
    assert "Remedy" in message
    assert result.require(max_bad_share=0.67) is result.table


def test_validate__unknown_content_counts_only_when_the_context_says() -> None:
    """A contents table that lags behind the log is normal unless stated otherwise."""
    assert len(validate("requests", _requests()).table) == 3
    strict = validate("requests", _requests(), context=ValidationContext(contents={"a"}))
    assert strict.table["content"].to_pylist() == ["a"]


def test_validate__a_row_known_before_it_happened_is_bad() -> None:
    """Such a row would show a backtest the future."""
    early = pa.array([NOON - dt.timedelta(hours=1), None, None], INSTANT)
    assert validate("requests", _requests(available_at=early)).quarantine["row"].to_pylist() == [0]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, 3], pa.uint8()),
        pa.array([1.0, 2.0, float("nan")]),
        pa.array([None, None, None]),
        pa.array(["a"] * 3).dictionary_encode(),
    ],
    ids=["narrow", "pandas missing", "all null", "text"],
)
def test_validate__types_that_hold_the_same_values_are_accepted(values: pa.Array) -> None:
    """Other writers choose other widths; only what loses something is refused."""
    column = "kind" if pa.types.is_dictionary(values.type) else "bytes"
    result = validate("requests", _requests(**{column: values}))
    assert len(result.quarantine) == 0


def test_validate__a_number_that_does_not_fit_is_that_rows_problem() -> None:
    """2³¹ is one more than int32 holds, and 1.5 is no segment."""
    result = validate("requests", _requests(segment=pa.array([2.0**31, 1.5, 7.0])))
    assert result.quarantine["row"].to_pylist() == [0, 1]
    assert result.table["segment"].to_pylist() == [7]


def test_validate__nanoseconds_and_other_zones_become_utc_microseconds() -> None:
    """12:00 in UTC+2 is 10:00 UTC."""
    local = pa.array([NOON.replace(tzinfo=None)] * 3, pa.timestamp("ns")).cast(pa.timestamp("ns", tz="Etc/GMT-2"))
    result = validate("requests", _requests(ts=local))
    assert result.table["ts"].type == INSTANT
    assert result.table["ts"][0].as_py() == NOON


def test_validate__overlapping_sessions_of_one_node_are_set_aside() -> None:
    """[0,4) and [3,5) overlap; [4,6) touches the first and is fine; another node does not matter."""
    rows = [("a", 0, 4), ("a", 3, 5), ("a", 4, 6), ("b", 1, 9)]
    result = validate("availability", _availability(rows))
    assert result.quarantine["row"].to_pylist() == [1]
    assert "overlap" in result.quarantine["reason"][0].as_py()


def test_validate__overlap_of_minutes_is_a_matter_of_clocks() -> None:
    """Clocks differ by up to five minutes: a start at 3:55 before an end at 4:00 passes, one a microsecond earlier not."""
    table = _availability([("a", 0, 4), ("a", 4, 5), ("b", 0, 4), ("b", 4, 5)])
    late = pa.array([0, 5 * 60 * 10**6, 0, 5 * 60 * 10**6 + 1], pa.duration("us"))
    earlier = pc.subtract(table["start"], late)
    result = validate("availability", table.set_column(table.column_names.index("start"), "start", earlier))
    assert result.quarantine["row"].to_pylist() == [3]
    assert result.quarantine["reason"][0].as_py().endswith("by more than 5 minutes")


def test_validate__a_repeated_session_keeps_the_first() -> None:
    """A file read twice says the same session twice, however short it is."""
    table = _availability([("a", 0, 4), ("a", 0, 4), ("a", 5, 5), ("a", 5, 5)])
    result = validate("availability", table)
    assert result.quarantine["row"].to_pylist() == [1, 3]
    assert result.quarantine["reason"][0].as_py() == "node must be the only row with its node and start"


def test_validate__sessions_and_heartbeats_of_unknown_nodes_are_set_aside() -> None:
    """Where the nodes are known, a session of nobody is a mistake of that row and not of the table."""
    context = ValidationContext(nodes={"a"})
    result = validate("availability", _availability([("a", 0, 3), ("z", 0, 3)]), context=context)
    assert result.quarantine["reason"].to_pylist() == ["node is not in the table 'nodes'"]
    beats = pa.table({"ts": pa.array([0, 0], INSTANT), "node": ["a", "z"]})
    validated = validate("telemetry", beats, context=context)
    assert validated.quarantine["row"].to_pylist() == [1]
    assert validated.table["leaves_at"].null_count == 1  # a device that announces nothing plans no leave


def test_validate__instants_without_a_zone_are_refused() -> None:
    """Nobody knows which hours a session without a zone means: it is refused, not guessed."""
    table = _availability([("a", 0, 3)])
    naive = table.set_column(1, "start", table["start"].cast(pa.timestamp("us")))
    with pytest.raises(TableError, match="zone"):
        validate("availability", naive)


def test_validate__end_before_start_is_set_aside_and_accuses_no_other_row() -> None:
    """The broken session [5,2) would otherwise seem to overlap its neighbours."""
    rows = [("a", 0, 3), ("a", 5, 2), ("a", 4, 6)]
    result = validate("availability", _availability(rows))
    assert result.quarantine["row"].to_pylist() == [1]
    assert "end before start" in result.quarantine["reason"][0].as_py()


def test_validate__end_upper_before_end_is_set_aside() -> None:
    """A node cannot be known off before it was last seen up."""
    result = validate("availability", _availability([("a", 0, 3), ("b", 0, 3)], end_upper=[2, 4]))
    assert result.quarantine["row"].to_pylist() == [0]


def test_validate__repeated_ids_keep_the_first() -> None:
    """Two rows for one content would double its demand in every join."""
    table = pa.table({"content": ["a", "a"], "bytes": [1, 2], "segment_bytes": [1, 1]})
    result = validate("contents", table)
    assert result.table["bytes"].to_pylist() == [1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", None])), max_size=30))
def test_repeated__agrees_with_a_set(rows: list[tuple[int, str | None]]) -> None:
    """The fast comparison by mixed codes must find exactly what comparing rows one by one finds."""
    seen: set[tuple[int, str | None]] = set()
    expected = []
    for row in rows:
        expected.append(row in seen)
        seen.add(row)
    table = pa.table(
        {"n": pa.array([n for n, _ in rows], pa.int64()), "s": pa.array([s for _, s in rows], pa.string())}
    )
    assert repeated(table, ("n", "s")).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=25))
def test_validate__kept_sessions_never_overlap(rows: list[tuple[str, int, int]]) -> None:
    """Whatever comes in, churn models may count on disjoint sessions."""
    result = validate("availability", _availability([(node, start, start + length) for node, start, length in rows]))
    for node in "ab":
        kept = result.table.filter(np.array(result.table["node"].to_pylist()) == node).sort_by(
            [("start", "ascending"), ("end", "ascending")]
        )
        starts, ends = (kept[name].cast(pa.int64()).to_numpy() for name in ("start", "end"))
        assert bool(np.all(starts[1:] >= ends[:-1]))
