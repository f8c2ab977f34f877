"""Every log format: what each line becomes, and what happens to lines that are broken."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.errors import TableError
from models.tables import validate
from pipelines.errors import InputError
from pipelines.formats.libcachesim import RECORD
from pipelines.formats.readers import READERS
from pipelines.formats.settings import Format, InputSettings

COMBINED = (
    '192.0.2.7 - - [01/May/2024:14:00:00 +0200] "GET /v/title-9/seg-12.ts?t=1 HTTP/1.1" 206 4000 "-" "A \\"b\\" (c)" PAR\n'
    '192.0.2.7 - zoe [01/May/2024:14:00:01 +0200] "GET /page HTTP/2" 200 - "https://e.org/" "UA" PAR\n'
)
CLOUDFRONT_HEAD = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status\n"
)
CLOUDFRONT = CLOUDFRONT_HEAD + (
    "2024-05-01\t12:00:00\tIAD89-C1\t4000\t192.0.2.7\tGET\te.org\t/v/film-003.m4s\t200\n"
    "2024-05-01\t12:00:01\tFRA2-P1\t10\t2001:db8::1\tGET\te.org\t/page\t404\n"
)


def read(
    path: Path, kind: Format, **settings: Any
) -> tuple[list[dict[str, Any]], list[tuple[int, str]], dict[str, int]]:
    """Rows, broken lines and skipped rows of a whole file."""
    rows: list[dict[str, Any]] = []
    broken: list[tuple[int, str]] = []
    skipped: dict[str, int] = {}
    for reading in READERS[kind](path, InputSettings(path=str(path), format=kind, **settings)):
        assert len(reading.table) == len(reading.line)
        rows.extend(validate("requests", reading.table).table.to_pylist() if len(reading.table) else [])
        broken.extend(zip(reading.broken.line, reading.broken.reason, strict=True))
        skipped |= reading.skipped
    return rows, broken, skipped


def picked(rows: Iterable[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """These columns of each row, instants as ISO text."""
    return [tuple(v.isoformat() if hasattr(v := row[n], "isoformat") else v for n in names) for row in rows]


def written(tmp_path: Path, text: str, name: str = "log") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_combined__line_by_line(tmp_path: Path) -> None:
    """14:00 at UTC+2 is 12:00 UTC; the segment comes from the URL; `-` bytes are unknown."""
    rows, broken, skipped = read(written(tmp_path, COMBINED), "combined", location="paris")
    assert picked(rows, "ts", "user", "content", "segment", "location", "bytes") == [
        ("2024-05-01T12:00:00+00:00", "192.0.2.7", "/v/title-9", 12, "paris", 4000),
        ("2024-05-01T12:00:01+00:00", "192.0.2.7", "/page", None, "paris", None),
    ]
    assert (broken, skipped) == ([], {})


def test_combined__the_place_may_be_the_last_word(tmp_path: Path) -> None:
    """Edges often append a country or a POP to the line."""
    rows, *_ = read(
        written(tmp_path, COMBINED), "combined", columns={"location": "last"}, location_map={"PAR": "paris"}
    )
    assert picked(rows, "location") == [("paris",), ("paris",)]


def test_combined__gzip_and_windows_line_ends_and_a_missing_last_end(tmp_path: Path) -> None:
    """Rotated logs are packed, and the last line may be open."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(COMBINED.replace("\n", "\r\n").rstrip().encode()))
    rows, broken, _ = read(path, "combined", location="paris")
    assert (len(rows), broken) == (2, [])


