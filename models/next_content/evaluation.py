"""Prequential comparison: every drawn request is predicted at its own instant, before any store has seen it.

Ranking is over the full catalogue; a content outside of the first 20, or never requested before, is a miss. The negative
log-likelihood is over all contents, those never requested sharing one outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from models.calibration import block_bootstrap_interval
from models.counters import CounterStore
from models.events import HOUR_US, Bool, Float64, Int32, Int64, RequestLog
from models.next_content.predictor import NextContentForecast
from models.next_content.sessions import SessionBatch
from models.next_content.stream import Questions, draw_questions, play

DEPTH = 20
RECALL_AT = (1, 5, 10, 20)
HEAD_SHARE, TORSO_SHARE = 0.01, 0.0005
NEW_US = 3 * HOUR_US
LEAST_PROBABILITY = 1e-12


class Method(Protocol):
    """What can be compared."""

    name: str
    store: CounterStore

    def predict(self, sessions: SessionBatch, *, k: int = ...) -> NextContentForecast: ...

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64: ...


@dataclass(frozen=True)
class Scores:
    """What each method made of each question.

    Attributes:
        window: name of the window in the rows.
        hour: clock hour of each question, the block of the bootstrap. (n,)
        strata: which questions belong to which stratum. name -> (n,)
        rank: place of what came in each method's list, from 1; 0 for a miss. name -> (n,)
        nats: negative log-probability of what came. name -> (n,)
    """

    window: str
    hour: Int64
    strata: Mapping[str, Bool]
    rank: Mapping[str, Int64]
    nats: Mapping[str, Float64]

    def rows(self, *, reference: str | None = None, seed: int = 0) -> list[dict[str, Any]]:
        """One row a model and stratum; with a reference, paired gains over it with 95 % intervals over hours.

        Gains are positive where the model is better than the reference.
        """
        rows = []
        for model in self.rank:
            for stratum, inside in self.strata.items():
                if inside.any():
                    row = {"window": self.window, "model": model, "stratum": stratum, "n": int(inside.sum())}
                    row |= _metrics(self.rank[model][inside], self.nats[model][inside])
                    if reference is not None:
                        row |= self._gains(model, reference, inside, seed)
                    rows.append(row)
        return rows

    def _gains(self, model: str, reference: str, inside: Bool, seed: int) -> dict[str, Any]:
        gains: dict[str, Any] = {"reference": reference}
        for name, mine, theirs in (
            ("mrr_gain", _reciprocal(self.rank[model]), _reciprocal(self.rank[reference])),
            ("nll_gain", self.nats[reference], self.nats[model]),
        ):
            difference = (mine - theirs)[inside]
            low, high = block_bootstrap_interval(difference, self.hour[inside], seed=seed)
            gains |= {name: float(difference.mean()), f"{name}_low": low, f"{name}_high": high}
        return gains


def evaluate(
    methods: Sequence[Method],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    n_events: int = 20_000,
    window: str = "test",
    reference: str | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of `score`; see `Scores.rows`."""
    scores = score(methods, log, start_us=start_us, end_us=end_us, n_events=n_events, window=window, seed=seed)
    return scores.rows(reference=reference, seed=seed)


def score(
    methods: Sequence[Method],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    n_events: int = 20_000,
    window: str = "test",
    seed: int = 0,
) -> Scores:
    """Asks every method about the same requests of [start, end), each just before its store sees it.

    The methods' stores are fed on the way; they must be coded as the log is (the log that they were built from, or a
    longer one of the same ingest). Methods may share stores.

    Args:
        methods: what is compared; names must differ.
        log: requests from any time before the window on.
        start_us: start of the window; no store may hold a request from it or later.
        end_us: end of the window.
        n_events: most requests asked about, drawn at random.
        window: name of the window in the rows.
        seed: which requests are drawn.

    Raises:
        ValueError: two methods share a name, a store is coded differently, or no request is in the window.
        LogOrderError: a store already holds requests of the window.
    """
    stores = list({id(method.store): method.store for method in methods}.values())
    _check(methods, stores, log)
    for store in stores:
        store.deflation(store.popularity.per_hour, start_us)
    known = log.before(end_us)
    timeout_us = stores[0].walks.rates.timeout_us
    questions = draw_questions(known, window=(start_us, end_us), n=n_events, seed=seed, timeout_us=timeout_us)
    if not len(questions.rows):
        raise ValueError(f"No requests in the window [{start_us!r}, {end_us!r}); choose another.")
    return _ask_all(methods, stores, known, questions, window)


def _ask_all(
    methods: Sequence[Method],
    stores: Sequence[CounterStore],
    log: RequestLog,
    questions: Questions,
    window: str,
) -> Scores:
    n = len(questions.rows)
    rank = {method.name: np.zeros(n, dtype=np.int64) for method in methods}
    nats = {method.name: np.zeros(n) for method in methods}
    share, age_us = np.zeros(n), np.zeros(n, dtype=np.int64)
    for i in play(stores, log, questions.rows):
        session = questions.sessions.rows(i, i + 1)
        row = int(questions.rows[i])
        came = log.content[row : row + 1]
        share[i], age_us[i] = _known_before(stores[0], int(came[0]), int(log.ts_us[row]))
        for method in methods:
            listed = method.predict(session, k=DEPTH).content[0]
            rank[method.name][i] = _place(listed, int(came[0]))
            nats[method.name][i] = -np.log(max(float(method.probability(session, came)[0]), LEAST_PROBABILITY))
    first = questions.sessions.last < 0
    strata = {
        "all": np.ones(n, dtype=bool),
        "head": share >= HEAD_SHARE,
        "torso": (share >= TORSO_SHARE) & (share < HEAD_SHARE),
        "tail": share < TORSO_SHARE,
        "new_content": age_us < NEW_US,
        "first_event": first,
        "later_event": ~first,
    }
    return Scores(window, log.ts_us[questions.rows] // HOUR_US, strata, rank, nats)


def _known_before(store: CounterStore, content: int, at_us: int) -> tuple[float, int]:
    """Share of a content in all requests at the slowest half-life, and its age; (0, 0) for an unseen one."""
    if content >= len(store.contents):
        return 0.0, 0
    p = store.popularity
    return float(p.content[content, -1] / p.total[-1]), at_us - int(p.content_first_us[content])


def _place(listed: Int32, came: int) -> int:
    places = np.flatnonzero(listed == came)
    return int(places[0]) + 1 if len(places) else 0


def _reciprocal(rank: Int64) -> Float64:
    return np.divide(1.0, rank, out=np.zeros(len(rank)), where=rank > 0)


def _metrics(rank: Int64, nats: Float64) -> dict[str, float]:
    recall = {f"recall_at_{k}": float(np.mean((rank > 0) & (rank <= k))) for k in RECALL_AT}
    return recall | {"mrr_at_20": float(_reciprocal(rank).mean()), "nll": float(nats.mean())}


def _check(methods: Sequence[Method], stores: Sequence[CounterStore], log: RequestLog) -> None:
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"Methods need different names, got {names!r}.")
    for store in stores:
        for mine, theirs in ((store.contents, log.contents), (store.locations, log.locations)):
            shared = min(len(mine), len(theirs))
            if len(mine) > len(theirs) or not np.array_equal(mine[:shared], theirs[:shared]):
                raise ValueError(
                    "A store is coded differently from the log. Build both from one ingest, the log at least as long."
                )
