"""Training of the demand model: rolling origins, the prior by least squares, the residual networks by Lightning.

    loss = mean over rows of  w [ -log NB(y | mu, alpha) ] / (entropy scale of the horizon)

The untrained network is the prior with its fitted dispersion; it is scored first, so a network is kept only if it
beats the prior on validation. The best pass over the data is kept, not the last.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from models.counters import CounterSettings, CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.law import CountLaw, fit_bias, fit_law
from models.demand.network import (
    InputScale,
    ResidualEnsemble,
    ResidualNetwork,
    build_network,
    negative_binomial_loss,
    network_inputs,
)
from models.demand.prior import DemandPrior
from models.demand.remainder import Remainder
from models.demand.samples import DemandSamples, Window, collect_samples
from models.demand.settings import DemandSettings
from models.events import RequestLog

History = list[dict[str, float]]


def fit_demand(
    log: RequestLog,
    *,
    train: Window,
    validation: Window,
    settings: DemandSettings,
    seed: int,
    counter_settings: CounterSettings | None = None,
    accelerator: str = "cpu",
) -> tuple[DemandForecaster, History]:
    """Fits prior, remainder, networks and bias factors on a train and a later validation window.

    Args:
        log: requests; nothing after the validation window is read, nothing before the training window is ignored.
        train: [start, end) in microseconds.
        validation: [start, end), not before the end of `train`; several days, not one holiday.
        settings: model and training.
        seed: of the drawn rows, the initial weights and the order of the rows.
        counter_settings: half-lives of the counters; forecasting needs the same.
        accelerator: Lightning's name of the device, "cpu" or "gpu".

    Returns:
        The forecaster, and one row of losses for each member and pass.
    """
    fitted, held_out = collect_windows(
        log, train=train, validation=validation, settings=settings, seed=seed, counter_settings=counter_settings
    )
    return fit_samples(fitted, held_out, settings=settings, seed=seed, accelerator=accelerator)


def collect_windows(
    log: RequestLog,
    *,
    train: Window,
    validation: Window,
    settings: DemandSettings,
    seed: int,
    counter_settings: CounterSettings | None = None,
    references: Any = (),
) -> tuple[DemandSamples, DemandSamples]:
    """Rows of the training and of the validation window, in one pass of the counters over the log.

    Raises:
        ValueError: the windows overlap or are out of order.
    """
    if not train[0] < train[1] <= validation[0] < validation[1]:
        raise ValueError(f"Expected train before validation, got train={train!r}, validation={validation!r}.")
    store = CounterStore(counter_settings)
    fitted = collect_samples(
        log, store, train, settings, seed=seed, warm_up_hours=settings.warm_up_hours, references=references
    )
    held_out = collect_samples(log, store, validation, settings, seed=seed + 1, references=references)
    return fitted, held_out


def fit_samples(
    fitted: DemandSamples, held_out: DemandSamples, *, settings: DemandSettings, seed: int, accelerator: str = "cpu"
) -> tuple[DemandForecaster, History]:
    """Fits the model on rows collected already."""
    prior, remainder = fit_prior(fitted, settings)
    laws = fit_prior_laws(prior, held_out, settings, seed=seed)
    if settings.max_epochs == 0:
        return DemandForecaster(settings, prior=prior, laws=laws, remainder=remainder, name="hawkes-markov"), []
    train_rows = stack_rows(fitted, prior)
    scale = InputScale.fit(train_rows.inputs, limit_sd=settings.input_limit_sd)
    batches = [rows.tensors(scale) for rows in (train_rows, stack_rows(held_out, prior))]
    del train_rows
    history: History = []
    members = [
        _train_member(batches, laws, settings, seed=seed + 1000 * member, accelerator=accelerator, history=history)
        for member in range(settings.members)
    ]
    ensemble = ResidualEnsemble(members, scale)
    corrected = _corrected_laws(ensemble, prior, held_out, laws)
    return DemandForecaster(settings, prior=prior, laws=corrected, remainder=remainder, network=ensemble), history


def fit_prior(fitted: DemandSamples, settings: DemandSettings) -> tuple[DemandPrior, Remainder]:
    """The Markov part, and the share of demand outside the cells."""
    prior = DemandPrior.fit(
        fitted.columns,
        fitted.counts,
        fitted.weights,
        horizons_hours=settings.horizons_hours,
        half_lives_hours=fitted.half_lives_hours,
    )
    remainder = Remainder.fit(
        fitted.outside, fitted.total, horizons_hours=settings.horizons_hours, locations=fitted.locations
    )
    return prior, remainder


def fit_prior_laws(
    prior: DemandPrior, held_out: DemandSamples, settings: DemandSettings, *, seed: int
) -> list[CountLaw]:
    """Bias and dispersion of the prior alone, by horizon."""
    laws = []
    for index in range(len(settings.horizons_hours)):
        seen = np.isfinite(held_out.counts[index])
        mean = prior.mean_of(held_out.columns[index][seen], index)
        counts, weights = (values[seen].astype(np.float64) for values in (held_out.counts[index], held_out.weights))
        laws.append(fit_law(counts, mean, weights, days=held_out.days, seed=seed))
    return laws


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


class DemandTraining(lightning.LightningModule):
    """Loss, optimiser and the memory of the best pass."""

    def __init__(self, network: ResidualNetwork, settings: DemandSettings, *, scales: Tensor, member: int) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.member = member
        self.scales: Tensor
        self.register_buffer("scales", scales)
        self.history: History = []
        self.best_loss = float("inf")
        self.best_state = copy.deepcopy(network.state_dict())
        self._train_loss, self._loss_sums = [0.0, 0.0], [0.0, 0.0]
        self._passes_since_best = 0

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of weighted losses of a batch, and of the weights."""
        residual, log_dispersion = self.network(batch["inputs"], batch["horizon"])
        losses = negative_binomial_loss(batch["counts"], batch["log_prior"] + residual, log_dispersion)
        weights = batch["weights"] * self.scales[batch["horizon"]]
        return (weights * losses).sum(), weights.sum()

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        total, weight = self.loss(batch)
        self._train_loss[0] += float(total.detach())
        self._train_loss[1] += float(weight)
        return total / weight

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        total, weight = self.loss(batch)
        self._loss_sums[0] += float(total)
        self._loss_sums[1] += float(weight)

    def on_validation_epoch_end(self) -> None:
        loss = self._loss_sums[0] / max(self._loss_sums[1], 1e-12)
        trained = self._train_loss[0] / self._train_loss[1] if self._train_loss[1] else float("nan")
        row = {"member": float(self.member), "epoch": float(len(self.history)), "train_loss": trained}
        self.history.append(row | {"validation_loss": loss})
        self._train_loss, self._loss_sums = [0.0, 0.0], [0.0, 0.0]
        if loss < self.best_loss:
            self.best_loss, self._passes_since_best = loss, 0
            self.best_state = copy.deepcopy(self.network.state_dict())
            return
        self._passes_since_best += 1
        if self._passes_since_best >= max(self.settings.patience_epochs, 1):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _train_member(
    batches: list[dict[str, Tensor]],
    laws: list[CountLaw],
    settings: DemandSettings,
    *,
    seed: int,
    accelerator: str,
    history: History,
) -> ResidualNetwork:
    rows, held_out = batches
    network = build_network(settings, n_inputs=rows["inputs"].shape[1], seed=seed)
    with torch.no_grad():
        # alpha of the prior at a mean of one request: where the dispersion head starts.
        network.dispersion_head.bias.copy_(torch.tensor([law.log_dispersion for law in laws]))
    training = DemandTraining(
        network, settings, scales=_horizon_scales(rows, len(laws)), member=len({row["member"] for row in history})
    )
    train_batches = RowBatches(rows, batch_rows=settings.batch_rows, seed=seed)
    validation_batches = RowBatches(held_out, batch_rows=4 * settings.batch_rows, seed=None)
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=settings.max_epochs,
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
        )
        trainer.validate(training, validation_batches, verbose=False)
        trainer.fit(training, train_batches, validation_batches)
    network.load_state_dict(training.best_state)
    history.extend(training.history)
    return network.cpu()


