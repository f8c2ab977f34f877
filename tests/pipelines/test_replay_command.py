"""`premirror replay` with what users get wrong, with a saved plan, and over several processes."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.churn.forecaster import ChurnForecaster
from models.demand.forecaster import DemandForecaster
from models.events import HOUR_US
from models.tables import INSTANT
from pipelines.arena import Arena
from pipelines.champions import Champion, saved_digest
from pipelines.config import ReplayRun
from pipelines.contest import Contest
from pipelines.errors import InputError, TryLater
from pipelines.jobs import instant_us, write_result
from pipelines.replay import Backtest, backtest, comparison
from pipelines.row_runner import RowUnit, SavedModels, play_unit, rows_apart, rows_here, saved_models
from pipelines.rows import play_row
from pipelines.saved_plan import FixedPlan
from pipelines.store import write_parquet
from pipelines.typed import build
from placement.directory import SOURCES_SCHEMA
from placement.errors import ReplayError
from placement.plan import PLACEMENTS_SCHEMA
from tests.conftest import GREEDY, QUIET, TinyHome
from tests.pipelines.test_cli import Command

CONFIG: dict[str, Any] = {
    "name": "test",
    "tables": "tiny",
    "window": ["2026-03-06T12:00:00Z", "2026-03-07T00:00:00Z"],
    "every_hours": 6,
    "rows": ["cdn-alone", "top-k"],
    "planning": GREEDY,
}
NOON, EVENING = (instant_us(f"2026-03-06T{hour}:00:00Z") for hour in (12, 18))


def run_of(**changes: Any) -> ReplayRun:
    return build(ReplayRun, {**CONFIG, **changes}, source="test")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "replay.yaml"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def arena(tiny_world: TinyHome) -> Arena:
    return Arena.read(tiny_world.tables, run_of())


def written_plan(
    folder: Path, arena: Arena, at_us: int, copies: list[tuple[int, int]], *, of_tables: str = "tiny", **wrong: Any
) -> Path:
    """A plan's folder with copies (content code, source code) of segment 0, and with columns replaced by wrong ones."""
    scene = arena.scene
    content, source = (np.array(column, dtype=np.int64) for column in zip(*copies, strict=True))
    held: dict[str, Any] = {
        "content": scene.catalogue.contents[content],
        "segment": np.zeros(len(content), dtype=np.int32),
        "source": scene.source[source],
        "tier": np.full(len(content), 2, dtype=np.int8),
        "bytes": scene.catalogue.sizes[scene.catalogue.first_segment[content]],
        "moved": np.ones(len(content), dtype=np.bool_),
    }
    n = len(scene.source)
    sources: dict[str, Any] = {field.name: pa.nulls(n, field.type) for field in SOURCES_SCHEMA}
    sources |= {"source": scene.source, "eligible": np.ones(n, dtype=np.bool_), "survival": np.full(n, 0.9)}
    ranked: dict[str, Any] = {
        "content": held["content"],
        "segment": held["segment"],
        "location": wrong.pop("location", scene.locations[scene.location[source]]),
    }
    tables = {
        "placements": pa.table({**held, **wrong}, schema=PLACEMENTS_SCHEMA),
        "sources": pa.table(sources, schema=SOURCES_SCHEMA),
        "ranked": pa.table(ranked),
    }
    folder.mkdir(parents=True)
    write_result(folder, tables, {"id": folder.name, "at_us": at_us, "tables": of_tables, "status": "feasible"})
    return folder


def most_asked(arena: Arena) -> tuple[int, int]:
    """The content asked for most after 18:00, and a node at the place that asks."""
    late = arena.stretch.requests.reader().between(EVENING, arena.stretch.end_us)  # type: ignore[union-attr]
    catalogue, scene = arena.scene.catalogue, arena.scene
    first = np.isin(late.segment, catalogue.first_segment)
    up = arena.world.uptime.up_us(EVENING, arena.stretch.end_us)
    node = scene.n_pops + int(np.argmax(up[scene.nodes]))
    asked = catalogue.content_of_segment[late.segment[first & (late.location == scene.location[node])]]
    return int(np.bincount(asked).argmax()), node


