"""A scene small enough to do by hand, with shortcuts for what is planned in it.

Contents (segment size 10): `page` of 5 bytes, 1 segment (code 0); `film` of 25 bytes, 3 segments (codes 1, 2, 3; the
last one of 5 bytes). Locations `here` and `there`. Sources: POP `pop` (code 0) and node `near` (1) here, node `far` (2)
there; round trips of 5 ms within a location and 50 ms across.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.events import HOUR_US
from models.forecast import DemandForecast
from pipelines.requests import RequestRows
from pipelines.scene import Catalogue, Scene

NOW_US = 1_000 * HOUR_US
FOREVER_US = np.iinfo(np.int64).max
POP, NEAR, FAR = 0, 1, 2


def tiny_scene(**changes: Any) -> Scene:
    """The scene of the module's docstring, with some fields replaced."""
    fields: dict[str, Any] = {
        "catalogue": Catalogue(
            np.array(["page", "film"], dtype=object), np.array([5, 25]), np.array([10, 10], dtype=np.int64)
        ),
        "locations": np.array(["here", "there"], dtype=object),
        "names": np.array(["Here", "There"], dtype=object),
        "location_lat": np.array([0.0, 10.0]),
        "location_lon": np.array([0.0, 10.0]),
        "source": np.array(["pop", "near", "far"], dtype=object),
        "n_pops": 1,
        "location": np.array([0, 0, 1], dtype=np.int32),
        "network": np.array([-1, 0, 1], dtype=np.int32),
        "storage_bytes": np.array([0, 2_000_000, 2_000_000], dtype=np.int64),
        "uplink_bps": np.array([np.inf, 1e6, 1e6]),
        "downlink_bps": np.array([np.inf, 1e7, 1e7]),
        "egress_cost_per_gb": np.array([0.05, 0.0, 0.0]),
        "device_class": np.array(["pop", "home", "home"], dtype=object),
        "consent_until_us": np.array([FOREVER_US, FOREVER_US, FOREVER_US]),
        "known_from_us": np.array([-1, -1, -1], dtype=np.int64),
        "lat": np.array([0.0, 0.0, 10.0]),
        "lon": np.array([0.0, 0.0, 10.0]),
        "rtt_ms": np.array([[5, 5, 50], [50, 50, 5]], dtype=np.float32),
        "distance_km": np.array([[1, 1, 1000], [1000, 1000, 1]], dtype=np.float32),
    }
    return Scene(**(fields | changes))


def rows(*requests: tuple[float, int, int], segment: int = -1, location: int = 0) -> RequestRows:
    """Requests of (seconds after `NOW_US`, content code, bytes)."""
    n = len(requests)
    return RequestRows(
        ts_us=np.array([NOW_US + round(seconds * 1e6) for seconds, _, _ in requests], dtype=np.int64),
        content=np.array([content for _, content, _ in requests], dtype=np.int64),
        location=np.full(n, location, dtype=np.int64),
        segment=np.full(n, segment, dtype=np.int64),
        bytes=np.array([size for _, _, size in requests], dtype=np.int64),
    )


def forecast(*cells: tuple[int, int, float], contents: tuple[str, ...] = ("page", "film")) -> DemandForecast:
    """Cells of (content, location, mean) over six hours from `NOW_US`."""
    n = len(cells)
    return DemandForecast(
        origin_us=NOW_US,
        horizon_hours=6.0,
        content=np.array([c for c, _, _ in cells], dtype=np.int32),
        location=np.array([place for _, place, _ in cells], dtype=np.int32),
        mean=np.array([mean for _, _, mean in cells], dtype=np.float64),
        dispersion=np.zeros(n),
        other_mean=np.zeros(2),
        contents=np.array(contents, dtype=object),
        locations=np.array(["here", "there"], dtype=object),
    )
