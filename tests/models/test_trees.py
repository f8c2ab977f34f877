"""Trees kept as arrays answer as the library that grew them, and survive being saved."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from models.events import Float64
from models.trees import Grid, Trees, read_trees


def grown(seed: int) -> tuple[HistGradientBoostingRegressor, Grid, Float64]:
    """A Poisson model of a thousand rows and three inputs."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(1000, 3))
    counts = rng.poisson(np.exp(inputs[:, 0] - 0.5 * inputs[:, 1] ** 2)).astype(np.float64)
    grid = Grid.of(inputs)
    model = HistGradientBoostingRegressor(loss="poisson", max_iter=20, random_state=seed)
    return model.fit(grid.cells(inputs), counts), grid, inputs


@pytest.mark.parametrize("seed", [0, 1])
def test_sums__are_the_librarys(seed: int) -> None:
    """The sum of leaves is the logarithm of the mean that scikit-learn predicts, also beyond the inputs it saw."""
    model, grid, inputs = grown(seed)
    rows = np.concatenate([inputs[:300], 10.0 * inputs[:300]])
    expected = np.log(model.predict(grid.cells(rows)))
    np.testing.assert_allclose(read_trees(model, grid).sums(rows), expected, rtol=1e-9)


def test_sums__by_hand() -> None:
    """One tree: left at or below 2 gives 1, right gives 5; with a base of 10 a value of exactly 2 gives 11."""
    trees = Trees(
        root=np.array([0]),
        feature=np.array([0, 0, 0]),
        threshold=np.array([2.0, 0.0, 0.0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, 0, 0]),
        value=np.array([0.0, 1.0, 5.0]),
        base=10.0,
    )
    assert trees.sums(np.array([[2.0], [2.1], [-3.0]])).tolist() == [11.0, 15.0, 11.0]


def test_tensors__round_trip() -> None:
    """What is saved must answer the same bytes."""
    model, grid, inputs = grown(0)
    trees = read_trees(model, grid)
    again = Trees.from_tensors(trees.tensors("x"), "x", base=trees.base)
    assert np.array_equal(again.sums(inputs), trees.sums(inputs))
    with pytest.raises(KeyError):
        Trees.from_tensors(trees.tensors("y"), "x", base=0.0)


def test_grid__cells_by_hand() -> None:
    """A cell ends at its upper edge: with edges at 1 and 2 the values 1, 1.5 and 3 lie in cells 0, 1 and 2."""
    grid = Grid((np.array([1.0, 2.0]),))
    assert grid.cells(np.array([[1.0], [1.5], [3.0]])).tolist() == [[0], [1], [2]]
