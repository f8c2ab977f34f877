"""The newsroom join, on tables small enough to do by hand, and once on the real ones."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from models.errors import TableError
from models.tables import SCHEMAS, validate
from pipelines.devices import HOUR_US, choose_relays, phone_sessions
from pipelines.newsroom import NewsroomSettings, build_newsroom
from pipelines.sizes import SizeSettings, draw_catalogue, hash_ids, part_rng, watched_bytes

REAL = Path(os.environ.get("PREMIRROR_REAL_DATA") or Path(__file__).parents[2] / "../shared/data")
SUNDAY = pd.Timestamp("2026-04-05", tz="UTC")
WORLD_SUNDAY = pd.Timestamp("2017-10-01", tz="UTC")


def hours(*values: float, since: pd.Timestamp = SUNDAY) -> list[pd.Timestamp]:
    return [since + pd.Timedelta(hours=v) for v in values]


def relay_table() -> pd.DataFrame:
    """Six relays around SUNDAY; hours are relative to it.

    steady   up since five weeks before, still up at the cut      eligible
    restless three departures in the last four weeks             eligible, restless
    twice    two departures in the last four weeks               eligible
    old      left five days before                               not seen lately
    new      first seen ten days before                          not known for long
    late     three departures, all more than four weeks before   eligible
    """
    day = 24
    rows = [
        ("steady", -35 * day, 30 * day, True),
        ("restless", -35 * day, -20 * day, False),
        ("restless", -19 * day, -10 * day, False),
        ("restless", -9 * day, -3 * day, False),
        ("restless", -2 * day, 1 * day, False),
        ("restless", 2 * day, 40 * day, False),
        ("twice", -35 * day, -20 * day, False),
        ("twice", -19 * day, -2 * day, False),
        ("old", -35 * day, -5 * day, False),
        ("new", -10 * day, 30 * day, True),
        ("late", -35 * day, -34 * day, False),
        ("late", -33 * day, -32 * day, False),
        ("late", -31 * day, -30 * day, False),
        ("late", -29 * day, 20 * day, False),
    ]
    node, start, end, censored = (list(c) for c in zip(*rows, strict=True))
    upper = [e if c else e + 2 for e, c in zip(end, censored, strict=True)]
    return pd.DataFrame(
        {"node": node, "start": hours(*start), "end": hours(*end), "end_upper": hours(*upper), "censored": censored}
    )


def phone_table() -> pd.DataFrame:
    """Two phones: `night` is on 02:00-03:00 of a one-day trace, `seam` at its first and last hour; one empty window."""
    second = 3600.0
    rows = [("night", 2, 3), ("night", 5, 5), ("seam", 0, 1), ("seam", 23, 24)]
    return pd.DataFrame(
        {
            "node": [r[0] for r in rows],
            "start": [7000 + r[1] * second for r in rows],
            "end": [7000 + r[2] * second for r in rows],
            "censored": False,
            "trace_start": 7000.0,
            "trace_end": 7000 + 24 * second,
        }
    )


def click_table() -> pd.DataFrame:
    """Three days of clicks: codes 1-7 (30 in training), 9-28 (20), 1-3 (10), 1-5 (4); 50 more at 1-5 on the last day."""
    counts = {"1-7": 30, "9-28": 20, "1-3": 10, "1-5": 4}
    codes = [c for c, n in counts.items() for _ in range(n)]
    codes_last = ["1-5"] * 50
    ts = [WORLD_SUNDAY + pd.Timedelta(minutes=40 * i) for i in range(len(codes))]  # within the first two days
    ts += [WORLD_SUNDAY + pd.Timedelta(days=2, minutes=i) for i in range(len(codes_last))]
    n = len(ts)
    return pd.DataFrame(
        {
            "ts": pd.Series(ts).dt.as_unit("us"),
            "user": [f"u{i % 5}" for i in range(n)],
            "session": [f"s{i // 3}" for i in range(n)],
            "content": [str(i % 9) for i in range(n)],
            "location": codes + codes_last,
            "device_group": np.full(n, 3, dtype=np.int16),
            "os": np.full(n, 2, dtype=np.int16),
            "referrer": np.full(n, 1, dtype=np.int16),
        }
    )


CITIES = pd.DataFrame(
    {
        "city": ["Chicago", "New York", "Boston", "Porto"],
        "country": ["United States", "United States", "United States", "Portugal"],
        "lat": [41.85, 40.71, 42.36, 41.15],
        "lon": [-87.65, -74.01, -71.06, -8.61],
        "population": [2_720_546, 8_175_133, 667_137, 237_591],
    }
)
PAIRS = pd.DataFrame(
    [
        ("New York", "Chicago", 20.0),
        ("Chicago", "New York", 26.0),
        ("Chicago", "New York", 22.0),
        ("Porto", "New York", 90.0),
        ("Boston", "Porto", 80.0),
        ("Boston", None, 1.0),
    ],
    columns=["src", "dst", "rtt_avg_ms"],
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewsroomSettings:
    """Settings that point at the tables above; three of four codes get a city, two of three days train."""
    monkeypatch.delenv("PREMIRROR_REAL_DATA", raising=False)
    hosts = pd.DataFrame({"speed_bps_p10": [0, 8_000_000, 400_000_000]})
    links = pd.DataFrame({"p10_mbps": np.array([0, 1.0], dtype=np.float32)})
    for path, table in {
        "news_clicks/requests": click_table(),
        "relay_availability/sessions": relay_table(),
        "phone_availability/sessions": phone_table(),
        "city_rtt/cities": CITIES,
        "city_rtt/rtt": PAIRS,
        "node_capacity/hosts": hosts,
        "link_bandwidth/traces": links,
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        table.to_parquet(tmp_path / f"{path}.parquet")
    return NewsroomSettings(
        data=str(tmp_path),
        days=3,
        train_days=2,
        n_locations=3,
        home_nodes=2,
        restless_nodes=1,
        phones=8,
        foreign_cities=("Atlantis", "Porto"),
        pop_cities=("New York", "Boston"),
    )


def frames(tables: dict[str, pa.Table]) -> dict[str, pd.DataFrame]:
    for name, table in tables.items():
        assert len(validate(name, table).quarantine) == 0
    return {name: table.to_pandas() for name, table in tables.items()}


def test_locations__busiest_codes_of_the_training_days_get_cities(settings: NewsroomSettings) -> None:
    """The last day's rush at 1-5 must not count: ranks come from the training days."""
    tables = frames(build_newsroom(settings)[0])
    places = tables["locations"]
    assert places["location"].tolist() == ["1-7", "9-28", "1-3", "elsewhere"]
    assert places["name"].tolist() == ["New York", "Porto", "Chicago", "Elsewhere"]
    assert places["lat"].tolist() == [40.71, 41.15, 41.85, 40.71]
    assert tables["requests"]["location"].value_counts().to_dict() == {
        "elsewhere": 54,
        "1-7": 30,
        "9-28": 20,
        "1-3": 10,
    }
    assert "elsewhere" not in set(tables["nodes"]["location"])
    assert tables["pops"]["location"].tolist() == ["1-7", "1-7"]  # Boston is nearest to New York


