"""Hazards learned from statistics: networks and boosted trees on the same inputs, blended in log-odds.

    η = w η_network + (1 − w) η_boosting          log-odds of the event in each bin, given none before

One form serves both heads: leaving, for a node that is up, and coming back, for one that is down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from models.churn.boosting import BoostedHazard
from models.churn.history import Objects
from models.churn.network import HazardEnsemble, InputScale
from models.events import Float64


@dataclass(frozen=True)
class LearnedHazard:
    """Networks, boosted trees or both.

    Attributes:
        scale: standardisation that both parts were trained with.
        ensemble: networks; absent where the blend gives them no weight.
        boosting: trees; absent where the blend gives them no weight.
        network_weight: w of the blend, in [0, 1].

    Raises:
        ValueError: both parts are absent.
    """

    scale: InputScale
    ensemble: HazardEnsemble | None
    boosting: BoostedHazard | None
    network_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.ensemble is None and self.boosting is None:
            raise ValueError("A learned hazard needs networks, boosting or both.")

    def logits(self, inputs: Float64, device_class: Objects) -> Float64:
        """Blended hazard logits before calibration, shape (n, bins)."""
        rows = self.scale.apply(inputs, device_class)
        if self.ensemble is None:
            assert self.boosting is not None
            return self.boosting.logits(rows)
        if self.boosting is None:
            return self.ensemble.logits(rows)
        w = self.network_weight
        return w * self.ensemble.logits(rows) + (1.0 - w) * self.boosting.logits(rows)

    def blended(self, network_weight: float) -> LearnedHazard:
        """The same parts with another weight; a part without weight is dropped."""
        return replace(
            self,
            ensemble=self.ensemble if network_weight > 0.0 else None,
            boosting=self.boosting if network_weight < 1.0 else None,
            network_weight=network_weight,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "columns": self.scale.columns.tolist(),
            "mean": self.scale.mean.tolist(),
            "spread": self.scale.spread.tolist(),
            "classes": list(self.scale.classes),
            "networks": 0 if self.ensemble is None else len(self.ensemble.networks),
            "boosting": None
            if self.boosting is None
            else {"base": self.boosting.trees.base, "bins": self.boosting.bins},
            "network_weight": self.network_weight,
        }

    def tensors(self, head: str) -> dict[str, Tensor]:
        parts = [part.tensors() for part in (self.ensemble, self.boosting) if part is not None]
        return {f"{head}.{name}": tensor for part in parts for name, tensor in part.items()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any], tensors: Mapping[str, Tensor], head: str) -> LearnedHazard:
        """What `to_json` and `tensors` wrote."""
        mine = {k.removeprefix(f"{head}."): t for k, t in tensors.items() if k.startswith(f"{head}.")}
        mean, spread = (np.asarray(state[k], dtype=np.float64) for k in ("mean", "spread"))
        columns = np.asarray(state["columns"], dtype=np.int64)
        return cls(
            InputScale(columns, mean, spread, tuple(state["classes"])),
            HazardEnsemble.from_tensors(mine, networks=state["networks"]) if state["networks"] else None,
            BoostedHazard.from_tensors(mine, **state["boosting"]) if state["boosting"] else None,
            state["network_weight"],
        )
