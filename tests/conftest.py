"""A tiny world taken through the first half of the loop once, for every test that needs real tables and models."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.events import DAY_US
from pipelines.config import load
from pipelines.console import Console
from pipelines.home import Home

NAME = "tiny"
QUIET = Console(quiet=True)
START_US = 1_772_409_600_000_000
"""2026-03-02T00:00Z, the start of the tiny world."""

WORLD = """\
kind: synthetic
name: tiny
seed: 3
start: "2026-03-02"
days: 6
train_days: 3
history_days: 4
n_locations: 3
n_pops: 1
n_contents: 60
requests: 6000
users_per_location: 40
telemetry_minutes: 720
truth_intensity: false
storage_level: ample
home: {nodes: 12, on_scale_hours: 12.0}
phone: {nodes: 8, on_scale_hours: 6.0, off_median_hours: 3.0}
sizes: {video_share: 0.3, video_median_bytes: 20000000}
"""
INGEST = "{name: tiny, world: tiny}\n"
WINDOWS = """\
data: {tables: tiny}
windows:
  train: ["2026-03-02T00:00:00Z", "2026-03-05T00:00:00Z"]
  validation: ["2026-03-05T00:00:00Z", "2026-03-06T12:00:00Z"]
  test: ["2026-03-06T12:00:00Z", "2026-03-08T00:00:00Z"]
"""
DEMAND = (
    WINDOWS
    + """\
model:
  horizons_hours: [1, 6]
  residual_caps: [3.0, 1.5]
  origin_every_hours: 6
  max_cells_per_origin: 120
  hidden_sizes: [8]
  max_epochs: 1
  members: 1
  boosting_iterations: 4
test_every_hours: 6
boosting_iterations: 0
"""
)
NEXT_CONTENT = (
    WINDOWS.replace("tables: tiny", "tables: tiny, features: [segment]")
    + """\
model:
  lesson_events: 300
  validation_events: 200
  shortlist: 40
  epochs: 1
  hidden_size: 8
  iterations: 20
  sequence: {size: 8, features: 2}
  refresh: {refresh_minutes: 120}
test_events: 60
peers: [order1, linear_mixture, evidence_mixture]
"""
)
CHURN = (
    WINDOWS
    + """\
model: {networks: 1, epochs: 1, boosting_iterations: 0, hidden_size: 8, maximum_rows: 2000}
test_every_hours: 6
"""
)
GREEDY = {
    "placement": {
        "whole_programme_arcs": 0,
        "exact_flow_arcs": 0,
        "bound_iterations": 10,
        "dive_rounds": 3,
        "dive_passes": 5,
        "restock_arc_visits": 0,
    }
}
"""Planning without the solver's minutes: the greedy plan and a short proof of its bound."""
PLACEMENT = json.dumps({"tables": "tiny", "planning": GREEDY, "trailing": {"tolerance": 0.2}})
"""A network of one pass over a tiny world is as good as its prior: by chance it is the worse one every other hour."""
CONFIGS = {
    "world": WORLD,
    "ingest": INGEST,
    "demand": DEMAND,
    "next-content": NEXT_CONTENT,
    "churn": CHURN,
    "placement": PLACEMENT,
}
MODELS = ("demand", "next-content", "churn")
END_US = START_US + 6 * DAY_US


@dataclass(frozen=True)
class TinyHome:
    """A home folder with its configuration files.

    World: 6 days from 2026-03-02, 3 locations, 1 POP, 20 nodes, 60 contents, about 6,000 requests. The window of the
    forecasts starts at its end, 2026-03-08T00:00Z.
    """

    home: Home
    configs: Path

    def config_file(self, kind: str) -> Path:
        return self.configs / f"{kind}.yaml"

    def config(self, kind: str, *assignments: str) -> Any:
        return load(kind, self.config_file(kind), list(assignments))

    @property
    def tables(self) -> Path:
        return self.home.tables(NAME)

    def artefact(self, kind: str) -> Path:
        """The folder of the registered candidate's weights, fetched from the registry once."""
        from models.registry import Registry

        folder = self.home.root.with_name(f"fetched-{kind}")
        if not folder.exists():
            Registry(self.home.tracking_uri, self.home.artefact_root).download(kind, "candidate", folder)
        return folder / "model"


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """A developer's own registry or home must neither be written to nor decide a test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREMIRROR_HOME", "PREMIRROR_RECORD_KEY"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyHome:
    """The tiny world built and ingested, without models. Read only: copy it before writing."""
    from pipelines.steps import ingest_step, world_step

    root = tmp_path_factory.mktemp("tiny")
    configs = root / "configs"
    configs.mkdir()
    for kind, text in CONFIGS.items():
        (configs / f"{kind}.yaml").write_text(text, encoding="utf-8")
    tiny = TinyHome(Home(root / "world-home").create(), configs)
    world_step(tiny.config("world"), tiny.home, QUIET)
    ingest_step(tiny.config("ingest"), tiny.home, QUIET)
    return tiny


@pytest.fixture(scope="session")
def tiny_home(tiny_world: TinyHome) -> TinyHome:
    """The tiny world with one registered candidate of each model. Read only: use `writable_home` to write."""
    from pipelines.train import train_step

    tiny = TinyHome(Home(tiny_world.home.root.with_name("home")), tiny_world.configs)
    shutil.copytree(tiny_world.home.root, tiny.home.root)
    for kind in MODELS:
        train_step(kind, tiny.config(kind), tiny.home, QUIET)
    return tiny


def copied(original: TinyHome, to: Path) -> TinyHome:
    """A home of its own; artefacts of models that are registered already stay where they are and are only read."""
    shutil.copytree(original.home.root, to, ignore=shutil.ignore_patterns("mlflow", "worlds"))
    return TinyHome(Home(to), original.configs)


@pytest.fixture
def writable_home(tiny_home: TinyHome, tmp_path: Path) -> TinyHome:
    """A copy of `tiny_home` for tests that write."""
    return copied(tiny_home, tmp_path / "home")


@pytest.fixture
def writable_world(tiny_world: TinyHome, tmp_path: Path) -> TinyHome:
    """A copy of `tiny_world` (tables, no models) for tests that write."""
    return copied(tiny_world, tmp_path / "home")


@pytest.fixture(scope="session")
def home_with_champions(tiny_home: TinyHome) -> TinyHome:
    """`tiny_home` after every candidate was promoted by override. Read only: use `operated_home` to write."""
    from pipelines.review import promote_step

    tiny = copied(tiny_home, tiny_home.home.root.with_name("champions"))
    for kind in MODELS:
        promote_step(kind, tiny.home, version="candidate", approver="ada", reason="fixture", override=True)
    return tiny


@pytest.fixture
def operated_home(home_with_champions: TinyHome, tmp_path: Path) -> TinyHome:
    """A copy of `home_with_champions` for tests that write."""
    return copied(home_with_champions, tmp_path / "home")
