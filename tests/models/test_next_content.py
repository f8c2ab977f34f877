"""Mixtures of experts and their weights: proper distributions, right chains, right ranks, cold starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.counters import CounterSettings, CounterStore
from models.errors import LogOrderError
from models.events import HOUR_US, Float64, Int32
from models.next_content.baselines import baselines
from models.next_content.experts import experts_of
from models.next_content.forecast import NextContentForecast, aggregate_by_location
from models.next_content.mixture import MixturePredictor
from models.next_content.sequence import SequenceSettings
from models.next_content.sessions import SessionBatch
from models.next_content.settings import NextContentSettings
from models.next_content.static_weights import linear_weights, weights_by_evidence
from models.next_content.training import learn
from models.next_content.weights import (
    Evidence,
    StaticWeights,
    WittenBell,
    backed_off,
    completed,
    evidence_class,
    fitted_weights,
)
from tests.models.next_content_world import CHAIN, START_US, chain_log
from tests.models.test_counters import log_of, random_log, store_of

TRAIN = (START_US, START_US + 8 * HOUR_US)
VALIDATION = (START_US + 8 * HOUR_US, START_US + 13 * HOUR_US)
SMALL = NextContentSettings(sequence_network=False, lesson_events=50, validation_events=300, shortlist=20)


def batch(store: CounterStore, *rows: tuple[list[int], int]) -> SessionBatch:
    """Sessions of (items, location), asked at the store's newest instant."""
    items = np.full((len(rows), 3), -1, dtype=np.int32)
    for i, (history, _) in enumerate(rows):
        items[i, 3 - len(history) :] = history
    location = np.array([place for _, place in rows], dtype=np.int32)
    return SessionBatch(items, location, np.full(len(rows), store.time_us))


def only(store: CounterStore, expert: str) -> MixturePredictor:
    """All weight on one expert."""
    weights = np.zeros((1, len(experts_of(store).names)))
    weights[0, experts_of(store).column(expert)] = 1.0
    return MixturePredictor(expert, store, StaticWeights(weights))


def even(store: CounterStore) -> MixturePredictor:
    n = len(experts_of(store).names)
    return MixturePredictor("even", store, StaticWeights(np.full((1, n), 1.0 / n)))


def distribution(predictor: MixturePredictor, session: SessionBatch) -> Float64:
    """Probability of every known content, then of an unseen one."""
    n = len(predictor.store.contents)
    many = SessionBatch(
        np.repeat(session.items, n + 1, axis=0),
        np.repeat(session.location, n + 1),
        np.repeat(session.ts_us, n + 1),
    )
    return predictor.probability(many, np.array([*range(n), -1], dtype=np.int32))


# ---- known answers


def test_order1__recovers_the_chain() -> None:
    """Fed by a known chain, order 1 must find its transition matrix."""
    log = chain_log(sessions=1000, hours=2.0)
    store = store_of(log)
    code = {str(c): k for k, c in enumerate(store.contents)}
    order = [code[f"c{k}"] for k in range(4)]
    predictor = only(store, "order1_24h")
    for x in range(4):
        found = distribution(predictor, batch(store, ([order[x]], 0)))[order]
        # 1000 sessions leave each content about 1000 * 5 / 4 = 1250 times: s.e. below 0.015.
        np.testing.assert_allclose(found, CHAIN[x], atol=0.05)


def test_popularity__by_hand_without_the_current_content() -> None:
    """Three of four requests are x, one is y; from y the next can only be x."""
    store = store_of(log_of((0, None, "x", "rio"), (0, None, "x", "rio"), (0, None, "x", "sul"), (0, None, "y", "sul")))
    popularity, local = only(store, "popularity_24h"), only(store, "local_24h")
    np.testing.assert_allclose(distribution(popularity, batch(store, ([], 0))), [0.75, 0.25, 0.0])
    np.testing.assert_allclose(distribution(popularity, batch(store, ([1], 0))), [1.0, 0.0, 0.0])
    np.testing.assert_allclose(distribution(local, batch(store, ([], 1))), [0.5, 0.5, 0.0])
    # In Rio there was only x: from x, local popularity knows nothing and backs off to popularity, given not x: y.
    np.testing.assert_allclose(distribution(local, batch(store, ([0], 0))), [0.0, 1.0, 0.0])


