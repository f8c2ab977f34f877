"""What a run reads: the same log from a folder and from a file, with the columns that its configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.errors import TableError
from models.events import HOUR_US, RequestLog
from models.tables import INSTANT
from pipelines import store
from pipelines.config import DataSource, NextContentSource, load
from pipelines.errors import ConfigError, InputError
from pipelines.home import Home
from pipelines.inputs import Inputs
from tests.conftest import END_US, TinyHome
from tests.models.test_events import as_plain
from tests.pipelines.test_store import MIDNIGHT_US, requests

CUT_US = MIDNIGHT_US + 25 * HOUR_US


def instants(hours: list[float | None]) -> pa.Array:
    """Instants at these hours from midnight."""
    return pa.array([None if h is None else MIDNIGHT_US + round(h * HOUR_US) for h in hours], pa.int64()).cast(INSTANT)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Five requests in three days, and six contents.

    c0 is requested at -1 h, c1 at 1 h and 30 h, c2 at 2 h, all published long before; c3 at 26 h, published at 24 h.
    c4 is published at 3 h and c5 at 40 h; neither is requested.
    """
    table = requests(
        [-1, 1, 2, 26, 30],
        content=["c0", "c1", "c2", "c3", "c1"],
        user=["ann", None, "ann", "bob", "bob"],
        os=pa.array([2, None, 17, 2, 3], pa.int16()),
        referrer=pa.array(["home", "search", None, "home", "mail"]),
    )
    contents = pa.table(
        {
            "content": ["c5", "c4", "c3", "c2", "c1", "c0"],
            "kind": ["page", "video", None, "page", "page", "page"],
            "published_at": instants([40, 3, 24, -50, -50, -90]),
        }
    )
    store.write_tables(tmp_path / "t", {"requests": table, "contents": contents})
    store.write_parquet(tmp_path / "requests.parquet", table.take([4, 2, 0, 1, 3]))
    return tmp_path / "t"


def find(path: Path, **features: Any) -> Inputs:
    return Inputs.find(NextContentSource(requests=str(path), **features), Home(path))


def test_next_content__reads_users_features_and_the_catalogue(tables: Path) -> None:
    """By hand, cut at 25 h: c0 -90 h; c1 and c2 -50 h, by id; c4 at 3 h; c3 at 24 h, not requested yet; c5 unknown."""
    log = find(tables, features=("os",), event_features=("referrer",)).requests(CUT_US)
    assert log.contents.tolist() == ["c0", "c1", "c2", "c4", "c3"]
    assert log.content.tolist() == [0, 1, 2]
    assert log.appeared_us is not None
    assert ((log.appeared_us - MIDNIGHT_US) / HOUR_US).tolist() == [-90, -50, -50, 3, 24]
    assert log.kinds is not None
    assert (log.kinds.tolist(), log.kind_values.tolist()) == ([0, 0, 0, 1, -1], ["page", "video"])
    assert log.visitor is not None
    assert log.visitor.tolist() == [0, -1, 0]
    assert {name: codes.tolist() for name, codes in log.features.items()} == {
        "device": [0, -1, 1],
        "arrival": [0, 1, -1],
    }
    values = {name: found.tolist() for name, found in log.feature_values.items()}
    assert values == {"device": ["2", "17"], "arrival": ["home", "search"]}
    assert dict(find(tables).requests(CUT_US).features) == {}
    assert set(find(tables, event_features=("referrer",)).requests(CUT_US).features) == {"arrival"}


@pytest.mark.parametrize("cut_us", [CUT_US, MIDNIGHT_US + HOUR_US, MIDNIGHT_US + 90 * HOUR_US])
def test_next_content__cut_when_reading_or_afterwards(tables: Path, cut_us: int) -> None:
    """One log, wherever it is cut."""
    features = ("os", "referrer")
    whole = store.read_request_log(tables, features=features, catalogue=True)
    part = store.read_request_log(tables, before_us=cut_us, features=features, catalogue=True)
    assert as_plain(part) == as_plain(whole.before(cut_us))


