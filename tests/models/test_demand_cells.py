"""Cells observed in blocks: the same numbers however they are cut, and the same as the counters say one by one."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import blocks
from models.blocks import for_each_block
from models.cell_reader import StoredCells, active_rows
from models.counters import CounterStore
from models.demand.cells import CellObserver, CellState, demand_cells, observe
from models.demand.features import base_feature_names
from models.demand.forecaster import DemandForecaster
from models.demand.law import CountLaw
from models.demand.learned import LearnedResidual
from models.demand.network import InputScale, ResidualEnsemble, build_network
from models.demand.prior import DemandPrior, prior_column_names
from models.demand.remainder import Remainder
from models.errors import LogOrderError
from models.events import HOUR_US, NEVER_US, Int64, RequestLog
from tests.models.demand_world import SMALL, hours

NOW_US = hours(40.5)


@cache
def walking_store() -> CounterStore:
    """Walks of 300 visitors over 40 contents at 5 locations in 40 hours, so that rates, flow and hours all occur."""
    rng = np.random.default_rng(3)
    n = 3000
    ts_us = np.sort(rng.integers(hours(0), NOW_US, n))
    visitor = rng.integers(0, 300, n)
    content = np.minimum(rng.geometric(0.12, n), 40)
    ids = np.array([f"c{k}" for k in range(41)], dtype=object), np.array([f"l{k}" for k in range(5)], dtype=object)
    store = CounterStore()
    names = np.array([f"s{k}" for k in range(300)], dtype=object)
    store.update(RequestLog.from_columns(ts_us.astype(np.int64), names[visitor], ids[0][content], ids[1][visitor % 5]))
    return store


def weighted_model(store: CounterStore) -> DemandForecaster:
    """A model whose every part matters: equal coefficients, and heads of random weights instead of zeros."""
    horizons, half_lives = SMALL.horizons_hours, store.settings.half_lives_hours
    n_inputs = len(base_feature_names(half_lives, SMALL.horizons_hours)) + 2
    members = [build_network(SMALL, n_inputs=n_inputs, seed=seed) for seed in range(2)]
    generator = torch.Generator().manual_seed(0)
    for member in members:
        for head in (member.mean_head, member.dispersion_head):
            torch.nn.init.normal_(head.weight, std=0.3, generator=generator)
    scale = InputScale(np.zeros(n_inputs), np.full(n_inputs, 2.0), SMALL.input_limit_sd)
    networks = ResidualEnsemble(members, scale)
    coefficients = np.full((len(horizons), len(prior_column_names(half_lives))), 0.1)
    return DemandForecaster(
        SMALL,
        prior=DemandPrior(horizons, half_lives, coefficients),
        laws=[CountLaw() for _ in horizons],
        remainder=Remainder(horizons, (0.1, 0.1), {}),
        learned=LearnedResidual((networks, networks), (), (0.0, 0.0), SMALL.residual_caps),
    )


def assert_same(first: CellState, second: CellState) -> None:
    for field in fields(CellState):
        if field.name != "places":
            assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=6))
def test_observe__blocks_are_the_whole(cuts: list[int]) -> None:
    """A refresh reads the cells in blocks, evaluation all at once: a bit of difference would be two models."""
    observer = CellObserver(walking_store(), at_us=NOW_US, settings=SMALL)
    whole = observe(walking_store(), at_us=NOW_US, settings=SMALL)
    edges = [0, *sorted(min(cut, len(observer)) for cut in cuts), len(observer)]
    for first, last in pairwise(edges):
        part = slice(first, last)
        assert_same(observer.rows(part), whole.rows(part))


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_observe__given_cells_say_what_the_store_says(seed: int) -> None:
    """Rows, known and unknown, must be those that the store finds itself, number by number."""
    store, rng = walking_store(), np.random.default_rng(seed)
    content = rng.integers(0, len(store.contents), 50).astype(np.int32)
    location = rng.integers(0, len(store.locations), 50).astype(np.int32)
    state = observe(store, at_us=NOW_US, settings=SMALL, cells=(content, location))
    assert np.array_equal(state.cell_rates, store.cell_rates(content, location, NOW_US))
    assert np.array_equal(state.content_rates, store.content_rates(content, NOW_US))
    assert np.array_equal(state.flow, store.flow(content, location, NOW_US))
    assert np.array_equal(state.content_flow, store.content_flow(content, NOW_US))
    assert np.array_equal(state.last_hour, store.hourly_cell_counts(content, location, 1, 0, NOW_US))
    for index, horizon in enumerate(SMALL.horizons_hours):
        counts = store.hourly_cell_counts(content, location, 24, 24 - horizon, NOW_US)
        assert np.array_equal(state.yesterday[:, index], counts)
    first_us = store.cell_first_seen_us(content, location)
    age = np.where(first_us == NEVER_US, SMALL.age_limit_hours, (NOW_US - first_us.astype(np.float64)) / HOUR_US)
    assert np.array_equal(state.cell_age_hours, np.minimum(age, SMALL.age_limit_hours))


def test_world__has_flow_strangers_and_yesterday() -> None:
    """The properties above say little about numbers that are all zero."""
    state = observe(walking_store(), at_us=NOW_US, settings=SMALL)
    assert (state.flow > 0).sum() > 20
    assert (state.content_flow > 0).sum() > 20
    assert 0 < state.unseen.sum() < len(state)
    assert state.last_hour.sum() > 5
    assert (state.yesterday.sum(axis=0) > 5).all()


def test_demand_cells__are_the_stores_active_ones_and_the_spread() -> None:
    """What the store calls active must all be forecast, and each other cell must be expected often enough."""
    store = walking_store()
    content, location = demand_cells(store, at_us=NOW_US, settings=SMALL)
    found = set(zip(content.tolist(), location.tolist(), strict=True))
    active = store.cells(minimum_weight=SMALL.minimum_cell_weight)
    assert found >= set(zip(*(codes.tolist() for codes in active), strict=True))
    middle = store.settings.half_lives_hours.index(1.5)
    rate = store.content_rates(np.arange(len(store.contents)), NOW_US)[:, middle]
    expected = np.outer(rate, store.location_share(NOW_US)) >= SMALL.spread_minimum_per_hour
    # The two thresholds together are the definition; sorting and uniqueness follow from the codes.
    assert found == set(zip(*(codes.tolist() for codes in active), strict=True)) | set(
        zip(*(codes.tolist() for codes in np.nonzero(expected)), strict=True)
    )
    assert (np.diff(content.astype(np.int64) * len(store.locations) + location) > 0).all()


def test_active_rows__are_the_stores_cells() -> None:
    """Two definitions of an active cell would drift apart."""
    store = walking_store()
    keys = np.sort(store.popularity.index.keys[active_rows(store, 0.5)])
    content, location = store.cells(minimum_weight=0.5)
    assert np.array_equal(keys >> 32, content)
    assert np.array_equal(keys & 0xFFFFFFFF, location)


def test_stored_cells__number_strangers_behind_the_rows_of_the_store() -> None:
    """A cell named twice is one cell, whether the store knows it or not."""
    store = CounterStore()
    store.update(RequestLog.from_columns(np.array([hours(0), hours(1)]), ["s", "t"], ["a", "b"], ["x", "y"]))
    # Rows 0 and 1 are (a, x) and (b, y); (a, y) is asked twice, (b, x) once.
    content, location = np.array([0, 0, 1, 1, 0], dtype=np.int32), np.array([1, 0, 1, 0, 1], dtype=np.int32)
    assert StoredCells.find(store, content, location).row.tolist() == [2, 0, 1, 3, 2]


def test_observe__refuses_the_past() -> None:
    """An answer for an instant before the newest request would contain its own future."""
    with pytest.raises(LogOrderError):
        observe(walking_store(), at_us=hours(3), settings=SMALL)


def test_observe__of_nothing() -> None:
    """Before the first request there are no cells, in one block or in many."""
    state = observe(CounterStore(), at_us=NOW_US, settings=SMALL)
    assert len(state) == 0
    assert state.yesterday.shape == (0, len(SMALL.horizons_hours))


def test_forecasts__any_number_of_threads_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is keyed by its inputs, and the number of cores is none of them."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 7)
    store = walking_store()
    model = weighted_model(store)
    one, three = (model.forecasts(store, at_us=NOW_US, threads=threads) for threads in (1, 3))
    assert tuple(one) == SMALL.horizons_hours
    for horizon, forecast in one.items():
        assert forecast.mean.tobytes() == three[horizon].mean.tobytes()
        assert forecast.dispersion.tobytes() == three[horizon].dispersion.tobytes()
        alone = model.forecast(store, at_us=NOW_US, horizon_hours=horizon)
        assert alone.to_arrow(with_other=True).equals(forecast.to_arrow(with_other=True))


def test_forecast_state__is_the_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service observes once and forecasts every horizon; the job streams. Both must say the same."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 50)
    store = walking_store()
    model = weighted_model(store)
    state = observe(store, at_us=NOW_US, settings=SMALL)
    for horizon in SMALL.horizons_hours:
        shared = model.forecast_state(state, store, horizon_hours=horizon)
        assert shared.to_arrow().equals(model.forecast(store, at_us=NOW_US, horizon_hours=horizon).to_arrow())


def test_for_each_block__covers_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row left out would be forecast as whatever lay in memory."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 4)
    for rows in (1, 4, 9):
        seen: Int64 = np.zeros(rows, dtype=np.int64)

        def work(block: slice, seen: Int64 = seen) -> None:
            seen[block] += 1

        for_each_block(work, rows, threads=2)
        assert seen.tolist() == [1] * rows


def test_for_each_block__a_failure_reaches_the_caller_and_torch_keeps_its_threads() -> None:
    """A worker that fails in silence leaves a hole in the forecast."""

    def fail(block: slice) -> None:
        raise ArithmeticError(f"block {block.start}")

    before = torch.get_num_threads()
    for threads in (1, 2):
        with pytest.raises(ArithmeticError, match="block 0"):
            for_each_block(fail, 3, threads=threads)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads >= 1, got 0"):
        for_each_block(fail, 3, threads=0)


def test_observe__hours_that_were_not_observed_are_missing() -> None:
    """Half an hour without a log is not half an hour without demand: the slow rate stands in for it."""
    store = CounterStore()
    ts_us = np.array([hours(k / 2) for k in range(61)], dtype=np.int64)  # every half hour until 30:00
    store.update(RequestLog.from_columns(ts_us, [f"s{k}" for k in range(61)], ["c"] * 61, ["l"] * 61))
    store.learn_gaps([(hours(30.25), hours(30.75))])
    state = observe(store, at_us=hours(31), settings=SMALL)
    # One request at 30:00, and half an hour at the rate over a day; yesterday's hour and six hours were seen in full.
    assert state.last_hour == pytest.approx(1 + 0.5 * state.cell_rates[:, -1])
    assert state.yesterday.tolist() == [[2.0, 12.0]]
