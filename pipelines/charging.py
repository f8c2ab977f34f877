"""A fleet whose departures depend on what its telemetry shows, by a known law: phones that charge at night, laptops, homes.

    hazard h = h_class · exp(β_unplugged u + β_low [u and battery < 30 %] + β_metered m + β_rising r)     per hour up

Phones charge between two clock times of their own; a laptop session is plugged or not; a metered link lasts for a session;
round trips and losses rise (r) from a random instant on for a while. A planned leave is announced 1 to 4 hours ahead and
kept with a known probability. Everything moves in steps of five minutes, so the survival of a device given its state is
computed exactly: a chain over (time to the planned leave) × (rising or calm), with the battery and the clock known ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipelines.capacity import day_us
from pipelines.sizes import Bool, Float64, Int64, part_rng

STEP_US = 5 * 60_000_000
STEP_HOURS = STEP_US / 3.6e9
STEPS_PER_DAY = 288
LOW_BATTERY = 0.3
CHARGE_PER_HOUR = 0.35
LEAVE_STEPS = (12, 48)
PHONE, LAPTOP, HOME = 0, 1, 2
CLASSES = ("phone", "laptop", "home")


@dataclass(frozen=True)
class ChargingSettings:
    """A world of devices whose telemetry tells when they leave."""

    kind: Literal["charging"] = "charging"
    """Which kind of world this is."""
    name: str = "charging"
    """Name of the world; the folder it is built in."""
    seed: int = 5
    """Seed of every draw."""
    start: str = "2026-03-02"
    """First day of the world, UTC."""
    days: int = 21
    """Days in the world."""
    phones: int = 300
    """Phones, at home chargers by night."""
    laptops: int = 150
    """Laptops, whose sessions run on the mains or on battery."""
    homes: int = 150
    """Always-on devices at home, which have no battery to tell of."""
    phone_departures_per_hour: float = 0.06
    """Departures of a phone per hour up, where nothing raises them."""
    laptop_departures_per_hour: float = 0.12
    """The same of a laptop."""
    home_departures_per_hour: float = 0.01
    """The same of an always-on device."""
    returns_per_hour: float = 0.4
    """Returns of a device that is down, per hour down."""
    unplugged_effect: float = 0.7
    """Added to the logarithm of the hazard on battery."""
    low_battery_effect: float = 1.1
    """Added where a battery that does not charge is below 30 %."""
    metered_effect: float = 0.9
    """Added for the whole of a session on a metered link."""
    rising_effect: float = 1.4
    """Added while round trips and losses rise."""
    metered_share: float = 0.25
    """Probability that a session runs on a metered link; homes never do."""
    rises_per_hour: float = 0.03
    """Rate at which round trips and losses begin to rise."""
    rise_hours: float = 3.0
    """Mean time for which they rise."""
    leaves_per_hour: float = 0.03
    """Rate at which a device that plans no leave announces one, 1 to 4 hours ahead."""
    leave_kept: float = 0.9
    """Probability that a device leaves when it said it would."""
    heartbeat_minutes: int = 30
    """Time between two heartbeats of a device that is up, in minutes; a multiple of 5."""
    missing_share: float = 0.05
    """Probability that a reading is missing."""
    cannot_tell_share: float = 0.1
    """Share of devices that never tell of their battery, and share of those that never tell whether a link is metered."""
    stuck_share: float = 0.03
    """Share of devices whose readings stand still for one day."""

    def __post_init__(self) -> None:
        problems = []
        shares = ("metered_share", "leave_kept", "missing_share", "cannot_tell_share", "stuck_share")
        problems += [
            f"Expected {n} in [0, 1], got {getattr(self, n)!r}." for n in shares if not 0 <= getattr(self, n) <= 1
        ]
        rates = (*(f"{name}_departures_per_hour" for name in CLASSES), "returns_per_hour", "rise_hours")
        problems += [f"Expected {n} > 0, got {getattr(self, n)!r}." for n in rates if not getattr(self, n) > 0]
        counts = ("phones", "laptops", "homes", "rises_per_hour", "leaves_per_hour")
        problems += [f"Expected {n} >= 0, got {getattr(self, n)!r}." for n in counts if not getattr(self, n) >= 0]
        if self.days < 1 or self.phones + self.laptops + self.homes < 1:
            problems.append("Expected at least one day and one device.")
        if self.heartbeat_minutes < 5 or self.heartbeat_minutes % 5:
            problems.append(f"Expected heartbeat_minutes a multiple of 5, got {self.heartbeat_minutes!r}.")
        try:
            day_us(self.start)
        except (TypeError, ValueError):
            problems.append(f"Expected start as a day such as '2026-03-02' (in quotes), got {self.start!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def start_us(self) -> int:
        return day_us(self.start)

    @property
    def steps(self) -> int:
        return self.days * STEPS_PER_DAY


@dataclass(frozen=True)
class Fleet:
    """What does not change of a device. (n,) each; charging times are steps of the day, of phones only."""

    kind: Int64
    base: Float64
    drain_per_hour: Float64
    plug_step: Int64
    unplug_step: Int64

    @classmethod
    def draw(cls, settings: ChargingSettings) -> Fleet:
        rng = part_rng(settings.seed, "charging fleet")
        kind = np.repeat([PHONE, LAPTOP, HOME], [settings.phones, settings.laptops, settings.homes])
        rates = np.array([getattr(settings, f"{name}_departures_per_hour") for name in CLASSES])
        drain = np.where(kind == PHONE, rng.uniform(0.04, 0.09, len(kind)), rng.uniform(0.1, 0.2, len(kind)))
        plug, unplug = (np.rint((hour + rng.normal(0, 1, len(kind))) * 12) % STEPS_PER_DAY for hour in (22.5, 7.0))
        return cls(kind, rates[kind], drain, plug.astype(np.int64), unplug.astype(np.int64))

    def plugged(self, step: int, session: Bool) -> Bool:
        """Whether each device charges in a step; `session` says it of the laptops."""
        clock = step % STEPS_PER_DAY
        by_night = (clock - self.plug_step) % STEPS_PER_DAY < (self.unplug_step - self.plug_step) % STEPS_PER_DAY
        return np.where(self.kind == PHONE, by_night, session | (self.kind == HOME))

    def charged(self, battery: Float64, plugged: Bool) -> Float64:
        """The battery one step later; a home's is always full."""
        change = np.where(plugged, CHARGE_PER_HOUR, -self.drain_per_hour) * STEP_HOURS
        return np.where(self.kind == HOME, 1.0, np.clip(battery + change, 0.03, 1.0))


