"""What the Markov mixture must beat, behind the same interface and on the same counters.

Each simple method is one expert with the shares of `unseen` and `uniform` fitted on the validation window, because without
them a single surprise would cost infinitely many nats.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from models.counters import CounterStore
from models.next_content.experts import FIRST_POPULARITY
from models.next_content.predictor import NextContentPredictor
from models.next_content.settings import NextContentSettings
from models.next_content.training import Lessons, linear_weights
from models.next_content.weights import StaticWeights, WittenBell, backed_off

ESCAPES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LOCAL_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def baselines(store: CounterStore, lessons: Lessons, settings: NextContentSettings) -> list[NextContentPredictor]:
    """Popularity and local popularity by half-life, order 1, order 2, Witten-Bell back-off, one linear mixture."""
    single = [name for name in lessons.experts.names if name not in ("unseen", "uniform")]
    methods = [_smoothed(store, lessons, settings, name) for name in single]
    mixture = StaticWeights(linear_weights(lessons, settings)[None])
    return [
        *methods,
        NextContentPredictor("witten_bell", store, fit_witten_bell(lessons, settings)),
        NextContentPredictor("linear_mixture", store, mixture),
    ]


def _smoothed(
    store: CounterStore, lessons: Lessons, settings: NextContentSettings, expert: str
) -> NextContentPredictor:
    weights = linear_weights(lessons, settings, ("unseen", "uniform", expert))
    return NextContentPredictor(expert, store, StaticWeights(weights[None]))


def fit_witten_bell(lessons: Lessons, settings: NextContentSettings) -> WittenBell:
    """Escape factor and local share of least negative log-likelihood on a fixed grid."""
    names = lessons.experts.names
    fast_popularity = names[FIRST_POPULARITY]
    bottom = linear_weights(lessons, settings, ("unseen", "uniform", fast_popularity))
    order1 = next(k for k, name in enumerate(names) if name.startswith("order1"))
    local = lessons.experts.backs_off_to[order1]
    candidates = [
        WittenBell(escape, share, bottom, names.index("order2"), order1, local)
        for escape, share in product(ESCAPES, LOCAL_SHARES)
    ]

    def nll(method: WittenBell) -> float:
        weights = backed_off(method.weights(lessons.evidence), lessons.evidence.known, lessons.experts)
        return float(-np.log((weights * lessons.raw).sum(axis=1)).mean())

    return min(candidates, key=nll)
