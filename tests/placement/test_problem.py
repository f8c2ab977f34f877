"""Instances are valid by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.errors import ProblemError
from placement.instances import InstanceSettings, random_instance
from placement.problem import PlacementProblem, PlacementSettings, Segments

TINY = InstanceSettings(segments=6, locations=2, nodes=4, pops=1, rows_per_segment=2.0)


@pytest.fixture
def tiny() -> PlacementProblem:
    """6 segments, 2 locations, 1 POP and 4 nodes."""
    return random_instance(TINY, seed=0)


def test_problem__names_every_mistake(tiny: PlacementProblem) -> None:
    """The solver must never be the first to notice a bad number."""
    demand = replace(tiny.demand, requests=np.full_like(tiny.demand.requests, np.nan))
    sources = replace(tiny.sources, survival=np.full(len(tiny.sources), 1.5))
    with pytest.raises(ProblemError) as caught:
        replace(
            tiny,
            demand=demand,
            sources=sources,
            current_segment=np.array([99], dtype=np.int32),
            current_source=np.array([-3], dtype=np.int32),
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in ("demand.requests[0] is nan", "sources.survival[0] is 1.5", "is 99", "is -3"):
        assert part in text


def test_problem__shapes_are_told_before_values(tiny: PlacementProblem) -> None:
    """A shape that disagrees is an error and not a reason to guess."""
    with pytest.raises(ProblemError, match=r"rtt_ms has shape \(5, 2\), expected \(2, 5\)"):
        replace(tiny, rtt_ms=np.zeros((5, 2), dtype=np.float32))


def test_problem__refuses_duplicates(tiny: PlacementProblem) -> None:
    """Two rows for one thing would be counted twice."""
    content = tiny.segments.content.copy()
    content[1] = content[0]
    with pytest.raises(ProblemError, match=r"The segments hold \('c0', 0\) more than once"):
        replace(tiny, segments=Segments(content, tiny.segments.segment, tiny.segments.bytes))


def test_problem__zeros_are_fine(tiny: PlacementProblem) -> None:
    """No demand, no room, no uplink, nobody eligible: an instance all the same."""
    n = len(tiny.sources)
    sources = replace(
        tiny.sources,
        storage_bytes=np.zeros(n, np.int64),
        uplink_bytes=np.zeros(n),
        survival=np.zeros(n),
        eligible=np.zeros(n, np.bool_),
    )
    empty = replace(tiny, sources=sources, demand=replace(tiny.demand, requests=np.zeros(len(tiny.demand))))
    assert not empty.can_serve.any()
    assert empty.unplaceable.all()


def test_prices__by_hand(tiny: PlacementProblem) -> None:
    """A node that is up 4 times in 5 fails once for 4 requests served, which costs a quarter of the detection time."""
    sources = replace(tiny.sources, survival=np.full(5, 0.8), egress_cost_per_gb=np.array([0.02, 0, 0, 0, 0]))
    settings = PlacementSettings(latency_millidollars_per_request_second=2.0, failure_detection_ms=100.0)
    problem = replace(tiny, sources=sources, rtt_ms=np.full((2, 5), 30, np.float32), settings=settings)
    # (30 ms + 100 ms * 0.2 / 0.8) * 2 m$/s = 0.055 s * 2 = 0.11 m$
    assert problem.request_price[0, 1] == pytest.approx(0.11)
    # a POP bills 0.02 $/GB = 20 m$/GB; a node's owner gets 4 m$/GB; a push costs the POP's egress
    np.testing.assert_allclose(problem.byte_price[:2], [20e-9, 4e-9])
    np.testing.assert_allclose(problem.push_price[1:], 20e-9)


def test_settings__names_every_mistake() -> None:
    """All bad settings in one message."""
    with pytest.raises(ProblemError) as caught:
        PlacementSettings(availability_target=1.0, max_copies_per_network=0, movement_budget_bytes=-1)
    assert len(caught.value.problems) == 3


def test_random_instance__same_seed_same_instance() -> None:
    """Benchmarks and tests must be repeatable."""
    first, second = random_instance(TINY, seed=3), random_instance(TINY, seed=3)
    np.testing.assert_array_equal(first.rtt_ms, second.rtt_ms)
    np.testing.assert_array_equal(first.demand.requests, second.demand.requests)
    np.testing.assert_array_equal(first.current_source, second.current_source)