def test_order1__evicted_mass_backs_off_to_local_popularity() -> None:
    """A list that lost a quarter of its mass gives that quarter to local popularity."""
    moves = ["p", "p", "q", "r"]
    rows = [row for k, i in enumerate(moves) for row in ((0, f"s{k}", "x", "rio"), (0, f"s{k}", i, "rio"))]
    store = store_of(log_of(*rows), CounterSettings(successor_cap=2))
    code = {str(c): k for k, c in enumerate(store.contents)}
    p = distribution(only(store, "order1_24h"), batch(store, ([code["x"]], 0)))
    # Listed: p 1/2, r 1/4; escaped 1/4. Local popularity given not x: p 2/4, q 1/4, r 1/4.
    expected = {"x": 0.0, "p": 0.5 + 0.25 * 0.5, "q": 0.25 * 0.25, "r": 0.25 + 0.25 * 0.25}
    np.testing.assert_allclose([p[code[c]] for c in "xpqr"], list(expected.values()))


def test_witten_bell__by_hand() -> None:
    """With n departures to T contents and c = 1, order 1 keeps n / (n + T)."""
    columns = 5  # unseen, uniform, popularity, local, order1, (order2 is the last of six)
    method = WittenBell(1.0, 0.5, np.array([0.1, 0.1, 0.8, 0, 0, 0]), order2=5, order1=4, local=3)
    evidence = Evidence(
        departures=np.array([[6.0, 2.0], [0.0, 0.0]]),
        distinct=np.array([[3, 2], [0, 0]]),
        known=np.ones((2, columns + 1)),
    )
    # Row 0: order 2 keeps 2/4; order 1 keeps 1/2 * 6/9 = 1/3; 1/6 is left, half local, half by the bottom.
    expected = [[1 / 120, 1 / 120, 8 / 120, 1 / 12, 1 / 3, 1 / 2], [0.05, 0.05, 0.4, 0.5, 0, 0]]
    np.testing.assert_allclose(method.weights(evidence), expected)


def test_fitted_weights__find_the_share_of_each_expert() -> None:
    """Two experts that are each sure of their own half of the data: the likelihood is greatest at the shares."""
    said = np.array([[1.0, 0.0]] * 30 + [[0.0, 1.0]] * 10)
    np.testing.assert_allclose(fitted_weights(said), [0.75, 0.25])
    # With 40 events' worth of an even prior: (30 + 20) / 80.
    prior = np.array([0.5, 0.5])
    np.testing.assert_allclose(fitted_weights(said, prior=prior, prior_events=40.0), [0.625, 0.375])
    np.testing.assert_allclose(fitted_weights(said[:0], prior=prior, prior_events=40.0), prior)


def test_fitted_weights__no_simplex_point_is_better() -> None:
    """The problem is convex: a fine grid over the simplex must not beat the fit."""
    said = np.random.default_rng(0).gamma(0.5, size=(200, 3))
    fit = fitted_weights(said, iterations=2000, tolerance_nats=1e-12)
    best = np.log(said @ fit).mean()
    grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1 - a, 41)]
    assert best >= max(np.log(np.maximum(said @ np.array(w), 1e-300)).mean() for w in grid) - 1e-9


