"""Ingest end to end: good rows through the door, bad ones set aside, raw ids nowhere, all or nothing."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.churn.history import SessionHistory
from models.tables import INSTANT, SCHEMAS
from pipelines import ingest as ingest_module
from pipelines import store
from pipelines.errors import InputError, OutputError
from pipelines.formats.settings import InputSettings
from pipelines.ingest import IngestReport, IngestSettings, ingest
from pipelines.pseudonyms import pseudonym
from pipelines.runner import PoolRunner
from tests.pipelines.test_inputs import instants
from tests.pipelines.test_store import MIDNIGHT, files_under, requests

KEY = b"a key for the tests only"


def log_lines(count: int, *, broken: int = 0) -> str:
    """One client a minute apart, each line another page; the last `broken` lines are cut."""
    lines = [
        f"192.0.2.{i % 9} - - [01/May/2024:{12 + i // 60 % 12}:{i % 60:02d}:00 +0000] "
        f'"GET /p{i} HTTP/1.1" 200 {i + 1} "-" "-"'
        for i in range(count)
    ]
    return "\n".join([*lines[: count - broken], *(line[:30] for line in lines[count - broken :])]) + "\n"


def run(tmp_path: Path, *inputs: InputSettings, **settings: Any) -> IngestReport:
    return ingest(IngestSettings(inputs=inputs, **settings), out=tmp_path / "tables", key=KEY)


def log_input(tmp_path: Path, text: str, name: str = "access.log") -> InputSettings:
    (tmp_path / name).write_text(text)
    return InputSettings(path=str(tmp_path / name), format="combined", location="x")


def parquet_input(tmp_path: Path, table: pa.Table, name: str = "requests.parquet") -> InputSettings:
    pq.write_table(table, tmp_path / name)
    return InputSettings(path=str(tmp_path / name))


def everything(folder: Path) -> str:
    """All values of all tables as text, to search for what must not be there."""
    tables = [pq.read_table(p, partitioning=None) for p in sorted(folder.rglob("*.parquet"))]
    return json.dumps([t.to_pylist() for t in tables], default=str)


def test_ingest__one_percent_of_broken_lines_is_set_aside_and_counted(tmp_path: Path) -> None:
    """A few cut lines are normal in any log; they must neither stop the job nor vanish."""
    report = run(tmp_path, log_input(tmp_path, log_lines(200, broken=2)))
    assert (report.rows_read, report.rows_written, report.quarantined) == (200, 198, 2)
    assert report.reasons == {"the line is not in combined log format": 2}
    quarantine = pq.read_table(tmp_path / "tables" / "quarantine.parquet")
    assert quarantine.select(["table", "file", "line"]).to_pylist() == [
        {"table": "requests", "file": "access.log", "line": line} for line in (199, 200)
    ]
    assert len(store.read_requests(tmp_path / "tables")) == 198


def test_ingest__sixty_percent_of_broken_lines_is_refused_and_nothing_written(tmp_path: Path) -> None:
    """Such a log is another format, not a bad day."""
    source = log_input(tmp_path, log_lines(100, broken=60))
    with pytest.raises(InputError) as caught:
        run(tmp_path, source)
    message = str(caught.value)
    assert "60 of 100 rows are bad (60.0%, allowed 5.0%); nothing was written" in message
    assert "line 41: the line is not in combined log format" in message
    assert [p.name for p in tmp_path.iterdir()] == ["access.log"]


def test_ingest__no_raw_id_behind_the_door(tmp_path: Path) -> None:
    """Neither addresses nor user and session names, in any table, the quarantine or the report."""
    columns = {"user": ["anna"] * 3, "session": ["sess-1"] * 3, "bytes": pa.array([1, 2, -3], pa.int64())}
    report = run(
        tmp_path,
        log_input(tmp_path, log_lines(50, broken=2)),
        parquet_input(tmp_path, requests([0, 1, 2], **columns)),
        max_bad_share=0.5,
    )
    assert report.quarantined == 3
    text = everything(tmp_path / "tables") + json.dumps(report.to_dict())
    for raw in ("192.0.2", "anna", "sess-1"):
        assert raw not in text
    assert pseudonym("anna", key=KEY, kind="user") in text


def test_ingest__sessions_are_cut_where_the_log_names_none(tmp_path: Path) -> None:
    """Each of the nine clients returns every nine minutes, so each has one session; with a gap of 8, each visit is one."""
    source = log_input(tmp_path, log_lines(45))
    assert run(tmp_path, source).sessions == 9
    assert run(tmp_path, source, session_gap_minutes=8.0).sessions == 45


def test_ingest__exact_duplicates_are_dropped_counted_and_listed(tmp_path: Path) -> None:
    """The same log given twice must not double demand; a second look at the same page is another row."""
    lines = log_lines(10)
    first, again = log_input(tmp_path, lines), log_input(tmp_path, lines, "again.log")
    report = run(tmp_path, first, again)
    assert (report.rows_written, report.duplicates, report.quarantined) == (10, 10, 0)
    listed = pq.read_table(tmp_path / "tables" / "quarantine.parquet")
    assert set(listed["reason"].to_pylist()) == {"an exact duplicate of an earlier row"}
    assert set(listed["file"].to_pylist()) == {"again.log"}
    assert run(tmp_path, first, again, on_duplicates="keep").rows_written == 20


def test_ingest__contents_are_derived_where_nobody_gives_them(tmp_path: Path) -> None:
    """a: largest answer 9. b: segments of 5, up to number 2, so 15. c: nothing known, so one segment."""
    table = requests(
        [0, 1, 2, 3, 4],
        content=["a", "a", "b", "b", "c"],
        bytes=pa.array([9, 4, 5, 3, None], pa.int64()),
        segment=pa.array([None, None, 0, 2, None], pa.int32()),
    )
    report = run(tmp_path, parquet_input(tmp_path, table), segment_bytes=1000)
    contents = store.read_table(tmp_path / "tables", "contents").select(["content", "bytes", "segment_bytes"])
    assert [tuple(row.values()) for row in contents.to_pylist()] == [("a", 9, 1000), ("b", 15, 5), ("c", 1000, 1000)]
    assert report.derived_contents == 3


def test_ingest__contents_that_a_table_lacks_are_derived_or_set_aside(tmp_path: Path) -> None:
    """Which of the two is the user's choice."""
    given = tmp_path / "contents.csv"
    given.write_text("content,bytes,segment_bytes\nc0,50,10\n")
    source = parquet_input(tmp_path, requests([0, 1]))
    report = run(tmp_path, source, tables={"contents": str(given)})
    assert (report.tables["contents"], report.derived_contents) == (2, 1)
    strict = run(tmp_path, source, tables={"contents": str(given)}, unknown_contents="quarantine", max_bad_share=0.5)
    assert (strict.rows_written, strict.quarantined) == (1, 1)


