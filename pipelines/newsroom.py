"""The benchmark world *newsroom*: real clicks, real on-sessions and real round-trip times, joined by a fixed rule.

```
news_clicks         ts, user, session, content, location        29 busiest codes ─> cities; the others ─> `elsewhere`
relay_availability  on-sessions ─> home nodes                   shifted by whole weeks
phone_availability  on-sessions ─> phones                       repeated from their own hour
city_rtt            city × city ─> location × source            + last mile of the node
node_capacity, link_bandwidth ─> uplink, downlink               one common factor ties them to demand
```

No public set joins users, places, sizes and devices, so the join itself is an assumption. `world.json` carries every
rule in words and lists which columns are measured and which modelled. Nothing is tuned to a result: days, locations,
sizes and capacities come from the training days and the seed alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import TableError
from pipelines.capacity import (
    EGRESS_COST_PER_GB,
    POP_STORAGE_BYTES,
    REWARD_PER_GB,
    STORAGE_SHARE,
    Demand,
    Devices,
    Mesh,
    StorageLevel,
    contents_table,
    day_us,
    equip,
    iso,
    place,
    rtt_table,
)
from pipelines.cities import Cities, assign_cities, read_cities
from pipelines.clicks import Clicks, read_clicks
from pipelines.devices import RelayChoice, Sessions, choose_relays, phone_sessions, relay_sessions
from pipelines.newsroom_rules import MEASURED, MODELLED, newsroom_rules
from pipelines.sizes import Int64, SizeSettings, draw_catalogue, part_rng
from placement.geography import great_circle_km

DATA_VARIABLE = "PREMIRROR_REAL_DATA"
DAY_US = 86_400_000_000
UPLINK_CAP_BPS = 50e6
PHONE_HISTORY_DAYS = 7
CONSENT_DAYS = 30
LOCATION_POWER = 0.75


@dataclass(frozen=True)
class NewsroomSettings:
    """The newsroom world: which days, which machines, how much storage."""

    kind: Literal["newsroom"] = "newsroom"
    """Which kind of world this is."""
    name: str = "newsroom"
    """Name of the world; the folder it is built in."""
    seed: int = 1
    """Seed of every modelled draw: sizes, places, capacities, last miles."""
    data: str = "../shared/data"
    """Folder of the real tables; the environment variable PREMIRROR_REAL_DATA takes precedence."""
    start: str = "2017-10-01"
    """First day of the world (a Sunday, UTC), among the days of the click log."""
    days: int = 12
    """Days in the world."""
    train_days: int = 6
    """Leading days from which locations, places, uplink and storage are derived."""
    relay_sunday: str = "2026-04-05"
    """Sunday of the relay record that falls on `start`; other Sundays make unseen worlds."""
    storage_level: StorageLevel = "medium"
    """Storage of a location as a share of a day's distinct bytes: scarce 10 %, medium 40 %, ample 150 %."""
    n_locations: int = 29
    """Location codes that get a city and nodes; requests of the others are served by tier 1."""
    home_nodes: int = 600
    """Relays drawn from all that were seen lately."""
    restless_nodes: int = 600
    """Further relays, drawn among those with at least three departures in four weeks."""
    phones: int = 1200
    """Phones, drawn with replacement."""
    domestic_prefix: str = "1-"
    """Location codes with this prefix are domestic."""
    domestic_country: str = "United States"
    """Country whose cities stand in for domestic codes, largest first."""
    foreign_cities: tuple[str, ...] = (
        "Lisbon",
        "London",
        "Tokyo",
        "Paris",
        "Madrid",
        "Toronto",
        "Berlin",
        "Rome",
        "Dublin",
        "Sydney",
    )
    """Cities that stand in for foreign codes, in order; those without measurements are passed over."""
    pop_cities: tuple[str, ...] = ("New York", "Los Angeles", "Chicago", "Houston", "Atlanta", "London")
    """Cities with a point of presence; `elsewhere` gets the coordinates of the first."""
    sizes: SizeSettings = field(default_factory=SizeSettings)
    """Sizes of pages and videos, and how far videos are watched."""

    def __post_init__(self) -> None:
        problems = [*self._day_problems("start"), *self._day_problems("relay_sunday")]
        if not 0 < self.train_days <= self.days:
            problems.append(
                f"Expected 0 < train_days <= days, got {self.train_days!r} and {self.days!r}; lower train_days."
            )
        for name in ("n_locations", "home_nodes", "phones"):
            if getattr(self, name) < 1:
                problems.append(f"Expected {name} >= 1, got {getattr(self, name)!r}.")
        if self.restless_nodes < 0:
            problems.append(f"Expected restless_nodes >= 0, got {self.restless_nodes!r}.")
        if self.storage_level not in STORAGE_SHARE:
            allowed = ", ".join(STORAGE_SHARE)
            problems.append(f"Expected storage_level to be one of {allowed}, got {self.storage_level!r}.")
        if not self.pop_cities:
            problems.append("Expected at least one city in pop_cities, got none.")
        if problems:
            raise ValueError(" ".join(problems))

    def _day_problems(self, name: str) -> list[str]:
        value = getattr(self, name)
        try:
            day = date.fromisoformat(value)
        except (TypeError, ValueError):
            return [f"Expected {name} as a day such as '2026-04-05' (in quotes), got {value!r}."]
        # Only a shift by whole weeks keeps the hour and the day of the week of every session.
        return [] if day.weekday() == 6 else [f"Expected {name} to be a Sunday, got {value!r} ({day:%A})."]

    @property
    def start_us(self) -> int:
        return day_us(self.start)

    @property
    def end_us(self) -> int:
        return self.start_us + self.days * DAY_US

    @property
    def train_us(self) -> tuple[int, int]:
        return self.start_us, self.start_us + self.train_days * DAY_US

    def folder(self) -> Path:
        """Where the real tables lie; they are measured by others and not part of this project."""
        return Path(os.environ.get(DATA_VARIABLE, self.data)).expanduser()


