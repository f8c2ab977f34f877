"""The problem that a plan answers, written beside it and read back: all that a rebalance starts from.

`plans/<id>/` holds `problem_segments`, `problem_demand` and `problem_sources` (room, uplink and survival as of the plan,
and what the tables said then), round trips in `paths`, the prices that prove its bound in `prices`, settings in the
manifest. A plan that is read back has been carried out: what it moved is held, and paid for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from models.errors import TableError
from pipelines.errors import ConfigError, InputError
from pipelines.jobs import file_digest
from pipelines.plan_prices import PRICES, SourcePrices
from pipelines.plan_state import PlanState, read_state
from pipelines.scene import Float64, Int32, Int64, Objects, Scene
from pipelines.store import read_parquet
from pipelines.typed import build, plain
from placement.bound import Prices, certify
from placement.check import flow_rows
from placement.copies import Copies
from placement.errors import PlacementError
from placement.flows import Flows
from placement.plan import Plan
from placement.problem import Demand, PlacementProblem, PlacementSettings, Segments, Sources
from placement.publish import Incumbent, cost_of, judged, published

PROBLEM_TABLES = ("problem_segments", "problem_demand", "problem_sources")
TABLES = ("placements", "routes", "sources", "paths", PRICES, *PROBLEM_TABLES)
NOBODY_MS = 1e6
"""Round trip to what is out of reach: it is never used."""


@dataclass(frozen=True)
class Listed:
    """What the tables said of each source when they were last compared with the plan. All are (N,).

    Attributes:
        listed: whether they named it at all.
        uplink_bps: infinite for POPs.
        consent_until_us: microseconds since 1970 UTC, -1 for no consent.
    """

    listed: npt.NDArray[np.bool_]
    uplink_bps: npt.NDArray[np.float64]
    consent_until_us: Int64

    @classmethod
    def of(cls, scene: Scene) -> Listed:
        return cls(np.ones(len(scene.source), dtype=np.bool_), scene.uplink_bps, scene.consent_until_us)


@dataclass(frozen=True)
class AnsweredPlan:
    """A plan with the problem that it answers, carried out.

    Attributes:
        tables: as written, by name.
        prices: of the sources, as far as the placement found them.
        networks: ids of the networks, by the problem's code.
    """

    folder: Path
    manifest: dict[str, Any]
    tables: dict[str, pa.Table]
    problem: PlacementProblem
    plan: Plan
    prices: Prices
    networks: Objects
    listed: Listed
    state: PlanState

    @property
    def horizon_hours(self) -> float:
        return float(self.manifest["horizon_hours"])


def problem_facts(problem: PlacementProblem, networks: Objects, prices: Prices) -> dict[str, Any]:
    """What the manifest keeps of a problem: the order of places and networks, settings, what a push is worth."""
    return {
        **SourcePrices.of(problem, prices).facts(),
        "locations": problem.locations.tolist(),
        "networks": networks.tolist(),
        "settings": plain(problem.settings),
    }


def problem_tables(problem: PlacementProblem, listed: Listed, prices: Prices) -> dict[str, pa.Table]:
    """What the plan's other tables do not hold of a problem and its prices, with ids in place of codes."""
    segments, demand, sources = problem.segments, problem.demand, problem.sources
    asked: dict[str, Any] = {
        "content": segments.content[demand.segment],
        "segment": segments.segment[demand.segment],
        "location": problem.locations[demand.location],
        "requests": demand.requests,
        "dispersion": problem.dispersion,
    }
    place = np.asarray([*problem.locations.tolist(), None], dtype=object)[sources.location]
    columns: dict[str, Any] = {
        "source": sources.source,
        "tier": sources.tier,
        "location": place,
        "network": sources.network,
        "storage_bytes": sources.storage_bytes,
        "uplink_bytes": sources.uplink_bytes,
        "survival": sources.survival,
        "egress_cost_per_gb": sources.egress_cost_per_gb,
        "eligible": sources.eligible,
        "lat": sources.lat,
        "lon": sources.lon,
        "listed": listed.listed,
        "listed_uplink_bps": listed.uplink_bps,
        "listed_consent_until_us": listed.consent_until_us,
    }
    pieces: dict[str, Any] = {"content": segments.content, "segment": segments.segment, "bytes": segments.bytes}
    tables = dict(zip(PROBLEM_TABLES, (_table(pieces), _table(asked), _table(columns)), strict=True))
    return {**tables, PRICES: SourcePrices.of(problem, prices).table()}


