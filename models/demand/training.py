"""Training of the demand model: rolling origins, the prior by least squares, the residual networks by Lightning.

    loss = mean over rows of  w [ -log NB(y | mu, alpha) + c (mu - y log mu) ] / (entropy scale of the horizon)

The second term is the Poisson loss of the mean alone: under a wide law an error of a busy cell costs next to nothing.

The untrained network is the prior with its fitted dispersion; it is scored first, so a network is kept only if it
beats the prior on validation. The best pass over the data is kept, not the last.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.counters import CounterSettings, CounterStore
from models.demand.blending import blend_parts
from models.demand.boosting import boosting_rows, fit_ratio
from models.demand.forecaster import PRIOR_NAME, DemandForecaster
from models.demand.law import CountLaw, fit_law
from models.demand.network import (
    InputScale,
    ResidualEnsemble,
    ResidualNetwork,
    build_network,
    negative_binomial_loss,
)
from models.demand.prior import DemandPrior
from models.demand.remainder import Remainder
from models.demand.rows import RowBatches, Rows, stack_rows
from models.demand.samples import DemandSamples, Window, collect_samples
from models.demand.settings import DemandSettings
from models.events import RequestLog
from models.training import quiet

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
    fitted: DemandSamples,
    held_out: DemandSamples,
    *,
    settings: DemandSettings,
    seed: int,
    accelerator: str = "cpu",
    start: DemandForecaster | None = None,
) -> tuple[DemandForecaster, History]:
    """Fits the model on rows collected already.

    Args:
        fitted: training rows.
        held_out: validation rows.
        settings: model and training.
        seed: of the initial weights and the order of the rows.
        accelerator: Lightning's name of the device.
        start: a trained model whose networks are trained on, with its input scale; they are kept where no pass over
            the new rows beats them on validation.
    """
    prior, remainder = fit_prior(fitted, settings)
    laws = fit_prior_laws(prior, held_out, settings, seed=seed)
    plain = DemandForecaster(settings, prior=prior, laws=laws, remainder=remainder, name=PRIOR_NAME)
    if settings.max_epochs == 0:
        return plain, []
    networks, history = fit_networks(
        (stack_rows(fitted, prior), stack_rows(held_out, prior)),
        laws,
        settings,
        seed=seed,
        accelerator=accelerator,
        start=start.learned.networks if start is not None and start.learned is not None else None,
    )
    horizons = range(len(settings.horizons_hours))
    valid = [boosting_rows(held_out, index, prior) for index in horizons]
    ratios = []
    if settings.boosting_iterations:
        ratios = [
            fit_ratio(
                boosting_rows(fitted, index, prior),
                valid[index],
                cap=settings.residual_caps[index],
                iterations=settings.boosting_iterations,
                seed=seed,
            )
            for index in horizons
        ]
    learned = blend_parts(networks, ratios, valid, caps=settings.residual_caps)
    return DemandForecaster(settings, prior=prior, laws=laws, remainder=remainder, learned=learned), history


def fit_networks(
    rows: tuple[Rows, Rows],
    laws: list[CountLaw],
    settings: DemandSettings,
    *,
    seed: int,
    accelerator: str = "cpu",
    start: Sequence[ResidualEnsemble] | None = None,
) -> tuple[list[ResidualEnsemble], History]:
    """Residual networks by horizon, each the pass that was best on its validation rows; see `fit_samples`."""
    scale = InputScale.fit(rows[0].inputs, limit_sd=settings.input_limit_sd) if start is None else start[0].scale
    batches = [part.tensors(scale) for part in rows]
    history: History = []
    members = []
    for member in range(settings.members):
        network = build_network(settings, n_inputs=len(scale.centre), seed=seed + 1000 * member)
        with torch.no_grad():
            # alpha of the prior at a mean of one request: where the dispersion head starts.
            network.dispersion_head.bias.copy_(torch.tensor([law.log_dispersion for law in laws]))
        first = [network.state_dict()] * len(laws)
        if start is not None:
            first = [ensemble.members[member % len(ensemble.members)].state_dict() for ensemble in start]
        training = DemandTraining(network, settings, scales=_horizon_scales(batches[0], len(laws)), member=member)
        _train(
            training,
            [copy.deepcopy(state) for state in first],
            batches,
            seed=seed + 1000 * member,
            accelerator=accelerator,
        )
        history.extend(training.history)
        members.append([_network_of(network, state) for state in training.best_states])
    return [ResidualEnsemble(networks, scale) for networks in zip(*members, strict=True)], history


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


class DemandTraining(lightning.LightningModule):
    """Loss, optimiser, the moving average of the weights, and the best pass of that average for each horizon."""

    def __init__(self, network: ResidualNetwork, settings: DemandSettings, *, scales: Tensor, member: int) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, avg_fn=_moving_average(settings.averaging))
        self.settings = settings
        self.member = member
        self.scales: Tensor
        self.register_buffer("scales", scales)
        self.history: History = []
        self.best_losses = [float("inf")] * len(scales)
        self.best_states = [copy.deepcopy(network.state_dict()) for _ in scales]
        self.judged = range(len(scales))
        self._train_loss = [0.0, 0.0]
        self._loss_sums = torch.zeros(2, len(scales), dtype=torch.float64)
        self._noted = self._loss_sums.clone()
        self._passes_since_best = 0

    def go_on_from(self, state: dict[str, Tensor]) -> None:
        """Sets the weights, and their average."""
        self.network.load_state_dict(state)
        self.average.module.load_state_dict(state)

    def losses(self, network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weighted loss of each row of a batch, and the weights, both (n,)."""
        residual, log_dispersion = network(batch["inputs"], batch["horizon"])
        log_mean = batch["log_prior"] + residual
        losses = negative_binomial_loss(batch["counts"], log_mean, log_dispersion)
        losses = losses + self.settings.mean_loss_weight * (torch.exp(log_mean) - batch["counts"] * log_mean)
        weights = batch["weights"] * self.scales[batch["horizon"]]
        return weights * losses, weights

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        total, weight = (values.sum() for values in self.losses(self.network, batch))
        self._train_loss[0] += float(total.detach())
        self._train_loss[1] += float(weight)
        return total / weight

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update_parameters(self.network)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        for sums, values in zip(self._loss_sums, self.losses(self.average, batch), strict=True):
            sums.index_add_(0, batch["horizon"].cpu(), values.double().cpu())

    def on_validation_epoch_end(self) -> None:
        totals, weights = self._loss_sums
        losses = (totals / weights.clamp(min=1e-12)).tolist()
        self._note(slice(self.judged.start, self.judged.stop))
        better = [index for index in self.judged if losses[index] < self.best_losses[index]]
        for index in better:
            self.best_losses[index] = losses[index]
            self.best_states[index] = copy.deepcopy(self.average.module.state_dict())
        self._loss_sums.zero_()
        self._passes_since_best = 0 if better else self._passes_since_best + 1
        if self._passes_since_best >= max(self.settings.patience_epochs, 1):
            self.trainer.should_stop = True

    def _note(self, judged: slice) -> None:
        """One row a pass; the first weights of the horizons are judged one by one and noted with the last."""
        self._noted[:, judged] = self._loss_sums[:, judged]
        if judged.stop < len(self.best_losses):
            return
        total, weight = self._noted.sum(dim=1).tolist()
        trained = self._train_loss[0] / self._train_loss[1] if self._train_loss[1] else float("nan")
        row = {"member": float(self.member), "epoch": float(len(self.history)), "train_loss": trained}
        self.history.append(row | {"validation_loss": total / max(weight, 1e-12)})
        self._train_loss = [0.0, 0.0]

    def configure_optimizers(self) -> Any:
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _moving_average(kept: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An average of the last 1 / (1 - kept) steps, and of all steps while there are fewer."""

    def average(so_far: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
        share = min(kept, (1.0 + int(steps)) / (10.0 + int(steps)))
        return torch.lerp(so_far, now, 1.0 - share)

    return average


def _train(
    training: DemandTraining,
    first: list[dict[str, Tensor]],
    batches: list[dict[str, Tensor]],
    *,
    seed: int,
    accelerator: str,
) -> None:
    """Judges the first weights of each horizon, then goes on from those of the shortest."""
    settings = training.settings
    train_batches = RowBatches(batches[0], batch_rows=settings.batch_rows, seed=seed)
    validation_batches = RowBatches(batches[1], batch_rows=8 * settings.batch_rows, seed=None)
    with quiet():
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
        for index, state in enumerate(first):
            training.go_on_from(state)
            training.judged = range(index, index + 1)
            trainer.validate(training, validation_batches, verbose=False)
        training.go_on_from(first[0])
        training.judged = range(len(first))
        trainer.fit(training, train_batches, validation_batches)


def _network_of(trained: ResidualNetwork, state: dict[str, Tensor]) -> ResidualNetwork:
    network = copy.deepcopy(trained).cpu()
    network.load_state_dict(state)
    return network


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
