"""A demand model hour by hour over a test window: what it said of a few cells and of one place, and how its laws fit.

Chosen from what was requested in the window, so that a reader sees the model where it matters and where it is hard: the
busiest cell, the busiest cell of a content that is new in the window, the cell where half of the demand lies in busier
ones, and the total of the busiest location. Forecasts see nothing later than their origin.

An outcome y under its law F lies at u = F(y - 1) + v (F(y) - F(y - 1)) with v uniform on [0, 1): u is uniform if and only
if the law is right, although counts are discrete (Czado, Gneiting and Held 2009, "Predictive model assessment for count
data"). Cells that expect next to nothing are nearly always 0 and fit any law, so only busy ones are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from models.counters import CounterStore
from models.demand.cells import demand_cells, observe
from models.demand.forecaster import CellForecaster
from models.demand.samples import Window, code_map, count_outcome, origins_of
from models.events import HOUR_US, Bool, Float64, Int32, Int64, RequestLog
from models.forecast import DemandForecast
from models.observation import is_observed

BUSY_MEAN = 0.5
"""Expected requests from which a cell's law is looked at."""
INTERVAL = (0.1, 0.9)
_LAWS_EVERY_HOURS = 6
_CELLS_AN_ORIGIN = 3000


@dataclass(frozen=True)
class ChosenCell:
    """A cell to follow, and why: `busiest`, `new` or `middle`; codes of the log."""

    role: str
    content: int
    location: int


@dataclass(frozen=True)
class SeriesTrack:
    """Forecast and outcome of one cell, or of the total of one location, by bin. (n_bins,) each.

    Attributes:
        role: why it was chosen; `total` for a location.
        content: id; empty for a total.
        location: id.
        mean: NaN where the cell was not forecast, because nothing was known of it.
        low, high: ends of the 80 % interval; NaN with the mean, and for a total, whose law is not known.
        actual: requests that came; NaN where they were not observed.
    """

    role: str
    content: str
    location: str
    mean: Float64
    low: Float64
    high: Float64
    actual: Float64


@dataclass(frozen=True)
class DemandTrack:
    """What one pass over a test window shows of a model.

    Attributes:
        start_us: start of the first bin.
        step_hours: length of the bins: the model's shortest horizon.
        cells: the chosen cells; fewer where the window has no such cell.
        total: of the busiest location.
        positions: u of busy cells, by horizon in hours. horizon -> (n,)
    """

    start_us: int
    step_hours: int
    cells: tuple[SeriesTrack, ...]
    total: SeriesTrack
    positions: Mapping[int, Float64] = field(default_factory=dict)


