"""Sequence network: what follows a trail of contents, scored on a given set of candidates.

    score(i | trail, context) = q . E_i + b_i,        q = A encoder(E_trail, context) + B context

E embeds contents, on the way in and on the way out; b is a content's own popularity; context is the sum of embeddings
of location, hour of the day, day of the week and further categories. `encoder` is recurrent (GRU4Rec: Hidasi et al.,
2016) or self-attentive (SASRec: Kang and McAuley, 2018). Scores become probabilities only by a softmax over the
candidates: training compares the contents that were active, so that scores of others mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.events import DAY_US, HOUR_US, Float64, Int32, Int64
from models.next_content.encoders import AttentionEncoder, GruEncoder, Trails
from models.next_content.rows import Rows

Int8 = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]

EARLIER, CURRENT = 1, 2
"""Marks of `SequenceBatch.part`; 0 is padding."""
HOURS, DAYS = 24, 7


@dataclass(frozen=True)
class SequenceBatch:
    """Trails of contents that ask what comes next.

    Attributes:
        items: content codes, most recent last, padded with -1 on the left. (n, history)
        location: location codes, -1 where unknown. (n,)
        ts_us: instants of the questions. (n,)
        features: codes of further categories, -1 where unknown. (n, features)
        part: 0 padding, 1 a content of an earlier session, 2 of this one; by default all of this one. (n, history)
    """

    items: Int32
    location: Int32
    ts_us: Int64
    features: Int32
    part: Int8 | None = None

    def __post_init__(self) -> None:
        n = len(self.location)
        shapes = [np.shape(x) for x in (self.items, self.location, self.ts_us, self.features)]
        flat = self.items.ndim != 2 or self.features.ndim != 2 or self.items.shape[1] < 1
        if flat or any(shape[0] != n for shape in shapes):
            raise ValueError(
                f"Expected items (n, history >= 1), location (n,), ts_us (n,) and features (n, f), got shapes {shapes!r}."
            )
        if self.part is not None and self.part.shape != self.items.shape:
            raise ValueError(f"Expected part of shape {self.items.shape!r} as items, got {self.part.shape!r}.")

    def __len__(self) -> int:
        return len(self.location)

    def rows(self, rows: slice | Int64) -> SequenceBatch:
        part = None if self.part is None else self.part[rows]
        return SequenceBatch(self.items[rows], self.location[rows], self.ts_us[rows], self.features[rows], part)

    @property
    def parts(self) -> Int8:
        """`part`, with the default filled in. (n, history)"""
        return self.part if self.part is not None else np.where(self.items >= 0, CURRENT, 0).astype(np.int8)

    @property
    def current(self) -> Int32:
        """Content that each session is at, -1 before its first. (n,)"""
        return np.where(self.parts[:, -1] == CURRENT, self.items[:, -1], -1).astype(np.int32)


@dataclass(frozen=True)
class SequenceSettings:
    """Shape of a sequence network."""

    encoder: Literal["gru", "attention"] = "gru"
    """How a trail is read: recurrent, or by causal self-attention."""
    size: int = 64
    """Numbers in an embedding and in the state of the encoder."""
    features: int = 2
    """Further categories of a question, beside location and hour: by default device and arrival."""
    blocks: int = 1
    """Layers of self-attention; the recurrent encoder has one layer."""
    heads: int = 1
    """Heads of self-attention."""
    positions: int = 16
    """Longest trail that self-attention tells apart by place; what lies further back is not read."""
    initial_scale: float = 0.05
    """Standard deviation of the embedding of a content that was never learnt from."""

    def __post_init__(self) -> None:
        if self.encoder not in ("gru", "attention"):
            raise ValueError(f"Expected encoder 'gru' or 'attention', got {self.encoder!r}.")
        for name in ("size", "blocks", "heads", "positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} >= 1, got {getattr(self, name)!r}.")
        if self.size % self.heads:
            raise ValueError(f"Expected a size that {self.heads!r} heads divide, got {self.size!r}.")
        if self.features < 0 or self.initial_scale < 0:
            raise ValueError(
                f"Expected features >= 0 and initial_scale >= 0, got {self.features!r} and {self.initial_scale!r}."
            )


class SequenceNetwork:
    """Embeddings that grow with the codes, and an encoder.

    Attributes:
        settings: its shape.
        rows: the embeddings by table: `content`, `bias` and one of every context column.
        encoder: weights that every trail shares.
    """

    def __init__(self, settings: SequenceSettings, *, seed: int, device: str = "cpu") -> None:
        self.settings = settings
        self.device = torch.device(device)
        columns = ["location", "hour", "weekday", *(f"feature_{i}" for i in range(settings.features))]
        self.columns = tuple(columns)
        scales = {"content": settings.initial_scale, "bias": 0.0} | dict.fromkeys(columns, 0.0)
        self.rows = {
            name: Rows(1 if name == "bias" else settings.size, scale=scale, seed=seed, device=self.device)
            for name, scale in scales.items()
        }
        self.encoder = build_encoder(settings, seed=seed).to(self.device)

    @torch.no_grad()  # no inference mode: tables that grow here are written to when learning
    def scores(self, batch: SequenceBatch, candidates: Int32) -> Float32:
        """Scores of the candidates; -inf where there is none (-1) and for the content that the session is at. (n, m)"""
        candidates = np.asarray(candidates, dtype=np.int32)
        if candidates.ndim != 2 or len(candidates) != len(batch):
            raise ValueError(f"Expected candidates ({len(batch)}, m), got shape {candidates.shape!r}.")
        codes = np.maximum(candidates, 0)
        embedded, bias = self.rows["content"].read(codes), self.rows["bias"].read(codes)[..., 0]
        scores = torch.baddbmm(bias[..., None], embedded, self.query(batch)[..., None])[..., 0]
        refused = (candidates < 0) | (candidates == batch.current[:, None])
        return np.asarray(scores.masked_fill(self.tensor(refused), -torch.inf).cpu().numpy())

    def probability(self, batch: SequenceBatch, candidates: Int32) -> Float64:
        """Softmax of the scores over the candidates of each session, zero for the refused ones. (n, m)"""
        scores = self.scores(batch, candidates).astype(np.float64)
        best = scores.max(axis=1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isfinite(best), best, 0.0))
        return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))

    def query(self, batch: SequenceBatch) -> Tensor:
        """What each session looks for, to be multiplied with content embeddings. (n, size)"""
        trails = Trails.of(batch.items, batch.parts, device=self.device)
        codes, place = np.unique(trails.items, return_inverse=True)
        context = [self.rows[name].read(codes) for name, codes in self.context_codes(batch).items()]
        return self.encode(self.rows["content"].read(codes), place, trails, torch.stack(context).sum(dim=0))

    def encode(self, embedded: Tensor, place: Int64, trails: Trails, context: Tensor) -> Tensor:
        """From rows (u, size), the row of every content of the trails, and contexts (n, size), to queries (n, size)."""
        queries: Tensor = self.encoder(embedded, self.tensor(place), trails, context)
        return queries

    def context_codes(self, batch: SequenceBatch) -> dict[str, Int32]:
        """Row of every context table that each question reads: code + 1, and 0 where unknown; (n,) each."""
        if batch.features.shape[1] != self.settings.features:
            raise ValueError(
                f"Expected {self.settings.features} features a question, got {batch.features.shape[1]}; give the "
                "columns that the network was built for."
            )
        hour, weekday = batch.ts_us // HOUR_US % HOURS, batch.ts_us // DAY_US % DAYS
        columns = [batch.location, hour, weekday, *batch.features.T]
        return {
            name: np.maximum(codes + 1, 0).astype(np.int32) for name, codes in zip(self.columns, columns, strict=True)
        }

    def tensor(self, array: npt.NDArray[Any]) -> Tensor:
        """An array on the device of the network."""
        return torch.from_numpy(array).to(self.device)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning changes, by name."""
        weights = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        for name, rows in self.rows.items():
            weights |= {f"rows.{name}.{part}": tensor for part, tensor in rows.tensors().items()}
        return weights

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `tensors` of a network of the same settings gave."""
        self.encoder.load_state_dict(_beneath("encoder.", tensors))
        for name, rows in self.rows.items():
            rows.load_tensors(_beneath(f"rows.{name}.", tensors))


def build_encoder(settings: SequenceSettings, *, seed: int) -> nn.Module:
    """An encoder initialised from the seed, leaving the process's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.encoder == "gru":
            return GruEncoder(settings.size)
        return AttentionEncoder(
            settings.size, blocks=settings.blocks, heads=settings.heads, positions=settings.positions
        )


def _beneath(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
