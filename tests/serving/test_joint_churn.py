"""Joint survival over HTTP: the model's own answer, and sentences for what cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from models.churn.forecaster import ChurnForecaster
from models.churn.joint import JointSurvival
from models.snapshot import load_sessions
from pipelines.home import Home
from tests.serving.conftest import Listening, Running, an_artefact


@pytest.fixture
def client(listening: Listening) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=listening.url) as found:
        yield found


def test_joint_churn__is_the_models_answer(client: httpx.Client, home: Home) -> None:
    """P(at least k of the set stay) of the champion, nodes in their networks, over a real socket."""
    model = ChurnForecaster.load(an_artefact(home, "churn") / "model")
    history, at_us = load_sessions(home.state / "sessions")
    forecast = model.forecast(history, at_us=at_us)
    hours = float(forecast.edges_hours[2])
    up = np.flatnonzero(forecast.up)[:6]
    asked = [(up[:1], 1), (up[:3], 2), (up, 6), (up[3:], 0)]
    sets = [{"nodes": history.nodes[rows].tolist(), "k": k} for rows, k in asked]
    answer = client.post("/v1/churn:joint", json={"sets": sets, "hours": hours}).json()
    assert answer["model"] == {"name": "premirror-churn", "version": "1"}
    assert answer["hours"] == hours
    survival = forecast.survival_at(hours)
    for (rows, k), found in zip(asked, answer["sets"], strict=True):
        networks = history.network[rows].astype(str)
        together = model.joint.at_least(k, survival[rows], networks, hours=hours)
        apart = JointSurvival.independent().at_least(k, survival[rows], networks, hours=hours)
        assert (found["probability"], found["independent"]) == pytest.approx((together, apart), abs=1e-12)
    assert answer["sets"][0]["probability"] == pytest.approx(survival[up[0]], abs=1e-7)
    assert answer["sets"][3]["probability"] == 1.0


async def test_joint_churn__every_mistake_at_once(shared: Running) -> None:
    """Unknown node, a node twice, k larger than the set, and a horizon beyond the last edge, each with its place."""
    last = shared.service.model("churn").forecast.edges_hours[-1]
    name = str(shared.service.model("churn").forecast.nodes[0])
    sets = [{"nodes": [name, "nobody"], "k": 3}, {"nodes": [name, name]}]
    answer = await shared.post("/v1/churn:joint", {"sets": sets, "hours": float(last) + 1.0})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "#/hours", "detail": f"Expected at most {last:g}, the last edge of the model; got {last + 1:g}."},
        {
            "pointer": "#/sets/0/nodes/1",
            "detail": "There is no node 'nobody' in the sessions that the model knows.",
        },
        {"pointer": "#/sets/0/k", "detail": "Expected at most 2, the number of nodes in the set; got 3."},
        {"pointer": "#/sets/1/nodes/1", "detail": f"Node {name!r} is in the set already; name each node once."},
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"sets": [], "hours": 1}, "#/sets"),
        ({"sets": [{"nodes": []}], "hours": 1}, "#/sets/0/nodes"),
        ({"sets": [{"nodes": ["a"]}], "hours": 0}, "#/hours"),
        ({"sets": [{"nodes": ["a"], "k": -1}], "hours": 1}, "#/sets/0/k"),
        ({"sets": [{"nodes": ["a"], "n": 1}], "hours": 1}, "#/sets/0/n"),
    ],
)
async def test_joint_churn__bodies_that_cannot_be_read(shared: Running, body: object, pointer: str) -> None:
    """The pointer names the member that is wrong."""
    answer = await shared.post("/v1/churn:joint", body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
