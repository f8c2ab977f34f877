"""Releases, series and rhythm are configuration of one world builder; each must do what its setting says."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.events import DAY_US, HOUR_US
from pipelines.releases import ReleaseSettings, draw_releases, with_next_episodes
from pipelines.rhythm import Rhythm, session_starts
from pipelines.sizes import part_rng
from pipelines.synthetic import SyntheticSettings
from pipelines.visitors import draw_visit_model
from pipelines.visits import Chain, VisitModel, draw_visits, expected_hourly_requests

MONDAY_US = SyntheticSettings().start_us  # 2 March 2026
SERIES = SyntheticSettings(
    days=9,
    n_contents=240,
    requests=20_000,
    taste_sigma=0.1,
    region_taste_sigma=1.0,
    releases=ReleaseSettings(new_share=0.25, weekday="friday", hour=6, episodes=4, next_episode_probability=0.8),
)


@pytest.fixture(scope="module")
def model() -> VisitModel:
    """Sixty series of four episodes, fifteen of them released on one Friday of the world."""
    return draw_visit_model(SERIES)[0]


def test_defaults__draw_the_same_world_as_ever() -> None:
    """Worlds are compared over time, so a setting that is not used must leave every draw alone.

    Regenerate: print the digest that the assertion computes.
    """
    settings = SyntheticSettings(days=2, train_days=1, n_contents=40, requests=1500)
    visits = draw_visits(draw_visit_model(settings)[0], part_rng(settings.seed, "visits"))
    drawn = np.stack([visits.ts_us, visits.session, visits.location, visits.content])
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "1e88a1863d26faec"


def test_releases__come_on_their_day_and_in_their_share(model: VisitModel) -> None:
    """A quarter of 240 contents comes out on Friday 6 March, 06:00, the rest on earlier Fridays at 06:00."""
    published_us = model.popularity.published_us
    friday_us = MONDAY_US + 4 * DAY_US + 6 * HOUR_US
    assert (published_us == friday_us).sum() == 60
    assert (published_us < MONDAY_US).sum() == 180
    assert ((friday_us - published_us) % (7 * DAY_US) == 0).all()


def test_releases__without_a_day_keep_their_share() -> None:
    """Of 200 contents in ten days, 30 % are new and spread over the days: about as many before day 5 as after."""
    at_us = draw_releases(
        ReleaseSettings(new_share=0.3),
        n=200,
        start_us=MONDAY_US,
        minutes=(-1000, 10 * 1440),
        rng=np.random.default_rng(1),
    )
    assert (at_us >= MONDAY_US).sum() == 60
    assert (at_us >= MONDAY_US + 5 * DAY_US).sum() == pytest.approx(30, abs=4 * np.sqrt(60) / 2)
    assert (np.diff(at_us) >= 0).all()


def test_releases__that_no_day_of_the_world_can_hold_are_refused() -> None:
    """Three days from a Monday hold no Friday, and nothing could be new."""
    with pytest.raises(ValueError, match="No 'friday' falls into the world"):
        draw_releases(SERIES.releases, n=9, start_us=MONDAY_US, minutes=(-9000, 3 * 1440), rng=np.random.default_rng(1))


def test_series__share_instant_rank_and_taste(model: VisitModel) -> None:
    """Who likes an episode likes the next; contents 0 to 3 are one series, 4 to 7 the next."""
    for values in (model.popularity.published_us, model.popularity.weight, *model.popularity.taste):
        by_series = values.reshape(60, 4)
        assert (by_series == by_series[:, :1]).all()


def test_next_episodes__take_their_share_of_the_chain() -> None:
    """By hand: 0 and 1 are one series, 2 and 3 the next; what led on to the next episode anyway is not counted twice."""
    chain = Chain(np.array([[1, 2], [0, 3], [0, 1], [1, 0]]), np.full((4, 2), 0.5))
    found = with_next_episodes(chain, ReleaseSettings(episodes=2, next_episode_probability=0.8))
    # From 0: 0.8 to 1; of the old halves that to 1 is gone, so 2 gets all of the other 0.2.
    # 1 and 3 end their series and keep their halves.
    assert found.successor.tolist() == [[1, 1, 2], [1, 0, 3], [3, 0, 1], [3, 1, 0]]
    assert found.probability == pytest.approx(np.array([[0.8, 0, 0.2], [0, 0.5, 0.5], [0.8, 0.1, 0.1], [0, 0.5, 0.5]]))


def test_sessions__go_on_to_the_next_episode(model: VisitModel) -> None:
    """From an episode that is not the last, (1 - restart) x 0.8 = 56 % of the moves and a few by chance go to the next."""
    visits = draw_visits(replace(model, starts=5 * model.starts), part_rng(1, "test"))
    order = np.lexsort((visits.ts_us, visits.session))
    session, content = visits.session[order], visits.content[order]
    moves = np.flatnonzero((session[1:] == session[:-1]) & (content[:-1] % 4 != 3))
    went_on = (content[moves + 1] == content[moves] + 1).mean()
    assert went_on == pytest.approx(0.7 * 0.8, abs=0.02)


def test_taste__is_shared_within_a_region(model: VisitModel) -> None:
    """New York and São Paulo like alike (log-tastes differ by 0.1·√2 only), New York and London do not."""
    taste = np.log(model.popularity.taste)
    assert (taste[0] - taste[2]).std() == pytest.approx(0.14, abs=0.05)
    assert (taste[0] - taste[1]).std() > 1.0


def test_rhythm__peaks_at_the_local_hour_and_keeps_the_total() -> None:
    """With amplitude 0.5 and power 2 the evening has (1.5 / 0.5)^2 = 9 times the starts of the morning, everywhere."""
    rhythm = Rhythm(amplitude=0.5, peak_hour=21.0, power=2.0)
    starts = session_starts(
        rhythm, np.array([0.75, 0.25]), np.array([0.0, -90.0]), total=1000, window=(MONDAY_US, 1440)
    )
    assert starts.sum() == pytest.approx(1000)
    assert starts.sum(axis=1) == pytest.approx([750, 250])
    hourly = starts.reshape(2, 24, 60).sum(axis=2)
    # 21:00 at Greenwich; six hours later at 90 degrees west, which is 03:00 UTC.
    assert hourly.argmax(axis=1).tolist() in ([20, 2], [21, 2], [20, 3], [21, 3])
    assert starts.max(axis=1) / starts.min(axis=1) == pytest.approx([9, 9], rel=0.001)


def test_rhythm__weekdays_are_local() -> None:
    """Only Sundays count twice: at 180 degrees east Sunday begins at noon UTC on Saturday."""
    factors = (1.0,) * 6 + (2.0,)
    level = Rhythm(0.0, 12.0, weekday_factors=factors).level(
        np.array([0.0, 180.0]), start_us=MONDAY_US, n_minutes=7 * 1440
    )
    hours = level[:, ::60].astype(int)
    assert hours[0].tolist() == [1] * 144 + [2] * 24
    assert hours[1].tolist() == [1] * 132 + [2] * 24 + [1] * 12


def test_intensity__of_some_hours_is_that_part_of_the_whole(model: VisitModel) -> None:
    """Large worlds are looked at in parts; steps of five minutes in place of one move no cell by a per cent."""
    whole = expected_hourly_requests(model)
    part = expected_hourly_requests(model, hours=(100, 106))
    assert part == pytest.approx(whole[100:106], rel=1e-4)
    large = whole[90:120] > 0.1
    # A step must be shorter than the mean gap, which is two minutes here.
    slow = replace(model, gap_minutes=20.0)
    fine, coarse = (expected_hourly_requests(slow, hours=(90, 120), step_minutes=n) for n in (1, 5))
    assert coarse[large] == pytest.approx(fine[large], rel=0.01)


@pytest.mark.parametrize(
    ("hours", "step", "words"),
    [((5, 5), 1, "hours within"), ((0, 999), 1, "hours within"), (None, 7, "divide 60")],
)
def test_intensity__says_which_part_there_is(
    model: VisitModel, hours: tuple[int, int] | None, step: int, words: str
) -> None:
    """Hours outside of the world have no truth."""
    with pytest.raises(ValueError, match=words):
        expected_hourly_requests(model, hours=hours, step_minutes=step)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"new_share": 1.5}, r"new_share in \[0, 1\], got 1.5"),
        ({"weekday": "freitag"}, "got 'freitag'"),
        ({"hour": 24}, r"hour in \[0, 24\), got 24"),
        ({"episodes": 0}, "episodes >= 1, got 0"),
        ({"next_episode_probability": 2.0, "episodes": 2}, "next_episode_probability in"),
        ({"next_episode_probability": 0.5}, "episodes >= 2"),
    ],
)
def test_settings__say_what_is_wrong(change: dict[str, Any], words: str) -> None:
    """A setting out of bounds is named with its value and what is allowed."""
    with pytest.raises(ValueError, match=words):
        ReleaseSettings(**change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"daily_power": 0.0}, "daily_power > 0, got 0.0"),
        ({"weekday_factors": (1.0, 2.0)}, "seven weekday_factors"),
        ({"weekday_factors": (0.0,) * 7}, "not all 0"),
        ({"successors_among": 5}, "successors_among > n_successors, got 5"),
        ({"region_taste_sigma": -1.0}, "region_taste_sigma >= 0"),
        ({"releases": ReleaseSettings(episodes=50)}, "n_contents >= 1200"),
    ],
)
def test_world_settings__say_what_is_wrong(change: dict[str, Any], words: str) -> None:
    """The same for the settings beside the releases."""
    with pytest.raises(ValueError, match=words):
        SyntheticSettings(**change)