def test_ingest__unknown_locations_are_set_aside(tmp_path: Path) -> None:
    """A place without coordinates cannot be planned for."""
    (tmp_path / "places.csv").write_text("location,lat,lon\nx,1.5,2\n")
    table = requests([0, 1, 2], location=["x", "x", "atlantis"])
    report = run(
        tmp_path, parquet_input(tmp_path, table), tables={"locations": str(tmp_path / "places.csv")}, max_bad_share=0.4
    )
    assert report.reasons == {"location is not in the table 'locations'": 1}


def test_ingest__sessions_that_cannot_be_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    """One bad session of a device must not stop the fleet's log: each kind is listed, and the history can be built."""
    hours = [(0, 4, 5), (4 - 1 / 60, 6, 7), (5, 8, 9), (10, 9, 9), (12, 14, 13), (0, 4, 5), (1, 2, 2)]
    start, end, upper = (instants(list(column)) for column in zip(*hours, strict=True))
    ids = ["n1"] * 6 + ["nobody"]
    table = pa.table({"node": ids, "start": start, "end": end, "end_upper": upper, "censored": [False] * 7})
    nodes = {name: [1.0] for name in ("lat", "lon", "uplink_bps", "downlink_bps")}
    text = {"source": ["n1"], "location": ["x"], "network": ["as1"], "device_class": ["fridge"]}
    pq.write_table(table, tmp_path / "availability.parquet")
    pq.write_table(pa.table({**text, **nodes, "storage_bytes": [1]}), tmp_path / "nodes.parquet")
    paths = {name: str(tmp_path / f"{name}.parquet") for name in ("availability", "nodes")}
    report = run(tmp_path, log_input(tmp_path, log_lines(3)), tables=paths, max_bad_share=0.8)
    assert report.tables["availability"] == 2  # [0, 4) and, by another clock, [3:59, 6)
    assert report.reasons == {
        "node must not overlap an earlier row of the same node by more than 5 minutes": 1,
        "start must not have end before start": 1,
        "end must not have end_upper before end": 1,
        "node must be the only row with its node and start": 1,
        "node is not in the table 'nodes'": 1,
    }
    folder = tmp_path / "tables"
    history = SessionHistory.from_arrow(store.read_availability(folder), store.read_nodes(folder))
    assert history.repairs.clipped == 1
    assert history.device_class.tolist() == ["fridge"]


