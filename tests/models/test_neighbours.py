"""The nearest-neighbour peers: scores by hand, against a naive reference, and as distributions that learn in the stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import LogOrderError
from models.events import HOUR_US, Float64, Int32, RequestLog
from models.next_content.neighbour_scores import POSITION_WEIGHTINGS, ItemKNN, Scorer, VSkNN, position_weights
from models.next_content.neighbours import NeighbourMethod, fit_neighbours
from models.next_content.session_memory import SessionMemory, SessionMemorySettings
from models.next_content.sessions import SessionBatch
from tests.models.test_counters import MINUTE_US, START_US, cut, log_of, random_log

FOREVER_HOURS = 1e6
STILL = SessionMemorySettings(sessions=64, half_lives_hours=(FOREVER_HOURS,), popularity_half_life_hours=FOREVER_HOURS)
SMALL = SessionMemorySettings(sessions=512)
SHARES = np.array([0.1, 0.2, 0.3, 0.4])
FIVE_SESSIONS = log_of(
    (0.00, "s1", "a", "rio"),
    (0.01, "s1", "b", "rio"),
    (0.02, "s1", "c", "rio"),
    (0.10, "s2", "a", "rio"),
    (0.11, "s2", "b", "rio"),
    (0.20, "s3", "b", "rio"),
    (0.21, "s3", "d", "rio"),
    (0.30, "s4", "c", "rio"),
    (0.31, "s4", "a", "rio"),
    (0.40, "s5", "e", "rio"),
)
"""{a, b, c}, {a, b}, {b, d}, {c, a}, and a session of one content, which teaches nothing."""
NOW_US = START_US + HOUR_US


def memory_of(log: RequestLog, memory_settings: SessionMemorySettings = STILL) -> SessionMemory:
    memory = SessionMemory(memory_settings)
    memory.update(log)
    return memory


def scores(scorer: Scorer, memory: SessionMemory, newest_first: Sequence[str]) -> dict[str, float]:
    """What is scored, by id."""
    seen = memory.content_ids.codes(list(newest_first))
    found = scorer.scores(memory, seen, NOW_US)
    return {str(memory.contents[i]): float(found[i]) for i in np.flatnonzero(found)}


def asking(memory: SessionMemory, *histories: Sequence[str], at_us: int = NOW_US) -> SessionBatch:
    """Sessions with the contents of each history, the last being the current one."""
    items = np.full((len(histories), 8), -1, dtype=np.int32)
    for row, history in zip(items, histories, strict=True):
        if history:
            row[-len(history) :] = memory.content_ids.codes(list(history))
    return SessionBatch(items, np.zeros(len(items), dtype=np.int32), np.full(len(items), at_us))


# ---- by hand


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        # The session saw a, then b: w(b) = 1, w(a) = 0.9. {a, b, c} has similarity 1.9 and shares b, {c, a} has 0.9 and
        # shares a only, {b, d} has 1, {a, b} holds nothing else.
        (VSkNN(), {"c": 1.9 * 1.0 + 0.9 * 0.9, "d": 1.0}),
        (VSkNN(neighbours=1), {"c": 1.9}),
        # The newest session with b is {b, d}, with a it is {c, a}.
        (VSkNN(sample_size=1), {"c": 0.9 * 0.9, "d": 1.0}),
        # c and d lie one place from the shared content everywhere.
        (VSkNN(reach_contents=1.0), {"c": 2.71 / np.e, "d": 1.0 / np.e}),
        # Four sessions count; c is in two of them and d in one.
        (VSkNN(idf=True), {"c": 2.71 * np.log(2.0), "d": np.log(4.0)}),
        # n(a) = n(b) = 3, n(c) = 2, n(d) = 1; co(b, c) = 1, co(a, c) = 2, co(b, d) = 1.
        (ItemKNN(shrinkage=0.0), {"c": (1.0 + 0.9 * 2.0) / np.sqrt(6.0), "d": 1.0 / np.sqrt(3.0)}),
        (ItemKNN(shrinkage=1.0), {"c": (1.0 + 0.9 * 2.0) / np.sqrt(12.0), "d": 1.0 / np.sqrt(8.0)}),
    ],
    ids=str,
)
def test_scores__five_sessions_by_hand(scorer: VSkNN | ItemKNN, expected: dict[str, float]) -> None:
    """The equations at the head of the module, worked out on five sessions."""
    still = replace(scorer, position_weighting="linear", half_life_hours=FOREVER_HOURS)
    assert scores(still, memory_of(FIVE_SESSIONS), ["b", "a"]) == pytest.approx(expected, rel=1e-5)


def test_scores__last_asks_the_newest_content_only() -> None:
    """Item-to-item: co(b, a) = 2 of n = 3 and 3, and a is scored because only b was asked about."""
    scorer = ItemKNN(position_weighting="last", half_life_hours=FOREVER_HOURS, shrinkage=0.0)
    memory = memory_of(FIVE_SESSIONS)
    assert scores(scorer, memory, ["b"])["a"] == pytest.approx(2.0 / 3.0, rel=1e-5)
    both = scores(scorer, memory, ["b", "a"])
    assert both == pytest.approx({"c": 1 / np.sqrt(6.0), "d": 1 / np.sqrt(3.0)}, rel=1e-5)


def test_scores__age_halves_a_neighbour() -> None:
    """{b, d} ended at 0.21 h and {a, b, c} at 0.02 h: at 1 h with a half-life of 1 h they weigh 2^-0.79 and 2^-0.98."""
    found = scores(VSkNN(half_life_hours=1.0), memory_of(FIVE_SESSIONS), ["b"])
    assert found["d"] == pytest.approx(2**-0.79)
    assert found["c"] == pytest.approx(2**-0.98)


def test_probability__by_hand() -> None:
    """Of ten requests seven are not for b, two of them for c; of the scores of (a, b), 2.71 of 3.71 are c's."""
    memory = memory_of(FIVE_SESSIONS)
    method = NeighbourMethod(VSkNN(position_weighting="linear", half_life_hours=FOREVER_HOURS), memory, SHARES)
    sessions = asking(memory, ["a", "b"], ["a", "b"], ["a", "b"], [])
    came = np.append(memory.content_ids.codes(["c", "b"]), [-1, 2]).astype(np.int32)
    p_c = 0.2 / 4 + 0.3 * 2 / 7 + 0.4 * 2.71 / 3.71
    # Before its first content a session has no neighbours: their share goes to popularity.
    p_first = 0.2 / 5 + 0.7 * 2 / 10
    assert method.probability(sessions, came) == pytest.approx([p_c, 0.0, 0.1, p_first], rel=1e-5)


