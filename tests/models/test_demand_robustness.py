"""Outages, flash crowds and odd input: what must not move stays where it was, and what was not seen is not zero."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from models.counters import CounterSettings, CounterStore
from models.demand.places import LocationState, location_state, ordinary
from models.demand.samples import collect_samples, origins_of
from models.errors import LogOrderError
from models.events import HOUR_US, Catalogue, Float64, RequestLog
from models.observation import with_gaps_found
from tests.models.rhythmic_world import (
    LEADER,
    NEW,
    SETTINGS,
    hours,
    log_of,
    means_by_cell,
    requests,
    store_of,
    with_boom,
    without,
)

ROWS = requests(54, seed=3)
WHOLE = log_of(*ROWS)
HOLED = with_gaps_found(log_of(*without(ROWS, 33, 35)))
"""Two hours are missing in the morning of the second day."""


@cache
def boomed(content: int, locations: tuple[int, ...], first_hour: float) -> RequestLog:
    """The world with five thousand requests of one content in one hour: at least thirty times a location's traffic."""
    return log_of(*with_boom(ROWS, content=content, locations=locations, first_hour=first_hour, n=5000))


def rates(store: CounterStore, at_hour: float) -> Float64:
    """Rates of contents by id, so that stores with other codes compare."""
    order = np.argsort(store.contents)
    return store.content_rates(order, hours(at_hour))


# ---- a hole in the log


def test_hole__is_found_once() -> None:
    """The world is busy enough for two silent hours to be incredible, and for nothing else to be."""
    assert len(HOLED.gaps) == 1
    assert with_gaps_found(WHOLE).gaps == ()


def test_hole__rates_are_per_observed_hour() -> None:
    """Right after two lost hours a rate is what it was before them; counted as zeros it would be a sixteenth of it."""
    before, after = (store_of(HOLED, until_hour=hour) for hour in (33, 35))
    slow = rates(after, 35)[:, 1:] / rates(before, 33)[:, 1:]
    np.testing.assert_allclose(slow, 1.0, rtol=0.02)
    # Of the half-hour memory 2^-4 is left, an eighth of what half an hour would give: the rest is the next one's.
    fast = rates(before, 33)[:, 0] / 8 + rates(before, 33)[:, 1] * 7 / 8
    np.testing.assert_allclose(rates(after, 35)[:, 0], fast, rtol=0.02)
    blind = CounterStore()
    blind.update(log_of(*without(ROWS, 33, 35)).before(hours(35)))
    assert (rates(blind, 35)[:, 0] < rates(before, 33)[:, 0] / 12).all()


def test_hole__a_few_minutes_after_it_one_request_is_not_a_flood() -> None:
    """Divided by a minute alone, one request would read as sixty an hour."""
    store = store_of(HOLED, until_hour=35)
    at_us = hours(35) + 60_000_000
    lone = RequestLog.from_columns(np.array([at_us - 1]), ["s"], ["lone"], ["l0"])
    store.update(lone, same_sessions=False)
    fresh = store.content_rates([len(store.contents) - 1], at_us)[0]
    # Half an hour holds 0.36 h of a half-hour memory; the rest is the next slower rate's, which has seen 0.87 h.
    assert fresh.max() < 1 / 0.36 + 1 / 0.87


def test_hole__still_open_keeps_the_rates() -> None:
    """A forecast in the middle of an outage goes on from what was last seen."""
    before, amid = (store_of(HOLED, until_hour=hour) for hour in (33, 34.5))
    assert amid.gaps[0][1] == hours(34.5)
    ratio = rates(amid, 34.5)[:, 1:] / rates(before, 33)[:, 1:]
    np.testing.assert_allclose(ratio, 1.0, rtol=0.02)


@pytest.mark.parametrize(("at_hour", "tolerance"), [(35, 0.25), (36, 0.1), (38, 0.1), (54, 0.1)])
def test_hole__forecasts_are_those_of_the_whole_log(at_hour: int, tolerance: float) -> None:
    """At its end two hours of a rising morning are unknown; an hour and a day later the hole is no more to be seen."""
    whole, holed = (
        sum(means_by_cell(store_of(log, until_hour=at_hour), at_hour=at_hour).values()) for log in (WHOLE, HOLED)
    )
    assert holed == pytest.approx(whole, rel=tolerance)


