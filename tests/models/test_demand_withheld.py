"""A demand model that is told no transition: as much goes on as before, and nothing of from where to where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.counters import CounterStore
from models.demand.cells import CellState, observe
from models.demand.features import MARKOV_FEATURES, base_features
from models.demand.forecaster import DemandForecaster
from models.demand.samples import advance
from models.demand.withheld import TransitionBlindForecaster, withhold_transitions
from models.events import DAY_US
from pipelines.review import LOADERS
from pipelines.store import read_request_log
from tests.conftest import START_US, TinyHome

AT_US = START_US + 4 * DAY_US


@pytest.fixture(scope="module")
def model(tiny_home: TinyHome) -> DemandForecaster:
    loaded: DemandForecaster = LOADERS["demand"](tiny_home.artefact("demand"))
    return loaded


@pytest.fixture(scope="module")
def observed(tiny_home: TinyHome, model: DemandForecaster) -> tuple[CellState, CounterStore]:
    """The cells of the tiny world after four days."""
    store = CounterStore()
    for _ in advance(store, read_request_log(tiny_home.tables), [AT_US]):
        pass
    return observe(store, at_us=AT_US, settings=model.settings), store


def test_withhold_transitions__keeps_sums_and_changes_the_markov_inputs_alone(
    observed: tuple[CellState, CounterStore],
) -> None:
    """The level stays, so that what is lost is knowledge and not requests; all other inputs are what they were."""
    state, _ = observed
    blind = withhold_transitions(state)
    assert blind.flow.sum() == pytest.approx(state.flow.sum())
    assert (blind.content_flow * blind.share).sum() == pytest.approx((state.content_flow * state.share).sum())
    assert not np.allclose(blind.flow, state.flow)
    changed = np.flatnonzero((base_features(blind) != base_features(state)).any(axis=0))
    assert changed.tolist() == [base_features(state).shape[1] - n for n in (2, 1)]
    assert len(MARKOV_FEATURES) == 2


def test_blind_forecaster__does_not_hear_who_goes_where(
    model: DemandForecaster, observed: tuple[CellState, CounterStore]
) -> None:
    """The same sum of flow shuffled over the cells gives the same forecast; the model itself hears the difference."""
    state, store = observed
    blind = TransitionBlindForecaster.of(model)
    even = np.full(len(state), float((state.content_flow * state.share).sum()) / float(state.share.sum()))
    shuffled = replace(state, flow=state.flow[::-1], content_flow=even)
    means = [
        method.forecast_state(told, store, horizon_hours=6).mean
        for method in (blind, model)
        for told in (state, shuffled)
    ]
    assert means[0] == pytest.approx(means[1])
    assert not np.allclose(means[2], means[3])
    assert not np.allclose(means[0], means[2])


def test_blind_forecaster__asks_no_transition_by_any_door(
    model: DemandForecaster, observed: tuple[CellState, CounterStore]
) -> None:
    """From counters, from cells observed already, and one law at a time: one answer; its prior is as blind."""
    state, store = observed
    blind = TransitionBlindForecaster.of(model)
    means = [
        blind.forecast(store, at_us=AT_US, horizon_hours=6).mean,
        blind.forecast_state(state, store, horizon_hours=6).mean,
        blind.law(state, 6)[0],
    ]
    for mean in means[1:]:
        assert mean == pytest.approx(means[0])
    prior = blind.prior_only()
    assert isinstance(prior, TransitionBlindForecaster)
    assert prior.learned is None
    assert prior.law(state, 6)[0] == pytest.approx(model.prior_only().law(withhold_transitions(state), 6)[0])
