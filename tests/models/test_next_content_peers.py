"""Peers and ablations: proper, blind where they must be, and marked from examples as they are marked live."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from models.events import HOUR_US, Float64, RequestLog
from models.next_content.ablations import LOCATION, settings_of, without_gate, without_reranker
from models.next_content.baselines import baselines, fit_peers
from models.next_content.evaluation import Method, questions_of, score
from models.next_content.hybrid import Hybrid
from models.next_content.hybrid_training import fit_hybrid
from models.next_content.lessons import Examples, collect
from models.next_content.marking import marks_of_hybrid, marks_of_shares, place_among
from models.next_content.memory import StreamMemory
from models.next_content.predictor import NextContentPredictor, weigh
from models.next_content.refresh import RefreshSettings
from models.next_content.scores import Marks
from models.next_content.sequence import EARLIER, SequenceBatch, SequenceSettings
from models.next_content.sequence_method import (
    SequenceMethod,
    SessionNetwork,
    fit_sequence_method,
    fitted_shares,
    of_session,
    peer_memory,
)
from models.next_content.sessions import SessionBatch
from models.next_content.settings import NextContentSettings, SessionCounterSettings
from models.next_content.shortlist import Shortlist
from models.next_content.training import learn
from tests.models.next_content_world import START_US, chain_log

TRAIN = (START_US, START_US + 7 * HOUR_US)
VALIDATION = (TRAIN[1], TRAIN[1] + 2 * HOUR_US)
TEST = (VALIDATION[1], VALIDATION[1] + 2 * HOUR_US)
SETTINGS = NextContentSettings(
    lesson_events=300,
    validation_events=150,
    shortlist=20,
    hidden_size=8,
    epochs=2,
    counters=SessionCounterSettings(half_lives_hours=(0.5, 3.0)),
    sequence=SequenceSettings(size=8, features=2),
    refresh=RefreshSettings(refresh_minutes=30),
)
Learnt = tuple[RequestLog, StreamMemory, Examples, Examples, Hybrid]


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    """Memory as of the end of validation, lessons, held-out examples and the hybrid fitted on them."""
    log = chain_log(sessions=300)
    memory, taught, held_out = learn(log, train=TRAIN, validation=VALIDATION, settings=SETTINGS)
    hybrid, _ = fit_hybrid(taught, held_out, settings=SETTINGS, seed=0)
    return log, memory, taught, held_out, hybrid


def same(live: Marks, from_examples: Marks) -> None:
    """Ranks agree but for near ties, and probabilities to the half precision that examples are kept at."""
    assert np.mean(live.rank == from_examples.rank) > 0.95
    np.testing.assert_allclose(live.nats, from_examples.nats, atol=0.03)
    np.testing.assert_allclose(live.top, from_examples.top, atol=0.02)
    assert live.listed is not None
    assert from_examples.listed is not None
    assert np.array_equal(live.listed, from_examples.listed)


def test_marks__of_examples_are_those_of_the_harness(learnt: Learnt) -> None:
    """Ablations are marked from examples; a hybrid and its network alone must get the same marks as in the harness."""
    log, memory, _, held_out, hybrid = learnt
    played, collected = deepcopy(memory), deepcopy(memory)
    shares = fitted_shares(held_out)
    methods: list[Method] = [
        NextContentPredictor("hybrid", played, hybrid, SETTINGS),
        SequenceMethod("gru", played, shares, limit=SETTINGS.shortlist),
    ]
    live = score(methods, log, start_us=TEST[0], end_us=TEST[1], n_events=150).marks
    known = log.before(TEST[1])
    asked, _ = questions_of(known, [TEST], n_events=150, seed=0, timeout_us=memory.timeout_us)
    examples = collect(collected, known, asked, limit=SETTINGS.shortlist)
    same(live["hybrid"], marks_of_hybrid(hybrid, examples))
    same(live["gru"], marks_of_shares(shares, examples))


def distribution(method: SequenceMethod, session: SessionBatch) -> Float64:
    """Probability of every known content, then of an unseen one."""
    n = len(method.memory.contents)
    many = SessionBatch(
        np.repeat(session.items, n + 1, axis=0), np.repeat(session.location, n + 1), np.repeat(session.ts_us, n + 1)
    )
    return method.probability(many, np.array([*range(n), -1], dtype=np.int32))


@pytest.mark.parametrize("name", ["gru", "gru4rec", "sasrec"])
def test_sequence_method__is_proper_and_ranks_as_it_believes(name: str) -> None:
    """Known contents and the unseen outcome sum to one, for sessions begun or not; the list is in order of probability."""
    log = chain_log(sessions=200)
    method = fit_sequence_method(name, log, train=TRAIN, validation=VALIDATION, settings=SETTINGS)
    assert method.shares.sum() == pytest.approx(1.0)
    for items in ([-1, -1], [-1, 2], [1, 3]):
        session = SessionBatch(
            np.array([items], dtype=np.int32), np.zeros(1, np.int32), np.array([method.memory.time_us])
        )
        p = distribution(method, session)
        assert p.min() >= 0
        assert p.sum() == pytest.approx(1.0, abs=1e-5)
        judged = method.judge(session, np.array([0], dtype=np.int32), k=4)
        listed = judged.forecast.content[0]
        assert items[-1] not in listed
        shown = listed >= 0
        np.testing.assert_allclose(judged.forecast.probability[0, shown], p[listed[shown]], atol=1e-5)
        assert np.all(np.diff(judged.forecast.probability[0]) <= 0)


def test_sequence_method__before_the_first_request() -> None:
    """A memory that holds nothing gives everything to the unseen content."""
    memory = peer_memory("gru4rec", SETTINGS, seed=0)
    method = SequenceMethod("gru4rec", memory, np.full(5, 0.2), limit=20)
    nobody = SessionBatch(np.full((1, 2), -1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int64))
    assert method.probability(nobody, np.array([-1], dtype=np.int32)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="Expected 5 shares"):
        SequenceMethod("gru4rec", memory, np.ones(2) / 2, limit=20)
    with pytest.raises(ValueError, match="Expected a peer of"):
        peer_memory("transformer", SETTINGS, seed=0)


def test_gru4rec__is_blind_to_context_and_earlier_sessions() -> None:
    """The plain peer answers the same wherever, whenever and to whomever: only the session's contents count."""
    network = SessionNetwork(SETTINGS.sequence, seed=0)
    items = np.array([[5, 3, 1, 2]], dtype=np.int32)
    part = np.array([[0, EARLIER, 2, 2]], dtype=np.int8)
    items[part == 0] = -1
    one = SequenceBatch(items, np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros((1, 2), np.int32), part)
    other = SequenceBatch(
        np.array([[-1, -1, 1, 2]], dtype=np.int32),
        np.full(1, 7, np.int32),
        np.full(1, 9 * HOUR_US),
        np.ones((1, 2), np.int32),
    )
    candidates = np.arange(6, dtype=np.int32)[None]
    assert np.array_equal(network.scores(one, candidates), network.scores(other, candidates))
    assert of_session(one).items.tolist() == [[-1, -1, 1, 2]]


