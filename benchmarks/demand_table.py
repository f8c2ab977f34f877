"""Tables of the demand benchmark: every method, every day, ratios with intervals, and which goals are met.

The best simple baseline is the best on the test window itself, with hindsight, for each horizon and metric: nobody can
say that a weak one was picked. Our own prior is not counted among the simple ones; it has rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.lightgbm_peer import PLAIN
from models.demand.comparison import difference_rows
from models.demand.evaluation import OriginScore, metric_rows
from models.demand.scores import RATIOS
from models.events import DAY_US

OURS, PRIOR = "ours", "linear Hawkes + content + Markov flow"
PEERS = ("gradient boosting", "lightgbm")
SHOWN = (
    "wape", "wape_median", "rmse", "nll", "scaled_pinball", "interval_80_pit", "top5_captured", "top20_captured",
    "top100_captured", "largest_over_prior",
)  # fmt: skip
STRATA = ("all", "busy", "head", "torso", "tail", "new content", "young content", "old content", "new cell")
SIMPLE = "best simple baseline"
EWMA = "best EWMA"
CHOSEN: dict[str, Callable[[str], bool]] = {
    SIMPLE: lambda name: name not in (OURS, PRIOR) and not name.startswith(PEERS),
    EWMA: lambda name: name.startswith("EWMA"),
}
"""References that are the best of several methods on the test window."""


@dataclass(frozen=True)
class Goal:
    """A limit on our metric, or on its ratio to that of a reference."""

    horizon_hours: int
    metric: str
    limits: tuple[float, float]
    reference: str = ""
    stratum: str = "all"

    @property
    def words(self) -> str:
        low, high = self.limits
        of = f" / {self.reference}" if self.reference else ""
        where = "" if self.stratum == "all" else f" ({self.stratum})"
        bounds = (
            f"<= {high:g}" if low == float("-inf") else f">= {low:g}" if high == float("inf") else f"{low:g}..{high:g}"
        )
        return f"{self.horizon_hours:>2} h  {self.metric}{of}{where} {bounds}"


def _at_most(limit: float) -> tuple[float, float]:
    return float("-inf"), limit


def _at_least(limit: float) -> tuple[float, float]:
    return limit, float("inf")


GOALS = (
    Goal(1, "wape", _at_most(0.84), SIMPLE),
    Goal(1, "wape", _at_most(0.89), PLAIN),
    Goal(1, "scaled_pinball", _at_most(0.79), SIMPLE),
    Goal(1, "scaled_pinball", _at_most(0.85), PLAIN),
    Goal(1, "top20_captured", _at_least(0.92)),
    *(
        goal
        for hours in (6, 24)
        for goal in (
            Goal(hours, "scaled_pinball", _at_most(0.90), PLAIN),
            Goal(hours, "rmse", _at_most(1.0), PLAIN),
            Goal(hours, "largest_over_prior", _at_most(10.0)),
        )
    ),
    Goal(6, "top20_captured", _at_least(0.86)),
    *(
        goal
        for hours in (1, 6, 24)
        for goal in (
            Goal(hours, "wape", _at_most(1.0), EWMA, "new content"),
            Goal(hours, "nll", _at_most(1.0), EWMA, "new content"),
            Goal(hours, "interval_80_pit", (0.77, 0.83)),
            Goal(hours, "interval_80_pit", (0.77, 0.83), stratum="busy"),
        )
    ),
)


@dataclass(frozen=True)
class Told:
    """Text for a reader and rows for a programme."""

    text: str
    rows: dict[str, Any]


def tell(days: Sequence[Sequence[OriginScore]], series: Sequence[OriginScore], *, seed: int) -> Told:
    """Pools the days and judges the goals on them together and on each."""
    windows = {"all days": [score for day in days for score in day]}
    windows |= {f"day {k}": list(day) for k, day in enumerate(days)} if len(days) > 1 else {}
    rows = {name: _rows(scores) for name, scores in windows.items()}
    goals = [goal for goal in GOALS if any(row["horizon_hours"] == goal.horizon_hours for row in rows["all days"])]
    judged = [
        {"goal": goal.words, "window": name, **_judged(goal, scores, rows[name], seed=seed)}
        for goal in goals
        for name, scores in windows.items()
    ]
    ratios = difference_rows(windows["all days"], reference=OURS, seed=seed)
    sampled = _rows(series)
    lines = [
        *_metric_lines(rows["all days"], "all", "all days, all cells"),
        *(
            line
            for name in list(windows)[1:]
            for line in _metric_lines(rows[name], "all", f"{name}, all cells", few=True)
        ),
        *_strata_lines(rows["all days"]),
        *_ratio_lines(windows["all days"], seed=seed),
        *(_metric_lines(sampled, "all", "sampled active series, same rows") if sampled else ()),
        *_goal_lines(judged, list(windows)),
    ]
    everything = [{"part": name, **row} for name, part in rows.items() for row in part]
    return Told("\n".join(lines), {"rows": everything, "series": sampled, "ratios": ratios, "goals": judged})


def _rows(scores: Sequence[OriginScore]) -> list[dict[str, Any]]:
    if not scores:
        return []
    start_us = min(score.origin_us for score in scores) // DAY_US * DAY_US
    end_us = (max(score.origin_us for score in scores) // DAY_US + 1) * DAY_US
    return metric_rows(scores, start_us=start_us, end_us=end_us)


def best_of(rows: Sequence[dict[str, Any]], goal: Goal) -> str:
    """The reference's name: itself, or with hindsight the best of its kind on the goal's metric."""
    if goal.reference not in CHOSEN:
        return goal.reference
    sign = -1.0 if RATIOS[goal.metric].higher_is_better else 1.0
    among: dict[str, float] = {
        row["model"]: sign * row[goal.metric]
        for row in rows
        if (row["horizon_hours"], row["stratum"]) == (goal.horizon_hours, goal.stratum)
        and row[goal.metric] is not None
        and CHOSEN[goal.reference](row["model"])
    }
    return min(among, key=lambda name: among[name], default="")


def _judged(goal: Goal, scores: Sequence[OriginScore], rows: Sequence[dict[str, Any]], *, seed: int) -> dict[str, Any]:
    """Value, interval where there is one, and whether the goal is met; a ratio must also differ from 1 for certain."""
    here = [s for s in scores if (s.horizon_hours, s.stratum) == (goal.horizon_hours, goal.stratum)]
    low, high = goal.limits
    if not goal.reference:
        own = next((r for r in _rows(here) if r["model"] == OURS), None)
        value = None if own is None else own[goal.metric]
        return {"value": value, "met": value is not None and low <= value <= high}
    name = best_of(rows, goal)
    pair = [s for s in here if s.model in (OURS, name)]
    scored = {s.model for s in pair} == {OURS, name}
    found = difference_rows(pair, reference=name, metrics=(goal.metric,), seed=seed) if scored else []
    if not found:
        return {"value": None, "met": False, "reference": name}
    row = found[0]
    sure = row["ratio_high"] < 1.0 or high >= 1.0
    ends = {"low": row["ratio_low"], "high": row["ratio_high"]}
    return {"value": row["ratio"], **ends, "met": low <= row["ratio"] <= high and sure, "reference": name}


# ---- words


def _metric_lines(rows: Sequence[dict[str, Any]], stratum: str, title: str, *, few: bool = False) -> Iterator[str]:
    shown = [row for row in rows if row["stratum"] == stratum]
    for hours in dict.fromkeys(row["horizon_hours"] for row in shown):
        here = [row for row in shown if row["horizon_hours"] == hours]
        if few:
            here = [row for row in here if row["model"] == OURS or row["model"] in (PRIOR, PLAIN)]
        yield f"\n{title}, next {hours} h, {here[0]['n']:,} cells, {here[0]['demand'] or 0:,.0f} requests"
        yield " | ".join([f"{'':<40}", *(f"{name:>9.9}" for name in SHOWN)])
        for row in here:
            yield " | ".join([f"{row['model']:<40.40}", *(_number(row[name]) for name in SHOWN)])


def _strata_lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    shown = ("wape", "nll", "scaled_pinball", "interval_80_pit")
    yield "\nerror by stratum, ours against our prior, the best EWMA by error and lightgbm: " + ", ".join(shown)
    for hours in dict.fromkeys(row["horizon_hours"] for row in rows):
        for stratum in dict.fromkeys(
            row["stratum"] for row in rows if row["stratum"] not in ("other", "location total")
        ):
            ewma = best_of(rows, Goal(hours, "wape", _at_most(1.0), EWMA, stratum))
            for row in rows:
                if (row["horizon_hours"], row["stratum"]) == (hours, stratum) and row["model"] in (
                    OURS,
                    PRIOR,
                    PLAIN,
                    ewma,
                ):
                    numbers = " | ".join(_number(row[name]) for name in shown)
                    yield f"{hours:>2} h  {stratum:<16} {row['model']:<40.40} {numbers}"


def _ratio_lines(scores: Sequence[OriginScore], *, seed: int) -> Iterator[str]:
    yield "\nours / each method, all cells, with 95 % intervals over blocks of origins"
    everywhere = [score for score in scores if score.stratum == "all"]
    for name in dict.fromkeys(score.model for score in everywhere):
        if name == OURS:
            continue
        pair = [score for score in everywhere if score.model in (OURS, name)]
        for row in difference_rows(pair, reference=name, metrics=("wape", "rmse", "nll", "scaled_pinball"), seed=seed):
            yield (
                f"{row['horizon_hours']:>2} h  {name:<40.40} {row['metric']:<15} {row['ratio']:.3f} "
                f"[{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
            )


def _goal_lines(judged: Sequence[dict[str, Any]], windows: Sequence[str]) -> Iterator[str]:
    yield "\ngoals: on all days, with the interval, and by day"
    for words in dict.fromkeys(row["goal"] for row in judged):
        by_window = {row["window"]: row for row in judged if row["goal"] == words}
        whole = by_window[windows[0]]
        interval = f" [{whole['low']:.3f}, {whole['high']:.3f}]" if "low" in whole else ""
        against = f" against {whole['reference']}" if "reference" in whole else ""
        days = " ".join(
            f"{_number(by_window[name]['value']).strip()}{'' if by_window[name]['met'] else '!'}"
            for name in windows[1:]
        )
        state = "met   " if all(row["met"] for row in by_window.values()) else "MISSED"
        yield f"{state} {words}: {_number(whole['value']).strip()}{interval}{against}; {days}".rstrip("; ")


def _number(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.4f}" if abs(value) < 1000 else f"{value:9.3g}"
