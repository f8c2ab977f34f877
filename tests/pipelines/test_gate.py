"""The gate: who may become champion, with every reason in numbers."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import GateSettings
from pipelines.errors import ConfigError
from pipelines.evaluate import Evaluation
from pipelines.gate import Verdict, judge


def evaluation(
    scores: dict[str, dict[str, float | None]], gains: dict[tuple[str, str], tuple[float, float]] | None = None
) -> Evaluation:
    """Scores by model and metric; gains of a model over the candidate by (model, metric) as an interval."""
    rows: list[dict[str, Any]] = [{"model": name, "stratum": "all", **values} for name, values in scores.items()]
    differences = [
        {"model": model, "metric": metric, "stratum": "all", "gain": (low + high) / 2, "low": low, "high": high}
        for (model, metric), (low, high) in (gains or {}).items()
    ]
    return Evaluation(rows, differences, 0.0)


def verdict(
    scores: dict[str, dict[str, float | None]],
    gains: dict[tuple[str, str], tuple[float, float]] | None = None,
    *,
    metric: str = "wape",
    **settings: Any,
) -> Verdict:
    return judge(evaluation(scores, gains), metric=metric, settings=GateSettings(**settings), horizon_hours=None)


def test_judge__clearly_better_passes() -> None:
    """Error 0.4 against 0.5, the champion's gain in [-0.12, -0.08]: better by 16 % to 24 %, all above 0."""
    found = verdict({"candidate": {"wape": 0.4}, "champion": {"wape": 0.5}}, {("champion", "wape"): (-0.12, -0.08)})
    assert found.passed
    relative = found.changes[0].relative
    assert relative.low is not None
    assert relative.high is not None
    assert (relative.value, relative.low, relative.high) == pytest.approx((0.2, 0.16, 0.24))
    assert found.sentence == "wape 0.4, better than champion (0.5)"
    assert "+20.0% [+16.0%, +24.0%]" in found.reasons[0]


def test_judge__an_interval_across_the_tolerance_is_refused() -> None:
    """Better on average, but perhaps 4 % worse: chance is not enough, unless that much is tolerated."""
    scores: dict[str, dict[str, float | None]] = {"candidate": {"wape": 0.49}, "champion": {"wape": 0.5}}
    gains = {("champion", "wape"): (-0.04, 0.02)}
    assert not verdict(scores, gains).passed
    assert verdict(scores, gains).changes[0].state == "refused"
    assert verdict(scores, gains, tolerance=0.05).passed


def test_judge__where_higher_is_better_signs_turn() -> None:
    """Mean reciprocal rank 0.5 against 0.4; the champion's gain over the candidate is negative throughout."""
    scores: dict[str, dict[str, float | None]] = {"candidate": {"mrr_at_20": 0.5}, "champion": {"mrr_at_20": 0.4}}
    assert verdict(scores, {("champion", "mrr_at_20"): (-0.12, -0.08)}, metric="mrr_at_20").passed
    worse: dict[str, dict[str, float | None]] = {"candidate": {"mrr_at_20": 0.4}, "champion": {"mrr_at_20": 0.5}}
    assert not verdict(worse, {("champion", "mrr_at_20"): (0.08, 0.12)}, metric="mrr_at_20").passed


def test_judge__a_guard_refuses_what_the_deciding_metric_would_pass() -> None:
    """20 % better on average error and 10 % worse on likelihood: with 5 % tolerated there, refused; with 15 %, passed."""
    scores: dict[str, dict[str, float | None]] = {
        "candidate": {"wape": 0.4, "nll": 1.1},
        "champion": {"wape": 0.5, "nll": 1.0},
    }
    gains = {("champion", "wape"): (-0.12, -0.08)}
    refused = verdict(scores, gains, guards={"nll": 0.05})
    assert not refused.passed
    assert [c.state for c in refused.changes] == ["better", "refused"]
    assert verdict(scores, gains, guards={"nll": 0.15}).passed


def test_judge__a_first_version_must_beat_the_best_baseline() -> None:
    """Better than one baseline and worse than another is not better than nothing."""
    scores: dict[str, dict[str, float | None]] = {
        "candidate": {"wape": 0.5},
        "weak": {"wape": 0.9},
        "undefined": {"wape": None},
        "strong": {"wape": 0.45},
    }
    found = verdict(scores, {("strong", "wape"): (0.04, 0.06), ("weak", "wape"): (-0.5, -0.3)})
    assert found.opponent == "strong"
    assert not found.passed


def test_judge__a_champion_is_the_opponent_even_where_a_baseline_is_better() -> None:
    """The question is whether to replace what serves."""
    scores: dict[str, dict[str, float | None]] = {
        "candidate": {"wape": 0.4},
        "champion": {"wape": 0.5},
        "baseline": {"wape": 0.3},
    }
    found = verdict(scores, {("champion", "wape"): (-0.12, -0.08)})
    assert (found.opponent, found.passed) == ("champion", True)


def test_judge__no_difference_is_no_reason_to_change() -> None:
    """The same model again stays a candidate."""
    scores: dict[str, dict[str, float | None]] = {"candidate": {"wape": 0.5}, "champion": {"wape": 0.5}}
    assert not verdict(scores, {("champion", "wape"): (0.0, 0.0)}).passed


@pytest.mark.parametrize("value", [None, float("nan")])
def test_judge__an_undefined_score_proves_nothing(value: float | None) -> None:
    """Neither as the deciding metric nor as a guard."""
    deciding: dict[str, dict[str, float | None]] = {"candidate": {"wape": value}, "champion": {"wape": 0.5}}
    assert not verdict(deciding).passed
    guard: dict[str, dict[str, float | None]] = {
        "candidate": {"wape": 0.4, "nll": value},
        "champion": {"wape": 0.5, "nll": 1.0},
    }
    assert not verdict(guard, {("champion", "wape"): (-0.12, -0.08)}, guards={"nll": 0.5}).passed


def test_judge__an_unknown_metric_is_a_mistake_in_the_configuration() -> None:
    """Named with those that there are, and not a fault of the program; a target has no better side."""
    scores: dict[str, dict[str, float | None]] = {"candidate": {"wape": 0.4, "coverage_80": 0.8}, "b": {"wape": 0.5}}
    with pytest.raises(ConfigError, match=r"'wap' is no metric of this model; allowed: wape"):
        verdict(scores, metric="wap")
    with pytest.raises(ConfigError, match="'coverage_80' is no metric"):
        verdict(scores, guards={"coverage_80": 0.1})


def test_settings__a_limit_is_a_share() -> None:
    """5 for 5 % would let everything pass; a negative one nothing. Both are named."""
    with pytest.raises(
        ValueError, match=r"Expected tolerance in \[0, 1\), got 5\. Expected guards\.nll in \[0, 1\), got -0\.1"
    ):
        GateSettings(tolerance=5, guards={"nll": -0.1})
