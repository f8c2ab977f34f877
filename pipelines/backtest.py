"""Rolling operation, replayed: at every planning instant an outlook, a plan, and the next stretch of real requests.

Planners are asked in time order and see only what their outlook may see; the judge (`placement.replay`) plays what truly
happened. Every row of a comparison plays the same requests on the same devices with the same limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from models.events import HOUR_US
from pipelines.movement import Flapping
from pipelines.outlook import Expectation, Outlook
from pipelines.plan_prices import SourcePrices
from pipelines.planning import Copies, PlannedInstance, PlanningSettings, instance
from pipelines.scene import Scene
from pipelines.stretch import Stretch
from placement.audience import AudienceCount
from placement.plan import Plan
from placement.popularity import most_popular_copies
from placement.problem import PlacementProblem
from placement.publish import moved_bytes
from placement.reactive import ReactiveReplay, ReactiveSettings
from placement.refresh import RefreshSettings, refresh, with_budget_left
from placement.replay import Replay, ReplaySettings
from placement.routing import RoutingSettings
from placement.solve import solve
from placement.tally import ReplayTally
from placement.trace import Holdings, ReplayWorld, SegmentRequests

MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Planned:
    """One plan as the replay needs it, and what to remember of it."""

    holdings: Holdings
    copies: Copies
    note: PlanNote


@dataclass(frozen=True)
class PlanNote:
    """What a plan or a refresh was, for the report.

    Attributes:
        flapping_bytes: of those moved, what had been dropped within the 24 hours before.
        by_prior: whether the demand model's prior answered in its place.
    """

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
    refreshed: bool = False
    by_prior: bool = False


class Planner(Protocol):
    """Makes the plan of an instant, given what is held, or brings the last one up to date; asked in time order.

    A plan and its refreshes share one movement budget: `spent_bytes` of it are gone at a refresh.
    """

    def plan(self, at_us: int, held: Copies) -> Planned: ...

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned: ...


class Guard(Protocol):
    """May take pushes out of a plan before it is carried out, by what has been counted until its instant."""

    def bar(self, planned: Planned, held: Copies, tally: ReplayTally) -> Planned: ...


class OptimisingPlanner:
    """Outlook, placement problem, solver: the same for our models and for the clairvoyant row.

    Each search of prices sets out from those of the plan before, as that of a placement does.

    Args:
        refresh: how it refreshes its plans.
        reactive: what devices keep beside them, for which plans leave room; None for nothing.
    """

    def __init__(
        self,
        scene: Scene,
        outlook: Outlook,
        settings: PlanningSettings,
        *,
        seed: int,
        refresh: RefreshSettings | None = None,
        reactive: ReactiveSettings | None = None,
    ) -> None:
        self._scene, self._outlook, self._settings, self._seed = scene, outlook, settings, seed
        self._refresh, self._reactive = refresh or RefreshSettings(), reactive
        self._prices: SourcePrices | None = None

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        started = time.perf_counter()
        expected, planned = self._instance(at_us, held, self._settings.for_refresh())
        problem = with_budget_left(planned.problem, spent_bytes)
        copies = refresh(problem, self._refresh)
        note = PlanNote(
            at_us,
            "refresh",
            _by_tier(planned, copies.source),
            int(moved_bytes(problem, copies)),
            problem.settings.movement_budget_bytes,
            seconds=time.perf_counter() - started,
            refreshed=True,
            by_prior=expected.by_prior,
        )
        return Planned(planned.holdings(copies), planned.copies(copies), note)

    def plan(self, at_us: int, held: Copies) -> Planned:
        started = time.perf_counter()
        expected, planned = self._instance(at_us, held, self._settings)
        plan = self.answer(planned.problem)
        note = note_of(planned, plan, seconds=time.perf_counter() - started)
        return Planned(planned.holdings(plan), planned.copies(plan), replace(note, by_prior=expected.by_prior))

    def answer(self, problem: PlacementProblem) -> Plan:
        """The solver's plan."""
        start = None if self._prices is None else self._prices.for_problem(problem)
        plan = solve(problem, seed=self._seed, start=start)
        self._prices = None if plan.prices is None else SourcePrices.of(problem, plan.prices)
        return plan

    def _instance(self, at_us: int, held: Copies, settings: PlanningSettings) -> tuple[Expectation, PlannedInstance]:
        expected, scene = self._outlook.at(at_us), self._scene
        if self._reactive is not None:
            scene = scene.leaving(self._reactive.reserved(expected.unforeseen, len(scene.locations)))
        settings = replace(settings, horizon_hours=expected.horizon_hours or settings.horizon_hours)
        return expected, instance(scene, expected.demand, expected.nodes, held, settings=settings, at_us=at_us)


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

    def refresh(self, at_us: int, held: Copies, *, spent_bytes: int) -> Planned:
        """The rule again: it has no slower plan to wait for."""
        planned = self.plan(at_us, held)
        return replace(planned, note=replace(planned.note, refreshed=True))

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
    refresh_minutes: float = 0.0,
    reactive: ReactiveSettings | None = None,
    guard: Guard | None = None,
    audience: AudienceCount | None = None,
) -> tuple[ReplayTally, list[PlanNote]]:
    """Plans, refreshes and plays the whole stretch; returns what was counted and a note of every plan and refresh.

    Args:
        world: what truly happened.
        stretch: the requests, and when plans are made.
        planner: makes them.
        replay_settings: of the judge.
        routing: of the judge.
        seed: of the judge.
        watch: is told how many stretches between two plans are played, and of how many.
        refresh_minutes: distance of refreshes between plans; 0 for none.
        reactive: what devices keep beside their plans; None for nothing.
        guard: sees each plan before it is carried out.
        audience: counts what became of each request.
    """
    judge: dict[str, Any] = {"settings": replay_settings, "routing": routing, "seed": seed}
    replay = Replay(world, **judge) if reactive is None else ReactiveReplay(world, reactive, **judge)
    held, flapping = Copies.none(), Flapping(world.segment_bytes, world.n_sources)
    notes: list[PlanNote] = []
    spent = 0
    for done, (at_us, requests) in enumerate(stretch.parts(), start=1):
        for now_us, part in _refreshed(stretch, at_us, requests, refresh_minutes):
            held = _with(held, replay)
            if now_us == at_us:
                planned, spent = planner.plan(now_us, held), 0
            else:
                planned = planner.refresh(now_us, held, spent_bytes=spent)
            if guard is not None:
                planned = guard.bar(planned, held, replay.tally_at(now_us))
            replay.adopt(planned.holdings)
            served = replay.serve(part)
            if audience is not None:
                audience.add(part, served)
            spent += planned.note.bytes_moved
            back = flapping.bytes_back(now_us, held, planned.copies)
            held = planned.copies
            notes.append(replace(planned.note, flapping_bytes=back))
        watch(done, len(stretch.instants()))
    return replay.finish(stretch.end_us - 1), notes  # the window is half-open: its end opens no further hour


def _refreshed(
    stretch: Stretch, at_us: int, requests: SegmentRequests, minutes: float
) -> Iterator[tuple[int, SegmentRequests]]:
    """The instant of a plan and those of its refreshes, each with the requests until the next one."""
    end_us = min(stretch.end_us, at_us + round(stretch.every_hours * HOUR_US))
    step_us = round(minutes * MINUTE_US) or end_us - at_us
    instants = list(range(at_us, end_us, step_us))
    bounds = [*np.searchsorted(requests.ts_us, instants, side="left").tolist(), len(requests)]
    for now_us, first, last in zip(instants, bounds, bounds[1:], strict=False):
        yield now_us, requests.rows(first, last)


def _with(held: Copies, replay: Replay) -> Copies:
    """The plan's copies and those that passed through, each once."""
    if not isinstance(replay, ReactiveReplay):
        return held
    segment, source = replay.passed_through()
    n_sources = replay.world.n_sources
    keys = np.concatenate([held.segment * n_sources + held.source, segment.astype(np.int64) * n_sources + source])
    keys = np.unique(keys)
    return Copies(keys // n_sources, keys % n_sources)
