"""How fast the judge plays: requests per second and core, beside libcachesim's LRU and S3-FIFO on the same trace.

    python -m benchmarks.replay --requests 1000000 --candidates 8
    python -m benchmarks.replay --requests 100000000 --candidates 8 --streamed

The second draws the trace part by part, a million requests a day, and tells the most memory that the process ever held.
Prints one JSON object with machine and versions. Compilation is outside the clock (one warm-up call).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import libcachesim
import numpy as np

from placement.caches import CachePolicy, CacheReplay, CacheSettings
from placement.replay import Holdings, Replay, ReplayWorld, SegmentRequests
from placement.single_cache import single_cache
from placement.uptime import Uptime

HOUR_US = 3_600_000_000
POLICIES: dict[CachePolicy, str] = {"lru": "lru", "s3-fifo": "s3_fifo"}
DAY_US = 24 * HOUR_US
DAILY_REQUESTS = 1_000_000
N_LOCATIONS, N_POPS, N_NODES, N_SEGMENTS = 29, 6, 1800, 50_000


def busy_day(n_requests: int, seed: int, *, days: int = 1) -> tuple[ReplayWorld, SegmentRequests]:
    """Days of Zipf requests on 1,800 nodes that come and go four times a day."""
    rng = np.random.default_rng(seed)
    n = N_POPS + N_NODES
    end_us, sessions = days * DAY_US, 4 * n * days
    starts = rng.integers(0, end_us, sessions)
    world = ReplayWorld(
        segment_bytes=rng.integers(100_000, 4_000_000, N_SEGMENTS),
        location=rng.integers(0, N_LOCATIONS, n).astype(np.int32),
        tier=np.r_[np.ones(N_POPS), np.full(N_NODES, 2)].astype(np.int8),
        uplink_bps=np.full(n, 5e6),
        downlink_bps=np.full(n, 2e7),
        storage_bytes=np.full(n, 10**9),
        rtt_ms=rng.uniform(5, 80, (N_LOCATIONS, n)).astype(np.float32),
        distance_km=rng.uniform(5, 3000, (N_LOCATIONS, n)).astype(np.float32),
        reach=np.ones((N_LOCATIONS, n), np.bool_),
        uptime=Uptime.from_sessions(
            rng.integers(0, n, sessions), starts, starts + rng.integers(HOUR_US, 12 * HOUR_US, sessions), n_sources=n
        ),
        egress_cost_per_gb=np.full(n, 0.02),
    )
    return world, drawn_requests(world, n_requests, rng, (0, end_us))


def drawn_requests(world: ReplayWorld, n: int, rng: np.random.Generator, window: tuple[int, int]) -> SegmentRequests:
    """So many Zipf requests, anywhere and at any time of the window."""
    segment = np.minimum(rng.zipf(1.2, n) - 1, N_SEGMENTS - 1).astype(np.int32)
    ts_us = np.sort(rng.integers(*window, n))
    location = rng.integers(0, N_LOCATIONS, n).astype(np.int32)
    return SegmentRequests(ts_us, segment, location, world.segment_bytes[segment])


def copies_of_the_head(world: ReplayWorld, candidates: int) -> Holdings:
    """So many copies of each of the most popular segments as fit, spread over the nodes."""
    n_segments = min(20_000, N_NODES * 10**9 // (4_000_000 * candidates))
    segment = np.repeat(np.arange(n_segments, dtype=np.int32), candidates)
    step = np.tile(np.arange(candidates, dtype=np.int32), n_segments)
    return Holdings(0, segment, (N_POPS + (segment * 13 + step * 211) % N_NODES).astype(np.int32))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, because the machine may be shared; the faster of two runs after a warm-up."""
    work()
    spent = []
    for _ in range(2):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def libcachesim_cache(
    policy: CachePolicy, requests: SegmentRequests, world: ReplayWorld, capacity: int
) -> Callable[[], object]:
    """The same requests through libcachesim, one call each from Python, as its users do."""
    wanted = []
    for i, segment in enumerate(requests.segment.tolist()):
        request = libcachesim.Request()
        request.clock_time, request.obj_id, request.obj_size = i, segment, int(world.segment_bytes[segment])
        wanted.append(request)

    def play() -> int:
        cache = {"lru": libcachesim.LRU, "s3-fifo": libcachesim.S3FIFO}[policy](cache_size=capacity)
        return sum(map(cache.get, wanted))

    return play


def streamed(n_requests: int, candidates: int, seed: int) -> dict[str, object]:
    """Plays a trace that is drawn day by day; the clock runs while the judge plays, not while the trace is drawn."""
    days = -(-n_requests // DAILY_REQUESTS)
    warm_world, warm = busy_day(10_000, seed)
    Replay(warm_world).play([warm], [copies_of_the_head(warm_world, candidates)])
    world, _ = busy_day(0, seed, days=days)
    replay = Replay(world, seed=seed)
    replay.adopt(copies_of_the_head(world, candidates))
    spent, first_day_bytes = 0.0, 0
    for day in range(days):
        n = min(DAILY_REQUESTS, n_requests - day * DAILY_REQUESTS)
        part = drawn_requests(world, n, np.random.default_rng([seed, day]), (day * DAY_US, (day + 1) * DAY_US))
        start = time.process_time()
        replay.serve(part)
        spent += time.process_time() - start
        first_day_bytes = first_day_bytes or peak_bytes()
    tally = replay.finish()
    return {
        "requests": tally.n_requests,
        "candidates": candidates,
        "requests_per_cpu_second": round(n_requests / spent),
        "mesh_share": tally.mesh_bytes / tally.requested_bytes,
        "peak_memory_bytes_after_a_day": first_day_bytes,
        "peak_memory_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compared(n_requests: int, candidates: int) -> dict[str, object]:
    """Rows of a comparison on a busy day, and one LRU beside libcachesim's."""
    world, requests = busy_day(n_requests, seed=0)
    plan = copies_of_the_head(world, candidates)
    capacity = 10**9
    rows: dict[str, Callable[[], object]] = {
        "cdn_alone": lambda: Replay(world).play([requests]),
        f"plan_{candidates}_candidates": lambda: Replay(world).play([requests], [plan]),
        "lru_on_devices_every_miss": lambda: CacheReplay(world, CacheSettings("every_miss")).play([requests]),
        "s3_fifo_on_devices_every_miss": lambda: CacheReplay(world, CacheSettings("every_miss", policy="s3-fifo")).play(
            [requests]
        ),
    }
    for policy, name in POLICIES.items():
        rows[f"{name}_single"] = partial(single_cache, requests.segment, world.segment_bytes, capacity, policy)
        rows[f"libcachesim_{name}_single"] = libcachesim_cache(policy, requests, world, capacity)
    rate = {name: len(requests) / cpu_seconds(work) for name, work in rows.items()}
    ratios = {
        f"{name}_single_over_libcachesim": rate[f"{name}_single"] / rate[f"libcachesim_{name}_single"]
        for name in POLICIES.values()
    }
    return {
        "requests": len(requests),
        "requests_per_cpu_second": {name: round(value) for name, value in rate.items()},
        **ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--streamed", action="store_true", help="draw and play the trace day by day")
    options = parser.parse_args()
    found = (
        streamed(options.requests, options.candidates, seed=0)
        if options.streamed
        else compared(options.requests, options.candidates)
    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    versions = {name: version(name) for name in ("libcachesim", "numba", "numpy")}
    print(json.dumps({**found, "machine": machine, "versions": versions}, indent=2))


if __name__ == "__main__":
    main()
