"""The configuration files: one frozen class a kind; `configs/README.md` and the JSON Schema list every key.

| kind | files | command |
|---|---|---|
| world | configs/world | world |
| ingest | configs/ingest | ingest |
| demand, next-content, churn | configs/demand, configs/next_content, configs/churn | train, evaluate, review; update |
| placement | configs/placement | forecast, place, rebalance, route |
| replay | configs/replay | replay, what-if |
| demo | configs/demo | demo |
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from models.churn.operation import ChurnUpdateSettings, RecalibrationSettings
from models.churn.settings import ChurnSettings
from models.demand.operation import DemandUpdateSettings, TrailingSettings
from models.demand.settings import DemandSettings
from models.next_content.settings import NextContentSettings
from pipelines.charging import ChargingSettings
from pipelines.errors import ConfigError, OutputError
from pipelines.faults import Fault, outside
from pipelines.ingest import IngestSettings
from pipelines.newsroom import NewsroomSettings
from pipelines.planning import PlanningSettings
from pipelines.row_names import DEFAULT_ROWS, Row
from pipelines.synthetic import SyntheticSettings
from pipelines.typed import build, json_schema, override
from pipelines.what_if_settings import WhatIfSettings
from pipelines.yaml_file import read
from placement.reactive import ReactiveSettings
from placement.rebalance.settings import RebalanceSettings
from placement.refresh import RefreshSettings
from placement.replay import ReplaySettings
from placement.routing import RoutingSettings
from placement.stop_loss import StopLossSettings

Interval = tuple[AwareDatetime, AwareDatetime]
_READ_ANYWAY = ("ts", "user", "session", "content", "location", "available_at")
World = Annotated[SyntheticSettings | NewsroomSettings | ChargingSettings, Field(discriminator="kind")]


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970 UTC, exactly."""
    whole = int(instant.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + instant.microsecond


@dataclass(frozen=True)
class DataSource:
    """Where a run reads its tables."""

    tables: str = ""
    """Name of a tables folder under the home folder, as `ingest` wrote it."""
    requests: str = ""
    """Instead: path of a folder with canonical tables, or of one Parquet file of requests."""

    def __post_init__(self) -> None:
        if bool(self.tables) == bool(self.requests):
            raise ValueError("Expected exactly one of data.tables and data.requests.")


@dataclass(frozen=True)
class NextContentSource(DataSource):
    """Where a run of the next-content model reads its tables, and which columns of the requests it uses."""

    features: tuple[str, ...] = ()
    """Categorical columns of the request table that describe the device or session when it asks, e.g. device_group."""
    event_features: tuple[str, ...] = ()
    """Those known only once a request was made, e.g. referrer; the model sees that of the session's previous request."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [*self.features, *self.event_features]
        taken = sorted({name for name in named if name in _READ_ANYWAY})
        twice = sorted({name for name in named if named.count(name) > 1})
        problems = []
        if taken:
            problems.append(
                f"Expected data.features to name further columns, got {taken!r}, which the model reads anyway."
            )
        if twice:
            problems.append(
                f"Expected each column once in data.features and data.event_features, got twice: {twice!r}."
            )
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class Windows:
    """Half-open intervals of time with zone, in order: nothing of a later one is visible in an earlier one."""

    train: Interval
    """Requests and sessions that models learn from, [start, end)."""
    validation: Interval
    """Where epochs, weights, biases and calibration are chosen, [start, end)."""
    test: Interval
    """Where methods are compared; nothing is tuned here, [start, end)."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected windows.{name} to end after it starts, got {[str(t) for t in getattr(self, name)]}."
            for name in ("train", "validation", "test")
            if getattr(self, name)[1] <= getattr(self, name)[0]
        ]
        for before, after in (("train", "validation"), ("validation", "test")):
            if getattr(self, after)[0] < getattr(self, before)[1]:
                problems.append(f"Expected windows.{after} to start at or after the end of windows.{before}.")
        if problems:
            raise ValueError(" ".join(problems))

    def in_order(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Train, validation and test in microseconds since 1970."""
        return self.us("train"), self.us("validation"), self.us("test")

    def us(self, name: Literal["train", "validation", "test"]) -> tuple[int, int]:
        start, end = getattr(self, name)
        return microseconds(start), microseconds(end)


@dataclass(frozen=True)
class IngestRun:
    """What to ingest, and under which name."""

    name: str
    """Name of the tables folder under the home folder."""
    world: str = ""
    """Name of a built world to take every table from."""
    read: IngestSettings | None = None
    """Inputs, tables and strictness; not needed where `world` gives everything."""
    processes: int = 1
    """Processes that count requests; 0 for one a core. The result is the same."""

    def __post_init__(self) -> None:
        problems = []
        if not self.world and self.read is None:
            problems.append("Expected `world` or `read`, got neither.")
        if self.processes < 0:
            problems.append(f"Expected processes >= 0, got {self.processes!r}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class GateSettings:
    """When a candidate may become champion."""

    metric: str = ""
    """Metric that decides; empty for `nll`, the log loss."""
    tolerance: float = 0.0
    """Relative loss against the opponent that is still accepted, in [0, 1)."""
    guards: dict[str, float] = field(default_factory=dict)
    """Further metrics and the relative loss that each tolerates."""

    def __post_init__(self) -> None:
        limits = {"tolerance": self.tolerance} | {f"guards.{name}": limit for name, limit in self.guards.items()}
        problems = [f"Expected {name} in [0, 1), got {v!r}." for name, v in limits.items() if not 0 <= v < 1]
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class DemandRun:
    """Training, evaluation and review of the demand model."""

    data: DataSource
    """Tables."""
    windows: Windows
    """Train, validation and test."""
    model: DemandSettings = field(default_factory=DemandSettings)
    """The model."""
    seed: int = 0
    """Seed of everything random."""
    test_every_hours: float = 3.0
    """Distance of the origins at which methods are compared, in hours."""
    test_window_hours: float | None = 24.0
    """Length of the parts of the test window that get rows of their own, in hours; null leaves the window whole."""
    boosting_iterations: int = 200
    """Most trees of the gradient boosting among the baselines; 0 leaves it out. It costs most of the evaluation's time."""
    gate: GateSettings = field(default_factory=GateSettings)
    """When a candidate may become champion."""
    update: DemandUpdateSettings = field(default_factory=DemandUpdateSettings)
    """How `premirror update demand` brings the champion up to date."""

    def __post_init__(self) -> None:
        if self.test_window_hours is not None and not self.test_window_hours > 0:
            raise ValueError(f"Expected test_window_hours > 0 or null, got {self.test_window_hours!r}.")


Peer = Literal[
    "popularity", "local", "newest", "order1", "skip", "order2", "witten_bell", "linear_mixture", "evidence_mixture",
    "v_sknn", "item_knn", "gru", "gru4rec", "sasrec",
]  # fmt: skip


@dataclass(frozen=True)
class NextContentRun:
    """Training, evaluation and review of the next-content model."""

    data: NextContentSource
    """Tables, and which columns of the requests describe them."""
    windows: Windows
    """Train, validation and test."""
    model: NextContentSettings = field(default_factory=NextContentSettings)
    """The model."""
    seed: int = 0
    """Seed of everything random."""
    test_events: int = 20_000
    """Requests of each part of the test window that are ranked, drawn at random."""
    test_window_hours: float | None = 24.0
    """Length of these parts, in hours: they show how a model ages; null leaves the window whole."""
    peers: tuple[Peer, ...] = ("popularity", "local", "order1", "witten_bell", "linear_mixture", "evidence_mixture")
    """What the model is compared with: single experts (one for each half-life), static mixtures of them, nearest
    neighbours (v_sknn, item_knn), sequence networks (gru, gru4rec, sasrec; each costs as much as a training)."""
    seeds: int = 1
    """Trainings that `evaluate` repeats with seeds from `seed` on; a review compares versions as they are."""
    gate: GateSettings = field(default_factory=GateSettings)
    """When a candidate may become champion."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} >= 1, got {getattr(self, name)!r}."
            for name in ("test_events", "seeds")
            if getattr(self, name) < 1
        ]
        if self.test_window_hours is not None and not self.test_window_hours > 0:
            problems.append(f"Expected test_window_hours > 0 or null, got {self.test_window_hours!r}.")
        if not self.peers or len(set(self.peers)) != len(self.peers):
            problems.append(f"Expected peers to name each method at most once, and one at least; got {self.peers!r}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class ChurnRun:
    """Training, evaluation and review of the churn model."""

    data: DataSource
    """Tables."""
    windows: Windows
    """Train, validation and test."""
    model: ChurnSettings = field(default_factory=ChurnSettings)
    """The model."""
    seed: int = 0
    """Seed of everything random."""
    test_every_hours: float = 3.0
    """Distance of the origins at which methods are compared, in hours."""
    gate: GateSettings = field(default_factory=GateSettings)
    """When a candidate may become champion."""
    update: ChurnUpdateSettings = field(default_factory=ChurnUpdateSettings)
    """How `premirror update churn` brings the champion up to date."""
    recalibration: RecalibrationSettings = field(default_factory=RecalibrationSettings)
    """How its calibration is fitted then."""


@dataclass(frozen=True)
class PlacementRun:
    """Forecast, place, rebalance and route for one window."""

    tables: str
    """Name of a tables folder under the home folder."""
    planning: PlanningSettings = field(default_factory=PlanningSettings)
    """Horizon, tiers, prices and limits."""
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    """How sources are scored."""
    seed: int = 0
    """Seed of the solver."""
    on_fallback: Literal["warn", "strict"] = "warn"
    """What a plan made with a fallback means: exit 0 with a warning, or exit 4."""
    maximum_age_hours: float = 24.0
    """Data older than this at the planning instant count as late: the plan is marked as fallback."""
    trailing: TrailingSettings = field(default_factory=TrailingSettings)
    """When the demand model's own prior answers in its place."""
    recalibration: RecalibrationSettings = field(default_factory=RecalibrationSettings)
    """How the churn model is put right on what has happened since it was trained."""
    rebalance: RebalanceSettings = field(default_factory=RebalanceSettings)
    """How patient, thrifty and steady `premirror rebalance` is between two placements."""
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    """How `premirror refresh` follows demand between two placements; `every_minutes` is for who schedules it."""


@dataclass(frozen=True)
class ReplayRun:
    """A rolling backtest with every row side by side."""

    name: str
    """Name of the run; part of its report's file name."""
    tables: str
    """Name of a tables folder under the home folder."""
    window: Interval
    """What is replayed, [start, end)."""
    every_hours: float = 1.0
    """Distance of planning instants, in hours."""
    rows: tuple[Row, ...] = DEFAULT_ROWS
    """Rows of the comparison."""
    planning: PlanningSettings = field(default_factory=PlanningSettings)
    """Horizon, tiers, prices and limits of every planned row."""
    clairvoyant_hours: tuple[float, ...] = (6.0, 24.0)
    """How far ahead the rows with the truth in hand plan, in hours; the best of these counts. One at least should be 24."""
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    """How plans follow demand between two planning instants."""
    reactive: ReactiveSettings = field(default_factory=ReactiveSettings)
    """What devices keep of what passes through, beside the plan."""
    push_minimum_requests: float = 1.25
    """Requests expected over the horizon from which the popularity rules push a segment."""
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    """How sources are scored."""
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    """How the mesh behaves."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong meanwhile, one after another or at once; every row meets the same."""
    segment_seconds: float = 10.0
    """Time between the requests for two segments of one view, in seconds."""
    seed: int = 0
    """Seed of the router's and the solver's choices."""
    trailing: TrailingSettings = field(default_factory=TrailingSettings)
    """When the demand model's own prior answers in its place."""
    stop_loss: StopLossSettings | None = None
    """When nothing more is pushed to a location that costs more than it saves; null only reports which would be."""
    minimum_users: int = 20
    """Places and cells behind which fewer users stand are not shown."""
    currency: str = "$"
    """Sign before amounts of money."""
    what_if: WhatIfSettings = field(default_factory=WhatIfSettings)
    """Which other devices `premirror what-if` tries."""

    def __post_init__(self) -> None:
        problems = []
        if self.window[1] <= self.window[0]:
            problems.append("Expected window to end after it starts.")
        problems += outside(self.faults, self.window)
        if not self.clairvoyant_hours or min(self.clairvoyant_hours) <= 0:
            problems.append(f"Expected clairvoyant_hours > 0, one at least, got {self.clairvoyant_hours!r}.")
        for name in ("every_hours", "segment_seconds"):
            if not getattr(self, name) > 0:
                problems.append(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        if not self.rows or len(set(self.rows)) != len(self.rows):
            problems.append(f"Expected rows to name each method at most once, and one at least; got {self.rows!r}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class DemoRun:
    """The whole loop: a configuration file for each step, relative to this file's folder."""

    world: str
    """World to build."""
    ingest: str
    """What to ingest."""
    demand: str
    """Demand model."""
    next_content: str
    """Next-content model."""
    churn: str
    """Churn model."""
    placement: str
    """Forecast and placement."""
    replay: str
    """Backtest."""
    approver: str = "demo"
    """Who promotes the candidates that pass their gate; recorded as claimed."""


KINDS: dict[str, Any] = {
    "world": World,
    "ingest": IngestRun,
    "demand": DemandRun,
    "next-content": NextContentRun,
    "churn": ChurnRun,
    "placement": PlacementRun,
    "replay": ReplayRun,
    "demo": DemoRun,
}


def load(kind: str, path: Path, assignments: list[str]) -> Any:
    """A configuration file as its typed object.

    Raises:
        ConfigError: every mistake of the file and of the overrides at once.
    """
    return build(KINDS[kind], override(read(path), assignments), source=str(path))


def schema_step(kind: str, out: Path | None) -> str:
    """The JSON Schema of one kind or of all: as text, or as one file a kind in `out`."""
    if kind and kind not in KINDS:
        raise ConfigError([f"{kind!r} is no kind of configuration; choose {', '.join(KINDS)}."])
    chosen = [kind] if kind else list(KINDS)
    schemas = {name: json_schema(KINDS[name]) for name in chosen}
    if out is None:
        return json.dumps(schemas[kind] if kind else schemas, indent=1, sort_keys=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, schema in schemas.items():
            (out / f"{name}.json").write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write the schemas to {out}: {error.strerror}.") from error
    return f"Wrote {len(schemas)} schemas to {out}."
