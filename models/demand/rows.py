"""Training rows of all horizons under each other, and the order in which a network sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.demand.network import InputScale, network_inputs
from models.demand.prior import DemandPrior
from models.demand.samples import DemandSamples


@dataclass(frozen=True)
class Rows:
    """Rows (cell, horizon) whose outcome is known: inputs (n, n_inputs), the others (n,)."""

    inputs: Any
    log_prior: Any
    counts: Any
    weights: Any
    horizon: Any

    def tensors(self, scale: InputScale) -> dict[str, Tensor]:
        return {
            "inputs": scale.apply(self.inputs),
            "log_prior": torch.from_numpy(self.log_prior),
            "counts": torch.from_numpy(self.counts),
            "weights": torch.from_numpy(self.weights),
            "horizon": torch.from_numpy(self.horizon),
        }


def stack_rows(samples: DemandSamples, prior: DemandPrior) -> Rows:
    """All horizons under each other; each horizon's weights average to 1."""
    parts: list[Rows] = []
    for index in range(len(samples.counts)):
        seen = np.isfinite(samples.counts[index])
        mean = prior.mean_of(samples.columns[index][seen], index).astype(np.float32)
        weights = samples.weights[seen]
        parts.append(
            Rows(
                inputs=network_inputs(samples.base[seen], samples.growth[index][seen], mean),
                log_prior=np.log(mean),
                counts=samples.counts[index][seen],
                weights=weights / max(float(weights.mean()), 1e-12) if len(weights) else weights,
                horizon=np.full(int(seen.sum()), index, dtype=np.int64),
            )
        )
    names = ("inputs", "log_prior", "counts", "weights", "horizon")
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class RowBatches:
    """Batches of rows in an order drawn anew, from the seed, at every pass."""

    def __init__(self, rows: dict[str, Tensor], *, batch_rows: int, seed: int | None) -> None:
        self.rows = rows
        self.batch_rows = batch_rows
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.rows["counts"]) // self.batch_rows)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        n = len(self.rows["counts"])
        order = torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)
        for drawn in torch.split(order, self.batch_rows):
            yield {name: values[drawn] for name, values in self.rows.items()}
