"""Concurrent requests answered together.

The first request opens a batch; it closes when it holds `max_batch_size` requests or `batch_timeout` has passed. While
one batch is being answered in a thread, the next one fills, so that batches grow with the load and a lone request waits
for the timeout only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from serving.problems import too_busy

Question = TypeVar("Question")
Answer = TypeVar("Answer")
QuestionIn = TypeVar("QuestionIn", contravariant=True)
AnswerOut = TypeVar("AnswerOut", covariant=True)


class Answerer(Protocol[QuestionIn, AnswerOut]):
    """Answers many questions at once, in their order."""

    def answer(self, questions: Sequence[QuestionIn]) -> Sequence[AnswerOut]: ...


@dataclass(frozen=True)
class BatchSettings:
    """How large a batch may grow, and how long it may wait."""

    max_batch_size: int
    """Most requests in a batch."""
    batch_timeout_seconds: float
    """Longest wait for further requests, in seconds."""
    max_waiting: int
    """Most requests that wait."""


@dataclass(frozen=True, eq=False)
class Waiting(Generic[Question, Answer]):
    """A request in the queue, bound to what answered when it came: a swap in between does not touch it."""

    answerer: Answerer[Question, Answer]
    question: Question
    answered: asyncio.Future[Answer]


class Batcher(Generic[Question, Answer]):
    """A queue and the task that empties it."""

    def __init__(
        self, settings: BatchSettings, executor: Executor, *, observe: Callable[[int], None] = lambda size: None
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._observe = observe
        self._queue: asyncio.Queue[Waiting[Question, Answer]] = asyncio.Queue(settings.max_waiting)

    async def ask(self, answerer: Answerer[Question, Answer], question: Question) -> Answer:
        """The answer to one question.

        Raises:
            Problem: 503 where too many wait already.
        """
        waiting = Waiting(answerer, question, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise too_busy(self._settings.max_waiting) from None
        answer: Answer = await waiting.answered
        return answer

    async def run(self) -> None:
        """Answers batches until cancelled."""
        while True:
            batch = [waiting for waiting in await self._gather() if not waiting.answered.done()]
            for same in _by_answerer(batch):
                self._observe(len(same))
                await self._answer(same)

    async def _gather(self) -> list[Waiting[Question, Answer]]:
        batch = [await self._queue.get()]
        closes_at = asyncio.get_running_loop().time() + self._settings.batch_timeout_seconds
        while len(batch) < self._settings.max_batch_size:
            if self._queue.empty():
                try:
                    async with asyncio.timeout_at(closes_at):
                        batch.append(await self._queue.get())
                except TimeoutError:
                    break
            else:
                batch.append(self._queue.get_nowait())
        return batch

    async def _answer(self, batch: list[Waiting[Question, Answer]]) -> None:
        questions = [waiting.question for waiting in batch]
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._executor, batch[0].answerer.answer, questions)
        except Exception as error:  # whoever asked gets it; the queue goes on
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for waiting in batch:  # one bad question must not spoil the others' answers
                await self._answer([waiting])
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answered.done():
                waiting.answered.set_result(answer)


def _fail(waiting: Waiting[Any, Any], error: Exception) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(error)


def _by_answerer(batch: list[Waiting[Question, Answer]]) -> list[list[Waiting[Question, Answer]]]:
    groups: dict[int, list[Waiting[Question, Answer]]] = {}
    for waiting in batch:
        groups.setdefault(id(waiting.answerer), []).append(waiting)
    return list(groups.values())
