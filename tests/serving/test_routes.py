"""Routes: what the plan and the score say, whichever door is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from placement.routing import explain, score, top_k
from serving.gate import ARROW_STREAM
from serving.router import PlanInForce
from tests.serving.conftest import Running

pytestmark = pytest.mark.anyio


@pytest.fixture
def plan(shared: Running) -> PlanInForce:
    return shared.service.plan()


@pytest.fixture
def held(plan: PlanInForce) -> list[dict[str, Any]]:
    """Requests for every held segment from every location."""
    rows = plan.placements.select(["content", "segment"]).to_pylist()
    return [{**row, "location": str(place)} for row in rows for place in plan.directory.locations]


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


async def test_route__explained_terms_sum_to_the_score(shared: Running, held: list[dict[str, Any]]) -> None:
    """An explanation that does not add up explains nothing."""
    for request in held[:10]:
        answer = (await shared.post("/v1/route", {**request, "explain": True})).json()
        assert answer["sources"]
        for source in answer["sources"]:
            terms = source["terms"]
            total = terms["latency"] + terms["bandwidth"] + terms["health"] + terms["distance"]
            assert total == pytest.approx(source["score"], abs=1e-12)
        assert [s["rank"] for s in answer["sources"]] == list(range(1, len(answer["sources"]) + 1))
        assert answer["choice"] in {s["source"] for s in answer["sources"]}
        assert len(answer["assumptions"]) == 2


async def test_route__explained_or_not_the_ranking_is_the_same(
    shared: Running, plan: PlanInForce, held: list[dict[str, Any]]
) -> None:
    """Explaining is looking, not choosing; and both equal the score's own order and rejections."""
    for number, request in enumerate(held[:10]):
        plain = (await shared.post("/v1/route", request)).json()
        told = (await shared.post("/v1/route", {**request, "explain": True})).json()
        assert [(s["source"], s["score"]) for s in plain["sources"]] == [
            (s["source"], pytest.approx(s["score"])) for s in told["sources"]
        ]
        assert plain["rejected"] is None
        one = [held[number][name] for name in ("content", "segment", "location")]
        batch = plan.directory.candidates([one[0]], [one[1]], [one[2]])
        refused = {plan.directory.source_ids[e.source]: e.rejection for e in explain(batch, 0, plan.routing)}
        assert {r["source"]: r["reason"] for r in told["rejected"]} == {s: why for s, why in refused.items() if why}


async def test_route__what_nobody_holds_comes_from_the_pops(shared: Running, plan: PlanInForce) -> None:
    """POPs hold everything, so that every request has an answer."""
    place = str(plan.directory.locations[0])
    answer = (await shared.post("/v1/route", {"content": "new", "segment": 0, "location": place})).json()
    assert {source["tier"] for source in answer["sources"]} == {1}


async def test_route__unknown_location(shared: Running) -> None:
    """A mistyped location is named, with what the plan knows."""
    answer = await shared.post("/v1/route", {"content": "c", "segment": 0, "location": "atlantis"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "There is no location 'atlantis'; the plan knows 3, such as" in answer.json()["errors"][0]["detail"]


async def test_score__arrow_and_json_agree(shared: Running, plan: PlanInForce, held: list[dict[str, Any]]) -> None:
    """Two doors, one room: the same rows, and both equal the score function's own."""
    table = pa.Table.from_pylist(held)
    arrow = await shared.client.post(
        "/v1/routes:score?k=3", content=stream(table), headers={"content-type": ARROW_STREAM}
    )
    assert arrow.headers["content-type"] == ARROW_STREAM
    assert arrow.headers["premirror-plan"] == plan.id
    rows = pa.ipc.open_stream(arrow.content).read_all().to_pylist()
    plain = (await shared.post("/v1/routes:score?k=3", {"requests": held})).json()
    assert plain["rows"] == rows
    batch = plan.directory.candidates(*(table[name].to_pylist() for name in ("content", "segment", "location")))
    best, scores = top_k(batch, score(batch, plan.routing), 3)
    request, rank = np.nonzero(best.numpy() >= 0)
    assert [row["request"] for row in rows] == request.tolist()
    assert [row["source"] for row in rows] == plan.directory.source_ids[best.numpy()[request, rank]].tolist()
    assert [row["score"] for row in rows] == scores.numpy()[request, rank].tolist()


async def test_score__dictionaries_and_other_widths(shared: Running, held: list[dict[str, Any]]) -> None:
    """Other tools write other widths of the same thing."""
    table = pa.Table.from_pylist(held)
    other = pa.table(
        {
            "location": table["location"].dictionary_encode(),
            "further": table["segment"],
            "segment": table["segment"].cast(pa.uint64()),
            "content": table["content"].cast(pa.large_string()),
        }
    )
    headers = {"content-type": ARROW_STREAM}
    answers = [
        (await shared.client.post("/v1/routes:score", content=stream(t), headers=headers)).content
        for t in (table, other)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("columns", "messages"),
    [
        ({"content": ["a"], "location": [1]}, ["one column 'segment', got 0", "Expected strings, got int64"]),
        ({"content": ["a"], "segment": [-1], "location": ["x"]}, ["Expected 0 to 2147483647, got -1 to -1."]),
        ({"content": [None, "a"], "segment": [0, 0], "location": ["x", "x"]}, ["1 values are null"]),
        ({"content": ["a" * 600], "segment": [0], "location": ["x"]}, ["An id has 600 bytes, at most 512"]),
        ({"content": ["a"], "segment": [0], "location": ["x"]}, ["There is no location 'x'"]),
    ],
)
async def test_score__bad_streams(shared: Running, columns: dict[str, list[Any]], messages: list[str]) -> None:
    """Every mistake is named with its column."""
    body = stream(pa.table(columns))
    answer = await shared.client.post("/v1/routes:score", content=body, headers={"content-type": ARROW_STREAM})
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert len(errors) == len(messages)
    for error, message in zip(errors, messages, strict=True):
        assert message in error["detail"]


@pytest.mark.parametrize("body", [b"", b"not arrow at all", b"\xff\xff\xff\xff\x10\x00\x00\x00" + bytes(8)])
async def test_score__no_stream(shared: Running, body: bytes) -> None:
    """Bytes that are no stream are the caller's mistake, not our bug."""
    answer = await shared.client.post("/v1/routes:score", content=body, headers={"content-type": ARROW_STREAM})
    assert answer.status_code == 422
    assert "The body is no Arrow IPC stream" in answer.json()["detail"]


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("encoded", [False, True])
async def test_score__compressed_streams_are_refused(shared: Running, codec: str, encoded: bool) -> None:
    """A kilobyte that unpacks to gigabytes must not get past the body limit."""
    names = pa.chunked_array([["a" * 100] * 1000])
    table = pa.table(
        {"content": names.dictionary_encode() if encoded else names, "segment": [0] * 1000, "location": ["x"] * 1000}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as out:
        out.write_table(table)
    body = sink.getvalue().to_pybytes()
    answer = await shared.client.post("/v1/routes:score", content=body, headers={"content-type": ARROW_STREAM})
    assert answer.status_code == 422
    assert "The stream is compressed" in answer.json()["detail"]


async def test_score__another_form(shared: Running) -> None:
    """Only the two forms that are documented."""
    answer = await shared.client.post("/v1/routes:score", content=b"a,b", headers={"content-type": "text/csv"})
    assert answer.status_code == 415
    assert "'text/csv'" in answer.json()["detail"]