def build_newsroom(settings: NewsroomSettings) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Joins the real tables into a world: canonical tables by name, and what `world.json` says.

    Raises:
        TableError: a real table is not there.
        ValueError: the tables do not hold what the settings ask for.
    """
    clicks = _clicks(settings)
    cities = read_cities(_real(settings, "city_rtt/cities.parquet"), _real(settings, "city_rtt/rtt.parquet"))
    city = _cities_of(clicks, cities, settings)
    catalogue = draw_catalogue(clicks.contents, settings.sizes, seed=settings.seed)
    requested = clicks.bytes_requested(catalogue, watch_through=settings.sizes.watch_through, seed=settings.seed)
    demand = clicks.demand(catalogue, requested)
    choice, sessions = _sessions(settings)
    devices = _devices(settings, sessions)
    weight = clicks.training_requests()[: clicks.n_served].astype(np.float64) ** LOCATION_POWER
    mesh = equip(
        devices,
        place(len(devices.names), weight, seed=settings.seed),
        demand,
        storage_share=STORAGE_SHARE[settings.storage_level],
        seed=settings.seed,
    )
    locations = _locations_table(clicks, cities, city)
    pops = _pops_table(settings, locations, cities)
    tables = {
        "requests": clicks.requests_table(requested),
        "contents": contents_table(catalogue),
        "locations": locations,
        "pops": pops,
        "nodes": _nodes_table(settings, mesh, locations),
        "availability": sessions.table(mesh.devices.names),
        "rtt": _rtt_table(settings, (locations, pops), mesh, cities=cities, city=city),
    }
    return tables, _world(settings, mesh, demand, clicks=clicks, choice=choice)


def _real(settings: NewsroomSettings, path: str) -> pa.Table:
    folder = Path(os.environ.get(DATA_VARIABLE) or settings.data).expanduser()
    if not (folder / path).is_file():
        where = f"There is no file {str(folder / path)!r}."
        raise TableError(path, [f"{where} Set `data` or {DATA_VARIABLE} to the folder of the real tables."])
    return pq.read_table(folder / path, partitioning=None)


def _clicks(settings: NewsroomSettings) -> Clicks:
    return read_clicks(
        _real(settings, "news_clicks/requests.parquet"),
        start_us=settings.start_us,
        end_us=settings.end_us,
        train_until_us=settings.train_us[1],
        n_locations=settings.n_locations,
    )


def _cities_of(clicks: Clicks, cities: Cities, settings: NewsroomSettings) -> Int64:
    """Row of each location's city; `elsewhere`, last, gets that of the first POP."""
    served = assign_cities(
        clicks.locations[: clicks.n_served],
        cities,
        prefix=settings.domestic_prefix,
        country=settings.domestic_country,
        foreign=settings.foreign_cities,
    )
    return np.append(served, cities.row(settings.pop_cities[0]))


def _sessions(settings: NewsroomSettings) -> tuple[RelayChoice, Sessions]:
    """On-sessions of home nodes, then phones, as known at the world's end."""
    relays = _real(settings, "relay_availability/sessions.parquet").to_pandas()
    sunday = pd.Timestamp(settings.relay_sunday, tz="UTC")
    choice = choose_relays(
        relays,
        sunday,
        any_kind=settings.home_nodes,
        restless=settings.restless_nodes,
        days_after=settings.days,
        rng=part_rng(settings.seed, "relays"),
    )
    shift_us = settings.start_us - day_us(settings.relay_sunday)
    phones = phone_sessions(
        _real(settings, "phone_availability/sessions.parquet").to_pandas(),
        settings.phones,
        window_us=(settings.start_us - PHONE_HISTORY_DAYS * DAY_US, settings.end_us),
        rng=part_rng(settings.seed, "phones"),
    )
    home = relay_sessions(relays, choice.nodes, shift_us=shift_us)
    return choice, home.followed_by(phones).cut(settings.end_us)


