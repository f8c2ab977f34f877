"""A plan: which source holds which segment, and which share of each location's requests each copy will serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from placement.bound import Prices
from placement.errors import PlanError
from placement.problem import Bool, Float64, Int32, PlacementProblem

Status = Literal["optimal", "feasible", "infeasible"]

_PLACEMENTS: list[pa.Field[Any]] = [
    pa.field("content", pa.string(), nullable=False),
    pa.field("segment", pa.int32(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("tier", pa.int8(), nullable=False),
    pa.field("bytes", pa.int64(), nullable=False),
    pa.field("moved", pa.bool_(), nullable=False),
]
PLACEMENTS_SCHEMA = pa.schema(_PLACEMENTS)
_ROUTES: list[pa.Field[Any]] = [
    pa.field("content", pa.string(), nullable=False),
    pa.field("segment", pa.int32(), nullable=False),
    pa.field("location", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("share", pa.float64(), nullable=False),
]
ROUTES_SCHEMA = pa.schema(_ROUTES)


@dataclass(frozen=True)
class PlanRisk:
    """What a plan, and the plan for the mean alone, come to in drawn scenarios that chose neither.

    Attributes:
        scenarios: how many there were.
        level: the q of CVaR_q, the mean over the worst 1 - q of them.
        expected_cost: mean cost of the plan, in millidollars.
        cvar_bytes: bytes that no node serves, in the mean over the worst.
        mean_plan_cost: the same of the plan for the mean alone.
        mean_plan_cvar_bytes: and of its bytes.
    """

    scenarios: int
    level: float
    expected_cost: float
    cvar_bytes: float
    mean_plan_cost: float
    mean_plan_cvar_bytes: float


@dataclass(frozen=True)
class Plan:
    """Copies, flows and what is proven about them. Codes are those of the problem that the plan answers.

    Attributes:
        segment: segment of each copy; copies are sorted by (segment, source). (C,)
        source: source of each copy. (C,)
        moved: whether the copy must be pushed, because the source does not hold it yet. (C,)
        flow_segment: flows are sorted by (segment, location, source). (F,)
        flow_location: who asks. (F,)
        flow_source: who serves; POPs that hold everything appear here without a copy above. (F,)
        flow_share: expected share of the location's requests that the source serves, in (0, 1]; what is missing to
            1 comes from the origin. (F,)
        fallback_segment: segments that miss their availability target or their tier-1 copy.
        objective: expected cost over the horizon, in millidollars.
        bound: proven lower bound on the cost of any plan.
        gap: (objective - bound) / objective.
        status: optimal (gap within the asked one), feasible, or infeasible (see `reason`).
        reason: for an infeasible problem, the requirement that cannot be met and its least relaxation; else empty.
        binding: sentences that name the limits which bind.
        bytes_moved: bytes to push.
        method: the step of the ladder that found the plan.
        risk: its figures in scenarios, where any are drawn.
        prices: what proves the bound, for the next search to start from; None where no prices were searched.
    """

    segment: Int32
    source: Int32
    moved: Bool
    flow_segment: Int32
    flow_location: Int32
    flow_source: Int32
    flow_share: Float64
    fallback_segment: Int32
    objective: float
    bound: float
    gap: float
    status: Status
    reason: str
    binding: tuple[str, ...]
    bytes_moved: int
    method: str
    risk: PlanRisk | None = None
    prices: Prices | None = None

    def __post_init__(self) -> None:
        problems = _plan_problems(self)
        if problems:
            raise PlanError("The plan is not well formed:", problems)

    def to_arrow(self, problem: PlacementProblem) -> tuple[pa.Table, pa.Table]:
        """The placements table and the routes table, with ids in place of codes."""
        return self.placements(problem), self.routes(problem)

    def placements(self, problem: PlacementProblem) -> pa.Table:
        segments, sources = problem.segments, problem.sources
        columns = [
            segments.content[self.segment],
            segments.segment[self.segment],
            sources.source[self.source],
            sources.tier[self.source],
            segments.bytes[self.segment],
            self.moved,
        ]
        return _table(columns, PLACEMENTS_SCHEMA)

    def routes(self, problem: PlacementProblem) -> pa.Table:
        columns = [
            problem.segments.content[self.flow_segment],
            problem.segments.segment[self.flow_segment],
            problem.locations[self.flow_location],
            problem.sources.source[self.flow_source],
            self.flow_share,
        ]
        return _table(columns, ROUTES_SCHEMA)


@dataclass(frozen=True)
class PlanDiff:
    """What changes from one plan to the next, as placements tables (without `moved`)."""

    added: pa.Table
    dropped: pa.Table
    kept: pa.Table

    @property
    def added_bytes(self) -> int:
        return _total_bytes(self.added)

    @property
    def dropped_bytes(self) -> int:
        return _total_bytes(self.dropped)

    @property
    def kept_bytes(self) -> int:
        return _total_bytes(self.kept)


def diff(old: pa.Table, new: pa.Table) -> PlanDiff:
    """Copies that `new` adds to, drops from and keeps of `old`; both are placements tables, of any two problems."""
    keys = ["content", "segment", "source"]
    columns = [*keys, "tier", "bytes"]
    old, new = old.select(columns), new.select(columns)
    added = new.join(old.select(keys), keys, join_type="left anti")
    dropped = old.join(new.select(keys), keys, join_type="left anti")
    kept = new.join(old.select(keys), keys, join_type="left semi")
    order: list[tuple[str, Literal["ascending", "descending"]]] = [(key, "ascending") for key in keys]
    return PlanDiff(*(table.sort_by(order) for table in (added, dropped, kept)))


def _total_bytes(table: pa.Table) -> int:
    return int(np.asarray(table["bytes"]).sum())


def _table(columns: list[np.ndarray], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _plan_problems(plan: Plan) -> list[str]:
    problems = []
    for names in (
        ("segment", "source", "moved"),
        ("flow_segment", "flow_location", "flow_source", "flow_share"),
    ):
        lengths = {name: len(getattr(plan, name)) for name in names}
        if len(set(lengths.values())) > 1:
            problems.append(f"Lengths differ: {lengths!r}; expected them equal.")
    for name in ("objective", "bound", "gap"):
        if not np.isfinite(getattr(plan, name)):
            problems.append(f"Expected {name} to be finite, got {getattr(plan, name)!r}.")
    if plan.status not in ("optimal", "feasible", "infeasible"):
        problems.append(f"Expected status optimal, feasible or infeasible, got {plan.status!r}.")
    if (plan.status == "infeasible") != bool(plan.reason):
        problems.append(f"Expected a reason exactly when infeasible, got {plan.status!r} and {plan.reason!r}.")
    if bool(np.any(~(plan.flow_share > 0) | (plan.flow_share > 1 + 1e-9))):
        problems.append("Expected every flow_share in (0, 1].")
    return problems
