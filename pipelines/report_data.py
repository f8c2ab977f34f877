"""Everything that a run report shows, as values.

Nothing is stored twice: totals, shares, savings, the ladder and the headline are worked out from these rows, so that
two places of the page cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator

from models.changes import Change
from models.charts import ReliabilityPoint
from models.churn.track import ChurnTrack
from models.maps import MapPop
from models.quantities import Estimate
from models.time_charts import BandSeries, StackedSeries
from pipelines.accounts import HourlyAccount
from pipelines.movement import Movement
from pipelines.saved_arrays import as_json, from_json

FORMAT = 2
"""Of what a replay saves. 1: no figures by hour, by audience and of the stop-loss."""

Role = Literal["ours", "reference", "baseline", "bound"]
"""ours: the method reported on; reference: CDN alone; bound: the clairvoyant row; baseline: every other method."""


def _track(value: Any) -> ChurnTrack | None:
    if value is None or isinstance(value, ChurnTrack):
        return value
    found: ChurnTrack = from_json(ChurnTrack, value)
    return found


SavedTrack = Annotated[ChurnTrack | None, PlainValidator(_track), PlainSerializer(as_json)]
"""What became of the devices, saved with its arrays as lists."""


@dataclass(frozen=True)
class Audience:
    """Requests for segments that were asked for so often at one place; what the mesh served, and what a cache could.

    Attributes:
        name: how often, such as "3 to 4".
        requested_bytes: bytes asked for.
        mesh_bytes: bytes that the mesh served.
        bound_bytes: bytes times (N - 1) / N: no more can be served by who fills after the first request.
    """

    name: str
    requested_bytes: float
    mesh_bytes: float
    bound_bytes: float


@dataclass(frozen=True)
class MethodRow:
    """What one method did with the same requests, devices and budgets.

    Attributes:
        name: as shown.
        net_avoided_share: tier-1 bytes avoided, less pushes and repairs, as a share of the bytes requested.
        captured_share: net avoided bytes over those of the clairvoyant row; None where that row is missing.
        served_bytes: from tier 1, tier 2, tier 3.
        pushed_bytes: pushes and repairs.
        wasted_bytes: pushed and never served.
        cost: delivery cost of the whole replay, in `ReportData.currency`.
        failed_share: of the requests; resumed_share: transfers that tier 1 finished.
        movement: what its plans moved, by day.
        key: the row's name in configurations, by which two runs are matched.
        hourly: its figures by hour; None in what older versions saved.
        captured_peak: captured share in the busiest hours alone.
        cause_bytes: (cause, bytes not served by the mesh for it), every cause.
        audiences: what it served by how many asked; empty where that was not counted.
    """

    name: str
    net_avoided_share: Estimate
    captured_share: Estimate | None
    served_bytes: tuple[float, float, float]
    pushed_bytes: float
    wasted_bytes: float
    cost: float
    latency_p50_ms: float
    latency_p95_ms: float
    failed_share: float
    resumed_share: float
    role: Role = "baseline"
    movement: Movement | None = None
    key: str = ""
    hourly: HourlyAccount | None = None
    captured_peak: Estimate | None = None
    cause_bytes: tuple[tuple[str, float], ...] = ()
    audiences: tuple[Audience, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the gate said; `reasons` carry number, interval and limit in words."""

    passed: bool
    reasons: tuple[str, ...]
    heading: str = ""


@dataclass(frozen=True)
class Cause:
    """Bytes not served from their best place for one cause, by hour, and what would help."""

    name: str
    bytes_by_hour: tuple[float, ...]
    what_would_help: str = ""
    champion_bytes: float | None = None

    @property
    def total_bytes(self) -> float:
        """Over all hours."""
        return sum(self.bytes_by_hour)


@dataclass(frozen=True)
class Causes:
    """All causes over the same hours; `events` are sentences on what happened when.

    `unserved_bytes` are those that the mesh did not serve, counted without regard to causes; None where not known.
    """

    start_us: int
    causes: tuple[Cause, ...]
    events: tuple[str, ...] = ()
    unserved_bytes: float | None = None

    def __post_init__(self) -> None:
        lengths = {len(c.bytes_by_hour) for c in self.causes}
        if len(lengths) > 1:
            raise ValueError(f"Expected causes over the same hours, got lengths {sorted(lengths)}.")

    @property
    def stack(self) -> StackedSeries:
        """The causes as a chart's series, in the order given."""
        names = tuple(c.name for c in self.causes)
        return StackedSeries(self.start_us, names, tuple(c.bytes_by_hour for c in self.causes))