def test_hole__growth_bridges_its_hours() -> None:
    """The hole is in yesterday's hours before or to come: the growth of a rising morning is still that of the whole log."""
    earlier = with_gaps_found(log_of(*without(ROWS, 29, 31)))
    for at_hour, horizon in ((53, 6), (51, 6), (54, 1)):
        one, other = (
            location_state(store_of(log, until_hour=at_hour), at_us=hours(at_hour), settings=SETTINGS)
            for log in (WHOLE, earlier)
        )
        np.testing.assert_allclose(other.seasonal_growth(horizon), one.seasonal_growth(horizon), rtol=0.25)


def test_growth__long_stretches_are_left_out() -> None:
    """Eight lost hours are no straight line: they are missing, and a side of which more than half is lost says nothing."""
    rows = requests(60, seed=3)
    holed = with_gaps_found(log_of(*without(rows, 26, 34)))
    state = location_state(store_of(holed, until_hour=60), at_us=hours(60), settings=SETTINGS)
    missing = np.isnan(state.counts[0])
    assert np.flatnonzero(missing[169 - 60 :]).tolist() == list(range(26, 34))  # column 168 is the hour until 60
    at_fifty_two = location_state(store_of(holed, until_hour=52), at_us=hours(52), settings=SETTINGS)
    assert at_fifty_two.seasonal_growth(6).tolist() == [1.0] * 3


def test_growth__both_sides_missing_is_one() -> None:
    """With yesterday wholly lost and no week known, nothing is expected to change."""
    counts = np.full((2, 169), np.nan)
    counts[:, -20:] = 100.0
    state = LocationState(np.full((2, 4), 100.0), np.full(2, 0.5), counts, SETTINGS)
    assert state.seasonal_growth(1).tolist() == [1.0, 1.0]
    # Only the hours before are lost: a mean of nothing must not stand for zero.
    counts[:, 145:] = 300.0
    assert state.seasonal_growth(6).tolist() == [1.0, 1.0]


def test_growth__falls_back_to_the_other_season() -> None:
    """Yesterday is missing, so last week's doubling decides: (200 + 20 x 401/201) / (100 + 20), 2 locations of 100."""
    counts = np.full((2, 169), np.nan)
    counts[:, :2] = 100.0
    counts[:, 2:8] = 200.0
    state = LocationState(np.full((2, 4), 100.0), np.full(2, 0.5), counts, SETTINGS)
    future = (100.0 + 5 * 200.0) / 6  # the six hours from a week ago on are columns 1 to 6
    overall = (2 * future + 1) / (2 * 100.0 + 1)
    assert state.seasonal_growth(6) == pytest.approx([(future + 20 * overall) / (100.0 + 20)] * 2)


def test_growth__an_empty_hour_is_a_real_zero() -> None:
    """A site that nobody visited between three and six has a rhythm, not a gap; nothing divides by zero."""
    counts = np.zeros((1, 169))
    state = LocationState(np.zeros((1, 4)), np.zeros(1), counts, SETTINGS)
    assert state.seasonal_growth(1).tolist() == [1.0]
    assert state.growth(6).tolist() == [[1.0] * 4]
    store = CounterStore()
    empty = location_state(store, at_us=hours(0), settings=SETTINGS)
    assert empty.seasonal_growth(1).shape == (0,)
    tiny = requests(80, seed=1, per_hour=0.5)
    sparse = location_state(store_of(log_of(*tiny), until_hour=80), at_us=hours(80), settings=SETTINGS)
    assert np.isfinite(sparse.growth(6)).all()
    assert sparse.seasonal_growth(6) == pytest.approx(1.0, abs=0.3)  # a request in two hours says nothing


@pytest.mark.parametrize("at_hour", [0.5, 6, 23.5])
def test_growth__before_a_day_is_known_is_one(at_hour: float) -> None:
    """The first morning's rise is no rhythm yet."""
    state = location_state(store_of(WHOLE, until_hour=at_hour), at_us=hours(at_hour), settings=SETTINGS)
    assert state.seasonal_growth(6).tolist() == [1.0] * 3


# ---- gaps in the counters


