"""The charging world as tables: nodes, on-sessions, noisy telemetry, and the true hazard of every device and hour.

Telemetry is what a device would tell: round trips with log-normal noise around a level that climbs while they rise and
sinks when they are calm, losses likewise, the battery to half a percent. Some readings are missing, some devices cannot
tell, some stand still for a day, and each device's clock is off by up to two minutes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.churn.history import SessionHistory
from pipelines.capacity import TIMESTAMP, iso
from pipelines.charging import (
    CLASSES,
    HOME,
    STEP_HOURS,
    STEP_US,
    ChargingSettings,
    Fleet,
    Simulation,
    State,
    hazards,
    true_survival,
)
from pipelines.sizes import Bool, Float64, Int64, part_rng
from pipelines.synthetic import CITIES

DAY_US = 86_400_000_000
RISE_PER_HOUR, MOST_RISEN = 0.7, 2.0
_CLOCK_SIGMA_US, _CLOCK_LIMIT_US = 30_000_000, 120_000_000
_MOVING = ("rtt_ms", "loss", "uplink_bps", "battery", "cpu_load", "memory_load")


@dataclass(frozen=True)
class ChargingWorld:
    """A drawn world: its tables, and the states that they come from.

    Attributes:
        settings: what it was drawn from.
        fleet: what does not change of its devices.
        states: at the beginning of each step.
        tables: by name.
    """

    settings: ChargingSettings
    fleet: Fleet
    states: tuple[State, ...]
    tables: dict[str, pa.Table]

    @classmethod
    def draw(cls, settings: ChargingSettings) -> ChargingWorld:
        simulation = Simulation(settings)
        states = [simulation.state]
        for _ in range(settings.steps):
            simulation.step()
            states.append(simulation.state)
        names = [f"{CLASSES[k]}-{i:05d}" for i, k in enumerate(simulation.fleet.kind)]
        nodes = _nodes_table(settings, simulation.fleet, names)
        tables = {
            "locations": _locations_table(),
            "nodes": nodes,
            "availability": _availability_table(simulation, nodes["source"].to_numpy()),
            "telemetry": _telemetry_table(settings, simulation.fleet, states, nodes["source"].to_numpy()),
            "truth/hazard": _hazard_table(settings, simulation.fleet, states, nodes["source"].to_numpy()),
        }
        return cls(settings, simulation.fleet, tuple(states), tables)

    def history(self, *, telemetry: bool = True) -> SessionHistory:
        """Sessions, with what the devices tell or without."""
        tables = self.tables
        return SessionHistory.from_arrow(
            tables["availability"], tables["nodes"], tables["telemetry"] if telemetry else None
        )

    def state_at(self, at_us: int) -> State:
        """The true state at an instant, which is a multiple of five minutes after the start.

        Raises:
            ValueError: it is not, or lies outside the world.
        """
        step, rest = divmod(at_us - self.settings.start_us, STEP_US)
        if rest or not 0 <= step < len(self.states):
            end_us = self.settings.start_us + self.settings.steps * STEP_US
            raise ValueError(
                f"Expected an instant on a step of 5 minutes in [{self.settings.start_us}, {end_us}], got {at_us!r}."
            )
        return self.states[step]

    def survival(self, at_us: int, edges_hours: tuple[float, ...], **changed: Any) -> Float64:
        """The true survival of every device were it up at the instant; `changed` replaces parts of its state. (n, B)."""
        return true_survival(self.settings, self.fleet, replace(self.state_at(at_us), **changed), edges_hours)


def build_charging(settings: ChargingSettings) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Draws a world: canonical and truth tables by name, and what `world.json` says."""
    tables = ChargingWorld.draw(settings).tables
    canonical = {name: table for name, table in tables.items() if not name.startswith("truth/")}
    return tables, {
        "name": settings.name,
        "kind": settings.kind,
        "seed": settings.seed,
        "start": iso(settings.start_us),
        "end": iso(settings.start_us + settings.days * DAY_US),
        "measured": [],
        "modelled": [f"{name}.{column}" for name, table in canonical.items() for column in table.column_names],
        "rules": {
            "departures": "Hazard per hour: the class's, times exp of the sum of the effects that hold; and a planned "
            "leave is kept with the probability leave_kept.",
            "telemetry": "Noisy, with missing, unknown and stuck readings, and clocks off by up to two minutes.",
        },
        "truth": {**asdict(settings), "tables": ["truth/hazard.parquet"]},
        "figures": {"sessions": len(tables["availability"]), "heartbeats": len(tables["telemetry"])},
    }


