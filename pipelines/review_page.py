"""What a reader sees of a review: the page of the version, and where the candidate loses."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.registry import DESCRIPTION_LIMIT, MODEL_NAMES, ModelVersion
from pipelines.evaluate import Evaluation
from pipelines.gate import CANDIDATE, Verdict
from pipelines.pictures import REPORT, Pictures

CARD = "plots/review_card.svg"
SHOWN_PICTURES = ("forecast", "errors", "survival", "calibration")
"""Of demand, then of churn."""
SHOWN_LOSSES = 8


@dataclass(frozen=True)
class Reviewed:
    """A review before it is written down."""

    candidate: ModelVersion
    champion: ModelVersion | None
    evaluation: Evaluation
    verdict: Verdict
    horizon_hours: int | None
    notes: tuple[str, ...] = ()
    """What a reader should know beside the reasons."""
    pictures: Pictures = field(default_factory=Pictures)
    """Drawings of what the candidate forecast, where there are any."""


def description(reviewed: Reviewed, run_id: str, *, page: str) -> str:
    """The version's page: verdict first, then the card, the reasons, what to do; at most 5,000 characters.

    Pictures give way where they would not fit: they lie among the artefacts of the review run as well.
    """
    drawn = shown_pictures(reviewed.pictures, run_id, page=page)
    text = _description(reviewed, run_id, page=page, drawn=drawn)
    return text if len(text) <= DESCRIPTION_LIMIT else _description(reviewed, run_id, page=page, drawn="")


def _description(reviewed: Reviewed, run_id: str, *, page: str, drawn: str) -> str:
    verdict, candidate = reviewed.verdict, reviewed.candidate
    kind = candidate.name.removeprefix("premirror-")
    heading = "PASS" if verdict.passed else "REFUSED"
    reasons = "\n".join(f"{i}. {reason}" for i, reason in enumerate((*verdict.reasons, *reviewed.notes), 1))
    return f"""**{heading}**: {verdict.sentence}.

Compared on the test window with {verdict.opponent} and every baseline; brackets are 95 % intervals over blocks.
[Every method and stratum]({page})

![{heading}: {verdict.sentence}](get-artifact?path={CARD}&run_uuid={run_id})

**Why**

{reasons}
{figures(reviewed)}{drawn}
**Decide**

`premirror promote {kind} --approver NAME` or leave it. `premirror rollback {kind} --approver NAME --reason WHY` returns.

MLflow's own "Promote model" button copies the version elsewhere; it does not make it serve here.

**Limits**: one test window; see the review run for every stratum and method.
"""


def shown_pictures(pictures: Pictures, run_id: str, *, page: str) -> str:
    """The pictures that a decision needs first, and where all of them are; nothing where there are none."""
    if not pictures.drawn:
        return ""
    shown = [
        f"![{picture.title}. {picture.sentence}](get-artifact?path=plots/{picture.name}.svg&run_uuid={run_id})"
        for picture in pictures.drawn
        if picture.name in SHOWN_PICTURES
    ]
    names = "; ".join(picture.title for picture in pictures.drawn)
    heading = f"**Forecasts** ([all pictures on one page]({page}/artifacts/{REPORT}): {names})"
    return "\n" + "\n\n".join([heading, *shown]) + "\n"


def figures(reviewed: Reviewed) -> str:
    """Chief figures of candidate and opponent, and of its shortlist, where the model ranks contents; else nothing."""
    rows = {row["model"]: row for row in reviewed.evaluation.overall()}
    if reviewed.candidate.name != MODEL_NAMES["next-content"]:
        return ""
    lines = []
    for name in dict.fromkeys((CANDIDATE, reviewed.verdict.opponent)):
        row = rows[name]
        coverage = "" if row["coverage"] is None else f", {row['coverage']:.1%} of what came was on its shortlist"
        lines.append(
            f"- {name}: MRR@20 {row['mrr_at_20']:.4f}, {row['nll']:.4f} nats, calibration error of the first place "
            f"{row['ece_top1']:.4f}{coverage}"
        )
    return "\n".join(["", *lines, ""])


def losses(evaluation: Evaluation, opponent: str, *, metric: str, horizon_hours: int | None) -> list[str]:
    """Where the opponent is better for certain: its gain over the candidate, stratum by stratum, most first."""
    found = [
        d
        for d in evaluation.whole(evaluation.differences)
        if (d["model"], d["metric"]) == (opponent, metric)
        and (horizon_hours is None or d.get("horizon_hours") == horizon_hours)
        and d["stratum"] != "all"
        and d["low"] > 0
    ]
    found.sort(key=lambda d: -d["gain"])
    parts = [f"{d['stratum']} {d['gain']:.3g} [{d['low']:.3g}, {d['high']:.3g}]" for d in found]
    if not parts:
        return []
    return [f"It loses to {opponent} in {len(parts)} of the strata, by {metric}: {'; '.join(parts[:SHOWN_LOSSES])}."]
