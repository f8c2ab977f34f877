"""Forecasts over HTTP are the models' own numbers: a service that computes its own would be a second model."""

from __future__ import annotations

import pytest

from models.answers import demand_rows, next_content_rows
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


async def test_next_content__is_the_models_answer(shared: Running, home: Home) -> None:
    """The champion's weights on the newer counters; a view that was reloaded counts once."""
    own = NextContentPredictor.load(an_artefact(home, "next-content") / "model")
    store = load_counters(home.state / "counters")
    predictor = NextContentPredictor(own.name, store, own.weighting)
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
    assert (await shared.post("/v1/next-content", repeated)).json()["sessions"] == answer["sessions"][1:2]


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
    """The forecast job ran after training: its counters and sessions answer, and /readyz says so."""
    models = (await shared.client.get("/readyz")).json()["models"]
    assert {model["snapshot"] for model in models.values()} == {"forecast job"}
    trained_until = load_counters(an_artefact(home, "demand") / "counters").time_us
    answering_us = shared.service.model("demand").origin.as_of_us
    assert answering_us - trained_until > 24 * HOUR_US
