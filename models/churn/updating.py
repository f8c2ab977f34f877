"""The daily update of a churn model in use: calibration, life tables and class rates from the last days.

    | days before the update: tables, calibration | validation: which choice was best | update: fitted again until here

Choices are the model as it is, the model with a new calibration, and the model with new life tables and class rates and
a calibration on top of these; a class rate is what the statistics of young nodes lean on, so it moves the learned part
too. The loss is −log P(outcome) of the nodes that were up in the validation days. What won is fitted again until the
instant of the update. Networks and trees stay as they are: they are trained anew, not updated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import log_expit

from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.matured import MaturedOrigins
from models.churn.operation import ChurnUpdateSettings, RecalibrationSettings
from models.churn.outcomes import log_likelihood
from models.churn.recalibrated import RecalibratedForecaster, Recalibration, composed
from models.churn.training import fit_tables
from models.events import DAY_US, Window

Kept = Literal["model in use", "calibration", "tables and calibration"]
_LEAST_ROWS = 30


@dataclass(frozen=True)
class UpdatedChurn:
    """Outcome of an update.

    Attributes:
        model: the best on the validation days, fitted until the update; the model given itself where nothing was better.
        kept: which one that is.
        losses: mean loss on the validation days by choice, in nats a row.
        rows: rows of the validation days.
        recalibration: the calibration that went into `model`; that of the unchanged tables where nothing was better.
        windows: what was fitted, and what decided.
    """

    model: ChurnForecaster
    kept: Kept
    losses: Mapping[Kept, float]
    rows: int
    recalibration: Recalibration
    windows: tuple[Window, Window]

    @property
    def changed(self) -> bool:
        return self.kept != "model in use"


def update_churn(
    history: SessionHistory,
    model: ChurnForecaster,
    *,
    at_us: int,
    settings: ChurnUpdateSettings,
    recalibration: RecalibrationSettings,
) -> UpdatedChurn:
    """Brings a model up to date with the sessions known before an instant; the model itself stays as it is.

    Raises:
        ValueError: nobody was up in the validation days, or nothing is known before them.
    """
    first_us = int(history.start_us.min(initial=at_us))
    split_us = at_us - settings.validation_days * DAY_US
    start_us = max(at_us - settings.days * DAY_US, first_us)
    if split_us - start_us < DAY_US:
        raise ValueError(
            f"An update needs a day of sessions before {settings.validation_days} days of validation, but only "
            f"{max(split_us - start_us, 0) / DAY_US:.1f} days are there. Give a later instant."
        )
    choices = _choices(history, model, (start_us, split_us), recalibration)
    losses, rows = _losses(choices, history, split_us, at_us, recalibration)
    kept = min(losses, key=lambda name: losses[name])
    if losses["model in use"] - losses[kept] < max(settings.least_gain, 1e-12):
        kept = "model in use"
    base = model if kept != "tables and calibration" else _with_tables(history, model, (start_us, at_us))
    told = _recalibration(base, history, at_us, recalibration)
    made = model if kept == "model in use" else _calibrated(base, told)
    return UpdatedChurn(made, kept, losses, rows, told, ((start_us, split_us), (split_us, at_us)))


def _choices(
    history: SessionHistory, model: ChurnForecaster, window: Window, settings: RecalibrationSettings
) -> dict[Kept, ChurnForecaster]:
    """Every choice as it would have been made at the end of the window."""
    counted = _with_tables(history, model, window)
    return {
        "model in use": model,
        "calibration": _calibrated(model, _recalibration(model, history, window[1], settings)),
        "tables and calibration": _calibrated(counted, _recalibration(counted, history, window[1], settings)),
    }


def _with_tables(history: SessionHistory, model: ChurnForecaster, window: Window) -> ChurnForecaster:
    counted = fit_tables(history, train=window, settings=model.settings)
    return replace(model, population=counted.population, sessions=counted.sessions, gaps=counted.gaps)


def _recalibration(
    model: ChurnForecaster, history: SessionHistory, at_us: int, settings: RecalibrationSettings
) -> Recalibration:
    return RecalibratedForecaster(model, settings).refitted(history, at_us)


def _calibrated(model: ChurnForecaster, told: Recalibration) -> ChurnForecaster:
    return model.calibrated(composed(told.calibration, model.calibration))


def _losses(
    choices: Mapping[Kept, ChurnForecaster],
    history: SessionHistory,
    since_us: int,
    at_us: int,
    settings: RecalibrationSettings,
) -> tuple[dict[Kept, float], int]:
    losses: dict[Kept, float] = {}
    counted = 0
    for name, model in choices.items():
        origins = MaturedOrigins(model, settings.origin_every_hours, settings.nodes_each)
        rows = origins.rows(history, since_us=since_us, at_us=at_us)
        if rows is None or len(rows) < _LEAST_ROWS:
            raise ValueError(
                f"An update needs {_LEAST_ROWS} rows of nodes that were up in the validation days, got "
                f"{0 if rows is None else len(rows)}. Give a later instant, or more update.validation_days."
            )
        survival = np.exp(np.cumsum(log_expit(-rows.logits), axis=1))
        each = log_likelihood(survival, rows.outcomes.low, rows.outcomes.high)
        losses[name] = -float(np.average(each, weights=rows.stands_for))
        counted = len(rows)
    return losses, counted
