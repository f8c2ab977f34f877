"""Small fleets written out by hand, in hours since 1970."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from models.churn.history import SessionHistory
from models.events import HOUR_US

INSTANT = pa.timestamp("us", tz="UTC")
Session = tuple[float, float]


def fleet(
    sessions: Mapping[str, Sequence[Session]],
    *,
    until: float,
    device_class: Mapping[str, str] | None = None,
    location: Mapping[str, str] | None = None,
    since: Mapping[str, float] | None = None,
) -> SessionHistory:
    """Sessions [from, to) of each node, watched from hour 0 (`since` where given); one that ends at `until` goes on."""
    rows = [(node, a, b) for node, spans in sessions.items() for a, b in spans]
    availability = pa.table(
        {
            "node": pa.array([node for node, _, _ in rows], pa.string()),
            "start": _instants([a for _, a, _ in rows]),
            "end": _instants([b for _, _, b in rows]),
            "censored": pa.array([b >= until for _, _, b in rows], pa.bool_()),
        }
    )
    nodes = pa.table(
        {
            "source": list(sessions),
            "device_class": [(device_class or {}).get(node, "home") for node in sessions],
            "network": list(sessions),
            "location": [(location or {}).get(node, "here") for node in sessions],
            "available_at": _instants([(since or {}).get(node, 0.0) for node in sessions]),
        }
    )
    return SessionHistory.from_arrow(availability, nodes)


def _instants(hours: Sequence[float]) -> pa.Array[pa.TimestampScalar]:
    return pa.array([round(hour * HOUR_US) for hour in hours], INSTANT)
