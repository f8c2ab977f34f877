"""Scores as sums: what each cell loses, summed over strata and origins, from which every metric follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from models.events import Bool, Float64, Int32
from models.forecast import POISSON_DISPERSION, negative_binomial_quantiles
from models.metrics import negative_binomial_cumulative, negative_binomial_losses, pit_masses, top_n_sums

QUANTILES = tuple(round(0.05 + 0.1 * k, 2) for k in range(10))
"""Probabilities of the scaled pinball loss."""
INTERVAL = (0.1, 0.9)
"""Ends of the interval whose coverage is reported."""
PIT_EDGES = np.linspace(0.0, 1.0, 21)
"""Bins of the randomised probability integral transform; the interval's ends are among them."""
LIST_LENGTHS = (5, 20, 100)
"""How many contents a list pushed to a location may hold."""

_POINT = ("n", "demand", "forecast", "absolute_error", "squared_error")
_LAW = ("absolute_error_median", "deviance", "nll", "pinball", "covered")
_PIT = tuple(f"pit_{k:02d}" for k in range(len(PIT_EDGES) - 1))
_LISTS = tuple(f"{kind}_{n}" for kind in ("captured", "best") for n in LIST_LENGTHS)
TERMS = (*_POINT, *_LAW, *_PIT, *_LISTS)
"""What is summed: counts of cells, demand and losses of each kind; `pinball` is twice the mean over the quantiles."""
_POSITION = {name: position for position, name in enumerate(TERMS)}
_PIT_PART = slice(_POSITION[_PIT[0]], _POSITION[_PIT[0]] + len(_PIT))


@dataclass(frozen=True, eq=False)
class ScoreSums:
    """Sums over cells from which every metric follows; sums of different origins add up.

    Attributes:
        values: one sum for each of `TERMS`; NaN where a term is not defined. (n_terms,)
        largest_over_prior: largest ratio of a mean to its prior; NaN for methods without a prior.
    """

    values: Float64
    largest_over_prior: float = float("nan")

    @classmethod
    def none(cls) -> ScoreSums:
        """Sums over no cell."""
        return cls(np.zeros(len(TERMS)))

    def __add__(self, other: ScoreSums) -> ScoreSums:
        largest = float(np.fmax(self.largest_over_prior, other.largest_over_prior))
        return ScoreSums(self.values + other.values, largest)

    def __getitem__(self, term: str) -> float:
        return float(self.values[_POSITION[term]])

    @property
    def pit(self) -> Float64:
        """Expected outcomes by bin of the probability integral transform, shape (n_bins,)."""
        return self.values[_PIT_PART]

    def metrics(self) -> dict[str, float]:
        """Metrics by their names in `models.metrics.METRICS`, and the mean demand and forecast; NaN: not defined."""
        n = self["n"] or float("nan")
        inside = (PIT_EDGES[:-1] > INTERVAL[0] - 1e-9) & (PIT_EDGES[1:] < INTERVAL[1] + 1e-9)
        return {
            "demand": self["demand"] or float("nan"),
            "forecast": self["forecast"],
            **{name: ratio.of(self.values) for name, ratio in RATIOS.items()},
            "coverage_80": self["covered"] / n,
            "interval_80_pit": float(self.pit[inside].sum()) / n,
            "largest_over_prior": self.largest_over_prior,
        }


@dataclass(frozen=True)
class Ratio:
    """A metric that is a ratio of two sums, or the root of one."""

    numerator: str
    denominator: str
    root: bool = False
    higher_is_better: bool = False

    def of(self, sums: Float64) -> float:
        """The metric of one vector of sums, (n_terms,)."""
        return float(self.of_many(sums[None, :])[0])

    def of_many(self, sums: Float64) -> Float64:
        """The metric of several vectors of sums, (m, n_terms) to (m,); NaN over a denominator of zero."""
        below = sums[:, _POSITION[self.denominator]]
        values = sums[:, _POSITION[self.numerator]] / np.where(below > 0.0, below, np.nan)
        return np.sqrt(values) if self.root else values


RATIOS: dict[str, Ratio] = {
    "wape": Ratio("absolute_error", "demand"),
    "wape_median": Ratio("absolute_error_median", "demand"),
    "rmse": Ratio("squared_error", "n", root=True),
    "poisson_deviance": Ratio("deviance", "n"),
    "nll": Ratio("nll", "n"),
    "scaled_pinball": Ratio("pinball", "demand"),
    **{f"top{n}_captured": Ratio(f"captured_{n}", f"best_{n}", higher_is_better=True) for n in LIST_LENGTHS},
}
"""Metrics whose differences and ratios between methods can be resampled over whole origins."""


