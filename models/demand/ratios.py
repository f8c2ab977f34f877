"""What boosted trees say about a cell: the factor on the prior, from saved arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.events import Float64, Reals
from models.trees import Trees

EXPOSURE_FLOOR = 0.02
"""Smallest mean that the trees multiply, in requests: below it one request would be an outlier of its ratio."""


@dataclass(frozen=True)
class BoostedRatio:
    """log(mu / mu0) = log(max(mu0, e) / mu0) + clip(F(x), -cap, cap), with F the trees of one horizon."""

    trees: Trees
    cap: float

    @staticmethod
    def exposure(prior_mean: Reals) -> Float64:
        """What the trees multiply, shape (n,)."""
        return np.maximum(np.asarray(prior_mean, dtype=np.float64), EXPOSURE_FLOOR)

    def log_ratio(self, inputs: Reals, prior_mean: Float64) -> Float64:
        """Logarithm of the factor on the prior, shape (n,)."""
        correction = np.clip(self.trees.sums(inputs), -self.cap, self.cap)
        return np.log(self.exposure(prior_mean) / prior_mean) + correction