def test_ingest__a_world_passes_through_with_its_facts(tmp_path: Path) -> None:
    """All tables and world.json; only the requests' ids change."""
    world = {"name": "tiny", "seed": 1, "watch_through": 0.9}
    nodes = pa.table(
        {
            "source": ["n"], "location": ["x"], "lat": [1.0], "lon": [2.0], "network": ["as1"], "storage_bytes": [5],
            "uplink_bps": [1.0], "downlink_bps": [1.0], "device_class": ["home"],
            "consent_until": pa.array([None], INSTANT), "available_at": pa.array([MIDNIGHT], INSTANT),
        }
    )  # fmt: skip
    locations = pa.table({"location": ["x"], "lat": [1.0], "lon": [2.0]})
    tables = {"requests": requests([-1, 1]), "nodes": nodes, "locations": locations}
    store.write_tables(tmp_path / "world", tables, world=world)
    report = run(tmp_path, folder=str(tmp_path / "world"))
    out = tmp_path / "tables"
    assert store.read_world(out) == world
    assert report.tables == {"contents": 2, "locations": 1, "nodes": 1, "requests": 2}
    assert store.read_nodes(out)["source"].to_pylist() == ["n"]
    assert store.read_requests(out)["content"].to_pylist() == ["c0", "c1"]
    assert store.read_requests(out)["user"].to_pylist()[0] == pseudonym("u0", key=KEY, kind="user")
    assert store.read_requests(out).schema.names == SCHEMAS["requests"].arrow.names


def test_ingest__counts_stand_beside_the_tables(tmp_path: Path) -> None:
    """Two contents in one session are one step, and two requests in two hours."""
    run(tmp_path, parquet_input(tmp_path, requests([0, 1], session=["s", "s"])))
    steps = pq.read_table(tmp_path / "tables" / "transitions.parquet").to_pylist()
    assert steps == [{"previous": "c0", "content": "c1", "location": "x", "count": 1}]
    hours = pq.read_table(tmp_path / "tables" / "hourly_counts.parquet")
    assert hours["requests"].to_pylist() == [1, 1]
    assert hours["hour"].to_pylist() == [MIDNIGHT, MIDNIGHT + dt.timedelta(hours=1)]


def test_ingest__same_input_same_bytes(tmp_path: Path) -> None:
    """Also when the counting is spread over processes."""
    source = log_input(tmp_path, log_lines(60, broken=1))
    run(tmp_path, source)
    first = files_under(tmp_path / "tables")
    settings = IngestSettings(inputs=(source,))
    ingest(settings, out=tmp_path / "tables", key=KEY, runner=PoolRunner(2))
    assert files_under(tmp_path / "tables") == first


