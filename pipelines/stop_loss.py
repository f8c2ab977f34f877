"""The stop-loss at work in a replay: where mirroring has cost more than it saved, nothing more is pushed for a while.

What the devices of such a location hold they keep, and go on serving: it is paid for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipelines.backtest import Planned
from pipelines.planning import Copies
from placement.stop_loss import StopLoss, StopLossSettings
from placement.tally import HOUR_US, ReplayTally
from placement.trace import Holdings, ReplayWorld

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


class StopLossGuard:
    """Takes the pushes to stopped locations out of each plan.

    Args:
        world: what is replayed.
        settings: when a location is stopped and tried again.
    """

    def __init__(self, world: ReplayWorld, settings: StopLossSettings) -> None:
        self._world = world
        self._rule = StopLoss(settings, world.n_locations)
        self._hours_seen = 0

    def bar(self, planned: Planned, held: Copies, tally: ReplayTally) -> Planned:
        """The plan, with every node of a stopped location left as it is.

        Args:
            planned: what the planner wants.
            held: what is held until then.
            tally: what was counted until the plan's instant; its finished hours are judged.
        """
        self._learn(tally, planned.holdings.start_us)
        world = self._world
        stopped = ~self._rule.on[world.location] & (world.tier != 1)
        if not stopped.any():
            return planned
        keeps = _keeps(stopped, held, planned.holdings)
        copies = Copies(*_barred(stopped, planned.copies, keeps))
        return replace(
            planned,
            holdings=_barred_holdings(stopped, planned.holdings, keeps),
            copies=copies,
            note=replace(planned.note, bytes_moved=self._moved(copies, held), copies_by_tier=self._by_tier(copies)),
        )

    def _learn(self, tally: ReplayTally, now_us: int) -> None:
        finished = min((now_us - tally.start_hour_us) // HOUR_US, tally.n_hours)
        for row in tally.net_saving()[self._hours_seen : finished]:
            self._rule.observe(row)
        self._hours_seen = max(self._hours_seen, finished)

    def _moved(self, copies: Copies, held: Copies) -> int:
        n = self._world.n_sources
        new = ~np.isin(copies.segment * n + copies.source, held.segment * n + held.source)
        return int(self._world.segment_bytes[copies.segment[new]].sum())

    def _by_tier(self, copies: Copies) -> tuple[int, int, int]:
        counts = np.bincount(self._world.tier[copies.source], minlength=4)
        return int(counts[1]), int(counts[2]), int(counts[3])


def _keeps(stopped: Bool, held: Copies, plan: Holdings) -> Copies:
    """What stopped nodes hold, but for nodes that may not serve any more."""
    stays = stopped[held.source]
    if plan.eligible is not None:
        stays = stays & plan.eligible[held.source]
    return Copies(held.segment[stays], held.source[stays])


def _barred(stopped: Bool, copies: Copies, keeps: Copies) -> tuple[Int64, Int64]:
    goes_on = ~stopped[copies.source]
    return (
        np.concatenate([copies.segment[goes_on], keeps.segment]),
        np.concatenate([copies.source[goes_on], keeps.source]),
    )


def _barred_holdings(stopped: Bool, plan: Holdings, keeps: Copies) -> Holdings:
    """Kept copies have the survival that the plan gives their node; 1 where it names the node nowhere."""
    goes_on = ~stopped[plan.source]
    survival = plan.survival
    if survival is not None:
        of_source = np.ones(len(stopped))
        of_source[plan.source] = survival
        survival = np.concatenate([survival[goes_on], of_source[keeps.source]])
    repair = plan.repair
    if repair is not None:
        repair = np.concatenate([repair[goes_on], np.zeros(len(keeps.source), np.bool_)])
    return replace(
        plan,
        segment=np.concatenate([plan.segment[goes_on], keeps.segment.astype(np.int32)]),
        source=np.concatenate([plan.source[goes_on], keeps.source.astype(np.int32)]),
        survival=survival,
        repair=repair,
    )
