"""What every row of a comparison is given, and what it comes to: the same requests, devices and limits for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from models.churn.forecaster import ChurnForecaster
from models.demand.forecaster import DemandForecaster
from pipelines.arena import Arena
from pipelines.backtest import PlanNote
from pipelines.config import ReplayRun
from pipelines.memo import Memo
from pipelines.row_names import PlayedRow, Row
from pipelines.saved_plan import FixedPlan
from placement.audience import AudienceTally
from placement.tally import ReplayTally

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Contest:
    """The arena, the run's settings and the champions; `watch` is told how many plans are made, and of how many.

    `memo` holds what rows need not do twice; contests of one backtest share it.
    `plan` is the saved plan that is played beside the other rows, if any.
    """

    arena: Arena
    run: ReplayRun
    demand: DemandForecaster
    churn: ChurnForecaster
    watch: Watch
    memo: Memo = field(default_factory=Memo)
    plan: FixedPlan | None = None

    @property
    def judge(self) -> dict[str, Any]:
        """Arguments of every replay of the run."""
        return {"settings": self.run.replay, "routing": self.run.routing, "seed": self.run.seed}


@dataclass(frozen=True)
class Result:
    """What one row came to.

    Attributes:
        by_prior: plans for which the demand model's prior answered, because the model had lost to it lately.
        audience: what the mesh served by how many asked; None where it was not counted.
        notes: what a reader of the figures must know.
    """

    row: PlayedRow
    tally: ReplayTally
    plans: list[PlanNote]
    by_prior: int = 0
    audience: AudienceTally | None = None
    notes: tuple[str, ...] = ()


Player = Callable[[Row, Contest], Result]
"""Plays one row from the start of the window to its end."""
