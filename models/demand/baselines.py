"""What a demand model has to beat, each with the same bias correction and a fitted dispersion.

last value                      requests of the last full hour x H
seasonal naive                  requests in the same hours yesterday
EWMA at half-life h             r_h(i, l) H
EWMA x growth                   r_h(i, l) g_h(l, H) H, at the half-life that is best on validation
popularity x share              r(i) share(l) H
popularity x affinity x growth  r(i) aff(i, l) g(l, H) H, with the local share shrunk to that of all traffic
Markov flow x growth            requests expected next from the sessions under way, g(l, H) H flow(i, l)
linear Hawkes                   the prior's least squares on the cell's own rates, or without the flow of sessions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.counters import CounterSettings
from models.demand.cells import CellState, nearest_half_life
from models.demand.forecaster import CellForecaster, DemandForecaster
from models.demand.law import CountLaw, fit_bias, fit_law
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
    """A mean that needs no training: a callable with a name. Of several with one name validation chooses, by horizon."""

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

    def popularity_affinity(state: CellState, hours: int) -> Float64:
        growth: Float64 = state.places.growth(hours)[state.location, popular]
        return state.content_rates[:, popular] * state.affinity * growth * hours

    def flow(state: CellState, hours: int) -> Float64:
        growth: Float64 = state.places.growth(hours)[state.location, 0]
        return state.flow * growth * hours

    def ewma(index: int) -> ReferenceMeans:
        return lambda state, hours: state.cell_rates[:, index] * hours

    def grown(index: int) -> ReferenceMeans:
        return lambda state, hours: (
            state.cell_rates[:, index] * state.places.growth(hours)[state.location, index] * hours
        )

    half_lives = list(enumerate(counters.half_lives_hours))
    return [
        Reference("last value", last_value),
        Reference("seasonal naive", seasonal_naive),
        *(Reference(f"EWMA {h:g} h", ewma(index)) for index, h in half_lives),
        *(Reference("EWMA x growth", grown(index)) for index, _ in half_lives),
        Reference("popularity x share", popularity_share),
        Reference("popularity x affinity x growth", popularity_affinity),
        Reference("Markov flow x growth", flow),
    ]


class ReferenceForecaster(CellForecaster):
    """Untrained means under their fitted laws, one of each for every horizon."""

    def __init__(
        self,
        references: Sequence[Reference],
        settings: DemandSettings,
        *,
        laws: Sequence[CountLaw],
        remainder: Remainder,
    ) -> None:
        super().__init__(references[0].name, settings, remainder)
        self.references = list(references)
        self.laws = list(laws)

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        index = self.settings.horizon_index(horizon_hours)
        mean = self.laws[index].mean(self.references[index].mean(state, horizon_hours))
        return mean, self.laws[index].dispersion(mean)


def fit_references(
    references: Sequence[Reference],
    held_out: DemandSamples,
    *,
    settings: DemandSettings,
    remainder: Remainder,
    seed: int = 0,
) -> list[CellForecaster]:
    """Bias and dispersion of each reference, from validation rows that were collected with the same references.

    References that share a name become one method, at each horizon the one with the least absolute error there.
    """
    columns: dict[str, list[int]] = {}
    for column, reference in enumerate(references):
        columns.setdefault(reference.name, []).append(column)
    methods: list[CellForecaster] = []
    for among in columns.values():
        best = [
            min(among, key=lambda column, index=index: _held_out_error(held_out, index, column))  # type: ignore[misc]
            for index in range(len(settings.horizons_hours))
        ]
        laws = [
            _held_out_law(held_out, index, held_out.references[index, :, column], seed=seed)
            for index, column in enumerate(best)
        ]
        chosen = [references[column] for column in best]
        methods.append(ReferenceForecaster(chosen, settings, laws=laws, remainder=remainder))
    return methods


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


def _held_out_error(held_out: DemandSamples, horizon_index: int, column: int) -> float:
    """Weighted absolute error of a reference on validation, once its bias is corrected."""
    seen = np.isfinite(held_out.counts[horizon_index])
    counts, weights = (values[seen].astype(np.float64) for values in (held_out.counts[horizon_index], held_out.weights))
    raw = held_out.references[horizon_index, seen, column].astype(np.float64)
    return float(weights @ np.abs(counts - fit_bias(counts, raw, weights, days=held_out.days) * raw))
