"""Maps units of work, in order, in this process or over a pool of processes.

Units are independent and their results come back in the order of the units, so that a merge which goes through them in
order gives the same bytes whoever did the work.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[str, int, int], None]
"""Called with a label, units done and units in all."""


def no_progress(label: str, done: int, total: int) -> None:
    """Tells nobody."""


class Runner(Protocol):
    """Does independent units of work."""

    def map(self, work: Callable[[T], R], units: Sequence[T], *, label: str) -> list[R]:
        """Results in the order of the units; the first error of a unit is raised."""
        ...


@dataclass(frozen=True)
class SerialRunner:
    """One unit after the other, in this process."""

    progress: Progress = no_progress

    def map(self, work: Callable[[T], R], units: Sequence[T], *, label: str) -> list[R]:
        """Results in the order of the units."""
        results = []
        for done, unit in enumerate(units, start=1):
            results.append(work(unit))
            self.progress(label, done, len(units))
        return results


@dataclass(frozen=True)
class PoolRunner:
    """Units over several fresh processes; `work` and units must be importable and plain."""

    processes: int = 0
    """How many processes; 0 takes one for each core."""
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        if self.processes < 0:
            raise ValueError(f"Expected processes >= 0, got {self.processes}.")

    def map(self, work: Callable[[T], R], units: Sequence[T], *, label: str) -> list[R]:
        """Results in the order of the units."""
        processes = min(self.processes or os.cpu_count() or 1, max(len(units), 1))
        # Fresh processes, because DuckDB and Arrow run threads and a forked copy of a locked lock stays locked.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
            futures = [pool.submit(work, unit) for unit in units]
            results = []
            try:
                for done, future in enumerate(futures, start=1):
                    results.append(future.result())
                    self.progress(label, done, len(units))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return results


def _end_with_parent() -> None:
    """Ends this process when the one that began it is gone, however it went: nobody waits for the results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_end, args=(parent,), daemon=True).start()


def _wait_and_end(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
