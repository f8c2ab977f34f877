"""Settings of the service, from the environment: `PREMIRROR_` and the field's name in capitals.

Only the address of the registry has another name, the one that MLflow itself reads: `MLFLOW_TRACKING_URI`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PREFIX = "PREMIRROR_"
MIB = 1 << 20


class SettingsError(ValueError):
    """The environment asks for something that cannot be; `problems` holds one sentence for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class ServiceSettings:
    """Where the service listens, what it reads and how much it accepts."""

    home: Path = Path(".premirror")
    """Home folder with plans, state and local copies of the champions."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback only, because there is no TLS and there are no tokens yet."""
    port: int = 8321
    """Port to listen on; 0 for any free one."""
    tracking_uri: str = ""
    """Address of the registry; empty for the SQLite file in the home folder."""
    check_every_seconds: float = 5.0
    """Pause between two looks at the registry, the plan in force and the newest state, in seconds."""
    max_body_bytes: int = 4 * MIB
    """Largest body of a JSON request, in bytes."""
    max_arrow_bytes: int = 64 * MIB
    """Largest body of an Arrow request, in bytes."""
    max_rows: int = 10_000
    """Most rows of a JSON request or answer."""
    max_arrow_rows: int = 1_000_000
    """Most rows of an Arrow request."""
    time_limit_seconds: float = 10.0
    """Longest time for one answer, waiting included, in seconds."""
    max_batch_size: int = 64
    """Most concurrent requests that are answered together."""
    batch_timeout_seconds: float = 0.001
    """Longest wait for further requests to answer together with the first, in seconds."""
    max_waiting: int = 1024
    """Most requests that may wait for an answer on one route."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {setting_name(name)} > 0, got {getattr(self, name)!r}."
            for name in ("check_every_seconds", "time_limit_seconds")
            if not 0 < getattr(self, name) < float("inf")
        ]
        problems += [
            f"Expected {setting_name(name)} >= 1, got {getattr(self, name)!r}."
            for name in ("max_body_bytes", "max_arrow_bytes", "max_rows", "max_arrow_rows", "max_batch_size",
                         "max_waiting")
            if getattr(self, name) < 1
        ]  # fmt: skip
        if not 0 <= self.batch_timeout_seconds < self.time_limit_seconds:
            problems.append(
                f"Expected {setting_name('batch_timeout_seconds')} >= 0 and below "
                f"{setting_name('time_limit_seconds')}, got {self.batch_timeout_seconds!r}."
            )
        if not 0 <= self.port <= 65535:
            problems.append(f"Expected {setting_name('port')} from 0 to 65535, got {self.port!r}.")
        if not is_loopback(self.host):
            problems.append(
                f"{setting_name('host')} is {self.host!r}, which is not a loopback address. The service has no TLS and "
                "no tokens yet, so it answers this machine only: use 127.0.0.1, ::1 or localhost."
            )
        if problems:
            raise SettingsError(problems)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServiceSettings:
        """Reads every setting that is set and not empty.

        Raises:
            SettingsError: every value that cannot be read or is out of bounds.
        """
        values: dict[str, Any] = {}
        problems = []
        for field in fields(cls):
            text = environment.get(setting_name(field.name), "").strip()
            if not text:
                continue
            kind = str(field.type)
            try:
                values[field.name] = _READERS[kind](text)
            except ValueError:
                problems.append(f"{setting_name(field.name)} is {text!r}, which is no {_NOUNS[kind]}.")
        try:
            found = cls(**values)
        except SettingsError as error:
            raise SettingsError([*problems, *error.problems]) from None
        if problems:
            raise SettingsError(problems)
        return found

    @property
    def registry_uri(self) -> str:
        return self.tracking_uri or f"sqlite:///{self.home.expanduser().resolve() / 'mlflow.db'}"


_READERS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "Path": Path}
_NOUNS = {"int": "whole number", "float": "number"}


def setting_name(field: str) -> str:
    """The environment variable of a field."""
    return "MLFLOW_TRACKING_URI" if field == "tracking_uri" else PREFIX + field.upper()


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine and nothing else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
