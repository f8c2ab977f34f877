"""Learning during the stream: it finds a known chain, and neither cutting, saving nor asking changes what it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from models.errors import LogOrderError
from models.next_content.refresh import Adam, Refresher, RefreshSettings, draw
from models.next_content.sequence import SequenceNetwork, SequenceSettings
from tests.models.sequence_world import CONTENTS, SECOND_US, START_US, chain_trails, transition_matrix

Encoder = Literal["gru", "attention"]
ENCODERS: tuple[Encoder, ...] = ("gru", "attention")
QUICK = RefreshSettings(refresh_minutes=5, minibatch=64, encoder_rate=0.005)


def refresher(encoder: Encoder = "gru", *, seed: int = 0, settings: RefreshSettings = QUICK) -> Refresher:
    shape = SequenceSettings(encoder=encoder, size=16, features=1)
    return Refresher(settings, SequenceNetwork(shape, seed=seed), seed=seed)


def same(one: Refresher, other: Refresher) -> bool:
    """Whether the states agree to the last bit."""
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_learn__recovers_a_known_chain(encoder: Encoder) -> None:
    """After 8,000 moves the answers are within 0.25 nats of the chain that made them; popularity alone is 2.1 away.

    ln 20 = 3.00 nats of a uniform table less the 0.90 nats that (0.6, 0.3, 0.1) leaves open.
    """
    taught = refresher(encoder, settings=replace(QUICK, minibatch=32))
    taught.learn(*chain_trails(8_000))
    batch, _ = chain_trails(400, seed=1)
    everything = np.tile(np.arange(CONTENTS, dtype=np.int32), (len(batch), 1))
    truth = transition_matrix()[batch.items[:, -1]]
    found = np.maximum(taught.network.probability(batch, everything), 1e-12)
    divergence = np.where(truth > 0, truth * np.log(np.where(truth > 0, truth, 1.0) / found), 0.0).sum(axis=1)
    assert divergence.mean() < 0.25
    assert (found.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.85


@pytest.mark.parametrize("encoder", ENCODERS)
def test_learn__portions_do_not_matter(encoder: Encoder) -> None:
    """One call, many calls and calls between which someone asks and tells the time give the same bytes."""
    batch, targets = chain_trails(1_500)
    whole, pieces = refresher(encoder), refresher(encoder)
    whole.learn(batch, targets)
    for first, last in ((0, 1), (1, 700), (700, 700), (700, 1_201), (1_201, 1_500)):
        pieces.learn(batch.rows(slice(first, last)), targets[first:last])
        pieces.advance(int(batch.ts_us[max(last - 1, 0)]))
        pieces.network.scores(batch.rows(slice(0, 2)), np.full((2, 1), 5_000 + last, np.int32))
    assert same(whole, pieces)


def test_learn__saved_and_resumed() -> None:
    """A refresher that was saved, between two passes and mid-way to the next, goes on as if it had not been."""
    batch, targets = chain_trails(1_500)
    whole, first = refresher(), refresher()
    whole.learn(batch, targets)
    first.learn(batch.rows(slice(0, 777)), targets[:777])
    resumed = Refresher.from_state(first.state(), settings=QUICK, shape=first.network.settings)
    assert same(first, resumed)
    resumed.learn(batch.rows(slice(777, 1_500)), targets[777:])
    assert same(whole, resumed)
    fresh = refresher()
    assert same(fresh, Refresher.from_state(fresh.state(), settings=QUICK, shape=fresh.network.settings))


def test_learn__seeds() -> None:
    """Same seed, same bytes; another seed, other bytes."""
    first, second, other = refresher(seed=1), refresher(seed=1), refresher(seed=2)
    for each in (first, second, other):
        each.learn(*chain_trails(600))
    assert same(first, second)
    assert not same(first, other)


def test_learn__nothing_later_than_the_pass() -> None:
    """A request that waits has taught nothing yet: the network is still the one before."""
    taught = refresher()
    batch, targets = chain_trails(100)
    before = taught.network.scores(batch, targets[:, None])
    taught.learn(batch, targets)
    np.testing.assert_array_equal(taught.network.scores(batch, targets[:, None]), before)
    taught.advance(taught.due_us - 1)
    np.testing.assert_array_equal(taught.network.scores(batch, targets[:, None]), before)
    taught.advance(taught.due_us)
    assert not np.array_equal(taught.network.scores(batch, targets[:, None]), before)


def test_learn__new_contents_and_places_in_mid_stream() -> None:
    """Codes beyond every table so far are learnt like the others: 0.6 of the moves from content i go to i + 1."""
    taught = refresher()
    batch, targets = chain_trails(5_000)
    late = replace(batch, items=np.where(batch.items >= 0, batch.items + 5_000, -1).astype(np.int32))
    late = replace(late, location=batch.location + 3_000, ts_us=batch.ts_us + 5_000 * SECOND_US)
    taught.learn(batch, targets)
    taught.learn(late, targets + 5_000)
    everything = np.tile(np.arange(5_000, 5_000 + CONTENTS, dtype=np.int32), (200, 1))
    best = taught.network.scores(late.rows(slice(0, 200)), everything).argmax(axis=1)
    assert (best == (late.items[:200, -1] - 5_000 + 1) % CONTENTS).mean() > 0.85


def test_learn__order_refused() -> None:
    """A request from before the last pass comes too late, and the error says so."""
    taught = refresher()
    batch, targets = chain_trails(1_000)
    taught.learn(batch, targets)
    with pytest.raises(LogOrderError, match="in time order"):
        taught.learn(batch.rows(slice(0, 5)), targets[:5])
    with pytest.raises(ValueError, match="Expected 5 targets, got 4"):
        taught.learn(batch.rows(slice(0, 5)), targets[:4])


def test_learn__drawn_contents() -> None:
    """With three contents drawn of twenty, corrected by their chances, the chain's best step is still found."""
    taught = refresher(settings=replace(QUICK, negatives=3, minibatch=16))
    taught.learn(*chain_trails(4_000))
    batch, _ = chain_trails(300, seed=1)
    everything = np.tile(np.arange(CONTENTS, dtype=np.int32), (300, 1))
    best = taught.network.scores(batch, everything).argmax(axis=1)
    assert (best == (batch.items[:, -1] + 1) % CONTENTS).mean() > 0.8


