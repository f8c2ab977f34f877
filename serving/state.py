"""What answers right now, as one value; a look at the registry and the home folder makes the next one.

Everything is loaded in full before the value is swapped by one assignment: a request sees the old state or the new one.
Whatever cannot be loaded leaves what answered before in place, with a note.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.artefact import MANIFEST as ARTEFACT_MANIFEST
from models.errors import ModelError
from models.registry import MODEL_NAMES
from models.snapshot import load_sessions
from serving.champions import Found, FreshCopy, FreshCounters, LoadedVersion, LocalCopies, RegistryView, RegistryWatch
from serving.predictor import ChurnAnswerer, DemandAnswerer, NextContentAnswerer, Origin
from serving.router import MANIFEST as PLAN_MANIFEST
from serving.router import PlanDamaged, PlanInForce
from serving.settings import ServiceSettings

KINDS = tuple(MODEL_NAMES)
_LOG = logging.getLogger("premirror.serving")
Stamp = tuple[int, int] | None
"""Inode and time of change of a file: another stamp means another file."""


@dataclass(frozen=True)
class Part:
    """One thing that answers.

    Attributes:
        answerer: None where nothing can answer.
        notes: what is missing or a fallback, in sentences.
        confirmed: a model: the registry named this version at the last look.
        unreviewed: a model: its alias was set by hand.
    """

    answerer: Any = None
    notes: tuple[str, ...] = ()
    confirmed: bool = False
    unreviewed: bool = False


@dataclass(frozen=True)
class ServiceState:
    """Everything that a request can ask, at one instant."""

    models: Mapping[str, Part] = field(default_factory=lambda: dict.fromkeys(KINDS, Part()))
    plan: Part = field(default_factory=Part)
    registry: RegistryView = field(default_factory=lambda: RegistryView(reachable=False, message="not looked at yet"))
    checked_us: int = 0

    @property
    def answers(self) -> bool:
        return self.plan.answerer is not None or any(part.answerer is not None for part in self.models.values())

    def same_answers(self, other: ServiceState) -> bool:
        """Whether the very same versions and plan answer in both."""
        pairs = [(self.plan, other.plan), *((self.models[kind], other.models[kind]) for kind in KINDS)]
        return all(mine.answerer is theirs.answerer for mine, theirs in pairs)

    @property
    def is_degraded(self) -> bool:
        parts = [self.plan, *self.models.values()]
        return not self.registry.reachable or any(p.answerer is None or p.notes or p.unreviewed for p in parts)


@dataclass
class _Kept:
    """A model between looks: the version, the answerer made of it, and the stamp of the state that went in."""

    version: LoadedVersion | None = None
    part: Part = field(default_factory=Part)
    stamp: Stamp = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Snapshot:
    """The forecast job's state of one sort, loaded once for every model that reads it."""

    stamp: Stamp
    value: Any = None
    note: str = ""


