"""What answers changes while the service runs, and something goes on answering whatever breaks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from models.registry import MODEL_NAMES, Registry
from pipelines.home import Home
from pipelines.jobs import point_at
from serving.champions import without_secrets
from tests.serving.conftest import Running, an_artefact, manifest, running

pytestmark = pytest.mark.anyio
ROUTE = {"content": "c", "segment": 0}


async def ready(service: Running) -> dict[str, object]:
    found: dict[str, object] = (await service.client.get("/readyz")).json()
    return found


async def test_ready__everything_answers(shared: Running) -> None:
    """The normal case: three confirmed versions on fresh state, a plan, a registry."""
    found = (await shared.client.get("/readyz")).json()
    assert found["state"] == "ready"
    assert set(found["models"]) == {"demand", "next-content", "churn"}
    for model in found["models"].values():
        assert (model["answers"], model["version"], model["confirmed"], model["unreviewed"]) == (True, "1", True, False)
        assert model["notes"] == []
        assert model["age_seconds"] > 0
    assert found["plan"]["id"] == shared.service.plan().id
    assert found["registry"] == {"reachable": True, "message": ""} | {"checked_at": found["registry"]["checked_at"]}


async def test_empty_home__starts_and_says_what_to_run(tmp_path: Path) -> None:
    """Before the first training the service is alive, not ready, and each route names the commands."""
    home = Home(tmp_path / "empty")
    async with running(home) as service:
        assert (await service.client.get("/healthz")).json() == {"alive": True}
        answer = await service.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["state"] == "not ready"
        asked = {
            "/v1/demand": {"cells": [{"content": "c", "location": "l"}], "horizon_hours": 1},
            "/v1/next-content": {"sessions": [{"history": [], "location": "l"}]},
            "/v1/churn": {},
            "/v1/route": ROUTE | {"location": "l"},
            "/v1/routes:score": {"requests": [ROUTE | {"location": "l"}]},
        }
        commands = ("train demand", "promote next-content", "review churn", "premirror place", "premirror forecast")
        for (path, body), command in zip(asked.items(), commands, strict=True):
            refused = await service.post(path, body)
            assert refused.status_code == 503
            assert command in refused.json()["detail"]
        assert (await service.client.get("/v1/plan")).status_code == 503
    assert not home.root.exists()  # above all: no empty registry was made there


async def test_plan__a_new_one_is_taken_up(own_home: Home) -> None:
    """`plans/current` moves and the next look swaps; requests then name the new plan."""
    async with running(own_home) as service:
        old = service.service.plan()
        place = str(old.directory.locations[0])
        new = own_home.plans / "20260309T0000Z-000000000000"
        shutil.copytree(own_home.plans / "current", new)
        text = json.dumps(
            manifest(own_home) | {"id": new.name, "routing": {"mode": "literal", "weights": [1, 0, 0, 0]}}
        )
        (new / "manifest.json").write_text(text, encoding="utf-8")
        point_at(own_home.plans / "current", new)
        assert (await service.post("/v1/route", ROUTE | {"location": place})).json()["plan"] == old.id
        await service.service.look()
        answer = (await service.post("/v1/route", ROUTE | {"location": place})).json()
        assert (answer["plan"], answer["mode"]) == (new.name, "literal")
        assert (await service.client.get("/v1/plan")).json()["manifest"]["id"] == new.name


async def test_plan__a_damaged_one_changes_nothing(own_home: Home) -> None:
    """A plan that is not what its manifest says is never used; the old one answers, and /readyz says why."""
    async with running(own_home) as service:
        old = service.service.plan()
        new = own_home.plans / "20260309T0000Z-damaged"
        shutil.copytree(own_home.plans / "current", new)
        with (new / "placements.parquet").open("ab") as file:
            file.write(b"x")
        point_at(own_home.plans / "current", new)
        await service.service.look()
        assert service.service.plan() is old
        found = (await service.client.get("/readyz")).json()
        assert found["state"] == "degraded"
        assert "placements.parquet differs from its checksum" in found["plan"]["notes"][0]


async def test_plan__pages_of_placements(shared: Running) -> None:
    """Pages put together are the whole plan, in order."""
    plan = shared.service.plan()
    rows = []
    for offset in range(0, len(plan.placements) + 2, 2):
        page = (await shared.client.get(f"/v1/plan?placements=true&offset={offset}&limit=2")).json()["placements"]
        assert page["total"] == len(plan.placements)
        rows += page["rows"]
    assert rows == plan.placements.to_pylist()
    counts = (await shared.client.get("/v1/plan")).json()["counts"]
    assert counts["copies"] == len(rows) == sum(counts["copies_by_tier"].values())
    assert counts["sources_by_tier"]["1"] == 1


async def test_registry_away__while_running(own_home: Home) -> None:
    """The registry goes away: what is loaded goes on answering, unconfirmed."""
    async with running(own_home) as service:
        before = await service.post("/v1/churn", {})
        (own_home.root / "mlflow.db").rename(own_home.root / "elsewhere.db")
        await service.service.look()
        after = await service.post("/v1/churn", {})
        assert (after.status_code, after.json()) == (200, before.json())
        found = (await service.client.get("/readyz")).json()
    assert found["state"] == "degraded"
    assert found["registry"]["reachable"] is False
    for model in found["models"].values():
        assert (model["answers"], model["confirmed"]) == (True, False)
        assert "last good copy, because the registry is away" in model["notes"][0]


async def test_registry_away__at_the_start(own_home: Home) -> None:
    """A restart without the registry answers from the local copies; a model without one says what is missing."""
    shutil.rmtree(an_artefact(own_home, "next-content"), ignore_errors=True)
    (own_home.root / "mlflow.db").unlink()
    async with running(own_home) as service:
        found = (await service.client.get("/readyz")).json()
        assert [found["models"][kind]["answers"] for kind in MODEL_NAMES] == [True, False, True]
        refused = await service.post("/v1/next-content", {"sessions": [{"history": [], "location": "l"}]})
    assert refused.status_code == 503
    assert "the registry is away; no local copy" in refused.json()["detail"]


async def test_champion__moved_by_hand_is_shown(own_home: Home) -> None:
    """An alias that no decision explains is followed, because the reviewer may be right, and shown as unreviewed."""
    registry = Registry(own_home.tracking_uri, own_home.artefact_root)
    client, name = registry.client, MODEL_NAMES["churn"]
    first = client.get_model_version(name, "1")
    second = client.create_model_version(name, str(first.source), run_id=first.run_id)
    async with running(own_home) as service:
        client.set_registered_model_alias(name, "champion", second.version)
        await service.service.look()
        found = (await service.client.get("/readyz")).json()
        assert found["state"] == "degraded"
        churn = found["models"]["churn"]
        assert (churn["version"], churn["confirmed"], churn["unreviewed"]) == ("2", True, True)
        assert found["models"]["demand"]["unreviewed"] is False
        assert (await service.post("/v1/churn", {})).json()["model"]["version"] == "2"
        assert (an_artefact(own_home, "churn") / "version").read_text(encoding="utf-8") == "2\n"
        client.set_registered_model_alias(name, "champion", "1")
        await service.service.look()
        assert (await service.client.get("/readyz")).json()["state"] == "ready"


async def test_champion__a_damaged_copy_is_fetched_again(own_home: Home) -> None:
    """The local copy is a convenience; what the registry holds is the truth."""
    manifest_file = an_artefact(own_home, "churn") / "model" / "artefact.json"
    manifest_file.write_text("{", encoding="utf-8")
    async with running(own_home) as service:
        assert (await ready(service))["state"] == "ready"
    assert json.loads(manifest_file.read_text(encoding="utf-8"))["kind"] == "churn"


async def test_champion__of_another_format_leaves_the_last_good_copy(own_home: Home) -> None:
    """A version that this program cannot read changes nothing; /readyz names both formats."""
    registry = Registry(own_home.tracking_uri, own_home.artefact_root)
    client, name = registry.client, MODEL_NAMES["next-content"]
    folder = own_home.root / "old" / "artifacts" / "artefact"
    registry.download("next-content", "1", folder)
    manifest_file = folder / "model" / "artefact.json"
    old = json.loads(manifest_file.read_text(encoding="utf-8")) | {"format": 1}
    manifest_file.write_text(json.dumps(old), encoding="utf-8")
    async with running(own_home) as service:
        body = {"sessions": [{"history": [], "location": "l"}]}
        before = (await service.post("/v1/next-content", body)).json()
        second = client.create_model_version(name, (own_home.root / "old").as_uri())
        client.set_registered_model_alias(name, "champion", second.version)
        await service.service.look()
        assert (await service.post("/v1/next-content", body)).json() == before
        found = (await service.client.get("/readyz")).json()["models"]["next-content"]
    assert (found["answers"], found["version"], found["confirmed"]) == (True, "1", False)
    assert "has format 1 of kind 'next-content', but this version reads format 2" in found["notes"][0]
    assert (an_artefact(own_home, "next-content") / "version").read_text(encoding="utf-8") == "1\n"


async def test_state__without_the_forecast_job(own_home: Home) -> None:
    """Without a newer state each version answers from the one that it was trained with."""
    shutil.rmtree(own_home.state)
    async with running(own_home) as service:
        models = (await service.client.get("/readyz")).json()["models"]
        assert {model["snapshot"] for model in models.values()} == {"trained with it"}


async def test_state__a_damaged_one_is_left_out(own_home: Home) -> None:
    """A state that cannot be read is a note, not an outage."""
    (own_home.state / "counters" / "artefact.json").write_text("{", encoding="utf-8")
    async with running(own_home) as service:
        models = (await service.client.get("/readyz")).json()["models"]
    assert models["demand"]["snapshot"] == "trained with it"
    assert "the forecast job's counters cannot be read" in models["demand"]["notes"][0]
    assert models["churn"]["snapshot"] == "forecast job"


async def test_state__next_content_of_another_version_is_left_out(own_home: Home) -> None:
    """After a promotion the copy is that of the version before: the new champion answers as it was trained."""
    (own_home.state / "next-content" / "version").write_text("7\n", encoding="utf-8")
    async with running(own_home) as service:
        found = (await service.client.get("/readyz")).json()["models"]
    assert (found["next-content"]["version"], found["next-content"]["snapshot"]) == ("1", "trained with it")
    assert found["next-content"]["notes"] == []
    assert found["next-content"]["as_of"] < found["demand"]["as_of"]


async def test_state__a_damaged_copy_of_next_content_is_left_out(own_home: Home) -> None:
    """A copy that was cut short is noticed by its checksum; the champion answers as it was trained, with a note."""
    weights = own_home.state / "next-content" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    async with running(own_home) as service:
        found = (await service.client.get("/readyz")).json()["models"]["next-content"]
    assert (found["answers"], found["snapshot"]) == (True, "trained with it")
    assert "the forecast job's next-content cannot be read" in found["notes"][0]


async def test_state__a_newer_copy_of_next_content_is_taken_up(own_home: Home) -> None:
    """The forecast job replaces its state while the service runs; the next look answers from it."""
    aside = own_home.root / "aside"
    own_home.state.rename(aside)
    async with running(own_home) as service:
        before = (await service.client.get("/readyz")).json()["models"]["next-content"]
        aside.rename(own_home.state)
        await service.service.look()
        after = (await service.client.get("/readyz")).json()["models"]["next-content"]
    assert (before["snapshot"], after["snapshot"]) == ("trained with it", "forecast job")
    assert before["as_of"] < after["as_of"]


def test_without_secrets__addresses() -> None:
    """A registry's password must not reach a page or a log."""
    text = "The registry at 'http://ada:s3cret@host:5000' could not do this"
    assert without_secrets(text) == "The registry at 'http://host:5000' could not do this"
