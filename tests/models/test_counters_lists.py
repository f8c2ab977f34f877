"""Skip rules, transitions by location, the newest contents, and forgetting: known answers and invariants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.counters import CounterSettings, CounterStore
from models.errors import ArtefactError
from models.events import HOUR_US, NEVER_US, RequestLog
from tests.models.test_counters import START_US, Row, assert_same_readings, cut, log_of, random_log, store_of

KEEP_ALL = CounterSettings(forget_weight=0.0)


def shares(store: CounterStore, found: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Successors by id."""
    items, share = found
    return dict(zip(store.contents[items].tolist(), share.tolist(), strict=True))


def walk(session: str, contents: str, location: str = "rio", hour: float = 0.0) -> list[Row]:
    return [(hour, session, content, location) for content in contents]


# ---- skip rules and transitions by location


def test_skips__weigh_one_over_the_distance() -> None:
    """From w, x, y, z at once: w leads to y (1/2) and z (1/3), x to z (1/2); the direct steps are not repeated."""
    store = store_of(log_of(*walk("a", "wxyz")))
    assert shares(store, store.skips(0)) == pytest.approx({"y": 0.6, "z": 0.4})  # 1/2 and 1/3 of 5/6
    assert shares(store, store.skips(1)) == {"z": 1.0}
    assert shares(store, store.skips(2)) == {}
    assert shares(store, store.order1(0)) == {"x": 1.0}


def test_skips__do_not_cross_a_silence() -> None:
    """A session that slept begins a new walk: nothing before it counts any more."""
    store = store_of(log_of(*walk("a", "wx"), *walk("a", "yz", hour=1.0)))
    assert [shares(store, store.skips(k)) for k in range(4)] == [{}] * 4


def test_local_order1__knows_the_location() -> None:
    """After x came y in Rio and z in the south: by location nothing is mixed."""
    store = store_of(log_of(*walk("a", "xy", "rio"), *walk("b", "xz", "sul")))
    assert shares(store, store.order1(0)) == {"y": 0.5, "z": 0.5}
    assert shares(store, store.local_order1(0, 0)) == {"y": 1.0}
    assert shares(store, store.local_order1(0, 1)) == {"z": 1.0}
    assert shares(store, store.local_order1(0, 7)) == {}


def test_skips_and_local__decay_at_their_own_half_lives() -> None:
    """One half-life apart, the older successor weighs half of the newer: 1/3 and 2/3."""
    rows = [*walk("a", "xyz"), *walk("b", "xyw", hour=6.0)]
    store = store_of(log_of(*rows))
    assert shares(store, store.skips(0)) == pytest.approx({"z": 1 / 3, "w": 2 / 3})
    assert shares(store, store.local_order1(1, 0)) == pytest.approx({"z": 1 / 3, "w": 2 / 3})


def test_walks__single_requests_and_repeats_leave_no_lists() -> None:
    """A session of one request, and one that stays, lead nowhere."""
    store = store_of(log_of(*walk("a", "x"), *walk("b", "yyy")))
    for code in (0, 1):
        assert store.order1(code)[0].tolist() == store.skips(code)[0].tolist() == []
        assert store.local_order1(code, 0)[0].tolist() == []


def test_walks__equal_instants_count_in_input_order() -> None:
    """At one instant, the first row is the first step."""
    there, back = store_of(log_of(*walk("a", "xy"))), store_of(log_of(*walk("a", "yx")))
    assert shares(there, there.order1(0)) == {"y": 1.0}
    assert shares(back, back.order1(0)) == {"x": 1.0}


def test_readers__unknown_codes_have_no_successors() -> None:
    """Codes of nobody are no error: a session may be at a content that this store never saw."""
    store = store_of(log_of(*walk("a", "xyz")))
    for code in (-1, 99):
        assert store.skips(code)[0].tolist() == store.local_order1(code, 0)[0].tolist() == []
        assert store.order2(code, 0)[0].tolist() == []


