"""Tables of the churn benchmark: every method, every stratum, paired differences, costs, and which goals are met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.churn_worlds import ChurnWorld
from models.churn.evaluation import BEST_MARKOV_PEER, ScoredRows, best_markov_peer, comparison_rows
from models.churn.scores import edge_name
from models.churn.strata import strata_of

OURS, RECALIBRATED, BOOSTING = "churn", "recalibrated", "boosting"
WHOLE = "whole"
MARKOV_GAIN, STRETCH_GAIN = 0.05, 0.08
MOST_ERROR, SLOPES = 0.02, (0.9, 1.1)
_SHOWN = ("ibss", "ibss_sd", "nll", "nll_sd", "concordance", "ece", "ece_chance", "ece_worst_class",
          "calibration_slope", "calibration_slope_worst_class", "availability_brier")  # fmt: skip
_HEADS = ("IBSS", "sd", "NLL", "sd", "C", "ECE", "chance", "worst", "slope", "worst", "avail.")

Row = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """Text for a reader and rows for a programme."""

    text: str
    rows: dict[str, Any]


def tell(world: ChurnWorld, scored: ScoredRows, seconds: Mapping[str, Mapping[str, float]]) -> Told:
    """Judges the whole test window in every stratum, and its parts as wholes."""
    strata = strata_of(world.history, trained_until_us=world.trained_until_us)
    best = best_markov_peer(scored)
    references = ({"markov": BEST_MARKOV_PEER} if best else {}) | (
        {BOOSTING: BOOSTING} if BOOSTING in scored.survival else {}
    )
    rows = comparison_rows(scored, strata, window=WHOLE, references=references)
    few = {name: stratum for name, stratum in strata.items() if name in ("all", "unseen") or name.startswith("class:")}
    for name, (start_us, end_us) in world.windows.items():
        part = scored.between(start_us, end_us)
        if len(part.outcomes):
            rows += comparison_rows(part, few, window=name, references=references)
    goals = list(_goals(rows)) if OURS in scored.survival else []
    lines = [
        *_method_lines(rows, references, best),
        *_stratum_lines(rows, references),
        *_calibration_lines(rows),
        *_edge_lines(rows, [edge_name(hours) for hours in scored.outcomes.edges_hours]),
        *_cost_lines(seconds, scored),
        *_goal_lines(goals),
    ]
    plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    return Told("\n".join(lines), {"best_markov_peer": best, "rows": plain, "goals": goals, "seconds": dict(seconds)})


def _method_lines(rows: Sequence[Row], references: Mapping[str, str], best: str) -> Iterator[str]:
    for window in dict.fromkeys(row["window"] for row in rows):
        here = [row for row in rows if (row["window"], row["stratum"]) == (window, "all")]
        first = here[0]
        against = ", ".join(f"{name} is {best}" if name == "markov" else name for name in references)
        yield f"\n{window}: {first['n']:,} rows of {first['nodes']:,} nodes, {first['departures']:,} departures"
        yield f"skill with 95 % intervals over nodes against: {against}"
        heads = [f"{'method':26} seeds", *(f"{head:>7}" for head in _HEADS), *(f"{name:>25}" for name in references)]
        yield " ".join(heads)
        for row in sorted(here, key=lambda row: -row["ibss"]):
            figures = [_figure(row[name]) for name in _SHOWN]
            differences = [f"{_difference(row, name):>25}" for name in references]
            yield " ".join([f"{row['model']:26} {row['seeds']:5}", *figures, *differences])


def _stratum_lines(rows: Sequence[Row], references: Mapping[str, str]) -> Iterator[str]:
    whole = [row for row in rows if row["window"] == WHOLE and row["model"] == OURS]
    if not whole:
        return
    yield f"\n{OURS} by stratum"
    heads = [f"{head:>8}" for head in ("rows", "nodes", "left")] + [f"{h:>7}" for h in ("IBSS", "C", "ECE", "slope")]
    yield " ".join([f"{'stratum':24}", *heads, *(f"{name:>25}" for name in references)])
    for row in whole:
        counts = [f"{row[name]:8,}" for name in ("n", "nodes", "departures")]
        figures = [_figure(row[name]) for name in ("ibss", "concordance", "ece", "calibration_slope")]
        yield " ".join([f"{row['stratum']:24}", *counts, *figures, *(f"{_difference(row, n):>25}" for n in references)])


def _calibration_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Classes in every window: what recalibration does to them, and what chance alone could have done."""
    yield "\ncalibration: slope with its 95 % interval (over nodes or days, the wider), ECE beside an honest forecast's"
    heads = [
        f"{'window':10} {'stratum':24} {'method':14}",
        f"{'left':>8}",
        f"{'slope':>25}",
        f"{'ECE':>7} {'chance':>7}",
    ]
    yield " ".join(heads)
    for row in rows:
        if row["model"] in (OURS, RECALIBRATED) and row["stratum"].startswith(("all", "class:")):
            slope, low, high = (row[f"calibration_slope{end}"] for end in ("", "_low", "_high"))
            name = f"{row['window']:10} {row['stratum']:24} {row['model']:14} {row['departures']:8,}"
            interval = f"{slope:.3f} [{low:.3f}, {high:.3f}]"
            yield f"{name} {interval:>25} {_figure(row['ece'])} {_figure(row['ece_chance'])}"


