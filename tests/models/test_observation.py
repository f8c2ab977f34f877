"""Gaps in the observation: silences that traffic explains are none, and no gap is known before it could be."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import DAY_US, HOUR_US, Float64, Int64, RequestLog
from models.observation import (
    Gap,
    GapSettings,
    find_gaps,
    hours_observed,
    is_observed,
    observed_share,
    start_up_share,
    united,
    unobserved_us,
    with_gaps_found,
)

MINUTE_US = 60_000_000
START_US = 480_000 * HOUR_US
HALF_LIVES = np.array([0.5, 1.5, 6.0, 24.0])


def minutely(n_hours: float, *, without: tuple[float, float] = (0.0, 0.0)) -> Int64:
    """A request a minute for some hours from START_US on, none in [a, b) hours."""
    ts_us = START_US + np.arange(round(n_hours * 60), dtype=np.int64) * MINUTE_US
    hours = (ts_us - START_US) / HOUR_US
    return ts_us[(hours < without[0]) | (hours >= without[1])]


def poisson(rate: Callable[[Float64], Float64], *, most: float, days: float, seed: int) -> Int64:
    """Requests at a rate per hour that moves with the hours since START_US, never above `most`."""
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.uniform(0, 24 * days, rng.poisson(most * 24 * days)))
    hours = hours[rng.random(len(hours)) * most < rate(hours)]
    return START_US + np.round(hours * HOUR_US).astype(np.int64)


def log_at(ts_us: Int64) -> RequestLog:
    """One content in one location; every request is a visit of its own."""
    n = len(ts_us)
    return RequestLog.from_columns(ts_us, [f"s{i}" for i in range(n)], ["x"] * n, ["rio"] * n)


# ---- found


def test_gap__two_hours_without_a_request_a_minute() -> None:
    """By hand: the last hour holds 61 requests, so silence is incredible after 1 h x (10^(9/62) - 1) = 23.8 minutes.

    Yesterday 29 requests must have come in the same minutes, because 2^-30 < 10^-9 <= 2^-29: that takes 29 minutes.
    """
    ts_us = minutely(48, without=(30, 32))
    last_us = START_US + 30 * HOUR_US - MINUTE_US
    assert find_gaps(ts_us) == [Gap(last_us + 1, START_US + 32 * HOUR_US, last_us + 29 * MINUTE_US)]


def test_gap__still_open_is_known_when_it_can_be() -> None:
    """A forecast at 30:40 must know that the log has failed, and one at 30:20 cannot."""
    ts_us = minutely(30)
    assert find_gaps(ts_us) == []
    assert find_gaps(ts_us, until_us=START_US + 30 * HOUR_US + 20 * MINUTE_US) == []
    until_us = START_US + 30 * HOUR_US + 40 * MINUTE_US
    (gap,) = find_gaps(ts_us, until_us=until_us)
    assert gap[:2] == (int(ts_us[-1]) + 1, until_us)


def test_gap__a_straggler_does_not_hide_the_rest() -> None:
    """One late request in the hole cuts it in two; the second half is judged by the traffic before the first."""
    ts_us = np.sort(np.append(minutely(48, without=(30, 32)), START_US + 31 * HOUR_US))
    assert [(gap.end_us - gap.start_us) // MINUTE_US for gap in find_gaps(ts_us)] == [60, 59]


def test_gap__a_clock_that_jumps_a_day_ahead() -> None:
    """A log that goes on a day later was not observed for a day."""
    ts_us = minutely(60)
    ts_us[30 * 60 :] += DAY_US
    (gap,) = find_gaps(ts_us)
    assert gap.end_us - gap.start_us == DAY_US + MINUTE_US - 1


def test_gap__in_the_first_hours_needs_a_longer_silence() -> None:
    """Before a day is known traffic may fall to a quarter: 20 minutes are no gap, four hours are."""
    assert find_gaps(minutely(8, without=(5, 5 + 20 / 60))) == []
    assert len(find_gaps(minutely(16, without=(5, 9)))) == 1


# ---- not found


@pytest.mark.parametrize("seed", range(3))
def test_no_gap__in_a_quiet_night(seed: int) -> None:
    """Traffic that fades into the night and comes back with the morning was observed all along."""

    def rate(hours: Float64) -> Float64:
        return 60.0 * np.maximum(np.sin(2 * np.pi * hours / 24), 0.0) ** 2

    assert find_gaps(poisson(rate, most=60.0, days=6, seed=seed)) == []


@pytest.mark.parametrize("rate_per_hour", [0.1, 1.0, 5.0])
def test_no_gap__in_a_tiny_world(rate_per_hour: float) -> None:
    """A request an hour is silent most of the time, however long the log."""
    ts_us = poisson(lambda hours: np.full(len(hours), rate_per_hour), most=rate_per_hour, days=60, seed=1)
    assert find_gaps(ts_us) == []


def test_no_gap__where_the_same_hours_are_always_silent() -> None:
    """A shop that is closed at night and on Sundays fails neither on the second night nor on the second Sunday."""

    def rate(hours: Float64) -> Float64:
        open_now = (hours % 24 >= 8) & (hours % 24 < 18) & (hours // 24 % 7 < 6)
        return np.where(open_now, 200.0, 0.0)

    nights = {int((gap.start_us - START_US) // DAY_US) for gap in find_gaps(poisson(rate, most=200.0, days=21, seed=0))}
    assert nights <= {0, 5}  # the first night and the first Sunday say nothing but silence


def test_no_gap__after_one_busy_visit() -> None:
    """A visitor who asks sixty times and leaves is one visit, and its silence is credible; sixty visitors' is not."""
    days = [START_US + day * DAY_US + np.arange(60, dtype=np.int64) * MINUTE_US for day in range(1, 8, 3)]
    ts_us = np.concatenate([np.array([START_US]), *days])
    visits = np.repeat(np.arange(4, dtype=np.int32), [1, 60, 60, 60])
    assert find_gaps(ts_us, visits=visits) == []
    assert find_gaps(ts_us) != []
    assert find_gaps(ts_us, visits=np.full(len(ts_us), -1, dtype=np.int32)) == find_gaps(ts_us)


