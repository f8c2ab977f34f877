"""Rolling operation, replayed: at every planning instant an outlook, a plan, and the next stretch of real requests.

Planners are asked in time order and see only what their outlook may see; the judge (`placement.replay`) plays what truly
happened. Every row of a comparison plays the same requests on the same devices with the same limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pipelines.movement import Flapping
from pipelines.outlook import Expectation, Outlook
from pipelines.plan_prices import SourcePrices
from pipelines.planning import Copies, PlannedInstance, PlanningSettings, instance
from pipelines.scene import Scene
from pipelines.stretch import Stretch
from placement.plan import Plan
from placement.popularity import most_popular_copies
from placement.replay import Replay, ReplaySettings
from placement.routing import RoutingSettings
from placement.solve import solve
from placement.tally import ReplayTally
from placement.trace import Holdings, ReplayWorld


@dataclass(frozen=True)
class Planned:
    """One plan as the replay needs it, and what to remember of it."""

    holdings: Holdings
    copies: Copies
    note: PlanNote


@dataclass(frozen=True)
class PlanNote:
    """What a plan was, for the report; `flapping_bytes` of those moved had been dropped within the 24 hours before."""

    at_us: int
    status: str
    copies_by_tier: tuple[int, int, int]
    bytes_moved: int
    movement_budget_bytes: int | None
    objective: float | None = None
    gap: float | None = None
    binding: tuple[str, ...] = ()
    seconds: float = 0.0
    flapping_bytes: int = 0
    method: str = ""


class Planner(Protocol):
    """Makes the plan of an instant, given what is held; asked in time order."""

    def plan(self, at_us: int, held: Copies) -> Planned: ...


class OptimisingPlanner:
    """Outlook, placement problem, solver: the same for our models and for the clairvoyant row.

    Each search of prices sets out from those of the plan before, as that of a placement does.
    """

    def __init__(self, scene: Scene, outlook: Outlook, settings: PlanningSettings, *, seed: int) -> None:
        self._scene, self._outlook, self._settings, self._seed = scene, outlook, settings, seed
        self._prices: SourcePrices | None = None

    def plan(self, at_us: int, held: Copies) -> Planned:
        started = time.perf_counter()
        expected = self._outlook.at(at_us)
        planned = instance(self._scene, expected.demand, expected.nodes, held, settings=self._settings, at_us=at_us)
        problem = planned.problem
        start = None if self._prices is None else self._prices.for_problem(problem)
        plan = solve(problem, seed=self._seed, start=start)
        self._prices = None if plan.prices is None else SourcePrices.of(problem, plan.prices)
        note = note_of(planned, plan, seconds=time.perf_counter() - started)
        return Planned(planned.holdings(plan), planned.copies(plan), note)


class PopularityPlanner:
    """Top-k per location by the outlook's demand: no departures, no uplinks, no prices but a push threshold.

    A segment that is not held is pushed only where at least `push_minimum_requests` are expected over the horizon.
    """

    def __init__(
        self, scene: Scene, outlook: Outlook, settings: PlanningSettings, *, push_minimum_requests: float
    ) -> None:
        self._scene, self._outlook, self._settings = scene, outlook, settings
        self._push_minimum = push_minimum_requests

    def plan(self, at_us: int, held: Copies) -> Planned:
        expected = self._outlook.at(at_us)
        demand = expected.demand
        planned = instance(self._scene, demand, expected.nodes, held, settings=self._settings, at_us=at_us)
        mesh = planned.verdicts.eligible & ~self._scene.is_pop
        worth = (demand.requests >= self._push_minimum) | self._held_there(expected, held)
        segment, source = most_popular_copies(
            segment=demand.segment[worth],
            location=demand.location[worth],
            requests=demand.requests[worth],
            sizes=self._scene.catalogue.sizes,
            source_location=self._scene.location,
            room_bytes=np.where(mesh, self._scene.storage_bytes, 0),
            up=expected.nodes.up,
            held_segment=held.segment,
            held_source=held.source,
        )
        copies = Copies(segment, source)
        holdings = Holdings(
            start_us=at_us,
            segment=segment.astype(np.int32),
            source=source.astype(np.int32),
            survival=expected.nodes.survival[source],
            forecast_segment=demand.segment.astype(np.int32),
            forecast_location=demand.location.astype(np.int32),
            eligible=mesh | self._scene.is_pop,
        )
        return Planned(holdings, copies, self._note(at_us, copies, held, planned))

    def _held_there(self, expected: Expectation, held: Copies) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        n_locations = len(self._scene.locations)
        have = held.segment * n_locations + self._scene.location[held.source]
        return np.isin(expected.demand.segment * n_locations + expected.demand.location, have)

    def _note(self, at_us: int, copies: Copies, held: Copies, planned: PlannedInstance) -> PlanNote:
        n_sources = len(self._scene.source)
        new = ~np.isin(copies.segment * n_sources + copies.source, held.segment * n_sources + held.source)
        moved = int(self._scene.catalogue.sizes[copies.segment[new]].sum())
        return PlanNote(at_us, "rule", _by_tier(planned, copies.source), moved, None)


def note_of(planned: PlannedInstance, plan: Plan, *, seconds: float = 0.0) -> PlanNote:
    """The figures of a solved plan."""
    return PlanNote(
        at_us=planned.at_us,
        status=plan.status,
        copies_by_tier=_by_tier(planned, plan.source),
        bytes_moved=plan.bytes_moved,
        movement_budget_bytes=planned.problem.settings.movement_budget_bytes,
        objective=plan.objective,
        gap=plan.gap,
        binding=plan.binding,
        seconds=seconds,
        method=plan.method,
    )


def _by_tier(planned: PlannedInstance, source: np.ndarray[tuple[int], np.dtype[np.generic]]) -> tuple[int, int, int]:
    counts = np.bincount(planned.problem.sources.tier[source], minlength=4)
    return int(counts[1]), int(counts[2]), int(counts[3])


def roll(
    world: ReplayWorld,
    stretch: Stretch,
    planner: Planner,
    *,
    replay_settings: ReplaySettings,
    routing: RoutingSettings,
    seed: int,
    watch: Callable[[int, int], None],
) -> tuple[ReplayTally, list[PlanNote]]:
    """Plans and plays the whole stretch; returns what was counted and a note of every plan."""
    replay = Replay(world, settings=replay_settings, routing=routing, seed=seed)
    held, flapping = Copies.none(), Flapping(world.segment_bytes, world.n_sources)
    notes: list[PlanNote] = []
    total = len(stretch.instants())
    for at_us, requests in stretch.parts():
        planned = planner.plan(at_us, held)
        replay.adopt(planned.holdings)
        replay.serve(requests)
        back = flapping.bytes_back(at_us, held, planned.copies)
        held = planned.copies
        notes.append(replace(planned.note, flapping_bytes=back))
        watch(len(notes), total)
    return replay.finish(stretch.end_us - 1), notes  # the window is half-open: its end opens no further hour
