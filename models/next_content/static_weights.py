"""Static weights: learnt once from lessons, for all sessions or for each class of evidence."""

from __future__ import annotations

import numpy as np

from models.events import Float64
from models.next_content.lessons import Lessons
from models.next_content.settings import NextContentSettings
from models.next_content.weights import evidence_class, fitted_weights


def mixture_weights(probability: Float64, settings: NextContentSettings) -> Float64:
    """Weights of greatest likelihood for experts that gave `probability` (n, experts) to what came. (experts,)"""
    n_experts = probability.shape[1]
    return fitted_weights(
        probability,
        iterations=settings.iterations,
        tolerance_nats=settings.tolerance_nats,
        prior=np.full(n_experts, 1.0 / n_experts),
        prior_events=1.0,
    )


def linear_weights(lessons: Lessons, settings: NextContentSettings, columns: tuple[str, ...] | None = None) -> Float64:
    """One set of weights for all sessions, over some experts only where `columns` names them. (experts,)"""
    weights = np.zeros(len(lessons.experts.names))
    chosen = [lessons.experts.column(name) for name in columns or lessons.experts.names]
    weights[chosen] = mixture_weights(lessons.probability[:, chosen], settings)
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