def test_back_off__of_weights_and_of_probabilities_agree() -> None:
    """Passing on weights or completing experts is the same sum, seen from either side."""
    store = store_of(random_log(2))
    experts = experts_of(store)
    rng = np.random.default_rng(1)
    said, known = rng.random((50, len(experts.names))), rng.random((50, len(experts.names)))
    weights = rng.dirichlet(np.ones(len(experts.names)), 50)
    one = (backed_off(weights, known, experts.backs_off_to) * said).sum(axis=1)
    np.testing.assert_allclose(one, (weights * completed(said, known, experts)).sum(axis=1))


def test_aggregate__sums_probabilities_by_cell() -> None:
    """Two sessions in one location add up; unknown places are left out."""
    sessions = SessionBatch(np.zeros((3, 1), np.int32), np.array([4, 4, -1], np.int32), np.zeros(3, np.int64))
    forecast = NextContentForecast(
        np.array([[7, 2], [7, -1], [7, 2]], dtype=np.int32), np.array([[0.5, 0.25], [0.125, 0.0], [0.5, 0.5]])
    )
    content, location, expected = aggregate_by_location(sessions, forecast)
    assert (content.tolist(), location.tolist(), expected.tolist()) == ([2, 7], [4, 4], [0.25, 0.625])


# ---- contracts of every method


@pytest.fixture(scope="module")
def fitted() -> tuple[CounterStore, list[MixturePredictor]]:
    """Every Markov baseline, fitted on the chain world."""
    memory, _, held_out = learn(chain_log(sessions=400), train=TRAIN, validation=VALIDATION, settings=SMALL)
    return memory.store, baselines(memory.store, held_out.lessons, SMALL)


def test_methods__are_proper_everywhere(fitted: tuple[CounterStore, list[MixturePredictor]]) -> None:
    """Known contents and the unseen outcome sum to one, whatever is known of the session."""
    store, methods = fitted
    cold = batch(store, ([], 0), ([], -1), ([0], 0), ([2, 1], 1), ([1, 0, 3], 99), ([50], 0), ([50, 1], 1))
    assert {m.name for m in methods} >= {"witten_bell", "order1_2h", "order2", "linear_mixture", "evidence_mixture"}
    for method in methods:
        for i in range(len(cold)):
            p = distribution(method, cold.rows(i, i + 1))
            assert p.min() >= 0, method.name
            assert p.sum() == pytest.approx(1.0, abs=1e-9), (method.name, i)


@given(st.integers(0, 10_000), st.integers(1, 250))
@example(443, 47)
@settings(max_examples=20, deadline=None)
def test_mixture__is_proper_with_evictions(seed: int, n: int) -> None:
    """Evicted successors must leak no probability, and the current content must get none.

    A leak would be a share of a count. Taking old counts from a total that has decayed since leaves the rounding of what
    it once was: 4e-9 in the example.
    """
    store = store_of(random_log(seed, n), CounterSettings(successor_cap=1, context_successor_cap=1, leaders=3))
    rng = np.random.default_rng(seed)
    history = rng.integers(0, len(store.contents), 2).tolist()
    session = batch(store, (history, int(rng.integers(0, 3))))
    p = distribution(even(store), session)
    assert p.sum() == pytest.approx(1.0, abs=1e-7)
    assert p[history[-1]] == 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_predict__equals_a_full_sort(seed: int) -> None:
    """While every content is some list's leader, the top of the list is the top of the catalogue."""
    store = store_of(random_log(seed, 300, contents=30))
    rng = np.random.default_rng(seed)
    session = batch(store, (rng.integers(0, 30, 2).tolist(), int(rng.integers(0, 3))))
    found = even(store).predict(session, k=10)
    p = distribution(even(store), session)[:-1]
    np.testing.assert_allclose(found.probability[0], np.sort(p)[::-1][:10], rtol=1e-9)
    np.testing.assert_allclose(p[found.content[0]], found.probability[0], rtol=1e-9)
    assert session.last[0] not in found.content[0]