def test_plan__is_played_from_its_instant_beside_the_rows(arena: Arena, tmp_path: Path) -> None:
    """What comes before the plan is served by tier 1, counted and said; then its copies serve, each pushed once."""
    content, node = most_asked(arena)
    folder = written_plan(tmp_path / "plans" / "late", arena, EVENING, [(content, node)])
    none: Any = None
    plan = FixedPlan.read(folder, arena, run_of())
    result = play_row("plan", Contest(arena, run_of(), none, none, watch=lambda *_: None, plan=plan))
    early = sum(len(part.between(NOON, EVENING)) for part in arena.stretch.hours())
    assert result.notes == (
        f"Plan late starts at 2026-03-06T18:00:00Z: the {early:,} requests before, of {arena.stretch.n_requests:,}, are "
        "served by tier 1.",
    )
    assert result.tally.tier_bytes[:6, :, 1:].sum() == 0 < result.tally.mesh_bytes
    size = int(arena.scene.catalogue.sizes[arena.scene.catalogue.first_segment[content]])
    assert result.tally.pushed_bytes.sum() == size == result.plans[0].bytes_moved


def test_plan__in_force_since_before_starts_with_the_replay(arena: Arena, tmp_path: Path) -> None:
    """Its copies are pushed at the start: every row begins with empty devices. No note, because nothing came before."""
    folder = written_plan(tmp_path / "old", arena, NOON - HOUR_US, [most_asked(arena)])
    plan = FixedPlan.read(folder, arena, run_of())
    assert plan.holdings.start_us == arena.stretch.start_us
    none: Any = None
    assert play_row("plan", Contest(arena, run_of(), none, none, watch=lambda *_: None, plan=plan)).notes == ()


def test_plan__that_does_not_fit_is_refused_in_words(arena: Arena, tmp_path: Path) -> None:
    """Another size of segment, a plan of tomorrow, and a device without storage."""
    copy = most_asked(arena)
    with pytest.raises(InputError, match=r"cut otherwise, such as segment 0 of '\S+': 7 bytes in the plan"):
        FixedPlan.read(written_plan(tmp_path / "sizes", arena, NOON, [copy], bytes=[7]), arena, run_of())
    with pytest.raises(InputError, match="cut otherwise, such as segment 5000"):
        FixedPlan.read(written_plan(tmp_path / "beyond", arena, NOON, [copy], segment=[5000]), arena, run_of())
    late = written_plan(tmp_path / "late", arena, arena.stretch.end_us, [copy])
    with pytest.raises(InputError, match="Plan late starts at 2026-03-07T00:00:00Z, but the replay ends at 2026-03-07"):
        FixedPlan.read(late, arena, run_of())
    full = replace(arena, world=replace(arena.world, storage_bytes=np.zeros(len(arena.scene.source), dtype=np.int64)))
    with pytest.raises(ReplayError, match=f"{arena.scene.source[copy[1]]} would hold"):
        FixedPlan.read(written_plan(tmp_path / "full", arena, NOON, [copy]), full, run_of())


def test_plan__of_another_world_names_the_mismatch(
    command: Command, tiny_world: TinyHome, arena: Arena, config: str, tmp_path: Path
) -> None:
    """Both names of tables, and what the plan's ids are that nobody knows; all kinds at once, before a model is read."""
    ids = {"content": ["a"], "source": ["n0"], "location": ["here"]}
    other = written_plan(tmp_path / "placed", arena, NOON, [(0, arena.scene.n_pops)], of_tables="hand", **ids)
    said = command.refused(tiny_world.home.root, "replay", "-c", config, "--plan", str(other))
    assert "3 mistakes in plan placed of the tables 'hand', which cannot be played on the tables 'tiny'" in said
    assert "1 of its 1 sources are not there, such as 'n0'." in said
    assert "contents are not there, such as 'a'" in said
    assert "1 of its 1 locations are not there, such as 'here'." in said
    said = command.refused(tiny_world.home.root, "replay", "-c", config, "--plan", str(tmp_path))
    assert "holds no readable result" in said


