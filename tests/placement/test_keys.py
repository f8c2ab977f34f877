"""Keys are found among sorted and unsorted ones, and none among none."""

from __future__ import annotations

import numpy as np

from placement.keys import find_keys


def test_find_keys__by_hand() -> None:
    """Two of four are there; one beyond the last and one between are not."""
    at, known = find_keys(np.array([2, 5, 9]), np.array([9, 4, 2, 11]))
    assert at[known].tolist() == [2, 0]
    assert known.tolist() == [True, False, True, False]


def test_find_keys__in_any_order() -> None:
    """Positions are those of the keys as given."""
    keys = np.array([9, 2, 5])
    at, known = find_keys(keys, np.array([5, 9, 3]), order=np.argsort(keys))
    assert at[known].tolist() == [2, 0]
    assert known.tolist() == [True, True, False]


def test_find_keys__among_none() -> None:
    """An empty graph or plan holds nothing that is asked for."""
    at, known = find_keys(np.zeros(0, np.int64), np.array([1, 2]))
    assert (at.tolist(), known.tolist()) == ([0, 0], [False, False])
