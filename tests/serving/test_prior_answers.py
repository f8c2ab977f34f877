"""The forecast job's fall-back reaches the service: a demand version that lost to its own prior does not answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from models.answers import demand_rows
from models.demand.forecaster import DemandForecaster
from models.snapshot import load_counters
from pipelines.home import Home
from tests.serving.conftest import Running, an_artefact, listening_on, running

KEY = "prior_answers_for"
NOTE = "version 1 lost to its own prior lately, so its prior answers"
CELLS = 40


def tell(home: Home, number: str | None) -> None:
    """Has the state of the forecast job name the version whose prior answers; None for a state without the word."""
    path = home.state / "counters" / "artefact.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["state"].pop(KEY, None)
    manifest["state"] |= {} if number is None else {KEY: number}
    path.with_suffix(".new").write_text(json.dumps(manifest), encoding="utf-8")
    path.with_suffix(".new").rename(path)


def said(home: Home, *, hours: int, prior: bool) -> list[dict[str, Any]]:
    """What the champion, or its prior, says of its first cells on the counters of the forecast job."""
    champion = DemandForecaster.load(an_artefact(home, "demand") / "model")
    store = load_counters(home.state / "counters")
    answering = champion.prior_only() if prior else champion
    forecast = answering.forecast(store, at_us=store.time_us, horizon_hours=hours)
    contents = [str(store.contents[code]) for code in forecast.content[:CELLS]]
    places = [str(store.locations[code]) for code in forecast.location[:CELLS]]
    rows = demand_rows(forecast, contents, places).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def question(home: Home, *, hours: int) -> dict[str, Any]:
    rows = said(home, hours=hours, prior=False)
    return {"cells": [{k: row[k] for k in ("content", "location")} for row in rows], "horizon_hours": hours}


def test_demand__of_a_version_that_lost_is_its_priors(own_home: Home) -> None:
    """Over a real socket, at every horizon: means and quantiles of the prior, the same version, and /readyz says why."""
    tell(own_home, "1")
    with listening_on(own_home) as service, httpx.Client(base_url=service.url, timeout=30) as client:
        for hours in (1, 6):
            answer = client.post("/v1/demand", json=question(own_home, hours=hours)).json()
            assert answer["cells"] == said(own_home, hours=hours, prior=True)
            assert answer["cells"] != said(own_home, hours=hours, prior=False)
            assert answer["model"]["version"] == "1"
        ready = client.get("/readyz").json()
    assert ready["state"] == "degraded"
    assert ready["models"]["demand"]["notes"] == [NOTE]
    assert ready["models"]["demand"]["snapshot"] == "forecast job"
    assert ready["models"]["churn"]["notes"] == []


@pytest.mark.anyio
async def test_demand__changes_hands_with_the_state(own_home: Home) -> None:
    """Each new state decides anew; another version's loss, none, and a state that does not say leave the model in."""
    asked = question(own_home, hours=1)
    by_model, by_prior = (said(own_home, hours=1, prior=prior) for prior in (False, True))
    async with running(own_home) as service:
        assert await told(service, asked) == (by_model, [])
        for number in ("1", "7", "1", "", "1", None):
            tell(own_home, number)
            await service.service.look()
            assert await told(service, asked) == ((by_prior, [NOTE]) if number == "1" else (by_model, []))


async def told(service: Running, asked: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Cells as answered, and what /readyz notes of demand."""
    answer = (await service.post("/v1/demand", asked)).json()
    notes = (await service.client.get("/readyz")).json()["models"]["demand"]["notes"]
    return answer["cells"], notes
