"""A churn model followed over a window: observed shares by hand, and intervals that tell honest from over-confident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.churn.edge_calibration import ClassCalibration, calibrations
from models.churn.evaluation import evaluate
from models.churn.history import Objects, SessionHistory
from models.churn.joint import JointSurvival
from models.churn.observed import NodeResamples, observed_stay
from models.churn.outcomes import Outcomes
from models.churn.track import ChurnTrack, NobodyUpError, follow_churn
from models.compared import Compared
from models.events import DAY_US, HOUR_US, Bool, Float64
from models.forecast import ChurnForecast

INSTANT = pa.timestamp("us", tz="UTC")
EDGES = np.array([1.0, 2.0, 4.0])
DAYS = 6
LEAVING = np.where(np.arange(80) % 2, 0.5, 0.1)
"""Departures an hour of each node of the world below; phones (odd) leave five times as fast as homes."""
RETURNING = 0.25


def outcomes(low: list[int], high: list[int], followed: list[float] | None = None) -> Outcomes:
    n = len(low)
    hours = np.full(n, 100.0) if followed is None else np.array(followed)
    at = np.zeros(n, dtype=np.int64)
    return Outcomes(at, np.arange(n), np.array(low), np.array(high), hours, EDGES)


def stay(rows: Outcomes, forecast: float = 0.5) -> Compared:
    return observed_stay(rows, np.full((len(rows), len(EDGES)), forecast), NodeResamples.draw(len(rows)))


@dataclass(frozen=True)
class Knows:
    """Knows the true rates of the world; `confidence` multiplies the log-odds of its probabilities."""

    leaving: Float64
    returning: float = RETURNING
    confidence: float = 1.0
    name: str = "knows"

    @property
    def edges_hours(self) -> Float64:
        return EDGES

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        assert nodes is None
        up = history.before(at_us).up_at(at_us)
        rate = self.leaving[:, None]
        survival = self._bold(np.where(up[:, None], np.exp(-rate * EDGES), 0.0))
        long_run = self.returning / (self.returning + rate)
        decay = np.exp(-(self.returning + rate) * EDGES)
        available = np.where(up[:, None], long_run + (1 - long_run) * decay, long_run * (1 - decay))
        returned = np.where(up[:, None], 1.0, 1.0 - np.exp(-self.returning * EDGES))
        return ChurnForecast(
            at_us, EDGES, history.nodes, up, survival, np.maximum(self._bold(available), survival), self._bold(returned)
        )

    def _bold(self, probability: Float64) -> Float64:
        inner = np.clip(probability, 1e-12, 1 - 1e-12)
        return np.where((probability > 0) & (probability < 1), expit(self.confidence * logit(inner)), probability)


@pytest.fixture(scope="module")
def history() -> SessionHistory:
    """Eighty nodes that leave and return at constant rates for six days."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[object]] = {"node": [], "start": [], "end": []}
    for i, rate in enumerate(LEAVING):
        clock = rng.exponential(1 / RETURNING)
        while clock < DAYS * 24.0:
            until = clock + rng.exponential(1 / rate)
            rows["node"].append(f"n{i}")
            rows["start"].append(round(clock * HOUR_US))
            rows["end"].append(round(until * HOUR_US))
            clock = until + rng.exponential(1 / RETURNING)
    listed = pa.table(
        {
            "source": [f"n{i}" for i in range(len(LEAVING))],
            "device_class": ["phone" if i % 2 else "home" for i in range(len(LEAVING))],
            "network": [f"as{i % 9}" for i in range(len(LEAVING))],
            "available_at": pa.array([0] * len(LEAVING), INSTANT),
        }
    )
    table = pa.table({k: pa.array(v, INSTANT) if k != "node" else v for k, v in rows.items()})
    return SessionHistory.from_arrow(table, listed)


def followed(history: SessionHistory, model: Knows, *, joint: JointSurvival | None = None) -> ChurnTrack:
    return follow_churn(
        model, history, start_us=DAY_US, end_us=5 * DAY_US, every_hours=5.0, joint=joint, replicates=100
    )


