"""Boosted trees as flat arrays: what can be saved, hashed and walked anywhere, where pickles cannot.

    F(x) = base + sum over trees of the value of the leaf that x falls into

Trees are read out of scikit-learn's histogram boosting once it is fitted; the sum is on the scale of its link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from models.events import Float64, Int64, Reals

_LEAF = -1
_BLOCK_ROWS = 64
_ARRAYS = ("root", "feature", "threshold", "left", "right", "value")


@dataclass(frozen=True)
class Trees:
    """A tree is walked from its root until a node without a left child.

    Attributes:
        root: first node of each tree. (trees,)
        feature: input compared at the node. (nodes,)
        threshold: go left at or below it. (nodes,)
        left: left child, -1 at a leaf. (nodes,)
        right: right child. (nodes,)
        value: what a leaf adds. (nodes,)
        base: what is added before any tree.
    """

    root: Int64
    feature: Int64
    threshold: Float64
    left: Int64
    right: Int64
    value: Float64
    base: float

    def sums(self, inputs: Reals) -> Float64:
        """F of every row of inputs (n, n_inputs), shape (n,)."""
        walked: Float64 = _walk(np.ascontiguousarray(inputs, dtype=np.float64), self._steps)
        return walked + self.base

    def between(self, first: int, last: int) -> Trees:
        """Trees first, ..., last − 1 alone, with the same base."""
        roots = np.append(self.root, len(self.left))
        begin, end = roots[first], roots[last]
        kept = {name: getattr(self, name)[begin:end] for name in ("feature", "threshold", "value")}
        left, right = (
            np.where(child < 0, child, child - begin) for child in (self.left[begin:end], self.right[begin:end])
        )
        return replace(self, root=self.root[first:last] - begin, left=left, right=right, **kept)

    @cached_property
    def _steps(self) -> _Steps:
        """The same trees for walking all rows of a block at once: a leaf leads to itself, so steps can be counted."""
        node, leaf = np.arange(len(self.left)), self.left < 0
        child = np.column_stack([np.where(leaf, node, self.left), np.where(leaf, node, self.right)])
        return _Steps(
            self.root,
            _depths(self.root, self.left, self.right),
            self.feature.astype(np.uint64),
            np.where(leaf, np.inf, self.threshold),
            child.ravel().astype(np.uint32),
            self.value,
        )

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        return {f"{prefix}.{name}": torch.from_numpy(getattr(self, name).copy()) for name in _ARRAYS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str, *, base: float) -> Trees:
        """The trees that `tensors` wrote.

        Raises:
            KeyError: an array is missing.
        """
        return cls(**{name: tensors[f"{prefix}.{name}"].numpy() for name in _ARRAYS}, base=base)


@dataclass(frozen=True)
class Grid:
    """Inputs cut into at most 64 cells of like weight: scikit-learn's own binning is many times slower than its trees.

    Attributes:
        edges: upper edges of the cells of each input, without the last.
    """

    edges: tuple[Float64, ...]

    @classmethod
    def of(cls, inputs: Reals) -> Grid:
        levels = np.linspace(0.0, 1.0, 65)[1:-1]
        return cls(tuple(np.unique(np.quantile(column, levels)) for column in inputs.T))

    def cells(self, inputs: Reals) -> Int64:
        """Number of the cell of each value, shape (n, n_inputs)."""
        columns = [
            np.searchsorted(edges, column, side="left") for edges, column in zip(self.edges, inputs.T, strict=True)
        ]
        return np.column_stack(columns)


def read_trees(model: Any, grid: Grid) -> Trees:
    """Trees of a model fitted on the cells of a grid, with thresholds in the inputs' own units.

    Inputs beyond those of the grid keep the thresholds they were fitted with.

    Args:
        model: fitted histogram boosting with one tree an iteration.
        grid: of its first inputs: cell number <= k means value <= edge k.
    """
    trees = [stage[0].nodes for stage in model._predictors]
    lengths = [len(tree) for tree in trees]
    root = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    nodes = np.concatenate(trees)
    shift = np.repeat(root, lengths)
    leaf = nodes["is_leaf"].astype(bool)
    feature = nodes["feature_idx"].astype(np.int64)
    threshold = nodes["num_threshold"].astype(np.float64)
    for column, edges in enumerate(grid.edges):
        split = (feature == column) & ~leaf
        threshold[split] = edges[np.floor(threshold[split]).astype(np.int64)]
    return Trees(
        root,
        feature,
        threshold,
        np.where(leaf, _LEAF, nodes["left"].astype(np.int64) + shift),
        nodes["right"].astype(np.int64) + shift,
        nodes["value"].astype(np.float64),
        base=float(np.ravel(model._baseline_prediction)[0]),
    )


class _Steps(NamedTuple):
    """What jitted code sees."""

    root: Int64
    depth: Int64  # (trees,) steps to the deepest leaf
    feature: npt.NDArray[np.uint64]
    threshold: Float64  # infinite at leaves
    child: npt.NDArray[np.uint32]  # (2 x nodes,) left and right of each node; a leaf's are itself
    value: Float64


@njit(cache=True)
def _depths(root: Int64, left: Int64, right: Int64) -> Int64:
    depth = np.zeros(len(left), dtype=np.int64)
    for node in range(len(left) - 1, -1, -1):  # children come after their parents
        if left[node] >= 0:
            depth[node] = 1 + max(depth[left[node]], depth[right[node]])
    return depth[root]


@njit(cache=True, nogil=True)
def _walk(inputs: Float64, steps: _Steps) -> Float64:
    """Sum of leaves by row. A step of all rows of a block needs no branch, and steps of different rows overlap."""
    n, n_inputs = inputs.shape
    sums = np.zeros(n)
    at = np.empty(_BLOCK_ROWS, dtype=np.uint32)
    block = np.empty(n_inputs * _BLOCK_ROWS)  # inputs of the block, one after the other
    for first in range(0, n, _BLOCK_ROWS):
        rows = min(_BLOCK_ROWS, n - first)
        for i in range(rows):
            for j in range(n_inputs):
                block[j * _BLOCK_ROWS + i] = inputs[first + i, j]
        for tree in range(len(steps.root)):
            at[:rows] = steps.root[tree]
            for _ in range(steps.depth[tree]):
                for i in range(rows):
                    node = np.uint64(at[i])
                    x = block[steps.feature[node] * np.uint64(_BLOCK_ROWS) + np.uint64(i)]
                    at[i] = steps.child[np.uint64(2) * node + np.uint64(not (x <= steps.threshold[node]))]
            for i in range(rows):
                sums[first + i] += steps.value[np.uint64(at[i])]
    return sums