@dataclass(frozen=True)
class State:
    """Everything that the future of the devices depends on at the beginning of one step. (n,) each.

    Attributes:
        step: number of the step.
        up: whether the device is up.
        metered: whether its link is metered.
        rising: whether its round trips rise.
        plan: steps to its planned leave, 0 where it plans none.
        battery: charge, in [0, 1].
        session_plugged: of laptops, whether this session is plugged.
    """

    step: int
    up: Bool
    metered: Bool
    rising: Bool
    plan: Int64
    battery: Float64
    session_plugged: Bool


def hazards(settings: ChargingSettings, fleet: Fleet, state: State) -> Float64:
    """Departures per hour of each device in its state, were it up, its planned leave aside. (n,)."""
    unplugged = ~fleet.plugged(state.step, state.session_plugged)
    effect = settings.unplugged_effect * unplugged + settings.metered_effect * state.metered
    effect += settings.low_battery_effect * (unplugged & (state.battery < LOW_BATTERY))
    return np.asarray(fleet.base * np.exp(effect + settings.rising_effect * state.rising))


def true_survival(settings: ChargingSettings, fleet: Fleet, state: State, edges_hours: tuple[float, ...]) -> Float64:
    """P(a device in this state is still up at each edge); edges are multiples of five minutes. (n, edges)."""
    at = [round(hours / STEP_HOURS) for hours in edges_hours]
    first, last = LEAVE_STEPS
    announced = -np.expm1(-settings.leaves_per_hour * STEP_HOURS)
    rises = -np.expm1(-settings.rises_per_hour * STEP_HOURS)
    calms = -np.expm1(-STEP_HOURS / settings.rise_hours)
    alive = np.zeros((len(state.up), 2, last + 2))  # (device, calm or rising, steps to the planned leave)
    alive[np.arange(len(state.up)), state.rising.astype(int), state.plan] = 1.0
    survival = np.ones((len(state.up), len(at)))
    never, rise = np.zeros(len(state.up), dtype=np.bool_), np.exp([0.0, settings.rising_effect])
    for done in range(1, max(at) + 1):
        calm = hazards(settings, fleet, replace(state, rising=never)) * STEP_HOURS
        alive *= np.exp(-calm[:, None] * rise)[:, :, None]
        none, due = alive[:, :, 0].copy(), alive[:, :, 1].copy()
        alive[:, :, 1:-1] = alive[:, :, 2:]
        alive[:, :, 0] = none * (1.0 - announced) + due * (1.0 - settings.leave_kept)
        alive[:, :, first : last + 1] += none[:, :, None] * announced / (last - first + 1)
        more = alive[:, 0] * rises - alive[:, 1] * calms
        alive[:, 0] -= more
        alive[:, 1] += more
        plugged = fleet.plugged(state.step, state.session_plugged)
        state = replace(state, step=state.step + 1, battery=fleet.charged(state.battery, plugged))
        survival[:, [k for k, steps in enumerate(at) if steps == done]] = alive.sum(axis=(1, 2))[:, None]
    return survival