@dataclass(frozen=True)
class PlanSummary:
    """One plan in figures and words.

    Attributes:
        subject: which plan, such as "Last plan of the replay, 7 March 2026, 23:00 UTC".
        copies_by_tier: (tier as shown, copies held).
        bytes_moved: pushed to sources that did not hold them.
        movement_budget_bytes: how much was allowed; None without limit.
        gap: (objective - bound) / objective; None where no bound is known.
        status: as the solver's plan says.
        binding: sentences on the limits that bind.
        facts: further (label, text) lines, such as what changes against the plan in force.
    """

    subject: str
    copies_by_tier: tuple[tuple[str, int], ...]
    bytes_moved: float
    movement_budget_bytes: float | None
    gap: float | None
    status: str
    binding: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """Where requests come from. Shown only when at least `minimum_users` people asked from there.

    Attributes:
        note: what makes it need a look, in words.
        flagged: whether it needs one.
        saved: money saved against the CDN alone; None where not known.
        saved_with_stop_loss: the same, had nothing been pushed or served while the stop-loss says off; None where the
            replay obeyed it.
        verdict: of the stop-loss, in words.
    """

    name: str
    latitude: float
    longitude: float
    bytes: float
    node_share: float
    users: int
    note: str = ""
    flagged: bool = False
    saved: float | None = None
    saved_with_stop_loss: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class ForecastPanel:
    """Forecast against outcome; `users` behind a single cell, None for a total over everything."""

    name: str
    series: BandSeries
    users: int | None
    unit: str = "requests an hour"


@dataclass(frozen=True)
class Metric:
    """A column of a model table."""

    name: str
    higher_is_better: bool
    digits: int = 3


@dataclass(frozen=True)
class ModelRow:
    """One model's metrics, in the order of the table's columns; None: not measured."""

    name: str
    values: tuple[float | None, ...]
    ours: bool = False


@dataclass(frozen=True)
class ModelTable:
    """Models side by side on the same data; the best value of each column is marked."""

    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[ModelRow, ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.metrics):
                raise ValueError(f"{row.name!r} has {len(row.values)} values for {len(self.metrics)} metrics.")

    def best(self, column: int) -> float | None:
        """The best known value of a column."""
        known = [v for row in self.rows if (v := row.values[column]) is not None]
        return (max if self.metrics[column].higher_is_better else min)(known, default=None)


@dataclass(frozen=True)
class Repeat:
    """What somebody needs to get the same page again."""

    command: str
    data_hash: str
    code_commit: str
    config_hash: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything shown. What is empty is left out, with the sentence in `missing` or a default saying why.

    Attributes:
        title: small line above the headline: what this is a report of, and when.
        subtitle: what was replayed: days, requests, world.
        repeat: how to get the same page again.
        headline: one sentence with the outcome and its price; worked out from the rows when empty.
        measured, modelled: which parts of the world were observed and which follow a rule.
        brackets: what the intervals mean.
        methods: comparison rows in the order shown; one of role "ours".
        changes: candidate against champion, for a review.
        forecasts: the total first.
        devices: forecasts of the devices beside what became of them.
        quantile_reliability: stated quantile level against the share of outcomes at or below it.
        missing: section (a key of `report_layout.SECTIONS`) to the sentence that says why it is empty.
        minimum_users: places and cells behind which fewer people stand are not shown.
        stop_loss: sentence on the rule by which places are judged, and whether it was acted on.
        settings: every key of the run with its value, by which two runs are compared.
        format: what was saved; 1 for files of before formats were told apart.
    """

    title: str
    subtitle: str
    repeat: Repeat
    headline: str = ""
    verdict: Verdict | None = None
    measured: tuple[str, ...] = ()
    modelled: tuple[str, ...] = ()
    brackets: str = "Brackets: 95 % interval over days."
    currency: str = "€"
    methods: tuple[MethodRow, ...] = ()
    changes: tuple[Change, ...] = ()
    causes: Causes | None = None
    plan: PlanSummary | None = None
    places: tuple[Place, ...] = ()
    pops: tuple[MapPop, ...] = ()
    forecasts: tuple[ForecastPanel, ...] = ()
    devices: SavedTrack = None
    quantile_reliability: tuple[ReliabilityPoint, ...] = ()
    model_tables: tuple[ModelTable, ...] = ()
    limits: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    minimum_users: int = 20
    stop_loss: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    format: int = 1

    def __post_init__(self) -> None:
        roles = [m.role for m in self.methods]
        for role in ("ours", "reference", "bound"):
            if roles.count(role) > 1:
                raise ValueError(f"Expected at most one method of role {role!r}, got {roles.count(role)}.")
        if self.methods and "ours" not in roles:
            raise ValueError("Expected one method of role 'ours' among the methods compared.")
        if self.minimum_users < 1:
            raise ValueError(f"Expected minimum_users >= 1, got {self.minimum_users!r}.")

    def method(self, role: Role) -> MethodRow | None:
        """The method of this role, if there is one."""
        return next((m for m in self.methods if m.role == role), None)

    @property
    def shown_places(self) -> tuple[Place, ...]:
        """Places with enough people behind them, largest first."""
        kept = [p for p in self.places if p.users >= self.minimum_users]
        return tuple(sorted(kept, key=lambda p: (-p.bytes, p.name)))

    @property
    def shown_forecasts(self) -> tuple[ForecastPanel, ...]:
        """Totals, and cells with enough people behind them."""
        return tuple(f for f in self.forecasts if f.users is None or f.users >= self.minimum_users)