def test_rtt__measured_pairs_and_the_rest_marked(settings: NewsroomSettings) -> None:
    """Three measurements of one pair give their median; nobody measured New York with itself, nor Chicago-Boston."""
    rtt = frames(build_newsroom(settings)[0])["rtt"].set_index(["location", "source"])
    assert rtt.loc[("1-3", "pop-new-york"), "rtt_ms"] == 22  # median of 20, 26, 22
    assert rtt.loc[("9-28", "pop-boston"), "rtt_ms"] == 80
    modelled = rtt["modelled"]
    assert not modelled[("1-3", "pop-new-york")]
    assert modelled[("1-7", "pop-new-york")]
    assert modelled[("1-3", "pop-boston")]
    assert modelled["elsewhere"].all()
    nodes = rtt.loc["1-3"].drop(index=["pop-new-york", "pop-boston"])
    assert len(nodes) == 11  # 3 homes and 8 phones


def test_requests__pass_columns_on_and_take_pages_whole(settings: NewsroomSettings) -> None:
    """Bytes are whole pages or a number of whole segments of a video, never more than the content."""
    tables = frames(build_newsroom(settings)[0])
    requests = tables["requests"].merge(tables["contents"], on="content", suffixes=("", "_whole"))
    assert (requests["os"] == 2).all()
    pages = requests["kind"] == "page"
    assert (requests["bytes"] == requests["bytes_whole"])[pages].all()
    videos = requests[~pages]
    assert ((videos["bytes"] % videos["segment_bytes"] == 0) | (videos["bytes"] == videos["bytes_whole"])).all()


