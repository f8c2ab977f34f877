"""Gradient-boosted hazards: one classifier over person-bins, kept as plain arrays of trees.

A person-bin is (node at an origin, bin it was still at risk in); the event is leaving inside the bin, the bin number is
one more input. A departure known only to lie in bins low+1 … high enters each of them, weighted by how likely it is
under the fleet's hazards to have survived so far, as expectation-maximisation would in its first round.

Trees are read out of scikit-learn once fitted: arrays can be saved, hashed and walked anywhere, pickles cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.churn.outcomes import Outcomes
from models.events import Float64, Int64

_LEAF = -1
_QUIET_ROWS = 100_000
_GRID = np.linspace(0.0, 1.0, 65)[1:-1]


@dataclass(frozen=True)
class PersonBins:
    """One row an outcome and bin at risk.

    Attributes:
        row: row of the outcome. (p,)
        bin: bin number, 0 first. (p,)
        gone: 1 where the node left inside the bin. (p,)
        weight: expected number of rows. (p,)
    """

    row: Int64
    bin: Int64
    gone: Float64
    weight: Float64


def person_bins(outcomes: Outcomes, base_hazard: Float64) -> PersonBins:
    """Bins at risk of every outcome; `base_hazard` (B,) shares out departures that span several bins."""
    bins = len(outcomes.edges_hours)
    survived = np.flatnonzero((np.arange(bins) < outcomes.low[:, None]).ravel())
    rows, at = [survived // bins], [survived % bins]
    gone, weight = [np.zeros(len(survived))], [np.ones(len(survived))]
    for row, low, high in _spans(outcomes):
        stayed = np.concatenate([[1.0], np.cumprod(1.0 - base_hazard[low:high])])
        left = -np.diff(stayed) / (1.0 - stayed[-1])
        later = np.concatenate([1.0 - np.cumsum(left)])
        for k in range(high - low):
            for event, mass in ((1.0, left[k]), (0.0, later[k])):
                if mass > 1e-9:
                    rows.append(row)
                    at.append(np.full(len(row), low + k))
                    gone.append(np.full(len(row), event))
                    weight.append(np.full(len(row), mass))
    return PersonBins(np.concatenate(rows), np.concatenate(at), np.concatenate(gone), np.concatenate(weight))


def _spans(outcomes: Outcomes) -> list[tuple[Int64, int, int]]:
    left = np.flatnonzero(outcomes.high > 0)
    spans = sorted(set(zip(outcomes.low[left].tolist(), outcomes.high[left].tolist(), strict=True)))
    return [(left[(outcomes.low[left] == a) & (outcomes.high[left] == b)], a, b) for a, b in spans]


def base_hazards(outcomes: Outcomes) -> Float64:
    """Hazard of each bin over all rows, by self-consistency where departures span bins. (B,)."""
    hazard = np.full(len(outcomes.edges_hours), 0.1)
    for _ in range(8):
        rows = person_bins(outcomes, hazard)
        gone = np.bincount(rows.bin, weights=rows.gone * rows.weight, minlength=len(hazard))
        risk = np.bincount(rows.bin, weights=rows.weight, minlength=len(hazard))
        hazard = np.clip((gone + 0.5) / (risk + 10.0), 1e-5, 1.0 - 1e-5)
    return np.asarray(hazard, dtype=np.float64)


@dataclass(frozen=True)
class BoostedHazard:
    """Trees as flat arrays; a tree is walked from its root until a node without a left child.

    Attributes:
        root: first node of each tree. (trees,)
        feature: input compared at the node. (nodes,)
        threshold: go left at or below it. (nodes,)
        left: left child, -1 at a leaf. (nodes,)
        right: right child. (nodes,)
        value: log-odds added at a leaf. (nodes,)
        base: log-odds before any tree.
        bins: number of bins of the horizon.
    """

    root: Int64
    feature: Int64
    threshold: Float64
    left: Int64
    right: Int64
    value: Float64
    base: float
    bins: int

    def logits(self, inputs: npt.NDArray[np.floating[Any]]) -> Float64:
        """Hazard logits of every bin, shape (n, bins)."""
        walked: Float64 = _walk(
            np.ascontiguousarray(inputs, dtype=np.float64),
            self.bins,
            self.root,
            self.feature,
            self.threshold,
            self.left,
            self.right,
            self.value,
        )
        return walked + self.base

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"boosting.{name}": torch.from_numpy(np.asarray(getattr(self, name)).copy())
            for name in ("root", "feature", "threshold", "left", "right", "value")
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, base: float, bins: int) -> BoostedHazard:
        arrays = {
            name: tensors[f"boosting.{name}"].numpy()
            for name in ("root", "feature", "threshold", "left", "right", "value")
        }
        return cls(**arrays, base=base, bins=bins)


def fit_boosting(
    inputs: Float64, outcomes: Outcomes, *, base_hazard: Float64, iterations: int, seed: int
) -> BoostedHazard:
    """Fits the classifier on the person-bins of these outcomes.

    Departures are all kept; of the many bins in which nothing happened a random share is, with its weight raised to
    stand for the rest, which leaves every expected frequency as it was.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows = person_bins(outcomes, base_hazard)
    kept, weight = _thinned(rows, seed)
    grid = [np.unique(np.quantile(column, _GRID)) for column in inputs.T]
    design = np.column_stack([*_on_grid(inputs, grid, rows.row[kept]), rows.bin[kept]])
    model = HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=0.1,
        max_leaf_nodes=16,
        min_samples_leaf=100,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(design, rows.gone[kept].astype(np.int64), sample_weight=weight)
    return _read_out(model, grid, bins=len(outcomes.edges_hours))


