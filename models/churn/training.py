"""Fits a churn forecaster: life tables by counting, networks and boosting on the statistics of many origins.

    training rows      nodes that looked up at an origin in the training window, outcomes as known when it ends
    validation rows    the same in the validation window; they choose the epoch, the blend weight and the calibration

Nothing later than the end of a window is visible in it: outcomes still open there are censored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from scipy.special import expit, log_expit, logit
from torch import Tensor

from models.calibration import LogitCalibration, fit_logit_calibration
from models.churn.boosting import base_hazards, fit_boosting, person_bins
from models.churn.features import node_features
from models.churn.forecaster import FLEET, ChurnForecaster, LearnedHazard
from models.churn.history import Objects, SessionHistory
from models.churn.lifetable import fit_life_table, session_durations
from models.churn.markov import PopulationRates, fit_population
from models.churn.network import HazardEnsemble, HazardNetwork, InputScale, interval_loss
from models.churn.outcomes import Outcomes, concatenate, log_likelihood, outcomes_at
from models.churn.settings import ChurnSettings
from models.events import HOUR_US, Float64, Int64
from models.training import Batches, quiet, run

_BLEND_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEAST_DEPARTURES = 30
_PATIENCE = 3


@dataclass(frozen=True)
class TrainingRows:
    """Inputs and outcomes of many origins.

    Attributes:
        inputs: see `features.feature_names`. (rows, features)
        device_class: (rows,)
        outcomes: (rows)
    """

    inputs: Float64
    device_class: Objects
    outcomes: Outcomes


def fit_churn(
    history: SessionHistory,
    *,
    train: tuple[int, int],
    validation: tuple[int, int],
    settings: ChurnSettings | None = None,
    seed: int = 0,
) -> tuple[ChurnForecaster, list[dict[str, float]]]:
    """Learns from [train), chooses and calibrates on [validation); both in microseconds since 1970.

    With fewer than 30 departures in either window there is nothing to learn from, and the life table is returned alone.

    Returns:
        The forecaster, and one row an epoch and network: `network, epoch, train_loss, validation_loss`.

    Raises:
        ValueError: the windows are empty or overlap, or nobody was up in the training window.
    """
    settings = settings or ChurnSettings()
    _check_windows(train, validation)
    table = fit_tables(history, train=train, settings=settings)
    rows = training_rows(history, train, population=table.population, settings=settings, seed=seed)
    chosen_on = training_rows(history, validation, population=table.population, settings=settings, seed=seed + 1)
    if min(_departures(rows), _departures(chosen_on)) < _LEAST_DEPARTURES:
        return table.fallback(), []
    learned, log = _fit_learned(rows, chosen_on, settings=settings, seed=seed)
    if learned is None:
        return table.fallback(), log
    return ChurnForecaster(settings, table.population, table.sessions, table.gaps, learned), log


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


def training_rows(
    history: SessionHistory,
    window: tuple[int, int],
    *,
    population: PopulationRates,
    settings: ChurnSettings,
    seed: int,
) -> TrainingRows:
    """Rows of evenly spaced origins in the window, thinned at random to `maximum_rows`."""
    start_us, end_us = window
    known = history.before(end_us)
    inputs, outcomes = [], []
    for at_us in range(start_us, end_us, round(settings.origin_every_hours * HOUR_US)):
        at = outcomes_at(known, at_us=at_us, edges_hours=settings.edges_hours, until_us=end_us)
        if len(at):
            features = node_features(known, at_us=at_us, population=population, settings=settings)
            inputs.append(features.inputs[at.node].astype(np.float32))
            outcomes.append(at)
    if not outcomes:
        raise ValueError(f"No node was up in the window [{start_us}, {end_us}); choose a window inside the history.")
    together = concatenate(outcomes)
    kept = _thinned(together, settings.maximum_rows, seed)
    return TrainingRows(
        np.concatenate(inputs)[kept].astype(np.float64),
        history.device_class[together.node[kept]],
        together.take(kept),
    )


def _thinned(outcomes: Outcomes, maximum: int, seed: int) -> Int64:
    informative = np.flatnonzero((outcomes.low > 0) | (outcomes.high > 0))
    if len(informative) <= maximum:
        return informative
    return np.sort(np.random.default_rng(seed).choice(informative, maximum, replace=False))


def _fit_learned(
    rows: TrainingRows, chosen_on: TrainingRows, *, settings: ChurnSettings, seed: int
) -> tuple[LearnedHazard | None, list[dict[str, float]]]:
    scale = InputScale.fit(rows.inputs, rows.device_class)
    base = base_hazards(rows.outcomes)
    ensemble, log = _fit_networks(rows, chosen_on, scale=scale, base=base, settings=settings, seed=seed)
    boosting = None
    if settings.boosting_iterations:
        boosting = fit_boosting(
            scale.apply(rows.inputs, rows.device_class).astype(np.float64),
            rows.outcomes,
            base_hazard=base,
            iterations=settings.boosting_iterations,
            seed=seed,
        )
    if ensemble is None and boosting is None:
        return None, log
    blended = _blend(LearnedHazard(scale, ensemble, boosting), chosen_on)
    calibration = _calibrate(blended, chosen_on, base=base, strength=settings.calibration_strength)
    return LearnedHazard(scale, blended.ensemble, blended.boosting, blended.network_weight, calibration), log


def _blend(learned: LearnedHazard, rows: TrainingRows) -> LearnedHazard:
    """The weight of the networks with the best validation likelihood; a part without weight is dropped."""
    if learned.ensemble is None or learned.boosting is None:
        return learned
    ensemble = LearnedHazard(learned.scale, learned.ensemble, None).raw_logits(rows.inputs, rows.device_class)
    boosting = LearnedHazard(learned.scale, None, learned.boosting, 0.0).raw_logits(rows.inputs, rows.device_class)
    scores = [_mean_likelihood(w * ensemble + (1.0 - w) * boosting, rows.outcomes) for w in _BLEND_WEIGHTS]
    weight = _BLEND_WEIGHTS[int(np.argmax(scores))]
    return LearnedHazard(
        learned.scale,
        learned.ensemble if weight > 0.0 else None,
        learned.boosting if weight < 1.0 else None,
        weight,
    )


def _mean_likelihood(logits: Float64, outcomes: Outcomes) -> float:
    survival = np.exp(np.cumsum(log_expit(-logits), axis=1))
    return float(log_likelihood(survival, outcomes.low, outcomes.high).mean())


def _calibrate(
    learned: LearnedHazard, rows: TrainingRows, *, base: Float64, strength: float
) -> dict[str, LogitCalibration]:
    """Shift and slope of the hazard logits: first of the fleet, then of each class about the fleet's."""
    bins = person_bins(rows.outcomes, base)
    hazard = expit(learned.raw_logits(rows.inputs, rows.device_class))[bins.row, bins.bin]
    fleet = fit_logit_calibration(hazard, bins.gone, weight=bins.weight, prior_strength=strength)
    found = {FLEET: fleet}
    for name in learned.scale.classes:
        mine = rows.device_class[bins.row] == name
        if mine.any():
            found[name] = fit_logit_calibration(
                hazard[mine], bins.gone[mine], weight=bins.weight[mine], prior=fleet, prior_strength=strength
            )
    return found


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


def _departures(rows: TrainingRows) -> int:
    return int(np.sum(rows.outcomes.high > 0))


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
