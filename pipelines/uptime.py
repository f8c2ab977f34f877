"""Devices of a synthetic world: heavy-tailed on/off sessions, network outages, and the telemetry that goes with them.

on    ~ Weibull(shape k, scale c);  hazard k/c (x/c)^(k-1) falls with uptime x where k < 1
off   ~ log-normal(median m, sigma s);  an evening device then waits for 22:00-24:00 local time
an unplugged session has scale u·c, so that its hazard is u^-k times as high; telemetry shows it as `charging` false
outages of a network are a Poisson process; while one lasts all nodes of the network are down together
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.capacity import TIMESTAMP
from pipelines.devices import HOUR_US, Sessions
from pipelines.sizes import Bool, Float64, Int64

EVENING_HOUR = 22.0
EVENING_HOURS = 2.0
BATTERY_GAIN_PER_HOUR = 0.35
BATTERY_LOSS_PER_HOUR = 0.12


@dataclass(frozen=True)
class OnOffSettings:
    """How long devices of one class stay on and off."""

    nodes: int = 48
    """Devices of this class."""
    on_shape: float = 0.7
    """Weibull shape of on-sessions; below 1 the tail is heavy."""
    on_scale_hours: float = 24.0
    """Weibull scale of on-sessions, in hours."""
    off_median_hours: float = 2.0
    """Median of off-times, in hours."""
    off_sigma: float = 1.0
    """Standard deviation of the logarithm of off-times."""
    evening_share: float = 0.0
    """Probability that a device waits after its off-time until the local evening."""
    unplugged_share: float = 0.0
    """Probability that an on-session runs on battery."""
    unplugged_scale: float = 1.0
    """Factor on the scale of a session that runs on battery."""
    uplink_median_bps: float = 8e6
    """Median uplink before the common factor that ties uplink to demand, in bits per second."""
    uplink_sigma: float = 0.8
    """Standard deviation of the logarithm of uplink."""

    def __post_init__(self) -> None:
        problems = [] if self.nodes >= 0 else [f"Expected nodes >= 0, got {self.nodes!r}."]
        for name in ("on_shape", "on_scale_hours", "off_median_hours", "unplugged_scale", "uplink_median_bps"):
            if getattr(self, name) <= 0:
                problems.append(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        for name in ("off_sigma", "uplink_sigma"):
            if getattr(self, name) < 0:
                problems.append(f"Expected {name} >= 0, got {getattr(self, name)!r}.")
        for name in ("evening_share", "unplugged_share"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"Expected {name} in [0, 1], got {getattr(self, name)!r}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class OutageSettings:
    """Outages that take down all nodes of a network at once."""

    per_week: float = 1.5
    """Mean outages of a network in a week; each network has its own gamma-distributed rate."""
    rate_shape: float = 2.0
    """Shape of the gamma distribution of rates; small values make networks unequal."""
    median_minutes: float = 45.0
    """Median length of an outage, in minutes."""
    sigma: float = 0.7
    """Standard deviation of the logarithm of the length."""

    def __post_init__(self) -> None:
        problems = [] if self.per_week >= 0 else [f"Expected per_week >= 0, got {self.per_week!r}."]
        for name in ("rate_shape", "median_minutes"):
            if getattr(self, name) <= 0:
                problems.append(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        if self.sigma < 0:
            problems.append(f"Expected sigma >= 0, got {self.sigma!r}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class Outages:
    """Outages by network and start, not overlapping within a network, and the true rate of each network."""

    per_week: Float64
    network: Int64
    start_us: Int64
    end_us: Int64


def draw_outages(
    settings: OutageSettings, n_networks: int, *, window_us: tuple[int, int], rng: np.random.Generator
) -> Outages:
    """Outages of every network in a window; one that would start within another is merged with it."""
    rate = settings.per_week * rng.gamma(settings.rate_shape, 1 / settings.rate_shape, n_networks)
    weeks = (window_us[1] - window_us[0]) / (168 * HOUR_US)
    network = np.repeat(np.arange(n_networks), rng.poisson(rate * weeks))
    start = rng.integers(window_us[0], window_us[1], len(network))
    minutes = settings.median_minutes * np.exp(settings.sigma * rng.standard_normal(len(network)))
    order = np.lexsort((start, network))
    merged: list[list[int]] = []
    for where, begin, end in zip(
        network[order].tolist(), start[order].tolist(), _later(start, minutes / 60)[order].tolist(), strict=True
    ):
        if merged and merged[-1][0] == where and begin <= merged[-1][2]:
            merged[-1][2] = max(merged[-1][2], end)
        else:
            merged.append([where, begin, end])
    columns = np.array(merged, dtype=np.int64).reshape(-1, 3)
    return Outages(rate, columns[:, 0], columns[:, 1], columns[:, 2])


@dataclass(frozen=True)
class OnPeriods:
    """When devices would be up without outages, by node and start; `charging` until the period ends. (n,) each."""

    node: Int64
    start_us: Int64
    end_us: Int64
    charging: Bool

    def taken(self, rows: Any) -> OnPeriods:
        return OnPeriods(self.node[rows], self.start_us[rows], self.end_us[rows], self.charging[rows])


def draw_on_periods(
    settings: OnOffSettings, longitude: Float64, *, window_us: tuple[int, int], rng: np.random.Generator
) -> OnPeriods:
    """Alternates on and off from ten mean cycles before a window to its end; periods that end before it are dropped.

    Args:
        settings: of the class.
        longitude: of each device, for its local time; in degrees. (n,)
        window_us: half-open.
        rng: source of every draw.
    """
    lead_hours = 10 * (settings.on_scale_hours + settings.off_median_hours) + 48
    clock = window_us[0] - rng.integers(0, max(1, int(lead_hours * HOUR_US)), len(longitude))
    everyone = np.arange(len(longitude))
    rows = []
    while (clock < window_us[1]).any():
        plugged = rng.random(len(clock)) >= settings.unplugged_share
        scale = settings.on_scale_hours * np.where(plugged, 1.0, settings.unplugged_scale)
        end = _later(clock, scale * rng.weibull(settings.on_shape, len(clock)))
        rows.append((everyone, clock, end, plugged))
        clock = _later(end, settings.off_median_hours * np.exp(settings.off_sigma * rng.standard_normal(len(clock))))
        evening = rng.random(len(clock)) < settings.evening_share
        clock = np.where(evening, _later(clock, _hours_to_evening(clock, longitude, rng)), clock)
    periods = OnPeriods(*(np.concatenate(c) for c in zip(*rows, strict=True))) if rows else _no_periods()
    periods = periods.taken((periods.end_us > window_us[0]) & (periods.start_us < window_us[1]))
    return periods.taken(np.lexsort((periods.start_us, periods.node)))


def without_outages(periods: OnPeriods, network: Int64, outages: Outages) -> OnPeriods:
    """Cuts the outages of each node's network out of its periods; what is left of a period may be several pieces."""
    pieces = periods
    for where, start_us, end_us in zip(outages.network, outages.start_us, outages.end_us, strict=True):
        hit = (network[pieces.node] == where) & (pieces.start_us < end_us) & (pieces.end_us > start_us)
        if not hit.any():
            continue
        whole, cut = pieces.taken(~hit), pieces.taken(hit)
        before = OnPeriods(cut.node, cut.start_us, np.minimum(cut.end_us, start_us), cut.charging)
        after = OnPeriods(cut.node, np.maximum(cut.start_us, end_us), cut.end_us, cut.charging)
        pieces = joined([whole, *(p.taken(p.end_us > p.start_us) for p in (before, after))])
    return pieces.taken(np.lexsort((pieces.start_us, pieces.node)))