def test_no_gap__in_a_log_of_nothing_or_one() -> None:
    """Empty and single-request logs have no rate to be compared with."""
    assert find_gaps(np.empty(0, dtype=np.int64), until_us=START_US) == []
    assert find_gaps(np.array([START_US]), until_us=START_US + 300 * DAY_US) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minimum_minutes": 0.0}, "minimum_minutes > 0, got 0.0"),
        ({"largest_probability": 1.0}, "0 < largest_probability < 1, got 1.0"),
        ({"largest_fall": 0.5}, "largest_fall >= 1, got 0.5"),
    ],
)
def test_settings__bounds(change: dict[str, Any], message: str) -> None:
    """Each bound says what is allowed and what was given."""
    with pytest.raises(ValueError, match=message):
        GapSettings(**change)


# ---- known only when it could be


@given(st.integers(0, 10_000), st.floats(0.0, 60.0), st.floats(20.0, 50.0), st.floats(0.2, 9.0))
@settings(max_examples=40, deadline=None)
def test_cut__knows_the_gaps_that_could_be_known(seed: int, cut_hours: float, hole: float, length: float) -> None:
    """A log cut at an instant finds what the whole log's cut knew: gaps that ended before it, and one still open."""
    ts_us = poisson(lambda hours: 60 + 50 * np.sin(hours), most=110.0, days=2.5, seed=seed)
    hours = (ts_us - START_US) / HOUR_US
    whole = with_gaps_found(log_at(ts_us[(hours < hole) | (hours >= hole + length)]))
    cut_us = START_US + round(cut_hours * HOUR_US)
    blind = with_gaps_found(log_at(whole.ts_us[whole.ts_us < cut_us]), until_us=cut_us)
    assert blind.gaps == whole.before(cut_us).gaps
    assert blind.gaps_known_us == whole.before(cut_us).gaps_known_us


def test_log__cuts_its_gaps() -> None:
    """Given outages are known from their start, found ones from when they could be told; both only as far as they came."""
    log = log_at(np.array([0, 100, 200, 300])).with_gaps([(10, 90), (310, 400)]).with_gaps([(101, 200)], known_us=[150])
    assert log.gaps == ((10, 90), (101, 200), (310, 400))
    assert log.before(50).gaps == ((10, 50),)
    assert log.before(140).gaps == ((10, 90),)
    assert log.before(160).gaps == ((10, 90), (101, 160))
    assert log.between(200, 350).gaps == ((10, 90), (101, 200), (310, 350))
    assert log.rows(0, 2).gaps == ((10, 90),)
    assert log.rows(2, 3).gaps == ((10, 90), (101, 200))
    assert log.rows(0, 0).gaps == ()
    assert log.with_gaps([(10, 90)]).gaps == log.gaps


