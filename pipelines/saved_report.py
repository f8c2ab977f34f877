"""Finished replays on disk: finds one by its id, reads what it saved, and draws its page again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import InputError
from pipelines.home import Home
from pipelines.report import render
from pipelines.report_data import FORMAT, ReportData

REPORT, DATA, RUN = "report.html", "report.json", "run.json"
LATEST = "latest"


def find_replay(name: str, home: Home) -> Path:
    """The folder of a replay by its id; `latest` is the one written last.

    Raises:
        InputError: there is none of this name.
    """
    found = sorted(home.reports.glob(f"*/{DATA}"), key=lambda path: path.stat().st_mtime_ns)
    if name == LATEST:
        if not found:
            raise InputError(f"There is no replay under {home.reports}. Run `premirror replay` first.")
        return found[-1].parent
    folders = {path.parent.name: path.parent for path in found}
    if name not in folders:
        have = ", ".join(sorted(folders)) or "none"
        raise InputError(f"There is no replay {name!r} under {home.reports}; there are: {have}.")
    return folders[name]


def read_replay(folder: Path) -> ReportData:
    """What the replay saved.

    Raises:
        InputError: the file is damaged, or of a later version.
    """
    try:
        data: ReportData = TypeAdapter(ReportData).validate_json((folder / DATA).read_bytes())
    except ValidationError as error:
        raise InputError(f"{folder / DATA} is damaged: {error.errors()[0]['msg']}. Run the replay again.") from None
    if data.format > FORMAT:
        raise InputError(
            f"{folder / DATA} has format {data.format}, and this version reads up to {FORMAT}. "
            "Use the version that wrote it, or run the replay again."
        )
    return data


def report_step(name: str, home: Home) -> tuple[dict[str, Any], str]:
    """Renders a finished replay's page again from its saved data."""
    folder = find_replay(name, home)
    path = folder / REPORT
    write_beside(path, render(read_replay(folder)))
    return {"report": str(path), "id": folder.name}, f"Report: {path}"


def write_beside(path: Path, text: str) -> None:
    """Writes the whole file, then puts it in its place in one step."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
