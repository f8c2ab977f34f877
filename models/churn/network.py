"""Logistic hazard: h_b(x) = P(T in bin b | T > e_{b−1}, x) = σ(η_b(x)), so S(e_b | x) = Π_{k ≤ b} (1 − h_k(x)).

η is a two-layer network on the Markov statistics x. It starts at the hazards of the whole fleet (last layer zero, bias
logit h_b), so training only adds what x explains. An outcome (low, high) has the likelihood S(low) − S(high), or
S(low) where censored; for a departure inside one bin that is binary cross-entropy over the bins at risk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.churn.history import Objects
from models.events import Float64, Int64

INPUT_LIMIT = 4.0
_LEAST_STEP = 1e-6
_LEAST_SPREAD = 1e-6


class HazardNetwork(nn.Module):
    """(rows, inputs) standardised statistics → (rows, bins) hazard logits."""

    def __init__(self, inputs: int, base_logits: Tensor, *, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden_size),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
            nn.SiLU(),
            nn.Dropout(dropout),
        )
        self.last = nn.Linear(hidden_size, len(base_logits))
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.copy_(base_logits)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(self.layers(inputs))
        return logits


def interval_loss(logits: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Mean −log P(outcome); `low` and `high` as in `models.churn.outcomes`.

    Args:
        logits: hazard logits. (rows, bins)
        low: edges survived. (rows,)
        high: edge by which the node was gone, 0 where censored. (rows,)
    """
    steps = torch.nn.functional.logsigmoid(-logits)
    log_survival = torch.cat([steps.new_zeros(len(steps), 1), steps.cumsum(dim=1)], dim=1)  # (rows, bins + 1)
    stayed = log_survival.gather(1, low[:, None])[:, 0]
    gone = log_survival.gather(1, high[:, None])[:, 0]
    drop = torch.clamp(torch.where(high > 0, gone - stayed, torch.full_like(gone, -1.0)), max=-_LEAST_STEP)
    left = torch.where(high > 0, torch.log(-torch.expm1(drop)), torch.zeros_like(drop))
    return -(stayed + left).mean()


@dataclass(frozen=True)
class InputScale:
    """Standardisation of the inputs: (x − mean) / spread, clipped, followed by one column a device class.

    Inputs that never moved in training are left out: nothing was learned about them.

    Attributes:
        columns: which inputs are used. (used,)
        mean: (used,)
        spread: (used,)
        classes: device classes met in training; any other has no column set. (classes,)
    """

    columns: Int64
    mean: Float64
    spread: Float64
    classes: tuple[str, ...]

    @classmethod
    def fit(cls, inputs: Float64, device_class: Objects) -> InputScale:
        spread = inputs.std(axis=0)
        columns = np.flatnonzero(spread > _LEAST_SPREAD)
        return cls(
            columns, inputs.mean(axis=0)[columns], spread[columns], tuple(sorted({str(c) for c in device_class}))
        )

    def apply(self, inputs: Float64, device_class: Objects) -> npt.NDArray[np.float32]:
        """Network inputs, shape (n, used + classes)."""
        scaled = np.empty((len(inputs), len(self.columns) + len(self.classes)), dtype=np.float32)
        used = len(self.columns)
        scaled[:, :used] = np.clip((inputs[:, self.columns] - self.mean) / self.spread, -INPUT_LIMIT, INPUT_LIMIT)
        for i, name in enumerate(self.classes):
            scaled[:, used + i] = device_class == name
        return scaled


@dataclass(frozen=True)
class HazardEnsemble:
    """Networks of equal shape, each from its own seed, averaged in log-odds."""

    networks: tuple[HazardNetwork, ...]

    def logits(self, inputs: npt.NDArray[np.float32]) -> Float64:
        """Mean hazard logits, shape (n, bins)."""
        rows = torch.from_numpy(np.ascontiguousarray(inputs))
        with torch.inference_mode():
            mean = torch.stack([network(rows) for network in self.networks]).mean(dim=0)
        return np.asarray(mean.double().numpy(), dtype=np.float64)

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"network{i}.{name}": tensor
            for i, network in enumerate(self.networks)
            for name, tensor in network.state_dict().items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, networks: int) -> HazardEnsemble:
        return cls(tuple(_rebuilt(tensors, f"network{i}.") for i in range(networks)))


def _rebuilt(tensors: Mapping[str, Tensor], prefix: str) -> HazardNetwork:
    state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    hidden_size, inputs = state["layers.0.weight"].shape
    network = HazardNetwork(inputs, state["last.bias"], hidden_size=hidden_size, dropout=0.0)
    network.load_state_dict(state)
    return network.eval()
