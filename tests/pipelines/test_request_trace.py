"""Requests as they are read: the same as all at once, and no more of them in memory than is asked for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TableError
from models.events import HOUR_US
from models.tables import INSTANT
from pipelines.errors import InputError
from pipelines.request_trace import RequestTrace, TraceReader, joined
from pipelines.requests import Playback, RequestRows, WatchThrough
from pipelines.store import write_parquet, write_tables
from pipelines.stretch import Stretch
from placement.trace import SegmentRequests
from tests.pipelines.tiny_scene import NOW_US, rows, tiny_scene

SCENE = tiny_scene()
PAGE, FILM = 0, 1
SECOND = 1_000_000
WINDOW = (NOW_US, NOW_US + 60 * SECOND)


def same(one: SegmentRequests, other: SegmentRequests) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)


def whole(views: RequestRows, playback: Playback) -> SegmentRequests:
    return playback.cut(views, SCENE).between(*WINDOW)


def pieces(views: RequestRows, batches: list[int]) -> list[RequestRows]:
    edges = [0, *sorted(min(at, len(views)) for at in batches), len(views)]
    return [views.rows(slice(a, b)) for a, b in pairwise(edges)]


VIEWS = st.lists(
    st.tuples(st.integers(0, 59), st.sampled_from([(PAGE, 5), (FILM, 9), (FILM, 15), (FILM, 25)])), max_size=30
)


@settings(max_examples=80, deadline=None)
@given(
    asked=VIEWS,
    batches=st.lists(st.integers(0, 30), max_size=4),
    stops=st.lists(st.integers(0, 60 * SECOND), max_size=6),
    every=st.sampled_from([0.4, 7.0, 10.0]),
)
def test_parts__make_up_the_whole(asked: Any, batches: list[int], stops: list[int], every: float) -> None:
    """However the log is batched and the window split: request for request, equal instants in the same order."""
    views, playback = rows(*((at, *what) for at, what in sorted(asked))), Playback(every)
    reader = TraceReader(iter(pieces(views, batches)), SCENE, playback, WINDOW)
    edges = [WINDOW[0], *(WINDOW[0] + at for at in sorted(stops)), WINDOW[1]]
    parts = [reader.between(a, b) for a, b in pairwise(edges)]
    assert same(joined(parts), whole(views, playback))


@settings(max_examples=60, deadline=None)
@given(
    asked=VIEWS,
    batches=st.lists(st.integers(0, 30), max_size=4),
    questions=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 40)), max_size=6),
)
def test_windows__may_overlap(asked: Any, batches: list[int], questions: list[tuple[int, int]]) -> None:
    """Who looks ahead asks for the next hours again and again; what lies beyond the end is not there."""
    views, playback = rows(*((at, *what) for at, what in sorted(asked))), Playback(7.0)
    reader = TraceReader(iter(pieces(views, batches)), SCENE, playback, WINDOW)
    for start, length in sorted(questions):
        window = (NOW_US + start * SECOND, NOW_US + (start + length) * SECOND)
        assert same(reader.between(*window), whole(views, playback).between(*window))


def test_past__is_forgotten_and_not_made_up() -> None:
    """A question that goes back is our own mistake; an answer with half of the requests would hide it."""
    reader = TraceReader(iter([rows((0, PAGE, 5))]), SCENE, Playback(), WINDOW)
    reader.between(NOW_US + 5, NOW_US + 9)
    with pytest.raises(ValueError, match="what lies before is forgotten"):
        reader.between(NOW_US, NOW_US + 9)


def test_reader__holds_only_what_is_asked_for_and_goes_on() -> None:
    """Of a thousand views, each watched for 20 s: never more batches read than needed, never more held than 30 s."""
    views = rows(*((i, FILM, 25) for i in range(1000)))
    taken: list[int] = []

    def batches() -> Any:
        for batch in pieces(views, list(range(10, 1000, 10))):
            taken.append(len(batch))
            yield batch

    reader = TraceReader(batches(), SCENE, Playback(10.0), (NOW_US, NOW_US + 2000 * SECOND))
    for second in range(0, 1000, 10):
        part = reader.between(NOW_US + second * SECOND, NOW_US + (second + 10) * SECOND)
        assert len(part) <= 30
        assert sum(taken) <= second + 20
        assert len(reader._held) == len(part)
        assert len(reader._going_on) <= 20
        assert len(reader._unread) <= 10


def written(folder: Path, seconds: list[int]) -> Path:
    """Tables with requests for `film` at these seconds, in this order."""
    n = len(seconds)
    ts = pa.array([NOW_US + second * SECOND for second in seconds], pa.int64()).cast(INSTANT)
    requests = pa.table(
        {
            "ts": ts,
            "session": ["s"] * n,
            "content": ["film"] * n,
            "location": ["here"] * n,
            "segment": pa.nulls(n, pa.int32()),
            "bytes": pa.nulls(n, pa.int64()),
        }
    )
    write_tables(folder, {"requests": requests})
    [file] = (folder / "requests").glob("*/*.parquet")
    write_parquet(file, requests)  # as a hand that does not sort
    return folder


def test_trace__from_tables_is_the_cut_of_what_is_read_at_once(tmp_path: Path) -> None:
    """Two batches of a file, views that go on past an hour and past the window, and passes that do not disturb others."""
    folder, playback = written(tmp_path / "t", [0, 1, 3590, 3595, 7195]), Playback(10.0)
    window = (NOW_US, NOW_US + 2 * HOUR_US)
    trace = RequestTrace.find(folder, SCENE, playback, window, batch_rows=3)
    expected = playback.cut(RequestRows.read(folder, SCENE), SCENE).between(*window)
    assert len(trace) == len(expected) == 13
    stretch = Stretch(trace, *window, every_hours=1.0)
    planned, by_hour = list(stretch.parts()), list(stretch.hours())
    assert [at_us for at_us, _ in planned] == [NOW_US, NOW_US + HOUR_US]
    assert same(joined([part for _, part in planned]), expected)
    assert same(joined(by_hour), expected)


def test_watch_through__counts_batches_as_it_counts_all() -> None:
    """Whoever estimates how far viewers go need not hold their requests."""
    views = rows((0, FILM, 25), (1, FILM, 10), (2, PAGE, 5), (3, FILM, 11))
    at_us = NOW_US + 60 * SECOND
    by_parts = WatchThrough.count_all(pieces(views, [1, 2]), SCENE)
    assert np.array_equal(by_parts.at(at_us), WatchThrough.count(views, SCENE).at(at_us))


def test_disorder__is_named_before_anything_is_played(tmp_path: Path) -> None:
    """The file, the row and both instants, also where the batches part: what was handed on cannot be sorted any more."""
    folder = written(tmp_path / "t", [5, 9, 7, 20])
    for batch_rows in (2, 4):
        with pytest.raises(TableError, match=r"row 2 is of \S+:07Z, after \S+:09Z. Run `premirror ingest` again"):
            RequestTrace.find(folder, SCENE, Playback(), WINDOW, batch_rows=batch_rows)


def test_window__without_a_request_is_refused(tmp_path: Path) -> None:
    """Nothing to play is a mistake in the window; an empty day inside it is not."""
    folder = written(tmp_path / "t", [5])
    with pytest.raises(InputError, match="no request lies in the window"):
        RequestTrace.find(folder, SCENE, Playback(), (NOW_US + 2 * HOUR_US, NOW_US + 3 * HOUR_US))
    days = Stretch(
        RequestTrace.find(folder, SCENE, Playback(), (NOW_US, NOW_US + 72 * HOUR_US)),
        NOW_US,
        NOW_US + 72 * HOUR_US,
        24.0,
    )
    assert [len(part) for _, part in days.parts()] == [3, 0, 0]
