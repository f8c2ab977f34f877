"""Session-based nearest neighbours, the peers of the Markov mixture, as methods that learn every request as it comes.

With score(i) from `models.next_content.neighbour_scores` and x1 the current content, for i other than x1:

    p(i) = shares . (0, 1 / (N - 1), C(i) / sum over j != x1 of C(j), score(i) / sum over j of score(j))

C is fast popularity; the first share lies on the outcome "a content never requested before". So p is proper over the known
contents and that outcome, and ranks all of them. Settings and shares are fitted on the validation window.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numba import njit

from models.events import Float64, Int32, RequestLog
from models.next_content.candidates import insert
from models.next_content.neighbour_scores import ItemKNN, Scorer, VSkNN
from models.next_content.predictor import NextContentForecast
from models.next_content.session_memory import SessionMemory, SessionMemorySettings
from models.next_content.sessions import SessionBatch
from models.next_content.stream import Questions, finish, known_until, play, validation_questions
from models.next_content.weights import fitted_weights

COLUMNS = ("unseen", "uniform", "popularity", "neighbours")
DEPTH = 20
GRID: tuple[Scorer, ...] = (
    VSkNN(position_weighting="linear"),
    *(
        VSkNN(neighbours=neighbours, reach_contents=reach, idf=idf)
        for neighbours, reach, idf in product((100, 200), (1.0, np.inf), (False, True))
    ),
    *(
        ItemKNN(sample_size=sample_size, position_weighting=weighting, shrinkage=shrinkage)
        for sample_size, weighting, shrinkage in product((500, 2000), ("last", "quadratic"), (20.0, 100.0))
    ),
)
"""Variants that `fit_neighbours` compares: V-SkNN as published, its extensions (V-STAN where reach is finite), item-kNN."""


class NeighbourMethod:
    """Scores of neighbours as a distribution, mixed with popularity, uniform and unseen.

    Each column is conditioned on `i != x1`; without scores the neighbours' share goes to popularity, without other
    popular contents that of popularity to uniform, and without other contents that of uniform to unseen.

    Attributes:
        name: name of the method in tables.
        store: the sessions remembered; several methods may share one.
        scorer: the rule.
        shares: weights of the columns COLUMNS. (4,)
    """

    def __init__(self, scorer: Scorer, store: SessionMemory, shares: Float64, *, name: str = "") -> None:
        if shares.shape != (len(COLUMNS),) or shares.min() < 0 or not np.isclose(shares.sum(), 1.0):
            raise ValueError(f"Expected shares of {', '.join(COLUMNS)} that sum to one, got {shares!r}.")
        self.name = name or scorer.name
        self.store = store
        self.scorer = scorer
        self.shares = shares

    def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
        """The k likeliest next contents of each session, ties by code; never the one that it is at.

        Raises:
            LogOrderError: a question is older than the newest request learnt.
        """
        if k < 1:
            raise ValueError(f"Expected k >= 1, got {k!r}.")
        content, probability = np.full((len(sessions), k), -1, dtype=np.int32), np.zeros((len(sessions), k))
        for i in range(len(sessions)):
            known = self._known(sessions, i)
            _best(self.shares[1:] @ known, int(sessions.last[i]), content[i], probability[i])
        return NextContentForecast(content, probability)

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
        """Probability that each session goes to `content[i]` next; for unknown codes, to any unseen content. (n,)"""
        return np.asarray(self.columns(sessions, content) @ self.shares)

    def columns(self, sessions: SessionBatch, content: Int32) -> Float64:
        """What each column gives to `content[i]`, after back-off. (n, 4)"""
        given = np.zeros((len(sessions), len(COLUMNS)))
        for i in range(len(sessions)):
            known = self._known(sessions, i)
            if 0 <= content[i] < known.shape[1]:
                given[i, 1:] = known[:, content[i]]
            else:
                given[i] = (1.0, 0.0, 0.0, 0.0) if known.any() else 1.0
        return given

    def _known(self, sessions: SessionBatch, i: int) -> Float64:
        """Uniform, popularity and neighbours over the known contents, each summing to one, or to zero. (3, contents)"""
        memory, at_us = self.store, int(sessions.ts_us[i])
        memory.refuse_before(at_us)
        n, last = len(memory.contents), int(sessions.last[i])
        known = np.zeros((3, n))
        known[0] = 1.0
        known[1] = memory.counts.content[:n, -1]
        if 0 <= last < n:
            known[:2, last] = 0.0
        seen = _distinct(sessions.items[i], n)
        if len(seen):
            known[2] = self.scorer.scores(memory, seen, at_us)
        for column, total in enumerate(known.sum(axis=1)):
            if total > 0:
                known[column] /= total
            elif column > 0:
                known[column] = known[column - 1]
        return known


def fit_neighbours(
    log: RequestLog,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    grid: Sequence[Scorer] = GRID,
    memory: SessionMemorySettings | None = None,
    n_questions: int = 2000,
    seed: int = 0,
) -> list[NeighbourMethod]:
    """The best of each kind in the grid by MRR@20 on the validation window, over one memory as of its end.

    The window is played twice with all variants on one memory: the first pass fits the shares of each variant by
    likelihood, the second ranks with them. Requests before `train[0]` and from `validation[1]` on are not looked at.

    Raises:
        ValueError: the windows overlap or the validation window holds no request.
    """
    known = known_until(log, train=train, validation=validation)
    store = SessionMemory(memory)
    questions = validation_questions(known, validation, n=n_questions, seed=seed, timeout_us=store.timeout_us)
    shares = _fitted_shares(grid, store, known, questions)
    store = SessionMemory(memory)
    methods = [NeighbourMethod(scorer, store, w) for scorer, w in zip(grid, shares, strict=True)]
    mrr = _mean_reciprocal_ranks(methods, known, questions)
    finish(store, known, questions.rows)
    ranked = sorted(range(len(methods)), key=lambda j: -mrr[j])  # stable: equals stay in the order of the grid
    best = {methods[j].name: methods[j] for j in reversed(ranked)}
    return [best[name] for name in dict.fromkeys(scorer.name for scorer in grid)]


def _fitted_shares(
    grid: Sequence[Scorer], store: SessionMemory, log: RequestLog, questions: Questions
) -> list[Float64]:
    """Shares of greatest likelihood for each variant."""
    even = np.full(len(COLUMNS), 1.0 / len(COLUMNS))
    methods = [NeighbourMethod(scorer, store, even) for scorer in grid]
    given = np.zeros((len(methods), len(questions.rows), len(COLUMNS)))
    for i in play([store], log, questions.rows):
        session, came = _asked(log, questions, i)
        for j, method in enumerate(methods):
            given[j, i] = method.columns(session, came)[0]
    return [fitted_weights(columns, prior=even, prior_events=1.0) for columns in given]


def _mean_reciprocal_ranks(methods: Sequence[NeighbourMethod], log: RequestLog, questions: Questions) -> Float64:
    """MRR@20 of each method. (methods,)"""
    total = np.zeros(len(methods))
    for i in play([methods[0].store], log, questions.rows):
        session, came = _asked(log, questions, i)
        for j, method in enumerate(methods):
            place = np.flatnonzero(method.predict(session, k=DEPTH).content[0] == came[0])
            total[j] += (1.0 / (1.0 + place)).sum()
    return total / len(questions.rows)


def _asked(log: RequestLog, questions: Questions, i: int) -> tuple[SessionBatch, Int32]:
    """The i-th session, and what came."""
    row = int(questions.rows[i])
    return questions.sessions.rows(i, i + 1), log.content[row : row + 1]


def _distinct(items: Int32, n_contents: int) -> Int32:
    """Contents of a session, newest first, each once, at its newest position."""
    newest_first = items[::-1]
    newest_first = newest_first[(newest_first >= 0) & (newest_first < n_contents)]
    first = np.unique(newest_first, return_index=True)[1]
    return newest_first[np.sort(first)]


@njit(cache=True)
def _best(mixed: Float64, last: int, content: Int32, probability: Float64) -> None:
    """The likeliest contents other than `last` into (k,) rows, by falling probability, then by code."""
    kept = 0
    for item in range(len(mixed)):
        if item != last:
            kept = insert(content, probability, kept, item, mixed[item])
