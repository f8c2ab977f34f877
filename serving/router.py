"""The plan in force, ready to rank sources.

Live telemetry does not reach the service yet: every source counts as idle and healthy, and a node is up if it was when
the plan was made. Plan folders are written by the placement job and checked against their checksums here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from placement.directory import SourceDirectory
from placement.routing import CandidateBatch, Explanation, RoutingSettings, choose, explain, score, top_k

MANIFEST = "manifest.json"
TABLES = ("placements", "sources", "paths", "routes", "ranked")
SCORED_AT_ONCE = 65_536
ASSUMPTIONS = (
    "bandwidth availability is 1 for every source: no live load is known",
    "health is 1 for every source: no live telemetry is known",
)


class PlanDamaged(ValueError):
    """A plan folder is incomplete or differs from its checksums."""


class Stopped(Exception):
    """Nobody waits for this batch any more."""


@dataclass(frozen=True)
class RouteQuestion:
    """One request to route."""

    content: str
    segment: int
    location: str
    k: int
    explain: bool


@dataclass(frozen=True)
class RankedSource:
    """A source that may serve the request, with what its score is made of when asked for."""

    source: str
    tier: int
    score: float
    parts: Explanation | None = None
    latency_ms: float | None = None
    distance_km: float | None = None


@dataclass(frozen=True)
class Rejected:
    """A candidate that a hard rule refused."""

    source: str
    tier: int
    reason: str


@dataclass(frozen=True)
class Route:
    """Sources for one request, best first.

    Attributes:
        choice: where to send the request: near-ties of the best at random by free bandwidth, a small share explores.
        sources: at most k, best first.
        rejected: every refused candidate; empty unless explained.
    """

    choice: str | None
    sources: list[RankedSource]
    rejected: list[Rejected]


class PlanInForce:
    """A loaded plan."""

    def __init__(self, manifest: dict[str, Any], tables: dict[str, pa.Table]) -> None:
        self.manifest = manifest
        self.placements = tables["placements"]
        self.directory = SourceDirectory(tables["placements"], tables["sources"], tables["paths"])
        self.routing = _routing(manifest)
        self.counts = _counts(tables)
        self._seeds = itertools.count(secrets.randbits(32))
        self._locations = frozenset(self.directory.locations)
        if self._locations:  # builds the indexes now rather than on the first request
            self.answer([RouteQuestion("", 0, next(iter(self._locations)), 1, False)])

    @classmethod
    def load(cls, folder: Path) -> PlanInForce:
        """Reads a finished plan.

        Raises:
            PlanDamaged: a file is missing, unreadable or not the one that the manifest describes.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for name in TABLES:
                _check(folder / f"{name}.parquet", manifest["checksums"])
            tables = {name: pq.ParquetFile(folder / f"{name}.parquet").read() for name in TABLES}
            return cls(manifest, tables)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise PlanDamaged(f"The plan {folder.name} cannot be used: {error}") from error

    @property
    def id(self) -> str:
        return str(self.manifest["id"])

    def unknown_locations(self, locations: Sequence[str]) -> list[tuple[int, str]]:
        """Place and name of every location that the plan does not know."""
        return [(i, name) for i, name in enumerate(locations) if name not in self._locations]

    def known_locations(self) -> str:
        few = sorted(self._locations)[:3]
        return f"the plan knows {len(self._locations)}, such as {', '.join(map(repr, few))}"

    def answer(self, questions: Sequence[RouteQuestion]) -> list[Route]:
        """One route a question; every location must be known."""
        batch = self._candidates(
            [q.content for q in questions], [q.segment for q in questions], [q.location for q in questions]
        )
        scores = score(batch, self.routing)
        best, best_scores = top_k(batch, scores, max((q.k for q in questions), default=1))
        choices = choose(batch, scores, self.routing, seed=next(self._seeds))
        ranked, values = best.numpy(), best_scores.numpy()
        return [
            self._explained(batch, r, question, choices[r])
            if question.explain
            else self._ranked(batch, ranked[r, : question.k], values[r], choices[r])
            for r, question in enumerate(questions)
        ]

    def score_table(self, asked: pa.Table, *, k: int, stop: Event) -> pa.Table:
        """The k best sources of each request: request (row of the input), rank, source, score.

        Args:
            asked: columns content, segment, location; every location known.
            k: most sources for each.
            stop: set when nobody waits any more.

        Raises:
            Stopped: `stop` was set.
        """
        parts = []
        for first in range(0, len(asked), SCORED_AT_ONCE):
            if stop.is_set():
                raise Stopped
            part = asked.slice(first, SCORED_AT_ONCE)
            parts.append(self._score_part(part, first, k))
        return pa.concat_tables(parts) if parts else SCORED_SCHEMA.empty_table()

    def _score_part(self, part: pa.Table, first: int, k: int) -> pa.Table:
        columns = [part[name].to_pylist() for name in ("content", "segment", "location")]
        batch = self._candidates(columns[0], columns[1], columns[2])
        best, scores = top_k(batch, score(batch, self.routing), k)
        request, rank = np.nonzero(best.numpy() >= 0)
        arrays = {
            "request": pa.array(request.astype(np.int64) + first),
            "rank": pa.array((rank + 1).astype(np.int32)),
            "source": pa.array(self.directory.source_ids[best.numpy()[request, rank]], pa.string()),
            "score": pa.array(scores.numpy()[request, rank]),
        }
        return pa.table(arrays, schema=SCORED_SCHEMA)

    def _candidates(self, contents: Sequence[str], segments: Sequence[int], locations: Sequence[str]) -> CandidateBatch:
        return self.directory.candidates(contents, segments, locations)

    def _ranked(self, batch: CandidateBatch, codes: Any, scores: Any, choice: int) -> Route:
        ids, tier = self.directory.source_ids, self.directory.tier
        sources = [
            RankedSource(str(ids[code]), int(tier[code]), float(value))
            for code, value in zip(codes, scores, strict=False)
            if code >= 0
        ]
        return Route(self._name(batch, choice), sources, [])

    def _explained(self, batch: CandidateBatch, r: int, question: RouteQuestion, choice: int) -> Route:
        ids, tier = self.directory.source_ids, self.directory.tier
        rows = range(int(batch.offsets[r]), int(batch.offsets[r + 1]))
        row_of = {int(batch.source[row]): row for row in rows}
        found = explain(batch, r, self.routing)
        sources = [
            RankedSource(
                str(ids[e.source]),
                int(tier[e.source]),
                e.score,
                e,
                float(batch.latency_ms[row_of[e.source]]),
                float(batch.distance_km[row_of[e.source]]),
            )
            for e in found
            if not e.rejection
        ]
        rejected = [Rejected(str(ids[e.source]), int(tier[e.source]), e.rejection) for e in found if e.rejection]
        return Route(self._name(batch, choice), sources[: question.k], rejected)

    def _name(self, batch: CandidateBatch, choice: int) -> str | None:
        return str(self.directory.source_ids[batch.source[choice]]) if choice >= 0 else None


