"""The HTTP application: parse, call, answer.

Every answer names the model version or the plan that it comes from, and the instant up to which that knows the world.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pyarrow as pa
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from models.answers import AskedSession
from placement.routing import Explanation
from serving import messages as m
from serving.gate import ARROW_STREAM, Gate
from serving.metrics import Measured
from serving.predictor import (
    ChurnAnswerer,
    Columns,
    DemandAnswerer,
    DemandQuestion,
    NextContentAnswerer,
    NextContents,
    Origin,
    SessionsQuestion,
)
from serving.problems import MEDIA_TYPE, Problem, answer_problem, invalid, mistake, too_many_rows
from serving.readiness import instant, readiness
from serving.replicas import replicas_question
from serving.router import ASSUMPTIONS, PlanInForce, RankedSource, Route, RouteQuestion
from serving.service import Service
from serving.settings import ServiceSettings
from serving.streams import read_requests, write_table

DESCRIPTION = """Forecasts, routes and plans: what the registry's champions and the plan in force say.

Errors are problem details (RFC 9457). It answers this machine only."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": m.ProblemDetails, "content": {MEDIA_TYPE: {}}, "description": text}
    for status, text in {
        413: "The body is larger than the setting that `detail` names.",
        421: "The Host header names another machine.",
        422: "The request cannot be used; `errors` lists every mistake.",
        503: "Nothing can answer yet (`detail` says what to run), or too many requests wait.",
        504: "The time limit passed; `detail` names the setting.",
    }.items()
}
SCORE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ScoreRequest"}},
            ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application with its own service, which runs while the application's lifespan does."""
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Premirror",
        version=importlib.metadata.version("premirror"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    for kind in (Problem, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer_problem)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(Measured, metrics=service.metrics)
    _add_forecasts(app, service)
    _add_routes(app, service)
    _add_plan(app, service)
    _add_state(app, service)
    return app


def _add_forecasts(app: FastAPI, service: Service) -> None:
    limit = service.settings.max_rows

    @app.post("/v1/demand", responses=PROBLEMS, tags=["forecasts"])
    async def demand(asked: m.DemandRequest) -> m.DemandAnswer:
        """Requests expected of cells (content, location) from `as_of` on, with quantiles."""
        _check_rows(len(asked.cells), limit)
        model: DemandAnswerer = service.model("demand")
        if asked.horizon_hours not in model.horizons_hours:
            allowed = ", ".join(map(str, model.horizons_hours))
            text = f"Expected one of {allowed}, which the model was fitted for; got {asked.horizon_hours}."
            raise invalid([mistake("#/horizon_hours", text)])
        contents, locations = [c.content for c in asked.cells], [c.location for c in asked.cells]
        question = DemandQuestion(contents, locations, asked.horizon_hours)
        found = await service.within_limit(service.demand.ask(model, question))
        return m.DemandAnswer(
            **_origin(model.origin),
            horizon_hours=asked.horizon_hours,
            cells=_cells(contents, locations, found),
        )

    @app.post("/v1/next-content", responses=PROBLEMS, tags=["forecasts"])
    async def next_content(asked: m.NextContentRequest) -> m.NextContentAnswer:
        """The likeliest next contents of sessions under way."""
        model: NextContentAnswerer = service.model("next-content")
        question = _sessions_question(model, asked, limit)
        found = await service.within_limit(service.next_content.ask(model, question))
        return m.NextContentAnswer(**_origin(model.origin), sessions=[_likely(session) for session in found])

    @app.post("/v1/next-content:by-location", responses=PROBLEMS, tags=["forecasts"])
    async def next_by_location(asked: m.NextByLocationRequest) -> m.NextByLocationAnswer:
        """What sessions under way request next, and from where: their probabilities added up by content and location.

        Of each session its k likeliest contents count; what lies on others is missing from the sums. A session that
        ends requests nothing: multiply by the share of sessions that go on.
        """
        model: NextContentAnswerer = service.model("next-content")
        found = await service.in_bulk(model.by_location, _sessions_question(model, asked, limit))
        cells = zip(found.contents, found.locations, found.expected.tolist(), strict=True)
        return m.NextByLocationAnswer(
            **_origin(model.origin),
            cells=[m.ExpectedNext(content=c, location=p, expected=e) for c, p, e in cells],
            left_out=found.left_out,
        )

    @app.post("/v1/churn", responses=PROBLEMS, tags=["forecasts"])
    async def churn(asked: m.ChurnRequest) -> m.ChurnAnswer:
        """How long nodes stay, and whether they are there, at each edge of the horizon."""
        model: ChurnAnswerer = service.model("churn")
        n = len(model.forecast) if asked.nodes is None else len(asked.nodes)
        _check_rows(n * len(model.forecast.edges_hours), limit, what="rows (nodes x edges)")
        nodes = await service.in_bulk(_churn_nodes, model, asked.nodes)
        return m.ChurnAnswer(**_origin(model.origin), nodes=nodes)

    @app.post("/v1/churn:joint", responses=PROBLEMS, tags=["forecasts"])
    async def joint_churn(asked: m.JointChurnRequest) -> m.JointChurnAnswer:
        """Whether at least k nodes of each set stay until `hours`.

        Nodes of a network fail together more often than by chance: products of survivals promise too much.
        """
        model: ChurnAnswerer = service.model("churn")
        _check_rows(sum(len(asked_set.nodes) for asked_set in asked.sets), limit, what="nodes")
        question = await service.in_bulk(replicas_question, model, asked)
        together, apart = await service.in_bulk(model.at_least, question)
        sets = [
            m.JointChurn(probability=p, independent=q) for p, q in zip(together.tolist(), apart.tolist(), strict=True)
        ]
        return m.JointChurnAnswer(**_origin(model.origin), hours=asked.hours, sets=sets)


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/route", responses=PROBLEMS, tags=["routes"])
    async def route(asked: m.RouteRequest) -> m.RouteAnswer:
        """Sources for one request, best first. `explain` adds every term and every refused candidate."""
        plan = service.plan()
        _check_locations(plan, [asked.location], "#/location")
        question = RouteQuestion(asked.content, asked.segment, asked.location, asked.k, asked.explain)
        found = await service.within_limit(service.routes.ask(plan, question))
        return _route_answer(plan, found, explained=asked.explain)

    @app.post(
        "/v1/routes:score",
        responses={
            **PROBLEMS,
            200: {"content": {ARROW_STREAM: {}}, "description": "In the form that was asked in."},
            415: {"model": m.ProblemDetails, "content": {MEDIA_TYPE: {}}, "description": "Neither JSON nor Arrow."},
        },
        tags=["routes"],
        openapi_extra=SCORE_BODY,
        response_model=m.ScoreAnswer,
    )
    async def score(request: Request, k: Annotated[int, Query(ge=1, le=m.MAX_K)] = 4) -> Response:
        """The k best sources of many requests.

        An Arrow IPC stream with columns content, segment, location is answered by a stream with columns request (row
        of the input, from 0), rank, source, score; a small JSON body by the same rows as JSON.
        """
        plan = service.plan()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await request.body()
        if kind == ARROW_STREAM:
            asked = await service.in_bulk(lambda: read_requests(body, max_rows=service.settings.max_arrow_rows))
            _check_locations(plan, asked["location"].unique().to_pylist(), "#/location")
            table = await service.score(plan, asked, k=k)
            return Response(write_table(table), media_type=ARROW_STREAM, headers={"Premirror-Plan": plan.id})
        if kind != "application/json":
            raise Problem(415, f"Content-Type is {kind!r}; send application/json or {ARROW_STREAM}.", kind="wrong-form")
        asked = _scored_requests(body)
        _check_rows(len(asked) * k, service.settings.max_rows, what="rows (requests x k)")
        _check_locations(plan, asked["location"].to_pylist(), "#/requests/{}/location")
        table = await service.score(plan, asked, k=k)
        answer = m.ScoreAnswer(plan=plan.id, rows=[m.ScoredSource(**row) for row in table.to_pylist()])
        return Response(answer.model_dump_json(), media_type="application/json")


def _add_plan(app: FastAPI, service: Service) -> None:
    @app.get("/v1/plan", responses=PROBLEMS, tags=["plan"])
    async def plan(
        placements: bool = False,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1)] = 1000,
    ) -> m.PlanAnswer:
        """The plan in force: its manifest and counts; `placements=true` adds a page of them."""
        found = service.plan()
        page = None
        if placements:
            _check_rows(limit, service.settings.max_rows)
            rows = found.placements.slice(offset, limit).to_pylist()
            page = m.PlacementPage(total=len(found.placements), offset=offset, rows=[m.Placement(**r) for r in rows])
        return m.PlanAnswer(manifest=found.manifest, counts=found.counts, placements=page)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["state"])
    async def healthz() -> m.Alive:
        """The process is alive."""
        return m.Alive()

    @app.get("/readyz", responses={503: PROBLEMS[503]}, tags=["state"])
    async def readyz() -> m.Readiness:
        """Which versions answer, how fresh they are, what is missing; 503 when nothing can answer."""
        found = readiness(service.state)
        if found.state == "not ready":
            detail = " ".join([*found.plan.notes, *(note for model in found.models.values() for note in model.notes)])
            raise Problem(503, detail, kind="nothing-answers", title="Nothing can answer yet", members=dict(found))
        return found

    @app.get("/metrics", tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _check_rows(rows: int, limit: int, *, what: str = "rows") -> None:
    if rows > limit:
        raise too_many_rows(rows, limit, "max_rows", what=what)


def _check_locations(plan: PlanInForce, locations: list[str], pointer: str) -> None:
    unknown = plan.unknown_locations(locations)
    if unknown:
        known = plan.known_locations()
        raise invalid([mistake(pointer.format(i), f"There is no location {name!r}; {known}.") for i, name in unknown])


def _sessions_question(
    model: NextContentAnswerer, asked: m.NextContentRequest | m.NextByLocationRequest, limit: int
) -> SessionsQuestion:
    _check_rows(len(asked.sessions) * asked.k, limit, what="rows (sessions x k)")
    mistakes = []
    for member, known in (("features", model.feature_names), ("arrival", model.arrival_names)):
        names = ", ".join(known) or "none"
        mistakes += [
            mistake(
                f"#/sessions/{i}/{member}/{name}", f"The model knows no {name!r} here; it was trained with: {names}."
            )
            for i, session in enumerate(asked.sessions)
            for name in getattr(session, member)
            if name not in known
        ]
    if mistakes:
        raise invalid(mistakes)
    return SessionsQuestion([AskedSession(**dict(session)) for session in asked.sessions], asked.k)


def _origin(origin: Origin) -> dict[str, Any]:
    return {"model": m.ModelVersion(name=origin.name, version=origin.version), "as_of": instant(origin.as_of_us)}


def _cells(contents: list[str], locations: list[str], found: Columns) -> list[m.CellDemand]:
    names = ("content", "location", *found)
    rows = zip(contents, locations, *found.values(), strict=True)
    return [m.CellDemand(**dict(zip(names, row, strict=True))) for row in rows]


def _likely(found: NextContents) -> list[m.LikelyContent]:
    return [
        m.LikelyContent(content=content, probability=float(p))
        for content, p in zip(found.contents, found.probabilities, strict=True)
    ]


def _churn_nodes(model: ChurnAnswerer, nodes: list[str] | None) -> list[m.NodeChurn]:
    forecast = model.forecast
    rows = model.rows_of(nodes)
    names = forecast.nodes.tolist() if nodes is None else nodes
    return [_node(model, name, int(row)) for name, row in zip(names, rows, strict=True)]


def _node(model: ChurnAnswerer, name: str, row: int) -> m.NodeChurn:
    if row < 0:
        return m.NodeChurn(node=name, known=False, up=False, edges=[])
    forecast = model.forecast
    columns = (forecast.edges_hours.tolist(), forecast.survival[row].tolist(), forecast.availability[row].tolist())
    edges = [m.Edge(hours=h, survival=s, availability=a) for h, s, a in zip(*columns, strict=True)]
    return m.NodeChurn(node=name, known=True, up=bool(forecast.up[row]), edges=edges)


def _route_answer(plan: PlanInForce, found: Route, *, explained: bool) -> m.RouteAnswer:
    return m.RouteAnswer(
        plan=plan.id,
        mode=plan.routing.mode,
        choice=found.choice,
        sources=[_ranked(rank, source) for rank, source in enumerate(found.sources, 1)],
        rejected=[m.RejectedSource(**vars(r)) for r in found.rejected] if explained else None,
        assumptions=list(ASSUMPTIONS) if explained else None,
    )


def _ranked(rank: int, source: RankedSource) -> m.RankedSource:
    parts = source.parts
    return m.RankedSource(
        rank=rank,
        source=source.source,
        tier=source.tier,
        score=source.score,
        terms=_terms(parts) if parts is not None else None,
        latency_ms=source.latency_ms,
        distance_km=source.distance_km,
    )


def _terms(parts: Explanation) -> m.Terms:
    return m.Terms(latency=parts.latency, bandwidth=parts.bandwidth, health=parts.health, distance=parts.distance)


def _scored_requests(body: bytes) -> pa.Table:
    try:
        asked = m.ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from None
    rows = asked.requests
    return pa.table(
        {
            "content": pa.array([row.content for row in rows], pa.string()),
            "segment": pa.array([row.segment for row in rows], pa.int64()),
            "location": pa.array([row.location for row in rows], pa.string()),
        }
    )
