"""The prequential harness: what it asks, what it counts, and that no future leaks into an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.counters import CounterStore
from models.errors import LogOrderError
from models.events import HOUR_US, Float64, Int32, RequestLog
from models.next_content.evaluation import evaluate, score, windows_of
from models.next_content.experts import experts_of
from models.next_content.forecast import NextContentForecast
from models.next_content.judged import Judged
from models.next_content.mixture import MixturePredictor
from models.next_content.scores import Marks, Scores, over_seeds
from models.next_content.session_memory import SessionMemory
from models.next_content.sessions import SessionBatch, moves, previous_rows, sessions_at
from models.next_content.stream import draw_questions, play
from models.next_content.weights import StaticWeights
from tests.models.next_content_world import START_US, chain_log
from tests.models.test_counters import log_of

MIDDLE_US = START_US + 6 * HOUR_US
END_US = START_US + 9 * HOUR_US
TIMEOUT_US = 30 * 60_000_000


def mixture(log: RequestLog, before_us: int = MIDDLE_US) -> MixturePredictor:
    store = CounterStore()
    store.update(log.before(before_us))
    n = len(experts_of(store).names)
    return MixturePredictor("even", store, StaticWeights(np.full((1, n), 1.0 / n)))


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
        scores.append(
            (result.marks["even"].rank[0][: len(timeline.rows)], result.marks["even"].nats[0][: len(timeline.rows)])
        )
    assert len(scores[0][0]) > 50
    assert np.array_equal(scores[0][0], scores[1][0])
    assert np.array_equal(scores[0][1], scores[1][1])


def test_score__a_leaking_method_is_caught() -> None:
    """The check above has teeth: a method that reads the answer from the log changes with the future."""

    class Cheat(MixturePredictor):
        def __init__(self, inner: MixturePredictor, log: RequestLog) -> None:
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
        ranks.append(result.marks["cheat"].rank[0])
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


def marks(rank: list[int], nats: list[float], *, top: float = 0.5) -> Marks:
    """Marks of one seed."""
    n = len(rank)
    return Marks(np.array([rank]), np.array([nats]), np.full((1, n), top), None, np.array([np.nan]))


def scores_of(**by_method: Marks) -> Scores:
    """Three questions of two hours, in one window."""
    everything = np.ones(3, dtype=bool)
    return Scores({"w": everything}, np.array([0, 0, 1]), {"all": everything, "none": ~everything}, by_method)


def test_rows__metrics_by_hand() -> None:
    """Ranks 1, 4 and a miss: recall@1 = 1/3, recall@5 = 2/3, MRR = (1 + 1/4) / 3."""
    scores = scores_of(a=marks([1, 4, 0], [1.0, 2.0, 3.0]), b=marks([2, 4, 0], [2.0, 2.0, 5.0]))
    row = scores.rows(reference="b")[0]
    assert (row["window"], row["model"], row["stratum"], row["n"], row["seeds"]) == ("w", "a", "all", 3, 1)
    assert row["recall_at_1"] == pytest.approx(1 / 3)
    assert row["recall_at_5"] == row["recall_at_20"] == pytest.approx(2 / 3)
    assert row["mrr_at_20"] == pytest.approx(1.25 / 3)
    assert row["nll"] == pytest.approx(2.0)
    assert row["top1"] == pytest.approx(0.5)
    assert row["ece_top1"] == pytest.approx(1 / 2 - 1 / 3)  # said 1/2 each time, right once in three
    assert row["coverage"] is row["milliseconds"] is None
    assert row["mrr_gain"] == pytest.approx(0.5 / 3)
    assert row["mrr_gain_percent"] == pytest.approx(100 * 0.5 / 0.75)
    assert row["nll_gain"] == pytest.approx(1.0)
    assert row["nll_gain_low"] <= 1.0 <= row["nll_gain_high"]
    assert len(scores.rows()) == 2  # an empty stratum has no row
    assert scores.gains("b", "a")[0]["mrr_gain"] == pytest.approx(-0.5 / 3)


def test_over_seeds__questions_count_once_and_seeds_spread() -> None:
    """Two seeds of NLL 1 and 2 are one method of NLL 1.5 with deviation 0.71; a method without randomness has none."""
    still = marks([1, 1, 1], [1.0, 1.0, 1.0])
    seeds = [
        scores_of(net=marks([1, 2, 0], [1.0, 1.0, 1.0]), still=still),
        scores_of(net=marks([1, 1, 0], [2.0, 2.0, 2.0]), still=still),
    ]
    net, same = over_seeds(seeds).rows(reference="still")
    assert (net["n"], net["seeds"]) == (3, 2)
    assert net["nll"] == pytest.approx(1.5)
    assert net["nll_sd"] == pytest.approx(np.sqrt(0.5))
    assert net["mrr_at_20"] == pytest.approx((1.5 / 3 + 2 / 3) / 2)
    assert same["nll_sd"] == 0.0
    # By question the gain is -0.5 nats everywhere: however hours are drawn, the interval is that point.
    assert (net["nll_gain_low"], net["nll_gain_high"]) == pytest.approx((-0.5, -0.5))


def test_over_seeds__refuses_what_was_asked_otherwise() -> None:
    """Unequal methods, or a comparison of one seed with two, would pass luck off as a gain."""
    one, two = scores_of(a=marks([1, 1, 1], [0.0] * 3)), scores_of(b=marks([1, 1, 1], [0.0] * 3))
    with pytest.raises(ValueError, match="same questions with the same methods"):
        over_seeds([one, two])
    uneven = one.with_marks({"b": Marks.stacked([two.marks["b"], two.marks["b"]])})
    with pytest.raises(ValueError, match="compare equally many"):
        uneven.gains("a", "b")
    with pytest.raises(ValueError, match="marks of 2 questions of 3"):
        one.with_marks({"c": marks([1, 1], [0.0] * 2)})


def test_windows__are_consecutive_and_equal_in_number() -> None:
    """Three hours in parts of one and a half, each with its own rows; the whole comes first and holds them all."""
    assert windows_of((0, 5 * HOUR_US), 2.0) == [
        (0, 2 * HOUR_US),
        (2 * HOUR_US, 4 * HOUR_US),
        (4 * HOUR_US, 5 * HOUR_US),
    ]
    with pytest.raises(ValueError, match="window_hours > 0"):
        windows_of((0, 1), 0.0)
    log = chain_log(sessions=200)
    asked: dict[str, Any] = {"start_us": MIDDLE_US, "end_us": END_US, "n_events": 40}
    scores = score([mixture(log)], log, window_hours=1.5, window="whole", **asked)
    assert [int(inside.sum()) for inside in scores.windows.values()] == [80, 40, 40]
    assert next(iter(scores.windows)) == "whole"
    for inside, first in zip(list(scores.windows.values())[1:], (MIDDLE_US, MIDDLE_US + 3 * HOUR_US // 2), strict=True):
        assert scores.hour[inside].min() >= first // HOUR_US
    alone = score([mixture(log)], log, **asked)
    assert len(alone.windows) == 1
    assert len(alone.hour) == 40


def test_strata__by_place_and_location() -> None:
    """Questions of a session's first, second and later contents, and those of each location, make up the whole."""
    log = chain_log(sessions=200)
    strata = score([mixture(log)], log, start_us=MIDDLE_US, end_us=END_US).strata
    places = ("first_event", "second_event", "third_event_on")
    locations = [name for name in strata if name.startswith("location:")]
    assert set(locations) == {"location:l0", "location:l1", "location:other"}
    for names in (places, locations, ("head", "torso", "tail")):
        assert np.array_equal(sum(strata[name].astype(int) for name in names), strata["all"].astype(int))
    # Sessions of six requests: one first event to one second to four later ones.
    assert strata["third_event_on"].sum() == pytest.approx(4 * strata["second_event"].sum(), rel=0.15)
    assert not strata["new_content"].any()  # all four contents appeared in the first hour


