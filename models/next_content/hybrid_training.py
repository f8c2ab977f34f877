"""Fits gate and re-ranker on examples, by Lightning.

The gate first, then the re-ranker on top of it. Both begin at the static mixture, which is scored first, so that a
network is kept only where it beats it on validation; of all passes the best is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import lightning
import numpy as np
import torch
from torch import Tensor

from models.events import Float64
from models.next_content.experts import Experts
from models.next_content.hybrid import LEAST_OUTSIDE, Hybrid, HybridShape, standardise
from models.next_content.lessons import Examples
from models.next_content.settings import NextContentSettings
from models.next_content.shortlist import CODES, LEAST, SEQUENCE, columns_of, context_names
from models.next_content.static_weights import mixture_weights
from models.next_content.weights import completed
from models.training import Batches, quiet, run

LEAST_PROBABILITY = 1e-12
NEVER = -30.0
"""Logarithm of the weight of an expert that is left out."""

History = list[dict[str, float]]


def fit_hybrid(
    taught: Examples, held_out: Examples, *, settings: NextContentSettings, seed: int
) -> tuple[Hybrid, History]:
    """Gate first, then the re-ranker on top of it; each as it was after its best pass on `held_out`."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        hybrid = _new_hybrid(taught, settings)
        gate = HybridTraining("gate", hybrid, gate_rows(held_out, hybrid), settings=settings)
        history = _fit(
            gate, gate_rows(taught, hybrid), settings=settings, seed=seed, batch_size=8 * settings.batch_size
        )
        hybrid.load_state_dict(gate.best_state)
        rows, chosen_on = rerank_rows(taught, hybrid), rerank_rows(held_out, hybrid)
        _standardise_columns(hybrid, rows, _left_out(taught, settings))
        reranker = HybridTraining("reranker", hybrid, chosen_on, settings=settings)
        history += _fit(reranker, rows, settings=settings, seed=seed, batch_size=settings.batch_size)
        hybrid.load_state_dict(reranker.best_state)
    return hybrid.eval(), history


def _new_hybrid(taught: Examples, settings: NextContentSettings) -> Hybrid:
    experts = taught.lessons.experts
    without = _without(settings)
    codes = taught.shortlist.codes.copy()
    codes[:, [is_left_out(name, without) for name in CODES]] = -1
    shape = HybridShape(
        experts=len(experts.names) + 1,
        columns=taught.shortlist.table.shape[2],
        context=taught.shortlist.context.shape[1],
        codes=tuple(int(n) for n in codes.max(axis=0, initial=-1) + 2),
        hidden=settings.hidden_size,
    )
    hybrid = Hybrid(shape, backs_off_to=_backing_off(experts, settings).backs_off_to)
    for part in (hybrid.gate, hybrid.reranker):
        standardise(taught.shortlist.context, part.inputs.mean, part.inputs.scale)
        unread = torch.tensor([is_left_out(name, without) for name in context_names(experts)])
        part.inputs.scale[unread] = torch.inf  # what is left out reads as its mean
    kept = ~_left_out(taught, settings)[: shape.experts]
    weights = np.zeros(shape.experts)
    weights[kept] = mixture_weights(_said(taught, hybrid)[:, kept], settings)
    hybrid.gate.start.copy_(torch.from_numpy(np.log(np.maximum(weights, np.exp(NEVER)))))
    return hybrid


def _backing_off(experts: Experts, settings: NextContentSettings) -> Experts:
    """The experts, backing off past those that are left out."""
    left_out = [is_left_out(name, settings.without) for name in experts.names]
    targets = list(experts.backs_off_to)
    for k in range(len(targets)):
        while left_out[targets[k]] and targets[k] != experts.backs_off_to[targets[k]]:
            targets[k] = experts.backs_off_to[targets[k]]
    return Experts(experts.names, tuple(targets))