def read_answered(folder: Path, manifest: dict[str, Any]) -> AnsweredPlan:
    """A plan's folder as arrays.

    Raises:
        InputError: it is damaged, or names what its problem lacks; every mistake in a sentence.
    """
    mistakes = list(_damaged_files(folder, manifest))
    tables = _read_tables(folder, mistakes)
    state = _read_state(folder, mistakes)
    if mistakes or state is None:
        raise _refused(folder, mistakes)
    try:
        known = _prices(tables, manifest, mistakes)
        problem = _problem(tables, manifest, mistakes)
        prices = None if problem is None else known.for_problem(problem)
        plan = None if problem is None or prices is None else _plan(tables, manifest, problem, prices, mistakes)
    except PlacementError as error:
        raise _refused(folder, [*mistakes, *error.problems]) from None
    except ConfigError as error:
        raise _refused(folder, [*mistakes, *error.mistakes]) from None
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _refused(folder, [*mistakes, f"Its tables or its manifest lack something ({error!r})."]) from None
    if plan is None or problem is None or prices is None:
        raise _refused(folder, mistakes)
    networks = np.asarray([*manifest["problem"]["networks"], None], dtype=object)[:-1]
    return AnsweredPlan(folder, manifest, tables, problem, plan, prices, networks, _listed(tables), state)


def _refused(folder: Path, mistakes: list[str]) -> InputError:
    remedy = "Run `premirror forecast` and `premirror place` for a new plan; this one stays as it is."
    return InputError.listing(f"the plan in force, {folder}", [*mistakes[:-1], f"{mistakes[-1]} {remedy}"])


