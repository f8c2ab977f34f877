"""Random instances keep the ratios that make a placement hard, at every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement import instances
from placement.copies import keep_current
from placement.instances import SIZES, InstanceSettings, random_instance
from placement.problem import PlacementProblem

S = SIZES["s"]


@pytest.fixture(scope="module")
def problem() -> PlacementProblem:
    return random_instance(S, seed=4)


def test_random_instance__same_arguments_same_bytes(problem: PlacementProblem) -> None:
    """Every array repeats, and another seed draws another world."""
    again, other = random_instance(S, seed=4), random_instance(S, seed=5)
    for name in ("rtt_ms", "reach", "current_segment", "current_source"):
        assert getattr(problem, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(problem, name).tobytes() != getattr(other, name).tobytes()
    for owner in ("segments", "sources", "demand"):
        for name, value in vars(getattr(problem, owner)).items():
            assert np.array_equal(value, getattr(getattr(again, owner), name))


def test_random_instance__the_sizes_asked_for(problem: PlacementProblem) -> None:
    """Segments, locations, nodes, POPs and demand rows are as many as the settings say."""
    pops = int(problem.is_pop.sum())
    assert (len(problem.segments), len(problem.locations)) == (1_000, 20)
    assert (len(problem.sources) - pops, pops) == (100, 2)
    assert len(problem.demand) == 7_900
    assert np.median(problem.segments.bytes) == pytest.approx(30e6, rel=0.1)
    assert all(shape.pops == shape.locations // 10 for shape in SIZES.values())


def test_random_instance__demand_exceeds_the_uplink(problem: PlacementProblem) -> None:
    """The nodes can send 1 / 1.3 of what is asked for: uplink is scarce, and someone must go to the POP."""
    nodes = problem.sources.eligible & ~problem.is_pop
    uplink = (problem.sources.uplink_bytes * problem.sources.survival)[nodes].sum()
    assert problem.demand_segment_bytes @ problem.demand.requests == pytest.approx(1.3 * uplink)


def test_random_instance__movement_is_a_share_of_storage(problem: PlacementProblem) -> None:
    """15 % of what the nodes can hold may move; without a share there is no limit."""
    stored = problem.sources.storage_bytes[~problem.is_pop].sum()
    assert problem.movement_limit_bytes == pytest.approx(0.15 * stored, rel=1e-6)
    assert random_instance(replace(S, movement_share=None), seed=4).movement_limit_bytes == np.inf


def test_random_instance__the_stale_placement(problem: PlacementProblem) -> None:
    """Nodes are three quarters full of what was popular, without a copy too many in any network."""
    held = problem.segments.bytes[problem.current_segment].sum()
    assert 0.70 < held / problem.sources.storage_bytes[~problem.is_pop].sum() <= 0.75
    eligible = problem.sources.eligible[problem.current_source]
    assert len(keep_current(problem).segment) == eligible.sum()  # nothing else must go
    total = np.bincount(problem.demand.segment, weights=problem.demand.requests, minlength=1_000)
    assert total[problem.current_segment].mean() > 2 * total.mean()


def test_random_instance__two_kinds_of_nodes(problem: PlacementProblem) -> None:
    """Tier 2 stays with probability 28/30 on average, tier 3 with 12/16, and some 40 % are on tier 3."""
    survival, tier = problem.sources.survival, problem.sources.tier
    assert survival[tier == 2].mean() == pytest.approx(28 / 30, abs=0.02)
    assert survival[tier == 3].mean() == pytest.approx(12 / 16, abs=0.05)
    assert (tier == 3).sum() / (tier > 1).sum() == pytest.approx(0.4, abs=0.15)


def test_random_instance__reach_counts_neighbours(problem: PlacementProblem) -> None:
    """A location reaches its own nodes, five of its neighbours' and at most three POPs."""
    own = problem.sources.location[None, :] == np.arange(20)[:, None]
    nodes = ~problem.is_pop[None, :]
    assert problem.reach[own & nodes].all()
    assert ((problem.reach & ~own & nodes).sum(axis=1) == 5).all()
    assert (problem.reach[:, problem.is_pop].sum(axis=1) == 2).all()  # there are two


def test_random_instance__taste_is_regional(problem: PlacementProblem) -> None:
    """Home boosts a segment's largest location well over its share: the same top segments everywhere would be easy."""
    rate = np.zeros((1_000, 20))
    rate[problem.demand.segment, problem.demand.location] = problem.demand.requests
    share = rate / np.maximum(1e-300, rate.sum(axis=1, keepdims=True))
    assert 0.25 < share.max(axis=1).mean() < 0.7  # of 20 locations


def test_demand__blocks_keep_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn in many blocks, the rows kept are still the largest of all cells."""
    shape = InstanceSettings(segments=400, locations=5, nodes=4, rows_per_segment=0.5)
    monkeypatch.setattr(instances, "BLOCK_CELLS", 50)  # blocks of ten segments
    problem = random_instance(shape, seed=1)
    dense = random_instance(replace(shape, rows_per_segment=5.0), seed=1)
    rates = np.sort(dense.demand.requests)[-200:]
    assert len(problem.demand) == 200
    np.testing.assert_allclose(np.sort(problem.demand.requests), rates / rates[0] * 0.5)
