"""Ingest: raw logs and tables in, validated and pseudonymised canonical tables out, all at once or not at all.

Read → check → drop repeats → pseudonymise → cut into sessions → sort → write → count. Rows that cannot be used are set
aside with the reason; above `max_bad_share` of an input the job fails and writes nothing. Nothing behind this door sees a
raw user or session id.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import TableError
from models.rules import codes_of, encode, repeated
from models.tables import SCHEMAS, ValidationContext, validate
from pipelines.aggregate import hourly_counts, transitions
from pipelines.catalogue import with_missing_contents
from pipelines.errors import InputError
from pipelines.formats.canonical import csv_reading, parquet_reading
from pipelines.formats.readers import READERS
from pipelines.formats.reading import Broken, Reading
from pipelines.formats.settings import InputSettings
from pipelines.pseudonyms import Kind, check_key, digests, known_ids, pseudonymise
from pipelines.quarantine import Quarantine, Tally
from pipelines.runner import Progress, Runner, SerialRunner, no_progress
from pipelines.sessions import Sessions, cut_sessions, with_sessions
from pipelines.staging import staged_folder
from pipelines.store import in_time_order, read_world, write_into, write_parquet, write_world

_FILE, _LINE = "\N{SECTION SIGN}file", "\N{SECTION SIGN}line"


@dataclass(frozen=True)
class IngestSettings:
    """What to ingest and how strict to be."""

    inputs: tuple[InputSettings, ...] = ()
    """Where the requests come from."""
    tables: dict[str, str] = field(default_factory=dict)
    """Further canonical tables (contents, locations, pops, nodes, availability, telemetry, rtt): name to file."""
    folder: str = ""
    """A built world: all its tables and world.json are taken; `inputs` and `tables` come on top."""
    max_bad_share: float = 0.05
    """The largest share of bad rows in one input; above it the job fails and writes nothing."""
    on_duplicates: Literal["drop", "keep"] = "drop"
    """What happens to a request that repeats an earlier one in every column."""
    unknown_contents: Literal["derive", "quarantine"] = "derive"
    """Requests for contents that the contents table lacks: derive a row from the requests, or set them aside."""
    session_gap_minutes: float = 30.0
    """A silence longer than this ends a session, in logs that name no sessions."""
    segment_bytes: int = 4 << 20
    """Segment size of contents whose size is derived from requests."""
    buckets: int = 1
    """Buckets of sessions in which the counts are made: several processes need as many, and each needs less memory."""

    def __post_init__(self) -> None:
        problems = []
        if not self.inputs and not self.folder:
            problems.append("Expected inputs or a folder, got neither.")
        unknown = sorted(set(self.tables) - (set(SCHEMAS) - {"requests"}))
        if unknown:
            known = ", ".join(name for name in SCHEMAS if name != "requests")
            problems.append(f"Unknown tables {', '.join(unknown)}. Known: {known}.")
        if not 0 <= self.max_bad_share < 1:
            problems.append(f"Expected 0 <= max_bad_share < 1, got {self.max_bad_share}.")
        if self.on_duplicates not in ("drop", "keep"):
            problems.append(f"Expected on_duplicates 'drop' or 'keep', got {self.on_duplicates!r}.")
        if self.unknown_contents not in ("derive", "quarantine"):
            problems.append(f"Expected unknown_contents 'derive' or 'quarantine', got {self.unknown_contents!r}.")
        for name in ("session_gap_minutes", "segment_bytes", "buckets"):
            if not getattr(self, name) > 0:
                problems.append(f"Expected {name} > 0, got {getattr(self, name)}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class IngestReport:
    """What one ingest read, set aside and wrote."""

    rows_read: int
    rows_written: int
    quarantined: int
    duplicates: int
    skipped: dict[str, int]
    """Rows left out on purpose, by reason."""
    reasons: dict[str, int]
    """Rows set aside, by reason."""
    tables: dict[str, int]
    """Rows written, by table."""
    users: int
    sessions: int
    derived_contents: int
    """Contents whose size was taken from the requests."""
    first_ts: str
    last_ts: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def ingest(
    config: IngestSettings,
    *,
    out: Path,
    key: bytes,
    progress: Progress = no_progress,
    runner: Runner | None = None,
) -> IngestReport:
    """Replaces the tables folder `out` by what the inputs hold.

    Args:
        config: inputs and strictness.
        out: the tables folder; it keeps its old contents unless everything succeeds.
        key: secret of the pseudonyms, at least 16 bytes.
        progress: told label, done and total as the work goes on.
        runner: does the counting; in this process by default.

    Raises:
        InputError: an input cannot be read or too much of it is bad; lists every problem.
        OutputError: `out` cannot be written.
    """
    check_key(key)
    with staged_folder(out) as staging:
        work = _Ingest(config, key, progress)
        return work.write(staging, runner or SerialRunner(progress))


class _Ingest:
    """One run: what has been read and set aside so far."""

    def __init__(self, config: IngestSettings, key: bytes, progress: Progress) -> None:
        self._config = config
        self._key = key
        self._progress = progress
        self._quarantine = Quarantine(config.max_bad_share)
        self._skipped: Counter[str] = Counter()
        self._files: list[str] = []
        self._rows_read = 0

    def write(self, staging: Path, runner: Runner) -> IngestReport:
        tables = self._read_tables()
        requests = self._read_requests(_context(tables, self._config))
        requests, duplicates = self._without_duplicates(in_time_order(requests))
        requests = requests.drop_columns([_FILE, _LINE])
        sessions = cut_sessions(requests, gap_minutes=self._config.session_gap_minutes)
        tables["contents"], derived = with_missing_contents(
            tables.get("contents"), requests, segment_bytes=self._config.segment_bytes
        )
        # Counting needs no names, and hashing holds one core: side by side they take both.
        numbered = _put(requests, "session", pa.array(sessions.number))
        with ThreadPoolExecutor(1) as beside:
            counting = beside.submit(self._write_counts, staging, numbered, tables["contents"], runner)
            written = {**tables, "requests": self._pseudonymised(requests, sessions)}
            for done, (name, table) in enumerate(written.items()):
                self._progress("write", done, len(written))
                write_into(staging, name, table)
            self._progress("write", len(written), len(written))
            write_parquet(staging / "quarantine.parquet", self._quarantine.to_arrow())
            counting.result()
        world = read_world(Path(self._config.folder)) if self._config.folder else None
        if world is not None:
            write_world(staging, world)
        return self._report(written, duplicates, derived)

    def _write_counts(self, staging: Path, requests: pa.Table, contents: pa.Table, runner: Runner) -> None:
        buckets = self._config.buckets
        hours = hourly_counts(requests, contents, runner, buckets=buckets)
        write_parquet(staging / "hourly_counts.parquet", hours)
        write_parquet(staging / "transitions.parquet", transitions(requests, runner, buckets=buckets))

    def _read_tables(self) -> dict[str, pa.Table]:
        paths = _table_paths(self._config)
        tables: dict[str, pa.Table] = {}
        # What others refer to comes before them in SCHEMAS.
        for name in sorted(paths, key=list(SCHEMAS).index):
            path = paths[name]
            source = InputSettings(path=str(path), format="csv" if ".csv" in path.suffixes else "parquet")
            tally = Tally(str(path))
            with _named(path):
                reader = csv_reading if source.format == "csv" else parquet_reading
                reading = reader(path, name, source)
                # Contents referred to elsewhere are only the requests' business.
                context = ValidationContext(
                    locations=_ids(tables, "locations", "location"), nodes=_ids(tables, "nodes", "source")
                )
                tables[name] = self._checked(name, reading, path, tally, context)
            tally.require(self._config.max_bad_share)
        return tables

    def _read_requests(self, context: ValidationContext) -> pa.Table:
        parts: list[pa.Table] = []
        inputs = _inputs(self._config)
        for done, source in enumerate(inputs):
            self._progress("read", done, len(inputs))
            tally = Tally(source.path)
            for path in _files(source):
                self._files.append(path.name)
                with _named(path):
                    for reading in READERS[source.format](path, source):
                        table = self._checked("requests", reading, path, tally, context)
                        if len(table):
                            parts.append(table)
            tally.require(self._config.max_bad_share)
        self._progress("read", len(inputs), len(inputs))
        try:
            requests = pa.concat_tables(parts, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"Inputs disagree on a column: {error}. Give it one type in all of them.") from None
        # Encoded once: every later step then works on codes, and hashes each id once.
        encoders = {"user": known_ids, "session": known_ids, "content": encode, "location": encode}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            encoded = {name: pool.submit(encoder, requests[name]) for name, encoder in encoders.items()}
        for name, values in encoded.items():
            requests = _put(requests, name, values.result())
        return requests

    def _checked(self, name: str, reading: Reading, path: Path, tally: Tally, context: ValidationContext) -> pa.Table:
        self._set_aside(name, path, reading.broken, tally)
        skipped = sum(reading.skipped.values())
        self._skipped.update(reading.skipped)
        if name == "requests":
            self._rows_read += len(reading.table) + len(reading.broken) + skipped
        # A log of nothing but other methods is empty on purpose, not broken.
        tally.good += skipped
        if len(reading.table) == 0 and (len(reading.broken) or skipped):
            return reading.table
        validated = validate(name, reading.table, context=context)
        table = validated.table
        if len(validated.quarantine):
            rows = validated.quarantine
            lines = reading.line[rows["row"].to_numpy()]
            raw = rows.drop_columns(["row", "reason"]).to_pylist()
            texts = [repr(tuple(row.values())) for row in raw]
            self._add(name, path, lines, rows["reason"].to_pylist(), texts)
            tally.bad += len(rows)
            tally.problems.update(dict.fromkeys(validated.problems))
        tally.good += len(table)
        if name != "requests":
            return table
        kept = np.ones(len(reading.line), dtype=np.bool_)
        kept[validated.quarantine["row"].to_numpy()] = False
        file = pa.repeat(pa.scalar(len(self._files) - 1, pa.int32()), len(table))
        return table.append_column(_FILE, file).append_column(_LINE, pa.array(reading.line[kept]))

    def _set_aside(self, name: str, path: Path, broken: Broken, tally: Tally) -> None:
        if not len(broken):
            return
        self._add(name, path, np.array(broken.line), broken.reason, broken.text)
        tally.bad += len(broken)
        first: dict[str, int] = {}
        for line, reason in zip(broken.line, broken.reason, strict=True):
            first.setdefault(reason, line)
        counts = Counter(broken.reason)
        for reason, line in first.items():
            tally.problems[f"{path.name} line {line}: {reason} ({counts[reason]} such lines hereabouts)."] = None

    def _add(
        self,
        name: str,
        path: Path,
        lines: np.ndarray[tuple[int], np.dtype[np.int64]],
        reasons: list[str],
        texts: list[str],
    ) -> None:
        digested = digests(texts, key=self._key)
        rows = {"line": pa.array(lines, pa.int64()), "reason": pa.array(reasons), "digest": pa.array(digested)}
        self._quarantine.add(name, path.name, pa.table(rows))

    def _without_duplicates(self, requests: pa.Table) -> tuple[pa.Table, int]:
        if self._config.on_duplicates == "keep":
            return requests, 0
        compared = [
            name
            for name in requests.column_names
            if name not in (_FILE, _LINE) and requests[name].null_count < len(requests)
        ]
        again = repeated(requests, tuple(compared))
        count = int(again.sum())
        if count == 0:
            return requests, 0
        copies = requests.filter(pa.array(again)).select([_FILE, _LINE])
        for code in np.unique(copies[_FILE].to_numpy()).tolist():
            lines = copies.filter(pc.equal(copies[_FILE], code))[_LINE]
            reason = pa.repeat("an exact duplicate of an earlier row", len(lines))
            rows = pa.table({"line": lines, "reason": reason, "digest": pa.nulls(len(lines), pa.string())})
            self._quarantine.add("requests", self._files[code], rows)
        return requests.filter(pa.array(~again)), count

    def _pseudonymised(self, requests: pa.Table, sessions: Sessions) -> pa.Table:
        kinds: tuple[Kind, ...] = ("user", "session")
        for done, kind in enumerate(kinds):
            self._progress("pseudonymise", done, 2)
            requests = _put(requests, kind, pseudonymise(requests[kind], key=self._key, kind=kind))
        self._progress("pseudonymise", 2, 2)
        return with_sessions(requests, sessions)

    def _report(self, written: dict[str, pa.Table], duplicates: int, derived: int) -> IngestReport:
        requests = written["requests"]
        reasons = self._quarantine.reasons
        instants = requests["ts"]
        return IngestReport(
            rows_read=self._rows_read,
            rows_written=len(requests),
            quarantined=sum(reasons.values()) - duplicates,
            duplicates=duplicates,
            skipped=dict(sorted(self._skipped.items())),
            reasons=dict(sorted(reasons.items())),
            tables={name: len(table) for name, table in sorted(written.items())},
            users=_distinct(requests["user"]),
            sessions=_distinct(requests["session"]),
            derived_contents=derived,
            first_ts=instants[0].as_py().isoformat(),
            last_ts=instants[-1].as_py().isoformat(),
        )


class _named:  # noqa: N801
    """Says which file a table's problems come from."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TableError):
            raise InputError(f"{str(self._path)!r}: {error}") from error


