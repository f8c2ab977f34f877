"""What a training or an evaluation reads: the request log and the sessions of its data source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.churn.history import SessionHistory
from models.events import RequestLog
from pipelines.config import DataSource
from pipelines.errors import InputError
from pipelines.home import Home
from pipelines.provenance import folder_digest
from pipelines.store import has_table, read_availability, read_nodes, read_parquet, read_request_log


@dataclass(frozen=True)
class Inputs:
    """Tables of one data source; everything is read as known before an instant."""

    path: Path

    @classmethod
    def find(cls, source: DataSource, home: Home) -> Inputs:
        """Raises an InputError where the source does not exist."""
        path = home.tables(source.tables) if source.tables else Path(source.requests).expanduser()
        if not path.exists():
            how = "Run `premirror ingest` first" if source.tables else "Give an existing folder or Parquet file"
            raise InputError(f"There are no tables at {path}. {how}, or correct the `data` keys.")
        return cls(path.resolve())

    @property
    def digest(self) -> str:
        return folder_digest(self.path)

    def requests(self, before_us: int) -> RequestLog:
        """The requests known before an instant.

        Raises:
            InputError: there are none.
        """
        log = self._file(before_us) if self.path.is_file() else read_request_log(self.path, before_us=before_us)
        if len(log) == 0:
            raise InputError(f"{self.path}: no request lies before the end of the windows; check `windows`.")
        return log

    def sessions(self, before_us: int) -> tuple[pa.Table, pa.Table]:
        """Availability and nodes as known before an instant.

        Raises:
            InputError: the source has no availability.
        """
        if self.path.is_file() or not (has_table(self.path, "availability") and has_table(self.path, "nodes")):
            raise InputError(f"{self.path}: churn needs the tables `availability` and `nodes`; ingest them as well.")
        return read_availability(self.path, before_us=before_us), read_nodes(self.path, before_us=before_us)

    def history(self, before_us: int) -> SessionHistory:
        return SessionHistory.from_arrow(*self.sessions(before_us))

    def _file(self, before_us: int) -> RequestLog:
        needed = ["ts", "session", "content", "location"]
        table = read_parquet(self.path, "requests", columns=needed)
        ts = table["ts"]
        if not pa.types.is_timestamp(ts.type) or ts.type.tz is None:
            raise InputError(f"{self.path}: column ts is {ts.type}; expected a timestamp with a time zone.")
        ts_us = np.asarray(ts.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64)
        columns = [np.asarray(table[name].to_pylist(), dtype=object) for name in needed[1:]]
        return RequestLog.from_columns(ts_us, *columns).before(before_us)
