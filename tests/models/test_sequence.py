"""The sequence network: padding, codes that are new or unknown, and what a score may be used for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from models.next_content.encoders import recur
from models.next_content.rows import BLOCK, Rows
from models.next_content.sequence import SequenceBatch, SequenceNetwork, SequenceSettings
from tests.models.sequence_world import chain_trails

Encoder = Literal["gru", "attention"]
ENCODERS: tuple[Encoder, ...] = ("gru", "attention")
CPU = torch.device("cpu")


def lively_network(encoder: Encoder, *, seed: int = 0) -> SequenceNetwork:
    """A network in which every weight matters: none is zero."""
    network = SequenceNetwork(SequenceSettings(encoder=encoder, size=8, features=1), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    for rows in network.rows.values():
        codes = np.arange(30, dtype=np.int64)
        rows.learn(codes, torch.randn(rows.read(codes).shape, generator=generator), rate=1.0)
    return network


def candidates(n: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    return np.tile(np.arange(20, dtype=np.int32), (n, 1))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scores__padding_changes_nothing(encoder: Encoder) -> None:
    """How wide the array is in which a trail stands says nothing about the trail."""
    network, (batch, _) = lively_network(encoder), chain_trails(50)
    wide = replace(batch, items=np.pad(batch.items, ((0, 0), (3, 0)), constant_values=-1))
    np.testing.assert_allclose(network.scores(wide, candidates(50)), network.scores(batch, candidates(50)), atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scores__company_changes_nothing(encoder: Encoder) -> None:
    """A trail scores the same alone as among others of other lengths, without a content at all included."""
    network, (batch, _) = lively_network(encoder), chain_trails(30)
    batch.items[::7] = -1
    together = network.scores(batch, candidates(30))
    alone = [network.scores(batch.rows(slice(i, i + 1)), candidates(1)) for i in range(30)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scores__order_place_and_context_matter(encoder: Encoder) -> None:
    """Each part of a question is read: the order of contents, whose session they are of, location, hour, feature."""
    network = lively_network(encoder)
    base = SequenceBatch(np.array([[3, 5]]), np.array([1]), np.array([0]), np.array([[1]]))
    others = [
        replace(base, items=np.array([[6, 5]])),
        replace(base, part=np.array([[1, 2]], dtype=np.int8)),
        replace(base, location=np.array([2])),
        replace(base, ts_us=np.array([3_600_000_000])),
        replace(base, features=np.array([[0]])),
    ]
    answer = network.query(base)
    assert all(float((network.query(other) - answer).detach().abs().max()) > 1e-3 for other in others)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_scores__codes_unknown_and_new(encoder: Encoder) -> None:
    """-1 is unknown and a code never seen is a row of its own: both are answered, neither disturbs the others."""
    network, (batch, _) = lively_network(encoder), chain_trails(4)
    before = network.scores(batch, candidates(4))
    unknown = replace(batch, location=np.full(4, -1, np.int32), features=np.full((4, 1), -1, np.int32))
    new = replace(batch, location=np.full(4, 5_000, np.int32), items=np.full((4, 2), 9_999, np.int32))
    for strange in (unknown, new):
        assert np.isfinite(network.scores(strange, np.full((4, 3), 7_777, np.int32))).all()
    np.testing.assert_array_equal(network.scores(batch, candidates(4)), before)


def test_scores__no_candidate_and_current_content() -> None:
    """-1 is no candidate, and a session does not go to where it is; at its start it may go anywhere."""
    network = lively_network("gru")
    part = np.array([[2], [1]], dtype=np.int8)
    batch = SequenceBatch(np.array([[4], [4]]), np.zeros(2, int), np.zeros(2, int), np.zeros((2, 1), int), part)
    scores = network.scores(batch, np.array([[4, 7, -1], [4, 7, -1]]))
    np.testing.assert_array_equal(np.isfinite(scores), [[False, True, False], [True, True, False]])
    probability = network.probability(batch, np.array([[4, 7, -1], [4, 7, -1]]))
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    assert probability[0].tolist() == [0.0, 1.0, 0.0]  # one candidate is left
    assert network.probability(batch, np.full((2, 2), -1)).sum() == 0.0  # and here none


def test_scores__shapes_refused() -> None:
    """A wrong shape is named before it can be broadcast into an answer."""
    network, (batch, _) = lively_network("gru"), chain_trails(4)
    with pytest.raises(ValueError, match=r"Expected candidates \(4, m\), got shape \(3, 20\)"):
        network.scores(batch, candidates(3))
    with pytest.raises(ValueError, match="Expected 1 features a question, got 0"):
        network.scores(replace(batch, features=np.empty((4, 0), np.int32)), candidates(4))
    with pytest.raises(ValueError, match="Expected items"):
        replace(batch, location=batch.location[:2])
    with pytest.raises(ValueError, match="Expected part of shape"):
        replace(batch, part=np.zeros((4, 1), np.int8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "lstm"}, "'gru' or 'attention', got 'lstm'"),
        ({"size": 0}, "size >= 1, got 0"),
        ({"heads": 3}, "3 heads divide, got 64"),
        ({"features": -1}, "features >= 0"),
    ],
)
def test_settings__bounds(change: dict[str, object], message: str) -> None:
    """A mistake in a configuration is named where it is made."""
    with pytest.raises(ValueError, match=message):
        SequenceSettings(**change)  # type: ignore[arg-type]


def test_network__seed_and_global_state() -> None:
    """The same seed gives the same network, another another, and nobody else's random numbers are touched."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    batch, _ = chain_trails(5)
    shape = SequenceSettings(size=8, features=1)
    first, second, other = (SequenceNetwork(shape, seed=seed).scores(batch, candidates(5)) for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_rows__initial_value_is_of_the_code() -> None:
    """It does not matter in which steps a table grew."""
    slow, fast = (Rows(3, scale=1.0, seed=4, device=CPU) for _ in range(2))
    for code in (1, BLOCK, 3 * BLOCK, 9 * BLOCK):
        slow.read(np.array([code]))
    codes = np.array([0, 5, BLOCK + 1, 7 * BLOCK])
    assert torch.equal(slow.read(codes), fast.read(codes))


def test_rows__adagrad_step() -> None:
    """By hand: gradient (3, 4) has mean square 12.5; with rate 1 the row moves by -(3, 4) / sqrt(12.5)."""
    rows = Rows(2, scale=0.0, seed=0, device=CPU)
    codes, gradient = np.array([6]), torch.tensor([[3.0, 4.0]])
    rows.learn(codes, gradient + 0 * rows.read(codes), rate=1.0)
    np.testing.assert_allclose(rows.read(codes), -gradient / 12.5**0.5, rtol=1e-6)
    rows.learn(codes, gradient, rate=1.0)  # the sum of squares is 25 now
    np.testing.assert_allclose(rows.read(codes), -gradient * (1 / 12.5**0.5 + 1 / 25**0.5), rtol=1e-6)
    assert rows.tensors()["values"].shape == (7, 2)


def test_recurrence__as_torch_has_it() -> None:
    """Equation and handwritten gradient agree with the reference cell, in double precision."""
    generator = torch.Generator().manual_seed(0)
    counts, size = (1, 3, 4), 3  # 8 tokens of 4 trails, and a fifth trail without any
    shapes = [(8, 3 * size), (5, size), (3 * size, size), (3 * size,)]
    given = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    gates, start, weight, bias = given
    cell, states = torch.nn.GRUCell(3 * size, size).double(), list(start)
    as_they_are = torch.eye(3 * size, dtype=torch.float64), torch.zeros(3 * size, dtype=torch.float64)
    names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    for part, count in zip(torch.split(gates, list(counts)), counts, strict=True):
        weights = dict(zip(names, (*as_they_are, weight, bias), strict=True))
        states[:count] = torch.func.functional_call(cell, weights, (part, torch.stack(states[:count])))
    expected, found = (
        [answer, *torch.autograd.grad(answer.sin().sum(), given)]
        for answer in (torch.stack(states), recur(gates, start, weight, bias, counts))
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-12)