def test_memory__timeouts_repeats_and_long_sessions() -> None:
    """Silence begins a new session, a repeat keeps it alive, and a full one goes on from its newest content."""
    rows = [(0.0, "s", "a"), (0.4, "s", "a"), (0.8, "s", "b"), (1.4, "s", "c"), (1.5, "s", "d"), (1.6, "s", "e")]
    log = log_of(*((hours, session, content, "rio") for hours, session, content in rows))
    memory = SessionMemory(SessionMemorySettings(sessions=8, contents_per_session=2))
    memory.update(log)
    assert memory.ring.content[:3].tolist() == [[0, 1], [2, 3], [3, 4]]  # {a, b}, {c, d} and {d, e}
    assert memory.ring.begun[0] == 3
    assert memory.ring.newest_us[0] == log.ts_us[2]


def test_memory__unknown_sessions_count_for_popularity_only() -> None:
    """A request without a session is demand, but goes with nothing."""
    memory = memory_of(log_of((0.0, None, "a", "rio"), (0.1, None, "b", "rio")))
    assert memory.counts.total[-1] * memory.deflation(NOW_US)[-1] == pytest.approx(2.0, rel=1e-5)
    assert memory.ring.begun[0] == 0
    assert scores(VSkNN(), memory, ["a"]) == {}


# ---- against a naive reference


def naive_sessions(log: RequestLog) -> tuple[list[list[int]], list[int], dict[int, list[int]]]:
    """Sessions as lists of distinct contents, their newest instants, and the sessions of each content, oldest first."""
    found: list[list[int]] = []
    newest: list[int] = []
    holding: dict[int, list[int]] = defaultdict(list)
    at: dict[int, int] = {}
    for ts_us, session, content in zip(log.ts_us.tolist(), log.session.tolist(), log.content.tolist(), strict=True):
        if session < 0:
            continue
        if session not in at or ts_us - newest[at[session]] > 30 * MINUTE_US:
            at[session] = len(found)
            found.append([])
            newest.append(ts_us)
        s = at[session]
        newest[s] = ts_us
        if content not in found[s]:
            found[s].append(content)
            if len(found[s]) > 1:
                for x in found[s][-2 if len(found[s]) == 2 else -1 :]:
                    holding[x].append(s)
    return found, newest, holding


