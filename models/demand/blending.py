"""How much of the trees enters the forecast: by what the validation rows say, for each horizon.

The weight is the one of a few that gives the least negative log-likelihood. Nothing else is fitted there: a bias factor or
a shift of the dispersion that suits two validation days made the two days after them worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.demand.boosting import BoostingRows
from models.demand.learned import LearnedResidual
from models.demand.network import ResidualEnsemble
from models.demand.ratios import BoostedRatio
from models.metrics import negative_binomial_losses

WEIGHTS = (0.0, 0.25, 0.5, 0.75)


def blend_parts(
    networks: Sequence[ResidualEnsemble],
    ratios: Sequence[BoostedRatio],
    rows: Sequence[BoostingRows],
    *,
    caps: tuple[float, ...],
) -> LearnedResidual:
    """Weights from validation rows.

    Args:
        networks: trained networks by horizon.
        ratios: trees by horizon, or none.
        rows: validation rows by horizon.
        caps: largest absolute log-residual, by horizon.
    """
    learned = LearnedResidual(tuple(networks), tuple(ratios), (0.0,) * len(rows), caps)
    if not ratios:
        return learned
    weights = [_best_weight(learned, index, held_out) for index, held_out in enumerate(rows)]
    return replace(learned, boosting_weights=tuple(weights))


def _best_weight(learned: LearnedResidual, index: int, rows: BoostingRows) -> float:
    if not len(rows):
        return 0.0
    residual, log_dispersion = learned.networks[index].correct(rows.inputs, index)
    ratio = learned.ratios[index].log_ratio(rows.inputs, rows.prior_mean)
    dispersion = np.exp(log_dispersion)

    def loss(weight: float) -> float:
        mean = learned.mean(rows.prior_mean, (1.0 - weight) * residual + weight * ratio, index)
        return float(rows.weights @ negative_binomial_losses(rows.counts, mean, dispersion))

    return min(WEIGHTS, key=loss)
