"""The certificate holds at any prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.bound import Prices, certify
from placement.greedy import place_greedily
from placement.problem import PlacementProblem
from tests.placement.tiny import GB, cost_of, hand_problem, tiny_problem


def no_prices(problem: PlacementProblem) -> Prices:
    n = len(problem.sources)
    return Prices(np.zeros(n), np.zeros(n), 0.0, np.zeros(len(problem.demand)), np.zeros(len(problem.segments)))


def test_certify__without_prices_by_hand() -> None:
    """With no limit priced and everybody up, each segment is placed for itself."""
    # the POP serves all for 220; a: 10 * (20 - 4) - 20 = 140 saved by a copy; b: 16 - 20 < 0
    assert certify(hand_problem(), no_prices(hand_problem())) == pytest.approx(80.0)


def test_certify__an_uplink_price_by_hand() -> None:
    """A price of 6 m$/GB on an uplink of 5 GB takes from each copy what it sends and gives back the limit's worth."""
    problem = hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB]))
    priced = replace(no_prices(problem), uplink=np.array([0.0, 6e-9]))
    # 220 - (10 * (16 - 6) - 20) - 5 * 6 = 110; the best plan costs 160
    assert certify(problem, priced) == pytest.approx(110.0)


@given(st.integers(0, 10_000), st.floats(0.0, 3.0), st.booleans())
@settings(max_examples=12, deadline=None)
def test_certify__any_prices_prove_a_bound(seed: int, scale: float, pops_hold_everything: bool) -> None:
    """The certificate needs no convergence: whatever the prices, it stays below every plan."""
    problem = tiny_problem(seed, pops_hold_everything=pops_hold_everything)
    rng = np.random.default_rng(seed)
    prices = Prices(
        storage=rng.random(4) * scale * 1e-8,
        uplink=rng.random(4) * scale * 1e-8,
        movement=scale * 1e-8,
        once=rng.random(len(problem.demand)) * scale,
        backing=rng.random(3) * scale * 100.0,
        tangent=rng.random(len(problem.demand)) * 6.0,
    )
    plan_cost = cost_of(problem, place_greedily(problem))
    plain, raised = certify(problem, prices), certify(problem, prices, raise_rows=True)
    assert plain * (1 - 1e-12) <= raised <= plan_cost * (1 + 1e-9)


def test_certify__two_nodes_cover_what_one_of_them_is_up_for() -> None:
    """At the tangent that touches two copies the certificate knows that two nodes up half the time cover 75 %."""
    base = hand_problem()
    twice = np.array([0, 1, 1])
    sources = replace(
        base.sources,
        **{name: value[twice] for name, value in vars(base.sources).items() if name not in ("source", "survival")},
        source=np.array(["pop", "n1", "n2"], dtype=object),
        survival=np.array([1.0, 0.5, 0.5]),
    )
    free_push = replace(base.settings, push_handling_millidollars_per_gb=0.0, failure_detection_ms=0.0)
    problem = replace(
        base,
        sources=sources,
        rtt_ms=np.zeros((1, 3), np.float32),
        reach=np.ones((1, 3), np.bool_),
        current_segment=np.array([0, 0], np.int32),
        current_source=np.array([1, 2], np.int32),
        settings=replace(free_push, movement_budget_bytes=0),
    )
    # 220 at the POP; a's two copies are held for nothing and save 16 m$ on at most 75 % of ten requests: 100
    touching = replace(no_prices(problem), once=np.array([16.0, 0.0]), tangent=np.full(2, 2 * np.log(2.0)))
    assert certify(problem, touching) == pytest.approx(220.0 - 0.75 * 160.0, rel=1e-6)
    # (1) alone at that price believes in all ten
    assert certify(problem, replace(touching, tangent=None)) == pytest.approx(220.0 - 160.0, rel=1e-6)
    # the right price of the row is found when it is not given
    unpriced = replace(touching, once=np.zeros(2))
    assert certify(problem, unpriced, raise_rows=True) == pytest.approx(220.0 - 0.75 * 160.0, rel=1e-3)
