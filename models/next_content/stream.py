"""Playing a log past stores so that each drawn request is asked about just before the stores see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.events import Int64, RequestLog
from models.next_content.sessions import SessionBatch, moves, previous_rows, sessions_at


class Memory(Protocol):
    """What can be fed a log, in time order."""

    @property
    def time_us(self) -> int: ...

    def update(self, log: RequestLog) -> None: ...


@dataclass(frozen=True)
class Questions:
    """Requests to be predicted: rows of a log, and their sessions as they stood just before."""

    rows: Int64
    sessions: SessionBatch

    @classmethod
    def joined(cls, parts: Sequence[Questions]) -> Questions:
        """Questions of windows that follow one another."""
        return cls(np.concatenate([part.rows for part in parts]), SessionBatch.joined([p.sessions for p in parts]))


def known_until(log: RequestLog, *, train: tuple[int, int], validation: tuple[int, int]) -> RequestLog:
    """The requests from the start of training to the end of validation, as they were known then.

    Raises:
        ValueError: the windows overlap.
    """
    if validation[0] < train[1] or train[1] < train[0]:
        raise ValueError(f"Validation must begin where training ends or later, got {train!r} and {validation!r}.")
    return log.before(validation[1]).between(train[0], validation[1])


def validation_questions(log: RequestLog, window: tuple[int, int], *, n: int, seed: int, timeout_us: int) -> Questions:
    """Questions of the validation window, of which there must be some."""
    questions = draw_questions(log, window=window, n=n, seed=seed, timeout_us=timeout_us)
    if not len(questions.rows):
        raise ValueError(f"No requests in the validation window {window!r}; widen it or choose another.")
    return questions


def draw_questions(log: RequestLog, *, window: tuple[int, int], n: int, seed: int, timeout_us: int) -> Questions:
    """Draws at most n moves of the window, without replacement, in time order.

    Repeats of the content that a session is at are no questions: they have an answer without a model.
    """
    previous = previous_rows(log, timeout_us=timeout_us)
    asked = moves(log, previous)
    asked = asked[(log.ts_us[asked] >= window[0]) & (log.ts_us[asked] < window[1])]
    if len(asked) > n:
        asked = np.sort(np.random.default_rng(seed).choice(asked, size=n, replace=False))
    return Questions(asked, sessions_at(log, asked, previous))


def play(stores: Sequence[Memory], log: RequestLog, rows: Int64) -> Iterator[int]:
    """Yields 0, 1, 2 ... when the stores hold exactly the requests before rows[0], rows[1], ...

    Stores may already hold a beginning of the log: requests up to their own newest instant are not fed again. After the
    last question they are left as they are.
    """
    fed = {id(store): int(np.searchsorted(log.ts_us, store.time_us, side="right")) for store in stores}
    for number, row in enumerate(rows):
        for store in stores:
            _feed(store, log, fed[id(store)], int(row))
            fed[id(store)] = max(fed[id(store)], int(row))
        yield number


def finish(store: Memory, log: RequestLog, rows: Int64) -> None:
    """Feeds what `play` left: the requests from the last question on."""
    _feed(store, log, int(rows[-1]) if len(rows) else 0, len(log))


def _feed(store: Memory, log: RequestLog, first: int, last: int) -> None:
    if last > first:
        store.update(log.rows(first, last))
