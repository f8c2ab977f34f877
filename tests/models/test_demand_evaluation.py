"""The harness: scores that equal the metrics, baselines on equal terms, and no sight of the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.counters import CounterSettings, CounterStore
from models.demand.baselines import (
    Reference,
    ReferenceForecaster,
    fit_hawkes,
    fit_references,
    untrained_references,
)
from models.demand.boosting import fit_boosting
from models.demand.cells import CellState
from models.demand.comparison import difference_rows
from models.demand.evaluation import evaluate, metric_rows, score_origins
from models.demand.forecaster import CellForecaster
from models.demand.remainder import Remainder
from models.demand.samples import ReferenceMeans, advance, code_map, count_outcome, origins_of
from models.demand.scores import INTERVAL, QUANTILES, Scored
from models.demand.training import collect_windows, fit_prior, fit_samples
from models.events import HOUR_US, Float64, RequestLog
from models.forecast import negative_binomial_quantiles
from models.metrics import METRICS
from tests.models.demand_world import SMALL, constant_log, hours

START, END = hours(84), hours(100)


@pytest.fixture(scope="module")
def log() -> RequestLog:
    return constant_log(n_hours=100, seed=5)


@pytest.fixture(scope="module")
def methods(log: RequestLog) -> list[CellForecaster]:
    references = untrained_references(SMALL, CounterSettings())
    fitted, held_out = collect_windows(
        log,
        train=(hours(0), hours(60)),
        validation=(hours(60), hours(84)),
        settings=SMALL,
        seed=0,
        references=[reference.mean for reference in references],
    )
    _, remainder = fit_prior(fitted, SMALL)
    model, _ = fit_samples(fitted, held_out, settings=SMALL, seed=0)
    boosting = [
        fit_boosting(fitted, held_out, settings=SMALL, remainder=remainder, markov=markov, iterations=10)
        for markov in (False, True)
    ]
    return [
        model,
        *fit_hawkes(fitted, held_out, settings=SMALL, remainder=remainder),
        *fit_references(references, held_out, settings=SMALL, remainder=remainder),
        *boosting,
    ]


def test_evaluate__one_row_a_model_horizon_and_stratum(methods: list[CellForecaster], log: RequestLog) -> None:
    """An outsider repeats a claim from these rows, so none may be missing."""
    rows = evaluate(methods, log, start_us=START, end_us=END, horizons_hours=(1, 6), every_hours=2)
    assert len(methods) == 16
    # Nine strata of cells, the remainder, the totals, and the blocks of the day in which origins lie: 12:00 to 02:00
    # is three for the next hour, 12:00 to 22:00 two for the next six hours.
    assert len(rows) == 16 * (9 + 2 + 3) + 16 * (9 + 2 + 2)
    assert {row["window"] for row in rows} == {"2024-10-07T12:00Z/2024-10-08T04:00Z"}
    everything = [row for row in rows if row["stratum"] == "all"]
    # Every method is scored on the same cells and the same demand.
    for hours_ahead in (1, 6):
        same = [(row["n"], row["demand"]) for row in everything if row["horizon_hours"] == hours_ahead]
        assert len(set(same)) == 1
    for row in everything:
        assert row["nll"] > 0.0
        assert 0.0 <= row["coverage_80"] <= 1.0
        assert 0.0 < row["top20_captured"] <= 1.0


def test_evaluate__the_model_beats_the_seasonal_naive(methods: list[CellForecaster], log: RequestLog) -> None:
    """With constant demand yesterday's hour is one noisy draw; whoever averages must be better."""
    scores = score_origins(methods, log, start_us=START, end_us=END, horizons_hours=(1,), every_hours=2)
    rows = metric_rows(scores, start_us=START, end_us=END)
    wape = {row["model"]: row["wape"] for row in rows if row["stratum"] == "all"}
    assert wape[methods[0].name] < wape["seasonal naive"]
    assert wape["EWMA 24 h"] < wape["last value"]
    gains = [row for row in difference_rows(scores, reference="seasonal naive") if row["metric"] == "wape"]
    assert all(np.isfinite(row["gain"]) for row in gains if row["stratum"] in ("all", "head", "location total"))
    gain = next(row for row in gains if row["model"] == methods[0].name and row["stratum"] == "all")
    assert gain["gain"] == pytest.approx(wape["seasonal naive"] - wape[methods[0].name])
    assert gain["low"] <= gain["gain"] <= gain["high"]
    assert gain["low"] > 0.0