def test_ablations__without_reranker_is_the_gated_mixture(learnt: Learnt) -> None:
    """The bare gate gives a listed content what the mixture gives; without the gate, all sessions have equal weights."""
    _, _, _, held_out, hybrid = learnt
    shortlist = held_out.shortlist
    gated, static = weigh(without_reranker(hybrid), shortlist), weigh(without_gate(hybrid), shortlist)
    full = weigh(hybrid, shortlist)
    np.testing.assert_allclose(gated.weights.numpy(), full.weights.numpy(), rtol=1e-5)
    inside = 1.0 - gated.mix_outside.numpy()
    np.testing.assert_allclose(np.exp(gated.log_q).sum(axis=1), inside, atol=1e-3)
    known = (shortlist.mass > 1.0 - 1e-6).all(axis=1)  # nothing is passed on
    assert np.ptp(static.weights.numpy()[known], axis=0).max(initial=0.0) < 1e-5


def test_ablations__without_location_nothing_local_is_read(learnt: Learnt) -> None:
    """Changing the location's code, counts and experts must not change the answer of a hybrid trained without them."""
    _, _, taught, held_out, _ = learnt
    settings = settings_of("without_location", SETTINGS)
    assert settings.without == LOCATION
    hybrid, _ = fit_hybrid(taught, held_out, settings=settings, seed=0)
    shortlist = held_out.shortlist
    names = held_out.lessons.experts.names
    table, mass, context, codes = (getattr(shortlist, x).copy() for x in ("table", "mass", "context", "codes"))
    local = [k for k, name in enumerate(names) if name.startswith(("local", "order1_local"))]
    table[..., [*local, len(names) + 3]] += 1.0  # local experts and the third fact, the local count
    mass[:, local] *= 0.5
    context[:, 7] += 3.0  # local traffic
    context[:, [11 + k for k in local]] -= 0.5
    codes[:, 0] = 1 - codes[:, 0]
    moved = replace(shortlist, table=table, context=context, codes=codes)
    np.testing.assert_allclose(weigh(hybrid, moved).log_q, weigh(hybrid, shortlist).log_q, atol=1e-4)
    full, _ = fit_hybrid(taught, held_out, settings=SETTINGS, seed=0)
    assert np.abs(weigh(full, moved).log_q - weigh(full, shortlist).log_q).max() > 1e-3


def test_baselines__which(learnt: Learnt) -> None:
    """A small run chooses what it pays for; a name that nobody knows is no silent omission."""
    _, memory, _, held_out, _ = learnt
    every = {method.name for method in baselines(memory.store, held_out.lessons, SETTINGS)}
    assert every >= {"popularity_0.5h", "popularity_3h", "local_3h", "order1_2h", "order1_24h", "order1_local", "skip"}
    assert every >= {"order2", "witten_bell", "linear_mixture", "evidence_mixture"}
    few = baselines(memory.store, held_out.lessons, SETTINGS, which=("order1_2h", "witten_bell"))
    assert [method.name for method in few] == ["order1_2h", "witten_bell"]
    with pytest.raises(ValueError, match="Expected beginnings of popularity"):
        baselines(memory.store, held_out.lessons, SETTINGS, which=("order1_7h",))
    log = chain_log(sessions=60)
    peers = fit_peers(log, train=TRAIN, validation=VALIDATION, settings=SETTINGS, which=("item_knn",))
    assert [peer.name for peer in peers] == ["item_knn"]
    with pytest.raises(ValueError, match="Expected peers of"):
        fit_peers(log, train=TRAIN, validation=VALIDATION, settings=SETTINGS, which=("knn",))


def test_place_among__by_hand() -> None:
    """The place of what came counts those ahead and equals of a lower code; what is not listed has none."""
    contents = np.array([[7, 3, 5, -1], [7, 3, 5, -1], [1, 2, 3, 4]], dtype=np.int32)
    log_q = np.log(np.array([[0.2, 0.5, 0.2, 0.9], [0.2, 0.5, 0.2, 0.9], [0.4, 0.3, 0.2, 0.1]]))
    none = np.zeros((3, 0))
    shortlist = Shortlist(contents, none, none.astype(np.float32), none.astype(np.float32), contents[:, :3])
    # 7 is behind 3 and, as an equal, behind 5; the last column of the first two rows holds no content.
    assert place_among(shortlist, log_q, np.array([0, 1, -1])).tolist() == [3, 1, 0]
