"""The figures of the next-content benchmark as people read them: a table for each window, then where the hybrid loses."""

from __future__ import annotations

from typing import Any


def tell(rows: list[dict[str, Any]], gains: list[dict[str, Any]]) -> str:
    """A table for each window, then where the hybrid loses."""
    lines = []
    gain_of = {(gain["window"], gain["reference"], gain["stratum"]): gain for gain in gains}
    for window in dict.fromkeys(row["window"] for row in rows):
        lines.append(
            f"\n{window}\n{'method':<20} MRR@20    R@20     NLL     ECE  coverage    ms   hybrid's MRR over it"
        )
        of_window = [row for row in rows if row["window"] == window and row["stratum"] == "all"]
        for row in sorted(of_window, key=lambda row: -row["mrr_at_20"]):
            figures = (row[name] for name in ("mrr_at_20", "recall_at_20", "nll", "ece_top1"))
            text = " ".join(f"{figure:7.4f}" for figure in figures)
            text += "".join(
                f"{'-' if row[x] is None else format(row[x], '.3f'):>9}" for x in ("coverage", "milliseconds")
            )
            lines.append(f"{row['model']:<19} {text}   {_gain(gain_of.get((window, row['model'], 'all')))}")
    return "\n".join([*lines, "", *_losses(gains)])


def _losses(gains: list[dict[str, Any]]) -> list[str]:
    """Every comparison over all questions where the hybrid is behind, and those of strata where that is sure."""
    behind = [gain for gain in gains if gain["mrr_gain"] < 0 or gain["nll_gain"] < 0]
    told = [
        gain for gain in behind if gain["stratum"] == "all" or gain["mrr_gain_high"] < 0 or gain["nll_gain_high"] < 0
    ]
    head = f"The hybrid is behind in {len(behind)} of {len(gains)} comparisons; those of all questions or that are sure (*):"
    return [head, *(f"  {_loss(gain)}" for gain in told)]


def _gain(gain: dict[str, Any] | None) -> str:
    if gain is None or gain["mrr_gain_percent"] is None:
        return ""
    low, high = gain["mrr_gain_percent_low"], gain["mrr_gain_percent_high"]
    return f"{gain['mrr_gain_percent']:+.2f} % [{low:+.2f}, {high:+.2f}]"


def _loss(gain: dict[str, Any]) -> str:
    behind = [
        f"{name} {gain[f'{name}_gain']:+.4f}{'*' if gain[f'{name}_gain_high'] < 0 else ''}"
        for name in ("mrr", "nll")
        if gain[f"{name}_gain"] < 0
    ]
    return f"{gain['window']} {gain['stratum']} (n = {gain['n']}) against {gain['reference']}: {', '.join(behind)}"
