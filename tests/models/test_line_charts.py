"""Running totals: every curve ends where its figure says, and no name lies on another."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from models.line_charts import TotalCurve, running_totals


def drawn(*curves: TotalCurve, width: float = 860.0) -> str:
    return running_totals(curves, start_us=0, width=width, unit="€", label="Saved.", write=lambda v: f"{v:g}")


def test_names__stand_apart_and_in_order() -> None:
    """Ten curves that end within a pixel of each other still read one above the other."""
    svg = drawn(*(TotalCurve(f"method {i}", (0.0, 100.0 + i / 100)) for i in range(10)))
    heights = {text: float(y) for _, y, text in re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>(method \d)', svg)}
    ordered = [heights[f"method {i}"] for i in range(10)]
    assert all(below - above >= 13.9 for below, above in pairwise(ordered))


def test_curve__starts_at_zero_and_ends_at_its_total() -> None:
    """Two hours from 0 to 100 on an axis from 0 to 100: from the lower left to the upper right corner."""
    svg = drawn(TotalCurve("ours", (50.0, 100.0), ours=True))
    path = re.search(r'<path d="M56,224L([\d.]+),123L([\d.]+),22"', svg)
    assert path is not None
    assert float(path[2]) - 56 == pytest.approx(2 * (float(path[1]) - 56), abs=0.2)


def test_bound_is_dashed_and_a_loss_lies_below_zero() -> None:
    """States are told apart without colour; what costs more than it saves is below the line."""
    svg = drawn(TotalCurve("bound", (5.0,), bound=True), TotalCurve("worse", (-5.0,)))
    assert svg.count("stroke-dasharray") == 1
    assert 'aria-label="Saved."' in svg


@pytest.mark.parametrize("curves", [(), (TotalCurve("a", ()),), (TotalCurve("a", (1.0,)), TotalCurve("b", (1.0, 2.0)))])
def test_curves__of_no_common_length_are_refused(curves: tuple[TotalCurve, ...]) -> None:
    """Nothing to draw, or hours that do not match, is the caller's mistake."""
    with pytest.raises(ValueError, match="one length > 0"):
        drawn(*curves)


def test_names_from_data__stay_text() -> None:
    """A method's name is escaped like everything else."""
    assert "<script>" not in drawn(TotalCurve("<script>", (1.0,)))
