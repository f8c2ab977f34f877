"""Forecasts over HTTP are the models' own numbers: a service that computes its own would be a second model."""

from __future__ import annotations

import pytest

from models.answers import AskedSession, demand_rows, next_content_rows, session_batch
from models.churn.forecaster import ChurnForecaster
from models.demand.forecaster import DemandForecaster
from models.events import HOUR_US
from models.next_content.predictor import NextContentPredictor
from models.snapshot import load_counters, load_sessions
from pipelines.home import Home
from serving.readiness import instant
from tests.serving.conftest import Running, an_artefact

pytestmark = pytest.mark.anyio


async def test_demand__is_the_models_answer(shared: Running, home: Home) -> None:
    """Mean and quantiles of the champion on the forecast job's counters, to the last digit."""
    model = DemandForecaster.load(an_artefact(home, "demand") / "model")
    store = load_counters(home.state / "counters")
    hours = model.settings.horizons_hours[1]
    forecast = model.forecast(store, at_us=store.time_us, horizon_hours=hours)
    cells = [
        (forecast.contents[c], forecast.locations[p]) for c, p in zip(forecast.content, forecast.location, strict=True)
    ]
    cells = [*cells[:20], ("never seen", str(forecast.locations[0]))]
    asked = [{"content": content, "location": location} for content, location in cells]
    answer = (await shared.post("/v1/demand", {"cells": asked, "horizon_hours": hours})).json()
    expected = demand_rows(forecast, [c for c, _ in cells], [p for _, p in cells]).to_dict("records")
    assert answer["cells"] == expected
    assert answer["cells"][-1]["known"] is False
    assert answer["model"] == {"name": "premirror-demand", "version": "1"}
    assert answer["as_of"] == instant(store.time_us).isoformat().replace("+00:00", "Z")


async def test_demand__a_horizon_that_was_not_fitted(shared: Running) -> None:
    """The answer names the horizons that there are."""
    answer = await shared.post("/v1/demand", {"cells": [{"content": "a", "location": "b"}], "horizon_hours": 5})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "#/horizon_hours", "detail": "Expected one of 1, 6, which the model was fitted for; got 5."}
    ]


def champion(home: Home) -> NextContentPredictor:
    """The version that answers, as the forecast job left it."""
    return NextContentPredictor.load(home.state / "next-content")


async def test_next_content__is_the_models_answer(shared: Running, home: Home) -> None:
    """The champion on the memory that the forecast job brought up to date; a view that was reloaded counts once."""
    predictor = champion(home)
    store = predictor.store
    first, second = (str(name) for name in store.contents[:2])
    place = str(store.locations[0])
    histories, k = [[first], [second, first], [], ["never seen"]], 3
    body = {"sessions": [{"history": history, "location": place} for history in histories], "k": k}
    answer = (await shared.post("/v1/next-content", body)).json()
    rows = next_content_rows(predictor, histories, [place] * len(histories), at_us=store.time_us, k=k)
    for number, session in enumerate(answer["sessions"]):
        expected = rows[rows["request"] == number]
        assert [named["content"] for named in session] == expected["content"].tolist()
        assert [named["probability"] for named in session] == expected["probability"].tolist()
    repeated = {"sessions": [{"history": [second, first, first], "location": place}], "k": k}
    again = (await shared.post("/v1/next-content", repeated)).json()["sessions"][0]
    # Alone and in a batch, sums are added up in another order: equal to single precision.
    assert [named["content"] for named in again] == [named["content"] for named in answer["sessions"][1]]
    both = zip(again, answer["sessions"][1], strict=True)
    assert all(one["probability"] == pytest.approx(other["probability"], rel=1e-4) for one, other in both)


async def test_next_content__earlier_sessions_and_devices_count(shared: Running, home: Home) -> None:
    """What is sent beside the history reaches the model, as `session_batch` codes it; a new value is unknown."""
    predictor = champion(home)
    contents, place = [str(name) for name in predictor.store.contents[:3]], str(predictor.store.locations[0])
    device = {"segment": "new"}
    sessions = [
        {"history": contents[:1], "location": place},
        {"history": contents[:1], "location": place, "earlier": contents[1:]},
        {"history": contents[:1], "location": place, "earlier": ["never seen"], "features": device},
    ]
    answer = (await shared.post("/v1/next-content", {"sessions": sessions, "k": 2})).json()["sessions"]
    asked = [AskedSession(**session) for session in sessions]  # type: ignore[arg-type]
    batch = session_batch(predictor, asked, at_us=predictor.store.time_us)
    found = predictor.predict(batch, k=2)
    assert [[named["probability"] for named in session] for session in answer] == found.probability.tolist()
    assert answer[0] != answer[1]
    assert batch.codes[2].tolist() == [batch.location[0], -1, -1]


