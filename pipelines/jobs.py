"""What scheduled jobs share: one at a time, results that appear whole, identifiers from what went in."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import InputError, PipelineError, TryLater
from pipelines.staging import is_alive
from pipelines.store import write_parquet

MANIFEST = "manifest.json"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder's lock while the block runs; it goes with the process, however that ends.

    Raises:
        TryLater: another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryLater(f"Another run is writing to {folder}; try again when it is done.") from None
        yield


def job_id(at_us: int, **inputs: Any) -> str:
    """`<instant>-<hash of everything that went in>`: the same inputs give the same name."""
    text = json.dumps({"at_us": at_us, **inputs}, sort_keys=True, default=str)
    stamp = datetime.fromtimestamp(at_us / 1e6, tz=UTC).strftime("%Y%m%dT%H%MZ")
    return f"{stamp}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_result(
    staging: Path, tables: dict[str, pa.Table], manifest: dict[str, Any], texts: Mapping[str, str] | None = None
) -> None:
    """Tables, texts by file name, and a manifest with the checksum of each file."""
    for name, table in tables.items():
        write_parquet(staging / f"{name}.parquet", table)
    for name, text in (texts or {}).items():
        (staging / name).write_text(text, encoding="utf-8")
    checksums = {path.name: file_digest(path) for path in sorted(staging.iterdir())}
    text = json.dumps({**manifest, "checksums": checksums}, indent=1, sort_keys=True, default=str)
    (staging / MANIFEST).write_text(text + "\n", encoding="utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished result.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no readable result ({error}). Run the job that writes it again.") from None
    if not isinstance(manifest, dict):
        raise InputError(
            f"{folder} holds no readable result (no keys in {MANIFEST}). Run the job that writes it again."
        )
    return manifest


def point_at(link: Path, target: Path) -> None:
    """Makes `link` a symbolic link to `target`, in one step: readers see the old target or the new one."""
    for left in link.parent.glob(f".{link.name}-*"):
        if not is_alive(left.name.rpartition("-")[2]):
            left.unlink(missing_ok=True)
    beside = link.with_name(f".{link.name}-{os.getpid()}")
    beside.symlink_to(target.name)
    beside.replace(link)


def instant_us(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 instant with a zone.

    Raises:
        PipelineError: the text is no such instant.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise PipelineError(f"{text!r} is no instant; write it like 2026-03-07T14:00:00Z.") from None
    if instant.tzinfo is None:
        raise PipelineError(f"{text!r} has no time zone; write it like {text}Z.")
    return (instant - EPOCH) // instant.resolution


def iso(at_us: int) -> str:
    """An instant as ISO 8601 in UTC."""
    return (EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")
