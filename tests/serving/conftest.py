"""A whole small home, made once by the real steps, and ways to ask the service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from models.registry import MODEL_NAMES
from pipelines.forecast import forecast_step
from pipelines.home import Home
from pipelines.place import place_step
from pipelines.review import promote_step
from serving.__main__ import listen
from serving.app import create_app
from serving.service import Service
from serving.settings import ServiceSettings
from tests.conftest import QUIET, TinyHome


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for all tests, so that a service can be shared."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_registry_of_another_home() -> Iterator[None]:
    """MLflow puts the address that it was given last into the environment, where the next home would find it."""
    forget_registry()
    yield
    forget_registry()


def forget_registry() -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def home(tiny_home: TinyHome, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The tiny world with three champions, a forecast and a plan from the end of the world on.

    The models were trained until a day and a half earlier, so the state of the forecast job is the newer one. Tests do
    not write here: they copy it.
    """
    home = _copy(tiny_home.home, tmp_path_factory.mktemp("serving") / "home")
    forget_registry()
    for kind in MODEL_NAMES:
        promote_step(kind, home, version="candidate", approver="ada", reason="fixture", override=True)
    placement = tiny_home.config("placement")
    forecast_step(placement, home, QUIET, at="")
    place_step(placement, home, QUIET, at="", dry_run=False)
    forget_registry()
    return home


@pytest.fixture
def own_home(home: Home, tmp_path: Path) -> Home:
    """A copy of the home to change; its registry is a copy too, whose artefacts lie in the original."""
    return _copy(home, tmp_path / "home")


def _copy(home: Home, to: Path) -> Home:
    shutil.copytree(home.root, to, symlinks=True, ignore=shutil.ignore_patterns("worlds", "mlflow"))
    return Home(to)


@dataclass(frozen=True)
class Running:
    """A service that runs in this event loop, and a client that calls it without sockets."""

    service: Service
    client: httpx.AsyncClient

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return await self.client.post(path, json=body, **options)


@contextlib.asynccontextmanager
async def running(home: Home, **limits: Any) -> AsyncIterator[Running]:
    """The application after its first look; looks happen only when a test asks for them."""
    settings = replace(ServiceSettings(home=home.root, check_every_seconds=3600), **limits)
    app = create_app(settings)
    service: Service = app.state.service
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        while not service.state.checked_us:
            await asyncio.sleep(0.01)
        yield Running(service, client)


@dataclass(frozen=True)
class Listening:
    """A service behind a real socket."""

    url: str
    service: Service


@pytest.fixture(scope="session")
async def shared(home: Home, anyio_backend: str) -> AsyncIterator[Running]:
    """One service for all tests that only ask."""
    async with running(home) as service:
        yield service


@contextlib.contextmanager
def listening_on(home: Home) -> Iterator[Listening]:
    """The service on a free port of the loopback address, in a thread, looking twice a second."""
    app = create_app(ServiceSettings(home=home.root, check_every_seconds=0.5))
    bound = listen("127.0.0.1", 0)
    bound.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    with httpx.Client(base_url=url) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
    yield Listening(url, app.state.service)
    server.should_exit = True
    thread.join(20)
    bound.close()


@pytest.fixture(scope="session")
def listening(home: Home) -> Iterator[Listening]:
    """One service behind a real socket for all tests that only ask."""
    with listening_on(home) as found:
        yield found


def an_artefact(home: Home, kind: str) -> Path:
    """The local copy of a champion."""
    return home.local_model(MODEL_NAMES[kind])


def manifest(home: Home) -> dict[str, Any]:
    """The manifest of the plan in force."""
    found: dict[str, Any] = json.loads((home.plans / "current" / "manifest.json").read_text(encoding="utf-8"))
    return found
