"""A mixture of the experts of one store under weights that were learnt once: the form of every Markov baseline."""

from __future__ import annotations

import numpy as np

from models.counters import CounterStore
from models.events import Float64, Int32
from models.next_content.asking import evidence_from, places
from models.next_content.candidates import rank
from models.next_content.experts import Answers, ask, expert_table, experts_of
from models.next_content.forecast import NextContentForecast
from models.next_content.sessions import SessionBatch
from models.next_content.weights import Weighting, backed_off


class MixturePredictor:
    """`p(i | session) = sum over k of w_k(session) p_k(i | session)`, proper over all known contents and `unseen`.

    Attributes:
        name: name of the method in tables.
        store: the counters; several predictors may share one.
        weighting: turns what is known of a session into weights.
    """

    def __init__(self, name: str, store: CounterStore, weighting: Weighting) -> None:
        self.name = name
        self.store = store
        self.weighting = weighting
        self.experts = experts_of(store)

    def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
        """The k likeliest next contents of each session; never the one that it is at.

        Raises:
            LogOrderError: a question is older than the newest request counted.
        """
        if k < 1:
            raise ValueError(f"Expected k >= 1, got {k!r}.")
        _, weights = self._answers(sessions, np.full(len(sessions), -1, dtype=np.int32))
        return NextContentForecast(*rank(expert_table(self.store), *places(self.store, sessions), weights, k))

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
        """Probability that each session goes to `content[i]` next; for unknown codes, to any unseen content. (n,)"""
        probability, weights = self._answers(sessions, np.asarray(content, dtype=np.int32))
        return np.asarray((weights * probability).sum(axis=1))

    def _answers(self, sessions: SessionBatch, content: Int32) -> tuple[Float64, Float64]:
        """What every expert gives to `content[i]` before back-off, and the weights after it. (n, experts) each"""
        answers = Answers(*ask(expert_table(self.store), *places(self.store, sessions), content))
        evidence = evidence_from(self.store, sessions, answers)
        return answers.probability, backed_off(
            self.weighting.weights(evidence), evidence.known, self.experts.backs_off_to
        )
