"""Forecasts looked up by id."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from models.answers import (
    EARLIER,
    HISTORY,
    AskedSession,
    churn_rows,
    demand_rows,
    next_content_rows,
    session_batch,
)
from models.errors import ArtefactError, LogOrderError
from models.events import RequestLog, combined
from models.forecast import ChurnForecast, DemandForecast
from models.next_content.predictor import NextContentPredictor
from models.next_content.sequence import SequenceSettings
from models.next_content.sessions import sessions_at
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
            returned=np.ones((1, 2)),
        )
    )
    assert list(rows.columns) == ["node", "horizon_hours", "up", "survival", "availability", "returned"]
    assert rows["survival"].tolist() == [0.9, 0.8]


def described_log(*, sessions: int = 60) -> RequestLog:
    """The chain, asked for by two devices of two columns each, and by a third whose screen nobody knows."""
    log = chain_log(sessions=sessions)
    os = [("1", "2", "1")[s % 3] for s in log.session.tolist()]
    screen = [("s", "l", None)[s % 3] for s in log.session.tolist()]
    columns = (ids[codes] for ids, codes in ((log.contents, log.content), (log.locations, log.location)))
    raw = RequestLog.from_columns(
        log.ts_us, log.session, *columns, features={"os": os, "screen": screen, "referrer": ["mail"] * len(log)}
    )
    return raw.described(device=("os", "screen"), arrival=("referrer",))


@pytest.fixture(scope="module")
def predictor() -> NextContentPredictor:
    """Fitted on a chain of four contents whose transitions are known."""
    log = described_log()
    middle, end = START_US + 360 * MINUTE_US, int(log.ts_us[-1]) + 1
    settings = NextContentSettings(
        lesson_events=100,
        validation_events=50,
        shortlist=20,
        epochs=1,
        hidden_size=4,
        iterations=10,
        sequence=SequenceSettings(size=4, features=2),
    )
    model, _ = fit_next_content(log, train=(START_US, middle), validation=(middle, end), settings=settings, seed=0)
    model.device_features, model.arrival_features = ("os", "screen"), ("referrer",)
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
    asked = [AskedSession(["c0", "c1"], "l0"), AskedSession(["?"], "l1"), AskedSession([], "?", earlier=["c2"])]
    batch = session_batch(predictor, asked, at_us=5)
    code = {c: i for i, c in enumerate(predictor.store.contents.tolist())}
    assert batch.items[:, -2:].tolist() == [[code["c0"], code["c1"]], [-1, -1], [-1, -1]]
    assert (batch.items[:, :-2] == -1).all()
    assert batch.before_this[:, -1].tolist() == [-1, -1, code["c2"]]
    assert batch.location[2] == -1


def test_session_batch__is_what_training_saw(predictor: NextContentPredictor) -> None:
    """As many contents as `sessions_at` reads, the last ones; a reload is one view. Another width would be a new input."""
    defaults = inspect.signature(sessions_at).parameters
    assert (defaults["history"].default, defaults["earlier"].default) == (HISTORY, EARLIER)
    long = ["c0", "c1"] * 10 + ["c1", "c2", "c2"]
    batch = session_batch(predictor, [AskedSession(long, "l0", earlier=long)], at_us=5)
    code = {c: i for i, c in enumerate(predictor.store.contents.tolist())}
    views = [code[c] for c in (["c0", "c1"] * 10 + ["c2"])]
    assert batch.items.tolist() == [views[-HISTORY:]]
    assert batch.before_this.tolist() == [views[-EARLIER:]]


def test_session_batch__devices_and_arrivals_are_coded_as_the_log_codes_them(predictor: NextContentPredictor) -> None:
    """By first request: device ("1", "s") is 0 and ("2", "l") is 1; a part that is missing or new makes it unknown.

    A session before its first request arrived from nowhere, whatever the caller says.
    """
    known = {"os": "2", "screen": "l"}
    asked = [
        AskedSession(["c0"], "l0", features={"screen": "s", "os": "1"}, arrival={"referrer": "mail"}),
        AskedSession(["c0"], "l0", features=known, arrival={"referrer": "?"}),
        AskedSession(["c0"], "l0", features={"os": "1"}),
        AskedSession([], "l0", features={"os": "2", "screen": "?"}, arrival={"referrer": "mail"}),
    ]
    batch = session_batch(predictor, asked, at_us=5)
    devices = predictor.store.audiences.device_ids
    expected = [int(devices.codes([combined(v)])[0]) for v in (("1", "s"), ("2", "l"))]
    assert sorted(expected) == [0, 1]
    assert batch.codes[:, 1].tolist() == [*expected, -1, -1]
    assert batch.codes[:, 2].tolist() == [0, -1, -1, -1]


def test_predictor__keeps_the_names_of_its_features(predictor: NextContentPredictor, tmp_path: Path) -> None:
    """Whoever loads it can say which columns it takes, and gets the same answers."""
    predictor.save(tmp_path / "m")
    loaded = NextContentPredictor.load(tmp_path / "m")
    assert (loaded.device_features, loaded.arrival_features) == (("os", "screen"), ("referrer",))
    asked = [AskedSession(["c0"], "l0", earlier=["c2"], features={"os": "1", "screen": "s"})]
    batches = [session_batch(model, asked, at_us=predictor.store.time_us) for model in (predictor, loaded)]
    answers = [model.predict(batch, k=3) for model, batch in zip((predictor, loaded), batches, strict=True)]
    assert np.array_equal(answers[0].content, answers[1].content)
    assert np.array_equal(answers[0].probability, answers[1].probability)


def test_predictor__of_the_format_before_is_refused_naming_both(
    predictor: NextContentPredictor, tmp_path: Path
) -> None:
    """A version registered by an older program needs a new training, and the message says so."""
    predictor.save(tmp_path / "m")
    manifest = tmp_path / "m" / "artefact.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text(encoding="utf-8")) | {"format": 1}), encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"has format 1 of kind 'next-content', but this version reads format 2"):
        NextContentPredictor.load(tmp_path / "m")


def test_next_content_rows__for_nobody(predictor: NextContentPredictor) -> None:
    """Nothing asked, nothing answered."""
    assert len(next_content_rows(predictor, [], [], at_us=predictor.store.time_us, k=3)) == 0


def test_next_content_rows__for_the_past_are_refused(predictor: NextContentPredictor) -> None:
    """An answer for an instant before the newest request counted would contain its own future."""
    with pytest.raises(LogOrderError, match="cannot answer for"):
        next_content_rows(predictor, [["c0"]], ["l0"], at_us=predictor.store.time_us - 1, k=3)
