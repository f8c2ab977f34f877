"""The versions that should answer: the registry's alias `champion`, kept as a local copy for when the registry is away.

`<home>/models/<registered name>/` holds `kind`, `model/`, `counters/` or `sessions/` and `version`. A download is
loaded from beside that folder and takes its place only when it could be loaded.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.churn.forecaster import ChurnForecaster
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.errors import ModelError, RegistryError
from models.next_content.predictor import NextContentPredictor
from models.registry import MODEL_NAMES, Registry
from models.snapshot import load_counters, load_counters_and_state, load_sessions

CHAMPION = "champion"


@dataclass(frozen=True)
class LoadedVersion:
    """A version in memory.

    Attributes:
        number: its number in the registry.
        model: the forecaster or predictor.
        seen: its own snapshot: a counter store or memory, or sessions and the instant up to which they are known.
    """

    number: str
    model: Any
    seen: Any


@dataclass(frozen=True)
class FreshCopy:
    """A version of next content that the forecast job has fed what was requested since training."""

    number: str
    model: NextContentPredictor

    @property
    def time_us(self) -> int:
        return self.model.memory.time_us

    @classmethod
    def load(cls, folder: Path) -> FreshCopy:
        return cls((folder / "version").read_text(encoding="utf-8").strip(), NextContentPredictor.load(folder))


@dataclass(frozen=True)
class FreshCounters:
    """Counters of the forecast job, and the version whose prior answers because it lost to it lately.

    Attributes:
        store: the counters.
        prior_answers_for: a version number of demand; empty where the version itself answers.
    """

    store: CounterStore
    prior_answers_for: str

    @property
    def time_us(self) -> int:
        return self.store.time_us

    def set_aside(self, number: str) -> bool:
        """Whether the prior of this version answers in its place."""
        return bool(number) and self.prior_answers_for == number

    @classmethod
    def load(cls, folder: Path) -> FreshCounters:
        store, state = load_counters_and_state(folder)
        return cls(store, str(state.get("prior_answers_for", "")))


def _load_demand(folder: Path) -> tuple[Any, Any]:
    return DemandForecaster.load(folder / "model"), load_counters(folder / "counters")


def _load_next_content(folder: Path) -> tuple[Any, Any]:
    model = NextContentPredictor.load(folder / "model")
    return model, model.memory


def _load_churn(folder: Path) -> tuple[Any, Any]:
    return ChurnForecaster.load(folder / "model"), load_sessions(folder / "sessions")


LOADERS: Mapping[str, Callable[[Path], tuple[Any, Any]]] = {
    "demand": _load_demand,
    "next-content": _load_next_content,
    "churn": _load_churn,
}


@dataclass(frozen=True)
class RegistryView:
    """The registry at the last look.

    Attributes:
        reachable: whether it answered.
        message: why it did not.
        champions: version that the alias names, by kind; "" where there is none.
        unreviewed: kinds whose alias is not what the decision log says: somebody set it by hand.
    """

    reachable: bool
    message: str = ""
    champions: Mapping[str, str] = field(default_factory=dict)
    unreviewed: frozenset[str] = frozenset()


class RegistryWatch:
    """Looks at the aliases; reads the decision log only when an alias moved or is unreviewed."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._registry: Registry | None = None
        self._decided: dict[str, str] = {}

    def look(self) -> RegistryView:
        try:
            registry = self._connected()
            champions = {kind: registry.aliases(kind).get(CHAMPION, "") for kind in MODEL_NAMES}
            unreviewed = frozenset(kind for kind in MODEL_NAMES if self._is_unreviewed(registry, kind, champions[kind]))
        except RegistryError as error:
            return RegistryView(reachable=False, message=without_secrets(str(error)))
        return RegistryView(reachable=True, champions=champions, unreviewed=unreviewed)

    def download(self, kind: str, number: str, to: Path) -> None:
        self._connected().download(kind, number, to)

    def _connected(self) -> Registry:
        path = self._uri.removeprefix("sqlite:///")
        if path != self._uri and not Path(path).is_file():  # asking would make an empty database there
            raise RegistryError(f"There is no registry at {path}.")
        if self._registry is None:
            self._registry = Registry(self._uri, Path(path).with_name("mlflow"))
        return self._registry

    def _is_unreviewed(self, registry: Registry, kind: str, number: str) -> bool:
        if number and self._decided.get(kind) != number:
            # An observation says that somebody moved the alias; it does not approve it.
            records = registry.decisions(kind)
            decided = [r.to_version for r in records if r.state == "done" and r.action != "observed"]
            self._decided[kind] = decided[-1] if decided else ""
        return bool(number) and self._decided[kind] != number


