"""What `build_world` leaves on disk."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.newsroom import NewsroomSettings
from pipelines.store import read_availability, read_nodes, read_request_log, read_world
from pipelines.synthetic import SyntheticSettings
from pipelines.typed import build
from pipelines.uptime import OnOffSettings
from pipelines.world import build_world
from pipelines.yaml_file import parse

CONFIGS = Path(__file__).parents[2] / "configs" / "world"
TINY = SyntheticSettings(
    name="tiny",
    days=2,
    train_days=1,
    history_days=2,
    n_contents=40,
    requests=1500,
    home=OnOffSettings(nodes=6),
    phone=OnOffSettings(nodes=4, on_scale_hours=3, evening_share=0.5, unplugged_share=0.3, unplugged_scale=0.3),
)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in files}


def test_build_world__same_seed_same_bytes(tmp_path: Path) -> None:
    """Two builds agree byte by byte; another seed changes the requests."""
    build_world(TINY, out=tmp_path / "one")
    build_world(TINY, out=tmp_path / "two")
    build_world(replace(TINY, seed=8), out=tmp_path / "other")
    one = digests(tmp_path / "one")
    assert one == digests(tmp_path / "two")
    assert one["requests/day=2026-03-02/part-0.parquet"] != digests(tmp_path / "other").get(
        "requests/day=2026-03-02/part-0.parquet"
    )


def test_build_world__can_be_read_back(tmp_path: Path) -> None:
    """The store reads every table, the truth lies beside, and world.json says what was returned."""
    world = build_world(TINY, out=tmp_path / "w")
    assert read_world(tmp_path / "w") == json.loads(json.dumps(world))
    log = read_request_log(tmp_path / "w")
    assert len(log) == world["figures"]["requests"]
    assert len(read_nodes(tmp_path / "w")) == 10
    assert len(read_availability(tmp_path / "w")) > 10
    for name in world["truth"]["tables"]:
        assert len(pq.read_table(tmp_path / "w" / name)) >= 0
    assert "truth/transitions.parquet" in world["truth"]["tables"]


def test_build_world__replaces_what_was_there(tmp_path: Path) -> None:
    """A smaller world leaves no day of the larger one behind."""
    build_world(TINY, out=tmp_path / "w")
    build_world(replace(TINY, days=1), out=tmp_path / "w")
    assert [p.name for p in (tmp_path / "w" / "requests").iterdir()] == ["day=2026-03-02"]


@pytest.mark.parametrize(("name", "kind"), [("small", SyntheticSettings), ("newsroom", NewsroomSettings)])
def test_configs__hold_the_documented_defaults(name: str, kind: type[SyntheticSettings | NewsroomSettings]) -> None:
    """The shipped files load, name their schema first, and repeat the defaults that the classes document."""
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../schema/world.json\n")
    assert build(kind, parse(text, name), source=name) == kind()
