"""The models in use: the registry's champions, else the last good local copy, else what can be fitted from the data.

A job never stops for want of a model. What it fell back to, and why, is said in `Champion.reason` and ends up on the
forecast and on the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.settings import ChurnSettings
from models.demand.forecaster import DemandForecaster
from models.demand.settings import DemandSettings
from models.errors import ArtefactError, RegistryError
from models.events import DAY_US, RequestLog
from models.registry import MODEL_NAMES, Registry
from pipelines.home import Home

FALLBACK_DAYS = 4


@dataclass(frozen=True)
class Champion:
    """A model to forecast with.

    Attributes:
        model: the forecaster.
        version: version number in the registry, `last good` copy's number, or `none`.
        reason: why this is a fallback; empty where the champion itself answers.
    """

    model: Any
    version: str
    reason: str = ""


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

    def _find(self, kind: str, load: Callable[..., Any], fitted: Callable[[], Any], last_resort: str) -> Champion:
        folder = self._home.local_model(MODEL_NAMES[kind])
        reason = self._away
        if self._registry is not None:
            try:
                version = self._registry.download(kind, "champion", folder)
                (folder / "version").write_text(version.version + "\n", encoding="utf-8")
                return Champion(load(folder / "model"), version.version)
            except (RegistryError, ArtefactError) as error:
                reason = str(error)
        try:
            model = load(folder / "model")
            number = (folder / "version").read_text(encoding="utf-8").strip()
            return Champion(model, number, f"{MODEL_NAMES[kind]}: last good local copy, because {reason}")
        except (ArtefactError, OSError):
            return Champion(fitted(), "none", f"{MODEL_NAMES[kind]}: {last_resort}, because {reason}")
