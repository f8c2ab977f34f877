"""Audiences and kinds of the counter store: sums by hand, cut, saved, merged and forgotten."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.counters import CounterSettings, CounterStore
from models.events import HOUR_US, NEVER_US, Catalogue, Int32, RequestLog
from models.next_content.asking import places
from models.next_content.experts import ask, expert_table, experts_of
from models.next_content.sessions import SessionBatch
from tests.models.shown_world import shown_log
from tests.models.test_counters import START_US, log_of, random_log, store_of

Shown = tuple[float, str | None, str, str | None, str | None]
FIRST = "first"
TABLES = ("audience_devices", "audience_arrivals", "audiences", "audience_cells", "audience_sessions")


def shown(*rows: Shown) -> RequestLog:
    """A log of (hours after START_US, session, content, device, arrival) in one location."""
    hours, session, content, device, arrival = (list(column) for column in zip(*rows, strict=True))
    ts_us = START_US + np.rint(np.array(hours, dtype=float) * HOUR_US).astype(np.int64)
    features = {"device": device, "arrival": arrival}
    return RequestLog.from_columns(ts_us, session, content, ["rio"] * len(rows), features=features)


def counts(store: CounterStore) -> dict[tuple[str | None, str | None, str], float]:
    """Counts now by (device, how the request before came about, content)."""
    a = store.audiences
    found, to_now = {}, 2.0 ** (-(store.time_us - store.base_us) / HOUR_US * a.per_hour)
    for key, count in zip(a.cells.keys, a.cell[:, 0], strict=False):
        who = int(a.index.keys[key & 0xFFFFFFFF])
        device, arrival = (who >> 32) - 1, (who & 0xFFFFFFFF) - 2
        came = FIRST if arrival == -2 else None if arrival == -1 else str(a.arrival_ids.ids[arrival])
        name = None if device < 0 else str(a.device_ids.ids[device])
        found[name, came, str(store.contents[key >> 32])] = float(count * to_now)
    return found


def totals(store: CounterStore) -> dict[tuple[str | None, str | None], float]:
    found: dict[tuple[str | None, str | None], float] = {}
    for (device, came, _), count in counts(store).items():
        found[device, came] = found.get((device, came), 0.0) + count
    return found


def cut(log: RequestLog, edges: list[int]) -> list[RequestLog]:
    return [log.rows(a, b) for a, b in pairwise([0, *sorted(edges), len(log)])]


FIVE = shown(
    (0, "a", "x", "phone", "search"),
    (0, "b", "x", "phone", "home"),
    (0.25, "a", "y", "phone", "link"),
    (1, "b", "z", "phone", "link"),  # an hour of silence: a session anew
    (1, None, "x", None, "home"),  # no session: nothing went before
)


def test_audiences__five_requests_by_hand() -> None:
    """At hour 1 and a half-life of an hour, requests of hours 0, 0.25 and 1 weigh 1/2, 2^(-3/4) and 1."""
    store = store_of(FIVE)
    assert counts(store) == pytest.approx(
        {
            ("phone", FIRST, "x"): 1 / 2 + 1 / 2,
            ("phone", "search", "y"): 2**-0.75,
            ("phone", FIRST, "z"): 1.0,
            (None, FIRST, "x"): 1.0,
        }
    )


def test_expert__says_what_the_audience_requests() -> None:
    """A phone's first request is x or z alike; one that came by search asks for y, and from y for nothing known."""
    store = store_of(FIVE)
    assert audience_says(store, history=[], device=0, arrival=-1) == pytest.approx([0.5, 0.0, 0.5, 0.0])
    assert audience_says(store, history=[0], device=0, arrival=0) == pytest.approx([0.0, 1.0, 0.0, 0.0])
    assert audience_says(store, history=[1], device=0, arrival=0) == [0.0] * 4
    # From x, the phone's first request can only have been z. Arrivals of a first request do not matter.
    assert audience_says(store, history=[], device=-1, arrival=1) == [1.0, 0.0, 0.0, 0.0]
    assert audience_says(store, history=[0], device=7, arrival=0) == [0.0] * 4


