"""The daily update: what it reads, what it starts from, and that it keeps the best of what it tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.demand.operation import DemandUpdateSettings
from models.demand.samples import collect_samples
from models.demand.training import fit_demand
from models.demand.updating import UpdatedDemand, UpdateWindows, joined, relative_losses, replayed, update_demand
from models.events import DAY_US, HOUR_US, RequestLog
from tests.models.demand_world import SMALL, START_US, constant_log, hours
from tests.models.losing_model import biased

SETTINGS = DemandUpdateSettings(days=4, validation_days=1)
MODEL = replace(SMALL, origin_every_hours=3, boosting_iterations=5)
END_US = hours(108)


@pytest.fixture(scope="module")
def log() -> RequestLog:
    """Five days at the true rates of the world, half a day of them after the update."""
    return constant_log(n_hours=120, seed=7)


@pytest.fixture(scope="module")
def model(log: RequestLog) -> DemandForecaster:
    """Trained on the first two days."""
    return fit_demand(log, train=(hours(0), hours(36)), validation=(hours(36), hours(48)), settings=MODEL, seed=0)[0]


@pytest.fixture(scope="module")
def plain(log: RequestLog, model: DemandForecaster) -> UpdatedDemand:
    """The update of the model as it was trained."""
    return update_demand(log, model, at_us=END_US, settings=SETTINGS, seed=0)


@dataclass(frozen=True)
class Mended:
    """An update of a model whose every mean is e^0.5 = 1.6 times too large, and that model's weights before."""

    in_use: DemandForecaster
    before: list[torch.Tensor]
    found: UpdatedDemand


@pytest.fixture(scope="module")
def mended(log: RequestLog, model: DemandForecaster) -> Mended:
    in_use = biased(model, 0.5)
    before = [tensor.clone() for tensor in weights(in_use)]
    return Mended(in_use, before, update_demand(log, in_use, at_us=END_US, settings=SETTINGS, seed=0))


def weights(model: DemandForecaster) -> list[torch.Tensor]:
    assert model.learned is not None
    return [t for network in model.learned.networks for m in network.members for t in m.state_dict().values()]


# ---- windows and rows


def test_windows__by_hand() -> None:
    """Seven days, two of validation, horizons up to a day: recent rows start a day and a horizon before validation."""
    found = UpdateWindows.before(hours(240), first_us=hours(24), settings=DemandUpdateSettings(), longest_hours=24)
    assert found.validation == (hours(240 - 48), hours(240))
    assert found.recent == (hours(240 - 48 - 48), hours(240 - 48))
    assert found.older == (hours(240 - 7 * 24), hours(240 - 48 - 48))


def test_windows__of_a_short_log_are_recent_only_or_refused() -> None:
    """Counters that tell nothing yet are no rows; what is too short says how much there is and how much it takes."""
    short = UpdateWindows.before(hours(104), first_us=hours(24), settings=DemandUpdateSettings(), longest_hours=6)
    assert (short.older, short.recent) == (None, (hours(104 - 48 - 30), hours(104 - 48)))
    day = UpdateWindows.before(hours(126), first_us=hours(24), settings=DemandUpdateSettings(), longest_hours=6)
    assert (day.older, day.recent) == ((hours(24), hours(48)), (hours(48), hours(78)))
    with pytest.raises(ValueError, match="needs 30 h of rows before 2 days of validation, but only 29 h are there"):
        UpdateWindows.before(hours(101), first_us=hours(24), settings=DemandUpdateSettings(), longest_hours=6)


def test_replayed__keeps_what_sums_estimate(log: RequestLog) -> None:
    """A quarter of the rows weighs four times as much: the weighted demand is the same up to the draw."""
    samples = collect_samples(log, CounterStore(), (hours(0), hours(72)), SMALL, seed=0, warm_up_hours=24)
    part = replayed(samples, 0.25, seed=1)
    assert 0.2 < len(part) / len(samples) < 0.3
    assert part.columns.shape == (2, len(part), samples.columns.shape[2])
    assert part.base.shape == (len(part), samples.base.shape[1])
    assert part.weights.sum() == pytest.approx(samples.weights.sum(), rel=0.15)
    assert np.array_equal(part.outside, samples.outside)


def test_joined__is_both_under_each_other(log: RequestLog) -> None:
    """Rows in order, sums by location added by id: a location that only the second part knows keeps its own."""
    store = CounterStore()
    first = collect_samples(log, store, (hours(24), hours(36)), SMALL, seed=0)
    second = collect_samples(log, store, (hours(36), hours(48)), SMALL, seed=0)
    renamed = replace(second, locations=np.array(["l9", *second.locations[1:]], dtype=object))
    both = joined([first, renamed])
    assert len(both) == len(first) + len(second)
    assert np.array_equal(both.counts[:, len(first) :], second.counts, equal_nan=True)
    assert both.locations.tolist() == [*first.locations, "l9"]
    assert both.total.sum() == pytest.approx(first.total.sum() + second.total.sum())
    assert np.array_equal(both.total[:, -1], second.total[:, 0])
    assert both.days == first.days + second.days == 1.0
    assert joined([first]) is first