def test_log__refuses_gaps_that_are_none() -> None:
    """A window that ends before it starts is a mistake of the caller."""
    with pytest.raises(ValueError, match=r"end after its start, got \(20, 10\)"):
        log_at(np.array([0])).with_gaps([(20, 10)])
    with pytest.raises(ValueError, match="an instant for each of 2 gaps"):
        dataclasses.replace(log_at(np.array([0])), gaps=((1, 2), (3, 4)), gaps_known_us=(1,))


def test_log__a_clock_that_goes_back_is_refused() -> None:
    """Rows out of order would count the past late; the message shows where."""
    codes = np.zeros(3, dtype=np.int32)
    ids = np.array(["x"], dtype=object)
    with pytest.raises(ValueError, match=r"time order, but ts_us\[2\] = 5 comes after 20; sort them"):
        RequestLog(np.array([10, 20, 5]), codes, codes, codes, ids, ids)


# ---- exposure


def test_observed_share__by_hand() -> None:
    """One hour without a gap fills 1 - 2^-2 of a half-hour memory; the half hour before last holds 2^-1 - 2^-2 of it."""
    per_hour = np.array([2.0])
    at_us = START_US + HOUR_US
    assert observed_share(per_hour, (), START_US, at_us).tolist() == [0.75]
    gap = (START_US + HOUR_US // 4, START_US + 3 * HOUR_US // 4)
    # 2^-(0.25 x 2) - 2^-(0.75 x 2) of the memory is missing.
    np.testing.assert_allclose(observed_share(per_hour, (gap,), START_US, at_us), [0.75 - (2**-0.5 - 2**-1.5)])
    assert start_up_share(per_hour).tolist() == [0.5]


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 5)), max_size=5), st.floats(1.0, 20.0))
@settings(max_examples=30, deadline=None)
def test_observed_share__is_the_integral(gaps: list[tuple[float, float]], at_hours: float) -> None:
    """The closed form equals a sum over minutes of what the memory gives them."""
    windows = united(
        (START_US + round(start * HOUR_US), START_US + round((start + length) * HOUR_US)) for start, length in gaps
    )
    at_us = START_US + round(at_hours * HOUR_US)
    middles = np.arange(START_US, at_us, 60_000_000) + 30_000_000
    seen = np.array([is_observed(windows, at, at + 1) for at in middles.tolist()])
    weights = 2.0 ** (-(at_us - middles)[:, None] / HOUR_US / HALF_LIVES) * np.log(2) / HALF_LIVES / 60
    expected = (weights * seen[:, None]).sum(axis=0)
    np.testing.assert_allclose(observed_share(1 / HALF_LIVES, windows, START_US, at_us), expected, atol=0.03)


def test_hours_observed__touching_is_missing() -> None:
    """A gap of four minutes across a border spoils both hours; a minute is the edge of one and spoils nothing."""
    hour = START_US // HOUR_US
    gaps = (
        (START_US + HOUR_US - 2 * MINUTE_US, START_US + HOUR_US + 2 * MINUTE_US),
        (START_US + 3 * HOUR_US - MINUTE_US, START_US + 4 * HOUR_US + MINUTE_US),
    )
    assert hours_observed(gaps, START_US, range(hour - 1, hour + 6)).tolist() == [
        False, False, False, True, False, True, True,
    ]  # fmt: skip
    assert is_observed(gaps, START_US + 2 * HOUR_US, START_US + 3 * HOUR_US)
    assert not is_observed(gaps, START_US + 2 * HOUR_US, START_US + 3 * HOUR_US + MINUTE_US)
    assert not is_observed(gaps, START_US + HOUR_US, START_US + HOUR_US + 1)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=6), st.integers(0, 50), st.integers(1, 30))
def test_united__covers_the_same_instants_once(gaps: list[tuple[int, int]], start: int, length: int) -> None:
    """Overlapping and touching windows become one, and lengths may then be added."""
    windows = [(a, a + n) for a, n in gaps]
    covered = {t for a, b in windows for t in range(a, b)}
    whole = united(windows)
    assert {t for a, b in whole for t in range(a, b)} == covered
    assert all(one[1] < other[0] for one, other in itertools.pairwise(whole))
    inside = covered & set(range(start, start + length))
    assert unobserved_us(whole, start, start + length) == len(inside)
    assert is_observed(whole, start, start + length) == (not inside)
