"""From forecasts to a placement problem, and from a plan to what the replay and the service carry out.

Demand of a segment = demand of its content x P(the viewer gets that far), with P estimated from past requests. A node
counts with the share of the horizon that it is expected to be up; it is tier 2 when it is expected to stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from models.churn.joint import JointSurvival, ReplicaSets, joint_availability
from models.events import HOUR_US
from models.forecast import ChurnForecast, DemandForecast
from pipelines.scene import Bool, Catalogue, Float64, Int32, Int64, Scene
from placement.check import availability_credit
from placement.copies import Copies as PlacedCopies
from placement.plan import Plan
from placement.problem import Demand, PlacementProblem, PlacementSettings, Segments, Sources
from placement.tiers import Conditions, TierSettings, TierVerdicts, assign_tiers
from placement.trace import Holdings


@dataclass(frozen=True)
class PlanningSettings:
    """How a plan is asked for."""

    horizon_hours: float = 6.0
    """Hours that a plan looks ahead; one of the demand model's horizons."""
    minimum_requests: float = 0.1
    """Expected requests over the horizon below which a (segment, location) pair is left out."""
    reach_rtt_ms: float = 25.0
    """A node serves its own location and those within this round trip, in milliseconds."""
    movement_budget_share: float = 0.5
    """Most bytes that one plan may push, as a share of the storage of the eligible nodes."""
    busy_share: float = 0.0
    """Share of the time in which a node's uplink is expected to send and to refuse who comes: a plan counts the node as away
    for so long. A refresh does without it, because it knows what each uplink is asked for."""
    tiers: TierSettings = field(default_factory=TierSettings)
    """Eligibility and tier rules."""
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    """Prices, limits and solver of the placement programme."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} {rule}, got {getattr(self, name)!r}."
            for name, rule, holds in (
                ("horizon_hours", "> 0", self.horizon_hours > 0),
                ("minimum_requests", ">= 0", self.minimum_requests >= 0),
                ("reach_rtt_ms", ">= 0", self.reach_rtt_ms >= 0),
                ("movement_budget_share", ">= 0", self.movement_budget_share >= 0),
                ("busy_share", "in [0, 1)", 0 <= self.busy_share < 1),
            )
            if not holds
        ]
        if problems:
            raise ValueError(" ".join(problems))

    def for_refresh(self) -> PlanningSettings:
        """The same, for greedy placement that counts what uplinks refuse itself."""
        return replace(self, busy_share=0.0)


@dataclass(frozen=True)
class AvailabilityCounts:
    """Segments of a plan whose copies are live with at least the target's probability, by what is assumed.

    Attributes:
        target: probability asked for; the least, where it differs by popularity.
        segments: segments of the plan.
        networks_once: as the programme counts: the best copy of each network, networks independent.
        together: every copy, with what departures of a network and of the fleet share.
        independent: every copy as if departures shared nothing.
    """

    target: float
    segments: int
    networks_once: int
    together: int
    independent: int


@dataclass(frozen=True)
class SegmentDemand:
    """Expected requests over the horizon in the scene's codes; each (segment, location) pair once. All are (D,).

    `dispersion` is that of the forecast's cells; none for requests that are known.
    """

    segment: Int64
    location: Int64
    requests: Float64
    dispersion: Float64 | None = None


@dataclass(frozen=True)
class NodeOutlook:
    """What a planner believes of every source over the horizon. All are (N,).

    Attributes:
        stay: probability of staying up from now to the end.
        survival: expected share of the horizon that the source is up.
        up: whether it is believed up now.
        uplink_share: share of its uplink that it has on average; None where nothing but the whole is known.
    """

    stay: Float64
    survival: Float64
    up: Bool
    uplink_share: Float64 | None = None


@dataclass(frozen=True)
class Copies:
    """Which source holds which segment, in the scene's codes; each pair once. Both are (C,)."""

    segment: Int64
    source: Int64

    @classmethod
    def none(cls) -> Copies:
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class PlannedInstance:
    """A placement problem and the scene's codes of its segments."""

    problem: PlacementProblem
    segment_code: Int64
    verdicts: TierVerdicts
    demand: SegmentDemand
    outlook: NodeOutlook
    at_us: int

    def copies(self, plan: Plan | PlacedCopies) -> Copies:
        return Copies(self.segment_code[plan.segment], plan.source.astype(np.int64))

    def holdings(self, plan: Plan | PlacedCopies) -> Holdings:
        """What the replay is told: the copies, how sure we are of each, and what was forecast at all."""
        return Holdings(
            start_us=self.at_us,
            segment=self.segment_code[plan.segment].astype(np.int32),
            source=plan.source,
            survival=self.outlook.survival[plan.source],
            forecast_segment=self.demand.segment.astype(np.int32),
            forecast_location=self.demand.location.astype(np.int32),
            eligible=self.problem.sources.eligible,
            names=tuple(self.problem.sources.source.tolist()),
        )


