"""The churn benchmark: splits that leak nothing, peers of the field's library, and goals judged as they are written."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.churn_joint import LEAST_UP_US, long_known, right_on_average
from benchmarks.churn_table import BOOSTING, OURS, tell
from benchmarks.churn_worlds import (
    FOLDS,
    ChurnWorld,
    Fold,
    Stage,
    instant_us,
    phones_world,
    real_data,
    relay_history,
    relay_windows,
    relays_world,
)
from models.churn.evaluation import ScoredRows
from models.churn.outcomes import Outcomes, outcomes_at
from models.churn.settings import ChurnSettings
from models.events import DAY_US, HOUR_US
from tests.models.churn_fleet import fleet
from tests.models.test_churn_evaluation import restless

needs_real = pytest.mark.skipif(
    not real_data().is_dir(), reason=f"the real tables are not at {real_data()}; set PREMIRROR_REAL_DATA"
)
SMALL = ChurnSettings(edges_hours=(1.0, 3.0), origin_every_hours=3.0, maximum_age_hours=12.0)
TRAIN, VALIDATION = (24 * HOUR_US, 72 * HOUR_US), (72 * HOUR_US, 96 * HOUR_US)


@needs_real
def test_relays__development_holds_nothing_of_the_test_window() -> None:
    """While methods are developed the sessions are as they were known on 1 May 2026: later departures are open ends."""
    world = relays_world("development")
    (fold,) = world.folds
    assert next(start_us for start_us, _ in world.windows.values()) == fold.test[0]
    assert world.trained_until_us == fold.validation[1]
    cut = instant_us("2026-05-01")
    assert world.history.start_us.max() < cut
    assert max(world.history.end_us.max(), world.history.end_upper_us.max()) <= cut
    open_ends = world.history.censored & (world.history.end_us == cut)
    assert open_ends.sum() > 5_000
    assert {str(name) for name in world.history.device_class} == {"relay", "exit relay"}
    # A place was looked up for those who stayed: it must not reach a model, so every relay is a network of its own.
    assert len(set(world.history.network)) == len(world.history)


def test_relays__stages_mirror_each_other() -> None:
    """Choosing lasts 16 days and testing 41, with a guard of 48 h between, in both stages."""
    stages: tuple[Stage, ...] = ("development", "final")
    for stage in stages:
        train_us, choose_us, chosen_us, test_us, end_us = relay_windows(stage)
        assert train_us < choose_us
        assert (chosen_us - choose_us) // DAY_US == 16
        assert test_us - chosen_us == 48 * HOUR_US
        assert (end_us - test_us) // DAY_US == 41
    # The last outcomes of the development stage, 48 h after the last origin, end before anything that is hidden.
    assert relay_windows("development")[4] + 48 * HOUR_US <= instant_us("2026-05-01")


@needs_real
def test_relays__cutting_the_table_is_the_point_in_time_view() -> None:
    """Reading until an instant gives what `before` gives of the whole table, for the nodes that were seen by then."""
    cut = instant_us("2026-01-15")
    early, whole = relay_history(until_us=cut), relay_history().before(cut)
    same = whole.select(early.nodes)
    for name in ("start_us", "end_us", "end_upper_us", "censored", "device_class"):
        np.testing.assert_array_equal(getattr(early, name), getattr(same, name))


@needs_real
def test_phones__every_phone_is_tested_once_by_methods_that_never_saw_it() -> None:
    """Folds partition the fleet; those that choose live four weeks later and are otherwise the same."""
    world = phones_world()
    assert len(world.folds) == FOLDS
    tested = np.concatenate([fold.nodes for fold in world.folds])
    assert sorted(tested) == list(range(len(world.history)))
    for fold in world.folds:
        held_out = fold.tested.nodes[fold.nodes]
        assert not set(fold.trained.nodes) & set(held_out)
        assert len(fold.trained) + len(held_out) == len(fold.tested) == len(world.history)
        assert (fold.validation[0] - fold.train[0]) == 28 * DAY_US
        assert fold.validation[0] >= fold.train[1]
    fold = world.folds[0]
    choosing = fold.trained.nodes[fold.trained.observed_from_us > fold.train[1]]
    assert 40 < len(choosing) < 100
    at_us = (fold.test[0] + fold.test[1]) // 2
    here = outcomes_at(world.history.select(choosing), at_us=at_us, edges_hours=world.settings.edges_hours)
    moved = fold.trained.select(choosing)
    later = outcomes_at(moved, at_us=at_us + 28 * DAY_US, edges_hours=world.settings.edges_hours)
    assert len(here)
    for name in ("node", "low", "high", "followed_hours"):
        np.testing.assert_array_equal(getattr(here, name), getattr(later, name))


def test_survival_peers__tell_two_kinds_of_nodes_apart() -> None:
    """Half of the fleet leaves three times as soon: Cox and the forest read it from the past, at the right level.

    Ages are clipped at 12 h: inputs that grow with the log would be read beyond what training met.
    """
    pytest.importorskip("sksurv", reason="scikit-survival is in the extra `bench`")
    from benchmarks.survival_peers import fit_survival_peers

    rng = np.random.default_rng(0)
    sessions = {}
    for i in range(60):
        clock, spans = 0.0, []
        while clock < 120.0:
            until = clock + float(rng.exponential(2.0 if i % 2 else 6.0))
            spans.append((clock, min(until, 120.0)))
            clock = until + float(rng.exponential(1.0))
        sessions[f"n{i}"] = spans
    history = fleet(sessions, until=120.0)
    at_us = 100 * HOUR_US
    for method in fit_survival_peers(history, train=TRAIN, validation=VALIDATION, settings=SMALL):
        forecast = method.forecast(history, at_us=at_us)
        again = method.forecast(history.before(at_us), at_us=at_us)
        np.testing.assert_array_equal(forecast.survival, again.survival)
        restive = np.arange(60) % 2 == 1
        soon, late = (forecast.survival[forecast.up & rows, 0].mean() for rows in (restive, ~restive))
        # S(1 h) is e^(−1/2) = 0.61 for the restive and e^(−1/6) = 0.85 for the others, who are told apart by their past.
        assert late - soon > 0.05
        assert (soon, late) == pytest.approx((np.exp(-1 / 2), np.exp(-1 / 6)), abs=0.15)


def world_of(rows: int) -> tuple[ChurnWorld, Outcomes]:
    """Rows of as many nodes over 1 h and 3 h, of which a third leaves by each edge."""
    history = restless(rows)
    number = np.arange(rows)
    low, high = number % 3, np.where(number % 3 < 2, number % 3 + 1, 0)
    outcomes = Outcomes(np.full(rows, DAY_US), number, low, high, np.full(rows, 99.0), np.asarray(SMALL.edges_hours))
    fold = Fold(history, TRAIN, VALIDATION, history, VALIDATION, number)
    windows = {"first": (0, 2 * DAY_US), "empty": (2 * DAY_US, 3 * DAY_US)}
    return ChurnWorld("test", history, (fold,), SMALL, 1.0, windows, 0, "made up"), outcomes


def test_table__goals_are_met_by_who_meets_them() -> None:
    """Ours knows everything, boosting little, the Markov peer nothing: skill goals are met; a worse one misses them."""
    world, outcomes = world_of(300)
    alive = outcomes.alive()
    marginal = np.tile([2 / 3, 1 / 3], (300, 1))
    half = 0.5 * (alive + marginal)

    def judged(ours: np.ndarray, boosting: np.ndarray) -> dict[str, bool]:
        survival = {OURS: (ours,), BOOSTING: (boosting,), "life_table": (marginal,)}
        brier = {name: (np.full(300, 0.1),) for name in survival}
        scored = ScoredRows(outcomes, survival, brier, outcomes.node, outcomes.at_us)
        told = tell(world, scored, {OURS: {"training": 1.0, "forecasting": 2.0}})
        assert told.rows["best_markov_peer"] == "life_table"
        assert "first: 300 rows" in told.text
        assert "empty" not in told.text
        row = next(r for r in told.rows["rows"] if (r["window"], r["stratum"], r["model"]) == ("whole", "all", OURS))
        assert row["ece_chance"] > 0.0
        interval = f"[{row['calibration_slope_low']:.3f}, {row['calibration_slope_high']:.3f}]"
        assert interval in told.text
        return {goal["goal"]: goal["met"] for goal in told.rows["goals"]}

    better, worse = judged(half, marginal), judged(marginal, half)
    assert better["IBSS over best Markov peer >= +0.05"]
    assert better["the same, stretch >= +0.08"]
    assert better["not worse than boosting: whole, all"]
    assert not worse["IBSS over best Markov peer >= +0.05"]
    assert not worse["not worse than boosting: whole, all"]
    assert not worse["not worse than boosting: first, all"]
    # Forecasts half-way to the truth are too timid by far: the error is above 0.02, and a goal not reached is said.
    assert not better["churn: ECE of the worst class <= 0.02"]


def test_joint__only_nodes_whose_place_is_known_whatever_follows() -> None:
    """At day 20: seen all along, seen for 10 days only, up for 6 days of 20, and up for 10 but for 5 since the lookup."""
    day = 24.0
    history = fleet(
        {
            "steady": [(0.0, 30 * day)],
            "young": [(10 * day, 30 * day)],
            "rare": [(0.0, 5 * day), (19 * day, 30 * day)],
            "early": [(0.0, 5 * day), (15 * day, 30 * day)],
        },
        until=30 * day,
        since={"young": 10 * day},
    )
    at = outcomes_at(history, at_us=20 * DAY_US, edges_hours=(24.0,))
    assert long_known(history, at, placed_from_us=0).tolist() == [True, False, False, True]
    assert long_known(history, at, placed_from_us=5 * DAY_US).tolist() == [True, False, False, False]
    # What follows the origin changes nothing.
    known = history.before(20 * DAY_US + LEAST_UP_US)
    assert long_known(known, at, placed_from_us=0).tolist() == [True, False, False, True]


def test_joint__a_mean_put_right_is_the_share_that_stayed() -> None:
    """300 rows of which two thirds stay one hour and a third three, forecast at 0.9 and 0.8."""
    _, outcomes = world_of(300)
    moved = right_on_average(outcomes, np.tile([0.9, 0.8], (300, 1)))
    assert moved.mean(axis=0) == pytest.approx([2 / 3, 1 / 3], abs=1e-6)
