"""The daily update of a churn model: what helps on the last days is kept, what does not is not."""

from __future__ import annotations

import pytest

from models.churn.drift import RegimeChange, intensified
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.operation import ChurnUpdateSettings, RecalibrationSettings
from models.churn.settings import ChurnSettings
from models.churn.training import fit_tables
from models.churn.updating import update_churn
from models.events import DAY_US
from tests.models.test_churn_recalibration import CHANGE_US, EDGES, OFTEN, two_speed_history

FEW = ChurnUpdateSettings(days=6, validation_days=2)


@pytest.fixture(scope="module")
def world() -> SessionHistory:
    """Departures become four times as frequent on day 12."""
    return intensified(two_speed_history(7), RegimeChange(CHANGE_US, 4.0), seed=3)


@pytest.fixture(scope="module")
def base(world: SessionHistory) -> ChurnForecaster:
    return fit_tables(world, train=(0, 10 * DAY_US), settings=ChurnSettings(edges_hours=EDGES))


def test_update__after_a_change_something_new_wins(world: SessionHistory, base: ChurnForecaster) -> None:
    """Five days after the change the old model loses on the last two days, and the new one forecasts more departures."""
    at_us = CHANGE_US + 5 * DAY_US
    made = update_churn(world, base, at_us=at_us, settings=FEW, recalibration=OFTEN)
    assert made.changed
    assert made.losses[made.kept] == min(made.losses.values()) < made.losses["model in use"] - 0.01
    old, new = (m.forecast(world, at_us=at_us).survival.sum() for m in (base, made.model))
    assert new < 0.9 * old
    assert made.windows == ((at_us - 6 * DAY_US, at_us - 2 * DAY_US), (at_us - 2 * DAY_US, at_us))


def test_update__without_a_gain_the_model_itself_comes_back(world: SessionHistory, base: ChurnForecaster) -> None:
    """When a whole nat a row is asked for, nothing is better."""
    picky = ChurnUpdateSettings(days=6, validation_days=2, least_gain=1.0)
    made = update_churn(world, base, at_us=CHANGE_US, settings=picky, recalibration=OFTEN)
    assert made.model is base
    assert not made.changed


def test_update__reads_nothing_later(world: SessionHistory, base: ChurnForecaster) -> None:
    """What happens after the instant changes neither the choice nor the losses."""
    at_us = CHANGE_US + 3 * DAY_US
    full, cut = (
        update_churn(h, base, at_us=at_us, settings=FEW, recalibration=OFTEN) for h in (world, world.before(at_us))
    )
    assert full.losses == cut.losses
    assert full.recalibration == cut.recalibration


def test_update__too_little_is_a_sentence(world: SessionHistory, base: ChurnForecaster) -> None:
    """Nothing to fit before the validation days."""
    at_us = int(world.start_us.min()) + round(2.5 * DAY_US)
    with pytest.raises(ValueError, match=r"only 0\.5 days are there"):
        update_churn(world, base, at_us=at_us, settings=ChurnUpdateSettings(), recalibration=RecalibrationSettings())
    with pytest.raises(ValueError, match="Expected 1 <= validation_days < days"):
        ChurnUpdateSettings(days=2, validation_days=2)
    with pytest.raises(ValueError, match=r"least_gain >= 0, got -1.0"):
        ChurnUpdateSettings(least_gain=-1.0)
