"""Experts and candidates straight from the counters: known answers, proper distributions, tables for re-rankers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.counters import CounterSettings, CounterStore
from models.events import Float64, Int64
from models.next_content.candidates import rank, survey
from models.next_content.experts import ask, expert_table, experts_of
from models.next_content.weights import completed
from tests.models.next_content_world import chain_log
from tests.models.test_counters import log_of, random_log, store_of


def nobody(n: int) -> Int64:
    """Sessions of audiences that never asked for anything."""
    return np.full(n, -1, dtype=np.int64)


def distribution(store: CounterStore, expert: str, session: tuple[list[int], int]) -> Float64:
    """What one expert, after back-off, gives to every known content, then to an unseen one."""
    history, location = session
    n = len(store.contents)
    items = np.full((n + 1, 4), -1, dtype=np.int32)
    items[:, 4 - len(history) :] = history
    content = np.array([*range(n), -1], dtype=np.int32)
    place = items, np.full(n + 1, location, dtype=np.int32), nobody(n + 1)
    said, mass, _, _ = ask(expert_table(store), *place, content)
    experts = experts_of(store)
    return np.asarray(completed(said, mass, experts)[:, experts.column(expert)])


def test_skip__mixes_one_two_and_three_steps_back() -> None:
    """From p, q, x the next is y after x (1), w after q (1/2), v after p (1/3), each known without doubt: /(11/6)."""
    rows = [
        *[(0, "a", c, "rio") for c in "xy"],
        *[(0, "b", c, "rio") for c in "q1w"],
        *[(0, "c", c, "rio") for c in "p2"],
    ]
    store = store_of(log_of(*rows, *[(0, "d", c, "rio") for c in "p3v"]))
    code = {str(c): k for k, c in enumerate(store.contents)}
    p = distribution(store, "skip", ([code[c] for c in "pqx"], 0))
    np.testing.assert_allclose([p[code[c]] for c in "ywv"], [6 / 11, 3 / 11, 2 / 11], rtol=1e-6)
    # Nothing followed y one step on, so x two steps back has all the say; nothing came two steps after it.
    alone = distribution(store, "skip", ([code["q"], code["y"]], 0))
    assert alone[code["w"]] == pytest.approx(1.0)


def test_order1_local__knows_the_location_and_backs_off_to_order1() -> None:
    """After x came y in Rio, z in the south; in a third town order 1 speaks: half and half."""
    walks = (("a", "xy", "rio"), ("b", "xz", "sul"), ("c", "w", "mar"))
    store = store_of(log_of(*((0, s, c, place) for s, walk, place in walks for c in walk)))
    x = int(np.flatnonzero(store.contents == "x")[0])
    found = [distribution(store, "order1_local", ([x], place))[:3].tolist() for place in range(3)]
    assert found == [[0, 1, 0], [0, 0, 1], [0, 0.5, 0.5]]


def test_newest__is_even_over_what_appeared_last() -> None:
    """With room for two, the two that appeared last share the mass; from one of them the other has it all."""
    rows = [(k / 10, None, c, "rio") for k, c in enumerate("abcaab")]
    store = store_of(log_of(*rows), CounterSettings(newest=2))
    assert distribution(store, "newest", ([0], 0)).tolist() == [0, 0.5, 0.5, 0]
    assert distribution(store, "newest", ([1], 0)).tolist() == [0, 0, 1, 0]


def test_announced__is_a_candidate_before_any_request() -> None:
    """What was just published can be suggested, though no counter knows it."""
    store = store_of(chain_log(sessions=50))
    place = np.zeros((1, 1), np.int32), np.zeros(1, np.int32), nobody(1)
    assert 4 not in survey(expert_table(store), *place, 256)[0]
    store.announce(["breaking"], [store.time_us])
    assert 4 in survey(expert_table(store), *place, 256)[0]
    assert distribution(store, "newest", ([0], 0))[4] == pytest.approx(1 / 4)  # of five contents, one is current


@given(st.integers(0, 10_000), st.integers(1, 250))
@settings(max_examples=20, deadline=None)
def test_experts__are_proper_with_evictions(seed: int, n: int) -> None:
    """After back-off each expert sums to one, whatever was evicted or is unknown, and gives x1 nothing."""
    caps = {"successor_cap": 1, "context_successor_cap": 1, "local_successor_cap": 1, "skip_cap": 1, "newest": 3}
    store = store_of(random_log(seed, n), CounterSettings(leaders=3, **caps))  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    history = rng.integers(0, len(store.contents) + 1, int(rng.integers(0, 4))).tolist()
    for expert in experts_of(store).names:
        p = distribution(store, expert, (history, int(rng.integers(-1, 4))))
        # Where x1 has all but 1e-9 of the mass, conditioning on a move magnifies rounding a billion times.
        assert p.sum() == pytest.approx(1.0, abs=1e-6), expert
        assert p.min() >= 0
        if history and history[-1] < len(store.contents):
            assert p[history[-1]] == 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_rank__equals_a_full_sort(seed: int) -> None:
    """While every content is a candidate, the top of the list is the top of the catalogue."""
    store = store_of(random_log(seed, 300, contents=30))
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 30, (1, 3)).astype(np.int32)
    location, n = np.zeros(1, np.int32), len(store.contents)
    weights = rng.dirichlet(np.ones(len(experts_of(store).names)), 1)
    content, probability = rank(expert_table(store), items, location, nobody(1), weights, 10)
    every = np.arange(n, dtype=np.int32)
    said = ask(expert_table(store), np.repeat(items, n, axis=0), np.repeat(location, n), nobody(n), every)[0]
    whole = said @ weights[0]
    np.testing.assert_allclose(probability[0], np.sort(whole)[::-1][:10], rtol=1e-9)
    np.testing.assert_allclose(whole[content[0]], probability[0], rtol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_survey__equals_ask_one_by_one(seed: int, n: int) -> None:
    """The table for a re-ranker holds what each expert says of each candidate, in single precision."""
    store = store_of(random_log(seed, n, contents=30), CounterSettings(successor_cap=3, leaders=5, newest=4))
    rng = np.random.default_rng(seed)
    items = rng.integers(-1, len(store.contents) + 1, (6, 4)).astype(np.int32)
    location = rng.integers(-1, 4, 6).astype(np.int32)
    table = expert_table(store)
    listed, said, mass = survey(table, items, location, nobody(6), 12)
    for i, j in np.argwhere(listed >= 0):
        one = ask(table, items[i : i + 1], location[i : i + 1], nobody(1), listed[i, j : j + 1])
        np.testing.assert_allclose(said[i, j], one[0][0], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(mass[i], one[1][0], rtol=1e-12)
    assert not said[listed < 0].any()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_survey__distinct_known_and_best_first(seed: int) -> None:
    """Candidates come once, never the current content, by falling sum; a limit cuts the tail only."""
    store = store_of(random_log(seed, 300, contents=30))
    rng = np.random.default_rng(seed)
    items = rng.integers(0, len(store.contents), (5, 3)).astype(np.int32)
    location = rng.integers(0, 3, 5).astype(np.int32)
    listed, said, _ = survey(expert_table(store), items, location, nobody(5), 256)
    for i in range(5):
        found = listed[i][listed[i] >= 0].tolist()
        assert len(set(found)) == len(found)
        assert items[i, -1] not in found
        assert set(found) <= set(range(len(store.contents)))
        assert np.all(np.diff(said[i, : len(found)].sum(axis=1)) <= 1e-5)
    assert np.array_equal(survey(expert_table(store), items, location, nobody(5), 7)[0], listed[:, :7])