def test_evaluate__cannot_see_a_planted_future(methods: list[CellForecaster], log: RequestLog) -> None:
    """Whatever is written into the log after the origin, forecasts made at the origin stay the same to the last bit."""
    origin = hours(90)
    past = log.before(origin)
    n = 500
    planted = RequestLog.from_columns(
        np.concatenate([past.ts_us, np.full(n, origin, dtype=np.int64)]),
        np.concatenate([past.session.astype(str).astype(object), np.array([f"p{i}" for i in range(n)], dtype=object)]),
        np.concatenate([past.contents[past.content], np.array(["flood"] * n, dtype=object)]),
        np.concatenate([past.locations[past.location], np.array(["atlantis"] * n, dtype=object)]),
    )
    stores = [CounterStore(), CounterStore()]
    for store, source in zip(stores, (log, planted), strict=True):
        assert list(advance(store, source, [hours(80), origin])) == [hours(80), origin]
    for method in methods:
        for horizon in SMALL.horizons_hours:
            first, second = (method.forecast(store, at_us=origin, horizon_hours=horizon) for store in stores)
            assert first.to_arrow(with_other=True).equals(second.to_arrow(with_other=True)), method.name


def test_advance__stops_before_each_origin(log: RequestLog) -> None:
    """A request at the origin belongs to the window, not to the past; each is fed once."""
    store = CounterStore()
    for origin in advance(store, log, [hours(10), hours(10.5), hours(20)]):
        assert store.time_us < origin
        assert store.time_us == log.before(origin).ts_us[-1]


def test_count_outcome__by_hand() -> None:
    """Known cells count inside, a known place with a new content outside, an unknown place nowhere."""
    log = RequestLog.from_columns(
        np.array([hours(0), hours(0), hours(1), hours(1), hours(1), hours(1.5), hours(2)], dtype=np.int64),
        list("stuvwxy"),
        ["a", "b", "a", "new", "b", "a", "a"],
        ["p", "q", "p", "p", "p", "moon", "p"],
    )
    store = CounterStore()
    store.update(log.before(hours(1)))
    cells = (np.array([0, 1], dtype=np.int32), np.array([0, 1], dtype=np.int32))
    outcome = count_outcome(log, store, cells, (hours(1), hours(2)))
    assert outcome.counts.tolist() == [1.0, 0.0]
    # "new" at p, and "b" at p, which is no cell; the request at 2:00 is past the window.
    assert outcome.outside.tolist() == [2.0, 0.0]
    assert outcome.unknown == 1


def test_code_map__by_id_not_by_position() -> None:
    """Counters restored from disk may number contents differently from the log at hand."""
    known = np.array(["b", "a"], dtype=object)
    assert code_map(known, np.array(["a", "b", "c"], dtype=object)).tolist() == [1, 0, -1]
    assert code_map(known, np.array(["b", "a", "c"], dtype=object)).tolist() == [0, 1, -1]


def test_origins__on_whole_hours() -> None:
    """Clock-hour counts are only complete on the hour."""
    assert origins_of((hours(0.5), hours(4)), every_hours=1, warm_up_hours=1) == [hours(2), hours(3)]