def test_combined__broken_lines_keep_their_number_and_say_why(tmp_path: Path) -> None:
    """Whoever mends the log looks for the line."""
    lines = COMBINED.splitlines()
    text = "\n".join(
        [
            "garbage",
            lines[0],
            lines[0].replace("May", "Mai"),
            "",
            lines[0].replace("01/May", "31/Feb"),
            lines[0].replace(" 4000 ", " 4e3 "),
            lines[0].replace("/v/title-9/seg-12.ts?t=1", "*"),
            lines[1].replace('"GET', '"HEAD'),
            lines[1].replace(" 200 ", " 503 "),
        ]
    )
    rows, broken, skipped = read(written(tmp_path, text), "combined", location="paris")
    assert len(rows) == 1
    assert sorted(broken) == [
        (1, "the line is not in combined log format"),
        (3, "the time cannot be read"),
        (5, "the time cannot be read"),
        (6, "bytes is no whole number"),
        (7, "the URL fits none of url_patterns"),
    ]
    assert skipped == {"method HEAD": 1, "status 503": 1}


def test_combined__a_line_that_is_not_utf8_is_broken_alone(tmp_path: Path) -> None:
    """One scanner's bytes must not cost the file."""
    path = tmp_path / "log"
    path.write_bytes(COMBINED.encode() + b"\xff\xfe\n" + COMBINED.encode())
    rows, broken, _ = read(path, "combined", location="paris")
    assert len(rows) == 4
    assert broken == [(3, "the line is not UTF-8")]


def test_combined__unknown_field_names_those_there_are(tmp_path: Path) -> None:
    """A typo in `columns` is found before the log is read."""
    with pytest.raises(InputError, match=r"no field 'country'.*'client'"):
        read(written(tmp_path, COMBINED), "combined", columns={"location": "country"})


def test_cloudfront__edge_to_location_and_ip_to_user(tmp_path: Path) -> None:
    """IAD89-C1 is Washington's airport; a 404 is nobody's demand."""
    rows, broken, skipped = read(written(tmp_path, CLOUDFRONT), "cloudfront", location_map={"IAD": "washington"})
    assert picked(rows, "ts", "user", "content", "segment", "location", "bytes") == [
        ("2024-05-01T12:00:00+00:00", "192.0.2.7", "/v/film", 3, "washington", 4000)
    ]
    assert (broken, skipped) == ([], {"status 404": 1})


def test_cloudfront__an_edge_without_an_entry_is_a_bad_row(tmp_path: Path) -> None:
    """Guessing a place would move demand to the wrong city."""
    rows, broken, _ = read(written(tmp_path, CLOUDFRONT), "cloudfront", location_map={"FRA": "frankfurt"})
    assert rows == []
    assert broken == [(3, "the location field is empty or has no entry in location_map")]


def test_cloudfront__a_cut_line_and_a_lost_head(tmp_path: Path) -> None:
    """A truncated download ends within a line; a file without its head cannot be read at all."""
    rows, broken, _ = read(written(tmp_path, CLOUDFRONT[:-20]), "cloudfront")
    assert len(rows) == 1
    assert broken == [(4, "the line does not have the 9 fields that '#Fields:' names")]
    with pytest.raises(InputError, match="before any '#Fields:' line"):
        read(written(tmp_path, CLOUDFRONT.split("\n", 2)[2]), "cloudfront")


def test_w3c__fields_may_change_within_a_file(tmp_path: Path) -> None:
    """Servers write a new `#Fields:` line after a restart with other settings."""
    text = (
        "#Software: server\n#Fields: date time c-ip cs-uri-stem\n2024-05-01 12:00:00 192.0.2.7 /a\n"
        "#Fields: time date sc-bytes cs-uri-stem\n12:00:01.5 2024-05-01 77 /b\n"
    )
    rows, broken, _ = read(written(tmp_path, text), "w3c", location="x")
    assert picked(rows, "ts", "user", "content", "bytes") == [
        ("2024-05-01T12:00:00+00:00", "192.0.2.7", "/a", None),
        ("2024-05-01T12:00:01.500000+00:00", None, "/b", 77),
    ]
    assert broken == []


def test_w3c__a_missing_field_is_named_with_those_there_are(tmp_path: Path) -> None:
    """The remedy is a setting of the server, so the message says which."""
    with pytest.raises(InputError, match=r"lacks the fields cs-uri-stem; it has date, time"):
        read(written(tmp_path, "#Fields: date time\n2024-05-01 12:00:00\n"), "w3c", location="x")