class Follower:
    """Makes states; not for several threads at once."""

    def __init__(self, settings: ServiceSettings) -> None:
        home = settings.home.expanduser().resolve()
        self._state = home / "state"
        self._plan = home / "plans" / "current"
        self._watch = RegistryWatch(settings.registry_uri)
        self._copies = LocalCopies(home / "models", self._watch)
        self._kept = {kind: _Kept() for kind in KINDS}
        self._plan_stamp: Stamp = None
        self._snapshots: dict[str, _Snapshot] = {}

    def look(self, last: ServiceState) -> ServiceState:
        """The state after one look; `last` where a part of it could not be renewed."""
        plan = self._look_at_plan(last.plan)
        view = self._watch.look()
        models = {kind: self._look_at_model(kind, view) for kind in KINDS}
        state = ServiceState(models, plan, view, time.time_ns() // 1000)
        _tell(last, state)
        return state

    # -- plan ---------------------------------------------------------------------------------------------------------

    def _look_at_plan(self, last: Part) -> Part:
        folder = self._plan.resolve()
        stamp = _stamp(folder / PLAN_MANIFEST)
        if stamp is None:
            if last.answerer is None:
                return Part()
            return Part(last.answerer, (f"plans/current is gone; plan {last.answerer.id} still answers",))
        if stamp == self._plan_stamp:
            return Part(last.answerer, () if last.answerer is not None else last.notes)
        try:
            plan = PlanInForce.load(folder)
        except PlanDamaged as error:
            return Part(last.answerer, (f"{error}",))
        self._plan_stamp = stamp
        return Part(plan)

    # -- models -------------------------------------------------------------------------------------------------------

    def _look_at_model(self, kind: str, view: RegistryView) -> Part:
        kept = self._kept[kind]
        found = self._copies.find(kind, view, kept.version)
        snapshot = self._snapshot(SNAPSHOT_OF[kind])
        if found.version is not None and (found.version is not kept.version or snapshot.stamp != kept.stamp):
            self._renew(kind, found, snapshot)
        answerer = kept.part.answerer
        is_this = answerer is not None and found.version is not None and answerer.origin.version == found.version.number
        notes = (*found.notes, *kept.notes)
        return Part(answerer, notes, found.confirmed and is_this, unreviewed=kind in view.unreviewed)

    def _renew(self, kind: str, found: Found, snapshot: _Snapshot) -> None:
        kept, version = self._kept[kind], found.version
        assert version is not None
        notes = [snapshot.note] if snapshot.note else []
        answerer = None
        if is_newer(snapshot.value, version):
            try:
                origin = Origin(MODEL_NAMES[kind], version.number, as_of_us(snapshot.value), "forecast job")
                answerer = BUILDERS[kind](version.model, snapshot.value, origin)
                if isinstance(snapshot.value, FreshCounters) and snapshot.value.set_aside(version.number):
                    notes.append(f"version {version.number} lost to its own prior lately, so its prior answers")
            except (ModelError, ValueError, KeyError) as error:
                notes.append(f"the forecast job's state does not fit version {version.number}: {error}")
        if answerer is None:
            try:
                origin = Origin(MODEL_NAMES[kind], version.number, as_of_us(version.seen), "trained with it")
                answerer = BUILDERS[kind](version.model, version.seen, origin)
            except (ModelError, ValueError, KeyError) as error:
                notes.append(f"version {version.number} cannot answer: {error}")
        if answerer is not None:
            kept.part = Part(answerer)
        kept.version, kept.stamp, kept.notes = version, snapshot.stamp, tuple(notes)

    def _snapshot(self, name: str) -> _Snapshot:
        folder = self._state / name
        stamp = _stamp(folder / ARTEFACT_MANIFEST)
        held = self._snapshots.get(name)
        if held is not None and held.stamp == stamp:
            return held
        if stamp is None:
            found = _Snapshot(None)
        else:
            try:
                found = _Snapshot(stamp, SNAPSHOTS[name](folder))
            except (ModelError, OSError, ValueError, KeyError) as error:
                found = _Snapshot(stamp, note=f"the forecast job's {name} cannot be read: {error}")
        self._snapshots[name] = found
        return found


def _demand(model: Any, seen: Any, origin: Origin) -> DemandAnswerer:
    if not isinstance(seen, FreshCounters):
        return DemandAnswerer(model, seen, origin)
    answering = model.prior_only() if seen.set_aside(origin.version) else model
    return DemandAnswerer(answering, seen.store, origin)


def _next_content(model: Any, seen: Any, origin: Origin) -> NextContentAnswerer:
    return NextContentAnswerer(seen.model if isinstance(seen, FreshCopy) else model, origin)


def _churn(model: Any, seen: Any, origin: Origin) -> ChurnAnswerer:
    return ChurnAnswerer(model, seen[0], origin)


BUILDERS: Mapping[str, Callable[[Any, Any, Origin], Any]] = {
    "demand": _demand,
    "next-content": _next_content,
    "churn": _churn,
}
SNAPSHOT_OF: Mapping[str, str] = {"demand": "counters", "next-content": "next-content", "churn": "sessions"}
"""What the forecast job keeps for a model; for next content, the version itself with a newer memory."""
SNAPSHOTS: Mapping[str, Callable[[Path], Any]] = {
    "counters": FreshCounters.load,
    "next-content": FreshCopy.load,
    "sessions": load_sessions,
}


def is_newer(snapshot: Any, version: LoadedVersion) -> bool:
    """Whether the forecast job's state is there, is for this version, and knows more than came with the version."""
    if snapshot is None or (isinstance(snapshot, FreshCopy) and snapshot.number != version.number):
        return False
    return as_of_us(snapshot) > as_of_us(version.seen)


def as_of_us(seen: Any) -> int:
    """The instant up to which a snapshot knows requests (counters, memory) or sessions."""
    return int(seen[1]) if isinstance(seen, tuple) else int(seen.time_us)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _tell(last: ServiceState, state: ServiceState) -> None:
    """One line a change, with versions and plan names only."""
    for kind in KINDS:
        new = state.models[kind].answerer
        if new is not last.models[kind].answerer:
            _LOG.info("%s version %s answers, %s", new.origin.name, new.origin.version, new.origin.snapshot)
    if state.plan.answerer is not last.plan.answerer:
        _LOG.info("plan %s is in force", state.plan.answerer.id)
    if state.registry.reachable != last.registry.reachable:
        _LOG.info("the registry %s", "answers" if state.registry.reachable else "is away")
