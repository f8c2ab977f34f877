"""Work over many rows in blocks of a fixed length, on as many threads as the caller allows.

Blocks keep temporary arrays in the processor's cache and memory flat. Their bounds depend on the number of rows alone,
and each is computed by one thread with one torch thread, so that any number of threads gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
U = TypeVar("U")

BLOCK_ROWS = 1 << 15


def blocks(rows: int) -> list[slice]:
    """Slices of `BLOCK_ROWS` rows, the last one shorter; a single empty one where there are none."""
    return [slice(first, min(first + BLOCK_ROWS, rows)) for first in range(0, max(rows, 1), BLOCK_ROWS)]


def for_each_block(work: Callable[[slice], None], rows: int, *, threads: int = 1) -> None:
    """Calls `work` with every block, several at once when there are threads for them.

    Raises:
        ValueError: fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f"Expected threads >= 1, got {threads!r}.")
    with _one_torch_thread():
        if threads == 1:
            for block in blocks(rows):
                work(block)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="block") as pool:
            for _ in pool.map(work, blocks(rows)):
                pass


def both(first: Callable[[], T], second: Callable[[], U], *, threads: int = 1) -> tuple[T, U]:
    """The answers of two pieces of work, side by side when there are threads for them."""
    if threads == 1:
        return first(), second()
    with ThreadPoolExecutor(1, thread_name_prefix="piece") as pool:
        aside = pool.submit(first)
        answer = second()
        return aside.result(), answer


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keeps torch from starting threads of its own, in this thread and in those started meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
