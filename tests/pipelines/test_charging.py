"""A world whose devices leave by a known law: the law holds in what was drawn, telemetry shows it, a model recovers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.churn.history import SessionHistory
from models.churn.outcomes import log_likelihood, outcomes_at
from models.churn.settings import ChurnSettings
from models.churn.telemetry import NO_LEAVE_US, QUANTITIES, telemetry_inputs, telemetry_names
from models.churn.training import fit_churn
from models.events import DAY_US, HOUR_US, Bool, Float64
from models.tables import validate
from pipelines.charging import HOME, LEAVE_STEPS, ChargingSettings, Fleet, State, true_survival
from pipelines.charging_tables import ChargingWorld
from pipelines.store import read_table
from pipelines.typed import build
from pipelines.world import build_world
from pipelines.yaml_file import parse

CONFIG = Path(__file__).parents[2] / "configs" / "world" / "charging.yaml"
NAMES = telemetry_names()
EDGES = (0.25, 1.0, 2.0, 4.0)
SMALL = ChargingSettings(days=6, phones=90, laptops=45, homes=15)


@pytest.fixture(scope="module")
def world() -> ChargingWorld:
    """150 devices for six days; some 3,000 departures."""
    return ChargingWorld.draw(SMALL)


@pytest.fixture(scope="module")
def origins(world: ChargingWorld) -> range:
    """Every five hours from the second day on."""
    start = world.settings.start_us
    return range(start + DAY_US, start + 5 * DAY_US + 20 * HOUR_US, 5 * HOUR_US)


def test_settings__all_mistakes_at_once() -> None:
    """Whoever mends a configuration wants the whole list."""
    with pytest.raises(
        ValueError, match=r"(?s)metered_share in \[0, 1\].*rise_hours > 0.*multiple of 5.*start as a day"
    ):
        ChargingSettings(metered_share=2, rise_hours=0, heartbeat_minutes=7, start="soon")


def test_draw__same_seed_same_tables(world: ChargingWorld) -> None:
    """Same settings, same bytes; another seed, other sessions."""
    again, other = (ChargingWorld.draw(replace(SMALL, days=1, seed=seed)) for seed in (5, 6))
    assert ChargingWorld.draw(replace(SMALL, days=1)).tables == again.tables
    assert again.tables["availability"] != other.tables["availability"]
    with pytest.raises(ValueError, match="on a step of 5 minutes"):
        world.state_at(world.settings.start_us + 1)


def test_build_world__writes_sound_tables_and_the_law(tmp_path: Path) -> None:
    """`premirror world` leaves tables that pass the door, the true hazards, and every effect in world.json."""
    written = build_world(replace(SMALL, days=1), out=tmp_path / "charging")
    for name in ("locations", "nodes", "availability", "telemetry"):
        assert len(validate(name, read_table(tmp_path / "charging", name)).quarantine) == 0
    assert len(read_table(tmp_path / "charging", "truth/hazard")) > 0
    assert written["truth"]["metered_effect"] == SMALL.metered_effect
    assert (
        build(ChargingSettings, parse(CONFIG.read_text(), "charging.yaml"), source="charging.yaml")
        == ChargingSettings()
    )


def test_true_survival__by_hand() -> None:
    """S(1 h) = exp(−0.1) in peace, exp(−0.1 e^0.9) on a metered link, a tenth where a leave is kept with 90 % in between."""
    settings = ChargingSettings(rises_per_hour=0, leaves_per_hour=0)
    one, no = np.ones(1), np.zeros(1, dtype=np.bool_)
    fleet = Fleet(np.array([HOME]), 0.1 * one, 0 * one, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
    state = State(0, ~no, no, no, np.zeros(1, dtype=np.int64), one, no)
    cases = (state, replace(state, metered=~no), replace(state, plan=np.array([6])))
    found = [float(true_survival(settings, fleet, case, (1.0,))[0, 0]) for case in cases]
    assert found == pytest.approx([np.exp(-0.1), np.exp(-0.1 * np.exp(0.9)), 0.1 * np.exp(-0.1)])


def test_true_survival__is_what_was_drawn(world: ChargingWorld, origins: range) -> None:
    """Within each group of devices as many leave within an hour as the law expects, give or take 4 standard errors."""
    history = world.history(telemetry=False)
    seen: dict[str, list[tuple[float, float]]] = {}
    for at_us in origins:
        state, survival = world.state_at(at_us), world.survival(at_us, (1.0,))[:, 0]
        found = outcomes_at(history, at_us=at_us, edges_hours=(1.0,))
        stayed = np.full(len(history), np.nan)
        stayed[found.node] = found.alive()[:, 0]
        unplugged = ~world.fleet.plugged(state.step, state.session_plugged)
        groups = {"metered": state.metered, "low": unplugged & (state.battery < 0.3), "rising": state.rising}
        groups |= {"due": (state.plan > 0) & (state.plan <= LEAVE_STEPS[0]), "rest": ~(state.metered | state.rising)}
        for name, mine in groups.items():
            rows = mine & state.up
            seen.setdefault(name, []).extend(zip(stayed[rows].tolist(), survival[rows].tolist(), strict=True))
    for name, pairs in seen.items():
        alive, expected = np.array(pairs).T
        error = np.sqrt((expected * (1 - expected)).sum())
        assert len(pairs) > 30, name
        assert abs(alive.sum() - expected.sum()) < 4 * error, name


def test_telemetry__shows_the_state_through_noise(world: ChargingWorld, origins: range) -> None:
    """Where a device tells, the input is its state: metered nearly always, plans always, rising trends mostly."""
    history = world.history()
    assert history.telemetry is not None
    metered, rising = [], []
    for at_us in origins:
        state, inputs = world.state_at(at_us), telemetry_inputs(history.telemetry, len(history), at_us=at_us)
        column = {name: inputs[:, i] for i, name in enumerate(NAMES)}
        fresh = state.up & (column["log_minutes_since_heartbeat"] < np.log1p(40))
        known = fresh & (column["metered_known"] == 1)
        metered.append((column["metered"] == state.metered)[known])
        moving = fresh & (column["rtt_trend_known"] == 1)
        rising.append(np.column_stack([column["rtt_trend"], state.rising])[moving])
        plans = fresh & (state.plan > 0) & (state.plan < 6)  # announced seven steps ago or more
        assert column["leave_announced"][plans].all()
        homes = world.fleet.kind == HOME
        assert not column["battery_known"][homes].any()
    assert np.concatenate(metered).mean() > 0.97
    trend, risen = np.concatenate(rising).T
    assert trend[risen == 1].mean() > trend[risen == 0].mean() + 0.3


def test_telemetry__has_readings_missing_unknown_and_stuck(world: ChargingWorld) -> None:
    """The world is no kinder than devices are: 5 % missing, a tenth that never tell, 3 % that stand still for a day."""
    table = world.tables["telemetry"].to_pandas()
    assert table["rtt_ms"].isna().mean() == pytest.approx(0.05, abs=0.01)
    laptops = table[table["node"].str.startswith("laptop")]
    told = laptops.groupby("node")["battery"].count()
    assert 0 < (told == 0).mean() < 0.35
    repeated = table.groupby("node")["rtt_ms"].agg(lambda readings: readings.duplicated().sum())
    assert (repeated > 8).any()


Edit = Callable[[dict[str, Any], Bool, Float64], None]


def edited(history: SessionHistory, at_us: int, edit: Edit) -> SessionHistory:
    """The history with the heartbeats of the last day before the instant rewritten for all devices alike."""
    log = history.telemetry
    assert log is not None
    values, leaves_us = log.values.copy(), log.leaves_us.copy()
    recent = (log.ts_us < at_us) & (log.ts_us >= at_us - DAY_US)
    columns: dict[str, Any] = {name: values[:, i] for i, name in enumerate(QUANTITIES)} | {"leaves_us": leaves_us}
    edit(columns, recent, (log.ts_us - at_us) / HOUR_US)
    return replace(history, telemetry=replace(log, values=values, leaves_us=leaves_us))


def metered(yes: bool) -> Edit:
    def edit(columns: dict[str, Any], recent: Bool, _: Float64) -> None:
        columns["metered"][recent] = yes

    return edit


def low_battery(yes: bool) -> Edit:
    def edit(columns: dict[str, Any], recent: Bool, hours: Float64) -> None:
        rows = recent & (hours > -4)
        columns["charging"][rows] = 0.0
        columns["battery"][rows] = ((0.15 if yes else 0.75) - 0.07 * hours)[rows]

    return edit


def rising(yes: bool) -> Edit:
    """From two hours ago on, or not at all; with the noise of the world."""

    def edit(columns: dict[str, Any], recent: Bool, hours: Float64) -> None:
        noise = np.random.default_rng(0).standard_normal((2, len(hours)))
        risen = yes * np.clip(0.7 * (hours + 2), 0, 2)
        columns["rtt_ms"][recent] = (30 * np.exp(risen + 0.1 * noise[0]))[recent]
        columns["loss"][recent] = (0.005 * np.exp(1.2 * risen + 0.3 * noise[1]))[recent]

    return edit


def leaving(at_us: int, hours: float | None) -> Edit:
    def edit(columns: dict[str, Any], recent: Bool, _: Float64) -> None:
        columns["leaves_us"][recent] = NO_LEAVE_US if hours is None else at_us + round(hours * HOUR_US)

    return edit


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Trained on two weeks of 600 devices with and without telemetry, for the days after the sixteenth."""
    drawn = ChargingWorld.draw(ChargingSettings())
    day = drawn.settings.start_us
    train, validation = (day + 3 * DAY_US, day + 14 * DAY_US), (day + 14 * DAY_US, day + 16 * DAY_US)
    settings = ChurnSettings(edges_hours=EDGES, networks=1, origin_every_hours=2.0)
    found: dict[str, Any] = {"world": drawn, "tests": range(day + 16 * DAY_US, day + 20 * DAY_US + 1, 9 * HOUR_US)}
    for name, telemetry in (("with", True), ("without", False)):
        history = drawn.history(telemetry=telemetry)
        found[name] = (fit_churn(history, train=train, validation=validation, settings=settings)[0], history)
    return found