def _locations_table() -> pa.Table:
    names, lat, lon = (list(c) for c in zip(*CITIES[:4], strict=True))
    return pa.table({"location": names, "lat": lat, "lon": lon, "parent": pa.nulls(len(names), pa.string())})


def _nodes_table(settings: ChargingSettings, fleet: Fleet, names: list[str]) -> pa.Table:
    n = len(names)
    rng = part_rng(settings.seed, "charging nodes")
    places = _locations_table().take(pa.array(rng.integers(0, 4, n)))
    uplink = 4e6 * np.exp(0.6 * rng.standard_normal(n))
    columns: dict[str, Any] = {
        "source": names,
        "location": places["location"],
        "lat": places["lat"],
        "lon": places["lon"],
        "network": [f"household-{i // 3:05d}" for i in rng.permutation(n).tolist()],
        "storage_bytes": pa.array(np.full(n, 4 << 30)),
        "uplink_bps": pa.array(uplink),
        "downlink_bps": pa.array(4 * uplink),
        "device_class": [CLASSES[k] for k in fleet.kind],
        "consent_until": pa.array(np.full(n, settings.start_us + (settings.days + 30) * DAY_US), TIMESTAMP),
        "available_at": pa.array(np.full(n, settings.start_us), TIMESTAMP),
    }
    return pa.table(columns)


def _availability_table(simulation: Simulation, names: npt.NDArray[np.object_]) -> pa.Table:
    up = np.flatnonzero(simulation.state.up)
    end_us = simulation.settings.start_us + simulation.state.step * STEP_US
    still = (up, np.minimum(simulation.started_us[up], end_us), np.full(len(up), end_us))
    node, start, end = (np.concatenate(column) for column in zip(*simulation.sessions, still, strict=True))
    censored = np.arange(len(node)) >= len(node) - len(up)
    order = np.lexsort((start, node))
    columns: dict[str, Any] = {
        "node": pa.array(names[node[order]], pa.string()),
        "start": pa.array(start[order], TIMESTAMP),
        "end": pa.array(end[order], TIMESTAMP),
        "end_upper": pa.nulls(len(node), TIMESTAMP),
        "censored": pa.array(censored[order]),
    }
    return pa.table(columns)


def _telemetry_table(
    settings: ChargingSettings, fleet: Fleet, states: list[State], names: npt.NDArray[np.object_]
) -> pa.Table:
    rng = part_rng(settings.seed, "charging telemetry")
    n, every = len(names), settings.heartbeat_minutes // 5
    up = np.array([state.up for state in states])
    begins = up & ~np.vstack([np.zeros(n, dtype=np.bool_), up[:-1]])
    due = (np.arange(len(states))[:, None] + rng.integers(0, every, n)) % every == 0
    step, node = np.nonzero(up & (due | begins))
    risen = _risen(states, begins)[step, node]
    noise = rng.standard_normal((4, len(step)))
    skew_us = np.clip(rng.normal(0, _CLOCK_SIGMA_US, n), -_CLOCK_LIMIT_US, _CLOCK_LIMIT_US).astype(np.int64)
    readings = {
        "rtt_ms": (30 * np.exp(0.5 * rng.standard_normal(n)))[node] * np.exp(risen + 0.1 * noise[0]),
        "loss": np.minimum(0.005 * np.exp(1.2 * risen + 0.3 * noise[1]), 1.0),
        "uplink_bps": (4e6 * np.exp(0.6 * rng.standard_normal(n)))[node] * np.exp(0.2 * noise[2]),
        "battery": np.clip(_column(states, "battery", step, node) + 0.005 * noise[3], 0.0, 1.0),
        "cpu_load": rng.beta(2, 8, len(step)),
        "memory_load": rng.beta(4, 6, len(step)),
    }
    _hold_still(readings, node, step, settings=settings, rng=rng)
    plugged = np.array([fleet.plugged(state.step, state.session_plugged) for state in states])[step, node]
    told: dict[str, Any] = {**readings, "charging": plugged, "metered": _column(states, "metered", step, node)}
    hidden = _hidden(settings, fleet, node, rng)
    plan = _column(states, "plan", step, node)
    leaves_us = settings.start_us + (step + plan) * STEP_US
    columns: dict[str, Any] = {
        "ts": pa.array(settings.start_us + step * STEP_US + skew_us[node], TIMESTAMP),
        "node": pa.array(names[node], pa.string()),
        **{
            name: pa.array(values, mask=(rng.random(len(step)) < settings.missing_share) | hidden.get(name, False))
            for name, values in told.items()
        },
        "leaves_at": pa.array(leaves_us, TIMESTAMP, mask=plan == 0),
    }
    return pa.table(columns)


