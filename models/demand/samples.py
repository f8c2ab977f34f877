"""Rolling origins: what was known at each instant and what was then requested, in one pass over the log.

At each origin the counters hold exactly the requests before it; the cells are observed, some are drawn, and the
requests of the window that follows are counted. A row drawn with probability p weighs 1 / p, so that sums over the
drawn rows estimate sums over all cells.

Missing is not zero: nobody looks forward from within a gap of the log, and a window that touches one has no outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.counters import CounterStore
from models.demand.cells import CellState, demand_cells, observe
from models.demand.features import base_features
from models.demand.prior import prior_columns
from models.demand.settings import DemandSettings
from models.events import DAY_US, HOUR_US, Float64, Int32, Int64, RequestLog
from models.observation import is_observed

Float32 = npt.NDArray[np.float32]
Window = tuple[int, int]
ReferenceMeans = Callable[[CellState, int], Float64]


@dataclass(frozen=True)
class Outcome:
    """Requests of one window.

    Attributes:
        counts: requests of each cell. (n,)
        outside: requests at each location for contents without a cell there. (n_locations,)
        unknown: requests from locations that were not known at the origin.
    """

    counts: Float64
    outside: Float64
    unknown: int


@dataclass(frozen=True)
class DemandSamples:
    """Rows (origin, cell) with inputs and outcomes; the first axis of the by-horizon arrays is the horizon.

    Attributes:
        base: inputs that hold for every horizon. (n, n_features)
        growth: log of the location's seasonal growth. (n_horizons, n)
        columns: terms of the prior. (n_horizons, n, n_terms)
        counts: requests that came, NaN where the window reaches past the end or touches a gap. (n_horizons, n)
        references: means of untrained methods, as given to `collect_samples`. (n_horizons, n, n_references)
        weights: inverse probability that the row was drawn. (n,)
        outside, total: requests outside the cells and expected totals, summed over origins. (n_horizons, n_locations)
        locations: location ids of these columns.
        days: length of the window the origins cover.
        half_lives_hours: of the counters.
    """

    base: Float32
    growth: Float32
    columns: Float32
    counts: Float32
    references: Float32
    weights: Float32
    outside: Float64
    total: Float64
    locations: npt.NDArray[np.object_]
    days: float
    half_lives_hours: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.weights)


def origins_of(window: Window, *, every_hours: int, warm_up_hours: int = 0, gaps: Sequence[Window] = ()) -> list[int]:
    """Instants in [start + warm-up, end) on whole hours, so that clock-hour counts are complete, and in no gap."""
    first = -(-(window[0] + warm_up_hours * HOUR_US) // HOUR_US) * HOUR_US
    return [at for at in range(first, window[1], every_hours * HOUR_US) if is_observed(gaps, at, at + 1)]


def advance(store: CounterStore, log: RequestLog, origins: Sequence[int]) -> Iterator[int]:
    """Yields each origin once the counters hold every request before it and the gaps noticed by then, and none after."""
    for origin in origins:
        first = int(np.searchsorted(log.ts_us, store.time_us, side="right"))
        start_us = int(log.ts_us[first]) if first < len(log) else origin
        store.update(log.between(min(start_us, origin), origin))
        yield origin


def code_map(known: npt.NDArray[np.object_], ids: npt.NDArray[np.object_]) -> Int64:
    """Code in `known` of each of `ids`, -1 for the ones not known, shape (len(ids),)."""
    shared = min(len(known), len(ids))
    if shared == 0 or bool((known[:shared] == ids[:shared]).all()):
        return np.where(np.arange(len(ids)) < len(known), np.arange(len(ids)), -1).astype(np.int64)
    position = {name: code for code, name in enumerate(known)}
    return np.array([position.get(name, -1) for name in ids], dtype=np.int64)


def count_outcome(log: RequestLog, store: CounterStore, cells: tuple[Int32, Int32], window: Window) -> Outcome:
    """Counts the requests of a window into sorted cells of the store; the rest falls outside."""
    requests = log.between(*window)
    content = code_map(store.contents, requests.contents)[requests.content]
    location = code_map(store.locations, requests.locations)[requests.location]
    n_locations = len(store.locations)
    key = content * max(n_locations, 1) + location
    cell_key = cells[0].astype(np.int64) * max(n_locations, 1) + cells[1]
    position = np.minimum(np.searchsorted(cell_key, key), max(len(cell_key) - 1, 0))
    known = location >= 0
    inside = known & (content >= 0)
    inside[inside] = cell_key[position[inside]] == key[inside] if len(cell_key) else False
    return Outcome(
        counts=np.bincount(position[inside], minlength=len(cell_key)).astype(np.float64),
        outside=np.bincount(location[known & ~inside], minlength=n_locations).astype(np.float64),
        unknown=int((~known).sum()),
    )


def collect_samples(
    log: RequestLog,
    store: CounterStore,
    window: Window,
    settings: DemandSettings,
    *,
    seed: int,
    warm_up_hours: int = 0,
    references: Sequence[ReferenceMeans] = (),
) -> DemandSamples:
    """Draws rows at every origin of the window; windows that reach past its end or touch a gap are not counted.

    Args:
        log: requests; the store is fed from it and stands at the window's last origin afterwards.
        store: counters that hold nothing later than the window's start.
        window: [start, end) of origins and outcomes.
        settings: cells, horizons and how many rows to draw.
        seed: of the draw.
        warm_up_hours: hours after the start that only fill the counters.
        references: untrained methods whose means are wanted beside.

    Raises:
        ValueError: no origin fits into the window with its shortest horizon.
    """
    rng = np.random.default_rng(seed)
    origins = origins_of(window, every_hours=settings.origin_every_hours, warm_up_hours=warm_up_hours, gaps=log.gaps)
    origins = [at for at in origins if at + settings.horizons_hours[0] * HOUR_US <= window[1]]
    collector = _Collector(settings, references)
    for at_us in advance(store, log, origins):
        collector.add(log, store, at_us=at_us, end_us=window[1], rng=rng)
    if not collector.rows:
        raise ValueError(
            f"No origin fits: the window of {(window[1] - window[0]) / HOUR_US:g} h must hold {warm_up_hours} h of "
            f"warm-up, the shortest horizon of {settings.horizons_hours[0]} h, and at least one request before."
        )
    return collector.samples(store, days=(window[1] - window[0]) / DAY_US - warm_up_hours / 24.0)


class _Collector:
    """Rows of the origins so far, and sums by location."""

    def __init__(self, settings: DemandSettings, references: Sequence[ReferenceMeans]) -> None:
        self.settings = settings
        self.references = references
        self.rows: list[dict[str, Float32]] = []
        self.outside: dict[str, Float64] = {}
        self.total: dict[str, Float64] = {}

    def add(self, log: RequestLog, store: CounterStore, *, at_us: int, end_us: int, rng: np.random.Generator) -> None:
        cells = demand_cells(store, at_us=at_us, settings=self.settings)
        if not len(cells[0]):
            return
        drawn, weights = _draw(store, cells, at_us=at_us, limit=self.settings.max_cells_per_origin, rng=rng)
        state = observe(store, at_us=at_us, settings=self.settings, cells=(cells[0][drawn], cells[1][drawn]))
        counts = []
        outside = np.zeros((len(self.settings.horizons_hours), len(store.locations)))
        total = np.zeros_like(outside)
        for index, hours in enumerate(self.settings.horizons_hours):
            until_us = at_us + hours * HOUR_US
            if until_us > end_us or not is_observed(log.gaps, at_us, until_us):
                counts.append(np.full(len(drawn), np.nan))
                continue
            outcome = count_outcome(log, store, cells, (at_us, until_us))
            counts.append(outcome.counts[drawn])
            outside[index] = outcome.outside
            total[index] = state.places.expected_total(hours)
        for code, name in enumerate(store.locations):
            self.outside[name] = self.outside.get(name, 0.0) + outside[:, code]
            self.total[name] = self.total.get(name, 0.0) + total[:, code]
        self.rows.append(self._row(state, np.stack(counts), weights))

    def _row(self, state: CellState, counts: Float64, weights: Float64) -> dict[str, Float32]:
        horizons = self.settings.horizons_hours
        growth = [np.log(state.places.seasonal_growth(hours))[state.location] for hours in horizons]
        references = [[mean(state, hours) for mean in self.references] for hours in horizons]
        arrays = {
            "base": base_features(state),
            "growth": np.stack(growth),
            "columns": np.stack([prior_columns(state, hours) for hours in horizons]),
            "counts": counts,
            "references": np.array(references).reshape(len(horizons), -1, len(state)).transpose(0, 2, 1),
            "weights": weights,
        }
        return {name: values.astype(np.float32) for name, values in arrays.items()}

    def samples(self, store: CounterStore, *, days: float) -> DemandSamples:
        def joined(name: str, axis: int) -> Float32:
            return np.concatenate([row[name] for row in self.rows], axis=axis)

        names = np.array(list(self.outside), dtype=object)
        return DemandSamples(
            base=joined("base", 0),
            growth=joined("growth", 1),
            columns=joined("columns", 1),
            counts=joined("counts", 1),
            references=joined("references", 1),
            weights=joined("weights", 0),
            outside=np.stack([self.outside[name] for name in names], axis=1),
            total=np.stack([self.total[name] for name in names], axis=1),
            locations=names,
            days=days,
            half_lives_hours=store.settings.half_lives_hours,
        )


def _draw(
    store: CounterStore, cells: tuple[Int32, Int32], *, at_us: int, limit: int, rng: np.random.Generator
) -> tuple[Int64, Float64]:
    """Rows drawn with probability proportional to the root of a rough rate, and the inverse probabilities."""
    n = len(cells[0])
    if n <= limit:
        return np.arange(n), np.ones(n)
    rates = store.cell_rates(*cells, at_us)
    wanted = np.sqrt(rates.max(axis=1) + 0.02)
    probability = np.minimum(wanted * limit / wanted.sum(), 1.0)
    drawn = np.flatnonzero(rng.random(n) < probability)
    return drawn, 1.0 / probability[drawn]
