"""Trails kept up request by request: by hand, cut, saved, forgotten, and equal to what is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import DAY_US, RequestLog
from models.next_content.sequence import SequenceBatch
from models.next_content.sessions import moves, previous_rows, sessions_at
from models.next_content.trail_memory import HISTORY, Requests, TrailMemory, trail_of

MINUTE_US = 60_000_000
TIMEOUT_US = 30 * MINUTE_US
NO_TRAIL = ([-1] * HISTORY, [0] * HISTORY)
Row = tuple[float, int, int, int, int]


def requests(rows: Sequence[Row]) -> Requests:
    """From (minute, visitor, session, content, arrival); location is 3 and device 4."""
    minute, *codes = (np.array(column) for column in zip(*rows, strict=True))
    visitor, session, content, arrival = (column.astype(np.int32) for column in codes)
    location, device = (np.full(len(rows), code, dtype=np.int32) for code in (3, 4))
    return Requests((minute * MINUTE_US).astype(np.int64), visitor, session, content, location, device, arrival)


def part_of(log: Requests, first: int, last: int) -> Requests:
    return Requests(*(column[first:last] for column in vars(log).values()))


def memory(**reach: int) -> TrailMemory:
    return TrailMemory(timeout_us=TIMEOUT_US, **reach)


def padded(items: list[int], part: list[int]) -> tuple[list[int], list[int]]:
    n = HISTORY - len(items)
    return [-1] * n + items, [0] * n + part


def trails(batch: SequenceBatch) -> list[tuple[list[int], list[int]]]:
    return list(zip(batch.items.tolist(), batch.parts.tolist(), strict=True))


def random_requests(seed: int, n: int, *, visitors: int, minutes: float, contents: int = 6) -> Requests:
    """Visitors with one session at a time; a third of them are known by their session alone, which never returns."""
    rng = np.random.default_rng(seed)
    minute = np.sort(rng.uniform(0, minutes, n))
    who = rng.integers(visitors, size=n)
    rows: list[Row] = []
    at: dict[int, tuple[float, int]] = {}
    for t, person in zip(minute.tolist(), who.tolist(), strict=True):
        last, session = at.get(person, (-1e9, -1))
        if (t - last) * MINUTE_US > TIMEOUT_US or rng.random() < 0.1:
            session = len(rows)  # a number that nobody has yet
        at[person] = (t, session)
        known = person if person % 3 else -1
        rows.append((t, known, session, int(rng.integers(contents)), int(rng.integers(-1, 3))))
    return requests(rows)


def log_of(asked: Requests) -> RequestLog:
    names = np.empty(0, dtype=object)
    features = {"device": asked.device, "arrival": asked.arrival}
    columns = (asked.ts_us, asked.session, asked.content, asked.location)
    values = dict.fromkeys(features, names)
    return RequestLog(*columns, names, names, visitor=asked.visitor, features=features, feature_values=values)


def test_follow__by_hand() -> None:
    """Visitor 0 has sessions 0 and 2, visitor 1 session 1; content 5 twice is one visit; 38 minutes end session 2."""
    rows = [
        (0, 0, 0, 7, 1),
        (1, 1, 1, 8, 1),
        (2, 0, 0, 9, 0),
        (50, 0, 2, 5, 1),
        (51, 0, 2, 5, 2),
        (52, 0, 2, 6, 0),
        (90, 0, 2, 4, 1),
        (91, 0, 2, 3, 1),
    ]
    batch, came = memory().follow(requests(rows))
    assert came.tolist() == [7, 8, 9, 5, 6, 4, 3]
    assert (batch.ts_us // MINUTE_US).tolist() == [0, 1, 2, 50, 52, 90, 91]
    assert trails(batch) == [
        NO_TRAIL,
        NO_TRAIL,
        padded([7], [2]),
        padded([7, 9], [1, 1]),
        padded([7, 9, 5], [1, 1, 2]),
        padded([7, 9, 5, 6], [1, 1, 1, 1]),
        padded([7, 9, 5, 6, 4], [1, 1, 1, 1, 2]),
    ]
    assert set(batch.location.tolist()) == {3}
    # The device, and the arrival of the session's request before (repeats count), -1 where there was none.
    assert batch.features.tolist() == [[4, -1], [4, -1], [4, 1], [4, -1], [4, 2], [4, -1], [4, 1]]


def test_follow__the_latest_are_kept() -> None:
    """A trail has ten places; what is longest ago gives way."""
    batch, _ = memory().follow(requests([(k, 0, 0, k, 0) for k in range(13)]))
    assert trails(batch)[-1] == (list(range(2, 12)), [2] * 10)


def test_follow__earlier_sessions_fade() -> None:
    """Contents count for 100 minutes here: at minute 140 that of minute 39 is gone, that of minute 40 is not."""
    rows = [(39, 0, 0, 7, 0), (40, 0, 0, 8, 0), (140, 0, 1, 9, 0)]
    batch, _ = memory(earlier_us=100 * MINUTE_US).follow(requests(rows))
    assert trails(batch)[-1] == padded([8], [1])


def test_follow__a_content_of_two_sessions_in_a_row_is_one_earlier_visit() -> None:
    """It stands twice while the later session is under way, for there it is news, and once when both are past."""
    rows: list[Row] = [(0, 0, 0, 7, 0), (40, 0, 1, 7, 0), (41, 0, 1, 8, 0), (80, 0, 2, 9, 0)]
    batch, _ = memory().follow(requests(rows))
    assert trails(batch) == [NO_TRAIL, padded([7], [1]), padded([7, 7], [1, 2]), padded([7, 8], [1, 1])]


def test_follow__an_unknown_visitor_is_his_session() -> None:
    """Session 5 of nobody known is neither visitor 5 nor session 6."""
    rows: list[Row] = [(0, -1, 5, 7, 0), (1, 5, 6, 8, 0), (2, -1, 5, 9, 0), (3, -1, 6, 7, 0)]
    batch, _ = memory().follow(requests(rows))
    assert trails(batch) == [NO_TRAIL, NO_TRAIL, padded([7], [2]), NO_TRAIL]


def test_follow__nobody_known_is_nothing_remembered() -> None:
    """Neither visitor nor session: there is no trail that such a request could belong to."""
    empty = memory()
    batch, came = empty.follow(requests([(0, -1, -1, 7, 0), (1, -1, -1, 8, 0)]))
    assert (len(batch), len(came), len(empty)) == (0, 0, 0)
    assert len(empty.follow(part_of(requests([(0, 0, 0, 7, 0)]), 0, 0))[1]) == 0


@given(st.integers(0, 10_000), st.lists(st.integers(1, 299), max_size=10))
@settings(max_examples=25, deadline=None)
def test_follow__slices_equal_one_call(seed: int, edges: list[int]) -> None:
    """However the requests are cut, trails and memory are the same."""
    log = random_requests(seed, 300, visitors=30, minutes=4 * 24 * 60.0)
    whole, parts = memory(), memory()
    expected, content = whole.follow(log)
    found = [parts.follow(part_of(log, a, b)) for a, b in pairwise([0, *sorted(edges), 300])]
    np.testing.assert_array_equal(np.concatenate([batch.items for batch, _ in found]), expected.items)
    np.testing.assert_array_equal(np.concatenate([batch.parts for batch, _ in found]), expected.parts)
    np.testing.assert_array_equal(np.concatenate([batch.features for batch, _ in found]), expected.features)
    np.testing.assert_array_equal(np.concatenate([came for _, came in found]), content)
    now_us = int(log.ts_us[-1])
    assert parts.to_arrow(now_us).equals(whole.to_arrow(now_us))


@given(st.integers(0, 10_000), st.integers(1, 120))
@settings(max_examples=40, deadline=None)
def test_follow__equals_the_sessions_that_questions_are_made_of(seed: int, n: int) -> None:
    """What the network learns from is what it will be asked about, row by row: no visitor has more than ten visits."""
    log = random_requests(seed, n, visitors=max(n // 4, 1), minutes=2 * 24 * 60.0)
    counts = np.bincount(np.where(log.visitor >= 0, log.visitor, 0), minlength=1)
    few = (log.visitor < 0) | (counts[np.maximum(log.visitor, 0)] <= HISTORY)
    log = Requests(*(column[few] for column in vars(log).values()))
    assert_same_trails(log)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_follow__equals_the_sessions_of_busy_visitors(seed: int) -> None:
    """Likewise for visitors of any number of visits, as long as no session begins where the one before ended."""
    log = random_requests(seed, 400, visitors=8, minutes=2 * 24 * 60.0, contents=400)
    content = np.random.default_rng(seed).permutation(400).astype(np.int32)
    repeats = log.session[1:] == log.session[:-1]
    content[1:][repeats] = np.where(np.arange(repeats.sum()) % 2, content[1:][repeats], content[:-1][repeats])
    assert_same_trails(Requests(log.ts_us, log.visitor, log.session, content, log.location, log.device, log.arrival))


def assert_same_trails(asked: Requests) -> None:
    log = log_of(asked)
    previous = previous_rows(log, timeout_us=TIMEOUT_US)
    rows = moves(log, previous)
    expected = trail_of(sessions_at(log, rows, previous, earlier=HISTORY))
    batch, came = memory().follow(asked)
    np.testing.assert_array_equal(came, log.content[rows])
    np.testing.assert_array_equal(batch.items, expected.items)
    np.testing.assert_array_equal(batch.parts, expected.parts)
    np.testing.assert_array_equal(batch.features, expected.features)
    np.testing.assert_array_equal(batch.ts_us, expected.ts_us)


def test_follow__nothing_from_the_row_on() -> None:
    """A trail does not change when the log goes on differently: no look ahead."""
    log = random_requests(0, 300, visitors=20, minutes=600.0)
    other = np.concatenate([log.content[:200], np.random.default_rng(1).integers(6, size=100)]).astype(np.int32)
    columns = log.ts_us, log.visitor, log.session, other, log.location, log.device, log.arrival
    one, two = (memory().follow(each)[0] for each in (log, Requests(*columns)))
    before = int((one.ts_us <= log.ts_us[199]).sum())
    np.testing.assert_array_equal(one.items[:before], two.items[:before])
    assert one.items[:before].max() >= 0


@pytest.mark.parametrize("row", [1, 150, 299])
def test_saved__goes_on_as_if_never_stopped(row: int) -> None:
    """Trails after a restart, and the next save, are those of a memory that ran on, though visitors left and returned."""
    log = random_requests(5, 300, visitors=30, minutes=5 * 24 * 60.0)
    whole, first, resumed = memory(), memory(), memory()
    expected, _ = whole.follow(log)
    first.follow(part_of(log, 0, row))
    resumed.load(first.to_arrow(int(log.ts_us[row - 1])))
    batch, _ = resumed.follow(part_of(log, row, 300))
    assert trails(batch) == trails(expected)[len(expected) - len(batch) :]
    now_us = int(log.ts_us[-1])
    assert resumed.to_arrow(now_us).equals(whole.to_arrow(now_us))


def test_saved__only_the_last_day() -> None:
    """Whoever was not heard of for a day is not saved, nor is what the others saw before that."""
    rows: list[Row] = [(0, 0, 0, 7, 0), (1, 1, 1, 8, 0), (24 * 60 + 0.5, 0, 2, 9, 0)]
    held = memory()
    held.follow(requests(rows))
    table = held.to_arrow(DAY_US + MINUTE_US)
    assert table["key"].to_pylist() == [0, 1]  # 1 minute is still within the day
    assert [items[-2:] for items in table["items"].to_pylist()] == [[-1, 9], [-1, 8]]
    assert memory_of(table, now_us=DAY_US + 2 * MINUTE_US) == [0]


def memory_of(table: object, *, now_us: int) -> list[int]:
    """Keys of those whom a loaded memory saves at an instant."""
    loaded = memory()
    loaded.load(table)
    return [int(key) for key in loaded.to_arrow(now_us)["key"].to_pylist()]


def test_forgetting__keeps_those_of_the_last_day() -> None:
    """Ten thousand visitors, one a minute: the table never grows beyond a day's worth and room for as many again."""
    n = 10_000
    held = memory()
    held.follow(requests([(k, k, k, 1, 0) for k in range(n)]))
    assert len(held.last_us) <= 2 * 1441 + 512
    kept = held.to_arrow((n - 1) * MINUTE_US)["key"].to_pylist()
    assert kept == list(range(n - 1441, n))
    batch, _ = held.follow(requests([(n, n - 1000, n, 5, 0), (n, n - 3000, n + 1, 5, 0)]))
    assert trails(batch) == [padded([1], [1]), NO_TRAIL]
