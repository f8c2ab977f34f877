"""Which versions answer, how fresh they are, and what is missing or a fallback."""

from __future__ import annotations

import importlib.metadata
import time
from datetime import UTC, datetime
from typing import Any, Literal

from serving.messages import ModelReadiness, PlanReadiness, Readiness, RegistryReadiness
from serving.state import Part, ServiceState

STARTING = "The service has just started and is still loading; ask again in a few seconds."
TRAIN = (
    "Run `premirror train {kind}`, `premirror review {kind}` and `premirror promote {kind} --approver NAME`; the service "
    "takes the champion up by itself."
)
PLACE = "Run `premirror forecast` and `premirror place`; the service takes the plan up by itself."


def missing_model(state: ServiceState, kind: str) -> str:
    """Why a model does not answer, and what to run."""
    if not state.checked_us:
        return STARTING
    why = "; ".join(state.models[kind].notes)
    return f"No {kind} model can answer: {why}. {TRAIN.format(kind=kind)}"


def missing_plan(state: ServiceState) -> str:
    """Why there is no plan, and what to run."""
    if not state.checked_us:
        return STARTING
    why = "; ".join(state.plan.notes) or "none is in force"
    return f"There is no plan: {why}. {PLACE}"


def readiness(state: ServiceState) -> Readiness:
    now_us = time.time_ns() // 1000
    answering: Literal["ready", "degraded"] = "degraded" if state.is_degraded else "ready"
    return Readiness(
        state=answering if state.answers else "not ready",
        version=importlib.metadata.version("premirror"),
        models={kind: _model(state, kind, part, now_us) for kind, part in state.models.items()},
        plan=_plan(state, now_us),
        registry=RegistryReadiness(
            reachable=state.registry.reachable,
            message=state.registry.message,
            checked_at=instant(state.checked_us) if state.checked_us else None,
        ),
    )


def _model(state: ServiceState, kind: str, part: Part, now_us: int) -> ModelReadiness:
    if part.answerer is None:
        return ModelReadiness(
            answers=False, confirmed=False, unreviewed=part.unreviewed, notes=[missing_model(state, kind)]
        )
    origin = part.answerer.origin
    return ModelReadiness(
        answers=True,
        version=origin.version,
        confirmed=part.confirmed,
        unreviewed=part.unreviewed,
        snapshot=origin.snapshot,
        as_of=instant(origin.as_of_us),
        age_seconds=(now_us - origin.as_of_us) / 1e6,
        notes=list(part.notes),
    )


def _plan(state: ServiceState, now_us: int) -> PlanReadiness:
    part = state.plan
    if part.answerer is None:
        return PlanReadiness(answers=False, notes=[missing_plan(state)])
    manifest: dict[str, Any] = part.answerer.manifest
    at_us = int(manifest["at_us"])
    return PlanReadiness(
        answers=True,
        id=part.answerer.id,
        quality=manifest.get("quality"),
        start=instant(at_us),
        end=instant(at_us + round(float(manifest["horizon_hours"]) * 3.6e9)),
        age_seconds=(now_us - at_us) / 1e6,
        notes=[*part.notes, *manifest.get("reasons", [])],
    )


def instant(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC)