def test_draw__chances_count_what_is_active() -> None:
    """A drawn content stands for 1 / chance contents: on average the sum of these is the number of active ones."""
    active, requests = np.arange(50, dtype=np.int32), np.arange(1, 51)
    settings, rng = replace(QUICK, negatives=10), np.random.default_rng(0)
    totals = []
    for _ in range(1_000):
        targets = rng.choice(active, size=4, p=requests / requests.sum())
        chosen, log_chance = draw(active, requests, targets, settings=settings, rng=rng)
        assert np.isin(targets, chosen).all()
        totals.append(np.exp(-log_chance.astype(float)).sum())
    assert np.mean(totals) == pytest.approx(50, rel=0.03)  # standard error about 0.01


def test_draw__few_active_are_all_compared() -> None:
    """Where nothing has to be left out there is nothing to correct."""
    active = np.arange(5, dtype=np.int32)
    chosen, log_chance = draw(active, np.ones(5, int), active[:1], settings=QUICK, rng=np.random.default_rng(0))
    assert chosen.tolist() == [0, 1, 2, 3, 4]
    assert not log_chance.any()


def test_adam__first_steps_by_hand() -> None:
    """The first step has the length of the rate whatever the gradient; the second follows from the two moments.

    Gradients 4, then 2: mean 0.1 x 2 + 0.9 x 0.4 = 0.56, over 1 - 0.81 = 0.19; square 0.001 x 4 + 0.999 x 0.016 =
    0.019984, over 1 - 0.998001 = 0.001999.
    """
    weight = torch.nn.Parameter(torch.zeros(2, 1))
    adam = Adam([weight], rate=0.01)
    weight.grad = torch.tensor([[4.0], [-4.0]])
    adam.step()
    np.testing.assert_allclose(weight.detach(), [[-0.01], [0.01]], rtol=1e-5)
    weight.grad = torch.tensor([[2.0], [-2.0]])
    adam.step()
    second = 0.01 * (0.56 / 0.19) / (0.019984 / 0.001999) ** 0.5
    np.testing.assert_allclose(weight.detach(), [[-0.01 - second], [0.01 + second]], rtol=1e-4)


@pytest.mark.parametrize("change", [{"refresh_minutes": 0}, {"minibatch": 0}, {"negatives": 0}, {"encoder_rate": -1.0}])
def test_settings__bounds(change: dict[str, float]) -> None:
    """A mistake in a configuration is named where it is made."""
    with pytest.raises(ValueError, match=next(iter(change))):
        RefreshSettings(**change)  # type: ignore[arg-type]


def test_grid__is_of_the_clock() -> None:
    """Passes stand on multiples of five minutes, whenever the first request came."""
    taught = refresher()
    taught.learn(*chain_trails(10))
    assert taught.due_us % QUICK.refresh_us == 0
    assert START_US < taught.due_us <= START_US + QUICK.refresh_us
