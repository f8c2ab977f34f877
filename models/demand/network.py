"""The neural part of demand: a capped correction of the prior's mean, and the dispersion.

    log mu    = log mu0 + squeeze(f_H(x)),   squeeze(f) = F tanh(f / F),  F = F_H where f > 0, else LARGEST_FALL
    log alpha = g_H(x)

f and g are heads of one trunk, one pair for each horizon. f's last layer starts at zero, so the untrained network *is*
the prior; the cap F keeps a mean below exp(F) of it whatever the inputs. It may fall much further: contents die.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.demand.settings import DemandSettings
from models.events import Float64, Reals

LOG_DISPERSION_LIMIT = 6.0
LARGEST_FALL = 4.0
"""Largest absolute log-residual downwards."""


class ResidualNetwork(nn.Module):
    """Standardised inputs and a horizon index to (log-residual, log-dispersion)."""

    def __init__(self, n_inputs: int, *, hidden_sizes: Sequence[int], residual_caps: Sequence[float]) -> None:
        super().__init__()
        widths = [n_inputs, *hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.mean_head = nn.Linear(widths[-1], len(residual_caps))
        self.dispersion_head = nn.Linear(widths[-1], len(residual_caps))
        for head in (self.mean_head, self.dispersion_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.register_buffer("caps", torch.tensor(list(residual_caps), dtype=torch.float32))
        self.caps: Tensor

    def forward(self, inputs: Tensor, horizon: Tensor) -> tuple[Tensor, Tensor]:
        """From inputs (n, n_inputs) and horizon (n,) int64 to log-residual (n,) and log-dispersion (n,)."""
        hidden = self.trunk(inputs)
        index = horizon[:, None]
        raw = self.mean_head(hidden).gather(1, index)[:, 0]
        log_dispersion = self.dispersion_head(hidden).gather(1, index)[:, 0]
        return _squeezed(raw, self.caps[horizon]), _limited(log_dispersion, LOG_DISPERSION_LIMIT)

    def at_horizon(self, inputs: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The same of one horizon for all rows, without gradients: only its heads, and no copies of hidden layers."""
        hidden = inputs
        for layer in self.trunk:
            hidden = functional.silu(hidden, inplace=True) if isinstance(layer, nn.SiLU) else layer(hidden)
        raw, log_dispersion = (
            functional.linear(hidden, head.weight[index : index + 1], head.bias[index : index + 1])[:, 0]
            for head in (self.mean_head, self.dispersion_head)
        )
        return _squeezed(raw, self.caps[index]), _limited(log_dispersion, LOG_DISPERSION_LIMIT)


def _squeezed(raw: Tensor, cap: Tensor) -> Tensor:
    return torch.where(raw > 0.0, _limited(raw, cap), _limited(raw, LARGEST_FALL))


def _limited(values: Tensor, limit: Tensor | float) -> Tensor:
    """Values squeezed into (-limit, limit), unchanged near zero."""
    return limit * torch.tanh(values / limit)


def negative_binomial_loss(counts: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """-log P(y) of each row under variance mu + alpha mu^2, without the term log y! that no parameter moves, (n,)."""
    shape = torch.exp(-log_dispersion)
    log_total = torch.logaddexp(log_mean, -log_dispersion)
    return (
        torch.lgamma(shape)
        - torch.lgamma(counts + shape)
        + shape * (log_total + log_dispersion)
        + counts * (log_total - log_mean)
    )


@dataclass(frozen=True)
class InputScale:
    """Centre and width of every input; scaled inputs are cut at +- `limit_sd`."""

    centre: Float64
    width: Float64
    limit_sd: float

    @classmethod
    def fit(cls, inputs: Reals, *, limit_sd: float) -> InputScale:
        """From inputs (n, n_inputs); an input that never varied is only centred."""
        width = inputs.std(axis=0, dtype=np.float64)
        return cls(inputs.mean(axis=0, dtype=np.float64), np.where(width > 1e-6, width, 1.0), limit_sd)

    def apply(self, inputs: Reals) -> Tensor:
        scaled = inputs.astype(np.float32)
        scaled -= self.centre.astype(np.float32)
        scaled /= self.width.astype(np.float32)
        return torch.from_numpy(np.clip(scaled, -self.limit_sd, self.limit_sd, out=scaled))


def network_inputs(base: Reals, growth: Reals, prior_mean: Reals) -> Reals:
    """Base features, log seasonal growth and log prior mean of one horizon, shape (n, n_inputs)."""
    return np.column_stack([base, growth, np.log(prior_mean)])


class ResidualEnsemble:
    """Networks trained from different seeds: averages of their log-residuals and of their log-dispersions."""

    def __init__(self, members: Sequence[ResidualNetwork], scale: InputScale) -> None:
        self.members = [member.eval() for member in members]
        self.scale = scale

    @classmethod
    def load(
        cls, settings: DemandSettings, scale: InputScale, tensors: Mapping[str, Tensor], *, prefix: str, members: int
    ) -> ResidualEnsemble:
        """The networks that `tensors` wrote.

        Raises:
            RuntimeError: the tensors are those of other networks.
        """
        networks = [build_network(settings, n_inputs=len(scale.centre), seed=seed) for seed in range(members)]
        for index, network in enumerate(networks):
            mine = f"{prefix}.member_{index}."
            network.load_state_dict({k[len(mine) :]: v for k, v in tensors.items() if k.startswith(mine)})
        return cls(networks, scale)

    @torch.inference_mode()
    def correct(self, inputs: Reals, horizon_index: int) -> tuple[Float64, Float64]:
        """Log-residual and log-dispersion, both shape (n,)."""
        scaled = self.scale.apply(inputs)
        answers = [member.at_horizon(scaled, horizon_index) for member in self.members]
        residual, log_dispersion = (
            torch.stack(part).mean(dim=0).double().numpy() for part in zip(*answers, strict=True)
        )
        return residual, log_dispersion

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        return {
            f"{prefix}.member_{index}.{name}": tensor
            for index, member in enumerate(self.members)
            for name, tensor in member.state_dict().items()
        }


def build_network(settings: DemandSettings, *, n_inputs: int, seed: int) -> ResidualNetwork:
    """A network initialised from the seed, leaving the process's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResidualNetwork(n_inputs, hidden_sizes=settings.hidden_sizes, residual_caps=settings.residual_caps)