def test_gaps__do_not_depend_on_how_the_log_was_fed() -> None:
    """One update, many, or one resumed from its tables: the same counters to the byte, gaps and leading contents too."""
    whole, parts = CounterStore(), CounterStore()
    whole.update(HOLED)
    for hour in (20, 33.2, 34, 34.9, 36, 54):
        fed = max(parts.time_us + 1, hours(0))
        parts.update(HOLED.between(fed, hours(hour)))
        parts = CounterStore.from_arrow(parts.to_arrow())
    assert parts.gaps == whole.gaps == HOLED.gaps
    tables = parts.to_arrow()
    for name, table in whole.to_arrow().items():
        assert table.equals(tables[name]), name


def test_gaps__an_empty_update_tells_of_an_outage() -> None:
    """In an hour without requests the counters still learn that nobody was looking."""
    store = store_of(HOLED, until_hour=33)
    store.update(HOLED.between(hours(33), hours(34)))
    assert store.gaps[0][1] == hours(34)


def test_gaps__are_united_when_stores_are_merged() -> None:
    """Hours that one part did not see are incomplete in the sum."""
    one, other = store_of(HOLED, until_hour=40), CounterStore()
    late = RequestLog.from_columns(np.array([hours(20)]), ["x"], ["x"], ["l0"]).with_gaps([(hours(10), hours(11))])
    late = RequestLog(
        late.ts_us, np.array([10**6], dtype=np.int32), late.content, late.location, late.contents, late.locations,
        gaps=late.gaps,
    )  # fmt: skip
    other.update(late)
    assert one.merge(other).gaps == ((hours(10), hours(11)), *one.gaps)


def test_gaps__are_forgotten_with_what_they_explain() -> None:
    """A month after, at the slowest half-life of a day, a gap changes nothing any more."""
    store = store_of(HOLED, until_hour=40)
    late = RequestLog.from_columns(np.array([hours(32 * 24 + 40)]), ["x"], ["x"], ["l0"])
    store.update(late, same_sessions=False)
    assert store.gaps == ()


def test_gaps__saved_before_they_were_known_of_can_be_read() -> None:
    """Tables without gaps and leading contents are those of a log that was always observed."""
    tables = store_of(WHOLE, until_hour=40).to_arrow()
    tables["store"] = tables["store"].drop_columns(["gaps"])
    tables["locations"] = tables["locations"].drop_columns(["peaks"])
    store = CounterStore.from_arrow(tables)
    assert store.gaps == ()
    assert store.hourly_location_peaks(20, hours(40)).max() == 0


def test_unobserved_hours__by_hand() -> None:
    """Half of yesterday's hour and all before the first request: what a count by hour must be completed with."""
    log = RequestLog.from_columns(np.array([hours(0.5), hours(30)]), ["a", "b"], ["x", "x"], ["l0", "l0"])
    store = CounterStore()
    store.update(log.with_gaps([(hours(5.5), hours(7))]))
    assert store.unobserved_hours(25, 24, hours(30)) == 0.5  # hour 5
    assert store.unobserved_hours(25, 22, hours(30)) == 1.5
    assert store.unobserved_hours(30, 29, hours(30)) == 0.5
    assert store.unobserved_hours(1, 0, hours(30)) == 0.0
    assert store.hours_observed(31, hours(30))[[0, 1, 2, 6, 7, 8]].tolist() == [False, False, True, False, False, True]


