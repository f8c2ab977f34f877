"""Rolling-origin evaluation: at each instant every method forecasts from the same counters, then the future is read.

The counters pass over the log once. At an origin they hold the requests before it and nothing else; forecasts are
values by the time the window's requests are counted, so no method can see what it is scored on.

Scores are kept as sums by (horizon, method, stratum, origin): pooled they give the metrics, and their spread over
origins gives the intervals of paired differences (whole origins are resampled).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.calibration import block_bootstrap_interval
from models.counters import CounterStore
from models.demand.cells import CellState, nearest_half_life, observe
from models.demand.forecaster import CellForecaster
from models.demand.prior import MEAN_FLOOR
from models.demand.samples import Outcome, advance, count_outcome, origins_of
from models.demand.scores import CellLosses, ScoreSums, location_sums, ratio_parts
from models.events import HOUR_US, Bool, Float64, Int64, RequestLog, window_name
from models.forecast import DemandForecast
from models.metrics import METRICS

NEW_CONTENT_HOURS = 3.0
HEAD_SHARE, TORSO_SHARE = 0.5, 0.9
CELL_STRATA = ("all", "head", "torso", "tail", "new content", "new cell")


@dataclass(frozen=True)
class OriginScore:
    """Sums of one method on one stratum of one origin."""

    origin_us: int
    horizon_hours: int
    model: str
    stratum: str
    sums: ScoreSums


def evaluate(
    methods: Sequence[CellForecaster],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    horizons_hours: Sequence[int],
    every_hours: int = 1,
    store: CounterStore | None = None,
) -> list[dict[str, Any]]:
    """One row a (horizon, model, stratum) with every metric over the window; see `score_origins`."""
    scores = score_origins(
        methods,
        log,
        start_us=start_us,
        end_us=end_us,
        horizons_hours=horizons_hours,
        every_hours=every_hours,
        store=store,
    )
    return metric_rows(scores, start_us=start_us, end_us=end_us)


def score_origins(
    methods: Sequence[CellForecaster],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    horizons_hours: Sequence[int],
    every_hours: int = 1,
    store: CounterStore | None = None,
) -> list[OriginScore]:
    """Forecasts and scores at every origin of [start, end) whose window ends within it.

    Args:
        methods: forecasters; names must differ.
        log: requests up to the end of the window.
        start_us: start of the test window.
        end_us: its end, past which nothing is read.
        horizons_hours: horizons to score, all known to every method.
        every_hours: distance of the origins.
        store: counters to go on with, holding nothing later than the first origin; a new store by default.

    Raises:
        ValueError: two methods share a name, or no origin fits.
    """
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"Expected methods with different names, got {names!r}.")
    counters = CounterStore() if store is None else store
    origins = origins_of((start_us, end_us), every_hours=every_hours)
    scores = [
        score
        for at_us in advance(counters, log, origins)
        for hours in horizons_hours
        if at_us + hours * HOUR_US <= end_us
        for score in _score_origin(methods, log, counters, at_us=at_us, horizon_hours=hours)
    ]
    if not scores:
        raise ValueError(
            f"No origin fits: {(end_us - start_us) / HOUR_US:g} h of test window for horizons of "
            f"{tuple(horizons_hours)} h, with {len(methods)} methods."
        )
    return scores


def metric_rows(scores: Sequence[OriginScore], *, start_us: int, end_us: int) -> list[dict[str, Any]]:
    """Pools the origins: one row a (horizon, model, stratum); a metric that is not defined there is None."""
    pooled: dict[tuple[int, str, str], ScoreSums] = {}
    for score in scores:
        key = (score.horizon_hours, score.model, score.stratum)
        pooled[key] = pooled.get(key, ScoreSums()) + score.sums
    window = window_name(start_us, end_us)
    return [
        {"window": window, "horizon_hours": hours, "model": model, "stratum": stratum, "n": int(sums.n)}
        | {name: value if np.isfinite(value) else None for name, value in sums.metrics().items()}
        for (hours, model, stratum), sums in pooled.items()
    ]


def difference_rows(
    scores: Sequence[OriginScore],
    *,
    reference: str,
    metrics: Sequence[str] = ("nll", "wape", "scaled_pinball", "top20_captured"),
    seed: int = 0,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Gain of every model over the reference (positive is better), with an interval over whole origins.

    Each metric is a ratio of sums; its gain is averaged over origins weighted by the denominator, so the mean is the
    difference of the pooled metrics. (RMSE is not such a ratio and has no row here.)

    Raises:
        ValueError: the reference was not scored.
    """
    by_key: dict[tuple[int, str], dict[str, dict[int, ScoreSums]]] = {}
    for score in scores:
        cell = by_key.setdefault((score.horizon_hours, score.stratum), {})
        cell.setdefault(score.model, {})[score.origin_us] = score.sums
    if not any(reference in models for models in by_key.values()):
        raise ValueError(f"Reference {reference!r} was not scored; scored: {sorted({s.model for s in scores})!r}.")
    return [
        {"horizon_hours": hours, "stratum": stratum, "model": model, "reference": reference, "metric": metric}
        | _gain(by_origin, models[reference], metric, seed=seed, level=level)
        for (hours, stratum), models in by_key.items()
        for model, by_origin in models.items()
        if model != reference
        for metric in metrics
        if _is_defined(models[reference], metric)
    ]


