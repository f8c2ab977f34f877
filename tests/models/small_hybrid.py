"""Next-content models small enough to fit in a second, on the world of `shown_world`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from models.events import HOUR_US, Float64, Int32, RequestLog
from models.next_content.hybrid_training import History
from models.next_content.predictor import NextContentPredictor
from models.next_content.refresh import RefreshSettings
from models.next_content.sequence import SequenceSettings
from models.next_content.sessions import SessionBatch
from models.next_content.settings import NextContentSettings, SessionCounterSettings
from models.next_content.training import fit_next_content
from tests.models.shown_world import shown_log
from tests.models.tasteful_world import START_US

TRAIN = (START_US, START_US + 4 * HOUR_US)
VALIDATION = (TRAIN[1], START_US + 5 * HOUR_US)
LOG = shown_log(sessions=300)
"""1,500 requests of six hours; what comes after validation is left for updates."""


def small(**changes: Any) -> NextContentSettings:
    """Two epochs of networks of eight units over lists of twenty; the sequence network learns every half hour."""
    settings: dict[str, Any] = {
        "lesson_events": 300,
        "validation_events": 150,
        "shortlist": 20,
        "kept": 8,
        "drawn": 6,
        "hidden_size": 8,
        "epochs": 2,
        "batch_size": 50,
        "iterations": 50,
        "counters": SessionCounterSettings(half_lives_hours=(0.5, 6.0), leaders=20, newest=4),
        "sequence": SequenceSettings(size=8, features=2),
        "refresh": RefreshSettings(refresh_minutes=30.0),
    }
    return NextContentSettings(**(settings | changes))


def fit(log: RequestLog = LOG, *, seed: int = 0, **changes: Any) -> tuple[NextContentPredictor, History]:
    """A model of its own, which may be fed."""
    return fit_next_content(log, train=TRAIN, validation=VALIDATION, settings=small(**changes), seed=seed)


@cache
def fitted(**changes: Any) -> tuple[NextContentPredictor, History]:
    """A model shared by tests: read only."""
    return fit(**changes)


def sessions_of(predictor: NextContentPredictor, n: int, seed: int, *, minutes: int = 5) -> SessionBatch:
    """Sessions of any length, of known and unknown contents, places and audiences, some minutes from now."""
    rng = np.random.default_rng(seed)
    known = len(predictor.store.contents)
    items = rng.integers(0, known + 1, (n, 5)).astype(np.int32)
    items[np.arange(5) < rng.integers(0, 6, n)[:, None]] = -1
    earlier = rng.integers(0, known, (n, 3)).astype(np.int32)
    location, device, arrival = (rng.integers(-1, 6, n).astype(np.int32) for _ in range(3))
    now_us = np.full(n, predictor.store.time_us + minutes * 60_000_000)
    return SessionBatch(items, location, now_us, earlier, device, arrival)


def repeated(sessions: SessionBatch, n: int) -> SessionBatch:
    """The first session n times."""
    return SessionBatch.joined([sessions.rows(0, 1)] * n)


def distribution(predictor: NextContentPredictor, session: SessionBatch) -> Float64:
    """Probability of every known content, then of any unseen one."""
    content: Int32 = np.array([*range(len(predictor.store.contents)), -1], dtype=np.int32)
    return predictor.probability(repeated(session, len(content)), content)
