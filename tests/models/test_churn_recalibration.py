"""Hazards put right on outcomes, day by day, and the monitor that says when the fleet has changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_expit, logit

from models.calibration import expected_calibration_error
from models.churn.drift import RegimeChange, intensified
from models.churn.forecaster import ChurnForecaster
from models.churn.history import Objects, SessionHistory
from models.churn.matured import MaturedOrigins, settled
from models.churn.monitor import DepartureRatio, departures_against
from models.churn.operation import RecalibrationSettings
from models.churn.outcomes import Outcomes, log_likelihood, outcomes_at
from models.churn.recalibrated import RecalibratedForecaster, composed
from models.churn.recalibration import HazardCalibration, calibrated_logits, fit_hazard_calibrations
from models.churn.settings import ChurnSettings
from models.churn.training import fit_tables
from models.events import DAY_US, HOUR_US, Float64
from models.observation import Gap

INSTANT = pa.timestamp("us", tz="UTC")
EDGES = (2.0, 4.0, 8.0)
DAYS = 20
CHANGE_US = 12 * DAY_US
WEAK = 1e-6
OFTEN = RecalibrationSettings(days=5.0, origin_every_hours=5.0, half_lives_days=(1.0, 4.0), judged_days=2.0)


def outcomes(low: list[int], high: list[int]) -> Outcomes:
    n = len(low)
    bins = np.arange(1.0, max([*low, *high]) + 1)
    return Outcomes(np.zeros(n, np.int64), np.arange(n), np.array(low), np.array(high), np.full(n, 1e3), bins)


def homes(n: int) -> Objects:
    return np.full(n, "home", dtype=object)


def drawn(calibration: HazardCalibration, n: int, seed: int) -> tuple[Float64, Outcomes]:
    """Logits and outcomes that follow the calibration; a third of the rows censored, a third seen in intervals."""
    rng = np.random.default_rng(seed)
    bins = len(calibration.shift)
    logits = rng.normal(-2.0, 1.0, (n, 1)) + rng.normal(0.0, 0.3, (n, bins))
    gone = rng.random((n, bins)) < expit(calibration.apply(logits))
    first = np.where(gone.any(axis=1), gone.argmax(axis=1), bins)
    seen = rng.integers(1, bins + 1, n)  # edge at which a rarely watched node is looked at
    kind = rng.integers(0, 3, n)
    low, high = first.copy(), np.where(first < bins, first + 1, 0)
    censored = (kind == 0) & (first >= seen)
    low[censored], high[censored] = seen[censored], 0
    between = (kind == 1) & (first < bins)
    early = between & (first < seen)
    low[early], high[early] = 0, seen[early]
    late = between & (first >= seen)
    low[late], high[late] = seen[late], bins
    edges = np.arange(1.0, bins + 1)
    return logits, Outcomes(np.zeros(n, np.int64), np.arange(n), low, high, np.full(n, 1e3), edges)


def test_fit__one_bin_meets_the_frequency() -> None:
    """200 of 1,000 equal rows leave, so the hazard must be 0.2 wherever the logit began."""
    found = fit_hazard_calibrations(
        np.full((1000, 1), -3.0), outcomes([0] * 200 + [1] * 800, [1] * 200 + [0] * 800), homes(1000), strength=WEAK
    )
    assert found[""].apply(np.array([[-3.0]]))[0, 0] == pytest.approx(logit(0.2), abs=1e-5)


def test_fit__an_interval_is_worth_what_it_says() -> None:
    """Half leave somewhere in two bins: equal hazards h with 1 − (1 − h)² = 1/2, so h = 1 − 1/√2."""
    rows = outcomes([0] * 40 + [2] * 40, [2] * 40 + [0] * 40)
    found = fit_hazard_calibrations(np.zeros((80, 2)), rows, homes(80), strength=WEAK)
    assert expit(found[""].apply(np.zeros((1, 2)))[0]) == pytest.approx(np.full(2, 1 - np.sqrt(0.5)), abs=1e-6)


def test_fit__recovers_a_planted_calibration_from_censored_rows() -> None:
    """Slope 0.7 and a shift of each bin, through right and interval censoring; errors of about 4 % at 20,000 rows."""
    truth = HazardCalibration(0.7, (-0.6, -0.2, 0.3))
    logits, rows = drawn(truth, 20_000, seed=1)
    found = fit_hazard_calibrations(logits, rows, homes(len(rows)), strength=1.0)[""]
    assert found.slope == pytest.approx(0.7, abs=0.04)
    assert np.allclose(found.shift, truth.shift, atol=0.12)


def test_fit__is_the_maximum_of_its_likelihood() -> None:
    """No nearby calibration gives the outcomes a higher probability, by the likelihood that the evaluation uses."""
    logits, rows = drawn(HazardCalibration(1.4, (0.2, -0.5, 0.1)), 12_000, seed=2)
    best = fit_hazard_calibrations(logits, rows, homes(len(rows)), strength=WEAK)[""]

    def likelihood(slope: float, shift: Float64) -> float:
        hazards = HazardCalibration(slope, tuple(shift)).apply(logits)
        survival = np.exp(np.cumsum(log_expit(-hazards), axis=1))
        return float(log_likelihood(survival, rows.low, rows.high).sum())

    top = likelihood(best.slope, np.array(best.shift))
    for step in (-0.02, 0.02):
        assert likelihood(best.slope + step, np.array(best.shift)) < top
        for b in range(3):
            assert likelihood(best.slope, np.array(best.shift) + step * np.eye(3)[b]) < top


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), slope=st.floats(0.3, 3.0), shift=st.floats(-2.0, 2.0))
def test_fit__never_fits_worse_than_it_started(seed: int, slope: float, shift: float) -> None:
    """The penalised likelihood at the fit is at least that of doing nothing, and the slope stays in bounds."""
    logits, rows = drawn(HazardCalibration(slope, (shift, shift)), 400, seed)
    found = fit_hazard_calibrations(logits, rows, homes(400), strength=5.0)[""]
    before, after = (
        log_likelihood(np.exp(np.cumsum(log_expit(-z), axis=1)), rows.low, rows.high).sum()
        for z in (logits, found.apply(logits))
    )
    assert after >= before - 1e-6
    assert 0.25 <= found.slope <= 4.0


def test_fit__few_departures_move_one_common_shift() -> None:
    """With 30 departures the slope and the bins stay where they were."""
    logits, rows = drawn(HazardCalibration(0.5, (1.0, -1.0, 0.0)), 60, seed=3)
    found = fit_hazard_calibrations(logits, rows, homes(60))[""]
    assert found.slope == 1.0
    assert len(set(np.round(found.shift, 12))) == 1
    assert found.shift[0] != 0.0


def test_fit__slope_can_be_held() -> None:
    """A common shift alone, however many departures there are."""
    logits, rows = drawn(HazardCalibration(0.5, (1.0, -1.0, 0.0)), 9000, seed=3)
    found = fit_hazard_calibrations(logits, rows, homes(9000), slope=False)[""]
    assert found.slope == 1.0
    assert np.ptp(found.shift) < 1e-12


def test_fit__an_opposite_order_stops_at_the_least_slope() -> None:
    """Nodes said to be safe leave first: the best slope is negative, and 0.25 is the least that is allowed."""
    logits = np.concatenate([np.full((1000, 1), -3.0), np.full((1000, 1), -1.0)])
    rows = outcomes([0] * 500 + [1] * 500 + [0] * 100 + [1] * 900, [1] * 500 + [0] * 500 + [1] * 100 + [0] * 900)
    assert fit_hazard_calibrations(logits, rows, homes(2000), strength=1.0)[""].slope == 0.25


def test_fit__classes_lean_on_the_fleet() -> None:
    """A class of three rows stays by the fleet; one with thousands has its own level."""
    logits = np.full((4003, 1), -2.0)
    gone = np.concatenate([np.arange(2000) < 1000, np.arange(2000) < 200, [True, True, True]])
    rows = outcomes((~gone).astype(int).tolist(), gone.astype(int).tolist())
    of = np.array(["phone"] * 2000 + ["home"] * 2000 + ["van"] * 3, dtype=object)
    found = fit_hazard_calibrations(logits, rows, of)
    hazard = {name: float(expit(c.apply(logits[:1]))[0, 0]) for name, c in found.items()}
    assert hazard["phone"] == pytest.approx(0.5, abs=0.01)
    assert hazard["home"] == pytest.approx(0.1, abs=0.02)
    assert hazard["phone"] - hazard[""] > hazard["van"] - hazard[""] > 0.0


def with_a_burst(*, together: bool) -> tuple[Float64, Outcomes, Objects]:
    """12 honest days of two classes; 150 of the "van" nodes that are said to be safe leave, in one day or over all."""
    rng = np.random.default_rng(8)
    n, vans = 24_000, 6_000
    logits = rng.normal(-3.5, 1.2, (n, 1))
    day = np.arange(n) % 12
    gone = rng.random(n) < expit(logits[:, 0])
    safe = np.flatnonzero((np.arange(n) < vans) & (logits[:, 0] < -3.5) & ((day == 5) | (not together)))
    gone[rng.choice(safe, 150, replace=False)] = True
    rows = Outcomes(day * DAY_US, np.arange(n), 1 - gone, gone.astype(np.int64), np.full(n, 99.0), np.array([24.0]))
    return logits, rows, np.where(np.arange(n) < vans, "van", "home").astype(object)


def test_fit__departures_that_come_together_do_not_flatten_a_class() -> None:
    """150 safe nodes that leave one by one are news about the class; the same 150 in one day are one event."""
    apart, together = (fit_hazard_calibrations(*with_a_burst(together=t)) for t in (False, True))
    assert apart["van"].slope < 0.85
    assert together["van"].slope == pytest.approx(together[""].slope, abs=0.03)
    # The level follows all the same: the class leaves more often than was said, and than the fleet.
    assert together["van"].apply(np.array([[-3.0]]))[0, 0] > together[""].apply(np.array([[-3.0]]))[0, 0] + 0.1
    assert together["home"].slope == pytest.approx(1.0, abs=0.06)


def test_fit__a_prior_class_moves_with_the_fleet() -> None:
    """A class that is not met again keeps nothing to be fitted; one that is keeps its difference from the fleet."""
    prior = {"": HazardCalibration(1.0, (0.0,)), "phone": HazardCalibration(1.0, (1.0,))}
    rows = outcomes([0] * 300 + [1] * 300 + [0], [1] * 300 + [0] * 300 + [1])
    of = np.array(["home"] * 600 + ["phone"], dtype=object)
    found = fit_hazard_calibrations(np.full((601, 1), -2.0), rows, of, prior=prior, strength=20.0)
    assert found["phone"].shift[0] - found[""].shift[0] == pytest.approx(1.0, abs=0.1)


def test_fit__without_weight_nothing_moves() -> None:
    """Rows that weigh nothing say nothing; weights count rows."""
    logits, rows = drawn(HazardCalibration(0.7, (0.5, 0.5)), 300, seed=4)
    nothing = fit_hazard_calibrations(logits, rows, homes(300), weight=np.zeros(300))
    assert nothing[""] == HazardCalibration.identity(2)
    twice = fit_hazard_calibrations(logits, rows, homes(300), weight=np.full(300, 2.0), strength=40.0)
    once = fit_hazard_calibrations(logits, rows, homes(300), strength=20.0)
    assert np.allclose(twice[""].shift, once[""].shift, atol=1e-5)


def test_fit__refusals_are_sentences() -> None:
    """Shapes that disagree, logits that are not numbers, weights below nothing."""
    logits, rows = drawn(HazardCalibration(1.0, (0.0, 0.0)), 10, seed=5)
    with pytest.raises(ValueError, match=r"Expected logits of shape \(10, 2\)"):
        fit_hazard_calibrations(logits[:9], rows, homes(10))
    with pytest.raises(ValueError, match="Expected finite logits, got 1"):
        fit_hazard_calibrations(np.where(np.arange(20).reshape(10, 2) == 3, np.nan, logits), rows, homes(10))
    with pytest.raises(ValueError, match="Expected finite weights >= 0"):
        fit_hazard_calibrations(logits, rows, homes(10), weight=np.full(10, -1.0))
    with pytest.raises(ValueError, match=r"Expected slope in \[0.25, 4.0\], got 0.0"):
        HazardCalibration(0.0, (0.0,))
    with pytest.raises(ValueError, match="Expected logits of 2 bins"):
        HazardCalibration.identity(2).apply(np.zeros((1, 3)))


def test_calibration__after_another_and_as_json() -> None:
    """Twice 0.5 x + 1 is 0.25 x + 1.5; what is written comes back."""
    once = HazardCalibration(0.5, (1.0, 1.0))
    assert once.after(once) == HazardCalibration(0.25, (1.5, 1.5))
    assert HazardCalibration.from_json(once.to_json()) == once
    both = composed({"": once, "a": once}, {"": once, "b": HazardCalibration(1.0, (0.0, 1.0))})
    assert both["a"] == both[""] == once.after(once)
    assert both["b"].apply(np.zeros((1, 2))).tolist() == [[1.0, 1.5]]
    assert calibrated_logits(np.zeros((1, 2)), homes(1), {}).tolist() == [[0.0, 0.0]]


def two_nodes(*, ends: tuple[int, int], noticed_after_us: int, censored: tuple[bool, bool]) -> SessionHistory:
    """Nodes a and b, up from 0 until their ends."""
    a, homes_, x, y = (np.array(v, dtype=object) for v in (["a", "b"], ["home"] * 2, ["x"] * 2, ["y"] * 2))
    upper = [end if cut else end + noticed_after_us for end, cut in zip(ends, censored, strict=True)]
    zero = np.zeros(2, np.int64)
    late = np.full(2, DAY_US)
    return SessionHistory(
        a, homes_, x, y, zero, late, np.array([0, 1, 2]), zero, np.array(ends), np.array(upper), np.array(censored)
    )


# ---- day by day


def two_speed_history(seed: int) -> SessionHistory:
    """300 nodes of two classes that leave at one of two rates, back after 3 h; seen every half hour."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {"node": [], "start": [], "end": [], "end_upper": [], "censored": []}
    for i in range(300):
        mean, clock = (60.0 if i % 2 else 15.0), rng.exponential(3.0)
        while clock < DAYS * 24.0:
            until = clock + rng.exponential(mean)
            seen = np.floor(until * 2) / 2 if until < DAYS * 24.0 else DAYS * 24.0
            rows["node"].append(f"n{i}")
            rows["start"].append(round(clock * HOUR_US))
            rows["end"].append(round(max(seen, clock) * HOUR_US))
            rows["end_upper"].append(round(max(np.floor(until * 2) / 2 + 0.5, seen) * HOUR_US))
            rows["censored"].append(until >= DAYS * 24.0)
            clock = max(until, np.floor(until * 2) / 2 + 0.5) + rng.exponential(3.0)
    instants = ("start", "end", "end_upper")
    table = pa.table({k: pa.array(v, INSTANT) if k in instants else v for k, v in rows.items()})
    listed = {
        "source": [f"n{i}" for i in range(300)],
        "device_class": ["phone" if i % 3 else "home" for i in range(300)],
    }
    return SessionHistory.from_arrow(table, pa.table({**listed, "available_at": pa.array([0] * 300, INSTANT)}))


