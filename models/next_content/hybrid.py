"""Gate and re-ranker: two small networks that weigh what counters know, and start exactly at the static mixture.

    gate        w(s) = softmax(log w0 + f(context)),        mix(i) = sum over k of w_k(s) p_k(i | s)
    re-ranker   z_i = log mix(i) + a(context) . x_i + g(x_i, context),        i in the shortlist A
                q(i) = (1 - pi) softmax_A(z)_i in A,        pi mix(i) / mix(not A) outside
                logit pi = logit mix(not A) + b(context)

The mixture is a distribution over all known contents and "one never requested", and so is q. f, a, g and b are zero when
training begins. x_i are the columns of the shortlist (`models.next_content.shortlist`), a is the log-linear pool of
experts, g the interactions that no pool can express.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.next_content.weights import backed_off

LEAST_OUTSIDE = 1e-4
"""Least probability that the mixture is taken to leave outside of the shortlist."""
REFUSED = -1e9
CLIP = 6.0
"""Inputs are kept within so many standard deviations: nothing explodes on a context never seen."""


@dataclass(frozen=True)
class HybridShape:
    """Sizes of gate and re-ranker.

    Attributes:
        experts: experts of the mixture, the sequence network included as the last.
        columns: numbers of a candidate, the logarithm of the mixture not counted.
        context: numbers of a session.
        codes: sizes of the tables of location, device and arrival; row 0 is for the unknown.
        hidden: units of a layer.
    """

    experts: int
    columns: int
    context: int
    codes: tuple[int, ...]
    hidden: int = 48


class ContextInput(nn.Module):
    """Numbers of a session, standardised, beside embeddings of its location, device and arrival."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: HybridShape, *, width: int = 6) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape.context))
        self.register_buffer("scale", torch.ones(shape.context))
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in shape.codes)
        for weight in self.tables.parameters():
            nn.init.normal_(weight, std=0.1)
        self.sizes = shape.codes
        self.size = shape.context + width * len(shape.codes)

    def forward(self, context: Tensor, codes: Tensor) -> Tensor:
        numbers = ((context - self.mean) / self.scale).clamp(-CLIP, CLIP)
        rows = [
            table(torch.where(column + 1 < size, column + 1, 0))
            for table, size, column in zip(self.tables, self.sizes, codes.unbind(dim=1), strict=True)
        ]
        return torch.cat([numbers, *rows], dim=1)


class Gate(nn.Module):
    """log w(s), from the static weights plus a correction by context."""

    start: Tensor

    def __init__(self, shape: HybridShape) -> None:
        super().__init__()
        self.inputs = ContextInput(shape)
        self.layers = nn.Sequential(
            nn.Linear(self.inputs.size, shape.hidden), nn.SiLU(), nn.Linear(shape.hidden, shape.experts)
        )
        _silence(self.layers[2])
        self.register_buffer("start", torch.zeros(shape.experts))

    def forward(self, context: Tensor, codes: Tensor) -> Tensor:
        """Log weights of the experts. (n, experts)"""
        return functional.log_softmax(self.start + self.layers(self.inputs(context, codes)), dim=1)


class Reranker(nn.Module):
    """Logarithms of q on the shortlist and of pi."""

    mean: Tensor
    scale: Tensor
    used: Tensor

    def __init__(self, shape: HybridShape) -> None:
        super().__init__()
        self.inputs = ContextInput(shape)
        size, columns = self.inputs.size, shape.columns + 1
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("used", torch.ones(columns))
        self.pool = nn.Linear(size, columns)
        self.from_context = nn.Linear(size, shape.hidden)
        self.from_columns = nn.Linear(columns, shape.hidden, bias=False)
        self.middle = nn.Linear(shape.hidden, shape.hidden)
        self.out = nn.Linear(shape.hidden, 1, bias=False)
        self.outside = nn.Sequential(nn.Linear(size, 16), nn.SiLU(), nn.Linear(16, 1))
        for last in (self.pool, self.out, self.outside[2]):
            _silence(last)

    def forward(
        self,
        columns: Tensor,
        log_mix: Tensor,
        listed: Tensor,
        context: Tensor,
        codes: Tensor,
        log_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of softmax_A(z), (n, m), of pi and of 1 - pi, (n,).

        Args:
            columns: of every candidate. (n, m, columns)
            log_mix: of every candidate. (n, m)
            listed: where there is a candidate. (n, m)
            context: numbers of each session. (n, context)
            codes: location, device and arrival. (n, 3)
            log_weight: logarithm of how many candidates each one stands for; by default itself alone. (n, m)
        """
        session = self.inputs(context, codes)
        x = torch.cat([columns, log_mix[..., None]], dim=2)
        x = ((x - self.mean) / self.scale).clamp(-CLIP, CLIP) * self.used
        z = log_mix + torch.bmm(x, self.pool(session)[..., None])[..., 0]
        hidden = functional.relu(self.from_columns(x) + self.from_context(session)[:, None])
        z = z + self.out(functional.relu(self.middle(hidden)))[..., 0]
        stands = log_mix if log_weight is None else log_mix + log_weight
        z = z if log_weight is None else z + log_weight
        log_inside = functional.log_softmax(z.masked_fill(~listed, REFUSED), dim=1)
        outside = (1.0 - torch.where(listed, stands.exp(), 0.0).sum(dim=1)).clamp(LEAST_OUTSIDE, 1.0 - LEAST_OUTSIDE)
        logit = torch.logit(outside) + self.outside(session)[:, 0]
        return log_inside, functional.logsigmoid(logit), functional.logsigmoid(-logit)


class Hybrid(nn.Module):
    """Both, over the experts that back off to one another as `backs_off_to` says."""

    def __init__(self, shape: HybridShape, *, backs_off_to: Sequence[int]) -> None:
        super().__init__()
        self.shape = shape
        self.backs_off_to = tuple(backs_off_to)
        self.gate = Gate(shape)
        self.reranker = Reranker(shape)

    @torch.no_grad()
    def mixed(self, columns: Tensor, mass: Tensor, log_weights: Tensor, *, floor: float) -> tuple[Tensor, Tensor]:
        """Logarithm of mix(i), (n, m), and the weights of the experts after back-off, (n, experts).

        Args:
            columns: of every candidate, the first being log(p_k + floor). (n, m, columns)
            mass: known part of each expert; the sequence network knows its whole list. (n, experts - 1)
            log_weights: from the gate. (n, experts)
            floor: added to probabilities before their logarithm.
        """
        weights = log_weights.exp()
        passed = backed_off(weights[:, :-1].cpu().numpy(), mass.cpu().numpy(), self.backs_off_to)
        weights = torch.cat([torch.from_numpy(passed).to(weights.device), weights[:, -1:]], dim=1)
        said = columns[..., : self.shape.experts].exp() - floor
        return torch.bmm(said, weights[..., None])[..., 0].clamp_min(1e-9).log(), weights


def _silence(layer: nn.Module) -> None:
    """Makes a layer answer zero until it learns."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def standardise(values: np.ndarray, mean: Tensor, scale: Tensor) -> None:
    """Sets mean and scale from the rows of a table (rows, columns); constant columns keep their size."""
    spread = values.std(axis=0)
    mean.copy_(torch.from_numpy(values.mean(axis=0).astype(np.float32)))
    scale.copy_(torch.from_numpy(np.where(spread > 1e-3, spread, 1.0).astype(np.float32)))
