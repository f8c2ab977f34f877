"""Gradient boosting as a reference: trees with a Poisson objective on the same inputs as the network.

Trees multiply a least-squares mean e: they fit the ratio y / e with weight e, which is a Poisson law with offset log e.
Fitted to the counts themselves they diverge, because one busy leaf takes a Newton step of (y - mu) / mu in log mu.

Without Markov inputs it sees rates, ages and the hour, and e is the Hawkes part alone; with them also the flow of
sessions, in e too. It is fitted anew where it is compared and never saved, because trees of this kind cannot be written
without pickles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from models.demand.cells import CellState
from models.demand.features import MARKOV_FEATURES, base_features
from models.demand.forecaster import CellForecaster
from models.demand.law import CountLaw, fit_law
from models.demand.prior import AFFINITY, ALL_PARTS, CONTENT, OWN, DemandPrior
from models.demand.remainder import Remainder
from models.demand.samples import DemandSamples
from models.demand.settings import DemandSettings
from models.events import Float64, Reals

EXPOSURE_FLOOR = 0.02
"""Smallest mean that the trees multiply, in requests: below it one request would be an outlier of its ratio."""


class BoostingForecaster(CellForecaster):
    """One boosted ensemble for each horizon, on the mean of a prior."""

    def __init__(
        self,
        name: str,
        settings: DemandSettings,
        *,
        models: list[HistGradientBoostingRegressor],
        laws: list[CountLaw],
        remainder: Remainder,
        prior: DemandPrior,
        markov: bool,
    ) -> None:
        super().__init__(name, settings, remainder)
        self.models = models
        self.laws = laws
        self.prior = prior
        self.markov = markov

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        index = self.settings.horizon_index(horizon_hours)
        growth = np.log(state.places.seasonal_growth(horizon_hours))[state.location]
        exposure = np.maximum(self.prior.mean(state, horizon_hours), EXPOSURE_FLOOR)
        inputs = boosting_inputs(base_features(state), growth, exposure, markov=self.markov)
        mean = self.laws[index].mean(
            exposure * _ratio(self.models[index], inputs, cap=self.settings.residual_caps[index])
        )
        return mean, self.laws[index].dispersion(mean)


def boosting_inputs(base: Reals, growth: Reals, exposure: Reals, *, markov: bool) -> Reals:
    """Inputs with or without those that come from transitions, shape (n, n_inputs)."""
    kept = base if markov else base[:, : -len(MARKOV_FEATURES)]
    return np.column_stack([kept, growth, np.log(exposure)])


def fit_boosting(
    fitted: DemandSamples,
    held_out: DemandSamples,
    *,
    settings: DemandSettings,
    remainder: Remainder,
    markov: bool,
    iterations: int = 200,
    rows: int = 300_000,
    seed: int = 0,
) -> BoostingForecaster:
    """Boosting on the training rows, stopped early on the validation rows.

    Args:
        fitted: training rows.
        held_out: validation rows.
        settings: cells and horizons.
        remainder: demand outside the cells.
        markov: whether to use what comes from transitions between contents.
        iterations: most trees.
        rows: most training rows of one horizon; more are thinned at random.
        seed: of the thinning and the binning.
    """
    prior = DemandPrior.fit(
        fitted.columns,
        fitted.counts,
        fitted.weights,
        horizons_hours=settings.horizons_hours,
        half_lives_hours=fitted.half_lives_hours,
        parts=ALL_PARTS if markov else (OWN, CONTENT, AFFINITY),
    )
    models, laws = [], []
    for index in range(len(settings.horizons_hours)):
        train = _rows(fitted, index, prior, markov=markov)
        kept = np.random.default_rng(seed).permutation(len(train.counts))[:rows]
        valid = _rows(held_out, index, prior, markov=markov)
        model = HistGradientBoostingRegressor(
            loss="poisson",
            max_iter=iterations,
            learning_rate=0.06,
            min_samples_leaf=100,
            l2_regularization=300.0,  # in weighted requests: holds back leaves of few expected ones
            early_stopping=True,
            n_iter_no_change=15,
            random_state=seed,
        )
        model.fit(
            train.inputs[kept],
            (train.counts / train.exposure)[kept],
            sample_weight=(train.weights * train.exposure)[kept],
            X_val=valid.inputs,
            y_val=valid.counts / valid.exposure,
            sample_weight_val=valid.weights * valid.exposure,
        )
        raw = valid.exposure * _ratio(model, valid.inputs, cap=settings.residual_caps[index])
        models.append(model)
        laws.append(fit_law(valid.counts, raw, valid.weights, days=held_out.days, seed=seed))
    name = "gradient boosting + Markov" if markov else "gradient boosting"
    return BoostingForecaster(name, settings, models=models, laws=laws, remainder=remainder, prior=prior, markov=markov)


def _ratio(model: HistGradientBoostingRegressor, inputs: Reals, *, cap: float) -> Float64:
    """Factor on the exposure, within the same bounds as the network's residual, shape (n,)."""
    return np.asarray(np.clip(model.predict(inputs), np.exp(-cap), np.exp(cap)), dtype=np.float64)


@dataclass(frozen=True)
class _Rows:
    inputs: Reals  # (n, n_inputs)
    counts: Float64  # (n,), as the others
    exposure: Float64
    weights: Float64


def _rows(samples: DemandSamples, index: int, prior: DemandPrior, *, markov: bool) -> _Rows:
    seen = np.isfinite(samples.counts[index])
    exposure = np.maximum(prior.mean_of(samples.columns[index][seen], index), EXPOSURE_FLOOR)
    return _Rows(
        inputs=boosting_inputs(samples.base[seen], samples.growth[index][seen], exposure, markov=markov),
        counts=samples.counts[index][seen].astype(np.float64),
        exposure=exposure,
        weights=samples.weights[seen].astype(np.float64),
    )