SCORED_SCHEMA = pa.schema(
    [
        pa.field("request", pa.int64()),
        pa.field("rank", pa.int32()),
        pa.field("source", pa.string()),
        pa.field("score", pa.float64()),
    ]
)


def _routing(manifest: dict[str, Any]) -> RoutingSettings:
    """The weights that the plan was scored with, where its manifest holds them."""
    values: dict[str, Any] = dict(manifest.get("routing") or {})
    if "weights" in values:
        values["weights"] = tuple(values["weights"])
    return RoutingSettings(**values)


def _counts(tables: dict[str, pa.Table]) -> dict[str, Any]:
    placements, sources = tables["placements"], tables["sources"]
    tier = np.asarray(sources["tier"].to_numpy())
    usable = np.asarray(sources["eligible"].to_numpy() & sources["up"].to_numpy())
    tier_of = dict(zip(sources["source"].to_pylist(), tier.tolist(), strict=True))
    held = np.array([tier_of[name] for name in placements["source"].to_pylist()], dtype=np.int64)
    return {
        "copies": len(placements),
        "copies_by_tier": _by_tier(held),
        "segments": placements.group_by(["content", "segment"]).aggregate([]).num_rows,
        "contents": len(placements["content"].unique()),
        "sources": len(sources),
        "sources_by_tier": _by_tier(tier),
        "usable_by_tier": _by_tier(tier[usable]),
        "locations": len(tables["paths"]["location"].unique()),
        "routes": len(tables["routes"]),
        "ranked": len(tables["ranked"]),
    }


def _by_tier(tier: Any) -> dict[str, int]:
    return {str(number): int((tier == number).sum()) for number in (1, 2, 3)}


def _check(path: Path, checksums: dict[str, str]) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != checksums.get(path.name):
        raise ValueError(f"{path.name} differs from its checksum in {MANIFEST}")
