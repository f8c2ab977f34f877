"""Sessions as the counters look at them."""

from __future__ import annotations

import numpy as np

from models.counters import CounterStore
from models.events import HOUR_US, Int32, Int64
from models.next_content.experts import Answers, ask, expert_table
from models.next_content.sessions import SessionBatch
from models.next_content.weights import Evidence

LOOKED_AT = 3
"""Last contents of a session that the experts look at."""


def places(store: CounterStore, sessions: SessionBatch) -> tuple[Int32, Int32, Int64]:
    """The last contents of each session, side by side in memory, its location, and the row of its audience."""
    _, device, arrival = np.ascontiguousarray(sessions.codes.T)
    audience = store.audiences.rows(device, arrival, sessions.last < 0)
    return np.ascontiguousarray(sessions.items[:, -LOOKED_AT:]), np.ascontiguousarray(sessions.location), audience


def evidence_of(store: CounterStore, sessions: SessionBatch) -> Evidence:
    """How much the counters know of each session at its instant."""
    nothing = np.full(len(sessions), -1, dtype=np.int32)
    return evidence_from(store, sessions, Answers(*ask(expert_table(store), *places(store, sessions), nothing)))


def evidence_from(store: CounterStore, sessions: SessionBatch, answers: Answers) -> Evidence:
    """The same from answers already given."""
    per_hour = store.walks.rates.per_hour
    oldest = int(sessions.ts_us.min(initial=np.iinfo(np.int64).max))
    store.deflation(per_hour, oldest)  # refuses the past
    hours = (sessions.ts_us - store.base_us) / HOUR_US
    decay = 2.0 ** (-hours[:, None] * np.array([per_hour[0], per_hour[-1]]))
    return Evidence(answers.departures * decay, answers.distinct, answers.mass)
