"""The counter store against sums by hand, a naive oracle, and itself cut, saved, resumed and merged."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.counters import LN2, CounterSettings, CounterStore
from models.errors import ArtefactError, LogOrderError
from models.events import DAY_US, HOUR_US, NEVER_US, RequestLog

START_US = 1_507_000_000 * 1_000_000 // HOUR_US * HOUR_US
MINUTE_US = 60_000_000
Row = tuple[float, str | None, str, str]


def log_of(*rows: Row) -> RequestLog:
    """A log of (hours after START_US, session, content, location)."""
    hours, session, content, location = (list(column) for column in zip(*rows, strict=True))
    ts_us = START_US + np.rint(np.array(hours, dtype=float) * HOUR_US).astype(np.int64)
    return RequestLog.from_columns(ts_us, session, content, location)


def store_of(log: RequestLog, settings: CounterSettings | None = None) -> CounterStore:
    store = CounterStore(settings)
    store.update(log)
    return store


def random_log(seed: int, n: int = 400, *, hours: float = 200.0, contents: int = 12) -> RequestLog:
    """Sessions of random walks over few contents and three locations, with ties and repeats."""
    rng = np.random.default_rng(seed)
    ts_us = START_US + np.sort(rng.integers(0, int(hours * 60), n)) * MINUTE_US
    session = np.array([f"s{k}" for k in rng.integers(0, max(1, n // 8), n)], dtype=object)
    session[rng.random(n) < 0.1] = None
    content = np.array([f"c{k}" for k in rng.integers(0, contents, n)], dtype=object)
    location = np.array([f"l{k}" for k in rng.integers(0, 3, n)], dtype=object)
    return RequestLog.from_columns(ts_us, session, content, location)


def cut(log: RequestLog, edges: list[int]) -> list[RequestLog]:
    """The log as consecutive micro-batches of rows, each with the vocabulary known at its end."""
    bounds = [0, *sorted(edges), len(log)]
    return [
        RequestLog(log.ts_us[a:b], log.session[a:b], log.content[a:b], log.location[a:b], log.contents, log.locations)
        for a, b in pairwise(bounds)
    ]


def readings(store: CounterStore, at_us: int) -> dict[str, npt.NDArray[Any]]:
    """Everything that a store answers, by id so that stores with other codes compare."""
    contents, locations = np.argsort(store.contents), np.argsort(store.locations)
    content = np.repeat(contents, len(locations))
    location = np.tile(locations, len(contents))
    order1 = np.zeros((len(contents), len(contents)))
    for place, x in enumerate(contents):
        items, shares = store.order1(int(x), 1)
        order1[place, np.argsort(contents)[items]] = shares
    return {
        "cells": store.cell_rates(content, location, at_us),
        "contents": store.content_rates(contents, at_us),
        "locations": store.location_rates(locations, at_us),
        "share": store.location_share(at_us)[locations],
        "flow": store.flow(content, location, at_us),
        "content flow": store.content_flow(contents, at_us),
        "presence": store.presence(content, location, at_us),
        "order 1": order1,
        "first": store.first_seen_us(contents),
        "cell first": store.cell_first_seen_us(content, location),
        "hours": store.hourly_location_counts(170, at_us)[locations],
        "cell hours": store.hourly_cell_counts(content, location, 26, 0, at_us),
    }


def assert_same_readings(one: CounterStore, other: CounterStore, *, rtol: float = 1e-9) -> None:
    at_us = max(one.time_us, other.time_us) + 20 * MINUTE_US
    mine, theirs = readings(one, at_us), readings(other, at_us)
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=rtol, atol=1e-12, err_msg=name)


# ---- known answers


def test_rates__decay_by_hand() -> None:
    """Two requests, one half-life and two half-lives old, weigh 1/2 and 1/4 at the one-hour half-life.

    The log was observed for two hours: 3/4 of the memory at one hour, 1/2 of it at two hours.
    """
    store = store_of(log_of((0, "a", "x", "rio"), (1, "b", "x", "rio")), CounterSettings(half_lives_hours=(1.0, 2.0)))
    rates = store.content_rates([0], START_US + 2 * HOUR_US)
    # h = 1: 1/4 + 1/2 = 3/4; h = 2: 1/2 + 2^(-1/2). A count becomes a rate by ln 2 / h, over the share observed.
    np.testing.assert_allclose(rates, [[0.75 * LN2 / 0.75, (0.5 + 2**-0.5) * LN2 / 2 / 0.5]], rtol=1e-12)
    np.testing.assert_allclose(store.cell_rates([0, 0], [0, 1], START_US + 2 * HOUR_US)[0], rates[0])
    assert store.cell_rates([0], [1], START_US + 2 * HOUR_US).tolist() == [[0.0, 0.0]]


def test_rates__steady_stream_reads_its_own_rate() -> None:
    """Six requests an hour for a day must read about six per hour at short half-lives: the unit is right."""
    store = store_of(log_of(*((k / 6, None, "x", "rio") for k in range(6 * 48))))
    rate = store.content_rates([0], store.time_us)[0]
    assert rate[0] == pytest.approx(6.0, rel=0.15)  # the newest request has just been counted in full
    assert rate[2] == pytest.approx(6.0, rel=0.05)


def test_transitions__shares_and_stop() -> None:
    """Content x is visited three times and left twice (to y, to z): P(y|x) = 1/3 of visits, 1/2 of departures."""
    store = store_of(
        log_of(
            (0, "a", "x", "rio"),
            (0, "b", "x", "rio"),
            (0, "c", "x", "rio"),
            (0, "a", "y", "rio"),
            (0, "b", "z", "rio"),
        )
    )
    items, shares = store.order1(0)
    assert dict(zip(store.contents[items], shares, strict=True)) == {"y": 0.5, "z": 0.5}
    # At time 0 only session c is at x, so a(x, rio) = 1 and flow = P(i|x) = 1/3.
    np.testing.assert_allclose(store.flow([1, 2, 0], [0, 0, 0], START_US), [1 / 3, 1 / 3, 0.0])
    np.testing.assert_allclose(store.content_flow([1], START_US), [1 / 3])
    # A quarter of an hour later its presence has halved.
    np.testing.assert_allclose(store.presence([0], [0], START_US + 15 * MINUTE_US), [0.5])


def test_walks__repeats_and_timeouts_move_nothing() -> None:
    """The segments of one content are one visit, and a session that slept for 31 minutes starts anew."""
    store = store_of(
        log_of(
            (0, "a", "x", "rio"),
            (0.1, "a", "x", "rio"),
            (0.2, "a", "x", "rio"),
            (0.3, "a", "y", "rio"),
            (0.3 + 31 / 60, "a", "z", "rio"),
        )
    )
    assert store.order1(0)[0].tolist() == [1]
    assert store.order1(1)[0].tolist() == []
    assert store.order2(0, 1)[0].tolist() == []
    visits = store.walks.visits[0, 0] * 2.0 ** (-(START_US - store.base_us) / HOUR_US / 2.0)
    assert visits == pytest.approx(1.0)


def test_order2__needs_both() -> None:
    """After (x, y) came z, after (w, y) came x: order 1 mixes them, order 2 does not."""
    rows: list[Row] = [(0, s, c, "rio") for s, walk in (("a", "xyz"), ("b", "wyx")) for c in walk]
    store = store_of(log_of(*rows))
    code = {c: k for k, c in enumerate(store.contents)}
    assert sorted(store.order1(code["y"])[1]) == [0.5, 0.5]
    items, shares = store.order2(code["x"], code["y"])
    assert (items.tolist(), shares.tolist()) == ([code["z"]], [1.0])


def test_successors__evicted_mass_stays_in_the_total() -> None:
    """With room for two, a third successor evicts the lightest, and its mass becomes escape mass."""
    moves = ["p", "p", "q", "r"]
    rows: list[Row] = [row for k, i in enumerate(moves) for row in ((0, f"s{k}", "x", "rio"), (0, f"s{k}", i, "rio"))]
    store = store_of(log_of(*rows), CounterSettings(successor_cap=2))
    items, shares = store.order1(0)
    assert dict(zip(store.contents[items], shares, strict=True)) == {"p": 0.5, "r": 0.25}  # q's 1/4 escaped


def test_hours__integer_counts_of_full_hours() -> None:
    """Counts by clock hour are whole numbers, the hour under way is not among them, gaps are zero."""
    store = store_of(
        log_of((0.1, None, "x", "rio"), (0.9, None, "x", "sul"), (2.5, None, "x", "rio"), (3.1, None, "y", "rio"))
    )
    now = START_US + 3 * HOUR_US + 10 * MINUTE_US
    assert store.hourly_location_counts(4, now).tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert store.hourly_cell_counts([0, 0, 1], [0, 1, 0], 3, 0, now).tolist() == [2, 1, 0]
    assert store.hourly_cell_counts([0], [0], 3, 2, now).tolist() == [1]
    assert store.hourly_location_counts(2, now + 500 * HOUR_US).tolist() == [[0, 0], [0, 0]]


def test_cells__sorted_and_forgotten() -> None:
    """Cells come by (content, location); one whose slowest weight fell below the minimum is left out."""
    store = store_of(
        log_of((0, None, "x", "sul"), (400, None, "y", "rio"), (400, None, "y", "sul"), (400, None, "z", "rio")),
        CounterSettings(forget_weight=0.0),
    )
    # 400 h at a half-life of 24 h leave 2^-16.7 = 1e-5 of the first request.
    assert [c.tolist() for c in store.cells()] == [[1, 1, 2], [0, 1, 1]]
    assert [c.tolist() for c in store.cells(minimum_weight=1e-6)] == [[0, 1, 1, 2], [0, 0, 1, 1]]


def test_first_seen__is_the_first_request_and_unknown_is_never() -> None:
    """Age features need the first instant, and an unknown content must not look old."""
    store = store_of(log_of((1, None, "x", "rio"), (2, None, "x", "sul")))
    assert store.first_seen_us([0, 7, -1]).tolist() == [START_US + HOUR_US, NEVER_US, NEVER_US]
    assert store.cell_first_seen_us([0, 0], [1, 2]).tolist() == [START_US + 2 * HOUR_US, NEVER_US]


# ---- oracle


def naive(log: RequestLog, s: CounterSettings, at_us: int) -> dict[str, npt.NDArray[Any]]:
    """The same answers from the definitions, event by event with dictionaries."""
    n, m = len(log.contents), len(log.locations)

    def decay(ts_us: int, half_life: float) -> float:
        return float(2.0 ** (-(at_us - ts_us) / HOUR_US / half_life))

    cells = np.zeros((n, m, len(s.half_lives_hours)))
    visits, moves = np.zeros(n), np.zeros((n, n))
    presence = np.zeros((n, m))
    at: dict[int, tuple[int, int, int]] = {}
    rows = zip(*(column.tolist() for column in (log.ts_us, log.session, log.content, log.location)), strict=True)
    for ts_us, session, content, location in rows:
        cells[content, location] += [decay(ts_us, h) for h in s.half_lives_hours]
        if session < 0:
            continue
        last = at.get(session)
        live = last is not None and ts_us - last[0] <= s.session_timeout_minutes * MINUTE_US
        weight = decay(ts_us, s.transition_half_lives_hours[0])
        if live and last is not None:
            presence[last[1], last[2]] -= decay(last[0], s.active_half_life_hours)
        if not (live and last is not None and last[1] == content):
            visits[content] += weight
            if live and last is not None:
                moves[last[1], content] += weight
        presence[content, location] += decay(ts_us, s.active_half_life_hours)
        at[session] = (ts_us, content, location)
    shares = np.divide(moves, visits[:, None], out=np.zeros_like(moves), where=visits[:, None] > 0)
    return {"cells": cells, "presence": presence, "flow": shares.T @ presence}


@given(st.integers(0, 10_000), st.floats(0.5, 300.0), st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_store__equals_naive_sums(seed: int, hours: float, n: int) -> None:
    """Inflation, rebasing, hashing and growth must be invisible: the definitions give the same numbers."""
    log = random_log(seed, n, hours=hours)
    store = store_of(log, CounterSettings(forget_weight=0.0))
    at_us = store.time_us + 7 * MINUTE_US
    expected = naive(log, store.settings, at_us)
    content, location = (k.ravel() for k in np.indices(expected["presence"].shape))
    half_lives = np.array(store.settings.half_lives_hours)
    np.testing.assert_allclose(
        store.cell_rates(content, location, at_us) * half_lives / LN2 * store.exposure(at_us),
        expected["cells"].reshape(len(content), -1),
        rtol=1e-9,
        atol=1e-15,
    )
    np.testing.assert_allclose(
        store.presence(content, location, at_us), expected["presence"].ravel(), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(store.flow(content, location, at_us), expected["flow"].ravel(), rtol=1e-6, atol=1e-3)


# ---- cut, save, merge


@given(st.integers(0, 10_000), st.lists(st.integers(1, 399), max_size=12))
@settings(max_examples=20, deadline=None)
def test_update__micro_batches_equal_one_update(seed: int, edges: list[int]) -> None:
    """However a log is cut into updates, the counters end up the same."""
    log = random_log(seed)
    parts = CounterStore()
    for part in cut(log, edges):
        parts.update(part)
    assert_same_readings(parts, store_of(log))


@pytest.mark.parametrize("row", [1, 150, 399])
def test_snapshot__resumed_store_goes_on_as_if_never_stopped(row: int) -> None:
    """A service that restarts from its snapshot must answer as one that ran on, evictions included."""
    log = random_log(3, contents=40, hours=90)
    settings = CounterSettings(successor_cap=2, context_successor_cap=1)
    first, rest = cut(log, [row])
    whole, half = CounterStore(settings), CounterStore(settings)
    half.update(first)
    tables = half.to_arrow()
    resumed = CounterStore.from_arrow(tables)
    assert resumed.settings == settings
    for store in (resumed, whole):
        for part in (first, rest) if store is whole else (rest,):
            store.update(part)
    assert_same_readings(resumed, whole, rtol=1e-15)
    again = resumed.to_arrow()
    for name, table in whole.to_arrow().items():
        assert table.equals(again[name]), name


def test_snapshot__survives_arrow_ipc() -> None:
    """Tables come back from a file in chunks and without writable buffers."""
    store = store_of(random_log(1))
    tables = {}
    for name, table in store.to_arrow().items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
        tables[name] = pa.ipc.open_file(sink.getvalue()).read_all()
    loaded = CounterStore.from_arrow(tables)
    assert_same_readings(loaded, store, rtol=1e-15)
    loaded.update(log_of((1000, "later", "new", "rio")))


def test_snapshot__other_format_is_refused_by_name() -> None:
    """A newer file must not be read as if it were ours; the message names both numbers."""
    tables = store_of(random_log(1)).to_arrow()
    head = tables["store"].set_column(0, "format", pa.array([99]))
    with pytest.raises(ArtefactError, match="format 99, but this version reads format 2"):
        CounterStore.from_arrow({**tables, "store": head})
    with pytest.raises(ArtefactError, match="lack the tables"):
        CounterStore.from_arrow({"store": tables["store"]})


@pytest.mark.parametrize("seed", range(3))
def test_merge__equals_the_store_of_the_union(seed: int) -> None:
    """Counters shard by session: the sum of two shards is the whole, though codes and newest instants differ."""
    log = random_log(seed, hours=150)
    sides = [log.session % 2 == 0, log.session % 2 != 0]
    shards = []
    for side in sides:
        shard = CounterStore()
        shard.update(
            RequestLog(
                log.ts_us[side],
                log.session[side],
                log.content[side],
                log.location[side],
                log.contents,
                log.locations,
            )
        )
        shards.append(shard)
    before = shards[0].to_arrow()
    merged = shards[0].merge(shards[1])
    assert_same_readings(merged, store_of(log))
    assert all(table.equals(before[name]) for name, table in shards[0].to_arrow().items())
    merged.update(log_of((400, "s", "c1", "l1")))


def test_merge__refuses_a_session_in_both() -> None:
    """A walk cut in two would lose its crossing transition in silence."""
    store = store_of(log_of((0, "a", "x", "rio")))
    with pytest.raises(ValueError, match="occur in both stores"):
        store.merge(store)


def test_merge__into_an_empty_store() -> None:
    """The sum with nothing is the thing itself."""
    log = random_log(5)
    assert_same_readings(CounterStore().merge(store_of(log)), store_of(log))


# ---- vocabulary and order


def test_update__other_vocabulary_is_recoded_by_id() -> None:
    """A log that was coded afresh (another file, another day) counts for the same ids."""
    store = store_of(log_of((0, None, "x", "rio"), (0, None, "y", "sul")))
    store.update(log_of((1, None, "y", "sul"), (1, None, "z", "rio")), same_sessions=False)
    assert store.contents.tolist() == ["x", "y", "z"]
    counts = store.hourly_cell_counts([0, 1, 2], [0, 1, 0], 3, 0, START_US + 2 * HOUR_US)
    assert counts.tolist() == [1, 2, 1]


def test_update__knows_only_what_was_requested() -> None:
    """A vocabulary longer than the rows (contents of the future) must not leak into the store."""
    log = log_of((0, None, "x", "rio"), (1, None, "y", "sul"))
    store = CounterStore()
    store.update(cut(log, [1])[0])
    assert (store.contents.tolist(), store.locations.tolist()) == (["x"], ["rio"])


def test_update__sessions_numbered_afresh_do_not_walk_on() -> None:
    """Session 0 of the next file is somebody else."""
    store = store_of(log_of((0, "a", "x", "rio")))
    store.update(log_of((0.1, "b", "y", "rio")), same_sessions=False)
    assert store.order1(0)[0].tolist() == []


def test_update__older_log_is_refused_with_both_instants() -> None:
    """Counting the past late would make a different state than counting it in time."""
    store = store_of(log_of((5, None, "x", "rio")))
    with pytest.raises(LogOrderError, match=r"begins at 2017-10-03T\d\d.*until 2017-10-03T\d\d.*Feed logs"):
        store.update(log_of((4, None, "x", "rio")))


def test_readers__refuse_the_past() -> None:
    """A counter that holds later requests cannot say what it knew before: that would leak the future."""
    store = store_of(log_of((5, None, "x", "rio")))
    before_us = START_US + 4 * HOUR_US
    with pytest.raises(LogOrderError, match="cannot answer for"):
        store.content_rates([0], before_us)
    with pytest.raises(LogOrderError, match="cannot answer for"):
        store.flow([0], [0], before_us)
    with pytest.raises(LogOrderError, match="cannot answer for"):
        store.location_share(before_us)


def test_readers__empty_store() -> None:
    """Before the first request everything is zero and nothing fails."""
    store = CounterStore()
    assert store.content_rates([0, 1], START_US).tolist() == [[0.0] * 4] * 2
    assert store.flow([0], [0], START_US).tolist() == [0.0]
    assert [c.tolist() for c in store.cells()] == [[], []]
    assert store.location_share(START_US).tolist() == []
    store.update(random_log(0).before(0))
    assert store.time_us == -1


def test_hours__asking_beyond_the_ring_names_the_setting() -> None:
    """Silence about forgotten hours would read as no demand."""
    store = store_of(log_of((0, None, "x", "rio")))
    with pytest.raises(ValueError, match=r"location_hours = 216 keeps 215 full ones"):
        store.hourly_location_counts(216, START_US)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"half_lives_hours": (0.0,)}, r"half_lives_hours > 0.*got \(0.0,\)"),
        ({"half_lives_hours": (2.0, 1.0)}, "from fast to slow"),
        ({"successor_cap": 0}, "1 <= successor_cap <= 32767, got 0"),
        ({"session_timeout_minutes": -1.0}, "session_timeout_minutes > 0, got -1.0"),
        ({"location_hours": 24}, "location_hours >= 170, got 24"),
        ({"leaders": 0}, "1 <= leaders"),
    ],
)
def test_settings__bounds(change: dict[str, Any], message: str) -> None:
    """Each bound says what is allowed and what was given."""
    with pytest.raises(ValueError, match=message):
        CounterSettings(**change)


@pytest.mark.parametrize("seed", range(3))
def test_leaders__are_the_largest_counts(seed: int) -> None:
    """Kept per event, the lists equal a full sort, overall and by location."""
    store = store_of(random_log(seed, 2000, contents=300, hours=100), CounterSettings(leaders=10))
    p = store.popularity
    for h in range(4):
        leaders = p.content_leaders.table.item[0, h, : p.content_leaders.table.length[0, h]]
        best = np.sort(p.content[:, h])[::-1][:10]
        assert p.content[leaders, h].tolist() == best.tolist()
        for location in range(3):
            rows = p.cell_leaders.table.item[location, h, :10]
            here = p.cell[: len(p.index)][p.cell_location == location, h]
            assert p.cell[rows, h].tolist() == np.sort(here)[::-1][:10].tolist()


def test_sessions__memory_holds_open_ones_only() -> None:
    """Ten thousand finished sessions must not stay: the table is as large as the sessions under way."""
    n = 10_000
    ts_us = START_US + np.arange(n) * MINUTE_US
    codes = np.zeros(n, dtype=np.int32)
    names = np.array(["x"], dtype=object)
    store = store_of(RequestLog(ts_us, np.arange(n, dtype=np.int32), codes, codes, names, names))
    assert store.walks.sessions.index.capacity <= 2048
    assert len(store.to_arrow()["sessions"]) == 31  # one a minute, 0 to 30 minutes old


def test_rebase__months_apart() -> None:
    """Gaps far beyond float range in units of the fastest half-life neither overflow nor turn into nan."""
    store = store_of(log_of((0, "a", "x", "rio"), (24 * 400, "b", "x", "rio")))
    np.testing.assert_allclose(
        store.content_rates([0], store.time_us) / LN2 * [0.5, 1.5, 6.0, 24.0], [[1.0] * 4], rtol=1e-12
    )
    assert store.time_us - START_US == 400 * DAY_US


def test_counts__group_by_oracle() -> None:
    """Integer hour counts equal a plain group-by over a long random log, forgotten hours excepted."""
    log = random_log(9, 3000, hours=120)
    store = store_of(log)
    now = store.time_us // HOUR_US
    expected: dict[tuple[int, int], int] = defaultdict(int)
    for ts, content, location in zip(log.ts_us, log.content, log.location, strict=True):
        if now - 26 <= ts // HOUR_US < now:
            expected[int(content), int(location)] += 1
    content, location = (k.ravel() for k in np.indices((len(log.contents), len(log.locations))))
    counts = store.hourly_cell_counts(content, location, 26, 0, store.time_us)
    assert counts.tolist() == [expected[int(c), int(k)] for c, k in zip(content, location, strict=True)]
