"""The comparison of churn models: scores by hand, planted winners, equal methods, folds, seeds and holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from models.calibration import block_bootstrap_interval
from models.churn.baselines import ForecastsChurn
from models.churn.evaluation import (
    BEST_MARKOV_PEER,
    best_markov_peer,
    comparison_rows,
    evaluate,
    observation_holes,
    pool,
    score_rows,
)
from models.churn.history import Objects, SessionHistory
from models.churn.outcomes import Outcomes, outcomes_at
from models.churn.scores import (
    concordance,
    edge_name,
    integrated_brier_skill,
    losses,
    paired_differences,
    survival_scores,
)
from models.churn.strata import strata_of
from models.events import DAY_US, HOUR_US, Float64
from models.forecast import ChurnForecast
from tests.models.churn_fleet import fleet

EDGES = np.array([1.0, 3.0])
WINDOW: dict[str, Any] = {"start_us": 24 * HOUR_US, "end_us": 72 * HOUR_US}


@dataclass(frozen=True)
class Says:
    """A method that gives every node that is up the same survival, a little more to nodes of even number."""

    survival: tuple[float, float]
    name: str = "says"
    even: float = 0.0

    @property
    def edges_hours(self) -> Float64:
        return EDGES

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        up = history.before(at_us).up_at(at_us)
        more = np.where(np.arange(len(up)) % 2 == 0, self.even, 0.0)[:, None]
        survival = np.where(up[:, None], np.asarray(self.survival) + more, 0.0)
        returned = np.where(up[:, None], 1.0, 0.5) * np.ones(2)
        return ChurnForecast(at_us, EDGES, history.nodes, up, survival, np.maximum(survival, 0.5), returned)


@dataclass(frozen=True)
class Oracle:
    """A method that looks into the future, which no harness could stop it from doing: it holds the whole log."""

    truth: SessionHistory
    name: str = "oracle"

    @property
    def edges_hours(self) -> Float64:
        return EDGES

    def forecast(
        self, history: SessionHistory, *, at_us: int, nodes: Sequence[str] | Objects | None = None
    ) -> ChurnForecast:
        outcomes = outcomes_at(self.truth, at_us=at_us, edges_hours=EDGES)
        up = history.before(at_us).up_at(at_us)
        survival = np.zeros((len(up), 2))
        survival[outcomes.node] = outcomes.alive()
        returned = np.where(up[:, None], 1.0, 0.5) * np.ones(2)
        return ChurnForecast(at_us, EDGES, history.nodes, up, survival, survival, returned)


def restless(nodes: int = 40, *, hours: float = 120.0, seed: int = 0) -> SessionHistory:
    """Nodes that stay for 4 h on average and are away for 2 h."""
    rng = np.random.default_rng(seed)
    sessions = {}
    for i in range(nodes):
        clock, spans = float(rng.exponential(2.0)), []
        while clock < hours:
            until = clock + float(rng.exponential(4.0))
            spans.append((clock, min(until, hours)))
            clock = until + float(rng.exponential(2.0))
        sessions[f"n{i}"] = spans
    return fleet(sessions, until=hours, device_class={f"n{i}": ("phone", "home")[i % 2] for i in range(nodes)})


def outcomes(low: list[int], high: list[int], node: list[int] | None = None) -> Outcomes:
    """Outcomes over the edges 1 h and 3 h, followed for long."""
    n = len(low)
    return Outcomes(
        np.zeros(n, dtype=np.int64), np.array(node or range(n)), np.array(low), np.array(high), np.full(n, 99.0), EDGES
    )


def by_name(rows: list[dict[str, Any]], stratum: str = "all") -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in rows if row["stratum"] == stratum}


def test_skill__by_hand() -> None:
    """Four nodes: one left by 1 h, one by 3 h, two stayed. Everyone was given 0.9 and 0.6.

    Brier at 1 h: (3 · 0.1² + 0.9²) / 4 = 0.21; at 3 h: (2 · 0.4² + 2 · 0.6²) / 4 = 0.26. Bins are 1 h and 2 h wide:
    IBS = (0.21 + 2 · 0.26) / 3. Marginal: ¾ · ¼ and ½ · ½, so (0.1875 + 0.5) / 3.
    """
    found = integrated_brier_skill(np.tile([0.9, 0.6], (4, 1)), outcomes([0, 1, 2, 2], [1, 2, 0, 0]))
    assert found[0] == pytest.approx(0.73 / 3)
    assert found[1] == pytest.approx(1 - 0.73 / 0.6875)


def test_skill__rows_that_were_not_followed_are_not_counted() -> None:
    """A node watched for 2 h says nothing about 3 h, even if it is known to have left: only the long-followed count."""
    short = replace(outcomes([0, 2, 1], [1, 0, 0]), followed_hours=np.array([2.0, 99.0, 99.0]))
    ibs, _ = integrated_brier_skill(np.full((3, 2), 0.5), short)
    assert ibs == pytest.approx(0.25)
    # At 3 h one row is known, and it stayed: the marginal curve is exact there. At 1 h: ⅔ · ⅓ = 2/9 over one hour.
    assert integrated_brier_skill(np.full((3, 2), 0.5), short)[1] == pytest.approx(1 - 0.25 * 3 / (2 / 9))


def test_scores__calibration_of_each_edge() -> None:
    """P(gone) = 0.2 where a fifth leaves by 1 h, but 0.4 where half has left by 3 h: errors 0 and 0.1, mean 0.05."""
    rows = outcomes([0] * 2 + [1] * 3 + [2] * 5, [1] * 2 + [2] * 3 + [0] * 5)
    found = survival_scores(np.tile([0.8, 0.6], (10, 1)), rows)
    assert found["ece_1h"] == pytest.approx(0.0, abs=1e-12)
    assert found["ece_3h"] == pytest.approx(0.1)
    assert found["ece"] == pytest.approx(0.05)
    assert np.isnan(found["calibration_slope_1h"])  # one forecast has no slope


def test_scores__slope_of_forecasts_twice_too_sure() -> None:
    """Log-odds of leaving doubled: the slope that sets them right is ½, at each edge and over both."""
    rng = np.random.default_rng(0)
    true = rng.normal(0.0, 1.0, 40_000)
    gone = rng.random(len(true)) < 1 / (1 + np.exp(-true))
    rows = outcomes(np.where(gone, 0, 2).tolist(), np.where(gone, 1, 0).tolist())
    survival = np.repeat((1 / (1 + np.exp(2.0 * true)))[:, None], 2, axis=1)
    found = survival_scores(survival, rows)
    for name in ("calibration_slope", "calibration_slope_1h", "calibration_slope_3h"):
        assert found[name] == pytest.approx(0.5, abs=0.02)


def test_edge_name__minutes_below_an_hour() -> None:
    """A metric is named once; 5/60 h must not become 0.0833333h."""
    assert [edge_name(hours) for hours in (5 / 60, 0.25, 1.0, 48.0)] == ["5min", "15min", "1h", "48h"]


def test_concordance__by_hand() -> None:
    """Three nodes: the first left by edge 1, the others stayed; one of them was called less safe than it: C = ½."""
    survival = np.array([[0.5, 0.5], [0.9, 0.9], [0.1, 0.1]])
    assert concordance(survival, outcomes([0, 2, 2], [1, 0, 0]), pairs=20_000) == pytest.approx(0.5, abs=0.02)


def test_differences__equal_methods_differ_by_nothing() -> None:
    """Resampling is paired: the same forecasts under two names have the interval 0 to 0."""
    rows = outcomes([0, 1, 2, 2] * 20, [1, 2, 0, 0] * 20)
    said = (np.random.default_rng(0).uniform(0.5, 1.0, (80, 1)) * np.ones(2),)
    found = paired_differences({"a": said, "b": said}, rows, {"b": "b"})
    for key in ("ibss_minus_b", "ibss_minus_b_low", "ibss_minus_b_high", "nll_minus_b", "nll_minus_b_high"):
        assert found["a"][key] == pytest.approx(0.0, abs=1e-12)
        assert found["b"][key] == 0.0


def test_differences__the_interval_of_nll_is_the_block_bootstrap_over_nodes() -> None:
    """Two independent codes for one quantity: the paired mean difference when whole nodes are drawn again."""
    rng = np.random.default_rng(1)
    left = rng.random(600) < 0.4
    rows = outcomes(np.where(left, 0, 2).tolist(), np.where(left, 1, 0).tolist(), (np.arange(600) // 10).tolist())
    a, b = (rng.uniform(0.3, 0.9, (600, 1)) * np.ones(2) for _ in range(2))
    found = paired_differences({"a": (a,), "b": (b,)}, rows, {"b": "b"})["a"]
    low, high = block_bootstrap_interval(losses(a, rows) - losses(b, rows), rows.node, seed=5)
    assert found["nll_minus_b"] == pytest.approx(float(np.mean(losses(a, rows) - losses(b, rows))))
    assert found["nll_minus_b_low"] == pytest.approx(low, abs=0.1 * (high - low))
    assert found["nll_minus_b_high"] == pytest.approx(high, abs=0.1 * (high - low))


def test_differences__seeds_are_averaged_and_their_noise_is_told() -> None:
    """Seeds with IBSS x and y against one reference: the mean of both differences, and |x − y| / √2 as deviation."""
    rows = outcomes([0, 1, 2, 2] * 10, [1, 2, 0, 0] * 10)
    runs = tuple(np.tile(values, (40, 1)) for values in ([0.9, 0.6], [0.7, 0.5]))
    reference = (np.tile([0.75, 0.5], (40, 1)),)
    found = paired_differences({"ours": runs, "marginal": reference}, rows, {"marginal": "marginal"})["ours"]
    first, second = (integrated_brier_skill(run, rows)[1] for run in runs)
    assert found["ibss_minus_marginal"] == pytest.approx((first + second) / 2)  # the marginal curve has skill 0
    assert found["ibss_minus_marginal_seed_sd"] == pytest.approx(abs(first - second) / np.sqrt(2))


def test_evaluate__a_planted_perfect_method_wins() -> None:
    """Who knows the future has skill 1, and its whole interval lies above every other method."""
    history = restless()
    methods: list[ForecastsChurn] = [Oracle(history), Says((0.8, 0.5))]
    rows = by_name(evaluate(methods, history, every_hours=5.0, reference="says", **WINDOW))
    assert rows["oracle"]["ibss"] == pytest.approx(1.0)
    assert rows["oracle"]["ibss_minus_reference_low"] > 0.5
    assert rows["oracle"]["nll_minus_reference_high"] < 0.0
    assert rows["says"]["ibss_minus_reference"] == 0.0
    assert rows["oracle"]["concordance"] == 1.0


def test_evaluate__strata_and_their_worst_class() -> None:
    """Classes, locations, unseen and young nodes are rows of their own; "all" names the worst calibrated class."""
    history = restless(40)
    late = replace(
        history,
        observed_from_us=np.where(np.arange(40) < 30, 0, 40 * HOUR_US),
        location=np.array([f"place{i % 13}" for i in range(39)] + ["unknown"], dtype=object),
    )
    rows = evaluate([Says((0.8, 0.5), even=0.15)], late, every_hours=5.0, trained_until_us=30 * HOUR_US, **WINDOW)
    strata = {row["stratum"]: row for row in rows}
    assert {"all", "class:home", "class:phone", "unseen", "young", "location:other", "location:unknown"} <= set(strata)
    # Thirteen places, the ten largest by name: 39 nodes, three each, so three places are "other".
    assert sum(name.startswith("location:place") for name in strata) == 10
    assert strata["class:home"]["n"] + strata["class:phone"]["n"] == strata["all"]["n"]
    assert 0 < strata["young"]["n"] < strata["unseen"]["n"] < strata["all"]["n"]
    assert strata["unseen"]["nodes"] <= 10
    worst = max(strata["class:home"]["ece"], strata["class:phone"]["ece"])
    assert strata["all"]["ece_worst_class"] == worst
    assert "ece_worst_class" not in strata["young"]


def test_evaluate__the_best_markov_peer_is_chosen_with_hindsight() -> None:
    """Two peers of the family: differences are against the one with more skill, whoever that is."""
    history = restless()
    methods: list[ForecastsChurn] = [
        Says((0.7, 0.4), "ours"),
        Says((0.3, 0.1), "weibull"),
        Says((0.77, 0.48), "life_table"),
    ]
    scored = score_rows(methods, history, every_hours=5.0, **WINDOW)
    assert best_markov_peer(scored) == "life_table"
    rows = by_name(comparison_rows(scored, {"all": strata_of(history)["all"]}, references={"markov": BEST_MARKOV_PEER}))
    assert rows["life_table"]["ibss_minus_markov"] == 0.0
    assert rows["ours"]["ibss_minus_markov"] == pytest.approx(rows["ours"]["ibss"] - rows["life_table"]["ibss"])
    with pytest.raises(ValueError, match=r"references among \['life_table', 'ours', 'weibull'\], got \['us'\]"):
        comparison_rows(scored, {}, references={"us": "us"})


def test_evaluate__methods_of_one_name_are_seeds() -> None:
    """Two trainings are one row with their mean; a single one beside them is a method without seeds."""
    history = restless()
    seeds: list[ForecastsChurn] = [Says((0.8, 0.5), "ours"), Says((0.7, 0.4), "ours"), Says((0.75, 0.45), "other")]
    rows = by_name(evaluate(seeds, history, every_hours=5.0, **WINDOW))
    alone = [by_name(evaluate([one], history, every_hours=5.0, **WINDOW))["ours"] for one in seeds[:2]]
    assert (rows["ours"]["seeds"], rows["other"]["seeds"]) == (2, 1)
    assert rows["ours"]["nll"] == pytest.approx((alone[0]["nll"] + alone[1]["nll"]) / 2)
    assert rows["ours"]["nll_sd"] == pytest.approx(abs(alone[0]["nll"] - alone[1]["nll"]) / np.sqrt(2))
    assert np.isnan(rows["other"]["nll_sd"])
    with pytest.raises(ValueError, match=r"equally many seeds .* got \{'ours': 2, 'other': 3\}"):
        evaluate([*seeds, *[Says((0.6, 0.5), "other")] * 2], history, **WINDOW)


def test_pool__folds_are_the_whole() -> None:
    """Scoring every second node and then the others gives the rows of scoring all, only in another order."""
    history = restless()
    method = Says((0.8, 0.5))
    index = [np.arange(0, 40, 2), np.arange(1, 40, 2)]
    parts = [score_rows([method], history.select(history.nodes[i]), every_hours=5.0, **WINDOW) for i in index]
    pooled = comparison_rows(pool(parts, index), strata_of(history), references={"says": "says"})
    whole = comparison_rows(
        score_rows([method], history, every_hours=5.0, **WINDOW), strata_of(history), references={"says": "says"}
    )
    assert {row["stratum"] for row in pooled} == {row["stratum"] for row in whole} == {
        "all", "class:home", "class:phone",
    }  # fmt: skip
    for one, other in zip(pooled, whole, strict=True):
        for key in ("n", "nodes", "departures", "nll", "ibss", "ece", "availability_brier"):
            assert one[key] == pytest.approx(other[key])


def test_between__parts_of_the_window_make_the_whole() -> None:
    """Each origin belongs to one part, with its rows of nodes that are down."""
    scored = score_rows([Says((0.8, 0.5))], restless(), every_hours=5.0, **WINDOW)
    parts = [scored.between(a * HOUR_US, b * HOUR_US) for a, b in ((24, 44), (44, 72))]
    assert sum(len(part.outcomes) for part in parts) == len(scored.outcomes)
    assert sum(len(part.all_nodes) for part in parts) == len(scored.all_nodes)
    assert set(np.unique(parts[0].outcomes.at_us) // HOUR_US) == {24, 29, 34, 39}


def test_holes__origins_without_an_observer_are_left_out() -> None:
    """The observer is away from hour 40 to 60 and finds everyone as before: nobody was seen then, nothing is scored."""
    history = restless(200)
    moved = np.where((history.start_us > 40 * HOUR_US) & (history.start_us < 60 * HOUR_US), 60 * HOUR_US, 0)
    ends = (history.end_us > 40 * HOUR_US) & (history.end_us < 60 * HOUR_US)
    away = replace(
        history,
        start_us=np.maximum(history.start_us, moved),
        end_us=np.where(ends, 40 * HOUR_US, history.end_us),
        end_upper_us=np.where(ends, 60 * HOUR_US, history.end_upper_us),
    )
    kept = np.flatnonzero(away.start_us < away.end_us)
    offsets = np.searchsorted(away.node_of_session[kept], np.arange(201))
    away = replace(
        away, offsets=offsets,
        **{name: getattr(away, name)[kept] for name in ("start_us", "end_us", "end_upper_us", "censored")},
    )  # fmt: skip
    assert observation_holes(history) == []
    assert [(a // HOUR_US, b // HOUR_US) for a, b in observation_holes(away)] == [(40, 60)]
    scored = score_rows([Says((0.8, 0.5))], away, every_hours=5.0, start_us=24 * HOUR_US, end_us=72 * HOUR_US)
    assert sorted(set(scored.outcomes.at_us // HOUR_US)) == [24, 29, 34, 39, 64, 69]


def test_holes__a_quiet_small_fleet_has_none() -> None:
    """Two machines that stay for days are not an absent observer: nobody was expected to move."""
    quiet = fleet({"a": [(0.0, 200.0)], "b": [(3.0, 90.0), (100.0, 200.0)]}, until=200.0)
    assert observation_holes(quiet) == []
    assert observation_holes(fleet({"a": []}, until=9.0)) == []


def test_evaluate__mistakes_are_told() -> None:
    """No method, edges that differ, and a window before anyone was there."""
    history = restless(3)

    @dataclass(frozen=True)
    class Other(Says):
        @property
        def edges_hours(self) -> Float64:
            return np.array([1.0, 4.0])

    with pytest.raises(ValueError, match="at least one method, got none"):
        evaluate([], history, **WINDOW)
    with pytest.raises(ValueError, match=r"equal edges_hours, got \[\[1.0, 3.0\], \[1.0, 4.0\]\]"):
        evaluate([Says((0.5, 0.5)), Other((0.5, 0.5), "other")], history, **WINDOW)
    with pytest.raises(ValueError, match="No node was up at any observed origin"):
        evaluate([Says((0.5, 0.5))], history, start_us=-2 * DAY_US, end_us=-DAY_US)
