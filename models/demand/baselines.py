"""What a demand model has to beat, each with the same bias correction and a fitted dispersion.

last value          requests of the last full hour x H
seasonal naive      requests in the same hours yesterday
EWMA at half-life h r_h(i, l) H
popularity x share  r(i) share(l) H
linear Hawkes       the prior's least squares on the cell's own rates, or without the flow of sessions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.counters import CounterSettings
from models.demand.cells import CellState, nearest_half_life
from models.demand.forecaster import CellForecaster, DemandForecaster
from models.demand.law import CountLaw, fit_law
from models.demand.prior import AFFINITY, ALL_PARTS, CONTENT, OWN, DemandPrior
from models.demand.remainder import Remainder
from models.demand.samples import DemandSamples, ReferenceMeans
from models.demand.settings import DemandSettings
from models.events import Float64, Reals

HAWKES_PARTS: dict[str, tuple[str, ...]] = {
    "linear Hawkes": (OWN,),
    "linear Hawkes + content": (OWN, CONTENT, AFFINITY),
    "linear Hawkes + content + Markov flow": ALL_PARTS,
}


@dataclass(frozen=True)
class Reference:
    """A mean that needs no training: a callable with a name."""

    name: str
    mean: ReferenceMeans


def untrained_references(settings: DemandSettings, counters: CounterSettings) -> list[Reference]:
    """The methods of the table above that only read counters."""
    popular = nearest_half_life(counters.half_lives_hours, 1.5)

    def last_value(state: CellState, hours: int) -> Float64:
        return state.last_hour * hours

    def seasonal_naive(state: CellState, hours: int) -> Float64:
        return state.yesterday[:, settings.horizon_index(hours)]

    def popularity_share(state: CellState, hours: int) -> Float64:
        return state.content_rates[:, popular] * state.share * hours

    def ewma(index: int) -> ReferenceMeans:
        return lambda state, hours: state.cell_rates[:, index] * hours

    return [
        Reference("last value", last_value),
        Reference("seasonal naive", seasonal_naive),
        *(Reference(f"EWMA {h:g} h", ewma(index)) for index, h in enumerate(counters.half_lives_hours)),
        Reference("popularity x share", popularity_share),
    ]


class ReferenceForecaster(CellForecaster):
    """An untrained mean under its fitted law."""

    def __init__(
        self, reference: Reference, settings: DemandSettings, *, laws: Sequence[CountLaw], remainder: Remainder
    ) -> None:
        super().__init__(reference.name, settings, remainder)
        self.reference = reference
        self.laws = list(laws)

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        fitted = self.laws[self.settings.horizon_index(horizon_hours)]
        mean = fitted.mean(self.reference.mean(state, horizon_hours))
        return mean, fitted.dispersion(mean)


def fit_references(
    references: Sequence[Reference],
    held_out: DemandSamples,
    *,
    settings: DemandSettings,
    remainder: Remainder,
    seed: int = 0,
) -> list[CellForecaster]:
    """Bias and dispersion of each reference, from validation rows that were collected with the same references."""
    return [
        ReferenceForecaster(
            reference,
            settings,
            laws=[
                _held_out_law(held_out, index, held_out.references[index, :, column], seed=seed)
                for index in range(len(settings.horizons_hours))
            ],
            remainder=remainder,
        )
        for column, reference in enumerate(references)
    ]


def fit_hawkes(
    fitted: DemandSamples, held_out: DemandSamples, *, settings: DemandSettings, remainder: Remainder, seed: int = 0
) -> list[CellForecaster]:
    """Linear Hawkes on the cell's own rates, with content rates, and the whole prior with Markov flow."""
    methods: list[CellForecaster] = []
    for name, parts in HAWKES_PARTS.items():
        prior = DemandPrior.fit(
            fitted.columns,
            fitted.counts,
            fitted.weights,
            horizons_hours=settings.horizons_hours,
            half_lives_hours=fitted.half_lives_hours,
            parts=parts,
        )
        laws = [
            _held_out_law(held_out, index, prior.mean_of(held_out.columns[index], index), seed=seed)
            for index in range(len(settings.horizons_hours))
        ]
        methods.append(DemandForecaster(settings, prior=prior, laws=laws, remainder=remainder, name=name))
    return methods


def _held_out_law(held_out: DemandSamples, horizon_index: int, raw_mean: Reals, *, seed: int) -> CountLaw:
    seen = np.isfinite(held_out.counts[horizon_index])
    counts, weights = held_out.counts[horizon_index][seen], held_out.weights[seen]
    raw = np.asarray(raw_mean[seen], dtype=np.float64)
    return fit_law(counts.astype(np.float64), raw, weights.astype(np.float64), days=held_out.days, seed=seed)
