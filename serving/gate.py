"""What every request passes first: the Host check, the body limit, and the last net under our own bugs."""

from __future__ import annotations

import logging
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import Problem, too_large
from serving.settings import ServiceSettings, is_loopback

ARROW_STREAM = "application/vnd.apache.arrow.stream"
_LOG = logging.getLogger("premirror.serving")


class Gate:
    """ASGI middleware.

    A page on the internet can give its own name the address 127.0.0.1 and then reach this service from the browser of
    whoever looks at it (DNS rebinding); its name in the Host header gives it away.
    """

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            limited = self._admitted(scope, receive)
            await self._app(scope, limited, sending)
        except Problem as problem:
            if not started:
                await problem.response()(scope, receive, send)
        except Exception as error:  # the message may hold ids, so only the place goes to the log
            _LOG.error("%s at %s", type(error).__name__, _place(error))
            if started:
                raise
            await _bug().response()(scope, receive, send)

    def _admitted(self, scope: Scope, receive: Receive) -> Receive:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = host_name(headers.get("host", ""))
        if not is_loopback(host):
            raise Problem(
                421,
                f"The Host header names {host!r}; this service answers to localhost, 127.0.0.1 and [::1] only.",
                kind="wrong-host",
                title="Wrong host",
            )
        is_arrow = headers.get("content-type", "").partition(";")[0].strip().lower() == ARROW_STREAM
        setting = "max_arrow_bytes" if is_arrow else "max_body_bytes"
        limit_bytes: int = getattr(self._settings, setting)
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit_bytes:
            raise too_large(limit_bytes, setting)
        return _counted(receive, limit_bytes, setting)


def _counted(receive: Receive, limit_bytes: int, setting: str) -> Receive:
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit_bytes:
            raise too_large(limit_bytes, setting)
        return message

    return receiving


def host_name(header: str) -> str:
    """The host of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def _bug() -> Problem:
    return Problem(
        500, "This is a bug of the service. Its log names the place.", kind="bug", title="The service failed"
    )


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
