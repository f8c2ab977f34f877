"""What is known about each cell (content, location) at an instant: the counters, read once for all horizons.

A **cell** is forecast when it was requested lately, or when its content is so popular elsewhere that requests are
expected there too. All other demand is the remainder of its location (`models/demand/remainder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from models.cell_reader import CellReader, StoredCells, active_rows
from models.counters import LN2, CounterStore
from models.demand.activity import RECENT_HOURS, Activity
from models.demand.places import LocationState, location_state
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Bool, Float64, Int32, Int64
from models.keys import pair_keys


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
        published_age_hours: time since the content became known, limited. (n,)
        hours: requests in each of the last full clock hours, newest first; parts not observed at the slow rate.
            (n, RECENT_HOURS)
        content_hours: the same of the content, everywhere. (n, RECENT_HOURS)
        spread: locations at which the content is asked for. (n,)
        presence, content_presence: sessions that are at the content, here and everywhere. (n,)
        content_rank: contents asked for more often, by the fast and by a slow rate. (n, 2)
        local_rank: contents asked for more often at the location, about. (n,)
        newborn: contents that became known in the last hour.
        yesterday: requests in the window's hours one day before, by horizon, likewise. (n, n_horizons)
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
    published_age_hours: Float64
    hours: Float64
    content_hours: Float64
    spread: Float64
    presence: Float64
    content_presence: Float64
    content_rank: Float64
    local_rank: Float64
    newborn: int
    yesterday: Float64
    places: LocationState
    half_lives_hours: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.content)

    def rows(self, part: slice) -> CellState:
        """Some of the cells, as views."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)}
        cut: dict[str, Any] = {name: values[part] for name, values in arrays.items()}
        return replace(self, **cut)

    @property
    def last_hour(self) -> Float64:
        """Requests of the last full clock hour, shape (n,)."""
        return self.hours[:, 0]

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
    cells = _find_cells(store, at_us=at_us, settings=settings)
    return cells.content, cells.location


def _find_cells(store: CounterStore, *, at_us: int, settings: DemandSettings) -> StoredCells:
    active = active_rows(store, settings.minimum_cell_weight)
    spread = pair_keys(*_spread_cells(store, at_us=at_us, settings=settings))
    row = store.popularity.index.find(spread)
    is_active = np.zeros(len(store.popularity.index) + 1, dtype=bool)  # the last for row -1, no row at all
    is_active[active] = True
    new = ~is_active[row]
    keys = np.concatenate([store.popularity.index.keys[active], spread[new]])
    rows = np.concatenate([active, row[new]]).astype(np.int32)
    order = np.argsort(keys)  # keys differ, so any sort gives the same order
    return StoredCells.of_keys(store, keys[order], rows[order])


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
    return CellObserver(store, at_us=at_us, settings=settings, cells=cells).rows(slice(None))


class CellObserver:
    """Observes cells block by block: what one block says of its cells does not depend on how blocks are cut.

    Attributes:
        content, location: the cells, as in `CellState`. (n,)
        places: traffic by location.
    """

    def __init__(
        self,
        store: CounterStore,
        *,
        at_us: int,
        settings: DemandSettings,
        cells: tuple[Int32, Int32] | None = None,
    ) -> None:
        """Finds the cells unless they are given.

        Raises:
            LogOrderError: the store holds requests later than `at_us`.
        """
        found = StoredCells.find(store, *cells) if cells else _find_cells(store, at_us=at_us, settings=settings)
        self.content, self.location = found.content, found.location
        self.places = location_state(store, at_us=at_us, settings=settings)
        self._settings = settings
        self._half_lives_hours = store.settings.half_lives_hours
        self._slow = nearest_half_life(self._half_lives_hours, 24.0)
        # The last full hours, then the hours of each horizon a day ago.
        hours_back = [
            *((back + 1, back) for back in range(RECENT_HOURS)),
            *((24, 24 - horizon) for horizon in settings.horizons_hours),
        ]
        self._unobserved_hours = np.array([store.unobserved_hours(*back, at_us) for back in hours_back])
        self._reader = CellReader(store, found, at_us=at_us, hours_back=hours_back)
        middle = nearest_half_life(self._half_lives_hours, 6.0)
        self._activity = Activity.of(store, self._reader.hour_sums, at_us=at_us, slow=middle)

    def __len__(self) -> int:
        return len(self.content)

    def rows(self, part: slice) -> CellState:
        """The state of some of the cells."""
        reader, at_us = self._reader, self._reader.at_us
        content, location, around = self.content[part], self.location[part], self._activity
        cell_rates, content_rates = reader.cell_rates(part), reader.content_rates(part)
        slow = cell_rates[:, self._slow, None]
        # Hours that were not observed are missing, not empty: the slow rate stands in for them.
        unobserved = self._unobserved_hours
        hours = reader.hour_counts(part) + slow * unobserved
        return CellState(
            at_us=at_us,
            content=content,
            location=location,
            cell_rates=cell_rates,
            content_rates=content_rates,
            affinity=self._affinity(cell_rates, content_rates, location),
            flow=reader.flow(part),
            content_flow=reader.content_flow(part),
            content_age_hours=_age_hours(reader.content_first_seen_us(part), at_us, self._settings),
            cell_age_hours=_age_hours(reader.cell_first_seen_us(part), at_us, self._settings),
            published_age_hours=_age_hours(reader.content_appeared_us(part), at_us, self._settings),
            hours=hours[:, :RECENT_HOURS],
            content_hours=around.hours[content] + content_rates[:, self._slow, None] * unobserved[:RECENT_HOURS],
            spread=around.spread[content],
            presence=reader.presence(part),
            content_presence=around.presence[content],
            content_rank=around.rank[content],
            local_rank=around.local_rank(location, cell_rates[:, 0]),
            newborn=around.newborn,
            yesterday=hours[:, RECENT_HOURS:],
            places=self.places,
            half_lives_hours=self._half_lives_hours,
        )

    def _affinity(self, cell_rates: Float64, content_rates: Float64, location: Int32) -> Float64:
        slow = self._slow
        weight = self._half_lives_hours[slow] / LN2
        pseudo = self._settings.affinity_pseudo_count
        return (cell_rates[:, slow] * weight + pseudo * self.places.share[location]) / (
            content_rates[:, slow] * weight + pseudo
        )


def _age_hours(first_seen_us: Int64, at_us: int, settings: DemandSettings) -> Float64:
    # A cell never requested has its first request in the future.
    age = (at_us - first_seen_us.astype(np.float64)) / HOUR_US
    limit = settings.age_limit_hours
    return np.where((age < 0.0) | (age > limit), limit, age)
