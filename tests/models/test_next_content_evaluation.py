"""The prequential harness: what it asks, what it counts, and that no future leaks into an answer."""

from __future__ import annotations

import numpy as np
import pytest

from models.counters import CounterStore
from models.errors import LogOrderError
from models.events import HOUR_US, Float64, Int32, RequestLog
from models.next_content.evaluation import Scores, evaluate, score
from models.next_content.experts import experts_of
from models.next_content.predictor import NextContentForecast, NextContentPredictor
from models.next_content.sessions import SessionBatch, moves, previous_rows, sessions_at
from models.next_content.stream import draw_questions, play
from models.next_content.weights import StaticWeights
from tests.models.next_content_world import START_US, chain_log
from tests.models.test_counters import log_of

MIDDLE_US = START_US + 6 * HOUR_US
END_US = START_US + 9 * HOUR_US
TIMEOUT_US = 30 * 60_000_000


def mixture(log: RequestLog, before_us: int = MIDDLE_US) -> NextContentPredictor:
    store = CounterStore()
    store.update(log.before(before_us))
    n = len(experts_of(store).names)
    return NextContentPredictor("even", store, StaticWeights(np.full((1, n), 1.0 / n)))


def altered_after(log: RequestLog, at_us: int) -> RequestLog:
    """The same past, and another future: contents and sessions after the instant are shuffled."""
    rng = np.random.default_rng(5)
    first = int(np.searchsorted(log.ts_us, at_us))
    content, session = log.content.copy(), log.session.copy()
    content[first:], session[first:] = rng.permutation(content[first:]), rng.permutation(session[first:])
    return RequestLog(log.ts_us, session, content, log.location, log.contents, log.locations)


def test_sessions__history_by_hand() -> None:
    """Repeats are one item, sessions do not mix, and half an hour of silence begins a new one."""
    log = log_of(
        (0.0, "a", "x", "rio"),
        (0.1, "b", "y", "rio"),
        (0.2, "a", "x", "rio"),
        (0.3, "a", "y", "sul"),
        (0.4, "a", "z", "sul"),
        (2.0, "a", "x", "sul"),
        (2.1, None, "x", "sul"),
        (2.2, None, "y", "sul"),
    )
    previous = previous_rows(log, timeout_us=TIMEOUT_US)
    assert previous.tolist() == [-1, -1, 0, 2, 3, -1, -1, -1]
    assert moves(log, previous).tolist() == [0, 1, 3, 4, 5, 6, 7]
    batch = sessions_at(log, np.array([0, 3, 4, 5]), previous, history=3)
    assert batch.items.tolist() == [[-1, -1, -1], [-1, -1, 0], [-1, 0, 1], [-1, -1, -1]]
    assert batch.location.tolist() == [0, 1, 1, 1]


def test_play__stores_hold_exactly_what_came_before() -> None:
    """At each question the store knows the rows before it, ties included, and nothing else."""
    log = chain_log(sessions=60)
    store = CounterStore()
    rows = np.array([0, 5, 6, 200, len(log) - 1])
    for i in play([store], log, rows):
        assert store.popularity.hours.cell_counts.sum() == rows[i]  # every request is counted in one hour
        assert len(store.contents) == len(np.unique(log.content[: rows[i]]))


@pytest.mark.parametrize("instant_us", [MIDDLE_US + HOUR_US, END_US])
def test_score__planted_leak_would_show(instant_us: int) -> None:
    """Whatever happens from an instant on, answers to earlier questions must be the same, bit by bit."""
    log = chain_log(sessions=300)
    other = altered_after(log, instant_us)
    assert not np.array_equal(log.content, other.content)
    scores = []
    for world in (log, other):
        timeline = draw_questions(
            world.before(instant_us), window=(MIDDLE_US, instant_us), n=10**9, seed=0, timeout_us=TIMEOUT_US
        )
        result = score([mixture(log)], world, start_us=MIDDLE_US, end_us=END_US, n_events=10**9)
        scores.append((result.rank["even"][: len(timeline.rows)], result.nats["even"][: len(timeline.rows)]))
    assert len(scores[0][0]) > 50
    assert np.array_equal(scores[0][0], scores[1][0])
    assert np.array_equal(scores[0][1], scores[1][1])