def test_other_models__know_only_what_was_requested(tables: Path) -> None:
    """A content that nobody requested is no demand, and its code would shift all others."""
    log = Inputs.find(DataSource(requests=str(tables)), Home(tables)).requests(CUT_US)
    assert log.contents.tolist() == ["c0", "c1", "c2"]
    assert (dict(log.features), log.kinds) == ({}, None)


def test_file__gives_the_log_of_the_folder(tables: Path) -> None:
    """An outsider's single file, in any order, is read as the same requests in a folder are."""
    file = tables.with_name("requests.parquet")
    named = {"features": ("os",), "event_features": ("referrer",)}
    for cut_us in (CUT_US, CUT_US + 90 * HOUR_US):
        folder = store.read_request_log(tables, before_us=cut_us, features=("os", "referrer"))
        assert as_plain(find(file, **named).requests(cut_us)) == as_plain(
            folder.described(device=("os",), arrival=("referrer",))
        )
    plain = RequestLog.from_columns(
        np.array([MIDNIGHT_US + h * HOUR_US for h in (-1, 1, 2, 26, 30)]),
        [f"s{i}" for i in range(5)],
        ["c0", "c1", "c2", "c3", "c1"],
        ["x"] * 5,
        user=["ann", None, "ann", "bob", "bob"],
        features={"os": [2, None, 17, 2, 3], "referrer": ["home", "search", None, "home", "mail"]},
    )
    assert as_plain(store.read_request_log(file, features=("os", "referrer"))) == as_plain(plain)


def test_file__of_another_unit_and_zone_without_users(tmp_path: Path) -> None:
    """Instants count, not how they are written; numbers may be ids."""
    hours = instants([1, 0]).cast(pa.timestamp("ns", tz="Europe/Zurich"))
    table = pa.table({"ts": hours, "session": [7, 7], "content": [4, 5], "location": ["x", "y"]})
    store.write_parquet(tmp_path / "r.parquet", table)
    log = find(tmp_path / "r.parquet").requests(CUT_US)
    assert ((log.ts_us - MIDNIGHT_US) / HOUR_US).tolist() == [0, 1]
    assert (log.contents.tolist(), log.locations.tolist(), log.visitor) == ([5, 4], ["y", "x"], None)


def test_catalogue__without_kinds_and_publication_adds_nothing(tables: Path) -> None:
    """Both columns may be missing."""
    store.write_parquet(tables / "contents.parquet", pa.table({"content": ["c9", "c1"]}))
    log = store.read_request_log(tables, catalogue=True)
    assert as_plain(log) == as_plain(store.read_request_log(tables))


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"content": ["c1", "c1"]}, "A content is listed twice"),
        ({"id": ["c1"]}, "Missing columns: content. Available columns: id"),
        ({"content": ["c1"], "published_at": pa.array([0], pa.timestamp("us"))}, "without a time zone"),
    ],
)
def test_catalogue__that_cannot_be_read_is_named(tables: Path, contents: dict[str, Any], said: str) -> None:
    """Which table, what is wrong, and what there is."""
    store.write_parquet(tables / "contents.parquet", pa.table(contents))
    with pytest.raises(TableError, match=f"(?s)'contents'.*{said}"):
        store.read_request_log(tables, catalogue=True)


def test_features__that_are_missing_are_named_with_those_there_are(tables: Path) -> None:
    """A typing mistake is mended from the message alone, for a folder and for a file."""
    for path in (tables, tables.with_name("requests.parquet")):
        with pytest.raises(
            TableError, match=r"Missing columns: refferer\. Available columns: ts, user, .*os, referrer"
        ):
            find(path, features=("os",), event_features=("refferer",)).requests(CUT_US)


