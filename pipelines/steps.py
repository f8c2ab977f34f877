"""The steps that are one call: build a world, ingest tables, start the service."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import replace
from typing import Any

from pipelines.charging import ChargingSettings
from pipelines.config import IngestRun
from pipelines.console import Console
from pipelines.errors import InputError, PipelineError
from pipelines.home import Home
from pipelines.ingest import IngestReport, IngestSettings, ingest
from pipelines.newsroom import NewsroomSettings
from pipelines.pseudonyms import load_key
from pipelines.runner import PoolRunner, SerialRunner
from pipelines.synthetic import SyntheticSettings
from pipelines.world import build_world


def world_step(
    settings: SyntheticSettings | NewsroomSettings | ChargingSettings, home: Home, console: Console
) -> tuple[dict[str, Any], str]:
    """Builds the world under the home folder."""
    out = home.world(settings.name)
    console.note(f"building the {settings.kind} world {settings.name!r}")
    try:
        world = build_world(settings, out=out)
    except ValueError as error:
        raise InputError(str(error)) from error
    value = {"world": settings.name, "path": str(out), "measured": world["measured"], "modelled": world["modelled"]}
    text = f"World {settings.name!r} is at {out}: {world['start']} to {world['end']}, seed {world['seed']}."
    return value, text


def ingest_step(settings: IngestRun, home: Home, console: Console) -> tuple[dict[str, Any], str]:
    """Ingests into a tables folder under the home folder."""
    reading = settings.read or IngestSettings(folder="world")
    if settings.world:
        folder = home.world(settings.world)
        if not folder.is_dir():
            raise InputError(f"There is no world at {folder}. Run `premirror world` first, or correct `world`.")
        reading = replace(reading, folder=str(folder))
    out = home.tables(settings.name)
    console.note(f"ingesting into {out}")
    with console.progress() as progress:
        runner = SerialRunner(progress) if settings.processes == 1 else PoolRunner(settings.processes, progress)
        report = ingest(reading, out=out, key=load_key(home.key_file), progress=progress, runner=runner)
    return {"tables": settings.name, "path": str(out), **report.to_dict()}, _words(report, str(out))


def _words(report: IngestReport, out: str) -> str:
    lines = [
        f"{report.rows_written:,} of {report.rows_read:,} requests are in {out}, {report.first_ts} to {report.last_ts}.",
        f"Set aside: {report.quarantined:,}; duplicates: {report.duplicates:,}; sizes derived for "
        f"{report.derived_contents:,} contents.",
    ]
    lines += [f"  - {count:,} x {reason}" for reason, count in sorted(report.reasons.items())]
    lines += [f"  - {count:,} left out: {reason}" for reason, count in sorted(report.skipped.items())]
    tables = ", ".join(f"{name} {rows:,}" for name, rows in sorted(report.tables.items()))
    return "\n".join([*lines, f"Rows by table: {tables}."])


def serve_step(home: Home, *, host: str, port: int) -> None:
    """Replaces this process by the service; only loopback, because there is no TLS yet."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise PipelineError(
            f"{host!r} is not a loopback address. The service has no TLS and no tokens yet, so it answers this machine "
            "only: use 127.0.0.1, ::1 or localhost."
        )
    environment = os.environ | {
        "PREMIRROR_HOME": str(home.root),
        "PREMIRROR_HOST": host,
        "PREMIRROR_PORT": str(port),
    }
    os.execve(sys.executable, [sys.executable, "-m", "serving"], environment)  # noqa: S606 - no shell, fixed module
