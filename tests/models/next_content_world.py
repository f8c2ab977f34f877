"""A tiny stream of sessions whose transition matrix is known."""

from __future__ import annotations

import numpy as np

from models.events import HOUR_US, RequestLog

START_US = 1_507_000_000 * 1_000_000 // HOUR_US * HOUR_US
MINUTE_US = 60_000_000
CHAIN = np.array(
    [
        [0.0, 0.7, 0.2, 0.1],
        [0.5, 0.0, 0.5, 0.0],
        [0.1, 0.1, 0.0, 0.8],
        [0.25, 0.25, 0.5, 0.0],
    ]
)
"""P(next | current) of the four contents c0 to c3; nobody stays."""


def chain_log(*, sessions: int, length: int = 6, seed: int = 0, hours: float = 12.0) -> RequestLog:
    """Sessions of `length` requests, a minute apart, that start anywhere and follow `CHAIN`; two locations."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, int(hours * 60), sessions)
    rows = []
    for s in range(sessions):
        x = int(rng.integers(4))
        for step in range(length):
            rows.append((START_US + (int(begin[s]) + step) * MINUTE_US, f"s{s}", f"c{x}", f"l{s % 2}"))
            x = int(np.searchsorted(np.cumsum(CHAIN[x]), rng.random(), side="right"))
    ts_us, session, content, location = (list(column) for column in zip(*rows, strict=True))
    return RequestLog.from_columns(np.array(ts_us), session, content, location)
