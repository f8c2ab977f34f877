"""What the hybrid must beat, behind the same interface.

Markov baselines are mixtures of the experts of one store: each simple one is a single expert with the shares of `unseen`
and `uniform` fitted on the validation window, because without them a single surprise would cost infinitely many nats.
Peers keep memories of their own: nearest neighbours and sequence networks, with settings from measured grids and shares
fitted on the validation window.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from models.counters import CounterStore
from models.events import RequestLog
from models.next_content.evaluation import Method
from models.next_content.experts import FIRST_POPULARITY
from models.next_content.lessons import Lessons
from models.next_content.mixture import MixturePredictor
from models.next_content.neighbours import fit_neighbours
from models.next_content.sequence_method import PEERS as NETWORKS
from models.next_content.sequence_method import fit_sequence_method
from models.next_content.settings import NextContentSettings
from models.next_content.static_weights import linear_weights, weights_by_evidence
from models.next_content.weights import StaticWeights, WittenBell, backed_off

ESCAPES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LOCAL_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
SINGLE = ("popularity", "local", "newest", "order1", "skip", "order2")
"""Single experts, by the beginning of their names: one for each half-life."""
MIXED = ("witten_bell", "linear_mixture", "evidence_mixture")
MARKOV = (*SINGLE, *MIXED)
NEIGHBOURS = ("v_sknn", "item_knn")
PEERS = (*NEIGHBOURS, *NETWORKS)


def baselines(
    store: CounterStore, lessons: Lessons, settings: NextContentSettings, *, which: tuple[str, ...] = MARKOV
) -> list[MixturePredictor]:
    """Markov baselines on one store: single experts, Witten-Bell back-off, and static mixtures of all experts.

    Args:
        store: the counters, which may go on.
        lessons: requests of the validation window.
        settings: how weights are fitted.
        which: names, or the beginnings of names.

    Raises:
        ValueError: no baseline's name begins so.
    """
    every = [name for name in lessons.experts.names if name.startswith(SINGLE)]
    _check(which, (*every, *MIXED))
    methods = [_smoothed(store, lessons, settings, name) for name in every if name.startswith(which)]
    mixed: dict[str, Callable[[], Any]] = {
        "witten_bell": lambda: fit_witten_bell(lessons, settings),
        "linear_mixture": lambda: StaticWeights(linear_weights(lessons, settings)[None]),
        "evidence_mixture": lambda: _by_evidence(lessons, settings),
    }
    return methods + [MixturePredictor(name, store, mixed[name]()) for name in MIXED if name.startswith(which)]


def fit_peers(
    log: RequestLog,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: NextContentSettings,
    which: tuple[str, ...] = PEERS,
    seed: int = 0,
) -> list[Method]:
    """Peers with memories of their own as of the end of validation; a sequence network streams the log once each.

    Raises:
        ValueError: an unknown name, overlapping windows, or no request in the validation window.
    """
    unknown = sorted(set(which) - set(PEERS))
    if unknown:
        raise ValueError(f"Expected peers of {', '.join(PEERS)}, got {unknown!r}.")
    windows: dict[str, Any] = {"train": train, "validation": validation, "seed": seed}
    methods: list[Method] = []
    if set(which) & set(NEIGHBOURS):
        methods += [method for method in fit_neighbours(log, **windows) if method.name in which]
    networks = [name for name in NETWORKS if name in which]
    return methods + [fit_sequence_method(name, log, settings=settings, **windows) for name in networks]


def _check(which: tuple[str, ...], names: tuple[str, ...]) -> None:
    unknown = [start for start in which if not any(name.startswith(start) for name in names)]
    if unknown:
        raise ValueError(f"Expected beginnings of {', '.join(names)}, got {unknown!r}.")


def _smoothed(store: CounterStore, lessons: Lessons, settings: NextContentSettings, expert: str) -> MixturePredictor:
    weights = linear_weights(lessons, settings, ("unseen", "uniform", expert))
    return MixturePredictor(expert, store, StaticWeights(weights[None]))


def _by_evidence(lessons: Lessons, settings: NextContentSettings) -> StaticWeights:
    pooled = linear_weights(lessons, settings)
    return StaticWeights(weights_by_evidence(lessons, pooled, settings), settings.evidence_edges)


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
        weights = backed_off(method.weights(lessons.evidence), lessons.evidence.known, lessons.experts.backs_off_to)
        return float(-np.log((weights * lessons.raw).sum(axis=1)).mean())

    return min(candidates, key=nll)
