"""Each node's own best prices: right by hand, never worse for the bound, whatever they start from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.bound import FLAT, Bound, prove
from placement.instances import InstanceSettings, random_instance
from placement.node_prices import HIGHEST, LOWEST, fit_node_prices
from placement.prices import lower_bound
from placement.problem import Float64, PlacementProblem
from placement.reach import Reach
from placement.response import Offer
from tests.placement.tiny import GB, hand_problem

SHAPE = InstanceSettings(segments=120, locations=3, nodes=30)


def crowded_problem(uplink_gb: float = np.inf) -> PlacementProblem:
    """Room for one of two segments, both there already: a saves 160 m$ an hour, b 16."""
    base = hand_problem(uplink_bytes=np.array([np.inf, uplink_gb * GB]))
    return replace(
        base,
        sources=replace(base.sources, storage_bytes=np.array([100 * GB, GB])),
        current_segment=np.array([0, 1], dtype=np.int32),
        current_source=np.array([1, 1], dtype=np.int32),
    )


def offer_at(reach: Reach, storage: float, uplink: float = 0.0) -> Offer:
    """Prices of the node in m$ per GB; rows have none."""
    source = np.array([0.0, storage, 0.0, uplink, 0.0]) / GB
    return Offer(source, np.zeros(2), np.full(2, FLAT), np.zeros(2))


def test_fit__storage_by_hand() -> None:
    """The room goes to a, and its last byte is worth what b would save: 16 m$/GB, and the bound is the optimum, 60."""
    reach = Reach.of(crowded_problem())
    fitted = fit_node_prices(reach, offer_at(reach, storage=16.5))
    assert fitted.source[1] == pytest.approx(16.0 / GB)
    # the POP serves all 11 GB for 220; a on the node saves 160
    assert prove(reach, fitted).value == pytest.approx(60.0)


def test_fit__stays_in_its_range_by_hand() -> None:
    """Segments that are not worth the lowest price of the range were left out, so the price does not fall below it."""
    reach = Reach.of(crowded_problem())
    fitted = fit_node_prices(reach, offer_at(reach, storage=40.0))
    assert fitted.source[1] == pytest.approx(LOWEST * 40.0 / GB)


def test_fit__uplink_by_hand() -> None:
    """An uplink of 5 GB for the 10 that a would send: any price of uplink below 16 sends all, so it rises to its highest."""
    reach = Reach.of(crowded_problem(uplink_gb=5.0))
    fitted = fit_node_prices(reach, offer_at(reach, storage=16.0, uplink=10.0))
    assert fitted.source[3] == pytest.approx(HIGHEST * 10.0 / GB)
    assert prove(reach, fitted).value > prove(reach, offer_at(reach, storage=16.0, uplink=10.0)).value


def searched(seed: int) -> tuple[Reach, Bound, Float64]:
    problem = random_instance(SHAPE, seed=seed)
    bound = lower_bound(replace(problem, settings=replace(problem.settings, bound_iterations=150)))
    prices = bound.prices
    return Reach.of(problem), bound, np.concatenate([prices.storage, prices.uplink, [prices.movement]])


@given(st.integers(0, 10_000), st.floats(0.0, 0.2))
@settings(max_examples=10, deadline=None)
def test_fit__raises_the_bound(seed: int, noise: float) -> None:
    """From prices that are a little off at every node the bound rises, and by no more than there is to gain."""
    reach, bound, source = searched(seed)
    assert bound.prices.tangent is not None
    off = source * np.random.default_rng(seed).uniform(1 - noise, 1 + noise, len(source))
    rows = bound.prices.once[reach.demand_row], bound.prices.tangent[reach.demand_row]
    offer = Offer(np.where(reach.limits > 0, off, 0.0), *rows, bound.prices.backing)
    before, after = prove(reach, offer).value, prove(reach, fit_node_prices(reach, offer)).value
    assert after >= before - 1e-3 * bound.value
    if noise > 0.05:
        assert after > before


def test_fit__threads_do_not_change_a_byte() -> None:
    """Every node is priced for itself."""
    reach, bound, source = searched(1)
    offer = Offer(
        source, bound.prices.once[reach.demand_row], np.full(len(reach.demand_row), FLAT), bound.prices.backing
    )
    one, two = (fit_node_prices(reach, offer, threads=threads).source for threads in (1, 2))
    assert one.tobytes() == two.tobytes()