def _column(states: list[State], name: str, step: Int64, node: Int64) -> npt.NDArray[Any]:
    return np.array([getattr(state, name) for state in states])[step, node]


def _risen(states: list[State], begins: Bool) -> Float64:
    """How far the logarithm of the round trip has climbed. (steps, n)."""
    risen = np.zeros(begins.shape)
    fades = np.exp(-STEP_HOURS)
    for step in range(1, len(states)):
        climbed = np.minimum(risen[step - 1] + RISE_PER_HOUR * STEP_HOURS, MOST_RISEN)
        risen[step] = np.where(states[step - 1].rising, climbed, risen[step - 1] * fades)
        risen[step, begins[step]] = 0.0
    return risen


def _hidden(settings: ChargingSettings, fleet: Fleet, node: Int64, rng: np.random.Generator) -> dict[str, Bool]:
    """Readings that a device never tells: of a battery it has not, or of what its platform does not know."""
    battery = (fleet.kind == HOME) | (rng.random(len(fleet.kind)) < settings.cannot_tell_share)
    metered = rng.random(len(fleet.kind)) < settings.cannot_tell_share
    return {"battery": battery[node], "charging": battery[node], "metered": metered[node]}


def _hold_still(
    readings: dict[str, Float64], node: Int64, step: Int64, *, settings: ChargingSettings, rng: np.random.Generator
) -> None:
    """For a day, some devices repeat the readings of its first heartbeat."""
    n = int(node.max(initial=0)) + 1
    from_step = rng.integers(0, settings.steps, n)
    for device in np.flatnonzero(rng.random(n) < settings.stuck_share).tolist():
        of_day = (step >= from_step[device]) & (step < from_step[device] + DAY_US // STEP_US)
        rows = np.flatnonzero((node == device) & of_day)
        for name in _MOVING:
            readings[name][rows] = readings[name][rows[:1]]


def _hazard_table(
    settings: ChargingSettings, fleet: Fleet, states: list[State], names: npt.NDArray[np.object_]
) -> pa.Table:
    """Of every full hour and every device that is up then."""
    parts = []
    for state in states[:: round(1 / STEP_HOURS)]:
        up = np.flatnonzero(state.up)
        plugged = fleet.plugged(state.step, state.session_plugged)[up]
        leaves_us = settings.start_us + (state.step + state.plan[up]) * STEP_US
        columns: dict[str, Any] = {
            "ts": pa.array(np.full(len(up), settings.start_us + state.step * STEP_US), TIMESTAMP),
            "node": pa.array(names[up], pa.string()),
            "departures_per_hour": pa.array(hazards(settings, fleet, state)[up]),
            "unplugged": pa.array(~plugged),
            "battery": pa.array(state.battery[up]),
            "metered": pa.array(state.metered[up]),
            "rising": pa.array(state.rising[up]),
            "leaves_at": pa.array(leaves_us, TIMESTAMP, mask=state.plan[up] == 0),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