def test_score_sums__equal_the_metrics() -> None:
    """Sums that are pooled over origins must give what the metric gives on all rows at once."""
    rng = np.random.default_rng(0)
    mean, dispersion = rng.gamma(1.0, 2.0, 400), rng.gamma(1.0, 1.0, 400)
    actual, group = rng.poisson(mean).astype(np.float64), rng.integers(0, 4, 400)
    strata = {"all": np.ones(400, dtype=bool), "first": group < 2, "second": group >= 2}
    sums = Scored.of(actual, group.astype(np.int32), strata).sums(mean, dispersion)
    # Groups are complete in each part, as the locations of two origins are.
    whole, parts = sums["all"], sums["first"] + sums["second"]
    quantiles = negative_binomial_quantiles((*QUANTILES, *INTERVAL), mean, dispersion)
    expected = {
        "wape": METRICS["wape"].function(actual, mean),
        "rmse": METRICS["rmse"].function(actual, mean),
        "poisson_deviance": METRICS["poisson_deviance"].function(actual, mean),
        "nll": METRICS["nll"].function(actual, mean, dispersion),
        "scaled_pinball": METRICS["scaled_pinball"].function(actual, QUANTILES, quantiles[:-2]),
        "coverage_80": METRICS["coverage_80"].function(actual, quantiles[-2], quantiles[-1]),
        "top20_captured": METRICS["top20_captured"].function(actual, mean, group, n=20),
    }
    for pooled_sums in (whole, parts):
        metrics = pooled_sums.metrics()
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_evaluate__methods_may_choose_other_cells(methods: list[CellForecaster], log: RequestLog) -> None:
    """A champion with another cell limit is still comparable: cells it left out count as forecast near zero."""
    prior = methods[1]
    fewer = fit_fewer(prior)
    rows = evaluate([prior, fewer], log, start_us=START, end_us=END, horizons_hours=(1,), every_hours=6)
    everything = {row["model"]: row for row in rows if row["stratum"] == "all"}
    assert everything["fewer"]["n"] == everything[prior.name]["n"]
    assert everything["fewer"]["forecast"] < everything[prior.name]["forecast"]


def fit_fewer(prior: CellForecaster) -> CellForecaster:
    """The same fitted method, restricted to busy cells."""
    import copy

    fewer = copy.copy(prior)
    fewer.name = "fewer"
    fewer.settings = replace(prior.settings, minimum_cell_weight=40.0, spread_minimum_per_hour=50.0)
    return fewer


def test_score_origins__refuses_twins_and_empty_windows(methods: list[CellForecaster], log: RequestLog) -> None:
    """Two methods of one name would be pooled into one row."""
    with pytest.raises(ValueError, match="different names"):
        score_origins([methods[0], methods[0]], log, start_us=START, end_us=END, horizons_hours=(1,))
    with pytest.raises(ValueError, match="No origin fits"):
        score_origins(methods[:1], log, start_us=START, end_us=START, horizons_hours=(1,))
    scores = score_origins(methods[:1], log, start_us=START, end_us=hours(86), horizons_hours=(1,))
    with pytest.raises(ValueError, match="'nobody' was not scored"):
        difference_rows(scores, reference="nobody")


def test_score_origins__windows_that_were_not_observed_are_left_out(
    methods: list[CellForecaster], log: RequestLog
) -> None:
    """Missing is not zero: an origin whose window touches a gap of two hours has no outcome to be scored on."""

    class Observed:
        gaps = ((hours(88.5), hours(90.5)),)

        def __getattr__(self, name: str) -> object:
            return getattr(log, name)

        def __len__(self) -> int:
            return len(log)

    whole, partly = (
        score_origins(methods[-1:], source, start_us=START, end_us=hours(94), horizons_hours=(1,))  # type: ignore[arg-type]
        for source in (log, Observed())
    )
    origins = [{score.origin_us for score in scores} for scores in (whole, partly)]
    # 88:00-89:00, 89:00-90:00 and 90:00-91:00 touch the gap; 91:00 does not.
    assert origins[0] - origins[1] == {hours(88), hours(89), hours(90)}