@dataclass(frozen=True)
class Found:
    """What answers for one kind, and what a reader should know about it.

    Attributes:
        version: None where nothing can answer.
        confirmed: the registry named this version at the last look.
        notes: sentences on what is missing or a fallback.
    """

    version: LoadedVersion | None = None
    confirmed: bool = False
    notes: tuple[str, ...] = ()


class LocalCopies:
    """Last good copies under `<home>/models`."""

    def __init__(self, models: Path, watch: RegistryWatch) -> None:
        self._models = models
        self._watch = watch

    def find(self, kind: str, view: RegistryView, held: LoadedVersion | None) -> Found:
        """The champion; where it cannot be had, what is held already, else the last good copy."""
        name, wanted = MODEL_NAMES[kind], view.champions.get(kind, "")
        reason = "the registry is away" if not view.reachable else f"{name} has no alias champion in the registry"
        if wanted:
            try:
                return Found(self._version(kind, wanted, held), confirmed=True)
            except (ModelError, OSError, ValueError) as error:
                reason = f"version {wanted} cannot be loaded: {without_secrets(str(error))}"
        try:
            version = held or self._load_copy(kind)
        except (ModelError, OSError) as error:
            return Found(notes=(f"{reason}; no local copy ({without_secrets(str(error))})",))
        return Found(version, notes=(f"version {version.number} is the last good copy, because {reason}",))

    def _version(self, kind: str, wanted: str, held: LoadedVersion | None) -> LoadedVersion:
        if held is not None and held.number == wanted:
            return held
        try:
            copy = self._load_copy(kind, wanted)
        except (ModelError, OSError):
            return self._fetch(kind, wanted)
        return copy

    def _load_copy(self, kind: str, wanted: str = "") -> LoadedVersion:
        folder = self._models / MODEL_NAMES[kind]
        number = (folder / "version").read_text(encoding="utf-8").strip()
        if wanted and number != wanted:
            raise FileNotFoundError(f"the local copy is version {number}")
        return LoadedVersion(number, *LOADERS[kind](folder))

    def _fetch(self, kind: str, number: str) -> LoadedVersion:
        self._models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._models, prefix=".fetching-") as beside:
            folder = Path(beside) / "new"
            self._watch.download(kind, number, folder)
            (folder / "version").write_text(number + "\n", encoding="utf-8")
            loaded = LoadedVersion(number, *LOADERS[kind](folder))
            _take_place(folder, self._models / MODEL_NAMES[kind], aside=Path(beside) / "old")
        return loaded


def _take_place(folder: Path, target: Path, *, aside: Path) -> None:
    """Renames twice; what was there goes away with the temporary folder."""
    if target.exists():
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:  # the forecast job may have put its own copy there just now
        shutil.rmtree(folder, ignore_errors=True)


def without_secrets(text: str) -> str:
    """A message without the user and password of an address in it."""
    return re.sub(r"//[^/@\s'\"]*@", "//", text)


__all__ = [
    "CHAMPION",
    "Found",
    "FreshCopy",
    "LoadedVersion",
    "LocalCopies",
    "RegistryView",
    "RegistryWatch",
    "without_secrets",
]
