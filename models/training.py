"""Fitting a small network on rows held in memory, the same for the same seed, without a word on the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lightning
import torch
from torch import Tensor


@dataclass
class Batches:
    """Shuffled batches of rows; a new order every pass, the same for the same seed."""

    rows: tuple[Tensor, ...]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __len__(self) -> int:
        return -(-len(self.rows[0]) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.rows[0]), generator=self.generator)
        for chosen in torch.split(order, self.batch_size):
            yield tuple(column[chosen] for column in self.rows)


def run(module: lightning.LightningModule, batches: Batches, *, epochs: int) -> None:
    """Trains on one CPU, in the order of the batches, with gradients clipped at length one."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(module, train_dataloaders=batches)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning announces devices and advises on data loaders; neither concerns tensors already in memory."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(level)
