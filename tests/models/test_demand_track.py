"""Following a model over a window: what is picked, that nothing is seen early, and that right laws look right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.counters import CounterStore
from models.demand.cells import CellState
from models.demand.forecaster import CellForecaster
from models.demand.remainder import Remainder
from models.demand.samples import Window, advance
from models.demand.track import DemandFollower, DemandTrack, choose_cells, positions
from models.events import Float64, RequestLog
from tests.models.demand_world import RATES_PER_HOUR, SMALL, constant_log, hours

REMAINDER = Remainder(SMALL.horizons_hours, (0.0, 0.0), {})


class SlowRate(CellForecaster):
    """Forecasts the rate of the slowest counter, times a factor: near the truth of a constant world. Poisson laws."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__("slow rate", SMALL, REMAINDER)
        self.factor = factor

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        mean = self.factor * horizon_hours * np.maximum(state.cell_rates[:, -1], 0.01)
        return mean, np.full(len(mean), 1e-9)


def log_of(rows: list[tuple[float, str, str]]) -> RequestLog:
    """Requests at (hours after the start, content, location)."""
    at, content, location = zip(*sorted(rows), strict=True)
    return RequestLog.from_columns(
        np.array([hours(h) for h in at], dtype=np.int64),
        np.array([f"s{i}" for i in range(len(rows))], dtype=object),
        np.array(content, dtype=object),
        np.array(location, dtype=object),
    )


def track(model: CellForecaster, log: RequestLog, *, window: Window) -> DemandTrack:
    """Follows a model with counters of its own, fed from the start of the log."""
    follower, store = DemandFollower(model, log, window=window), CounterStore()
    for at_us in advance(store, log, follower.origins):
        follower.look(store, at_us=at_us)
    return follower.track()


@pytest.fixture(scope="module")
def followed() -> DemandTrack:
    """A constant world followed for two days after eight."""
    return track(SlowRate(), constant_log(n_hours=240, seed=1), window=(hours(192), hours(240)))


def test_cells__are_the_busiest_a_new_one_and_the_middle() -> None:
    """In [10, 30): a 5 times, b 3 times at x; c new, twice at y; d once. Of 11 requests half go to a and b."""
    rows = [(1.0, "a", "x"), (2.0, "b", "x"), (3.0, "d", "x")]
    rows += [(11.0 + h, "a", "x") for h in range(5)] + [(12.5 + h, "b", "x") for h in range(3)]
    rows += [(13.2, "c", "y"), (14.2, "c", "y"), (15.2, "d", "x")]
    log = log_of(rows)
    found = {
        c.role: (str(log.contents[c.content]), str(log.locations[c.location]))
        for c in choose_cells(log, (hours(10), hours(30)))
    }
    assert found == {"busiest": ("a", "x"), "new": ("c", "y"), "middle": ("b", "x")}


def test_cells__a_content_that_comes_at_the_end_is_not_followed() -> None:
    """Five hours are too few to see anything; without a new content the role is left out."""
    log = log_of([(1.0, "a", "x"), (11.0, "a", "x"), (26.0, "late", "x")])
    assert [c.role for c in choose_cells(log, (hours(10), hours(30)))] == ["busiest", "middle"]
    assert choose_cells(log, (hours(40), hours(50))) == ()


def test_track__outcomes_are_those_of_the_log(followed: DemandTrack) -> None:
    """Bins hold the requests of their own hour: 48 bins, and their sum is what the window holds."""
    log = constant_log(n_hours=240, seed=1).between(hours(192), hours(240))
    busiest = followed.cells[0]
    assert (followed.start_us, followed.step_hours, len(busiest.actual)) == (hours(192), 1, 48)
    of_cell = (log.contents[log.content] == busiest.content) & (log.locations[log.location] == busiest.location)
    assert busiest.actual.sum() == of_cell.sum()
    third = (log.ts_us >= hours(194)) & (log.ts_us < hours(195))
    assert busiest.actual[2] == (of_cell & third).sum()
    assert followed.total.actual.sum() == (log.locations[log.location] == followed.total.location).sum()