def as_sessions(periods: OnPeriods, n_nodes: int) -> Sessions:
    """On-sessions whose ends are known exactly."""
    n = len(periods.node)
    return Sessions(
        periods.node,
        periods.start_us,
        periods.end_us,
        periods.end_us,
        np.zeros(n, dtype=bool),
        np.ones(n, dtype=bool),
        n_nodes,
    )


@dataclass(frozen=True)
class NodeTraits:
    """What telemetry is drawn around. (n_nodes,) each; `on_battery` says which nodes have a battery at all."""

    names: npt.NDArray[np.object_]
    rtt_ms: Float64
    uplink_bps: Float64
    storage_bytes: Int64
    on_battery: Bool


def draw_telemetry(
    periods: OnPeriods, traits: NodeTraits, *, every_minutes: int, until_us: int, rng: np.random.Generator
) -> pa.Table:
    """One row at the start of each period and every `every_minutes` while it lasts, in time order."""
    step_us = every_minutes * 60_000_000
    ends = np.minimum(periods.end_us, until_us)
    count = np.maximum(-(-(ends - periods.start_us) // step_us), 0)
    row = np.repeat(np.arange(len(count)), count)
    beat = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    ts_us = periods.start_us[row] + beat * step_us
    first_battery = rng.uniform(0.2, 0.9, len(count))
    order = np.lexsort((periods.node[row], ts_us))
    row, ts_us, hours = row[order], ts_us[order], (beat * every_minutes / 60)[order]
    node, charging = periods.node[row], periods.charging[row]
    drift = np.where(charging, BATTERY_GAIN_PER_HOUR, -BATTERY_LOSS_PER_HOUR) * hours
    no_battery = ~traits.on_battery[node]
    n = len(row)
    columns: dict[str, Any] = {
        "ts": pa.array(ts_us, TIMESTAMP),
        "node": pa.array(traits.names[node], pa.string()),
        "rtt_ms": pa.array(traits.rtt_ms[node] * np.exp(0.1 * rng.standard_normal(n))),
        "loss": pa.array(rng.beta(1, 200, n)),
        "uplink_bps": pa.array(traits.uplink_bps[node] * np.exp(0.2 * rng.standard_normal(n))),
        "storage_free_bytes": pa.array((traits.storage_bytes[node] * rng.uniform(0.2, 0.9, n)).astype(np.int64)),
        "battery": pa.array(np.clip(first_battery[row] + drift, 0.02, 1.0), mask=no_battery),
        "charging": pa.array(charging, mask=no_battery),
        "metered": pa.array(np.zeros(n, dtype=bool)),
        "cpu_load": pa.array(rng.beta(2, 8, n)),
        "memory_load": pa.array(rng.beta(4, 6, n)),
    }
    return pa.table(columns)


def _later(from_us: Int64, hours: Float64) -> Int64:
    """`hours` after an instant, and at least a second after it."""
    return np.asarray(from_us + np.maximum(np.rint(hours * HOUR_US), 1_000_000).astype(np.int64))


def _hours_to_evening(at_us: Int64, longitude: Float64, rng: np.random.Generator) -> Float64:
    local_hour = at_us / HOUR_US % 24 + longitude / 15
    return np.asarray((EVENING_HOUR + EVENING_HOURS * rng.random(len(at_us)) - local_hour) % 24)


def joined(parts: list[OnPeriods]) -> OnPeriods:
    """All periods one part after the other; nodes keep their numbers."""
    names = ("node", "start_us", "end_us", "charging")
    return OnPeriods(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def _no_periods() -> OnPeriods:
    empty = np.empty(0, dtype=np.int64)
    return OnPeriods(empty, empty, empty, np.empty(0, dtype=bool))
