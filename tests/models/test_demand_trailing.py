"""The trailing comparison: which of a model and its own prior answers, by hand and against planted futures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.counters import CounterStore
from models.demand.cells import observe
from models.demand.forecaster import DemandForecaster
from models.demand.operation import DemandUpdateSettings, TrailingSettings
from models.demand.trailing import HourLoss, TrailingComparison, judge
from models.demand.training import fit_demand
from models.events import HOUR_US, RequestLog
from models.metrics import negative_binomial_losses
from tests.models.demand_world import SMALL, START_US, constant_log, hours
from tests.models.losing_model import biased

SETTINGS = TrailingSettings()
MODEL = replace(SMALL, origin_every_hours=3, boosting_iterations=0)
AT_US = hours(60)


def losses(*pairs: tuple[float, float], cells: int = 10) -> list[HourLoss]:
    """Hours of (model, prior) losses in nats a cell."""
    return [
        HourLoss(k * HOUR_US, (k + 1) * HOUR_US, cells, model * cells, prior * cells)
        for k, (model, prior) in enumerate(pairs)
    ]


GOOD, BAD = (1.0, 1.2), (1.2, 1.0)


def test_judge__sets_the_model_aside_when_its_mean_loss_is_the_larger() -> None:
    """Known answer over six hours of ten cells: (5 x 1.0 + 2.3) / 6 = 1.217 against 1.2, then 1.2 against 1.2 is no more."""
    worse = judge(losses(*[(1.0, 1.2)] * 5, (2.3, 1.2)), SETTINGS)
    assert (worse.verdict, worse.hours) == ("prior", 6)
    assert worse.model_loss == pytest.approx((5 * 1.0 + 2.3) / 6)
    assert worse.since_us == 6 * HOUR_US
    assert worse.sentence == (
        "the network lost to its own prior over the last 6 hours: 1.217 against 1.200 nats a cell; "
        "the prior answers until it is better again"
    )
    assert judge(losses(*[(1.0, 1.2)] * 5, (2.1, 1.2)), SETTINGS).verdict == "model"


def test_judge__weighs_hours_by_their_cells() -> None:
    """Nats a cell over all cells: 10 cells at 1.0 and 30 at 2.0 are (10 + 60) / 40 = 1.75."""
    few, many, middle = losses(GOOD)[0], losses((2.0, 1.0), cells=30)[0], losses(GOOD)[0]
    found = judge([few, many, replace(middle, cells=0)], replace(SETTINGS, minimum_hours=2))
    assert (found.hours, found.model_loss) == (2, 1.75)


@pytest.mark.parametrize(("n", "verdict"), [(0, "model"), (2, "model"), (3, "prior")])
def test_judge__needs_three_hours(n: int, verdict: str) -> None:
    """After two bad hours, or none, nothing is decided; after three it is."""
    found = judge(losses(*[BAD] * n), SETTINGS)
    assert found.verdict == verdict
    assert found.hours == n
    assert (found.model_loss is None) == (n == 0)


def test_judge__hours_that_do_not_count_leave_the_window_to_others() -> None:
    """An hour in a gap has no cells: it neither decides nor stands for one of the six."""
    gap = HourLoss(0, HOUR_US, 0, 0.0, 0.0)
    assert judge([*losses(BAD, BAD), gap], SETTINGS).verdict == "model"
    assert judge([*losses(BAD, BAD, BAD), gap], SETTINGS).hours == 3


def test_judge__comes_back_only_after_as_many_hours_of_being_better() -> None:
    """Set aside after hour 6, it needs hours 7 to 12; one very good hour, which already wins the window, is not enough."""
    start = [BAD] * 6
    for good in range(6):
        found = judge(losses(*start, *[(0.1, 1.0)] * good), SETTINGS)
        assert found.verdict == "prior"
    assert "has not been better for long enough than its own prior" in found.sentence
    back = judge(losses(*start, *[(0.1, 1.0)] * 6), SETTINGS)
    assert (back.verdict, back.since_us) == ("model", None)
    assert back.sentence.startswith(
        "the network did not lose to its own prior over the last 6 hours: 0.100 against 1.000"
    )


def test_judge__accepts_what_the_tolerance_allows() -> None:
    """1.2 against 1.0 is 20 % more: accepted at 0.25, not at 0.15, and said either way."""
    found = judge(losses(*[BAD] * 6), replace(SETTINGS, tolerance=0.25))
    assert found.verdict == "model"
    assert "by too little to be set aside" in found.sentence
    assert judge(losses(*[BAD] * 6), replace(SETTINGS, tolerance=0.15)).verdict == "prior"


@given(st.lists(st.sampled_from([GOOD, BAD, (1.0, 1.0)]), max_size=40))
def test_judge__does_not_flap(pairs: list[tuple[float, float]]) -> None:
    """Whatever comes, a model that was set aside stays so for six hours."""
    verdicts = [judge(losses(*pairs[:n]), SETTINGS).verdict for n in range(6, len(pairs) + 1)]
    falls = [n for n in range(1, len(verdicts)) if verdicts[n - 1 : n + 1] == ["model", "prior"]]
    for fall in falls:
        assert set(verdicts[fall : fall + 6]) == {"prior"}


# ---- on a log


@pytest.fixture(scope="module")
def log() -> RequestLog:
    return constant_log(n_hours=72, seed=5)


@pytest.fixture(scope="module")
def good(log: RequestLog) -> DemandForecaster:
    return fit_demand(log, train=(hours(0), hours(36)), validation=(hours(36), hours(48)), settings=MODEL, seed=0)[0]


@pytest.fixture(scope="module")
def bad(good: DemandForecaster) -> DemandForecaster:
    """Means that are e times too large."""
    return biased(good, 1.0)


@pytest.fixture(scope="module")
def whole(bad: DemandForecaster, log: RequestLog) -> TrailingComparison:
    """The broken model compared until the instant, over the log as it is. Read only."""
    return compared(bad, log)


def compared(model: DemandForecaster, log: RequestLog, *, at_us: int = AT_US) -> TrailingComparison:
    comparison = TrailingComparison(model)
    comparison.advance(CounterStore(), log, at_us=at_us)
    return comparison


def test_comparison__finds_a_broken_network(whole: TrailingComparison) -> None:
    """Means that are e times too large lose; the prior answers, and both losses are said."""
    found = whole.judge(AT_US)
    assert found.fallback
    assert found.model_loss is not None
    assert found.prior_loss is not None
    assert found.model_loss > found.prior_loss + 0.05


def test_comparison__scores_what_both_said_of_the_same_cells(
    bad: DemandForecaster, log: RequestLog, whole: TrailingComparison
) -> None:
    """One hour by hand: observe, forecast, count, and -log P of every cell."""
    store = CounterStore()
    origin = AT_US - HOUR_US
    store.update(log.before(origin))
    state = observe(store, at_us=origin, settings=bad.settings)
    came = log.between(origin, AT_US)
    counts = np.array(
        [
            np.sum((came.content == content) & (came.location == location))
            for content, location in zip(state.content, state.location, strict=True)
        ]
    )
    hour = whole.scored[origin]
    assert hour.cells == len(state)
    assert hour.model == pytest.approx(negative_binomial_losses(counts, *bad.law(state, 1)).sum())
    assert hour.prior == pytest.approx(negative_binomial_losses(counts, *whole.prior.law(state, 1)).sum())


def test_comparison__sees_nothing_from_the_instant_on(
    bad: DemandForecaster, log: RequestLog, whole: TrailingComparison
) -> None:
    """A planted future, every later request moved to one content, changes no loss; the honest past does."""
    later = log.ts_us >= AT_US
    planted = replace(log, content=np.where(later, 0, log.content).astype(np.int32))
    assert later.sum() > 100
    assert compared(bad, planted).scored == compared(bad, log.before(AT_US)).scored == whole.scored
    earlier = log.ts_us >= AT_US - HOUR_US
    changed = replace(log, content=np.where(earlier, 0, log.content).astype(np.int32))
    assert compared(bad, changed).scored != whole.scored


def test_comparison__is_the_same_however_it_was_come_to(
    bad: DemandForecaster, log: RequestLog, whole: TrailingComparison
) -> None:
    """Asked at other instants before, on whole hours or between, and with the cells observed for a plan used again."""
    store, comparison = CounterStore(), TrailingComparison(bad)
    for back in (30.0, 7.0, 6.5, 2.0):
        at_us = AT_US - round(back * HOUR_US)
        comparison.advance(store, log, at_us=at_us)
        comparison.remember(observe(store, at_us=at_us, settings=bad.settings))
    comparison.advance(store, log, at_us=AT_US)
    assert {at: comparison.scored[at] for at in whole.scored} == whole.scored
    assert comparison.judge(AT_US) == whole.judge(AT_US)


def test_comparison__does_not_count_hours_in_a_gap(
    bad: DemandForecaster, log: RequestLog, whole: TrailingComparison
) -> None:
    """Two hours without observation: the three hours that they touch are left out, noticed at once or later."""
    gap = (AT_US - 4 * HOUR_US - HOUR_US // 2, AT_US - 2 * HOUR_US - HOUR_US // 2)
    lost = (log.ts_us >= gap[0]) & (log.ts_us < gap[1])
    holed = RequestLog.from_columns(
        log.ts_us[~lost],
        log.session[~lost],
        log.contents[log.content[~lost]],
        log.locations[log.location[~lost]],
    )
    short = TrailingSettings(hours=3, minimum_hours=3)
    for known_us in (None, [AT_US - 1]):
        comparison = compared(bad, holed.with_gaps([gap], known_us=known_us))
        comparison.settings = short
        hours_used = comparison.judge(AT_US)
        # The last three whole hours outside of [-5 h, -2 h) are those at -7, -6, -2, -1 less the oldest.
        expected = [comparison.scored[AT_US - back * HOUR_US] for back in (6, 2, 1)]
        assert hours_used.model_loss == pytest.approx(
            sum(hour.model for hour in expected) / sum(hour.cells for hour in expected)
        )
    assert whole.judge(AT_US).hours == 6


def test_comparison__before_the_first_request_nothing_counts(bad: DemandForecaster, log: RequestLog) -> None:
    """The window may reach back before the log: those hours have no cells, and the first ones after decide alone."""
    found = compared(bad, log, at_us=START_US + 5 * HOUR_US)
    assert [hour.cells > 0 for _, hour in sorted(found.scored.items())][-5:] == [False, True, True, True, True]
    assert found.judge(START_US + 5 * HOUR_US).hours == 4


def test_comparison__of_many_cells_scores_a_drawn_part(
    bad: DemandForecaster, log: RequestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million cells are not needed to know a mean; the draw is the same at every run."""
    monkeypatch.setattr("models.demand.trailing.MOST_CELLS", 20)
    one, other = compared(bad, log), compared(bad, log)
    assert one.scored == other.scored
    assert {hour.cells for hour in one.scored.values() if hour.cells} == {20}
    assert one.judge(AT_US).fallback


def test_settings__say_every_broken_bound() -> None:
    """Each with the value."""
    with pytest.raises(ValueError, match=r"minimum_hours=7 and hours=6.*tolerance in \[0, 1\), got 2"):
        TrailingSettings(minimum_hours=7, tolerance=2)
    with pytest.raises(
        ValueError, match=r"validation_days=7 and days=7.*replay_share.*got 2.*learning_rate > 0, got 0"
    ):
        DemandUpdateSettings(validation_days=7, replay_share=2, learning_rate=0)
