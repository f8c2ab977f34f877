"""A figure is written in one way wherever it stands."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.quantities import (
    Estimate,
    bind_units,
    clean_text,
    format_bounds,
    format_bytes,
    format_change,
    format_count,
    format_instant,
    format_milliseconds,
    format_money,
    format_number,
    format_share,
    round_to_total,
)


def plain(text: str) -> str:
    """The text with ordinary spaces."""
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (format_number(-1234.5, 1), "−1,234.5"),
        (format_number(-0.001, 2), "0.00"),
        (format_bytes(38.4e9), "38.4 GB"),
        (format_bytes(999), "999 B"),
        (format_bytes(1.2e12), "1.20 TB"),
        (format_bytes(1.2e12, "GB"), "1,200 GB"),
        (format_count(4120), "4,120"),
        (format_count(4_100_000), "4.10 M"),
        (format_share(0.412), "41.2 %"),
        (format_share(0.0037), "0.37 %"),
        (format_money(1744.2), "€ 1,744"),
        (format_money(-6.5), "−€ 6.50"),
        (format_milliseconds(86.4), "86 ms"),
        (format_change(0.014, "share", size=0.41), "+1.4 points"),
        (format_change(29e9, "bytes", size=731e9), "+29 GB"),
        (format_change(-68, "money", size=1744), "−€ 68"),
        (format_change(0.3, "milliseconds", size=86), "+0.3 ms"),
        (format_change(0.0, "score"), "0.000"),
        (format_instant(1_772_950_320_000_000), "8 March 2026, 06:12 UTC"),
    ],
)
def test_format__known_answers(written: str, expected: str) -> None:
    """Written by hand from the rule of each kind."""
    assert plain(written) == expected


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_format__unknown_is_a_dash(value: float | None) -> None:
    """Nobody should read "nan GB"."""
    for write in (format_bytes, format_count, format_share, format_money, format_milliseconds):
        assert write(value) == "–"


def test_format_bounds__share_the_unit_of_their_value() -> None:
    """Beside "29 GB" the bounds 15 to 1,042 GB must not be written in TB."""
    bounds = format_bounds(Estimate(29e9, 15e9, 1042e9), "bytes", signed=True)
    assert plain(bounds) == "[+15.0, +1,042.0]"
    assert format_bounds(Estimate(1.0), "score") == ""


def test_bind_units__joins_numbers_and_units_only() -> None:
    """A line break inside "4 %" or "€ 68" is hard to read; elsewhere lines must still break."""
    assert bind_units("4 % of 60 GB for € 68, in 2 hours") == "4\u00a0% of 60\u00a0GB for €\u00a068, in 2 hours"


def test_clean_text__drops_what_no_document_may_hold() -> None:
    """One NUL byte in a name would make the whole drawing unreadable."""
    assert clean_text("a\x00b\nc\ud800") == "a b c"


def test_estimate__refuses_half_an_interval() -> None:
    """One end alone cannot be drawn."""
    with pytest.raises(ValueError, match="both ends"):
        Estimate(1.0, low=0.0)
    with pytest.raises(ValueError, match="low <= high"):
        Estimate(1.0, low=2.0, high=1.0)


def test_round_to_total__known_answer() -> None:
    """Thirds of 100 round down to 33 each; the first takes the missing one."""
    assert round_to_total([100 / 3] * 3) == [34, 33, 33]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.integers(0, 2))
def test_round_to_total__adds_up(values: list[float], digits: int) -> None:
    """A column must add up to the total written under it."""
    rounded = round_to_total(values, digits)
    assert sum(rounded) == pytest.approx(round(sum(values) * 10**digits) / 10**digits, abs=10**-digits * 1e-3)
    assert all(abs(r - v) <= 10**-digits * 1.001 for r, v in zip(rounded, values, strict=True))