def audience_says(store: CounterStore, *, history: list[int], device: int, arrival: int) -> list[float]:
    """The column `audience` for every known content, then for an unseen one; checks that its mass is its sum."""
    n = len(store.contents) + 1
    items = np.tile(np.array([-1, *history], dtype=np.int32), (n, 1))
    codes = [np.full(n, code, dtype=np.int32) for code in (0, device, arrival)]
    sessions = SessionBatch(items, codes[0], np.full(n, store.time_us), device=codes[1], arrival=codes[2])
    content: Int32 = np.array([*range(n - 1), -1], dtype=np.int32)
    said, mass, _, _ = ask(expert_table(store), *places(store, sessions), content)
    column = experts_of(store).column("audience")
    assert said[:, column].sum() == pytest.approx(mass[0, column], abs=1e-9)
    return [float(p) for p in said[:, column]]


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_expert__is_proper(seed: int) -> None:
    """Whoever asks, and after whatever was forgotten, the column sums to its mass."""
    rng = np.random.default_rng(seed)
    store = store_of(shown_log(sessions=20, hours=float(rng.choice([1.0, 100.0])), seed=seed))
    for _ in range(4):
        history = rng.integers(0, len(store.contents), int(rng.integers(0, 3))).tolist()
        audience_says(store, history=history, device=int(rng.integers(-1, 3)), arrival=int(rng.integers(-1, 4)))


def test_audiences__a_log_without_features_tells_first_requests_from_later() -> None:
    """All that is left to tell apart is whether the session had begun."""
    store = store_of(log_of((0, "a", "x", "rio"), (0, "a", "y", "rio"), (0, "b", "x", "rio"), (0, "b", "z", "rio")))
    assert counts(store) == {(None, FIRST, "x"): 2.0, (None, None, "y"): 1.0, (None, None, "z"): 1.0}


def test_audiences__sessions_numbered_afresh_begin_anew() -> None:
    """Session 0 of the next file is somebody else, whose request is his first."""
    store = store_of(shown((0, "a", "x", "phone", "search")))
    store.update(shown((0.1, "b", "y", "phone", "link")), same_sessions=False)
    assert set(counts(store)) == {("phone", FIRST, "x"), ("phone", FIRST, "y")}


def test_audiences__another_coding_counts_for_the_same_ids() -> None:
    """Devices and arrivals are known by their values, whatever a file calls them."""
    store = store_of(shown((0, "a", "x", "phone", "search"), (0, "b", "x", "desk", "home")))
    more = shown((0.1, "c", "x", "desk", "link"), (0.1, "c", "y", "desk", "search"))
    store.update(more, same_sessions=False)
    assert set(counts(store)) == {("phone", FIRST, "x"), ("desk", FIRST, "x"), ("desk", "link", "y")}


@given(st.integers(0, 1000), st.lists(st.integers(1, 99), max_size=8))
@settings(max_examples=20, deadline=None)
def test_update__slices_equal_one_update(seed: int, edges: list[int]) -> None:
    """However a log is cut into updates, the tables are the same to the last byte."""
    log = shown_log(sessions=20, hours=60.0, seed=seed)
    parts = CounterStore()
    for part in cut(log, edges):
        parts.update(part)
    whole = store_of(log).to_arrow()
    for name, table in parts.to_arrow().items():
        assert table.equals(whole[name]), name


def test_snapshot__resumed_store_goes_on_as_if_never_stopped() -> None:
    """Sessions that went on, that ended and that came back: the tables agree to the last byte."""
    log = shown_log(sessions=60, hours=50.0)
    for row in (1, 100, 299):
        first, rest = cut(log, [row])
        resumed = CounterStore.from_arrow(store_of(first).to_arrow())
        resumed.update(rest)
        whole = store_of(log).to_arrow()
        for name, table in resumed.to_arrow().items():
            assert table.equals(whole[name]), (name, row)


def test_snapshot__a_session_that_comes_back_changes_no_byte() -> None:
    """Session a sleeps past the timeout, is not saved, and returns behind b; saved sessions are in order of code."""
    log = shown((0, "a", "x", "phone", "home"), (0.6, "b", "x", "phone", "home"), (0.7, "a", "y", "phone", "home"))
    first, rest = cut(log, [2])
    resumed = CounterStore.from_arrow(store_of(first).to_arrow())
    resumed.update(rest)
    assert resumed.to_arrow()["audience_sessions"].equals(store_of(log).to_arrow()["audience_sessions"])


@pytest.mark.parametrize("seed", range(3))
def test_merge__equals_the_store_of_the_union(seed: int) -> None:
    """Shards by session add up, though they number devices, arrivals and contents differently."""
    log = shown_log(sessions=40, hours=8.0, seed=seed)
    shards = []
    for side in (log.session % 2 == 0, log.session % 2 != 0):
        features = {name: codes[side] for name, codes in log.features.items()}
        columns = log.ts_us[side], log.session[side], log.content[side], log.location[side]
        part = RequestLog(
            *columns,
            log.contents,
            log.locations,
            features=features,
            feature_values=log.feature_values,
            kinds=log.kinds,
            kind_values=log.kind_values,
        )
        shards.append(store_of(part))
    merged, whole = shards[0].merge(shards[1]), store_of(log)
    assert counts(merged) == pytest.approx(counts(whole))
    assert totals(merged) == pytest.approx(totals(whole))
    assert kinds_of(merged).items() <= kinds_of(whole).items()
    for of in (merged, whole):
        a = of.audiences
        assert a.total.sum() == pytest.approx(a.cell.sum())
    later = shown((9, "later", "c1", "phone", "search"))
    merged.update(later, same_sessions=False)
    assert merged.time_us == later.ts_us[-1]