def _damaged_files(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    checksums = manifest.get("checksums")
    lacking = [key for key in ("id", "at_us", "horizon_hours", "tables", "method", "routing") if key not in manifest]
    if lacking:
        yield f"manifest.json lacks {', '.join(lacking)}."
    if not isinstance(checksums, dict) or not isinstance(manifest.get("problem"), dict):
        yield "It was written without the problem that it answers."
        return
    for name in sorted({*(f"{table}.parquet" for table in TABLES), *checksums}):
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing."
        elif name not in checksums or file_digest(path) != checksums[name]:
            yield f"{name} is not the file that the manifest describes: it was damaged or changed."


def _read_tables(folder: Path, mistakes: list[str]) -> dict[str, pa.Table]:
    tables = {}
    for name in TABLES:
        if not (folder / f"{name}.parquet").is_file():
            continue  # said already
        try:
            tables[name] = read_parquet(folder / f"{name}.parquet", name)
        except TableError as error:
            mistakes.extend(error.problems)
    return tables


def _read_state(folder: Path, mistakes: list[str]) -> PlanState | None:
    try:
        return read_state(folder)
    except InputError as error:
        mistakes.append(str(error))
        return None


def _prices(tables: dict[str, pa.Table], manifest: dict[str, Any], mistakes: list[str]) -> SourcePrices:
    """One price for each source of the problem."""
    names, found = _Names(tables, manifest, mistakes), SourcePrices.read(tables[PRICES], manifest["problem"])
    names.sources(tables[PRICES], PRICES)
    lacking = sorted({str(source) for source in names.source} - {str(source) for source in found.source})
    if lacking:
        few = ", ".join(map(repr, lacking[:3]))
        mistakes.append(f"{PRICES}.parquet has no row for {len(lacking)} of the problem's sources, such as {few}.")
    mistakes.extend(found.mistakes())
    return found


def _problem(tables: dict[str, pa.Table], manifest: dict[str, Any], mistakes: list[str]) -> PlacementProblem | None:
    """The problem with the plan's copies as what is held now; None where ids are unknown."""
    names, sources = _Names(tables, manifest, mistakes), tables["problem_sources"]
    demand, placements, pieces = tables["problem_demand"], tables["placements"], tables["problem_segments"]
    copies = Copies.sorted(names.segments(placements, "placements"), names.sources(placements, "placements"))
    asked = Demand(
        names.segments(demand, "problem_demand"),
        names.locations(demand, "problem_demand"),
        _floats(demand, "requests"),
        _floats(demand, "dispersion"),
    )
    rtt_ms, reach = _paths(tables["paths"], names)
    names.routes(tables["routes"])
    home = pd.Index(names.location).get_indexer(pd.Index(_objects(sources, "location")))
    if mistakes:
        return None
    return PlacementProblem(
        segments=Segments(_objects(pieces, "content"), _ints(pieces, "segment", np.int32), _ints(pieces, "bytes")),
        locations=names.location,
        sources=Sources(
            source=names.source,
            tier=_ints(sources, "tier", np.int8),
            location=home.astype(np.int32),
            network=_ints(sources, "network", np.int32),
            storage_bytes=_ints(sources, "storage_bytes"),
            uplink_bytes=_floats(sources, "uplink_bytes"),
            survival=_floats(sources, "survival"),
            egress_cost_per_gb=_floats(sources, "egress_cost_per_gb"),
            eligible=np.asarray(sources["eligible"].to_numpy(), dtype=np.bool_),
            lat=_floats(sources, "lat"),
            lon=_floats(sources, "lon"),
        ),
        demand=asked,
        rtt_ms=rtt_ms,
        reach=reach,
        current_segment=copies.segment,
        current_source=copies.source,
        settings=build(PlacementSettings, manifest["problem"]["settings"], source="manifest.json: problem.settings"),
    )


def _plan(
    tables: dict[str, pa.Table],
    manifest: dict[str, Any],
    problem: PlacementProblem,
    prices: Prices,
    mistakes: list[str],
) -> Plan | None:
    """The plan once more, judged, with nothing left to move and what its prices prove of that."""
    names, routes = _Names(tables, manifest, mistakes), tables["routes"]
    segment, location, source = names.routes(routes)
    asked = pd.MultiIndex.from_arrays([problem.demand.segment, problem.demand.location])
    row = asked.get_indexer(pd.MultiIndex.from_arrays([segment, location]))
    if (row < 0).any():
        mistakes.append(f"routes.parquet serves {int((row < 0).sum())} (segment, location) pairs that nobody asks for.")
        return None
    return _carried_out(problem, row, source, _floats(routes, "share"), str(manifest["method"]), prices)


def plan_again(problem: PlacementProblem, plan: Plan, prices: Prices) -> Plan:
    """The same copies and shares as an answer to a problem that has them as what is held now."""
    return _carried_out(problem, flow_rows(problem, plan), plan.flow_source, plan.flow_share, plan.method, prices)


def _carried_out(
    problem: PlacementProblem, row: Int64, source: Int32, share: Float64, method: str, prices: Prices
) -> Plan:
    order = np.lexsort((source, row))
    flows = Flows(row[order].astype(np.int64), source[order].astype(np.int32), share[order])
    copies = Copies(problem.current_segment, problem.current_source)
    kept = Incumbent(method, copies, flows, cost_of(problem, copies, flows))
    bound = certify(problem, prices, raise_rows=True, threads=problem.settings.threads)
    return judged(problem, published(problem, kept, bound, prices))


class _Names:
    """Codes of the ids in a plan's tables; what is unknown becomes a mistake, once for each table."""

    def __init__(self, tables: dict[str, pa.Table], manifest: dict[str, Any], mistakes: list[str]) -> None:
        self.location = np.asarray([*manifest["problem"]["locations"], None], dtype=object)[:-1]
        self.source = _objects(tables["problem_sources"], "source")
        self._pieces = _segment_index(tables["problem_segments"])
        self._mistakes = mistakes

    def routes(self, table: pa.Table) -> tuple[Int32, Int32, Int32]:
        """Segment, location and source of each route."""
        return self.segments(table, "routes"), self.locations(table, "routes"), self.sources(table, "routes")

    def segments(self, table: pa.Table, name: str) -> Int32:
        wanted = _segment_index(table)
        labels = [f"{content}#{number}" for content, number in wanted]
        return self._codes(self._pieces.get_indexer(wanted), labels, name, "segment")

    def sources(self, table: pa.Table, name: str) -> Int32:
        ids = _objects(table, "source")
        return self._codes(pd.Index(self.source).get_indexer(pd.Index(ids)), ids.tolist(), name, "source")

    def locations(self, table: pa.Table, name: str) -> Int32:
        ids = _objects(table, "location")
        return self._codes(pd.Index(self.location).get_indexer(pd.Index(ids)), ids.tolist(), name, "location")

    def _codes(self, codes: Any, labels: list[Any], table: str, kind: str) -> Int32:
        unknown = sorted({str(labels[at]) for at in np.flatnonzero(codes < 0)})
        if unknown:
            count = f"1 {kind}" if len(unknown) == 1 else f"{len(unknown)} {kind}s"
            few = ", ".join(map(repr, unknown[:3]))
            self._mistakes.append(f"{table}.parquet names {count} that its problem lacks, such as {few}.")
        return np.asarray(codes, dtype=np.int32)


def _paths(paths: pa.Table, names: _Names) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    place, source = names.locations(paths, "paths"), names.sources(paths, "paths")
    rtt_ms = np.full((len(names.location), len(names.source)), NOBODY_MS, dtype=np.float32)
    reach = np.zeros(rtt_ms.shape, dtype=np.bool_)
    known = (place >= 0) & (source >= 0)
    rtt_ms[place[known], source[known]] = paths["rtt_ms"].to_numpy()[known]
    reach[place[known], source[known]] = True
    return rtt_ms, reach


def _listed(tables: dict[str, pa.Table]) -> Listed:
    sources = tables["problem_sources"]
    listed = np.asarray(sources["listed"].to_numpy(), dtype=np.bool_)
    return Listed(listed, _floats(sources, "listed_uplink_bps"), _ints(sources, "listed_consent_until_us"))


def _segment_index(table: pa.Table) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([_objects(table, "content"), _ints(table, "segment")])


def _table(columns: dict[str, Any]) -> pa.Table:
    text = ("content", "source", "location")
    return pa.table({name: pa.array(v, pa.string() if name in text else None) for name, v in columns.items()})


def _objects(table: pa.Table, name: str) -> Objects:
    return np.asarray([*table[name].to_pylist(), None], dtype=object)[:-1]


def _ints(table: pa.Table, name: str, kind: Any = np.int64) -> Any:
    return np.asarray(table[name].to_numpy(), dtype=kind)


def _floats(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
