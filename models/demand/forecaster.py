"""Demand forecasters: counters in, a validated `DemandForecast` out.

`CellForecaster` is what every method shares: find the cells, observe them, give each a mean and a dispersion, add the
remainder of each location. `DemandForecaster` is the model itself, prior and residual networks; without networks it is
the prior alone, which is also what answers when trained weights are missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.artefact import load_artefact, save_artefact
from models.blocks import for_each_block
from models.counters import CounterStore
from models.demand.cells import CellObserver, CellState
from models.demand.features import base_feature_names, base_features
from models.demand.law import CountLaw
from models.demand.learned import LearnedResidual
from models.demand.network import network_inputs
from models.demand.prior import DemandPrior
from models.demand.remainder import Remainder
from models.demand.settings import DemandSettings
from models.errors import ArtefactError
from models.events import Float64
from models.forecast import DemandForecast

KIND = "demand"
FORMAT = 2
PRIOR_NAME = "hawkes-markov"


class CellForecaster(ABC):
    """A method that gives each cell a mean and a dispersion.

    Attributes:
        name: how reports call it.
        settings: cells and horizons.
        remainder: demand outside the cells.
    """

    def __init__(self, name: str, settings: DemandSettings, remainder: Remainder) -> None:
        self.name = name
        self.settings = settings
        self.remainder = remainder

    def forecast(self, store: CounterStore, *, at_us: int, horizon_hours: int, threads: int = 1) -> DemandForecast:
        """Forecasts [at, at + horizon) from the requests the store was fed, all earlier than `at_us`.

        Raises:
            ValueError: the horizon was not fitted, or the counters have other half-lives than in training.
            LogOrderError: the store holds requests later than `at_us`.
        """
        return self.forecasts(store, at_us=at_us, horizons_hours=(horizon_hours,), threads=threads)[horizon_hours]

    def forecasts(
        self, store: CounterStore, *, at_us: int, horizons_hours: Sequence[int] | None = None, threads: int = 1
    ) -> dict[int, DemandForecast]:
        """Forecasts of several horizons, all fitted ones by default, from one look at the counters.

        Cells are observed and forecast block by block: beside the store, only the forecasts themselves grow with
        their number. The answer does not depend on the number of threads.

        Raises:
            ValueError: a horizon was not fitted, the counters have other half-lives than in training, or fewer than
                one thread.
            LogOrderError: the store holds requests later than `at_us`.
        """
        wanted = self.settings.horizons_hours if horizons_hours is None else tuple(horizons_hours)
        for horizon_hours in wanted:
            self.settings.horizon_index(horizon_hours)
        observer = CellObserver(store, at_us=at_us, settings=self.settings)
        return self._forecasts(observer, store, at_us=at_us, horizons_hours=wanted, threads=threads)

    def forecast_state(self, state: CellState, store: CounterStore, *, horizon_hours: int) -> DemandForecast:
        """The same from cells observed already: many methods can share one observation."""
        return self._forecasts(state, store, at_us=state.at_us, horizons_hours=(horizon_hours,))[horizon_hours]

    def _forecasts(
        self,
        source: CellState | CellObserver,
        store: CounterStore,
        *,
        at_us: int,
        horizons_hours: Sequence[int],
        threads: int = 1,
    ) -> dict[int, DemandForecast]:
        mean, dispersion = np.empty((2, len(horizons_hours), len(source)))

        def forecast_block(block: slice) -> None:
            for index, law in enumerate(self.laws_of(source.rows(block), horizons_hours)):
                mean[index, block], dispersion[index, block] = law

        for_each_block(forecast_block, len(source), threads=threads)
        return {
            horizon_hours: DemandForecast(
                origin_us=at_us,
                horizon_hours=float(horizon_hours),
                content=source.content,
                location=source.location,
                mean=mean[index],
                dispersion=dispersion[index],
                other_mean=self.remainder.mean(source.places, store.locations, horizon_hours),
                contents=store.contents,
                locations=store.locations,
            )
            for index, horizon_hours in enumerate(horizons_hours)
        }

    def laws_of(self, state: CellState, horizons_hours: Sequence[int]) -> Iterator[tuple[Float64, Float64]]:
        """The laws of several horizons, one by one; a model may share what they have in common."""
        for horizon_hours in horizons_hours:
            yield self.law(state, horizon_hours)

    @abstractmethod
    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        """Mean and dispersion of each cell over the horizon, both shape (n,)."""


class DemandForecaster(CellForecaster):
    """log mu = log mu0 + (1 - w) f(x) + w g(x): a Hawkes and Markov prior, residual networks f, boosted trees g.

    Attributes:
        prior: the prior's coefficients.
        laws: bias factor and dispersion of the prior alone, by horizon.
        learned: what corrects the prior; None for the prior alone.
    """

    def __init__(
        self,
        settings: DemandSettings,
        *,
        prior: DemandPrior,
        laws: list[CountLaw],
        remainder: Remainder,
        learned: LearnedResidual | None = None,
        name: str = "hawkes-markov + network",
    ) -> None:
        super().__init__(name, settings, remainder)
        self.prior = prior
        self.laws = laws
        self.learned = learned

    def prior_only(self) -> DemandForecaster:
        """The same model without what was learned: what answers when the learned part cannot be trusted."""
        return DemandForecaster(
            self.settings, prior=self.prior, laws=self.laws, remainder=self.remainder, name=PRIOR_NAME
        )

    def prior_mean(self, state: CellState, horizon_hours: int) -> Float64:
        """Expected requests before any correction, shape (n,)."""
        return self.prior.mean(state, horizon_hours)

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        return next(self.laws_of(state, (horizon_hours,)))

    def laws_of(self, state: CellState, horizons_hours: Sequence[int]) -> Iterator[tuple[Float64, Float64]]:
        base = None if self.learned is None else base_features(state)
        for horizon_hours in horizons_hours:
            index = self.settings.horizon_index(horizon_hours)
            prior_mean = self.prior.mean(state, horizon_hours)
            if self.learned is None or base is None:
                mean = self.laws[index].mean(prior_mean)
                yield mean, self.laws[index].dispersion(mean)
                continue
            growth = np.log(state.places.seasonal_growth(horizon_hours))[state.location]
            yield self.learned.law(network_inputs(base, growth, prior_mean), prior_mean, index)

    def save(self, folder: Path, *, git_commit: str | None = None) -> None:
        """Writes the model as one artefact folder."""
        state: dict[str, Any] = {
            "name": self.name,
            "prior": self.prior.to_state(),
            "laws": [law.to_state() for law in self.laws],
            "remainder": self.remainder.to_state(),
            "features": base_feature_names(self.prior.half_lives_hours, self.settings.horizons_hours),
            "learned": None if self.learned is None else self.learned.to_state(),
        }
        save_artefact(
            folder,
            kind=KIND,
            format=FORMAT,
            hyperparameters=asdict(self.settings),
            state=state,
            tensors={} if self.learned is None else self.learned.tensors(),
            git_commit=git_commit,
        )

    @classmethod
    def load(cls, folder: Path) -> DemandForecaster:
        """Reads a saved model.

        Raises:
            ArtefactError: missing, damaged, of another kind or format, or with inputs this version does not compute.
        """
        artefact = load_artefact(folder, kind=KIND, format=FORMAT)
        state = artefact.state
        try:
            settings = DemandSettings(**{key: _tuple(value) for key, value in artefact.hyperparameters.items()})
            prior = DemandPrior.from_state(state["prior"])
            if state["features"] != base_feature_names(prior.half_lives_hours, settings.horizons_hours):
                raise ValueError(f"it was trained on other inputs: {state['features']}")
            learned = state["learned"]
            return cls(
                settings,
                prior=prior,
                laws=[CountLaw.from_state(values) for values in state["laws"]],
                remainder=Remainder.from_state(state["remainder"]),
                learned=None if learned is None else LearnedResidual.load(settings, learned, artefact.tensors),
                name=state["name"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"The demand model at {str(folder)!r} cannot be used: {error}") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