@pytest.fixture(scope="module")
def honest(history: SessionHistory) -> ChurnTrack:
    return followed(history, Knows(LEAVING), joint=JointSurvival.independent(EDGES))


@pytest.fixture(scope="module")
def bold(history: SessionHistory) -> ChurnTrack:
    """Log-odds three times too large: 80 % becomes 98 %."""
    return followed(history, Knows(LEAVING, confidence=3.0))


def test_stay__is_kaplan_and_meiers_estimate() -> None:
    """One leaves in bin 1, one is lost after edge 1, one leaves in bin 3: 2/3, then nobody of the one left, then all."""
    found = stay(outcomes([0, 1, 2], [1, 0, 3]))
    # Edge 1: 1 of 3 left. Edge 2: at risk is the third alone, who stays: 2/3. Edge 3: it leaves: 0.
    np.testing.assert_allclose(found.observed, [2 / 3, 2 / 3, 0.0], atol=1e-6)
    np.testing.assert_array_equal(found.count, [3, 2, 2])


def test_stay__a_departure_between_sightings_is_shared_by_what_the_others_did() -> None:
    """Left in bin 1 or 2; of two others one left in bin 1 for certain, one stayed: p = (2 p₁ … ) solves to 2/3, 0, 0."""
    found = stay(outcomes([0, 0, 3], [2, 1, 0]))
    # Nobody certainly left in bin 2, so the likelihood p₁ (p₁ + p₂) p₄ is largest at p₁ = 2/3, p₂ = 0.
    np.testing.assert_allclose(found.observed, [1 / 3, 1 / 3, 1 / 3], atol=1e-4)


def test_stay__departures_of_the_short_followed_do_not_count_twice() -> None:
    """Rows followed for 1.5 h: whether they left in bin 2 or not, they are lost at edge 1 alike."""
    short = outcomes([3, 3, 1, 1, 1, 1], [0, 0, 2, 2, 0, 0], [9.0, 9.0, 1.5, 1.5, 1.5, 1.5])
    np.testing.assert_allclose(stay(short).observed, [1.0, 1.0, 1.0], atol=1e-9)


def test_stay__beyond_what_was_followed_nothing_is_known() -> None:
    """All are lost after edge 1; and a group without rows knows nothing at all."""
    found = stay(outcomes([1, 1], [0, 0], [1.5, 1.5]))
    assert found.observed[0] == pytest.approx(1.0)
    assert np.isnan(found.observed[1:]).all()
    assert not found.known[1:].any()
    assert found.widest == 0
    nobody = observed_stay(outcomes([], []), np.zeros((0, 3)), NodeResamples.draw(3))
    assert nobody.widest is None
    assert not nobody.count.any()


def test_stay__no_departure_at_all_still_has_an_interval() -> None:
    """Ten of ten stayed: the exact binomial interval reaches down to 0.025^(1/10) = 0.691."""
    found = stay(outcomes([3] * 10, [0] * 10))
    np.testing.assert_allclose(found.low, 0.025 ** (1 / 10))
    np.testing.assert_allclose(found.high, 1.0)