def _left_out(taught: Examples, settings: NextContentSettings) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Columns that no network may use. (columns,)"""
    return np.array([is_left_out(name, _without(settings)) for name in columns_of(taught.lessons.experts)])


def _without(settings: NextContentSettings) -> tuple[str, ...]:
    return (*settings.without, *(() if settings.sequence_network else (SEQUENCE,)))


def is_left_out(name: str, without: tuple[str, ...]) -> bool:
    """Whether an expert, a fact, a number of the session or a code is left out; `log_` and `mass_` do not count."""
    return name.removeprefix("log_").removeprefix("mass_").startswith(without)


def _said(examples: Examples, hybrid: Hybrid) -> Float64:
    """What each expert gave to what came, after back-off. (n, experts)"""
    lessons = examples.lessons
    experts = Experts(lessons.experts.names, hybrid.backs_off_to)
    probability = completed(lessons.raw, lessons.evidence.known, experts)
    return np.concatenate([probability, examples.followed[:, None]], axis=1)


def gate_rows(examples: Examples, hybrid: Hybrid) -> tuple[Tensor, ...]:
    """Context, codes, and the logarithm of what each expert gave to what came."""
    said = _said(examples, hybrid)
    return (
        torch.from_numpy(examples.shortlist.context),
        torch.from_numpy(examples.shortlist.codes.astype(np.int64)),
        torch.from_numpy(np.log(np.maximum(said, LEAST_PROBABILITY)).astype(np.float32)),
    )


def rerank_rows(examples: Examples, hybrid: Hybrid) -> tuple[Tensor, ...]:
    """Columns, log mix, listed, context, codes, log weight, place of what came, and its log share of what is outside."""
    shortlist = examples.shortlist
    context, codes, said = gate_rows(examples, hybrid)
    with torch.no_grad():
        log_weights = hybrid.gate(context, codes)
        mass = torch.from_numpy(shortlist.mass)
        columns = torch.from_numpy(shortlist.table)
        log_mix = torch.cat(
            [
                hybrid.mixed(part.float(), m, w, floor=LEAST)[0]
                for part, m, w in zip(*(torch.split(rows, 512) for rows in (columns, mass, log_weights)), strict=True)
            ]
        )
        listed = torch.from_numpy(shortlist.contents >= 0)
        log_weight = torch.zeros_like(log_mix)
        if shortlist.log_weight is not None:
            log_weight = torch.from_numpy(shortlist.log_weight).float()
        outside = 1.0 - torch.where(listed, (log_mix + log_weight).exp(), 0.0).sum(dim=1)
        log_share = torch.logsumexp(log_weights + said, dim=1) - outside.clamp_min(LEAST_OUTSIDE).log()
    place = torch.from_numpy(examples.place)
    return columns, log_mix, listed, context, codes, log_weight, place, log_share.clamp_max(0.0)


def _standardise_columns(hybrid: Hybrid, rows: tuple[Tensor, ...], left_out: np.ndarray[Any, Any]) -> None:
    columns, log_mix, listed = rows[:3]
    some = slice(0, 2000)
    whole = torch.cat([columns[some].float(), log_mix[some][..., None]], dim=2)[listed[some]]
    standardise(whole.numpy(), hybrid.reranker.mean, hybrid.reranker.scale)
    hybrid.reranker.used[:-1] = torch.from_numpy(1.0 - left_out.astype(np.float32))


def gate_loss(hybrid: Hybrid, rows: Sequence[Tensor]) -> Tensor:
    """-log sum over k of w_k p_k(what came). (n,)"""
    context, codes, said = rows
    return -torch.logsumexp(hybrid.gate(context, codes) + said, dim=1)


def rerank_loss(hybrid: Hybrid, rows: Sequence[Tensor]) -> Tensor:
    """-log q of what came. (n,)"""
    columns, log_mix, listed, context, codes, log_weight, place, log_share = rows
    log_inside, log_out, log_in = hybrid.reranker(columns.float(), log_mix, listed, context, codes, log_weight)
    inside = log_in + log_inside.gather(1, place.clamp_min(0)[:, None])[:, 0]
    return -torch.where(place >= 0, inside, log_out + log_share)


class HybridTraining(lightning.LightningModule):
    """AdamW on a one-cycle schedule; the state of the best pass on validation is kept."""

    def __init__(
        self,
        network: Literal["gate", "reranker"],
        hybrid: Hybrid,
        chosen_on: tuple[Tensor, ...],
        *,
        settings: NextContentSettings,
    ) -> None:
        super().__init__()
        self.network = network
        self.hybrid = hybrid
        self.chosen_on = chosen_on
        self.settings = settings
        self.steps = 1
        self.passes: History = []
        self.losses: list[float] = []
        self.best_state = copy.deepcopy(hybrid.state_dict())

    def loss(self, rows: Sequence[Tensor]) -> Tensor:
        """The loss of the network that learns; the other stands still. (n,)"""
        return (gate_loss if self.network == "gate" else rerank_loss)(self.hybrid, rows)

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        loss = self.loss(batch).mean()
        self.losses.append(float(loss.detach()))
        return loss

    def note(self, epoch: int) -> None:
        """Scores the network on validation and keeps it where it is the best so far."""
        with torch.no_grad():
            parts = zip(*(torch.split(column, 512) for column in self.chosen_on), strict=True)
            validation = float(torch.cat([self.loss(part) for part in parts]).mean())
        if validation < min((row["validation_nll"] for row in self.passes), default=np.inf):
            self.best_state = copy.deepcopy(self.hybrid.state_dict())
        train = float(np.mean(self.losses)) if self.losses else validation
        self.losses.clear()
        self.passes.append({"epoch": float(epoch), f"{self.network}_train_nll": train, "validation_nll": validation})

    def on_train_start(self) -> None:
        self.note(0)

    def on_train_epoch_end(self) -> None:
        self.note(self.current_epoch + 1)

    def configure_optimizers(self) -> Any:
        s = self.settings
        learning = getattr(self.hybrid, self.network)
        optimizer = torch.optim.AdamW(learning.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=s.learning_rate, total_steps=self.steps + 1)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def _fit(
    module: HybridTraining, rows: tuple[Tensor, ...], *, settings: NextContentSettings, seed: int, batch_size: int
) -> History:
    batches = Batches(rows, batch_size, seed)
    module.steps = len(batches) * max(settings.epochs, 1)
    if settings.epochs:
        run(module, batches, epochs=settings.epochs)
    return module.passes
