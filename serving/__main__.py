"""`python -m serving`: the service on a loopback address, until Ctrl-C.

Settings come from the environment; see `serving.settings`. Exit codes: 0 or 130 after Ctrl-C, 2 for settings that cannot
be used, 75 where the port is taken.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from serving.settings import ServiceSettings, SettingsError

BAD_SETTINGS, TRY_LATER, INTERRUPTED = 2, 75, 130


def main() -> int:
    try:
        settings = ServiceSettings.from_environment(os.environ)
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return BAD_SETTINGS
    try:
        listening = listen(settings.host, settings.port)
    except OSError as error:
        print(
            f"Port {settings.port} of {settings.host} cannot be used: {error.strerror}. Choose another with "
            "PREMIRROR_PORT or --port.",
            file=sys.stderr,
        )
        return TRY_LATER
    try:
        return _serve(settings, listening)
    except KeyboardInterrupt:
        return INTERRUPTED


def listen(host: str, port: int) -> socket.socket:
    """A bound socket: the address is taken before the slow imports, and a free port is known at once."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _serve(settings: ServiceSettings, listening: socket.socket) -> int:
    import uvicorn

    from serving.app import create_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("premirror").setLevel(logging.INFO)
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        log_level="warning",
        access_log=False,  # queries may hold ids
        server_header=False,
        lifespan="on",
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    listening.listen(config.backlog)
    print(f"Premirror answers at http://{shown}:{port} (home {settings.home}). Ctrl-C stops it.", flush=True)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
