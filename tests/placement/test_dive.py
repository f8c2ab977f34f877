"""From the relaxation to whole copies: passes converge to the optimum of the relaxation, dives keep every limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.copies import add_while_fitting
from placement.dive import dive
from placement.flows import best_flows
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.neighbourhoods import improve_by_neighbourhoods
from placement.prices import search_prices
from placement.primal_dual import PrimalDual
from placement.solve import solve
from tests.placement.tiny import GB, cost_of, hand_problem

SHAPE = InstanceSettings(segments=200, locations=6, nodes=24, pops=2)


def relaxed_cost(search: PrimalDual) -> float:
    graph, candidates = search.candidates.graph, search.candidates
    saved = graph.requests[graph.arc_row] * graph.arc_gain * search.state.share
    return candidates.reach.constant - float(saved.sum()) + float(graph.push @ search.state.hold)


def test_passes__meet_their_own_bound() -> None:
    """Where copies in part and their prices agree the relaxation is solved: cost and certificate are the same number."""
    guide = search_prices(random_instance(SHAPE, seed=1))
    assert relaxed_cost(guide.search) == pytest.approx(guide.bound.value, rel=5e-3)


def test_passes__by_hand() -> None:
    """An uplink for half the requests: half a copy is held, 10 for its push, and 140 for what both serve."""
    problem = hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB]))
    guide = search_prices(problem)
    assert guide.bound.value == pytest.approx(150.0, rel=1e-3)
    assert guide.share[guide.candidates.segment == 0] == pytest.approx(0.5, abs=0.01)


def test_threads__do_not_change_a_byte() -> None:
    """Blocks are summed in order, so two threads give what one gives."""
    problem = random_instance(SHAPE, seed=2)
    found = [search_prices(replace(problem, settings=replace(problem.settings, threads=threads))) for threads in (1, 2)]
    assert found[0].bound.value == found[1].bound.value
    assert found[0].share.tobytes() == found[1].share.tobytes()


def test_search__goes_on_from_known_prices() -> None:
    """Yesterday's prices prove at once nearly what the whole search proved, on the same world."""
    problem = random_instance(SHAPE, seed=3)
    first = search_prices(problem)
    hurried = replace(problem, settings=replace(problem.settings, bound_iterations=1))
    again = search_prices(hurried, start=first.bound.prices)
    assert again.bound.value >= first.bound.value * (1 - 1e-9)


def test_dive__keeps_every_limit() -> None:
    """What the dive fixes fits as it is: adding its copies one by one drops none."""
    problem = random_instance(SHAPE, seed=4)
    copies = dive(problem, search_prices(problem))
    empty = type(copies)(copies.segment[:0], copies.source[:0])
    kept = add_while_fitting(problem, empty, copies.segment, copies.source)
    assert len(copies.segment) == len(kept.segment) > 0


def test_solve__closes_most_of_the_gap_that_greedy_leaves() -> None:
    """The point of the relaxation: greedy alone is three times as far from the bound."""
    problem = random_instance(SHAPE, seed=5)
    plan = solve(replace(problem, settings=replace(problem.settings, neighbourhoods=12)))
    greedy = cost_of(problem, place_greedily(problem))
    assert plan.objective - plan.bound < (greedy - plan.bound) / 3


def test_neighbourhoods__only_ever_improve() -> None:
    """From a greedy start: cheaper or equal under the judge's prices, within the limits, and the same every time."""
    problem = random_instance(replace(SHAPE, segments=80), seed=6)
    guide, start = search_prices(problem), place_greedily(problem)
    flows = best_flows(problem, start.segment, start.source)
    first, second = (improve_by_neighbourhoods(problem, guide, start, flows, count=4, seed=1) for _ in range(2))
    assert cost_of(problem, first) <= cost_of(problem, start) * (1 + 1e-9)
    assert first.segment.tobytes() == second.segment.tobytes()
    assert first.source.tobytes() == second.source.tobytes()
