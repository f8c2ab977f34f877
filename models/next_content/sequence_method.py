"""Sequence networks on their own, the neural peers of the hybrid: they see the same stream and the same candidates.

    p(i) = shares . (p_unseen(i), p_uniform(i), p_popularity_h(i) for every half-life h, p_network(i))

p_network is a softmax over the shortlist that the counters draw up; the first columns make p proper over all known
contents and one outcome "a content never requested before". The shares are fitted by likelihood on the validation window.

    gru         what the hybrid listens to: recurrent, with location, time, device and arrival, and earlier sessions
    gru4rec     recurrent over the contents of the session alone (Hidasi et al., 2016), refreshed during the stream
    sasrec      self-attention over the visitor's trail (Kang and McAuley, 2018), with the same context as `gru`
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from models.counters import CounterStore
from models.events import Float64, Int32, Int64, RequestLog
from models.next_content.experts import FIRST_POPULARITY
from models.next_content.forecast import NextContentForecast
from models.next_content.judged import Judged
from models.next_content.lessons import Examples, Lessons, collect, hear
from models.next_content.memory import StreamMemory
from models.next_content.predictor import best
from models.next_content.refresh import Refresher
from models.next_content.sequence import CURRENT, SequenceBatch, SequenceNetwork
from models.next_content.sessions import SessionBatch
from models.next_content.settings import NextContentSettings
from models.next_content.shortlist import LEAST, Shortlist
from models.next_content.stream import finish, known_until, validation_questions
from models.next_content.weights import fitted_weights

PEERS = ("gru", "gru4rec", "sasrec")
ATTENTION_RATE = 0.002
"""Learning rate of an attentive encoder; a recurrent one learns at the settings' rate."""
LEAST_LOGARITHM = 1e-300


def of_session(batch: SequenceBatch) -> SequenceBatch:
    """Trails without what their visitors requested in earlier sessions."""
    mine = batch.parts == CURRENT
    items = np.where(mine, batch.items, -1).astype(np.int32)
    return replace(batch, items=items, part=np.where(mine, CURRENT, 0).astype(np.int8))


class SessionNetwork(SequenceNetwork):
    """A network that knows the contents of the session and nothing else: not who, where, when or how."""

    def query(self, batch: SequenceBatch) -> Tensor:
        return super().query(of_session(batch))

    def context_codes(self, batch: SequenceBatch) -> dict[str, Int32]:
        return {name: np.zeros(len(batch), dtype=np.int32) for name in self.columns}


class SessionRefresher(Refresher):
    """Teaches a `SessionNetwork` from sessions alone."""

    def learn(self, batch: SequenceBatch, targets: Int32) -> None:
        super().learn(of_session(batch), targets)


def peer_memory(name: str, settings: NextContentSettings, *, seed: int) -> StreamMemory:
    """An empty memory with the network of a peer."""
    if name not in PEERS:
        raise ValueError(f"Expected a peer of {', '.join(PEERS)}, got {name!r}.")
    shape, refresh = settings.sequence, settings.refresh
    kind, teacher = (SessionNetwork, SessionRefresher) if name == "gru4rec" else (SequenceNetwork, Refresher)
    if name == "sasrec":
        shape = replace(shape, encoder="attention", blocks=1, heads=1)
        refresh = replace(refresh, encoder_rate=ATTENTION_RATE)
    return StreamMemory(CounterStore(settings.counters.plain), teacher(refresh, kind(shape, seed=seed), seed=seed))


