"""What the rows of one contest need not do twice: ask the models, and make the same plans for other ways of routing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pipelines.backtest import Planned, Planner
from pipelines.outlook import Outlook, RememberedOutlook
from pipelines.planning import Copies

MOST_PLAN_BYTES = 512 << 20
"""What remembered plans may take in memory before later ones are made anew for each row."""


@dataclass
class PlanBook:
    """Plans by instant, each with what was held and what had been moved before it; full once they take `free_bytes`."""

    free_bytes: int = MOST_PLAN_BYTES
    made: dict[int, tuple[Copies, int, Planned]] = field(default_factory=dict)

    def find(self, at_us: int, held: Copies, spent_bytes: int = 0) -> Planned | None:
        """The plan that was made at the instant where the same was held, with as much of the budget gone."""
        before, gone, planned = self.made.get(at_us, (None, 0, None))
        same = before is not None and gone == spent_bytes and _same(before, held)
        return planned if same else None

    def add(self, at_us: int, held: Copies, planned: Planned, spent_bytes: int = 0) -> None:
        arrays = [*vars(held).values(), *vars(planned.copies).values(), *vars(planned.holdings).values()]
        n_bytes = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        if at_us not in self.made and n_bytes <= self.free_bytes:
            self.free_bytes -= n_bytes
            self.made[at_us] = held, spent_bytes, planned


class RememberedPlanner:
    """Takes a plan from the book where one was made for what is held now; makes the others, and writes them down.

    Rows that differ in what happens between plans alone, such as in routing, share one book: a planner whose answer
    follows from its outlook and from what is held gives them the same plans.
    """

    def __init__(self, planner: Planner, book: PlanBook) -> None:
        self._planner, self._book = planner, book

    def plan(self, at_us: int, held: Copies) -> Planned:
        return self._known(self._planner.plan, at_us, held, 0)

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        return self._known(partial(self._planner.refresh, spent_bytes=spent_bytes), at_us, held, spent_bytes)

    def _known(self, make: Callable[[int, Copies], Planned], at_us: int, held: Copies, spent_bytes: int) -> Planned:
        known = self._book.find(at_us, held, spent_bytes)
        if known is not None:
            return known
        planned = make(at_us, held)
        self._book.add(at_us, held, planned, spent_bytes)
        return planned


@dataclass
class Memo:
    """Outlooks and plan books by name, made when first asked for."""

    outlooks: dict[str, RememberedOutlook] = field(default_factory=dict)
    books: dict[str, PlanBook] = field(default_factory=dict)

    def outlook(self, name: str, make: Callable[[], Outlook]) -> Outlook:
        return self.outlooks.setdefault(name, RememberedOutlook(make))

    def book(self, name: str) -> PlanBook:
        return self.books.setdefault(name, PlanBook())


def _same(one: Copies, other: Copies) -> bool:
    return np.array_equal(one.segment, other.segment) and np.array_equal(one.source, other.source)
