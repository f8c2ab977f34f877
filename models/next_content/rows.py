"""Embedding rows that grow with the codes and learn by row-wise Adagrad.

    g_r <- g_r + mean(gradient_r^2),        row_r <- row_r - rate gradient_r / sqrt(g_r)

Only the rows that a minibatch names are read and written, so its cost does not depend on the size of the table (Duchi
et al., 2011; one accumulator a row as in large embedding tables).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from models.events import Int32, Int64

BLOCK = 1024
"""Rows drawn together: a row's initial value depends on the seed and its code alone, not on when the table grew."""
SMALL = 1e-10


class Rows:
    """A table of rows by code.

    Attributes:
        values: the rows, spare ones included. (capacity, width)
        squares: the sums of squared gradients. (capacity,)
        learnt: rows up to the last that ever learnt.
    """

    def __init__(self, width: int, *, scale: float, seed: int, device: torch.device) -> None:
        self.scale = scale
        self.seed = seed
        self.learnt = 0
        self.values = torch.zeros((0, width), device=device)
        self.squares = torch.zeros(0, device=device)

    def read(self, codes: Int32 | Int64) -> Tensor:
        """Rows of codes of any shape; new codes are made room for. (*codes.shape, width)"""
        self._reach(int(codes.max(initial=-1)) + 1)
        at = torch.from_numpy(np.ascontiguousarray(codes).reshape(-1)).to(self.values.device)
        return self.values.index_select(0, at).view(*codes.shape, self.values.shape[1])

    def learn(self, codes: Int32 | Int64, gradient: Tensor, *, rate: float) -> None:
        """One step for distinct codes (u,) along their gradients (u, width)."""
        at = torch.from_numpy(codes.astype(np.int64)).to(self.values.device)
        squares = self.squares.index_select(0, at) + gradient.square().mean(dim=1)
        self.squares.index_copy_(0, at, squares)
        self.values.index_add_(0, at, gradient * (-rate / (squares + SMALL).sqrt())[:, None])
        self.learnt = max(self.learnt, int(codes.max(initial=-1)) + 1)

    def fade(self, share: float) -> None:
        """Keeps that share of the sums of squares: steps shorten with recent gradients, not with old ones."""
        self.squares[: self.learnt].mul_(share)

    def tensors(self) -> dict[str, Tensor]:
        """Rows up to the last that was learnt; those after it follow from the seed."""
        return {"values": self.values[: self.learnt], "squares": self.squares[: self.learnt]}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `tensors` of a table of the same seed and width gave."""
        self.learnt = len(tensors["squares"])
        self._reach(self.learnt)
        self.values[: self.learnt] = tensors["values"].to(self.values.device)
        self.squares[: self.learnt] = tensors["squares"].to(self.squares.device)

    def _reach(self, n: int) -> None:
        held = len(self.values)
        if n <= held:
            return
        blocks = -(-max(n, 2 * held) // BLOCK)
        new = [self._block(number) for number in range(held // BLOCK, blocks)]
        self.values = torch.cat([self.values, *new])
        self.squares = torch.cat([self.squares, self.squares.new_zeros(len(self.values) - held)])

    def _block(self, number: int) -> Tensor:
        shape = (BLOCK, self.values.shape[1])
        if not self.scale:
            return torch.zeros(shape, device=self.values.device)
        draws = np.random.default_rng([self.seed, number]).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(draws * np.float32(self.scale)).to(self.values.device)
