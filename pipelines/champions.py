"""The models in use: the registry's champions, else the last good local copy, else what can be fitted from the data.

A job never stops for want of a model. What it fell back to, and why, is said in `Champion.reason` and ends up on the
forecast and on the plan.

Next content goes on learning after training: its memory is fed what was requested since. Sessions and visitors are bare
numbers there, by order of first appearance in the tables, so those of another reading mean the same only where
everything before is the same. That is checked; where it fails, the sessions under way end and contents and locations,
which go by id, are counted on.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.artefact import MANIFEST
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.settings import ChurnSettings
from models.demand.forecaster import DemandForecaster
from models.demand.settings import DemandSettings
from models.errors import ArtefactError, LogOrderError, ModelError, RegistryError
from models.events import DAY_US, Ids, Int32, Int64, RequestLog
from models.next_content.memory import StreamMemory
from models.next_content.predictor import NextContentPredictor
from models.next_content.trail_memory import SESSION_KEY
from models.registry import MODEL_NAMES, Registry
from pipelines.errors import PipelineError
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.jobs import iso

FALLBACK_DAYS = 4
UNUSABLE = (ModelError, PipelineError, OSError, ValueError, KeyError, RuntimeError)
"""What a damaged copy, or tables that do not fit a model, may raise."""


@dataclass(frozen=True)
class Champion:
    """A model to forecast with.

    Attributes:
        model: the forecaster; None where nothing can stand in for it.
        version: version number in the registry, `last good` copy's number, or `none`.
        reason: why this is a fallback; empty where the champion itself answers.
        digest: SHA-256 of the saved model, files and settings; empty where it was not saved.
    """

    model: Any
    version: str
    reason: str = ""
    digest: str = ""


class Champions:
    """Finds champions, keeping a local copy of each for when the registry is away."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._registry: Registry | None = None
        self._away = ""
        try:
            self._registry = Registry(home.tracking_uri, home.artefact_root)
        except RegistryError as error:
            self._away = str(error)

    def demand(self, log: RequestLog, *, at_us: int) -> Champion:
        def fitted() -> DemandForecaster:
            from models.demand.training import fit_demand

            split_us = at_us - DAY_US
            model, _ = fit_demand(
                log.before(at_us),
                train=(split_us - (FALLBACK_DAYS - 1) * DAY_US, split_us),
                validation=(split_us, at_us),
                settings=DemandSettings(max_epochs=0),
                seed=0,
            )
            return model

        return self._find("demand", DemandForecaster.load, fitted, "the Hawkes-Markov prior fitted on recent days")

    def churn(self, history: SessionHistory, *, at_us: int) -> Champion:
        def fitted() -> ChurnForecaster:
            from models.churn.training import fit_tables

            start_us = int(history.start_us.min(initial=at_us - DAY_US))
            return fit_tables(history.before(at_us), train=(start_us, at_us), settings=ChurnSettings())

        return self._find("churn", ChurnForecaster.load, fitted, "the life table fitted on known sessions")

    def next_content(self) -> Champion:
        """The champion as it was trained; nothing else can answer for it."""
        return self._find("next-content", _load_next_content, lambda: None, "there is none to bring up to date")

    def _find(self, kind: str, load: Callable[..., Any], fitted: Callable[[], Any], last_resort: str) -> Champion:
        folder = self._home.local_model(MODEL_NAMES[kind])
        reason = self._away
        if self._registry is not None:
            try:
                return self._fetched(self._registry, kind, folder, load)
            except (RegistryError, ArtefactError) as error:
                reason = str(error)
        try:
            model = load(folder / "model")
            number = (folder / "version").read_text(encoding="utf-8").strip()
            why = f"{MODEL_NAMES[kind]}: last good local copy, because {reason}"
            return Champion(model, number, why, saved_digest(folder / "model"))
        except (ArtefactError, OSError):
            return Champion(fitted(), "none", f"{MODEL_NAMES[kind]}: {last_resort}, because {reason}")

    @staticmethod
    def _fetched(registry: Registry, kind: str, folder: Path, load: Callable[..., Any]) -> Champion:
        """The registry's version, which becomes the local copy once it could be loaded."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as beside:
            new = Path(beside) / "new"
            version = registry.download(kind, "champion", new).version
            (new / "version").write_text(version + "\n", encoding="utf-8")
            model = load(new / "model")
            if folder.exists():
                folder.rename(Path(beside) / "old")
            new.rename(folder)
        return Champion(model, version, digest=saved_digest(folder / "model"))


def saved_digest(saved: Path) -> str:
    """Of a saved model's manifest, which holds the checksum of every other file."""
    return hashlib.sha256((saved / MANIFEST).read_bytes()).hexdigest()


# ---- next content after training


