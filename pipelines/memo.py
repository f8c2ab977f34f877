"""What the rows of one contest need not do twice: ask the models, and make the same plans for other ways of routing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipelines.backtest import Planned, Planner
from pipelines.outlook import Outlook, RememberedOutlook
from pipelines.planning import Copies

MOST_PLAN_BYTES = 512 << 20
"""What remembered plans may take in memory before later ones are made anew for each row."""


@dataclass
class PlanBook:
    """Plans by instant, each with what was held before it; full once they take `free_bytes`."""

    free_bytes: int = MOST_PLAN_BYTES
    made: dict[int, tuple[Copies, Planned]] = field(default_factory=dict)

    def find(self, at_us: int, held: Copies) -> Planned | None:
        """The plan that was made at the instant where the same was held."""
        before, planned = self.made.get(at_us, (None, None))
        return planned if before is not None and _same(before, held) else None

    def add(self, at_us: int, held: Copies, planned: Planned) -> None:
        arrays = [*vars(held).values(), *vars(planned.copies).values(), *vars(planned.holdings).values()]
        n_bytes = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        if at_us not in self.made and n_bytes <= self.free_bytes:
            self.free_bytes -= n_bytes
            self.made[at_us] = held, planned


class RememberedPlanner:
    """Takes a plan from the book where one was made for what is held now; makes the others, and writes them down.

    Rows that differ in what happens between plans alone, such as in routing, share one book: a planner whose answer
    follows from its outlook and from what is held gives them the same plans.
    """

    def __init__(self, planner: Planner, book: PlanBook) -> None:
        self._planner, self._book = planner, book

    def plan(self, at_us: int, held: Copies) -> Planned:
        return self._known(self._planner.plan, at_us, held)

    def refresh(self, at_us: int, held: Copies) -> Planned:
        return self._known(self._planner.refresh, at_us, held)

    def _known(self, make: Callable[[int, Copies], Planned], at_us: int, held: Copies) -> Planned:
        known = self._book.find(at_us, held)
        if known is not None:
            return known
        planned = make(at_us, held)
        self._book.add(at_us, held, planned)
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