def _context(tables: dict[str, pa.Table], config: IngestSettings) -> ValidationContext:
    contents = _ids(tables, "contents", "content") if config.unknown_contents == "quarantine" else None
    return ValidationContext(locations=_ids(tables, "locations", "location"), contents=contents)


def _ids(tables: dict[str, pa.Table], name: str, column: str) -> set[str] | None:
    return set(tables[name][column].to_pylist()) if name in tables else None


def _table_paths(config: IngestSettings) -> dict[str, Path]:
    found = {}
    if config.folder:
        names = [name for name in SCHEMAS if name != "requests"]
        found = {n: p for n in names if (p := Path(config.folder) / f"{n}.parquet").is_file()}
    return found | {name: Path(path) for name, path in config.tables.items()}


def _inputs(config: IngestSettings) -> list[InputSettings]:
    world = [InputSettings(path=str(Path(config.folder) / "requests"))] if config.folder else []
    return [*world, *config.inputs]


def _files(source: InputSettings) -> Iterator[Path]:
    path = Path(source.path)
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
    else:
        anchor = Path(path.anchor) if path.anchor else Path()
        found = sorted(p for p in anchor.glob(str(path.relative_to(path.anchor))) if p.is_file())
    if not found:
        raise InputError(f"There is no file at {source.path!r}. Check the path or the pattern.")
    yield from found


def _put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _distinct(ids: pa.ChunkedArray) -> int:
    encoded = encode(ids)
    return int(np.count_nonzero(np.bincount(codes_of(ids) + 1, minlength=len(encoded.dictionary) + 1)[1:]))
