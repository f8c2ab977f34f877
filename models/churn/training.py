"""Fits a churn forecaster: life tables by counting, networks and boosting on the statistics of many origins.

    training rows      nodes that looked up at an origin in the training window, outcomes as known when it ends
    validation rows    the same in the validation window; they choose epoch, trees, blend weight and calibration

A second head learns in the same way when nodes that are down come back. Nothing later than the end of a window is
visible in it: outcomes still open there are censored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning
import numpy as np
import torch
from scipy.special import log_expit, logit
from torch import Tensor

from models.churn.boosting import base_hazards, fit_boosting
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.joint import JointSurvival, network_codes
from models.churn.joint_fitting import fit_joint
from models.churn.learned import LearnedHazard
from models.churn.lifetable import fit_life_table, session_durations
from models.churn.markov import fit_population
from models.churn.network import HazardEnsemble, HazardNetwork, InputScale, interval_loss
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, concatenate, log_likelihood, outcomes_at
from models.churn.recalibration import HazardCalibration, fit_hazard_calibrations
from models.churn.rows import TrainingRows, WindowRows, training_rows
from models.churn.settings import ChurnSettings
from models.events import Float64
from models.training import Batches, quiet, run

_BLEND_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEAST_EVENTS = 30
_PATIENCE = 3
_JOINT_ORIGINS = 24


@dataclass(frozen=True)
class FittedParts:
    """All that a training found, before it is put together.

    Attributes:
        table: the part that needs no learning.
        learned: networks and trees of the hazards of leaving, with the weight that serves validation best.
        returns: likewise of the hazards of coming back.
        chosen_on: the validation rows.
        log: one row an epoch and network: `network, epoch, train_loss, validation_loss`.
    """

    table: ChurnForecaster
    learned: LearnedHazard | None
    returns: LearnedHazard | None
    chosen_on: WindowRows
    log: list[dict[str, float]]

    def model(self, *, name: str = "churn", network_weight: float | None = None) -> ChurnForecaster:
        """The calibrated forecaster with the best weight, or with another: 1 is networks alone, 0 boosting alone."""
        if self.learned is None:
            return self.table
        leaving = self.learned.blended(self.learned.network_weight if network_weight is None else network_weight)
        returning = None if self.returns is None else self.returns.blended(self.returns.network_weight)
        strength = self.table.settings.calibration_strength
        return replace(
            self.table,
            name=name,
            learned=leaving,
            returns=returning,
            calibration=_calibrations(leaving, self.chosen_on.leaving, strength),
            return_calibration=_calibrations(returning, self.chosen_on.returning, strength),
        )


def fit_churn(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings | None = None,
    seed: int = 0,
) -> tuple[ChurnForecaster, list[dict[str, float]]]:
    """Learns from [train), chooses and calibrates on [validation); both in microseconds since 1970.

    With fewer than 30 departures in either window there is nothing to learn from, and the life table is returned
    alone; likewise a head for returns is learned only where there are 30 of those.

    Returns:
        The forecaster, and one row an epoch and network: `network, epoch, train_loss, validation_loss`.

    Raises:
        ValueError: the windows are empty or overlap, or nobody was up in the training window.
    """
    parts = fit_parts(history, train=train, validation=validation, settings=settings, seed=seed)
    model = parts.model()
    if model.learned is not None:
        model = replace(model, dependence=fit_dependence(model, history, window=validation))
    return model, parts.log


def fit_parts(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings | None = None,
    seed: int = 0,
) -> FittedParts:
    """What `fit_churn` puts together, for comparing the blend with its parts after one training."""
    return fit_seeds(history, train=train, validation=validation, settings=settings, seeds=(seed,))[0]


def fit_seeds(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings | None = None,
    seeds: Sequence[int],
    with_returns: bool = True,
) -> list[FittedParts]:
    """Trainings from several seeds on the same rows, which are drawn by the first; the head of returns can be left out."""
    settings = settings or ChurnSettings()
    _check_windows(train, validation)
    history = with_outages(history)
    table = fit_tables(history, train=train, settings=settings)
    rows, chosen_on = (
        training_rows(history, window, population=table.population, settings=settings, seed=seeds[0] + i)
        for i, window in enumerate((train, validation))
    )
    if not rows.leaving:
        raise ValueError(f"No node was up in the window [{train[0]}, {train[1]}); choose a window inside the history.")
    if not with_returns:
        rows = replace(rows, returning=None)
    return [_fit_parts(table, rows, chosen_on, seed=seed) for seed in seeds]


def _fit_parts(table: ChurnForecaster, rows: WindowRows, chosen_on: WindowRows, *, seed: int) -> FittedParts:
    learned, log = _fit_head(rows.leaving, chosen_on.leaving, settings=table.settings, seed=seed)
    returns = None
    if learned is not None:
        returns, _ = _fit_head(rows.returning, chosen_on.returning, settings=table.settings, seed=seed + 1)
    return FittedParts(table, learned, returns, chosen_on, log)


def fit_dependence(model: ChurnForecaster, history: SessionHistory, *, window: tuple[int, int]) -> JointSurvival:
    """How departures went together at up to 24 origins of a window; whole origins, since networks must be whole."""
    start_us, end_us = window
    known = with_outages(history.before(end_us))
    outcomes, survival = [], []
    for at_us in np.linspace(start_us, end_us, _JOINT_ORIGINS, endpoint=False).astype(np.int64).tolist():
        found = outcomes_at(known, at_us=at_us, edges_hours=model.settings.edges_hours, until_us=end_us)
        if len(found):
            outcomes.append(found)
            survival.append(model.forecast(known, at_us=at_us).survival[found.node])
    if not outcomes:
        return JointSurvival.independent(model.settings.edges_hours)
    together = concatenate(outcomes)
    return fit_joint(together, np.concatenate(survival), network_codes(history.network)[together.node])


def fit_tables(history: SessionHistory, *, train: tuple[int, int], settings: ChurnSettings) -> ChurnForecaster:
    """The part that needs no learning: class rates and the life tables of sessions and gaps."""
    start_us, end_us = train
    population = fit_population(history, start_us=start_us, end_us=end_us, pseudo_departures=settings.pseudo_departures)
    up, down = session_durations(history, start_us=start_us, end_us=end_us, population=population, settings=settings)
    return ChurnForecaster(
        settings,
        population,
        fit_life_table(up, prior_rate=population.departures_per_hour, settings=settings),
        fit_life_table(down, prior_rate=population.returns_per_hour, settings=settings),
        name="life_table",
    )


def _fit_head(
    rows: TrainingRows | None, chosen_on: TrainingRows | None, *, settings: ChurnSettings, seed: int
) -> tuple[LearnedHazard | None, list[dict[str, float]]]:
    """Networks and boosting of one head, blended; none where a window saw too few events."""
    if rows is None or chosen_on is None or min(rows.events, chosen_on.events) < _LEAST_EVENTS:
        return None, []
    scale = InputScale.fit(rows.inputs, rows.device_class)
    base = base_hazards(rows.outcomes)
    ensemble, log = _fit_networks(rows, chosen_on, scale=scale, base=base, settings=settings, seed=seed)
    boosting = None
    if settings.boosting_iterations:
        inputs, held_out = (scale.apply(r.inputs, r.device_class).astype(np.float64) for r in (rows, chosen_on))
        boosting = fit_boosting(inputs, rows.outcomes, base_hazard=base, settings=settings, seed=seed)
        boosting = boosting.best_on(held_out, chosen_on.outcomes)
    if ensemble is None and boosting is None:
        return None, log
    return _blend(LearnedHazard(scale, ensemble, boosting), chosen_on), log


def _blend(learned: LearnedHazard, rows: TrainingRows) -> LearnedHazard:
    """The weight of the networks with the best validation likelihood."""
    if learned.ensemble is None or learned.boosting is None:
        return replace(learned, network_weight=float(learned.ensemble is not None))
    network, trees = (learned.blended(w).logits(rows.inputs, rows.device_class) for w in (1.0, 0.0))
    scores = [_mean_likelihood(w * network + (1.0 - w) * trees, rows.outcomes) for w in _BLEND_WEIGHTS]
    return replace(learned, network_weight=_BLEND_WEIGHTS[int(np.argmax(scores))])


def _mean_likelihood(logits: Float64, outcomes: Outcomes) -> float:
    survival = np.exp(np.cumsum(log_expit(-logits), axis=1))
    return float(log_likelihood(survival, outcomes.low, outcomes.high).mean())


def _calibrations(
    head: LearnedHazard | None, rows: TrainingRows | None, strength: float
) -> dict[str, HazardCalibration]:
    if head is None or rows is None:
        return {}
    logits = head.logits(rows.inputs, rows.device_class)
    return fit_hazard_calibrations(logits, rows.outcomes, rows.device_class, strength=strength)


def _fit_networks(
    rows: TrainingRows,
    chosen_on: TrainingRows,
    *,
    scale: InputScale,
    base: Float64,
    settings: ChurnSettings,
    seed: int,
) -> tuple[HazardEnsemble | None, list[dict[str, float]]]:
    fitted, log = [], []
    tensors = [_tensors(part, scale) for part in (rows, chosen_on)]
    for i in range(settings.networks):
        network, epochs = _fit_network(*tensors, base=base, settings=settings, seed=seed * 1009 + i)
        fitted.append(network)
        log += [{"network": float(i), **epoch} for epoch in epochs]
    return (HazardEnsemble(tuple(fitted)) if fitted else None), log


def _tensors(rows: TrainingRows, scale: InputScale) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(scale.apply(rows.inputs, rows.device_class)),
        torch.from_numpy(rows.outcomes.low.astype(np.int64)),
        torch.from_numpy(rows.outcomes.high.astype(np.int64)),
    )


def _fit_network(
    rows: tuple[Tensor, Tensor, Tensor],
    chosen_on: tuple[Tensor, Tensor, Tensor],
    *,
    base: Float64,
    settings: ChurnSettings,
    seed: int,
) -> tuple[HazardNetwork, list[dict[str, float]]]:
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        logits = torch.from_numpy(logit(base).astype(np.float32))
        network = HazardNetwork(rows[0].shape[1], logits, hidden_size=settings.hidden_size, dropout=settings.dropout)
        batches = Batches(rows, settings.batch_size, seed)
        module = HazardTraining(network, settings=settings, steps=len(batches) * settings.epochs, chosen_on=chosen_on)
        run(module, batches, epochs=settings.epochs)
    network.load_state_dict(module.best_state)
    return network.eval(), module.epochs


class HazardTraining(lightning.LightningModule):
    """AdamW on a one-cycle schedule; the state of the best validation epoch is kept, and it stops when none comes."""

    def __init__(
        self,
        network: HazardNetwork,
        *,
        settings: ChurnSettings,
        steps: int,
        chosen_on: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.steps = steps
        self.chosen_on = chosen_on
        self.epochs: list[dict[str, float]] = []
        self.best_state = {k: v.clone() for k, v in network.state_dict().items()}
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        inputs, low, high = batch
        loss = interval_loss(self.network(inputs), low, high)
        self.losses.append(float(loss.detach()))
        return loss

    def on_train_epoch_end(self) -> None:
        inputs, low, high = self.chosen_on
        self.network.eval()
        with torch.no_grad():
            validation = float(interval_loss(self.network(inputs), low, high))
        self.network.train()
        best = min((e["validation_loss"] for e in self.epochs), default=np.inf)
        if validation < best:
            self.best_state = {k: v.clone() for k, v in self.network.state_dict().items()}
        train = float(np.mean(self.losses))
        self.losses.clear()
        self.epochs.append({"epoch": float(self.current_epoch), "train_loss": train, "validation_loss": validation})
        recent = [e["validation_loss"] for e in self.epochs[-_PATIENCE:]]
        if len(self.epochs) > _PATIENCE and min(recent) > min(e["validation_loss"] for e in self.epochs):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.settings.learning_rate, total_steps=self.steps + 1
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def _check_windows(train: tuple[int, int], validation: tuple[int, int]) -> None:
    problems = [
        f"Expected the {name} window to end after it starts, got {window!r}."
        for name, window in (("training", train), ("validation", validation))
        if window[1] <= window[0]
    ]
    if validation[0] < train[1]:
        problems.append(f"Expected validation to start at or after {train[1]!r}, got {validation[0]!r}.")
    if problems:
        raise ValueError(" ".join(problems))