def test_ingest__an_interrupt_leaves_the_old_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the very end, after all tables are written beside: still the old ones, and a rerun completes."""
    source = log_input(tmp_path, log_lines(20))
    run(tmp_path, source)
    before = files_under(tmp_path / "tables")

    def interrupted(*_: object, **__: object) -> pa.Table:
        raise KeyboardInterrupt

    bigger = log_input(tmp_path, log_lines(40), "more.log")
    with monkeypatch.context() as patched:
        patched.setattr(ingest_module, "transitions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, bigger)
    assert files_under(tmp_path / "tables") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["access.log", "more.log", "tables"]
    assert run(tmp_path, bigger).rows_written == 40


def test_ingest__killed_at_any_instant_a_rerun_completes(tmp_path: Path) -> None:
    """No cleaning up by hand after a power cut: the next run sweeps and succeeds."""
    source = log_input(tmp_path, log_lines(300))
    script = (
        "import sys; from pathlib import Path; from pipelines.ingest import *\n"
        "from pipelines.formats.settings import InputSettings\n"
        "source = InputSettings(path=sys.argv[1], format='combined', location='x')\n"
        "def tell(label, done, total): print(label, flush=True)\n"
        "ingest(IngestSettings(inputs=(source,)), out=Path(sys.argv[2]), key=b'a key for the tests only', progress=tell)\n"
    )
    for label in ("write", "count steps"):
        command = [sys.executable, "-c", script, source.path, str(tmp_path / "tables")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
            assert child.stdout is not None
            while child.stdout.readline().strip() not in (label, ""):
                pass
            time.sleep(0.002)
            child.kill()
        assert not (tmp_path / "tables").exists() or len(store.read_requests(tmp_path / "tables")) == 300
    assert run(tmp_path, source).rows_written == 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["access.log", "tables"]


def test_ingest__every_problem_of_a_table_in_one_message(tmp_path: Path) -> None:
    """File, columns and remedies together."""
    table = pa.table({"ts": pa.array([0], pa.timestamp("us")), "bytes": ["many"]})
    with pytest.raises(InputError) as caught:
        run(tmp_path, parquet_input(tmp_path, table))
    message = str(caught.value)
    for part in ("requests.parquet", "content, location", "without a time zone", "'bytes' is string"):
        assert part in message


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.log", b"", "has no rows"),
        ("cut.parquet", b"PAR1 and no more", "cut short or is no Parquet"),
        ("none.parquet", None, "There is no file"),
        ("head.csv", b"ts,content,location\n", "no rows"),
    ],
)
def test_ingest__inputs_that_hold_nothing_are_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    """Each says which file and what to do, and writes nothing."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    kind: Any = {"log": "combined", "csv": "csv", "parquet": "parquet"}[name.rpartition(".")[2]]
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, InputSettings(path=str(tmp_path / name), format=kind, location="" if kind == "csv" else "x"))
    assert not (tmp_path / "tables").exists()


def test_ingest__inputs_that_disagree_on_a_column_are_refused(tmp_path: Path) -> None:
    """A further column that is text here and a number there has no one type."""
    one = parquet_input(tmp_path, requests([0], device=["tv"]), "one.parquet")
    two = parquet_input(tmp_path, requests([1], device=[5]), "two.parquet")
    with pytest.raises(InputError, match="disagree on a column"):
        run(tmp_path, one, two)


def test_ingest__a_place_that_cannot_be_written_is_named_before_the_work(tmp_path: Path) -> None:
    """Found at once, not after an hour of reading."""
    (tmp_path / "file").write_text("")
    settings = IngestSettings(inputs=(InputSettings(path="nowhere"),))
    with pytest.raises(OutputError, match="file"):
        ingest(settings, out=tmp_path / "file" / "tables", key=KEY)


def test_ingest__patterns_find_files_and_progress_is_told(tmp_path: Path) -> None:
    """Bars on a terminal need labels, done and total."""
    for day in (1, 2):
        log_input(tmp_path, log_lines(5).replace("01/May", f"0{day}/May"), f"day-{day}.log")
    told: list[tuple[str, int, int]] = []
    source = InputSettings(path=str(tmp_path / "day-*.log"), format="combined", location="x")
    settings = IngestSettings(inputs=(source,))
    report = ingest(settings, out=tmp_path / "t", key=KEY, progress=lambda *step: told.append(step))
    assert report.rows_written == 10
    assert {label for label, *_ in told} == {"read", "pseudonymise", "write", "count hours", "count steps"}
    assert all(done <= total for _, done, total in told)


def test_settings__all_mistakes_at_once() -> None:
    """One message, each with the value and what is allowed."""
    with pytest.raises(ValueError, match="Expected inputs or a folder") as caught:
        IngestSettings(tables={"node": "x"}, max_bad_share=2.0, on_duplicates="drp", buckets=0)  # type: ignore[arg-type]
    for part in ("Unknown tables node", "got 2.0", "'drp'", "buckets > 0, got 0"):
        assert part in str(caught.value)


def test_ingest__a_short_key_is_refused(tmp_path: Path) -> None:
    """Guessable pseudonyms are no pseudonyms."""
    with pytest.raises(InputError, match="at least 16"):
        ingest(IngestSettings(folder="x"), out=tmp_path / "t", key=b"short")
