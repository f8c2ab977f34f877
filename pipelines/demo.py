"""The whole loop in one command: world, ingest, train, review, promote, forecast, place, replay, report."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from pipelines.config import DemoRun, load
from pipelines.console import Console
from pipelines.errors import GateRefused
from pipelines.home import Home

FILES = {"next-content": "next_content"}
MODELS = ("demand", "next-content", "churn")


def demo_step(run: DemoRun, home: Home, console: Console, *, folder: Path) -> tuple[dict[str, Any], str]:
    """Runs every step with the configurations that `run` names; their paths are relative to `folder`.

    A candidate that its gate refuses is promoted with an override that says so, so that the loop goes on; the decision
    log keeps that.
    """
    from pipelines.forecast import forecast_step
    from pipelines.place import place_step
    from pipelines.replay import replay_step
    from pipelines.review import promote_step, review_step
    from pipelines.steps import ingest_step, world_step
    from pipelines.train import train_step
    from pipelines.warmup import compiling

    seconds: dict[str, float] = {}
    values: dict[str, Any] = {}

    def settings(kind: str) -> Any:
        return load(kind, folder / getattr(run, FILES.get(kind, kind)), [])

    def done(name: str, answer: tuple[dict[str, Any], str]) -> None:
        values[name] = answer[0]
        seconds[name] = time.perf_counter() - began
        console.note(f"{name}: {answer[1].splitlines()[0]}")

    started = began = time.perf_counter()
    done("world", world_step(settings("world"), home, console))
    began = time.perf_counter()
    done("ingest", ingest_step(settings("ingest"), home, console))
    with compiling(folder / run.replay, home.root):
        for kind in MODELS:
            began = time.perf_counter()
            done(f"train {kind}", train_step(kind, settings(kind), home, console))
            began = time.perf_counter()
            done(f"review {kind}", review_step(kind, settings(kind), home, console))
            began = time.perf_counter()
            done(f"promote {kind}", _promote(promote_step, kind, home, run.approver))
    began = time.perf_counter()
    done("forecast", forecast_step(settings("placement"), home, console, at=""))
    began = time.perf_counter()
    done("place", place_step(settings("placement"), home, console, at="", dry_run=False))
    began = time.perf_counter()
    answer = replay_step(settings("replay"), home, console)
    done("replay", answer)
    total = time.perf_counter() - started
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    value = {
        "seconds": {name: round(s, 2) for name, s in seconds.items()},
        "total_seconds": round(total, 1),
        "peak_memory_gb": round(peak_gb, 2),
        "report": values["replay"]["report"],
        "rows": values["replay"]["rows"],
        "versions": values["replay"]["versions"],
    }
    steps = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items() if s >= 1)
    text = f"{answer[1]}\nThe loop took {total:.0f} s ({steps}); peak memory {peak_gb:.2f} GB."
    return value, text


def _promote(promote_step: Any, kind: str, home: Home, approver: str) -> tuple[dict[str, Any], str]:
    common = {"version": "candidate", "approver": approver}
    try:
        answer: tuple[dict[str, Any], str] = promote_step(kind, home, reason="", override=False, **common)
    except GateRefused:
        reason = "demonstration: the gate refused; promoted to show the loop"
        answer = promote_step(kind, home, reason=reason, override=True, **common)
        return answer[0], f"{answer[1]} (The gate had refused it; overridden for the demonstration.)"
    return answer
