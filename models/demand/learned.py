"""What is learned beyond the prior: networks and boosted trees, blended in the logarithm of the mean.

    log mu = log mu0 + (1 - w) f(x) + w g(x)        at most cap above log mu0
    log alpha = h(x)

with f and h the networks' log-residual and log-dispersion, g the log-ratio of the trees. The weight w
of each horizon is chosen on validation. No mean exceeds ten times the prior's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from models.demand.law import DISPERSION_RANGE
from models.demand.network import LARGEST_FALL, InputScale, ResidualEnsemble
from models.demand.prior import MEAN_FLOOR
from models.demand.ratios import BoostedRatio
from models.demand.settings import DemandSettings
from models.events import Float64, Reals
from models.trees import Trees

LARGEST_OVER_PRIOR = 10.0


@dataclass(frozen=True)
class LearnedResidual:
    """Networks, trees and their weight for each horizon.

    Attributes:
        networks: residual networks by horizon: each horizon has the pass of the common training that suits it best.
        ratios: trees by horizon; none where only networks were trained.
        boosting_weights: weight w of the trees, in [0, 1], by horizon.
        caps: largest log-residual, by horizon; downwards it is `LARGEST_FALL`.
    """

    networks: tuple[ResidualEnsemble, ...]
    ratios: tuple[BoostedRatio, ...]
    boosting_weights: tuple[float, ...]
    caps: tuple[float, ...]

    def law(self, inputs: Reals, prior_mean: Float64, index: int) -> tuple[Float64, Float64]:
        """Mean and dispersion of each row at one horizon, both (n,).

        Args:
            inputs: of the networks, the last one log mu0. (n, n_inputs)
            prior_mean: mu0. (n,)
            index: of the horizon.
        """
        residual, log_dispersion = self.networks[index].correct(inputs, index)
        weight = self.boosting_weights[index]
        if weight > 0.0:
            residual = (1.0 - weight) * residual + weight * self.ratios[index].log_ratio(inputs, prior_mean)
        return self.mean(prior_mean, residual, index), np.exp(np.clip(log_dispersion, *np.log(DISPERSION_RANGE)))

    def mean(self, prior_mean: Float64, residual: Float64, index: int) -> Float64:
        """Mean from a blended log-residual, shape (n,)."""
        mean = prior_mean * np.exp(np.clip(residual, -LARGEST_FALL, self.caps[index]))
        return np.clip(mean, MEAN_FLOOR, LARGEST_OVER_PRIOR * prior_mean)

    def to_state(self) -> dict[str, Any]:
        scale = self.networks[0].scale
        return {
            "members": len(self.networks[0].members),
            "scale": {"centre": scale.centre.tolist(), "width": scale.width.tolist()},
            "trees": [{"base": ratio.trees.base, "cap": ratio.cap} for ratio in self.ratios],
            "boosting_weights": list(self.boosting_weights),
            "caps": list(self.caps),
        }

    def tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, network in enumerate(self.networks):
            tensors |= network.tensors(f"networks_{index}")
        for index, ratio in enumerate(self.ratios):
            tensors |= ratio.trees.tensors(f"trees_{index}")
        return tensors

    @classmethod
    def load(cls, settings: DemandSettings, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LearnedResidual:
        """What `to_state` and `tensors` wrote.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: something is missing or of another shape.
        """
        scale = InputScale(
            np.array(state["scale"]["centre"]), np.array(state["scale"]["width"]), settings.input_limit_sd
        )
        ratios = [
            BoostedRatio(Trees.from_tensors(tensors, f"trees_{index}", base=tree["base"]), tree["cap"])
            for index, tree in enumerate(state["trees"])
        ]
        return cls(
            tuple(
                ResidualEnsemble.load(settings, scale, tensors, prefix=f"networks_{index}", members=state["members"])
                for index in range(len(settings.horizons_hours))
            ),
            tuple(ratios),
            tuple(state["boosting_weights"]),
            tuple(state["caps"]),
        )
