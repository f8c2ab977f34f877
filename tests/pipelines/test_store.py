"""The tables on disk: what was known when, the same bytes again, and old or new but never half."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TableError
from models.events import HOUR_US, RequestLog
from models.tables import INSTANT
from pipelines import store
from pipelines.errors import OutputError

MIDNIGHT = dt.datetime(2024, 5, 2, tzinfo=dt.UTC)
MIDNIGHT_US = int(MIDNIGHT.timestamp()) * 1_000_000


def requests(hours: list[float], **columns: Any) -> pa.Table:
    """Requests at these hours from midnight, contents c0, c1, ... unless given."""
    n = len(hours)
    instants = [MIDNIGHT_US + round(h * HOUR_US) for h in hours]
    base: dict[str, Any] = {
        "ts": pa.array(instants, pa.int64()).cast(INSTANT),
        "user": [f"u{i}" for i in range(n)],
        "session": [f"s{i}" for i in range(n)],
        "content": [f"c{i}" for i in range(n)],
        "location": ["x"] * n,
        "bytes": pa.array([1] * n, pa.int64()),
        "available_at": pa.nulls(n, INSTANT),
    }
    return pa.table(base | columns)


def contents_of(table: pa.Table) -> list[str]:
    return [str(c) for c in table["content"].to_pylist()]


def test_requests__are_split_by_utc_day_and_sorted(tmp_path: Path) -> None:
    """Readers open only the days they need; equal instants keep the order of the file."""
    store.write_tables(tmp_path / "t", {"requests": requests([1, -1, 1])})
    days = sorted(p.name for p in (tmp_path / "t" / "requests").iterdir())
    assert days == ["day=2024-05-01", "day=2024-05-02"]
    assert contents_of(store.read_requests(tmp_path / "t")) == ["c1", "c0", "c2"]


def test_read_requests__window_is_half_open(tmp_path: Path) -> None:
    """[start, before): the request at start counts, the one at the end does not."""
    store.write_tables(tmp_path / "t", {"requests": requests([-1, 0, 1, 2])})
    window = store.read_requests(tmp_path / "t", start_us=MIDNIGHT_US, before_us=MIDNIGHT_US + 2 * HOUR_US)
    assert contents_of(window) == ["c1", "c2"]


def test_read_requests__a_late_arrival_is_unknown_until_it_arrived(tmp_path: Path) -> None:
    """c1 happened at 1 h but became known at 30 h; a cut at 12 h must not see it, one at 31 h must."""
    late = pa.array([None, MIDNIGHT + dt.timedelta(hours=30), None], INSTANT)
    store.write_tables(tmp_path / "t", {"requests": requests([0, 1, 2], available_at=late)})
    cut_12, cut_31 = (MIDNIGHT_US + h * HOUR_US for h in (12, 31))
    assert contents_of(store.read_requests(tmp_path / "t", before_us=cut_12)) == ["c0", "c2"]
    assert contents_of(store.read_requests(tmp_path / "t", before_us=cut_12, columns=["content"])) == ["c0", "c2"]
    assert store.read_request_log(tmp_path / "t", before_us=cut_12).contents.tolist() == ["c0", "c2"]
    assert contents_of(store.read_requests(tmp_path / "t", before_us=cut_31)) == ["c0", "c1", "c2"]


def test_read_requests__before_the_first_request_is_empty(tmp_path: Path) -> None:
    """Nothing known yet is an empty table with the right columns, not an error."""
    store.write_tables(tmp_path / "t", {"requests": requests([1])})
    table = store.read_requests(tmp_path / "t", before_us=0, columns=["content"])
    assert (len(table), table.column_names) == (0, ["content"])
    assert len(store.read_request_log(tmp_path / "t", before_us=0)) == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-30, 30), st.sampled_from("abc"), st.sampled_from(["s", "t", None])),
        min_size=1,
        max_size=30,
    )
)
def test_read_request_log__equals_the_log_built_from_columns(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, str | None]]
) -> None:
    """The fast path through Arrow codes must give the same codes as the plain one."""
    folder = tmp_path_factory.mktemp("log") / "t"
    table = requests([h for h, _, _ in rows], content=[c for _, c, _ in rows], session=[s for *_, s in rows])
    store.write_tables(folder, {"requests": table})
    log = store.read_request_log(folder)
    ts = table["ts"].cast(pa.int64()).to_numpy()
    plain = RequestLog.from_columns(ts, *(table[c].to_pylist() for c in ("session", "content", "location")))
    for name in ("ts_us", "session", "content", "location", "contents", "locations"):
        assert getattr(log, name).tolist() == getattr(plain, name).tolist(), name


def test_read_request_log__a_prefix_has_a_prefix_of_the_vocabulary(tmp_path: Path) -> None:
    """A log cut when reading and a log cut afterwards must be the same log."""
    rng = np.random.default_rng(7)
    table = requests(sorted(rng.uniform(-40, 40, 200)), content=[f"c{i}" for i in rng.integers(0, 50, 200)])
    store.write_tables(tmp_path / "t", {"requests": table})
    cut = MIDNIGHT_US + 5 * HOUR_US
    whole, part = store.read_request_log(tmp_path / "t"), store.read_request_log(tmp_path / "t", before_us=cut)
    assert part.content.tolist() == whole.before(cut).content.tolist()
    assert part.contents.tolist() == whole.before(cut).contents.tolist()


def test_read_availability__an_end_not_yet_known_is_censored(tmp_path: Path) -> None:
    """Cut at 5 h. a ended at 3 h, seen off at 4 h: known. b ended at 4 h, seen off at 6 h: still up for all anyone knew.

    c started at 7 h: not there. d was still up when the record ended at 9 h.
    """

    def at(hours: list[float | None]) -> pa.Array:
        return pa.array([None if h is None else MIDNIGHT + dt.timedelta(hours=h) for h in hours], INSTANT)

    table = pa.table(
        {
            "node": ["a", "b", "c", "d"],
            "start": at([0, 0, 7, 1]),
            "end": at([3, 4, 8, 9]),
            "end_upper": at([4, 6, None, None]),
            "censored": [False, False, False, True],
        }
    )
    store.write_tables(tmp_path / "t", {"availability": table})
    cut = MIDNIGHT_US + 5 * HOUR_US
    known = store.read_availability(tmp_path / "t", before_us=cut)
    assert known["node"].to_pylist() == ["a", "b", "d"]
    assert known["censored"].to_pylist() == [False, True, True]
    hours = [(e - MIDNIGHT_US) / HOUR_US for e in known["end"].cast(pa.int64()).to_pylist()]
    assert hours == [3, 5, 5]
    assert known["end_upper"].is_null().to_pylist() == [False, True, True]
    assert store.read_availability(tmp_path / "t").equals(table)


def test_read_nodes__a_node_is_there_once_known(tmp_path: Path) -> None:
    """A node without `available_at` was always known."""
    nodes = pa.table({"source": ["a", "b"], "available_at": pa.array([None, MIDNIGHT], INSTANT)})
    store.write_tables(tmp_path / "t", {"nodes": nodes})
    assert store.read_nodes(tmp_path / "t", before_us=MIDNIGHT_US)["source"].to_pylist() == ["a"]
    assert store.read_nodes(tmp_path / "t", before_us=MIDNIGHT_US + 1)["source"].to_pylist() == ["a", "b"]


def test_write_tables__same_tables_same_bytes(tmp_path: Path) -> None:
    """Plans are keyed by the hash of their tables."""
    for name in ("one", "two"):
        store.write_tables(tmp_path / name, {"requests": requests([0, 30])}, world={"name": "w", "seed": 1})
    assert files_under(tmp_path / "one") == files_under(tmp_path / "two")


def test_write_tables__replaces_the_whole_folder(tmp_path: Path) -> None:
    """A day of the old tables left among the new would be read as theirs."""
    store.write_tables(tmp_path / "t", {"requests": requests([0, 30])}, world={"name": "old"})
    store.write_tables(tmp_path / "t", {"requests": requests([0])})
    assert [p.name for p in (tmp_path / "t" / "requests").iterdir()] == ["day=2024-05-02"]
    assert store.read_world(tmp_path / "t") is None
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_write_tables__an_interrupt_leaves_the_old_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle leaves what was there and nothing beside it."""
    store.write_tables(tmp_path / "t", {"requests": requests([0])})
    before = files_under(tmp_path / "t")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_world", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write_tables(tmp_path / "t", {"requests": requests([0, 1])}, world={})
    assert files_under(tmp_path / "t") == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_write_tables__killed_at_any_instant_leaves_old_or_new(tmp_path: Path) -> None:
    """A writer that alternates between two versions is killed; what stays is one of them, whole."""
    script = (
        "import sys; from pathlib import Path; from pipelines import store\n"
        "from tests.pipelines.test_store import requests\n"
        "versions = [requests([0, 30]), requests([0, 30, 60])]\n"
        "store.write_tables(Path(sys.argv[1]), {'requests': versions[0]}); print('ready', flush=True)\n"
        "for i in range(100000): store.write_tables(Path(sys.argv[1]), {'requests': versions[i % 2]})\n"
    )
    for delay in (0.0, 0.013):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "t")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(delay)
            child.kill()
        assert len(store.read_requests(tmp_path / "t")) in (2, 3)
    store.write_tables(tmp_path / "t", {"requests": requests([0])})  # sweeps what the dead left
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_write_tables__a_folder_that_had_stepped_aside_comes_back(tmp_path: Path) -> None:
    """Where folders cannot be exchanged, a kill between two renames is mended by the next writer."""
    store.write_tables(tmp_path / "t", {"requests": requests([0])})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "t").rename(tmp_path / f".t.replaced-{dead.pid}")
    with pytest.raises(KeyError):
        store.write_tables(tmp_path / "t", {"requests": pa.table({"no": [1]})})
    assert contents_of(store.read_requests(tmp_path / "t")) == ["c0"]