def test_score_origins__horizons_may_have_origins_of_their_own(methods: list[CellForecaster], log: RequestLog) -> None:
    """Windows of six hours may reach past the last origin, as far as the log is to be read, and come less often."""
    scores = score_origins(
        methods[-1:],
        log,
        start_us=START,
        end_us=hours(90),
        horizons_hours=(1, 6),
        every_hours={1: 2, 6: 3},
        read_until_us=hours(93),
    )
    found = {(score.horizon_hours, (score.origin_us - START) // hours_us(1)) for score in scores}
    # The window from 90:00 - 3 h ends at 93:00; without `read_until_us` only the one from 84:00 would be known.
    assert found == {(1, 0), (1, 2), (1, 4), (6, 0), (6, 3)}


class Looks:
    """Looks every hour at how much the counters hold."""

    def __init__(self, origins: list[int]) -> None:
        self.origins = origins
        self.seen: list[tuple[int, int]] = []

    def look(self, store: CounterStore, *, at_us: int) -> None:
        self.seen.append((at_us, store.time_us))


def test_score_origins__a_follower_looks_at_origins_of_its_own(methods: list[CellForecaster], log: RequestLog) -> None:
    """Every hour, from counters that hold all requests before it and none after; the scores every six hours stay."""
    looks = Looks([START + hour * HOUR_US for hour in range(16)])
    scores, alone = (
        score_origins(
            methods[:1], log, start_us=START, end_us=END, horizons_hours=(1,), every_hours=6, follower=follower
        )
        for follower in (looks, None)
    )
    assert looks.seen == [(at, int(log.ts_us[log.ts_us < at][-1])) for at in looks.origins]
    assert {score.origin_us for score in scores} == {START + hour * HOUR_US for hour in (0, 6, 12)}
    for mine, theirs in zip(scores, alone, strict=True):
        assert (mine.origin_us, mine.stratum) == (theirs.origin_us, theirs.stratum)
        assert mine.sums.values == pytest.approx(theirs.sums.values, rel=1e-9, nan_ok=True)


def test_score_origins__largest_mean_over_the_prior(methods: list[CellForecaster], log: RequestLog) -> None:
    """Where a method says what it corrects, the largest correction is reported; others have none."""

    class Doubled(ReferenceForecaster):
        def prior_mean(self, state: CellState, horizon_hours: int) -> Float64:
            return self.law(state, horizon_hours)[0] / 2.0

    plain = next(method for method in methods if isinstance(method, ReferenceForecaster))
    doubled = Doubled(plain.references, SMALL, laws=plain.laws, remainder=plain.remainder)
    doubled.name = "doubled"
    scores = score_origins([plain, doubled], log, start_us=START, end_us=hours(86), horizons_hours=(1,))
    rows = metric_rows(scores, start_us=START, end_us=hours(86))
    largest = {row["model"]: row["largest_over_prior"] for row in rows if row["stratum"] == "all"}
    assert largest == {plain.name: None, "doubled": pytest.approx(2.0)}


def test_fit_references__validation_chooses_among_those_of_one_name(log: RequestLog) -> None:
    """With constant demand the slowest average is the best; three bad ones beside it must not be chosen."""
    half_lives = CounterSettings().half_lives_hours
    references = [Reference("EWMA", ewma_of(index)) for index in range(len(half_lives))]
    _, held_out = collect_windows(
        log,
        train=(hours(0), hours(60)),
        validation=(hours(60), hours(84)),
        settings=SMALL,
        seed=0,
        references=[reference.mean for reference in references],
    )
    remainder = Remainder((1, 6), (0.0, 0.0), {})
    (method,) = fit_references(references, held_out, settings=SMALL, remainder=remainder)
    assert isinstance(method, ReferenceForecaster)
    assert method.references == [references[-1], references[-1]]


def ewma_of(index: int) -> ReferenceMeans:
    return lambda state, horizon: state.cell_rates[:, index] * horizon


def hours_us(count: int) -> int:
    return hours(count) - hours(0)
