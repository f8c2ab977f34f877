"""Rolling-origin evaluation: at each instant every method forecasts from the same counters, then the future is read.

The counters pass over the log once. At an origin they hold the requests before it and nothing else; forecasts are
values by the time the window's requests are counted, so no method can see what it is scored on. Windows in which the
log was not observed throughout are left out: missing is not zero.

Scores are kept as sums by (horizon, method, stratum, origin): pooled they give the metrics, and resampled over whole
origins the intervals of paired differences (`models/demand/comparison.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from models.counters import CounterStore
from models.demand.cells import CellState, observe
from models.demand.forecaster import CellForecaster
from models.demand.prior import MEAN_FLOOR
from models.demand.samples import Outcome, advance, count_outcome, origins_of
from models.demand.scores import PIT_EDGES, Scored, ScoreSums, location_sums
from models.demand.strata import cell_strata, hours_stratum
from models.events import HOUR_US, Float64, Int64, RequestLog, window_name
from models.forecast import DemandForecast
from models.observation import is_observed

Every = int | Mapping[int, int]
PART_STRATA = ("all", "busy", "new content", "location total")
"""Strata that are also reported for each part of the window."""


@dataclass(frozen=True)
class OriginScore:
    """Sums of one method on one stratum of one origin."""

    origin_us: int
    horizon_hours: int
    model: str
    stratum: str
    sums: ScoreSums


class Follower(Protocol):
    """Looks at the counters as the pass over the log goes by."""

    @property
    def origins(self) -> Sequence[int]:
        """Instants at which it looks, in the test window."""

    def look(self, store: CounterStore, *, at_us: int) -> None:
        """The counters hold the requests before `at_us`, and none after; they are not to be changed."""


def evaluate(
    methods: Sequence[CellForecaster],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    horizons_hours: Sequence[int],
    every_hours: Every = 1,
) -> list[dict[str, Any]]:
    """One row a (horizon, model, stratum) with every metric over the window; see `score_origins`."""
    scores = score_origins(
        methods, log, start_us=start_us, end_us=end_us, horizons_hours=horizons_hours, every_hours=every_hours
    )
    return metric_rows(scores, start_us=start_us, end_us=end_us)


def score_origins(
    methods: Sequence[CellForecaster],
    log: RequestLog,
    *,
    start_us: int,
    end_us: int,
    horizons_hours: Sequence[int],
    every_hours: Every = 1,
    read_until_us: int | None = None,
    by_location: bool = False,
    store: CounterStore | None = None,
    follower: Follower | None = None,
) -> list[OriginScore]:
    """Forecasts and scores at every origin of [start, end) whose window is known.

    Args:
        methods: forecasters; names must differ.
        log: requests up to the end of the window.
        start_us: start of the test window.
        end_us: its end: no origin from here on.
        horizons_hours: horizons to score, all known to every method.
        every_hours: distance of the origins, for all horizons or by horizon.
        read_until_us: windows may reach so far, `end_us` by default; nothing later is read.
        by_location: also one stratum for each location.
        store: counters to go on with, holding nothing later than the first origin; a new store by default.
        follower: looks at the counters at instants of its own, which are not scored for it.

    Raises:
        ValueError: two methods share a name, or no origin fits.
    """
    names = [method.name for method in methods]
    if len(set(names)) != len(names):
        raise ValueError(f"Expected methods with different names, got {names!r}.")
    counters = CounterStore() if store is None else store
    until_us = end_us if read_until_us is None else read_until_us
    every = {hours: _every(every_hours, hours) for hours in horizons_hours}
    origins = origins_of((start_us, end_us), every_hours=int(np.gcd.reduce(list(every.values()))))
    looked_at = set(follower.origins if follower is not None else ())
    scores: list[OriginScore] = []
    for at_us in advance(counters, log, sorted({*origins, *looked_at})):
        if follower is not None and at_us in looked_at:
            follower.look(counters, at_us=at_us)
        due = [
            hours
            for hours in horizons_hours
            if (at_us - origins[0]) % (every[hours] * HOUR_US) == 0
            and _is_observed(log, at_us, at_us + hours * HOUR_US, until_us=until_us)
        ]
        scores += _score_origin(methods, log, counters, at_us=at_us, horizons_hours=due, by_location=by_location)
    if not scores:
        raise ValueError(
            f"No origin fits: {(until_us - start_us) / HOUR_US:g} h of test window for horizons of "
            f"{tuple(horizons_hours)} h, with {len(methods)} methods."
        )
    return scores


def _every(every_hours: Every, horizon_hours: int) -> int:
    return every_hours if isinstance(every_hours, int) else every_hours[horizon_hours]


def _is_observed(log: RequestLog, start_us: int, end_us: int, *, until_us: int) -> bool:
    """Whether the log knows all of the window."""
    return end_us <= until_us and is_observed(log.gaps, start_us, end_us)


def metric_rows(
    scores: Sequence[OriginScore], *, start_us: int, end_us: int, part_hours: float | None = None
) -> list[dict[str, Any]]:
    """Pools the origins: one row a (horizon, model, stratum); a metric that is not defined there is None.

    Args:
        scores: of origins in [start, end).
        start_us: start of the window, whose rows come first.
        end_us: its end.
        part_hours: also rows for each part of this length, for the strata of `PART_STRATA`.
    """
    rows = _pooled_rows(scores, window_name(start_us, end_us))
    if part_hours is None or part_hours * HOUR_US >= end_us - start_us:
        return rows
    length_us = round(part_hours * HOUR_US)
    for first_us in range(start_us, end_us, length_us):
        last_us = min(first_us + length_us, end_us)
        part = [s for s in scores if first_us <= s.origin_us < last_us and s.stratum in PART_STRATA]
        rows += _pooled_rows(part, window_name(first_us, last_us))
    return rows


def _pooled_rows(scores: Sequence[OriginScore], window: str) -> list[dict[str, Any]]:
    return [
        {"window": window, "horizon_hours": hours, "model": model, "stratum": stratum, "n": int(sums["n"])}
        | {name: value if np.isfinite(value) else None for name, value in sums.metrics().items()}
        for (hours, model, stratum), sums in pooled(scores).items()
    ]


def pooled(scores: Sequence[OriginScore]) -> dict[tuple[int, str, str], ScoreSums]:
    """Sums over all origins by (horizon, model, stratum)."""
    totals: dict[tuple[int, str, str], ScoreSums] = {}
    for score in scores:
        key = (score.horizon_hours, score.model, score.stratum)
        totals[key] = totals[key] + score.sums if key in totals else score.sums
    return totals


def quantile_reliability(
    scores: Sequence[OriginScore], *, model: str, horizon_hours: int, stratum: str = "all"
) -> tuple[Float64, Float64]:
    """Probabilities of quantiles and the share of outcomes at or below each, both (20,); equal for honest quantiles.

    The share is the cumulative randomised probability integral transform, so that counts are judged fairly.
    """
    histogram = pooled(scores)[horizon_hours, model, stratum].pit
    return PIT_EDGES[1:], np.cumsum(histogram) / max(float(histogram.sum()), 1e-12)


def _score_origin(
    methods: Sequence[CellForecaster],
    log: RequestLog,
    store: CounterStore,
    *,
    at_us: int,
    horizons_hours: Sequence[int],
    by_location: bool,
) -> Iterator[OriginScore]:
    """Methods with the same settings share what is observed, over all horizons."""
    states: dict[Any, CellState] = {}
    for method in methods if horizons_hours else ():
        if method.settings not in states:
            states[method.settings] = observe(store, at_us=at_us, settings=method.settings)
    for hours in horizons_hours:
        forecasts = [method.forecast_state(states[method.settings], store, horizon_hours=hours) for method in methods]
        cells = _all_cells(forecasts)
        outcome = count_outcome(log, store, cells, (at_us, at_us + hours * HOUR_US))
        strata = cell_strata(store, cells, at_us=at_us, horizon_hours=hours, by_location=by_location)
        scored = Scored.of(outcome.counts, cells[1], strata)
        for method, forecast in zip(methods, forecasts, strict=True):
            prior = _prior_mean(method, states[method.settings], hours)
            sums = _method_sums(forecast, cells, outcome, scored, prior=prior)
            for stratum, values in (sums | {hours_stratum(at_us): sums["all"]}).items():
                yield OriginScore(at_us, hours, method.name, stratum, values)


def _prior_mean(method: CellForecaster, state: CellState, horizon_hours: int) -> Float64 | None:
    """What the method corrects, where it says so: the limit on means is a multiple of it."""
    prior_mean = getattr(method, "prior_mean", None)
    return None if prior_mean is None else prior_mean(state, horizon_hours)


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


def _aligned(forecast: DemandForecast, cells: tuple[Any, Any], *columns: tuple[Float64, float]) -> list[Float64]:
    """Columns (values by cell of the forecast, value elsewhere) as columns by cell."""
    if len(forecast) == len(cells[0]):
        return [values for values, _ in columns]
    rows = np.searchsorted(_keys(*cells), _keys(forecast.content, forecast.location))
    answer = [np.full(len(cells[0]), elsewhere) for _, elsewhere in columns]
    for column, (values, _) in zip(answer, columns, strict=True):
        column[rows] = values
    return answer


def _method_sums(
    forecast: DemandForecast, cells: tuple[Any, Any], outcome: Outcome, scored: Scored, *, prior: Float64 | None
) -> dict[str, ScoreSums]:
    columns = [(forecast.mean, MEAN_FLOOR), (forecast.dispersion, 1.0)]
    columns += [] if prior is None else [(prior, MEAN_FLOOR)]
    mean, dispersion, *given = _aligned(forecast, cells, *columns)
    sums = scored.sums(mean, dispersion, prior=given[0] if given else None)
    sums["other"] = location_sums(outcome.outside, forecast.other_mean)
    totals = np.bincount(cells[1], weights=outcome.counts, minlength=len(forecast.locations)) + outcome.outside
    sums["location total"] = location_sums(totals, forecast.total_by_location())
    return sums