def test_track__forecasts_are_near_the_true_rates(followed: DemandTrack) -> None:
    """The busiest cell has 8 requests an hour, its location 8 (1 + 1/2 + ... + 1/12) = 24.8."""
    busiest = followed.cells[0]
    assert busiest.mean.mean() == pytest.approx(RATES_PER_HOUR[0, 0], rel=0.1)
    assert followed.total.mean.mean() == pytest.approx(RATES_PER_HOUR[:, 0].sum(), rel=0.1)
    # Poisson with mean 8: P(y <= 4) = 0.0996 and P(y <= 12) = 0.936, so the ends are near 5 and 12.
    assert (busiest.low >= 2).all()
    assert (busiest.low <= busiest.high).all()
    assert busiest.high.mean() == pytest.approx(12, abs=1.5)


def test_track__places_are_uniform_if_and_only_if_the_law_is_right(followed: DemandTrack) -> None:
    """Of a forecast twice too high most outcomes lie in the lower half."""
    at = followed.positions[1]
    # The rate is estimated with a half-life of a day, so its error widens the spread a little.
    assert (at <= 0.5).mean() == pytest.approx(0.5, abs=0.08)
    assert ((at >= 0.1) & (at <= 0.9)).mean() == pytest.approx(0.8, abs=0.08)
    wrong = track(SlowRate(factor=2.0), constant_log(n_hours=240, seed=1), window=(hours(192), hours(240)))
    assert (wrong.positions[1] <= 0.5).mean() > 0.7


def test_track__what_comes_later_changes_no_forecast(followed: DemandTrack) -> None:
    """The same log, its last day gone: the first day's forecasts of the same cells are what they were."""
    log = constant_log(n_hours=240, seed=1)
    shorter = track(SlowRate(), log.between(0, hours(216)), window=(hours(192), hours(216)))
    same = [(c, d) for c in followed.cells for d in shorter.cells if (c.content, c.location) == (d.content, d.location)]
    assert same
    for long, short in same:
        assert long.mean[:24].tolist() == short.mean.tolist()


def test_track__a_cell_has_no_forecast_before_it_is_known() -> None:
    """`new` appears 5.5 hours into the window: NaN, not 0, until the counters know it."""
    rows = [(h / 4, "old", "x") for h in range(4 * 60)] + [(53.5 + h / 10, "new", "x") for h in range(60)]
    found = track(SlowRate(), log_of(rows), window=(hours(48), hours(60)))
    new = next(c for c in found.cells if c.content == "new")
    assert np.isnan(new.mean[:6]).all()
    assert np.isfinite(new.mean[6:]).all()
    assert new.actual[:6].tolist() == [0, 0, 0, 0, 0, 5]


def test_track__unobserved_hours_have_no_outcome() -> None:
    """Missing is not zero: the hour that touches a gap is NaN."""
    log = constant_log(n_hours=60, seed=2).with_gaps([(hours(50.5), hours(51))])
    found = track(SlowRate(), log, window=(hours(48), hours(54)))
    assert np.isnan(found.total.actual).tolist() == [False, False, True, False, False, False]
    assert np.isnan(found.cells[0].actual[2])


def test_track__says_when_there_is_nothing_to_follow() -> None:
    """A window of half an hour holds no bin."""
    log = constant_log(n_hours=30, seed=3)
    for window in ((hours(24), hours(24.5)), (hours(40), hours(50))):
        with pytest.raises(ValueError, match="at least 1 h to follow a model"):
            track(SlowRate(), log, window=window)


@given(st.floats(0.5, 30), st.floats(0.0, 2.0), st.integers(0, 60))
def test_positions__lie_in_the_jump_of_their_count(mean: float, dispersion: float, count: int) -> None:
    """Between F(y - 1) and F(y), whatever is drawn; a count that is larger never lies lower."""
    rng = np.random.default_rng(0)
    one, mu, alpha = (np.array([float(v)]) for v in (count, mean, dispersion))
    at = positions(one, mu, alpha, rng=rng)[0]
    above = positions(one + 1, mu, alpha, rng=rng)[0]
    assert 0 <= at <= 1
    assert at <= above + 1e-12
