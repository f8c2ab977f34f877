"""Networks and trees together: what is blended, what is capped, and who decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.demand.blending import WEIGHTS, blend_parts
from models.demand.boosting import BoostingRows
from models.demand.learned import LARGEST_OVER_PRIOR, LearnedResidual
from models.demand.network import InputScale, ResidualEnsemble, build_network
from models.demand.prior import MEAN_FLOOR
from models.demand.ratios import EXPOSURE_FLOOR, BoostedRatio
from models.trees import Trees
from tests.models.demand_world import SMALL


def constant_trees(value: float) -> Trees:
    """A single leaf: the same log-ratio everywhere."""
    first = np.zeros(1, dtype=np.int64)
    return Trees(first, first, np.zeros(1), np.array([-1]), first, np.zeros(1), value)


def constant_networks(residual: float) -> tuple[ResidualEnsemble, ...]:
    """Networks that answer the same log-residual everywhere (up to the squeezing at the cap), by horizon."""
    network = build_network(SMALL, n_inputs=2, seed=0)
    with torch.no_grad():
        network.mean_head.bias.fill_(residual)
    ensemble = ResidualEnsemble([network], InputScale(np.zeros(2), np.ones(2), 4.0))
    return ensemble, ensemble


def learned(*, residual: float, ratio: float, weight: float, cap: float = 2.0) -> LearnedResidual:
    ratios = tuple(BoostedRatio(constant_trees(ratio), cap) for _ in range(2))
    return LearnedResidual(constant_networks(residual), ratios, (weight, weight), (cap, cap))


def test_law__blends_in_the_logarithm() -> None:
    """Networks say nothing, trees say e^0.8, half of each: the mean is e^0.4 times the prior."""
    model = learned(residual=0.0, ratio=0.8, weight=0.5)
    mean, _ = model.law(np.zeros((1, 2)), np.array([3.0]), 0)
    assert mean[0] == pytest.approx(3.0 * np.exp(0.4))


def test_law__trees_multiply_no_less_than_their_floor() -> None:
    """A prior of a fifth of the floor is lifted to the floor before the trees multiply it: log 5 more."""
    ratio = BoostedRatio(constant_trees(0.5), 2.0)
    found = ratio.log_ratio(np.zeros((1, 2)), np.array([EXPOSURE_FLOOR / 5.0]))
    assert found[0] == pytest.approx(0.5 + np.log(5.0))


@given(prior=st.floats(MEAN_FLOOR, 1e5), residual=st.floats(-50.0, 50.0), ratio=st.floats(-50.0, 50.0))
def test_mean__never_exceeds_ten_times_the_prior(prior: float, residual: float, ratio: float) -> None:
    """Whatever was learned, no mean explodes: a plan must not be filled by one wild cell."""
    for weight in WEIGHTS:
        model = learned(residual=residual, ratio=ratio, weight=weight, cap=3.0)
        mean, dispersion = model.law(np.zeros((1, 2)), np.array([prior]), 0)
        assert MEAN_FLOOR <= mean[0] <= LARGEST_OVER_PRIOR * prior * (1 + 1e-9)
        assert np.isfinite(dispersion[0])


@pytest.mark.parametrize(("truth", "expected"), [(0.8, WEIGHTS[-1]), (0.0, 0.0)])
def test_blend__goes_to_the_part_that_is_right(truth: float, expected: float) -> None:
    """Demand e^0.8 times the prior, as the trees say and the networks do not: they get the largest weight, or none."""
    rng = np.random.default_rng(0)
    prior = np.full(5000, 4.0)
    rows = BoostingRows(np.zeros((5000, 2)), rng.poisson(prior * np.exp(truth)).astype(float), prior, np.ones(5000))
    ratios = [BoostedRatio(constant_trees(0.8), 2.0)] * 2
    found = blend_parts(constant_networks(0.0), ratios, [rows, rows.thinned(0, seed=0)], caps=(2.0, 2.0))
    assert found.boosting_weights == (expected, 0.0)


def test_blend__without_trees() -> None:
    """A model without trees has no weight to choose."""
    rows = BoostingRows(np.zeros((1, 2)), np.ones(1), np.ones(1), np.ones(1))
    assert blend_parts(constant_networks(0.0), [], [rows, rows], caps=(2.0, 2.0)).boosting_weights == (0.0, 0.0)
