"""A synthetic world put together: every rate is known, so that tests can check what models recover.

The truth goes into `world.json` (single numbers) and into tables below `truth/`:

    contents      content, published_at, zipf_rank, weight          taste       location, content, taste
    transitions   previous, content, probability                    intensity   hour, content, location, requests
    networks      network, outages_per_week                         outages     network, start, end
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.capacity import (
    EGRESS_COST_PER_GB,
    POP_STORAGE_BYTES,
    REWARD_PER_GB,
    STORAGE_SHARE,
    TIMESTAMP,
    Demand,
    Devices,
    Mesh,
    Sites,
    contents_table,
    daily_distinct_bytes,
    equip,
    iso,
    network_names,
    place,
    rtt_table,
)
from pipelines.releases import ReleaseSettings
from pipelines.sizes import Catalogue, Int64, draw_catalogue, hash_ids, mix, part_rng, watched_bytes
from pipelines.synthetic import CITIES, DAY_US, SyntheticSettings
from pipelines.truth import intensity_table, outage_tables, visit_tables
from pipelines.uptime import (
    NodeTraits,
    OnPeriods,
    Outages,
    as_sessions,
    draw_on_periods,
    draw_outages,
    draw_telemetry,
    joined,
    without_outages,
)
from pipelines.visitors import draw_visit_model, location_share
from pipelines.visits import Visits, draw_visits
from placement.geography import DistanceModel, great_circle_km

CONSENT_DAYS = 30
ROUND_TRIPS = DistanceModel(intercept_ms=6.0, ms_per_km=0.016)


def build_synthetic(settings: SyntheticSettings) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Draws a world: canonical and truth tables by name, and what `world.json` says."""
    locations = _locations_table(settings)
    model, zipf_rank = draw_visit_model(settings)
    visits = draw_visits(model, part_rng(settings.seed, "visits"))
    if not len(visits.ts_us):
        raise ValueError(f"No request was drawn with requests {settings.requests!r}; raise it.")
    contents = np.array([f"c{i:06d}" for i in range(settings.n_contents)], dtype=object)
    catalogue = draw_catalogue(contents, settings.sizes, seed=settings.seed)
    requested = _bytes_requested(visits, catalogue, settings)
    demand = _demand(visits, catalogue, requested, settings)
    fleet = _draw_fleet(settings, locations)
    mesh = equip(
        _devices(settings, fleet),
        fleet.sites,
        demand,
        storage_share=STORAGE_SHARE[settings.storage_level],
        seed=settings.seed,
    )
    pops = _pops_table(settings, locations)
    names = locations["location"].to_numpy()
    sessions = as_sessions(fleet.periods, len(fleet.names)).cut(settings.end_us)
    tables = {
        "requests": _requests_table(visits, requested, contents, names, settings=settings),
        "contents": contents_table(catalogue, published_at_us=model.popularity.published_us),
        "locations": locations,
        "pops": pops,
        "nodes": _nodes_table(settings, mesh, locations),
        "availability": sessions.table(fleet.names),
        "telemetry": _telemetry(settings, fleet, mesh),
        "rtt": _rtt_table(locations, pops, mesh),
        **visit_tables(model, contents, names, zipf_rank=zipf_rank),
        **outage_tables(fleet.outages, fleet.networks),
    }
    if settings.truth_intensity:
        tables["truth/intensity"] = intensity_table(model, contents, names)
    return tables, _world(settings, mesh, demand, tables)


def _bytes_requested(visits: Visits, catalogue: Catalogue, settings: SyntheticSettings) -> Int64:
    key = mix(hash_ids(catalogue.content, seed=settings.seed)[visits.content], visits.ts_us)
    return watched_bytes(
        catalogue, visits.content, mix(key, visits.session), watch_through=settings.sizes.watch_through
    )


def _demand(visits: Visits, catalogue: Catalogue, requested: Int64, settings: SyntheticSettings) -> Demand:
    start_us, until_us = settings.train_us
    ours = visits.ts_us < until_us
    distinct = daily_distinct_bytes(
        (visits.ts_us[ours] - start_us) // DAY_US,
        visits.location[ours],
        visits.content[ours],
        catalogue.bytes,
        n_locations=settings.n_locations,
        n_days=settings.train_days,
    )
    return Demand(float(requested[ours].sum()) / ((until_us - start_us) / 1e6), distinct)


