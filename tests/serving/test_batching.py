"""Requests are answered together, but nobody may notice: each gets its own answer, or its own error."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.batching import Batcher, BatchSettings
from serving.problems import Problem

pytestmark = pytest.mark.anyio


class Squares:
    """Squares numbers, refuses negative ones, and remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def answer(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        if min(questions) < 0:
            raise ValueError(f"{min(questions)} is negative")
        return [question**2 for question in questions]


@contextlib.asynccontextmanager
async def batcher(**changes: float) -> AsyncIterator[Batcher[int, int]]:
    limits = BatchSettings(**({"max_batch_size": 8, "batch_timeout_seconds": 0.02, "max_waiting": 64} | changes))  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as executor:
        found: Batcher[int, int] = Batcher(limits, executor)
        task = asyncio.create_task(found.run())
        yield found
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_ask__each_gets_its_own_answer() -> None:
    """Twenty at once: every answer belongs to its question, and no batch is larger than allowed."""
    squares = Squares()
    async with batcher() as asked:
        answers = await asyncio.gather(*(asked.ask(squares, n) for n in range(20)))
    assert answers == [n**2 for n in range(20)]
    assert max(map(len, squares.batches)) == 8
    assert len(squares.batches) < 20


async def test_ask__a_bad_question_spoils_no_other() -> None:
    """The one that fails gets the error; those that shared its batch get their answers."""
    squares = Squares()
    async with batcher() as asked:
        found = await asyncio.gather(*(asked.ask(squares, n) for n in (1, -2, 3)), return_exceptions=True)
    assert [found[0], found[2]] == [1, 9]
    assert str(found[1]) == "-2 is negative"


async def test_ask__a_swap_does_not_mix() -> None:
    """Questions are answered by what was in use when they came, even when they share a batch with later ones."""
    old, new = Squares(), Squares()
    async with batcher() as asked:
        await asyncio.gather(asked.ask(old, 1), asked.ask(new, 2), asked.ask(old, 3))
    assert (old.batches, new.batches) == ([[1, 3]], [[2]])


async def test_ask__an_empty_queue_waits_for_the_timeout_only() -> None:
    """A lone request is a batch of one."""
    squares = Squares()
    async with batcher(batch_timeout_seconds=0.0) as asked:
        assert await asked.ask(squares, 5) == 25
    assert squares.batches == [[5]]


class Stuck(Squares):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def answer(self, questions: Sequence[int]) -> list[int]:
        self.go.wait(20)
        return super().answer(questions)


async def test_ask__too_many_waiting() -> None:
    """A queue without end would turn a slow moment into a long one: the next one is told to come back."""
    stuck = Stuck()
    async with batcher(max_batch_size=1, max_waiting=2) as asked:
        first = asyncio.create_task(asked.ask(stuck, 1))
        await asyncio.sleep(0.05)  # taken from the queue, being answered
        waiting = [asyncio.create_task(asked.ask(stuck, n)) for n in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as caught:
            await asked.ask(stuck, 4)
        stuck.go.set()
        assert await asyncio.gather(first, *waiting) == [1, 4, 9]
    assert caught.value.status_code == 503
    assert "PREMIRROR_MAX_WAITING" in str(caught.value.detail)


async def test_ask__who_left_is_not_answered() -> None:
    """A request whose time is up costs nothing more."""
    stuck = Stuck()
    async with batcher(max_batch_size=1) as asked:
        first = asyncio.create_task(asked.ask(stuck, 1))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asked.ask(stuck, 2)
        stuck.go.set()
        assert await first == 1
        assert await asked.ask(stuck, 3) == 9
    assert stuck.batches == [[1], [3]]