def test_json_lines__keys_paths_and_further_columns(tmp_path: Path) -> None:
    """Keys may be nested, and a name that is no role becomes a column."""
    record = {"at": "2024-05-01T14:00:00+02:00", "client": {"ip": "192.0.2.7"}, "url": "/a/seg-3", "edge": "X", "n": 5}
    text = json.dumps(record) + "\n{broken\n[1]\n" + json.dumps(record | {"at": "2024-05-01T12:00:00"}) + "\n"
    columns = {"ts": "at", "user": "$.client.ip", "location": "edge", "bytes": "n", "device": "kind"}
    rows, broken, _ = read(written(tmp_path, text), "json_lines", columns=columns)
    assert picked(rows, "ts", "user", "content", "segment", "location", "bytes", "device") == [
        ("2024-05-01T12:00:00+00:00", "192.0.2.7", "/a", 3, "X", 5, None)
    ]
    # Line 4 has a time without a zone, which is not guessed.
    assert sorted(broken) == [
        (2, "the line is no JSON object"),
        (3, "the line is no JSON object"),
        (4, "the time cannot be read"),
    ]


def test_json_lines__a_stated_zone_or_unit_is_no_guess(tmp_path: Path) -> None:
    """1714564800.25 s is 2024-05-01T12:00:00.25Z; 14:00 in Paris is 12:00 UTC in May."""
    numbers = written(tmp_path, '{"ts": 1714564800.25, "content": "a"}\n')
    rows, *_ = read(numbers, "json_lines", location="x", ts_unit="s")
    assert picked(rows, "ts") == [("2024-05-01T12:00:00.250000+00:00",)]
    local = written(tmp_path, '{"ts": "2024-05-01 14:00:00", "content": "a"}\n')
    rows, *_ = read(local, "json_lines", location="x", timezone="Europe/Paris")
    assert picked(rows, "ts") == [("2024-05-01T12:00:00+00:00",)]


def test_csv__rows_are_typed_and_bad_ones_say_why(tmp_path: Path) -> None:
    """Everything a spreadsheet can do to a table."""
    text = (
        "ts,content,place,bytes,device\n"
        "2024-05-01T12:00:00Z,a,x,5,tv\n"
        "2024-05-01T12:00:00,a,x,5,tv\n"
        "2024-02-30T12:00:00Z,a,x,5,tv\n"
        "2024-05-01T12:00:00Z,a,x\n"
        "2024-05-01T12:00:00Z,a,x,many,tv\n"
        '2024-05-01T12:00:00+01:00,"b, c",x,,\n'
    )
    rows, broken, _ = read(written(tmp_path, text), "csv", columns={"location": "place"})
    assert picked(rows, "ts", "content", "location", "bytes", "device") == [
        ("2024-05-01T12:00:00+00:00", "a", "x", 5, "tv"),
        ("2024-05-01T11:00:00+00:00", "b, c", "x", None, None),
    ]
    assert [line for line, _ in sorted(broken)] == [3, 4, 5, 6]
    assert "no time zone" in dict(broken)[3]
    assert "no instant" in dict(broken)[4]
    assert "3 fields, the head has 5" in dict(broken)[5]
    assert "bytes cannot be read as int64" in dict(broken)[6]


def test_csv__empty_or_misnamed_is_refused(tmp_path: Path) -> None:
    """The first thing to go wrong with a path or a mapping."""
    with pytest.raises(InputError, match="is empty"):
        read(written(tmp_path, ""), "csv")
    with pytest.raises(InputError, match="lacks the columns place"):
        read(written(tmp_path, "ts,content\n"), "csv", columns={"location": "place"})