@pytest.fixture(scope="module")
def world() -> SessionHistory:
    """Departures become four times as frequent on day 12."""
    return intensified(two_speed_history(7), RegimeChange(CHANGE_US, 4.0), seed=3)


@pytest.fixture(scope="module")
def base(world: SessionHistory) -> ChurnForecaster:
    """A life table of the ten days before."""
    return fit_tables(world, train=(0, 10 * DAY_US), settings=ChurnSettings(edges_hours=EDGES))


def errors(
    model: ChurnForecaster | RecalibratedForecaster, world: SessionHistory, since_us: int, until_us: int
) -> float:
    """ECE of P(gone within 8 h) over origins 7 h apart."""
    gone, forecast = [], []
    for at_us in range(since_us, until_us, 7 * HOUR_US):
        rows = outcomes_at(world, at_us=at_us, edges_hours=EDGES)
        known = rows.known()[:, -1]
        gone.append(1.0 - rows.alive()[known, -1])
        forecast.append(1.0 - model.forecast(world, at_us=at_us).survival[rows.node[known], -1])
    return expected_calibration_error(np.concatenate(forecast), np.concatenate(gone), bins=5)


def test_recalibrated__follows_a_change(world: SessionHistory, base: ChurnForecaster) -> None:
    """Two days after departures became four times as frequent the base model is far off and the other is not."""
    since, until = CHANGE_US + 2 * DAY_US, CHANGE_US + 6 * DAY_US
    ours = RecalibratedForecaster(base, OFTEN)
    plain, followed = errors(base, world, since, until), errors(ours, world, since, until)
    assert plain > 0.15
    assert followed < 0.06
    assert ours.recalibration(world, until).drift.ratio > 2.0
    assert "times" in ours.recalibration(world, until).drift.sentence