def _devices(settings: NewsroomSettings, sessions: Sessions) -> Devices:
    """Half the measured throughput as uplink, all of it as downlink; ids say nothing of the real machine."""
    hosts = _real(settings, "node_capacity/hosts.parquet")["speed_bps_p10"].to_numpy().astype(float)
    links = _real(settings, "link_bandwidth/traces.parquet")["p10_mbps"].to_numpy().astype(float) * 1e6
    rng = part_rng(settings.seed, "capacity")
    n_home = settings.home_nodes + settings.restless_nodes
    host = rng.choice(hosts[hosts > 0], size=n_home)
    link = rng.choice(links[links > 0], size=settings.phones)
    names = [f"home-{i:05d}" for i in range(n_home)] + [f"phone-{i:05d}" for i in range(settings.phones)]
    return Devices(
        np.array(names, dtype=object),
        np.array(["home"] * n_home + ["phone"] * settings.phones, dtype=object),
        np.concatenate([np.minimum(host / 2, UPLINK_CAP_BPS), link / 2]),
        np.concatenate([host, link]),
        sessions.up_share(settings.train_us),
    )


def _locations_table(clicks: Clicks, cities: Cities, city: Int64) -> pa.Table:
    n = len(clicks.locations)
    return pa.table(
        {
            "location": pa.array(clicks.locations, pa.string()),
            "lat": pa.array(cities.lat[city]),
            "lon": pa.array(cities.lon[city]),
            "parent": pa.nulls(n, pa.string()),
            "name": pa.array([*cities.name[city[:-1]], "Elsewhere"], pa.string()),
        }
    )


def _pops_table(settings: NewsroomSettings, locations: pa.Table, cities: Cities) -> pa.Table:
    """A POP belongs to the nearest location, whose city need not be its own."""
    rows = np.array([cities.row(c) for c in settings.pop_cities])
    lat, lon = cities.lat[rows], cities.lon[rows]
    places_lat, places_lon = (locations[c].to_numpy()[:-1] for c in ("lat", "lon"))
    nearest = great_circle_km(lat[:, None], lon[:, None], places_lat[None], places_lon[None]).argmin(axis=1)
    columns: dict[str, Any] = {
        "source": [f"pop-{c.lower().replace(' ', '-')}" for c in settings.pop_cities],
        "location": locations["location"].take(nearest),
        "lat": pa.array(lat),
        "lon": pa.array(lon),
        "storage_bytes": pa.array(np.full(len(rows), POP_STORAGE_BYTES)),
        "egress_cost_per_gb": pa.array(np.full(len(rows), EGRESS_COST_PER_GB)),
    }
    return pa.table(columns)


def _nodes_table(settings: NewsroomSettings, mesh: Mesh, locations: pa.Table) -> pa.Table:
    consent_us = np.full(len(mesh.location), settings.end_us + CONSENT_DAYS * DAY_US)
    return mesh.table(locations, consent_until_us=consent_us, available_at_us=settings.start_us)


def _rtt_table(
    settings: NewsroomSettings, places: tuple[pa.Table, pa.Table], mesh: Mesh, *, cities: Cities, city: Int64
) -> pa.Table:
    pop_city = np.array([cities.row(c) for c in settings.pop_cities])
    rtt_ms, modelled = cities.rtt(city, np.concatenate([pop_city, city[mesh.location]]))
    modelled[-1] = True  # Nobody knows where `elsewhere` is, so no figure of it is a measurement.
    return rtt_table(*places, mesh, rtt_ms, modelled)


def _world(
    settings: NewsroomSettings, mesh: Mesh, demand: Demand, *, clicks: Clicks, choice: RelayChoice
) -> dict[str, Any]:
    counts = clicks.training_requests()
    return {
        "name": settings.name,
        "kind": settings.kind,
        "seed": settings.seed,
        "start": iso(settings.start_us),
        "end": iso(settings.end_us),
        "train_end": iso(settings.train_us[1]),
        "watch_through": settings.sizes.watch_through,
        "measured": list(MEASURED),
        "modelled": list(MODELLED),
        "rules": newsroom_rules(settings),
        "egress_cost_per_gb": EGRESS_COST_PER_GB,
        "reward_per_gb": REWARD_PER_GB,
        "storage_level": settings.storage_level,
        "figures": {
            "requests": len(clicks.ts_us),
            "contents": len(clicks.contents),
            "elsewhere_share_of_training_requests": float(counts[-1] / counts.sum()),
            "restless_with_three_departures": choice.restless,
            **mesh.figures(demand),
        },
    }
