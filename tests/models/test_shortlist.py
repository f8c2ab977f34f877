"""Shortlists: columns that are the experts' own answers, and facts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.counters import CounterSettings, CounterStore
from models.errors import LogOrderError
from models.events import HOUR_US, NEVER_US, Catalogue
from models.next_content.asking import places
from models.next_content.experts import ask, expert_table, experts_of
from models.next_content.sequence import SequenceNetwork, SequenceSettings
from models.next_content.sessions import SessionBatch
from models.next_content.shortlist import (
    CONTEXT,
    FACTS,
    LEAST,
    SEQUENCE,
    Shortlist,
    columns_of,
    context_names,
    draw_up,
    with_sequence,
)
from models.next_content.trail_memory import trail_of
from tests.models.shown_world import shown_log
from tests.models.test_counters import START_US, log_of, store_of


def asked(
    store: CounterStore, *histories: list[int], earlier: list[int] | None = None, location: int = 0, later_us: int = 0
) -> SessionBatch:
    """Sessions of known contents, asked some time after the newest request, of nobody's device."""
    n, width = len(histories), max(1, *(len(history) for history in histories))
    items = np.full((n, width), -1, dtype=np.int32)
    for row, history in zip(items, histories, strict=True):
        row[width - len(history) :] = history
    before = None if earlier is None else np.tile(np.array(earlier, dtype=np.int32), (n, 1))
    return SessionBatch(items, np.full(n, location, dtype=np.int32), np.full(n, store.time_us + later_us), before)


def random_sessions(store: CounterStore, n: int, seed: int) -> SessionBatch:
    """Sessions of any length, with known and unknown contents, locations and audiences."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, len(store.contents) + 1, (n, 5)).astype(np.int32)
    items[np.arange(5) < rng.integers(0, 6, n)[:, None]] = -1
    codes = [rng.integers(-1, 4, n).astype(np.int32) for _ in range(3)]
    earlier = rng.integers(0, len(store.contents), (n, 2)).astype(np.int32)
    return SessionBatch(items, codes[0], np.full(n, store.time_us + HOUR_US), earlier, codes[1], codes[2])


def column(shortlist: Shortlist, store: CounterStore, name: str) -> dict[str, float]:
    """One column of the first session's list, by id."""
    place = columns_of(experts_of(store)).index(name)
    listed = shortlist.contents[0] >= 0
    names = store.contents[shortlist.contents[0][listed]].tolist()
    return dict(zip(names, shortlist.table[0, listed, place].tolist(), strict=True))


