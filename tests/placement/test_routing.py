"""Routing scores: known answers, equality of tensors and compiled scalars, ranking, and choice among near-ties."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from placement.errors import RoutingError
from placement.routing import (
    CandidateBatch,
    RoutingSettings,
    choose,
    explain,
    score,
    score_terms,
    top_k,
    total_score,
)

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


def a_batch(sizes: list[int], *, seed: int = 0) -> CandidateBatch:
    """Random candidates, about a tenth of them refused."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    return CandidateBatch(
        offsets=np.cumsum([0, *sizes]),
        source=np.arange(n, dtype=np.int32),
        latency_ms=rng.exponential(60.0, n),
        bandwidth_availability=rng.random(n),
        health=rng.random(n),
        distance_km=rng.exponential(800.0, n),
        allowed=rng.random(n) < 0.9,
    )


def one_candidate(**changes: float) -> CandidateBatch:
    values = {"latency_ms": 20.0, "bandwidth_availability": 0.5, "health": 0.9, "distance_km": 100.0} | changes
    columns = {name: np.array([value]) for name, value in values.items()}
    return CandidateBatch(
        offsets=np.array([0, 1]), source=np.array([7], dtype=np.int32), allowed=np.array([True]), **columns
    )


def equal_nodes(requests: int, nodes: int) -> CandidateBatch:
    """Every request may go to each of the same equal nodes."""
    n = requests * nodes
    return CandidateBatch(
        offsets=np.arange(0, n + 1, nodes),
        source=np.tile(np.arange(nodes, dtype=np.int32), requests),
        latency_ms=np.full(n, 30.0),
        bandwidth_availability=np.full(n, 0.8),
        health=np.ones(n),
        distance_km=np.full(n, 50.0),
        allowed=np.ones(n, dtype=np.bool_),
    )


def test_score__literal() -> None:
    """The formula as specified, by hand."""
    # 0.4 / 20 + 0.3 * 0.5 + 0.2 * 0.9 + 0.1 / 100 = 0.02 + 0.15 + 0.18 + 0.001
    assert float(score(one_candidate(), RoutingSettings(mode="literal"))[0]) == pytest.approx(0.351)


def test_score__normalised() -> None:
    """Every term on [0, 1] first, by hand."""
    # 0.4 * 50/70 + 0.3 * 0.5 + 0.2 * 0.9 + 0.1 * 500/600 = 0.2857142857 + 0.15 + 0.18 + 0.0833333333
    assert float(score(one_candidate(), RoutingSettings())[0]) == pytest.approx(0.699047619)


def test_score__floors_keep_it_finite() -> None:
    """A source in the same place answers at once, which must not divide by zero."""
    here = one_candidate(latency_ms=0.0, distance_km=0.0)
    # floors of 1 ms and 1 km: 0.4 / 1 + 0.15 + 0.18 + 0.1 / 1
    assert float(score(here, RoutingSettings(mode="literal"))[0]) == pytest.approx(0.83)


@pytest.mark.parametrize("mode", ["literal", "normalised"])
@pytest.mark.parametrize("device", DEVICES)
def test_score__compiled_scalars_equal_tensors(mode: str, device: str) -> None:
    """The replay and the batch job must rank alike, so one formula serves both."""
    settings = RoutingSettings(mode="literal" if mode == "literal" else "normalised")
    batch = a_batch([50, 0, 13])
    compiled = numba.njit(total_score)
    quantities = (batch.latency_ms, batch.bandwidth_availability, batch.health, batch.distance_km)
    scalar = np.array([compiled(*values, settings.coefficients()) for values in zip(*quantities, strict=True)])
    found = score(batch, settings, device=device).cpu().numpy()
    np.testing.assert_allclose(found[batch.allowed], scalar[batch.allowed], rtol=0, atol=1e-12)
    assert np.all(np.isneginf(found[~batch.allowed]))


@pytest.mark.parametrize("device", DEVICES)
def test_top_k__equals_sorting_each_request(device: str) -> None:
    """The vectorised ranking is the plain one, ties by index, refused candidates left out."""
    batch = a_batch([5, 0, 1, 40, 3], seed=3)
    scores = torch.round(score(batch, RoutingSettings(), device=device), decimals=1)  # rounding makes ties
    sources, best = top_k(batch, scores, 4)
    for request in range(batch.n_requests):
        rows = range(batch.offsets[request], batch.offsets[request + 1])
        ranked = sorted((row for row in rows if batch.allowed[row]), key=lambda row: (-float(scores[row]), row))[:4]
        assert sources[request].tolist() == [*ranked, *[-1] * (4 - len(ranked))]
        assert best[request, : len(ranked)].tolist() == [float(scores[row]) for row in ranked]