async def test_next_content__a_feature_that_the_model_does_not_know(shared: Running) -> None:
    """The answer names those that it knows: a typing mistake must not pass as an unknown device."""
    sessions = [{"history": [], "location": "x"}, {"history": [], "location": "x", "features": {"osx": "1"}}]
    for path in ("/v1/next-content", "/v1/next-content:by-location"):
        answer = await shared.post(path, {"sessions": sessions})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [
            {
                "pointer": "#/sessions/1/features/osx",
                "detail": "The model knows no 'osx' here; it was trained with: segment.",
            }
        ]
    answer = await shared.post(
        "/v1/next-content", {"sessions": [{"history": [], "location": "x", "features": {"os": 7}}]}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/sessions/0/features/os"


async def test_next_by_location__is_the_sum_of_the_sessions(shared: Running, home: Home) -> None:
    """Cell by cell the probabilities of the sessions there, most first; a place nobody knows is in no cell."""
    store = champion(home).store
    first, second = (str(name) for name in store.contents[:2])
    here, there = (str(name) for name in store.locations[:2])
    asked = [([first], here), ([second], here), ([first], there), ([], "atlantis")]
    body = {"sessions": [{"history": history, "location": place} for history, place in asked], "k": 4}
    sessions = (await shared.post("/v1/next-content", body)).json()["sessions"]
    answer = (await shared.post("/v1/next-content:by-location", body)).json()
    expected: dict[tuple[str, str], float] = {}
    for (_, place), session in zip(asked, sessions, strict=True):
        for named in session:
            cell = (named["content"], place)
            expected[cell] = expected.get(cell, 0.0) + named["probability"]
    expected = {cell: value for cell, value in expected.items() if cell[1] != "atlantis"}
    cells = {(cell["content"], cell["location"]): cell["expected"] for cell in answer["cells"]}
    assert cells == pytest.approx(expected)
    values = [cell["expected"] for cell in answer["cells"]]
    assert values == sorted(values, reverse=True)
    assert answer["left_out"] == 1
    assert answer["model"] == {"name": "premirror-next-content", "version": "1"}


async def test_churn__is_the_models_answer(shared: Running, home: Home) -> None:
    """Survival and availability at every edge for all nodes, and the same for one asked by name."""
    model = ChurnForecaster.load(an_artefact(home, "churn") / "model")
    history, at_us = load_sessions(home.state / "sessions")
    forecast = model.forecast(history, at_us=at_us)
    everyone = (await shared.post("/v1/churn", {"nodes": None})).json()["nodes"]
    assert [node["node"] for node in everyone] == forecast.nodes.tolist()
    assert [[e["survival"] for e in node["edges"]] for node in everyone] == forecast.survival.tolist()
    assert [[e["availability"] for e in node["edges"]] for node in everyone] == forecast.availability.tolist()
    assert [e["hours"] for e in everyone[0]["edges"]] == forecast.edges_hours.tolist()
    name = everyone[3]["node"]
    some = (await shared.post("/v1/churn", {"nodes": [name, "nobody"]})).json()["nodes"]
    assert some == [everyone[3], {"node": "nobody", "known": False, "up": False, "edges": []}]


async def test_forecasts__use_the_newer_state(shared: Running, home: Home) -> None:
    """The forecast job ran after training: counters, memory and sessions of its own answer, and /readyz says so."""
    models = (await shared.client.get("/readyz")).json()["models"]
    assert {model["snapshot"] for model in models.values()} == {"forecast job"}
    assert models["next-content"]["as_of"] == models["demand"]["as_of"]
    trained_until = load_counters(an_artefact(home, "demand") / "counters").time_us
    answering_us = shared.service.model("demand").origin.as_of_us
    assert answering_us - trained_until > 24 * HOUR_US
