"""A stream of sessions whose visitors, devices, arrivals and kinds of content are known."""

from __future__ import annotations

import numpy as np

from models.events import NEVER_US, Catalogue, RequestLog
from tests.models.tasteful_world import SECOND_US, START_US, truth


def shown_log(*, sessions: int = 150, length: int = 5, hours: float = 6.0, seed: int = 0) -> RequestLog:
    """Sessions of `length` requests half a minute apart, of sessions / 3 visitors who come back.

    Contents c0 to c29 follow the law of `tasteful_world`; c30 and c31 are published halfway and never requested. Odd
    contents are videos, even ones texts, and c0 is of no known kind.
    """
    rng = np.random.default_rng(seed)
    steps = np.cumsum(truth(), axis=2)
    visitor = rng.integers(max(sessions // 3, 1), size=sessions)
    location = visitor % 3
    path = np.empty((sessions, length), dtype=np.int64)
    path[:, 0] = rng.integers(30, size=sessions)
    for step in range(1, length):
        draw = rng.random(sessions)[:, None]
        path[:, step] = np.minimum((steps[location, path[:, step - 1]] < draw).sum(axis=1), 29)
    begin = START_US + rng.integers(0, round(hours * 3600), sessions) * SECOND_US
    ts_us = begin[:, None] + np.arange(length) * 30 * SECOND_US
    arrivals = np.array(["search", "home", "link"], dtype=object)[rng.integers(3, size=(sessions, length))]

    def each(names: list[str]) -> list[str]:
        return [name for name in names for _ in range(length)]

    log = RequestLog.from_columns(
        ts_us.ravel(),
        each([f"s{k}" for k in range(sessions)]),
        [f"c{i}" for i in path.ravel()],
        each([f"l{k}" for k in location]),
        user=each([f"u{k}" for k in visitor]),
        features={"device": each([("phone", "desk")[k % 2] for k in visitor]), "arrival": arrivals.ravel()},
    )
    halfway_us = START_US + round(hours * 1800) * SECOND_US
    published_us = np.array([NEVER_US] * 30 + [halfway_us] * 2)
    kinds = np.array([None, *(("text", "video")[i % 2] for i in range(1, 32))], dtype=object)
    names = np.array([f"c{i}" for i in range(32)], dtype=object)
    return log.with_catalogue(Catalogue(names, published_us, kinds))
