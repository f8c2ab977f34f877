"""Exact shares are those of the linear programme, however the network is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.math_opt.python import mathopt

from placement.copies import keep_current
from placement.flows import best_flows, delivery_cost, mesh_coverage, serving_arcs
from placement.greedy import place_greedily
from placement.instances import InstanceSettings, random_instance
from placement.problem import PlacementProblem
from tests.placement.tiny import tiny_problem


def cheapest_delivery(problem: PlacementProblem, segment: np.ndarray, source: np.ndarray) -> float:
    """The programme at the head of `placement/flows.py`, by simplex."""
    arcs, demand = serving_arcs(problem, segment, source), problem.demand
    coverage, size = mesh_coverage(problem, arcs), problem.demand_segment_bytes / 1e9
    model = mathopt.Model()
    share = [model.add_variable(lb=0, ub=float(problem.sources.survival[n])) for n in arcs.source]
    for k in range(len(demand)):
        of_row = np.flatnonzero(arcs.row == k)
        mesh = of_row[~problem.is_pop[arcs.source[of_row]]]
        model.add_linear_constraint(mathopt.fast_sum([share[a] for a in of_row]) <= 1.0)
        model.add_linear_constraint(mathopt.fast_sum([share[a] for a in mesh]) <= float(coverage[k]))
    for n in np.flatnonzero(np.isfinite(problem.usable_uplink_bytes)):
        of_source = np.flatnonzero(arcs.source == n)
        sent = [float(size[arcs.row[a]] * demand.requests[arcs.row[a]]) * share[a] for a in of_source]
        model.add_linear_constraint(mathopt.fast_sum(sent) <= float(problem.usable_uplink_bytes[n]) / 1e9)
    saved = [float(demand.requests[arcs.row[a]] * arcs.saving[a]) * share[a] for a in range(len(arcs))]
    model.maximize(mathopt.fast_sum(saved))
    answer = mathopt.solve(model, mathopt.SolverType.GLOP)
    return float(demand.requests @ problem.origin_price - answer.objective_value())


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=25, deadline=None)
def test_best_flows__cost_what_the_programme_says(seed: int, pops_hold_everything: bool) -> None:
    """With POPs that hold everything the rest is theirs; with POPs that hold copies they compete with the nodes."""
    problem = tiny_problem(seed, pops_hold_everything=pops_hold_everything)
    for copies in (keep_current(problem), place_greedily(problem)):
        flows = best_flows(problem, copies.segment, copies.source)
        truth = cheapest_delivery(problem, copies.segment, copies.source)
        assert delivery_cost(problem, flows) == pytest.approx(truth, rel=1e-6)


def test_best_flows__the_limit_counts_what_competes() -> None:
    """POPs that hold everything reach every row, but none of their arcs is in the flow: they must not use up its limit."""
    problem = random_instance(InstanceSettings(segments=60, locations=4, nodes=12), seed=3)
    copies = keep_current(problem)
    arcs = serving_arcs(problem, copies.segment, copies.source)
    mesh = int((~problem.is_pop[arcs.source]).sum())
    assert mesh < len(arcs)
    exact, limited, filled = (
        delivery_cost(problem, best_flows(chosen, copies.segment, copies.source))
        for chosen in (
            replace(problem, settings=replace(problem.settings, exact_flow_arcs=most)) for most in (10_000_000, mesh, 0)
        )
    )
    assert limited == exact
    assert filled > exact
