"""The network simplex method: right by hand, as good as OR-Tools on random networks, wherever it begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.network_simplex import best_flow
from placement.problem import Float64, Int64
from placement.savings_flow import savings_flow

Network = tuple[Int64, Int64, Float64, Float64, Float64, Float64]


def network(
    *arcs: tuple[int, int, float, float], most: tuple[float, ...], free: tuple[float, ...]
) -> tuple[Int64, Int64, Float64, Float64, Float64, Float64]:
    """Arcs as (source, row, capacity, saving)."""
    source, row, capacity, density = (np.array(column) for column in zip(*arcs, strict=True))
    limits = capacity.astype(np.float64), density.astype(np.float64), np.array(most), np.array(free)
    return row.astype(np.int64), source.astype(np.int64), *limits


def random_network(rng: np.random.Generator, *, alike: bool) -> Network:
    """A few rows and sources; alike: whole numbers, so that many flows are equally good and many limits meet."""
    n_rows, n_sources = int(rng.integers(1, 8)), int(rng.integers(1, 6))
    pairs = np.argwhere(rng.random((n_rows, n_sources)) < 0.7)
    pairs = pairs if len(pairs) else np.zeros((1, 2), np.int64)
    row, source = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)

    def some(count: int, high: int) -> Float64:
        return rng.integers(0, high, count).astype(np.float64) if alike else rng.uniform(0.0, high, count)

    density = some(len(row), 4) + (1.0 if alike else 1e-3)
    return row, source, some(len(row), 6), density, some(n_rows, 8), some(n_sources, 10)


def assert_within_limits(drawn: Network, flow: Float64) -> None:
    row, source, capacity, _, most, free = drawn
    slack = 1e-9 * (1.0 + capacity.sum())
    assert (flow >= 0).all()
    assert (flow <= capacity + slack).all()
    assert (np.bincount(row, flow, minlength=len(most)) <= most + slack).all()
    assert (np.bincount(source, flow, minlength=len(free)) <= free + slack).all()


def test_flow__makes_way_by_hand() -> None:
    """The second source reaches the first row alone, so the first one leaves it to it and serves the other: 6 and not 3."""
    drawn = network((0, 0, 1, 3.0), (1, 0, 1, 3.0), (0, 1, 1, 3.0), most=(1.0, 1.0), free=(1.0, 1.0))
    for start in ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]):
        assert best_flow(*drawn, np.array(start)) == pytest.approx([0.0, 1.0, 1.0])


def test_flow__fills_what_saves_most_by_hand() -> None:
    """Uplink of 4 for rows of 3, 3 and 3 that save 1, 3 and 2 a byte, the last served by this source up to 0.5 alone."""
    drawn = network((0, 0, 9, 1.0), (0, 1, 9, 3.0), (0, 2, 0.5, 2.0), most=(3.0, 3.0, 3.0), free=(4.0,))
    assert best_flow(*drawn, np.zeros(3)) == pytest.approx([0.5, 3.0, 0.5])


def test_flow__takes_back_what_no_longer_fits() -> None:
    """An old flow from before a source lost half of its uplink and the row shrank."""
    drawn = network((0, 0, 2, 1.0), (1, 0, 2, 2.0), most=(2.5,), free=(1.0, 2.0))
    assert best_flow(*drawn, np.array([2.0, 2.0])) == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize("nothing", ["capacity", "most", "free"])
def test_flow__nothing_where_there_is_no_room(nothing: str) -> None:
    row, source, capacity, density, most, free = network((0, 0, 1, 1.0), (1, 0, 1, 2.0), most=(1.0,), free=(1.0, 1.0))
    limits = {"capacity": capacity, "most": most, "free": free}
    limits[nothing] = np.zeros_like(limits[nothing])
    flow = best_flow(row, source, limits["capacity"], density, limits["most"], limits["free"], np.ones(2))
    assert flow.tolist() == [0.0, 0.0]


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["nothing", "anything", "the best", "the opposite"]))
@settings(max_examples=300, deadline=None)
def test_flow__saves_what_ortools_saves(seed: int, alike: bool, begin: str) -> None:
    """Wherever it begins, limits broken there included, and where ties abound."""
    rng = np.random.default_rng(seed)
    drawn = random_network(rng, alike=alike)
    best = savings_flow(*drawn)
    assert best is not None
    start = {
        "nothing": np.zeros(len(best)),
        "anything": drawn[2] * rng.uniform(0.0, 1.5, len(best)),
        "the best": best,
        "the opposite": drawn[2] - best,
    }[begin]
    flow = best_flow(*drawn, start)
    assert_within_limits(drawn, flow)
    assert drawn[3] @ flow == pytest.approx(drawn[3] @ best, rel=1e-6, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_flow__from_its_own_answer_saves_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = random_network(rng, alike=False)
    once = best_flow(*drawn, np.zeros(len(drawn[0])))
    assert drawn[3] @ best_flow(*drawn, once) == pytest.approx(drawn[3] @ once, rel=1e-9)