def context(shortlist: Shortlist, store: CounterStore, name: str) -> float:
    return float(shortlist.context[0, context_names(experts_of(store)).index(name)])


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_columns__are_the_experts_own_answers(seed: int) -> None:
    """Every column is the logarithm of what `ask` says of that content alone, and the masses are the same."""
    store = store_of(shown_log(sessions=30, seed=seed), CounterSettings(leaders=6, successor_cap=3, newest=3))
    sessions = random_sessions(store, 5, seed)
    found = draw_up(store, sessions, limit=15)
    n_experts = len(experts_of(store).names)
    assert found.table.shape == (5, 15, n_experts + 1 + len(FACTS))
    for i, j in np.argwhere(found.contents >= 0):
        one = places(store, sessions.rows(i, i + 1))
        said, mass, _, _ = ask(expert_table(store), *one, found.contents[i, j : j + 1])
        np.testing.assert_allclose(found.table[i, j, :n_experts], np.log(said[0] + LEAST), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.mass[i], mass[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(found.context[i, len(CONTEXT) :], found.mass[i])
    assert np.isfinite(found.table).all()
    assert np.isfinite(found.context).all()
    assert not found.table[found.contents < 0].any()
    assert not np.any((found.contents == sessions.last[:, None]) & (found.contents >= 0))
    np.testing.assert_array_equal(found.codes, sessions.codes)


def test_facts__by_hand() -> None:
    """Half-lives of one and two hours; y was asked for at hours 0 and 1 in Rio, z at hour 2 in the south."""
    rows = [(0, None, "x", "rio"), (0, None, "y", "rio"), (1, None, "y", "rio"), (2, None, "z", "sul")]
    log = log_of(*rows)
    text = np.array(["text", "text", "video"], dtype=object)
    log = log.with_catalogue(Catalogue(np.array(["x", "y", "z"], dtype=object), np.full(3, NEVER_US), text))
    store = store_of(log, CounterSettings(half_lives_hours=(1.0, 2.0)))
    code = {str(c): k for k, c in enumerate(store.contents)}
    sessions = asked(store, [code["z"], code["x"]], earlier=[-1, code["y"]], later_us=HOUR_US)
    found = draw_up(store, sessions, limit=20)
    assert set(column(found, store, "log_age")) == {"y", "z"}

    def logs(**values: float) -> object:
        return pytest.approx({name: np.log(value) for name, value in values.items()}, abs=1e-6)

    # At hour 3 the requests of y are three and two hours old: 1/8 + 1/4 fast, 2^(-3/2) + 1/2 slow. That of z: 1/2, 2^(-1/2).
    y_slow, z_slow = 2**-1.5 + 0.5, 2**-0.5
    assert column(found, store, "log_age") == logs(y=3.0, z=1.0)
    assert column(found, store, "log_count") == logs(y=3 / 8 + 0.1, z=1 / 2 + 0.1)
    assert column(found, store, "log_local_count") == logs(y=y_slow + 0.1, z=0.1)
    # Rates: a count over its half-life, so that the fast count weighs twice.
    trend = {"y": (0.75 + 0.1) / (y_slow + 0.1), "z": (1.0 + 0.1) / (z_slow + 0.1)}
    assert column(found, store, "log_trend") == logs(**trend)
    assert column(found, store, "in_session") == {"y": 0.0, "z": 1.0}
    assert column(found, store, "in_earlier") == {"y": 1.0, "z": 0.0}
    assert column(found, store, "same_kind") == {"y": 1.0, "z": 0.0}
    assert column(found, store, SEQUENCE) == logs(y=LEAST, z=LEAST)
    assert context(found, store, "log_position") == pytest.approx(np.log(3))
    assert context(found, store, "log_earlier") == pytest.approx(np.log(2))
    # All: 1/8 + 3/8 + 1/2; in Rio: 1/2. The current content appeared three hours ago.
    assert context(found, store, "log_traffic") == pytest.approx(np.log(2))
    assert context(found, store, "log_local_traffic") == pytest.approx(np.log(1.5))
    assert context(found, store, "log_current_age") == pytest.approx(np.log(3))
    of_day = 2 * np.pi * ((START_US // HOUR_US + 3) % 24) / 24
    assert context(found, store, "sin_hour") == pytest.approx(np.sin(of_day), abs=1e-5)
    assert context(found, store, "cos_hour") == pytest.approx(np.cos(of_day), abs=1e-5)


def test_context__departures_by_hand() -> None:
    """Two sessions left y after x an hour ago, for z and for w: 2^(-1/2) each at a half-life of two hours."""
    rows = [(0, s, c, "rio") for s, walk in (("a", "xyz"), ("b", "xyw")) for c in walk]
    store = store_of(log_of(*rows))
    code = {str(c): k for k, c in enumerate(store.contents)}
    found = draw_up(store, asked(store, [code["x"], code["y"]], later_us=HOUR_US), limit=20)
    assert context(found, store, "log_departures") == pytest.approx(np.log(2 * 2**-0.5 + 0.1), abs=1e-5)
    assert context(found, store, "log_pair_departures") == pytest.approx(np.log(2 * 2 ** (-1 / 24) + 0.1), abs=1e-5)
    assert context(found, store, "log_successors") == pytest.approx(np.log(3))
    assert context(found, store, "log_pair_successors") == pytest.approx(np.log(3))
    nobody = draw_up(store, asked(store, []), limit=20)
    for name in ("log_departures", "log_pair_departures"):
        assert context(nobody, store, name) == pytest.approx(np.log(0.1))
    for name in ("log_successors", "log_pair_successors", "log_position", "log_earlier"):
        assert context(nobody, store, name) == 0.0


def test_published__is_listed_before_anybody_asks() -> None:
    """What just appeared has no counts, an age and a kind; every number of it is finite."""
    log = log_of((0, "a", "x", "rio"), (0, "a", "y", "rio"), (2, "b", "x", "rio"))
    names = np.array(["x", "y", "new"], dtype=object)
    kinds = np.array(["text", "video", "text"], dtype=object)
    store = store_of(log.with_catalogue(Catalogue(names, np.array([NEVER_US, NEVER_US, START_US + HOUR_US]), kinds)))
    code = {str(c): k for k, c in enumerate(store.contents)}
    found = draw_up(store, asked(store, [code["x"]]), limit=20)
    assert column(found, store, "log_age")["new"] == pytest.approx(0.0, abs=1e-6)  # one hour
    assert column(found, store, "log_count")["new"] == pytest.approx(np.log(0.1))
    assert column(found, store, "newest")["new"] == pytest.approx(np.log(0.5 + LEAST))  # of three, one is current
    assert column(found, store, "same_kind") == {"y": 0.0, "new": 1.0}
    assert np.isfinite(found.table).all()


def test_announced__without_a_kind() -> None:
    """A content that was announced a moment ago may be listed, and even be current, though no log named it yet."""
    store = store_of(log_of((0, "a", "x", "rio"), (0, "a", "y", "rio")))
    store.announce([f"n{k}" for k in range(40)], [store.time_us + HOUR_US] * 40)
    found = draw_up(store, asked(store, [0], [41]), limit=60)
    assert (found.contents[0] >= 0).sum() == 41
    assert set(column(found, store, "same_kind").values()) == {0.0}
    assert column(found, store, "log_age")["n0"] == pytest.approx(np.log(1 / 60))  # not before it appears
    assert np.isfinite(found.table).all()


def test_draw_up__empty_store_and_the_past() -> None:
    """Nothing is known, nothing is listed; a question of the past is refused."""
    empty = CounterStore()
    found = draw_up(empty, SessionBatch(*nothing_known()), limit=20)
    assert found.contents.tolist() == [[-1] * 20]
    assert not found.table.any()
    assert np.isfinite(found.context).all()
    store = store_of(log_of((0, "a", "x", "rio"), (1, "a", "y", "rio")))
    with pytest.raises(LogOrderError, match="cannot answer for"):
        draw_up(store, asked(store, [0], later_us=-1), limit=20)


def nothing_known() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full((1, 1), -1, np.int32), np.full(1, -1, np.int32), np.array([START_US])


def test_with_sequence__is_the_network_over_the_list() -> None:
    """The column holds a distribution over the listed contents; everything else stays."""
    store = store_of(shown_log(sessions=40))
    sessions = random_sessions(store, 6, 1)
    before = draw_up(store, sessions, limit=50)
    network = SequenceNetwork(SequenceSettings(size=8, features=2), seed=1)
    after = with_sequence(before, network, sessions)
    place = len(experts_of(store).names)
    listed = before.contents >= 0
    probability = np.where(listed, np.exp(after.table[..., place]) - LEAST, 0.0)
    np.testing.assert_allclose(probability, network.probability(trail_of(sessions), before.contents), atol=1e-6)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-4)
    assert not after.table[~listed].any()
    np.testing.assert_array_equal(np.delete(after.table, place, axis=2), np.delete(before.table, place, axis=2))


def test_rows_joined_place_of() -> None:
    """Parts put together are the whole; a content that is not listed has no place, nor has a missing one."""
    store = store_of(shown_log(sessions=40))
    found = draw_up(store, random_sessions(store, 6, 2), limit=12)
    again = Shortlist.joined([found.rows(slice(0, 2)), found.rows(np.array([2, 3])), found.rows(slice(4, 6))])
    assert len(again) == 6
    for name in ("contents", "table", "mass", "context", "codes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.log_weight is None
    np.testing.assert_array_equal(found.place_of(found.contents[:, 3]), np.full(6, 3))
    assert found.place_of(np.full(6, -1, np.int32)).tolist() == [-1] * 6
    assert found.place_of(np.full(6, 999, np.int32)).tolist() == [-1] * 6
    half = found.compact()
    assert half.table.dtype == np.float16
    np.testing.assert_allclose(half.table, found.table, rtol=1e-3, atol=1e-3)


def test_thinned__keeps_the_head_what_came_and_some_that_stand_for_the_rest() -> None:
    """Of twelve: the first three, the ninth that came, and two drawn of the other eight, which stand for four each."""
    store = store_of(shown_log(sessions=40))
    found = draw_up(store, random_sessions(store, 1, 3), limit=12)
    thinned = found.thinned(np.array([8]), kept=3, drawn=2, rng=np.random.default_rng(0))
    places_ = found.contents[0].tolist()
    kept = [places_.index(c) for c in thinned.contents[0].tolist()]
    assert kept[:3] == [0, 1, 2]
    assert 8 in kept
    assert kept == sorted(kept)
    assert len(kept) == 6
    assert thinned.log_weight is not None
    weight = dict(zip(kept, np.exp(thinned.log_weight[0]).tolist(), strict=True))
    assert [weight.pop(place) for place in (0, 1, 2, 8)] == [1.0] * 4
    assert list(weight.values()) == pytest.approx([4.0, 4.0])
    for j, place in enumerate(kept):
        np.testing.assert_array_equal(thinned.table[0, j], found.table[0, place])


def test_thinned__stands_for_all_in_expectation() -> None:
    """Averaged over draws, the weighted sum over the thinned list is the sum over the whole one."""
    store = store_of(shown_log(sessions=40))
    found = draw_up(store, random_sessions(store, 1, 4), limit=25)
    value = np.exp(found.table[..., 2].astype(np.float64)) * (found.contents >= 0)
    sums = []
    for seed in range(600):
        part = found.thinned(np.array([-1]), kept=5, drawn=6, rng=np.random.default_rng(seed))
        assert part.log_weight is not None
        sums.append(float((np.exp(part.table[..., 2] + part.log_weight) * (part.contents >= 0)).sum()))
    assert np.mean(sums) == pytest.approx(value.sum(), abs=4 * float(np.std(sums)) / 600**0.5)
    whole = found.thinned(np.array([-1]), kept=20, drawn=6, rng=np.random.default_rng(0))
    assert whole.contents is found.contents
    assert whole.log_weight is not None
    assert not whole.log_weight.any()
