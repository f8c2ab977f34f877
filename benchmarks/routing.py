"""Routing: scores per second, with and without ranking, against a plain sort of each request in Python.

python -m benchmarks.routing [requests] [candidates] [device]
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from placement.routing import CandidateBatch, RoutingSettings, score, top_k


def random_batch(requests: int, candidates: int) -> CandidateBatch:
    rng = np.random.default_rng(0)
    n = requests * candidates
    return CandidateBatch(
        offsets=np.arange(0, n + 1, candidates),
        source=rng.integers(0, 10_000, n).astype(np.int32),
        latency_ms=rng.exponential(60.0, n),
        bandwidth_availability=rng.random(n),
        health=rng.random(n),
        distance_km=rng.exponential(800.0, n),
        allowed=rng.random(n) < 0.95,
    )


def seconds(work: Callable[[], object]) -> float:
    work()
    started = time.perf_counter()
    for _ in range(3):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / 3


def main(requests: int = 100_000, candidates: int = 20, device: str = "cpu") -> None:
    batch, settings = random_batch(requests, candidates), RoutingSettings()
    scores = score(batch, settings, device=device)
    n = len(batch.source)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {device}, {n} candidates")
    print(f"score: {n / seconds(lambda: score(batch, settings, device=device)) / 1e6:.1f} M scores/s")
    print(f"top 3: {n / seconds(lambda: top_k(batch, scores, 3)) / 1e6:.1f} M candidates/s")
    values = scores.cpu().numpy().reshape(requests, candidates)
    plain = seconds(lambda: [sorted(row, reverse=True)[:3] for row in values[:1000].tolist()])
    print(f"plain Python sort: {1000 * candidates / plain / 1e6:.1f} M candidates/s")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(int(value) for value in given[:2]), *given[2:3])  # type: ignore[arg-type]
