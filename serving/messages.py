"""Bodies of requests and answers; OpenAPI takes its documentation from here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_ID_LENGTH = 512
MAX_HISTORY = 200
MAX_FEATURES = 64
MAX_K = 1000
MAX_REPLICAS = 64

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Features = Annotated[dict[Id, Annotated[str, Field(max_length=MAX_ID_LENGTH)]], Field(max_length=MAX_FEATURES)]
K = Annotated[int, Field(ge=1, le=MAX_K)]


class Asked(BaseModel):
    """A request's body: unknown members are mistakes, so that a typo never asks for the default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class ModelVersion(Told):
    name: str = Field(description="Registered name.")
    version: str = Field(description="Version number in the registry.")


class Cell(Asked):
    content: Id
    location: Id


class DemandRequest(Asked):
    cells: list[Cell] = Field(min_length=1, description="What may be requested, and from where.")
    horizon_hours: int = Field(ge=1, description="Length of the window, in hours; one that the model was fitted for.")


class CellDemand(Told):
    """Requests of one cell in the window."""

    content: str
    location: str
    mean: float = Field(description="Expected requests.")
    p10: float = Field(description="Quantile 0.1 of the requests.")
    p50: float
    p90: float
    known: bool = Field(description="Whether the cell has a forecast of its own; mean 0 where not.")


class DemandAnswer(Told):
    model: ModelVersion
    as_of: datetime = Field(description="Start of the window: requests are known until here.")
    horizon_hours: int
    cells: list[CellDemand] = Field(description="In the order asked.")


class Session(Asked):
    """A session under way. Contents, places and values that the model never saw count as unknown."""

    history: list[Id] = Field(max_length=MAX_HISTORY, description="Contents so far, most recent last; may be empty.")
    location: Id
    earlier: list[Id] = Field(
        default=[],
        max_length=MAX_HISTORY,
        description="Contents of the visitor's sessions of the last day before this one, most recent last.",
    )
    features: Features = Field(
        default={},
        description="The device, by the columns that the model was trained with, for instance "
        '`{"device_group": "1", "os": "17"}`; unknown where one of them is not given.',
    )
    arrival: Features = Field(
        default={},
        description='How the session came to its last request, likewise, for instance `{"referrer": "2"}`.',
    )


class NextContentRequest(Asked):
    sessions: list[Session] = Field(min_length=1)
    k: K = Field(default=20, description="Contents to name for each session.")


class NextByLocationRequest(Asked):
    sessions: list[Session] = Field(min_length=1)
    k: K = Field(default=20, description="Contents of each session that are added up.")


class LikelyContent(Told):
    content: str
    probability: float = Field(description="What is missing to 1 over all named ones lies on other contents.")


class NextContentAnswer(Told):
    model: ModelVersion
    as_of: datetime
    sessions: list[list[LikelyContent]] = Field(description="In the order asked, each best first.")


class ExpectedNext(Told):
    content: str
    location: str
    expected: float = Field(description="Next requests expected: the sum of the probabilities of the sessions there.")


class NextByLocationAnswer(Told):
    model: ModelVersion
    as_of: datetime
    cells: list[ExpectedNext] = Field(description="Most expected first.")
    left_out: int = Field(description="Sessions from places that the model does not know; they are in no cell.")


class ChurnRequest(Asked):
    nodes: list[Id] | None = Field(default=None, description="Node ids; null for every known node.")


class Edge(Told):
    hours: float = Field(description="Hours after `as_of`.")
    survival: float = Field(description="P(up without a break until then).")
    availability: float = Field(description="P(up then), breaks allowed.")


class NodeChurn(Told):
    node: str
    known: bool = Field(description="False for a node without sessions: it has no edges.")
    up: bool
    edges: list[Edge]


class ChurnAnswer(Told):
    model: ModelVersion
    as_of: datetime
    nodes: list[NodeChurn]