def test_recalibrated__chooses_the_short_memory_after_a_change(world: SessionHistory, base: ChurnForecaster) -> None:
    """Yesterday tells more than last week just after everything changed."""
    ours = RecalibratedForecaster(base, OFTEN)
    assert ours.recalibration(world, CHANGE_US + 3 * DAY_US).half_life_days == 1.0


def test_recalibrated__kept_parts_change_nothing(world: SessionHistory, base: ChurnForecaster) -> None:
    """A rolling evaluation says at each instant what a fresh forecaster would have said."""
    rolling = RecalibratedForecaster(base, OFTEN)
    for day in (8, 13, 14):
        at_us = day * DAY_US + 5 * HOUR_US
        fresh = RecalibratedForecaster(base, OFTEN)
        assert rolling.recalibration(world, at_us).to_json() == fresh.recalibration(world, at_us).to_json()
    earlier = world.before(9 * DAY_US)
    fresh = RecalibratedForecaster(base, OFTEN)
    assert rolling.recalibration(earlier, 9 * DAY_US) == fresh.recalibration(earlier, 9 * DAY_US)


def test_recalibrated__the_future_changes_nothing(world: SessionHistory, base: ChurnForecaster) -> None:
    """Whatever happens after the instant, calibration and forecast stay as they are, to the last bit."""
    at_us = 11 * DAY_US + HOUR_US
    another = intensified(two_speed_history(7), RegimeChange(CHANGE_US, 8.0), seed=9)
    told = [RecalibratedForecaster(base, OFTEN).forecast(h, at_us=at_us) for h in (world, another, world.before(at_us))]
    for later in told[1:]:
        assert np.array_equal(told[0].survival, later.survival)
        assert np.array_equal(told[0].availability, later.availability)


