"""Binding limits are named where they bind, with what a little more of them would save."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.binding import binding_sentences, money
from placement.bound import Prices
from placement.copies import Copies
from placement.flows import best_flows
from placement.instances import InstanceSettings, random_instance
from placement.problem import PlacementProblem
from placement.solve import solve
from tests.placement.tiny import GB, hand_problem


def prices(problem: PlacementProblem, *, storage: float = 0.0, uplink: float = 0.0, movement: float = 0.0) -> Prices:
    """The same price, in m$ per GB, at every node."""
    node = ~problem.is_pop / GB
    none = np.zeros(len(problem.demand)), np.zeros(len(problem.segments))
    return Prices(storage * node, uplink * node, movement / GB, *none)


def sentences(problem: PlacementProblem, at: Prices | None, *segments: int) -> tuple[str, ...]:
    """Of the plan that holds these segments on the node."""
    copies = Copies(np.array(segments, dtype=np.int32), np.ones(len(segments), dtype=np.int32))
    return binding_sentences(problem, copies, best_flows(problem, copies.segment, copies.source), at)


def test_storage__is_priced_where_it_is_full() -> None:
    """Two segments of 1 GB fill the node's 2 GB; with one of them there is room, and nothing binds."""
    problem = hand_problem()
    dear = prices(problem, storage=0.8)
    full = ("Storage: 1 of 1 nodes are full.", "Storage in here binds: 1 GB more saves about 0.80 m$ over the horizon.")
    assert sentences(problem, dear, 0, 1) == full
    assert sentences(problem, None, 0, 1) == full[:1]
    assert sentences(problem, dear, 0) == ()


def test_uplink__is_priced_where_it_is_spent() -> None:
    """5 of the 10 requests for 1 GB fill an uplink of 5 GB."""
    problem = hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB]))
    priced = "Uplink in here binds: 1 GB more to send saves about 16 m$ over the horizon."
    assert priced in sentences(problem, prices(problem, uplink=16.0), 0)
    assert priced not in sentences(hand_problem(), prices(problem, uplink=16.0), 0)


def test_movement__is_priced_when_the_budget_is_spent() -> None:
    """One segment pushed is a budget of 1 GB."""
    problem = hand_problem()
    problem = replace(problem, settings=replace(problem.settings, movement_budget_bytes=GB))
    found = sentences(problem, prices(problem, movement=1234.0), 0)
    assert found[-1] == "Movement binds: 1 GB more would save about 1,200 m$ over the horizon."
    assert sentences(problem, prices(problem, movement=1234.0)) == ()


def test_places__the_three_dearest_come_first() -> None:
    """Prices of a place are those of its nodes, weighted by their room."""
    problem = random_instance(InstanceSettings(segments=30, locations=5, nodes=25, movement_share=None), seed=4)
    places = (np.arange(len(problem.sources)) % 5).astype(np.int32)
    problem = replace(problem, sources=replace(problem.sources, location=places))
    node = np.flatnonzero(~problem.is_pop)
    every = np.repeat(np.arange(30), len(node)).astype(np.int32), np.tile(node, 30).astype(np.int32)
    at = prices(problem)
    at = replace(at, storage=np.where(problem.is_pop, 0.0, 1.0 + problem.sources.location) / GB)
    found = binding_sentences(problem, Copies(*every), best_flows(problem, *every), at)
    named = [sentence for sentence in found if " in l" in sentence]
    assert [sentence.split()[2] for sentence in named] == ["l4", "l3", "l2"]
    assert "about 5.0 m$" in named[0]


def test_solve__says_what_a_spent_uplink_is_worth() -> None:
    """A GB that the node sends instead of the POP saves 20 - 4 = 16 m$, which the prices of the bound find out."""
    plan = solve(hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB])))
    binding = [sentence for sentence in plan.binding if sentence.startswith("Uplink in here")]
    assert len(binding) == 1
    said = float(binding[0].split("about ")[1].split(" m$")[0])
    assert said == pytest.approx(16.0, rel=0.3)


@pytest.mark.parametrize(("amount", "words"), [(0.0123, "0.012 m$"), (7.77, "7.8 m$"), (98765.0, "99,000 m$")])
def test_money__has_two_digits(amount: float, words: str) -> None:
    """An estimate must not look exact."""
    assert money(amount) == words
