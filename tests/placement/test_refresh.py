"""Refreshing a plan: worked by hand, within every hard limit, and nothing moved where nothing is worth a push."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.copies import Copies
from placement.errors import ProblemError
from placement.problem import Demand, PlacementProblem
from placement.refresh import RefreshSettings, due_requests, refresh
from tests.placement.tiny import GB, hand_problem, keeps_hard_limits, tiny_problem

NODE = 1


def _holding(problem: PlacementProblem, *segments: int) -> PlacementProblem:
    held = np.array(segments, np.int32)
    return replace(problem, current_segment=held, current_source=np.full(len(held), NODE, np.int32))


def _pairs(copies: Copies) -> list[tuple[int, int]]:
    nodes = copies.source == NODE
    return list(zip(copies.segment[nodes].tolist(), copies.source[nodes].tolist(), strict=True))


def test_refresh__a_stale_copy_makes_room() -> None:
    """Room for one of two segments: the one nobody asks for any more goes, the one asked for ten times comes."""
    problem = _holding(hand_problem(), 1)
    sources = replace(problem.sources, storage_bytes=np.array([100 * GB, GB]))
    demand = Demand(np.array([0, 1], np.int32), np.zeros(2, np.int32), np.array([10.0, 0.2]))
    problem = replace(problem, sources=sources, demand=demand)
    assert _pairs(refresh(problem, RefreshSettings(keep_requests=0.3))) == [(0, NODE)]
    assert _pairs(refresh(problem, RefreshSettings(keep_requests=0.1))) == [(1, NODE)]


def test_refresh__a_push_must_be_worth_a_multiple() -> None:
    """Ten requests save 160 m$, a push costs 20: worth it with a thrift below 7, and not above."""
    problem = hand_problem()
    assert (0, NODE) in _pairs(refresh(problem, RefreshSettings(thrift=6.9)))
    assert _pairs(refresh(problem, RefreshSettings(thrift=7.1))) == []


def test_due_requests__are_shared_by_survival() -> None:
    """Ten requests at two holders with survivals of 0.9 and 0.6: six and four; who does not reach them has none."""
    problem = tiny_problem(0)
    nodes = np.flatnonzero(~problem.is_pop)[:3]
    survival = problem.sources.survival.copy()
    survival[nodes] = (0.9, 0.6, 0.5)
    reach = problem.reach.copy()
    reach[0, nodes] = (True, True, False)
    demand = Demand(np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([10.0]))
    problem = replace(problem, sources=replace(problem.sources, survival=survival), reach=reach, demand=demand)
    found = due_requests(problem, Copies(np.zeros(3, np.int32), nodes.astype(np.int32)))
    np.testing.assert_allclose(found, [6.0, 4.0, 0.0])


def test_refresh__the_same_world_moves_nothing_twice() -> None:
    """Refreshed again without news, what was pushed is held and nothing more moves."""
    problem = hand_problem()
    once = refresh(problem, RefreshSettings())
    again = refresh(replace(problem, current_segment=once.segment, current_source=once.source), RefreshSettings())
    assert _pairs(again) == _pairs(once)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5_000), st.floats(0, 5), st.floats(0, 5))
def test_refresh__keeps_every_hard_limit(seed: int, keep_requests: float, thrift: float) -> None:
    """Storage, movement, spread and masks, whatever was held and asked for."""
    problem = tiny_problem(seed)
    copies = refresh(problem, RefreshSettings(keep_requests=keep_requests, thrift=thrift))
    mesh = ~problem.is_pop[copies.source]
    assert keeps_hard_limits(problem, Copies(copies.segment[mesh], copies.source[mesh]))


def test_settings__name_every_mistake() -> None:
    """Each with its value, at once."""
    with pytest.raises(ProblemError) as error:
        RefreshSettings(every_minutes=-1, keep_requests=float("nan"), thrift=-2)
    for words in ("every_minutes >= 0", "keep_requests >= 0 and finite, got nan", "thrift >= 0 and finite, got -2"):
        assert words in str(error.value)
