"""What is known about each cell (content, location) at an instant: the counters, read once for all horizons.

A **cell** is forecast when it was requested lately, or when its content is so popular elsewhere that requests are
expected there too. All other demand is the remainder of its location (`models/demand/remainder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.counters import LN2, CounterStore
from models.demand.places import LocationState, location_state
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Bool, Float64, Int32, Int64


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
    weight = store.settings.half_lives_hours[slow] / LN2
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


def _age_hours(first_seen_us: Int64, at_us: int, settings: DemandSettings) -> Float64:
    # A cell never requested has its first request in the future.
    age = (at_us - first_seen_us.astype(np.float64)) / HOUR_US
    limit = settings.age_limit_hours
    return np.where((age < 0.0) | (age > limit), limit, age)


def _hour_counts(
    store: CounterStore, content: Int32, location: Int32, *, hours_back: tuple[int, int], at_us: int
) -> Float64:
    return np.asarray(store.hourly_cell_counts(content, location, *hours_back, at_us), dtype=np.float64)