def test_relays__eligible_then_restless() -> None:
    """`old` and `new` are never drawn; `restless` comes first among the restless, then `twice` with two departures."""
    for seed in range(20):
        rng = part_rng(seed, "test")
        choice = choose_relays(relay_table(), SUNDAY, any_kind=1, restless=2, days_after=3, rng=rng)
        assert set(choice.nodes) < {"steady", "restless", "twice", "late"}
        rest = ["restless", "twice", "late", "steady"]
        rest.remove(choice.nodes[0])
        assert choice.nodes[1] == rest[0]
        assert choice.restless == int(rest[0] == "restless")
        assert choice.nodes[2] == rest[1] or rest[1] == "late"  # `late` and `steady` have no departure that counts


def test_relays__shortage_is_an_error() -> None:
    """More nodes than eligible relays, or a Sunday outside the record, cannot be met silently."""
    with pytest.raises(ValueError, match="Only 4 relays"):
        choose_relays(relay_table(), SUNDAY, any_kind=5, restless=0, days_after=3, rng=part_rng(0, "t"))
    with pytest.raises(ValueError, match="Choose another relay_sunday"):
        choose_relays(relay_table(), SUNDAY, any_kind=1, restless=0, days_after=300, rng=part_rng(0, "t"))


def test_availability__is_shifted_by_whole_weeks_and_censored_at_the_end(settings: NewsroomSettings) -> None:
    """Sunday 2026-04-05 falls on Sunday 2017-10-01; interval censoring stays; history stays."""
    everyone = replace(settings, home_nodes=4, restless_nodes=0)
    availability = frames(build_newsroom(everyone)[0])["availability"]
    home = availability[availability["node"].str.startswith("home")]
    day = pd.Timedelta(days=1)
    restless = next(s for _, s in home.groupby("node") if len(s) == 5)
    assert restless["start"].tolist() == [WORLD_SUNDAY + k * day for k in (-35, -19, -9, -2, 2)]
    assert restless["end"].tolist() == [WORLD_SUNDAY + k * day for k in (-20, -10, -3, 1, 3)]
    assert restless["censored"].tolist() == [False, False, False, False, True]  # up when the world ends
    assert (restless["end_upper"] - restless["end"]).tolist()[:4] == [pd.Timedelta(hours=2)] * 4
    assert restless["end_upper"].isna().tolist() == [False, False, False, False, True]
    assert not home["modelled"].any()