def test_parquet__damaged_naive_and_numbered_instants(tmp_path: Path) -> None:
    """Cut short: refused. Without a zone: refused until the zone is stated. Numbers: only with a unit."""
    path = tmp_path / "r.parquet"
    table = pa.table({"ts": pa.array([0], pa.timestamp("us")), "content": ["a"], "location": ["x"]})
    pa.parquet.write_table(table, path)
    with pytest.raises(TableError, match="without a time zone"):
        read(path, "parquet")
    rows, *_ = read(path, "parquet", timezone="UTC")
    assert picked(rows, "ts") == [("1970-01-01T00:00:00+00:00",)]
    pa.parquet.write_table(table.set_column(0, "ts", pa.array([1714564800000])), path)
    rows, *_ = read(path, "parquet", ts_unit="ms")
    assert picked(rows, "ts") == [("2024-05-01T12:00:00+00:00",)]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TableError, match="cut short"):
        read(path, "parquet")


def test_libcachesim__csv_and_binary_say_the_same(tmp_path: Path) -> None:
    """Two writings of one trace: object 2⁶³+1 does not fit a signed number."""
    big = 2**63 + 1
    records = np.array([(5, big, 4096, -1), (6, 7, 10, 3)], dtype=RECORD)
    (tmp_path / "t.bin").write_bytes(records.tobytes())
    text = written(tmp_path, f"time,id,size\n5,{big},4096\n6,7,10\n", "t.csv")
    expected = [("1970-01-01T00:00:05+00:00", str(big), "x", 4096), ("1970-01-01T00:00:06+00:00", "7", "x", 10)]
    for path, kind in ((tmp_path / "t.bin", "oracle_general"), (text, "libcachesim_csv")):
        rows, broken, _ = read(path, kind, location="x")  # type: ignore[arg-type]
        assert picked(rows, "ts", "content", "location", "bytes") == expected
        assert broken == []


def test_libcachesim__cut_short_or_without_a_place_is_refused(tmp_path: Path) -> None:
    """47 bytes are one record and 23 bytes of nothing."""
    path = tmp_path / "t.bin"
    path.write_bytes(bytes(47))
    with pytest.raises(InputError, match="ends within a record of 24 bytes"):
        read(path, "oracle_general", location="x")
    with pytest.raises(InputError, match="State `location`"):
        read(path, "oracle_general")


def test_gzip__damaged_is_refused(tmp_path: Path) -> None:
    """Half a download must not be half a day of demand."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(COMBINED.encode() * 50)[:-12])
    with pytest.raises(InputError, match="cannot be read"):
        read(path, "combined", location="x")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"path": ""}, "Expected a path"),
        ({"path": "x", "format": "apache"}, "Unknown format 'apache'. Known formats: parquet"),
        ({"path": "x", "url_patterns": ("(",)}, "no regular expression"),
        ({"path": "x", "url_patterns": ("a",)}, "has no group"),
        ({"path": "x", "timezone": "Mars"}, "Unknown timezone 'Mars'"),
        ({"path": "x", "ts_unit": "h"}, "Unknown ts_unit 'h'"),
        ({"path": "x", "location": "a", "location_map": {"b": "c"}}, "either location"),
        ({"path": "x", "location_prefix_length": -1}, "location_prefix_length >= 0"),
    ],
)
def test_settings__say_what_is_wrong(settings: dict[str, Any], sentence: str) -> None:
    """A wrong setting is found before any file is opened."""
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        InputSettings(**settings)


def test_url_patterns__the_first_that_fits_reads_the_url(tmp_path: Path) -> None:
    """A user's own pattern, here with the segment in the query."""
    line = COMBINED.splitlines()[0].replace("/v/title-9/seg-12.ts?t=1", "/play?id=film&part=4")
    rows, *_ = read(
        written(tmp_path, line),
        "combined",
        location="x",
        url_patterns=(r"[?&]id=(?P<content>[^&]+)&part=(?P<segment>\d+)",),
    )
    assert picked(rows, "content", "segment") == [("film", 4)]
