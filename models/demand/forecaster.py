"""Demand forecasters: counters in, a validated `DemandForecast` out.

`CellForecaster` is what every method shares: find the cells, observe them, give each a mean and a dispersion, add the
remainder of each location. `DemandForecaster` is the model itself, prior and residual networks; without networks it is
the prior alone, which is also what answers when trained weights are missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.artefact import load_artefact, save_artefact
from models.counters import CounterStore
from models.demand.cells import CellState, observe
from models.demand.features import base_feature_names, base_features
from models.demand.law import CountLaw
from models.demand.network import InputScale, ResidualEnsemble, network_inputs
from models.demand.prior import DemandPrior
from models.demand.remainder import Remainder
from models.demand.settings import DemandSettings
from models.errors import ArtefactError
from models.events import Float64
from models.forecast import DemandForecast

KIND = "demand"
FORMAT = 1


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

    def forecast(self, store: CounterStore, *, at_us: int, horizon_hours: int) -> DemandForecast:
        """Forecasts [at, at + horizon) from the requests the store was fed, all earlier than `at_us`.

        Raises:
            ValueError: the horizon was not fitted, or the counters have other half-lives than in training.
            LogOrderError: the store holds requests later than `at_us`.
        """
        self.settings.horizon_index(horizon_hours)
        state = observe(store, at_us=at_us, settings=self.settings)
        return self.forecast_state(state, store, horizon_hours=horizon_hours)

    def forecast_state(self, state: CellState, store: CounterStore, *, horizon_hours: int) -> DemandForecast:
        """The same from cells observed already: many methods can share one observation."""
        mean, dispersion = self.law(state, horizon_hours)
        return DemandForecast(
            origin_us=state.at_us,
            horizon_hours=float(horizon_hours),
            content=state.content,
            location=state.location,
            mean=mean,
            dispersion=dispersion,
            other_mean=self.remainder.mean(state.places, store.locations, horizon_hours),
            contents=store.contents,
            locations=store.locations,
        )

    @abstractmethod
    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        """Mean and dispersion of each cell over the horizon, both shape (n,)."""


class DemandForecaster(CellForecaster):
    """Hawkes and Markov prior, corrected by residual networks where there are any.

    Attributes:
        prior: the prior's coefficients.
        laws: bias factor and fallback dispersion by horizon; the bias belongs to the prior or, with networks, to the
            corrected mean.
        network: residual networks; None for the prior alone.
    """

    def __init__(
        self,
        settings: DemandSettings,
        *,
        prior: DemandPrior,
        laws: list[CountLaw],
        remainder: Remainder,
        network: ResidualEnsemble | None = None,
        name: str = "hawkes-markov + network",
    ) -> None:
        super().__init__(name, settings, remainder)
        self.prior = prior
        self.laws = laws
        self.network = network

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        index = self.settings.horizon_index(horizon_hours)
        prior_mean = self.prior.mean(state, horizon_hours)
        if self.network is None:
            mean = self.laws[index].mean(prior_mean)
            return mean, self.laws[index].dispersion(mean)
        growth = np.log(state.places.seasonal_growth(horizon_hours))[state.location]
        inputs = network_inputs(base_features(state), growth, prior_mean)
        residual, log_dispersion = self.network.correct(inputs, index)
        return self.laws[index].mean(prior_mean * np.exp(residual)), np.exp(log_dispersion)

    def save(self, folder: Path, *, git_commit: str | None = None) -> None:
        """Writes the model as one artefact folder."""
        network = self.network
        state: dict[str, Any] = {
            "name": self.name,
            "prior": self.prior.to_state(),
            "laws": [law.to_state() for law in self.laws],
            "remainder": self.remainder.to_state(),
            "features": base_feature_names(self.prior.half_lives_hours),
            "members": 0 if network is None else len(network.members),
        }
        if network is not None:
            state["scale"] = {"centre": network.scale.centre.tolist(), "width": network.scale.width.tolist()}
        save_artefact(
            folder,
            kind=KIND,
            format=FORMAT,
            hyperparameters=asdict(self.settings),
            state=state,
            tensors={} if network is None else network.tensors(),
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
            if state["features"] != base_feature_names(prior.half_lives_hours):
                raise ValueError(f"it was trained on other inputs: {state['features']}")
            return cls(
                settings,
                prior=prior,
                laws=[CountLaw.from_state(values) for values in state["laws"]],
                remainder=Remainder.from_state(state["remainder"]),
                network=_load_network(settings, artefact.state, artefact.tensors),
                name=state["name"],
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"The demand model at {str(folder)!r} cannot be used: {error}") from error


def _load_network(settings: DemandSettings, state: Any, tensors: Any) -> ResidualEnsemble | None:
    if not state["members"]:
        return None
    scale = InputScale(np.array(state["scale"]["centre"]), np.array(state["scale"]["width"]), settings.input_limit_sd)
    ensemble = ResidualEnsemble.untrained(settings, scale, members=state["members"])
    for index, member in enumerate(ensemble.members):
        prefix = f"member_{index}."
        member.load_state_dict({name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)})
    return ensemble


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
