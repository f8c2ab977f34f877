"""Prequential comparison: every drawn request is predicted at its own instant, before any memory has seen it.

Ranking is over the full catalogue; a content outside of the first 20, or never requested before, is a miss. The negative
log-likelihood is over all contents, those never requested sharing one outcome. Models stay as they were fitted while
their memories go on, so that several consecutive windows show how a model ages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from models.counters import CounterStore
from models.events import HOUR_US, Bool, Float64, Ids, Int32, Int64, RequestLog, window_name
from models.next_content.forecast import NextContentForecast
from models.next_content.judged import Judged
from models.next_content.scores import Marks, Scores
from models.next_content.sessions import SessionBatch
from models.next_content.strata import known_before, strata_of
from models.next_content.stream import Memory, Questions, draw_questions, play

DEPTH = 20
LEAST_PROBABILITY = 1e-12

Window = tuple[int, int]


class Method(Protocol):
    """What can be compared; what it remembers is its `memory` if it has one, else its `store`.

    A method with `judge(sessions, content, k=...) -> Judged` is asked once a question instead of twice.
    """

    name: str

    def predict(self, sessions: SessionBatch, *, k: int = ...) -> NextContentForecast: ...

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64: ...


class Recollection(Memory, Protocol):
    """A memory that refuses to answer for an instant in its past."""

    @property
    def contents(self) -> Ids: ...

    @property
    def locations(self) -> Ids: ...

    @property
    def timeout_us(self) -> int: ...

    def refuse_before(self, at_us: int) -> None: ...


def evaluate(
    methods: Sequence[Method], log: RequestLog, *, reference: str | None = None, seed: int = 0, **asked: Any
) -> list[dict[str, Any]]:
    """Rows of `score`; see `Scores.rows`."""
    return score(methods, log, seed=seed, **asked).rows(reference=reference, seed=seed)


def score(
    methods: Sequence[Method],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    n_events: int = 20_000,
    window_hours: float | None = None,
    window: str | None = None,
    seed: int = 0,
) -> Scores:
    """Asks every method about the same requests of [start, end), each just before its memory sees it.

    The methods' memories are fed on the way; they must be coded as the log is (the log that they were built from, or a
    longer one of the same ingest). Methods may share memories.

    Args:
        methods: what is compared; names must differ.
        log: requests from any time before the window on.
        start_us: start of the window; no memory may hold a request from it or later.
        end_us: end of the window.
        n_events: most requests asked about in each part of the window, drawn at random.
        window_hours: length of the consecutive parts; None leaves the window whole.
        window: name of the whole window in the rows, by default its two ends.
        seed: which requests are drawn.

    Raises:
        ValueError: two methods share a name, a memory is coded differently, or no request is in the window.
        LogOrderError: a memory already holds requests of the window.
    """
    memories = list({id(memory): memory for memory in map(memory_of, methods)}.values())
    _check(methods, memories, log)
    for memory in memories:
        memory.refuse_before(start_us)
    known = log.before(end_us)
    parts = windows_of((start_us, end_us), window_hours)
    timeout_us = memories[0].timeout_us
    questions, windows = questions_of(known, parts, n_events=n_events, seed=seed, timeout_us=timeout_us)
    if not len(questions.rows):
        raise ValueError(f"No requests in the window [{start_us!r}, {end_us!r}); choose another.")
    if window is not None:
        windows = {window: windows.pop(window_name(start_us, end_us)), **windows}
    return _ask_all(methods, memories, known, questions, windows)


def memory_of(method: Method) -> Recollection:
    """What has to be fed for a method to keep up."""
    memory: Recollection | None = getattr(method, "memory", None)
    if memory is not None:
        return memory
    store: Recollection = method.store  # type: ignore[attr-defined]
    return store


def windows_of(whole: Window, hours: float | None) -> list[Window]:
    """The window cut into consecutive parts of so many hours; the last may be shorter."""
    if hours is None:
        return [whole]
    if not hours > 0:
        raise ValueError(f"Expected window_hours > 0, got {hours!r}.")
    starts = range(whole[0], whole[1], round(hours * HOUR_US))
    return list(zip(starts, [*starts[1:], whole[1]], strict=True))


def questions_of(
    log: RequestLog, parts: Sequence[Window], *, n_events: int, seed: int, timeout_us: int
) -> tuple[Questions, dict[str, Bool]]:
    """At most n questions of each part, and which belong to the whole and to each part, by name. (n,)"""
    drawn = [draw_questions(log, window=part, n=n_events, seed=seed, timeout_us=timeout_us) for part in parts]
    questions = Questions.joined(drawn)
    part_of = np.repeat(np.arange(len(parts)), [len(part.rows) for part in drawn])
    windows = {window_name(parts[0][0], parts[-1][1]): np.ones(len(part_of), dtype=np.bool_)}
    if len(parts) > 1:
        windows |= {window_name(*part): part_of == number for number, part in enumerate(parts)}
    return questions, windows


def _ask_all(
    methods: Sequence[Method],
    memories: Sequence[Recollection],
    log: RequestLog,
    questions: Questions,
    windows: dict[str, Bool],
) -> Scores:
    n = len(questions.rows)
    sheets = {method.name: _Sheet(n) for method in methods}
    share, age_us = np.zeros(n), np.zeros(n, dtype=np.int64)
    store, played = _counters_among(memories)
    for i in play(played, log, questions.rows):
        session, row = questions.sessions.rows(i, i + 1), int(questions.rows[i])
        came = log.content[row : row + 1]
        share[i], age_us[i] = known_before(store, int(came[0]), int(log.ts_us[row]))
        for method in methods:
            sheets[method.name].ask(i, method, session, came)
    strata = strata_of(questions.sessions, share, age_us, log.locations)
    marks = {name: sheet.marks() for name, sheet in sheets.items()}
    return Scores(windows, log.ts_us[questions.rows] // HOUR_US, strata, marks)


def _counters_among(memories: Sequence[Recollection]) -> tuple[CounterStore, list[Recollection]]:
    """Counters that tell popular contents from rare ones, and all that has to be played: counters are added if none."""
    for memory in memories:
        store = memory if isinstance(memory, CounterStore) else getattr(memory, "store", None)
        if isinstance(store, CounterStore):
            return store, list(memories)
    store = CounterStore()
    return store, [*memories, store]


class _Sheet:
    """Marks of one method under way."""

    def __init__(self, n: int) -> None:
        self.rank: Int64 = np.zeros((1, n), dtype=np.int64)
        self.nats, self.top = np.zeros((1, n)), np.zeros((1, n))
        self.listed: Bool | None = None
        self.seconds = 0.0

    def ask(self, i: int, method: Method, session: SessionBatch, came: Int32) -> None:
        began = time.process_time()
        forecast, probability, listed = _judged(method, session, came)
        self.seconds += time.process_time() - began
        places = np.flatnonzero(forecast.content[0] == came[0])
        self.rank[0, i] = places[0] + 1 if len(places) else 0
        self.nats[0, i] = -np.log(max(probability, LEAST_PROBABILITY))
        self.top[0, i] = forecast.probability[0, 0]
        if listed is not None:
            if self.listed is None:
                self.listed = np.zeros(self.rank.shape, dtype=np.bool_)
            self.listed[0, i] = listed

    def marks(self) -> Marks:
        took = np.array([1000.0 * self.seconds / max(self.rank.shape[1], 1)])
        return Marks(self.rank, self.nats, self.top, self.listed, took)


def _judged(method: Method, session: SessionBatch, came: Int32) -> tuple[NextContentForecast, float, bool | None]:
    """The ranking, the probability of what came, and whether it was on the shortlist, if there is one."""
    judge = getattr(method, "judge", None)
    if judge is None:
        return method.predict(session, k=DEPTH), float(method.probability(session, came)[0]), None
    judged: Judged = judge(session, came, k=DEPTH)
    return judged.forecast, float(judged.probability[0]), bool(judged.listed[0])


def _check(methods: Sequence[Method], memories: Sequence[Recollection], log: RequestLog) -> None:
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"Methods need different names, got {names!r}.")
    for memory in memories:
        for mine, theirs in ((memory.contents, log.contents), (memory.locations, log.locations)):
            shared = min(len(mine), len(theirs))
            if len(mine) > len(theirs) or not np.array_equal(mine[:shared], theirs[:shared]):
                raise ValueError(
                    "A memory is coded differently from the log. Build both from one ingest, the log at least as long."
                )
