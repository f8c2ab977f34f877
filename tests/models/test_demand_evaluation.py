"""The harness: scores that equal the metrics, baselines on equal terms, and no sight of the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.counters import CounterSettings, CounterStore
from models.demand.baselines import fit_hawkes, fit_references, untrained_references
from models.demand.boosting import fit_boosting
from models.demand.evaluation import difference_rows, evaluate, metric_rows, score_origins
from models.demand.forecaster import CellForecaster
from models.demand.samples import advance, code_map, count_outcome, origins_of
from models.demand.scores import INTERVAL, QUANTILES, CellLosses
from models.demand.training import collect_windows, fit_prior, fit_samples
from models.events import RequestLog
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
    assert len(methods) == 13
    assert len(rows) == 13 * 2 * 8
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
    losses = CellLosses.of(actual, mean, dispersion)
    whole = losses.sums(np.ones(400, dtype=bool), group)
    # Groups are complete in each part, as the locations of two origins are.
    parts = losses.sums(group < 2, group) + losses.sums(group >= 2, group)
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
    for sums in (whole, parts):
        metrics = sums.metrics()
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
