"""The gate: may this candidate become champion?

The candidate passes when, on the test window and on the metric that decides, it gains on its opponent (the champion, or
for a first version the best baseline) and the interval of the gain stays above the tolerated loss; and when no guarded
metric loses more than it may. Every reason carries its numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from models.changes import Change, State
from models.metrics import METRICS
from models.quantities import Estimate, Kind
from pipelines.config import GateSettings
from pipelines.errors import ConfigError
from pipelines.evaluate import Evaluation

CANDIDATE, CHAMPION = "candidate", "champion"
HIGHER_IS_BETTER = {name: metric.higher_is_better for name, metric in METRICS.items() if metric.target is None} | {
    "wape_median": False,
    "recall_at_1": True,
    "recall_at_5": True,
    "recall_at_10": True,
    "ece_top1": False,
    "recall_at_20": True,
    "mrr_at_20": True,
    "ibs": False,
    "ibss": True,
    "concordance": True,
    "ece": False,
    "availability_brier": False,
}
"""The columns that may decide or guard. Those with a target (coverage, calibration slope) are for people to read."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        passed: whether the candidate may be promoted.
        opponent: what it was compared with.
        sentence: the outcome in one sentence.
        reasons: each with number, interval and limit.
        changes: candidate against opponent, a row for each metric that was looked at.
    """

    passed: bool
    opponent: str
    sentence: str
    reasons: tuple[str, ...]
    changes: tuple[Change, ...]


def judge(
    evaluation: Evaluation,
    *,
    metric: str,
    settings: GateSettings,
    horizon_hours: int | None,
) -> Verdict:
    """Compares `candidate` with `champion`, or where there is none with the best other method on `metric`.

    Raises:
        ConfigError: a metric that the evaluation does not hold, or that has no direction.
    """
    rows = {row["model"]: row for row in evaluation.overall(horizon_hours=horizon_hours)}
    _check_metrics([metric, *settings.guards], rows[CANDIDATE])
    opponent = CHAMPION if CHAMPION in rows else _best(rows, metric)
    checked = [(metric, settings.tolerance), *settings.guards.items()]
    changes = [
        _change(evaluation, rows, name, tolerated, opponent=opponent, horizon_hours=horizon_hours)
        for name, tolerated in checked
    ]
    deciding = changes[0]
    passed = deciding.relative.value > -settings.tolerance and all(c.state != "refused" for c in changes)
    reasons = tuple(_reason(change) for change in changes)
    word = "better than" if deciding.state == "better" else "not clearly better than"
    sentence = f"{deciding.outcome} {deciding.candidate:.4g}, {word} {opponent} ({deciding.champion:.4g})"
    return Verdict(passed, opponent, sentence, reasons, tuple(changes))


def _check_metrics(names: list[str], row: dict[str, Any]) -> None:
    known = [name for name in HIGHER_IS_BETTER if name in row]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            [f"gate: {name!r} is no metric of this model; allowed: {', '.join(known)}." for name in unknown]
        )


def _best(rows: dict[str, dict[str, Any]], metric: str) -> str:
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    scores = {name: sign * _score(row, metric) for name, row in rows.items() if name not in (CANDIDATE, CHAMPION)}
    return min(scores, key=lambda name: math.inf if math.isnan(scores[name]) else scores[name])


def _score(row: dict[str, Any], metric: str) -> float:
    """NaN where the evaluation left a score undefined."""
    value = row[metric]
    return math.nan if value is None else float(value)


def _change(
    evaluation: Evaluation,
    rows: dict[str, dict[str, Any]],
    metric: str,
    tolerated: float,
    *,
    opponent: str,
    horizon_hours: int | None,
) -> Change:
    """Differences are measured against the candidate, so gains of the opponent are turned round."""
    candidate, champion = _score(rows[CANDIDATE], metric), _score(rows[opponent], metric)
    higher = HIGHER_IS_BETTER[metric]
    found = next(
        (
            d
            for d in evaluation.differences
            if d["model"] == opponent
            and d["metric"] == metric
            and d["stratum"] == "all"
            and (horizon_hours is None or d.get("horizon_hours") == horizon_hours)
        ),
        None,
    )
    difference = candidate - champion
    # `low..high` bound the opponent's gain over the candidate: in the unit of the metric, turned to candidate - opponent.
    ends = (None, None)
    if found is not None:
        turned = sorted((-found["low"], -found["high"]) if higher else (found["low"], found["high"]))
        ends = (min(turned[0], difference), max(turned[1], difference))
    estimate = Estimate(difference, *ends)
    return _judged("Forecast", metric, "score", champion, candidate, estimate, higher, tolerated)


def _judged(
    group: str,
    outcome: str,
    kind: Kind,
    champion: float,
    candidate: float,
    difference: Estimate,
    higher: bool,
    tolerated: float,
) -> Change:
    change = Change(group, outcome, kind, champion, candidate, difference, higher, "unclear", tolerated)
    relative = change.relative
    low = relative.value if relative.low is None else relative.low
    high = relative.value if relative.high is None else relative.high
    state: State = "better" if low > 0 else "worse" if high < 0 else "unclear"
    if not low >= -tolerated:  # an undefined score proves nothing
        state = "refused"
    return Change(group, outcome, kind, champion, candidate, difference, higher, state, tolerated)


def _reason(change: Change) -> str:
    relative = change.relative
    interval = "" if relative.low is None or relative.high is None else f" [{relative.low:+.1%}, {relative.high:+.1%}]"
    limit = 0.0 - (change.tolerated or 0.0)
    return (
        f"{change.outcome}: {change.champion:.4g} to {change.candidate:.4g}, {relative.value:+.1%}{interval} better "
        f"where positive; {change.state_text}; no end of the interval may lie below {limit:.1%}."
    )