def test_choose__equal_nodes_share_the_load() -> None:
    """Always taking the maximum herds; among 100 equal nodes the busiest may carry at most 1.5 times the mean."""
    batch = equal_nodes(requests=20_000, nodes=100)
    settings = RoutingSettings()
    rows = choose(batch, score(batch, settings), settings, seed=5)
    load = np.bincount(batch.source[rows], minlength=100)
    assert load.max() / load.mean() <= 1.5


def test_choose__by_free_bandwidth() -> None:
    """Near-ties are taken in proportion to free bandwidth: 3 to 1 here."""
    pair = CandidateBatch(
        offsets=np.arange(0, 40_001, 2),
        source=np.tile(np.array([0, 1], dtype=np.int32), 20_000),
        latency_ms=np.full(40_000, 10.0),
        bandwidth_availability=np.tile([0.9, 0.3], 20_000),
        health=np.ones(40_000),
        distance_km=np.full(40_000, 10.0),
        allowed=np.ones(40_000, dtype=np.bool_),
    )
    settings = RoutingSettings(tie_tolerance=1.0, explore_share=0.0)
    rows = choose(pair, score(pair, settings), settings, seed=1)
    assert np.mean(pair.source[rows] == 0) == pytest.approx(0.75, abs=0.015)  # 5 standard errors


def test_choose__without_ties_takes_the_best_and_repeats() -> None:
    """With no tolerance and no exploration the choice is the maximum; refused requests get -1."""
    batch = a_batch([6, 0, 9, 2], seed=8)
    settings = RoutingSettings(tie_tolerance=0.0, explore_share=0.0)
    scores = score(batch, settings)
    rows = choose(batch, scores, settings, seed=0)
    best = top_k(batch, scores, 1)[0][:, 0].tolist()
    assert [-1 if row < 0 else int(batch.source[row]) for row in rows] == best
    np.testing.assert_array_equal(rows, choose(batch, scores, settings, seed=0))


def test_choose__explores() -> None:
    """An unproven node far from the best still gets its part of the explored share."""
    batch = equal_nodes(requests=10_000, nodes=2)
    batch.latency_ms[1::2] = 500.0
    settings = RoutingSettings(explore_share=0.1)
    rows = choose(batch, score(batch, settings), settings, seed=2)
    # a tenth explores and half of that falls on the second node
    assert np.mean(batch.source[rows] == 1) == pytest.approx(0.05, abs=0.011)


def test_explain__terms_sum_to_the_score() -> None:
    """Each decision can be explained after the fact."""
    batch = a_batch([8], seed=4)
    settings = RoutingSettings()
    scores = score(batch, settings).tolist()
    found = explain(batch, 0, settings)
    assert [candidate.score for candidate in found] == sorted(scores, reverse=True)
    for candidate in found:
        if candidate.rejection:
            assert candidate.score == -np.inf
        else:
            terms = candidate.latency + candidate.bandwidth + candidate.health + candidate.distance
            assert terms == candidate.score == scores[candidate.source]


def test_score_terms__normalised_terms_stay_within_their_weights() -> None:
    """No term can drown the others."""
    coefficients = RoutingSettings().coefficients()
    for values in ((0.0, 1.0, 1.0, 0.0), (1e9, 0.0, 0.0, 2e4)):
        for term, weight in zip(score_terms(*values, coefficients), (0.4, 0.3, 0.2, 0.1), strict=True):
            assert 0 <= term <= weight


def test_batch__names_every_mistake() -> None:
    """Whoever builds a batch sees all that is wrong with it at once."""
    with pytest.raises(RoutingError) as caught:
        one_candidate(latency_ms=float("nan"), health=1.5)
    assert len(caught.value.problems) == 2


def test_settings__names_every_mistake() -> None:
    """All bad settings in one message."""
    with pytest.raises(RoutingError) as caught:
        RoutingSettings(weights=(0.5, 0.5), latency_ref_ms=0.0, explore_share=2.0)
    assert len(caught.value.problems) == 3
