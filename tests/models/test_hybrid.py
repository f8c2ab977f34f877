"""Gate and re-ranker: they start at the static mixture, stay proper, and do without what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.events import Float64
from models.next_content.experts import experts_of
from models.next_content.hybrid import Hybrid, HybridShape, standardise
from models.next_content.hybrid_training import is_left_out
from models.next_content.mixture import MixturePredictor
from models.next_content.predictor import NextContentPredictor, weigh
from models.next_content.sessions import SessionBatch
from models.next_content.shortlist import LEAST, SEQUENCE, Shortlist, columns_of, context_names
from models.next_content.weights import StaticWeights
from tests.models.small_hybrid import distribution, fitted, sessions_of, small


def static_distribution(predictor: NextContentPredictor, session: SessionBatch) -> Float64:
    """What the weights that the networks start at give to every known content and to an unseen one, without networks."""
    start = predictor.hybrid.gate.start.double().numpy()
    weights = np.exp(start - np.logaddexp.reduce(start))
    share = weights[-1]
    counters = MixturePredictor("static", predictor.store, StaticWeights((weights[:-1] / (1.0 - share))[None]))
    n = len(predictor.store.contents)
    many = SessionBatch.joined([session] * (n + 1))
    mixed = (1.0 - share) * counters.probability(many, np.array([*range(n), -1], dtype=np.int32))
    shortlist = predictor.memory.shortlist(session, limit=predictor.settings.shortlist)
    listed = shortlist.contents[0] >= 0
    said = np.exp(shortlist.table[0, :, len(predictor.hybrid.backs_off_to)]) - LEAST
    mixed[shortlist.contents[0][listed]] += share * said[listed]
    return np.asarray(mixed)


@pytest.mark.parametrize("sequence_network", [True, False])
def test_hybrid__starts_at_the_static_mixture(sequence_network: bool) -> None:
    """Before anything is learnt, the answer is the mixture of the experts, inside and outside of the shortlist."""
    predictor, history = fitted(epochs=0, sequence_network=sequence_network)
    assert history == []
    sessions = sessions_of(predictor, 6, 0)
    for i in range(len(sessions)):
        one = sessions.rows(i, i + 1)
        np.testing.assert_allclose(distribution(predictor, one), static_distribution(predictor, one), atol=1e-4)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {}, {"sequence_network": False}, {"shortlist": 60}])
def test_hybrid__is_proper(changes: dict[str, int]) -> None:
    """All known contents and the unseen outcome sum to one, learnt or not, whoever asks."""
    predictor, _ = fitted(**changes)
    sessions = sessions_of(predictor, 8, 1)
    for i in range(len(sessions)):
        p = distribution(predictor, sessions.rows(i, i + 1))
        assert p.sum() == pytest.approx(1.0, abs=1e-3)
        assert p.min() >= 0


def test_gate__weights_sum_to_one() -> None:
    """Whatever is known of a session, the weights of the experts are shares; back-off moves them, and loses none."""
    predictor, _ = fitted()
    hybrid, shortlist = predictor.hybrid, predictor.memory.shortlist(sessions_of(predictor, 30, 2), limit=20)
    columns, mass = torch.from_numpy(shortlist.table), torch.from_numpy(shortlist.mass)
    with torch.no_grad():
        log_weights = hybrid.gate(torch.from_numpy(shortlist.context), torch.from_numpy(shortlist.codes).long())
    _, passed = hybrid.mixed(columns, mass, log_weights, floor=LEAST)
    np.testing.assert_allclose(log_weights.exp().sum(dim=1).numpy(), 1.0, atol=1e-5)
    # What an expert keeps is its weight times its mass; all that nobody else knows ends at `unseen`, whose mass is one.
    np.testing.assert_allclose(((passed[:, :-1] * mass).sum(dim=1) + passed[:, -1]).numpy(), 1.0, atol=1e-5)


def test_mixed__by_hand() -> None:
    """Three experts and a sequence network: the last knows half, the middle a quarter, each backs off to the one before."""
    shape = HybridShape(experts=4, columns=5, context=1, codes=(1, 1, 1), hidden=2)
    hybrid = Hybrid(shape, backs_off_to=(0, 0, 1))
    weights, mass = torch.tensor([[0.1, 0.2, 0.4, 0.3]]), torch.tensor([[1.0, 0.25, 0.5]])
    said = torch.tensor([[[0.0, 0.1, 0.5, 0.4], [0.0, 0.15, 0.0, 0.6]]])
    columns = torch.cat([(said + LEAST).log(), torch.ones(1, 2, 1)], dim=2)
    log_mix, passed = hybrid.mixed(columns, mass, weights.log(), floor=LEAST)
    # 0.4 / 2 = 0.2 goes to the middle, which then has 0.4; three quarters of that go to the first: 0.1 + 0.3.
    np.testing.assert_allclose(passed.numpy(), [[0.4, 0.4, 0.4, 0.3]], rtol=1e-6)
    # 0.4 * 0.1 + 0.4 * 0.5 + 0.3 * 0.4 and 0.4 * 0.15 + 0.3 * 0.6.
    np.testing.assert_allclose(log_mix.exp().numpy(), [[0.36, 0.24]], rtol=1e-5)


def test_hybrid__codes_never_seen_read_as_unknown() -> None:
    """A location or a device that came after training is answered for; gate and re-ranker read it as unknown."""
    for sequence_network in (True, False):
        predictor, _ = fitted(sequence_network=sequence_network)
        sessions, content = sessions_of(predictor, 6, 3), np.arange(6, dtype=np.int32)
        unknown, late = (
            predictor.probability(replace(sessions, location=code, device=code, arrival=code), content)
            for code in (np.full(6, -1, np.int32), np.full(6, 900, np.int32))
        )
        assert np.isfinite(late).all()
        if not sequence_network:  # which keeps an embedding for the unknown, and none for what it never saw
            np.testing.assert_allclose(unknown, late, rtol=1e-5)


def changed(predictor: NextContentPredictor, shortlist: Shortlist, without: tuple[str, ...]) -> Shortlist:
    """The shortlist as if the counters of what is left out had said something else."""
    rng = np.random.default_rng(0)
    experts = experts_of(predictor.store)
    columns = np.array([is_left_out(name, without) for name in columns_of(experts)])
    context = np.array([is_left_out(name, without) for name in context_names(experts)])
    assert columns.any()
    table, numbers, mass = shortlist.table.copy(), shortlist.context.copy(), shortlist.mass.copy()
    table[..., columns] = rng.uniform(-13, 0, (*table.shape[:2], columns.sum()))
    numbers[:, context] = rng.normal(size=(len(numbers), context.sum()))
    mass[:, columns[: mass.shape[1]]] = rng.random((len(mass), columns[: mass.shape[1]].sum()))
    return replace(shortlist, table=table, context=numbers, mass=mass)


@pytest.mark.parametrize(
    "without", [("order2",), ("order1", "skip"), ("popularity", "local"), ("audience", "device"), (SEQUENCE, "age")]
)
def test_without__what_is_left_out_changes_nothing(without: tuple[str, ...]) -> None:
    """Other counts of experts that are left out, and of numbers named alike, move no answer."""
    predictor, _ = fitted(without=without, epochs=1)
    before = predictor.memory.shortlist(sessions_of(predictor, 15, 4), limit=20)
    one, other = weigh(predictor.hybrid, before), weigh(predictor.hybrid, changed(predictor, before, without))
    np.testing.assert_allclose(np.exp(one.log_q), np.exp(other.log_q), atol=1e-6)
    np.testing.assert_allclose(one.outside.exp().numpy(), other.outside.exp().numpy(), atol=1e-6)
    left_out = [is_left_out(name, without) for name in (*experts_of(predictor.store).names, SEQUENCE)]
    assert one.weights[:, torch.tensor(left_out)].max() < 1e-8


def test_without__a_code_that_is_left_out_is_not_read() -> None:
    """Without locations, another location moves the columns of counters only, not the networks."""
    predictor, _ = fitted(without=("audience", "device"), epochs=1)
    before = predictor.memory.shortlist(sessions_of(predictor, 10, 5), limit=20)
    codes = before.codes.copy()
    codes[:, 1] = 1
    one, other = weigh(predictor.hybrid, before), weigh(predictor.hybrid, replace(before, codes=codes))
    np.testing.assert_array_equal(one.log_q, other.log_q)


def test_standardise__constant_columns_keep_their_size() -> None:
    """A column that never moved must not be blown up when it does."""
    mean, scale = torch.zeros(2), torch.ones(2)
    standardise(np.array([[1.0, 5.0], [3.0, 5.0]]), mean, scale)
    assert (mean.tolist(), scale.tolist()) == ([2.0, 5.0], [1.0, 1.0])
    standardise(np.array([[1.0, 5.0], [7.0, 5.0]]), mean, scale)
    assert (mean.tolist(), scale.tolist()) == ([4.0, 5.0], [3.0, 1.0])


def test_left_out__by_the_beginning_of_a_name() -> None:
    """An ablation names a family; prefixes that say how a number is written do not count."""
    assert is_left_out("order1_2h", ("order1",))
    assert is_left_out("mass_order1_2h", ("order1",))
    assert is_left_out("log_age", ("age",))
    assert not is_left_out("log_current_age", ("age",))
    assert not is_left_out("order2", ())
    assert small().without == ()
