"""Counts: right by hand, and the same bytes however the work is split."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import HOUR_US
from pipelines import store
from pipelines.aggregate import hourly_counts, transitions
from pipelines.runner import PoolRunner, Runner, SerialRunner
from tests.pipelines.test_store import MIDNIGHT, MIDNIGHT_US, requests


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.fixture
def across_midnight() -> tuple[pa.Table, pa.Table]:
    """One session a → b at 23:30 and 00:30, then b again and a; another session that only sees c."""
    table = requests(
        [-0.5, 0.5, 0.6, 0.7, 0.7],
        content=["a", "b", "b", "a", "c"],
        session=["s", "s", "s", "s", "t"],
        segment=pa.array([None, 0, 2, None, None], pa.int32()),
        bytes=pa.array([7, None, None, None, None], pa.int64()),
    )
    contents = pa.table(
        {
            "content": ["a", "b"],
            "bytes": pa.array([100, 25], pa.int64()),
            "segment_bytes": pa.array([10, 10], pa.int64()),
        }
    )
    return table, contents


def test_transitions__cross_midnight_and_leave_out_repeats(across_midnight: tuple[pa.Table, pa.Table]) -> None:
    """a→b over midnight and b→a; b→b is no step, and c follows nothing in its session."""
    expected = [("a", "b", "x", 1), ("b", "a", "x", 1)]
    assert _rows(transitions(across_midnight[0], SerialRunner())) == expected


def test_transitions__equal_instants_follow_the_order_of_the_file() -> None:
    """Logs with whole seconds have many ties; the file's order is the only order there is."""
    table = requests([0, 0, 0], content=["z", "a", "m"], session=["s"] * 3)
    assert _rows(transitions(table, SerialRunner())) == [("a", "m", "x", 1), ("z", "a", "x", 1)]


def test_hourly_counts__bytes_come_from_the_contents_where_requests_do_not_say(
    across_midnight: tuple[pa.Table, pa.Table],
) -> None:
    """00 h: a whole = 100; b segment 0 = 10 and segment 2 = the rest, 25 - 20 = 5; c is unknown = 0."""
    hour = dt.timedelta(hours=1)
    expected = [
        (MIDNIGHT - hour, "a", "x", 1, 7),
        (MIDNIGHT, "a", "x", 1, 100),
        (MIDNIGHT, "b", "x", 2, 15),
        (MIDNIGHT, "c", "x", 1, 0),
    ]
    assert _rows(hourly_counts(*across_midnight, SerialRunner())) == expected


def test_counts__have_the_same_bytes_however_split(tmp_path: Path) -> None:
    """Serial, over processes, in one bucket or in five: one answer."""
    rng = np.random.default_rng(3)
    n = 600
    table = requests(
        sorted(rng.uniform(-30, 30, n)),
        content=[f"c{i}" for i in rng.integers(0, 9, n)],
        session=[None if i == 0 else f"s{i}" for i in rng.integers(0, 60, n)],
        location=[f"l{i}" for i in rng.integers(0, 3, n)],
    )
    for kernel in (partial(hourly_counts, table, None), partial(transitions, table)):
        splits: list[tuple[Runner, int]] = [(SerialRunner(), 1), (SerialRunner(), 5), (PoolRunner(2), 5)]
        for position, (runner, buckets) in enumerate(splits):
            store.write_parquet(tmp_path / f"{position}.parquet", kernel(runner, buckets=buckets))
        first, *others = [(tmp_path / f"{p}.parquet").read_bytes() for p in range(len(splits))]
        assert all(other == first for other in others)
    counts = hourly_counts(table, None, SerialRunner())
    assert sum(counts["requests"].to_pylist()) == n
    first_hour = counts["hour"][0].as_py().timestamp() * 1_000_000
    assert first_hour == (MIDNIGHT_US + min(rng_hours(table)) * HOUR_US) // HOUR_US * HOUR_US


def rng_hours(table: pa.Table) -> list[float]:
    """Hours from midnight of each request."""
    return [(us - MIDNIGHT_US) / HOUR_US for us in table["ts"].cast(pa.int64()).to_pylist()]


def test_counts__refuse_no_buckets(across_midnight: tuple[pa.Table, pa.Table]) -> None:
    """Zero buckets would count nothing and look like no demand."""
    with pytest.raises(ValueError, match="buckets >= 1, got 0"):
        hourly_counts(*across_midnight, SerialRunner(), buckets=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=30))
def test_counts__equal_a_plain_walk(rows: list[tuple[int, int, int]]) -> None:
    """Whatever the requests, both kernels agree with counting them one by one, in any number of buckets."""
    content, session, hour = ([row[k] for row in rows] for k in range(3))
    table = requests(
        sorted(float(h) for h in hour), content=[f"c{c}" for c in content], session=[f"s{s}" for s in session]
    )
    walked: Counter[tuple[str, str]] = Counter()
    last: dict[str, str] = {}
    for row in table.to_pylist():
        previous = last.get(row["session"])
        if previous is not None and previous != row["content"]:
            walked[previous, row["content"]] += 1
        last[row["session"]] = row["content"]
    for buckets in (1, 3):
        steps = transitions(table, SerialRunner(), buckets=buckets).to_pylist()
        found: Counter[tuple[str, str]] = Counter()
        for step in steps:
            found[step["previous"], step["content"]] += step["count"]
        assert found == walked
        hours = hourly_counts(table, None, SerialRunner(), buckets=buckets)
        assert sum(hours["requests"].to_pylist()) == len(rows)
