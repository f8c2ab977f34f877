"""A place where offline caching is all there is: one location, one node, equal sizes, nobody leaves, links are no limit.

Prices are such that serving a segment saves what pushing it costs, and nothing else counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.events import HOUR_US, Int64
from pipelines.backtest import OptimisingPlanner, roll
from pipelines.outlook import ClairvoyantOutlook, Outlook
from pipelines.patience import PatientOutlook
from pipelines.planning import PlanningSettings
from pipelines.scene import Catalogue, Scene
from pipelines.stretch import Stretch
from placement.offline_optimum import most_net_avoided
from placement.replay import ReplaySettings, ReplayWorld, SegmentRequests
from placement.routing import RoutingSettings
from placement.settings import PlacementSettings
from placement.uptime import Uptime
from tests.pipelines.tiny_scene import FOREVER_US, tiny_scene

SIZE = 1_000_000
PLACEMENT = PlacementSettings(
    latency_millidollars_per_request_second=0.0,
    reward_millidollars_per_gb=0.0,
    uplink_share_by_tier=(1.0, 1.0, 1.0),
    availability_target=0.0,
    minimum_improvement_share=0.0,
    whole_programme_arcs=0,
    exact_flow_arcs=0,
    bound_iterations=20,
    dive_rounds=3,
    dive_passes=5,
    restock_arc_visits=0,
)


@dataclass(frozen=True)
class EqualSizes:
    """Requests (hour, content) with room for `room` contents at the one node, planned every hour from 0 to `hours`."""

    hour: Int64
    content: Int64
    room: int
    hours: int

    @property
    def requests(self) -> SegmentRequests:
        """A minute after the plan, when what it pushed has arrived."""
        n = len(self.hour)
        ts_us = self.hour * HOUR_US + 60_000_000
        return SegmentRequests(ts_us, self.content.astype(np.int32), np.zeros(n, np.int32), np.full(n, SIZE))

    @property
    def scene(self) -> Scene:
        n = int(self.content.max()) + 1
        ids = np.array([f"c{i}" for i in range(n)], dtype=object)
        return tiny_scene(
            catalogue=Catalogue(ids, np.full(n, SIZE), np.full(n, SIZE)),
            locations=np.array(["here"], dtype=object),
            names=np.array(["Here"], dtype=object),
            location_lat=np.zeros(1),
            location_lon=np.zeros(1),
            source=np.array(["pop", "node"], dtype=object),
            location=np.zeros(2, dtype=np.int32),
            network=np.array([-1, 0], dtype=np.int32),
            storage_bytes=np.array([0, self.room * SIZE]),
            uplink_bps=np.array([np.inf, 1e12]),
            downlink_bps=np.array([np.inf, 1e13]),
            egress_cost_per_gb=np.array([0.05, 0.0]),
            device_class=np.array(["pop", "home"], dtype=object),
            consent_until_us=np.full(2, FOREVER_US),
            known_from_us=np.full(2, -1, dtype=np.int64),
            lat=np.zeros(2),
            lon=np.zeros(2),
            rtt_ms=np.full((1, 2), 5, dtype=np.float32),
            distance_km=np.ones((1, 2), dtype=np.float32),
        )

    def net_avoided(self, outlook: Outlook) -> float:
        """Requests served by the node less pushes, as the replay counts them."""
        scene, end_us = self.scene, self.hours * HOUR_US
        world = ReplayWorld(
            segment_bytes=scene.catalogue.sizes,
            location=scene.location,
            tier=np.array([1, 2], np.int8),
            uplink_bps=np.array([0.0, 1e12]),
            downlink_bps=np.array([0.0, 1e13]),
            storage_bytes=scene.storage_bytes,
            rtt_ms=scene.rtt_ms,
            distance_km=scene.distance_km,
            reach=np.ones((1, 2), np.bool_),
            uptime=Uptime.always(2),
            egress_cost_per_gb=scene.egress_cost_per_gb,
        )
        planning = PlanningSettings(minimum_requests=0.0, movement_budget_share=1.0, placement=PLACEMENT)
        tally, _ = roll(
            world,
            Stretch(self.requests, 0, end_us, every_hours=1.0),
            OptimisingPlanner(scene, outlook, planning, seed=0),
            replay_settings=ReplaySettings(),
            routing=RoutingSettings(),
            seed=0,
            watch=lambda *_: None,
        )
        return tally.net_avoided_bytes / SIZE

    def alike(self, hours: float) -> Outlook:
        """The truth of so many hours, all of it alike."""
        end_us = self.hours * HOUR_US
        return ClairvoyantOutlook(self.scene, self.requests, Uptime.always(2), horizon_hours=hours, end_us=end_us)

    def patient(self, hours: float) -> Outlook:
        """The truth as far ahead, each request when its time comes."""
        end_us = self.hours * HOUR_US
        truth = (self.scene, self.requests, Uptime.always(2))
        return PatientOutlook(*truth, every_hours=1.0, horizon_hours=hours, end_us=end_us)

    @property
    def optimum(self) -> int:
        return most_net_avoided(self.content, self.hour, room=self.room)


def news(*, hours: int, per_hour: int, contents: int, room: int, seed: int) -> EqualSizes:
    """Contents appear all the time, some far more popular than others, and are forgotten within hours."""
    rng = np.random.default_rng(seed)
    born = rng.uniform(-24, hours, contents)
    weight, life_hours = rng.pareto(1.1, contents) + 0.1, rng.lognormal(1.8, 0.8, contents)
    drawn = []
    for hour in range(hours):
        age = hour + 0.5 - born
        rate = np.where(age > 0, weight * np.exp(-np.maximum(age, 0) / life_hours), 0.0)
        drawn.append(rng.choice(contents, per_hour, p=rate / rate.sum()))
    return EqualSizes(np.repeat(np.arange(hours), per_hour), np.concatenate(drawn), room, hours)
