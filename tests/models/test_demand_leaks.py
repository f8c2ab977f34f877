"""Nothing of the future reaches a forecast, and a method that peeks is caught by the very check that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.counters import CounterStore
from models.demand.cells import CellState, demand_cells, observe
from models.demand.places import location_state
from models.demand.samples import advance, collect_samples, count_outcome
from models.events import HOUR_US, Float64, RequestLog
from models.observation import with_gaps_found
from tests.models.rhythmic_world import SETTINGS, GivenPrior, hours, log_of, requests, store_of, with_boom, without

Knowledge = dict[str, npt.NDArray[Any]]
Reads = Callable[[RequestLog, int], Knowledge]

ROWS = without(requests(60, seed=3, per_hour=150.0), 33, 35.5)
AT_US = hours(50)


def futures(at_us: int) -> dict[str, RequestLog]:
    """Logs that agree before an instant and differ in everything after it."""
    past = [column[ROWS[0] < at_us] for column in ROWS]
    late = ROWS[0] >= at_us
    others = (np.concatenate([past[0], ROWS[0][late]]), *(np.append(p, np.full(late.sum(), 77)) for p in past[1:]))
    hour = (at_us - hours(0)) / HOUR_US
    rows = {
        "as it was": ROWS,
        "none": (past[0], past[1], past[2]),
        "other contents and places": others,
        "a boom": with_boom(ROWS, content=3, locations=(0, 1), first_hour=hour, n=3000),
        "a hole": without(ROWS, hour + 0.5, hour + 5),
    }
    return {name: with_gaps_found(log_of(*columns), until_us=at_us) for name, columns in rows.items()}


def assert_blind(reads: Reads, *, at_us: int) -> None:
    """Fails where what is read at an instant differs, in a single bit, between futures."""
    logs = futures(at_us)
    reference = reads(logs.pop("as it was"), at_us)
    assert len(reference["means"]) > 0
    for future, log in logs.items():
        found = reads(log, at_us)
        for name, values in reference.items():
            assert np.array_equal(values, found[name]), f"{name!r} knows whether the future is {future!r}"


def fed(log: RequestLog, at_us: int) -> CounterStore:
    store = CounterStore()
    for _ in advance(store, log, [at_us - 3 * HOUR_US, at_us]):
        pass
    return store


def by_counters(log: RequestLog, at_us: int) -> Knowledge:
    """Cells, features' sources, growth, gaps and forecasts from counters that were fed until the instant."""
    store = fed(log, at_us)
    state = observe(store, at_us=at_us, settings=SETTINGS)
    places = location_state(store, at_us=at_us, settings=SETTINGS)
    known: Knowledge = {
        "contents": store.contents,
        "locations": store.locations,
        "gaps": np.array(store.gaps),
        "cells": np.stack(demand_cells(store, at_us=at_us, settings=SETTINGS)),
        "hours": places.counts[np.isfinite(places.counts)],
        "observed": np.isfinite(places.counts),
        "rates": places.rates,
        "growth": np.stack([places.growth(horizon) for horizon in SETTINGS.horizons_hours]),
        **{name: value for name, value in vars(state).items() if isinstance(value, np.ndarray)},
    }
    forecasts = [
        GivenPrior().forecast(store, at_us=at_us, horizon_hours=horizon) for horizon in SETTINGS.horizons_hours
    ]
    known["means"] = np.stack([forecast.mean for forecast in forecasts])
    known["other means"] = np.stack([forecast.other_mean for forecast in forecasts])
    return known


def by_samples(log: RequestLog, at_us: int, *, mean: Callable[[CellState, int], Float64] | None = None) -> Knowledge:
    """Inputs, prior terms, drawn rows and a reference's means at training origins up to the instant."""
    reference = mean or (lambda state, hours: state.cell_rates[:, 0] * hours)
    window = (at_us - 4 * HOUR_US, at_us + HOUR_US)  # the last origin is the instant itself
    samples = collect_samples(log, CounterStore(), window, SETTINGS, seed=1, references=[reference])
    return {
        "base": samples.base,
        "growth": samples.growth,
        "columns": samples.columns,
        "weights": samples.weights,
        "means": samples.references,
    }


@pytest.mark.parametrize(
    ("reads", "at_us"),
    [(by_samples, AT_US), (by_counters, AT_US), (by_counters, AT_US + HOUR_US // 3), (by_counters, hours(34.5))],
)
def test_future__is_not_known(reads: Reads, at_us: int) -> None:
    """Whatever comes from the instant on: cells, inputs, growth, gaps, drawn rows and forecasts are the same bits."""
    assert_blind(reads, at_us=at_us)


def test_canary__a_reference_that_reads_the_outcome_is_caught() -> None:
    """A method that adds a thousandth of what will come must make the check fail."""

    def reads(log: RequestLog, at_us: int) -> Knowledge:
        def leaking(state: CellState, horizon_hours: int) -> Float64:
            store = store_of(log, until_hour=(state.at_us - hours(0)) / HOUR_US)
            window = (state.at_us, state.at_us + horizon_hours * HOUR_US)
            came = count_outcome(log, store, (state.content, state.location), window)
            return state.cell_rates[:, 0] * horizon_hours + 0.001 * came.counts

        return by_samples(log, at_us, mean=leaking)

    with pytest.raises(AssertionError, match="'means' knows whether the future is"):
        assert_blind(reads, at_us=AT_US)


def test_canary__counters_fed_one_request_too_far_are_caught() -> None:
    """The smallest leak there is: the first request at or after the instant."""

    def reads(log: RequestLog, at_us: int) -> Knowledge:
        row = int(np.searchsorted(log.ts_us, at_us)) + 1
        store = CounterStore()
        store.update(log.rows(0, row))
        return {"means": store.content_rates(np.arange(5), max(store.time_us, at_us))}

    with pytest.raises(AssertionError, match="'means' knows whether the future is"):
        assert_blind(reads, at_us=AT_US)


def test_canary__gaps_taken_from_the_whole_log_are_caught() -> None:
    """That a silence will turn out to be an outage is not known at its beginning."""
    at_us = AT_US + 2 * 60_000_000

    def reads(log: RequestLog, at_us: int) -> Knowledge:
        store = fed(log, at_us)
        store.learn_gaps(log.gaps)
        return {"means": store.content_rates(np.arange(5), at_us + HOUR_US)}

    with pytest.raises(AssertionError, match="'means' knows whether the future is"):
        assert_blind(reads, at_us=at_us)


def test_canary__a_catalogue_of_tomorrow_is_caught() -> None:
    """A vocabulary of contents that are yet to come is a leak even if nothing is counted for them."""

    def reads(log: RequestLog, at_us: int) -> Knowledge:
        return {"means": log.contents}

    with pytest.raises(AssertionError, match="'means' knows whether the future is"):
        assert_blind(reads, at_us=AT_US)
