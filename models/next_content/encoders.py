"""Two readers of a trail: a gated recurrent unit, and causal self-attention.

Both read only the contents that are there: padding costs nothing and changes nothing. Places are counted from the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.events import Int32


@dataclass(frozen=True)
class Trails:
    """Trails without their padding, longest first, and one step after the other.

    Attributes:
        order: the trails by falling length. (n,)
        back: place of every trail in `order`. (n,)
        items: content codes of the first step of all trails that have it, then of the second, ... (tokens,)
        part: marks of the same. (tokens,)
        trail: trail of each token as its place in `order`. (tokens,)
        age: steps that follow each token within its trail: 0 for the most recent. (tokens,)
        counts: trails that go on in each step, rising. (steps,)
    """

    order: Tensor
    back: Tensor
    items: Int32
    part: Tensor
    trail: Tensor
    age: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, items: Int32, part: npt.NDArray[np.int8], *, device: torch.device) -> Trails:
        """From items and marks (n, history), padded on the left."""
        history = items.shape[1]
        lengths = (items >= 0).sum(axis=1)
        order = np.argsort(-lengths, kind="stable")
        step, trail = np.nonzero(items[order].T >= 0)
        counts = np.bincount(step, minlength=history)
        arrays = (order, np.argsort(order), part[order].T[step, trail].astype(np.int64), trail, history - 1 - step)
        on_device = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
        back_order, back, marks, rows, age = on_device
        return cls(back_order, back, items[order].T[step, trail], marks, rows, age, tuple(int(c) for c in counts if c))


class GruEncoder(nn.Module):
    """h_0 = tanh(C context), h_t = GRU(h_(t-1), E_t + part), query = A h + B context."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.start = nn.Linear(size, size)
        self.inputs = nn.Linear(size, 3 * size)
        self.states = nn.Linear(size, 3 * size)
        self.parts = nn.Parameter(torch.zeros(3, 3 * size))
        self.query = nn.Linear(2 * size, size)

    def forward(self, embedded: Tensor, at: Tensor, trails: Trails, context: Tensor) -> Tensor:
        """From rows (u, size), the row of each token (tokens,) and contexts (n, size) to queries (n, size)."""
        context = context.index_select(0, trails.order)
        gates = self.inputs(embedded).index_select(0, at) + self.parts.index_select(0, trails.part)
        start = torch.tanh(self.start(context))
        state = recur(gates, start, self.states.weight, self.states.bias, trails.counts)
        queries: Tensor = self.query(torch.cat([state, context], dim=1))
        return queries.index_select(0, trails.back)