class SequenceMethod:
    """A sequence network as a distribution, mixed with popularity, uniform and unseen.

    Attributes:
        name: name of the method in tables.
        memory: counters and network.
        shares: weights of unseen, uniform, popularity by half-life, and the network. (columns,)
        limit: contents of a shortlist at most.
    """

    def __init__(self, name: str, memory: StreamMemory, shares: Float64, *, limit: int) -> None:
        if len(shares) != _simple(memory.store) + 1 or shares.min() < 0 or not np.isclose(shares.sum(), 1.0):
            raise ValueError(f"Expected {_simple(memory.store) + 1} shares that sum to one, got {shares!r}.")
        self.name = name
        self.memory = memory
        self.shares = shares
        self.limit = limit

    def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
        """The k likeliest next contents of each session; never the one that it is at.

        Raises:
            LogOrderError: a question is older than the newest request learnt.
        """
        return self.judge(sessions, np.full(len(sessions), -1, dtype=np.int32), k=k).forecast

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
        """Probability that each session goes to `content[i]` next; for unknown codes, to any unseen content. (n,)"""
        return self.judge(sessions, content, k=1).probability

    def judge(self, sessions: SessionBatch, content: Int32, *, k: int) -> Judged:
        """Both answers from one shortlist."""
        if k < 1:
            raise ValueError(f"Expected k >= 1, got {k!r}.")
        shortlist = self.memory.shortlist(sessions, limit=self.limit)
        lessons, place = hear(self.memory, sessions, content), shortlist.place_of(content)
        forecast = NextContentForecast(*best(shortlist, log_mixed(shortlist, self.shares), k))
        return Judged(forecast, columns_given(shortlist, lessons, place) @ self.shares, place >= 0)


def _simple(store: CounterStore) -> int:
    """Columns before that of the network."""
    return FIRST_POPULARITY + len(store.settings.half_lives_hours)


def _network(shortlist: Shortlist) -> Float64:
    """The network's softmax over the shortlist, restored from the logarithms kept of it. (n, m)"""
    column = shortlist.mass.shape[1]
    said = np.exp(shortlist.table[..., column].astype(np.float64)) - LEAST
    said = np.where(shortlist.contents >= 0, np.maximum(said, 0.0), 0.0)
    return np.asarray(said / np.maximum(said.sum(axis=1, keepdims=True), LEAST_LOGARITHM))


def log_mixed(shortlist: Shortlist, shares: Float64) -> Float64:
    """Log-probability of every listed content. (n, m)"""
    simple = len(shares) - 1
    said = np.maximum(np.exp(shortlist.table[..., :simple].astype(np.float64)) - LEAST, 0.0)
    mixed = said @ shares[:-1] + shares[-1] * _network(shortlist)
    return np.asarray(np.log(np.maximum(mixed, LEAST_LOGARITHM)))


def columns_given(shortlist: Shortlist, lessons: Lessons, place: Int64) -> Float64:
    """What each column gives to one content of each session; without a shortlist the network backs off. (n, columns)"""
    simple = FIRST_POPULARITY + sum(name.startswith("popularity_") for name in lessons.experts.names)
    given = np.take_along_axis(_network(shortlist), np.maximum(place, 0)[:, None], axis=1)[:, 0]
    nothing = ~(shortlist.contents >= 0).any(axis=1)
    network = np.where(nothing, lessons.probability[:, FIRST_POPULARITY], np.where(place >= 0, given, 0.0))
    return np.concatenate([lessons.probability[:, :simple], network[:, None]], axis=1)


def fitted_shares(examples: Examples) -> Float64:
    """Shares of greatest likelihood. (columns,)"""
    columns = columns_given(examples.shortlist, examples.lessons, examples.place)
    n = columns.shape[1]
    return fitted_weights(columns, prior=np.full(n, 1.0 / n), prior_events=1.0)


def fit_sequence_method(
    name: str,
    log: RequestLog,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: NextContentSettings,
    seed: int = 0,
) -> SequenceMethod:
    """Streams both windows past the network of a peer, and fits its shares on questions of the second.

    Raises:
        ValueError: the windows overlap or the validation window holds no request.
    """
    known = known_until(log, train=train, validation=validation)
    memory = peer_memory(name, settings, seed=seed)
    n = settings.validation_events
    questions = validation_questions(known, validation, n=n, seed=seed, timeout_us=memory.timeout_us)
    examples = collect(memory, known, questions, limit=settings.shortlist)
    finish(memory, known, questions.rows)
    return SequenceMethod(name, memory, fitted_shares(examples), limit=settings.shortlist)
