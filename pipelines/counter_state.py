"""Counters as of an instant: gone on with from those that the last forecast left, or built anew from the whole log.

To go on is only allowed where it gives what building anew would give: the requests before the instant of the kept
counters must be, bit by bit, those that the counters were fed. A request that became known late, other tables, another
layout of the counters or a damaged file is noticed, and the counters are built anew with a note that says why.

Kept with the counters is what the demand model and its own prior lost on the hours just past, so that the trailing
comparison goes on as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.operation import TrailingSettings
from models.demand.samples import advance
from models.demand.trailing import HourLoss, Trailing, TrailingComparison
from models.errors import ArtefactError, ModelError
from models.events import RequestLog
from models.snapshot import load_counters_and_state, save_counters
from pipelines.jobs import iso

UNREADABLE = (ModelError, OSError, ValueError, LookupError, TypeError, RuntimeError)
"""What files that were cut short, changed or written by another version may raise."""


@dataclass(frozen=True)
class Counted:
    """Counters that hold every request before an instant.

    Attributes:
        store: the counters.
        at_us: the instant.
        digest: of the requests that they were fed.
        comparison: the demand model against its prior; None where the model is the prior.
        model_digest: of the demand model compared.
        went_on_from_us: instant of the counters gone on with; None where they were built anew.
        note: why they were built anew; empty where they were not, or where there was nothing to go on with.
    """

    store: CounterStore
    at_us: int
    digest: str
    comparison: TrailingComparison | None
    model_digest: str
    went_on_from_us: int | None
    note: str

    @property
    def trailing(self) -> Trailing | None:
        return None if self.comparison is None else self.comparison.judge(self.at_us)

    def told(self) -> dict[str, Any]:
        """For a manifest."""
        start_us = self.went_on_from_us
        return {"went_on_from": None if start_us is None else iso(start_us), "note": self.note}

    def save(self, folder: Path, *, version: str) -> None:
        """Writes what `count_until` can go on from, and for the service which version's prior answers, if it does."""
        trailing = self.trailing
        kept = self.comparison
        hours = [] if kept is None else [kept.scored[o] for o in kept.origins(self.at_us) if o in kept.scored]
        state = {
            "fed": {"until_us": self.at_us, "digest": self.digest},
            "trailing": {"model": self.model_digest, "hours": [list(astuple(hour)) for hour in hours]},
            "prior_answers_for": version if trailing is not None and trailing.fallback else "",
        }
        save_counters(folder, self.store, state=state)


def count_until(
    at_us: int,
    log: RequestLog,
    *,
    kept: Path,
    model: DemandForecaster,
    model_digest: str,
    settings: TrailingSettings,
) -> Counted:
    """Counters of every request before `at_us`, and the comparison of the model with its prior until then.

    Args:
        at_us: the instant.
        log: the requests known at it; none from then on.
        kept: folder of the counters that the last forecast left, if any.
        model: the demand model that will answer.
        model_digest: of the model; losses that were kept for another one are not used.
        settings: of the trailing comparison.
    """
    start, reason = _kept(kept, log, at_us=at_us, model=model, model_digest=model_digest, settings=settings)
    store, comparison, from_us = start or (CounterStore(), _comparison(model, settings), None)
    if comparison is None:
        for _ in advance(store, log, [at_us]):
            pass
    else:
        comparison.advance(store, log, at_us=at_us)
    note = f"the counters were built anew, because {reason}" if reason else ""
    return Counted(store, at_us, log_digest(log), comparison, model_digest, from_us, note)


_Start = tuple[CounterStore, TrailingComparison | None, int]


def _kept(
    folder: Path,
    log: RequestLog,
    *,
    at_us: int,
    model: DemandForecaster,
    model_digest: str,
    settings: TrailingSettings,
) -> tuple[_Start | None, str]:
    """What can be gone on with; else nothing, and the reason."""
    if not folder.exists():
        return None, ""
    try:
        store, state = load_counters_and_state(folder)
        fed, trailing = state.get("fed"), state.get("trailing")
        if fed is None or trailing is None:
            raise ArtefactError("they do not say which requests they were fed")
        until_us = int(fed["until_us"])
        hours = [HourLoss(*hour) for hour in trailing["hours"]] if trailing["model"] == model_digest else []
        reason = _unfit(store, str(fed["digest"]), until_us, log, at_us=at_us)
    except UNREADABLE as error:
        return None, f"the ones kept cannot be read: {error}"
    comparison = _comparison(model, settings)
    if comparison is not None and not reason:
        comparison.scored.update({hour.at_us: hour for hour in hours})
        if any(origin <= store.time_us for origin in comparison.missing(at_us)):
            reason = "the demand model and its prior have to be compared on hours that the ones kept have passed"
    return (None, reason) if reason else ((store, comparison, until_us), "")


def _unfit(store: CounterStore, digest: str, until_us: int, log: RequestLog, *, at_us: int) -> str:
    if until_us > at_us or store.time_us >= at_us:
        return f"the ones kept are of {iso(max(until_us, store.time_us))}, which is later than {iso(at_us)}"
    if store.settings != CounterStore().settings:
        return f"the ones kept have other settings: {asdict(store.settings)}"
    if log_digest(log.before(until_us)) != digest:
        return f"the requests before {iso(until_us)} are no longer those that the ones kept were fed"
    return ""


def _comparison(model: DemandForecaster, settings: TrailingSettings) -> TrailingComparison | None:
    return None if model.learned is None else TrailingComparison(model, settings)


def log_digest(log: RequestLog) -> str:
    """SHA-256 over everything that a log holds."""
    digest = hashlib.sha256()
    for field in fields(log):
        digest.update(field.name.encode())
        _add(digest, getattr(log, field.name))
    return digest.hexdigest()


def _add(digest: Any, value: object) -> None:
    if isinstance(value, np.ndarray) and value.dtype == object:
        # Lengths before the ids: ("ab", "c") is not ("a", "bc").
        ids = [str(one).encode() for one in value]
        digest.update(np.array([len(one) for one in ids], dtype=np.int64).tobytes() + b"".join(ids))
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(str(name).encode())
            _add(digest, value[name])
    else:
        digest.update(repr(value).encode())
