"""From forecasts to a placement problem: by hand on the tiny scene."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.events import HOUR_US
from models.forecast import ChurnForecast
from pipelines.planning import (
    Copies,
    NodeOutlook,
    PlannedInstance,
    PlanningSettings,
    SegmentDemand,
    instance,
    outlook_from,
    segment_demand,
)
from pipelines.scene import Scene
from placement.solve import solve
from placement.tiers import TierSettings
from tests.pipelines.tiny_scene import FAR, NEAR, NOW_US, POP, forecast, tiny_scene

SETTINGS = PlanningSettings(tiers=TierSettings(minimum_storage_bytes=0))
EVERYBODY_UP = NodeOutlook(np.ones(3), np.ones(3), np.ones(3, dtype=np.bool_))
FILM_HERE = SegmentDemand(np.array([1, 2, 3]), np.array([0, 0, 0]), np.array([90.0, 45.0, 22.5]))


def planned(
    scene: Scene | None = None, outlook: NodeOutlook = EVERYBODY_UP, held: Copies | None = None, **settings: Any
) -> PlannedInstance:
    return instance(
        scene or tiny_scene(),
        FILM_HERE,
        outlook,
        held or Copies.none(),
        settings=replace(SETTINGS, **settings),
        at_us=NOW_US,
    )


def test_segment_demand__falls_with_the_segment_as_viewers_stop() -> None:
    """8 requests for the film with P(go on) = 1/2 ask for its segments 8, 4 and 2 times; the page has one segment."""
    demand = segment_demand(forecast((0, 1, 3.0), (1, 0, 8.0)), tiny_scene(), continuation=0.5, minimum_requests=0.1)
    assert demand.segment.tolist() == [0, 1, 2, 3]
    assert demand.location.tolist() == [1, 0, 0, 0]
    assert demand.requests.tolist() == [3.0, 8.0, 4.0, 2.0]


def test_segment_demand__leaves_out_what_is_under_the_minimum() -> None:
    """8, 4, 2 against a minimum of 3: the third segment goes, the first two stay; a cell of 1 goes whole."""
    cells = forecast((0, 0, 1.0), (1, 0, 8.0))
    assert segment_demand(cells, tiny_scene(), continuation=0.5, minimum_requests=3.0).requests.tolist() == [8.0, 4.0]


def test_segment_demand__drops_contents_that_the_catalogue_does_not_know() -> None:
    """A content without a size cannot be placed; its neighbours in the codes must not get its demand."""
    cells = forecast((0, 0, 9.0), (1, 0, 8.0), contents=("new", "film"))
    demand = segment_demand(cells, tiny_scene(), continuation=1.0, minimum_requests=0.1)
    assert demand.segment.tolist() == [1, 2, 3]


@given(st.floats(0.01, 50), st.floats(0.05, 1.0), st.floats(0.0, 5.0))
def test_segment_demand__keeps_exactly_what_reaches_the_minimum(mean: float, going_on: float, least: float) -> None:
    """The shortcut by logarithms agrees with looking at every segment, up to rounding at the border."""
    found = segment_demand(forecast((1, 0, mean)), tiny_scene(), continuation=going_on, minimum_requests=least)
    every = mean * going_on ** np.arange(3)
    assert set(every[every >= least * (1 + 1e-9)]) <= set(found.requests)
    assert set(found.requests) <= set(every[every >= least * (1 - 1e-9)])


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2), st.sampled_from([0.0, 0.1, 2.0]), st.floats(2.5, 50))
def test_segment_demand__starts_at_the_content_and_never_rises(
    going_on: list[float], least: float, mean: float
) -> None:
    """Each content by its own probability: segment 0 has the content's demand, and no segment more than the one before."""
    cells = forecast((0, 0, mean), (1, 0, mean), (1, 1, 2 * mean))
    found = segment_demand(cells, tiny_scene(), continuation=np.array(going_on), minimum_requests=least)
    film = found.segment >= 1
    assert found.requests[~film].tolist() == [mean]
    for place, demand in ((0, mean), (1, 2 * mean)):
        asked = found.requests[film & (found.location == place)]
        every = demand * going_on[1] ** np.arange(3)
        assert asked[0] == demand
        assert np.allclose(asked, every[: len(asked)])
        assert (np.diff(asked) <= 0).all()
        assert (every[len(asked) :] <= max(least, 0.0) * (1 + 1e-9)).all()


def _churn(up: list[bool], survival: list[list[float]], availability: list[list[float]]) -> ChurnForecast:
    return ChurnForecast(
        origin_us=NOW_US,
        edges_hours=np.array([2.0, 4.0]),
        nodes=np.array(["far", "near"], dtype=object),
        up=np.array(up),
        survival=np.array(survival),
        availability=np.array(availability),
        returned=np.where(np.array(up)[:, None], 1.0, np.array(availability)),
    )


def test_outlook_from__interpolates_between_the_edges() -> None:
    """Known answer over four hours.

    Far: up now (1), 0.5 at 2 h, 0 at 4 h: a straight line, so its mean share is 1/2; near: down, level at 0 then up to
    0.4 at 4 h: mean of a ramp over the second half, 0.4 / 4. Staying is survival at the horizon: 0.25 and 0.
    """
    churn = _churn([True, False], [[0.5, 0.25], [0.0, 0.0]], [[0.5, 0.25], [0.0, 0.4]])
    churn = replace(churn, survival=np.array([[0.5, 0.0], [0.0, 0.0]]), availability=np.array([[0.5, 0.0], [0.0, 0.4]]))
    found = outlook_from(churn, tiny_scene(), horizon_hours=4.0)
    assert found.survival[FAR] == pytest.approx(0.5, abs=1e-9)
    # 25 points 0, 1/6, ..., 4 h: the ramp's mean over them is 0.4 x (0 + 1 + ... + 12) / 12 / 25 = 0.104
    assert found.survival[NEAR] == pytest.approx(0.4 * 6.5 / 25, abs=1e-9)
    assert (found.stay[FAR], found.stay[NEAR]) == (0.0, 0.0)
    assert found.up.tolist() == [True, False, True]
    assert (found.stay[POP], found.survival[POP]) == (1.0, 1.0)


