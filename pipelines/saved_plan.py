"""A plan's folder as a replay plays it: the copies that it names, held from its instant to the end.

Ids decide. A plan of other tables is refused with what they lack: its codes would fit, and mean something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.arena import Arena
from pipelines.backtest import PlanNote
from pipelines.config import ReplayRun
from pipelines.errors import InputError
from pipelines.jobs import iso, read_manifest
from pipelines.scene import Bool, Float64, Int64, Objects, Scene
from pipelines.store import read_parquet
from placement.trace import Holdings

NAMED = 5
"""Ids that a refusal names of each kind."""


@dataclass(frozen=True)
class FixedPlan:
    """A plan that is played as it is.

    Attributes:
        name: its id.
        starts_us: when it took effect; what is played before has no plan.
        holdings: in the scene's codes, from its instant or from the start of the replay, whichever is later.
        note: its figures.
    """

    name: str
    starts_us: int
    holdings: Holdings
    note: PlanNote

    @classmethod
    def read(cls, folder: Path, arena: Arena, run: ReplayRun) -> FixedPlan:
        """The plan of a folder under `plans`, checked against what is replayed.

        Raises:
            InputError: there is no plan, it is one of other tables, or it starts after the replay ends.
            ReplayError: a device could not store what it should hold.
        """
        folder = folder.resolve()
        manifest = read_manifest(folder)
        try:
            name, at_us, of_tables = str(manifest["id"]), int(manifest["at_us"]), str(manifest["tables"])
        except (KeyError, ValueError) as error:
            raise InputError(f"{folder} is no plan: its manifest lacks {error}. Give a folder under `plans`.") from None
        tables = {
            table: read_parquet(folder / f"{table}.parquet", table) for table in ("placements", "sources", "ranked")
        }
        mismatches = _mismatches(tables, arena.scene)
        if mismatches:
            subject = f"plan {name} of the tables '{of_tables}', which cannot be played on the tables '{run.tables}'"
            raise InputError.listing(subject, mismatches)
        if at_us >= arena.stretch.end_us:
            raise InputError(
                f"Plan {name} starts at {iso(at_us)}, but the replay ends at {iso(arena.stretch.end_us)}. "
                "Replay later days, or give an earlier plan."
            )
        holdings = _holdings(tables, arena.scene, start_us=max(at_us, arena.stretch.start_us))
        holdings.check(arena.world)
        return cls(name, at_us, holdings, _note(manifest, holdings, arena))


def _mismatches(tables: dict[str, pa.Table], scene: Scene) -> list[str]:
    """What the plan names and the tables lack, a sentence for each kind."""
    placements, ranked = tables["placements"], tables["ranked"]
    contents = _distinct(_ids(placements, "content"), _ids(ranked, "content"))
    problems = (
        _missing("sources", _distinct(_ids(placements, "source")), scene.source_codes),
        _missing("contents", contents, scene.catalogue.codes),
        _missing("locations", _distinct(_ids(ranked, "location")), scene.location_codes),
    )
    found = [problem for problem in problems if problem]
    return found or _cut_otherwise(placements, scene)


def _missing(what: str, ids: Objects, codes_of: Callable[[Objects], Int64]) -> str:
    lacking = ids[codes_of(ids) < 0]
    if len(lacking) == 0:
        return ""
    named = ", ".join(repr(name) for name in lacking[:NAMED])
    return f"{len(lacking):,} of its {len(ids):,} {what} are not there, such as {named}."


def _cut_otherwise(placements: pa.Table, scene: Scene) -> list[str]:
    """Segments that the tables do not cut so: beyond a content's last one, or of another size."""
    content = scene.catalogue.codes(_ids(placements, "content"))
    number = _numbers(placements, "segment")
    beyond = number >= scene.catalogue.n_segments[content]
    here = np.where(
        beyond, 0, scene.catalogue.sizes[scene.catalogue.first_segment[content] + np.where(beyond, 0, number)]
    )
    wrong = np.flatnonzero(beyond | (here != _numbers(placements, "bytes")))
    if len(wrong) == 0:
        return []
    row = int(wrong[0])
    size = "none" if beyond[row] else f"{int(here[row]):,} bytes"
    return [
        f"{len(wrong):,} of its copies are of segments that the tables cut otherwise, such as segment {int(number[row])} "
        f"of {placements['content'][row].as_py()!r}: {placements['bytes'][row].as_py():,} bytes in the plan, {size} here."
    ]


def _holdings(tables: dict[str, pa.Table], scene: Scene, *, start_us: int) -> Holdings:
    placements, sources, ranked = (tables[name] for name in ("placements", "sources", "ranked"))
    source = scene.source_codes(_ids(placements, "source"))
    known = scene.source_codes(_ids(sources, "source"))
    there = known >= 0
    survival: Float64 = np.ones(len(scene.source))
    survival[known[there]] = sources["survival"].to_numpy()[there]
    eligible: Bool = scene.is_pop.copy()
    eligible[known[there]] = sources["eligible"].to_numpy(zero_copy_only=False)[there]
    pairs = np.unique(
        np.column_stack((_segments(ranked, scene), scene.location_codes(_ids(ranked, "location")))), axis=0
    )
    return Holdings(
        start_us=start_us,
        segment=_segments(placements, scene).astype(np.int32),
        source=source.astype(np.int32),
        survival=survival[source],
        forecast_segment=pairs[:, 0].astype(np.int32),
        forecast_location=pairs[:, 1].astype(np.int32),
        eligible=eligible,
        names=tuple(scene.source.tolist()),
    )


def _note(manifest: dict[str, Any], holdings: Holdings, arena: Arena) -> PlanNote:
    """All copies on nodes are pushed anew: a replay begins with empty devices, in this row as in every other."""
    tier = arena.world.tier[holdings.source]
    counts = np.bincount(tier, minlength=4)
    return PlanNote(
        at_us=holdings.start_us,
        status=str(manifest.get("status", "")),
        copies_by_tier=(int(counts[1]), int(counts[2]), int(counts[3])),
        bytes_moved=int(arena.world.segment_bytes[holdings.segment[tier != 1]].sum()),
        movement_budget_bytes=None,
        objective=manifest.get("objective_millidollars"),
        gap=manifest.get("gap"),
        binding=tuple(manifest.get("binding", ())),
        method=str(manifest.get("method", "")),
    )


def _segments(table: pa.Table, scene: Scene) -> Int64:
    content = scene.catalogue.codes(_ids(table, "content"))
    return np.asarray(scene.catalogue.first_segment[content] + _numbers(table, "segment"), dtype=np.int64)


def _ids(table: pa.Table, name: str) -> Objects:
    return np.asarray(table[name].to_pylist(), dtype=object)


def _distinct(*ids: Objects) -> Objects:
    """Each id once, in order."""
    return np.array(sorted(set(np.concatenate(ids).tolist())), dtype=object)


def _numbers(table: pa.Table, name: str) -> Int64:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)
