"""The home folder: everything that a run writes lives under one place.

```
.premirror/
  worlds/<name>/       built worlds, with raw ids
  tables/<name>/       canonical tables, pseudonymised
  forecasts/           written by `forecast`, read by `place`
  state/               counters, sessions and the next-content model as of the newest forecast, for the service
  plans/<plan id>/     placements, routes, manifest;  plans/current points at one of them
  models/<name>/       last good local copy of each champion
  reports/             one HTML page a run
  mlflow.db, mlflow/   tracking store, registry and artefacts
  pseudonym.key        mode 600
```
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import OutputError, PipelineError


@dataclass(frozen=True)
class Home:
    """Paths under the home folder (`--home`, else `PREMIRROR_HOME`, else `.premirror`)."""

    root: Path

    @classmethod
    def find(cls, given: Path | None = None) -> Home:
        return cls((given or Path(os.environ.get("PREMIRROR_HOME", ".premirror"))).expanduser().resolve())

    def create(self) -> Home:
        """Makes the folder; an unwritable place is an OutputError that says so."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"Cannot write to the home folder {str(self.root)!r}: {error.strerror or error}. "
                "Choose another with --home or PREMIRROR_HOME."
            ) from error
        return self

    def world(self, name: str) -> Path:
        return self.root / "worlds" / _one_folder(name)

    def tables(self, name: str) -> Path:
        return self.root / "tables" / _one_folder(name)

    def local_model(self, name: str) -> Path:
        return self.root / "models" / name

    @property
    def forecasts(self) -> Path:
        return self.root / "forecasts"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def plans(self) -> Path:
        return self.root / "plans"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def key_file(self) -> Path:
        return self.root / "pseudonym.key"

    @property
    def tracking_uri(self) -> str:
        """The registry's address: `MLFLOW_TRACKING_URI` where set, else SQLite in the home folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artefact_root(self) -> Path:
        return self.root / "mlflow"


def _one_folder(name: str) -> str:
    """Names come from configuration files, and their folders are replaced whole: none may lead out of the home folder."""
    if not name or Path(name).name != name or name.startswith("."):
        raise PipelineError(f"{name!r} is no name of a folder; use letters, digits, dashes and underscores.")
    return name