def test_features__that_are_empty_are_unknown_everywhere(tmp_path: Path) -> None:
    """A column of nulls has no values, whatever its type."""
    store.write_tables(tmp_path / "t", {"requests": requests([1, 30], a=pa.nulls(2), b=pa.nulls(2, pa.int16()))})
    log = store.read_request_log(tmp_path / "t", features=("a", "b"))
    assert [log.features[name].tolist() for name in "ab"] == [[-1, -1]] * 2
    assert [len(log.feature_values[name]) for name in "ab"] == [0, 0]


def test_file__that_is_damaged_or_has_no_zone_is_named(tmp_path: Path) -> None:
    """No guess at a zone, and no traceback."""
    file = tmp_path / "r.parquet"
    columns = {name: ["a"] for name in ("session", "content", "location")}
    store.write_parquet(file, pa.table({"ts": pa.array([0], pa.timestamp("us")), **columns}))
    with pytest.raises(TableError, match=r"'ts' .* without a time zone"):
        find(file).requests(CUT_US)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TableError, match="cut short"):
        find(file).requests(CUT_US)
    with pytest.raises(InputError, match="Give an existing folder or Parquet file"):
        find(tmp_path / "absent")


def test_ingest__keeps_what_the_next_content_model_reads(tiny_world: TinyHome) -> None:
    """The tables of a world have users, kinds and instants of publication; some contents are published unrequested."""
    log = Inputs.find(tiny_world.config("next-content").data, tiny_world.home).requests(END_US)
    demand = Inputs.find(tiny_world.config("demand").data, tiny_world.home).requests(END_US)
    assert log.visitor is not None
    assert log.visitor.min() == 0
    assert set(log.kind_values) == {"page", "video"}
    assert log.appeared_us is not None
    assert np.all(log.appeared_us[log.content] <= log.ts_us)
    assert np.array_equal(log.contents[log.content], demand.contents[demand.content])
    assert set(demand.contents) <= set(log.contents)


@pytest.mark.parametrize(
    ("kind", "assignment", "said"),
    [
        ("next-content", "data.features=[os, os]", "data.event_features, got twice: .'os'."),
        ("next-content", "data.event_features=[user]", "which the model reads anyway"),
        ("next-content", "data.features=os", "data.features"),
        ("demand", "data.features=[os]", "data.features: unknown key"),
    ],
)
def test_features__that_make_no_sense_are_refused(tiny_world: TinyHome, kind: str, assignment: str, said: str) -> None:
    """Only the next-content model reads them, each once."""
    with pytest.raises(ConfigError, match=said):
        load(kind, tiny_world.config_file(kind), [assignment])
    run = load("next-content", tiny_world.config_file("next-content"), ["data.features=[os]"])
    assert run.data.features == ("os",)


def test_history__reads_telemetry_where_there_is_some(tables: Path) -> None:
    """Heartbeats before the cut come with the sessions; a home without the table has none."""
    availability = {
        "node": ["n1", "n2"],
        "start": instants([0, 3 - 1 / 60]),
        "end": instants([9, 9]),
        "end_upper": instants([None, None]),
        "censored": [True, True],
    }
    # n2's first session begins, by its own clock, a minute before the node is known.
    nodes = {"source": ["n1", "n2"], "available_at": instants([0, 3])}
    telemetry = {"ts": instants([1, 2, 4]), "node": ["n1", "n2", "n1"], "battery": [0.1, 0.2, 0.3]}
    store.write_parquet(tables / "availability.parquet", pa.table(availability))
    store.write_parquet(tables / "nodes.parquet", pa.table(nodes))
    assert find(tables).history(MIDNIGHT_US + 5 * HOUR_US).telemetry is None
    store.write_parquet(tables / "telemetry.parquet", pa.table(telemetry))
    early, late = (find(tables).history(MIDNIGHT_US + h * HOUR_US) for h in (3, 5))
    assert early.nodes.tolist() == ["n1"]
    assert early.telemetry is not None
    assert early.telemetry.ts_us.tolist() == [MIDNIGHT_US + HOUR_US]
    assert late.telemetry is not None
    assert (late.telemetry.stops - late.telemetry.starts).tolist() == [2, 1]