# ---- the newest contents


def test_newest__in_order_of_appearance() -> None:
    """Three places: the last three contents to appear, whatever is popular."""
    store = CounterStore(CounterSettings(newest=3))
    log = log_of(*[(k / 10, None, c, "rio") for k, c in enumerate("abcdabcaeaa")])
    for part in cut(log, [2, 5, 9]):
        store.update(part)
    assert store.contents[store.popularity.newest].tolist() == ["c", "d", "e"]
    again = CounterStore.from_arrow(store.to_arrow())
    assert again.popularity.newest.tolist() == store.popularity.newest.tolist()


def test_announce__known_before_the_first_request() -> None:
    """A published content is a known content with nothing counted; requests leave its appearance alone."""
    store = store_of(log_of((0, None, "x", "rio")))
    store.announce(["soon", "x"], [START_US + HOUR_US, START_US])
    assert store.contents.tolist() == ["x", "soon"]
    assert store.first_seen_us([1]).tolist() == [NEVER_US]
    assert store.appeared_us([1, 2]).tolist() == [START_US + HOUR_US, NEVER_US]
    assert store.popularity.newest.tolist() == [0, 1]
    store.update(log_of((2, None, "soon", "rio")))
    assert store.first_seen_us([1]).tolist() == [START_US + 2 * HOUR_US]
    assert store.appeared_us([0, 1]).tolist() == [START_US, START_US + HOUR_US]
    resumed = CounterStore.from_arrow(store.to_arrow())
    assert resumed.appeared_us([0, 1]).tolist() == [START_US, START_US + HOUR_US]


def test_announce__needs_an_instant_for_each() -> None:
    """A shape that disagrees is an error."""
    with pytest.raises(ValueError, match="2 ids and 1 instants"):
        CounterStore().announce(["x", "y"], [START_US])


def test_update__contents_become_known_when_they_appear() -> None:
    """What was published before the newest instant is known, what comes at it or later is not: it may be requested."""
    codes = np.zeros(3, dtype=np.int32)
    names = np.array(["x", "y", "z", "w"], dtype=object)
    places = np.array(["rio"], dtype=object)
    ts_us = START_US + np.array([0, 2, 4]) * HOUR_US
    appeared_us = START_US + np.array([0, 0, 1, 3]) * HOUR_US
    known = []
    store = CounterStore()
    for row in range(3):
        part = slice(row, row + 1)
        columns = (ts_us[part], codes[part] - 1, codes[part], codes[part], names, places)
        store.update(RequestLog(*columns, appeared_us=appeared_us))
        known.append(store.contents.tolist())
    assert known == [["x"], ["x", "y", "z"], ["x", "y", "z", "w"]]


# ---- forgetting


def test_forget__faded_cells_and_successors_go_and_codes_stay() -> None:
    """After 400 hours 2^-16.7 is left of the first walk: its cells and lists go, contents and locations stay."""
    store = store_of(log_of(*walk("a", "wxyz"), *walk("b", "pq", "sul", hour=400.0)))
    assert store.contents.tolist() == list("wxyzpq")
    assert len(store.popularity.index) == 2
    assert shares(store, store.order1(0)) == shares(store, store.skips(0)) == {}
    assert len(store.walks.contexts) == 0
    assert store.cell_first_seen_us([0], [0]).tolist() == [NEVER_US]
    assert store.first_seen_us([0]).tolist() == [START_US]
    assert shares(store, store.order1(4)) == {"q": 1.0}


def test_forget__keeps_what_is_counted_by_hour_and_where_sessions_are() -> None:
    """With half-lives of minutes a cell fades within the hours that may be asked for; it must still answer."""
    quick = CounterSettings(half_lives_hours=(0.1,), transition_half_lives_hours=(0.1,), session_timeout_minutes=6000.0)
    store = store_of(log_of((0, "a", "x", "rio"), (40.5, None, "y", "rio"), (60.0, "a", "z", "rio")), quick)
    assert store.hourly_cell_counts([1], [0], 26, 0, store.time_us).tolist() == [1]
    assert shares(store, store.order1(0)) == {"z": 1.0}
    assert store.local_order1(0, 0)[0].tolist() == [2]