def naive_v_sknn(log: RequestLog, n: int, scorer: VSkNN, seen: list[int], at_us: int) -> Float64:
    found, newest, holding = naive_sessions(log)
    w = position_weights(scorer.position_weighting, len(seen))
    sampled: list[int] = []
    for g, x in enumerate(seen):
        newest_first = holding[x][::-1][: scorer.sample_size] if w[g] > 0 else []
        sampled += [s for s in newest_first if s not in sampled]
    near = [
        (
            sum(w[g] for g, x in enumerate(seen) if x in found[s])
            * 2.0 ** (-(at_us - newest[s]) / HOUR_US / scorer.half_life_hours),
            s,
        )
        for s in sampled
        if set(found[s]) - set(seen)
    ]
    score = np.zeros(n)
    for similarity, s in sorted(near, key=lambda pair: -pair[0])[: scorer.neighbours]:
        g = min(g for g, x in enumerate(seen) if x in found[s])
        for place, x in enumerate(found[s]):
            if x not in seen:
                distance = abs(place - found[s].index(seen[g]))
                score[x] += similarity * w[g] * np.exp(-distance / scorer.reach_contents)
    return score


def naive_item_knn(log: RequestLog, n: int, scorer: ItemKNN, seen: list[int], at_us: int) -> Float64:
    found, newest, holding = naive_sessions(log)
    w = position_weights(scorer.position_weighting, len(seen))
    score = np.zeros(n)
    for g, x in enumerate(seen):
        for s in holding[x][::-1][: scorer.sample_size]:
            for i in set(found[s]) - set(seen):
                together = 2.0 ** (-(at_us - newest[s]) / HOUR_US / scorer.half_life_hours)
                support = (len(holding[x]) + scorer.shrinkage) * (len(holding[i]) + scorer.shrinkage)
                score[i] += w[g] * together / np.sqrt(support)
    return score


seeds = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    scorer=st.builds(
        VSkNN,
        sample_size=st.sampled_from([1, 3, 50]),
        neighbours=st.sampled_from([1, 4, 100]),
        position_weighting=st.sampled_from(POSITION_WEIGHTINGS),
        half_life_hours=st.sampled_from([0.5, 24.0, np.inf]),
        reach_contents=st.sampled_from([0.7, np.inf]),
    ),
    items=st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True),
)
def test_v_sknn__equals_the_naive_reference(seed: int, scorer: VSkNN, items: list[int]) -> None:
    """Links, ring and sampling give what comparing with every session gives."""
    log = random_log(seed, 150, hours=8.0)
    seen = [x for x in items if x < len(log.contents)]
    at_us = int(log.ts_us[-1]) + MINUTE_US
    memory = memory_of(log, SMALL)
    found = scorer.scores(memory, np.array(seen, dtype=np.int32), at_us)
    np.testing.assert_allclose(found, naive_v_sknn(log, len(found), scorer, seen, at_us), rtol=1e-9)
    assert not memory.marks.any()


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds,
    scorer=st.builds(
        ItemKNN,
        sample_size=st.sampled_from([2, 5000]),
        position_weighting=st.sampled_from(POSITION_WEIGHTINGS),
        half_life_hours=st.just(FOREVER_HOURS),
        shrinkage=st.sampled_from([0.0, 5.0]),
    ),
    items=st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True),
)
def test_item_knn__equals_the_naive_reference(seed: int, scorer: ItemKNN, items: list[int]) -> None:
    """Without decay the cosine is a matter of counting sessions."""
    log = random_log(seed, 150, hours=8.0)
    seen = [x for x in items if x < len(log.contents)]
    at_us = int(log.ts_us[-1]) + MINUTE_US
    found = scorer.scores(memory_of(log, replace(STILL, sessions=512)), np.array(seen, dtype=np.int32), at_us)
    np.testing.assert_allclose(found, naive_item_knn(log, len(found), scorer, seen, at_us), rtol=1e-4)