# ---- updates


def test_update__a_broken_network_is_mended_or_set_aside(mended: Mended) -> None:
    """Weights that make every mean 1.6 times too large cannot be what is kept."""
    found = mended.found
    assert found.kept in ("new weights", "prior")
    assert found.changed
    assert found.losses["model in use"] > 1.05
    assert found.losses["prior"] == 1.0
    kept = "prior" if found.kept == "prior" else "updated"
    assert found.losses[kept] == min(found.losses.values())


def test_update__starts_from_the_weights_in_use(log: RequestLog, model: DemandForecaster, mended: Mended) -> None:
    """A step of nothing leaves every weight where it was, and the input scale is the one in use."""
    still = replace(SETTINGS, learning_rate=1e-12)
    found = update_demand(log, biased(model, 0.1), at_us=END_US, settings=still, seed=0)
    assert {row["epoch"] for row in found.history} == {0.0, 1.0}
    assert {row["member"] for row in found.history} == {0.0, 1.0}
    losses = [row["validation_loss"] for row in found.history if row["member"] == 0.0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    losses = [row["validation_loss"] for row in mended.found.history if row["member"] == 0.0]
    assert losses[1] < losses[0]


def test_update__keeps_the_settings_and_leaves_the_model_in_use_alone(mended: Mended, model: DemandForecaster) -> None:
    """What is kept is another model with the same settings, so that the next update starts alike."""
    assert mended.found.changed
    assert mended.found.model.settings == model.settings
    assert all(torch.equal(a, b) for a, b in zip(weights(mended.in_use), mended.before, strict=True))


def test_update__of_a_model_without_network_refits_its_prior(log: RequestLog) -> None:
    """There are no weights to go on with: old and new prior are compared, the new one has the loss 1."""
    alone, _ = fit_demand(
        log,
        train=(hours(0), hours(36)),
        validation=(hours(36), hours(48)),
        settings=replace(MODEL, max_epochs=0),
        seed=0,
    )
    found = update_demand(log, alone, at_us=END_US, settings=SETTINGS, seed=0)
    assert found.history == []
    assert found.losses["updated"] == found.losses["prior"] == 1.0
    assert found.model.learned is None


def test_update__mends_a_prior_that_expects_too_little(log: RequestLog, model: DemandForecaster) -> None:
    """Coefficients halved, as if the world had doubled: they are fitted anew, at least to the level of the old ones."""
    halved = replace(model.prior, coefficients=0.5 * model.prior.coefficients)
    low = DemandForecaster(
        model.settings, prior=halved, laws=model.laws, remainder=model.remainder, learned=model.learned
    )
    found = update_demand(log, low, at_us=END_US, settings=SETTINGS, seed=0)
    assert found.changed
    assert found.losses["model in use"] > 1.05
    assert found.model.prior.coefficients.sum(axis=1) == pytest.approx(model.prior.coefficients.sum(axis=1), rel=0.5)


def test_update__reads_nothing_from_its_instant_on(
    log: RequestLog, model: DemandForecaster, plain: UpdatedDemand
) -> None:
    """A planted future, every later request of one content, changes no coefficient, weight or loss."""
    later = log.ts_us >= END_US
    planted = replace(log, content=np.where(later, 0, log.content).astype(np.int32))
    blind = update_demand(planted, model, at_us=END_US, settings=SETTINGS, seed=0)
    assert later.sum() > 100
    assert plain.losses == blind.losses
    assert repr(plain.history) == repr(blind.history)  # the loss before any pass is not a number
    assert np.array_equal(plain.model.prior.coefficients, blind.model.prior.coefficients)


def test_update__is_the_same_for_the_same_seed(log: RequestLog, model: DemandForecaster, plain: UpdatedDemand) -> None:
    """The same losses to the last bit: rows, their order and the comparison are all drawn from the seed."""
    again = update_demand(log, model, at_us=END_US, settings=SETTINGS, seed=0)
    assert again.losses == plain.losses
    assert repr(again.history) == repr(plain.history)


def test_update__needs_a_log(model: DemandForecaster, log: RequestLog) -> None:
    """An instant before the data, and one too soon after their start."""
    with pytest.raises(ValueError, match="there are none"):
        update_demand(log, model, at_us=START_US - DAY_US, settings=SETTINGS, seed=0)
    with pytest.raises(ValueError, match="Give a later instant"):
        update_demand(log, model, at_us=START_US + 40 * HOUR_US, settings=SETTINGS, seed=0)


def test_relative_losses__of_the_last_model_are_one(log: RequestLog, model: DemandForecaster) -> None:
    """It is the measure; a model that is wrong everywhere has more."""
    store = CounterStore()
    store.update(log.before(hours(84)))
    assert store.time_us < hours(84)
    found = relative_losses([biased(model, 1.0), model, model], log, store, (hours(84), END_US))
    assert found[0] > 1.2
    assert found[1:] == [1.0, 1.0]