def test_write_tables__a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message says which place and what to do."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="file"):
            store.write_tables(place, {"requests": requests([0])})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_write_tables__a_read_only_folder_is_named(tmp_path: Path) -> None:
    """No traceback for a missing permission."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        store.write_tables(tmp_path / "t", {"requests": requests([0])})


def test_read_table__what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    """A truncated copy and a wrong path are the two most common accidents."""
    with pytest.raises(TableError, match="no days"):
        store.read_requests(tmp_path)
    with pytest.raises(TableError, match="There is no file"):
        store.read_table(tmp_path, "nodes")
    store.write_tables(tmp_path / "t", {"requests": requests([0])})
    part = next((tmp_path / "t").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(TableError, match="cut short"):
        store.read_requests(tmp_path / "t")
    (tmp_path / "t" / "world.json").write_text("{")
    with pytest.raises(TableError, match="no JSON"):
        store.read_world(tmp_path / "t")


def test_read_requests__missing_columns_are_named(tmp_path: Path) -> None:
    """A reader that asks for a feature the table lacks hears which there are."""
    store.write_tables(tmp_path / "t", {"requests": requests([0])})
    with pytest.raises(TableError, match=r"Missing columns: colour\. Available columns: ts"):
        store.read_requests(tmp_path / "t", columns=["colour"])


def files_under(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
