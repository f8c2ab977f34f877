"""Rows a second of ingest: read, validate, pseudonymise, sort, write by day, count.

    python benchmarks/ingest.py [requests.parquet]

Without a file it makes a million requests of its own. Beside ours stands what a user would write instead: pandas with a
regular expression for a log, and pandas with one keyed hash a row for a table. Wall seconds depend on what else the
machine does, so processor seconds are shown too.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.tables import INSTANT
from pipelines.formats.settings import InputSettings
from pipelines.ingest import IngestSettings, ingest
from pipelines.store import read_request_log

LOG_ROWS = 1_000_000
KEY = b"a key for the benchmark only"
LINE = (
    "{ip} - - [{day:02d}/May/2024:{hour:02d}:{minute:02d}:{second:02d} +0000] "
    '"GET /v/title-{title}/seg-{segment}.ts{token} HTTP/1.1" 200 {size} '
    '"https://example.org/title/{title}" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"\n'
)
PATTERN = r'^(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+) [^"]*" (\d+) (\d+|-)'


def main() -> None:
    """Measures each phase once and prints one JSON object."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table = Path(sys.argv[1]) if len(sys.argv) > 1 else made_requests(folder / "requests.parquet", rows=1_000_000)
        log = made_log(folder / "access.log", rows=LOG_ROWS)
        tokens = made_log(folder / "tokens.log", rows=LOG_ROWS, tokens=True)
        parquet = InputSettings(path=str(table))
        combined = InputSettings(path=str(log), format="combined", location="x")
        with_tokens = InputSettings(path=str(tokens), format="combined", location="x")
        rows = pq.read_metadata(table).num_rows
        figures = {
            "parquet": phases(parquet, folder / "a", rows),
            "combined log": phases(combined, folder / "b", LOG_ROWS),
            "combined log, each URL with its own token": phases(with_tokens, folder / "c", LOG_ROWS),
            "read_request_log": measured(lambda: read_request_log(folder / "a"), rows),
            "pandas, parquet": measured(lambda: with_pandas(table, folder / "p"), rows),
            "pandas, combined log": measured(lambda: log_with_pandas(log), LOG_ROWS),
        }
    machine = {"cores": os.cpu_count(), "cpu": platform.machine(), "load": os.getloadavg()[0]}
    versions = {name: version(name) for name in ("pyarrow", "numpy", "pandas")}
    print(json.dumps({"machine": machine, "versions": versions, "figures": figures}, indent=2))


def phases(source: InputSettings, out: Path, rows: int) -> dict[str, Any]:
    """One whole ingest, and when each of its steps was done; some of them run side by side."""
    begin, steps = time.perf_counter(), {}

    def told(label: str, done: int, total: int) -> None:
        if done == total:
            steps[label] = round(time.perf_counter() - begin, 2)

    figures = measured(lambda: ingest(IngestSettings(inputs=(source,)), out=out, key=KEY, progress=told), rows)
    return figures | {"done_after_s": steps}


def measured(work: Callable[[], object], rows: int) -> dict[str, Any]:
    """Wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return figure(time.perf_counter() - wall, time.process_time() - cpu, rows)


def figure(wall: float, cpu: float, rows: int) -> dict[str, Any]:
    """Seconds and rows a second."""
    return {"rows": rows, "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "rows_per_s": round(rows / wall)}


def with_pandas(table: Path, out: Path) -> None:
    """What a user would write: one keyed hash a row, one file a day."""
    frame = pd.read_parquet(table)
    for name in ("user", "session"):
        frame[name] = [hashlib.blake2b(v.encode(), key=KEY, digest_size=8).hexdigest() for v in frame[name]]
    frame = frame.drop_duplicates().sort_values("ts", kind="stable")
    frame["day"] = frame["ts"].dt.date.astype(str)
    frame.to_parquet(out, partition_cols=["day"])


def log_with_pandas(log: Path) -> pd.DataFrame:
    """What a user would write: a regular expression for each line."""
    lines = pd.Series(log.read_text().splitlines())
    frame = lines.str.extract(PATTERN)
    frame[1] = pd.to_datetime(frame[1], format="%d/%b/%Y:%H:%M:%S %z")
    return frame


def made_requests(path: Path, *, rows: int) -> Path:
    """Requests over ten days: users, sessions and contents repeat as in a news portal's log."""
    rng = np.random.default_rng(0)
    instants = np.sort(rng.integers(0, 10 * 86_400_000_000, rows)) + 1_714_521_600_000_000
    columns = {
        "ts": pa.array(instants).cast(INSTANT),
        "user": pa.array(rng.integers(0, rows // 8, rows)).cast(pa.string()),
        "session": pa.array(rng.integers(0, rows // 3, rows)).cast(pa.string()),
        "content": pa.array(rng.zipf(1.3, rows) % 40_000).cast(pa.string()),
        "location": pa.array(rng.integers(0, 39, rows)).cast(pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    return path


def made_log(path: Path, *, rows: int, tokens: bool = False) -> Path:
    """A combined access log in time order: a few thousand clients, titles by popularity."""
    rng = np.random.default_rng(0)
    clients, titles = rng.integers(0, 6_000, rows).tolist(), (rng.zipf(1.3, rows) % 20_000).tolist()
    with path.open("w") as file:
        for row, (client, title) in enumerate(zip(clients, titles, strict=True)):
            second = row // 4
            file.write(
                LINE.format(
                    ip=f"10.{client // 65536}.{client // 256 % 256}.{client % 256}",
                    day=1 + second // 86400,
                    hour=second // 3600 % 24,
                    minute=second // 60 % 60,
                    second=second % 60,
                    title=title,
                    segment=row % 90,
                    token=f"?t={row}" if tokens else "",
                    size=1000 + row % 4_000_000,
                )
            )
    return path


if __name__ == "__main__":
    main()