def test_predict__pads_where_the_catalogue_ends() -> None:
    """Four contents cannot fill twenty places; the rest is -1 with nothing on it."""
    store = store_of(chain_log(sessions=20))
    found = even(store).predict(batch(store, ([0], 0)), k=20)
    assert sorted(found.content[0][:3].tolist()) == [1, 2, 3]
    assert set(found.content[0][3:].tolist()) == {-1}
    assert found.probability[0][3:].sum() == 0.0


def test_predict__empty_store_expects_something_unseen() -> None:
    """Before the first request there is one possible outcome, and it is not in any catalogue."""
    store = CounterStore()
    session = batch(store, ([], -1))
    assert even(store).predict(session, k=3).content.tolist() == [[-1, -1, -1]]
    assert even(store).probability(session, np.array([-1], dtype=np.int32)).tolist() == [1.0]


def test_predict__refuses_questions_from_the_past() -> None:
    """The counters would answer with their knowledge of the future."""
    store = store_of(chain_log(sessions=20))
    session = SessionBatch(np.zeros((1, 1), np.int32), np.zeros(1, np.int32), np.array([store.time_us - 1]))
    with pytest.raises(LogOrderError, match="cannot answer for"):
        even(store).predict(session)


def test_update__new_content_is_predicted_at_once() -> None:
    """A content needs no retraining: after its first requests it is among the answers."""
    store = store_of(chain_log(sessions=50))
    model = even(store)
    hour = (store.time_us - START_US) / HOUR_US + 0.1
    current = int(np.flatnonzero(store.contents == "c0")[0])
    before = model.probability(batch(store, ([current], 0)), np.array([4], dtype=np.int32))
    store.update(log_of(*((hour, f"n{k}", c, "l0") for k in range(20) for c in ("c0", "breaking"))))
    assert store.contents[4] == "breaking"
    after = model.probability(batch(store, ([current], 0)), np.array([4], dtype=np.int32))
    assert before[0] == pytest.approx(1 / len(experts_of(store).names))  # the unseen outcome
    assert after[0] > 0.2
    assert 4 in only(store, "order1_2h").predict(batch(store, ([current], 0)), k=2).content


# ---- fitting


def test_weights__by_evidence_are_at_least_as_likely_as_one_set() -> None:
    """Shrinking to the pooled weights costs nothing where the classes were fitted, and the same lessons fit alike."""
    _, _, held_out = learn(chain_log(sessions=400), train=TRAIN, validation=VALIDATION, settings=SMALL)
    lessons = held_out.lessons
    pooled = linear_weights(lessons, SMALL)
    table = weights_by_evidence(lessons, pooled, SMALL)
    np.testing.assert_array_equal(table, weights_by_evidence(lessons, pooled, SMALL))
    by_class = table[evidence_class(lessons.evidence, SMALL.evidence_edges)]
    one, many = (np.log((lessons.probability * weights).sum(axis=1)).mean() for weights in (pooled, by_class))
    assert many >= one - 1e-9


@pytest.mark.parametrize(
    "change",
    [
        {"validation_events": 0},
        {"lesson_events": 0},
        {"lesson_hours": 0.0},
        {"shortlist": 19},
        {"hidden_size": 0},
        {"epochs": -1},
        {"learning_rate": 0.0},
        {"evidence_edges": (2.0, 1.0)},
        {"pooling_events": -1.0},
        {"iterations": 0},
        {"sequence": SequenceSettings(features=1)},
    ],
)
def test_settings__bounds(change: dict[str, Any]) -> None:
    """Every bound speaks up."""
    with pytest.raises(ValueError, match="Expected"):
        NextContentSettings(**change)


def test_sessions__shapes_must_agree() -> None:
    """A shape that disagrees is an error, not a reason to broadcast."""
    one: Int32 = np.zeros(1, dtype=np.int32)
    with pytest.raises(ValueError, match="Expected items"):
        SessionBatch(np.zeros((2, 1), np.int32), one, np.zeros(1, np.int64))