def _thinned(rows: PersonBins, seed: int) -> tuple[Int64, Float64]:
    quiet = np.flatnonzero(rows.gone == 0.0)
    drawn = quiet
    if len(quiet) > _QUIET_ROWS:
        drawn = np.random.default_rng(seed).choice(quiet, _QUIET_ROWS, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(rows.gone > 0.0), drawn]))
    raised = rows.weight[kept] * np.where(rows.gone[kept] > 0.0, 1.0, len(quiet) / max(len(drawn), 1))
    return kept, raised / raised.mean()


def _on_grid(inputs: Float64, grid: list[Float64], rows: Int64) -> list[Int64]:
    """Number of the grid cell of each value: scikit-learn's own weighted binning is many times slower than the trees."""
    return [np.searchsorted(edges, column[rows], side="left") for edges, column in zip(grid, inputs.T, strict=True)]


def _read_out(model: object, grid: list[Float64], *, bins: int) -> BoostedHazard:
    """Trees with thresholds in the inputs' own units: cell number <= k means value <= edge k."""
    trees = [stage[0].nodes for stage in model._predictors]  # type: ignore[attr-defined]
    root = np.concatenate([[0], np.cumsum([len(t) for t in trees])[:-1]]).astype(np.int64)
    leaf = np.concatenate([t["is_leaf"] for t in trees]).astype(bool)
    shift = np.repeat(root, [len(t) for t in trees])
    left = np.concatenate([t["left"] for t in trees]).astype(np.int64) + shift
    right = np.concatenate([t["right"] for t in trees]).astype(np.int64) + shift
    feature = np.concatenate([t["feature_idx"] for t in trees]).astype(np.int64)
    threshold = np.concatenate([t["num_threshold"] for t in trees]).astype(np.float64)
    for column, edges in enumerate(grid):
        split = (feature == column) & ~leaf
        threshold[split] = edges[np.floor(threshold[split]).astype(np.int64)]
    return BoostedHazard(
        root,
        feature,
        threshold,
        np.where(leaf, _LEAF, left),
        right,
        np.concatenate([t["value"] for t in trees]).astype(np.float64),
        float(np.ravel(model._baseline_prediction)[0]),  # type: ignore[attr-defined]
        bins,
    )


@numba.njit(cache=True)
def _walk(inputs, bins, root, feature, threshold, left, right, value):  # type: ignore[no-untyped-def]
    n, width = inputs.shape
    out = np.zeros((n, bins))
    for tree in root:
        for i in range(n):
            for b in range(bins):
                node = tree
                while left[node] >= 0:
                    x = inputs[i, feature[node]] if feature[node] < width else float(b)
                    node = left[node] if x <= threshold[node] else right[node]
                out[i, b] += value[node]
    return out
