"""Serving: requests per second and p99 of one route and one forecast over real loopback HTTP.

python -m benchmarks.serving HOME [requests] [connections]

HOME is a home folder with champions and a plan (`make demo` leaves one). The ceiling is a FastAPI application with one
route that answers `{}`, in the same kind of process, asked by the same client with the same bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fastapi
import numpy as np
import pyarrow.parquet as pq
import uvicorn
from fastapi import FastAPI

READY_WITHIN_SECONDS = 120.0


def empty() -> FastAPI:
    """The ceiling: nothing but the framework."""
    app = FastAPI()

    @app.post("/v1/{anything}")
    async def nothing() -> dict[str, str]:
        return {}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {}

    return app


@contextlib.contextmanager
def process(command: list[str], port: int, **environment: str) -> Iterator[int]:
    """A server in a process of its own, ready to answer."""
    server = subprocess.Popen([sys.executable, "-m", *command], env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(port)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def wait_until_ready(port: int) -> None:
    gives_up_at = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < gives_up_at:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
            return
        time.sleep(0.2)
    raise SystemExit("The server was not ready in time.")


async def ask(port: int, path: str, bodies: list[bytes], connections: int) -> tuple[float, np.ndarray]:
    """Seconds for all bodies over that many connections, and the seconds of each request."""
    waiting, taken = iter(bodies), []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in waiting:
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            started = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not answer.startswith(b"http/1.1 200"):
                raise SystemExit(f"{path} answered {answer.splitlines()[0]!r}.")
            await reader.readexactly(int(answer.partition(b"content-length: ")[2].split()[0]))
            taken.append(time.perf_counter() - started)
        writer.close()
        await writer.wait_closed()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(connections)))
    return time.perf_counter() - started, np.array(taken)


def measure(port: int, path: str, bodies: list[bytes], connections: int) -> tuple[float, float]:
    """Requests per second and p99 in milliseconds, after a tenth of the requests to warm up."""
    asyncio.run(ask(port, path, bodies[: len(bodies) // 10], connections))
    seconds, taken = asyncio.run(ask(port, path, bodies, connections))
    return len(bodies) / seconds, float(np.quantile(taken, 0.99)) * 1e3


def questions(home: Path, requests: int) -> dict[str, tuple[str, list[bytes]]]:
    """Bodies by what they are; contents and locations go round those of the plan in force."""
    ranked = pq.ParquetFile(home / "plans" / "current" / "ranked.parquet").read(["content", "segment", "location"])
    rows = list(itertools.islice(itertools.cycle(ranked.slice(0, 1000).to_pylist()), requests))
    cells = [{"content": row["content"], "location": row["location"]} for row in rows]
    several = [[cells[(i + j) % requests] for j in range(20)] for i in range(requests)]
    return {
        "route": ("/v1/route", [json.dumps(row).encode() for row in rows]),
        "route, explained": ("/v1/route", [json.dumps(row | {"explain": True}).encode() for row in rows]),
        "demand, 1 cell": ("/v1/demand", [json.dumps({"cells": [c], "horizon_hours": 1}).encode() for c in cells]),
        "demand, 20 cells": ("/v1/demand", [json.dumps({"cells": c, "horizon_hours": 1}).encode() for c in several]),
    }


def main(home: Path, requests: int = 2000, connections: int = 32) -> None:
    asked = questions(home, requests)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"fastapi {fastapi.__version__}, uvicorn {uvicorn.__version__}; {requests} requests, {connections} connections"
    )
    command = ["uvicorn", "benchmarks.serving:empty", "--factory", "--port", "8399", "--no-access-log"]
    with process([*command, "--log-level", "warning"], 8399) as port:
        ceiling = {name: measure(port, path, bodies, connections) for name, (path, bodies) in asked.items()}
    print(
        f"{'':<18} {'batch':>5} {'requests/s':>10} {'p99 ms':>7} {'of the ceiling':>14} {'ceiling/s':>9} {'p99 ms':>7}"
    )
    for size in ("64", "1"):
        environment = {"PREMIRROR_HOME": str(home), "PREMIRROR_PORT": "8398", "PREMIRROR_MAX_BATCH_SIZE": size}
        with process(["serving"], 8398, **environment) as port:
            for name, (path, bodies) in asked.items():
                rate, p99_ms = measure(port, path, bodies, connections)
                most, best_ms = ceiling[name]
                print(
                    f"{name:<18} {size:>5} {rate:>10.0f} {p99_ms:>7.1f} {rate / most:>14.0%} {most:>9.0f} {best_ms:>7.1f}"
                )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:4]))