def test_recalibrated__before_there_is_anything_it_is_the_base(world: SessionHistory, base: ChurnForecaster) -> None:
    """At the first midnight nothing has been seen: no row, no calibration, the base model's forecast."""
    ours = RecalibratedForecaster(base, OFTEN)
    found = ours.recalibration(world, 5 * HOUR_US)
    assert (found.rows, dict(found.calibration), found.drift.sentence) == (0, {}, "")
    at_us = 5 * HOUR_US
    assert np.array_equal(ours.forecast(world, at_us=at_us).survival, base.forecast(world, at_us=at_us).survival)


def test_recalibrated__departures_of_an_outage_do_not_count(world: SessionHistory, base: ChurnForecaster) -> None:
    """When every departure since the change is an outage's, the calibration takes the fleet for as calm as can be."""

    def since_change(known: SessionHistory) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.asarray(known.end_us >= CHANGE_US, dtype=np.bool_)

    at_us = CHANGE_US + 3 * DAY_US
    counted = RecalibratedForecaster(base, OFTEN).recalibration(world, at_us).calibration[""]
    excused = RecalibratedForecaster(base, OFTEN, outages=since_change).recalibration(world, at_us)
    assert excused.calibration[""].apply(np.full((1, 3), -3.0)).max() < counted.apply(np.full((1, 3), -3.0)).min()
    assert excused.drift.observed == 0.0


