"""What a training or an evaluation reads: the request log and the sessions of its data source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from models.audiences import ARRIVAL, DEVICE
from models.churn.history import SessionHistory
from models.churn.outages import with_outages
from models.events import RequestLog
from pipelines.config import DataSource, NextContentSource
from pipelines.errors import InputError
from pipelines.home import Home
from pipelines.provenance import folder_digest
from pipelines.store import has_table, read_availability, read_nodes, read_request_log, read_telemetry


@dataclass(frozen=True)
class Inputs:
    """Tables of one data source; everything is read as known before an instant.

    Attributes:
        path: the folder of the tables, or one Parquet file of requests.
        features: further columns of the requests that together describe the device, read as categories.
        event_features: those that together say how a request came about.
        catalogue: whether contents are known from their publication on, and not only once they are requested.
    """

    path: Path
    features: tuple[str, ...] = ()
    event_features: tuple[str, ...] = ()
    catalogue: bool = False

    @classmethod
    def find(cls, source: DataSource, home: Home) -> Inputs:
        """Raises an InputError where the source does not exist."""
        path = home.tables(source.tables) if source.tables else Path(source.requests).expanduser()
        if not path.exists():
            how = "Run `premirror ingest` first" if source.tables else "Give an existing folder or Parquet file"
            raise InputError(f"There are no tables at {path}. {how}, or correct the `data` keys.")
        if isinstance(source, NextContentSource):
            return cls(path.resolve(), source.features, source.event_features, catalogue=True)
        return cls(path.resolve())

    @property
    def digest(self) -> str:
        return folder_digest(self.path)

    def requests(self, before_us: int) -> RequestLog:
        """The requests known before an instant, with features `device` and `arrival` where columns are named for them.

        Raises:
            InputError: there are none.
            TableError: a column is missing, or a file damaged.
        """
        columns = (*self.features, *self.event_features)
        log = read_request_log(self.path, before_us=before_us, features=columns, catalogue=self.catalogue)
        if len(log) == 0:
            raise InputError(f"{self.path}: no request lies before the end of the windows; check `windows`.")
        return log.described(**{DEVICE: self.features, ARRIVAL: self.event_features})

    def sessions(self, before_us: int) -> tuple[pa.Table, pa.Table]:
        """Availability and nodes as known before an instant.

        A node's first session may begin, by another clock, before the node is known; it comes with the node.

        Raises:
            InputError: the source has no availability.
        """
        if self.path.is_file() or not (has_table(self.path, "availability") and has_table(self.path, "nodes")):
            raise InputError(f"{self.path}: churn needs the tables `availability` and `nodes`; ingest them as well.")
        nodes, all_nodes = read_nodes(self.path, before_us=before_us), read_nodes(self.path)["source"]
        later = all_nodes.filter(pc.invert(pc.is_in(all_nodes, value_set=nodes["source"].combine_chunks())))
        availability = read_availability(self.path, before_us=before_us)
        of_known = pc.invert(pc.is_in(availability["node"], value_set=later.combine_chunks()))
        return availability.filter(of_known), nodes

    def telemetry(self, before_us: int) -> pa.Table | None:
        """Heartbeats as known before an instant, None where the source has none."""
        if self.path.is_file() or not has_table(self.path, "telemetry"):
            return None
        return read_telemetry(self.path, before_us=before_us)

    def history(self, before_us: int) -> SessionHistory:
        """Sessions and heartbeats as known before an instant, departures in outages marked."""
        return with_outages(SessionHistory.from_arrow(*self.sessions(before_us), self.telemetry(before_us)))