def test_score__memories_of_other_kinds_and_judges() -> None:
    """A memory without counters gets counters for the strata, and a method that judges is asked once a question."""
    log = chain_log(sessions=100)

    class Judge:
        name = "judge"

        def __init__(self) -> None:
            self.memory = SessionMemory()
            self.memory.update(log.before(MIDDLE_US))
            self.asked = 0

        def judge(self, sessions: SessionBatch, content: Int32, *, k: int) -> Judged:
            assert self.memory.time_us < sessions.ts_us[0] or k
            self.asked += 1
            forecast = NextContentForecast(np.arange(4, dtype=np.int32)[None], np.full((1, 4), 0.25))
            return Judged(forecast, np.full(1, 0.25), content < 2)

        def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
            raise AssertionError

        def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
            raise AssertionError

    method = Judge()
    scores = score([method], log, start_us=MIDDLE_US, end_us=END_US)
    row = scores.rows()[0]
    assert method.asked == row["n"] == len(scores.hour)
    assert row["coverage"] == pytest.approx(float((scores.marks["judge"].rank <= 2).mean()))
    assert row["milliseconds"] > 0
    assert scores.strata["head"].all()
    with pytest.raises(LogOrderError, match="holds requests until"):
        score([method], log, start_us=MIDDLE_US, end_us=END_US)


def test_evaluate__a_perfect_method_is_perfect_and_strata_add_up() -> None:
    """First and later events, and head, torso and tail, each make up the whole."""

    class Oracle(MixturePredictor):
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
    places = ("first_event", "second_event", "third_event_on")
    assert sum(fixed[s]["n"] for s in places) == fixed["all"]["n"]
    assert sum(fixed[s]["n"] for s in ("head", "torso", "tail") if s in fixed) == fixed["all"]["n"]
    mine = next(row for row in rows if row["model"] == "even" and row["stratum"] == "third_event_on")
    assert mine["mrr_gain"] > 0
