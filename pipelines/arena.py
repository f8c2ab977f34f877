"""What every row of a comparison shares: the world as it truly was, the requests cut into segments, the tiers.

Built once from a tables folder; no planner sees it. Segment requests are read as they are played; what stays is the
static tables and, for the models, 24 bytes a view of the log and 20 of how far it was watched.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.churn.history import SessionHistory
from models.churn.outages import with_outages
from models.events import DAY_US, RequestLog
from pipelines.config import ReplayRun, microseconds
from pipelines.planning import judge_sources
from pipelines.request_trace import RequestTrace
from pipelines.requests import Playback, RequestRows, WatchThrough
from pipelines.scene import Int8, Scene, read_scene
from pipelines.store import (
    has_table,
    read_availability,
    read_nodes,
    read_request_log,
    read_telemetry,
    read_world,
)
from pipelines.stretch import Stretch
from placement.audience import AudienceSizes
from placement.tally import ReplayTally
from placement.tiers import TierSettings
from placement.trace import ReplayWorld
from placement.uptime import Uptime

TIER_DAYS = 7
"""Days before the window whose uptime decides the tier under which a node's bytes are counted."""


@dataclass(frozen=True)
class Arena:
    """Everything that a replay plays, and what planners may be given in time order.

    `played` keeps what several rows share, by its settings; a copy with another world begins with none.
    """

    scene: Scene
    world: ReplayWorld
    stretch: Stretch
    log: RequestLog
    history: SessionHistory
    watch: WatchThrough
    facts: dict[str, object]
    played: dict[Hashable, ReplayTally] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def audiences(self) -> AudienceSizes:
        """How often each segment is asked for at each place in the whole window."""
        return AudienceSizes.count(self.world, self.stretch.hours())

    @classmethod
    def read(cls, folder: Path, run: ReplayRun) -> Arena:
        """Reads the tables folder.

        Raises:
            InputError: no request lies in the window, or one names what the other tables lack.
            TableError: the requests are not in time order.
        """
        start_us, end_us = (microseconds(t) for t in run.window)
        scene = read_scene(folder)
        trace = RequestTrace.find(folder, scene, Playback(run.segment_seconds), (start_us, end_us))
        availability = read_availability(folder)
        telemetry = read_telemetry(folder) if has_table(folder, "telemetry") else None
        facts = read_world(folder) or {}
        uptime = _uptime(scene, availability)
        world = _world(scene, uptime, _tiers(scene, uptime, start_us, run.planning.tiers), run, facts)
        return cls(
            scene=scene,
            world=world,
            stretch=Stretch(trace, start_us, end_us, run.every_hours),
            log=read_request_log(folder, before_us=end_us),
            history=with_outages(SessionHistory.from_arrow(availability, read_nodes(folder), telemetry)),
            watch=WatchThrough.count_all(RequestRows.stream(folder, scene, before_us=end_us), scene),
            facts=facts,
        )


def _uptime(scene: Scene, availability: pa.Table) -> Uptime:
    node = scene.source_codes(np.asarray(availability["node"].to_pylist(), dtype=object))
    start, end = (
        np.asarray(availability[name].cast(pa.int64()).to_numpy(), dtype=np.int64) for name in ("start", "end")
    )
    known = node >= 0
    return Uptime.from_sessions(node[known], start[known], end[known], n_sources=len(scene.source))


def _tiers(scene: Scene, uptime: Uptime, start_us: int, settings: TierSettings) -> Int8:
    """Tier under which a node's bytes are counted: its condition over the week before the window, nothing later."""
    before_us = start_us - TIER_DAYS * DAY_US
    share = uptime.up_us(before_us, start_us) / (TIER_DAYS * DAY_US)
    verdicts = judge_sources(scene, settings, uplink_bps=scene.uplink_bps, stay=share, horizon_end_us=start_us)
    return verdicts.tier


def _world(scene: Scene, uptime: Uptime, tier: Int8, run: ReplayRun, facts: dict[str, object]) -> ReplayWorld:
    return ReplayWorld(
        segment_bytes=scene.catalogue.sizes,
        location=scene.location,
        tier=tier,
        uplink_bps=np.where(scene.is_pop, 0.0, scene.uplink_bps),
        downlink_bps=np.where(scene.is_pop, 0.0, scene.downlink_bps),
        storage_bytes=scene.storage_bytes,
        rtt_ms=scene.rtt_ms,
        distance_km=scene.distance_km,
        reach=scene.reach(run.planning.reach_rtt_ms),
        uptime=uptime,
        egress_cost_per_gb=scene.egress_cost_per_gb,
        reward_per_gb=float(facts.get("reward_per_gb", run.planning.placement.reward_millidollars_per_gb / 1e3)),  # type: ignore[arg-type]
        names=tuple(scene.source.tolist()),
    )