def test_peaks__are_the_largest_content_by_location_and_hour() -> None:
    """Kept per request, they equal a group-by."""
    store = store_of(WHOLE, until_hour=54)
    ts_us, content, location = ROWS
    table = np.zeros((54, 20, 3), dtype=np.int64)
    np.add.at(table, ((ts_us - hours(0)) // HOUR_US, content, location), 1)
    names = [int(name[1:]) for name in store.locations]
    peaks = store.hourly_location_peaks(54, hours(54))
    assert peaks.tolist() == table.max(axis=1).T[names].tolist()
    # The hours that are not kept count nothing.
    assert store.hourly_location_peaks(20, hours(54) + 300 * HOUR_US).sum() == 0


# ---- a flash crowd


@pytest.mark.parametrize("content", [NEW, LEADER])
@pytest.mark.parametrize("locations", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("at_hour", [34, 35, 37])
def test_boom__leaves_other_contents_alone(content: int, locations: tuple[int, ...], at_hour: int) -> None:
    """One content takes fifty times everything for an hour: forecasts of the others stay, of a new one or the leader."""
    calm = means_by_cell(store_of(WHOLE, until_hour=at_hour), at_hour=at_hour)
    log = boomed(content, locations, 33)
    loud = means_by_cell(store_of(log, until_hour=at_hour), at_hour=at_hour)
    others = [cell for cell in calm if cell[0] != f"c{content:02d}" and cell in loud]
    assert len(others) > 40
    ratio = np.array([loud[cell] / calm[cell] for cell in others])
    # The leader has 28 % of ordinary traffic. What boomed counts for half of that: 14 % too much or too little.
    assert ratio.min() > 0.75
    assert ratio.max() < 1.25
    assert sum(loud[cell] for cell in others) == pytest.approx(sum(calm[cell] for cell in others), rel=0.15)


def test_boom__is_forecast_while_it_lasts_and_fades() -> None:
    """Five thousand an hour is expected to go on for a while, and no more four hours later."""
    log = boomed(LEADER, (1,), 33)
    amid, after, late = (
        means_by_cell(store_of(log, until_hour=hour), at_hour=hour)["c00", "l1"] for hour in (34, 38, 54)
    )
    calm = means_by_cell(store_of(WHOLE, until_hour=34), at_hour=34)["c00", "l1"]
    assert amid > 25 * calm
    assert after < amid / 5
    assert late < amid / 20


@pytest.mark.parametrize("content", [NEW, LEADER])
@pytest.mark.parametrize("locations", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("boom_hour", [29, 33])
def test_boom__does_not_move_tomorrow(content: int, locations: tuple[int, ...], boom_hour: int) -> None:
    """Neither as yesterday's hours to come nor as those before may the boom change the growth of the day after."""
    for at_hour in (53, 54):
        calm, loud = (
            location_state(store_of(log, until_hour=at_hour), at_us=hours(at_hour), settings=SETTINGS)
            for log in (WHOLE, boomed(content, locations, boom_hour))
        )
        np.testing.assert_allclose(loud.seasonal_growth(6), calm.seasonal_growth(6), rtol=0.15)
        np.testing.assert_allclose(loud.growth(1), calm.growth(1), rtol=0.2)


def test_ordinary__by_hand() -> None:
    """Others 100: the cap is 50, a leader at the cap counts in full, one of 5000 as 50 x 50 / 5000."""
    traffic, leader = np.array([[150.0, 5100.0, 3.0]]), np.array([[50.0, 5000.0, 3.0]])
    assert ordinary(traffic, leader, np.array([[0.0]])).tolist() == [[150.0, 100.5, 3.0]]
    # A location with one content that has always asked 30 an hour of it: only beyond 60 is it a boom.
    only = np.array([[60.0, 120.0]])
    assert ordinary(only, only, np.array([[30.0]])).tolist() == [[60.0, 15.0 + 45.0 / 2]]


def test_ordinary__changes_nothing_on_ordinary_days() -> None:
    """Without a boom the rates are the counters' but for a busy hour of a small place, and shares the shares of them."""
    store = store_of(WHOLE, until_hour=40)
    state = location_state(store, at_us=hours(40), settings=SETTINGS)
    np.testing.assert_allclose(state.rates, store.location_rates([0, 1, 2], hours(40)), rtol=2e-3)
    np.testing.assert_allclose(state.share, store.location_share(hours(40)), rtol=2e-3)


# ---- samples


def test_samples__know_no_outcome_that_touches_a_gap() -> None:
    """A window with a lost hour has no count, and nobody looks forward from within the hole."""
    window = (hours(24), hours(46))
    samples = collect_samples(HOLED, CounterStore(), window, SETTINGS, seed=0)
    blind = collect_samples(log_of(*without(ROWS, 33, 35)), CounterStore(), window, SETTINGS, seed=0)
    origins = origins_of(window, every_hours=2, gaps=HOLED.gaps)
    assert hours(34) not in origins
    # Every two hours from 24 on; six-hour windows from 28, 30 and 32 touch the hole.
    assert [(at - hours(0)) // HOUR_US for at in origins] == [24, 26, 28, 30, 32, 36, 38, 40, 42, 44]
    for horizon, touched in ((0, 0), (1, 3)):
        lost, cut = np.isnan(samples.counts[horizon]).sum(), np.isnan(blind.counts[horizon]).sum()
        assert lost - cut == pytest.approx(touched * 40, rel=0.3, abs=1)  # about 40 cells are drawn at each origin
    assert np.isfinite(samples.base).all()
    assert np.isfinite(samples.growth).all()


def test_samples__a_window_that_ends_in_the_hole_is_lost() -> None:
    """The hour from 32:30 to 33:30 was seen in half: its count is unknown, not small."""
    window = (hours(32), hours(34))
    samples = collect_samples(
        with_gaps_found(log_of(*without(ROWS, 32.5, 35))), CounterStore(), window, SETTINGS, seed=0
    )
    assert np.isnan(samples.counts).all()


# ---- odd input


def test_future_publication__is_not_forecast_before_it_is_known() -> None:
    """A content listed for tomorrow has no cell, no age and no code today; at its first request it has all three."""
    listed = Catalogue(np.array(["tomorrow"], dtype=object), np.array([hours(50)]))
    log = WHOLE.with_catalogue(listed)
    today = store_of(log, until_hour=40)
    assert "tomorrow" not in today.contents
    assert means_by_cell(today, at_hour=40) == means_by_cell(store_of(WHOLE, until_hour=40), at_hour=40)
    published = store_of(log, until_hour=53)
    assert "tomorrow" in published.contents
    assert not any(content == "tomorrow" for content, _ in means_by_cell(published, at_hour=53))


def test_future_publication__announced_by_hand_is_not_forecast() -> None:
    """Whoever announces a release ahead gets its code, and still no demand for it but the remainder's."""
    store = store_of(WHOLE, until_hour=40)
    calm = means_by_cell(store, at_hour=40)
    store.announce(["release"], [hours(60)])
    assert means_by_cell(store, at_hour=40) == calm


def test_request_before_publication__counts_from_the_request() -> None:
    """A content that is asked for before its stated publication is there: ages count from the request, never below 0."""
    listed = Catalogue(np.array(["c00"], dtype=object), np.array([hours(1000)]))
    log = WHOLE.with_catalogue(listed)
    assert log.appeared_us is not None
    store = store_of(log, until_hour=40)
    code = int(np.flatnonzero(store.contents == "c00")[0])
    assert store.appeared_us([code])[0] == store.first_seen_us([code])[0] < hours(1)


def test_location__that_appears_tomorrow() -> None:
    """A place opens at hour 40: unknown before, forecast from its first requests, and the others are not moved."""
    opened = WHOLE.ts_us >= hours(40)
    location = np.where(opened & (np.arange(len(WHOLE)) % 5 == 0), 3, ROWS[2])
    log = log_of(ROWS[0], ROWS[1], location)
    assert store_of(log, until_hour=40).locations.tolist() == store_of(WHOLE, until_hour=40).locations.tolist()
    means = means_by_cell(store_of(log, until_hour=41), at_hour=41)
    here = sum(mean for (_, place), mean in means.items() if place == "l3")
    # A fifth of about 350 requests an hour comes from there now; slow rates do not know it yet.
    assert 0.1 * 70 < here < 2 * 70


def test_clock__that_goes_back_is_refused_by_the_counters() -> None:
    """Requests of an hour ago cannot be counted any more; the message names both instants."""
    store = store_of(WHOLE, until_hour=40)
    with pytest.raises(LogOrderError, match=r"begins at .* but the counters already hold requests until"):
        store.update(WHOLE.between(hours(39), hours(40)))


def test_clock__that_jumps_a_day_ahead_is_a_gap() -> None:
    """The day that nobody saw is no day of silence: rates go on as they were."""
    ts_us = ROWS[0] + np.where(ROWS[0] >= hours(40), 24 * HOUR_US, 0)
    log = with_gaps_found(log_of(ts_us, ROWS[1], ROWS[2]))
    assert len(log.gaps) == 1
    before, after = store_of(log, until_hour=40), store_of(log, until_hour=64)
    np.testing.assert_allclose(rates(after, 64)[:, 3], rates(before, 40)[:, 3], rtol=0.02)


def test_settings__slower_half_lives_remember_gaps_longer() -> None:
    """At a half-life of a week a gap of last month still counts."""
    store = CounterStore(CounterSettings(half_lives_hours=(1.0, 168.0)))
    store.update(HOLED)
    late = RequestLog.from_columns(np.array([hours(32 * 24)]), ["x"], ["x"], ["l0"])
    store.update(late, same_sessions=False)
    assert store.gaps == HOLED.gaps