def test_stay__interval_is_over_nodes() -> None:
    """A hundred rows of two nodes, one always up and one always gone, leave everything open; of 100 nodes they do not."""
    low, high = [3, 0] * 50, [0, 1] * 50
    rows = outcomes(low, high)
    of_two = Outcomes(rows.at_us, np.arange(100) % 2, rows.low, rows.high, rows.followed_hours, EDGES)
    few = observed_stay(of_two, np.full((100, 3), 0.5), NodeResamples.draw(2))
    assert (few.low[0], few.high[0]) == pytest.approx((0.0, 1.0), abs=1e-6)
    many = stay(rows)
    assert 0.35 < many.low[0] < many.observed[0] < many.high[0] < 0.65


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25))
@settings(max_examples=40, deadline=None)
def test_stay__falls_from_1_to_0_inside_its_interval(cells: list[tuple[int, int]]) -> None:
    """Whatever is known of whom: shares are probabilities, never rise with time, and their interval holds them."""
    low = [a for a, _ in cells]
    high = [b if b > a else 0 for a, b in cells]
    found = observed_stay(outcomes(low, high), np.zeros((len(low), 3)), NodeResamples.draw(len(low), replicates=10))
    known = found.observed[np.isfinite(found.observed)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (np.diff(known) <= 1e-6).all()


def test_track__of_an_honest_model_lies_inside_its_intervals(honest: ChurnTrack) -> None:
    """Who knows the true rates is inside for the fleet, each class, each quarter and nearly every bin."""
    for group in honest.groups:
        assert group.stay.inside.all()
        assert group.available.inside.all()
        assert group.returned.inside.all()
    assert [g.name for g in honest.groups] == ["", "home", "phone"]
    # The truth has two rates, so there are two different forecasts.
    assert len(honest.quarters) == 2
    assert all(q.inside.all() for q in honest.quarters)
    assert all(points.inside.mean() >= 0.5 for points in honest.reliability)
    assert honest.days.inside.sum() >= 3


def test_track__of_an_over_confident_model_does_not(bold: ChurnTrack) -> None:
    """Too sure on both sides: the risky stay more often, the safe less often than said, and the slope is near 1/3."""
    assert not bold.groups[1].stay.inside.any()
    assert not bold.groups[0].returned.inside.all()
    at_two_hours = bold.reliability[1]
    assert not at_two_hours.inside.any()
    fleet = bold.groups[0].calibration
    np.testing.assert_allclose(fleet.slope, 1 / 3, atol=0.06)
    assert (fleet.slopes_high < 0.6).all()
    assert (fleet.error > 5 * fleet.chance).all()


def test_track__honest_slopes_hold_1_and_the_error_is_chance(honest: ChurnTrack) -> None:
    """The interval of each slope holds 1; the error is of the size that chance gives."""
    fleet = honest.groups[0].calibration
    assert ((fleet.slopes_low < 1) & (fleet.slopes_high > 1)).all()
    assert (fleet.error < 4 * fleet.chance).all()
    assert abs(fleet.intercept) < 0.2


def test_track__figures_are_those_of_the_comparison(history: SessionHistory, honest: ChurnTrack) -> None:
    """A page shows the calibration error and the slope twice, from the comparison and from here: they must agree."""
    rows = evaluate([Knows(LEAVING)], history, start_us=DAY_US, end_us=5 * DAY_US, every_hours=5.0, until_us=5 * DAY_US)
    told = {row["stratum"]: row for row in rows}
    for group in honest.groups:
        row = told[f"class:{group.name}" if group.name else "all"]
        assert (group.rows, group.departures) == (row["n"], row["departures"])
        assert group.calibration.mean_error == pytest.approx(row["ece"])
        assert group.calibration.slope == pytest.approx(row["calibration_slope"])


def test_track__joint_tenths_are_those_of_independent_nodes(honest: ChurnTrack) -> None:
    """Nodes of this world are independent and so is what is said of sets: both columns agree and lie near the truth."""
    assert [j.kind for j in honest.joint] == ["all", "within", "across"]
    everything = honest.joint[0]
    np.testing.assert_array_equal(everything.shared.forecast, everything.independent.forecast)
    enough = everything.shared.count > 200
    assert np.abs(everything.shared.forecast - everything.shared.observed)[enough].max() < 0.08


def test_track__days_are_counted_from_the_start(honest: ChurnTrack) -> None:
    """Four days from the second one on, with every origin in one of them."""
    assert honest.day_us.tolist() == [DAY_US * d for d in range(1, 5)]
    assert honest.origins == 20
    assert honest.days.count.sum() <= honest.groups[0].rows


def test_track__sees_nothing_after_the_window(history: SessionHistory, honest: ChurnTrack) -> None:
    """What the log learns later changes nothing: the window's end is when outcomes are read."""
    again = followed(history.before(5 * DAY_US), Knows(LEAVING))
    np.testing.assert_allclose(again.groups[0].stay.observed, honest.groups[0].stay.observed)
    np.testing.assert_allclose(again.groups[0].available.observed, honest.groups[0].available.observed)


def test_track__without_a_node_that_is_up_says_so(history: SessionHistory) -> None:
    """A window before anything happened is a mistake in the windows."""
    with pytest.raises(NobodyUpError, match="No node was up at any origin"):
        follow_churn(Knows(LEAVING), history, start_us=-2 * DAY_US, end_us=-DAY_US, every_hours=6.0)


def test_calibrations__copies_of_a_node_say_nothing_new() -> None:
    """Each row four times, of the same node: error, slope, interval and chance stay as they were."""
    rng = np.random.default_rng(5)
    leaving = rng.uniform(0.05, 0.6, 4000)
    gone = (rng.random(4000) < leaving).astype(np.int64)

    def of_copies(copies: int) -> ClassCalibration:
        at, node, left = (np.repeat(v, copies) for v in (np.zeros(4000, np.int64), np.arange(4000), gone))
        rows = Outcomes(at, node, 1 - left, left, np.full(len(left), 9.0), EDGES[:1])
        return calibrations(rows, 1.0 - np.repeat(leaving, copies)[:, None])

    once, four = of_copies(1), of_copies(4)
    for name in ("mean_error", "mean_chance", "slope", "slope_low", "slope_high"):
        assert getattr(four, name) == pytest.approx(getattr(once, name), rel=0.03)
    # Ten bins of 400 rows at a chance of a third: √(2 · 0.33 · 0.67 / (400 π)) = 0.019, less where it is rarer.
    assert once.mean_chance == pytest.approx(0.017, abs=0.002)
    assert once.slope_low < 1.0 < once.slope_high


def test_calibrations__leaving_together_widens_the_interval() -> None:
    """60 of 4,000 nodes, all said to be safe, leave besides: over 20 days, or all on one, which is one piece of news."""
    rng = np.random.default_rng(6)
    leaving, day = rng.uniform(0.05, 0.4, 4000), np.arange(4000) % 20
    own = rng.random(4000) < leaving

    def width(moment: Bool) -> float:
        gone = own.copy()
        gone[np.flatnonzero((leaving < 0.2) & moment)[:60]] = True
        left = gone.astype(np.int64)
        rows = Outcomes(day * DAY_US, np.arange(4000), 1 - left, left, np.full(4000, 9.0), EDGES[:1])
        found = calibrations(rows, 1.0 - leaving[:, None])
        return found.slope_high - found.slope_low

    assert width(day == 3) > 1.3 * width(day >= 0)


def test_calibrations__without_departures_have_no_slope() -> None:
    """All stayed: the error is what was feared, a slope is not defined, and nothing breaks."""
    found = calibrations(outcomes([3, 3], [0, 0]), np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]))
    np.testing.assert_allclose(found.error, [0.1, 0.2, 0.3])
    assert np.isnan(found.slopes).all()
    assert np.isnan([found.slope, found.intercept]).all()


def test_compared__refuses_what_cannot_be() -> None:
    """An observation outside its own interval or arrays of different length are a mistake of the caller."""
    one = np.array([0.5])
    with pytest.raises(ValueError, match="low <= observed <= high"):
        Compared(one, one, one + 0.1, one + 0.2, one)
    with pytest.raises(ValueError, match="of one length"):
        Compared(one, one, one, one, np.zeros(2))


def test_compared__complement_turns_everything_round() -> None:
    """1 − p swaps the ends of the interval."""
    points = Compared(np.array([0.2]), np.array([0.3]), np.array([0.25]), np.array([0.5]), np.array([7.0]))
    turned = points.complement()
    assert (turned.forecast[0], turned.observed[0]) == pytest.approx((0.8, 0.7))
    assert (turned.low[0], turned.high[0], turned.count[0]) == pytest.approx((0.5, 0.75, 7.0))
    assert not points.inside.any()
    started = points.with_start(1.0)
    assert started.forecast.tolist() == [1.0, 0.2]
    assert started.known.tolist() == [False, True]
