"""Errors as problem details (RFC 9457): one shape on every route, `application/problem+json`.

Problem (an HTTPException)
├── 400 body unreadable   ├── 413 body too large        ├── 421 wrong host
├── 404, 405              ├── 415 wrong content type    ├── 422 values wrong: `errors` lists every mistake
├── 500 our own bug       ├── 503 nothing to answer with, or too busy
└── 504 too slow
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from serving.settings import setting_name

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """An answer that says what is wrong and what to do; further members go out beside the standard ones."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "about:blank",
        title: str = "",
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.kind = kind if ":" in kind else f"urn:premirror:{kind}"
        self.title = title or HTTPStatus(status).phrase
        self.members = dict(members or {})

    def response(self) -> JSONResponse:
        standard = {"type": self.kind, "title": self.title, "status": self.status_code, "detail": self.detail}
        return JSONResponse(
            jsonable_encoder(standard | self.members), self.status_code, self.headers, media_type=MEDIA_TYPE
        )


def too_large(limit_bytes: int, setting: str) -> Problem:
    return Problem(
        413,
        f"The body is larger than {limit_bytes:,} bytes. Send less at once, or raise {setting_name(setting)}.",
        kind="body-too-large",
        title="The body is too large",
        members={"setting": setting_name(setting), "limit": limit_bytes},
    )


def too_many_rows(rows: int, limit: int, setting: str, *, what: str = "rows") -> Problem:
    return Problem(
        422,
        f"{rows:,} {what} were asked for, at most {limit:,} are answered at once. Ask in parts, or raise "
        f"{setting_name(setting)}.",
        kind="too-many-rows",
        title="Too many rows",
        members={"setting": setting_name(setting), "limit": limit, "errors": [mistake("#", f"{rows:,} {what}")]},
    )


def too_slow(limit_seconds: float) -> Problem:
    return Problem(
        504,
        f"No answer within {limit_seconds:g} s. Ask for less at once, or raise {setting_name('time_limit_seconds')}.",
        kind="too-slow",
        title="The time limit passed",
        members={"setting": setting_name("time_limit_seconds"), "limit": limit_seconds},
    )


def too_busy(limit: int) -> Problem:
    return Problem(
        503,
        f"{limit:,} requests wait for an answer already. Try again, or raise {setting_name('max_waiting')}.",
        kind="too-busy",
        title="Too many requests wait",
        members={"setting": setting_name("max_waiting"), "limit": limit},
        headers={"Retry-After": "1"},
    )


def nothing_answers(detail: str) -> Problem:
    return Problem(503, detail, kind="nothing-answers", title="Nothing can answer this yet")


def invalid(errors: Sequence[Mapping[str, str]]) -> Problem:
    """422 with every mistake; the detail is the first one."""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{errors[0]['pointer']}: {errors[0]['detail']}{more}"
    return Problem(422, detail, kind="invalid", title="The request cannot be used", members={"errors": list(errors)})


def mistake(pointer: str, detail: str) -> dict[str, str]:
    """One entry of `errors`: a JSON pointer into the body (or the query's parameter) and a sentence."""
    return {"pointer": pointer, "detail": detail}


def invalid_request(error: RequestValidationError) -> Problem:
    return invalid([mistake(_pointer(found["loc"]), str(found["msg"])) for found in error.errors()])


def _pointer(place: Sequence[Any]) -> str:
    where, rest = (str(place[0]), place[1:]) if place else ("body", ())
    path = "".join(f"/{part}" for part in rest)
    return f"#{path}" if where == "body" else f"{where}{path}"


async def answer_problem(request: Request, error: Exception) -> JSONResponse:
    """The one handler of every expected error."""
    if isinstance(error, Problem):
        return error.response()
    if isinstance(error, RequestValidationError):
        return invalid_request(error).response()
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()
    raise error
