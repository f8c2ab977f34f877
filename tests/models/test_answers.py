"""Forecasts looked up by id."""

from __future__ import annotations

import numpy as np
import pytest

from models.answers import churn_rows, demand_rows, next_content_rows, session_batch
from models.counters import CounterStore
from models.forecast import ChurnForecast, DemandForecast
from models.next_content.predictor import NextContentPredictor
from models.next_content.settings import NextContentSettings
from models.next_content.training import fit_next_content
from tests.models.next_content_world import MINUTE_US, START_US, chain_log


def forecast() -> DemandForecast:
    """Two cells: (a, here) with mean 4 and (b, there) with mean 0.5; Poisson."""
    return DemandForecast(
        origin_us=0,
        horizon_hours=1.0,
        content=np.array([0, 1], np.int32),
        location=np.array([0, 1], np.int32),
        mean=np.array([4.0, 0.5]),
        dispersion=np.zeros(2),
        other_mean=np.zeros(2),
        contents=np.array(["a", "b"], dtype=object),
        locations=np.array(["here", "there"], dtype=object),
    )


def test_demand_rows__keep_the_order_asked_and_say_what_is_unknown() -> None:
    """A cell without demand, an unknown content and an unknown place are 0 and not known; repeats are answered twice."""
    rows = demand_rows(forecast(), ["b", "a", "a", "?", "a", "b"], ["there", "here", "there", "here", "?", "there"])
    assert rows["mean"].tolist() == [0.5, 4.0, 0.0, 0.0, 0.0, 0.5]
    assert rows["known"].tolist() == [True, True, False, False, False, True]
    # Poisson with mean 4: P(y <= 1) = 0.092 < 0.1 <= P(y <= 2) = 0.238; P(y <= 3) = 0.433, P(y <= 4) = 0.629
    assert [rows[name][1] for name in ("p10", "p50", "p90")] == [2.0, 4.0, 7.0]


def test_demand_rows__nothing_asked_and_nothing_forecast() -> None:
    """Empty in, empty out; a forecast without cells answers 0."""
    assert len(demand_rows(forecast(), [], [])) == 0
    empty = DemandForecast(
        origin_us=0,
        horizon_hours=1.0,
        content=np.zeros(0, np.int32),
        location=np.zeros(0, np.int32),
        mean=np.zeros(0),
        dispersion=np.zeros(0),
        other_mean=np.zeros(0),
        contents=np.zeros(0, dtype=object),
        locations=np.zeros(0, dtype=object),
    )
    rows = demand_rows(empty, ["a"], ["here"])
    assert (rows["mean"].tolist(), rows["known"].tolist()) == ([0.0], [False])


def test_churn_rows__are_one_a_node_and_edge() -> None:
    """The table without its origin, which is the same in every row."""
    rows = churn_rows(
        ChurnForecast(
            origin_us=0,
            edges_hours=np.array([1.0, 2.0]),
            nodes=np.array(["n"], dtype=object),
            up=np.array([True]),
            survival=np.array([[0.9, 0.8]]),
            availability=np.array([[0.95, 0.9]]),
        )
    )
    assert list(rows.columns) == ["node", "horizon_hours", "up", "survival", "availability"]
    assert rows["survival"].tolist() == [0.9, 0.8]


@pytest.fixture(scope="module")
def predictor() -> NextContentPredictor:
    """Fitted on a chain of four contents whose transitions are known."""
    log = chain_log(sessions=60)
    middle, end = START_US + 360 * MINUTE_US, int(log.ts_us[-1]) + 1
    settings = NextContentSettings(validation_events=200, iterations=10)
    model, _ = fit_next_content(log, train=(START_US, middle), validation=(middle, end), settings=settings, seed=0)
    return model


def test_next_content_rows__are_best_first_and_never_the_content_itself(predictor: NextContentPredictor) -> None:
    """Of four contents three remain; their probabilities fall and are together at most one."""
    at_us = predictor.store.time_us
    rows = next_content_rows(predictor, [["c0"], ["c1", "c2"], [], ["?"]], ["l0", "l1", "l0", "?"], at_us=at_us, k=3)
    first = rows[rows["request"] == 0]
    assert first["rank"].tolist() == [1, 2, 3]
    assert "c0" not in first["content"].tolist()
    assert (np.diff(first["probability"]) <= 0).all()
    assert first["probability"].sum() <= 1.0 + 1e-9
    assert set(rows["request"]) == {0, 1, 2, 3}


def test_session_batch__pads_on_the_left(predictor: NextContentPredictor) -> None:
    """The latest content is last, whatever the lengths; what the counters never saw is -1."""
    batch = session_batch(predictor, [["c0", "c1"], ["?"], []], ["l0", "l1", "?"], at_us=5)
    code = {c: i for i, c in enumerate(predictor.store.contents.tolist())}
    assert batch.items.tolist() == [[code["c0"], code["c1"]], [-1, -1], [-1, -1]]
    assert batch.location[2] == -1
    assert isinstance(predictor.store, CounterStore)
