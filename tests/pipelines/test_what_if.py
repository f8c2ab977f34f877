"""What if: nested consent, storage and uplink as told, and the same answers whoever plays them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.arena import Arena
from pipelines.config import ReplayRun
from pipelines.errors import ConfigError
from pipelines.runner import PoolRunner
from pipelines.typed import build
from pipelines.what_if import Devices, Unit, play_devices, takes_part, what_if_step, with_devices
from tests.conftest import GREEDY, QUIET, TinyHome
from tests.pipelines.test_report import Page, _cells

VALUES: dict[str, Any] = {
    "name": "test",
    "tables": "tiny",
    "window": ["2026-03-06T12:00:00Z", "2026-03-07T00:00:00Z"],
    "every_hours": 4,
    "planning": GREEDY,
    "what_if": {"row": "lru-free", "storage": [0.5, 1], "uplink": [1], "consent": [0, 0.5, 1]},
}
RUN = build(ReplayRun, VALUES, source="test")


def test_consent__is_nested() -> None:
    """Who is among the 25 % is among the 50 %; all and nobody are exactly that; another seed draws others."""
    names = np.array([f"node-{i}" for i in range(2000)], dtype=object)
    quarter, half = (takes_part(names, share, seed=1) for share in (0.25, 0.5))
    assert np.all(half[quarter])
    assert quarter.mean() == pytest.approx(0.25, abs=0.03)
    assert half.mean() == pytest.approx(0.5, abs=0.03)
    assert (takes_part(names, 0.0, seed=1).sum(), takes_part(names, 1.0, seed=1).sum()) == (0, 2000)
    assert np.any(takes_part(names, 0.5, seed=2) != half)


def test_devices__change_nodes_alone(tiny_world: TinyHome) -> None:
    """POPs keep everything; who does not take part stores and sends nothing, and a planner sees no consent."""
    arena = Arena.read(tiny_world.tables, RUN)
    changed = with_devices(arena, Devices(0.5, 2.0, 0.5), seed=0)
    nodes, pops = arena.scene.nodes, arena.scene.n_pops
    part = takes_part(arena.scene.source[nodes], 0.5, seed=0)
    assert 0 < part.sum() < len(part)
    assert np.array_equal(changed.world.storage_bytes[nodes], np.where(part, arena.world.storage_bytes[nodes] // 2, 0))
    assert np.array_equal(changed.world.uplink_bps[nodes], np.where(part, 2 * arena.world.uplink_bps[nodes], 0))
    assert np.array_equal(changed.scene.uplink_bps[:pops], arena.scene.uplink_bps[:pops])
    assert np.all(changed.scene.consent_until_us[nodes][~part] == -1)
    assert np.array_equal(changed.scene.consent_until_us[nodes][part], arena.scene.consent_until_us[nodes][part])


def test_step__writes_page_and_table(tiny_world: TinyHome) -> None:
    """Without consent nothing is kept off; with all devices as they are it is the row of the replay."""
    value, text = what_if_step(RUN, tiny_world.home, QUIET)
    rows = {(row["storage"], row["consent"]): row for row in value["rows"]}
    assert len(rows) == 6
    nobody, everybody = rows[1, 0], rows[1, 1]
    assert (nobody["net_share"], nobody["saved_per_day"], nobody["nodes"]) == (0, 0, 0)
    assert everybody["net_share"] > rows[0.5, 1]["net_share"] > 0
    assert everybody["nodes"] == value["nodes"] == 20
    folder = Path(value["report"]).parent
    with (folder / "what_if.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["net_share"]) for row in table] == [row["net_share"] for row in value["rows"]]
    html = (folder / "what_if.html").read_text(encoding="utf-8")
    shown = f"{100 * everybody['net_share']:.1f} %"
    assert _cells(html, "storage × 1")["uplink ×\u00a01"].startswith(shown)
    assert "100 % take part: 20 of 20 nodes" in Page(html).text
    assert "p95" in text


def test_answers__are_the_same_in_another_process(tiny_world: TinyHome) -> None:
    """A process that reads everything anew finds the same numbers."""
    units = [Unit(tiny_world.home.root, RUN, Devices(1.0, 1.0, 0.5))]
    assert PoolRunner(1).map(play_devices, units, label="") == [play_devices(unit) for unit in units]


def test_settings__name_every_mistake() -> None:
    """Factors, shares, doubles and rows: one message."""
    wrong = {"storage": [0, -1], "uplink": [1, 1], "consent": [1.5], "processes": -1}
    with pytest.raises(ConfigError) as error:
        build(ReplayRun, {**VALUES, "what_if": wrong}, source="test")
    for part in ("factors storage > 0, got [0.0, -1.0]", "uplink to name each value once", "[1.5]", "processes >= 0"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match=r"what_if\.row"):
        build(ReplayRun, {**VALUES, "what_if": {"row": "oracle"}}, source="test")
