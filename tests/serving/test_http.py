"""Over real sockets: concurrent callers, figures, and the process from its first line to Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.home import Home
from tests.serving.conftest import Listening


@pytest.fixture(scope="module")
def client(listening: Listening) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=listening.url, timeout=30) as found:
        yield found


def test_concurrent__each_gets_its_own_answer(client: httpx.Client, listening: Listening) -> None:
    """Sixty callers at once on three routes get what each would have got alone, and they were batched."""
    plan = listening.service.plan()
    places = [str(place) for place in plan.directory.locations]
    contents = sorted(set(plan.placements["content"].to_pylist()))
    calls: list[tuple[str, dict[str, Any]]] = []
    for number in range(20):
        content, place = contents[number % len(contents)], places[number % len(places)]
        cells = [{"content": content, "location": place}] * (1 + number % 3)
        calls.append(("/v1/demand", {"cells": cells, "horizon_hours": (1, 6)[number % 2]}))
        session = {"history": [content], "location": place}
        calls.append(("/v1/next-content", {"sessions": [session], "k": 1 + number % 4}))
        route = {"content": content, "segment": 0, "location": place, "k": 1 + number % 4, "explain": number % 2 == 0}
        calls.append(("/v1/route", route))

    def ask(call: tuple[str, dict[str, Any]]) -> Any:
        answer = client.post(call[0], json=call[1])
        assert answer.status_code == 200, answer.text
        told = answer.json()
        told.pop("choice", None)  # random among near-ties
        return told

    alone = [ask(call) for call in calls]
    with ThreadPoolExecutor(30) as pool:
        together = list(pool.map(ask, calls))
    for one, other in zip(together, alone, strict=True):
        if "sessions" in one:  # a network adds up in another order in a batch: equal to single precision
            named = [[session for told in both["sessions"] for session in told] for both in (one, other)]
            values = [[likely.pop("probability") for likely in session] for session in named]
            assert values[0] == pytest.approx(values[1], rel=1e-4)
        assert one == other
    figures = client.get("/metrics").text
    count, total = (
        float(re.search(rf'premirror_batch_size_{what}{{route="/v1/route"}} (\S+)', figures)[1])  # type: ignore[index]
        for what in ("count", "sum")
    )
    assert total > count  # fewer batches than requests


def test_metrics__by_route_template(client: httpx.Client) -> None:
    """Figures carry routes and versions, never what was asked for."""
    client.post("/v1/route", json={"content": "secret-id", "segment": 0, "location": "secret-place"})
    client.get("/secret-path")
    figures = client.get("/metrics").text
    assert 'premirror_requests_total{method="POST",route="/v1/route",status="422"}' in figures
    assert 'premirror_requests_total{method="GET",route="none",status="404"}' in figures
    assert 'premirror_model_info{model="demand",version="1"} 1.0' in figures
    assert "premirror_registry_reachable 1.0" in figures
    assert "secret" not in figures


def test_openapi__documents_every_route(client: httpx.Client) -> None:
    """The document lists the routes, the problem shape and both forms of the batch."""
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/demand", "/v1/next-content", "/v1/next-content:by-location", "/v1/churn", "/v1/churn:joint", "/v1/route",
        "/v1/routes:score", "/v1/plan", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    score = paths["/v1/routes:score"]["post"]
    forms = {"application/json", "application/vnd.apache.arrow.stream"}
    assert set(score["requestBody"]["content"]) == forms
    assert set(score["responses"]["200"]["content"]) == forms
    assert "application/problem+json" in paths["/v1/route"]["post"]["responses"]["422"]["content"]


def start(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serving"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_process__one_line_then_ctrl_c(home: Home) -> None:
    """It says where it answers and nothing else on stdout; Ctrl-C ends it cleanly, without ids in the log."""
    process = start(PREMIRROR_HOME=str(home.root), PREMIRROR_PORT="0")
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    with httpx.Client(base_url=found[0], timeout=60) as client:
        client.post("/v1/route?q=secret-id", json={"content": "secret-id", "segment": 0, "location": "secret-place"})
        assert client.get("/healthz").json() == {"alive": True}
    process.send_signal(signal.SIGINT)
    out, log = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert out == ""
    assert "secret" not in log
    assert "Traceback" not in log


def test_process__refuses_other_hosts_and_taken_ports(listening: Listening, tmp_path: Path) -> None:
    """Both are said in a sentence, before anything slow is loaded."""
    refused = start(PREMIRROR_HOST="0.0.0.0", PREMIRROR_HOME=str(tmp_path))
    taken = start(PREMIRROR_PORT=listening.url.rpartition(":")[2], PREMIRROR_HOME=str(tmp_path))
    assert "'0.0.0.0', which is not a loopback address" in refused.communicate(timeout=60)[1]
    assert "Choose another with PREMIRROR_PORT or --port." in taken.communicate(timeout=60)[1]
    assert (refused.returncode, taken.returncode) == (2, 75)
