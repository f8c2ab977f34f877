"""Tiny worlds for the tests of the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from placement.replay import Holdings, ReplayWorld, SegmentRequests
from placement.uptime import Uptime

SECOND = 1_000_000
MB = 1_000_000
DAY_S = 86_400


def tiny_world(**changes: Any) -> ReplayWorld:
    """One location, POP 0 (30 ms), nodes 1 (tier 2, 10 ms) and 2 (tier 3, 20 ms), all up for a day.

    Uplinks send 1 MB/s, downlinks take 2 MB/s, storage is 4 MB, three segments of 1 MB each; a tier-1 GB costs 20 $,
    a served one earns 4 $.
    """
    sessions = changes.pop("sessions", [(1, 0, DAY_S), (2, 0, DAY_S)])
    node, start_s, end_s = (np.array(column, np.int64) for column in zip(*sessions, strict=True))
    facts: dict[str, Any] = {
        "segment_bytes": np.full(3, MB),
        "location": np.zeros(3, np.int32),
        "tier": np.array([1, 2, 3], np.int8),
        "uplink_bps": np.array([0.0, 8e6, 8e6]),
        "downlink_bps": np.array([0.0, 16e6, 16e6]),
        "storage_bytes": np.array([0, 4 * MB, 4 * MB]),
        "rtt_ms": np.array([[30, 10, 20]], np.float32),
        "distance_km": np.array([[100, 10, 20]], np.float32),
        "reach": np.ones((1, 3), np.bool_),
        "uptime": Uptime.from_sessions(node, start_s * SECOND, end_s * SECOND, n_sources=3),
        "egress_cost_per_gb": np.array([20.0, 0, 0]),
        "reward_per_gb": 4.0,
        "names": ("pop", "near", "far"),
    }
    return ReplayWorld(**{**facts, **changes})


def asked(*rows: tuple[float, int], n_bytes: int = MB) -> SegmentRequests:
    """Requests (second, segment) from location 0, each for `n_bytes`."""
    ts_us = np.array([round(second * SECOND) for second, _ in rows], np.int64)
    segment = np.array([segment for _, segment in rows], np.int32)
    return SegmentRequests(ts_us, segment, np.zeros(len(rows), np.int32), np.full(len(rows), n_bytes, np.int64))


def plan(start_s: float, *copies: tuple[int, int], **more: Any) -> Holdings:
    """Copies (segment, source) from `start_s` on."""
    segment = np.array([segment for segment, _ in copies], np.int32)
    source = np.array([source for _, source in copies], np.int32)
    return Holdings(round(start_s * SECOND), segment, source, **more)


def random_world(seed: int) -> tuple[ReplayWorld, SegmentRequests, list[Holdings]]:
    """Three locations, two POPs, six churning nodes, ten segments, 400 requests in two hours, three plans."""
    rng = np.random.default_rng(seed)
    n_sources, n_segments, end_s = 8, 10, 7200
    sizes = rng.integers(100_000, 3 * MB, n_segments)
    starts = rng.integers(0, end_s, 24) * SECOND
    node = rng.integers(2, n_sources, 24)
    world = ReplayWorld(
        segment_bytes=sizes,
        location=rng.integers(0, 3, n_sources).astype(np.int32),
        tier=np.array([1, 1, 2, 2, 2, 3, 3, 3], np.int8),
        uplink_bps=rng.choice([0.0, 4e6, 4e7], n_sources),
        downlink_bps=rng.choice([0.0, 4e6, 2e7], n_sources),
        storage_bytes=rng.integers(0, 20 * MB, n_sources),
        rtt_ms=rng.uniform(1, 80, (3, n_sources)).astype(np.float32),
        distance_km=rng.uniform(0, 3000, (3, n_sources)).astype(np.float32),
        reach=rng.random((3, n_sources)) < 0.8,
        uptime=Uptime.from_sessions(node, starts, starts + rng.integers(1, 5400, 24) * SECOND, n_sources=n_sources),
        egress_cost_per_gb=rng.uniform(0, 0.1, n_sources),
        reward_per_gb=0.004,
    )
    ts_us: npt.NDArray[np.int64] = np.sort(rng.integers(0, end_s * SECOND, 400))
    segment = np.minimum(rng.geometric(0.3, 400) - 1, n_segments - 1).astype(np.int32)
    wanted = (rng.random(400) * sizes[segment]).astype(np.int64) + 1
    requests = SegmentRequests(ts_us, segment, rng.integers(0, 3, 400).astype(np.int32), wanted)
    return world, requests, [_random_plan(world, start_s * SECOND, rng) for start_s in (600, 2400, 4200)]


def _random_plan(world: ReplayWorld, start_us: int, rng: np.random.Generator) -> Holdings:
    free = world.storage_bytes.copy()
    pairs = rng.permutation([(s, n) for s in range(world.n_segments) for n in range(world.n_sources)])
    kept = []
    for segment, source in pairs:
        if world.tier[source] == 1 or free[source] < world.segment_bytes[segment]:
            continue
        free[source] -= world.segment_bytes[segment]
        kept.append((segment, source))
    segment, source = np.array(kept, np.int32).reshape(-1, 2).T
    return Holdings(
        start_us,
        np.ascontiguousarray(segment),
        np.ascontiguousarray(source),
        survival=rng.random(len(segment)),
        repair=rng.random(len(segment)) < 0.3,
        forecast_segment=rng.integers(0, world.n_segments, 12).astype(np.int32),
        forecast_location=rng.integers(0, 3, 12).astype(np.int32),
        eligible=rng.random(world.n_sources) < 0.9,
    )
