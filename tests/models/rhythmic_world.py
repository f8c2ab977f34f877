"""A small world with a daily rhythm, holes and booms planted in it, and a forecaster whose coefficients are given."""

from __future__ import annotations

import numpy as np

from models.counters import CounterStore
from models.demand.forecaster import CellForecaster
from models.demand.prior import AFFINITY, CONTENT, OWN, DemandPrior, prior_column_names
from models.demand.remainder import Remainder
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Float64, Int64, RequestLog

START_US = 480_000 * HOUR_US
SETTINGS = DemandSettings(
    horizons_hours=(1, 6), residual_caps=(3.0, 1.5), origin_every_hours=2, max_cells_per_origin=40
)
SHARES = np.outer(1.0 / np.arange(1, 21), np.array([1.0, 0.5, 0.25]))
"""Of 20 contents at 3 locations; the leading content has 28 % of the requests everywhere."""
LEADER, NEW = 0, 20
"""Contents that boom in some tests: the one that leads anyway, and one that nobody asked for before."""


def hours(count: float) -> int:
    """Instant that many hours after the start, which is a midnight."""
    return START_US + round(count * HOUR_US)


def requests(n_hours: int, *, seed: int, per_hour: float = 300.0) -> tuple[Int64, Int64, Int64]:
    """Instants, contents and locations; noon has three times the traffic of midnight."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, n_hours, rng.poisson(1.5 * per_hour * n_hours)))
    at = at[rng.random(len(at)) * 1.5 < 1 - 0.5 * np.cos(2 * np.pi * at / 24)]
    cell = rng.choice(SHARES.size, size=len(at), p=SHARES.ravel() / SHARES.sum())
    return START_US + np.round(at * HOUR_US).astype(np.int64), cell // 3, cell % 3


def log_of(ts_us: Int64, content: Int64, location: Int64) -> RequestLog:
    """Every request is a session of its own; equal instants keep their order."""
    return RequestLog.from_columns(
        ts_us,
        [f"s{i}" for i in range(len(ts_us))],
        [f"c{code:02d}" for code in content],
        [f"l{code}" for code in location],
    )


def without(rows: tuple[Int64, Int64, Int64], first_hour: float, last_hour: float) -> tuple[Int64, Int64, Int64]:
    """The same requests, none in [first, last) hours."""
    kept = (rows[0] < hours(first_hour)) | (rows[0] >= hours(last_hour))
    return rows[0][kept], rows[1][kept], rows[2][kept]


def with_boom(
    rows: tuple[Int64, Int64, Int64], *, content: int, locations: tuple[int, ...], first_hour: float, n: int
) -> tuple[Int64, Int64, Int64]:
    """The same requests and `n` more of one content in each of the locations, evenly over one hour."""
    ts_us = hours(first_hour) + np.arange(n, dtype=np.int64) * HOUR_US // n
    parts = [rows, *((ts_us, np.full(n, content), np.full(n, location)) for location in locations)]
    whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(whole[0], kind="stable")
    return whole[0][order], whole[1][order], whole[2][order]


def store_of(log: RequestLog, *, until_hour: float) -> CounterStore:
    """Counters that know what was known at that hour."""
    store = CounterStore()
    store.update(log.before(hours(until_hour)))
    return store


class GivenPrior(CellForecaster):
    """A prior that mixes its own, its content's and its local rates at every half-life in equal parts."""

    def __init__(self) -> None:
        remainder = Remainder(SETTINGS.horizons_hours, (0.01,) * 2, {})
        super().__init__("given prior", SETTINGS, remainder)
        half_lives = (0.5, 1.5, 6.0, 24.0)
        parts = [name.split(":")[0] for name in prior_column_names(half_lives)]
        mixed = np.array([part in (OWN, CONTENT, AFFINITY) for part in parts], dtype=np.float64)
        self.prior = DemandPrior(SETTINGS.horizons_hours, half_lives, np.tile(mixed / mixed.sum(), (2, 1)))

    def law(self, state: object, horizon_hours: int) -> tuple[Float64, Float64]:
        mean = self.prior.mean(state, horizon_hours)  # type: ignore[arg-type]
        return mean, np.ones(len(mean))


def means_by_cell(store: CounterStore, *, at_hour: float, horizon_hours: int = 1) -> dict[tuple[str, str], float]:
    """Forecast mean by content and location id."""
    forecast = GivenPrior().forecast(store, at_us=hours(at_hour), horizon_hours=horizon_hours)
    return {
        (str(forecast.contents[c]), str(forecast.locations[p])): float(mean)
        for c, p, mean in zip(forecast.content, forecast.location, forecast.mean, strict=True)
    }