@pytest.mark.slow
def test_model__is_close_to_the_truth_and_far_from_a_model_without(fitted: dict[str, Any]) -> None:
    """Telemetry closes at least 60 % of the distance between the model without it and the law itself, in nats.

    The rest cannot all be had: readings are noisy, a tenth of the devices do not tell, some stand still.
    """
    world: ChargingWorld = fitted["world"]
    scores: dict[str, list[Float64]] = {"truth": [], "with": [], "without": []}
    for at_us in fitted["tests"]:
        found = outcomes_at(fitted["with"][1], at_us=at_us, edges_hours=EDGES)
        curves = {"truth": world.survival(at_us, EDGES)}
        curves |= {n: fitted[n][0].forecast(fitted[n][1], at_us=at_us).survival for n in ("with", "without")}
        for name, survival in curves.items():
            scores[name].append(-log_likelihood(survival[found.node], found.low, found.high))
    truth, with_it, without = (float(np.concatenate(scores[name]).mean()) for name in scores)
    assert truth < with_it < without
    assert (without - with_it) / (without - truth) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "edge", "least", "most"),
    [("metered", 2, 0.7, 1.3), ("low", 2, 0.5, 1.3), ("rising", 1, 0.35, 1.3), ("leaves", 2, 0.7, 1.3)],
)
def test_model__recovers_each_effect(fitted: dict[str, Any], name: str, edge: int, least: float, most: float) -> None:
    """Flipping one factor in all heartbeats moves the forecast hazard by this share of what it moves the true one by.

    The share is that of the logarithm of the ratio of cumulative hazards, of the devices that are not homes, calm and
    without a plan. Rising round trips are seen through noise from heartbeats half an hour apart, so most of what a
    forecaster can know of them is less than the state itself.
    """
    world: ChargingWorld = fitted["world"]
    forecaster, history = fitted["with"]
    shares = []
    for at_us in [fitted["tests"].start + day * DAY_US + 13 * HOUR_US for day in range(4)]:
        state = world.state_at(at_us)
        none, no = np.zeros(len(state.up), dtype=np.int64), np.zeros(len(state.up), dtype=np.bool_)
        flips: dict[str, tuple[tuple[Edit, dict[str, Any]], tuple[Edit, dict[str, Any]]]] = {
            "metered": ((metered(False), {"metered": no}), (metered(True), {"metered": ~no})),
            "low": (
                (low_battery(False), {"battery": no + 0.75, "session_plugged": no}),
                (low_battery(True), {"battery": no + 0.15, "session_plugged": no}),
            ),
            "rising": ((rising(False), {"rising": no}), (rising(True), {"rising": ~no})),
            "leaves": ((leaving(at_us, None), {"plan": none}), (leaving(at_us, 1.5), {"plan": none + 18})),
        }
        mine = state.up & (world.fleet.kind != HOME) & (state.plan == 0) & ~state.rising
        logs = [
            (
                np.log(
                    -np.log(forecaster.forecast(edited(history, at_us, edit), at_us=at_us).survival[mine, edge]).mean()
                ),
                np.log(-np.log(world.survival(at_us, EDGES, **changed)[mine, edge]).mean()),
            )
            for edit, changed in flips[name]
        ]
        (model_off, true_off), (model_on, true_on) = logs
        shares.append((model_on - model_off) / (true_on - true_off))
    assert least < float(np.mean(shares)) < most
