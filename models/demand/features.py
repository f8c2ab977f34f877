"""What is known about each cell (content, location) at an instant: the counters, read once for all horizons.

A **cell** is forecast when it was requested lately, or when its content is so popular elsewhere that requests are
expected there too. All other demand is the remainder of its location (`models/demand/remainder.py`).

Traffic moves with the hour. The expected factor from the rate now to the mean rate over [t, t + H) at location l is

    rho(l, H) = (F_l / H + k rho(H)) / (B_l + k)

with F_l the requests in the same future hours one day (and one week) ago, B_l the hourly requests around the same
instant then, rho(H) the same ratio over all locations, and k a pseudo-rate: quiet places follow the whole at night.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.counters import CounterStore
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Bool, Float64, Int32, Int64

RATE_FLOOR_PER_HOUR = 0.01
_HISTORY_HOURS = 169
_SEASONS_HOURS = (24, 168)
_LOG_TWO = float(np.log(2.0))

Reals = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LocationState:
    """Traffic by location at an instant.

    Attributes:
        rates: requests per hour by half-life. (n_locations, n_half_lives)
        share: share of all traffic. (n_locations,)
        counts: requests by hour, the last column the hour ending at the instant's clock hour. (n_locations, hours)
        settings: pseudo-rates and limits.
    """

    rates: Float64
    share: Float64
    counts: Float64
    settings: DemandSettings

    def seasonal_growth(self, horizon_hours: int) -> Float64:
        """Factor rho from the rate now to the mean rate over the horizon, shape (n_locations,)."""
        future, base = self._season(horizon_hours)
        overall = (future.sum() + 1.0) / (base.sum() + 1.0)
        k = self.settings.growth_pseudo_rate_per_hour
        return self._limited((future + k * overall) / (base + k))

    def growth(self, horizon_hours: int) -> Float64:
        """Factor from each decayed rate to the mean rate over the horizon, shape (n_locations, n_half_lives).

        A slow counter averages over hours that were quieter or busier; it is first brought to the level of the
        fastest one.
        """
        k = self.settings.growth_pseudo_rate_per_hour
        overall = (self.rates[:, :1].sum() + 1.0) / (self.rates.sum(axis=0) + 1.0)
        level = (self.rates[:, :1] + k * overall) / (self.rates + k)
        return self._limited(level * self.seasonal_growth(horizon_hours)[:, None])

    def expected_total(self, horizon_hours: int) -> Float64:
        """Requests at each location over the horizon, from the rate now and the season, shape (n_locations,)."""
        return self.rates[:, 0] * self.seasonal_growth(horizon_hours) * horizon_hours

    def _season(self, horizon_hours: int) -> tuple[Float64, Float64]:
        future, base = np.zeros(len(self.counts)), np.zeros(len(self.counts))
        length = self.counts.shape[1]
        # One hour alone is too noisy at night: short windows are widened to three hours around their middle.
        widened = 0 if horizon_hours >= 3 else 1
        for season in _SEASONS_HOURS:
            now = length - season
            if now < 1 or not self.counts[:, now - 1 : now + 1].sum(axis=0).all():
                continue
            window = self.counts[:, now - widened : min(now + horizon_hours + widened, length)]
            future += window.mean(axis=1)
            base += self.counts[:, max(now - 2, 0) : now + 1].mean(axis=1)
        return future, base

    def _limited(self, factor: Float64) -> Float64:
        return np.clip(factor, 1.0 / self.settings.growth_limit, self.settings.growth_limit)


@dataclass(frozen=True)
class CellState:
    """Everything the models read about cells at one instant.

    Attributes:
        at_us: the instant.
        content, location: codes of the store, sorted by (content, location). (n,)
        cell_rates, content_rates: requests per hour by half-life. (n, n_half_lives)
        affinity: share of the location in the content's requests, shrunk to its share of all traffic. (n,)
        flow: next requests expected here from the sessions under way. (n,)
        content_flow: the same over all locations. (n,)
        content_age_hours, cell_age_hours: time since the first request, limited; a cell never requested has the
            limit. (n,)
        last_hour: requests of the last full clock hour. (n,)
        yesterday: requests in the window's hours one day before, by horizon. (n, n_horizons)
        places: traffic by location.
        half_lives_hours: of the rates, from fast to slow.
    """

    at_us: int
    content: Int32
    location: Int32
    cell_rates: Float64
    content_rates: Float64
    affinity: Float64
    flow: Float64
    content_flow: Float64
    content_age_hours: Float64
    cell_age_hours: Float64
    last_hour: Float64
    yesterday: Float64
    places: LocationState
    half_lives_hours: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.content)

    @property
    def share(self) -> Float64:
        return self.places.share[self.location]

    @property
    def unseen(self) -> Bool:
        """Cells whose content was never requested at their location, shape (n,)."""
        return self.cell_rates[:, -1] <= 0.0


def nearest_half_life(half_lives_hours: tuple[float, ...], wanted_hours: float) -> int:
    """Index of the half-life nearest to the one wanted, by ratio."""
    return int(np.argmin(np.abs(np.log(np.array(half_lives_hours) / wanted_hours))))


def demand_cells(store: CounterStore, *, at_us: int, settings: DemandSettings) -> tuple[Int32, Int32]:
    """Cells to forecast: requested lately, or expected because their content is requested elsewhere.

    Returns:
        Content and location codes, sorted by (content, location), each cell once.
    """
    content, location = store.cells(minimum_weight=settings.minimum_cell_weight)
    spread_content, spread_location = _spread_cells(store, at_us=at_us, settings=settings)
    n_locations = max(len(store.locations), 1)
    own = content.astype(np.int64) * n_locations + location
    key = np.sort(np.concatenate([own, spread_content * n_locations + spread_location]))
    key = key[np.diff(key, prepend=-1) > 0]
    return (key // n_locations).astype(np.int32), (key % n_locations).astype(np.int32)


def _spread_cells(store: CounterStore, *, at_us: int, settings: DemandSettings) -> tuple[Int64, Int64]:
    share = store.location_share(at_us)
    by_share = np.argsort(-share, kind="stable")
    codes = np.arange(len(store.contents), dtype=np.int32)
    half_life = nearest_half_life(store.settings.half_lives_hours, 1.5)
    rate = store.content_rates(codes, at_us)[:, half_life]
    needed = settings.spread_minimum_per_hour / np.maximum(rate, 1e-12)
    # Locations from busy to quiet: each content reaches down to the share that it needs.
    reach = np.searchsorted(-share[by_share], -needed, side="right")
    content = np.repeat(codes.astype(np.int64), reach)
    rank = np.arange(len(content)) - np.repeat(np.cumsum(reach) - reach, reach)
    return content, by_share[rank]


def observe(
    store: CounterStore, *, at_us: int, settings: DemandSettings, cells: tuple[Int32, Int32] | None = None
) -> CellState:
    """Reads the counters for the cells, which are found first unless given.

    Every value depends on requests before `at_us` only.
    """
    content, location = demand_cells(store, at_us=at_us, settings=settings) if cells is None else cells
    names, row = np.unique(content, return_inverse=True)
    content_rates = store.content_rates(names, at_us)[row]
    cell_rates = store.cell_rates(content, location, at_us)
    places = location_state(store, at_us=at_us, settings=settings)
    slow = nearest_half_life(store.settings.half_lives_hours, 24.0)
    weight = store.settings.half_lives_hours[slow] / _LOG_TWO
    pseudo = settings.affinity_pseudo_count
    affinity = (cell_rates[:, slow] * weight + pseudo * places.share[location]) / (
        content_rates[:, slow] * weight + pseudo
    )
    return CellState(
        at_us=at_us,
        content=content,
        location=location,
        cell_rates=cell_rates,
        content_rates=content_rates,
        affinity=affinity,
        flow=store.flow(content, location, at_us),
        content_flow=store.content_flow(names, at_us)[row],
        content_age_hours=_age_hours(store.first_seen_us(names), at_us, settings)[row],
        cell_age_hours=_age_hours(store.cell_first_seen_us(content, location), at_us, settings),
        last_hour=_hour_counts(store, content, location, hours_back=(1, 0), at_us=at_us),
        yesterday=np.column_stack(
            [
                _hour_counts(store, content, location, hours_back=(24, 24 - horizon), at_us=at_us)
                for horizon in settings.horizons_hours
            ]
        ),
        places=places,
        half_lives_hours=store.settings.half_lives_hours,
    )


def location_state(store: CounterStore, *, at_us: int, settings: DemandSettings) -> LocationState:
    """Traffic of every location the store knows."""
    codes = np.arange(len(store.locations), dtype=np.int32)
    return LocationState(
        rates=store.location_rates(codes, at_us),
        share=store.location_share(at_us),
        counts=store.hourly_location_counts(_HISTORY_HOURS, at_us).astype(np.float64),
        settings=settings,
    )


def base_feature_names(half_lives_hours: tuple[float, ...]) -> list[str]:
    """Names of the columns of `base_features`, in order."""
    rates = [f"{kind}_rate_{h:g}h" for kind in ("cell", "content", "location") for h in half_lives_hours]
    clock = [f"{wave}_{harmonic}" for harmonic in (1, 2) for wave in ("sin", "cos")]
    return [*rates, "share", "affinity", "last_hour", "content_age", "cell_age", "unseen", *clock, *MARKOV_FEATURES]


MARKOV_FEATURES = ("flow", "content_flow")
"""Inputs that come from transitions; they are the last base features."""


def base_features(state: CellState) -> Float64:
    """Inputs that hold for every horizon: logarithms of rates and ages, hour of day (UTC), shape (n, n_features)."""
    angle = 2.0 * np.pi * (state.at_us % (24 * HOUR_US)) / (24 * HOUR_US)
    clock = [np.full(len(state), wave(k * angle)) for k in (1, 2) for wave in (np.sin, np.cos)]
    share = state.share
    return np.column_stack(
        [
            _log(state.cell_rates),
            _log(state.content_rates),
            _log(state.places.rates[state.location]),
            np.log(share + 1e-4),
            np.log((state.affinity + 1e-6) / (share + 1e-6)),
            np.log1p(state.last_hour),
            np.log(state.content_age_hours + 0.1),
            np.log(state.cell_age_hours + 0.1),
            state.unseen.astype(np.float64),
            *clock,
            _log(state.flow),
            _log(state.content_flow * share),
        ]
    )


def _log(rates: Float64) -> Float64:
    return np.asarray(np.log(rates + RATE_FLOOR_PER_HOUR), dtype=np.float64)


def _age_hours(first_seen_us: Int64, at_us: int, settings: DemandSettings) -> Float64:
    # A cell never requested has its first request in the future.
    age = (at_us - first_seen_us.astype(np.float64)) / HOUR_US
    limit = settings.age_limit_hours
    return np.where((age < 0.0) | (age > limit), limit, age)


def _hour_counts(
    store: CounterStore, content: Int32, location: Int32, *, hours_back: tuple[int, int], at_us: int
) -> Float64:
    return np.asarray(store.hourly_cell_counts(content, location, *hours_back, at_us), dtype=np.float64)