class Simulation:
    """Draws the states of a fleet step after step; the same settings give the same states."""

    def __init__(self, settings: ChargingSettings) -> None:
        self.settings = settings
        self.fleet = Fleet.draw(settings)
        self.rng = part_rng(settings.seed, "charging states")
        n = len(self.fleet.kind)
        off = np.zeros(n, dtype=np.bool_)
        battery = np.where(self.fleet.kind == HOME, 1.0, self.rng.uniform(0.4, 1.0, n))
        self.state = self._fresh(State(0, off, off, off, np.zeros(n, dtype=np.int64), battery, off), ~off)
        self.started_us = np.full(n, settings.start_us)
        self.sessions: list[tuple[Int64, Int64, Int64]] = []

    def step(self) -> None:
        """Moves on by five minutes; departures are added to `sessions` as (device, start, end)."""
        settings, state, n = self.settings, self.state, len(self.state.up)
        left = self._drawn(hazards(settings, self.fleet, state)) & state.up
        kept = state.up & ~left & (state.plan == 1) & (self.rng.random(n) < settings.leave_kept)
        back = ~state.up & self._drawn(np.full(n, settings.returns_per_hour))
        now_us = settings.start_us + state.step * STEP_US
        within_us = np.maximum((self.rng.random(n) * STEP_US).astype(np.int64), 1)
        gone = np.flatnonzero(left | kept)
        self.sessions.append(
            (gone, self.started_us[gone], now_us + np.where(kept, STEP_US - 1_000_000, within_us)[gone])
        )
        self.started_us = np.where(back, now_us + within_us, self.started_us)
        announces = (state.plan == 0) & self._drawn(np.full(n, settings.leaves_per_hour))
        ahead = self.rng.integers(LEAVE_STEPS[0], LEAVE_STEPS[1] + 1, n)
        flips = self._drawn(np.where(state.rising, 1.0 / settings.rise_hours, settings.rises_per_hour))
        plugged = self.fleet.plugged(state.step, state.session_plugged)
        following = replace(
            state,
            step=state.step + 1,
            up=(state.up & ~left & ~kept) | back,
            rising=state.rising ^ flips,
            plan=np.where(announces, ahead, np.maximum(state.plan - 1, 0)),
            battery=self.fleet.charged(state.battery, plugged),
        )
        self.state = self._fresh(following, back)

    def _drawn(self, per_hour: Float64) -> Bool:
        return np.asarray(self.rng.random(len(per_hour)) < -np.expm1(-per_hour * STEP_HOURS), dtype=np.bool_)

    def _fresh(self, state: State, begins: Bool) -> State:
        """The state with a new session of these devices: calm, without a plan, its link and its socket drawn."""
        n, kind = len(begins), self.fleet.kind
        metered = (self.rng.random(n) < self.settings.metered_share) & (kind != HOME)
        session_plugged = self.rng.random(n) < 0.5
        battery = np.where(kind == LAPTOP, self.rng.uniform(0.3, 1.0, n), state.battery)
        return replace(
            state,
            up=state.up | begins,
            metered=np.where(begins, metered, state.metered),
            rising=state.rising & ~begins,
            plan=np.where(begins, 0, state.plan),
            battery=np.where(begins, battery, state.battery),
            session_plugged=np.where(begins, session_plugged, state.session_plugged),
        )