# ---- as methods


METHODS: list[Scorer] = [
    VSkNN(),
    VSkNN(idf=True, reach_contents=1.0),
    ItemKNN(),
    ItemKNN(position_weighting="last", shrinkage=0.0),
]


@pytest.mark.parametrize("scorer", METHODS, ids=str)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, items=st.lists(st.integers(-1, 12), max_size=5))
def test_probability__sums_to_one(scorer: Scorer, seed: int, items: list[int]) -> None:
    """Every session has a distribution over the catalogue and the outcome unseen, and the ranking is its order."""
    log = random_log(seed, 120, hours=4.0)
    memory = memory_of(log, SMALL)
    method = NeighbourMethod(scorer, memory, SHARES)
    history = np.full((1, 8), -1, dtype=np.int32)
    history[0, 8 - len(items) :] = items
    n = len(memory.contents)
    one = SessionBatch(history, np.zeros(1, dtype=np.int32), np.array([log.ts_us[-1] + MINUTE_US]))
    batch = SessionBatch(history.repeat(n + 1, axis=0), np.zeros(n + 1, dtype=np.int32), one.ts_us.repeat(n + 1))
    everything = np.append(np.arange(n), -1).astype(np.int32)
    p = method.probability(batch, everything)
    assert p.sum() == pytest.approx(1.0)
    assert p.min() >= 0.0
    forecast = method.predict(one, k=n + 1)
    listed = forecast.content[0][forecast.content[0] >= 0]
    others: Int32 = np.delete(everything[:-1], one.last) if 0 <= one.last[0] < n else everything[:-1]
    assert sorted(listed) == others.tolist()
    np.testing.assert_allclose(forecast.probability[0, : len(listed)], p[listed], rtol=1e-12)
    assert np.all(np.diff(forecast.probability[0, : len(listed)]) <= 0)


def test_probability__a_catalogue_of_none_or_one_leaves_only_the_unseen() -> None:
    """Where nothing else is known, what comes is new for certain."""
    empty = NeighbourMethod(VSkNN(), SessionMemory(SMALL), SHARES)
    nothing = SessionBatch(np.full((1, 8), -1, dtype=np.int32), np.zeros(1, dtype=np.int32), np.array([NOW_US]))
    assert empty.probability(nothing, np.array([-1], dtype=np.int32)) == pytest.approx([1.0])
    assert empty.predict(nothing, k=3).content.tolist() == [[-1, -1, -1]]
    memory = memory_of(log_of((0.0, "s", "a", "rio")))
    one = NeighbourMethod(VSkNN(), memory, SHARES)
    assert one.probability(asking(memory, ["a"]), np.array([-1], dtype=np.int32)) == pytest.approx([1.0])


@settings(max_examples=10, deadline=None)
@given(seed=seeds, edges=st.lists(st.integers(0, 400), max_size=8))
def test_memory__slices_change_nothing(seed: int, edges: list[int]) -> None:
    """One long log and many short slices of it leave the same memory, bit by bit, across base instants too."""
    log = random_log(seed, hours=600.0)
    whole, parts = SessionMemory(SMALL), SessionMemory(SMALL)
    whole.update(log)
    for part in cut(log, edges):
        parts.update(part)
    arrays: list[list[npt.NDArray[Any]]] = [[*memory.ring, *memory.counts] for memory in (whole, parts)]
    for mine, other in zip(*arrays, strict=True):
        shared = min(len(mine), len(other))
        assert np.array_equal(mine[:shared], other[:shared])
    sessions = asking(whole, ["c1", "c2"], ["c3"], [], at_us=int(log.ts_us[-1]))
    for scorer in METHODS:
        first, second = (NeighbourMethod(scorer, memory, SHARES).predict(sessions) for memory in (whole, parts))
        assert np.array_equal(first.content, second.content)
        assert np.array_equal(first.probability, second.probability)