def _is_defined(by_origin: Mapping[int, ScoreSums], metric: str) -> bool:
    """Whether a stratum has this metric: totals by location have no law and no ranking."""
    return all(np.isfinite(ratio_parts(sums, metric)).all() for sums in by_origin.values())


def _gain(
    candidate: Mapping[int, ScoreSums], reference: Mapping[int, ScoreSums], metric: str, *, seed: int, level: float
) -> dict[str, Any]:
    origins = sorted(set(candidate) & set(reference))
    denominators = np.array([ratio_parts(reference[at], metric)[1] for at in origins])
    numerators = np.array(
        [ratio_parts(reference[at], metric)[0] - ratio_parts(candidate[at], metric)[0] for at in origins]
    )
    if METRICS[metric].higher_is_better:
        numerators = -numerators
    # Not every score is defined in every stratum: totals by location have no law, so no likelihood.
    if not denominators.sum() > 0.0 or not np.isfinite(numerators).all():
        return {"gain": float("nan"), "low": float("nan"), "high": float("nan"), "origins": len(origins)}
    values = numerators / denominators.mean()
    low, high = block_bootstrap_interval(values, np.arange(len(values), dtype=np.int64), seed=seed, level=level)
    return {"gain": float(values.mean()), "low": low, "high": high, "origins": len(origins)}


def _score_origin(
    methods: Sequence[CellForecaster], log: RequestLog, store: CounterStore, *, at_us: int, horizon_hours: int
) -> Iterator[OriginScore]:
    states: dict[Any, CellState] = {}
    forecasts: dict[str, DemandForecast] = {}
    for method in methods:
        if method.settings not in states:
            states[method.settings] = observe(store, at_us=at_us, settings=method.settings)
        forecasts[method.name] = method.forecast_state(states[method.settings], store, horizon_hours=horizon_hours)
    cells = _all_cells(list(forecasts.values()))
    window = (at_us, at_us + horizon_hours * HOUR_US)
    outcome = count_outcome(log, store, cells, window)
    strata = _strata(store, cells, at_us=at_us)
    for name, forecast in forecasts.items():
        for stratum, sums in _method_sums(forecast, cells, outcome, strata).items():
            yield OriginScore(at_us, horizon_hours, name, stratum, sums)


def _all_cells(forecasts: Sequence[DemandForecast]) -> tuple[Any, Any]:
    """Cells that any method forecasts: what one leaves to its remainder another may name."""
    first = forecasts[0]
    if all(f.content is first.content and f.location is first.location for f in forecasts):
        return first.content, first.location
    keys = np.unique(np.concatenate([_keys(f.content, f.location) for f in forecasts]))
    return (keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32)


def _keys(content: Any, location: Any) -> Int64:
    key: Int64 = (content.astype(np.int64) << 32) | location.astype(np.int64)
    return key


def _aligned(forecast: DemandForecast, cells: tuple[Any, Any]) -> tuple[Float64, Float64]:
    if len(forecast) == len(cells[0]):
        return forecast.mean, forecast.dispersion
    mean, dispersion = np.full(len(cells[0]), MEAN_FLOOR), np.ones(len(cells[0]))
    rows = np.searchsorted(_keys(*cells), _keys(forecast.content, forecast.location))
    mean[rows], dispersion[rows] = forecast.mean, forecast.dispersion
    return mean, dispersion


def _strata(store: CounterStore, cells: tuple[Any, Any], *, at_us: int) -> dict[str, Bool]:
    """Which cells belong to each stratum, from what was known at the origin."""
    names, row = np.unique(cells[0], return_inverse=True)
    slow = nearest_half_life(store.settings.half_lives_hours, 24.0)
    rate = store.content_rates(names, at_us)[:, slow]
    order = np.argsort(-rate, kind="stable")
    # A content belongs to the head when the contents before it hold less than half of the demand.
    before = np.zeros(len(names))
    before[order] = np.cumsum(rate[order]) - rate[order]
    before /= max(float(rate.sum()), 1e-12)
    age_hours = (at_us - store.first_seen_us(names).astype(np.float64)) / HOUR_US
    return {
        "all": np.ones(len(row), dtype=bool),
        "head": (before < HEAD_SHARE)[row],
        "torso": ((before >= HEAD_SHARE) & (before < TORSO_SHARE))[row],
        "tail": (before >= TORSO_SHARE)[row],
        "new content": (age_hours < NEW_CONTENT_HOURS)[row],
        "new cell": store.cell_first_seen_us(*cells) > at_us,
    }


def _method_sums(
    forecast: DemandForecast, cells: tuple[Any, Any], outcome: Outcome, strata: Mapping[str, Bool]
) -> dict[str, ScoreSums]:
    mean, dispersion = _aligned(forecast, cells)
    losses = CellLosses.of(outcome.counts, mean, dispersion)
    sums = {name: losses.sums(rows, cells[1]) for name, rows in strata.items()}
    sums["other"] = location_sums(outcome.outside, forecast.other_mean)
    totals = np.bincount(cells[1], weights=outcome.counts, minlength=len(forecast.locations)) + outcome.outside
    sums["location total"] = location_sums(totals, forecast.total_by_location())
    return sums
