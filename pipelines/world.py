"""Builds a world: the canonical tables of a place where everything that matters is measured or known.

A *synthetic* world is drawn from known rates, a *charging* world has devices only, whose telemetry tells by a known law
when they leave; the *newsroom* world joins real tables by a written rule. They write raw user and session ids, as any
source would: `ingest` is where ids become pseudonyms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.charging import ChargingSettings
from pipelines.charging_tables import build_charging
from pipelines.newsroom import NewsroomSettings, build_newsroom
from pipelines.staging import staged_folder
from pipelines.store import write_into, write_world
from pipelines.synthetic import SyntheticSettings
from pipelines.synthetic_tables import build_synthetic


def build_world(config: SyntheticSettings | NewsroomSettings | ChargingSettings, *, out: Path) -> dict[str, Any]:
    """Writes the tables of a world and `world.json` to `out`, all at once; the same settings give the same bytes.

    Args:
        config: which world.
        out: its folder; whatever it held is replaced.

    Returns:
        What `world.json` says.

    Raises:
        TableError: a real table is not where the settings say.
        ValueError: the real tables do not hold what the settings ask for.
        OSError: the folder cannot be written.
    """
    if isinstance(config, NewsroomSettings):
        tables, world = build_newsroom(config)
    elif isinstance(config, ChargingSettings):
        tables, world = build_charging(config)
    else:
        tables, world = build_synthetic(config)
    with staged_folder(out) as folder:
        for name, table in tables.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_into(folder, name, table)
        write_world(folder, world)
    return world
