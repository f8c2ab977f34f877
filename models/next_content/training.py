"""Learns the weights of the Markov mixture, and of every baseline, on the validation window.

One pass over the log: counters see everything before the validation window, then each drawn request is asked about just
before they see it. What the experts gave to what came is all that the weights need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.counters import CounterSettings, CounterStore
from models.events import Float64, RequestLog
from models.next_content.experts import Answers, Experts
from models.next_content.predictor import NextContentPredictor
from models.next_content.settings import NextContentSettings
from models.next_content.stream import draw_questions, finish, play
from models.next_content.weights import Evidence, StaticWeights, completed, evidence_class, fitted_weights

NAME = "markov_mixture"


@dataclass(frozen=True)
class Lessons:
    """What the experts gave to the requests of the validation window.

    Attributes:
        experts: the columns.
        probability: after back-off. (n, experts)
        raw: before back-off. (n, experts)
        evidence: what was known of each session.
    """

    experts: Experts
    probability: Float64
    raw: Float64
    evidence: Evidence


def fit_next_content(
    log: RequestLog,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: NextContentSettings | None = None,
    seed: int = 0,
    counters: CounterSettings | None = None,
) -> tuple[NextContentPredictor, list[dict[str, float]]]:
    """The Markov mixture with weights fitted on the validation window and counters as of its end.

    Args:
        log: requests; those before `train[0]` and from `validation[1]` on are not looked at.
        train: [start, end) that fills the counters.
        validation: [start, end) that the weights are fitted on; it begins where training ends or later.
        settings: how to fit.
        seed: which requests of the validation window are drawn.
        counters: settings of the counter store.

    Returns:
        The predictor, and the mean negative log-likelihood of one set of weights and of the sets by evidence.

    Raises:
        ValueError: the windows overlap or the validation window holds no request.
    """
    settings = settings or NextContentSettings()
    store, lessons = learn(log, train=train, validation=validation, settings=settings, seed=seed, counters=counters)
    pooled = linear_weights(lessons, settings)
    table = weights_by_evidence(lessons, pooled, settings)
    weighting = StaticWeights(table, settings.evidence_edges)
    history = [
        {"classes": 1.0, "nll": _nll(lessons, np.broadcast_to(pooled, lessons.probability.shape))},
        {"classes": float(len(table)), "nll": _nll(lessons, weighting.weights(lessons.evidence))},
    ]
    return NextContentPredictor(NAME, store, weighting), history


def learn(
    log: RequestLog,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: NextContentSettings,
    seed: int = 0,
    counters: CounterSettings | None = None,
) -> tuple[CounterStore, Lessons]:
    """Plays both windows once; the store comes back holding everything before `validation[1]`."""
    if validation[0] < train[1] or train[1] < train[0]:
        raise ValueError(f"Validation must begin where training ends or later, got {train!r} and {validation!r}.")
    known = log.before(validation[1]).between(train[0], validation[1])
    store = CounterStore(counters)
    questions = draw_questions(
        known,
        window=validation,
        n=settings.validation_events,
        seed=seed,
        timeout_us=store.walks.rates.timeout_us,
    )
    if not len(questions.rows):
        raise ValueError(f"No requests in the validation window {validation!r}; widen it or choose another.")
    asker = NextContentPredictor("", store, StaticWeights(np.ones((1, 1))))
    answers, evidence = [], []
    for i in play([store], known, questions.rows):
        session = questions.sessions.rows(i, i + 1)
        row = int(questions.rows[i])
        answers.append(asker.answers(session, known.content[row : row + 1]))
        evidence.append(asker.evidence(session, answers[-1]))
    finish(store, known, questions.rows)
    raw, mass, _, _ = (np.concatenate(column) for column in zip(*answers, strict=True))
    said = Answers(raw, mass, *(np.concatenate(c) for c in zip(*((a[2], a[3]) for a in answers), strict=True)))
    gathered = Evidence(np.concatenate([e.departures for e in evidence]), said.distinct, said.mass)
    return store, Lessons(asker.experts, completed(raw, mass, asker.experts), raw, gathered)


def linear_weights(lessons: Lessons, settings: NextContentSettings, columns: tuple[str, ...] | None = None) -> Float64:
    """One set of weights for all sessions, over some experts only where `columns` names them. (experts,)"""
    weights = np.zeros(len(lessons.experts.names))
    chosen = [lessons.experts.column(name) for name in columns or lessons.experts.names]
    weights[chosen] = fitted_weights(
        lessons.probability[:, chosen],
        iterations=settings.iterations,
        tolerance_nats=settings.tolerance_nats,
        prior=np.full(len(chosen), 1.0 / len(chosen)),
        prior_events=1.0,
    )
    return weights


def weights_by_evidence(lessons: Lessons, pooled: Float64, settings: NextContentSettings) -> Float64:
    """A set of weights for each class of evidence, shrunk to the pooled one. (classes, experts)"""
    edges = settings.evidence_edges
    classes = evidence_class(lessons.evidence, edges)
    return np.stack(
        [
            fitted_weights(
                lessons.probability[classes == c],
                prior=pooled,
                prior_events=settings.pooling_events,
                iterations=settings.iterations,
                tolerance_nats=settings.tolerance_nats,
            )
            for c in range((len(edges) + 1) ** 2)
        ]
    )


def _nll(lessons: Lessons, weights: Float64) -> float:
    return float(-np.log((weights * lessons.probability).sum(axis=1)).mean())