def test_settings__refusals_name_the_value() -> None:
    """All mistakes at once."""
    with pytest.raises(ValueError, match=r"days > 0, got 0.0.*maximum_rows >= 1000, got 5"):
        RecalibrationSettings(days=0.0, maximum_rows=5)
    with pytest.raises(ValueError, match="half_lives_days"):
        RecalibrationSettings(half_lives_days=())


def test_matured__a_thinned_origin_stands_for_all(world: SessionHistory, base: ChurnForecaster) -> None:
    """With 50 of the nodes kept, each stands for as many as were left out, and the sum is the fleet."""
    at_us = 9 * DAY_US
    rows = MaturedOrigins(base, 25.0, 50).rows(world, since_us=at_us - 2 * DAY_US, at_us=at_us)
    assert rows is not None
    for origin in np.unique(rows.outcomes.at_us):
        mine = rows.outcomes.at_us == origin
        assert mine.sum() == 50
        assert rows.stands_for[mine].sum() == pytest.approx(world.before(int(origin)).up_at(int(origin)).sum())


def test_matured__an_origin_in_a_hole_is_left_out(world: SessionHistory, base: ChurnForecaster) -> None:
    """Half a day in which nobody was watching: its origins know nothing, and the refit goes on without them."""
    since, until = 9 * DAY_US, 9 * DAY_US + 12 * HOUR_US
    blind = replace(world, holes=(Gap(since, until, since + HOUR_US),))
    rows = MaturedOrigins(base, 5.0, 300).rows(blind, since_us=8 * DAY_US, at_us=10 * DAY_US)
    assert rows is not None
    assert len(np.unique(rows.outcomes.at_us)) > 4
    assert not ((rows.outcomes.at_us > since) & (rows.outcomes.at_us < until)).any()
    assert RecalibratedForecaster(base, OFTEN).recalibration(blind, 10 * DAY_US).rows > 0


