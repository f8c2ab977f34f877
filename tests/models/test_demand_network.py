"""The network starts at the prior, stays within its cap, and its loss is the law it claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.demand.network import (
    LARGEST_FALL,
    InputScale,
    ResidualEnsemble,
    build_network,
    negative_binomial_loss,
    network_inputs,
)
from models.metrics import negative_binomial_losses
from tests.models.demand_world import SMALL


def test_untrained_network__is_the_prior() -> None:
    """A residual that starts elsewhere would have to relearn what the counters know."""
    scale = InputScale(np.zeros(5), np.ones(5), 4.0)
    ensemble = ResidualEnsemble([build_network(SMALL, n_inputs=5, seed=seed) for seed in range(2)], scale)
    residual, log_dispersion = ensemble.correct(np.random.default_rng(0).normal(size=(50, 5)), 1)
    assert residual.tolist() == [0.0] * 50
    assert log_dispersion.tolist() == [0.0] * 50


@given(
    seed=st.integers(0, 100),
    scale=st.floats(0.1, 1e6),
    value=st.floats(-1e9, 1e9),
)
def test_residual__never_leaves_its_cap(seed: int, scale: float, value: float) -> None:
    """Whatever the weights and inputs, a mean stays within its bounds around the prior: uncapped ones exploded."""
    network = build_network(SMALL, n_inputs=3, seed=seed)
    with torch.no_grad():
        network.mean_head.weight.fill_(scale)
        network.dispersion_head.weight.fill_(-scale)
    ensemble = ResidualEnsemble([network], InputScale(np.zeros(3), np.ones(3), 4.0))
    for index, cap in enumerate(SMALL.residual_caps):
        residual, log_dispersion = ensemble.correct(np.full((1, 3), value), index)
        assert -LARGEST_FALL - 1e-6 <= residual[0] <= cap + 1e-6
        assert np.isfinite(np.exp(log_dispersion[0]))


def test_input_scale__cuts_at_its_limit() -> None:
    """An input 100 standard deviations out must look like one at the limit; a constant one is only centred."""
    inputs = np.column_stack([np.array([-1.0, 1.0]), np.array([7.0, 7.0])])
    scaled = InputScale.fit(inputs, limit_sd=4.0).apply(np.array([[100.0, 7.5], [0.5, 7.0]]))
    assert scaled.tolist() == [[4.0, 0.5], [0.5, 0.0]]


def test_loss__is_the_negative_binomial_law() -> None:
    """Only log y! is left out, so differences of losses must equal differences of log-likelihoods."""
    counts, mean, dispersion = np.array([0.0, 3.0, 40.0]), np.array([0.3, 2.0, 50.0]), np.array([2.0, 0.5, 0.05])
    ours = negative_binomial_loss(*(torch.tensor(a) for a in (counts, np.log(mean), np.log(dispersion)))).numpy()
    log_factorial = np.array([0.0, np.log(6.0), np.log(np.arange(1, 41)).sum()])
    assert ours + log_factorial == pytest.approx(negative_binomial_losses(counts, mean, dispersion), rel=1e-9)


def test_build_network__seed_decides_and_nothing_else() -> None:
    """The same seed gives the same weights whatever ran before, and leaves the process's random state alone."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build_network(SMALL, n_inputs=4, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = build_network(SMALL, n_inputs=4, seed=7)
    other = build_network(SMALL, n_inputs=4, seed=8)
    assert torch.equal(first.trunk[0].weight, second.trunk[0].weight)  # type: ignore[arg-type]
    assert not torch.equal(first.trunk[0].weight, other.trunk[0].weight)  # type: ignore[arg-type]


def test_network__horizons_have_their_own_heads() -> None:
    """One hour and six hours err differently: moving one head must not move the other."""
    network = build_network(SMALL, n_inputs=2, seed=0)
    with torch.no_grad():
        network.mean_head.bias[1] = 0.5
        residual, _ = network(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert residual[0] == 0.0
    assert float(residual[1]) == pytest.approx(1.5 * np.tanh(0.5 / 1.5))


def test_network_inputs__end_with_growth_and_prior() -> None:
    """Both depend on the horizon, so they are added last, after what all horizons share."""
    inputs = network_inputs(np.zeros((2, 3)), np.array([0.1, 0.2]), np.array([1.0, np.e]))
    assert inputs[:, 3:].tolist() == [[0.1, 0.0], [0.2, 1.0]]
