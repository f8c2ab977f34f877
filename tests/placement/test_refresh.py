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
from placement.refresh import RefreshSettings, refresh
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
    problem = _holding(_asked(10.0, 0.2), 1)
    assert _pairs(refresh(problem, RefreshSettings(thrift=1))) == [(0, NODE)]


def test_refresh__who_is_there_leads() -> None:
    """A copy that is there counts for four pushes of 20 m$ more: 76 and 80 m$ against 145 less 20, and the other stays out.

    Counted for one push more it goes. Five requests save 80 m$, ten 160, of which a line that could send 100 carries
    76.2 and 145.5.
    """
    problem = _holding(_asked(10.0, 5.0), 1)
    assert _pairs(refresh(problem, RefreshSettings(thrift=0, steadiness=4))) == [(1, NODE)]
    assert _pairs(refresh(problem, RefreshSettings(thrift=0, steadiness=1))) == [(0, NODE)]


def _asked(*requests: float) -> PlacementProblem:
    """Segments asked for so often at one location, and room for one of them."""
    problem = hand_problem()
    sources = replace(problem.sources, storage_bytes=np.array([100 * GB, GB]))
    segments = np.arange(len(requests), dtype=np.int32)
    return replace(problem, sources=sources, demand=Demand(segments, np.zeros_like(segments), np.array(requests)))


def test_refresh__a_push_must_be_worth_a_multiple() -> None:
    """Ten requests save 160 m$, of which a line that could send 100 carries 145.5: worth up to 7.27 pushes of 20 m$."""
    problem = hand_problem()
    assert (0, NODE) in _pairs(refresh(problem, RefreshSettings(thrift=6.2)))
    assert _pairs(refresh(problem, RefreshSettings(thrift=6.3))) == []


def test_refresh__the_same_world_moves_nothing_twice() -> None:
    """Refreshed again without news, what was pushed is held and nothing more moves."""
    problem = hand_problem()
    once = refresh(problem, RefreshSettings())
    again = refresh(replace(problem, current_segment=once.segment, current_source=once.source), RefreshSettings())
    assert _pairs(again) == _pairs(once)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5_000), st.floats(0, 5), st.floats(0, 9))
def test_refresh__keeps_every_hard_limit(seed: int, thrift: float, steadiness: float) -> None:
    """Storage, movement, spread and masks, whatever was held and asked for."""
    problem = tiny_problem(seed)
    copies = refresh(problem, RefreshSettings(thrift=thrift, steadiness=steadiness))
    mesh = ~problem.is_pop[copies.source]
    assert keeps_hard_limits(problem, Copies(copies.segment[mesh], copies.source[mesh]))


def test_settings__name_every_mistake() -> None:
    """Each with its value, at once."""
    with pytest.raises(ProblemError) as error:
        RefreshSettings(every_minutes=-1, thrift=float("nan"), steadiness=-2)
    for words in ("every_minutes >= 0", "thrift >= 0 and finite, got nan", "steadiness >= 0 and finite, got -2"):
        assert words in str(error.value)
