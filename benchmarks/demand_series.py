"""Per-series methods of the field's own library on a sample of active cells, beside ours on the same rows.

Each sampled cell is a series of hourly counts before the origin (a week of them where the log has it); statsforecast
predicts the next 24 hours and sums give the horizons. As everywhere, each method gets one bias factor and a fitted
dispersion, here from the sampled series of validation origins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from statsforecast.models import (
    ADIDA,
    IMAPA,
    TSB,
    AutoETS,
    CrostonOptimized,
    CrostonSBA,
    SeasonalNaive,
    SimpleExponentialSmoothingOptimized,
)

from models.counters import CounterStore
from models.demand.cells import demand_cells, nearest_half_life, observe
from models.demand.evaluation import OriginScore
from models.demand.forecaster import CellForecaster
from models.demand.law import fit_law
from models.demand.samples import advance, count_outcome
from models.demand.scores import Scored
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Float64, Int32, RequestLog

WEEK_HOURS, LEAST_HOURS = 168, 48
ACTIVE_PER_HOUR = 0.2
"""A cell is active from this rate on, at a half-life of 6 h."""
LIBRARY: dict[str, Any] = {
    "AutoETS": lambda: AutoETS(season_length=24),
    "SES": SimpleExponentialSmoothingOptimized,
    "TSB(0.3)": lambda: TSB(0.3, 0.3),
    "TSB(0.6)": lambda: TSB(0.6, 0.6),
    "CrostonOptimized": CrostonOptimized,
    "CrostonSBA": CrostonSBA,
    "IMAPA": IMAPA,
    "ADIDA": ADIDA,
    "SeasonalNaive24": lambda: SeasonalNaive(24),
}


@dataclass(frozen=True)
class Sample:
    """Series of the drawn cells at one origin, and what every method makes of them.

    Attributes:
        at_us: the origin.
        location: codes. (n,)
        counts: requests that came by horizon, None where the log ends first. horizon -> (n,)
        means: by method and horizon, before any correction. (method, horizon) -> (n,)
        laws: mean and dispersion of methods that have a law already. (method, horizon) -> two of (n,)
    """

    at_us: int
    location: Int32
    counts: Mapping[int, Float64]
    means: Mapping[tuple[str, int], Float64]
    laws: Mapping[tuple[str, int], tuple[Float64, Float64]]


def draw(
    methods: Sequence[CellForecaster],
    log: RequestLog,
    store: CounterStore,
    origins: Sequence[int],
    *,
    until_us: int,
    series: int,
    seed: int = 0,
) -> list[Sample]:
    """Samples `series` active cells at each origin and lets the library forecast them; nothing after it is read."""
    rng = np.random.default_rng(seed)
    settings = methods[0].settings
    samples = []
    for at_us in advance(store, log, origins):
        cells = _drawn_cells(store, at_us=at_us, settings=settings, series=series, rng=rng)
        state = observe(store, at_us=at_us, settings=settings, cells=cells)
        history = _hourly(log, store, cells, at_us=at_us)
        horizons = settings.horizons_hours
        ahead = {name: _forecast(make, history, max(horizons)) for name, make in LIBRARY.items()}
        samples.append(
            Sample(
                at_us=at_us,
                location=cells[1],
                counts={
                    hours: count_outcome(log, store, cells, (at_us, at_us + hours * HOUR_US)).counts
                    for hours in horizons
                    if at_us + hours * HOUR_US <= until_us
                },
                means={(n, hours): steps[:, :hours].sum(axis=1) for n, steps in ahead.items() for hours in horizons},
                laws={(method.name, hours): method.law(state, hours) for method in methods for hours in horizons},
            )
        )
    return samples


def score_series(held_out: Sequence[Sample], test: Sequence[Sample]) -> list[OriginScore]:
    """Laws of the library's methods from the validation samples, then scores of every method on the test samples."""
    fitted = {key: _law(held_out, *key) for key in test[0].means}
    scores = []
    for sample in test:
        for hours, actual in sample.counts.items():
            scored = Scored.of(actual, sample.location, {"all": np.ones(len(actual), dtype=bool)})
            laws = dict(sample.laws)
            for key, raw in sample.means.items():
                mean = fitted[key].mean(raw)
                laws[key] = mean, fitted[key].dispersion(mean)
            scores += [
                OriginScore(sample.at_us, hours, name, "all", scored.sums(*law)["all"])
                for (name, horizon), law in laws.items()
                if horizon == hours
            ]
    return scores


def _law(samples: Sequence[Sample], name: str, hours: int) -> Any:
    known = [sample for sample in samples if hours in sample.counts]
    counts = np.concatenate([sample.counts[hours] for sample in known])
    raw = np.concatenate([sample.means[name, hours] for sample in known])
    days = (known[-1].at_us - known[0].at_us) / (24 * HOUR_US)
    return fit_law(counts, raw, np.ones(len(counts)), days=max(days, 1.0))


def _drawn_cells(
    store: CounterStore, *, at_us: int, settings: DemandSettings, series: int, rng: np.random.Generator
) -> tuple[Int32, Int32]:
    content, location = demand_cells(store, at_us=at_us, settings=settings)
    steady = nearest_half_life(store.settings.half_lives_hours, 6.0)
    active = np.flatnonzero(store.cell_rates(content, location, at_us)[:, steady] >= ACTIVE_PER_HOUR)
    rows = np.sort(rng.permutation(active)[:series])
    return content[rows], location[rows]


def _hourly(log: RequestLog, store: CounterStore, cells: tuple[Int32, Int32], *, at_us: int) -> Float64:
    """Counts of the hours before the origin, oldest first, (n, n_hours); not from before the log."""
    hours = min(WEEK_HOURS, int((at_us - log.ts_us[0]) // HOUR_US))
    columns = [
        count_outcome(log, store, cells, (at_us - back * HOUR_US, at_us - (back - 1) * HOUR_US)).counts
        for back in range(hours, 0, -1)
    ]
    return np.column_stack(columns)


def _forecast(make: Any, history: Float64, steps: int) -> Float64:
    """Steps ahead of each series, never below zero, (n, steps); a series without requests is forecast as none.

    A series begins with the first request of its cell, two days before the origin at the latest.
    """
    answer = np.zeros((len(history), steps))
    for row, series in enumerate(history):
        if series.any():
            first = max(min(int(np.flatnonzero(series)[0]), len(series) - LEAST_HOURS), 0)
            answer[row] = np.maximum(_steps(make(), series[first:], steps), 0.0)
    return answer


def _steps(method: Any, series: Float64, steps: int) -> Float64:
    ahead: Float64 = np.nan_to_num(np.asarray(method.forecast(series, steps)["mean"], dtype=np.float64))
    return ahead