def test_settled__what_may_still_be_unnoticed_is_censored() -> None:
    """Departures are noticed an hour later: at 10:00 the log is settled until 09:00, and 09:30 may be missing."""
    history = two_nodes(
        ends=(5 * HOUR_US, 9 * HOUR_US + 1800_000_000), noticed_after_us=HOUR_US, censored=(False, False)
    )
    at_us = 11 * HOUR_US
    view, until_us = settled(history.before(at_us), at_us)
    assert until_us == 10 * HOUR_US
    assert view.censored.tolist() == [False, False]
    earlier, until_us = settled(history.before(10 * HOUR_US), 10 * HOUR_US)
    assert until_us == 9 * HOUR_US
    assert earlier.censored.tolist() == [False, True]
    assert earlier.end_us[1] == until_us


# ---- the monitor


def test_ratio__ten_departures_where_five_were_expected() -> None:
    """Garwood's interval of 10 counts is 4.795 to 18.390, by the tables; over 5 it is 0.959 to 3.678."""
    found = DepartureRatio(0, DAY_US, 10.0, 5.0)
    assert found.ratio == 2.0
    assert found.interval() == pytest.approx((0.9591, 3.6780), abs=1e-4)
    assert found.sentence == ""
    far = DepartureRatio(0, DAY_US, 100.0, 50.0)
    assert "100 departures in the last 24 h, 2.00 times" in far.sentence
    assert DepartureRatio(0, DAY_US, 0.0, 30.0).far
    assert DepartureRatio(0, DAY_US, 0.0, 0.0).to_json()["ratio"] is None


def test_departures_against__by_hand(base: ChurnForecaster) -> None:
    """Hazard 0.1 an hour: one node up for all 4 h, one gone after 2 h, so 0.4 + 0.2 departures were expected."""
    hour = HOUR_US
    history = two_nodes(ends=(9 * hour, 3 * hour), noticed_after_us=0, censored=(True, False))
    cumulative = np.tile(0.1 * np.array(EDGES), (2, 1))
    found = departures_against(
        history, np.array([0, 1]), cumulative, at_us=hour, until_us=5 * hour, edges_hours=base.edges_hours
    )
    assert found == pytest.approx((1.0, 0.6))


def test_composed__keeps_the_base_calibration(world: SessionHistory, base: ChurnForecaster) -> None:
    """A base that was calibrated in training is put right on top of that, not instead of it."""
    shifted = base.calibrated({"": HazardCalibration(1.0, (2.0, 2.0, 2.0))})
    at_us = 9 * DAY_US
    right, wrong = (
        RecalibratedForecaster(b, replace(OFTEN, strength=1.0)).forecast(world, at_us=at_us).survival.mean()
        for b in (base, shifted)
    )
    assert shifted.forecast(world, at_us=at_us).survival.mean() < right - 0.1
    assert wrong == pytest.approx(right, abs=0.03)