def brought_up_to_date(champion: Champion, last: Path, inputs: Inputs, *, at_us: int) -> Champion:
    """The next-content champion with every request counted that was known before `at_us`, and none from then on.

    It goes on from the copy that the last forecast left in `last` where that is of the same version and older than
    `at_us`, else from the champion as it was trained. Whatever goes wrong leaves no model and says why.
    """
    if champion.model is None:
        return champion
    reasons = [champion.reason] if champion.reason else []
    name = MODEL_NAMES["next-content"]
    model = champion.model
    try:
        model = _last_copy(last, champion, at_us=at_us) or model
    except UNUSABLE as error:
        reasons.append(f"{name}: begun again from the champion, because the last copy cannot be read: {error}")
    try:
        if not feed(model, inputs, at_us=at_us):
            reasons.append(f"{name}: sessions under way were ended, because the tables number sessions anew")
    except UNUSABLE as error:
        model = None
        reasons.append(f"{name}: not brought up to date, because {error}")
    return Champion(model, champion.version, "; ".join(reasons))


def save_copy(folder: Path, copy: Champion) -> None:
    """Writes a model that was brought up to date, its version, and the newest request that it counted."""
    copy.model.save(folder)
    (folder / "version").write_text(copy.version + "\n", encoding="utf-8")
    (folder / "as_of").write_text(iso(copy.model.memory.time_us) + "\n", encoding="utf-8")


def _last_copy(folder: Path, champion: Champion, *, at_us: int) -> NextContentPredictor | None:
    if not folder.exists() or (folder / "version").read_text(encoding="utf-8").strip() != champion.version:
        return None
    copy = _load_next_content(folder)
    return copy if copy.memory.time_us < at_us and _same_networks(copy, champion.model) else None


def _same_networks(one: NextContentPredictor, other: NextContentPredictor) -> bool:
    """Whether the weights that never change are equal: a registry made anew counts its versions from 1 again."""
    mine, theirs = one.hybrid.state_dict(), other.hybrid.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _load_next_content(folder: Path) -> NextContentPredictor:
    try:
        return NextContentPredictor.load(folder)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ArtefactError(f"{str(folder)!r} does not hold what its format asks for ({error}).") from error


def feed(model: NextContentPredictor, inputs: Inputs, *, at_us: int) -> bool:
    """Feeds what was known before `at_us` and is newer than the model; answers whether sessions could go on.

    The tables are read from their start, as training did, so that codes by first appearance agree. Requests that are
    not newer than the model but became known only after it was fed are left out.

    Raises:
        LogOrderError: the model already knows requests from `at_us` on.
        InputError, TableError: the tables lack requests, or a column that the model reads.
    """
    memory = model.memory
    if memory.time_us >= at_us:
        raise LogOrderError(
            f"it already knows requests until {iso(memory.time_us)}, and a copy for {iso(at_us)} would know its own "
            "future. Give a later --at."
        )
    read = replace(inputs, features=model.device_features, event_features=model.arrival_features, catalogue=True)
    log = read.requests(at_us)
    first = int(np.searchsorted(log.ts_us, memory.time_us, side="right"))
    same = same_codes(memory, log.rows(0, first))
    if not same:
        memory.end_sessions()
    memory.update(log.rows(first, len(log)))
    return same


def same_codes(memory: StreamMemory, log: RequestLog) -> bool:
    """Whether the sessions and visitors that a memory holds bear the same codes in a log of what it was fed.

    Each is looked up by its code: its last request must be at the instant and of the content that the memory holds.
    One code that was inserted moves all later ones, and is noticed.
    """
    sessions, trails = memory.store.walks.sessions, memory.trails
    rows = sessions.rows_since(memory.time_us - memory.store.timeout_us)
    held = sessions.last_us[rows], memory.contents[sessions.items[rows, -1]]
    if not _are_last(log, log.session, sessions.index.keys[rows], held):
        return False
    visitor = np.full(len(log), -1, dtype=np.int32) if log.visitor is None else log.visitor
    unnamed = np.where(visitor < 0, log.session, np.int32(-1))
    keys, n = trails.index.keys, len(trails)
    for codes, rows, first in (
        (visitor, np.flatnonzero(keys < SESSION_KEY), 0),
        (unnamed, np.flatnonzero(keys >= SESSION_KEY), int(SESSION_KEY)),
    ):
        held = trails.last_us[:n][rows], memory.contents[trails.items[:n][rows, -1]]
        if not _are_last(log, codes, keys[rows] - first, held):
            return False
    return True


def _are_last(log: RequestLog, codes: Int32, keys: Int64, held: tuple[Int64, Ids]) -> bool:
    """Whether the last request of each of `keys` is at the instant and of the content held."""
    if not len(keys):
        return True
    row = np.full(int(max(codes.max(initial=-1), keys.max())) + 2, -1, dtype=np.int64)  # the last takes code -1
    row[codes] = np.arange(len(codes))
    last = row[keys]
    if bool(np.any(last < 0)):
        return False
    last_us, content = held
    return bool(np.all(log.ts_us[last] == last_us) and np.all(log.contents[log.content[last]] == content))
