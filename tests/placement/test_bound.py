"""The certificate holds at any prices, and the search makes it useful."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.bound import certify, first_prices, lower_bound
from placement.formulation import solve_whole
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from tests.placement.tiny import brute_force, cost_of, tiny_problem


def test_bounds__hold_when_nodes_may_leave() -> None:
    """The tangents of the coverage only relax, so the solver's bound stays below the optimum."""
    problem = tiny_problem(4)
    optimum = brute_force(problem)
    assert solve_whole(problem, seed=0).bound <= optimum * (1 + 1e-6)
    assert lower_bound(problem, above=optimum).value <= optimum * (1 + 1e-6)


@given(st.integers(0, 10_000), st.floats(0.0, 3.0), st.booleans())
@settings(max_examples=8, deadline=None)
def test_certify__any_prices_prove_a_bound(seed: int, scale: float, pops_hold_everything: bool) -> None:
    """The certificate needs no convergence: whatever the prices, it stays below every plan."""
    problem = tiny_problem(seed, pops_hold_everything=pops_hold_everything)
    rng = np.random.default_rng(seed)
    start = first_prices(problem)
    random = replace(
        start,
        storage=rng.random(4) * scale * 1e-8,
        uplink=rng.random(4) * scale * 1e-8,
        movement=scale * 1e-8,
        once=start.once * scale,
    )
    plan_cost = cost_of(problem, place_greedily(problem))
    assert certify(problem, random) <= plan_cost * (1 + 1e-9)


def test_lower_bound__search_improves_on_the_first_prices() -> None:
    """Prices that are searched prove more than none, and never more than a plan costs."""
    problem = random_instance(InstanceSettings(segments=30, locations=3, nodes=6), seed=5)
    cost = cost_of(problem, place_greedily(problem))
    found = lower_bound(problem, above=cost)
    assert certify(problem, first_prices(problem)) < found.value <= cost
    assert certify(problem, found.prices) == found.value