def test_window__outside_the_data_is_refused(command: Command, tiny_world: TinyHome, config: str) -> None:
    """An empty window proves nothing, and nothing of it is written."""
    window = 'window=["2027-03-06T12:00:00Z", "2027-03-07T00:00:00Z"]'
    said = command.refused(tiny_world.home.root, "replay", "-c", config, "--set", window)
    assert "no request lies in the window 2027-03-06T12:00:00Z to 2027-03-07T00:00:00Z; choose days of the data" in said


def test_trace__in_disorder_is_named_with_row_and_instants(
    command: Command, writable_world: TinyHome, config: str
) -> None:
    """Ingest sorts; a file that somebody wrote over is refused before anything is played."""
    [file] = (writable_world.tables / "requests" / "day=2026-03-06").glob("*.parquet")
    table = pq.read_table(file, partitioning=None)
    ts = table["ts"].cast(pa.int64()).to_numpy()
    turned = ts.copy()
    turned[[-1, -2]] = ts[-1] - 5 * 60_000_000, ts[-1]
    write_parquet(file, table.set_column(table.column_names.index("ts"), "ts", pa.array(turned).cast(INSTANT)))
    said = command.refused(writable_world.home.root, "replay", "-c", config)
    assert f"is not in time order: row {len(ts) - 1} is of 2026-03-06T23:" in said
    assert "Run `premirror ingest` again" in said


def test_day__without_requests_is_played(operated_home: TinyHome) -> None:
    """A hole in the log is hours of zeros: plans are made, devices come and go, nothing is asked for."""
    shutil.rmtree(operated_home.tables / "requests" / "day=2026-03-07")
    run = run_of(window=["2026-03-06T12:00:00Z", "2026-03-08T00:00:00Z"], every_hours=12)
    _, rule = backtest(run, operated_home.home, QUIET).results
    assert len([note for note in rule.plans if not note.refreshed]) == 3
    assert rule.tally.n_hours == 36
    assert rule.tally.requests[12:].sum() == 0 < rule.tally.requests[:12].sum()


def test_processes__do_not_change_the_numbers(tiny_home: TinyHome, arena: Arena) -> None:
    """Here or in two processes that read tables and models themselves: the same bytes of the comparison, in order."""
    run = run_of(rows=["lru-paid", "ours"])
    demand = Champion(DemandForecaster.load(tiny_home.artefact("demand")), "none")
    churn = Champion(ChurnForecaster.load(tiny_home.artefact("churn")), "none")
    here = rows_here(run.rows, arena, run, (demand.model, churn.model), None, QUIET)
    with ExitStack() as keep:
        models = saved_models(tiny_home.home, (demand, churn), keep)
        units = [RowUnit(row, run, tiny_home.tables, models, None) for row in run.rows]
        apart = rows_apart(units, 2, QUIET)
    assert not models.demand.exists()
    written = [
        json.dumps(comparison(Backtest(run, arena, [one.result for one in played], demand, churn, "", {})))
        for played in (here, apart)
    ]
    assert written[0] == written[1]
    assert [one.result.row for one in apart] == list(run.rows)


def test_models__that_changed_meanwhile_are_noticed(tiny_home: TinyHome) -> None:
    """A champion that is fetched while rows are played would make one comparison of two models."""
    folders = [tiny_home.artefact(kind) for kind in ("demand", "churn")]
    models = SavedModels(folders[0], folders[1], ("another", saved_digest(folders[1])))
    with pytest.raises(TryLater, match="A champion changed while the replay began"):
        play_unit(RowUnit("cdn-alone", run_of(), tiny_home.tables, models, None))
