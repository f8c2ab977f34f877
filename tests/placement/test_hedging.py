"""Scenarios in the ladder: the plan of least risk wins, keeps every hard limit, and says what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.copies import Copies
from placement.errors import ProblemError
from placement.flows import best_flows
from placement.hedging import hedged, risk_settings, with_tail
from placement.instances import InstanceSettings, random_instance
from placement.plan import Plan
from placement.problem import PlacementProblem, PlacementSettings
from placement.publish import Incumbent, cost_of
from placement.scenarios import Scenarios, draw_scenarios, evaluate, tail_weights
from placement.solve import solve
from tests.placement.test_scenarios import networks, two_networks
from tests.placement.tiny import GB, hand_problem

QUICK = {"whole_programme_arcs": 0, "neighbourhoods": 0, "bound_iterations": 60, "dive_rounds": 6, "dive_passes": 10}


def drawing(problem: PlacementProblem, **options: object) -> PlacementProblem:
    chosen = {**vars(problem.settings), "scenarios": 20, **options}
    return replace(problem, settings=PlacementSettings(**chosen))


def copies_of(plan: Plan) -> Copies:
    return Copies(plan.segment, plan.source)


def small(seed: int, **options: object) -> PlacementProblem:
    """60 segments whose requests scatter, where some nodes' uplinks are tight."""
    problem = random_instance(InstanceSettings(segments=60, locations=3, nodes=10, pops=1), seed=seed)
    scattered = replace(problem.demand, dispersion=np.full(len(problem.demand), 0.5))
    return drawing(replace(problem, demand=scattered), **{**QUICK, **options})


def test_solve__a_small_instance_spreads_over_networks() -> None:
    """The mean puts both copies into the nearer network; with a price on the tail one goes to the other."""
    problem = two_networks()
    assert networks(problem, copies_of(solve(problem))) == [0, 0]
    plan = solve(drawing(problem, scenarios=150, cvar_weight_millidollars_per_gb=40.0))
    assert networks(problem, copies_of(plan)) == [0, 1]
    assert plan.method == "hedged by the programme with scenarios"
    assert plan.risk is not None
    assert plan.risk.cvar_bytes < plan.risk.mean_plan_cvar_bytes  # in scenarios that chose nothing


@pytest.mark.parametrize("seed", range(3))
def test_solve__judged_and_repeatable(seed: int) -> None:
    """Hard limits stay hard, the same seed gives the same bytes, and the bound still lies below the mean cost."""
    problem = small(seed)
    plan, again = solve(problem, seed=3), solve(problem, seed=3)
    assert check(problem, plan).ok
    assert plan.bound <= plan.objective
    assert plan.source.tobytes() == again.source.tobytes()
    assert plan.flow_share.tobytes() == again.flow_share.tobytes()
    assert plan.risk == again.risk


def test_solve__without_scenarios_nothing_is_drawn() -> None:
    """Off by default: the mean's plan, and no figures of scenarios."""
    problem = small(1, scenarios=0)
    assert solve(problem).risk is None


@pytest.mark.parametrize("seed", range(3))
def test_hedged__keeps_the_best(seed: int) -> None:
    """In the scenarios that choose, the risk never exceeds that of the plan given, whatever the ladder answers."""
    problem = small(seed)
    copies = copies_of(solve(replace(problem, settings=replace(problem.settings, scenarios=0))))
    flows = best_flows(problem, copies.segment, copies.source)
    mean, asked = Incumbent("mean", copies, flows, cost_of(problem, copies, flows)), []

    def nothing_held(changed: PlacementProblem, _: Copies) -> Copies:
        asked.append(changed)
        return Copies(np.zeros(0, np.int32), np.zeros(0, np.int32))

    best, _ = hedged(problem, mean, nothing_held, seed=0)
    settings = risk_settings(problem)
    drawn = draw_scenarios(problem, replace(settings, scenarios=2 * settings.scenarios), seed=0)
    choosing = drawn.part(0, settings.scenarios)
    assert evaluate(problem, best.copies, choosing).risk(settings) <= evaluate(problem, copies, choosing).risk(settings)
    assert best is mean
    assert len(asked) >= 1


def test_with_tail__by_hand() -> None:
    """A tail in which twice as much is asked for and the node is down half the time counts for kappa = 1."""
    problem = drawing(hand_problem(), scenarios=4, cvar_level=0.5, cvar_weight_millidollars_per_gb=16.0)
    copies = Copies(np.array([0], np.int32), np.array([1], np.int32))
    flows = best_flows(problem, copies.segment, copies.source)
    plan = Incumbent("", copies, flows, cost_of(problem, copies, flows))
    requests = np.array([[20.0, 2.0], [20.0, 2.0], [5.0, 1.0], [5.0, 1.0]])
    up = np.array([[True, True], [True, False], [True, True], [True, True]])
    drawn = Scenarios(requests, up)
    changed = with_tail(problem, plan, drawn, evaluate(problem, copies, drawn, tail=0.5))
    # a GB at the node saves 20 - 4 = 16 m$, so kappa = 16 / 16; unserved: 2, 22, 1, 1 GB, so the first two are the tail
    np.testing.assert_allclose(changed.demand.requests, [10 + 20, 1 + 2])
    np.testing.assert_allclose(changed.sources.survival, [1.0, 0.75])
    np.testing.assert_allclose(changed.sources.uplink_bytes, [np.inf, 200.0 * GB])


@pytest.mark.parametrize(
    ("tail", "weights"),
    [(0.0, [0.25, 0.25, 0.25, 0.25]), (0.5, [0.0, 0.5, 0.0, 0.5]), (0.9, [0, 1, 0, 0]), (0.375, [0.2, 0.4, 0, 0.4])],
)
def test_tail_weights__by_hand(tail: float, weights: list[float]) -> None:
    """All, the worst two, the worst one, and the worst two and a half: (1, 1, 0.5) / 2.5; of equals the first."""
    np.testing.assert_allclose(tail_weights(np.array([1.0, 9.0, 1.0, 4.0]), tail), weights)


def test_settings__every_mistake_is_named() -> None:
    """All of them at once."""
    with pytest.raises(ProblemError) as caught:
        PlacementSettings(scenarios=-1, cvar_level=1.0, cvar_weight_millidollars_per_gb=float("nan"))
    assert len(caught.value.problems) == 3