@given(st.integers(0, 10_000), st.lists(st.integers(1, 599), max_size=8))
@settings(max_examples=15, deadline=None)
def test_forget__does_not_depend_on_cuts_or_restarts(seed: int, edges: list[int]) -> None:
    """Forgetting happens at fixed instants, so that updates, snapshots and restarts leave the same store, to the byte."""
    log = random_log(seed, 600, hours=1500.0, contents=40)
    parts = CounterStore()
    for part in cut(log, edges):
        parts = CounterStore.from_arrow(parts.to_arrow())
        parts.update(part)
    whole = store_of(log).to_arrow()
    for name, table in parts.to_arrow().items():
        assert table.equals(whole[name]), name


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_forget__changes_counts_by_less_than_the_weight(seed: int) -> None:
    """What is lost of a cell or a transition is below `forget_weight`; all else is as if nothing were forgotten."""
    log = random_log(seed, 600, hours=1500.0, contents=40)
    store, full = store_of(log), store_of(log, KEEP_ALL)
    content, location = (k.ravel() for k in np.indices((len(store.contents), len(store.locations))))
    at_us = store.time_us
    hours = np.array(store.settings.half_lives_hours) / np.log(2)
    lost = (full.cell_rates(content, location, at_us) - store.cell_rates(content, location, at_us)) * hours
    assert lost.min() >= -1e-12
    assert lost.max() < store.settings.forget_weight
    np.testing.assert_allclose(
        store.content_rates(content, at_us), full.content_rates(content, at_us), rtol=1e-9, atol=1e-30
    )
    assert len(store.popularity.index) < len(full.popularity.index)


def test_forget__leaders_stay_the_largest_of_what_is_left() -> None:
    """A full list that loses a leader takes the next one in."""
    rows: list[Row] = [(0, None, f"c{k}", "rio") for k in range(6)]
    rows += [(300 + k / 10, None, f"d{k % 5}", "rio") for k in range(12)]
    store = store_of(log_of(*rows), CounterSettings(leaders=3))
    p = store.popularity
    leaders = p.cell_leaders.table
    for h in range(4):
        best = np.sort(p.cell[: len(p.index), h])[::-1][:3]
        np.testing.assert_allclose(p.cell[leaders.item[0, h], h], best)
        assert leaders.position[leaders.item[0, h], h].tolist() == [0, 1, 2]


def test_forget__memory_is_bounded() -> None:
    """A hundred days of contents that live for a day: pairs and lists are those of the last ten or so."""
    rows = [
        row
        for day in range(100)
        for k in range(5)
        for row in walk(f"{day}-{k}", f"{chr(200 + day)}xyz", "rio", day * 24.0)
    ]
    store = store_of(log_of(*rows))
    assert len(store.popularity.index) <= 3 + 14
    assert len(store.walks.contexts) <= 2 + 14
    assert len(store.contents) == 103


# ---- fast half-lives, merging, formats


def test_rebase__minutes_of_half_life() -> None:
    """Five minutes of half-life over ten days: 2^2880 would overflow, the moving base does not."""
    fast = CounterSettings(
        half_lives_hours=(0.08, 24.0),
        transition_half_lives_hours=(0.08, 0.08),
        skip_half_life_hours=0.08,
        local_transition_half_life_hours=0.08,
    )
    store = store_of(log_of(*(row for k in range(480) for row in walk(f"s{k}", "xyzw", hour=k / 2))), fast)
    # Visits every half hour weigh 1 + q + q^2 + ... with q = 2^(-0.5 / 0.08).
    expected = 1 / (1 - 2 ** (-0.5 / 0.08)) * np.log(2) / 0.08
    assert store.content_rates([0], store.time_us)[0, 0] == pytest.approx(expected)
    assert shares(store, store.skips(0)) == pytest.approx({"z": 0.6, "w": 0.4})
    assert shares(store, store.order2(0, 1)) == {"z": 1.0}


