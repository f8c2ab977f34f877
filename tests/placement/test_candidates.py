"""The graph that prices are put on: complete, sorted, and the same problem seen from the copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.candidates import Candidates
from placement.instances import InstanceSettings, random_instance
from placement.problem import Int64, PlacementProblem
from placement.reach import BLOCKS
from tests.placement.tiny import hand_problem

SMALL = InstanceSettings(segments=60, locations=4, nodes=12)


def cheapest(problem: PlacementProblem, row: int, sources: Int64) -> float:
    return float(problem.serving_price(np.full(len(sources), row), sources.astype(np.int32)).min())


def arcs_by_definition(problem: PlacementProblem) -> set[tuple[int, int]]:
    """(demand row, node) where an eligible node in reach has room for the segment and is cheaper than the POPs."""
    found = set()
    pops = np.flatnonzero(problem.standing)
    for k in range(len(problem.demand)):
        row = np.array([k])
        location, s = problem.demand.location[k], problem.demand.segment[k]
        base = cheapest(problem, k, pops[problem.can_serve[location, pops]])
        for n in np.flatnonzero(problem.can_serve[location] & ~problem.is_pop):
            fits = problem.segments.bytes[s] <= problem.storage_limit_bytes[n]
            if fits and problem.serving_price(row, np.array([n]))[0] < base:
                found.add((k, int(n)))
    return found


def test_candidates__are_all_there() -> None:
    """A useful copy that is left out would make the bound worthless."""
    problem = random_instance(SMALL, seed=3)
    candidates = Candidates.of(problem)
    graph = candidates.graph
    source = np.repeat(graph.source, np.diff(graph.arc_start))
    rows = candidates.rows[graph.arc_row]
    assert set(zip(rows.tolist(), source.tolist(), strict=True)) == arcs_by_definition(problem)
    assert candidates.n_arcs == len(arcs_by_definition(problem))


def test_candidates__gains_are_what_the_nearest_pop_costs_more() -> None:
    """The best POP's price less the node's, in single precision."""
    problem = random_instance(SMALL, seed=4)
    candidates = Candidates.of(problem)
    graph = candidates.graph
    source = np.repeat(graph.source, np.diff(graph.arc_start))
    rows = candidates.rows[graph.arc_row]
    pops = problem.standing[None, :] & problem.can_serve
    base = np.array([cheapest(problem, int(k), np.flatnonzero(pops[problem.demand.location[k]])) for k in rows])
    truth = base - problem.serving_price(rows, source)
    np.testing.assert_allclose(graph.arc_gain, truth, rtol=5e-7)


def test_candidates__held_copies_need_no_budget() -> None:
    """With nothing to move only what is held now can be a candidate."""
    problem = hand_problem()
    still = replace(
        problem,
        settings=replace(problem.settings, movement_budget_bytes=0),
        current_segment=np.array([1], np.int32),
        current_source=np.array([1], np.int32),
    )
    candidates = Candidates.of(still)
    assert candidates.segment.tolist() == [1]
    assert candidates.graph.push.tolist() == [0.0]


def test_where__keeps_arcs_with_their_candidates() -> None:
    """Every other candidate: its arcs, and no others, in the same order."""
    candidates = Candidates.of(random_instance(SMALL, seed=5))
    kept = np.arange(len(candidates)) % 2 == 0
    smaller = candidates.where(kept)
    assert len(smaller) == kept.sum()
    assert smaller.segment.tolist() == candidates.segment[kept].tolist()
    for at, c in enumerate(np.flatnonzero(kept)[:50]):
        old = candidates.graph.arc_row[slice(*candidates.graph.arc_start[[c, c + 1]])]
        new = smaller.graph.arc_row[slice(*smaller.graph.arc_start[[at, at + 1]])]
        assert old.tolist() == new.tolist()


def test_candidates__a_few_for_each_row_hold_what_is_held() -> None:
    """A large instance starts with groups of nodes; a copy that costs nothing to keep is never left out."""
    problem = random_instance(replace(SMALL, nodes=120), seed=7)
    few, full = Candidates.of(problem, for_each_row=3), Candidates.of(problem)
    assert len(few) < len(full) / 4
    assert set(few.keys.tolist()) < set(full.keys.tolist())
    assert set(problem.current_keys.tolist()) & set(full.keys.tolist()) <= set(few.keys.tolist())


def test_joined_by__adds_what_is_missing() -> None:
    """Half the candidates joined by the other half, some of them twice, are the whole graph again, arc for arc."""
    full = Candidates.of(random_instance(SMALL, seed=8))
    even = np.arange(len(full)) % 2 == 0
    whole, old = full.where(even).joined_by(full.keys[~even | (np.arange(len(full)) % 4 == 0)])
    assert old.tolist() == even.tolist()
    for name, value in full.graph._asdict().items():
        np.testing.assert_array_equal(getattr(whole.graph, name), value, err_msg=name)


@pytest.mark.parametrize("threads", [1, 3])
def test_for_each_block__covers_every_segment_once(threads: int) -> None:
    """However many threads, the blocks are the same, so that sums over them are."""
    candidates = Candidates.of(random_instance(SMALL, seed=6))
    seen = np.zeros(60, dtype=np.int64)

    def mark(_: int, first: int, end: int) -> None:
        seen[first:end] += 1

    candidates.for_each_block(mark, threads)
    assert (seen == 1).all()
    assert len(candidates.blocks) == BLOCKS + 1
