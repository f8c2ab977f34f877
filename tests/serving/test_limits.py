"""Limits: what is refused, and that the answer names the setting to change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pyarrow as pa
import pytest

from pipelines.home import Home
from serving.gate import ARROW_STREAM, host_name
from tests.serving.conftest import Running, running
from tests.serving.test_routes import stream

pytestmark = pytest.mark.anyio
CELL = {"content": "c", "location": "l"}


def assert_problem(answer: Any, status: int, *, setting: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert {"type", "title", "status", "detail"} <= set(told)
    assert told["status"] == status
    assert setting in told["detail"]


@pytest.fixture(scope="module")
async def tight(home: Home, anyio_backend: str) -> AsyncIterator[Running]:
    """A service that takes 1,000 bytes, 4 rows of JSON and 2 rows of Arrow."""
    async with running(home, max_body_bytes=1000, max_rows=4, max_arrow_rows=2) as service:
        yield service


async def test_body__declared_too_large(tight: Running) -> None:
    """A body that says it is too large is refused unread."""
    answer = await tight.post("/v1/demand", {"cells": [CELL] * 100, "horizon_hours": 1})
    assert_problem(answer, 413, setting="PREMIRROR_MAX_BODY_BYTES")


async def test_body__too_large_without_saying_so(tight: Running) -> None:
    """A chunked body has no length in advance; it is counted as it comes."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    for path in ("/v1/demand", "/v1/routes:score"):
        answer = await tight.client.post(path, content=chunks(), headers={"content-type": "application/json"})
        assert_problem(answer, 413, setting="PREMIRROR_MAX_BODY_BYTES")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/demand", {"cells": [CELL] * 5, "horizon_hours": 1}),
        ("/v1/next-content", {"sessions": [{"history": [], "location": "l"}] * 2, "k": 3}),
        ("/v1/churn", {"nodes": None}),
        ("/v1/routes:score", {"requests": [{"content": "c", "segment": 0, "location": "l"}] * 2}),
    ],
)
async def test_rows__too_many(tight: Running, path: str, body: Any) -> None:
    """Rows of the answer count, because they are what costs: sessions x k, nodes x edges, requests x k."""
    assert_problem(await tight.post(path, body), 422, setting="PREMIRROR_MAX_ROWS")


async def test_rows__too_many_placements(tight: Running) -> None:
    """A page of the plan is rows as well."""
    answer = await tight.client.get("/v1/plan?placements=true&limit=5")
    assert_problem(answer, 422, setting="PREMIRROR_MAX_ROWS")


async def test_rows__too_many_in_arrow(tight: Running) -> None:
    """Arrow has a limit of its own, because it takes far more."""
    body = stream(pa.table({"content": ["c"] * 3, "segment": [0] * 3, "location": ["l"] * 3}))
    answer = await tight.client.post("/v1/routes:score", content=body, headers={"content-type": ARROW_STREAM})
    assert_problem(answer, 422, setting="PREMIRROR_MAX_ARROW_ROWS")


async def test_time__too_slow(home: Home) -> None:
    """The limit counts from the request on: a microsecond is over before any thread can have answered."""
    async with running(home, time_limit_seconds=1e-6, batch_timeout_seconds=0.0) as service:
        for path, body in (("/v1/demand", {"cells": [CELL], "horizon_hours": 1}), ("/v1/churn", {})):
            assert_problem(await service.post(path, body), 504, setting="PREMIRROR_TIME_LIMIT_SECONDS")


async def test_values__every_mistake_is_listed(shared: Running) -> None:
    """One round trip is enough to correct a body; members that nobody knows are mistakes too."""
    body = {"content": "", "segment": -1, "location": "l", "explane": True}
    answer = await shared.post("/v1/route", body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {error["pointer"] for error in answer.json()["errors"]} == {"#/content", "#/segment", "#/explane"}


async def test_values__no_json(shared: Running) -> None:
    """A body that is no JSON says so, on both kinds of parsing."""
    for path in ("/v1/route", "/v1/routes:score"):
        answer = await shared.client.post(path, content=b"{", headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert "JSON" in answer.json()["errors"][0]["detail"]


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.evil.example.org", "10.0.0.7:8321", ""])
async def test_host__another_name(shared: Running, host: str) -> None:
    """A page whose name was pointed at 127.0.0.1 sends its own name: it gets nothing, whatever the path."""
    for path in ("/v1/plan", "/healthz", "/metrics"):
        answer = await shared.client.get(path, headers={"host": host})
        assert answer.status_code == 421
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["localhost", "localhost:8321", "127.0.0.1:1", "[::1]:8321", "[::1]"])
async def test_host__names_of_this_machine(shared: Running, host: str) -> None:
    """Every way to write this machine works."""
    assert (await shared.client.get("/healthz", headers={"host": host})).status_code == 200


def test_host_name__ports_and_brackets() -> None:
    """The port is not part of the name; brackets belong to IPv6 only."""
    assert [host_name(h) for h in ("a:1", "a", "[::1]:9", "[::1]", "")] == ["a", "a", "::1", "::1", ""]


async def test_paths__unknown_and_wrong_method(shared: Running) -> None:
    """Also what the framework refuses has the one shape."""
    for answer, status in ((await shared.client.get("/v2"), 404), (await shared.client.get("/v1/route"), 405)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
