"""What is observed at an origin: the right cells, known growth, and nothing from later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.counters import CounterStore
from models.demand.cells import demand_cells, nearest_half_life, observe
from models.demand.features import base_feature_names, base_features
from models.demand.places import LocationState
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Float64, RequestLog
from tests.models.demand_world import SMALL, constant_log, hours


def store_of(log: RequestLog) -> CounterStore:
    store = CounterStore()
    store.update(log)
    return store


def places(counts: Float64, *, settings: DemandSettings = SMALL) -> LocationState:
    """Locations with the given hourly counts and a current rate of 10 per hour at each of two half-lives."""
    n = len(counts)
    return LocationState(rates=np.full((n, 2), 10.0), share=np.full(n, 1 / n), counts=counts, settings=settings)


def test_demand_cells__include_places_where_a_popular_content_is_not_yet() -> None:
    """A content that is popular in one place is expected in a busy place that never asked for it, and only there."""
    ts = [hours(k / 100) for k in range(100)]
    # "hit" is requested 50 times at "a"; "b" has as much traffic for "other"; "c" has a single request in 101.
    log = RequestLog.from_columns(
        np.array([*ts, hours(0.995)], dtype=np.int64),
        [f"s{i}" for i in range(101)],
        ["hit", "other"] * 50 + ["other"],
        ["a", "b"] * 50 + ["c"],
    )
    store = store_of(log)
    # "hit" runs at about 25 an hour (counted over one hour at a half-life of 1.5 h): c's share of 1/101 expects 0.2.
    settings = replace(SMALL, spread_minimum_per_hour=1.0)
    content, location = demand_cells(store, at_us=hours(1), settings=settings)
    cells = {(store.contents[c], store.locations[p]) for c, p in zip(content, location, strict=True)}
    assert cells == {("hit", "a"), ("hit", "b"), ("other", "a"), ("other", "b"), ("other", "c")}
    assert (np.diff(content.astype(np.int64) * 3 + location) > 0).all()


def test_seasonal_growth__is_yesterdays_ratio() -> None:
    """Twice the traffic in the same hours yesterday means twice now, where there is traffic enough to tell."""
    counts = np.full((1, 169), 1000.0)
    # Yesterday the six hours from now on had 2000 an hour; the three hours up to then 1000.
    counts[0, 169 - 24 : 169 - 18] = 2000.0
    # A week ago nothing changed (1000 before, 1000 after): (2000 + 1000 + 20 w) / (1333 + 1000 + 20).
    base_yesterday = (1000 + 1000 + 2000) / 3
    overall = (2000 + 1000 + 1) / (base_yesterday + 1000 + 1)
    expected = (2000 + 1000 + 20 * overall) / (base_yesterday + 1000 + 20)
    assert places(counts).seasonal_growth(6) == pytest.approx([expected])


def test_seasonal_growth__quiet_places_follow_the_whole() -> None:
    """One request yesterday at 3 o'clock must not make a village forecast a hundredfold rise."""
    counts = np.full((2, 169), 1000.0)
    counts[1] = 0.0
    counts[0, 169 - 24 : 169 - 18] = 2000.0
    growth = places(counts).seasonal_growth(6)
    assert growth[1] == pytest.approx(growth[0], rel=0.01)


def test_seasonal_growth__without_a_past_nothing_is_expected_to_change() -> None:
    """In the first day of a log there is no yesterday: the factor is 1, not noise."""
    counts = np.full((2, 169), np.nan)
    counts[:, -5:] = 50.0
    assert places(counts).seasonal_growth(1).tolist() == [1.0, 1.0]
    assert places(counts).seasonal_growth(24).tolist() == [1.0, 1.0]


def test_seasonal_growth__is_limited() -> None:
    """A counting gap yesterday must not multiply today's forecast without bound."""
    counts = np.ones((1, 169)) * 1e4
    counts[0, 169 - 27 : 169 - 23] = 1.0
    assert places(counts).seasonal_growth(6).max() <= SMALL.growth_limit


def test_observe__reads_the_counters_of_each_cell() -> None:
    """The features must be the counters': rate = count x ln 2 / half-life / observed share, an hour after one request."""
    log = RequestLog.from_columns(np.array([hours(0.0)], dtype=np.int64), ["s"], ["c"], ["l"])
    state = observe(store_of(log), at_us=hours(1.0), settings=SMALL)
    # Two half-lives of 0.5 h have passed: 1/4 request left, x ln 2 / 0.5 h, and 3/4 of the memory was observed.
    assert state.cell_rates[0, 0] == pytest.approx(0.25 * np.log(2) / 0.5 / 0.75)
    assert state.content_age_hours.tolist() == [1.0]
    assert state.cell_age_hours.tolist() == [1.0]
    assert state.last_hour.tolist() == [1.0]
    # The only location has all traffic, so its shrunk share of the content is 1 as well.
    assert state.affinity == pytest.approx([1.0])


def test_base_features__finite_and_named() -> None:
    """A column without a name could change places between versions and be read as another."""
    store = store_of(constant_log(n_hours=30, seed=1))
    state = observe(store, at_us=hours(30), settings=SMALL)
    features = base_features(state)
    assert features.shape == (len(state), len(base_feature_names(state.half_lives_hours, SMALL.horizons_hours)))
    assert np.isfinite(features).all()


def test_observe__ages_do_not_grow_with_the_log() -> None:
    """Otherwise a model trained on five days meets ages in the sixth that it never saw."""
    log = RequestLog.from_columns(
        np.array([hours(0.0), hours(90.0)], dtype=np.int64), ["s", "t"], ["c", "c"], ["l", "l"]
    )
    state = observe(store_of(log), at_us=hours(100), settings=SMALL)
    assert state.content_age_hours.tolist() == [SMALL.age_limit_hours]


def test_nearest_half_life__by_ratio() -> None:
    """Other half-lives than the default must still have a fast, a middle and a slow one."""
    assert nearest_half_life((0.5, 1.5, 6.0, 24.0), 24.0) == 3
    assert nearest_half_life((2.0, 12.0), 1.5) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizons_hours": (6, 1)}, "increasing whole hours"),
        ({"horizons_hours": (1, 48), "residual_caps": (1.0, 1.0)}, "from 1 to 24"),
        ({"residual_caps": (1.0,)}, "one residual_caps > 0"),
        ({"learning_rate": 0.0, "batch_rows": 0}, "learning_rate > 0, got 0.0. Expected batch_rows > 0"),
        ({"hidden_sizes": ()}, "hidden_sizes"),
        ({"growth_limit": 1.0}, "growth_limit > 1"),
        ({"max_epochs": -1}, "max_epochs >= 0"),
    ],
)
def test_settings__refuse_what_cannot_work(changes: dict[str, object], message: str) -> None:
    """All mistakes at once, each with its value."""
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_settings__name_the_fitted_horizons() -> None:
    """Asking a 1 and 6 hour model for 3 hours is the caller's mistake to see."""
    with pytest.raises(ValueError, match=r"horizon_hours in \(1, 6\), got 3"):
        SMALL.horizon_index(3)


def test_origin_hour__is_on_the_clock() -> None:
    """The tiny world must start at midnight for the tests' arithmetic to hold."""
    assert hours(0) % (24 * HOUR_US) == 0
