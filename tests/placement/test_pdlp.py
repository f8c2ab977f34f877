"""PDLP's prices prove what another solver finds to be the optimum of the relaxation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ortools.math_opt.python import mathopt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from placement.bound import certify
from placement.errors import ProblemError
from placement.formulation import formulate
from placement.greedy import place_greedily
from placement.instances import SIZES, InstanceSettings, random_instance
from placement.pdlp import PdlpSettings, parts_of, solve_relaxation
from placement.problem import PlacementProblem
from placement.relaxation import Relaxation, relax
from tests.placement.tiny import GB, brute_force, cost_of, hand_problem, tiny_problem

SMALL = InstanceSettings(segments=80, locations=4, nodes=12)


def without_standing_pops(problem: PlacementProblem) -> PlacementProblem:
    return replace(problem, settings=replace(problem.settings, pops_hold_everything=False))


def optimum(relaxation: Relaxation) -> float:
    """By HiGHS, through another door than PDLP's."""
    rows = LinearConstraint(sparse.csr_matrix(relaxation.matrix), relaxation.lower, relaxation.upper)
    result = milp(relaxation.cost, constraints=rows, bounds=Bounds(0, 1))
    assert result.status == 0
    return float(result.fun) + relaxation.constant


def programme_relaxed(problem: PlacementProblem) -> float:
    """The programme of the formulation with fractional copies, by GLOP."""
    model = formulate(problem).model
    for variable in model.variables():
        variable.integer = False
    result = mathopt.solve(model, mathopt.SolverType.GLOP)
    return float(result.objective_value())


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_solve_relaxation__certified_at_the_optimum(seed: int) -> None:
    """The certificate at PDLP's prices is within half a per cent of the optimum, and above no plan."""
    problem = random_instance(SMALL, seed=seed)
    answer, best = solve_relaxation(problem), optimum(relax(problem))
    assert 0.995 * best <= answer.bound <= best * (1 + 1e-6)
    assert answer.bound <= cost_of(problem, place_greedily(problem))
    assert certify(problem, answer.prices) == answer.bound


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_solve_relaxation__certified_at_the_optimum_xs(seed: int) -> None:
    """The same at the smallest size of the benchmark."""
    problem = random_instance(SIZES["xs"], seed=seed)
    answer, best = solve_relaxation(problem), optimum(relax(problem))
    assert 0.995 * best <= answer.bound <= best * (1 + 1e-6)


def test_solve_relaxation__pops_that_hold_copies() -> None:
    """(7) is priced, too: tier-1 copies cost their push or the penalty."""
    problem = without_standing_pops(random_instance(SMALL, seed=11))
    answer, best = solve_relaxation(problem), optimum(relax(problem))
    assert 0.995 * best <= answer.bound <= best * (1 + 1e-6)
    assert answer.prices.backing.max() > 0


@pytest.mark.parametrize("seed", range(4))
def test_solve_relaxation__never_above_the_best_plan(seed: int) -> None:
    """On instances small enough for brute force the bound stays below the true optimum."""
    problem = tiny_problem(seed)
    assert solve_relaxation(problem).bound <= brute_force(problem) * (1 + 1e-9)


def test_solve_relaxation__by_hand() -> None:
    """Half a copy of a serves the 5 GB of uplink: 220 - 5 * 16 + 10 = 150."""
    answer = solve_relaxation(hand_problem(uplink_bytes=np.array([np.inf, 5.0 * GB])))
    assert answer.bound == pytest.approx(150.0, rel=1e-3)
    assert (answer.segment.tolist(), answer.source.tolist()) == ([0], [1])
    np.testing.assert_allclose(answer.share, [0.5], atol=0.01)


def test_solve_relaxation__in_parts() -> None:
    """Parts under shares of the limits lose some of the bound; a few corrections win most of it back."""
    problem = random_instance(SMALL, seed=11)
    best = optimum(relax(problem))
    uncorrected = solve_relaxation(problem, PdlpSettings(parts=3, rounds=1)).bound
    corrected = solve_relaxation(problem, PdlpSettings(parts=3, rounds=6)).bound
    assert uncorrected < corrected <= best * (1 + 1e-6)
    assert corrected > 0.97 * best


def test_solve_relaxation__same_problem_same_bytes() -> None:
    """One thread and a limit on iterations: the answer repeats."""
    problem, hurried = random_instance(SMALL, seed=11), PdlpSettings(iterations=100)
    first, second = solve_relaxation(problem, hurried), solve_relaxation(problem, hurried)
    assert first.prices.once.tobytes() == second.prices.once.tobytes()
    assert first.share.tobytes() == second.share.tobytes()
    assert first.iterations <= 100


def test_solve_relaxation__no_demand() -> None:
    """Nothing asked for: nothing is proven, nothing suggested."""
    problem = hand_problem()
    answer = solve_relaxation(replace(problem, demand=replace(problem.demand, requests=np.zeros(2))))
    assert (answer.bound, len(answer.share)) == (0.0, 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relax__with_every_row_it_is_the_programme_relaxed(seed: int) -> None:
    """With (2') and (8) the arrays say what the formulation says; without them they say less."""
    problem = random_instance(InstanceSettings(segments=12, locations=3, nodes=6, pops=1), seed=seed)
    full, bare = optimum(relax(problem, coverage=True, spread=True)), optimum(relax(problem))
    assert full == pytest.approx(programme_relaxed(problem), rel=1e-6)
    assert bare <= full * (1 + 1e-9)


def test_relax__parts_together_are_the_whole() -> None:
    """Every arc and copy belongs to one part."""
    problem = random_instance(SMALL, seed=11)
    whole, parts = relax(problem), [relax(problem, part) for part in parts_of(len(problem.segments), 3)]
    assert sum(part.constant for part in parts) == pytest.approx(whole.constant)
    assert sum(len(part.columns) for part in parts) == len(whole.columns)
    assert sum(part.cost.sum() for part in parts) == pytest.approx(whole.cost.sum())


def test_settings__every_mistake_at_once() -> None:
    """Parts, rounds and iterations are counts, and the gap is a share."""
    with pytest.raises(ProblemError, match=r"parts >= 1(.|\n)*relative_gap"):
        PdlpSettings(parts=0, relative_gap=0.0)