def test_score__a_leaking_method_is_caught() -> None:
    """The check above has teeth: a method that reads the answer from the log changes with the future."""

    class Cheat(NextContentPredictor):
        def __init__(self, inner: NextContentPredictor, log: RequestLog) -> None:
            super().__init__("cheat", inner.store, inner.weighting)
            self.log = log

        def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
            after = self.log.content[np.searchsorted(self.log.ts_us, sessions.ts_us + HOUR_US)]
            return NextContentForecast(after[:, None].astype(np.int32), np.ones((len(sessions), 1)))

    log = chain_log(sessions=300)
    other = altered_after(log, MIDDLE_US + HOUR_US)
    ranks = []
    for world in (log, other):
        result = score(
            [Cheat(mixture(log), world)],
            world,
            start_us=MIDDLE_US,
            end_us=MIDDLE_US + HOUR_US,
            n_events=10**9,
        )
        ranks.append(result.rank["cheat"])
    assert not np.array_equal(ranks[0], ranks[1])


def test_score__a_store_that_holds_the_window_is_refused() -> None:
    """A store that already counted the test day would know the answers."""
    log = chain_log(sessions=100)
    with pytest.raises(LogOrderError, match="cannot answer for"):
        score([mixture(log, END_US)], log, start_us=MIDDLE_US, end_us=END_US)


def test_score__refuses_what_cannot_be_compared() -> None:
    """Two methods of one name would overwrite each other; a store coded otherwise would answer about other contents."""
    log = chain_log(sessions=100)
    method = mixture(log)
    with pytest.raises(ValueError, match="different names"):
        score([method, method], log, start_us=MIDDLE_US, end_us=END_US)
    renamed = RequestLog(log.ts_us, log.session, log.content, log.location, log.contents[::-1].copy(), log.locations)
    with pytest.raises(ValueError, match="coded differently"):
        score([method], renamed, start_us=MIDDLE_US, end_us=END_US)
    with pytest.raises(ValueError, match="No requests in the window"):
        score([method], log, start_us=END_US + 99 * HOUR_US, end_us=END_US + 100 * HOUR_US)


def test_score__draws_with_the_seed() -> None:
    """A subsample is the same for everyone who uses the seed, and in time order."""
    log = chain_log(sessions=200)
    window = (MIDDLE_US, END_US)
    first, same, other = (
        draw_questions(log, window=window, n=30, seed=seed, timeout_us=TIMEOUT_US).rows for seed in (1, 1, 2)
    )
    assert len(first) == 30
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert np.all(np.diff(first) > 0)


def test_rows__metrics_by_hand() -> None:
    """Ranks 1, 4 and a miss: recall@1 = 1/3, recall@5 = 2/3, MRR = (1 + 1/4) / 3."""
    everything = np.ones(3, dtype=bool)
    scores = Scores(
        "w",
        np.array([0, 0, 1]),
        {"all": everything, "none": ~everything},
        {"a": np.array([1, 4, 0]), "b": np.array([2, 4, 0])},
        {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([2.0, 2.0, 5.0])},
    )
    row = scores.rows(reference="b")[0]
    assert (row["window"], row["model"], row["stratum"], row["n"]) == ("w", "a", "all", 3)
    assert row["recall_at_1"] == pytest.approx(1 / 3)
    assert row["recall_at_5"] == row["recall_at_20"] == pytest.approx(2 / 3)
    assert row["mrr_at_20"] == pytest.approx(1.25 / 3)
    assert row["nll"] == pytest.approx(2.0)
    assert row["mrr_gain"] == pytest.approx(0.5 / 3)
    assert row["nll_gain"] == pytest.approx(1.0)
    assert row["nll_gain_low"] <= 1.0 <= row["nll_gain_high"]
    assert len(scores.rows()) == 2  # an empty stratum has no row


def test_evaluate__a_perfect_method_is_perfect_and_strata_add_up() -> None:
    """First and later events, and head, torso and tail, each make up the whole."""

    class Oracle(NextContentPredictor):
        def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
            return NextContentForecast(np.arange(4, dtype=np.int32)[None], np.full((1, 4), 0.25))

        def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
            return np.full(len(sessions), 0.25)

    log = chain_log(sessions=200)
    base = mixture(log)
    rows = evaluate(
        [base, Oracle("fixed", base.store, base.weighting)], log, start_us=MIDDLE_US, end_us=END_US, reference="fixed"
    )
    fixed = {row["stratum"]: row for row in rows if row["model"] == "fixed"}
    assert fixed["all"]["nll"] == pytest.approx(np.log(4))
    assert fixed["all"]["recall_at_5"] == 1.0
    assert fixed["first_event"]["n"] + fixed["later_event"]["n"] == fixed["all"]["n"]
    assert sum(fixed[s]["n"] for s in ("head", "torso", "tail") if s in fixed) == fixed["all"]["n"]
    mine = next(row for row in rows if row["model"] == "even" and row["stratum"] == "later_event")
    assert mine["mrr_gain"] > 0
