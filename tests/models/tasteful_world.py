"""A stream of sessions from a known chain over thirty contents, whose steps depend on the taste of the location."""

from __future__ import annotations

import numpy as np

from models.events import HOUR_US, Float64, Int32, RequestLog

N_CONTENTS, N_LOCATIONS = 30, 3
START_US = 1_507_000_000 * 1_000_000 // HOUR_US * HOUR_US
HOURS = 3.0
SECOND_US = 1_000_000


def truth(seed: int = 0) -> Float64:
    """P(next | current, location), proportional to a common chain times the location's taste. (locations, from, to)"""
    rng = np.random.default_rng(seed)
    chain = rng.dirichlet(np.full(N_CONTENTS, 2.0), N_CONTENTS)
    np.fill_diagonal(chain, 0.0)
    taste = np.exp(rng.normal(0.0, 1.0, (N_LOCATIONS, N_CONTENTS)))
    law = chain[None] * taste[:, None]
    return np.asarray(law / law.sum(axis=2, keepdims=True))


def tasteful_log(*, sessions: int, length: int = 6, seed: int = 0) -> tuple[RequestLog, Int32]:
    """Sessions of `length` requests, ten seconds apart, that start anywhere; and the true number of each content code."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(truth(), axis=2)
    location = rng.integers(N_LOCATIONS, size=sessions)
    path = np.empty((sessions, length), dtype=np.int64)
    path[:, 0] = rng.integers(N_CONTENTS, size=sessions)
    for step in range(1, length):
        draw = rng.random(sessions)[:, None]
        path[:, step] = np.minimum((steps[location, path[:, step - 1]] < draw).sum(axis=1), N_CONTENTS - 1)
    begin = START_US + rng.integers(0, round(HOURS * 3600), sessions) * SECOND_US
    ts_us = begin[:, None] + np.arange(length) * 10 * SECOND_US
    names = np.array([f"c{i}" for i in range(N_CONTENTS)], dtype=object)
    places = np.array([f"l{i}" for i in range(N_LOCATIONS)], dtype=object)
    log = RequestLog.from_columns(
        ts_us.ravel(),
        np.repeat([f"s{i}" for i in range(sessions)], length),
        names[path.ravel()],
        np.repeat(places[location], length),
    )
    return log, np.array([int(name[1:]) for name in log.contents], dtype=np.int32)
