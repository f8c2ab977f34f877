"""Gradient boosting: trees with a Poisson objective on the same inputs as the network, as its companion and as a peer.

    log mu = log max(mu0, e) + clip(F(x), -cap, cap)

Trees multiply a least-squares mean mu0: they fit the ratio y / mu0 with weight mu0, which is a Poisson law with offset
log mu0. Fitted to the counts themselves they diverge, because one busy leaf takes a Newton step of (y - mu) / mu in
log mu. Below a floor e one request would be an outlier of its ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from models.demand.cells import CellState
from models.demand.features import MARKOV_FEATURES, base_features
from models.demand.forecaster import CellForecaster
from models.demand.law import CountLaw, fit_law
from models.demand.network import network_inputs
from models.demand.prior import AFFINITY, ALL_PARTS, CONTENT, OWN, DemandPrior
from models.demand.ratios import BoostedRatio
from models.demand.remainder import Remainder
from models.demand.samples import DemandSamples
from models.demand.settings import DemandSettings
from models.events import Float64, Reals
from models.trees import Grid, read_trees

ROWS = 300_000
"""Most training rows of one horizon; more are thinned at random."""


class BoostingForecaster(CellForecaster):
    """One boosted ensemble for each horizon, on the mean of a prior, under a fitted law."""

    def __init__(
        self,
        name: str,
        settings: DemandSettings,
        *,
        ratios: list[BoostedRatio],
        laws: list[CountLaw],
        remainder: Remainder,
        prior: DemandPrior,
        markov: bool,
    ) -> None:
        super().__init__(name, settings, remainder)
        self.ratios = ratios
        self.laws = laws
        self.prior = prior
        self.markov = markov

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        index = self.settings.horizon_index(horizon_hours)
        growth = np.log(state.places.seasonal_growth(horizon_hours))[state.location]
        prior_mean = self.prior.mean(state, horizon_hours)
        inputs = boosting_inputs(base_features(state), growth, prior_mean, markov=self.markov)
        raw = prior_mean * np.exp(self.ratios[index].log_ratio(inputs, prior_mean))
        mean = self.laws[index].mean(raw)
        return mean, self.laws[index].dispersion(mean)


def boosting_inputs(base: Reals, growth: Reals, prior_mean: Reals, *, markov: bool) -> Reals:
    """Inputs of the network with or without those that come from transitions, shape (n, n_inputs)."""
    return network_inputs(base if markov else base[:, : -len(MARKOV_FEATURES)], growth, prior_mean)


def fit_boosting(
    fitted: DemandSamples,
    held_out: DemandSamples,
    *,
    settings: DemandSettings,
    remainder: Remainder,
    markov: bool,
    iterations: int = 200,
    seed: int = 0,
) -> BoostingForecaster:
    """The peer: boosting on a prior of its own, stopped early on the validation rows.

    Without Markov inputs it sees rates, ages and the hour, and multiplies the Hawkes part alone; with them also the
    flow of sessions, in the prior too.

    Args:
        fitted: training rows.
        held_out: validation rows.
        settings: cells and horizons.
        remainder: demand outside the cells.
        markov: whether to use what comes from transitions between contents.
        iterations: most trees.
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
    ratios, laws = [], []
    for index in range(len(settings.horizons_hours)):
        train, valid = (boosting_rows(rows, index, prior, markov=markov) for rows in (fitted, held_out))
        ratio = fit_ratio(train, valid, cap=settings.residual_caps[index], iterations=iterations, seed=seed)
        raw = valid.prior_mean * np.exp(ratio.log_ratio(valid.inputs, valid.prior_mean))
        ratios.append(ratio)
        laws.append(fit_law(valid.counts, raw, valid.weights, days=held_out.days, seed=seed))
    name = "gradient boosting + Markov" if markov else "gradient boosting"
    return BoostingForecaster(name, settings, ratios=ratios, laws=laws, remainder=remainder, prior=prior, markov=markov)


@dataclass(frozen=True)
class BoostingRows:
    """Rows of one horizon whose outcome is known: inputs (n, n_inputs), the others (n,)."""

    inputs: Reals
    counts: Float64
    prior_mean: Float64
    weights: Float64

    def __len__(self) -> int:
        return len(self.counts)

    def thinned(self, rows: int, *, seed: int) -> BoostingRows:
        """At most so many rows, drawn at random."""
        if len(self) <= rows:
            return self
        kept = np.sort(np.random.default_rng(seed).permutation(len(self))[:rows])
        return BoostingRows(self.inputs[kept], self.counts[kept], self.prior_mean[kept], self.weights[kept])


def boosting_rows(samples: DemandSamples, index: int, prior: DemandPrior, *, markov: bool = True) -> BoostingRows:
    """Rows of one horizon."""
    seen = np.isfinite(samples.counts[index])
    prior_mean = prior.mean_of(samples.columns[index][seen], index)
    return BoostingRows(
        inputs=boosting_inputs(samples.base[seen], samples.growth[index][seen], prior_mean, markov=markov),
        counts=samples.counts[index][seen].astype(np.float64),
        prior_mean=prior_mean,
        weights=samples.weights[seen].astype(np.float64),
    )


def fit_ratio(train: BoostingRows, valid: BoostingRows, *, cap: float, iterations: int, seed: int) -> BoostedRatio:
    """Trees for the ratio of demand to the prior; stopped when the validation rows no longer gain.

    Args:
        train: training rows, thinned where there are more than `ROWS`.
        valid: validation rows.
        cap: largest absolute log-ratio.
        iterations: most trees.
        seed: of the thinning.
    """
    train = train.thinned(ROWS, seed=seed)
    grid = Grid.of(train.inputs)
    model = HistGradientBoostingRegressor(
        loss="poisson",
        max_iter=iterations,
        max_depth=6,  # what a walk of the trees costs
        learning_rate=0.08,
        min_samples_leaf=100,
        l2_regularization=300.0,  # in weighted requests: holds back leaves of few expected ones
        early_stopping=True,
        n_iter_no_change=10,
        random_state=seed,
    )
    exposure, exposure_valid = (BoostedRatio.exposure(rows.prior_mean) for rows in (train, valid))
    model.fit(
        grid.cells(train.inputs),
        train.counts / exposure,
        sample_weight=train.weights * exposure,
        X_val=grid.cells(valid.inputs),
        y_val=valid.counts / exposure_valid,
        sample_weight_val=valid.weights * exposure_valid,
    )
    return BoostedRatio(read_trees(model, grid), cap)
