"""The benchmark of hedging pairs hours: equal replays differ by nothing, and a tail is the mean of the worst hours."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hedging import WAYS, Hours, compared
from placement.settings import PlacementSettings
from placement.tally import GB


def hours(net: list[float], unserved: list[float]) -> Hours:
    return Hours(np.array(net) * GB, np.full(len(net), 10.0 * GB), np.array(unserved) * GB)


def test_compared__by_hand() -> None:
    """Twenty hours of 10 GB: 3 GB saved in each, and the worst two leave 9 and 7 GB unserved."""
    base = hours([3.0] * 20, [7.0, 9.0, *[5.0] * 18])
    same = compared(base, base, 6)
    assert same["net_share"] == pytest.approx(0.3)
    assert same["worst_unserved_gb_per_hour"] == pytest.approx(8.0)
    assert (same["net_share_difference"], same["net_share_interval"]) == (0.0, [0.0, 0.0])
    better = compared(hours([4.0] * 20, [6.0, 8.0, *[4.0] * 18]), base, 6)
    assert better["net_share_difference"] == pytest.approx(0.1)
    assert better["net_share_interval"] == pytest.approx([0.1, 0.1])
    assert better["worst_unserved_gb_per_hour_difference"] == pytest.approx(-1.0)
    assert better["worst_unserved_gb_per_hour_interval"] == pytest.approx([-1.0, -1.0])


@pytest.mark.parametrize("way", list(WAYS))
def test_ways__are_settings(way: str) -> None:
    """Each way to plan is a choice of valid settings."""
    PlacementSettings(**WAYS[way])
