"""What a session will request next: a mixture of Markov counters, proper over the whole catalogue.

The counters move with every request; the weights were learnt once and stay. Contents that nobody requested yet share one
outcome, `unseen`. Item codes and location codes are the store's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from models.artefact import load_artefact, save_artefact
from models.counters import CounterStore
from models.events import HOUR_US, Float64, Int32, Int64, RequestLog
from models.keys import pair_keys
from models.next_content.experts import Answers, Experts, ask, expert_table, experts_of, rank
from models.next_content.sessions import SessionBatch
from models.next_content.weights import Evidence, Weighting, backed_off, weighting_from_state

KIND = "next-content"
FORMAT = 1

__all__ = ["NextContentForecast", "NextContentPredictor", "SessionBatch", "aggregate_by_location"]


@dataclass(frozen=True)
class NextContentForecast:
    """The likeliest next contents of each session, best first.

    Attributes:
        content: content codes, -1 where the catalogue holds fewer. (n, k)
        probability: their probabilities; what is missing to one lies on other contents. (n, k)
    """

    content: Int32
    probability: Float64


class NextContentPredictor:
    """Mixture of the experts of one store under given weights.

    Attributes:
        name: name of the method in tables.
        store: the counters; several predictors may share one.
        weighting: turns what is known of a session into weights.
    """

    def __init__(self, name: str, store: CounterStore, weighting: Weighting) -> None:
        self.name = name
        self.store = store
        self.weighting = weighting
        self.experts: Experts = experts_of(store)

    def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
        """The k likeliest next contents of each session; never the one that it is at.

        Raises:
            LogOrderError: a question is older than the newest request counted.
        """
        if k < 1:
            raise ValueError(f"Expected k >= 1, got {k!r}.")
        nothing = np.full(len(sessions), -1, dtype=np.int32)
        weights = self._weights(sessions, self.answers(sessions, nothing))
        found = rank(expert_table(self.store), sessions.last, sessions.before, sessions.location, weights, k)
        return NextContentForecast(*found)

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
        """Probability that each session goes to `content[i]` next; for unknown codes, to any unseen content. (n,)"""
        answers = self.answers(sessions, content)
        return np.asarray((self._weights(sessions, answers) * answers.probability).sum(axis=1))

    def answers(self, sessions: SessionBatch, content: Int32) -> Answers:
        """What every expert gives to `content[i]`, before back-off."""
        asked = (sessions.last, sessions.before, sessions.location, np.asarray(content, dtype=np.int32))
        return Answers(*ask(expert_table(self.store), *asked, len(self.experts.names)))

    def evidence(self, sessions: SessionBatch, answers: Answers) -> Evidence:
        """How much the counters know of each session at its instant."""
        per_hour = self.store.walks.rates.per_hour
        oldest = int(sessions.ts_us.min(initial=np.iinfo(np.int64).max))
        self.store.deflation(per_hour, oldest)  # refuses the past
        hours = (sessions.ts_us - self.store.base_us) / HOUR_US
        decay = 2.0 ** (-hours[:, None] * np.array([per_hour[0], per_hour[-1]]))
        return Evidence(answers.departures * decay, answers.distinct, answers.mass)

    def _weights(self, sessions: SessionBatch, answers: Answers) -> Float64:
        evidence = self.evidence(sessions, answers)
        return backed_off(self.weighting.weights(evidence), evidence.known, self.experts)

    def update(self, log: RequestLog) -> None:
        """Counts further requests; the weights stay."""
        self.store.update(log)

    def save(self, folder: Path) -> None:
        """Writes weights and counters into one folder."""
        save_artefact(
            folder,
            kind=KIND,
            format=FORMAT,
            hyperparameters=asdict(self.store.settings),
            state={"name": self.name, "weighting": self.weighting.state()},
            tables=self.store.to_arrow(),
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a saved predictor, which goes on as the saved one would have.

        Raises:
            ArtefactError: the folder is damaged, of another kind, or of another format.
        """
        saved = load_artefact(folder, kind=KIND, format=FORMAT)
        store = CounterStore.from_arrow(saved.tables)
        return cls(saved.state["name"], store, weighting_from_state(dict(saved.state["weighting"])))


def aggregate_by_location(sessions: SessionBatch, forecast: NextContentForecast) -> tuple[Int32, Int32, Float64]:
    """Expected next requests by (content, location): the sum of the sessions' probabilities, sorted by cell.

    Sessions without a known location and places without a content are left out. A session that stops requests nothing;
    multiply by the probability of going on where that matters (`CounterStore.flow` has it built in).
    """
    location = np.repeat(sessions.location, forecast.content.shape[1])
    content, probability = forecast.content.ravel(), forecast.probability.ravel()
    known = (content >= 0) & (location >= 0)
    keys: Int64
    keys, cell = np.unique(pair_keys(content[known], location[known]), return_inverse=True)
    expected: Float64 = np.bincount(cell, weights=probability[known], minlength=len(keys)).astype(np.float64)
    return (keys >> 32).astype(np.int32), (keys & 0x7FFFFFFF).astype(np.int32), expected