@dataclass(frozen=True)
class _Fleet:
    """Devices, where they are and when they are up. (n_nodes,) each; `network` is a row of `networks`."""

    names: npt.NDArray[np.object_]
    device_class: npt.NDArray[np.object_]
    sites: Sites
    network: Int64
    networks: npt.NDArray[np.object_]
    periods: OnPeriods
    outages: Outages


def _draw_fleet(settings: SyntheticSettings, locations: pa.Table) -> _Fleet:
    classes = {"home": settings.home, "phone": settings.phone}
    device_class = np.repeat(np.array(list(classes), dtype=object), [c.nodes for c in classes.values()])
    names = [f"{kind}-{i:05d}" for kind, c in classes.items() for i in range(c.nodes)]
    sites = place(len(names), location_share(settings), seed=settings.seed)
    networks, network = np.unique(network_names(sites, locations["location"].to_numpy()), return_inverse=True)
    window_us = (settings.start_us - settings.history_days * DAY_US, settings.end_us)
    longitude = locations["lon"].to_numpy()[sites.location]
    parts = []
    for kind, of_class in classes.items():
        rows = np.flatnonzero(device_class == kind)
        rng = part_rng(settings.seed, f"uptime {kind}")
        periods = draw_on_periods(of_class, longitude[rows], window_us=window_us, rng=rng)
        parts.append(replace(periods, node=rows[periods.node]))
    outages = draw_outages(settings.outages, len(networks), window_us=window_us, rng=part_rng(settings.seed, "outages"))
    periods = without_outages(joined(parts), network, outages)
    return _Fleet(np.array(names, dtype=object), device_class, sites, network, networks, periods, outages)


def _devices(settings: SyntheticSettings, fleet: _Fleet) -> Devices:
    """Log-normal uplink by class; downlink is four times as fast."""
    rng = part_rng(settings.seed, "capacity")
    by_class = {"home": settings.home, "phone": settings.phone}
    median = np.array([by_class[kind].uplink_median_bps for kind in fleet.device_class])
    sigma = np.array([by_class[kind].uplink_sigma for kind in fleet.device_class])
    uplink = median * np.exp(sigma * rng.standard_normal(len(median)))
    sessions = as_sessions(fleet.periods, len(fleet.names))
    return Devices(fleet.names, fleet.device_class, uplink, 4 * uplink, sessions.up_share(settings.train_us))


def _locations_table(settings: SyntheticSettings) -> pa.Table:
    names, lat, lon = (list(c) for c in zip(*CITIES[: settings.n_locations], strict=True))
    return pa.table({"location": names, "lat": lat, "lon": lon, "parent": pa.nulls(len(names), pa.string())})


def _pops_table(settings: SyntheticSettings, locations: pa.Table) -> pa.Table:
    at = locations.slice(0, settings.n_pops)
    columns: dict[str, Any] = {
        "source": [f"pop-{name}" for name in at["location"].to_pylist()],
        "location": at["location"],
        "lat": at["lat"],
        "lon": at["lon"],
        "storage_bytes": pa.array(np.full(len(at), POP_STORAGE_BYTES)),
        "egress_cost_per_gb": pa.array(np.full(len(at), EGRESS_COST_PER_GB)),
    }
    return pa.table(columns)


def _nodes_table(settings: SyntheticSettings, mesh: Mesh, locations: pa.Table) -> pa.Table:
    consents = part_rng(settings.seed, "consent").random(len(mesh.location)) < settings.consent_share
    until_us = np.where(consents, settings.end_us + CONSENT_DAYS * DAY_US, -1)
    return mesh.table(locations, consent_until_us=until_us, available_at_us=settings.start_us)


def _telemetry(settings: SyntheticSettings, fleet: _Fleet, mesh: Mesh) -> pa.Table:
    traits = NodeTraits(
        fleet.names,
        mesh.last_mile_ms,
        mesh.devices.uplink_bps * mesh.factor,
        mesh.storage_bytes,
        np.asarray(fleet.device_class == "phone"),
    )
    return draw_telemetry(
        fleet.periods,
        traits,
        every_minutes=settings.telemetry_minutes,
        until_us=settings.end_us,
        rng=part_rng(settings.seed, "telemetry"),
    )


