"""The truth in hand: never above the exact optimum, close to it, and patient."""

from __future__ import annotations

import numpy as np
import pytest

from models.events import HOUR_US
from pipelines.outlook import ClairvoyantOutlook
from pipelines.patience import HALF_LIFE_HOURS, PatientOutlook
from placement.trace import SegmentRequests
from placement.uptime import Uptime
from tests.pipelines.equal_sizes import EqualSizes, news
from tests.pipelines.tiny_scene import NOW_US, tiny_scene


@pytest.mark.parametrize("seed", [1, 2])
def test_patient__is_within_a_hundredth_of_the_exact_optimum(seed: int) -> None:
    """Where offline caching is all there is, the ceiling of the comparison is the true one; nothing is above it."""
    world = news(hours=30, per_hour=60, contents=150, room=8, seed=seed)
    optimum = world.optimum
    assert world.net_avoided(world.alike(24.0)) <= optimum
    assert 0.99 * optimum <= world.net_avoided(world.patient(24.0)) <= optimum


def test_patient__beats_a_myopic_oracle() -> None:
    """One content is asked for once an hour, ten times: within any one hour its push costs what it saves.

    Who looks no further than the next plan gains nothing; who looks on pushes it once and saves nine.
    """
    world = EqualSizes(np.arange(10), np.zeros(10, np.int64), room=1, hours=10)
    myopic, patient = world.net_avoided(world.alike(1.0)), world.net_avoided(world.patient(24.0))
    assert (myopic, patient, world.optimum) == (0, 9, 9)


def test_patient__does_not_fill_storage_now_with_what_is_asked_for_tomorrow() -> None:
    """Content 0 is asked for 9 times in hour 1, content 1 10 times in hour 20, and there is room for one.

    Of 24 hours alike content 1 saves more, and sits there for 20 hours: 9. One after the other: 8 + 9.
    """
    hour, content = np.repeat([1, 20], [9, 10]), np.repeat([0, 1], [9, 10])
    world = EqualSizes(hour, content, room=1, hours=24)
    assert world.net_avoided(world.alike(24.0)) == 9
    assert world.net_avoided(world.patient(24.0)) == world.optimum == 17


def test_patient__counts_now_whole_and_later_as_one_push_at_most() -> None:
    """By hand, planned every hour: segment 1 twice now and 1 h after the next plan, segment 0 three times 4 h after it.

    2 + 2^-(1/3) of segment 1; 2^-(4/3) of segment 0, however often; segment 3 lies past the horizon. Near is up for the
    first half of the hour until the next plan: its half of a share, and it does not stay.
    """
    hours = np.array([0.2, 0.4, 2.0, 5.0, 5.5, 6.0, 30.0])
    segment = np.array([1, 1, 1, 0, 0, 0, 3], np.int32)
    at_us = NOW_US + (hours * HOUR_US).astype(np.int64)
    requests = SegmentRequests(at_us, segment, np.zeros(7, np.int32), np.full(7, 5))
    uptime = Uptime.from_sessions([1], np.array([0]), np.array([NOW_US + HOUR_US // 2]), n_sources=3)
    found = PatientOutlook(tiny_scene(), requests, uptime, every_hours=1.0, horizon_hours=24.0).at(NOW_US)
    assert HALF_LIFE_HOURS == 3.0
    assert found.demand.segment.tolist() == [0, 1]
    assert found.demand.requests.tolist() == pytest.approx([2 ** (-4 / 3), 2 + 2 ** (-1 / 3)])
    assert (found.nodes.survival[1], found.nodes.stay[1], found.horizon_hours) == (0.5, 0.0, 1.0)


def test_clairvoyant__looks_no_further_than_the_end_of_what_is_replayed() -> None:
    """One hour before the end, 24 hours ahead are one: a node that is up until the end stays, and its share is whole."""
    requests = SegmentRequests(np.array([NOW_US]), np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([5]))
    uptime = Uptime.from_sessions([1], np.array([0]), np.array([NOW_US + HOUR_US]), n_sources=3)
    end_us = NOW_US + HOUR_US
    found = ClairvoyantOutlook(tiny_scene(), requests, uptime, horizon_hours=24.0, end_us=end_us).at(NOW_US)
    assert (found.nodes.survival[1], found.nodes.stay[1], found.horizon_hours) == (1.0, 1.0, 1.0)
