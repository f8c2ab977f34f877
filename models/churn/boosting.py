"""Gradient-boosted hazards: one classifier over person-bins, kept as plain arrays of trees.

A person-bin is (node at an origin, bin it was still at risk in); the event is leaving inside the bin, the bin number is
one more input. A departure known only to lie in bins low+1 … high enters each of them, weighted by how likely it is
under the fleet's hazards to have survived so far, as expectation-maximisation would in its first round.

Trees are kept as arrays (`models.trees`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit
from torch import Tensor

from models.churn.outcomes import Outcomes, log_likelihood
from models.churn.settings import ChurnSettings
from models.events import Float64, Int64
from models.trees import Grid, Trees, read_trees

_QUIET_ROWS = 250_000


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
    """Log-odds by trees whose last input is the number of the bin.

    Attributes:
        trees: the trees.
        bins: number of bins of the horizon.
    """

    trees: Trees
    bins: int

    def logits(self, inputs: npt.NDArray[np.floating[Any]]) -> Float64:
        """Hazard logits of every bin, shape (n, bins)."""
        rows = np.column_stack([np.asarray(inputs, dtype=np.float64), np.zeros(len(inputs))])
        logits = np.empty((len(rows), self.bins))
        for bin_number in range(self.bins):
            rows[:, -1] = bin_number
            logits[:, bin_number] = self.trees.sums(rows)
        return logits

    def best_on(self, inputs: npt.NDArray[np.floating[Any]], outcomes: Outcomes) -> BoostedHazard:
        """The first trees, as many as serve these outcomes best; judged after every tenth of them."""
        cuts = np.unique(np.linspace(0, len(self.trees.root), 11).round().astype(int))
        logits = np.zeros((len(inputs), self.bins))
        best, least = self, np.inf
        for first, last in pairwise(cuts.tolist()):
            part = self.trees.between(first, last)
            logits += BoostedHazard(replace(part, base=self.trees.base if first == 0 else 0.0), self.bins).logits(
                inputs
            )
            survival = np.exp(np.cumsum(log_expit(-logits), axis=1))
            loss = -float(log_likelihood(survival, outcomes.low, outcomes.high).mean())
            if loss < least:
                best, least = BoostedHazard(self.trees.between(0, last), self.bins), loss
        return best

    def tensors(self) -> dict[str, Tensor]:
        return self.trees.tensors("boosting")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, base: float, bins: int) -> BoostedHazard:
        return cls(Trees.from_tensors(tensors, "boosting", base=base), bins)


def fit_boosting(
    inputs: Float64, outcomes: Outcomes, *, base_hazard: Float64, settings: ChurnSettings, seed: int
) -> BoostedHazard:
    """Fits the classifier on the person-bins of these outcomes.

    Departures are all kept; of the many bins in which nothing happened a random share is, with its weight raised to
    stand for the rest, which leaves every expected frequency as it was.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows = person_bins(outcomes, base_hazard)
    kept, weight = _thinned(rows, seed)
    grid = Grid.of(inputs)
    design = np.column_stack([grid.cells(inputs)[rows.row[kept]], rows.bin[kept]])
    model = HistGradientBoostingClassifier(
        max_iter=settings.boosting_iterations,
        learning_rate=settings.boosting_learning_rate,
        max_leaf_nodes=settings.boosting_leaves,
        min_samples_leaf=settings.boosting_least_rows,
        max_features=settings.boosting_input_share,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(design, rows.gone[kept].astype(np.int64), sample_weight=weight)
    return BoostedHazard(read_trees(model, grid), bins=len(outcomes.edges_hours))


def _thinned(rows: PersonBins, seed: int) -> tuple[Int64, Float64]:
    quiet = np.flatnonzero(rows.gone == 0.0)
    drawn = quiet
    if len(quiet) > _QUIET_ROWS:
        drawn = np.random.default_rng(seed).choice(quiet, _QUIET_ROWS, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(rows.gone > 0.0), drawn]))
    raised = rows.weight[kept] * np.where(rows.gone[kept] > 0.0, 1.0, len(quiet) / max(len(drawn), 1))
    return kept, raised / raised.mean()