@pytest.mark.parametrize("seed", range(3))
def test_merge__sums_every_kind_of_list(seed: int) -> None:
    """Two shards by session sum to the whole, in lists of all kinds, and their newest contents are the newest of all."""
    log = random_log(seed, 500, hours=150)
    one, other = (_rows(log, log.session % 2 == parity) for parity in (0, 1))
    merged, whole = store_of(one).merge(store_of(other)), store_of(log)
    assert_same_readings(merged, whole)
    code = {str(c): k for k, c in enumerate(merged.contents)}
    place = {str(c): k for k, c in enumerate(merged.locations)}
    for x, name in enumerate(whole.contents):
        assert shares(merged, merged.skips(code[name])) == pytest.approx(shares(whole, whole.skips(x)), rel=1e-5)
        for m, town in enumerate(whole.locations):
            found = shares(merged, merged.local_order1(code[name], place[town]))
            assert found == pytest.approx(shares(whole, whole.local_order1(x, m)), rel=1e-5)
        for y, after in enumerate(whole.contents):
            found = shares(merged, merged.order2(code[name], code[after]))
            assert found == pytest.approx(shares(whole, whole.order2(x, y)), rel=1e-5)
    newest = merged.contents[merged.popularity.newest], whole.contents[whole.popularity.newest]
    assert set(newest[0]) == set(newest[1])


def test_merge__a_session_goes_on_from_its_last_items() -> None:
    """Items of the other store are renumbered: a step after the merge still knows two and three steps back."""
    one, other = store_of(log_of(*walk("a", "pq"))), store_of(log_of(*walk("b", "xyz")))
    other.walks.sessions.index.keys[:] = 7  # another session than the one of the first store
    shifted = CounterStore.from_arrow(other.to_arrow())
    merged = one.merge(shifted)
    names, rio = np.array([*merged.contents, "new"], dtype=object), np.array(["rio"], dtype=object)
    code = np.array([len(names) - 1], dtype=np.int32)
    merged.update(RequestLog(np.array([START_US]), np.array([7], dtype=np.int32), code, code * 0, names, rio))
    x, y = (int(np.flatnonzero(merged.contents == c)[0]) for c in "xy")
    assert shares(merged, merged.skips(x)) == pytest.approx({"z": 0.6, "new": 0.4})
    assert shares(merged, merged.skips(y)) == {"new": 1.0}


def _rows(log: RequestLog, chosen: np.ndarray) -> RequestLog:
    rows = log.ts_us[chosen], log.session[chosen], log.content[chosen], log.location[chosen]
    return RequestLog(*rows, log.contents, log.locations)


def test_snapshot__the_older_format_is_refused_by_name() -> None:
    """Format 1 had no skips; it must not be read as a store without any."""
    tables = store_of(random_log(1)).to_arrow()
    head = tables["store"].set_column(0, "format", [[1]])
    older = {name: table for name, table in tables.items() if name != "skips"} | {"store": head}
    with pytest.raises(ArtefactError, match="format 1, but this version reads format 2"):
        CounterStore.from_arrow(older)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skip_half_life_hours": 0.0}, "skip_half_life_hours > 0, got 0.0"),
        ({"skip_cap": 0}, "1 <= skip_cap <= 32767, got 0"),
        ({"local_successor_cap": 40_000}, "local_successor_cap <= 32767, got 40000"),
        ({"newest": 0}, "1 <= newest"),
        ({"forget_weight": 1.0}, "0 <= forget_weight < 1, got 1.0"),
    ],
)
def test_settings__bounds(change: dict[str, Any], message: str) -> None:
    """Each bound says what is allowed and what was given."""
    with pytest.raises(ValueError, match=message):
        replace(CounterSettings(), **change)
