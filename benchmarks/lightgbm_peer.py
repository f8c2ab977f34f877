"""LightGBM with a Poisson objective on the rows that our model is trained on: what the field would reach for first.

    lightgbm                     rates, ages and the clock; nothing from transitions, no prior
    lightgbm + Markov            the flow of sessions among the inputs
    lightgbm residual on prior   all inputs, and log mu0 of the Hawkes and Markov prior as the initial score

Each stops early on the validation rows and gets the same bias factor and fitted dispersion as every other method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np

from models.demand.cells import CellState
from models.demand.features import MARKOV_FEATURES, base_features
from models.demand.forecaster import CellForecaster
from models.demand.law import CountLaw, fit_law
from models.demand.prior import DemandPrior
from models.demand.remainder import Remainder
from models.demand.samples import DemandSamples
from models.demand.settings import DemandSettings
from models.events import Float64, Reals

PLAIN, MARKOV, RESIDUAL = VARIANTS = ("lightgbm", "lightgbm + Markov", "lightgbm residual on prior")
PARAMETERS: dict[str, Any] = {
    "objective": "poisson",
    "learning_rate": 0.06,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "lambda_l2": 1.0,
    "max_delta_step": 2.0,  # without it the first leaf of busy cells takes a step of hundreds in log mu
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
MOST_TREES, PATIENCE = 300, 20


class LightGBMForecaster(CellForecaster):
    """One booster for each horizon; with a prior the trees are a log-residual on it."""

    def __init__(
        self,
        name: str,
        settings: DemandSettings,
        *,
        boosters: Sequence[lightgbm.Booster],
        laws: Sequence[CountLaw],
        remainder: Remainder,
        prior: DemandPrior | None,
    ) -> None:
        super().__init__(name, settings, remainder)
        self.boosters, self.laws, self.prior = list(boosters), list(laws), prior

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        index = self.settings.horizon_index(horizon_hours)
        growth = np.log(state.places.seasonal_growth(horizon_hours))[state.location]
        inputs = _inputs(self.name, base_features(state), growth)
        offset = None if self.prior is None else np.log(self.prior.mean(state, horizon_hours))
        mean = self.laws[index].mean(_raw_mean(self.boosters[index], inputs, offset))
        return mean, self.laws[index].dispersion(mean)


def fit_lightgbm(
    fitted: DemandSamples,
    held_out: DemandSamples,
    *,
    settings: DemandSettings,
    remainder: Remainder,
    prior: DemandPrior,
    variants: Sequence[str] = VARIANTS,
    rows: int = 300_000,
    seed: int = 0,
) -> list[CellForecaster]:
    """Variants of the table above; training rows of a horizon beyond `rows` are thinned at random."""
    methods: list[CellForecaster] = []
    for name in variants:
        offset_of = prior if name == RESIDUAL else None
        boosters, laws = [], []
        for index in range(len(settings.horizons_hours)):
            train, valid = (_rows(samples, index, name, offset_of) for samples in (fitted, held_out))
            booster = _fit_booster(train, valid, rows=rows, seed=seed)
            counts, weights = (valid[key].astype(np.float64) for key in ("counts", "weights"))
            raw = _raw_mean(booster, valid["inputs"], valid.get("offset"))
            boosters.append(booster)
            laws.append(fit_law(counts, raw, weights, days=held_out.days, seed=seed))
        methods.append(
            LightGBMForecaster(name, settings, boosters=boosters, laws=laws, remainder=remainder, prior=offset_of)
        )
    return methods


def _fit_booster(train: dict[str, Reals], valid: dict[str, Reals], *, rows: int, seed: int) -> lightgbm.Booster:
    kept = np.sort(np.random.default_rng(seed).permutation(len(train["counts"]))[:rows])
    train = {name: values[kept] for name, values in train.items()}
    train_set, valid_set = (
        lightgbm.Dataset(part["inputs"], part["counts"], weight=part["weights"], init_score=part.get("offset"))
        for part in (train, valid)
    )
    return lightgbm.train(
        PARAMETERS | {"seed": seed},
        train_set,
        num_boost_round=MOST_TREES,
        valid_sets=[valid_set],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def _rows(samples: DemandSamples, index: int, name: str, prior: DemandPrior | None) -> dict[str, Reals]:
    seen = np.isfinite(samples.counts[index])
    rows = {
        "inputs": _inputs(name, samples.base[seen], samples.growth[index][seen]),
        "counts": samples.counts[index][seen],
        "weights": samples.weights[seen],
    }
    if prior is not None:
        rows["offset"] = np.log(prior.mean_of(samples.columns[index][seen], index))
    return rows


def _inputs(name: str, base: Reals, growth: Reals) -> Reals:
    kept = base[:, : -len(MARKOV_FEATURES)] if name == PLAIN else base
    return np.column_stack([kept, growth])


def _raw_mean(booster: lightgbm.Booster, inputs: Reals, offset: Reals | None) -> Float64:
    score = np.asarray(booster.predict(inputs, raw_score=True), dtype=np.float64)
    return np.exp(score if offset is None else score + offset)