def test_merge__of_different_instants() -> None:
    """Two shards, one of yesterday: its counts are expressed at today's base before they are added."""
    old, new = (
        shown((0, "a", "x", "phone", "home")),
        shown((3, "b", "x", "desk", "home"), (3, "c", "x", "phone", "home")),
    )
    one, other = store_of(old), store_of(replace(new, session=new.session + 7))
    expected = {("phone", FIRST, "x"): 1 + 1 / 8, ("desk", FIRST, "x"): 1.0}
    assert counts(one.merge(other)) == pytest.approx(expected)
    assert counts(other.merge(one)) == pytest.approx(expected)


def test_forget__what_faded_leaves_the_total_too() -> None:
    """Two days at a half-life of an hour leave 2^-48: the audience is as one never heard of, and says nothing."""
    log = shown((0, "a", "x", "phone", "home"), (0, "b", "y", "desk", "home"), (48, "c", "x", "desk", "home"))
    store = store_of(log)
    assert set(counts(store)) == {("desk", FIRST, "x")}
    assert audience_says(store, history=[], device=0, arrival=-1) == [0.0] * 3
    assert audience_says(store, history=[], device=1, arrival=-1) == pytest.approx([1.0, 0.0, 0.0])
    kept = store_of(log, CounterSettings(forget_weight=0.0))
    assert len(counts(kept)) == 3


# ---- kinds


def kinds_of(store: CounterStore) -> dict[str, str | None]:
    """What each content is, by id."""
    assert len(store.kinds) == len(store.contents)
    names = [None if kind < 0 else str(store.kind_ids.ids[kind]) for kind in store.kinds]
    return dict(zip(store.contents.tolist(), names, strict=True))


def catalogued(log: RequestLog, **kinds: str) -> RequestLog:
    ids = np.array(list(kinds), dtype=object)
    return log.with_catalogue(Catalogue(ids, np.full(len(ids), NEVER_US), np.array(list(kinds.values()), dtype=object)))


def test_kinds__are_learnt_when_contents_become_known() -> None:
    """The catalogue says what x and y are; z is not in it, and w comes with a log that says nothing."""
    rows = [(0.0, None, "x", "rio"), (1.0, None, "y", "rio"), (1.0, None, "z", "rio")]
    log = catalogued(log_of(*rows), y="video", x="text")
    store = CounterStore()
    store.update(log.rows(0, 1))
    assert kinds_of(store) == {"x": "text"}
    store.update(log.rows(1, 3))
    store.update(log_of((2, None, "w", "rio")))
    store.update(catalogued(log_of((3, None, "v", "rio"), (3, None, "x", "rio")), v="audio", x="audio"))
    expected = {"x": "text", "y": "video", "z": None, "w": None, "v": "audio"}
    assert kinds_of(store) == expected
    assert kinds_of(CounterStore.from_arrow(store.to_arrow())) == expected


def test_kinds__of_the_sum_are_those_of_its_parts() -> None:
    """Where both know a kind the first is believed; codes of kinds are found by their names."""
    one = store_of(catalogued(log_of((0, None, "x", "rio"), (0, None, "y", "rio")), x="text"))
    other = store_of(
        catalogued(log_of((0, None, "z", "rio"), (0, None, "x", "rio"), (0, None, "y", "rio")), z="film", y="text")
    )
    assert kinds_of(one.merge(other)) == {"x": "text", "y": "text", "z": "film"}
    assert kinds_of(CounterStore().merge(one)) == kinds_of(one)
    assert kinds_of(one.merge(CounterStore())) == kinds_of(one)


def test_kinds__of_announced_contents_are_unknown() -> None:
    """A content that somebody announced, not a log, is of no known kind; the store can be saved at once."""
    store = store_of(catalogued(log_of((0, None, "x", "rio")), x="text"))
    store.announce(["soon"], [store.time_us])
    assert kinds_of(CounterStore.from_arrow(store.to_arrow())) == {"x": "text", "soon": None}


@given(st.integers(0, 1000), st.lists(st.integers(1, 99), max_size=6))
@settings(max_examples=10, deadline=None)
def test_kinds__without_a_catalogue_nothing_is_known(seed: int, edges: list[int]) -> None:
    """A log that does not say what contents are leaves all of them unknown, however it is cut."""
    store = CounterStore()
    for part in cut(random_log(seed, 100), edges):
        store.update(part)
    assert store.kinds.tolist() == [-1] * len(store.contents)