def _horizon_scales(rows: dict[str, Tensor], n_horizons: int) -> Tensor:
    """Inverse of log(1 + mean demand) by horizon: long windows must not drown the short ones."""
    scales = torch.ones(n_horizons)
    for index in range(n_horizons):
        here = rows["horizon"] == index
        if bool(here.any()):
            weights = rows["weights"][here]
            demand = float((weights * rows["counts"][here]).sum() / weights.sum())
            scales[index] = 1.0 / max(np.log1p(demand), 0.05)
    return scales / scales.mean()


def _corrected_laws(
    ensemble: ResidualEnsemble, prior: DemandPrior, held_out: DemandSamples, laws: list[CountLaw]
) -> list[CountLaw]:
    corrected = []
    for index, law in enumerate(laws):
        seen = np.isfinite(held_out.counts[index])
        mean = prior.mean_of(held_out.columns[index][seen], index)
        inputs = network_inputs(held_out.base[seen], held_out.growth[index][seen], mean)
        residual, _ = ensemble.correct(inputs, index)
        counts, weights = (values[seen].astype(np.float64) for values in (held_out.counts[index], held_out.weights))
        bias = fit_bias(counts, mean * np.exp(residual), weights, days=held_out.days)
        corrected.append(CountLaw(bias, law.log_dispersion, law.slope))
    return corrected


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's advice about data loaders and devices, which does not concern rows held in memory."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