def test_outlook_from__beyond_the_last_edge_stays_level() -> None:
    """A horizon longer than the forecast uses its last word, and does not fail."""
    churn = _churn([True, True], [[1.0, 0.5], [1.0, 1.0]], [[1.0, 0.5], [1.0, 1.0]])
    found = outlook_from(churn, tiny_scene(), horizon_hours=400.0)
    # 25 points: now (1.0), then 16.7 h and later, all beyond the edge at 4 h (0.5)
    assert found.survival[FAR] == pytest.approx((1 + 24 * 0.5) / 25)
    assert found.stay[FAR] == 0.5


def test_outlook_from__a_node_that_the_model_does_not_know_is_believed_down() -> None:
    """Pushing bytes to a node that was never seen wastes them."""
    scene = tiny_scene(source=np.array(["pop", "near", "stranger"], dtype=object))
    found = outlook_from(_churn([True, True], [[1, 1], [1, 1]], [[1, 1], [1, 1]]), scene, horizon_hours=4.0)
    assert (found.up[FAR], found.survival[FAR]) == (False, 0.0)


def test_instance__consent_must_cover_the_horizon() -> None:
    """Consent that ends inside the six hours makes a node ineligible, and the verdict says so; one at the end does not."""
    end_us = NOW_US + 6 * HOUR_US
    consent = np.array([np.iinfo(np.int64).max, end_us - 1, end_us])
    found = planned(tiny_scene(consent_until_us=consent))
    assert found.problem.sources.eligible.tolist() == [True, False, True]
    assert found.verdicts.reason[NEAR] == "consent ends within the horizon"
    never = planned(tiny_scene(consent_until_us=np.array([np.iinfo(np.int64).max, -1, -1])))
    assert never.problem.sources.eligible.tolist() == [True, False, False]


def test_instance__copies_on_a_node_without_consent_are_given_up() -> None:
    """Consent is never soft: what is held there does not count as held, and no plan keeps it."""
    consent = np.array([np.iinfo(np.int64).max, -1, np.iinfo(np.int64).max])
    held = Copies(np.array([1, 1]), np.array([NEAR, FAR]))
    found = planned(tiny_scene(consent_until_us=consent), held=held)
    assert found.problem.current_source.tolist() == [FAR]
    assert NEAR not in found.copies(solve(found.problem)).source


def test_instance__a_node_that_is_down_keeps_its_copies_and_gets_no_new_ones() -> None:
    """Nothing can be pushed to it, and what it holds costs nothing to leave there until it comes back."""
    down = NodeOutlook(np.array([1, 0.0, 1]), np.array([1, 0.9, 0.9]), np.array([True, False, True]))
    held = Copies(np.array([1]), np.array([NEAR]))
    found = planned(outlook=down, held=held)
    copies = found.copies(solve(found.problem))
    assert copies.segment[copies.source == NEAR].tolist() == [1]
    nothing_held = planned(outlook=down)
    assert not nothing_held.problem.sources.eligible[NEAR]


def test_instance__a_node_that_is_not_known_yet_is_not_used() -> None:
    """A backtest must not place on devices that joined later."""
    found = planned(tiny_scene(known_from_us=np.array([-1, NOW_US + 1, NOW_US], dtype=np.int64)))
    assert found.problem.sources.eligible.tolist() == [True, False, True]


def test_instance__the_movement_budget_is_a_share_of_the_eligible_storage() -> None:
    """Half of the 4 MB of two nodes; an absolute limit counts where it is smaller."""
    assert planned().problem.settings.movement_budget_bytes == 2_000_000
    limited = planned(placement=replace(SETTINGS.placement, movement_budget_bytes=7))
    assert limited.problem.settings.movement_budget_bytes == 7


def test_instance__counts_busy_uplinks_as_away() -> None:
    """Sending two fifths of the time, a node that stays for sure is there for 0.6 of the requests; a POP for all.

    A refresh works out for itself what each uplink refuses.
    """
    busy = planned(busy_share=0.4).problem
    assert busy.sources.survival.tolist() == [1.0 if pop else 0.6 for pop in busy.is_pop]
    again = instance(
        tiny_scene(),
        FILM_HERE,
        EVERYBODY_UP,
        Copies.none(),
        settings=replace(SETTINGS, busy_share=0.4).for_refresh(),
        at_us=NOW_US,
    )
    assert again.problem.sources.survival.tolist() == [1.0, 1.0, 1.0]


def test_instance__a_plan_comes_back_in_the_codes_of_the_scene() -> None:
    """Only segments with demand or copies are in the problem; its codes are translated back."""
    found = planned(held=Copies(np.array([0]), np.array([FAR])))
    assert found.segment_code.tolist() == [0, 1, 2, 3]
    copies = found.copies(solve(found.problem))
    assert set(copies.segment[copies.source == NEAR].tolist()) <= {1, 2, 3}
    holdings = found.holdings(solve(found.problem))
    assert holdings.start_us == NOW_US
    assert holdings.survival is not None
    assert len(holdings.survival) == len(holdings.segment)


def test_settings__say_every_broken_bound() -> None:
    """Both at once, with the values."""
    with pytest.raises(ValueError, match=r"horizon_hours > 0, got 0.*reach_rtt_ms >= 0, got -1"):
        PlanningSettings(horizon_hours=0, reach_rtt_ms=-1)
