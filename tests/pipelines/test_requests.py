"""Requests in codes: watch-through as known at an instant, and views cut into segment requests."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.tables import INSTANT
from pipelines import store
from pipelines.errors import InputError
from pipelines.requests import Playback, RequestRows, WatchThrough
from pipelines.scene import Catalogue
from tests.pipelines.tiny_scene import NOW_US, rows, tiny_scene

SCENE = tiny_scene()
PAGE, FILM = 0, 1


def test_watch_through__known_answer() -> None:
    """Continuations over chances, by hand.

    Film of 3 segments: 25 bytes = 3 watched = 2 of 2 continued; 10 bytes = 1 watched = 0 of 1; 11 bytes = 2 watched = 1
    of 2 (after the second there is a third, and it was not watched). A page has one segment and tells nothing.
    """
    watch = WatchThrough.count(rows((0, FILM, 25), (1, FILM, 10), (2, PAGE, 5), (3, FILM, 11)), SCENE)
    # (2 + 0 + 1) / (2 + 1 + 2), of all and so of the only content that tells
    assert watch.at(NOW_US + 10_000_000)[FILM] == pytest.approx(3 / 5)


def test_watch_through__later_requests_change_nothing() -> None:
    """A plan of yesterday must not know how far people watched today; the instant itself is already later."""
    early = rows((0, FILM, 25), (1, FILM, 10))
    with_future = rows((0, FILM, 25), (1, FILM, 10), (2, FILM, 10), (3, FILM, 10))
    at_us = NOW_US + 2_000_000
    known = WatchThrough.count(early, SCENE).at(at_us)
    assert np.array_equal(WatchThrough.count(with_future, SCENE).at(at_us), known)
    assert known[FILM] == pytest.approx(2 / 3)


def test_watch_through__is_one_where_nothing_tells() -> None:
    """No request yet, or only contents of one segment, or only requests for single segments."""
    later_us = NOW_US + 9_000_000
    assert WatchThrough.count(rows(), SCENE).at(NOW_US).tolist() == [1.0, 1.0]
    assert WatchThrough.count(rows((0, PAGE, 5)), SCENE).at(later_us).tolist() == [1.0, 1.0]
    assert WatchThrough.count(rows((0, FILM, 10), segment=1), SCENE).at(later_us).tolist() == [1.0, 1.0]


FILMS = Catalogue(
    np.array(["seen", "unseen", "song", "nameless"], dtype=object),
    np.array([25, 25, 25, 25]),
    np.array([10, 10, 10, 10]),
    np.array(["film", "film", "song", None], dtype=object),
)
"""Four contents of three segments: two films, a song, and one of which nobody says what it is."""


def test_watch_through__of_a_content_falls_back_to_its_kind_and_then_to_all() -> None:
    """By hand with m = 50: 100 whole views of `seen` (200 of 200) and 200 of `song` that stop at once (0 of 200).

    All: 200 / 400 = 0.5. Films: (200 + 50 x 0.5) / (200 + 50) = 0.9; songs: 25 / 250 = 0.1. `seen`: (200 + 50 x 0.9) /
    250 = 0.98; `song`: 50 x 0.1 / 250 = 0.02; `unseen` is watched as films are, `nameless` as all are.
    """
    views = [(0.0, 0, 25)] * 100 + [(1.0, 2, 10)] * 200
    watch = WatchThrough.count(rows(*views), tiny_scene(catalogue=FILMS))
    assert watch.at(NOW_US + 2_000_000).tolist() == pytest.approx([0.98, 0.9, 0.02, 0.5])
    # Before the songs: 200 / 200 of all, and nothing says that anybody stops.
    assert watch.at(NOW_US + 1_000_000).tolist() == [1.0] * 4


def test_watch_through__without_kinds_falls_back_to_all() -> None:
    """A contents table that does not say what its contents are."""
    scene = tiny_scene(catalogue=Catalogue(FILMS.contents, FILMS.bytes, FILMS.segment_bytes))
    watch = WatchThrough.count(rows(*[(0.0, 0, 25)] * 25, *[(0.0, 2, 10)] * 50), scene)
    # All: 50 / 100; `seen`: (50 + 50 x 0.5) / 100; `song`: 25 / 100
    assert watch.at(NOW_US + 1_000_000).tolist() == pytest.approx([0.75, 0.5, 0.25, 0.5])


def test_cut__a_view_asks_for_one_segment_after_the_other() -> None:
    """11 bytes of the film are its segments 0 and 1 (codes 1, 2), ten seconds apart; the page falls between them."""
    cut = Playback(segment_seconds=10.0).cut(rows((0, FILM, 11), (4, PAGE, 5)), SCENE)
    assert cut.segment.tolist() == [1, 0, 2]
    assert ((cut.ts_us - NOW_US) / 1e6).tolist() == [0.0, 4.0, 10.0]
    assert cut.bytes.tolist() == [10, 5, 10]


def test_cut__the_last_segment_is_shorter() -> None:
    """25 bytes in segments of 10 leave 5 for the third; bytes of a whole view add up to the content."""
    cut = Playback().cut(rows((0, FILM, 25)), SCENE)
    assert cut.bytes.tolist() == [10, 10, 5]


def test_cut__a_request_for_one_segment_stays_one() -> None:
    """Logs of segment requests are not multiplied."""
    cut = Playback().cut(rows((0, FILM, 10), segment=2), SCENE)
    assert (cut.segment.tolist(), cut.bytes.tolist()) == ([3], [5])


def test_cut__no_requests_are_no_segment_requests() -> None:
    """A night without any request is played, not refused."""
    assert len(Playback().cut(rows(), SCENE)) == 0


def _written(folder: Path, content: str, location: str) -> Path:
    ts = pa.array([dt.datetime(2026, 3, 2, tzinfo=dt.UTC)] * 2, INSTANT)
    table = pa.table(
        {
            "ts": ts,
            "user": ["u", "u"],
            "session": ["s", "s"],
            "content": [content, "film"],
            "segment": pa.array([None, 1], pa.int32()),
            "location": [location, "here"],
            "bytes": pa.array([None, 99], pa.int64()),
        }
    )
    store.write_tables(folder, {"requests": table})
    return folder


def test_read__null_bytes_are_the_whole_content_and_more_than_it_is_cut(tmp_path: Path) -> None:
    """A null segment is -1, a null size is the content's, and 99 bytes of a content of 25 are 25."""
    found = RequestRows.read(_written(tmp_path / "t", "page", "there"), SCENE)
    assert found.segment.tolist() == [-1, 1]
    assert found.bytes.tolist() == [5, 25]
    assert found.content.tolist() == [PAGE, FILM]
    assert found.location.tolist() == [1, 0]


@pytest.mark.parametrize(("content", "location", "word"), [("gone", "here", "content"), ("page", "moon", "location")])
def test_read__an_unknown_id_is_named(tmp_path: Path, content: str, location: str, word: str) -> None:
    """Half-ingested tables must not lose demand silently."""
    with pytest.raises(InputError, match=f"1 requests name a {word} that the {word}s table lacks"):
        RequestRows.read(_written(tmp_path / "t", content, location), SCENE)


def test_between__is_half_open() -> None:
    """[start, end): windows that follow each other share no request and lose none."""
    all_rows = rows((0, PAGE, 5), (1, PAGE, 5), (2, PAGE, 5))
    middle = all_rows.between(NOW_US + 1_000_000, NOW_US + 2_000_000)
    assert np.array_equal(middle.ts_us, [NOW_US + 1_000_000])
