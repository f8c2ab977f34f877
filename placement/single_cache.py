"""One cache of the judge's, without churn and without links: what the textbook and libcachesim know."""

from __future__ import annotations

import numpy as np

from placement.caches import CachePolicy, CacheReplay, CacheSettings
from placement.problem import Bool, Int32, Int64
from placement.trace import ReplayWorld, SegmentRequests
from placement.uptime import Uptime


def single_cache(segment: Int32, segment_bytes: Int64, capacity_bytes: int, policy: CachePolicy = "lru") -> Bool:
    """Hits of one cache that fills on every miss, is always on and sends in no time.

    Args:
        segment: segment code of each request. (requests,)
        segment_bytes: size of each segment. (segments,)
        capacity_bytes: size of the cache; larger segments are never held.
        policy: what it throws out.
    """
    world = ReplayWorld(
        segment_bytes=np.asarray(segment_bytes, np.int64),
        location=np.zeros(2, np.int32),
        tier=np.array([1, 2], np.int8),
        uplink_bps=np.full(2, np.inf),
        downlink_bps=np.full(2, np.inf),
        storage_bytes=np.array([0, capacity_bytes], np.int64),
        rtt_ms=np.ones((1, 2), np.float32),
        distance_km=np.ones((1, 2), np.float32),
        reach=np.ones((1, 2), np.bool_),
        uptime=Uptime.always(2),
        egress_cost_per_gb=np.zeros(2),
    )
    codes = np.asarray(segment, np.int32)
    zeros = np.zeros(len(codes), np.int64)
    requests = SegmentRequests(zeros, codes, zeros.astype(np.int32), world.segment_bytes[codes])
    hits: Bool = CacheReplay(world, CacheSettings(policy=policy)).serve(requests).source == 1
    return hits