class ReplicaSet(Asked):
    """Nodes that hold copies of the same thing."""

    nodes: list[Id] = Field(min_length=1, max_length=MAX_REPLICAS, description="Node ids, each once.")
    k: int = Field(default=1, ge=0, description="Nodes that must stay; at most as many as the set has.")


class JointChurnRequest(Asked):
    sets: list[ReplicaSet] = Field(min_length=1)
    hours: float = Field(gt=0, description="Hours after `as_of`; at most the last edge of the model.")


class JointChurn(Told):
    probability: float = Field(
        description="P(at least k stay up without a break), nodes of a network failing together."
    )
    independent: float = Field(description="The same if departures had nothing in common.")


class JointChurnAnswer(Told):
    model: ModelVersion
    as_of: datetime
    hours: float
    sets: list[JointChurn] = Field(description="In the order asked.")


class RouteRequest(Asked):
    content: Id
    segment: int = Field(ge=0, le=2**31 - 1)
    location: Id
    k: K = Field(default=8, description="Sources to name.")
    explain: bool = Field(default=False, description="Add each term of the scores, and every refused candidate.")


class Terms(Told):
    """What a score is made of; their sum is the score."""

    latency: float
    bandwidth: float
    health: float
    distance: float


class RankedSource(Told):
    rank: int
    source: str
    tier: int
    score: float
    terms: Terms | None = None
    latency_ms: float | None = None
    distance_km: float | None = None


class RejectedSource(Told):
    source: str
    tier: int
    reason: str


class RouteAnswer(Told):
    plan: str
    mode: Literal["literal", "normalised"]
    choice: str | None = Field(
        description="Where to send the request: a near-tie of the best, at random by free bandwidth; a small share of "
        "requests explores. null where no source is allowed."
    )
    sources: list[RankedSource] = Field(description="Best first.")
    rejected: list[RejectedSource] | None = Field(default=None, description="Only when explained.")
    assumptions: list[str] | None = Field(default=None, description="Only when explained: what is not measured yet.")


class ScoredRequest(Asked):
    content: Id
    segment: int = Field(ge=0, le=2**31 - 1)
    location: Id


class ScoreRequest(Asked):
    requests: list[ScoredRequest] = Field(min_length=1)


class ScoredSource(Told):
    request: int = Field(description="Row of the request, from 0.")
    rank: int = Field(description="1 for the best.")
    source: str
    score: float


class ScoreAnswer(Told):
    plan: str
    rows: list[ScoredSource]


class Placement(Told):
    content: str
    segment: int
    source: str
    tier: int
    bytes: int
    moved: bool


class PlacementPage(Told):
    total: int
    offset: int
    rows: list[Placement]


class PlanAnswer(Told):
    manifest: dict[str, Any]
    counts: dict[str, Any]
    placements: PlacementPage | None = None


class ModelReadiness(Told):
    answers: bool
    version: str | None = None
    confirmed: bool = Field(description="The registry named this version champion at the last look.")
    unreviewed: bool = Field(description="The alias was set by hand: the decision log names another version.")
    snapshot: str | None = Field(default=None, description="Where the counters or sessions come from.")
    as_of: datetime | None = None
    age_seconds: float | None = None
    notes: list[str]


class PlanReadiness(Told):
    answers: bool
    id: str | None = None
    quality: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    age_seconds: float | None = Field(default=None, description="Since the start of its window.")
    notes: list[str]


class RegistryReadiness(Told):
    reachable: bool
    message: str
    checked_at: datetime | None = None


class Readiness(Told):
    state: Literal["ready", "degraded", "not ready"]
    version: str = Field(description="Version of the service.")
    models: dict[str, ModelReadiness]
    plan: PlanReadiness
    registry: RegistryReadiness


class Alive(Told):
    alive: Literal[True] = True


class ProblemDetails(BaseModel):
    """RFC 9457; further members, such as `setting`, may follow."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = Field(default=None, description="Every mistake, for status 422.")