class Recurrence(torch.autograd.Function):
    """State of each trail after its last token.

        r, z = sigmoid(x_rz + W_rz h),   n = tanh(x_n + r W_n h),   h <- n + z (h - n)

    The gradient is written out: one pass back over the steps and one product for W, where a recorded graph would
    touch every intermediate of every step several times.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, start: Tensor, weight: Tensor, bias: Tensor, counts: tuple[int, ...]
    ) -> Tensor:
        size, held = start.shape[1], 0
        state, steps, before = start[:0], [], []
        pairs, singles = (torch.split(part, list(counts)) for part in torch.split(gates, [2 * size, size], dim=1))
        for n, pair, single in zip(counts, pairs, singles, strict=True):
            if n > held:
                state, held = torch.cat([state, start[held:n]]), n
            inner = torch.addmm(bias, state, weight.t())
            reset, keep = torch.sigmoid(pair + inner.narrow(1, 0, 2 * size)).chunk(2, dim=1)
            own = inner.narrow(1, 2 * size, size)
            new = torch.addcmul(single, reset, own).tanh_()
            before.append(state)
            steps.append((reset, keep, new, own))
            state = torch.lerp(new, state, keep)
        ctx.steps, ctx.before, ctx.counts, ctx.weight = steps, before, counts, weight
        return torch.cat([state, start[held:]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        size = gradient.shape[1]
        into_start = gradient.clone()
        n_tokens = sum(ctx.counts)
        into_gates = gradient.new_empty(n_tokens, 3 * size)
        into_inner = gradient.new_empty(n_tokens, 3 * size)
        last = n_tokens
        for (reset, keep, new, inner), before in zip(reversed(ctx.steps), reversed(ctx.before), strict=True):
            first = last - len(new)
            moved = into_start[: len(new)]  # gradient of the state after the step, turned into that before it
            gate, within = into_gates[first:last], into_inner[first:last]
            fresh = moved * (1 - keep) * (1 - new * new)
            gate[:, :size] = fresh * inner * reset * (1 - reset)
            gate[:, size : 2 * size] = moved * (before - new) * keep * (1 - keep)
            gate[:, 2 * size :] = fresh
            within[:, : 2 * size] = gate[:, : 2 * size]
            within[:, 2 * size :] = fresh * reset
            into_start[: len(new)] = torch.addmm(moved * keep, within, ctx.weight)
            last = first
        states = torch.cat(ctx.before) if ctx.before else gradient[:0]
        return into_gates, into_start, into_inner.t() @ states, into_inner.sum(dim=0), None


def recur(gates: Tensor, start: Tensor, weight: Tensor, bias: Tensor, counts: tuple[int, ...]) -> Tensor:
    """From gate inputs (tokens, 3 size) and first states (n, size) to last states (n, size)."""
    states: Tensor = Recurrence.apply(gates, start, weight, bias, counts)  # type: ignore[no-untyped-call]
    return states


class AttentionEncoder(nn.Module):
    """Blocks of causal self-attention over E_t + place_t + part_t + context; the most recent token gives the query."""

    def __init__(self, size: int, *, blocks: int, heads: int, positions: int) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(positions, size))
        self.parts = nn.Parameter(torch.zeros(3, size))
        self.blocks = nn.ModuleList(AttentionBlock(size, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(size)
        self.query = nn.Linear(2 * size, size)

    def forward(self, embedded: Tensor, at: Tensor, trails: Trails, context: Tensor) -> Tensor:
        """From rows (u, size), the row of each token (tokens,) and contexts (n, size) to queries (n, size)."""
        context = context.index_select(0, trails.order)
        near = torch.nonzero(trails.age < len(self.places))[:, 0]
        age, trail = trails.age[near], trails.trail[near]
        token = embedded.index_select(0, at[near]) + self.places.index_select(0, age)
        token = token + self.parts.index_select(0, trails.part[near])
        # Before its first content a trail is its context alone.
        begun = trails.counts[-1] if trails.counts else 0
        empty = torch.arange(begun, len(context), device=context.device)
        token = torch.cat([token, self.places[:1].expand(len(empty), -1)])
        trail, age = torch.cat([trail, empty]), torch.cat([age, torch.zeros_like(empty)])
        token = token + context.index_select(0, trail)
        grid = TokenGrid.of(trail, age, n=len(context))
        for block in self.blocks:
            token = block(token, grid)
        last = self.norm(grid.spread(token)[:, -1])
        queries: Tensor = self.query(torch.cat([last, context], dim=1))
        return queries.index_select(0, trails.back)


@dataclass(frozen=True)
class TokenGrid:
    """Where each token stands in a grid of trails by places, most recent last, and what it may look at."""

    n: int
    width: int
    cell: Tensor
    mask: Tensor

    @classmethod
    def of(cls, trail: Tensor, age: Tensor, *, n: int) -> TokenGrid:
        width = int(age.max()) + 1 if len(age) else 1
        cell = trail * width + (width - 1 - age)
        filled = torch.zeros(n * width, dtype=torch.bool, device=trail.device).index_fill(0, cell, True)
        causal = torch.ones(width, width, dtype=torch.bool, device=trail.device).tril()
        own = torch.eye(width, dtype=torch.bool, device=trail.device)  # an empty place looks at itself: no 0 / 0
        mask = (causal & filled.view(n, 1, 1, width)) | own
        return cls(n, width, cell, mask)

    def spread(self, token: Tensor) -> Tensor:
        """From (tokens, size) to (n, width, size), zero where there is no token."""
        grid = token.new_zeros(self.n * self.width, token.shape[1]).index_copy(0, self.cell, token)
        return grid.view(self.n, self.width, -1)


class AttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.inner_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.inputs, self.outputs = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed_forward = nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))

    def forward(self, token: Tensor, grid: TokenGrid) -> Tensor:
        spread = grid.spread(self.inputs(self.norm(token)))
        query, key, value = (
            part.view(grid.n, grid.width, self.heads, -1).transpose(1, 2) for part in spread.chunk(3, dim=2)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=grid.mask)
        seen = seen.transpose(1, 2).reshape(grid.n * grid.width, -1).index_select(0, grid.cell)
        token = token + self.outputs(seen)
        answer: Tensor = token + self.feed_forward(self.inner_norm(token))
        return answer