def _edge_lines(rows: Sequence[Row], edges: Sequence[str]) -> Iterator[str]:
    for row in rows:
        if row["window"] == WHOLE and row["model"] == OURS and row["stratum"].startswith(("all", "class:")):
            for score in ("ece", "calibration_slope"):
                figures = " ".join(f"{edge} {_figure(row[f'{score}_{edge}']).strip()}" for edge in edges)
                yield f"{row['stratum']:24} {score:18} {figures}"


def _cost_lines(seconds: Mapping[str, Mapping[str, float]], scored: ScoredRows) -> Iterator[str]:
    """Forecasts are of every node of the history, up or down."""
    cells = len(scored.all_nodes) * len(scored.outcomes.edges_hours)
    yield "\nCPU seconds, and microseconds of forecasting a node and edge"
    for name, phases in seconds.items():
        runs = len(scored.survival.get(name, ()))
        each = f"{phases['forecasting'] / (cells * runs) * 1e6:8.2f}" if runs else f"{'-':>8}"
        yield f"{name:26} training {phases['training']:9.1f}   forecasting {phases['forecasting']:9.1f} {each}"


def _goals(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    ours = {(row["window"], row["stratum"]): row for row in rows if row["model"] == OURS}
    whole = ours[WHOLE, "all"]
    for limit, words in ((MARKOV_GAIN, "IBSS over best Markov peer"), (STRETCH_GAIN, "the same, stretch")):
        if "ibss_minus_markov" in whole:
            yield _goal(f"{words} >= {limit:+.2f}", _difference(whole, "markov"), whole["ibss_minus_markov"] >= limit)
    for (window, stratum), row in ours.items():
        if f"ibss_minus_{BOOSTING}" in row and (stratum in ("all", "unseen", "young")):
            sure = not row[f"ibss_minus_{BOOSTING}_high"] < 0.0
            yield _goal(f"not worse than boosting: {window}, {stratum}", _difference(row, BOOSTING), sure)
    for row in rows:
        if (row["window"], row["stratum"]) == (WHOLE, "all") and row["model"] in (OURS, RECALIBRATED):
            error, slope = row["ece_worst_class"], row["calibration_slope_worst_class"]
            yield _goal(f"{row['model']}: ECE of the worst class <= {MOST_ERROR}", f"{error:.4f}", error <= MOST_ERROR)
            met = SLOPES[0] <= slope <= SLOPES[1]
            yield _goal(f"{row['model']}: slope of the worst class in {SLOPES[0]}..{SLOPES[1]}", f"{slope:.3f}", met)


def _goal(words: str, value: str, met: bool) -> dict[str, Any]:
    return {"goal": words, "value": value, "met": bool(met)}


def _goal_lines(goals: Sequence[dict[str, Any]]) -> Iterator[str]:
    if goals:
        yield "\ngoals"
    for goal in goals:
        yield f"{'yes   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['value']}"


def _difference(row: Row, reference: str) -> str:
    key = f"ibss_minus_{reference}"
    return f"{row[key]:+.4f} [{row[f'{key}_low']:+.4f}, {row[f'{key}_high']:+.4f}]"


def _figure(value: float) -> str:
    return f"{'-':>7}" if value != value else f"{value:7.4f}"