def segment_demand(
    forecast: DemandForecast, scene: Scene, *, continuation: Float64 | float, minimum_requests: float
) -> SegmentDemand:
    """The forecast's cells spread over their contents' segments; cells of unknown contents or places are left out.

    A view starts at segment 0, which has the demand of the content, and reaches segment j with probability
    continuation^j: no segment is asked for more than the one before it.

    Args:
        forecast: demand of contents.
        scene: codes of contents, segments and locations.
        continuation: probability of going on to the next segment, for all contents or for each. (contents,)
        minimum_requests: segments with less demand are left out.
    """
    content = scene.catalogue.codes(forecast.contents)[forecast.content]
    location = scene.location_codes(forecast.locations)[forecast.location]
    keep = (content >= 0) & (location >= 0) & (forecast.mean >= minimum_requests)
    content, location, mean = content[keep], location[keep], forecast.mean[keep]
    going_on = np.broadcast_to(continuation, (len(scene.catalogue.contents),))[content]
    reach = _reach(mean, going_on, scene.catalogue.n_segments[content], minimum_requests)
    row = np.repeat(np.arange(len(mean)), reach)
    number = np.arange(len(row)) - np.repeat(np.cumsum(reach) - reach, reach)
    return SegmentDemand(
        segment=scene.catalogue.first_segment[content[row]] + number,
        location=location[row],
        requests=mean[row] * going_on[row] ** number,
        dispersion=forecast.dispersion[keep][row],
    )


def _reach(mean: Float64, continuation: Float64, n_segments: Int64, minimum_requests: float) -> Int64:
    """Segments whose demand is at least the minimum: mean x continuation^j >= minimum for j up to a ratio of logarithms."""
    if minimum_requests <= 0:
        return np.where(continuation > 0, n_segments, np.minimum(n_segments, 1))
    fades = (continuation > 0) & (continuation < 1)
    decline = np.log(np.where(fades, continuation, 0.5))
    further = np.where(fades, (np.log(minimum_requests) - np.log(mean)) / decline, 0.0)
    reach = np.where(continuation >= 1, n_segments, 1 + np.minimum(further, n_segments).astype(np.int64))
    return np.minimum(n_segments, reach)


def outlook_from(forecast: ChurnForecast, scene: Scene, *, horizon_hours: float) -> NodeOutlook:
    """Stay and expected share of the horizon up, by interpolation between the forecast's edges.

    POPs are always up; nodes that the churn model does not know are believed down.
    """
    n = len(scene.source)
    stay, survival, up = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.bool_)
    stay[scene.is_pop], survival[scene.is_pop], up[scene.is_pop] = 1.0, 1.0, True
    code = scene.source_codes(forecast.nodes)
    known = code >= 0
    edges = np.concatenate(([0.0], forecast.edges_hours))
    available = np.column_stack((forecast.up.astype(np.float64), forecast.availability))[known]
    grid = np.linspace(0.0, horizon_hours, 25)
    stay[code[known]] = forecast.survival_at(min(horizon_hours, float(edges[-1])))[known]
    survival[code[known]] = np.clip(_interpolate(edges, available, grid).mean(axis=1), 0.0, 1.0)
    up[code[known]] = forecast.up[known]
    return NodeOutlook(stay, survival, up)


def _interpolate(edges: Float64, values: npt.NDArray[np.float64], at: Float64) -> Float64:
    """Linear between edges, level beyond the last one; values are (n, edges), the result is (n, len(at))."""
    right = np.clip(np.searchsorted(edges, at, side="right"), 1, len(edges) - 1)
    left = right - 1
    weight = np.clip((at - edges[left]) / (edges[right] - edges[left]), 0.0, 1.0)
    return np.asarray(values[:, left] * (1 - weight) + values[:, right] * weight, dtype=np.float64)


