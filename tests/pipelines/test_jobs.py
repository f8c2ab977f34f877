"""Jobs: one at a time, results that appear whole, names that say what went in, instants with a zone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError, PipelineError, TryLater
from pipelines.jobs import instant_us, iso, job_id, only_one, point_at, read_manifest, write_result

HOUR_US = 3_600_000_000


def test_only_one__a_second_process_is_told_to_try_later(tmp_path: Path) -> None:
    """Two schedulers must not write the same folder; 75 is what sysexits calls a temporary failure."""
    code = (
        f"from pathlib import Path; from pipelines.jobs import only_one\nwith only_one(Path({str(tmp_path)!r})): pass"
    )
    with only_one(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        with pytest.raises(TryLater) as caught, only_one(tmp_path):
            pass
    assert "TryLater" in done.stderr
    assert caught.value.exit_code == 75
    with only_one(tmp_path):
        pass


def test_only_one__goes_with_an_exception(tmp_path: Path) -> None:
    """A failed run must not lock out the next one."""
    with pytest.raises(RuntimeError), only_one(tmp_path):
        raise RuntimeError
    with only_one(tmp_path):
        pass


def test_job_id__depends_on_everything_and_on_nothing_else() -> None:
    """Same inputs, same name, in whatever order they are given; one other input, another name."""
    at_us = instant_us("2026-03-07T14:00:00Z")
    name = job_id(at_us, data="d", config="c")
    assert name == job_id(at_us, config="c", data="d")
    assert name.startswith("20260307T1400Z-")
    others = {job_id(at_us, data="d", config="x"), job_id(at_us + 1, data="d", config="c"), job_id(at_us, data="d")}
    assert len(others | {name}) == 4


def test_write_result__checksums_match_the_files(tmp_path: Path) -> None:
    """Who fetches a plan can tell that it is whole."""
    write_result(tmp_path, {"a": pa.table({"x": [1]}), "b": pa.table({"y": ["z"]})}, {"id": "n"})
    manifest = read_manifest(tmp_path)
    assert manifest["id"] == "n"
    assert manifest["checksums"] == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.parquet", "b.parquet")
    }


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_read_manifest__a_damaged_result_says_what_to_do(tmp_path: Path, text: str | None) -> None:
    """Missing, empty, cut off, or not a manifest at all."""
    if text is not None:
        (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="holds no readable result"):
        read_manifest(tmp_path)


def test_point_at__readers_see_the_old_target_or_the_new_one(tmp_path: Path) -> None:
    """The link is replaced, never removed first; a leftover of a killed run does not stop it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    point_at(link, tmp_path / "one")
    point_at(link, tmp_path / "two")
    assert link.resolve() == tmp_path / "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["current", "one", "two"]
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    assert (moved / "current").resolve() == moved / "two"


@pytest.mark.parametrize("text", ["2026-03-07T14:00:00", "2026-03-07", "14:00", "now", ""])
def test_instant_us__refuses_what_has_no_zone_and_what_is_no_instant(text: str) -> None:
    """An hour that is guessed moves a whole plan."""
    with pytest.raises(PipelineError, match=r"write it like"):
        instant_us(text)


def test_instant_us__any_zone_is_one_instant() -> None:
    """14:00 in UTC is 15:00 one hour further east."""
    assert instant_us("2026-03-07T15:00:00+01:00") == instant_us("2026-03-07T14:00:00Z")


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_iso__comes_back_exactly(instant: datetime) -> None:
    """Manifests hold instants as text; a microsecond lost would change the name of the next job."""
    at_us = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // (instant.resolution)
    assert instant_us(iso(at_us)) == at_us
    assert json.dumps(iso(at_us)).endswith('Z"')
