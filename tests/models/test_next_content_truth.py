"""A world whose law is known: the counters must recover it, and the fitted hybrid must come close to it."""

from __future__ import annotations

import numpy as np
import pytest

from models.counters import CounterStore
from models.events import HOUR_US, Float64, Int32, RequestLog
from models.next_content.baselines import baselines
from models.next_content.evaluation import Method
from models.next_content.hybrid_training import fit_hybrid
from models.next_content.predictor import NextContentPredictor
from models.next_content.sessions import SessionBatch, moves, previous_rows, sessions_at
from models.next_content.settings import NextContentSettings, SessionCounterSettings
from models.next_content.training import learn
from tests.models.tasteful_world import HOURS, N_CONTENTS, N_LOCATIONS, START_US, tasteful_log, truth

SESSIONS, LENGTH = 6000, 6
COUNTERS = SessionCounterSettings(
    half_lives_hours=(1.0, 24.0), local_transition_half_life_hours=24.0, local_successor_cap=N_CONTENTS
)
SETTINGS = NextContentSettings(
    sequence_network=False,
    lesson_events=2500,
    lesson_hours=0.6,
    validation_events=800,
    epochs=5,
    shortlist=40,
    counters=COUNTERS,
)
END_US = START_US + round((HOURS + 1.0) * HOUR_US)


@pytest.fixture(scope="module")
def world() -> tuple[RequestLog, Int32, Float64]:
    """Log, true number of each content code, and the law by location code: (locations, from, to) in log codes."""
    log, number = tasteful_log(sessions=SESSIONS, length=LENGTH)
    places = np.array([int(name[1:]) for name in log.locations])
    return log, number, truth()[places][:, number][:, :, number]


def shares(found: tuple[Int32, Float64]) -> Float64:
    """Successors and their shares as a row of a matrix."""
    row = np.zeros(N_CONTENTS)
    row[found[0]] = found[1]
    return row


def test_counters__recover_the_law_within_sampling_error(world: tuple[RequestLog, Int32, Float64]) -> None:
    """Pearson's statistic over all transitions is chi-squared: its mean is the degrees of freedom d, its s.d. sqrt(2 d)."""
    log, _, law = world
    store = CounterStore(COUNTERS)
    store.update(log)
    statistic, freedom, to_now = 0.0, 0, float(store.deflation(np.array([1 / 24.0]), store.time_us)[0])
    for place in range(N_LOCATIONS):
        at = store.popularity.index.find((np.arange(N_CONTENTS) << 32) | place)
        for current in range(N_CONTENTS):
            n = store.walks.local_moves.totals(int(at[current]))[0] * to_now
            expected = law[place, current]
            kept = n * expected >= 5.0  # where few are expected the law of the sum is another
            found = shares(store.local_order1(current, place))
            statistic += float((n * (found - expected) ** 2 / np.where(kept, expected, 1.0))[kept].sum())
            freedom += int(kept.sum())
    assert freedom > 1000
    assert abs(statistic / freedom - 1.0) < 5.0 * np.sqrt(2.0 / freedom) + 0.05  # decay: weights differ by a tenth


def test_hybrid__comes_close_to_the_law(world: tuple[RequestLog, Int32, Float64]) -> None:
    """The best table of n counts over k outcomes is (k - 1) / 2n nats away from the law; the hybrid must be nearer.

    It pools: what a location wants after one content it also wants after another, and gate and re-ranker can use that.
    """
    log, _, law = world
    edges = (START_US, START_US + round(2.5 * HOUR_US), END_US)
    memory, taught, held_out = learn(log, train=edges[:2], validation=edges[1:], settings=SETTINGS)
    hybrid, _ = fit_hybrid(taught, held_out, settings=SETTINGS, seed=0)
    predictor = NextContentPredictor("hybrid", memory, hybrid, SETTINGS)
    divergence = mean_divergence(predictor, law, memory.time_us)
    assert divergence < ((N_CONTENTS - 2) / 2 / departures(log)).mean()  # nobody stays: 29 outcomes
    peers = baselines(memory.store, held_out.lessons, SETTINGS, which=("popularity_24h", "order1_24h", "order1_local"))
    assert len(peers) == 3
    for peer in peers:
        assert divergence < mean_divergence(peer, law, memory.time_us)


def departures(log: RequestLog) -> Float64:
    """How often sessions left each content in each location. (contents, locations)"""
    previous = previous_rows(log, timeout_us=HOUR_US // 2)
    went_on = sessions_at(log, moves(log, previous), previous)
    counts = np.zeros((N_CONTENTS, N_LOCATIONS))
    moved = went_on.last >= 0
    np.add.at(counts, (went_on.last[moved], went_on.location[moved]), 1.0)
    return counts


def mean_divergence(method: Method, law: Float64, at_us: int) -> float:
    """Mean of KL(law || method) over all current contents and locations, in nats."""
    place, current, following = (axis.ravel().astype(np.int32) for axis in np.indices(law.shape))
    sessions = SessionBatch(current[:, None], place, np.full(law.size, at_us))
    said = np.maximum(method.probability(sessions, following), 1e-12).reshape(law.shape)
    assert np.all(said.sum(axis=2) < 1.0 + 1e-6)
    terms = np.where(law > 0, law * (np.log(np.where(law > 0, law, 1.0)) - np.log(said)), 0.0)
    return float(terms.sum(axis=2).mean())