def location_sums(actual: Float64, mean: Float64) -> ScoreSums:
    """Point scores of totals by location; scores of a law or of a ranking are not defined there."""
    error = actual - mean
    point = [len(actual), actual.sum(), mean.sum(), np.abs(error).sum(), (error**2).sum()]
    return ScoreSums(np.array([*point, *[np.nan] * (len(TERMS) - len(point))], dtype=np.float64))


@dataclass(frozen=True)
class Scored:
    """Outcomes of one window and the strata they are summed over: what every method is scored against.

    Attributes:
        actual: requests that came. (n,)
        location: codes; every location has a list of its own. (n,)
        strata: names, in the order of `members`.
        members: which cells belong to each stratum. (n_strata, n)
        best: demand of the truly best cells of each stratum by list length. (n_strata, n_lengths)
    """

    actual: Float64
    location: Int32
    strata: tuple[str, ...]
    members: Bool
    best: Float64

    @classmethod
    def of(cls, actual: Float64, location: Int32, strata: dict[str, Bool]) -> Scored:
        members = np.stack(list(strata.values()))
        best = top_n_sums(actual, actual, location, members=members, lengths=LIST_LENGTHS)
        return cls(actual, location, tuple(strata), members, best)

    def sums(self, mean: Float64, dispersion: Float64, *, prior: Float64 | None = None) -> dict[str, ScoreSums]:
        """Scores a negative binomial forecast of each cell against what came, stratum by stratum.

        Args:
            mean: of each cell. (n,)
            dispersion: of each cell. (n,)
            prior: what the mean was corrected from, where the method has one. (n,)
        """
        totals = self.members.astype(np.float64) @ cell_losses(self.actual, mean, dispersion).T
        lists = top_n_sums(self.actual, mean, self.location, members=self.members, lengths=LIST_LENGTHS)
        values = np.column_stack([totals, lists, self.best])
        ratio = None if prior is None else mean / prior
        return {
            name: ScoreSums(values[k], float("nan") if ratio is None else _largest(ratio, self.members[k]))
            for k, name in enumerate(self.strata)
        }


def _largest(ratio: Float64, rows: Bool) -> float:
    return float(np.max(ratio, where=rows, initial=0.0)) if rows.any() else float("nan")


def cell_losses(actual: Float64, mean: Float64, dispersion: Float64) -> Float64:
    """The terms of `TERMS` before the lists for each cell, shape (n_cell_terms, n)."""
    log_none = _log_probability_of_none(mean, dispersion)
    none = np.exp(log_none)
    pinball, median_error, covered = _quantile_losses(actual, mean, dispersion, none)
    error = actual - mean
    likelihood = -log_none
    below, upto = np.zeros(len(actual)), none.copy()
    came = np.flatnonzero(actual > 0.0)
    law = mean[came], dispersion[came]
    likelihood[came] = negative_binomial_losses(actual[came], *law)
    below[came] = negative_binomial_cumulative(actual[came] - 1.0, *law)
    upto[came] = negative_binomial_cumulative(actual[came], *law)
    deviance = 2.0 * mean
    deviance[came] += 2.0 * (xlogy(actual[came], actual[came] / np.maximum(mean[came], 1e-12)) - actual[came])
    terms = [np.ones(len(actual)), actual, mean, np.abs(error), error**2]
    terms += [median_error, deviance, likelihood, pinball, covered]
    return np.concatenate([np.stack(terms), pit_masses(below, upto, PIT_EDGES)])


def _log_probability_of_none(mean: Float64, dispersion: Float64) -> Float64:
    poisson = dispersion < POISSON_DISPERSION
    shape = 1.0 / np.where(poisson, 1.0, dispersion)
    return np.asarray(-np.where(poisson, mean, shape * np.log1p(mean / shape)), dtype=np.float64)


def _quantile_losses(
    actual: Float64, mean: Float64, dispersion: Float64, none: Float64
) -> tuple[Float64, Float64, Float64]:
    """Twice the mean pinball loss, the error of the median, and whether the interval covers, all (n,).

    Where no request is likelier than the highest quantile, every quantile is 0 and nothing needs to be inverted.
    """
    levels = np.array(QUANTILES)
    pinball, median_error = 2.0 * levels.mean() * actual, actual.copy()
    covered = (actual == 0.0).astype(np.float64)
    rows = np.flatnonzero(none < max(levels.max(), INTERVAL[1]))
    if not len(rows):
        return pinball, median_error, covered
    y = actual[rows]
    quantiles = negative_binomial_quantiles((*QUANTILES, 0.5, *INTERVAL), mean[rows], dispersion[rows])
    over = y[None, :] - quantiles[: len(levels)]
    pinball[rows] = 2.0 * (levels[:, None] * over - np.minimum(over, 0.0)).mean(axis=0)
    median, low, high = quantiles[len(levels) :]
    median_error[rows] = np.abs(y - median)
    covered[rows] = (y >= low) & (y <= high)
    return pinball, median_error, covered