def test_phones__repeat_from_a_whole_hour_and_join_at_the_seam() -> None:
    """Daily traces recur every 24 h at a whole hour; hours 23-24 and 0-1 of consecutive copies are one session."""
    window_us = (0, 10 * 24 * HOUR_US)
    sessions = phone_sessions(phone_table(), 40, window_us=window_us, rng=part_rng(1, "test"))
    assert sessions.n_nodes == 40
    lengths = set()
    for node in range(40):
        ours = sessions.node == node
        start, end = sessions.start_us[ours], sessions.end_us[ours]
        inner = slice(1, -1)
        lengths |= set(((end - start)[inner] // HOUR_US).tolist())
        assert (start[inner] % HOUR_US == 0).all()
        assert (np.diff(start[inner]) == 24 * HOUR_US).all()
        assert end.min() > window_us[0]
        assert end.max() >= window_us[1] - 24 * HOUR_US
        assert sessions.modelled[ours][2:].all()
    assert lengths == {1, 2}


def test_capacity__follows_the_rules(settings: NewsroomSettings) -> None:
    """Half the measured speed, capped; uplink twice mean demand; storage a share of distinct bytes by level."""
    tables, facts = build_newsroom(settings)
    nodes, figures = frames(tables)["nodes"], facts["figures"]
    requests = frames(tables)["requests"]
    training = requests[(requests["ts"] < WORLD_SUNDAY + pd.Timedelta(days=2)) & (requests["location"] != "elsewhere")]
    rate_bps = training["bytes"].sum() * 8 / (2 * 86_400)
    assert figures["mean_demand_bps"] == pytest.approx(rate_bps)
    assert figures["available_uplink_bps"] == pytest.approx(2 * rate_bps)
    homes = nodes[nodes["device_class"] == "home"]
    assert set((homes["uplink_bps"] / figures["uplink_factor"]).round()) <= {4_000_000, 50_000_000}
    phones = nodes[nodes["device_class"] == "phone"]
    assert (phones["uplink_bps"] / figures["uplink_factor"]).round().eq(500_000).all()
    sizes = frames(tables)["contents"].set_index("content")["bytes"]
    distinct = training.assign(day=training["ts"].dt.date).drop_duplicates(["day", "location", "content"])
    total = distinct["content"].map(sizes).groupby(distinct["location"]).sum() / 2
    held = nodes.groupby("location")["storage_bytes"].sum()
    np.testing.assert_allclose(held, 0.4 * total[held.index], rtol=1e-5)
    ample = frames(build_newsroom(replace(settings, storage_level="ample"))[0])["nodes"]
    np.testing.assert_allclose(ample["storage_bytes"], 1.5 / 0.4 * nodes["storage_bytes"], rtol=1e-4)
    assert ample["location"].equals(nodes["location"])


def test_world__says_what_is_measured(settings: NewsroomSettings) -> None:
    """Every column of every table is listed once, unless it is a row mark, an unknown or an id."""
    tables, world = build_newsroom(settings)
    listed = world["measured"] + world["modelled"]
    assert len(listed) == len(set(listed))
    columns = {f"{name}.{c}" for name, table in tables.items() for c in table.column_names}
    assert set(listed) <= columns
    unlisted = {"content", "location", "node", "source", "parent", "segment", "published_at", "modelled"}
    assert {c.split(".")[1] for c in columns - set(listed)} <= unlisted
    assert set(tables) == set(SCHEMAS) - {"telemetry"}
    assert "left out" in world["rules"]["telemetry"]


def test_sizes__have_their_medians_and_watch_through() -> None:
    """Medians, the share of videos and the watch-through of many hash draws are those of the rule."""
    catalogue = draw_catalogue([str(i) for i in range(20_000)], SizeSettings(), seed=3)
    assert catalogue.video.mean() == pytest.approx(0.2, abs=0.012)
    assert np.median(catalogue.bytes[catalogue.video]) == pytest.approx(60e6, rel=0.06)
    assert np.median(catalogue.bytes[~catalogue.video]) == pytest.approx(1.5e6, rel=0.03)
    longest = int(catalogue.bytes.argmax())
    key = hash_ids((str(i) for i in range(20_000)), seed=9)
    watched = watched_bytes(catalogue, np.full(20_000, longest), key, watch_through=0.93)
    segments = -(-watched // SizeSettings().segment_bytes)
    # P(more than j segments) = 0.93^j: 0.93^1 = .930, 0.93^10 = .484
    assert (segments > 1).mean() == pytest.approx(0.930, abs=0.01)
    assert (segments > 10).mean() == pytest.approx(0.484, abs=0.015)


def test_sizes__do_not_depend_on_what_else_is_there() -> None:
    """A content keeps its size in another order and another company."""
    one = draw_catalogue(["a", "b", "c"], SizeSettings(), seed=1)
    other = draw_catalogue(["c", "x", "a"], SizeSettings(), seed=1)
    assert one.bytes[[0, 2]].tolist() == other.bytes[[2, 0]].tolist()
    assert one.bytes[0] != draw_catalogue(["a"], SizeSettings(), seed=2).bytes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"relay_sunday": "2026-04-06"}, "relay_sunday to be a Sunday, got '2026-04-06' .Monday."),
        ({"start": "Sunday"}, "got 'Sunday'"),
        ({"train_days": 20}, "train_days <= days"),
        ({"phones": 0}, "phones >= 1, got 0"),
    ],
)
def test_settings__say_what_is_wrong(change: dict[str, Any], words: str) -> None:
    """A setting out of bounds is named with its value and what is allowed."""
    with pytest.raises(ValueError, match=words):
        NewsroomSettings(**change)


def test_build__names_the_missing_table(settings: NewsroomSettings, tmp_path: Path) -> None:
    """Whoever has no real tables learns which file was looked for and which variable points elsewhere."""
    with pytest.raises(TableError, match=r"nowhere.*requests\.parquet.*PREMIRROR_REAL_DATA"):
        build_newsroom(replace(settings, data=str(tmp_path / "nowhere")))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real tables are not at {REAL}; set PREMIRROR_REAL_DATA")
def test_real_tables__keep_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real tables the world has its 30 locations, 2,406 sources and all 2.4 M requests, and passes validation."""
    monkeypatch.setenv("PREMIRROR_REAL_DATA", str(REAL))
    tables, world = build_newsroom(NewsroomSettings())
    assert len(tables["requests"]) == 2_409_924
    assert (len(tables["locations"]), len(tables["nodes"]), len(tables["pops"])) == (30, 2400, 6)
    assert len(tables["rtt"]) == 30 * 2406
    for name in ("contents", "locations", "pops", "nodes", "availability", "rtt"):
        assert len(validate(name, tables[name]).quarantine) == 0
    assert world["figures"]["available_uplink_bps"] == pytest.approx(2 * world["figures"]["mean_demand_bps"])