def choose_cells(log: RequestLog, window: Window) -> tuple[ChosenCell, ...]:
    """The cells to follow, each once; a content is new when it appeared in the window, six hours before its end."""
    requests = log.between(*window)
    if not len(requests):
        return ()
    n_locations = len(log.locations)
    keys, counts = np.unique(requests.content.astype(np.int64) * n_locations + requests.location, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    held = np.cumsum(counts[order])
    chosen = {"busiest": order[0]}
    appeared_us = _appeared_us(log)[keys // n_locations]
    new = (appeared_us >= window[0]) & (appeared_us <= window[1] - 6 * HOUR_US)
    new[order[0]] = False  # it is shown already
    if new.any():
        chosen["new"] = order[new[order]][0]
    chosen["middle"] = order[np.searchsorted(held, held[-1] / 2)]
    return tuple(
        ChosenCell(role, int(keys[i] // n_locations), int(keys[i] % n_locations)) for role, i in chosen.items()
    )


def _appeared_us(log: RequestLog) -> Int64:
    if log.appeared_us is not None:
        return log.appeared_us
    first = np.full(len(log.contents), np.iinfo(np.int64).max)
    contents, row = np.unique(log.content, return_index=True)
    first[contents] = log.ts_us[row]
    return first


class DemandFollower:
    """Follows a model over a window with its shortest horizon; every six hours, looks at the laws of all horizons.

    It feeds no counters: it looks at those of a pass over the log, `score_origins` for one, at each of its `origins`.

    Args:
        model: forecaster.
        log: requests up to the end of the window at least.
        window: [start, end); nothing later is read.
        seed: of the cells that are looked at where there are many, and of v.

    Raises:
        ValueError: no bin fits, or nothing was requested in the window.
    """

    def __init__(self, model: CellForecaster, log: RequestLog, *, window: Window, seed: int = 0) -> None:
        self._model, self._step = model, model.settings.horizons_hours[0]
        self.origins = [
            at for at in origins_of(window, every_hours=self._step) if at + self._step * HOUR_US <= window[1]
        ]
        chosen = choose_cells(log, window)
        if not self.origins or not chosen:
            raise ValueError(
                f"Expected a window with requests and of at least {self._step!r} h to follow a model, got {window!r}."
            )
        place = int(np.bincount(log.between(*window).location, minlength=len(log.locations)).argmax())
        self._series = _Series(log, chosen, place, self._step)
        self._laws = _Laws(model, log, until_us=window[1], rng=np.random.default_rng(seed))

    def look(self, store: CounterStore, *, at_us: int) -> None:
        """Forecasts from counters that hold the requests before one of the origins, and none after."""
        settings = self._model.settings
        cells = demand_cells(store, at_us=at_us, settings=settings)
        wanted = self._series.rows(cells[0], cells[1], store)
        state = observe(store, at_us=at_us, settings=settings, cells=(cells[0][wanted], cells[1][wanted]))
        self._series.add(self._model.forecast_state(state, store, horizon_hours=self._step), store)
        if (at_us - self.origins[0]) // HOUR_US % _LAWS_EVERY_HOURS < self._step:
            self._laws.add(store, cells, at_us=at_us)

    def track(self) -> DemandTrack:
        """What was seen, once every origin was looked at."""
        series = self._series
        return DemandTrack(self.origins[0], self._step, series.cells(), series.total(), self._laws.positions())


class _Series:
    """Forecasts and outcomes of the chosen cells and of one location; codes are those of the log."""

    def __init__(self, log: RequestLog, chosen: tuple[ChosenCell, ...], place: int, step_hours: int) -> None:
        self.log, self.chosen, self.place, self.step_hours = log, chosen, place, step_hours
        self.said: list[Float64] = []  # (n_chosen, [mean, low, high]) a bin
        self.came: list[Float64] = []  # (n_chosen + 1,) a bin, the total last
        self.totals: list[float] = []

    def rows(self, content: Int32, location: Int32, store: CounterStore) -> Bool:
        """Cells of the location, and the chosen ones."""
        wanted = location == self._place(store)
        for codes in self._codes(store):
            wanted |= (content == codes[0]) & (location == codes[1])
        return np.asarray(wanted)

    def add(self, forecast: DemandForecast, store: CounterStore) -> None:
        low, high = forecast.quantiles(INTERVAL)
        said = np.full((len(self.chosen), 3), np.nan)
        for row, (content, location) in enumerate(self._codes(store)):
            found = np.flatnonzero((forecast.content == content) & (forecast.location == location))
            if len(found):
                said[row] = forecast.mean[found[0]], low[found[0]], high[found[0]]
        self.said.append(said)
        place = self._place(store)
        self.totals.append(float(forecast.total_by_location()[place]) if place >= 0 else 0.0)
        self.came.append(self._outcomes(forecast.origin_us))

    def cells(self) -> tuple[SeriesTrack, ...]:
        said, came = np.stack(self.said), np.stack(self.came)  # (bin, cell, 3), (bin, cell + 1)
        names = self.log.contents, self.log.locations
        return tuple(
            SeriesTrack(
                c.role,
                str(names[0][c.content]),
                str(names[1][c.location]),
                said[:, i, 0],
                said[:, i, 1],
                said[:, i, 2],
                came[:, i],
            )
            for i, c in enumerate(self.chosen)
        )

    def total(self) -> SeriesTrack:
        unknown = np.full(len(self.totals), np.nan)
        came = np.stack(self.came)[:, -1]
        place = str(self.log.locations[self.place])
        return SeriesTrack("total", "", place, np.array(self.totals), unknown, unknown, came)

    def _outcomes(self, at_us: int) -> Float64:
        until_us = at_us + self.step_hours * HOUR_US
        if not is_observed(self.log.gaps, at_us, until_us):
            return np.full(len(self.chosen) + 1, np.nan)
        came = self.log.between(at_us, until_us)
        cells = [float(((came.content == c.content) & (came.location == c.location)).sum()) for c in self.chosen]
        return np.array([*cells, float((came.location == self.place).sum())])

    def _place(self, store: CounterStore) -> int:
        return int(code_map(store.locations, self.log.locations)[self.place])

    def _codes(self, store: CounterStore) -> list[tuple[int, int]]:
        """Codes of the chosen cells in the store, -1 while it does not know them."""
        content = code_map(store.contents, self.log.contents)
        location = code_map(store.locations, self.log.locations)
        return [(int(content[c.content]), int(location[c.location])) for c in self.chosen]


class _Laws:
    """Where outcomes lie in the laws of busy cells, by horizon."""

    def __init__(self, model: CellForecaster, log: RequestLog, *, until_us: int, rng: np.random.Generator) -> None:
        self.model, self.log, self.until_us, self.rng = model, log, until_us, rng
        self.found: dict[int, list[Float64]] = {hours: [] for hours in model.settings.horizons_hours}

    def add(self, store: CounterStore, cells: tuple[Int32, Int32], *, at_us: int) -> None:
        fastest = store.cell_rates(*cells, at_us).max(axis=1)
        for hours in self.found:
            until_us = at_us + hours * HOUR_US
            if until_us > self.until_us or not is_observed(self.log.gaps, at_us, until_us):
                continue
            # A cell that is busy by its forecast alone is rare; looking at all cells would take most of the time.
            maybe = np.flatnonzero(fastest * hours >= BUSY_MEAN / 2)
            if len(maybe) > _CELLS_AN_ORIGIN:
                maybe = np.sort(self.rng.choice(maybe, _CELLS_AN_ORIGIN, replace=False))
            some = (cells[0][maybe], cells[1][maybe])
            state = observe(store, at_us=at_us, settings=self.model.settings, cells=some)
            forecast = self.model.forecast_state(state, store, horizon_hours=hours)
            outcome = count_outcome(self.log, store, some, (at_us, until_us))
            busy = forecast.mean >= BUSY_MEAN
            self.found[hours].append(
                positions(outcome.counts[busy], forecast.mean[busy], forecast.dispersion[busy], rng=self.rng)
            )

    def positions(self) -> dict[int, Float64]:
        return {hours: np.concatenate(parts) if parts else np.empty(0) for hours, parts in self.found.items()}


def positions(counts: Float64, mean: Float64, dispersion: Float64, *, rng: np.random.Generator) -> Float64:
    """Place u of each outcome under a negative binomial law, drawn within the jump of its count. (n,)"""
    shape = 1.0 / np.maximum(dispersion, 1e-6)
    chance = shape / (shape + mean)
    upper = stats.nbinom.cdf(counts, shape, chance)
    lower = np.where(counts > 0, stats.nbinom.cdf(counts - 1, shape, chance), 0.0)
    return np.asarray(lower + rng.random(len(counts)) * (upper - lower), dtype=np.float64)