def test_memory__is_bounded() -> None:
    """Sessions beyond the ring are forgotten with their contents, and ended sessions leave the index."""
    memory = SessionMemory(SessionMemorySettings(sessions=16))
    begun = 4000
    rows = [
        (s / 60 + step / 600, f"s{s}", f"{'old' if s < 100 else 'new'}{(s + step) % 3}", "rio")
        for s in range(begun)
        for step in range(2)
    ]
    memory.update(log_of(*rows))
    assert memory.ring.begun[0] == begun
    assert memory.ring.content.shape == (16, 16)
    assert len(memory._index) < 1100  # about thirty sessions are under way at any time, 512 more may wait
    at_us = memory.time_us
    for scorer in (VSkNN(), ItemKNN()):
        assert not scorer.scores(memory, memory.content_ids.codes(["old0"]), at_us).any()
        assert scorer.scores(memory, memory.content_ids.codes(["new0"]), at_us).any()


def test_memory__refuses_the_past() -> None:
    """Learning or answering out of order would use the future."""
    memory = memory_of(FIVE_SESSIONS)
    with pytest.raises(LogOrderError, match="holds requests until"):
        memory.update(FIVE_SESSIONS)
    with pytest.raises(LogOrderError, match="cannot go back"):
        NeighbourMethod(VSkNN(), memory, SHARES).predict(asking(memory, ["a"], at_us=START_US))


def test_settings__say_what_is_wrong() -> None:
    """A wrong setting is named with what is allowed."""
    with pytest.raises(ValueError, match="position_weighting of last, quadratic"):
        VSkNN(position_weighting="cubic")
    with pytest.raises(ValueError, match="neighbours >= 1, got 0"):
        VSkNN(neighbours=0)
    with pytest.raises(ValueError, match="shrinkage >= 0"):
        ItemKNN(shrinkage=-1.0)
    with pytest.raises(ValueError, match="contents_per_session >= 2"):
        SessionMemorySettings(contents_per_session=1)
    with pytest.raises(ValueError, match="choose one of them"):
        scores(ItemKNN(half_life_hours=3.0), memory_of(FIVE_SESSIONS), ["a"])
    with pytest.raises(ValueError, match="sum to one"):
        NeighbourMethod(VSkNN(), SessionMemory(SMALL), np.full(4, 0.3))


# ---- fitted


def paired_log(*, sessions: int = 600, pairs: int = 40) -> RequestLog:
    """Sessions of two contents, always pK and then qK; ten hours."""
    rng = np.random.default_rng(3)
    rows = []
    for s in range(sessions):
        pair, hours = int(rng.integers(pairs)), 10 * s / sessions
        rows += [(hours, f"s{s}", f"p{pair}", "rio"), (hours + 0.01, f"s{s}", f"q{pair}", "rio")]
    return log_of(*rows)


def test_fit__finds_what_goes_together() -> None:
    """Where pK is always followed by qK, neighbours earn the share of second requests and name qK first."""
    log = paired_log()
    train, validation = (START_US, START_US + 5 * HOUR_US), (START_US + 5 * HOUR_US, START_US + 8 * HOUR_US)
    grid = (VSkNN(sample_size=1, half_life_hours=0.001), VSkNN(), ItemKNN())
    fitted = fit_neighbours(log, train=train, validation=validation, grid=grid, memory=SMALL, n_questions=150, seed=1)
    assert [method.name for method in fitted] == ["v_sknn", "item_knn"]
    assert fitted[0].store is fitted[1].store
    assert fitted[0].store.time_us < validation[1]
    for method in fitted:
        assert method.shares.sum() == pytest.approx(1.0)
        assert method.shares[3] > 0.3
        forecast = method.predict(asking(method.store, ["p7"], ["p31"], at_us=validation[1]), k=1)
        assert method.store.contents[forecast.content[:, 0]].tolist() == ["q7", "q31"]
    again = fit_neighbours(
        log.before(validation[1]), train=train, validation=validation, grid=grid, memory=SMALL, n_questions=150, seed=1
    )
    for mine, other in zip(fitted, again, strict=True):  # what comes after the window is not looked at
        assert mine.scorer == other.scorer
        assert np.array_equal(mine.shares, other.shares)


def test_fit__refuses_windows_that_cannot_be() -> None:
    """Shares fitted on what the memory already holds would be worthless."""
    log = paired_log(sessions=20)
    with pytest.raises(ValueError, match="begin where training ends"):
        fit_neighbours(log, train=(0, NOW_US), validation=(START_US, NOW_US))
    with pytest.raises(ValueError, match="widen it"):
        fit_neighbours(log, train=(0, START_US), validation=(START_US + 99 * HOUR_US, START_US + 100 * HOUR_US))