def instance(
    scene: Scene,
    demand: SegmentDemand,
    outlook: NodeOutlook,
    held: Copies,
    *,
    settings: PlanningSettings,
    at_us: int,
) -> PlannedInstance:
    """The placement problem of one planning instant.

    Consent, condition and what is known decide eligibility; a node that is down now may keep what it holds and gets
    nothing new, because nothing can be pushed to it.
    """
    end_us = at_us + round(settings.horizon_hours * HOUR_US)
    known_uplink_bps = np.where(scene.known_from_us <= at_us, scene.uplink_bps, 0.0)
    verdicts = judge_sources(
        scene, settings.tiers, uplink_bps=known_uplink_bps, stay=outlook.stay, horizon_end_us=end_us
    )
    holds = np.zeros(len(scene.source), dtype=np.bool_)
    holds[held.source] = True
    eligible = scene.is_pop | (verdicts.eligible & (outlook.up | holds))
    still = eligible[held.source]
    full = np.bincount(held.source, scene.catalogue.sizes[held.segment], len(scene.source)).astype(np.int64)
    room = np.where(outlook.up | scene.is_pop, scene.storage_bytes, np.minimum(full, scene.storage_bytes))
    segment_code = np.unique(np.concatenate((demand.segment, held.segment[still])))
    problem = PlacementProblem(
        segments=_segments(scene.catalogue, segment_code),
        locations=scene.locations,
        sources=_sources(scene, outlook, verdicts.tier, eligible, room, settings),
        demand=Demand(
            np.searchsorted(segment_code, demand.segment).astype(np.int32),
            demand.location.astype(np.int32),
            demand.requests,
            demand.dispersion,
        ),
        rtt_ms=scene.rtt_ms,
        reach=scene.reach(settings.reach_rtt_ms),
        current_segment=np.searchsorted(segment_code, held.segment[still]).astype(np.int32),
        current_source=held.source[still].astype(np.int32),
        settings=_with_budget(settings, scene, eligible),
    )
    return PlannedInstance(problem, segment_code, verdicts, demand, outlook, at_us)


def judge_sources(
    scene: Scene, settings: TierSettings, *, uplink_bps: Float64, stay: Float64, horizon_end_us: int
) -> TierVerdicts:
    """Verdicts of all sources. POPs are tier 1; they are not of the fleet whose uplinks are compared."""
    nodes, n_pops = scene.nodes, scene.n_pops
    conditions = Conditions.without_telemetry(
        scene.consent_until_us[nodes], scene.storage_bytes[nodes], uplink_bps[nodes], stay[nodes]
    )
    found = assign_tiers(conditions, settings, horizon_end_us=horizon_end_us)
    return TierVerdicts(
        np.concatenate((np.ones(n_pops, dtype=np.int8), found.tier)),
        np.concatenate((np.ones(n_pops, dtype=np.bool_), found.eligible)),
        np.concatenate((np.full(n_pops, "POP", dtype=object), found.reason)),
    )


def availability_counts(
    planned: PlannedInstance, plan: Plan, joint: JointSurvival, *, horizon_hours: float
) -> AvailabilityCounts:
    """How many segments meet the availability target when departures that come together are counted.

    POPs that hold everything are live whatever the nodes do. The programme itself is not changed by this: it takes the
    worst case inside a network and none between networks.
    """
    problem, segments = planned.problem, len(planned.problem.segments)
    live = -np.expm1(-problem.credit)
    network = np.where(problem.is_pop, -1, problem.sources.network).astype(np.int64)
    rows = (live[plan.source], network[plan.source])
    sets = ReplicaSets.grouped(plan.segment.astype(np.int64), *rows, n_sets=segments)
    without_pops = float(np.exp(-problem.credit[problem.standing].sum()))
    allowed = 1.0 - problem.availability_target
    target = float(problem.availability_target.min(initial=1.0))

    def met(correlated: JointSurvival) -> int:
        lost = (1.0 - joint_availability(correlated, sets, hours=horizon_hours)) * without_pops
        return int(np.sum(lost <= allowed + 1e-9))

    once = availability_credit(problem, plan) >= problem.required_credit - 1e-9
    return AvailabilityCounts(target, segments, int(once.sum()), met(joint), met(JointSurvival.independent()))


def _segments(catalogue: Catalogue, code: Int64) -> Segments:
    return Segments(
        catalogue.contents[catalogue.content_of_segment[code]],
        catalogue.number_of_segment[code],
        catalogue.sizes[code],
    )


def _sources(
    scene: Scene,
    outlook: NodeOutlook,
    tier: npt.NDArray[np.int8],
    eligible: Bool,
    room_bytes: Int64,
    settings: PlanningSettings,
) -> Sources:
    location: Int32 = scene.location
    share = 1.0 if outlook.uplink_share is None else outlook.uplink_share
    return Sources(
        source=scene.source,
        tier=tier,
        location=location,
        network=scene.network,
        storage_bytes=room_bytes,
        uplink_bytes=scene.uplink_bps * share / 8 * settings.horizon_hours * 3600,
        survival=np.where(scene.is_pop, outlook.survival, outlook.survival * (1.0 - settings.busy_share)),
        egress_cost_per_gb=scene.egress_cost_per_gb,
        eligible=eligible,
        lat=scene.lat,
        lon=scene.lon,
    )


def _with_budget(settings: PlanningSettings, scene: Scene, eligible: Bool) -> PlacementSettings:
    room = float(scene.storage_bytes[eligible & ~scene.is_pop].sum())
    share = int(settings.movement_budget_share * room)
    given = settings.placement.movement_budget_bytes
    return replace(settings.placement, movement_budget_bytes=share if given is None else min(given, share))
