"""The whole model on a world with known rates: trained, saved, loaded, asked about the unknown."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.artefact import MANIFEST
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.training import fit_demand
from models.errors import ArtefactError, LogOrderError
from models.events import RequestLog
from tests.models.demand_world import SMALL, constant_log, hours

TRAIN, VALIDATION = (hours(0), hours(60)), (hours(60), hours(84))


@pytest.fixture(scope="module")
def log() -> RequestLog:
    return constant_log(n_hours=100, seed=5)


@pytest.fixture(scope="module")
def forecaster(log: RequestLog) -> DemandForecaster:
    return fit_demand(log, train=TRAIN, validation=VALIDATION, settings=SMALL, seed=0)[0]


@pytest.fixture(scope="module")
def store(log: RequestLog) -> CounterStore:
    store = CounterStore()
    store.update(log.before(hours(90)))
    return store


def test_forecast__total_is_near_the_truth(forecaster: DemandForecaster, store: CounterStore) -> None:
    """The world asks for 8 x H(12) x 1.75 = 43.4 requests an hour, so 261 in six."""
    forecast = forecaster.forecast(store, at_us=hours(90), horizon_hours=6)
    assert forecast.total_by_location().sum() == pytest.approx(6 * 8 * 3.1032 * 1.75, rel=0.2)
    assert forecast.mean.sum() + forecast.other_mean.sum() == pytest.approx(forecast.total_by_location().sum())


def test_forecast__same_input_same_answer(forecaster: DemandForecaster, store: CounterStore) -> None:
    """Plans are keyed by their inputs, so a forecast must be a function of them."""
    first, second = (forecaster.forecast(store, at_us=hours(90), horizon_hours=1) for _ in range(2))
    assert first.to_arrow().equals(second.to_arrow())


def test_fit__same_seed_same_model(log: RequestLog, forecaster: DemandForecaster, tmp_path: Path) -> None:
    """A run that cannot be repeated cannot be reviewed."""
    again, history = fit_demand(log, train=TRAIN, validation=VALIDATION, settings=SMALL, seed=0)
    for name, model in (("one", forecaster), ("two", again)):
        model.save(tmp_path / name)
    assert (tmp_path / "one" / MANIFEST).read_bytes() == (tmp_path / "two" / MANIFEST).read_bytes()
    assert {row["member"] for row in history} == {0.0, 1.0}


def test_fit__reads_nothing_after_validation(log: RequestLog, forecaster: DemandForecaster, tmp_path: Path) -> None:
    """Cutting off the future must not change the model, or it had seen some of it."""
    blind, _ = fit_demand(log.before(VALIDATION[1]), train=TRAIN, validation=VALIDATION, settings=SMALL, seed=0)
    for name, model in (("one", forecaster), ("two", blind)):
        model.save(tmp_path / name)
    assert (tmp_path / "one" / MANIFEST).read_bytes() == (tmp_path / "two" / MANIFEST).read_bytes()


def test_load__answers_as_before(forecaster: DemandForecaster, store: CounterStore, tmp_path: Path) -> None:
    """Serving must compute exactly what training evaluated."""
    forecaster.save(tmp_path / "model")
    loaded = DemandForecaster.load(tmp_path / "model")
    for horizon in SMALL.horizons_hours:
        before = forecaster.forecast(store, at_us=hours(90), horizon_hours=horizon)
        after = loaded.forecast(store, at_us=hours(90), horizon_hours=horizon)
        assert before.to_arrow(with_other=True).equals(after.to_arrow(with_other=True))


def test_load__refuses_other_inputs(forecaster: DemandForecaster, tmp_path: Path) -> None:
    """Weights for a column that means something else now would forecast nonsense."""
    forecaster.save(tmp_path / "model")
    path = tmp_path / "model" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["state"]["features"][0] = "something else"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="trained on other inputs"):
        DemandForecaster.load(tmp_path / "model")


def test_prior_alone__works_and_is_saved(forecaster: DemandForecaster, store: CounterStore, tmp_path: Path) -> None:
    """When weights are missing the prior answers: same cells, valid forecast."""
    prior = DemandForecaster(
        SMALL, prior=forecaster.prior, laws=forecaster.laws, remainder=forecaster.remainder, name="prior"
    )
    prior.save(tmp_path / "prior")
    forecast = DemandForecaster.load(tmp_path / "prior").forecast(store, at_us=hours(90), horizon_hours=1)
    full = forecaster.forecast(store, at_us=hours(90), horizon_hours=1)
    assert np.array_equal(forecast.content, full.content)
    # The cap of three at one hour bounds the ratio of the two means, up to their bias factors.
    ratio = np.abs(np.log(full.mean / forecast.mean))
    assert ratio.max() <= SMALL.residual_caps[0] + 1e-6


def test_without_epochs__fit_gives_the_prior(log: RequestLog) -> None:
    """A quick fit for a fallback must not need a network at all."""
    model, history = fit_demand(log, train=TRAIN, validation=VALIDATION, settings=replace(SMALL, max_epochs=0), seed=0)
    assert model.learned is None
    assert history == []


def test_forecast__unknown_contents_and_places(forecaster: DemandForecaster, log: RequestLog) -> None:
    """A content and a location that training never saw get a forecast from the first request on."""
    store = CounterStore()
    store.update(log.before(hours(90)))
    store.update(
        RequestLog.from_columns(np.array([hours(90)] * 3, dtype=np.int64), ["x", "y", "z"], ["new"] * 3, ["moon"] * 3)
    )
    forecast = forecaster.forecast(store, at_us=hours(90.5), horizon_hours=1)
    cells = {
        (forecast.contents[c], forecast.locations[p]): mean
        for c, p, mean in zip(forecast.content, forecast.location, forecast.mean, strict=True)
    }
    assert cells["new", "moon"] > 0.0
    assert np.isfinite(forecast.other_mean).all()
    assert forecast.other_mean.shape == (4,)


def test_forecast__empty_counters(forecaster: DemandForecaster) -> None:
    """Before the first request there is an empty forecast, not an error."""
    forecast = forecaster.forecast(CounterStore(), at_us=hours(0), horizon_hours=1)
    assert len(forecast) == 0
    assert forecast.total_by_location().shape == (0,)


def test_forecast__refuses_the_past_and_unknown_horizons(forecaster: DemandForecaster, store: CounterStore) -> None:
    """Counters that already hold the window would make a perfect and worthless forecast."""
    with pytest.raises(LogOrderError):
        forecaster.forecast(store, at_us=hours(80), horizon_hours=1)
    with pytest.raises(ValueError, match=r"horizon_hours in \(1, 6\), got 2"):
        forecaster.forecast(store, at_us=hours(90), horizon_hours=2)


def test_fit__windows_must_be_in_order(log: RequestLog) -> None:
    """Validation inside the training window would choose the model that memorised it."""
    with pytest.raises(ValueError, match="train before validation"):
        fit_demand(log, train=(hours(0), hours(60)), validation=(hours(50), hours(70)), settings=SMALL, seed=0)
    with pytest.raises(ValueError, match="No origin fits"):
        fit_demand(log, train=(hours(0), hours(5)), validation=(hours(5), hours(9)), settings=SMALL, seed=0)


def test_forecaster__imports_no_training_library() -> None:
    """Serving starts in a second only if it does not load Lightning."""
    code = "import sys, models.demand.forecaster; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
