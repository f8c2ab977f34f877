"""What a command says: one JSON object or text on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math

import pytest

from pipelines.console import Console, table


def test_result__as_json_is_one_object_that_any_parser_reads(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and infinity are not JSON; a score that is undefined is null, and not a crash after hours of work."""
    Console(as_json=True).result(
        {"rows": [{"wape": math.nan}, {"wape": 0.5}], "bound": math.inf, "pair": (1, 2)}, "text"
    )
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=lambda name: pytest.fail(name)) == {
        "rows": [{"wape": None}, {"wape": 0.5}],
        "bound": None,
        "pair": [1, 2],
    }


def test_result__as_text_is_the_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """People get the words; nothing else may reach stdout."""
    console = Console()
    console.note("a note")
    console.result({"a": 1}, "done")
    captured = capsys.readouterr()
    assert captured.out == "done\n"
    assert "a note" in captured.err


def test_quiet__silences_notes_and_bars(capsys: pytest.CaptureFixture[str]) -> None:
    """A cron job wants mail for errors only."""
    console = Console(quiet=True)
    console.note("a note")
    with console.progress() as progress:
        progress("work", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress__draws_nothing_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file full of bars is no log file."""
    with Console().progress() as progress:
        progress("work", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_table__is_aligned_and_shows_what_is_missing() -> None:
    """First column left, the others right; a dash where a row has no value."""
    text = table([{"name": "a", "n": 12_345, "x": 0.5}, {"name": "long", "x": 1234.5}], ["name", "n", "x"])
    assert text.splitlines() == [
        "name       n        x",
        "----  ------  -------",
        "a     12,345   0.5000",
        "long       -  1,234.5",
    ]
