"""Scenarios keep the marginals, and their tail spreads copies over networks where the mean does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.copies import Copies
from placement.errors import ProblemError
from placement.formulation import solve_whole
from placement.instances import InstanceSettings, random_instance
from placement.problem import Demand, PlacementProblem
from placement.scenarios import (
    RiskSettings,
    Scenarios,
    choose,
    conditional_value_at_risk,
    draw_scenarios,
    evaluate,
    improve,
)
from placement.solve import solve
from placement.stochastic import formulate_scenarios, solve_scenarios
from tests.placement.tiny import GB, hand_problem

RISK = RiskSettings(scenarios=60, weight_millidollars_per_gb=20.0, outage_share=1.0)


def two_networks() -> PlacementProblem:
    """Two segments of 1 GB, two nodes in network 0 and two in network 1 with room for one each, two pushes allowed.

    Nodes are up 4 times in 5, and down only together with their network. Network 0 is 10 ms nearer, so that the mean puts
    both copies there.
    """
    base = hand_problem()
    sources = replace(
        base.sources,
        source=np.array(["pop", "a1", "a2", "b1", "b2"], dtype=object),
        tier=np.array([1, 2, 2, 2, 2], dtype=np.int8),
        location=np.zeros(5, np.int32),
        network=np.array([-1, 0, 0, 1, 1], dtype=np.int32),
        storage_bytes=np.array([100 * GB, GB, GB, GB, GB]),
        uplink_bytes=np.full(5, np.inf),
        survival=np.array([1.0, 0.8, 0.8, 0.8, 0.8]),
        egress_cost_per_gb=np.array([0.02, 0.0, 0.0, 0.0, 0.0]),
        eligible=np.ones(5, np.bool_),
        lat=np.zeros(5),
        lon=np.zeros(5),
    )
    settings = replace(base.settings, movement_budget_bytes=2 * GB, latency_millidollars_per_request_second=1.0)
    return replace(
        base,
        sources=sources,
        demand=Demand(np.array([0, 1], dtype=np.int32), np.zeros(2, np.int32), np.array([10.0, 10.0])),
        rtt_ms=np.array([[30.0, 5.0, 5.0, 15.0, 15.0]], dtype=np.float32),
        reach=np.ones((1, 5), np.bool_),
        settings=settings,
    )


def networks(problem: PlacementProblem, copies: Copies) -> list[int]:
    return sorted(problem.sources.network[copies.source].tolist())


def mean_copies(problem: PlacementProblem) -> Copies:
    copies = solve_whole(problem, seed=0).copies
    assert copies is not None
    return copies


def test_draw__keeps_survival_and_demand() -> None:
    """Outages and dispersion change what comes together and not how often: 0.8 up, 10 requests, Var = m + alpha m^2."""
    problem = two_networks()
    problem = replace(problem, demand=replace(problem.demand, dispersion=np.array([0.0, 0.5])))
    for share in (0.0, 0.5, 1.0):
        drawn = draw_scenarios(problem, replace(RISK, scenarios=4000, outage_share=share), seed=1)
        np.testing.assert_allclose(drawn.up.mean(axis=0), [1.0, 0.8, 0.8, 0.8, 0.8], atol=0.025)
        together = (drawn.up[:, 1] == drawn.up[:, 2]).mean()
        # independent: 0.8^2 + 0.2^2 = 0.68; one fate: 1
        assert together == pytest.approx({0.0: 0.68, 0.5: 0.8, 1.0: 1.0}[share], abs=0.03)
        np.testing.assert_allclose(drawn.requests.mean(axis=0), [10.0, 10.0], rtol=0.05)
        np.testing.assert_allclose(drawn.requests.var(axis=0), [10.0, 60.0], rtol=0.15)


def test_draw__same_seed_same_scenarios() -> None:
    """Plans must be repeatable, and fresh scenarios fresh."""
    problem = two_networks()
    first, second, other = (draw_scenarios(problem, RISK, seed=seed) for seed in (3, 3, 4))
    assert first.requests.tobytes() == second.requests.tobytes()
    assert first.up.tobytes() == second.up.tobytes()
    assert first.requests.tobytes() != other.requests.tobytes()


@pytest.mark.parametrize(("tail", "expected"), [(0.0, 5.5), (0.8, 9.5), (0.9, 10.0), (0.85, 9.666667), (0.99, 10.0)])
def test_cvar__by_hand(tail: float, expected: float) -> None:
    """Of 1 to 10: all, the worst two, the worst one, the worst one and a half ((10 + 4.5) / 1.5), and less than one."""
    assert conditional_value_at_risk(np.arange(1.0, 11.0), tail) == pytest.approx(expected)


def test_evaluate__by_hand() -> None:
    """Both copies in network 0: all served by nodes when it is up, all by the POP when it is down."""
    problem = two_networks()
    both = Copies(np.array([0, 1], np.int32), np.array([1, 2], np.int32))
    scenarios = Scenarios(np.full((2, 2), 10.0), np.array([[1, 1, 1, 1, 1], [1, 0, 0, 1, 1]], dtype=np.bool_))
    report = evaluate(problem, both, scenarios)
    assert report.unserved_bytes.tolist() == [0.0, 20.0 * GB]
    # pushes 2 * 20; up: 20 * (4 + 5 ms * 1 m$/s); down: 20 * (20 + 30 ms * 1 m$/s)
    np.testing.assert_allclose(report.cost, [40 + 20 * 4.005, 40 + 20 * 20.03], rtol=1e-6)


def test_tail__spreads_copies_where_the_mean_does_not() -> None:
    """The nearest network takes both copies; if the worst tenth counts, one goes to the other network."""
    problem = two_networks()
    mean, scenarios = mean_copies(problem), draw_scenarios(problem, RISK, seed=1)
    assert networks(problem, mean) == [0, 0]
    answer = solve_scenarios(problem, scenarios, RISK, seed=0)
    assert answer.copies is not None
    assert networks(problem, answer.copies) == [0, 1]
    assert networks(problem, improve(problem, mean, scenarios, RISK)) == [0, 1]
    assert choose(problem, [mean, answer.copies], scenarios, RISK) is answer.copies
    risk = evaluate(problem, answer.copies, scenarios).risk(RISK)
    assert answer.objective == pytest.approx(risk, rel=1e-4)  # the programme and the evaluation agree


def test_tail__is_lower_in_fresh_scenarios() -> None:
    """What was chosen in some scenarios must hold in others."""
    problem = two_networks()
    mean, scenarios = mean_copies(problem), draw_scenarios(problem, RISK, seed=1)
    chosen = improve(problem, mean, scenarios, RISK)
    fresh = draw_scenarios(problem, replace(RISK, scenarios=400), seed=99)
    ours, theirs = evaluate(problem, chosen, fresh), evaluate(problem, mean, fresh)
    # mean: everything unserved 1 time in 5, so in the whole tail; ours: only when both networks are down, 1 time in 25
    assert ours.cvar_bytes < 0.9 * theirs.cvar_bytes
    assert ours.mean_cost < 1.05 * theirs.mean_cost


def test_weight__of_nothing_is_the_mean() -> None:
    """Without a price on the tail the mean plan stays."""
    problem, calm = two_networks(), replace(RISK, weight_millidollars_per_gb=0.0, scenarios=300)
    mean = mean_copies(problem)
    both_alike = draw_scenarios(problem, calm, seed=5)
    both_alike.up[:, 3:] = both_alike.up[:, 1:3]  # networks share their fate: only the distance tells them apart
    assert networks(problem, improve(problem, mean, both_alike, calm)) == [0, 0]


@pytest.mark.parametrize("seed", range(2))
def test_improve__on_random_instances(seed: int) -> None:
    """The risk in the scenarios given never rises, and the limits hold."""
    shape = InstanceSettings(segments=6, locations=2, nodes=6, pops=1, rows_per_segment=2.0)
    problem = random_instance(shape, seed=seed)
    plan, risk = solve(problem), RiskSettings(scenarios=8, weight_millidollars_per_gb=50.0)
    copies, scenarios = Copies(plan.segment, plan.source), draw_scenarios(problem, risk, seed=seed)
    better = improve(problem, copies, scenarios, risk, tries=25)
    assert evaluate(problem, better, scenarios).risk(risk) <= evaluate(problem, copies, scenarios).risk(risk)
    used = np.bincount(better.source, weights=problem.segments.bytes[better.segment], minlength=len(problem.sources))
    assert (used <= problem.storage_limit_bytes)[~problem.is_pop].all()


def test_formulate__names_scenarios() -> None:
    """Copies are shared, shares end with their scenario, and every name is there once."""
    problem = two_networks()
    scenarios = Scenarios(np.full((2, 2), 10.0), np.ones((2, 5), np.bool_))
    shared, _ = formulate_scenarios(problem, scenarios)
    names = [variable.name for variable in shared.model.variables()]
    assert len(names) == len(set(names))
    assert {"y[0,1]", "x[0,1]@0", "x[0,1]@1"} <= set(names)


def test_risk_settings__names_every_mistake() -> None:
    """All of them at once."""
    with pytest.raises(ProblemError) as caught:
        RiskSettings(scenarios=0, tail=1.0, weight_millidollars_per_gb=-1.0, outage_share=float("nan"))
    assert len(caught.value.problems) == 4
