"""Either engine leads the ladder: its prices are certified, and the ladder goes on from where it ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import placement.engines as engines
from placement.bound import certify
from placement.candidates import Candidates
from placement.check import check
from placement.engines import guide_by_pdlp, guide_of
from placement.errors import ProblemError
from placement.instances import InstanceSettings, random_instance
from placement.pdlp import PdlpSettings, solve_relaxation
from placement.prices import search_prices
from placement.problem import PlacementProblem, PlacementSettings
from placement.solve import solve
from tests.placement.tiny import GB, brute_force, hand_problem, tiny_problem

SMALL = InstanceSettings(segments=80, locations=4, nodes=12)


def by_pdlp(problem: PlacementProblem, **options: object) -> PlacementProblem:
    chosen = {**vars(problem.settings), "price_engine": "pdlp", "neighbourhoods": 2, **options}
    return replace(problem, settings=PlacementSettings(**chosen))  # type: ignore[arg-type]


def test_guide__by_hand() -> None:
    """Half a copy serves the 5 GB of uplink, in the answer and in the state that the dive begins at."""
    guide = guide_of(by_pdlp(hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB]))))
    # 220 if the POP serves all; 5 requests at the node save 5 * 16; half a copy costs 10
    assert guide.bound.value == pytest.approx(150.0, rel=1e-3)
    held = dict(zip(guide.candidates.segment.tolist(), guide.share.tolist(), strict=True))
    assert held[0] == pytest.approx(0.5, abs=0.01)
    assert guide.search.state.share.sum() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_guide__certified_and_near_our_own(seed: int) -> None:
    """Two engines, one certificate: the bounds differ by less than a per cent, and nothing is run but PDLP."""
    problem = by_pdlp(random_instance(SMALL, seed=seed))
    guide = guide_of(problem)
    assert certify(problem, guide.bound.prices) == guide.bound.value
    assert guide.bound.value == pytest.approx(search_prices(problem).bound.value, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_solve__bound_of_pdlp_below_brute_force(seed: int) -> None:
    """Whatever PDLP says, the plan's bound is certified."""
    problem = by_pdlp(tiny_problem(seed), whole_programme_arcs=0)
    optimum = brute_force(problem)
    assert solve(problem).bound <= optimum * (1 + 1e-6)


def test_solve__judged_as_good_and_repeatable() -> None:
    """The plan passes the judge, costs what our own engine's does within 2 %, and repeats."""
    problem = by_pdlp(random_instance(SMALL, seed=11), whole_programme_arcs=0)
    plan, again = solve(problem, seed=1), solve(problem, seed=1)
    assert check(problem, plan).ok
    assert plan.flow_share.tobytes() == again.flow_share.tobytes()
    assert plan.source.tobytes() == again.source.tobytes()
    own = solve(replace(problem, settings=replace(problem.settings, price_engine="own")), seed=1)
    assert plan.objective == pytest.approx(own.objective, rel=0.02)
    assert plan.gap < 0.05


def test_guide__in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances with more arcs than one relaxation takes are split; the bound stays certified, and useful."""
    problem = by_pdlp(random_instance(SMALL, seed=11))
    whole = guide_by_pdlp(problem)
    monkeypatch.setattr(engines, "ARCS_EACH", 1 + Candidates.of(problem).n_arcs // 3)
    parts = guide_by_pdlp(problem)
    assert certify(problem, parts.bound.prices) == parts.bound.value
    assert 0.95 * whole.bound.value < parts.bound.value <= whole.bound.value * 1.001


def test_solve__nothing_to_place() -> None:
    """No demand: no arcs, no copies, cost 0."""
    problem = by_pdlp(hand_problem())
    plan = solve(replace(problem, demand=replace(problem.demand, requests=np.zeros(2))))
    assert (plan.objective, len(plan.segment)) == (0.0, 0)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_coverage__proves_more(seed: int) -> None:
    """The tangents' duals, made one tangent a row, raise the certified bound where several nodes reach a row."""
    problem = random_instance(SMALL, seed=seed)
    bare, covered = (solve_relaxation(problem, PdlpSettings(coverage=coverage)) for coverage in (False, True))
    assert bare.bound < covered.bound <= solve(by_pdlp(problem)).objective
    assert covered.prices.tangent is not None
    assert np.isfinite(covered.prices.tangent).all()


def test_settings__unknown_engine_is_named() -> None:
    """What was given, and what is allowed."""
    with pytest.raises(ProblemError, match="Expected price_engine to be 'own' or 'pdlp', got 'glop'"):
        PlacementSettings(price_engine="glop")  # type: ignore[arg-type]
