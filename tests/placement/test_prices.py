"""The price search proves a useful bound, the same every time, within the work it is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement import prices as price_search
from placement.bound import Bound, certify
from placement.formulation import solve_whole
from placement.greedy import place_greedily
from placement.guard import Guard
from placement.instances import InstanceSettings, random_instance
from placement.prices import lower_bound, search_prices
from tests.placement.tiny import GB, brute_force, cost_of, hand_problem, tiny_problem

SMALL = InstanceSettings(segments=60, locations=4, nodes=12)


def test_bounds__hold_when_nodes_may_leave() -> None:
    """The tangents of the coverage only relax, so the solver's bound stays below the optimum, as does the search's."""
    problem = tiny_problem(4)
    optimum = brute_force(problem)
    assert solve_whole(problem, seed=0).bound <= optimum * (1 + 1e-6)
    assert lower_bound(problem).value <= optimum * (1 + 1e-6)


def test_lower_bound__tight_by_hand() -> None:
    """Half the requests fit the uplink, and the search finds the price that says so: 160 is the best plan's cost."""
    problem = hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB]))
    # the relaxation may hold half a copy: 10 for the push in place of 20, so 150
    assert lower_bound(problem).value == pytest.approx(150.0, rel=0.02)


def test_lower_bound__is_certified_and_useful() -> None:
    """The prices returned prove the value returned, at least four fifths of what a plan costs."""
    problem = random_instance(SMALL, seed=5)
    cost = cost_of(problem, place_greedily(problem))
    found = lower_bound(problem)
    assert 0.8 * cost < found.value <= cost
    assert certify(problem, found.prices) == pytest.approx(found.value, rel=1e-12)


def test_lower_bound__little_work_proves_less() -> None:
    """A certificate comes back without any work, and after a little; the full search proves more."""
    problem = random_instance(SMALL, seed=5)
    idle = replace(problem, settings=replace(problem.settings, bound_arc_visits=0))
    hurried = replace(problem, settings=replace(problem.settings, bound_iterations=50))
    assert 0 <= lower_bound(idle).value < lower_bound(hurried).value < lower_bound(problem).value


def test_lower_bound__few_candidates_prove_what_all_do() -> None:
    """Starting with three sources for each row, those that prices call for join: the bound is that of the full graph."""
    problem = random_instance(replace(SMALL, segments=300, nodes=120), seed=6)
    wide = replace(problem, settings=replace(problem.settings, starting_candidates=1_000))
    few = search_prices(replace(problem, settings=replace(problem.settings, starting_candidates=3)))
    assert few.bound.value >= lower_bound(wide).value * (1 - 2e-3)
    assert few.candidates.n_arcs < search_prices(wide).search.candidates.reach.n_pairs / 4


def test_search__prices_that_swing_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates that fall far below the best one say that prices have not settled; those that stand still end the search.

    On the newsroom's demand the bound fell from 4,171 to 2,670 before it rose to 10,217; no small instance does that.
    """
    problem = random_instance(SMALL, seed=5)
    prices = lower_bound(problem).prices

    def best_of(*values: float) -> tuple[float, int]:
        left = iter(values)
        monkeypatch.setattr(price_search, "_bound", lambda *_: Bound(next(left, 0.0), prices))
        return search_prices(problem).bound.value, sum(1 for _ in left)

    assert best_of(10.0, 40.0, 90.0, 100.0, 60.0, 50.0, 60.0, 150.0, 150.0, 150.0, 170.0) == (150.0, 1)
    assert best_of(10.0, 40.0, 90.0, 100.0, 100.0, 100.0, 150.0) == (100.0, 1)


def test_lower_bound__a_guard_leaves_a_valid_bound() -> None:
    """Time that is up already costs quality and not truth."""
    problem = random_instance(SMALL, seed=5)
    hurried = search_prices(problem, guard=Guard(0.0))
    assert 0 <= hurried.bound.value <= lower_bound(problem).value


def test_lower_bound__nothing_may_move() -> None:
    """With a movement budget of zero no push can be hoped for: the POP serves everything for 220."""
    problem = hand_problem()
    problem = replace(problem, settings=replace(problem.settings, movement_budget_bytes=0))
    assert lower_bound(problem).value == pytest.approx(220.0, rel=0.01)


def test_lower_bound__counts_the_tier_one_copy() -> None:
    """Nobody holds anything: each of two segments needs a push of 50 m$ to the POP or the penalty of 100 m$."""
    problem = hand_problem()
    problem = replace(problem, settings=replace(problem.settings, pops_hold_everything=False))
    # 2 * 50 for the copies on the POP, and at least 4 m$ for each of 11 requests
    assert 100.0 <= lower_bound(problem).value <= 180.0 * (1 + 1e-9)


def test_search__same_problem_same_bytes() -> None:
    """The bound and the copies it suggests repeat."""
    problem = random_instance(SMALL, seed=7)
    first, second = search_prices(problem), search_prices(problem)
    assert first.bound.value == second.bound.value
    assert first.share.tobytes() == second.share.tobytes()
    assert 0 <= first.share.min() < first.share.max() <= 1


def test_search__no_demand() -> None:
    """Nothing asked for: nothing is proven, nothing suggested."""
    problem = hand_problem()
    quiet = search_prices(replace(problem, demand=replace(problem.demand, requests=np.zeros(2))))
    assert (quiet.bound.value, len(quiet.share)) == (0.0, 0)
