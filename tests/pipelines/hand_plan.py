"""A home with tables and a plan in force that are easy to do by hand, without forecasts or models.

The world is `hand_world` of the rebalance's own tests: a POP and nodes n0, n1, ... of 2 GB at one place, contents `a` and
`b` of one segment of 1 GB, asked for 10 times and once a day. The POP bills 20 m$/GB, nodes get 4 m$/GB: a request moved
from POP to node saves 16 m$, a push costs 20 m$. The plan is of `PLANNED`, for 24 hours; node n<i> is in network net<i>
unless told otherwise, and all consent for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.tables import INSTANT
from pipelines.home import Home
from pipelines.jobs import instant_us, iso, only_one
from pipelines.place import publish, ranked_sources
from pipelines.plan_problem import Listed, problem_facts, problem_tables
from pipelines.plan_state import PlanState
from pipelines.scene import read_scene
from pipelines.store import write_tables
from pipelines.typed import plain
from placement.bound import Prices
from placement.directory import PATHS_SCHEMA, SOURCES_SCHEMA, SourceDirectory
from placement.plan import Plan
from placement.prices import search_prices
from placement.problem import PlacementProblem
from placement.routing import RoutingSettings
from tests.placement.rebalance_worlds import GB, hand_world

PLANNED = "2026-03-08T00:00:00Z"
PLANNED_US = instant_us(PLANNED)
NAME = "hand"
PLAN = "placed"
FOREVER_US = instant_us("2036-01-01T00:00:00Z")
UPLINK_BPS = 100.0 * GB * 8 / 86_400


@dataclass(frozen=True)
class HandHome:
    """A home folder, and the configuration of its placement."""

    home: Home
    config: Path

    @property
    def tables(self) -> Path:
        return self.home.tables(NAME)

    @property
    def current(self) -> Path:
        return (self.home.plans / "current").resolve()

    def write_nodes(self, nodes: dict[str, int], **columns: Any) -> None:
        """The tables anew, with these nodes and their networks; further columns replace the usual ones."""
        write_tables(self.tables, tables_of(nodes, columns))


def hand_home(
    root: Path, held: Sequence[tuple[str, str]], *, networks: Sequence[int] = (0, 1), **world: Any
) -> HandHome:
    """A home whose plan in force holds these (content, node) pairs."""
    hand = HandHome(Home(root / "home").create(), root / "placement.yaml")
    hand.config.write_text(f"tables: {NAME}\n", encoding="utf-8")
    hand.write_nodes({f"n{at}": network for at, network in enumerate(networks)})
    problem, plan = hand_world(held, networks=networks, **world)
    tables, manifest = plan_tables(hand.tables, problem, plan), manifest_of(problem, plan)
    with only_one(hand.home.plans):  # as a placement does, so that its lock file is there
        publish(hand.home, PLAN, tables, manifest, PlanState(PLANNED_US))
    return hand


def tables_of(nodes: dict[str, int], columns: dict[str, Any]) -> dict[str, pa.Table]:
    """Every table that a rebalance reads."""
    place: dict[str, Any] = {"location": ["here"], "lat": [0.0], "lon": [0.0]}
    n = len(nodes)
    usual = {
        "source": list(nodes),
        "location": ["here"] * n,
        "lat": [0.0] * n,
        "lon": [0.0] * n,
        "network": [f"net{network}" for network in nodes.values()],
        "storage_bytes": [2 * GB] * n,
        "uplink_bps": [UPLINK_BPS] * n,
        "downlink_bps": [1e9] * n,
        "device_class": ["home"] * n,
        "consent_until": _instants([FOREVER_US] * n),
    }
    pops = {"source": ["pop"], **place, "storage_bytes": [100 * GB], "egress_cost_per_gb": [0.02]}
    rtt = {"location": ["here"] * (n + 1), "source": ["pop", *nodes], "rtt_ms": [10.0] * (n + 1)}
    asked = {"ts": _instants([PLANNED_US - 1]), "session": ["s"], "content": ["a"], "location": ["here"]}
    return {
        "contents": pa.table({"content": ["a", "b", "c"], "bytes": [GB] * 3, "segment_bytes": [GB] * 3}),
        "locations": pa.table(place),
        "pops": pa.table(pops),
        "nodes": pa.table({**usual, **columns}),
        "rtt": pa.table(rtt),
        "requests": pa.table(asked),
    }


def consent(*until_us: int) -> pa.Array:
    """The column `consent_until`."""
    return _instants(list(until_us))


def _instants(values: list[int]) -> pa.Array:
    return pa.array(values, pa.int64()).cast(INSTANT)


def plan_tables(tables: Path, problem: PlacementProblem, plan: Plan) -> dict[str, pa.Table]:
    """A plan's folder, as a placement writes it."""
    scene, sources = read_scene(tables), problem.sources
    placements, routes = plan.to_arrow(problem)
    n = len(sources)
    columns: dict[str, Any] = {
        "source": sources.source,
        "tier": sources.tier,
        "location": ["here"] * n,
        "lat": sources.lat,
        "lon": sources.lon,
        "network": sources.network,
        "storage_bytes": sources.storage_bytes,
        "uplink_bps": scene.uplink_bps,
        "eligible": sources.eligible,
        "reason": ["as placed"] * n,
        "up": [True] * n,
        "stay": sources.survival,
        "survival": sources.survival,
    }
    reachable = {
        "location": ["here"] * n,
        "source": sources.source,
        "rtt_ms": np.full(n, 10.0, dtype=np.float32),
        "distance_km": np.ones(n, dtype=np.float32),
    }
    known, paths = pa.table(columns, schema=SOURCES_SCHEMA), pa.table(reachable, schema=PATHS_SCHEMA)
    here = np.array(["here", "here"], dtype=object)
    ranked = ranked_sources(
        SourceDirectory(placements, known, paths), problem.segments.content, problem.segments.segment, here,
        RoutingSettings(),
    )  # fmt: skip
    written = {"placements": placements, "routes": routes, "sources": known, "paths": paths, "ranked": ranked}
    return written | problem_tables(problem, Listed.of(scene), prices_of(problem))


def prices_of(problem: PlacementProblem) -> Prices:
    """What a placement would have found."""
    return search_prices(problem).bound.prices


def manifest_of(problem: PlacementProblem, plan: Plan) -> dict[str, Any]:
    """A placement's manifest, as far as a rebalance reads it."""
    used = sorted(set(problem.sources.network.tolist()) - {-1})
    networks = np.array([f"net{code}" for code in used], dtype=object)
    return {
        "id": PLAN,
        "at_us": PLANNED_US,
        "at": iso(PLANNED_US),
        "horizon_hours": 24.0,
        "tables": NAME,
        "routing": plain(RoutingSettings()),
        "versions": {},
        "quality": "good",
        "reasons": [],
        "status": plan.status,
        "method": plan.method,
        "forecast": "by hand",
        "config": "by hand",
        "data": "by hand",
        "problem": problem_facts(problem, networks, prices_of(problem)),
    }