def _rtt_table(locations: pa.Table, pops: pa.Table, mesh: Mesh) -> pa.Table:
    lat, lon = (locations[c].to_numpy() for c in ("lat", "lon"))
    at = np.concatenate([np.arange(len(pops)), mesh.location])
    km = great_circle_km(lat[:, None], lon[:, None], lat[at][None], lon[at][None])
    return rtt_table(locations, pops, mesh, ROUND_TRIPS.rtt_ms(km), np.ones(km.shape, dtype=bool))


def _requests_table(
    visits: Visits,
    requested: Int64,
    contents: npt.NDArray[np.object_],
    locations: npt.NDArray[np.object_],
    *,
    settings: SyntheticSettings,
) -> pa.Table:
    n = int(visits.session.max()) + 1
    user = part_rng(settings.seed, "users").integers(0, settings.users_per_location, n)[visits.session]
    users = np.array([f"u{i:07d}" for i in range(settings.users_per_location * settings.n_locations)], dtype=object)
    sessions = np.array([f"s{i:08d}" for i in range(n)], dtype=object)
    return pa.table(
        {
            "ts": pa.array(visits.ts_us, TIMESTAMP),
            "user": pa.array(users[visits.location * settings.users_per_location + user], pa.string()),
            "session": pa.array(sessions[visits.session], pa.string()),
            "content": pa.array(contents[visits.content], pa.string()),
            "segment": pa.nulls(len(visits.ts_us), pa.int32()),
            "location": pa.array(locations[visits.location], pa.string()),
            "bytes": pa.array(requested),
        }
    )


def _world(settings: SyntheticSettings, mesh: Mesh, demand: Demand, tables: dict[str, pa.Table]) -> dict[str, Any]:
    canonical = {name: table for name, table in tables.items() if not name.startswith("truth/")}
    return {
        "name": settings.name,
        "kind": settings.kind,
        "seed": settings.seed,
        "start": iso(settings.start_us),
        "end": iso(settings.end_us),
        "train_end": iso(settings.train_us[1]),
        "watch_through": settings.sizes.watch_through,
        "measured": [],
        "modelled": [f"{name}.{column}" for name, table in canonical.items() for column in table.column_names],
        "rules": _RULES,
        "truth": _truth(settings, tables),
        "egress_cost_per_gb": EGRESS_COST_PER_GB,
        "reward_per_gb": REWARD_PER_GB,
        "storage_level": settings.storage_level,
        "figures": {"requests": len(tables["requests"]), "contents": len(tables["contents"]), **mesh.figures(demand)},
    }


def _truth(settings: SyntheticSettings, tables: dict[str, pa.Table]) -> dict[str, Any]:
    kept = (
        "zipf_exponent",
        "decay_half_life_hours",
        "taste_sigma",
        "location_exponent",
        "daily_amplitude",
        "peak_hour",
        "stop_probability",
        "restart_probability",
        "gap_minutes",
    )
    # What a world does not use is not written down: older worlds stay what they were, byte by byte.
    further = ("region_taste_sigma", "daily_power", "weekday_factors", "successors_among")
    used = [name for name in further if getattr(settings, name) != getattr(SyntheticSettings, name)]
    releases = {} if settings.releases == ReleaseSettings() else {"releases": asdict(settings.releases)}
    return {
        **{name: getattr(settings, name) for name in (*kept, *used)},
        **releases,
        "nodes": {"home": asdict(settings.home), "phone": asdict(settings.phone)},
        "outages": asdict(settings.outages),
        "tables": sorted(f"{name}.parquet" for name in tables if name.startswith("truth/")),
    }


_RULES = {
    "popularity": "Share of a content at a location: taste · weight · 2^(-age / half-life) over the sum of the same for "
    "all contents published so far.",
    "sessions": "Poisson starts with a daily cosine around the local peak hour; after an exponential gap a session stops "
    "with the stop probability, else draws from popularity with the restart probability, else follows the chain.",
    "bytes": "A page is taken whole; segment j of a video, from 0, is watched with probability watch_through^j.",
    "devices": "On-times Weibull (shorter on battery), off-times log-normal, phones partly wait for the local evening; "
    "an outage takes down all nodes of a network.",
    "uplink": "One factor for all makes the availability-weighted total twice the mean rate of bytes requested, both over "
    "the training days. Downlink is four times the uplink.",
    "storage": "A share of the bytes of the distinct contents of a location on an average training day, split "
    "log-normally among its nodes.",
    "round_trips": "6 ms + 0.016 ms/km between places, and a log-normal last mile of the node.",
}
