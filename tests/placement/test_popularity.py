"""The popularity rule, worked by hand: it is a baseline, so it must be exactly what it says."""

import numpy as np
import pytest

from placement.errors import ProblemError
from placement.popularity import most_popular_copies


def _fill(**changes: object) -> list[tuple[int, int]]:
    """One location with nodes 0 and 1 (room 100 and 60), segments 0..3 of 50 bytes, popularity 4 > 3 > 2 > 1."""
    world: dict[str, object] = {
        "segment": np.array([0, 1, 2, 3]),
        "location": np.zeros(4, dtype=np.int64),
        "requests": np.array([4.0, 3.0, 2.0, 1.0]),
        "sizes": np.full(4, 50),
        "source_location": np.zeros(2, dtype=np.int32),
        "room_bytes": np.array([100, 60]),
        "up": np.array([True, True]),
        "held_segment": np.zeros(0, dtype=np.int64),
        "held_source": np.zeros(0, dtype=np.int64),
    } | changes
    segment, source = most_popular_copies(**world)  # type: ignore[arg-type]
    return list(zip(segment.tolist(), source.tolist(), strict=True))


def test_popularity__fills_the_most_popular_first() -> None:
    """160 bytes hold three segments; each goes to the node with the most room: 0 (100), 1 (60 > 50), 0 (50)."""
    assert _fill() == [(0, 0), (1, 1), (2, 0)]


def test_popularity__keeps_what_is_held() -> None:
    """Segment 1 stays on node 0 although the rule alone would put it on node 1: keeping costs nothing."""
    assert (1, 0) in _fill(held_segment=np.array([1]), held_source=np.array([0]))


def test_popularity__drops_what_is_no_longer_wanted() -> None:
    """Segment 3 is the least popular and does not fit beside the others."""
    assert all(segment != 3 for segment, _ in _fill(held_segment=np.array([3]), held_source=np.array([0])))


def test_popularity__pushes_only_to_nodes_that_are_up() -> None:
    """With node 0 down only one segment fits, on node 1."""
    assert _fill(up=np.array([False, True])) == [(0, 1)]


def test_popularity__each_location_has_its_own_nodes() -> None:
    """A segment wanted at location 1 never lands on a node of location 0."""
    copies = _fill(location=np.array([1, 1, 0, 0]), source_location=np.array([0, 1], dtype=np.int32))
    assert copies == [(0, 1), (2, 0), (3, 0)]


def test_popularity__refuses_columns_of_different_length() -> None:
    """A caller's slip is a sentence, not a crash inside compiled code."""
    with pytest.raises(ProblemError, match="segment, location, requests"):
        _fill(requests=np.array([1.0]))
